//! Moves between rungs, and what rungs cost.

use super::*;
use crate::rtp::h264::sps;

const TOP: VideoRung = VideoRung::landscape(5);
const PHONE: VideoRung = VideoRung {
    step: 3,
    shape: Shape::Portrait,
};

/// Ticks at 120 Hz for `millis`, with a frame of every camera each 50 ms.
fn run(room: &mut Room, millis: u64, mut seen: impl FnMut(&VideoTick)) {
    let end = room.now + Duration::from_millis(millis);
    let mut camera = room.now;
    while room.now < end {
        if room.now >= camera {
            camera += Duration::from_millis(50);
            for camera in &mut room.cameras {
                camera.send(&mut room.mix, room.now);
            }
        }
        room.mix.tick(room.now, &mut room.tick);
        seen(&room.tick);
        room.now += Duration::from_micros(8_333);
    }
}

#[test]
fn each_rung_has_its_own_frame_rate_and_those_without_listeners_cost_nothing() {
    let mut room = Room::new(1);
    let rungs: Vec<VideoRung> = (0..6).map(VideoRung::landscape).collect();
    for rung in &rungs {
        room.mix
            .add_listener(PeerId(100 + u64::from(rung.step)), *rung);
    }
    let mut frames = BTreeMap::new();
    run(&mut room, 2000, |tick| {
        for frame in &tick.frames {
            *frames.entry(frame.rung.step).or_insert(0) += 1;
        }
    });
    for (step, fps) in [5, 10, 15, 20, 25, 30].into_iter().enumerate() {
        let count: i32 = frames[&(step as u8)];
        // Frames come where the camera has something new, or on the beat of still pictures.
        let most = 2 * fps.min(20) + 2;
        assert!((2 * fps.min(20) - 4..=most).contains(&count), "{frames:?}");
    }
    rungs[1..].iter().for_each(|rung| {
        room.mix.remove_listener(PeerId(100 + u64::from(rung.step)));
    });
    let before = room.mix.stats();
    run(&mut room, 2000, |tick| {
        assert!(tick.frames.iter().all(|frame| frame.rung == rungs[0]));
    });
    let after = room.mix.stats();
    let composed = after.composed - before.composed;
    assert!((9..=11).contains(&composed), "{composed}");
    assert!(after.encoded - before.encoded <= composed);
}

#[test]
fn a_listener_that_moves_sees_its_old_rung_until_the_keyframe_of_the_new_one() {
    let mut room = Room::new(2);
    room.mix.add_listener(PeerId(100), TOP);
    room.mix.add_listener(PeerId(101), STANDARD);
    run(&mut room, 1000, |_| {});
    // A keyframe of the lower rung has just been made for somebody else.
    room.mix.request_keyframe(STANDARD);
    run(&mut room, 60, |_| {});
    room.mix.set_rung(PeerId(100), STANDARD);
    let (mut last_of_old, mut first_key) = (None, None);
    let begin = room.now;
    let mut at = begin;
    run(&mut room, 1000, |tick| {
        for frame in &tick.frames {
            if frame.rung == TOP {
                last_of_old = Some(at);
            } else if frame.keyframe && first_key.is_none() {
                first_key = Some(at);
            }
        }
        at += Duration::from_micros(8_333);
    });
    let (last, key) = (
        last_of_old.expect("goes on"),
        first_key.expect("a keyframe"),
    );
    let waited = key - begin;
    assert!(waited > Duration::from_millis(300), "{waited:?}");
    assert!(waited <= KEYFRAME_WINDOW, "{waited:?}");
    assert!(last <= key && key - last < Duration::from_millis(60));
    assert_eq!(room.mix.rungs_in_use().collect::<Vec<_>>(), [STANDARD]);
}

#[test]
fn who_changes_their_mind_before_the_keyframe_keeps_what_they_have() {
    let mut room = Room::new(1);
    room.mix.add_listener(PeerId(100), STANDARD);
    run(&mut room, 200, |_| {});
    let before = room.mix.stats().keyframes;
    room.mix.set_rung(PeerId(100), LOW);
    room.mix.set_rung(PeerId(100), TOP);
    room.mix.set_rung(PeerId(100), STANDARD);
    assert_eq!(room.mix.rungs_in_use().collect::<Vec<_>>(), [STANDARD]);
    run(&mut room, 700, |_| {});
    assert_eq!(room.mix.stats().keyframes, before);
}

#[test]
fn a_hundred_subscribers_of_a_rung_cost_one_encode_and_eight_no_more_than_one() {
    let counts = |listeners: u64| {
        let mut room = Room::new(2);
        (0..listeners).for_each(|n| room.mix.add_listener(PeerId(100 + n), STANDARD));
        let mut most = 0;
        run(&mut room, 1000, |tick| most = most.max(tick.frames.len()));
        let stats = room.mix.stats();
        (stats.decoded, stats.composed, stats.encoded, most)
    };
    let one = counts(1);
    assert_eq!(one.3, 1, "one encode for each frame");
    assert!(one.2 >= 19, "{one:?}");
    assert_eq!(counts(8), one);
    assert_eq!(counts(100), one);
}

#[test]
fn fifty_subscribers_who_ask_again_and_again_get_one_keyframe_in_half_a_second() {
    let mut room = Room::new(1);
    (0..50).for_each(|n| room.mix.add_listener(PeerId(100 + n), STANDARD));
    let mut keyframes = Vec::new();
    let begin = room.now;
    while room.now < begin + Duration::from_secs(5) {
        (0..50).for_each(|_| room.mix.request_keyframe(STANDARD));
        let at = room.now;
        let tick = room.step();
        keyframes.extend(tick.frames.iter().filter(|f| f.keyframe).map(|_| at));
    }
    let gaps = keyframes.windows(2).map(|two| two[1] - two[0]);
    let shortest = gaps.min().expect("several");
    assert!(shortest >= KEYFRAME_WINDOW, "{shortest:?}");
    assert_eq!(keyframes.len(), 10);
}

#[test]
fn a_phone_has_a_canvas_of_its_own_with_places_of_its_own() {
    let mut room = Room::new(3);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.mix.add_listener(PeerId(101), PHONE);
    let (mut wide, mut tall) = (Viewer::new(STANDARD), Viewer::new(PHONE));
    for _ in 0..4 {
        let tick = room.step();
        wide.watch(tick);
        tall.watch(tick);
    }
    let size = |viewer: &Viewer| (viewer.picture.width(), viewer.picture.height());
    assert_eq!((size(&wide), size(&tall)), ((640, 360), (360, 640)));
    let tiles = room.mix.layout(PHONE).tiles;
    let below = tiles.iter().any(|(_, rect)| rect.y + rect.height > 360);
    assert!(tiles.len() == 3 && below, "{tiles:?}");
    for tile in 0..3 {
        assert!(tall.sees(&room.mix, tile, colour(tile as u64 + 1)));
    }
}

#[test]
fn who_comes_to_a_new_rung_finds_everybody_where_they_were() {
    let mut room = Room::new(5);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.step();
    // Somebody leaves, and somebody else gets that place: not the order in which they came.
    let people = [1, 3, 4, 5, 6].map(person);
    room.mix.set_participants(people.to_vec());
    let order = |mix: &VideoMix, rung| -> Vec<u64> {
        let tiles = mix.layout(rung).tiles;
        tiles.iter().map(|(peer, _)| peer.0).collect()
    };
    let seen = order(&room.mix, STANDARD);
    assert_ne!(order(&room.mix, TOP), seen, "a canvas without a memory");
    room.mix.set_rung(PeerId(100), TOP);
    assert_eq!(order(&room.mix, TOP), seen);
    run(&mut room, 100, |_| {});
    assert_eq!(order(&room.mix, TOP), seen);
}

#[test]
fn a_shared_screen_is_encoded_as_one_from_a_keyframe_on() {
    let mut room = Room::new(2);
    room.mix.add_listener(PeerId(100), STANDARD);
    let mut viewer = Viewer::new(STANDARD);
    (0..5).for_each(|_| viewer.watch(room.step()));
    let screen = Camera::sized(9, colour(9), 640, 360);
    room.mix.add_source(screen.track, PeerId(1), true);
    room.cameras.push(screen);
    let tick = room.step();
    assert!(tick.frames[0].keyframe);
    viewer.watch(tick);
    for _ in 0..20 {
        let tick = room.step();
        assert!(!tick.frames[0].keyframe);
        viewer.watch(tick);
    }
    assert!(viewer.sees(&room.mix, 0, colour(9)));
    room.mix.remove_source(TrackKey(9));
    room.cameras.pop();
    assert!(room.step().frames[0].keyframe, "people again");
}

#[test]
fn the_encoder_of_a_rung_slows_down_within_bounds() {
    let rate = |bps: u32| {
        let mut room = Room::new(4);
        (room.cameras.iter_mut()).for_each(|camera| camera.contrast = 150);
        room.mix.add_listener(PeerId(100), STANDARD);
        for step in 0..40 {
            if step == 20 {
                room.mix.set_bitrate(STANDARD, bps);
            }
            room.step();
        }
        let bytes: usize = (0..60).map(|_| room.step().data.len()).sum();
        bytes as f64 * 8.0 / 3.0
    };
    for (asked, made) in [(u32::MAX, 400_000.0), (320_000, 320_000.0), (0, 280_000.0)] {
        let rate = rate(asked);
        assert!((rate / made - 1.0).abs() < 0.2, "{rate} for {asked}");
    }
}

#[test]
fn parameter_sets_say_constrained_baseline_and_the_level_that_fits() {
    let ladder = Ladder::default();
    for (step, level) in [(5, 31), (4, 31), (3, 22), (2, 21), (1, 11), (0, 11)] {
        for shape in [Shape::Landscape, Shape::Portrait] {
            let config = ladder.of(VideoRung { step, shape });
            let mut encoder = Encoder::new(config).unwrap();
            let picture = I420::new(config.width as usize, config.height as usize);
            let mut data = Vec::new();
            encoder.encode(picture.view(), 0, &mut data).unwrap();
            let mut units = crate::mcu::codec::h264::nal_units(&data);
            let set = units.find(|nal| nal[0] & 0x1f == 7).expect("an SPS");
            // profile_idc, constraint flags (set0 and set1: constrained baseline), level_idc: at most 42e01f.
            assert_eq!(set[1], 66, "{config:?}");
            assert_eq!(set[2] & 0xc0, 0xc0, "{config:?}");
            assert_eq!(set[3], level, "{config:?}");
            let size = sps::coded_size(set).unwrap();
            assert!(size.width.abs_diff(config.width) < 16, "{config:?}");
        }
    }
}
