//! What a page or a socket says in its query string.

use crate::room::manager::DEFAULT_ROOM;
use crate::room::{AudioMode, JoinRequest, Mode};
use crate::signalling::resume::ResumeQuery;
use crate::worker::Shape;

/// Longest display name, in characters.
pub const MAX_NAME: usize = 64;
/// Longest room id, in bytes.
pub const MAX_ROOM_ID: usize = 128;

/// The query of `/ws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinQuery {
    /// The room.
    pub room_id: String,
    /// How to enter it.
    pub request: JoinRequest,
    /// The signalling that it wants to go on with.
    pub resume: Option<ResumeQuery>,
    /// Sentences for what was not understood and is taken as absent.
    pub complaints: Vec<String>,
}

/// A query that names no possible room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too long, or with characters that are no text.
    #[error("room_id has to be at most {MAX_ROOM_ID} bytes of text without control characters")]
    RoomId,
}

impl JoinQuery {
    /// Reads decoded pairs. Of repeated keys the first counts; unknown keys are ignored.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, QueryError> {
        let mut complaints = Vec::new();
        let mode = match value(pairs, "mode").map(parse_mode) {
            Some(None) => {
                complaints.push("mode is sfu, mcu or auto: sfu is used".to_owned());
                Mode::default()
            }
            Some(Some(mode)) => mode,
            None => Mode::default(),
        };
        let audio = match value(pairs, "audio").map(parse_audio) {
            Some(None) => {
                complaints.push("audio is forwarded or mixed: forwarded is used".to_owned());
                AudioMode::default()
            }
            Some(Some(audio)) => audio,
            None => AudioMode::default(),
        };
        let max_receive_bps = match value(pairs, "max_kbps").map(str::parse::<u64>) {
            Some(Err(_)) => {
                complaints
                    .push("max_kbps is a whole number of kbit/s: there is no limit".to_owned());
                None
            }
            // As in set_bandwidth_limit, 0 is no limit.
            Some(Ok(kbps)) => Some(kbps.saturating_mul(1000)).filter(|bps| *bps > 0),
            None => None,
        };
        let canvas = match value(pairs, "canvas") {
            Some("portrait") => Some(Shape::Portrait),
            Some("landscape") => Some(Shape::Landscape),
            Some(_) => {
                complaints.push(
                    "canvas is portrait or landscape: it follows the size of the element"
                        .to_owned(),
                );
                None
            }
            None => None,
        };
        Ok(JoinQuery {
            room_id: room_id(pairs)?,
            request: JoinRequest {
                name: value(pairs, "name").and_then(clean_name),
                mode,
                audio,
                publish: !matches!(value(pairs, "publish"), Some("0" | "false")),
                max_receive_bps,
                canvas,
            },
            resume: value(pairs, "resume").map(|token| ResumeQuery {
                token: token.to_owned(),
                seen: value(pairs, "seen").and_then(|seen| seen.parse().ok()),
            }),
            complaints,
        })
    }
}

/// The room of a query: absent, empty, or the literal `null` that old pages send, is the default one.
pub fn room_id(pairs: &[(String, String)]) -> Result<String, QueryError> {
    let id = value(pairs, "room_id").filter(|id| *id != "null");
    let id = id.unwrap_or(DEFAULT_ROOM);
    if is_room_id(id) {
        Ok(id.to_owned())
    } else {
        Err(QueryError::RoomId)
    }
}

/// U+FFFD is what percent-decoding makes of bytes that are no UTF-8.
fn is_room_id(id: &str) -> bool {
    id.len() <= MAX_ROOM_ID && !id.chars().any(|c| c.is_control() || c == '\u{fffd}')
}

/// Reads the wire's `mode`.
pub fn parse_mode(text: &str) -> Option<Mode> {
    match text {
        "sfu" => Some(Mode::Sfu),
        "mcu" => Some(Mode::Mcu),
        "auto" => Some(Mode::Auto),
        _ => None,
    }
}

/// Reads the wire's `audio`.
pub fn parse_audio(text: &str) -> Option<AudioMode> {
    match text {
        "forwarded" => Some(AudioMode::Forwarded),
        "mixed" => Some(AudioMode::Mixed),
        _ => None,
    }
}

/// A display name: without control characters, trimmed, bounded. `None`: nothing is left of it.
pub fn clean_name(name: &str) -> Option<String> {
    let printable: String = name.chars().filter(|c| !c.is_control()).collect();
    let bounded: String = printable.trim().chars().take(MAX_NAME).collect();
    let name = bounded.trim_end();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The first value of a key that says anything.
pub fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(k, _)| k == key)
        .map(|(_, v)| v.as_str())
        .filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn nothing_is_the_default_room_in_sfu_as_a_publisher() {
        let query = JoinQuery::parse(&[]).expect("valid");
        assert_eq!(query.room_id, "default");
        assert_eq!(
            query.request,
            JoinRequest {
                name: None,
                mode: Mode::Sfu,
                audio: AudioMode::Forwarded,
                publish: true,
                max_receive_bps: None,
                canvas: None,
            }
        );
        assert!(query.complaints.is_empty());
    }

    #[test]
    fn the_literal_null_and_the_empty_room_are_absent() {
        for id in ["null", ""] {
            let query = JoinQuery::parse(&pairs(&[("room_id", id)])).expect("valid");
            assert_eq!(query.room_id, "default");
        }
    }

    #[test]
    fn everything_that_a_page_can_say_is_read() {
        let query = JoinQuery::parse(&pairs(&[
            ("room_id", "1111"),
            ("mode", "mcu"),
            ("audio", "mixed"),
            ("name", "  Ann\n "),
            ("publish", "0"),
            ("max_kbps", "250"),
            ("canvas", "portrait"),
            ("debug", ""),
            ("else", "x"),
        ]))
        .expect("valid");
        assert_eq!(query.room_id, "1111");
        assert_eq!(
            query.request,
            JoinRequest {
                name: Some("Ann".into()),
                mode: Mode::Mcu,
                audio: AudioMode::Mixed,
                publish: false,
                max_receive_bps: Some(250_000),
                canvas: Some(Shape::Portrait),
            }
        );
    }

    #[test]
    fn nonsense_is_complained_about_and_taken_as_absent() {
        let query = JoinQuery::parse(&pairs(&[
            ("mode", "mesh"),
            ("max_kbps", "-3"),
            ("audio", "5.1"),
            ("canvas", "round"),
        ]))
        .expect("valid");
        assert_eq!(query.request.mode, Mode::Sfu);
        assert_eq!(query.request.audio, AudioMode::Forwarded);
        assert_eq!(query.request.max_receive_bps, None);
        assert_eq!(query.complaints.len(), 4);
    }

    #[test]
    fn a_resuming_socket_names_its_token_and_perhaps_what_it_has_seen() {
        for (seen, read) in [(Some("12"), Some(12)), (Some("many"), None), (None, None)] {
            let mut query = vec![("resume", "abc")];
            query.extend(seen.map(|seen| ("seen", seen)));
            let query = JoinQuery::parse(&pairs(&query)).expect("valid");
            let token = "abc".to_owned();
            assert_eq!(query.resume, Some(ResumeQuery { token, seen: read }));
        }
        let query = JoinQuery::parse(&pairs(&[("resume", "")])).expect("valid");
        assert_eq!(query.resume, None);
    }

    #[test]
    fn impossible_room_ids_are_refused() {
        for id in ["a\u{0}b", "\u{fffd}", &"x".repeat(MAX_ROOM_ID + 1)] {
            assert_eq!(
                JoinQuery::parse(&pairs(&[("room_id", id)])),
                Err(QueryError::RoomId)
            );
        }
    }

    #[test]
    fn names_are_bounded_in_characters_and_empty_ones_are_none() {
        assert_eq!(clean_name(" \t\u{7} "), None);
        assert_eq!(clean_name(&"ä".repeat(100)), Some("ä".repeat(MAX_NAME)));
        assert_eq!(clean_name("ann"), Some("ann".into()));
    }
}
