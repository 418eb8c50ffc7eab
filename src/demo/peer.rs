//! The participant's PeerConnection: made, watched and read.

use async_trait::async_trait;
use rtc::interceptor::Registry;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine,
};
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use webrtc::data_channel::DataChannel;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, RTCPeerConnectionState, SettingEngineBuilder,
};

use super::keyframes::{self, KeyframeRequests};
use super::observed::{Observed, ReceivedTrack};
use super::{DemoError, ReceivedPacket};
use crate::rtp::params::MediaKind;

/// URI of the level of a packet (RFC 6464).
const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// Between connectivity checks (RFC 8445, section 14.2: 5 ms at least). The crate's own 200 ms decide how long a connection
/// takes, where browsers check at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// Checks of one pair, for 3 s.
const MAX_CHECKS: u16 = 300;
/// Local addresses that are bound, one socket each; further ones are left out.
const MAX_LOCAL_ADDRESSES: usize = 4;

/// Makes a connection that gathers on the machine's own addresses, loopback included.
pub(super) async fn connect(handler: Handler) -> Result<Arc<dyn PeerConnection>, DemoError> {
    let mut engine = media_engine()?;
    let registry = register_default_interceptors(Registry::new(), &mut engine)?
        .with(keyframes::slot(), KeyframeRequests::default());
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        // Always active, as browsers are: to a server that is ICE-lite the crate would answer passive.
        .with_answering_dtls_role(RTCDtlsRole::Client)
        .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(MAX_CHECKS))
        .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
        .build();
    let connection = PeerConnectionBuilder::<SocketAddr>::new()
        .with_media_engine(engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(registry)
        .with_handler(Arc::new(handler))
        .with_udp_addrs(local_addresses())
        .build()
        .await?;
    Ok(Arc::new(connection))
}

/// IPv4 addresses of the running interfaces with any free port; loopback alone if there is no other.
fn local_addresses() -> Vec<SocketAddr> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(IpAddr::is_ipv4)
        .take(MAX_LOCAL_ADDRESSES)
        .collect();
    if addresses.is_empty() {
        addresses.push(IpAddr::from([127, 0, 0, 1]));
    }
    addresses.into_iter().map(|ip| (ip, 0).into()).collect()
}

/// Opus, H.264 constrained baseline and VP8, each video codec with retransmission, and the audio level extension.
fn media_engine() -> Result<MediaEngine, DemoError> {
    let mut engine = MediaEngine::default();
    let mut register = |mime: &str, payload_type: u8, fmtp: &str| {
        let (kind, clock_rate, channels) = match mime {
            MIME_TYPE_OPUS => (RtpCodecKind::Audio, 48_000, 2),
            _ => (RtpCodecKind::Video, 90_000, 0),
        };
        let rtcp_feedback = match kind {
            RtpCodecKind::Video if !mime.ends_with("rtx") => {
                vec![feedback("ccm", "fir"), feedback("nack", "pli")]
            }
            _ => Vec::new(),
        };
        let codec = RTCRtpCodecParameters {
            rtp_codec: RTCRtpCodec {
                mime_type: mime.to_owned(),
                clock_rate,
                channels,
                sdp_fmtp_line: fmtp.to_owned(),
                rtcp_feedback,
            },
            payload_type,
        };
        engine.register_codec(codec, kind)
    };
    register(MIME_TYPE_OPUS, 111, "minptime=10;useinbandfec=1")?;
    register(
        MIME_TYPE_H264,
        102,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    )?;
    register("video/rtx", 103, "apt=102")?;
    register(MIME_TYPE_VP8, 96, "")?;
    register("video/rtx", 97, "apt=96")?;
    let level = RTCRtpHeaderExtensionCapability {
        uri: AUDIO_LEVEL_URI.to_owned(),
    };
    engine.register_header_extension(level, RtpCodecKind::Audio, None)?;
    Ok(engine)
}

fn feedback(typ: &str, parameter: &str) -> RTCPFeedback {
    RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    }
}

/// Takes the connection's events: candidates go to the session, everything else into what is observed.
pub(super) struct Handler {
    /// Our candidates. When the session does not keep up, further ones are dropped: one is enough to connect.
    pub(super) candidates: mpsc::Sender<RTCIceCandidateInit>,
    pub(super) observed: Arc<watch::Sender<Observed>>,
    pub(super) packets: Option<mpsc::Sender<ReceivedPacket>>,
    /// Each change asks for a keyframe of every received video track.
    pub(super) keyframe_wishes: Option<watch::Receiver<u64>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(candidate) = event.candidate.to_json() {
            let _ = self.candidates.try_send(candidate);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let connected = state == RTCPeerConnectionState::Connected;
        self.observed.send_if_modified(|seen| {
            let changed = seen.connected != connected;
            seen.connected = connected;
            changed
        });
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        if let Ok(label) = channel.label().await {
            self.observed
                .send_modify(|seen| seen.data_channels.push(label));
        }
        tokio::spawn(async move { while channel.poll().await.is_some() {} });
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        if let Some(wishes) = self.keyframe_wishes.clone() {
            tokio::spawn(pass_wishes(track.clone(), wishes));
        }
        tokio::spawn(read_track(
            track,
            self.observed.clone(),
            self.packets.clone(),
        ));
    }
}

/// Asks for a keyframe of a video track at each wish, until nobody can wish any more.
async fn pass_wishes(track: Arc<dyn TrackRemote>, mut wishes: watch::Receiver<u64>) {
    if track.kind().await != RtpCodecKind::Video {
        return;
    }
    while wishes.changed().await.is_ok() {
        for media_ssrc in track.ssrcs().await {
            let request = PictureLossIndication {
                sender_ssrc: 1,
                media_ssrc,
            };
            // A track that has ended wants no keyframe.
            let _ = track.write_rtcp(vec![Box::new(request)]).await;
        }
    }
}

/// Counts a track's packets until it ends, and hands them on if somebody asked for them.
async fn read_track(
    track: Arc<dyn TrackRemote>,
    observed: Arc<watch::Sender<Observed>>,
    packets: Option<mpsc::Sender<ReceivedPacket>>,
) {
    let kind = match track.kind().await {
        RtpCodecKind::Audio => MediaKind::Audio,
        _ => MediaKind::Video,
    };
    let entry = ReceivedTrack::new(kind, track.stream_id().await, track.track_id().await);
    let mut index = 0;
    observed.send_modify(|seen| {
        index = seen.tracks.len();
        seen.tracks.push(entry);
    });
    let mut expected = None;
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(packet) = event else {
            if matches!(event, TrackRemoteEvent::OnEnded) {
                break;
            }
            continue;
        };
        let ssrc = packet.header.ssrc;
        let codec = match expected {
            None => track.codec(ssrc).await.map(|codec| codec.mime_type),
            Some(_) => None,
        };
        observed.send_modify(|seen| {
            let entry = &mut seen.tracks[index];
            entry.ssrc = ssrc;
            if let Some(codec) = codec {
                entry.codec = codec;
            }
            entry.record(&packet, &mut expected);
        });
        if let Some(packets) = &packets {
            // A test that does not read gets the oldest; the counters above miss nothing.
            let _ = packets.try_send(ReceivedPacket {
                track: index,
                packet,
            });
        }
    }
    observed.send_modify(|seen| seen.tracks[index].ended = true);
}
