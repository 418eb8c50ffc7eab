//! Mixes with two channels beside those with one.

use super::*;

/// A tone that begins at the sample `from`.
fn tone(hz: f32, level: f32, from: usize) -> Frame {
    let angle = |i: usize| (from + i) as f32 * hz / 48_000.0 * std::f32::consts::TAU;
    std::array::from_fn(|i| angle(i).sin() * level)
}

/// Feeds a shared sound with these channels.
fn feed(mixer: &mut Mixer, id: SourceId, left: &Frame, right: &Frame) {
    let mid: Frame = std::array::from_fn(|i| 0.5 * (left[i] + right[i]));
    let side: Frame = std::array::from_fn(|i| 0.5 * (left[i] - right[i]));
    mixer.hint(id, Hint::NoLevel);
    mixer.feed_stereo(id, &mid, Some(&side), None);
}

fn split(mix: &Mix) -> (Vec<f32>, Vec<f32>) {
    let (samples, _) = mix.stereo().expect("somebody wants two channels");
    samples
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[l, r]| (*l, *r))
        .unzip()
}

fn with_listener(owner: u64) -> Mixer {
    let mut mixer = Mixer::new(MixerConfig::default());
    mixer.add_listener(OwnerId(owner));
    mixer.set_stereo(OwnerId(owner), true);
    mixer
}

#[test]
fn a_source_of_one_channel_sits_in_the_middle_bit_for_bit_as_in_the_mix_of_one() {
    let mut mixer = with_listener(9);
    let mut talkers: Vec<Talker> = (0..3)
        .map(|n| Talker::new(&mut mixer, n, 100.0 + 30.0 * n as f32, -8.0))
        .collect();
    for _ in 0..100 {
        mixer.rank();
        talkers.iter_mut().for_each(|t| t.speak(&mut mixer));
        mixer.mix();
        let (left, right) = split(shared(&mixer));
        assert_eq!(left, shared(&mixer).samples());
        assert_eq!(left, right);
    }
}

#[test]
fn what_is_left_comes_out_left_and_what_is_right_right() {
    let mut mixer = with_listener(9);
    let id = mixer.add_source(OwnerId(1), SourceKind::Music);
    let (mut left, mut right, mut mono) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..100 {
        let at = n * FRAME_SAMPLES;
        feed(&mut mixer, id, &tone(440.0, 0.3, at), &tone(660.0, 0.1, at));
        mixer.rank();
        mixer.mix();
        let (l, r) = split(shared(&mixer));
        left.extend(l);
        right.extend(r);
        mono.extend_from_slice(shared(&mixer).samples());
    }
    for (i, at) in (48_000..90_000).zip(48_000 - LOOK_AHEAD..) {
        let (l, r) = (tone(440.0, 0.3, at)[0], tone(660.0, 0.1, at)[0]);
        assert!((left[i] - l).abs() < 2e-3, "{i}: {} and {l}", left[i]);
        assert!((right[i] - r).abs() < 2e-3, "{i}: {} and {r}", right[i]);
        assert!((mono[i] - 0.5 * (l + r)).abs() < 2e-3);
    }
}

#[test]
fn mono_mixes_do_not_change_by_who_else_wants_stereo_and_without_them_there_is_none() {
    let run = |stereo: bool| {
        let mut mixer = Mixer::new(MixerConfig::default());
        for n in 0..3 {
            mixer.add_listener(OwnerId(n));
        }
        mixer.set_stereo(OwnerId(2), stereo);
        assert_eq!(mixer.wants_stereo(), stereo);
        let mut talker = Talker::new(&mut mixer, 0, 120.0, -18.0);
        let id = mixer.add_source(OwnerId(1), SourceKind::Music);
        let mut heard: Vec<Vec<f32>> = vec![Vec::new(); 3];
        for n in 0..80 {
            let at = n * FRAME_SAMPLES;
            feed(&mut mixer, id, &tone(440.0, 0.3, at), &tone(660.0, 0.1, at));
            mixer.rank();
            talker.speak(&mut mixer);
            mixer.mix();
            for (n, heard) in heard.iter_mut().enumerate() {
                heard.extend_from_slice(heard_by(&mixer, n as u64).samples());
            }
            assert_eq!(shared(&mixer).stereo().is_some(), stereo);
            assert!(heard_by(&mixer, 0).stereo().is_none() || n < 30, "{n}");
        }
        heard
    };
    assert!(run(true) == run(false));
}

#[test]
fn the_stereo_mix_for_one_is_bit_for_bit_that_of_a_room_without_it() {
    let mut whole = with_listener(1);
    let mut without = with_listener(1);
    let own = whole.add_source(OwnerId(1), SourceKind::Music);
    let others = [&mut whole, &mut without].map(|mixer| {
        let quiet = mixer.add_source(OwnerId(2), SourceKind::Music);
        (quiet, Talker::new(mixer, 3, 130.0, -25.0))
    });
    let [(in_whole, mut talks_whole), (in_without, mut talks_without)] = others;
    for n in 0..80 {
        let at = n * FRAME_SAMPLES;
        let (left, right) = (tone(500.0, 0.1, at), tone(700.0, 0.05, at));
        feed(
            &mut whole,
            own,
            &tone(300.0, 0.2, at),
            &tone(350.0, 0.1, at),
        );
        for (mixer, id, talker) in [
            (&mut whole, in_whole, &mut talks_whole),
            (&mut without, in_without, &mut talks_without),
        ] {
            feed(mixer, id, &left, &right);
            mixer.rank();
            talker.speak(mixer);
            mixer.mix();
        }
        assert_eq!(whole.mix_of(OwnerId(1)), MixFor::Minus(OwnerId(1)));
        assert!(
            split(heard_by(&whole, 1)) == split(heard_by(&without, 1)),
            "{n}"
        );
    }
}

#[test]
fn who_changes_to_stereo_and_back_in_the_middle_of_a_sound_hears_no_step() {
    let mut mixer = Mixer::new(MixerConfig::default());
    mixer.add_listener(OwnerId(9));
    let id = mixer.add_source(OwnerId(1), SourceKind::Music);
    let (mut heard, mut wide) = (Vec::new(), 0);
    for n in 0..90 {
        mixer.set_stereo(OwnerId(9), (30..60).contains(&n));
        let at = n * FRAME_SAMPLES;
        feed(&mut mixer, id, &tone(220.0, 0.5, at), &tone(220.0, 0.1, at));
        mixer.rank();
        mixer.mix();
        match shared(&mixer).stereo() {
            Some(_) => {
                wide += 1;
                heard.extend(split(shared(&mixer)).0);
            }
            None => heard.extend_from_slice(shared(&mixer).samples()),
        }
    }
    assert_eq!(wide, 30);
    let steepest = |x: &[f32]| {
        let steps = x.windows(2).map(|w| (w[1] - w[0]).abs());
        steps.fold(0.0, f32::max)
    };
    // Up to the change back, which is a change of what is heard, the slope is that of the louder channel.
    let slope = 220.0 * std::f32::consts::TAU / 48_000.0 * 0.5;
    let change = 60 * FRAME_SAMPLES;
    assert!(
        steepest(&heard[..change]) < slope * 1.1,
        "{} of {slope}",
        steepest(&heard[..change])
    );
}

#[test]
fn a_loud_left_channel_is_limited_with_the_right_one_and_stays_where_it_is() {
    let mut mixer = with_listener(9);
    let ids = [1, 2, 3].map(|n| mixer.add_source(OwnerId(n), SourceKind::Music));
    let mut highest = 0.0f32;
    for n in 0..100 {
        let at = n * FRAME_SAMPLES;
        for id in ids {
            feed(
                &mut mixer,
                id,
                &tone(440.0, 0.9, at),
                &tone(440.0, 0.09, at),
            );
        }
        mixer.rank();
        mixer.mix();
        let (left, right) = split(shared(&mixer));
        highest = highest.max(peak(&left));
        if n > 5 {
            for (l, r) in left.iter().zip(&right) {
                assert!((l * 0.1 - r).abs() < 1e-4, "{l} and {r}");
            }
        }
    }
    assert!((0.8..0.8913).contains(&highest), "{highest}");
}

#[test]
fn samples_that_are_not_finite_reach_no_stereo_mix() {
    let mut mixer = with_listener(9);
    let id = mixer.add_source(OwnerId(1), SourceKind::Music);
    for n in 0..40 {
        let mut left = tone(440.0, 0.3, n * FRAME_SAMPLES);
        if n % 5 == 0 {
            left[n] = [f32::NAN, f32::INFINITY][n % 2];
        }
        feed(&mut mixer, id, &left, &tone(660.0, 0.1, n * FRAME_SAMPLES));
        mixer.rank();
        mixer.mix();
        let (left, right) = split(shared(&mixer));
        assert!(left.iter().chain(&right).all(|x| x.is_finite()), "{n}");
    }
}
