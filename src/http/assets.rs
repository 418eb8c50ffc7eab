//! The page's files: built into the binary, or from a directory for those who change them.

use std::path::Path as FilePath;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use super::App;

#[derive(RustEmbed)]
#[folder = "static/"]
#[allow_missing = true]
struct Embedded;

const INDEX: &str = "index.html";

/// `/`
pub(super) async fn index(state: State<App>, headers: HeaderMap) -> Response {
    serve(state, headers, INDEX).await
}

/// Everything below it that no other route has.
pub(super) async fn file(state: State<App>, path: Path<String>, headers: HeaderMap) -> Response {
    serve(state, headers, &path).await
}

async fn serve(State(app): State<App>, request: HeaderMap, path: &str) -> Response {
    if !is_plain(path) {
        return not_found();
    }
    match &app.static_dir {
        Some(dir) => from_dir(dir, path).await,
        None => embedded(path, &request),
    }
}

/// No way out of the directory, no hidden files, no other system's separators.
fn is_plain(path: &str) -> bool {
    !path.contains(['\\', '\0', ':'])
        && path
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// File names carry no version, so browsers ask each time and are told that nothing has changed.
fn embedded(path: &str, request: &HeaderMap) -> Response {
    let Some(file) = Embedded::get(path) else {
        return not_found();
    };
    let hash = file.metadata.sha256_hash();
    let hex: String = hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let etag = format!("\"{hex}\"");
    let known = request
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.as_bytes() == etag.as_bytes());
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        content(path, file.data.into_owned())
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

async fn from_dir(dir: &FilePath, path: &str) -> Response {
    match tokio::fs::read(dir.join(path)).await {
        Ok(data) => {
            let mut response = content(path, data);
            let no_store = HeaderValue::from_static("no-store");
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, no_store);
            response
        }
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::debug!(path, %error, "a file of the static directory cannot be read");
            }
            not_found()
        }
    }
}

fn content(path: &str, data: Vec<u8>) -> Response {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    // Everything that is text here is written in UTF-8.
    let is_text =
        mime.type_() == "text" || matches!(mime.subtype().as_str(), "javascript" | "json");
    let kind = if is_text {
        format!("{}; charset=utf-8", mime.essence_str())
    } else {
        mime.essence_str().to_owned()
    };
    ([(header::CONTENT_TYPE, kind)], data).into_response()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "there is no such page\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_looked_up() {
        for plain in ["index.html", "js/main.js"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in [
            "../x",
            "a/../b",
            "/etc/passwd",
            "a//b",
            ".git/config",
            "a\\b",
            "c:x",
            "a\0",
        ] {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn content_types_are_right_for_what_a_page_consists_of() {
        let kind = |path| {
            let response = content(path, Vec::new());
            response.headers()[header::CONTENT_TYPE]
                .to_str()
                .map(str::to_owned)
                .expect("text")
        };
        assert_eq!(kind("index.html"), "text/html; charset=utf-8");
        assert_eq!(kind("js/main.js"), "text/javascript; charset=utf-8");
        assert_eq!(kind("style.css"), "text/css; charset=utf-8");
        assert_eq!(kind("favicon.svg"), "image/svg+xml");
        assert_eq!(kind("font.woff2"), "font/woff2");
        assert_eq!(kind("what"), "application/octet-stream");
    }
}
