//! What several rungs cost together: each source is decoded once for all of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use talksy_unit::ids::{PeerId, TrackKey};
use talksy_unit::mcu::codec::h264::Decoder;
use talksy_unit::mcu::video::{AccessUnit, Ladder, Participant, VideoMix, VideoRung, VideoTick};

use crate::{FRAMES, PASSES, SENDER_FPS, Stream, config, cpu_ms};

const PEOPLE: usize = 9;

/// Prints what three rungs cost beside the decoding once and each rung's composing and encoding alone.
pub fn run(streams: &[Stream]) {
    let ladder = || {
        Ladder::new(vec![
            config(320, 180, 10, 100_000),
            config(640, 360, 20, 400_000),
            config(1280, 720, 30, 1_500_000),
        ])
    };
    let rates: Vec<u32> = ladder().steps().iter().map(|step| step.fps).collect();
    let (mut ratios, mut sums) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        // A rung alone decodes when its own picture is due, several pictures of a sender in a row where it is slower.
        let decode: Vec<f64> = rates.iter().map(|fps| decoding(streams, *fps)).collect();
        let alone: f64 = (0..3)
            .map(|step| mixing(streams, ladder(), &[step]) - decode[usize::from(step)])
            .sum();
        let together = mixing(streams, ladder(), &[0, 1, 2]);
        ratios.push(together / (decode[2] + alone));
        sums.push(together);
    }
    for values in [&mut ratios, &mut sums] {
        values.sort_by(f64::total_cmp);
    }
    println!(
        "figure composite_9x360p_three_rungs_ms_a_second {:.1} ms",
        sums[PASSES / 2]
    );
    println!(
        "figure composite_three_rungs_per_parts {:.3} times",
        ratios[PASSES / 2]
    );
}

/// CPU milliseconds a second: all streams through their decoders, looked at `fps` times a second.
fn decoding(streams: &[Stream], fps: u32) -> f64 {
    let mut decoders: Vec<Decoder> = (0..PEOPLE)
        .map(|_| Decoder::new().expect("a decoder"))
        .collect();
    let mut pictures = vec![talksy_mixer::video::I420::new(0, 0); PEOPLE];
    let begin = cpu_ms();
    let (mut seen, mut looks) = (0, 0);
    while seen < FRAMES {
        looks += 1;
        let until = (looks * SENDER_FPS as usize)
            .div_ceil(fps as usize)
            .min(FRAMES);
        for ((decoder, picture), stream) in decoders.iter_mut().zip(&mut pictures).zip(streams) {
            for (at, unit) in (seen..until).zip(&stream[seen..until]) {
                let decoded = decoder.decode(unit).expect("a good access unit");
                if at + 1 == until {
                    picture.copy_from(decoded.picture.expect("a picture for each"), 0);
                }
            }
        }
        seen = until;
    }
    a_second(cpu_ms() - begin)
}

/// CPU milliseconds a second: the mix, with a listener of each of these steps.
fn mixing(streams: &[Stream], ladder: Ladder, steps: &[u8]) -> f64 {
    let mut mix = VideoMix::new(ladder);
    let people = 0..PEOPLE as u64;
    mix.set_participants(people.clone().map(participant).collect());
    people.for_each(|id| mix.add_source(TrackKey(id), PeerId(id), false));
    for step in steps {
        mix.add_listener(PeerId(100 + u64::from(*step)), VideoRung::landscape(*step));
    }
    let (start, mut tick) = (Instant::now(), VideoTick::default());
    let mut spent = 0.0;
    for frame in 0..FRAMES {
        let now = start + Duration::from_secs(1) * frame as u32 / SENDER_FPS;
        for (person, stream) in streams.iter().enumerate().take(PEOPLE) {
            let unit = AccessUnit {
                data: Bytes::copy_from_slice(&stream[frame]),
                timestamp: frame as u32 * 3000,
                keyframe: frame == 0,
                arrival: now,
                orientation: 0,
                broken: false,
            };
            mix.push(TrackKey(person as u64), unit);
        }
        let begin = cpu_ms();
        mix.tick(now, &mut tick);
        spent += cpu_ms() - begin;
    }
    assert!(
        mix.stats().encoded >= FRAMES as u64 / 3,
        "{:?}",
        mix.stats()
    );
    a_second(spent)
}

fn a_second(millis: f64) -> f64 {
    millis * f64::from(SENDER_FPS) / FRAMES as f64
}

fn participant(id: u64) -> Participant {
    Participant {
        peer: PeerId(id),
        name: format!("Participant {id}"),
        speaking: false,
        muted: false,
        camera_off: false,
        avatar: None,
    }
}
