//! One synthetic participant, as demo and integration tests use it.

use serde_json::Value;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::observed::Observed;
use super::picture::PictureLoop;
use super::session::Session;
use super::voice::VoiceLoop;
use super::{DemoError, ReceivedPacket};

/// Messages of the owner that wait for the session; the owner waits when it is full.
const COMMANDS: usize = 64;

/// How the server shall deliver (`mode=` of the query).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Forwarded tracks.
    #[default]
    Sfu,
    /// One mixed video and one mixed audio.
    Mcu,
    /// The server decides.
    Auto,
}

/// Who joins what, and how.
#[derive(Clone)]
pub struct ParticipantConfig {
    /// The server's socket, e.g. `ws://127.0.0.1:8000/ws`.
    pub url: String,
    /// `room_id`.
    pub room: String,
    /// Display name.
    pub name: String,
    /// Delivery.
    pub mode: Mode,
    /// The camera, if there is one.
    pub video: Option<Arc<PictureLoop>>,
    /// The microphone, if there is one.
    pub audio: Option<Arc<VoiceLoop>>,
    /// Whether it subscribes to whatever becomes available.
    pub subscribe: bool,
    /// Whether its own offer has a data channel (`own`). Without one the crate gets none later either: it starts SCTP only
    /// together with DTLS, where a browser starts it whenever the server brings m=application.
    pub opens_channel: bool,
    /// Common start of all voices that take turns.
    pub epoch: Instant,
    /// Takes every received packet; what does not fit is dropped (the counters still see it).
    pub packets: Option<mpsc::Sender<ReceivedPacket>>,
    /// Further `key=value` pairs of the query.
    pub query: Vec<(String, String)>,
}

impl ParticipantConfig {
    /// A viewer without camera and microphone, in mode `sfu`, that subscribes to everything.
    pub fn viewer(url: &str, room: &str, name: &str) -> Self {
        ParticipantConfig {
            url: url.to_owned(),
            room: room.to_owned(),
            name: name.to_owned(),
            mode: Mode::Sfu,
            video: None,
            audio: None,
            subscribe: true,
            opens_channel: false,
            epoch: Instant::now(),
            packets: None,
            query: Vec::new(),
        }
    }

    pub(super) fn publishes(&self) -> bool {
        self.video.is_some() || self.audio.is_some()
    }

    /// The socket's address with its query.
    pub(super) fn address(&self) -> String {
        let mode = match self.mode {
            Mode::Sfu => "sfu",
            Mode::Mcu => "mcu",
            Mode::Auto => "auto",
        };
        let mut address = format!("{}?mode={mode}", self.url);
        let fixed = [("room_id", &self.room), ("name", &self.name)];
        let further = self.query.iter().map(|(key, value)| (key.as_str(), value));
        for (key, value) in fixed.into_iter().chain(further) {
            let _ = write!(address, "&{}={}", escaped(key), escaped(value));
        }
        if !self.publishes() {
            address.push_str("&publish=0");
        }
        address
    }
}

/// A participant in a room, until [`leave`](Participant::leave) or drop. Dropping breaks the socket, leaving closes it.
pub struct Participant {
    observed: watch::Receiver<Observed>,
    commands: Option<mpsc::Sender<Value>>,
    keyframes: watch::Sender<u64>,
    session: JoinHandle<Result<(), DemoError>>,
}

impl Participant {
    /// Opens the socket and starts the session; returns as soon as the server knows us.
    ///
    /// # Errors
    /// When the socket cannot be opened or closes before the server said `clientid`.
    pub async fn join(config: ParticipantConfig) -> Result<Self, DemoError> {
        let (seen, observed) = watch::channel(Observed::default());
        let seen = Arc::new(seen);
        let (commands, command_rx) = mpsc::channel(COMMANDS);
        let (keyframes, keyframe_wishes) = watch::channel(0);
        let session = Session::open(config, seen.clone(), keyframe_wishes).await?;
        let session = tokio::spawn(async move {
            let result = session.run(command_rx).await;
            seen.send_modify(|seen| {
                seen.closed = true;
                seen.connected = false;
            });
            result
        });
        let mut participant = Participant {
            observed,
            commands: Some(commands),
            keyframes,
            session,
        };
        participant
            .wait_until(Duration::from_secs(10), |seen| seen.client_id.is_some())
            .await?;
        Ok(participant)
    }

    /// What it has seen until now.
    pub fn observed(&self) -> Observed {
        self.observed.borrow().clone()
    }

    /// Waits until `condition` holds and returns what was seen then.
    ///
    /// # Errors
    /// [`DemoError::Deadline`] with what was seen at the end, [`DemoError::Closed`] when the session ended without it.
    pub async fn wait_until(
        &mut self,
        within: Duration,
        mut condition: impl FnMut(&Observed) -> bool,
    ) -> Result<Observed, DemoError> {
        let seen = async {
            let waiting = self
                .observed
                .wait_for(|seen| seen.closed || condition(seen));
            waiting.await.map(|seen| seen.clone())
        };
        match tokio::time::timeout(within, seen).await {
            Ok(Ok(seen)) if condition(&seen) => Ok(seen),
            Ok(_) => Err(DemoError::Closed),
            Err(_) => Err(DemoError::Deadline(Box::new(self.observed()))),
        }
    }

    /// Sends one client message as it is.
    ///
    /// # Errors
    /// [`DemoError::Closed`] when the session has ended.
    pub async fn send(&self, message: Value) -> Result<(), DemoError> {
        let commands = self.commands.as_ref().ok_or(DemoError::Closed)?;
        commands.send(message).await.map_err(|_| DemoError::Closed)
    }

    /// Sends a PLI (RFC 4585, section 6.3.1) for every video track that it receives.
    pub fn request_keyframes(&self) {
        self.keyframes.send_modify(|wishes| *wishes += 1);
    }

    /// Waits until the session ends by itself.
    ///
    /// # Errors
    /// Whatever ended it, if it was not the server's orderly close.
    pub async fn ended(&mut self) -> Result<(), DemoError> {
        match (&mut self.session).await {
            Ok(result) => result,
            Err(_) => Err(DemoError::Closed),
        }
    }

    /// Says `leave`, closes the socket and waits for the end.
    ///
    /// # Errors
    /// What went wrong in the session before.
    pub async fn leave(mut self) -> Result<(), DemoError> {
        self.commands = None;
        self.ended().await
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.session.abort();
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into())
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_carries_room_name_and_mode_and_escapes_them() {
        let mut config = ParticipantConfig::viewer("ws://h/ws", "a&b", "Zoë 1");
        config.mode = Mode::Mcu;
        config.query.push(("max_kbps".into(), "150".into()));
        assert_eq!(
            config.address(),
            "ws://h/ws?mode=mcu&room_id=a%26b&name=Zo%C3%AB%201&max_kbps=150&publish=0"
        );
    }
}
