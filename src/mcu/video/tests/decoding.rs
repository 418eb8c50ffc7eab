//! Who is decoded, where, and what a decoder's troubles do to the others.

use super::*;
use crate::mcu::codec::STUCK_FOR;
use crate::mcu::codec::VideoCodec;
use crate::mcu::feed::{RETRANSMISSION_WAIT, VideoPacket};
use crate::mcu::pool::{Job, Pool};
use crate::mcu::video::decoder::SourceDecoder;
use crate::mcu::video::exchange::{PictureReader, exchange};
use crate::mcu::video::job::DecodeJob;
use crate::rtp::h264::Packetizer;
use std::collections::BTreeSet;
use talksy_mixer::video::layout::MAX_TILES;

/// Small cameras, for rooms of many.
fn crowd(count: u64) -> Room {
    let mut room = Room::new(count);
    for camera in &mut room.cameras {
        *camera = Camera::sized(camera.track.0, camera.colour, 64, 36);
    }
    room
}

fn told(room: &mut Room) -> BTreeMap<u64, Option<Size>> {
    let mut told = BTreeMap::new();
    room.mix.tell_shown(|track, size| {
        told.insert(track.0, size);
        true
    });
    told
}

#[test]
fn who_is_not_seen_is_not_decoded_and_wakes_with_one_request_for_a_keyframe() {
    let mut room = crowd(27);
    let count = room.cameras.len();
    assert_eq!((count, MAX_TILES), (27, 25));
    assert!(told(&mut room).values().all(Option::is_none), "no rung");
    room.mix.add_listener(PeerId(100), STANDARD);
    let shown = told(&mut room);
    assert_eq!(shown.len(), MAX_TILES, "the others stay unseen");
    assert!(shown.values().all(Option::is_some) && !shown.contains_key(&27));
    for _ in 0..4 {
        room.step();
    }
    let stats = room.mix.stats();
    assert_eq!((stats.decoded, stats.dropped_hidden), (4 * 25, 4 * 2));
    let wishes: BTreeSet<u64> = room.mix.keyframe_wishes().map(|track| track.0).collect();
    assert!(wishes.is_empty(), "{wishes:?}");

    let mut people: Vec<Participant> = (1..=27).map(person).collect();
    people[26].speaking = true;
    room.mix.set_participants(people);
    let shown = told(&mut room);
    assert_eq!(shown.len(), 2, "one comes in and one goes");
    assert!(shown[&27].is_some());
    assert_eq!(shown.values().filter(|size| size.is_none()).count(), 1);
    room.step();
    let wishes: Vec<u64> = room.mix.keyframe_wishes().map(|track| track.0).collect();
    assert_eq!(wishes, [27]);
    room.cameras[26].encoder.request_keyframe();
    for _ in 0..20 {
        room.step();
    }
    assert_eq!(room.mix.keyframe_wishes().count(), 0, "once was enough");
    assert_eq!(room.mix.stats().decoded, 25 * 25 - 1);
}

#[test]
fn a_tile_is_told_by_its_largest_size_in_the_rungs_in_use() {
    let mut room = crowd(1);
    room.mix.add_listener(PeerId(100), LOW);
    let size = |width, height| Some(Size { width, height });
    assert_eq!(told(&mut room), BTreeMap::from([(1, size(320, 180))]));
    room.mix.add_listener(PeerId(101), STANDARD);
    let mut refused = 0;
    room.mix.tell_shown(|_, _| {
        refused += 1;
        false
    });
    assert_eq!(refused, 1);
    assert_eq!(
        told(&mut room),
        BTreeMap::from([(1, size(640, 360))]),
        "told until it is heard"
    );
    assert!(told(&mut room).is_empty());
    room.mix.set_muted(TrackKey(1), true);
    assert_eq!(told(&mut room), BTreeMap::from([(1, None)]));
}

/// A decoder and the compositor's end of it.
fn decoder(codec: VideoCodec) -> (SourceDecoder, PictureReader, Arc<DecodeCounters>) {
    let (writer, reader) = exchange();
    let counters = Arc::<DecodeCounters>::default();
    let decoder = SourceDecoder::new(codec, writer, counters.clone());
    (decoder, reader, counters)
}

#[test]
fn after_two_lost_pictures_every_call_brings_a_picture() {
    let mut camera = Camera::new(1, colour(1));
    let start = Instant::now();
    let (mut decoder, mut reader, counters) = decoder(VideoCodec::H264);
    let (mut calls, mut pictures) = (0, 0);
    for n in 0..150 {
        let mut unit = camera.unit(start + Duration::from_millis(50) * n);
        if n == 50 || n == 51 {
            continue;
        }
        unit.broken = n == 52;
        decoder.decode(unit.as_unit());
        calls += 1;
        pictures += u32::from(reader.update());
        assert_eq!(reader.needs_keyframe(), n >= 52, "{n}");
    }
    assert_eq!((calls, pictures), (148, 148));
    assert_eq!(counters.decoded.load(Ordering::Relaxed), 148);
    camera.encoder.request_keyframe();
    decoder.decode(camera.unit(start + Duration::from_secs(8)).as_unit());
    assert!(!reader.needs_keyframe(), "the keyframe has healed it");
}

const PANIC: &[u8] = b"panic";

fn faulty_unit(at: Instant, data: &'static [u8]) -> AccessUnit {
    AccessUnit {
        data: Bytes::from_static(data),
        timestamp: 0,
        keyframe: true,
        arrival: at,
        orientation: 0,
        broken: false,
    }
}

#[test]
fn a_decoder_that_panics_costs_its_own_picture_and_is_made_anew_but_not_for_ever() {
    let mut room = Room::new(2);
    let source = Source::new(PeerId(1), false, VideoCodec::Faulty, Intake::Tick);
    room.mix.begin_source(TrackKey(1), source);
    room.mix.add_listener(PeerId(100), STANDARD);
    let mut viewer = Viewer::new(STANDARD);
    let (first, second) = (room.cameras[0].colour, room.cameras[1].colour);
    let index = |room: &Room, peer| {
        let tiles = room.mix.layout(STANDARD).tiles;
        tiles
            .iter()
            .position(|(of, _)| *of == PeerId(peer))
            .unwrap()
    };
    let restarts = u64::from(MAX_RESTARTS);
    for panics in 1..=restarts + 1 {
        room.cameras[0].encoder.request_keyframe();
        for _ in 0..5 {
            viewer.watch(room.step());
        }
        let tile = index(&room, 1);
        assert!(viewer.sees(&room.mix, tile, first), "after {panics} panics");
        let at = room.now;
        room.mix.push(TrackKey(1), faulty_unit(at, PANIC));
        for _ in 0..12 {
            room.cameras[1].send(&mut room.mix, room.now);
            viewer.watch(room.quiet_step());
        }
        assert!(!viewer.sees(&room.mix, tile, first), "the card");
        let tile = index(&room, 2);
        assert!(viewer.sees(&room.mix, tile, second), "the neighbour");
        assert_eq!(room.mix.stats().dropped_panicked, panics);
        let wished = room.mix.keyframe_wishes().any(|track| track.0 == 1);
        assert_eq!(wished, panics <= restarts);
    }
    room.cameras[0].encoder.request_keyframe();
    for _ in 0..20 {
        viewer.watch(room.step());
    }
    let tile = index(&room, 1);
    assert!(!viewer.sees(&room.mix, tile, first), "given up");
    assert_eq!(room.mix.stats().dropped_given_up, 20);
}

/// A camera behind a feed.
pub struct Line {
    pub feed: Arc<Feed>,
    pub camera: Camera,
    packetizer: Packetizer,
    pub seq: u64,
}

impl Line {
    pub fn new(camera: Camera) -> Self {
        Line {
            feed: Arc::default(),
            camera,
            packetizer: Packetizer::default(),
            seq: 0,
        }
    }

    fn packets(&mut self, at: Instant) -> Vec<VideoPacket> {
        let unit = self.camera.unit(at);
        let mut packets = Vec::new();
        self.packetizer.packetize(&unit.data, |payload, marker| {
            self.seq += 1;
            packets.push(VideoPacket {
                seq: self.seq,
                timestamp: unit.timestamp,
                marker,
                orientation: None,
                arrival: at,
                payload: Bytes::copy_from_slice(payload),
            });
        });
        packets
    }

    pub fn send(&mut self, at: Instant) {
        for packet in self.packets(at) {
            assert_eq!(self.feed.push(packet), Fed::Taken);
        }
    }
}

#[test]
fn a_job_decodes_one_picture_at_a_time_and_ends_with_its_feed() {
    let mut line = Line::new(Camera::sized(1, colour(1), 64, 36));
    let start = Instant::now();
    let (decoder, mut reader, counters) = decoder(VideoCodec::H264);
    line.send(start);
    let mut job = DecodeJob::new(line.feed.open(), decoder);
    for _ in 0..3 {
        line.send(start);
    }
    for turn in 1..=4 {
        assert_eq!(job.run(start), Some(start), "more may wait");
        assert_eq!(counters.decoded.load(Ordering::Relaxed), turn);
        assert!(reader.update());
    }
    assert_eq!(job.run(start), Some(start + DECODE_INTERVAL));
    let lost = line.packets(start);
    drop(lost);
    line.send(start);
    assert_eq!(job.run(start), Some(start + DECODE_INTERVAL), "it waits");
    assert!(!reader.needs_keyframe());
    let later = start + RETRANSMISSION_WAIT;
    assert_eq!(job.run(later), Some(later));
    assert!(reader.update() && reader.needs_keyframe());
    line.send(later);
    assert_eq!(line.feed.close(), 1);
    let late = line.packets(later).remove(0);
    assert_eq!(line.feed.push(late.clone()), Fed::Closed);
    let again = line.feed.open();
    assert_eq!(line.feed.push(late), Fed::Taken);
    assert_eq!(job.run(later), None, "another has its feed");
    drop(again);
}

#[test]
fn a_full_feed_is_emptied_and_goes_on_with_the_next_keyframe() {
    let mut line = Line::new(Camera::sized(1, colour(1), 64, 36));
    let start = Instant::now();
    let (decoder, reader, counters) = decoder(VideoCodec::H264);
    let mut job = DecodeJob::new(line.feed.open(), decoder);
    line.send(start);
    job.run(start);
    let mut refused = 0;
    for _ in 0..FEED_PACKETS + 20 {
        for packet in line.packets(start) {
            refused += u32::from(line.feed.push(packet) == Fed::Full);
        }
    }
    assert!(refused >= 20, "{refused}");
    assert_eq!(job.run(start), Some(start + DECODE_INTERVAL));
    let skipped = counters.dropped(DecodeDrop::QueueFull);
    assert_eq!(skipped, FEED_PACKETS as u64);
    assert!(reader.needs_keyframe());
    line.send(start);
    job.run(start);
    assert_eq!(counters.dropped(DecodeDrop::BeforeKeyframe), 1);
    line.camera.encoder.request_keyframe();
    line.send(start);
    job.run(start);
    assert!(!reader.needs_keyframe());
    assert_eq!(counters.decoded.load(Ordering::Relaxed), 2);
}

#[test]
fn a_source_that_is_stuck_in_its_decoder_delays_neither_canvas_nor_neighbour() {
    const STUCK: &[u8] = b"stuck";
    let pool = Pool::start("decode", 2).unwrap();
    let mut mix = VideoMix::new(Ladder::default());
    mix.set_participants((1..=2).map(person).collect());
    let mut line = Line::new(Camera::sized(1, colour(1), 64, 36));
    let stuck = Arc::new(Feed::default());
    for (track, codec, feed) in [
        (1, VideoCodec::H264, &line.feed),
        (2, VideoCodec::Faulty, &stuck),
    ] {
        let (track, peer) = (TrackKey(track), PeerId(track));
        let input = (codec, feed.clone());
        mix.add_fed_source(track, peer, false, input, pool.spawner());
    }
    mix.add_listener(PeerId(100), STANDARD);
    let mut packets = line.packets(Instant::now());
    packets.truncate(1);
    let mut blocker = packets.remove(0);
    // A keyframe by its type, which sticks by its contents.
    blocker.payload = Bytes::from([&[0x65][..], STUCK].concat());
    blocker.marker = true;
    line = Line {
        feed: line.feed,
        ..Line::new(Camera::sized(1, colour(1), 64, 36))
    };
    assert_eq!(stuck.push(blocker), Fed::Taken);
    let mut tick = VideoTick::default();
    let began = Instant::now();
    let mut decoded = 0;
    // Ten pictures of the neighbour, each waited for, while the other decoder sits for a second.
    while decoded < 10 {
        line.send(Instant::now());
        while mix.stats().decoded == decoded {
            let now = Instant::now();
            mix.tick(now, &mut tick);
            assert!(now.elapsed() < STUCK_FOR, "the tick waits for nobody");
            std::thread::yield_now();
        }
        decoded = mix.stats().decoded;
    }
    assert!(began.elapsed() < STUCK_FOR, "{:?}", began.elapsed());
}
