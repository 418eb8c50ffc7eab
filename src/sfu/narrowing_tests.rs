//! A subscriber's link becomes narrow and wide again, in virtual time: the whole of [`Subscriber`] and [`Allocator`], a
//! bottleneck with a drop-tail queue, and a receiver that reports, asks again, and decodes what is whole.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use smallvec::SmallVec;

use super::testing::*;
use super::*;
use crate::rtp::bwe::OVERHEAD;
use crate::rtp::extension::Extensions;
use crate::rtp::header::RtpPacket;
use crate::rtp::nack::NackGenerator;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{SourceType, Ssrc};
use crate::rtp::rtcp::write;
use crate::rtp::twcc::Recorder;
use crate::rtp::unwrap::SeqUnwrapper;

const PICTURE: u64 = 1;
const SOUND: u64 = 2;
const TRACKS: [TrackKey; 2] = [TrackKey(1), TrackKey(2)];
/// Payload of a packet of a picture, and of a voice.
const FULL: usize = 1100;
const VOICE: usize = 80;
/// Of the sound that goes with the lowest pictures of the mix.
const LOW_VOICE: usize = 50;
/// The way back of what the receiver says, which is never narrow, µs.
const BACK: u64 = 25_000;
/// Between two messages of feedback, as Chromium sends them to whom it sends nothing, µs.
const FEEDBACK: u64 = 60_000;
/// What the link's queue holds, µs.
const QUEUE: u64 = 500_000;

/// One layer: bit/s, frames/s, of a keyframe bytes, and the part of the rate that its encoder can go down to.
#[derive(Clone, Copy)]
struct Size {
    rate: u64,
    fps: u64,
    key: usize,
    pixels: (u32, u32),
    least: Option<f64>,
}

struct Camera {
    sizes: Vec<Size>,
    /// From a request to the keyframe, µs.
    answer: u64,
    /// Where each layer is: the next packet and the next frame.
    seqs: Vec<u64>,
    frames: Vec<u64>,
    /// When each layer has to make a keyframe.
    wanted: Vec<Option<u64>>,
    /// What the link has for the picture, bit/s.
    share: u64,
}

/// A simulcast camera, as Chromium sends it.
fn simulcast() -> Camera {
    let size = |rate, key, pixels| Size {
        rate,
        fps: 30,
        key,
        pixels,
        least: None,
    };
    Camera::new(
        vec![
            size(150_000, 4_000, (320, 180)),
            size(350_000, 9_000, (640, 360)),
            size(1_500_000, 35_000, (1280, 720)),
        ],
        90_000,
    )
}

/// The rungs of the mixed picture.
fn rungs() -> Camera {
    let size = |pixels, fps, rate, key| Size {
        rate,
        fps,
        key,
        pixels,
        least: Some(0.7),
    };
    Camera::new(
        vec![
            size((160, 90), 5, 50_000, 2_500),
            size((320, 180), 10, 100_000, 5_000),
            size((426, 240), 15, 200_000, 7_500),
            size((640, 360), 20, 400_000, 13_000),
            size((960, 540), 25, 800_000, 22_000),
            size((1280, 720), 30, 1_500_000, 33_000),
        ],
        60_000,
    )
}

impl Camera {
    fn new(sizes: Vec<Size>, answer: u64) -> Self {
        let count = sizes.len();
        Camera {
            sizes,
            answer,
            seqs: vec![1_000; count],
            frames: vec![0; count],
            wanted: vec![Some(0); count],
            share: u64::MAX,
        }
    }

    fn ask(&mut self, now: u64, layer: Layer) {
        let at = usize::from(layer.0).min(self.sizes.len() - 1);
        let due = now + self.answer;
        let wanted = &mut self.wanted[at];
        *wanted = Some(wanted.map_or(due, |earlier| earlier.min(due)));
    }

    /// What an encoder makes now: as much as the link has, if it can.
    fn rate(&self, layer: usize) -> u64 {
        let size = self.sizes[layer];
        let least = size.rate as f64 * size.least.unwrap_or(1.0);
        self.share.clamp(least as u64, size.rate)
    }

    fn figures(&self) -> SmallVec<[LayerFigures; 3]> {
        let each = self.sizes.iter().enumerate();
        each.map(|(at, size)| LayerFigures {
            layer: Layer(at as u8),
            active: true,
            bitrate: size.rate,
            size: Some(size.pixels),
            least: size.least.map(|least| (size.rate as f64 * least) as u64),
            ..LayerFigures::default()
        })
        .collect()
    }
}

/// What a packet of a picture says of itself: layer, frame, its place in the frame, and how many there are.
fn label(keyframe: bool, [layer, frame, place, count]: [u64; 4], size: usize) -> Vec<u8> {
    let mut payload = vec![0; size.max(13)];
    payload[0] = if keyframe { 0x65 } else { 0x41 };
    payload[1..3].copy_from_slice(&(layer as u16).to_be_bytes());
    payload[3..7].copy_from_slice(&(frame as u32).to_be_bytes());
    payload[7..9].copy_from_slice(&(place as u16).to_be_bytes());
    payload[9..11].copy_from_slice(&(count as u16).to_be_bytes());
    payload
}

#[derive(Default)]
struct Frame {
    keyframe: bool,
    /// The packets that are there.
    there: u64,
    count: u64,
    timestamp: u32,
    /// The first number of those that are there.
    first: u64,
}

/// The other end. Times in µs.
struct Receiver {
    recorder: Recorder,
    nack: NackGenerator,
    seqs: SeqUnwrapper,
    /// By layer and frame.
    frames: BTreeMap<(u64, u64), Frame>,
    /// The last frame that was decoded.
    decoded: Option<(u64, u64)>,
    decoded_time: u32,
    needed_from: u64,
    /// When pictures were decoded, and of which layer.
    shown: Vec<(u64, u64)>,
    feedback_at: u64,
}

impl Receiver {
    fn take(&mut self, now: u64, at: Instant, datagram: &[u8]) {
        let packet = RtpPacket::parse(datagram).expect("the server writes RTP");
        let extensions = Extensions::parse(packet.extension, &OUT_IDS);
        if let Some(number) = extensions.transport_cc {
            self.recorder.handle_packet(at, number);
        }
        if packet.payload.is_empty() {
            return;
        }
        if packet.ssrc == Ssrc(OUT_RTX.0 + PICTURE as u32) {
            let (seq, payload) = packet.payload.split_first_chunk().expect("RFC 4588");
            self.picture(now, at, u16::from_be_bytes(*seq), true, (&packet, payload));
        } else if packet.ssrc == Ssrc(OUT.0 + PICTURE as u32) {
            self.picture(now, at, packet.seq, false, (&packet, packet.payload));
        }
    }

    fn picture(
        &mut self,
        now: u64,
        at: Instant,
        seq: u16,
        again: bool,
        (packet, payload): (&RtpPacket<'_>, &[u8]),
    ) {
        let seq = self.seqs.unwrap(seq);
        self.nack.handle_packet(at, seq, again);
        let number = |from: usize, to: usize| {
            payload[from..to]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (layer, frame) = (number(1, 3), number(3, 7));
        let kept = self.frames.entry((layer, frame)).or_default();
        kept.first = if kept.there == 0 {
            seq
        } else {
            kept.first.min(seq)
        };
        kept.there |= 1 << number(7, 9);
        kept.count = number(9, 11);
        kept.keyframe = payload[0] == 0x65;
        kept.timestamp = packet.timestamp;
        self.decode(now);
    }

    /// A keyframe that is whole is decoded at once, another frame after the one before it.
    fn decode(&mut self, now: u64) {
        let whole = |frame: &Frame| frame.there.count_ones() as u64 == frame.count;
        loop {
            let newer = |frame: &&Frame| {
                self.shown.is_empty()
                    || (frame.timestamp.wrapping_sub(self.decoded_time) as i32) > 0
            };
            let next = self.frames.iter().find(|(key, frame)| {
                let follows = self
                    .decoded
                    .is_some_and(|(layer, before)| **key == (layer, before + 1));
                whole(frame) && newer(frame) && (frame.keyframe || follows)
            });
            let Some((&key, frame)) = next else {
                return;
            };
            self.decoded_time = frame.timestamp;
            self.decoded = Some(key);
            self.needed_from = self.needed_from.max(frame.first);
            self.shown.push((now, key.0));
            let time = self.decoded_time;
            self.frames
                .retain(|_, frame| (frame.timestamp.wrapping_sub(time) as i32) > 0);
        }
    }

    /// What is to be asked for: nothing that is older than what was decoded.
    fn asks(&mut self, at: Instant) -> Vec<u16> {
        let mut asked = Vec::new();
        self.nack.poll(at, 200, &mut asked);
        asked.retain(|seq| self.seqs.peek(*seq) >= self.needed_from);
        asked
    }
}

struct World {
    t0: Instant,
    now: u64,
    /// Of the link, bit/s.
    rate: f64,
    delay: u64,
    free_at: u64,
    waits: Vec<(u64, u64)>,
    lost: u64,
    camera: Camera,
    subscriber: Subscriber,
    allocator: Allocator,
    decreases: u64,
    allocate_at: u64,
    /// The layer that is aimed at.
    allocated: u8,
    targets: Vec<(u64, Target)>,
    on_way: VecDeque<(u64, Vec<u8>)>,
    back: VecDeque<(u64, Vec<u8>)>,
    receiver: Receiver,
    estimates: Vec<(u64, u64, u64)>,
}

impl World {
    fn new(camera: Camera, rate: f64) -> Self {
        let mut subscriber = Subscriber::new(OWN);
        subscriber.set_lines(&[
            send_line(PICTURE, Codec::H264),
            send_line(SOUND, Codec::Opus),
        ]);
        subscriber.attach(PICTURE, TRACKS[0], Codec::H264);
        subscriber.attach(SOUND, TRACKS[1], Codec::Opus);
        World {
            t0: start(),
            now: 0,
            rate,
            delay: 20_000,
            free_at: 0,
            waits: Vec::new(),
            lost: 0,
            camera,
            subscriber,
            allocator: Allocator::default(),
            decreases: 0,
            allocate_at: 0,
            allocated: 0,
            targets: Vec::new(),
            on_way: VecDeque::new(),
            back: VecDeque::new(),
            receiver: Receiver {
                recorder: Recorder::default(),
                nack: NackGenerator::default(),
                seqs: SeqUnwrapper::default(),
                frames: BTreeMap::new(),
                decoded: None,
                decoded_time: 0,
                needed_from: 0,
                shown: Vec::new(),
                feedback_at: 0,
            },
            estimates: Vec::new(),
        }
    }

    fn run(&mut self, seconds: f64) {
        let until = self.now + (seconds * 1e6) as u64;
        while self.now < until {
            self.now += 1_000;
            let at = self.t0 + Duration::from_micros(self.now);
            self.arrive(at);
            self.hear(at);
            self.produce(at);
            self.release(at);
            if self.now >= self.allocate_at {
                self.allocate(at);
            }
            if self.now.is_multiple_of(100_000) {
                let estimator = self.subscriber.estimator();
                let (estimate, whole) = (estimator.estimate(at), estimator.undrained(at));
                self.estimates.push((self.now, estimate, whole));
            }
        }
    }

    fn transmit(&mut self, datagram: Vec<u8>) {
        let start = self.free_at.max(self.now);
        let waited = start - self.now;
        if waited > QUEUE {
            self.lost += 1;
            return;
        }
        self.waits.push((self.now, waited));
        self.free_at = start + ((datagram.len() + OVERHEAD) as f64 * 8e6 / self.rate) as u64;
        self.on_way.push_back((self.free_at + self.delay, datagram));
    }

    fn arrive(&mut self, at: Instant) {
        while self.on_way.front().is_some_and(|first| first.0 <= self.now) {
            let (_, datagram) = self.on_way.pop_front().expect("there is one");
            self.receiver.take(self.now, at, &datagram);
        }
        let (receiver, mut out) = (&mut self.receiver, Vec::new());
        let asked = receiver.asks(at);
        write::nack(OWN, Ssrc(OUT.0 + PICTURE as u32), &asked, 1000, &mut out);
        if self.now >= receiver.feedback_at {
            receiver.feedback_at = self.now + FEEDBACK;
            while receiver.recorder.poll(at, OWN, OWN, 1100, &mut out) {}
        }
        if !out.is_empty() {
            self.back.push_back((self.now + BACK, out));
        }
    }

    fn hear(&mut self, at: Instant) {
        while self.back.front().is_some_and(|first| first.0 <= self.now) {
            let (_, compound) = self.back.pop_front().expect("there is one");
            let wall = Ntp(0x1000_0000_0000_0000);
            for (_, layer) in self.subscriber.handle_rtcp(at, wall, &compound) {
                self.camera.ask(self.now, layer);
            }
        }
        if self.subscriber.estimator().decreases() != self.decreases {
            self.allocate(at);
        }
    }

    fn produce(&mut self, at: Instant) {
        let now = self.now;
        if now.is_multiple_of(20_000) {
            let low = self.camera.sizes.len() > 3 && self.allocated <= 1;
            let payload = vec![0; if low { LOW_VOICE } else { VOICE }];
            let voice = Received {
                payload: &payload,
                level: None,
                ..audio(TRACKS[1], 1 + now / 20_000)
            };
            self.forward(at, SOUND, &voice);
        }
        let layers: LayerSet = (0..self.camera.sizes.len() as u8).map(Layer).collect();
        for layer in 0..self.camera.sizes.len() {
            let size = self.camera.sizes[layer];
            // An encoder that is slower than the answer begins with it.
            let keyframe = self.camera.wanted[layer].is_some_and(|at| at <= now);
            let begins = keyframe && 1_000_000 / size.fps > self.camera.answer;
            if !now.is_multiple_of(1_000_000 / size.fps / 1_000 * 1_000) && !begins {
                continue;
            }
            if keyframe {
                self.camera.wanted[layer] = None;
            }
            let bytes = if keyframe {
                size.key
            } else {
                (self.camera.rate(layer) / 8 / size.fps) as usize
            };
            let count = bytes.div_ceil(FULL);
            let frame = self.camera.frames[layer];
            self.camera.frames[layer] += 1;
            let mut wants = false;
            for place in 0..count {
                self.camera.seqs[layer] += 1;
                let place_of = [layer as u64, frame, place as u64, count as u64];
                let payload = label(keyframe, place_of, bytes / count);
                let packet = Received {
                    layer: Layer(layer as u8),
                    layers,
                    generation: layer as u32,
                    timestamp: now * 9 / 100,
                    shift: Some(0),
                    marker: place + 1 == count,
                    keyframe,
                    ..received(TRACKS[0], self.camera.seqs[layer], &payload)
                };
                wants |= self.forward(at, PICTURE, &packet);
            }
            if wants {
                self.camera.ask(now, Layer(layer as u8));
            }
        }
    }

    /// True: a keyframe of the packet's layer is needed.
    fn forward(&mut self, at: Instant, sender: u64, packet: &Received<'_>) -> bool {
        let mut out = Vec::new();
        match self.subscriber.send(at, sender, packet, &mut out) {
            Ok(Sending::Now(_)) => self.transmit(out),
            Ok(Sending::Held) => {}
            Err(reason) => return reason == DropReason::AwaitingKeyframe,
        }
        false
    }

    fn release(&mut self, at: Instant) {
        loop {
            let mut out = Vec::new();
            let subscriber = &mut self.subscriber;
            let sent = subscriber
                .poll_retransmission(at, &mut out)
                .or_else(|| subscriber.poll_paced(at, &mut out))
                .or_else(|| subscriber.poll_padding(at, &mut out));
            if sent.is_none() {
                return;
            }
            self.transmit(out);
        }
    }

    fn allocate(&mut self, at: Instant) {
        self.allocate_at = self.now + 200_000;
        let estimator = self.subscriber.estimator();
        self.decreases = estimator.decreases();
        let budget = Budget {
            estimate: estimator.estimate(at),
            kept: estimator.kept(at),
            undrained: estimator.undrained(at),
            starting: estimator.is_starting(at),
            voices: (if self.allocated <= 1 { 20_000 } else { 32_000 }, 1),
        };
        let left = budget.estimate.saturating_sub(budget.voice_cost());
        self.camera.share = match budget.starting {
            true => u64::MAX,
            false => (left as f64 / VIDEO_OVERHEAD) as u64,
        };
        let demand = Demand {
            sender: PICTURE,
            source: SourceType::Media,
            dominant: true,
            tile: None,
            quality: Target::BEST,
            layers: self.camera.figures(),
        };
        let allocation = self.allocator.allocate(at, budget, &[demand]);
        let target = allocation.choices[0].target;
        if let Target::UpTo { layer, .. } = target {
            self.allocated = layer.0;
        }
        let estimator = self.subscriber.estimator_mut();
        estimator.set_wanted(allocation.wanted);
        self.subscriber.adjust_pace(at);
        if self.targets.last().map(|last| last.1) != Some(target) {
            self.targets.push((self.now, target));
            if let Some(layer) = self.subscriber.set_target(PICTURE, target) {
                self.camera.ask(self.now, layer);
            }
        }
    }

    /// Longest time without a new picture, ms.
    fn pause(&self, from: u64, to: u64) -> u64 {
        let within = self.receiver.shown.iter().map(|(at, _)| *at);
        let within: Vec<u64> = within.filter(|at| (from..to).contains(at)).collect();
        let pauses = within.windows(2).map(|two| two[1] - two[0]);
        let open = to - within.last().copied().unwrap_or(from);
        pauses.chain([open]).max().unwrap_or(0) / 1000
    }

    /// Milliseconds after `from` from which on the layer is `wanted` until `to`.
    fn settled(&self, from: u64, to: u64, wanted: &[u64]) -> Option<u64> {
        let shown = self.receiver.shown.iter();
        let within: Vec<_> = shown.filter(|(at, _)| (from..to).contains(at)).collect();
        let last_other = within
            .iter()
            .rposition(|(_, layer)| !wanted.contains(layer));
        let first = within.get(last_other.map_or(0, |at| at + 1))?;
        Some((first.0 - from) / 1000)
    }

    /// Longest wait in the link's queue, ms.
    fn queue(&self, from: u64, to: u64) -> u64 {
        let within = self.waits.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, waited)| waited / 1000).max().unwrap_or(0)
    }

    fn print(&self, from: u64, to: u64) {
        let within = |at: u64| (from..to).contains(&at);
        let mut last = None;
        for (at, layer) in self.receiver.shown.iter().filter(|(at, _)| within(*at)) {
            if last.is_none_or(|(before, shown)| shown != *layer || at - before > 250_000) {
                println!("{:8} ms: shows {layer}", at / 1000);
            }
            last = Some((*at, *layer));
        }
        for (at, target) in self.targets.iter().filter(|(at, _)| within(*at)) {
            println!("{:8} ms: target {target:?}", at / 1000);
        }
        for (at, estimate, whole) in self.estimates.iter().filter(|(at, ..)| within(*at)) {
            let queue = self.queue(at - 100_000, *at);
            println!(
                "{:8} ms: estimate {:5} of {:5}, queue {queue}",
                at / 1000,
                estimate / 1000,
                whole / 1000
            );
        }
    }
}

#[test]
fn a_simulcast_subscriber_follows_its_caps() {
    let mut world = World::new(simulcast(), 5e6);
    world.run(15.0);
    assert_eq!(world.receiver.shown.last().map(|shown| shown.1), Some(2));
    let mut at = world.now;
    for (rate, layer) in [(600_000.0, 1), (300_000.0, 0)] {
        world.rate = rate;
        world.run(8.0);
        world.print(at, world.now);
        let settled = world.settled(at, world.now, &[layer]);
        let queue = world.queue(at + 5_000_000, world.now);
        let pause = world.pause(at, world.now);
        println!(
            "figures: {rate}: layer {layer} after {settled:?} ms, queue {queue} ms, longest pause {pause} ms"
        );
        assert!(settled.is_some_and(|after| after < 5_000), "{settled:?}");
        assert!(queue < 200, "{queue} ms");
        at = world.now;
    }
    world.rate = 5e6;
    world.run(15.0);
    let back = world.settled(at, world.now, &[2]);
    println!("figures: top again after {back:?} ms");
    assert!(back.is_some_and(|after| after < 10_000), "{back:?}");
}

#[test]
fn a_mixed_viewer_moves_down_the_ladder_without_a_long_pause() {
    let mut world = World::new(rungs(), 50e6);
    world.run(15.0);
    assert_eq!(world.receiver.shown.last().map(|shown| shown.1), Some(5));
    let mut at = world.now;
    // A voice takes half of the slower link, and its queue holds half a second: there the keyframe takes its time.
    for (rate, layers, longest) in [(300_000.0, &[1, 2][..], 500), (120_000.0, &[0, 1], 900)] {
        world.rate = rate;
        world.run(8.0);
        world.print(at, world.now);
        let settled = world.settled(at, world.now, layers);
        let pause = world.pause(at, world.now);
        println!("figures: {rate}: settled after {settled:?} ms, longest pause {pause} ms");
        assert!(settled.is_some_and(|after| after < 3_000), "{settled:?}");
        assert!(pause < longest, "{pause} ms");
        at = world.now;
    }
    world.rate = 50e6;
    world.run(15.0);
    let back = world.settled(at, world.now, &[5]);
    println!("figures: top again after {back:?} ms");
    assert!(back.is_some_and(|after| after < 10_000), "{back:?}");
}
