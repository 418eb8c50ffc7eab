//! Session descriptions of ours, as text.

use std::fmt::Write;

use super::codecs::{Feedback, Payload};
use super::description::{Direction, Role, token};
use super::session::{Line, LineState, MediaLine, Senders, Session};
use super::{ChannelParams, LocalTransport};
use crate::rtp::params::{Codec, Encodings, MediaKind};

/// Longest stream id, track id or cname that is written, in bytes (RFC 8830, section 2).
const MAX_ID: usize = 64;

/// What a description says besides its m-lines.
pub(super) struct Frame<'a> {
    pub role: Role,
    pub session_id: u64,
    /// Counts our descriptions (RFC 8866, section 5.2).
    pub version: u64,
    pub local: &'a LocalTransport,
    /// kbit/s at which a publisher's encoder starts.
    pub start_kbps: u32,
}

/// The text of `session` as an offer or answer of ours. Lines end in CR LF.
pub(super) fn description(session: &Session, senders: &Senders, frame: &Frame<'_>) -> String {
    let mut out = String::with_capacity(1024 * (1 + session.lines.len()));
    write(&mut out, session, senders, frame).expect("writing to a string cannot fail");
    out
}

fn write(
    out: &mut String,
    session: &Session,
    senders: &Senders,
    frame: &Frame<'_>,
) -> std::fmt::Result {
    // RFC 8829, section 5.2.1.
    let (id, version) = (frame.session_id, frame.version);
    write!(
        out,
        "v=0\r\no=- {id} {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
    )?;
    write!(out, "a=group:BUNDLE")?;
    for line in session.lines.iter().filter(|line| !line.is_stopped()) {
        write!(out, " {}", line.mid)?;
    }
    // ICE-lite (RFC 8445, section 2.5): the client takes the controlling role whoever offers. The agent below does
    // send checks of its own, as answers to those of the client; that is harmless.
    write!(out, "\r\na=ice-lite\r\na=msid-semantic: WMS *\r\n")?;
    for (index, line) in session.lines.iter().enumerate() {
        m_line(out, line)?;
        if !line.mid.as_str().is_empty() {
            write!(out, "a=mid:{}\r\n", line.mid)?;
        }
        match &line.state {
            LineState::Stopped => {
                write!(out, "a={}\r\n", Direction::default().as_str())?;
                continue;
            }
            LineState::Channel(_) => data_channel(out)?,
            LineState::Media(media) => media_line(out, media, senders, frame)?,
        }
        transport(out, frame, session.tagged() == Some(index))?;
    }
    Ok(())
}

fn m_line(out: &mut String, line: &Line) -> std::fmt::Result {
    let port = if line.is_stopped() { 0 } else { 9 };
    write!(out, "m={} {port} {}", line.media, line.protocol)?;
    match &line.state {
        LineState::Media(media) => {
            for number in media.payloads.iter().flat_map(Payload::numbers) {
                write!(out, " {number}")?;
            }
            for rtx in media.payloads.iter().filter_map(|payload| payload.rtx) {
                write!(out, " {rtx}")?;
            }
        }
        LineState::Channel(_) => write!(out, " webrtc-datachannel")?,
        // What follows port 0 means nothing (RFC 3264, section 6), and one format has to be there. webrtc-rs refuses a
        // description for any other number that has no rtpmap.
        LineState::Stopped if line.formats.is_empty() || line.is_rtp() => write!(out, " 0")?,
        LineState::Stopped => write!(out, " {}", line.formats.join(" "))?,
    }
    write!(out, "\r\nc=IN IP4 0.0.0.0\r\n")
}

fn data_channel(out: &mut String) -> std::fmt::Result {
    let ours = ChannelParams::default();
    write!(
        out,
        "a=sctp-port:{}\r\na=max-message-size:{}\r\n",
        ours.sctp_port, ours.max_message_size
    )
}

fn media_line(
    out: &mut String,
    line: &MediaLine,
    senders: &Senders,
    frame: &Frame<'_>,
) -> std::fmt::Result {
    let direction = match frame.role {
        Role::Offer => line.wish,
        Role::Answer => line.direction,
    };
    for (id, extension) in line.extensions.iter() {
        let direction = if extension.is_one_way() {
            "/recvonly"
        } else {
            ""
        };
        write!(out, "a=extmap:{id}{direction} {}\r\n", extension.uri())?;
    }
    write!(
        out,
        "a={}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
        direction.as_str()
    )?;
    for payload in &line.payloads {
        let hint = direction.receive && line.kind == MediaKind::Video;
        let feedback = payload.feedback_of(direction.receive);
        payload_type(out, payload, feedback, hint.then_some(frame.start_kbps))?;
    }
    if let Encodings::Rids(rids) = &line.encodings
        && direction.receive
    {
        // RFC 8851 and RFC 8853; said again in each offer of ours, or the client would stop all but one.
        for rid in rids {
            write!(out, "a=rid:{rid} recv\r\n")?;
        }
        write!(out, "a=simulcast:recv {}\r\n", rids.join(";"))?;
    }
    let sender = line.sender.filter(|_| direction.send);
    let Some(spec) = sender.and_then(|id| senders.get(&id)) else {
        return Ok(());
    };
    let (stream, track) = (
        token(&spec.stream_id, MAX_ID),
        token(&spec.track_id, MAX_ID),
    );
    write!(out, "a=msid:{stream} {track}\r\n")?;
    let cname = token(&spec.cname, MAX_ID);
    let repaired = line.payloads.iter().any(|payload| payload.rtx.is_some());
    if repaired {
        write!(out, "a=ssrc-group:FID {} {}\r\n", spec.ssrc, spec.rtx_ssrc)?;
    }
    write!(out, "a=ssrc:{} cname:{cname}\r\n", spec.ssrc)?;
    if repaired {
        write!(out, "a=ssrc:{} cname:{cname}\r\n", spec.rtx_ssrc)?;
    }
    Ok(())
}

fn payload_type(
    out: &mut String,
    payload: &Payload,
    feedback: Feedback,
    start_kbps: Option<u32>,
) -> std::fmt::Result {
    let (number, codec) = (payload.payload_type, payload.codec);
    let (name, clock) = (codec.encoding_name(), codec.clock_rate());
    let channels = if codec == Codec::Opus { "/2" } else { "" };
    write!(out, "a=rtpmap:{number} {name}/{clock}{channels}\r\n")?;
    for value in feedback.values() {
        write!(out, "a=rtcp-fb:{number} {value}\r\n")?;
    }
    let fmtp = payload.own_fmtp();
    // Not of any standard: Chromium's encoder begins there, not at 300 kbit/s.
    match (fmtp.as_str(), start_kbps) {
        ("", None) => {}
        ("", Some(kbps)) => write!(out, "a=fmtp:{number} x-google-start-bitrate={kbps}\r\n")?,
        (fmtp, None) => write!(out, "a=fmtp:{number} {fmtp}\r\n")?,
        (fmtp, Some(kbps)) => {
            write!(
                out,
                "a=fmtp:{number} {fmtp};x-google-start-bitrate={kbps}\r\n"
            )?;
        }
    }
    if let Some(red) = payload.red {
        let red = red.payload_type;
        write!(
            out,
            "a=rtpmap:{red} red/{clock}{channels}\r\na=fmtp:{red} {number}/{number}\r\n"
        )?;
    }
    if let Some(rtx) = payload.rtx {
        write!(
            out,
            "a=rtpmap:{rtx} rtx/{clock}\r\na=fmtp:{rtx} apt={number}\r\n"
        )?;
    }
    Ok(())
}

fn transport(out: &mut String, frame: &Frame<'_>, tagged: bool) -> std::fmt::Result {
    let local = frame.local;
    // RFC 8842, section 5.1: the server waits for the ClientHello.
    let setup = match frame.role {
        Role::Offer => "actpass",
        Role::Answer => "passive",
    };
    write!(
        out,
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n",
        local.ufrag, local.pwd, local.fingerprint
    )?;
    if tagged {
        for candidate in &local.candidates {
            write!(
                out,
                "a=candidate:{}\r\n",
                candidate.trim_start_matches("candidate:")
            )?;
        }
        write!(out, "a=end-of-candidates\r\n")?;
    }
    Ok(())
}
