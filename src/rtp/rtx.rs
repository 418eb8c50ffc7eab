//! Retransmission (RFC 4588): the packets that one leg may be asked for again.

use std::time::{Duration, Instant};

/// Packets that are remembered: two seconds of a 4 Mbit/s stream. The oldest is forgotten for the newest.
pub const CACHE_PACKETS: usize = 1024;
/// Payload bytes at first.
pub const MIN_CACHE_BYTES: usize = 64 * 1024;
/// Payload bytes at most. The oldest are overwritten by the newest.
pub const MAX_CACHE_BYTES: usize = 512 * 1024;
/// The cache doubles, up to [`MAX_CACHE_BYTES`], while it holds less than this.
pub const CACHE_SPAN: Duration = Duration::from_secs(1);
/// A packet older than this is not sent again: its frame has been given up.
pub const MAX_AGE: Duration = Duration::from_secs(3);
/// How often one packet is sent again.
pub const MAX_RESENDS: u8 = 6;

/// What a retransmission repeats besides the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// Extended sequence number as sent.
    pub seq: u64,
    /// As sent.
    pub timestamp: u32,
    /// As sent.
    pub marker: bool,
    /// Video orientation, as sent.
    pub orientation: Option<u8>,
}

/// A packet out of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedPacket<'a> {
    /// Its fields.
    pub meta: PacketMeta,
    /// Empty: it had none.
    pub dependency_descriptor: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// Why a packet cannot be sent again now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Never sent, overwritten, or too old.
    Gone,
    /// Sent again less than three quarters of a round trip ago: the answer may be on its way.
    TooSoon,
    /// Sent again [`MAX_RESENDS`] times.
    Exhausted,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    meta: PacketMeta,
    /// Where it begins in the endless stream of bytes of which the ring holds the end.
    at: u64,
    payload_len: u16,
    descriptor_len: u8,
    resends: u8,
    sent: Instant,
}

/// The sent packets of one stream, in a flat ring of bytes.
///
/// Allocates with its first packet, and when it doubles; a steady stream allocates nothing.
#[derive(Debug, Default)]
pub struct RtxCache {
    slots: Vec<Option<Slot>>,
    ring: Vec<u8>,
    /// Bytes ever written, gaps at the ring's end included.
    written: u64,
    lap_began: Option<Instant>,
}

impl RtxCache {
    /// Remembers a packet that was sent. One that is larger than any datagram is not remembered.
    pub fn insert(
        &mut self,
        now: Instant,
        meta: PacketMeta,
        dependency_descriptor: &[u8],
        payload: &[u8],
    ) {
        let (Ok(payload_len), Ok(descriptor_len)) = (
            u16::try_from(payload.len()),
            u8::try_from(dependency_descriptor.len()),
        ) else {
            return;
        };
        if self.slots.is_empty() {
            self.slots.resize(CACHE_PACKETS, None);
            self.ring.resize(MIN_CACHE_BYTES, 0);
            self.lap_began = Some(now);
        }
        let size = dependency_descriptor.len() + payload.len();
        if size > self.ring.len() {
            return;
        }
        let start = self.reserve(now, size);
        let at = (start % self.ring.len() as u64) as usize;
        let (head, tail) = self.ring[at..at + size].split_at_mut(dependency_descriptor.len());
        head.copy_from_slice(dependency_descriptor);
        tail.copy_from_slice(payload);
        self.slots[slot_of(meta.seq)] = Some(Slot {
            meta,
            at: start,
            payload_len,
            descriptor_len,
            resends: 0,
            sent: now,
        });
    }

    /// The packet whose sequence number ends in `seq`, if it may be sent again now; counts it as sent again.
    pub fn take(
        &mut self,
        now: Instant,
        seq: u16,
        round_trip: Duration,
    ) -> Result<CachedPacket<'_>, Unavailable> {
        let Some(Some(slot)) = self.slots.get_mut(slot_of(u64::from(seq))) else {
            return Err(Unavailable::Gone);
        };
        let capacity = self.ring.len() as u64;
        let age = now.saturating_duration_since(slot.sent);
        if slot.meta.seq as u16 != seq || self.written - slot.at > capacity {
            return Err(Unavailable::Gone);
        }
        if slot.resends == 0 && age > MAX_AGE {
            return Err(Unavailable::Gone);
        }
        if slot.resends >= MAX_RESENDS {
            return Err(Unavailable::Exhausted);
        }
        // The client's own estimate may be shorter than ours; what is then refused waits for its next request, which
        // costs a whole round trip more.
        if slot.resends > 0 && age < round_trip * 3 / 4 {
            return Err(Unavailable::TooSoon);
        }
        slot.resends += 1;
        slot.sent = now;
        let slot = *slot;
        Ok(self.view(&slot))
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.slots.fill(None);
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.ring.capacity() + self.slots.capacity() * size_of::<Option<Slot>>()
    }

    fn view(&self, slot: &Slot) -> CachedPacket<'_> {
        let at = (slot.at % self.ring.len() as u64) as usize;
        let size = usize::from(slot.descriptor_len) + usize::from(slot.payload_len);
        let (dependency_descriptor, payload) =
            self.ring[at..at + size].split_at(usize::from(slot.descriptor_len));
        CachedPacket {
            meta: slot.meta,
            dependency_descriptor,
            payload,
        }
    }

    /// Where the next `size` contiguous bytes go.
    fn reserve(&mut self, now: Instant, size: usize) -> u64 {
        let left = self.ring.len() - (self.written % self.ring.len() as u64) as usize;
        if size > left {
            self.written += left as u64;
            let short = self
                .lap_began
                .is_some_and(|began| now.saturating_duration_since(began) < CACHE_SPAN);
            if short && self.ring.len() < MAX_CACHE_BYTES {
                self.grow();
            } else {
                self.lap_began = Some(now);
            }
        }
        let start = self.written;
        self.written += size as u64;
        start
    }

    /// Doubles the ring. One lap has just ended, so that all it holds stands in order from its beginning.
    fn grow(&mut self) {
        let lap = self.written - self.ring.len() as u64;
        let length = self.ring.len();
        self.ring.resize(2 * length, 0);
        for slot in &mut self.slots {
            *slot = slot.filter(|slot| slot.at >= lap).map(|slot| Slot {
                at: slot.at - lap,
                ..slot
            });
        }
        self.written = length as u64;
    }
}

fn slot_of(seq: u64) -> usize {
    seq as usize % CACHE_PACKETS
}

/// The payload of a retransmission: the original sequence number, then the original payload (RFC 4588, section 4).
/// `None` when it is too short to be one: a padding probe.
pub fn unwrap(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (seq, original) = payload.split_first_chunk()?;
    Some((u16::from_be_bytes(*seq), original))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUND_TRIP: Duration = Duration::from_millis(50);

    fn meta(seq: u64) -> PacketMeta {
        PacketMeta {
            seq,
            timestamp: seq as u32 * 3000,
            marker: seq.is_multiple_of(3),
            orientation: None,
        }
    }

    fn payload(seq: u64, size: usize) -> Vec<u8> {
        (0..size).map(|at| (seq as usize * 31 + at) as u8).collect()
    }

    #[test]
    fn a_packet_is_given_out_a_few_times_a_round_trip_apart() {
        let t0 = Instant::now();
        let mut cache = RtxCache::default();
        cache.insert(t0, meta(70_000), b"dd", &payload(70_000, 1100));
        let seq = 70_000u64 as u16;
        let got = cache.take(t0, seq, ROUND_TRIP).expect("just sent");
        assert_eq!(got.meta, meta(70_000));
        assert_eq!(got.dependency_descriptor, b"dd");
        assert_eq!(got.payload, payload(70_000, 1100));
        let mut now = t0;
        assert_eq!(cache.take(now, seq, ROUND_TRIP), Err(Unavailable::TooSoon));
        for _ in 1..MAX_RESENDS {
            now += ROUND_TRIP;
            assert!(cache.take(now, seq, ROUND_TRIP).is_ok());
        }
        now += ROUND_TRIP;
        assert_eq!(
            cache.take(now, seq, ROUND_TRIP),
            Err(Unavailable::Exhausted)
        );
        assert_eq!(cache.take(now, seq + 1, ROUND_TRIP), Err(Unavailable::Gone));
    }

    #[test]
    fn an_old_packet_is_gone() {
        let t0 = Instant::now();
        let mut cache = RtxCache::default();
        cache.insert(t0, meta(7), b"", b"x");
        let late = t0 + MAX_AGE + Duration::from_millis(1);
        assert_eq!(cache.take(late, 7, ROUND_TRIP), Err(Unavailable::Gone));
    }

    #[test]
    fn a_fast_stream_gets_a_second_of_memory_and_a_slow_one_stays_small() {
        let t0 = Instant::now();
        let (mut fast, mut slow) = (RtxCache::default(), RtxCache::default());
        for n in 0..4000u64 {
            fast.insert(t0 + Duration::from_millis(n * 3), meta(n), b"", &[0; 1100]);
            slow.insert(t0 + Duration::from_millis(n * 40), meta(n), b"", &[0; 1100]);
        }
        assert_eq!(fast.ring.len(), MAX_CACHE_BYTES);
        assert_eq!(slow.ring.len(), MIN_CACHE_BYTES);
        assert!(fast.memory() < 640 * 1024, "{}", fast.memory());
        let now = t0 + Duration::from_millis(3999 * 3);
        assert!(
            fast.take(now, 3999 - 330, ROUND_TRIP).is_ok(),
            "a second back"
        );
    }

    #[test]
    fn a_probe_is_no_retransmission() {
        assert_eq!(unwrap(&[]), None);
        assert_eq!(unwrap(&[1]), None);
        assert_eq!(unwrap(&[1, 2, 3]), Some((0x0102, &[3u8][..])));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_it_still_has_is_what_was_sent(
            start in 0u64..200_000, sizes in proptest::collection::vec(0usize..1300, 1..1500), gap in 0u64..5
        ) {
            let t0 = Instant::now();
            let mut cache = RtxCache::default();
            for (n, size) in sizes.iter().enumerate() {
                let seq = start + n as u64;
                cache.insert(t0 + Duration::from_millis(n as u64 * gap), meta(seq), b"abc", &payload(seq, *size));
            }
            let now = t0 + Duration::from_millis(sizes.len() as u64 * gap);
            for (n, size) in sizes.iter().enumerate() {
                let seq = start + n as u64;
                if let Ok(got) = cache.take(now, seq as u16, ROUND_TRIP) {
                    prop_assert_eq!(got.meta, meta(seq));
                    prop_assert_eq!(got.dependency_descriptor, b"abc");
                    prop_assert_eq!(got.payload, payload(seq, *size));
                } else {
                    prop_assert!(n + 40 < sizes.len(), "the newest are there");
                }
            }
        }
    }
}
