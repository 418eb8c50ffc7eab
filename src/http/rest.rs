//! `/create_room`, `/stats`, `/healthz`, `/metrics`.

use std::fmt::Write;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::{App, HttpError, Pairs};
use crate::room::manager::DEFAULT_ROOM;
use crate::signalling::counters::REFUSALS;
use crate::signalling::figures::RoomFigures;
use crate::signalling::query::{clean_name, room_id, value};
use crate::signalling::session::unix_millis;

/// Makes a room: `room_id: X, room_name: Y`. Without a name the room is called as its id.
pub(super) async fn create_room(
    State(app): State<App>,
    Query(pairs): Pairs,
) -> Result<String, HttpError> {
    let id = app.session.rooms.create()?;
    let name = value(&pairs, "name").and_then(clean_name);
    Ok(format!(
        "room_id: {id}, room_name: {}",
        name.as_deref().unwrap_or(&id)
    ))
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

/// 200 while clients are taken, 503 once the server ends.
pub(super) async fn health(State(app): State<App>) -> (StatusCode, &'static str) {
    if *app.session.shutdown.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

/// Counters of the control plane in the Prometheus text format.
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let sockets = app.max_sockets - app.sockets.available_permits();
    let mut text = format!(
        "# TYPE talksy_rooms gauge\ntalksy_rooms {}\n# TYPE talksy_sockets gauge\ntalksy_sockets {sockets}\n",
        app.session.rooms.room_count(),
    );
    text.push_str("# TYPE talksy_refusals_total counter\n");
    for (refusal, name) in REFUSALS {
        let count = app.session.counters.get(refusal);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "talksy_refusals_total{{reason=\"{name}\"}} {count}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
