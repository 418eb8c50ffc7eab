//! What is encoded, when, and for whom.

use super::*;

#[test]
fn without_listeners_nothing_is_decoded_or_encoded() {
    let mut room = Room::new(2);
    for _ in 0..20 {
        assert!(room.step().frames.is_empty());
    }
    let stats = room.mix.stats();
    assert_eq!((stats.decoded, stats.composed, stats.encoded), (0, 0, 0));
    assert_eq!(stats.dropped_unheard, 40);
    assert_eq!(room.mix.next_tick(room.now), None);
    assert_eq!(room.mix.keyframe_wishes().count(), 0);
}

#[test]
fn more_listeners_cost_no_decode_and_no_encode() {
    let count = |listeners: u64| {
        let mut room = Room::new(3);
        for i in 0..listeners {
            room.mix.add_listener(PeerId(100 + i), STANDARD);
        }
        for _ in 0..20 {
            room.step();
        }
        room.mix.stats()
    };
    let one = count(1);
    assert_eq!((one.decoded, one.encoded), (60, 20));
    assert_eq!(count(50), one);
}

#[test]
fn two_rungs_decode_each_source_once() {
    let mut room = Room::new(3);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.mix.add_listener(PeerId(101), LOW);
    let mut frames = BTreeMap::new();
    for _ in 0..20 {
        for frame in &room.step().frames {
            *frames.entry(frame.rung).or_default() += 1;
        }
    }
    assert_eq!(room.mix.stats().decoded, 60);
    assert_eq!(frames, BTreeMap::from([(STANDARD, 20), (LOW, 10)]));
}

#[test]
fn the_last_listener_to_go_stops_everything_and_the_next_begins_with_a_keyframe() {
    let mut room = Room::new(1);
    room.mix.add_listener(PeerId(100), STANDARD);
    for _ in 0..5 {
        room.step();
    }
    room.mix.remove_listener(PeerId(100));
    let before = room.mix.stats();
    for _ in 0..5 {
        room.step();
    }
    assert_eq!(room.mix.stats().decoded, before.decoded);
    assert_eq!(room.mix.stats().encoded, before.encoded);
    room.mix.add_listener(PeerId(101), STANDARD);
    assert!(room.step().frames[0].keyframe);
}

#[test]
fn keyframe_requests_of_a_rung_are_coalesced() {
    let mut room = Room::new(1);
    for i in 0..10 {
        room.mix.add_listener(PeerId(100 + i), STANDARD);
    }
    let mut keyframes = Vec::new();
    for step in 0..40 {
        if step < 30 {
            (0..5).for_each(|_| room.mix.request_keyframe(STANDARD));
        }
        if room.step().frames[0].keyframe {
            keyframes.push(step);
        }
    }
    assert_eq!(keyframes, [0, 10, 20, 30]);
}

#[test]
fn a_listener_that_joins_later_gets_a_keyframe() {
    let mut room = Room::new(1);
    room.mix.add_listener(PeerId(100), STANDARD);
    for _ in 0..15 {
        room.step();
    }
    room.mix.add_listener(PeerId(101), STANDARD);
    assert!(room.step().frames[0].keyframe);
    room.mix.set_rung(PeerId(101), LOW);
    let tick = room.step();
    let low = tick.frames.iter().find(|frame| frame.rung == LOW).unwrap();
    assert!(low.keyframe);
}

#[test]
fn a_still_canvas_is_encoded_four_times_a_second() {
    let mut room = Room::new(2);
    room.cameras.clear();
    room.mix.add_listener(PeerId(100), STANDARD);
    let frames: usize = (0..100).map(|_| room.quiet_step().frames.len()).sum();
    assert_eq!(frames, 20);
}

#[test]
fn timestamps_follow_the_clock_at_90_khz() {
    let mut room = Room::new(1);
    room.mix.add_listener(PeerId(100), STANDARD);
    let times: Vec<u32> = (0..4).map(|_| room.step().frames[0].timestamp).collect();
    assert_eq!(times, [0, 4500, 9000, 13500]);
}

#[test]
fn a_late_tick_leaves_pictures_out_and_does_not_make_up_for_them() {
    let mut room = Room::new(1);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.step();
    room.now += Duration::from_millis(430);
    assert_eq!(room.step().frames.len(), 1);
    let mut tick = VideoTick::default();
    let late = room.now - Duration::from_millis(49);
    room.mix.tick(late, &mut tick);
    assert!(tick.frames.is_empty(), "not due yet");
    assert_eq!(room.mix.next_tick(late), Some(room.now));
}

#[test]
fn a_mix_may_be_moved_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<VideoMix>();
}
