use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::mcu::codec::h264::{Decoder, Encoder};
use talksy_mixer::video::frame::Yuv;
use talksy_mixer::video::scale::{Fit, TileScaler};
use talksy_mixer::video::{I420, View};

const STANDARD: VideoRung = VideoRung::Standard;
const LOW: VideoRung = VideoRung::Low;

/// A sender: a texture in one colour that moves with every frame.
struct Camera {
    track: TrackKey,
    encoder: Encoder,
    picture: I420,
    texture: Vec<u8>,
    contrast: u16,
    colour: Yuv,
    frame: usize,
}

impl Camera {
    fn new(track: u64, colour: Yuv) -> Self {
        Camera::sized(track, colour, 640, 360)
    }

    fn sized(track: u64, colour: Yuv, width: u32, height: u32) -> Self {
        let config = EncoderConfig {
            width,
            height,
            fps: 20,
            bitrate: 1_500_000,
        };
        Camera {
            track: TrackKey(track),
            encoder: Encoder::new(config).unwrap(),
            picture: I420::new(width as usize, height as usize),
            texture: texture(track, width as usize * 2),
            contrast: 40,
            colour,
            frame: 0,
        }
    }

    fn unit(&mut self, at: Instant) -> AccessUnit {
        self.frame += 1;
        let shift = self.frame * 3;
        let [mut y, mut u, mut v] = self.picture.planes_mut();
        let width = self.texture.len() / 2;
        for row in 0..y.height() {
            let start = (shift + row * row / 90) % width;
            for (to, from) in y.row(row).iter_mut().zip(&self.texture[start..]) {
                let relief = u16::from(*from) * self.contrast / 256;
                *to = self.colour.y.saturating_add(relief as u8);
            }
        }
        u.fill(self.colour.u);
        v.fill(self.colour.v);
        let mut data = Vec::new();
        let millis = self.frame as u64 * 50;
        let keyframe = self
            .encoder
            .encode(self.picture.view(), millis, &mut data)
            .unwrap();
        AccessUnit {
            data: data.into(),
            timestamp: millis as u32 * 90,
            keyframe,
            arrival: at,
            orientation: 0,
            broken: false,
        }
    }

    fn send(&mut self, mix: &mut VideoMix, at: Instant) {
        let unit = self.unit(at);
        mix.push(self.track, unit);
    }
}

/// Soft noise that repeats after half its length (xorshift, smoothed).
fn texture(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise: Vec<u16> = (0..length / 2)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 56) as u16
        })
        .collect();
    let soft = (0..length / 2).map(|i| {
        let near = (0..8).map(|k| noise[(i + k) % noise.len()]);
        (near.sum::<u16>() / 8) as u8
    });
    let soft: Vec<u8> = soft.collect();
    soft.repeat(2)
}

fn colour(i: u64) -> Yuv {
    Yuv {
        y: 60 + 12 * i as u8,
        u: 80 + 10 * i as u8,
        v: 170 - 10 * i as u8,
    }
}

fn person(id: u64) -> Participant {
    Participant {
        peer: PeerId(id),
        name: String::new(),
        speaking: false,
        muted: false,
    }
}

/// A mix with a camera for each of `count` people, in virtual time.
struct Room {
    mix: VideoMix,
    cameras: Vec<Camera>,
    now: Instant,
    tick: VideoTick,
}

impl Room {
    fn new(count: u64) -> Self {
        let mut mix = VideoMix::new(VideoConfig::default());
        mix.set_participants((1..=count).map(person).collect());
        let cameras: Vec<Camera> = (1..=count).map(|i| Camera::new(i, colour(i))).collect();
        for camera in &cameras {
            mix.add_source(camera.track, PeerId(camera.track.0), false);
        }
        Room {
            mix,
            cameras,
            now: Instant::now(),
            tick: VideoTick::default(),
        }
    }

    /// One frame of every camera, then a tick, then 50 ms go by.
    fn step(&mut self) -> &VideoTick {
        for camera in &mut self.cameras {
            camera.send(&mut self.mix, self.now);
        }
        self.quiet_step()
    }

    fn quiet_step(&mut self) -> &VideoTick {
        self.mix.tick(self.now, &mut self.tick);
        self.now += Duration::from_millis(50);
        &self.tick
    }
}

/// A receiver of one rung.
struct Viewer {
    rung: VideoRung,
    decoder: Decoder,
    picture: I420,
}

impl Viewer {
    fn new(rung: VideoRung) -> Self {
        Viewer {
            rung,
            decoder: Decoder::new().unwrap(),
            picture: I420::new(2, 2),
        }
    }

    fn watch(&mut self, tick: &VideoTick) {
        for (_, data) in tick.encoded().filter(|(frame, _)| frame.rung == self.rung) {
            let decoded = self.decoder.decode(data).unwrap();
            assert!(!decoded.damaged);
            self.picture.copy_from(decoded.picture.unwrap(), 0);
        }
    }

    /// The colour in the middle of each tile: mean luma and chroma of 8x8 pixels.
    fn centres(&self, mix: &VideoMix) -> Vec<[u8; 3]> {
        let (_, tiles) = mix.layout(self.rung);
        let middle = |rect: &Rect| (rect.x + rect.width / 2, rect.y + rect.height / 2);
        let view = self.picture.view();
        tiles
            .iter()
            .map(|(_, rect)| {
                let (x, y) = middle(rect);
                let planes = [
                    (view.y, x, y),
                    (view.u, x / 2, y / 2),
                    (view.v, x / 2, y / 2),
                ];
                planes.map(|(plane, x, y)| {
                    let block = plane.crop(x - 4, y - 4, 8, 8);
                    let sum: usize = (0..8)
                        .map(|row| {
                            block
                                .row(row)
                                .iter()
                                .map(|v| usize::from(*v))
                                .sum::<usize>()
                        })
                        .sum();
                    (sum / 64) as u8
                })
            })
            .collect()
    }

    fn sees(&self, mix: &VideoMix, tile: usize, colour: Yuv) -> bool {
        let [_, u, v] = self.centres(mix)[tile];
        u.abs_diff(colour.u) < 5 && v.abs_diff(colour.v) < 5
    }
}

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
    let (_, tiles) = room.mix.layout(STANDARD);
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
    let mut bytes = [0; 2];
    for step in 0..100 {
        let tick = room.step();
        // The first second holds the keyframe and the rate control's first guesses.
        for (frame, data) in tick.encoded().filter(|_| step >= 20) {
            bytes[frame.rung.index()] += data.len();
        }
    }
    let rates = bytes.map(|bytes| bytes as f64 * 8.0 / 4.0);
    for (rate, target) in rates.into_iter().zip([400_000.0, 120_000.0]) {
        assert!(
            (rate / target - 1.0).abs() < 0.2,
            "{rate:.0} instead of {target:.0}"
        );
    }
}

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
    let mut frames = [0, 0];
    for _ in 0..20 {
        for frame in &room.step().frames {
            frames[frame.rung.index()] += 1;
        }
    }
    assert_eq!(room.mix.stats().decoded, 60);
    assert_eq!(frames, [20, 10]);
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
fn a_still_canvas_is_encoded_once_a_second() {
    let mut room = Room::new(2);
    room.cameras.clear();
    room.mix.add_listener(PeerId(100), STANDARD);
    let frames: usize = (0..100).map(|_| room.quiet_step().frames.len()).sum();
    assert_eq!(frames, 5);
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
    let (canvas, tiles) = room.mix.layout(STANDARD);
    let peers: Vec<PeerId> = tiles.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(canvas, (640, 360));
    assert_eq!(peers, [PeerId(1), PeerId(1), PeerId(2)]);
    assert!(viewer.sees(&room.mix, 1, colour(6)));
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
    assert_eq!(room.mix.layout(LOW).1.len(), layout::MAX_TILES);
}

#[test]
fn a_mix_may_be_moved_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<VideoMix>();
}

#[derive(Clone, Debug)]
enum Step {
    People(u64),
    Add(u64, bool),
    Remove(u64),
    Mute(u64, bool),
    Push(u64, bool),
    Listen(u64, bool),
    Leave(u64),
    Keyframe(bool),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0u64..4;
    prop_oneof![
        1 => (0u64..6).prop_map(Step::People),
        1 => (id.clone(), any::<bool>()).prop_map(|(id, screen)| Step::Add(id, screen)),
        1 => id.clone().prop_map(Step::Remove),
        1 => (id.clone(), any::<bool>()).prop_map(|(id, muted)| Step::Mute(id, muted)),
        8 => (id.clone(), any::<bool>()).prop_map(|(id, good)| Step::Push(id, good)),
        2 => (id.clone(), any::<bool>()).prop_map(|(id, low)| Step::Listen(id, low)),
        1 => id.prop_map(Step::Leave),
        1 => any::<bool>().prop_map(Step::Keyframe),
        8 => (0u64..200).prop_map(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_happens_every_access_unit_is_accounted_for_and_rungs_begin_with_keyframes(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let rung = |low: bool| if low { LOW } else { STANDARD };
        let mut camera = Camera::sized(1, colour(1), 64, 36);
        let mut mix = VideoMix::new(VideoConfig::default());
        let (mut now, mut tick) = (Instant::now(), VideoTick::default());
        let (mut pushed, mut listeners) = (0, BTreeMap::new());
        let mut begun = [false; 2];
        for step in steps {
            match step {
                Step::People(count) => mix.set_participants((0..count).map(person).collect()),
                Step::Add(id, screen) => mix.add_source(TrackKey(id), PeerId(id), screen),
                Step::Remove(id) => mix.remove_source(TrackKey(id)),
                Step::Mute(id, muted) => mix.set_muted(TrackKey(id), muted),
                Step::Push(id, good) => {
                    let mut unit = camera.unit(now);
                    if !good {
                        unit.data = unit.data.slice(..unit.data.len() / 2);
                    }
                    mix.push(TrackKey(id), unit);
                    pushed += 1;
                }
                Step::Listen(id, low) => {
                    mix.add_listener(PeerId(id), rung(low));
                    listeners.insert(id, rung(low));
                }
                Step::Leave(id) => {
                    mix.remove_listener(PeerId(id));
                    listeners.remove(&id);
                }
                Step::Keyframe(low) => mix.request_keyframe(rung(low)),
                Step::Tick(millis) => {
                    now += Duration::from_millis(millis);
                    mix.tick(now, &mut tick);
                    for frame in &tick.frames {
                        let begun = &mut begun[frame.rung.index()];
                        prop_assert!(frame.keyframe || *begun);
                        prop_assert!(listeners.values().any(|rung| *rung == frame.rung));
                        *begun = true;
                    }
                    prop_assert!(tick.frames.len() <= 2);
                }
            }
            for id in VideoRung::ALL {
                begun[id.index()] &= listeners.values().any(|rung| *rung == id);
            }
        }
        let stats = mix.stats();
        let waiting: u64 = mix.sources.iter().map(|(_, source)| source.queued()).sum();
        let dropped = stats.dropped_unknown + stats.dropped_unheard + stats.dropped_muted
            + stats.dropped_queue_full + stats.dropped_before_keyframe + stats.dropped_undecodable;
        prop_assert_eq!(pushed, stats.decoded + dropped + waiting);
        prop_assert_eq!(stats.encode_failed, 0);
    }
}
