//! The signalling of one participant: an old client's side of the protocol, over one WebSocket.

use futures_util::{SinkExt, StreamExt};
use rtc::rtp_transceiver::RTCRtpTransceiverDirection as Direction;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use webrtc::peer_connection::{PeerConnection, RTCIceCandidateInit, RTCSessionDescription};

use super::observed::Observed;
use super::participant::ParticipantConfig;
use super::peer::{self, Handler};
use super::send::{self, Outgoing};
use super::{DemoError, PEER_EVENTS};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Everything that one membership holds. Dropping it closes socket and connection.
pub(super) struct Session {
    config: ParticipantConfig,
    socket: Socket,
    connection: Arc<dyn PeerConnection>,
    candidates: mpsc::Receiver<RTCIceCandidateInit>,
    observed: Arc<watch::Sender<Observed>>,
    outgoing: Vec<Outgoing>,
    offer: Offer,
    senders: JoinSet<Result<(), DemoError>>,
}

/// Where our own offer stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offer {
    /// No offer of ours is out.
    Settled,
    /// Sent, not answered. An offer of the server that crosses it is not ours to answer: the server rolls it back.
    Sent,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Letting go of a connection does not end it: its driver would answer for it for ever.
        let connection = self.connection.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { connection.close().await });
        }
    }
}

impl Session {
    pub(super) async fn open(
        config: ParticipantConfig,
        observed: Arc<watch::Sender<Observed>>,
        keyframe_wishes: watch::Receiver<u64>,
    ) -> Result<Self, DemoError> {
        let (socket, _) = tokio_tungstenite::connect_async(config.address()).await?;
        let (candidate_tx, candidates) = mpsc::channel(PEER_EVENTS);
        let connection = peer::connect(Handler {
            candidates: candidate_tx,
            observed: observed.clone(),
            packets: config.packets.clone(),
            keyframe_wishes: Some(keyframe_wishes),
        })
        .await?;
        Ok(Session {
            config,
            socket,
            connection,
            candidates,
            observed,
            outgoing: Vec::new(),
            offer: Offer::Settled,
            senders: JoinSet::new(),
        })
    }

    /// Runs until the server or `commands` close; a command is a whole client message.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Value>,
    ) -> Result<(), DemoError> {
        let mut connected = self.observed.subscribe();
        let result = loop {
            let step = tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.handle_text(text.as_str()).await,
                    Some(Ok(Message::Close(_))) | None => break Ok(()),
                    Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => Err(error.into()),
                },
                Some(candidate) = self.candidates.recv() => self.trickle(candidate).await,
                command = commands.recv() => match command {
                    Some(message) => self.send(message).await,
                    None => {
                        let _ = self.send(json!({"type": "leave", "data": null})).await;
                        let _ = self.socket.close(None).await;
                        break Ok(());
                    }
                },
                () = until_connected(&mut connected), if !self.outgoing.is_empty() => {
                    self.start_sending();
                    Ok(())
                },
                Some(ended) = self.senders.join_next() => match ended {
                    Ok(result) => result,
                    Err(_) => Err(DemoError::Closed),
                },
            };
            if let Err(error) = step {
                break Err(error);
            }
        };
        let _ = self.connection.close().await;
        result
    }

    async fn handle_text(&mut self, text: &str) -> Result<(), DemoError> {
        let Ok(mut message) = serde_json::from_str::<Value>(text) else {
            return Ok(());
        };
        let kind = message["type"].as_str().unwrap_or_default().to_owned();
        let data = message["data"].take();
        self.observed
            .send_modify(|seen| seen.record(&kind, data.clone()));
        match kind.as_str() {
            "clientid" => self.begin(data).await,
            "answer" => self.take_answer(&data).await,
            "offer" => self.take_offer(&data).await,
            "candidate" => self.take_candidate(data).await,
            "tracks_added" => self.name_sources(&data).await,
            "tracks_available" if self.config.subscribe => self.subscribe(&data).await,
            _ => Ok(()),
        }
    }

    /// Knows its id now: publishes, if it has something to publish.
    async fn begin(&mut self, id: Value) -> Result<(), DemoError> {
        self.observed
            .send_modify(|seen| seen.client_id = id.as_str().map(str::to_owned));
        if !self.config.publishes() {
            return Ok(());
        }
        let stream_id = format!("{:016x}", rand::random::<u64>());
        if self.config.audio.is_some() {
            let audio = Outgoing::add(&self.connection, &stream_id, RtpCodecKind::Audio).await?;
            self.outgoing.push(audio);
        }
        if self.config.video.is_some() {
            let video = Outgoing::add(&self.connection, &stream_id, RtpCodecKind::Video).await?;
            self.outgoing.push(video);
        }
        if self.config.opens_channel {
            self.connection.create_data_channel("own", None).await?;
        }
        let offer = self.connection.create_offer(None).await?;
        self.connection.set_local_description(offer.clone()).await?;
        self.offer = Offer::Sent;
        self.send(json!({"type": "offer", "data": offer.sdp})).await
    }

    async fn take_answer(&mut self, data: &Value) -> Result<(), DemoError> {
        if self.offer == Offer::Settled {
            return Ok(());
        }
        let answer = RTCSessionDescription::answer(sdp_of(data))?;
        self.connection.set_remote_description(answer).await?;
        self.offer = Offer::Settled;
        self.observed.send_modify(|seen| seen.server_answers += 1);
        Ok(())
    }

    async fn take_offer(&mut self, data: &Value) -> Result<(), DemoError> {
        let crossed = self.offer == Offer::Sent;
        self.observed.send_modify(|seen| {
            seen.server_offers += 1;
            seen.crossed_offers += u64::from(crossed);
        });
        if crossed {
            return Ok(());
        }
        let sdp = sdp_of(data);
        let directions = offered_directions(&sdp);
        self.connection
            .set_remote_description(RTCSessionDescription::offer(sdp)?)
            .await?;
        self.narrow(&directions).await?;
        let answer = self.connection.create_answer(None).await?;
        self.connection
            .set_local_description(answer.clone())
            .await?;
        self.send(json!({"type": "answer", "data": answer.sdp}))
            .await
    }

    /// An answer may not widen a direction (RFC 3264, 6.1); the crate would answer `sendonly` with `sendrecv`.
    async fn narrow(&self, offered: &[(String, Direction)]) -> Result<(), DemoError> {
        for transceiver in self.connection.get_transceivers().await {
            let Some(mid) = transceiver.mid().await? else {
                continue;
            };
            let Some((_, offer)) = offered.iter().find(|(m, _)| *m == mid) else {
                continue;
            };
            let ours = transceiver.direction().await?;
            let sends = ours.has_send() && offer.has_recv();
            let receives = ours.has_recv() && offer.has_send();
            let narrowed = match (sends, receives) {
                (true, true) => Direction::Sendrecv,
                (true, false) => Direction::Sendonly,
                (false, true) => Direction::Recvonly,
                (false, false) => Direction::Inactive,
            };
            if narrowed != ours {
                transceiver.set_direction(narrowed).await?;
            }
        }
        Ok(())
    }

    async fn take_candidate(&mut self, data: Value) -> Result<(), DemoError> {
        if let Ok(candidate) = serde_json::from_value::<RTCIceCandidateInit>(data) {
            // One that the crate cannot use (a family we did not bind, end of candidates) leaves the others.
            let _ = self.connection.add_ice_candidate(candidate).await;
        }
        Ok(())
    }

    /// Tells the types of our own tracks, as the server asks once they have arrived.
    async fn name_sources(&mut self, data: &Value) -> Result<(), DemoError> {
        let ids = data.as_object().into_iter().flat_map(Map::keys);
        let types: Map<String, Value> = ids.map(|id| (id.clone(), json!("media"))).collect();
        self.send(json!({"type": "tracks_added", "data": types}))
            .await
    }

    async fn subscribe(&mut self, data: &Value) -> Result<(), DemoError> {
        let wanted: Vec<Value> = data
            .as_object()
            .into_iter()
            .flat_map(Map::values)
            .map(|track| json!({"client_id": track["client_id"], "track_id": track["track_id"]}))
            .collect();
        self.send(json!({"type": "subscribe_tracks", "data": wanted}))
            .await
    }

    async fn trickle(&mut self, candidate: RTCIceCandidateInit) -> Result<(), DemoError> {
        self.send(json!({"type": "candidate", "data": candidate.candidate}))
            .await
    }

    async fn send(&mut self, message: Value) -> Result<(), DemoError> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    fn start_sending(&mut self) {
        let mut outgoing = self.outgoing.drain(..);
        if let Some(audio) = &self.config.audio
            && let Some(out) = outgoing.next()
        {
            self.senders
                .spawn(send::voice(out, audio.clone(), self.config.epoch));
        }
        if let Some(video) = &self.config.video
            && let Some(out) = outgoing.next()
        {
            self.senders
                .spawn(send::pictures(out, video.clone(), self.observed.clone()));
        }
    }
}

/// Returns when the media connection stands; keeps no lock on what is observed.
async fn until_connected(observed: &mut watch::Receiver<Observed>) {
    let _ = observed.wait_for(|seen| seen.connected).await;
}

/// The SDP of an answer or offer, whether it comes as a string or as a description.
fn sdp_of(data: &Value) -> String {
    data.as_str()
        .or(data["sdp"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Mid and direction of every m-section.
fn offered_directions(sdp: &str) -> Vec<(String, Direction)> {
    sdp.split("\r\nm=")
        .skip(1)
        .filter_map(|section| {
            let attribute = |name: &str| section.lines().find_map(|line| line.strip_prefix(name));
            let mid = attribute("a=mid:")?.trim().to_owned();
            let has = |name: &str| section.lines().any(|line| line.trim_end() == name);
            let direction = if has("a=sendonly") {
                Direction::Sendonly
            } else if has("a=recvonly") {
                Direction::Recvonly
            } else if has("a=inactive") {
                Direction::Inactive
            } else {
                Direction::Sendrecv
            };
            Some((mid, direction))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdp_is_found_in_a_string_and_in_a_description() {
        assert_eq!(sdp_of(&json!("v=0")), "v=0");
        assert_eq!(sdp_of(&json!({"type": "offer", "sdp": "v=0"})), "v=0");
        assert_eq!(sdp_of(&json!(7)), "");
    }

    #[test]
    fn directions_are_read_per_section_and_default_to_both_ways() {
        let sdp = "v=0\r\na=sendonly\r\nm=audio 9 X 111\r\na=mid:0\r\na=recvonly\r\nm=video 9 X 102\r\na=mid:v\r\n";
        let directions = offered_directions(sdp);
        assert_eq!(
            directions,
            [
                ("0".into(), Direction::Recvonly),
                ("v".into(), Direction::Sendrecv)
            ]
        );
    }
}
