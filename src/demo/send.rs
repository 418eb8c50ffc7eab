//! Sends the encoded loops: one task for each published track.

use rtc::media::Sample;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp::extension::audio_level_extension::AudioLevelExtension;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use webrtc::media_stream::Track;
use webrtc::media_stream::track_local::static_sample::TrackLocalStaticSample;
use webrtc::media_stream::track_local::{TrackLocal, TrackLocalEvent};
use webrtc::peer_connection::PeerConnection;
use webrtc::rtp_transceiver::RtpSender;

use super::DemoError;
use super::observed::Observed;
use super::picture::PictureLoop;
use super::voice::{FRAME_DURATION, VoiceLoop};

/// Keyframe requests closer together than this are met by one jump: what was sent at the first answers them all.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);

/// A track of ours and the sender that carries it.
pub(super) struct Outgoing {
    track: Arc<TrackLocalStaticSample>,
    sender: Arc<dyn RtpSender>,
    ssrc: u32,
}

impl Outgoing {
    /// Adds a track of `kind` to the connection.
    pub(super) async fn add(
        connection: &Arc<dyn PeerConnection>,
        stream_id: &str,
        kind: RtpCodecKind,
    ) -> Result<Self, DemoError> {
        let ssrc: u32 = rand::random();
        let (mime, clock_rate, channels, fmtp) = match kind {
            RtpCodecKind::Audio => ("audio/opus", 48_000, 2, "minptime=10;useinbandfec=1"),
            _ => (
                "video/H264",
                90_000,
                0,
                "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            ),
        };
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                ..Default::default()
            },
            codec: RTCRtpCodec {
                mime_type: mime.to_owned(),
                clock_rate,
                channels,
                sdp_fmtp_line: fmtp.to_owned(),
                rtcp_feedback: Vec::new(),
            },
            ..Default::default()
        };
        let media = MediaStreamTrack::new(
            stream_id.to_owned(),
            format!("{kind}-{ssrc:08x}"),
            kind.to_string(),
            kind,
            vec![encoding],
        );
        let track = Arc::new(TrackLocalStaticSample::new(Instant::now(), media)?);
        let sender = connection
            .add_track(track.clone() as Arc<dyn TrackLocal>)
            .await?;
        Ok(Outgoing {
            track,
            sender,
            ssrc,
        })
    }

    #[cfg(test)]
    pub(super) fn sender(&self) -> Arc<dyn RtpSender> {
        self.sender.clone()
    }

    /// The payload type that offer and answer agreed on for the codec that we have.
    async fn payload_type(&self) -> Result<u8, DemoError> {
        let wanted = self
            .track
            .codec(self.ssrc)
            .await
            .map(|codec| codec.mime_type);
        let parameters = self.sender.get_parameters().await?;
        parameters
            .rtp_parameters
            .codecs
            .iter()
            .find(|codec| {
                wanted
                    .as_ref()
                    .is_some_and(|mime| mime.eq_ignore_ascii_case(&codec.rtp_codec.mime_type))
            })
            .map(|codec| codec.payload_type)
            .ok_or(DemoError::CodecRefused)
    }
}

/// Sends the picture loop at its frame rate and jumps to its start when a keyframe is asked for.
pub(super) async fn pictures(
    out: Outgoing,
    video: Arc<PictureLoop>,
    observed: Arc<watch::Sender<Observed>>,
) -> Result<(), DemoError> {
    let payload_type = out.payload_type().await?;
    let duration = video.frame_duration();
    let mut ticks = tokio::time::interval(duration);
    let mut next = 0;
    let mut last_keyframe: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if next % video.len() == 0 {
                    last_keyframe = Some(Instant::now());
                }
                let sample = sample(video.unit(next), duration);
                out.track.sample_writer(out.ssrc, payload_type).write_sample(&sample).await?;
                next += 1;
            }
            event = out.track.poll() => match event {
                Some(TrackLocalEvent::OnRtcpPacket(requests)) => {
                    observed.send_modify(|seen| seen.keyframe_requests += requests.len() as u64);
                    if last_keyframe.is_none_or(|at| at.elapsed() >= KEYFRAME_INTERVAL) {
                        next = 0;
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

/// Sends the voice loop in step with `epoch`, so that participants who take turns agree on whose turn it is.
pub(super) async fn voice(
    out: Outgoing,
    audio: Arc<VoiceLoop>,
    epoch: Instant,
) -> Result<(), DemoError> {
    let payload_type = out.payload_type().await?;
    let mut frame = (epoch.elapsed().as_millis() / FRAME_DURATION.as_millis()) as u64;
    let mut ticks = tokio::time::interval(FRAME_DURATION);
    loop {
        ticks.tick().await;
        let packet = audio.packet(frame);
        let sample = sample(packet.payload.clone(), FRAME_DURATION);
        out.track
            .sample_writer(out.ssrc, payload_type)
            .with_audio_level(AudioLevelExtension {
                level: packet.level,
                voice: packet.voice,
            })
            .write_sample(&sample)
            .await?;
        frame += 1;
    }
}

fn sample(data: bytes::Bytes, duration: Duration) -> Sample {
    Sample {
        data,
        duration,
        ..Sample::new(Instant::now())
    }
}
