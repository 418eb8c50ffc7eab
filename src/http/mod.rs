//! HTTP: the page, the socket's upgrade, and the small interfaces for operators.

pub mod assets;
pub mod guard;
mod metrics;
mod rest;
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use tokio::sync::Semaphore;

use crate::config::MAX_STREAMS;
use crate::room::LayoutError;
use crate::signalling::counters::Refusal;
use crate::signalling::protocol::ProtocolError;
use crate::signalling::session::{self, SessionContext};
use crate::signalling::{JoinQuery, query::QueryError};

/// A longer message than this ends its socket: it is not even skipped.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;

/// What every request handler shares. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// What the sockets share.
    pub session: SessionContext,
    /// One permit for each socket that may be open.
    pub sockets: Arc<Semaphore>,
    /// The number of permits that there were.
    pub max_sockets: usize,
    /// Serves the page instead of the built-in one.
    pub static_dir: Option<Arc<PathBuf>>,
}

/// Decoded pairs of a query. A stray `&` makes no pair.
type Pairs = Query<Vec<(String, String)>>;

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/ws", get(socket))
        .route("/wss", get(socket))
        .route("/create_room", get(rest::create_room))
        .route("/stats", get(rest::stats))
        .route("/rooms/{id}/layout", post(rest::set_layout))
        .route("/healthz", get(rest::health))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(assets::index))
        .route("/{*path}", get(assets::file))
        .layer(middleware::map_response(harden))
        .with_state(app)
}

/// Upgrades to the signalling socket.
async fn socket(
    State(mut app): State<App>,
    Query(pairs): Pairs,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, HttpError> {
    let query = JoinQuery::parse(&pairs)?;
    if *app.session.shutdown.borrow() {
        return Err(HttpError::ShuttingDown);
    }
    let Ok(permit) = app.sockets.clone().try_acquire_owned() else {
        app.session.counters.count(Refusal::TooManySockets);
        return Err(HttpError::TooManySockets);
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    app.session.host = host.map(str::to_owned);
    let largest = MAX_FRAME.max(2 * app.session.options.max_message);
    let upgrade = upgrade.max_message_size(largest).max_frame_size(largest);
    Ok(upgrade.on_upgrade(move |socket| async move {
        session::run(socket, query, app.session).await;
        drop(permit);
    }))
}

/// A request that is refused; its body is `{"error": sentence}`.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Room(#[from] crate::room::manager::RoomError),
    #[error("{key} is a number from 0, for all, to {MAX_STREAMS}: change it or leave it out")]
    Limit { key: &'static str },
    #[error(transparent)]
    Message(#[from] ProtocolError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("there is no room {0:?}")]
    UnknownRoom(String),
    #[error("the server has as many sockets as it takes: try again later")]
    TooManySockets,
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = match self {
            HttpError::Query(_) | HttpError::Message(_) | HttpError::Limit { .. } => {
                StatusCode::BAD_REQUEST
            }
            HttpError::Layout(_) => StatusCode::CONFLICT,
            HttpError::UnknownRoom(_) => StatusCode::NOT_FOUND,
            HttpError::Room(_) | HttpError::TooManySockets | HttpError::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        let body = serde_json::json!({ "error": self.to_string() });
        (status, Json(body)).into_response()
    }
}

/// No browser guesses content types, and no other site frames the page to get at its camera permission.
async fn harden(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
