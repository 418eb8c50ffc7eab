//! A publisher of three layers, a network that loses and reorders, and a subscriber whose target changes at random.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::testing::*;
use super::*;
use crate::rtp::extension::Extensions;
use crate::rtp::header::RtpPacket;
use crate::rtp::params::{Encodings, ReceiveLine, Ssrc};
use crate::rtp::vp8::Descriptor;

const SENDER: u64 = 1;
const RIDS: [&str; 3] = ["q", "h", "f"];
const WALL: crate::rtp::ntp::Ntp = crate::rtp::ntp::Ntp(0x1000_0000_0000_0000);

fn line(codec: Codec, payload_type: u8) -> ReceiveLine {
    ReceiveLine {
        encodings: Encodings::Rids(RIDS.map(String::from).to_vec()),
        ..receive_line("v", vec![payload(codec, payload_type)])
    }
}

/// A simulcast camera: three encoders with numbers of their own, whose clocks start anywhere.
struct Camera {
    seqs: [u16; 3],
    timestamps: [u32; 3],
    pictures: [u16; 3],
    tl0: [u8; 3],
    frame: u32,
    key_wanted: [bool; 3],
}

/// A packet on its way, and what is in it.
struct Sent {
    layer: usize,
    datagram: Vec<u8>,
}

impl Camera {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Camera {
            seqs: std::array::from_fn(|_| random.random()),
            timestamps: std::array::from_fn(|_| random.random()),
            pictures: std::array::from_fn(|_| random.random_range(0..0x8000)),
            tl0: std::array::from_fn(|_| random.random()),
            frame: 0,
            key_wanted: [true; 3],
        }
    }

    /// One frame of each active layer: temporal layers 0 2 1 2, synced as libvpx does.
    fn capture(&mut self, active: [bool; 3]) -> Vec<Sent> {
        let mut sent = Vec::new();
        for layer in (0..3).filter(|layer| active[*layer]) {
            let key = std::mem::take(&mut self.key_wanted[layer]);
            let (temporal, sync) = match self.frame % 4 {
                _ if key => (0, true),
                0 => (0, false),
                2 => (1, true),
                phase => (2, phase == 1),
            };
            self.pictures[layer] = (self.pictures[layer] + 1) & 0x7fff;
            if temporal == 0 {
                self.tl0[layer] = self.tl0[layer].wrapping_add(1);
            }
            let packets = if key { 4 } else { 1 + layer };
            let timestamp = self.timestamps[layer].wrapping_add(self.frame * 3000);
            for nth in 0..packets {
                let mut body = vec![0x80 | if nth == 0 { 0x10 } else { 0 }, 0xe0];
                body.extend_from_slice(&(self.pictures[layer] | 0x8000).to_be_bytes());
                body.push(self.tl0[layer]);
                body.push(temporal << 6 | if sync { 0x20 } else { 0 });
                body.push(u8::from(!key));
                // For the test: which frame this is, of which layer.
                body.extend_from_slice(&self.frame.to_be_bytes());
                body.push(layer as u8);
                self.seqs[layer] = self.seqs[layer].wrapping_add(1);
                let extensions = Extensions {
                    mid: Some("v"),
                    rid: Some(RIDS[layer]),
                    ..Extensions::default()
                };
                let ssrc = Ssrc(100 + layer as u32);
                let mut datagram =
                    with_extensions(ssrc, 96, self.seqs[layer], timestamp, &body, extensions);
                if nth + 1 != packets {
                    datagram[1] &= 0x7f;
                }
                sent.push(Sent { layer, datagram });
            }
        }
        self.frame += 1;
        sent
    }
}

/// What went out to the subscriber.
#[derive(Clone, Copy, Debug)]
struct Out {
    timestamp: u64,
    picture: u16,
    frame: u32,
    layer: u8,
    keyframe: bool,
    empty: bool,
}

struct Run {
    outs: BTreeMap<u64, Out>,
    /// Upstream losses that would have gone out.
    lost: usize,
}

/// Ten seconds at 30 frames a second, with a change of target about every half second.
fn run(seed: u64, loss: f64, reordering: bool, temporal: bool) -> Run {
    let mut random = StdRng::seed_from_u64(seed + 1);
    let mut camera = Camera::new(seed);
    let mut publisher = Publisher::new(OWN);
    publisher.set_lines(&[line(Codec::Vp8, 96)]);
    let mut subscriber = Subscriber::new(OWN);
    subscriber.set_lines(&[send_line(SENDER, Codec::Vp8)]);
    let mut seqs = crate::rtp::unwrap::SeqUnwrapper::default();
    let mut timestamps = crate::rtp::unwrap::TimestampUnwrapper::default();
    let mut run = Run {
        outs: BTreeMap::new(),
        lost: 0,
    };
    let t0 = start();
    let mut attached = false;
    let mut requests = Vec::new();
    for tick in 0..300u64 {
        let now: Instant = t0 + ms(tick * 1000 / 30);
        if tick % 15 == 14 && random.random::<f64>() < 0.8 {
            let target = match random.random_range(0..5) {
                0 => Target::Paused,
                _ => Target::UpTo {
                    layer: Layer(random.random_range(0..3)),
                    temporal: if temporal {
                        random.random_range(0..3)
                    } else {
                        u8::MAX
                    },
                },
            };
            if let Some(layer) = subscriber.set_target(SENDER, target) {
                requests.push(layer);
            }
        }
        for layer in requests.drain(..) {
            camera.key_wanted[usize::from(layer.0)] = true;
        }
        let mut packets = camera.capture([true; 3]);
        packets.retain(|_| {
            let kept = random.random::<f64>() >= loss;
            run.lost += usize::from(!kept);
            kept
        });
        if reordering {
            for at in 1..packets.len() {
                if random.random::<f64>() < 0.1 {
                    packets.swap(at - 1, at);
                }
            }
        }
        for sent in packets {
            let Ok(packet) = publisher.handle_rtp(now, &sent.datagram) else {
                continue;
            };
            assert_eq!(usize::from(packet.layer.0), sent.layer);
            if !std::mem::replace(&mut attached, true) {
                subscriber.attach(SENDER, packet.track, packet.codec);
            }
            let mut out = Vec::new();
            match subscriber.forward(now, SENDER, &packet, &mut out) {
                Ok(_) => {
                    let parsed = RtpPacket::parse(&out).expect("RTP");
                    let seq = seqs.unwrap(parsed.seq);
                    let descriptor = Descriptor::parse(parsed.payload);
                    let tail = parsed.payload.get(7..12).unwrap_or(&[0; 5]);
                    let new = Out {
                        timestamp: timestamps.unwrap(parsed.timestamp),
                        picture: descriptor
                            .and_then(|d| d.picture_id)
                            .map_or(0, |id| id.value),
                        frame: u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]),
                        layer: tail[4],
                        keyframe: descriptor.is_some_and(|d| d.starts_keyframe(parsed.payload)),
                        empty: parsed.payload.is_empty(),
                    };
                    assert!(run.outs.insert(seq, new).is_none(), "number {seq} twice");
                }
                Err(DropReason::AwaitingKeyframe) => requests.push(packet.layer),
                Err(_) => {}
            }
        }
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn without_loss_the_output_has_no_gap_and_its_time_and_pictures_go_on(seed: u64, temporal: bool) {
        let seed = seed >> 1;
        let run = run(seed, 0.0, false, temporal);
        let first = *run.outs.keys().next().expect("something was sent");
        let last = *run.outs.keys().next_back().expect("something was sent");
        prop_assert_eq!(run.outs.len() as u64, last - first + 1, "no gap");
        let outs: Vec<Out> = run.outs.into_values().collect();
        for pair in outs.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            prop_assert!(!after.empty);
            if (before.layer, before.frame) == (after.layer, after.frame) {
                prop_assert_eq!(before.timestamp, after.timestamp, "one frame, one time");
                prop_assert_eq!(before.picture, after.picture);
            } else {
                prop_assert!(after.timestamp > before.timestamp, "time goes forward");
                prop_assert_eq!(after.picture, (before.picture + 1) & 0x7fff, "pictures go on");
            }
            if before.layer != after.layer {
                prop_assert!(after.keyframe, "another layer begins with its keyframe");
            }
        }
    }

    #[test]
    fn with_loss_and_reordering_time_still_goes_with_the_numbers(seed: u64, temporal: bool) {
        let seed = seed >> 1;
        let run = run(seed, 0.03, true, temporal);
        let first = *run.outs.keys().next().expect("something was sent");
        let last = *run.outs.keys().next_back().expect("something was sent");
        let missing = (last - first + 1) as usize - run.outs.len();
        prop_assert!(missing <= run.lost, "{missing} missing, {} lost", run.lost);
        let media = run.outs.values().filter(|out| !out.empty);
        let outs: Vec<Out> = media.copied().collect();
        for pair in outs.windows(2) {
            prop_assert!(pair[1].timestamp >= pair[0].timestamp, "time never goes back");
        }
    }
}

/// A camera that only has its layers told apart, for what needs no content.
struct Bench {
    camera: Camera,
    publisher: Publisher,
    subscriber: Subscriber,
    track: Option<TrackKey>,
    last_layer: Option<Layer>,
    asked: Vec<Layer>,
}

impl Bench {
    fn new() -> Self {
        let mut publisher = Publisher::new(OWN);
        publisher.set_lines(&[line(Codec::Vp8, 96)]);
        let mut subscriber = Subscriber::new(OWN);
        subscriber.set_lines(&[send_line(SENDER, Codec::Vp8)]);
        Bench {
            camera: Camera::new(7),
            publisher,
            subscriber,
            track: None,
            last_layer: None,
            asked: Vec::new(),
        }
    }

    /// One frame of the active layers; keyframes are asked for and come with the next frame.
    fn frame(&mut self, now: Instant, active: [bool; 3]) {
        for layer in std::mem::take(&mut self.asked) {
            self.camera.key_wanted[usize::from(layer.0)] = true;
        }
        for sent in self.camera.capture(active) {
            let packet = self
                .publisher
                .handle_rtp(now, &sent.datagram)
                .expect("media");
            if self.track.replace(packet.track).is_none() {
                self.subscriber.attach(SENDER, packet.track, packet.codec);
            }
            let mut out = Vec::new();
            match self.subscriber.forward(now, SENDER, &packet, &mut out) {
                Ok(_) => self.last_layer = Some(packet.layer),
                Err(DropReason::AwaitingKeyframe) => {
                    self.publisher
                        .request_keyframe(now, packet.track, packet.layer);
                    self.asked.push(packet.layer);
                }
                Err(_) => {}
            }
        }
    }
}

#[test]
fn a_layer_that_stops_is_replaced_within_a_second_and_taken_again_when_it_returns() {
    let t0 = start();
    let mut bench = Bench::new();
    let at = |bench: &mut Bench, from: u64, frames: u64, active| {
        for tick in from..from + frames {
            bench.frame(t0 + ms(tick * 33), active);
        }
        from + frames
    };
    let tick = at(&mut bench, 0, 30, [true; 3]);
    assert_eq!(bench.last_layer, Some(Layer(2)));
    let tick = at(&mut bench, tick, 31, [true, true, false]);
    assert_eq!(bench.subscriber.current(SENDER), Some(Layer(1)));
    let figures = bench
        .publisher
        .layers(t0 + ms(tick * 33), bench.track.expect("published"));
    let active: Vec<bool> = figures.iter().map(|layer| layer.active).collect();
    assert_eq!(active, [true, true, false]);
    let tick = at(&mut bench, tick, 5, [true; 3]);
    assert_eq!(bench.subscriber.current(SENDER), Some(Layer(2)));
    // A camera that is covered sends nothing at all: nothing changes.
    at(&mut bench, tick, 100, [false; 3]);
    assert_eq!(bench.subscriber.current(SENDER), Some(Layer(2)));
}

#[test]
fn thirty_viewers_of_a_layer_make_one_request_to_it_alone() {
    let t0 = start();
    let mut bench = Bench::new();
    bench.frame(t0, [true; 3]);
    let track = bench.track.expect("published");
    let mut out = Vec::new();
    while bench.publisher.poll_feedback(t0 + ms(1), &mut out) {}
    for _ in 0..30 {
        bench
            .publisher
            .request_keyframe(t0 + ms(2), track, Layer(1));
    }
    out.clear();
    while bench.publisher.poll_feedback(t0 + ms(2), &mut out) {}
    let asked: Vec<Ssrc> = crate::rtp::rtcp::packets(&out)
        .filter_map(|packet| match packet {
            Ok(crate::rtp::rtcp::Rtcp::Pli { media }) => Some(media),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [Ssrc(101)]);
}

#[test]
fn a_page_that_lists_its_best_encoding_first_has_its_layers_turned_round() {
    let now = start();
    let mut publisher = Publisher::new(OWN);
    publisher.set_lines(&[line(Codec::Vp8, 96)]);
    let mut seq = 0;
    let mut keyframe = |rid: &str, ssrc: u32, width: u16| {
        seq += 1;
        let [low, high] = width.to_le_bytes();
        let body = [0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, low, high, 0x68, 0x01];
        let extensions = Extensions {
            mid: Some("v"),
            rid: Some(rid),
            ..Extensions::default()
        };
        let packet = with_extensions(Ssrc(ssrc), 96, seq, 1, &body, extensions);
        publisher.handle_rtp(now, &packet).expect("media").layer
    };
    assert_eq!(keyframe("q", 1, 1280), Layer(0), "nothing else is known");
    assert_eq!(keyframe("h", 2, 640), Layer(1));
    assert_eq!(keyframe("f", 3, 320), Layer(0));
    assert_eq!(keyframe("q", 1, 1280), Layer(2));
}

#[test]
fn a_retransmission_finds_its_layer_by_the_repaired_rid() {
    let now = start();
    let mut publisher = Publisher::new(OWN);
    publisher.set_lines(&[line(Codec::Vp8, 96)]);
    let tagged = |ssrc, payload_type, seq, body: &[u8], rid, repaired_rid| {
        let extensions = Extensions {
            mid: Some("v"),
            rid,
            repaired_rid,
            ..Extensions::default()
        };
        with_extensions(Ssrc(ssrc), payload_type, seq, 1, body, extensions)
    };
    for seq in [10, 12] {
        let packet = tagged(5, 96, seq, &[0x10, 0, 0, 0], Some("h"), None);
        publisher.handle_rtp(now, &packet).expect("media");
    }
    let body = [0, 11, 0x10, 1];
    let packet = tagged(6, 97, 1, &body, None, Some("h"));
    let repaired = publisher.handle_rtp(now, &packet).expect("repaired");
    assert!(repaired.recovered);
    assert_eq!(repaired.layer, Layer(1));
    // A stream whose layer nobody knows is not guessed.
    let unknown = rtp(Ssrc(9), 96, 1, 1, &[0x10, 0]);
    let refused = publisher.handle_rtp(now, &unknown).err();
    assert_eq!(refused, Some(DropReason::UnknownSsrc));
}

#[test]
fn layers_whose_sender_reports_are_known_meet_in_time() {
    let t0 = start();
    let mut bench = Bench::new();
    let mut now = t0;
    for tick in 0..30u64 {
        now = t0 + ms(tick * 33);
        bench.frame(now, [true; 3]);
    }
    // The moment of the last frame, on each stream's own clock.
    for layer in 0..3 {
        let timestamp =
            bench.camera.timestamps[layer].wrapping_add((bench.camera.frame - 1) * 3000);
        let info = crate::rtp::rtcp::write::SenderInfo {
            ssrc: Ssrc(100 + layer as u32),
            ntp: WALL,
            timestamp,
            packets: 1,
            octets: 1,
        };
        let mut compound = Vec::new();
        crate::rtp::rtcp::write::sender_report(&info, &mut compound);
        bench.publisher.handle_rtcp(now, WALL, &compound);
    }
    let target = Target::UpTo {
        layer: Layer(0),
        temporal: u8::MAX,
    };
    let mut times = Vec::new();
    for tick in 30..40u64 {
        // The frames of the low layer come 20 ms late: by arrival alone they would be misplaced.
        let now = t0 + ms(tick * 33 + if tick >= 33 { 20 } else { 0 });
        if tick == 33 {
            let wanted = bench.subscriber.set_target(SENDER, target);
            assert_eq!(wanted, Some(Layer(0)));
            bench.camera.key_wanted[0] = true;
        }
        for sent in bench.camera.capture([true; 3]) {
            let packet = bench
                .publisher
                .handle_rtp(now, &sent.datagram)
                .expect("media");
            let mut out = Vec::new();
            if bench
                .subscriber
                .forward(now, SENDER, &packet, &mut out)
                .is_ok()
            {
                let timestamp = RtpPacket::parse(&out).expect("RTP").timestamp;
                times.push(timestamp);
            }
        }
    }
    times.dedup();
    let steps: Vec<u32> = times.windows(2).map(|t| t[1].wrapping_sub(t[0])).collect();
    assert_eq!(steps, [3000; 9]);
}
