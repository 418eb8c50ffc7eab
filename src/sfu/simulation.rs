//! A whole delivery in virtual time: a simulcast source, estimator, pacer and allocator of each subscriber, and a
//! bottleneck link with queue, delay, jitter and loss. Real feedback messages are written and read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::allocator::{Allocator, Budget, Demand};
use super::congestion::Congestion;
use super::{Layer, LayerFigures, Target};
use crate::rtp::params::{SourceType, Ssrc};
use crate::rtp::rtcp::{self, Rtcp};
use crate::rtp::twcc::Recorder;

/// Bit/s of payload.
const RATES: [f64; 3] = [150_000.0, 450_000.0, 1_500_000.0];
const SIZES: [(u32, u32); 3] = [(320, 180), (640, 360), (1280, 720)];
/// Of a keyframe, in frames of its layer.
const KEYFRAME: f64 = 6.0;
/// Until the publisher's keyframe is there.
const KEYFRAME_DELAY: u64 = 60_000;
const PADDING: usize = 296;

/// The link all share. Times in µs.
#[derive(Clone, Copy)]
struct Path {
    rate: f64,
    /// What its queue holds at most.
    queue: u64,
    delay: u64,
    jitter: u64,
    loss: f64,
    /// So long in each second the receiver has no processor: then it reads all that came at once.
    stall: u64,
}

const GOOD: Path = Path {
    rate: 5e6,
    queue: 500_000,
    delay: 25_000,
    jitter: 0,
    loss: 0.0,
    stall: 0,
};

struct Link {
    path: Path,
    free_at: u64,
    random: StdRng,
}

impl Link {
    /// When a packet of `size` bytes arrives; `None`: lost. And how long it stood in the queue.
    fn send(&mut self, now: u64, size: usize) -> (Option<u64>, u64) {
        let start = self.free_at.max(now);
        let waited = start - now;
        if waited > self.path.queue {
            return (None, waited);
        }
        self.free_at = start + (size as f64 * 8e6 / self.path.rate) as u64;
        if self.random.random_bool(self.path.loss) {
            return (None, waited);
        }
        let jitter = self.random.random_range(0..=2 * self.path.jitter);
        let late = self.path.delay - self.path.jitter.min(self.path.delay) + jitter;
        (Some(self.free_at + late), waited)
    }
}

#[derive(Default)]
struct Seen {
    /// Time, layer (none: paused), estimate, longest wait in the link's queue over the last 100 ms (µs).
    log: Vec<(u64, Option<u8>, u64, u64)>,
    bytes: [u64; 2],
}

struct Client {
    congestion: Congestion,
    allocator: Allocator,
    target: Target,
    /// The layer that flows, and the one whose keyframe comes at that time.
    current: Option<u8>,
    switch: Option<(u8, u64)>,
    number: u16,
    recorder: Recorder,
    arrivals: Vec<(u64, u16)>,
    reports: VecDeque<(u64, Vec<u8>)>,
    waited: u64,
    seen: Seen,
    allocate_at: u64,
    decreases: u64,
}

struct World {
    t0: Instant,
    now: u64,
    link: Link,
    clients: Vec<Client>,
}

impl World {
    fn new(path: Path, clients: usize) -> Self {
        let client = || Client {
            congestion: Congestion::default(),
            allocator: Allocator::default(),
            target: Target::BEST,
            current: None,
            switch: None,
            number: 0,
            recorder: Recorder::default(),
            arrivals: Vec::new(),
            reports: VecDeque::new(),
            waited: 0,
            seen: Seen::default(),
            allocate_at: 0,
            decreases: 0,
        };
        World {
            t0: Instant::now(),
            now: 0,
            link: Link {
                path,
                free_at: 0,
                random: StdRng::seed_from_u64(42),
            },
            clients: (0..clients).map(|_| client()).collect(),
        }
    }

    fn run(&mut self, seconds: f64) {
        let until = self.now + (seconds * 1e6) as u64;
        while self.now < until {
            self.now += 1_000;
            let (now, at) = (self.now, self.t0 + Duration::from_micros(self.now));
            let turn = self.now / 1_000 % self.clients.len() as u64;
            for n in 0..self.clients.len() {
                let n = (n + turn as usize) % self.clients.len();
                self.clients[n].step(now, at, &mut self.link);
            }
        }
    }
}

impl Client {
    fn step(&mut self, now: u64, at: Instant, link: &mut Link) {
        if now % 1_000_000 >= link.path.stall {
            self.receive(now, at);
        }
        self.hear(now, at);
        self.source(now, at, link);
        while let Some(held) = self.congestion.pacer.release(at) {
            self.send(now, at, link, held.packet.len());
            self.congestion.pacer.recycle(held);
        }
        let mut padding = self.congestion.estimator.poll_padding(at) as i64;
        while padding > 0 {
            self.number = self.number.wrapping_add(1);
            self.congestion
                .handle_padding(at, Some(self.number), PADDING);
            self.transmit(now, link, PADDING);
            padding -= PADDING as i64 + 44;
        }
        let fell = self.congestion.estimator.decreases() != self.decreases;
        if now >= self.allocate_at || fell {
            self.decreases = self.congestion.estimator.decreases();
            self.allocate(now, at);
            self.allocate_at = now + 200_000;
        }
        if now.is_multiple_of(100_000) {
            let estimate = self.congestion.estimator.estimate(at);
            let layer = self.current;
            self.seen.log.push((now, layer, estimate, self.waited));
            self.waited = 0;
        }
    }

    fn receive(&mut self, now: u64, at: Instant) {
        self.arrivals.sort_by_key(|arrival| arrival.0);
        while self.arrivals.first().is_some_and(|first| first.0 <= now) {
            let (_, number) = self.arrivals.remove(0);
            self.recorder.handle_packet(at, number);
        }
        let mut out = Vec::new();
        while self.recorder.poll(at, Ssrc(1), Ssrc(2), 1100, &mut out) {}
        if !out.is_empty() {
            self.reports.push_back((now + 25_000, out));
        }
    }

    /// The sender's side of the feedback.
    fn hear(&mut self, now: u64, at: Instant) {
        while self.reports.front().is_some_and(|front| front.0 <= now) {
            let (_, compound) = self.reports.pop_front().expect("there is a front");
            for packet in rtcp::packets(&compound) {
                if let Ok(Rtcp::TransportWide(feedback)) = packet {
                    self.congestion.handle_feedback(at, &feedback);
                }
            }
        }
    }

    fn source(&mut self, now: u64, at: Instant, link: &mut Link) {
        if now.is_multiple_of(20_000) {
            self.send(now, at, link, 12 + 24 + 80);
        }
        let mut keyframe = false;
        if let Some((layer, when)) = self.switch
            && when <= now
        {
            (self.current, self.switch, keyframe) = (Some(layer), None, true);
        }
        // Thirty frames/s.
        if !(now / 1_000).is_multiple_of(33) && !keyframe {
            return;
        }
        let Some(layer) = self.current else {
            return;
        };
        let frames = if keyframe { KEYFRAME } else { 1.0 };
        let mut left = (RATES[usize::from(layer)] / 8.0 * 0.033 * frames) as usize;
        while left > 0 {
            let size = 36 + left.min(1100);
            left -= left.min(1100);
            if self.congestion.pacer.is_open(at) {
                self.send(now, at, link, size);
            } else {
                self.congestion.pacer.hold(1, 36, true, &vec![0; size]);
            }
        }
    }

    fn send(&mut self, now: u64, at: Instant, link: &mut Link, size: usize) {
        self.number = self.number.wrapping_add(1);
        self.congestion.handle_sent(at, Some(self.number), size);
        self.transmit(now, link, size);
    }

    fn transmit(&mut self, now: u64, link: &mut Link, size: usize) {
        let (arrival, waited) = link.send(now, size + 44);
        self.waited = self.waited.max(waited);
        if let Some(arrival) = arrival {
            self.arrivals.push((arrival, self.number));
            self.seen.bytes[1] += size as u64;
        }
        self.seen.bytes[0] += size as u64;
    }

    fn allocate(&mut self, now: u64, at: Instant) {
        let layers = (0..3).map(|n: u8| LayerFigures {
            layer: Layer(n),
            active: true,
            bitrate: RATES[usize::from(n)] as u64,
            size: Some(SIZES[usize::from(n)]),
            ..LayerFigures::default()
        });
        let demand = Demand {
            sender: 1,
            source: SourceType::Media,
            dominant: false,
            tile: None,
            quality: Target::BEST,
            layers: layers.collect(),
        };
        let budget = Budget {
            estimate: self.congestion.estimator.estimate(at),
            kept: self.congestion.estimator.kept(at),
            undrained: self.congestion.estimator.undrained(at),
            starting: self.congestion.estimator.is_starting(at),
            voices: (32_000, 1),
        };
        let allocation = self.allocator.allocate(at, budget, &[demand]);
        self.congestion.estimator.set_wanted(allocation.wanted);
        self.congestion.adjust(at);
        self.target = allocation.choices[0].target;
        match self.target {
            Target::Paused => (self.current, self.switch) = (None, None),
            Target::UpTo { layer, .. } if self.current == Some(layer.0) => self.switch = None,
            Target::UpTo { layer, .. } => {
                if self.switch.is_none_or(|(wanted, _)| wanted != layer.0) {
                    self.switch = Some((layer.0, now + KEYFRAME_DELAY));
                }
            }
        }
    }
}

impl Seen {
    /// Seconds after `from` from which on the layer is one of `wanted` until `to`.
    fn settled(&self, from: f64, to: f64, wanted: &[Option<u8>]) -> Option<f64> {
        let within = |at: u64| (from..to).contains(&(at as f64 / 1e6));
        let last_other = self
            .log
            .iter()
            .filter(|(at, layer, ..)| within(*at) && !wanted.contains(layer))
            .map(|(at, ..)| *at as f64 / 1e6)
            .next_back();
        match last_other {
            None => Some(0.0),
            Some(at) if at + 0.2 < to => Some(at - from + 0.1),
            Some(_) => None,
        }
    }

    /// Seconds after `from` at which the layer is `wanted` for the first time.
    fn reached(&self, from: f64, wanted: u8) -> Option<f64> {
        self.log
            .iter()
            .find(|(at, layer, ..)| *at as f64 / 1e6 >= from && *layer == Some(wanted))
            .map(|(at, ..)| *at as f64 / 1e6 - from)
    }

    /// Longest wait in the queue, ms.
    fn queue(&self, from: f64, to: f64) -> u64 {
        let within = self
            .log
            .iter()
            .filter(|(at, ..)| (from..to).contains(&(*at as f64 / 1e6)));
        within.map(|(.., waited)| waited / 1_000).max().unwrap_or(0)
    }

    fn lowest_estimate(&self, from: f64, to: f64) -> u64 {
        let within = self
            .log
            .iter()
            .filter(|(at, ..)| (from..to).contains(&(*at as f64 / 1e6)));
        within
            .map(|(_, _, estimate, _)| *estimate)
            .min()
            .unwrap_or(0)
    }

    /// Part of the time that a layer flowed.
    fn share(&self, from: f64, to: f64, wanted: u8) -> f64 {
        let within: Vec<_> = self
            .log
            .iter()
            .filter(|(at, ..)| (from..to).contains(&(*at as f64 / 1e6)))
            .collect();
        let with = within
            .iter()
            .filter(|(_, layer, ..)| *layer == Some(wanted));
        with.count() as f64 / within.len().max(1) as f64
    }

    fn print(&self) {
        for (at, layer, estimate, waited) in self.log.iter().step_by(5) {
            println!(
                "{:6.1} s  layer {layer:?}  estimate {:5} k  queue {:4} ms",
                *at as f64 / 1e6,
                estimate / 1000,
                waited / 1000
            );
        }
    }
}

#[test]
fn a_subscriber_follows_its_caps_and_is_back_at_the_top() {
    let mut world = World::new(GOOD, 1);
    world.run(15.0);
    let cap = |world: &mut World, rate: f64| world.link.path.rate = rate;
    cap(&mut world, 600_000.0);
    world.run(25.0);
    cap(&mut world, 300_000.0);
    world.run(25.0);
    cap(&mut world, 5e6);
    world.run(20.0);
    let seen = &world.clients[0].seen;
    seen.print();
    let top = seen.reached(0.0, 2);
    let (mid, low) = (
        seen.settled(15.0, 40.0, &[Some(1)]),
        seen.settled(40.0, 65.0, &[Some(0)]),
    );
    let back = seen.reached(65.0, 2);
    println!(
        "figures: top after {top:?}, mid after {mid:?}, low after {low:?}, top again after {back:?} s"
    );
    println!(
        "queue: {} ms in the first 5 s of 600, then {}; {} ms in the first 5 s of 300, then {}",
        seen.queue(15.0, 20.0),
        seen.queue(20.0, 40.0),
        seen.queue(40.0, 45.0),
        seen.queue(45.0, 65.0)
    );
    assert!(top.is_some_and(|after| after < 2.0), "{top:?}");
    assert!(mid.is_some_and(|after| after <= 5.0), "{mid:?}");
    assert!(low.is_some_and(|after| after <= 5.0), "{low:?}");
    assert!(back.is_some_and(|after| after <= 10.0), "{back:?}");
    assert!(seen.queue(20.0, 40.0) < 200);
    assert!(seen.queue(45.0, 65.0) < 200);
    assert!(seen.settled(75.0, 85.0, &[Some(2)]) == Some(0.0));
}

#[test]
fn random_loss_does_not_collapse_the_estimate() {
    for loss in [0.02, 0.05, 0.10] {
        let mut world = World::new(Path { loss, ..GOOD }, 1);
        world.run(60.0);
        let seen = &world.clients[0].seen;
        let (lowest, top) = (seen.lowest_estimate(5.0, 60.0), seen.share(5.0, 60.0, 2));
        println!("figures: {loss} loss: lowest estimate {lowest}, {top:.2} of the time at the top");
        assert!(lowest > 1_000_000, "{lowest} at {loss}");
        assert!(top > 0.95, "{top} at {loss}");
    }
}

#[test]
fn jitter_does_not_collapse_the_estimate() {
    let path = Path {
        delay: 100_000,
        jitter: 30_000,
        ..GOOD
    };
    let mut world = World::new(path, 1);
    world.run(90.0);
    let seen = &world.clients[0].seen;
    seen.print();
    let (lowest, top) = (seen.lowest_estimate(10.0, 90.0), seen.share(10.0, 90.0, 2));
    println!("figures: jitter: lowest estimate {lowest}, {top:.2} of the time at the top");
    assert!(lowest > 500_000, "{lowest}");
    assert!(top > 0.8, "{top}");
}

#[test]
fn a_receiver_without_a_processor_is_no_narrow_link() {
    for stall in [60_000, 150_000] {
        let mut world = World::new(Path { stall, ..GOOD }, 1);
        world.run(60.0);
        let seen = &world.clients[0].seen;
        let (lowest, top) = (seen.lowest_estimate(5.0, 60.0), seen.share(5.0, 60.0, 2));
        println!(
            "figures: stalls of {stall} us: lowest estimate {lowest}, {top:.2} of the time at the top"
        );
        assert!(lowest > 1_000_000, "{lowest} with {stall}");
        assert!(top > 0.95, "{top} with {stall}");
    }
}

#[test]
fn two_subscribers_share_one_link() {
    let mut world = World::new(
        Path {
            rate: 2_600_000.0,
            ..GOOD
        },
        2,
    );
    world.run(90.0);
    let rates: Vec<f64> = world
        .clients
        .iter()
        .map(|client| client.seen.bytes[1] as f64 * 8.0 / 90.0)
        .collect();
    println!("figures: two on one link of 2.6 Mbit/s: {rates:?}");
    let fair = rates[0].min(rates[1]) / rates[0].max(rates[1]);
    assert!(fair > 0.3, "{rates:?}");
    assert!(rates.iter().sum::<f64>() > 900_000.0, "{rates:?}");
    let seen = &world.clients[0].seen;
    let mut queues: Vec<u64> = seen.log.iter().map(|(.., waited)| waited / 1_000).collect();
    queues.sort_unstable();
    assert!(queues[queues.len() * 9 / 10] < 200, "{queues:?}");
}

#[test]
fn a_start_on_a_slow_link_finds_its_layer() {
    let mut world = World::new(
        Path {
            rate: 400_000.0,
            ..GOOD
        },
        1,
    );
    world.run(30.0);
    let seen = &world.clients[0].seen;
    seen.print();
    let low = seen.settled(0.0, 30.0, &[Some(0)]);
    println!(
        "figures: start at 400 kbit/s: low after {low:?} s, queue {} ms, then {}",
        seen.queue(0.0, 5.0),
        seen.queue(5.0, 30.0)
    );
    assert!(low.is_some_and(|after| after <= 5.0), "{low:?}");
    assert!(seen.queue(6.0, 30.0) < 200);
}
