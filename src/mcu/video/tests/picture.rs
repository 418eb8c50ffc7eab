//! What the viewers see.

use super::*;
use talksy_mixer::video::View;
use talksy_mixer::video::layout::MAX_TILES;
use talksy_mixer::video::scale::{Fit, TileScaler};

fn mean_square(a: View<'_>, b: View<'_>, rect: Rect) -> f64 {
    let (a, b) = (
        a.y.crop(rect.x, rect.y, rect.width, rect.height),
        b.y.crop(rect.x, rect.y, rect.width, rect.height),
    );
    let mut error = 0u64;
    for y in 0..rect.height {
        for (a, b) in a.row(y).iter().zip(b.row(y)) {
            error += u64::from(a.abs_diff(*b)).pow(2);
        }
    }
    error as f64 / (rect.width * rect.height) as f64
}

#[test]
fn every_tile_shows_its_sender_through_both_codecs_on_both_rungs() {
    let mut room = Room::new(5);
    let mut viewers = [Viewer::new(STANDARD), Viewer::new(LOW)];
    room.mix.add_listener(PeerId(100), STANDARD);
    room.mix.add_listener(PeerId(101), LOW);
    for _ in 0..10 {
        room.step();
        viewers
            .iter_mut()
            .for_each(|viewer| viewer.watch(&room.tick));
    }
    for viewer in &viewers {
        for (tile, camera) in room.cameras.iter().enumerate() {
            assert!(
                viewer.sees(&room.mix, tile, camera.colour),
                "{:?} {tile}: {:?}",
                viewer.rung,
                viewer.centres(&room.mix)[tile]
            );
        }
    }
}

#[test]
fn tiles_look_like_their_senders() {
    let mut room = Room::new(4);
    room.cameras
        .iter_mut()
        .for_each(|camera| camera.contrast = 90);
    let mut viewer = Viewer::new(STANDARD);
    room.mix.add_listener(PeerId(100), STANDARD);
    for _ in 0..40 {
        room.step();
        viewer.watch(&room.tick);
    }
    let tiles = room.mix.layout(STANDARD).tiles;
    for (camera, (_, tile)) in room.cameras.iter().zip(tiles) {
        let mut expected = I420::new(640, 360);
        let size = Size {
            width: 640,
            height: 360,
        };
        let [y, u, v] = expected.planes_mut();
        let planes = [
            y.crop(tile.x, tile.y, tile.width, tile.height),
            u.crop(tile.x / 2, tile.y / 2, tile.width / 2, tile.height / 2),
            v.crop(tile.x / 2, tile.y / 2, tile.width / 2, tile.height / 2),
        ];
        TileScaler::new(size, tile.size(), Fit::Fill).draw(camera.picture.view(), planes);
        // Without the line between tiles.
        let inner = Rect {
            x: tile.x + 2,
            y: tile.y + 2,
            width: tile.width - 4,
            height: tile.height - 4,
        };
        let error = mean_square(expected.view(), viewer.picture.view(), inner);
        let psnr = 10.0 * (255.0 * 255.0 / error).log10();
        assert!(psnr >= 30.0, "{psnr:.1} dB");
    }
}

#[test]
fn the_bit_rate_of_each_rung_is_kept_on_moving_pictures() {
    let mut room = Room::new(4);
    room.cameras
        .iter_mut()
        .for_each(|camera| camera.contrast = 150);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.mix.add_listener(PeerId(101), LOW);
    let mut bytes = BTreeMap::new();
    for step in 0..100 {
        let tick = room.step();
        // The first second holds the keyframe and the rate control's first guesses.
        for (frame, data) in tick.encoded().filter(|_| step >= 20) {
            *bytes.entry(frame.rung).or_insert(0) += data.len();
        }
    }
    for (rung, target) in [(STANDARD, 400_000.0), (LOW, 100_000.0)] {
        let rate = bytes[&rung] as f64 * 8.0 / 4.0;
        assert!(
            (rate / target - 1.0).abs() < 0.2,
            "{rate:.0} instead of {target:.0}"
        );
    }
}

#[test]
fn who_sends_no_video_has_a_card_in_a_colour_of_their_own() {
    let mut room = Room::new(2);
    room.cameras.clear();
    let mut viewer = Viewer::new(STANDARD);
    room.mix.add_listener(PeerId(100), STANDARD);
    viewer.watch(room.quiet_step());
    let centres = viewer.centres(&room.mix);
    assert!(centres[0][1].abs_diff(centres[1][1]) + centres[0][2].abs_diff(centres[1][2]) > 8);
}

#[test]
fn a_source_may_change_its_size_and_be_turned() {
    let mut room = Room::new(1);
    let mut viewer = Viewer::new(STANDARD);
    room.mix.add_listener(PeerId(100), STANDARD);
    let shown = room.cameras[0].colour;
    let corner = |viewer: &Viewer| viewer.picture.view().u.row(90)[8];
    for (width, height, orientation, fills) in [
        (640, 360, 0, true),
        (320, 180, 0, true),
        (640, 360, 1, false),
        (360, 640, 3, true),
    ] {
        room.cameras[0] = Camera::sized(1, shown, width, height);
        for _ in 0..6 {
            let mut unit = room.cameras[0].unit(room.now);
            unit.orientation = orientation;
            room.mix.push(TrackKey(1), unit);
            viewer.watch(room.quiet_step());
        }
        assert!(
            viewer.sees(&room.mix, 0, shown),
            "{width}x{height} turned {orientation}"
        );
        assert_eq!(
            corner(&viewer).abs_diff(shown.u) < 5,
            fills,
            "{width}x{height}"
        );
    }
}

#[test]
fn a_screen_is_a_tile_of_its_own_next_to_its_owner() {
    let mut room = Room::new(2);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.step();
    let screen = Camera::new(50, colour(6));
    room.mix.add_source(screen.track, PeerId(1), true);
    room.cameras.push(screen);
    let mut viewer = Viewer::new(STANDARD);
    room.mix.request_keyframe(STANDARD);
    room.now += Duration::from_secs(1);
    assert!(room.step().layout_changed);
    viewer.watch(&room.tick);
    for _ in 0..8 {
        assert!(!room.step().layout_changed);
        viewer.watch(&room.tick);
    }
    let Layout {
        shown,
        canvas,
        tiles,
    } = room.mix.layout(STANDARD);
    assert_eq!(shown.kind, Kind::Screen, "without anybody asking");
    let peers: Vec<PeerId> = tiles.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(canvas, (640, 360));
    assert_eq!(peers, [PeerId(1), PeerId(1), PeerId(2)]);
    assert!(viewer.sees(&room.mix, 0, colour(6)));
    room.mix.remove_source(TrackKey(50));
    assert!(room.step().layout_changed);
}

#[test]
fn speaking_draws_a_border_and_changes_no_layout() {
    let mut room = Room::new(2);
    room.cameras.clear();
    room.mix.add_listener(PeerId(100), STANDARD);
    room.quiet_step();
    let mut people: Vec<Participant> = (1..=2).map(person).collect();
    people[0].speaking = true;
    room.mix.set_participants(people);
    let tick = room.quiet_step();
    assert_eq!(tick.frames.len(), 1, "the change is shown at once");
    assert!(!tick.layout_changed);
}

#[test]
fn more_people_than_tiles_are_no_trouble() {
    let mut room = Room::new(0);
    room.mix.set_participants((1..=80).map(person).collect());
    room.mix.add_listener(PeerId(100), LOW);
    room.quiet_step();
    assert_eq!(room.tick.frames.len(), 1);
    assert_eq!(room.mix.layout(LOW).tiles.len(), MAX_TILES);
}

#[test]
fn a_new_layout_is_told_and_drawn_on_every_rung() {
    let mut room = Room::new(4);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.mix.add_listener(PeerId(101), LOW);
    room.step();
    assert!(!room.step().layout_changed);
    let pinned = Some(PeerId(3));
    let kind = Kind::Pinned;
    room.mix.set_layout(LayoutWish { kind, pinned });
    assert!(room.step().layout_changed);
    let mut viewers = [Viewer::new(STANDARD), Viewer::new(LOW)];
    room.mix.request_keyframe(STANDARD);
    room.mix.request_keyframe(LOW);
    let mut seen = [false; 2];
    for _ in 0..20 {
        assert!(!room.step().layout_changed);
        for (viewer, seen) in viewers.iter_mut().zip(&mut seen) {
            let begins = |f: &EncodedFrame| f.keyframe && f.rung == viewer.rung;
            *seen |= room.tick.frames.iter().any(begins);
            if *seen {
                viewer.watch(&room.tick);
            }
        }
    }
    for viewer in &viewers {
        let layout = room.mix.layout(viewer.rung);
        assert_eq!(layout.shown, LayoutWish { kind, pinned });
        let peers: Vec<u64> = layout.tiles.iter().map(|(peer, _)| peer.0).collect();
        assert_eq!(peers, [3, 1, 2, 4]);
        assert!(viewer.sees(&room.mix, 0, colour(3)), "{:?}", viewer.rung);
    }
}

#[test]
fn who_goes_on_speaking_becomes_large_in_a_speaker_layout_without_any_other_event() {
    let mut room = Room::new(3);
    room.mix.add_listener(PeerId(100), STANDARD);
    room.mix.set_layout(LayoutWish {
        kind: Kind::Speaker,
        pinned: None,
    });
    room.step();
    let large = |room: &Room| room.mix.layout(STANDARD).tiles[0].0;
    assert_eq!(large(&room), PeerId(1));
    let mut people: Vec<Participant> = (1..=3).map(person).collect();
    people[1].speaking = true;
    room.mix.set_participants(people);
    assert!(!room.step().layout_changed, "it may be a cough");
    let changes = (0..40).filter(|_| room.step().layout_changed).count();
    assert_eq!((changes, large(&room)), (1, PeerId(2)));
}
