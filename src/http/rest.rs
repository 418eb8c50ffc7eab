//! `/create_room`, `/stats`, `/rooms/{id}/layout`, `/healthz`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::{App, HttpError, Pairs};
use crate::config::{MAX_STREAMS, stream_limit};
use crate::room::manager::{DEFAULT_ROOM, VoiceWishes};
use crate::signalling::figures::RoomFigures;
use crate::signalling::protocol::layout;
use crate::signalling::query::{clean_name, room_id, value};
use crate::signalling::session::unix_millis;

/// Makes a room: `room_id: X, room_name: Y`. Without a name the room is called as its id. `audio` and `last_n` say how
/// many sounds and cameras it forwards to each participant; 0: all.
pub(super) async fn create_room(
    State(app): State<App>,
    Query(pairs): Pairs,
) -> Result<String, HttpError> {
    let wishes = VoiceWishes {
        audio: limit(&pairs, "audio")?,
        video: limit(&pairs, "last_n")?,
    };
    let id = app.session.rooms.create(wishes)?;
    let name = value(&pairs, "name").and_then(clean_name);
    Ok(format!(
        "room_id: {id}, room_name: {}",
        name.as_deref().unwrap_or(&id)
    ))
}

fn limit(
    pairs: &[(String, String)],
    key: &'static str,
) -> Result<Option<Option<usize>>, HttpError> {
    let Some(text) = value(pairs, key) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if number as u64 <= MAX_STREAMS => Ok(Some(stream_limit(number))),
        _ => Err(HttpError::Limit { key }),
    }
}

/// A room's figures. The default room exists even while nobody is in it.
pub(super) async fn stats(
    State(app): State<App>,
    Query(pairs): Pairs,
) -> Result<impl IntoResponse, HttpError> {
    let id = room_id(&pairs)?;
    let snapshot = match app.session.rooms.snapshot(&id).await {
        Some(snapshot) => snapshot,
        None if id == DEFAULT_ROOM => Default::default(),
        None => return Err(HttpError::UnknownRoom(id)),
    };
    let figures = RoomFigures::new(&snapshot, unix_millis());
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(figures)))
}

/// How a room's mixed picture is divided: the body is that of the `layout` message. A form of another site cannot send
/// JSON, so no foreign page can ask for it.
pub(super) async fn set_layout(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(body): Json<serde_json::Value>,
) -> Result<StatusCode, HttpError> {
    let wanted = layout::read(body)?;
    match app.session.rooms.set_layout(&id, wanted).await {
        Some(done) => done
            .map(|()| StatusCode::NO_CONTENT)
            .map_err(HttpError::from),
        None => Err(HttpError::UnknownRoom(id)),
    }
}

/// 200 while clients are taken, 503 once the server ends.
pub(super) async fn health(State(app): State<App>) -> (StatusCode, &'static str) {
    if *app.session.shutdown.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}
