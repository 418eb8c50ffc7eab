//! Sources that stop, break or misbehave.

use super::*;

#[test]
fn a_camera_that_is_switched_off_shows_the_card_at_once_and_comes_back_with_a_keyframe() {
    let mut room = Room::new(1);
    let mut viewer = Viewer::new(STANDARD);
    room.mix.add_listener(PeerId(100), STANDARD);
    let shown = room.cameras[0].colour;
    for _ in 0..5 {
        viewer.watch(room.step());
    }
    assert!(viewer.sees(&room.mix, 0, shown));
    room.mix.set_muted(TrackKey(1), true);
    viewer.watch(room.step());
    assert!(!viewer.sees(&room.mix, 0, shown));
    room.mix.keyframe_wishes();
    room.now += Duration::from_secs(1);
    room.mix.set_muted(TrackKey(1), false);
    viewer.watch(room.quiet_step());
    assert_eq!(
        room.mix.keyframe_wishes().collect::<Vec<_>>(),
        [TrackKey(1)]
    );
    room.cameras[0].encoder.request_keyframe();
    for _ in 0..5 {
        viewer.watch(room.step());
    }
    assert!(viewer.sees(&room.mix, 0, shown));
}

#[test]
fn a_camera_that_falls_silent_keeps_its_picture_for_three_seconds_and_then_shows_the_card() {
    let mut room = Room::new(1);
    let mut viewer = Viewer::new(STANDARD);
    room.mix.add_listener(PeerId(100), STANDARD);
    let shown = room.cameras[0].colour;
    viewer.watch(room.step());
    for _ in 0..58 {
        viewer.watch(room.quiet_step());
    }
    assert!(viewer.sees(&room.mix, 0, shown));
    for _ in 0..5 {
        viewer.watch(room.quiet_step());
    }
    assert!(!viewer.sees(&room.mix, 0, shown));
}

#[test]
fn keyframes_are_wished_for_until_they_come_but_not_too_often() {
    let mut room = Room::new(1);
    room.mix.add_listener(PeerId(100), STANDARD);
    let mut wishes = 0;
    for _ in 0..30 {
        room.quiet_step();
        wishes += room.mix.keyframe_wishes().count();
    }
    assert_eq!(wishes, 3, "in one and a half seconds");
    room.step();
    room.now += Duration::from_secs(1);
    room.quiet_step();
    assert_eq!(room.mix.keyframe_wishes().count(), 0);
}

#[test]
fn a_loss_is_concealed_and_a_keyframe_wished_for() {
    let mut room = Room::new(2);
    let mut viewer = Viewer::new(STANDARD);
    room.mix.add_listener(PeerId(100), STANDARD);
    for _ in 0..12 {
        viewer.watch(room.step());
    }
    room.mix.keyframe_wishes();
    let now = room.now;
    room.cameras[0].unit(now);
    let mut after = room.cameras[0].unit(now);
    after.broken = true;
    room.mix.push(TrackKey(1), after);
    viewer.watch(room.quiet_step());
    assert_eq!(
        room.mix.keyframe_wishes().collect::<Vec<_>>(),
        [TrackKey(1)]
    );
    assert!(
        viewer.sees(&room.mix, 0, room.cameras[0].colour),
        "the picture stays"
    );
    room.cameras[0].encoder.request_keyframe();
    room.step();
    room.now += Duration::from_secs(1);
    room.step();
    assert_eq!(
        room.mix.keyframe_wishes().count(),
        0,
        "the keyframe has healed it"
    );
}

#[test]
fn garbage_of_one_source_does_not_disturb_the_others() {
    let mut room = Room::new(3);
    let mut viewer = Viewer::new(STANDARD);
    room.mix.add_listener(PeerId(100), STANDARD);
    let mut broken = room.cameras.remove(1);
    for step in 0..20u8 {
        let mut unit = broken.unit(room.now);
        let mut data = unit.data.to_vec();
        for (i, byte) in data.iter_mut().enumerate().skip(5) {
            *byte ^= (i as u8).wrapping_mul(step | 1);
        }
        unit.data = data.into();
        room.mix.push(broken.track, unit);
        room.mix.push(TrackKey(99), broken.unit(room.now));
        viewer.watch(room.step());
    }
    assert!(viewer.sees(&room.mix, 0, room.cameras[0].colour));
    assert!(viewer.sees(&room.mix, 2, room.cameras[1].colour));
    assert_eq!(room.mix.stats().dropped_unknown, 20);
}

#[test]
fn a_source_whose_ticks_stay_away_is_bounded_and_goes_on_with_a_keyframe() {
    let mut room = Room::new(1);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.step();
    for _ in 0..100 {
        let now = room.now;
        room.cameras[0].send(&mut room.mix, now);
    }
    room.now += Duration::from_secs(1);
    room.quiet_step();
    let stats = room.mix.stats();
    assert_eq!(stats.dropped_queue_full, 4 * SOURCE_QUEUE as u64);
    assert_eq!(stats.decoded, 1, "what is left has no beginning");
    assert_eq!(room.mix.keyframe_wishes().count(), 1);
}
