//! Forwarding allocates nothing once it is warm: one packet in, a hundred packets out.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use talksy_unit::rtp::ntp::Ntp;
use talksy_unit::rtp::params::{
    AnnouncedSsrc, Codec, ExtensionIds, MediaKind, PayloadParams, ReceiveLine, SendLine, Ssrc,
};
use talksy_unit::rtp::rtcp::write;
use talksy_unit::sfu::{Publisher, Subscriber};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count per thread: other tests of this file may run beside.
struct Counting;

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract; the counter neither allocates
// nor unwinds, since it has no destructor and is initialised at compile time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from `System` with this `layout`; the size is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

fn allocations_during(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const SSRC: Ssrc = Ssrc(0x1234_5678);

fn payloads() -> Vec<PayloadParams> {
    vec![PayloadParams {
        payload_type: 102,
        codec: Codec::H264,
        rtx: Some(103),
        nack: true,
        pli: true,
        fir: true,
        transport_cc: true,
    }]
}

fn extensions() -> ExtensionIds {
    ExtensionIds {
        mid: Some(1),
        transport_cc: Some(2),
        abs_send_time: Some(3),
        ..ExtensionIds::default()
    }
}

fn publisher() -> Publisher {
    let mut publisher = Publisher::new(Ssrc(1));
    publisher.set_lines(&[ReceiveLine {
        mid: "0".into(),
        kind: MediaKind::Video,
        payloads: payloads(),
        extensions: extensions(),
        ssrcs: vec![AnnouncedSsrc {
            primary: SSRC,
            rtx: None,
        }],
        stream_id: "s".into(),
        track_id: "t".into(),
    }]);
    publisher
}

fn subscriber(nth: u32) -> Subscriber {
    let mut subscriber = Subscriber::new(Ssrc(1));
    subscriber.set_lines(&[SendLine {
        sender: 7,
        mid: "0".into(),
        kind: MediaKind::Video,
        payloads: payloads(),
        extensions: extensions(),
        ssrc: Ssrc(1000 + nth),
        rtx_ssrc: Ssrc(2000 + nth),
        cname: "c".into(),
    }]);
    subscriber
}

/// A packet of 1100 bytes with a transport-wide number; the first of each 30 frames is a keyframe.
fn packet(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x90, 102];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&(u32::from(seq) * 300).to_be_bytes());
    packet.extend_from_slice(&SSRC.0.to_be_bytes());
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x21]);
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.push(0);
    packet.push(if seq.is_multiple_of(30) { 0x65 } else { 0x41 });
    packet.resize(1100, 7);
    packet
}

/// Everything that a worker does with a packet and its feedback, without sockets and encryption.
struct Bench {
    publisher: Publisher,
    subscribers: Vec<Subscriber>,
    out: Vec<u8>,
    attached: bool,
    nack: Vec<u8>,
}

impl Bench {
    fn step(&mut self, now: Instant, packet: &[u8]) -> usize {
        let mut sent = 0;
        let received = self.publisher.handle_rtp(now, packet).expect("media");
        for subscriber in &mut self.subscribers {
            if !self.attached {
                subscriber.attach(7, received.track, received.codec);
            }
            self.out.clear();
            sent += usize::from(subscriber.forward(now, 7, &received, &mut self.out).is_ok());
            subscriber.handle_rtcp(Ntp(1 << 40), &self.nack);
            while subscriber.poll_retransmission(now, &mut self.out).is_some() {
                sent += 1;
            }
        }
        self.attached = true;
        self.out.clear();
        while self.publisher.poll_feedback(now, &mut self.out) {
            self.out.clear();
        }
        sent
    }
}

#[test]
fn forwarding_one_packet_to_a_hundred_subscribers_allocates_nothing() {
    let t0 = Instant::now();
    let mut bench = Bench {
        publisher: publisher(),
        subscribers: (0..100).map(subscriber).collect(),
        out: Vec::with_capacity(4096),
        attached: false,
        nack: Vec::new(),
    };
    // 250 packets/s; three seconds let the retransmission caches reach their size.
    let at = |seq: u16| t0 + Duration::from_millis(u64::from(seq) * 4);
    for seq in 0..750 {
        bench.step(at(seq), &packet(seq));
    }
    // The first subscriber asks for a packet of a moment ago each time; the others' SSRCs differ.
    write::nack(Ssrc(1), Ssrc(1000), &[1000 + 740], 100, &mut bench.nack);
    for seq in 750..1000 {
        // One packet in fifty is lost, so that the publisher is asked for it.
        if seq % 50 == 0 {
            continue;
        }
        let packet = packet(seq);
        let mut sent = 0;
        let allocations = allocations_during(|| sent = bench.step(at(seq), &packet));
        assert!(sent >= 100, "{sent} sent");
        assert_eq!(allocations, 0, "packet {seq}");
    }
    let retransmitted: u64 = bench.subscribers[0]
        .stats(at(1000))
        .iter()
        .map(|stats| stats.retransmitted)
        .sum();
    assert!(
        retransmitted > 0,
        "the retransmission path was measured too"
    );
}
