//! Writers of the RTCP packets that this server sends. Each appends one whole packet to `out`.

use super::{
    BYE, DESCRIPTION, PAYLOAD_FEEDBACK, RECEIVER_REPORT, ReportBlock, SENDER_REPORT,
    TRANSPORT_FEEDBACK,
};
use crate::rtp::ntp::Ntp;
use crate::rtp::params::Ssrc;

/// Most blocks in one report: its count has five bits.
pub const MAX_BLOCKS: usize = 31;

/// What a sender report says about the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// Our media stream.
    pub ssrc: Ssrc,
    /// Now.
    pub ntp: Ntp,
    /// Now, on the stream's media clock.
    pub timestamp: u32,
    /// Packets sent since the beginning, modulo 2³².
    pub packets: u32,
    /// Payload bytes sent since the beginning, modulo 2³².
    pub octets: u32,
}

/// Sender report without blocks (RFC 3550, section 6.4.1).
pub fn sender_report(info: &SenderInfo, out: &mut Vec<u8>) {
    let start = begin(0, SENDER_REPORT, out);
    put(out, info.ssrc.0);
    out.extend_from_slice(&info.ntp.0.to_be_bytes());
    put(out, info.timestamp);
    put(out, info.packets);
    put(out, info.octets);
    finish(start, out);
}

/// Source description with the canonical name (RFC 3550, section 6.5.1); a name over 255 bytes is cut.
pub fn description(ssrc: Ssrc, cname: &str, out: &mut Vec<u8>) {
    let name = &cname.as_bytes()[..cname.len().min(255)];
    let start = begin(1, DESCRIPTION, out);
    put(out, ssrc.0);
    out.extend_from_slice(&[1, name.len() as u8]);
    out.extend_from_slice(name);
    // The list of items ends with at least one zero, up to the next word.
    out.push(0);
    while !(out.len() - start).is_multiple_of(4) {
        out.push(0);
    }
    finish(start, out);
}

/// Receiver report (RFC 3550, section 6.4.2). Blocks beyond [`MAX_BLOCKS`] are left out.
pub fn receiver_report(
    sender: Ssrc,
    blocks: impl IntoIterator<Item = ReportBlock>,
    out: &mut Vec<u8>,
) {
    let start = begin(0, RECEIVER_REPORT, out);
    put(out, sender.0);
    for block in blocks.into_iter().take(MAX_BLOCKS) {
        put(out, block.ssrc.0);
        let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff);
        put(
            out,
            u32::from(block.fraction_lost) << 24 | lost as u32 & 0xff_ffff,
        );
        put(out, block.highest_seq);
        put(out, block.jitter);
        put(out, block.last_sr);
        put(out, block.delay_since_last_sr);
        out[start] += 1;
    }
    finish(start, out);
}

/// Generic NACK (RFC 4585, section 6.2.1) for ascending `seqs`; returns how many it names, stopping before the
/// packet exceeds `budget` bytes.
pub fn nack(sender: Ssrc, media: Ssrc, seqs: &[u16], budget: usize, out: &mut Vec<u8>) -> usize {
    if seqs.is_empty() || budget < 16 {
        return 0;
    }
    let start = begin(1, TRANSPORT_FEEDBACK, out);
    put(out, sender.0);
    put(out, media.0);
    let mut named = 0;
    while named < seqs.len() && out.len() - start + 4 <= budget {
        let base = seqs[named];
        named += 1;
        let mut mask = 0u16;
        while let Some(&next) = seqs.get(named) {
            let Some(bit @ 0..=15) = next.wrapping_sub(base).checked_sub(1) else {
                break;
            };
            mask |= 1 << bit;
            named += 1;
        }
        put(out, u32::from(base) << 16 | u32::from(mask));
    }
    finish(start, out);
    named
}

/// Picture loss indication (RFC 4585, section 6.3.1).
pub fn pli(sender: Ssrc, media: Ssrc, out: &mut Vec<u8>) {
    let start = begin(1, PAYLOAD_FEEDBACK, out);
    put(out, sender.0);
    put(out, media.0);
    finish(start, out);
}

/// Full intra request (RFC 5104, section 4.3.1.1): a new `number` is a new request.
pub fn fir(sender: Ssrc, media: Ssrc, number: u8, out: &mut Vec<u8>) {
    let start = begin(4, PAYLOAD_FEEDBACK, out);
    put(out, sender.0);
    // Section 4.3.1.2: the media source field is not used and zero.
    put(out, 0);
    put(out, media.0);
    out.extend_from_slice(&[number, 0, 0, 0]);
    finish(start, out);
}

/// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03, section 2.2) for these streams; those beyond
/// [`MAX_BLOCKS`] are left out.
pub fn remb(sender: Ssrc, bps: u64, streams: &[Ssrc], out: &mut Vec<u8>) {
    let streams = &streams[..streams.len().min(MAX_BLOCKS)];
    let exponent = 46u32.saturating_sub(bps.leading_zeros());
    let mantissa = (bps >> exponent) as u32;
    let start = begin(15, PAYLOAD_FEEDBACK, out);
    put(out, sender.0);
    // The media source is not used and zero.
    put(out, 0);
    out.extend_from_slice(b"REMB");
    put(
        out,
        (streams.len() as u32) << 24 | exponent << 18 | mantissa,
    );
    for stream in streams {
        put(out, stream.0);
    }
    finish(start, out);
}

/// Goodbye of one source (RFC 3550, section 6.6).
pub fn bye(ssrc: Ssrc, out: &mut Vec<u8>) {
    let start = begin(1, BYE, out);
    put(out, ssrc.0);
    finish(start, out);
}

/// Appends a common header whose length [`finish`] fills in; returns where it stands.
pub(crate) fn begin(count: u8, packet_type: u8, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0x80 | count, packet_type, 0, 0]);
    out.len() - 4
}

/// Writes the packet's length in words, less one. The packet is a whole number of words.
pub(crate) fn finish(start: usize, out: &mut [u8]) {
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn put(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_be_bytes());
}
