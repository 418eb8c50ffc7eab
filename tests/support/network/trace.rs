//! The media that a bridge has seen, as far as encryption leaves it readable: RTP headers. Which losses were repaired?

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::impairment::Fate;

/// A retransmission has two bytes more than the packet that it repeats (RFC 4588, section 4), and perhaps other header
/// extensions.
const ORIGINAL_NUMBER: usize = 2;
const EXTENSIONS: usize = 24;
/// The time that a repair may take before its loss counts as not repaired.
const PATIENCE: Duration = Duration::from_secs(1);

/// One media packet at the bridge.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When it came.
    pub at: Instant,
    /// What became of it.
    pub fate: Fate,
    /// What it is.
    pub packet: Packet,
}

/// The clear part of an RTP packet (RFC 3550, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number.
    pub seq: u16,
    /// Media timestamp; a retransmission has its original's.
    pub timestamp: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Of the UDP payload, bytes.
    pub size: usize,
}

/// What became of the losses of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Packets of the stream.
    pub packets: u64,
    /// Lost ones.
    pub lost: u64,
    /// Lost ones whose repair had the time to come.
    pub recoverable: u64,
    /// Those of them whose repair came through.
    pub repaired: u64,
    /// Retransmissions that were sent for lost packets, those that were lost as well included.
    pub retransmissions: u64,
    /// Retransmissions that were lost themselves.
    pub lost_again: u64,
    /// Retransmissions of what was not lost, or was repaired already; probes of the path among them.
    pub needless: u64,
    /// From each loss to its repair, as the bridge saw them; ascending.
    pub times: Vec<Duration>,
}

impl Seen {
    /// It went no further.
    pub fn is_lost(&self) -> bool {
        matches!(self.fate, Fate::Lost(_))
    }
}

impl Repairs {
    /// Share of the recoverable losses that were repaired; 1 when nothing was lost.
    pub fn answered(&self) -> f64 {
        if self.recoverable == 0 {
            return 1.0;
        }
        self.repaired as f64 / self.recoverable as f64
    }

    /// Retransmissions for each lost packet; those that repeat a lost retransmission make it more than 1.
    pub fn effort(&self) -> f64 {
        self.retransmissions as f64 / self.lost.max(1) as f64
    }

    /// Retransmissions, needless ones included, for each loss, lost retransmissions included: 1 if none was needless.
    pub fn waste(&self) -> f64 {
        let sent = self.retransmissions + self.needless;
        sent as f64 / (self.lost + self.lost_again).max(1) as f64
    }

    /// Follows the losses of stream `media` through its retransmissions `rtx`, until `end`.
    ///
    /// The number of the original is encrypted; its timestamp and its size tell it among the packets of its frame.
    pub fn follow(seen: &[Seen], media: u32, rtx: u32, end: Instant) -> Self {
        let mut repairs = Repairs::default();
        let mut open: HashMap<u32, Vec<(Seen, bool)>> = HashMap::new();
        for one in seen {
            let packet = one.packet;
            if packet.ssrc == media {
                repairs.packets += 1;
                if one.is_lost() {
                    let recoverable = end.saturating_duration_since(one.at) > PATIENCE;
                    repairs.lost += 1;
                    repairs.recoverable += u64::from(recoverable);
                    let frame = open.entry(packet.timestamp).or_default();
                    frame.push((*one, recoverable));
                }
            } else if packet.ssrc == rtx {
                let frame = open.entry(packet.timestamp).or_default();
                let original = frame
                    .iter()
                    .enumerate()
                    .map(|(at, (lost, _))| {
                        (packet.size.abs_diff(lost.packet.size + ORIGINAL_NUMBER), at)
                    })
                    .min()
                    .filter(|(difference, _)| *difference <= EXTENSIONS);
                match original {
                    None => repairs.needless += 1,
                    Some((_, at)) => {
                        repairs.retransmissions += 1;
                        repairs.lost_again += u64::from(one.is_lost());
                        if !one.is_lost() {
                            let (lost, recoverable) = frame.swap_remove(at);
                            repairs.times.push(one.at - lost.at);
                            repairs.repaired += u64::from(recoverable);
                        }
                    }
                }
            }
        }
        repairs.times.sort();
        repairs
    }

    /// Both together.
    pub fn plus(mut self, other: Repairs) -> Self {
        self.packets += other.packets;
        self.lost += other.lost;
        self.recoverable += other.recoverable;
        self.repaired += other.repaired;
        self.retransmissions += other.retransmissions;
        self.lost_again += other.lost_again;
        self.needless += other.needless;
        self.times.extend(other.times);
        self.times.sort();
        self
    }

    /// The time within which this share (0 to 1) of the repairs was there.
    pub fn time(&self, share: f64) -> Duration {
        let at = (self.times.len() as f64 * share) as usize;
        self.times
            .get(at.min(self.times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

/// Packets of one stream: all, and lost ones.
pub fn losses(seen: &[Seen], ssrc: u32) -> (u64, u64) {
    let stream = seen.iter().filter(|one| one.packet.ssrc == ssrc);
    stream.fold((0, 0), |(all, lost), one| {
        (all + 1, lost + u64::from(one.is_lost()))
    })
}

/// The RTP packet in an Ethernet frame with IPv4 and UDP, if that is what it has.
pub fn parse(frame: &[u8]) -> Option<Packet> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [0x08, 0x00])?;
    let header = usize::from(ip.first()? & 15) * 4;
    let udp = ip.get(header..).filter(|_| ip.get(9) == Some(&17))?;
    let rtp = udp.get(8..).filter(|rtp| rtp.len() >= 12)?;
    // RFC 5761, section 4, and RFC 7983, section 7.
    let is_rtp = (128..192).contains(&rtp[0]) && !(64..96).contains(&(rtp[1] & 127));
    let word = |at: usize| {
        rtp[at..at + 4]
            .iter()
            .fold(0, |word, b| word << 8 | u32::from(*b))
    };
    is_rtp.then(|| Packet {
        ssrc: word(8),
        seq: word(0) as u16,
        timestamp: word(4),
        payload_type: rtp[1] & 127,
        size: rtp.len(),
    })
}
