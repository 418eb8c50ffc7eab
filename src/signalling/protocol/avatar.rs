//! The `avatar` message: a picture of the client as a data URL (RFC 2397), or none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::ProtocolError;
use super::client::bad;

/// Longest image file that a client may give, in bytes.
pub const MAX_AVATAR_FILE: usize = 64 * 1024;

const PREFIXES: [&str; 2] = ["data:image/png;base64,", "data:image/jpeg;base64,"];

/// Reads the file out of the data URL, unchecked. `null` and the empty string are `None`.
///
/// # Errors
/// No data URL of a PNG or JPEG, or one beyond [`MAX_AVATAR_FILE`].
pub fn read(data: &Value) -> Result<Option<Vec<u8>>, ProtocolError> {
    const KIND: &str = "avatar";
    let url = match data {
        Value::Null => return Ok(None),
        Value::String(url) if url.is_empty() => return Ok(None),
        Value::String(url) => url,
        _ => return Err(bad(KIND, "an avatar is a data URL, or null")),
    };
    let encoded = PREFIXES.iter().find_map(|prefix| url.strip_prefix(prefix));
    let encoded =
        encoded.ok_or_else(|| bad(KIND, "an avatar is a data URL of a PNG or a JPEG in base64"))?;
    if encoded.len() / 4 * 3 > MAX_AVATAR_FILE + 2 {
        let problem = format!("an avatar has at most {MAX_AVATAR_FILE} bytes");
        return Err(bad(KIND, &problem));
    }
    let file = STANDARD.decode(encoded);
    file.map(Some)
        .map_err(|error| bad(KIND, &format!("the base64 is broken: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn url(kind: &str, file: &[u8]) -> Value {
        json!(format!(
            "data:image/{kind};base64,{}",
            STANDARD.encode(file)
        ))
    }

    #[test]
    fn a_data_url_holds_the_file() {
        for kind in ["png", "jpeg"] {
            assert_eq!(read(&url(kind, b"file")), Ok(Some(b"file".to_vec())));
        }
        assert_eq!(read(&json!(null)), Ok(None));
        assert_eq!(read(&json!("")), Ok(None));
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        let cases = [
            (url("gif", b"file"), "PNG or a JPEG"),
            (json!("http://127.0.0.1/a.png"), "PNG or a JPEG"),
            (json!("data:image/png;base64,%%%"), "broken"),
            (
                url("png", &vec![0; MAX_AVATAR_FILE + 9]),
                "at most 65536 bytes",
            ),
            (json!({"file": 1}), "a data URL, or null"),
        ];
        for (data, reason) in cases {
            let error = read(&data).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
        let largest = read(&url("png", &vec![0; MAX_AVATAR_FILE]));
        assert_eq!(largest.unwrap().unwrap().len(), MAX_AVATAR_FILE);
    }
}
