//! Both ends of a leg against each other: what a [`Subscriber`] sends goes over a bad network to a [`Publisher`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::testing::*;
use super::*;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{AnnouncedSsrc, ReceiveLine, Ssrc};

const TRACK: TrackKey = TrackKey(1);
const SENDER: u64 = 1;

/// A one-way network: loses, delays, reorders and doubles.
struct Network {
    random: StdRng,
    loss: f64,
    on_the_way: BTreeMap<(Instant, u64), Vec<u8>>,
    count: u64,
}

impl Network {
    fn new(seed: u64, loss: f64) -> Self {
        Network {
            random: StdRng::seed_from_u64(seed),
            loss,
            on_the_way: BTreeMap::new(),
            count: 0,
        }
    }

    fn send(&mut self, now: Instant, datagram: &[u8]) {
        let copies = match self.random.random::<f64>() {
            x if x < self.loss => 0,
            x if x > 0.98 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let jitter = Duration::from_micros(self.random.random_range(0..6000));
            self.count += 1;
            self.on_the_way
                .insert((now + ms(20) + jitter, self.count), datagram.to_vec());
        }
    }

    fn arrived(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let later = self.on_the_way.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.on_the_way, later)
            .into_values()
            .collect()
    }
}

fn receiver() -> Publisher {
    let line = send_line(SENDER, Codec::H264);
    let mut receiver = Publisher::new(OWN);
    receiver.set_lines(&[ReceiveLine {
        extensions: OUT_IDS,
        ssrcs: vec![AnnouncedSsrc {
            primary: line.ssrc,
            rtx: Some(line.rtx_ssrc),
        }],
        ..receive_line(line.mid.as_str(), line.payloads)
    }]);
    receiver
}

struct Link {
    subscriber: Subscriber,
    receiver: Publisher,
    there: Network,
    back: Network,
    /// Extended number at the receiver, and the packet's content.
    delivered: Vec<(u64, u32)>,
    wishes: usize,
}

impl Link {
    fn new(seed: u64, loss: f64) -> Self {
        let mut subscriber = Subscriber::new(Ssrc(3));
        subscriber.set_lines(&[send_line(SENDER, Codec::H264)]);
        subscriber.attach(SENDER, TRACK, Codec::H264);
        Link {
            subscriber,
            receiver: receiver(),
            there: Network::new(seed, loss),
            back: Network::new(seed + 1, loss),
            delivered: Vec::new(),
            wishes: 0,
        }
    }

    fn forward(&mut self, now: Instant, number: u32) {
        // One keyframe a second; the number is the content.
        let first = if number.is_multiple_of(250) {
            0x65
        } else {
            0x41
        };
        let mut payload = vec![first];
        payload.extend_from_slice(&number.to_be_bytes());
        let packet = Received {
            keyframe: first == 0x65,
            ..received(TRACK, 65_000 + u64::from(number), &payload)
        };
        let mut out = Vec::new();
        if self
            .subscriber
            .forward(now, SENDER, &packet, &mut out)
            .is_ok()
        {
            self.there.send(now, &out);
        }
    }

    fn tick(&mut self, now: Instant, wall: Ntp) {
        for datagram in self.there.arrived(now) {
            if datagram[1] & 0x7f == 200 & 0x7f {
                self.receiver.handle_rtcp(now, wall, &datagram);
            } else if let Ok(packet) = self.receiver.handle_rtp(now, &datagram) {
                let number = packet.payload[1..].try_into().expect("four bytes");
                self.delivered
                    .push((packet.seq, u32::from_be_bytes(number)));
            }
        }
        for datagram in self.back.arrived(now) {
            self.wishes += self.subscriber.handle_rtcp(now, wall, &datagram).len();
        }
        let mut out = Vec::new();
        while self.subscriber.poll_retransmission(now, &mut out).is_some() {
            self.there.send(now, &out);
            out.clear();
        }
        let mut clock = |_| {
            Some(SenderClock {
                ntp: wall,
                timestamp: 1 << 33,
                generation: 0,
            })
        };
        while self.subscriber.poll_report(now, wall, &mut clock, &mut out) {
            self.there.send(now, &out);
            out.clear();
        }
        while self.receiver.poll_feedback(now, &mut out) {
            self.back.send(now, &out);
            out.clear();
        }
    }
}

/// Four seconds of 250 packets a second, and one more to settle.
fn run(seed: u64, loss: f64) -> Link {
    let t0 = start();
    let mut link = Link::new(seed, loss);
    for tick in 0..2500u32 {
        let now = t0 + ms(u64::from(tick) * 2);
        if tick < 2000 && tick.is_multiple_of(2) {
            link.forward(now, tick / 2);
        }
        link.tick(now, Ntp(1 << 40) + (now - t0));
    }
    link
}

#[test]
fn a_tenth_of_loss_both_ways_is_repaired_by_retransmission() {
    for seed in 0..8 {
        let mut link = run(seed * 2, 0.1);
        let numbers: BTreeSet<u32> = link.delivered.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), link.delivered.len(), "nothing comes twice");
        assert!(numbers.len() >= 995, "seed {seed}: {}", numbers.len());
        let distances: BTreeSet<u64> = link
            .delivered
            .iter()
            .map(|(seq, number)| seq - u64::from(*number))
            .collect();
        assert_eq!(distances.len(), 1, "every packet takes its own place");
        assert_eq!(
            link.wishes, 0,
            "no gap was so large that a keyframe was needed"
        );
        let stats = link.subscriber.stats(start())[0];
        assert!(
            (50..300).contains(&stats.retransmitted),
            "{}",
            stats.retransmitted
        );
        let feedback = link.subscriber.feedback();
        assert!(
            // A tenth of the feedback is lost, too.
            feedback.received > 800 && feedback.missing > 50,
            "{feedback:?}"
        );
        let round_trip = link.subscriber.round_trip().expect("reports came");
        assert!((ms(40)..ms(60)).contains(&round_trip), "{round_trip:?}");
    }
}

#[test]
fn a_clean_network_needs_no_retransmission() {
    let mut link = run(77, 0.0);
    assert_eq!(link.delivered.len(), 1000);
    assert_eq!(link.subscriber.stats(start())[0].retransmitted, 0);
    assert!(
        link.receiver
            .clock(link.receiver.tracks().next().expect("one").key, 0)
            .is_some()
    );
}
