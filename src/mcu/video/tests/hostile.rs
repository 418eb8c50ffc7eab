//! Streams that nobody should send, each beside a camera that does what it should.

use super::decoding::Line;
use super::*;
use crate::mcu::codec::VideoCodec;
use crate::mcu::codec::h264::{is_keyframe, nal_units};
use crate::mcu::feed::VideoPacket;
use crate::mcu::pool::Job;
use crate::mcu::video::decoder::SourceDecoder;
use crate::mcu::video::exchange::exchange;
use crate::mcu::video::job::DecodeJob;
use crate::rtp::h264::MAX_ACCESS_UNIT;

/// A healthy camera in tile 0, and somebody in tile 1.
struct Neighbours {
    room: Room,
    viewer: Viewer,
    healthy: Yuv,
}

const STRANGER: TrackKey = TrackKey(2);

impl Neighbours {
    fn new(codec: VideoCodec) -> Self {
        let mut room = Room::new(2);
        room.cameras.truncate(1);
        let source = Source::new(PeerId(2), false, codec, Intake::Tick);
        room.mix.begin_source(STRANGER, source);
        room.mix.add_listener(PeerId(100), STANDARD);
        Neighbours {
            healthy: room.cameras[0].colour,
            room,
            viewer: Viewer::new(STANDARD),
        }
    }

    /// 50 ms: the stranger's units, a picture of the healthy camera, and a tick, whose picture must come.
    fn step(&mut self, units: impl IntoIterator<Item = Vec<u8>>) {
        let now = self.room.now;
        for data in units {
            let keyframe = match self.room.mix.sources[1].1.codec() {
                VideoCodec::Vp8 => data.first().is_some_and(|tag| tag & 1 == 0),
                _ => is_keyframe(&data),
            };
            let unit = AccessUnit {
                data: data.into(),
                timestamp: 0,
                keyframe,
                arrival: now,
                orientation: 0,
                broken: false,
            };
            self.room.mix.push(STRANGER, unit);
        }
        let tick = self.room.step();
        assert_eq!(tick.frames.len(), 1, "the canvas keeps its rate");
        self.viewer.watch(&self.room.tick);
    }

    fn tile(&self, peer: u64) -> usize {
        let tiles = self.room.mix.layout(STANDARD).tiles;
        let of_peer = |(peer_of, _): &(PeerId, Rect)| *peer_of == PeerId(peer);
        tiles.iter().position(of_peer).expect("it has a tile")
    }

    fn shows(&self, peer: u64, colour: Yuv) -> bool {
        self.viewer.sees(&self.room.mix, self.tile(peer), colour)
    }

    /// The neighbour is seen, and so many of its pictures were decoded.
    fn assert_healthy(&self, steps: u64, strangers: u64) {
        assert!(self.shows(1, self.healthy), "the neighbour is seen");
        let stats = self.room.mix.stats();
        assert_eq!(stats.decoded, steps + strangers, "{stats:?}");
        assert_eq!((stats.encoded, stats.composed), (steps, steps));
    }
}

/// The colour of the recorded streams.
const RECORDED: Yuv = Yuv {
    y: 110,
    u: 90,
    v: 200,
};

/// A bit string as the payload of a NAL unit of this type, Annex B.
fn nal(header: u8, bits: &str) -> Vec<u8> {
    let mut bits = format!("{bits}1");
    while !bits.len().is_multiple_of(8) {
        bits.push('0');
    }
    let mut unit = vec![0, 0, 0, 1, header];
    let bytes = (0..bits.len()).step_by(8);
    unit.extend(bytes.map(|at| u8::from_str_radix(&bits[at..at + 8], 2).expect("eight bits")));
    unit
}

/// ue(v) (ITU-T H.264, 9.1).
fn ue(value: u32) -> String {
    let code = format!("{:b}", value + 1);
    format!("{}{code}", "0".repeat(code.len() - 1))
}

/// A baseline parameter set for pictures of so many macroblocks.
fn sps(columns: u32, rows: u32) -> Vec<u8> {
    let profile = format!("{:08b}{:08b}{:08b}", 66, 0xc0, 51);
    let size = [ue(columns - 1), ue(rows - 1)].concat();
    // Its id, frame numbers of 4 bits, order type 2, one reference, no gaps; frames only, 8x8, no crop, no VUI.
    let bits = [&profile, &ue(0), &ue(0), &ue(2), &ue(1), "0", &size, "1100"].concat();
    nal(0x67, &bits)
}

#[test]
fn a_picture_of_16384_by_16384_is_refused_unseen() {
    let mut room = Neighbours::new(VideoCodec::H264);
    let mut camera = Camera::sized(2, RECORDED, 64, 36);
    for _ in 0..20 {
        camera.encoder.request_keyframe();
        let now = room.room.now;
        let picture = camera.unit(now).data.to_vec();
        // Its own parameter sets follow, as if they belonged to it.
        room.step([[sps(1024, 1024), picture].concat()]);
    }
    room.assert_healthy(20, 0);
    assert!(!room.shows(2, RECORDED), "a card");
    assert_eq!(room.room.mix.stats().dropped_undecodable, 20);
    assert!(
        room.room.mix.keyframe_wishes().count() <= 2,
        "it is not begged"
    );
}

#[test]
fn a_picture_that_has_another_size_each_time_is_cut_off_and_counted() {
    let mut room = Neighbours::new(VideoCodec::H264);
    for step in 0..60u32 {
        let now = room.room.now;
        let mut camera = Camera::sized(2, RECORDED, 64 + 16 * (step % 30), 64 + 2 * step);
        room.step([camera.unit(now).data.to_vec()]);
    }
    let stats = room.room.mix.stats();
    let decoded = stats.decoded - 60;
    assert!(stats.dropped_too_many >= 40, "{stats:?}");
    assert!(
        decoded <= 8 + 2 * 3 + 6,
        "a few and two a second: {decoded}"
    );
    let dropped = stats.dropped_too_many + stats.dropped_undecodable;
    assert_eq!(decoded + dropped, 60, "each is accounted for");
    room.assert_healthy(60, decoded);
}

#[test]
fn without_a_picture_parameter_set_there_is_a_card() {
    let mut room = Neighbours::new(VideoCodec::H264);
    let mut camera = Camera::sized(2, RECORDED, 64, 36);
    for _ in 0..20 {
        let now = room.room.now;
        let unit = camera.unit(now).data;
        let kept = nal_units(&unit).filter(|nal| nal[0] & 0x1f != 8);
        let without: Vec<u8> = kept.flat_map(|nal| [&[0, 0, 0, 1], nal].concat()).collect();
        room.step([without]);
    }
    assert!(!room.shows(2, RECORDED), "a card");
    room.assert_healthy(20, 20);
    assert_eq!(
        room.room.mix.stats().damaged,
        20,
        "each is counted as damaged"
    );
    assert!(room.room.mix.keyframe_wishes().count() >= 1);
}

/// A recorded stream goes through the mix, three times over.
fn recorded_stream(name: &str) -> (Neighbours, VideoStats) {
    let mut room = Neighbours::new(VideoCodec::H264);
    let units = recorded::h264(name);
    assert_eq!(units.len(), 16, "{name}");
    for unit in units.iter().cycle().take(48) {
        room.step([unit.clone()]);
    }
    let stats = room.room.mix.stats();
    let dropped =
        stats.dropped_before_keyframe + stats.dropped_undecodable + stats.dropped_too_many;
    assert_eq!(stats.decoded + dropped, 48 + 48, "{name}: {stats:?}");
    room.assert_healthy(48, stats.decoded - 48);
    (room, stats)
}

#[test]
fn b_frames_are_shown() {
    let (room, stats) = recorded_stream("bframes.h264");
    assert!(room.shows(2, RECORDED), "{stats:?}");
}

#[test]
fn cabac_and_several_slices_are_shown() {
    let (room, stats) = recorded_stream("cabac.h264");
    assert!(room.shows(2, RECORDED), "{stats:?}");
    assert_eq!((stats.damaged, stats.decoded), (0, 96));
}

#[test]
fn interlaced_pictures_get_a_card_and_are_counted() {
    let (room, stats) = recorded_stream("interlaced.h264");
    assert!(!room.shows(2, RECORDED));
    assert!(stats.damaged + stats.dropped_undecodable >= 3, "{stats:?}");
}

#[test]
fn pictures_with_full_chroma_get_a_card_and_are_counted() {
    let (room, stats) = recorded_stream("yuv444.h264");
    assert!(!room.shows(2, RECORDED));
    assert_eq!(
        (stats.decoded, stats.dropped_undecodable),
        (48, 3),
        "each keyframe"
    );
    assert_eq!(stats.dropped_before_keyframe, 45);
}

#[test]
fn a_picture_of_2_by_2_is_shown() {
    let (room, stats) = recorded_stream("tiny.h264");
    assert_eq!((stats.damaged, stats.decoded), (0, 96), "{stats:?}");
    assert!(room.shows(2, RECORDED));
}

#[test]
fn of_120_pictures_a_second_no_more_than_the_budget_is_decoded() {
    let mut room = Neighbours::new(VideoCodec::H264);
    let mut camera = Camera::sized(2, RECORDED, 64, 36);
    for step in 0..100u32 {
        let now = room.room.now;
        if room
            .room
            .mix
            .keyframe_wishes()
            .any(|track| track == STRANGER)
        {
            camera.encoder.request_keyframe();
        }
        // Six in 50 ms.
        let units: Vec<Vec<u8>> = (0..6).map(|_| camera.unit(now).data.to_vec()).collect();
        room.step(units);
        assert!(step < 4 || room.shows(2, RECORDED), "it is seen at {step}");
    }
    let stats = room.room.mix.stats();
    let decoded = stats.decoded - 100;
    assert!((200..=90 + 5 * 75).contains(&decoded), "{decoded}");
    let dropped = stats.dropped_too_many + stats.dropped_before_keyframe;
    assert_eq!(decoded + dropped, 600, "{stats:?}");
    room.assert_healthy(100, decoded);
}

#[test]
fn a_fragment_without_end_is_bounded_and_counted() {
    let start = Instant::now();
    let mut line = Line::new(Camera::sized(1, RECORDED, 64, 36));
    let (writer, reader) = exchange();
    let counters = Arc::<DecodeCounters>::default();
    let decoder = SourceDecoder::new(VideoCodec::H264, writer, counters.clone());
    let mut job = DecodeJob::new(line.feed.open(), decoder);
    let mut payload = vec![0x55; 1200];
    (payload[0], payload[1]) = (0x7c, 0x85);
    let packets = 2 * MAX_ACCESS_UNIT / 1200;
    for seq in 1..=packets as u64 {
        let packet = VideoPacket {
            seq,
            timestamp: 1,
            marker: false,
            orientation: None,
            arrival: start,
            payload: Bytes::copy_from_slice(&payload),
        };
        payload[1] = 0x05;
        assert_eq!(line.feed.push(packet), Fed::Taken);
        assert_eq!(job.run(start), Some(start + DECODE_INTERVAL));
    }
    assert_eq!(counters.decoded.load(Ordering::Relaxed), 0);
    assert!(reader.needs_keyframe());
    line.seq = packets as u64;
    line.send(start);
    while job.run(start) == Some(start) {}
    assert_eq!(counters.decoded.load(Ordering::Relaxed), 1);
    assert!(
        !reader.needs_keyframe(),
        "what it sends in order is decoded"
    );
}

#[test]
fn a_publisher_of_vp8_is_a_picture() {
    let mut room = Neighbours::new(VideoCodec::Vp8);
    let frames = recorded::vp8("vp8_160x90.ivf");
    for frame in frames.iter().cycle().take(24) {
        room.step([frame.clone()]);
    }
    assert!(room.shows(2, RECORDED));
    room.assert_healthy(24, 24);
    for _ in 0..30 {
        room.step([
            vec![1, 2, 3, 4],
            vec![0, 0, 0, 0x9d, 1, 0x2a, 255, 63, 255, 63, 0],
        ]);
    }
    let stats = room.room.mix.stats();
    assert!(
        stats.dropped_undecodable >= 15 && stats.dropped_too_many == 0,
        "{stats:?}"
    );
    assert!(room.shows(1, room.healthy));
    for frame in &frames {
        room.step([frame.clone()]);
    }
    assert!(room.shows(2, RECORDED), "it is good again");
}
