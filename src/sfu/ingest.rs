//! From SSRCs to m-lines, and one received stream in its details.

use std::time::Instant;

use super::DropReason;
use crate::prefetch::prefetch;
use crate::rtp::extension::Extensions;
use crate::rtp::header::RtpPacket;
use crate::rtp::nack::NackGenerator;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{Encodings, Mid, ReceiveLine, Ssrc};
use crate::rtp::reception::Reception;
use crate::rtp::unwrap::{SeqUnwrapper, TimestampUnwrapper};
use crate::rtp::window::{Novelty, SeqWindow, WINDOW};

/// SSRCs that one peer may use. When all are taken by live streams, packets of another are dropped.
pub const MAX_SSRCS: usize = 64;
/// A leap further ahead is taken for a new beginning, if the next packet confirms it (RFC 3550, appendix A.1).
const MAX_DROPOUT: u64 = 3000;

#[derive(Clone, Debug)]
struct Route {
    ssrc: Ssrc,
    mid: Mid,
    /// Which of the m-line's streams it is, or repairs.
    stream: usize,
    /// Its stream was replaced by one with another SSRC.
    retired: bool,
}

/// Which m-line an SSRC belongs to, and which stream of it. Bounded by [`MAX_SSRCS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    table: Vec<Route>,
}

impl Routes {
    /// The m-lines after a negotiation: drops the routes of those that are gone, and adds what the SDP announces.
    pub fn set_lines(&mut self, lines: &[ReceiveLine]) {
        self.table.retain(|route| {
            let mut same = lines.iter().filter(|line| line.mid == route.mid);
            same.any(|line| route.stream < line.streams())
        });
        for line in lines {
            for announced in &line.ssrcs {
                for ssrc in [Some(announced.primary), announced.rtx]
                    .into_iter()
                    .flatten()
                {
                    // One too many is found again by MID, or counted when it comes.
                    if let Some(stream) = announced_stream(line, ssrc) {
                        let _ = self.insert(ssrc, &line.mid, stream);
                    }
                }
            }
        }
    }

    /// Loads the table: see [`crate::prefetch`].
    pub fn prefetch(&self) {
        prefetch(self.table.as_slice());
    }

    /// The index of the packet's m-line, and that of its stream there. RFC 8843, section 9.2: a MID that it carries
    /// decides and is remembered, then its SSRC, then its payload type where only one m-line has it. Likewise a RID, or
    /// that of the stream which it repairs.
    pub fn find<'l>(
        &mut self,
        lines: impl Iterator<Item = &'l ReceiveLine> + Clone,
        packet: &RtpPacket<'_>,
        extensions: &Extensions<'_>,
    ) -> Result<(usize, usize), DropReason> {
        let mid = extensions.mid;
        let rid = extensions.rid.or(extensions.repaired_rid);
        let index = |mid: &str| lines.clone().position(|line| line.mid.as_str() == mid);
        if let Some(route) = self.table.iter().find(|route| route.ssrc == packet.ssrc)
            && mid.is_none_or(|mid| route.mid.as_str() == mid)
        {
            let at = index(route.mid.as_str()).ok_or(DropReason::UnknownSsrc)?;
            let moved = rid
                .zip(lines.clone().nth(at))
                .and_then(|(rid, line)| stream_named(line, rid))
                .is_some_and(|stream| stream != route.stream);
            if !moved {
                return match route.retired {
                    true => Err(DropReason::StaleStream),
                    false => Ok((at, route.stream)),
                };
            }
        }
        let found = match mid {
            Some(mid) => index(mid),
            None => only_line_with(lines.clone(), packet.payload_type),
        };
        let at = found.ok_or(DropReason::UnknownSsrc)?;
        let line = lines.clone().nth(at).ok_or(DropReason::UnknownSsrc)?;
        let stream = match &line.encodings {
            Encodings::Single => Some(0),
            Encodings::Rids(_) => rid.and_then(|rid| stream_named(line, rid)),
            Encodings::Ssrcs => announced_stream(line, packet.ssrc),
        };
        let stream = stream.ok_or(DropReason::UnknownSsrc)?;
        self.insert(packet.ssrc, &line.mid, stream)?;
        Ok((at, stream))
    }

    /// The stream of this SSRC has been replaced: what still comes is late.
    pub fn retire(&mut self, ssrc: Ssrc) {
        if let Some(route) = self.table.iter_mut().find(|route| route.ssrc == ssrc) {
            route.retired = true;
        }
    }

    fn insert(&mut self, ssrc: Ssrc, mid: &Mid, stream: usize) -> Result<(), DropReason> {
        let new = Route {
            ssrc,
            mid: mid.clone(),
            stream,
            retired: false,
        };
        if let Some(route) = self.table.iter_mut().find(|route| route.ssrc == ssrc) {
            *route = new;
            return Ok(());
        }
        if self.table.len() >= MAX_SSRCS {
            let oldest = self.table.iter().position(|route| route.retired);
            self.table.remove(oldest.ok_or(DropReason::SsrcTableFull)?);
        }
        self.table.push(new);
        Ok(())
    }
}

/// Which stream of the m-line has this RTP stream id.
fn stream_named(line: &ReceiveLine, rid: &str) -> Option<usize> {
    match &line.encodings {
        Encodings::Rids(rids) => rids.iter().position(|known| known == rid),
        Encodings::Single | Encodings::Ssrcs => None,
    }
}

/// Which stream of the m-line the SDP announces with this SSRC.
fn announced_stream(line: &ReceiveLine, ssrc: Ssrc) -> Option<usize> {
    let mut announced = line.ssrcs.iter();
    let at = announced.position(|a| a.primary == ssrc || a.rtx == Some(ssrc))?;
    match line.encodings {
        Encodings::Single => Some(0),
        Encodings::Rids(_) => None,
        Encodings::Ssrcs => Some(at),
    }
}

fn only_line_with<'l>(
    lines: impl Iterator<Item = &'l ReceiveLine>,
    payload_type: u8,
) -> Option<usize> {
    let mut having = lines.enumerate().filter(|(_, line)| {
        line.payloads.iter().any(|params| {
            let number = Some(payload_type);
            [Some(params.payload_type), params.rtx, params.red].contains(&number)
        })
    });
    let (at, _) = having.next()?;
    having.next().is_none().then_some(at)
}

/// What a sequence number is to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A packet not seen before, with its extended number.
    New(u64),
    /// The stream has begun anew at another number.
    Restart,
}

/// One SSRC's media.
#[derive(Debug)]
pub(super) struct Stream {
    pub ssrc: Ssrc,
    pub timestamps: TimestampUnwrapper,
    pub reception: Reception,
    pub nack: NackGenerator,
    /// The last sender report: the peer's clock, and the extended timestamp.
    pub report: Option<(Ntp, u64)>,
    seqs: SeqUnwrapper,
    seen: SeqWindow,
    jumped_to: Option<u16>,
}

impl Stream {
    /// A stream that begins with this packet, which is yet to be handled.
    pub fn new(ssrc: Ssrc, seq: u16, clock_rate: u32) -> Self {
        let seqs = SeqUnwrapper::default();
        let first = seqs.peek(seq);
        Stream {
            ssrc,
            timestamps: TimestampUnwrapper::default(),
            reception: Reception::new(clock_rate, first),
            nack: NackGenerator::default(),
            report: None,
            seqs,
            seen: SeqWindow::default(),
            jumped_to: None,
        }
    }

    /// Finds the place of a sequence number and marks it as seen.
    pub fn place(&mut self, seq: u16) -> Result<Place, DropReason> {
        let extended = self.seqs.peek(seq);
        if let Some(highest) = self.seqs.highest() {
            if extended > highest + MAX_DROPOUT || extended + WINDOW <= highest {
                let confirmed = self.jumped_to == Some(seq);
                self.jumped_to = Some(seq.wrapping_add(1));
                return if confirmed {
                    Ok(Place::Restart)
                } else {
                    Err(DropReason::SequenceJump)
                };
            }
            self.jumped_to = None;
        }
        self.seqs.unwrap(seq);
        self.mark(extended)
    }

    /// As [`Self::place`], for the original number of a retransmission.
    pub fn place_retransmitted(&mut self, seq: u16) -> Result<u64, DropReason> {
        let extended = self.seqs.peek(seq);
        // What the primary stream has not reached is an old packet of before a restart, or a forgery.
        if self.seqs.highest().is_none_or(|highest| extended > highest) {
            return Err(DropReason::UnexpectedRetransmission);
        }
        self.mark(extended).map(|_| extended)
    }

    /// Marks a packet that redundant audio has brought. Whether it is news.
    pub fn take_recovered(&mut self, extended: u64) -> bool {
        self.mark(extended).is_ok()
    }

    fn mark(&mut self, extended: u64) -> Result<Place, DropReason> {
        match self.seen.insert(extended) {
            Novelty::Newest | Novelty::Late => Ok(Place::New(extended)),
            Novelty::Duplicate => Err(DropReason::Duplicate),
            Novelty::TooOld => Err(DropReason::TooOld),
        }
    }

    /// A sender report of this stream.
    pub fn handle_report(&mut self, now: Instant, ntp: Ntp, timestamp: u32) {
        self.reception.handle_sender_report(now, ntp);
        if self.timestamps.started() {
            self.report = Some((ntp, self.timestamps.peek(timestamp)));
        }
    }
}
