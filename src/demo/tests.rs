//! A participant against a server of the size of this file: one socket, one PeerConnection of the `webrtc` crate.

use futures_util::{SinkExt, StreamExt};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use webrtc::peer_connection::{PeerConnection, RTCIceCandidateInit, RTCSessionDescription};

use super::peer::{self, Handler};
use super::send::{self, Outgoing};
use super::*;
use crate::rtp::params::MediaKind;

const DEADLINE: Duration = Duration::from_secs(20);

struct SmallServer {
    socket: WebSocketStream<TcpStream>,
    connection: Arc<dyn PeerConnection>,
    observed: Arc<watch::Sender<Observed>>,
}

impl SmallServer {
    async fn accept(listener: TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let observed = Arc::new(watch::channel(Observed::default()).0);
        let (candidates, _) = mpsc::channel(PEER_EVENTS);
        let handler = Handler {
            candidates,
            observed: observed.clone(),
            packets: None,
            keyframe_wishes: None,
        };
        let connection = peer::connect(handler).await.unwrap();
        let hello = json!({"status": true, "type": "clientid", "data": "0123456789abcdef"});
        socket.send(Message::text(hello.to_string())).await.unwrap();
        SmallServer {
            socket,
            connection,
            observed,
        }
    }

    /// Handles messages until one of type `kind` has been handled; gives its data.
    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            let Ok(text) = message.to_text() else {
                continue;
            };
            let mut message: Value = serde_json::from_str(text).unwrap();
            let data = message["data"].take();
            match message["type"].as_str().unwrap() {
                "offer" => self.answer(data.as_str().unwrap()).await,
                "answer" => {
                    let answer = RTCSessionDescription::answer(data.as_str().unwrap().into());
                    self.connection
                        .set_remote_description(answer.unwrap())
                        .await
                        .unwrap();
                }
                "candidate" => {
                    let candidate = RTCIceCandidateInit {
                        candidate: data.as_str().unwrap().to_owned(),
                        ..Default::default()
                    };
                    let _ = self.connection.add_ice_candidate(candidate).await;
                }
                _ => {}
            }
            if message["type"] == kind {
                return data;
            }
        }
    }

    async fn answer(&mut self, offer: &str) {
        let offer = RTCSessionDescription::offer(offer.to_owned()).unwrap();
        self.connection.set_remote_description(offer).await.unwrap();
        let answer = self.connection.create_answer(None).await.unwrap();
        self.connection
            .set_local_description(answer.clone())
            .await
            .unwrap();
        self.say("answer", json!({"type": "answer", "sdp": answer.sdp}))
            .await;
    }

    async fn offer(&mut self) {
        let offer = self.connection.create_offer(None).await.unwrap();
        self.connection
            .set_local_description(offer.clone())
            .await
            .unwrap();
        self.say("offer", json!({"type": "offer", "sdp": offer.sdp}))
            .await;
    }

    async fn say(&mut self, kind: &str, data: Value) {
        let message = json!({"status": true, "type": kind, "data": data});
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn wait_until(&mut self, mut condition: impl FnMut(&Observed) -> bool) {
        let mut observed = self.observed.subscribe();
        let waiting = async {
            tokio::select! {
                seen = observed.wait_for(|seen| condition(seen)) => drop(seen.unwrap()),
                // Trickled candidates go on coming while the media starts.
                data = self.until("never") => panic!("{data}"),
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            panic!("not in time: {:?}", self.observed.borrow());
        }
    }
}

fn tiny_camera() -> Arc<PictureLoop> {
    let picture = Picture {
        width: 160,
        height: 96,
        fps: 10,
        bitrate: 80_000,
        ..Picture::numbered(1)
    };
    Arc::new(PictureLoop::encode(&picture).unwrap())
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_publishes_both_kinds_names_them_and_takes_a_track_of_a_server_offer() {
    let (listener, url) = listen().await;
    let video = tiny_camera();
    let audio = Arc::new(VoiceLoop::encode(Sound::Tone { hz: 440.0 }, Turns::Always).unwrap());
    let config = ParticipantConfig {
        video: Some(video.clone()),
        audio: Some(audio),
        opens_channel: true,
        ..ParticipantConfig::viewer(&url, "r", "n")
    };
    let joining = tokio::spawn(Participant::join(config));
    let mut server = SmallServer::accept(listener).await;
    let mut participant = joining.await.unwrap().unwrap();

    server
        .wait_until(|seen| {
            seen.connected
                && seen.packets_of(MediaKind::Audio) > 10
                && seen
                    .tracks_of(MediaKind::Video)
                    .any(|t| t.frames > 3 && t.keyframes > 0)
        })
        .await;

    server
        .say("tracks_added", json!({"a": {"id": "a"}, "v": {"id": "v"}}))
        .await;
    assert_eq!(
        server.until("tracks_added").await,
        json!({"a": "media", "v": "media"})
    );

    let track = json!({"id": "t", "client_id": "c", "track_id": "t", "kind": "video"});
    server.say("tracks_available", json!({"t": track})).await;
    let wanted = server.until("subscribe_tracks").await;
    assert_eq!(wanted, json!([{"client_id": "c", "track_id": "t"}]));

    let out = Outgoing::add(&server.connection, "stream-of-c", RtpCodecKind::Video)
        .await
        .unwrap();
    let channel = server
        .connection
        .create_data_channel("internal", None)
        .await
        .unwrap();
    server.offer().await;
    server.until("answer").await;
    let sending = tokio::spawn(send::pictures(out, video, server.observed.clone()));
    let seen = participant
        .wait_until(DEADLINE, |seen| {
            seen.tracks.iter().any(|t| t.frames > 3)
                && seen.data_channels.iter().any(|label| label == "internal")
        })
        .await
        .unwrap();
    drop(channel);
    assert_eq!(
        (seen.server_answers, seen.server_offers, seen.crossed_offers),
        (1, 1, 0)
    );
    let track = seen.tracks_of(MediaKind::Video).next().unwrap();
    assert_eq!(
        (track.stream_id.as_str(), track.codec.as_str()),
        ("stream-of-c", "video/H264")
    );
    sending.abort();

    let leaving = tokio::spawn(participant.leave());
    server.until("leave").await;
    leaving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyframe_request_brings_a_keyframe_before_the_loop_does() {
    let (listener, url) = listen().await;
    let config = ParticipantConfig {
        video: Some(tiny_camera()),
        ..ParticipantConfig::viewer(&url, "r", "n")
    };
    let joining = tokio::spawn(Participant::join(config));
    let mut server = SmallServer::accept(listener).await;
    let mut participant = joining.await.unwrap().unwrap();
    let frames = |seen: &Observed| {
        seen.tracks
            .first()
            .map_or((0, 0, 0), |t| (t.frames, t.keyframes, t.ssrc))
    };
    server.wait_until(|seen| frames(seen).0 > 5).await;
    let (before, keyframes, media_ssrc) = frames(&server.observed.borrow());

    let receiver = server.connection.get_receivers().await.remove(0);
    let request = rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication {
        sender_ssrc: 1,
        media_ssrc,
    };
    receiver
        .track()
        .write_rtcp(vec![Box::new(request)])
        .await
        .unwrap();
    server.wait_until(|seen| frames(seen).1 > keyframes).await;
    let (after, ..) = frames(&server.observed.borrow());
    assert!(
        after - before < 20,
        "{after} {before}: the loop has 40 frames"
    );
    participant
        .wait_until(DEADLINE, |seen| seen.keyframe_requests > 0)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recycled_m_line_brings_the_next_track() {
    let (listener, url) = listen().await;
    let video = tiny_camera();
    let joining = tokio::spawn(Participant::join(ParticipantConfig::viewer(&url, "r", "n")));
    let mut server = SmallServer::accept(listener).await;
    let mut participant = joining.await.unwrap().unwrap();
    for turn in 0..3 {
        let stream = format!("stream-{turn}");
        let out = Outgoing::add(&server.connection, &stream, RtpCodecKind::Video)
            .await
            .unwrap();
        let sender = out.sender();
        server.offer().await;
        server.until("answer").await;
        server.wait_until(|seen| seen.connected).await;
        let sending = tokio::spawn(send::pictures(out, video.clone(), server.observed.clone()));
        participant
            .wait_until(DEADLINE, |seen| {
                seen.tracks
                    .iter()
                    .any(|t| t.stream_id == stream && t.frames > 3)
            })
            .await
            .unwrap();
        sending.abort();
        server.connection.remove_track(&sender).await.unwrap();
        server.offer().await;
        server.until("answer").await;
    }
    assert_eq!(participant.observed().server_offers, 6);
    let sdp = server.connection.local_description().await.unwrap().sdp;
    assert_eq!(sdp.matches("\nm=").count(), 1, "{sdp}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_that_crosses_our_own_is_left_to_the_server() {
    let (listener, url) = listen().await;
    let config = ParticipantConfig {
        video: Some(tiny_camera()),
        ..ParticipantConfig::viewer(&url, "r", "n")
    };
    let joining = tokio::spawn(Participant::join(config));
    let mut server = SmallServer::accept(listener).await;
    let mut participant = joining.await.unwrap().unwrap();
    server
        .say("offer", json!({"type": "offer", "sdp": "v=0"}))
        .await;
    participant
        .wait_until(DEADLINE, |seen| seen.server_offers == 1)
        .await
        .unwrap();
    server
        .wait_until(|seen| seen.tracks_of(MediaKind::Video).any(|t| t.frames > 3))
        .await;
    let seen = participant.observed();
    assert_eq!((seen.crossed_offers, seen.server_answers), (1, 1));
}

#[tokio::test]
async fn a_server_that_closes_ends_the_participant() {
    let (listener, url) = listen().await;
    let joining = tokio::spawn(Participant::join(ParticipantConfig::viewer(&url, "r", "n")));
    let mut server = SmallServer::accept(listener).await;
    let mut participant = joining.await.unwrap().unwrap();
    server.socket.close(None).await.unwrap();
    participant.ended().await.unwrap();
    assert!(participant.observed().closed);
    let started = Instant::now();
    assert!(matches!(
        participant.wait_until(DEADLINE, |_| false).await,
        Err(DemoError::Closed)
    ));
    assert!(started.elapsed() < DEADLINE);
}
