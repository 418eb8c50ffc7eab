//! What runs for every packet, every 20 ms and every picture allocates nothing once it is warm.
//!
//! libopus and OpenH264 have their own allocator, which is not counted here.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use talksy_mixer::audio::{FRAME_SAMPLES, Frame, Hint, Mixer, MixerConfig, OwnerId, SourceKind};
use talksy_mixer::video::compositor::TileSpec;
use talksy_mixer::video::frame::Yuv;
use talksy_mixer::video::layout::Scene;
use talksy_mixer::video::{Compositor, I420, Picture as Shown, Theme};
use talksy_unit::demo::{FRAME_DURATION, Picture, PictureLoop, Sound, Turns, VoiceLoop};
use talksy_unit::ids::{PeerId, TrackKey};
use talksy_unit::mcu::audio::{
    AudioLevel, AudioMix, AudioMixConfig, AudioPacket, AudioRung, AudioTick,
};
use talksy_unit::mcu::codec::SourceCodec;
use talksy_unit::mcu::codec::opus::{Channels, OpusEncoder, OpusSettings};
use talksy_unit::mcu::codec::telephone::TelephoneCodec;
use talksy_unit::mcu::video::{AccessUnit, Ladder, Participant, VideoMix, VideoRung, VideoTick};
use talksy_unit::rtp::ntp::Ntp;
use talksy_unit::rtp::params::{
    AnnouncedSsrc, Codec, Encodings, ExtensionIds, MediaKind, PayloadParams, ReceiveLine, SendLine,
    Ssrc,
};
use talksy_unit::rtp::rtcp::write;
use talksy_unit::sfu::{Publisher, Subscriber};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count per thread: other tests of this file may run beside.
struct Counting;

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract; the counter neither allocates
// nor unwinds, since it has no destructor and is initialised at compile time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from `System` with this `layout`; the size is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

fn allocations_during(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const SSRC: Ssrc = Ssrc(0x1234_5678);

fn payloads() -> Vec<PayloadParams> {
    vec![PayloadParams {
        payload_type: 102,
        codec: Codec::H264,
        rtx: Some(103),
        red: None,
        stereo: false,
        nack: true,
        pli: true,
        fir: true,
        transport_cc: true,
    }]
}

fn extensions() -> ExtensionIds {
    ExtensionIds {
        mid: Some(1),
        transport_cc: Some(2),
        abs_send_time: Some(3),
        ..ExtensionIds::default()
    }
}

fn publisher() -> Publisher {
    let mut publisher = Publisher::new(Ssrc(1));
    publisher.set_lines(&[ReceiveLine {
        mid: "0".into(),
        kind: MediaKind::Video,
        payloads: payloads(),
        extensions: extensions(),
        ssrcs: vec![AnnouncedSsrc {
            primary: SSRC,
            rtx: None,
        }],
        encodings: Encodings::Single,
        stream_id: "s".into(),
        track_id: "t".into(),
    }]);
    publisher
}

fn subscriber(nth: u32) -> Subscriber {
    let mut subscriber = Subscriber::new(Ssrc(1));
    subscriber.set_lines(&[SendLine {
        sender: 7,
        mid: "0".into(),
        kind: MediaKind::Video,
        payloads: payloads(),
        extensions: extensions(),
        ssrc: Ssrc(1000 + nth),
        rtx_ssrc: Ssrc(2000 + nth),
        cname: "c".into(),
    }]);
    subscriber
}

/// A packet of 1100 bytes with a transport-wide number; the first of each 30 frames is a keyframe.
fn packet(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x90, 102];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&(u32::from(seq) * 300).to_be_bytes());
    packet.extend_from_slice(&SSRC.0.to_be_bytes());
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x21]);
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.push(0);
    packet.push(if seq.is_multiple_of(30) { 0x65 } else { 0x41 });
    packet.resize(1100, 7);
    packet
}

/// Everything that a worker does with a packet and its feedback, without sockets and encryption.
struct Bench {
    publisher: Publisher,
    subscribers: Vec<Subscriber>,
    out: Vec<u8>,
    attached: bool,
    nack: Vec<u8>,
}

impl Bench {
    fn step(&mut self, now: Instant, packet: &[u8]) -> usize {
        let mut sent = 0;
        let received = self.publisher.handle_rtp(now, packet).expect("media");
        for subscriber in &mut self.subscribers {
            if !self.attached {
                subscriber.attach(7, received.track, received.codec);
            }
            self.out.clear();
            sent += usize::from(subscriber.send(now, 7, &received, &mut self.out).is_ok());
            subscriber.handle_rtcp(now, Ntp(1 << 40), &self.nack);
            while subscriber.poll_retransmission(now, &mut self.out).is_some() {
                sent += 1;
            }
        }
        self.attached = true;
        self.out.clear();
        while self.publisher.poll_feedback(now, &mut self.out) {
            self.out.clear();
        }
        sent
    }
}

#[test]
fn forwarding_one_packet_to_a_hundred_subscribers_allocates_nothing() {
    let t0 = Instant::now();
    let mut bench = Bench {
        publisher: publisher(),
        subscribers: (0..100).map(subscriber).collect(),
        out: Vec::with_capacity(4096),
        attached: false,
        nack: Vec::new(),
    };
    // 250 packets/s; three seconds let the retransmission caches reach their size.
    let at = |seq: u16| t0 + Duration::from_millis(u64::from(seq) * 4);
    for seq in 0..750 {
        bench.step(at(seq), &packet(seq));
    }
    // The first subscriber asks for a packet of a moment ago each time; the others' SSRCs differ.
    write::nack(Ssrc(1), Ssrc(1000), &[1000 + 740], 100, &mut bench.nack);
    for seq in 750..1000 {
        // One packet in fifty is lost, so that the publisher is asked for it.
        if seq % 50 == 0 {
            continue;
        }
        let packet = packet(seq);
        let mut sent = 0;
        let allocations = allocations_during(|| sent = bench.step(at(seq), &packet));
        assert!(sent >= 100, "{sent} sent");
        assert_eq!(allocations, 0, "packet {seq}");
    }
    let retransmitted: u64 = bench.subscribers[0]
        .stats(at(1000))
        .iter()
        .map(|stats| stats.retransmitted)
        .sum();
    assert!(
        retransmitted > 0,
        "the retransmission path was measured too"
    );
}

const TALKERS: u64 = 6;

#[test]
fn a_tick_of_the_sample_mixer_with_six_talkers_and_six_listeners_allocates_nothing() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let sources: Vec<_> = (0..TALKERS)
        .map(|owner| {
            mixer.add_listener(OwnerId(owner));
            mixer.add_source(OwnerId(owner), SourceKind::Voice)
        })
        .collect();
    let voices: Vec<Vec<f32>> = (0..TALKERS)
        .map(|n| Sound::numbered(n as u32).samples(1.0))
        .collect();
    let mut frame: Frame = [0.0; FRAME_SAMPLES];
    let mut mixed = 0;
    for tick in 0..300 {
        let allocations = allocations_during(|| {
            for id in &sources {
                mixer.hint(*id, Hint::NoLevel);
            }
            mixer.rank();
            for (id, voice) in sources.iter().zip(&voices) {
                let start = tick % 50 * FRAME_SAMPLES;
                frame.copy_from_slice(&voice[start..start + FRAME_SAMPLES]);
                mixer.feed(*id, &frame);
            }
            mixer.mix();
            mixed += mixer.mixes().filter(|mix| !mix.is_silent()).count();
        });
        assert!(
            tick < 50 || allocations == 0,
            "{allocations} in tick {tick}"
        );
    }
    assert!(
        mixed > 4 * 200,
        "{mixed}: shared and three own mixes a tick"
    );
}

#[test]
fn a_tick_of_the_mixed_sound_with_six_talkers_and_six_listeners_allocates_nothing() {
    let voices: Vec<VoiceLoop> = (0..TALKERS)
        .map(|n| VoiceLoop::encode(Sound::numbered(n as u32), Turns::Always).unwrap())
        .collect();
    let mut mix = AudioMix::new(AudioMixConfig::default());
    for n in 0..TALKERS {
        mix.add_source(TrackKey(n), PeerId(n), false);
        let rungs = [AudioRung::Normal, AudioRung::Low];
        mix.add_listener(PeerId(n), rungs[n as usize % 2]);
    }
    let mut out = AudioTick::default();
    let t0 = Instant::now();
    for tick in 0..400u32 {
        let now = t0 + FRAME_DURATION * tick;
        for (n, voice) in voices.iter().enumerate() {
            let packet = voice.packet(u64::from(tick));
            let level = AudioLevel {
                dbov: packet.level,
                voice: packet.voice,
            };
            let packet = AudioPacket {
                seq: u64::from(tick) + 1000,
                timestamp: tick * FRAME_SAMPLES as u32,
                arrival: now,
                level: Some(level),
                payload: packet.payload.clone(),
            };
            mix.push(TrackKey(n as u64), packet);
        }
        let allocations = allocations_during(|| mix.tick(now, &mut out));
        assert!(
            tick < 100 || allocations == 0,
            "{allocations} in tick {tick}"
        );
        assert!(
            tick < 100 || out.frames.len() > 2,
            "{} mixes",
            out.frames.len()
        );
    }
    let counters = mix.counters();
    assert!(counters.decodes > 3 * 300, "{counters:?}");
    assert!(counters.encodes > 3 * 300, "{counters:?}");
}

#[test]
fn a_tick_of_the_mixed_sound_in_stereo_with_music_and_telephones_allocates_nothing() {
    let settings = OpusSettings::default();
    let mut encoder = OpusEncoder::with_channels(settings, Channels::Stereo).unwrap();
    let voice = VoiceLoop::encode(Sound::numbered(1), Turns::Always).unwrap();
    let telephones = [
        TelephoneCodec::Pcmu,
        TelephoneCodec::Pcma,
        TelephoneCodec::G722,
    ];
    let mut mix = AudioMix::new(AudioMixConfig::default());
    mix.add_source(TrackKey(0), PeerId(0), true);
    mix.add_source(TrackKey(1), PeerId(1), false);
    for (track, codec) in (2..).map(TrackKey).zip(telephones) {
        mix.add_source(track, PeerId(track.0), true);
        mix.set_codec(track, SourceCodec::Telephone(codec));
    }
    for n in 0..6 {
        mix.add_listener(PeerId(n), AudioRung::Normal);
        mix.set_stereo(PeerId(n), n % 2 == 0);
    }
    let mut out = AudioTick::default();
    let t0 = Instant::now();
    let mut stereo = 0;
    for tick in 0..400u32 {
        let now = t0 + FRAME_DURATION * tick;
        let mut push = |track: u64, timestamp: u32, payload: Vec<u8>| {
            // One in twenty is lost.
            if !(u64::from(tick) + track).is_multiple_of(20) {
                let packet = AudioPacket {
                    seq: u64::from(tick),
                    timestamp,
                    arrival: now,
                    level: None,
                    payload: payload.into(),
                };
                mix.push(TrackKey(track), packet);
            }
        };
        let tone = |i: usize, period: f32| (i as f32 * std::f32::consts::TAU / period).sin() * 0.2;
        let sound: Vec<f32> = (0..FRAME_SAMPLES)
            .flat_map(|i| [tone(i, 96.0), tone(i, 60.0)])
            .collect();
        let mut payload = Vec::new();
        encoder.encode(&sound, false, &mut payload).unwrap();
        push(0, tick * FRAME_SAMPLES as u32, payload);
        let payload = voice.packet(u64::from(tick)).payload.to_vec();
        push(1, tick * FRAME_SAMPLES as u32, payload);
        for track in 2..5 {
            let payload = (0..160u32).map(|i| ((i + tick) * 37 % 251) as u8).collect();
            push(track, tick * 160, payload);
        }
        let allocations = allocations_during(|| mix.tick(now, &mut out));
        assert!(
            tick < 100 || allocations == 0,
            "{allocations} in tick {tick}"
        );
        stereo += out.frames.iter().filter(|f| f.mix.format().stereo).count();
    }
    let counters = mix.counters();
    assert!(
        counters.plc > 20 && counters.undecodable == 0,
        "{counters:?}"
    );
    assert!(stereo > 600, "{stereo}");
}

const CAMERAS: u64 = 9;

#[test]
fn composing_nine_moving_pictures_whose_speakers_change_allocates_nothing() {
    let mut compositor = Compositor::new(640, 360, Theme::default());
    let tile = |id: u64| TileSpec {
        id,
        name: format!("Camera {id}"),
        colour: id,
        speaking: id == 3,
        muted: id == 4,
        ..TileSpec::default()
    };
    let mut tiles: Vec<TileSpec> = (0..CAMERAS).map(tile).collect();
    compositor.set_tiles(Scene::default(), &tiles);
    let mut pictures: Vec<I420> = (0..CAMERAS).map(|_| I420::new(640, 360)).collect();
    for round in 0..60u64 {
        for (n, picture) in pictures.iter_mut().enumerate() {
            picture.fill(Yuv::from_rgb(round as u8, n as u8 * 20, 90));
        }
        for tile in &mut tiles {
            tile.speaking = tile.id == round % CAMERAS;
            tile.spoke = if tile.speaking { round } else { tile.spoke };
        }
        let mut changed = false;
        let allocations = allocations_during(|| {
            compositor.set_tiles(Scene::default(), &tiles);
            changed = compositor.compose(|at| Shown::Frame {
                view: pictures[at].view(),
                version: round * CAMERAS + at as u64,
            });
        });
        assert!(changed);
        assert!(
            round < 2 || allocations == 0,
            "{allocations} in round {round}"
        );
    }
}

#[test]
fn a_tick_of_the_mixed_picture_with_nine_cameras_and_both_rungs_allocates_nothing() {
    let camera = Picture {
        width: 320,
        height: 180,
        bitrate: 200_000,
        ..Picture::numbered(1)
    };
    let camera = PictureLoop::encode(&camera).unwrap();
    let mut mix = VideoMix::new(Ladder::default());
    let participant = |n: u64| Participant {
        peer: PeerId(n),
        name: format!("Camera {n}"),
        speaking: n == 3,
        muted: n == 4,
        camera_off: false,
        avatar: None,
    };
    mix.set_participants((0..CAMERAS).map(participant).collect());
    for n in 0..CAMERAS {
        mix.add_source(TrackKey(n), PeerId(n), false);
    }
    mix.add_listener(PeerId(100), VideoRung::landscape(3));
    mix.add_listener(PeerId(101), VideoRung::landscape(1));
    let mut out = VideoTick::default();
    let t0 = Instant::now();
    let frames = camera.len();
    for tick in 0..2 * frames {
        let now = t0 + camera.frame_duration() * tick as u32;
        for n in 0..CAMERAS {
            let unit = AccessUnit {
                data: camera.unit(tick),
                timestamp: tick as u32 * 4500,
                keyframe: tick % frames == 0,
                arrival: now,
                orientation: 0,
                broken: false,
            };
            mix.push(TrackKey(n), unit);
        }
        let allocations = allocations_during(|| mix.tick(now, &mut out));
        assert!(
            tick < frames || allocations == 0,
            "{allocations} in tick {tick}"
        );
    }
    let stats = mix.stats();
    assert_eq!(stats.decoded, CAMERAS * 2 * frames as u64, "{stats:?}");
    assert!(stats.encoded as usize > frames * 5 / 2, "{stats:?}");
}
