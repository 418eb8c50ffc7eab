//! A peer that the tests drive by hand: one bare socket, PeerConnections of the `webrtc` crate that send VP8 and nothing
//! else. The picture is none: only its first bytes are looked at by who forwards it.

use async_trait::async_trait;
use rtc::media::Sample;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtcp::raw_packet::RawPacket;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RtpCodecKind,
};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_sample::TrackLocalStaticSample;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCPeerConnectionState,
    RTCSessionDescription, SettingEngineBuilder,
};

use super::wire::Wire;

const PAYLOAD_TYPE: u8 = 96;
const INTERVAL: Duration = Duration::from_millis(50);
const CONNECTING: Duration = Duration::from_secs(20);

/// A connection that publishes VP8.
pub struct Vp8Peer {
    connection: Arc<dyn PeerConnection>,
    connected: watch::Receiver<bool>,
    track: Arc<TrackLocalStaticSample>,
    sending: JoinHandle<()>,
}

struct Handler(watch::Sender<bool>);

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.0
            .send_replace(state == RTCPeerConnectionState::Connected);
    }
}

impl Vp8Peer {
    /// Makes a connection, offers over `wire`, and sends once it stands.
    pub async fn publish(wire: &mut Wire, stream_id: &str) -> Self {
        let (state, connected) = watch::channel(false);
        let connection = connect(Handler(state)).await;
        let ssrc = rand::random();
        let track = vp8_track(stream_id, ssrc);
        connection
            .add_track(track.clone() as Arc<dyn TrackLocal>)
            .await
            .unwrap();
        let mut peer = Vp8Peer {
            connection,
            connected,
            track: track.clone(),
            sending: tokio::spawn(async {}),
        };
        peer.offer(wire, None).await;
        peer.until_connected().await;
        peer.sending = tokio::spawn(send(track, ssrc));
        peer
    }

    /// Sends one RTCP packet as it is, under this connection's keys.
    pub async fn say_rtcp(&self, packet: Vec<u8>) {
        let packet = Box::new(RawPacket(packet.into()));
        self.track.write_rtcp(vec![packet]).await.unwrap();
    }

    /// A new offer with new ICE credentials (RFC 8829, section 5.2.3.1); takes the answer.
    pub async fn restart_ice(&mut self, wire: &mut Wire) {
        let options = RTCOfferOptions { ice_restart: true };
        self.offer(wire, Some(options)).await;
        self.until_connected().await;
    }

    async fn offer(&mut self, wire: &mut Wire, options: Option<RTCOfferOptions>) {
        let offer = self.connection.create_offer(options).await.unwrap();
        self.connection
            .set_local_description(offer.clone())
            .await
            .unwrap();
        wire.say("offer", json!(offer.sdp)).await;
        let answer = wire.expect("answer").await;
        let sdp = answer["sdp"].as_str().unwrap().to_owned();
        let answer = RTCSessionDescription::answer(sdp).unwrap();
        self.connection
            .set_remote_description(answer)
            .await
            .unwrap();
    }

    /// Takes the server's next offer and answers it; gives its SDP.
    pub async fn answer(&self, wire: &mut Wire) -> String {
        let offer = wire.expect("offer").await;
        let sdp = offer["sdp"].as_str().unwrap().to_owned();
        let offer = RTCSessionDescription::offer(sdp.clone()).unwrap();
        self.connection.set_remote_description(offer).await.unwrap();
        let answer = self.connection.create_answer(None).await.unwrap();
        self.connection
            .set_local_description(answer.clone())
            .await
            .unwrap();
        wire.say("answer", json!(answer.sdp)).await;
        sdp
    }

    async fn until_connected(&mut self) {
        let connected = self.connected.wait_for(|connected| *connected);
        let connected = tokio::time::timeout(CONNECTING, connected).await;
        drop(connected.expect("connected in time").unwrap());
    }
}

impl Drop for Vp8Peer {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

async fn connect(handler: Handler) -> Arc<dyn PeerConnection> {
    let mut engine = MediaEngine::default();
    let codec = RTCRtpCodecParameters {
        rtp_codec: vp8(),
        payload_type: PAYLOAD_TYPE,
    };
    engine.register_codec(codec, RtpCodecKind::Video).unwrap();
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        // Active, as browsers are.
        .with_answering_dtls_role(RTCDtlsRole::Client)
        .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
        .build();
    let connection = PeerConnectionBuilder::<SocketAddr>::new()
        .with_media_engine(engine)
        .with_setting_engine(settings)
        .with_handler(Arc::new(handler))
        .with_udp_addrs(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
        .build()
        .await
        .unwrap();
    Arc::new(connection)
}

fn vp8() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_VP8.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: Vec::new(),
    }
}

fn vp8_track(stream_id: &str, ssrc: u32) -> Arc<TrackLocalStaticSample> {
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            ..Default::default()
        },
        codec: vp8(),
        ..Default::default()
    };
    let media = MediaStreamTrack::new(
        stream_id.to_owned(),
        format!("vp8-{ssrc:08x}"),
        "camera".to_owned(),
        RtpCodecKind::Video,
        vec![encoding],
    );
    Arc::new(TrackLocalStaticSample::new(Instant::now(), media).unwrap())
}

/// Real pictures, 160x90, over and over; the first of twelve is a keyframe.
const RECORDED: &[u8] = include_bytes!("../../src/mcu/video/tests/media/vp8_160x90.ivf");

/// The frames of an IVF file: a header of 32 bytes, then each behind its size and its time.
fn recorded() -> Vec<Vec<u8>> {
    let (mut rest, mut frames) = (&RECORDED[32..], Vec::new());
    while let Some((size, tail)) = rest.split_first_chunk::<4>() {
        let (frame, tail) = tail[8..].split_at(u32::from_le_bytes(*size) as usize);
        frames.push(frame.to_vec());
        rest = tail;
    }
    frames
}

async fn send(track: Arc<TrackLocalStaticSample>, ssrc: u32) {
    let mut ticks = tokio::time::interval(INTERVAL);
    for frame in recorded().into_iter().cycle() {
        ticks.tick().await;
        let sample = Sample {
            data: frame.into(),
            duration: INTERVAL,
            ..Sample::new(Instant::now())
        };
        let writer = track.sample_writer(ssrc, PAYLOAD_TYPE);
        if writer.write_sample(&sample).await.is_err() {
            return;
        }
    }
}
