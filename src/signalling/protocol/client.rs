//! Client to server.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{avatar, layout};
use crate::room::{Quality, Request, TrackRef};
use crate::signalling::query::{parse_audio, parse_mode};
use crate::worker::SourceType;

/// Longest chat text, in characters.
pub const MAX_CHAT: usize = 4000;

/// Longest problem in an error, in characters.
const MAX_QUOTE: usize = 160;

/// A message of a client, checked for its form.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// For the room.
    Room(Request),
    /// A line of text for the room; the socket adds the time.
    Chat(String),
    /// An image file for its card, to be decoded; `None`: no longer one.
    Avatar(Option<Vec<u8>>),
    /// The client goes.
    Leave,
}

/// A message that is not understood. The text is the sentence for the client's `error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No JSON, or no `{"type": …, "data": …}`.
    #[error("a message is a JSON object with type and data: {0}")]
    Envelope(String),
    /// A type that this server does not know.
    #[error("there is no message type {0:?}")]
    UnknownType(String),
    /// The data do not fit the type.
    #[error("{kind}: {problem}")]
    Data {
        /// The message type.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

impl ClientMessage {
    /// Reads one text message.
    pub fn parse(text: &str) -> Result<Self, ProtocolError> {
        let Envelope { kind, data } =
            serde_json::from_str(text).map_err(|e| ProtocolError::Envelope(e.to_string()))?;
        let request = match kind.as_str() {
            "offer" => Request::Offer(description("offer", data)?),
            "answer" => Request::Answer(description("answer", data)?),
            "candidate" => Request::Candidate(candidate(data)?),
            "tracks_added" => Request::TrackTypes(track_types(data)?),
            "subscribe_tracks" => Request::Subscribe(subscriptions(data)?),
            "switch_quality" => Request::SwitchQuality(quality(data)?),
            "update_bandwidth" => Request::PublishBandwidth(bits("update_bandwidth", &data)?),
            "set_bandwidth_limit" => {
                let bps = bits("set_bandwidth_limit", &data)?;
                // Nobody wants to receive nothing: 0 takes the limit away.
                Request::ReceiveLimit((bps > 0).then_some(bps))
            }
            "is_allow_renegotiation" => Request::AskRenegotiation,
            "switch_mode" => switch_mode(&data)?,
            "switch_audio" => switch_audio(&data)?,
            "layout" => Request::Layout(layout::read(data)?),
            "mute" => mute(data)?,
            "chat" => return chat(data),
            "avatar" => return avatar::read(&data).map(ClientMessage::Avatar),
            "leave" => return Ok(ClientMessage::Leave),
            _ => return Err(ProtocolError::UnknownType(quote(&kind))),
        };
        Ok(ClientMessage::Room(request))
    }
}

/// The SDP itself (old clients), or `{type, sdp}`.
fn description(kind: &'static str, data: Value) -> Result<String, ProtocolError> {
    #[derive(Deserialize)]
    struct Init {
        #[serde(rename = "type")]
        kind: Option<String>,
        sdp: String,
    }
    let sdp = match data {
        Value::String(sdp) => sdp,
        data => {
            let init: Init = read(kind, data)?;
            if init.kind.as_deref().is_some_and(|k| k != kind) {
                let problem = format!("the description says that it is {:?}", init.kind);
                return Err(ProtocolError::Data {
                    kind,
                    problem: quote(&problem),
                });
            }
            init.sdp
        }
    };
    if sdp.trim().is_empty() {
        return Err(bad(kind, "the SDP is empty"));
    }
    Ok(sdp)
}

/// The candidate line itself (old clients), or an RTCIceCandidateInit, whose `candidate` defaults to "".
fn candidate(data: Value) -> Result<String, ProtocolError> {
    #[derive(Deserialize)]
    struct Init {
        #[serde(default)]
        candidate: String,
    }
    match data {
        Value::String(line) => Ok(line),
        Value::Null => Ok(String::new()),
        data => read::<Init>("candidate", data).map(|init| init.candidate),
    }
}

fn track_types(data: Value) -> Result<Vec<(String, SourceType)>, ProtocolError> {
    const KIND: &str = "tracks_added";
    let types: BTreeMap<String, String> = read(KIND, data)?;
    let read_one = |(id, source): (String, String)| match source.as_str() {
        "media" => Ok((id, SourceType::Media)),
        "screen" => Ok((id, SourceType::Screen)),
        "music" => Ok((id, SourceType::Music)),
        _ => Err(bad(KIND, "a track's type is media, screen or music")),
    };
    types.into_iter().map(read_one).collect()
}

fn subscriptions(data: Value) -> Result<Vec<TrackRef>, ProtocolError> {
    #[derive(Deserialize)]
    struct Raw {
        client_id: String,
        track_id: String,
    }
    let raw: Vec<Raw> = read("subscribe_tracks", data)?;
    let track = |raw: Raw| TrackRef {
        client_id: raw.client_id,
        track_id: raw.track_id,
    };
    Ok(raw.into_iter().map(track).collect())
}

/// The spatial layer, and in the finer names the temporal one after it.
fn quality(data: Value) -> Result<Quality, ProtocolError> {
    const LEVELS: [&str; 3] = ["low", "mid", "high"];
    let name: String = read("switch_quality", data)?;
    if name == "none" {
        return Ok(Quality::None);
    }
    let level = |text: &str| LEVELS.iter().position(|l| *l == text).map(|i| i as u8);
    let parsed = (0..LEVELS.len() as u8).find_map(|spatial| {
        let rest = name.strip_prefix(LEVELS[usize::from(spatial)])?;
        if rest.is_empty() {
            return Some(Quality::Layer {
                spatial,
                temporal: None,
            });
        }
        level(rest).map(|temporal| Quality::Layer {
            spatial,
            temporal: Some(temporal),
        })
    });
    parsed.ok_or_else(|| {
        bad(
            "switch_quality",
            "a quality is low, mid, high or none, or one of lowlow to highhigh",
        )
    })
}

/// Bit/s, as a number or (old clients) as a string of digits.
fn bits(kind: &'static str, data: &Value) -> Result<u64, ProtocolError> {
    let bits = match data {
        Value::String(digits) => digits.trim().parse().ok(),
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|f| (0.0..1e18).contains(f));
            float.map(|f| f as u64)
        }),
        _ => None,
    };
    bits.ok_or_else(|| bad(kind, "bit/s are a number that is not negative"))
}

fn switch_mode(data: &Value) -> Result<Request, ProtocolError> {
    data.as_str()
        .and_then(parse_mode)
        .map(Request::SwitchMode)
        .ok_or_else(|| bad("switch_mode", "a mode is sfu, mcu or auto"))
}

fn switch_audio(data: &Value) -> Result<Request, ProtocolError> {
    data.as_str()
        .and_then(parse_audio)
        .map(Request::SwitchAudio)
        .ok_or_else(|| bad("switch_audio", "audio is forwarded or mixed"))
}

fn mute(data: Value) -> Result<Request, ProtocolError> {
    #[derive(Deserialize)]
    struct Raw {
        track_id: String,
        muted: bool,
    }
    let Raw { track_id, muted } = read("mute", data)?;
    Ok(Request::Mute { track_id, muted })
}

fn chat(data: Value) -> Result<ClientMessage, ProtocolError> {
    #[derive(Deserialize)]
    struct Raw {
        text: String,
    }
    let Raw { text } = read("chat", data)?;
    if text.trim().is_empty() {
        return Err(bad("chat", "the text is empty"));
    }
    if text.chars().count() > MAX_CHAT {
        let problem = format!("the text is longer than {MAX_CHAT} characters");
        return Err(ProtocolError::Data {
            kind: "chat",
            problem,
        });
    }
    Ok(ClientMessage::Chat(text))
}

pub(super) fn read<T: DeserializeOwned>(
    kind: &'static str,
    data: Value,
) -> Result<T, ProtocolError> {
    serde_json::from_value(data).map_err(|e| bad(kind, &e.to_string()))
}

pub(super) fn bad(kind: &'static str, problem: &str) -> ProtocolError {
    ProtocolError::Data {
        kind,
        problem: quote(problem),
    }
}

/// Bounded: parts of it may be the client's.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(MAX_QUOTE).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}
