use super::*;
use proptest::prelude::*;
use talksy_mixer::video::I420;
use talksy_mixer::video::frame::Yuv;

const CONFIG: EncoderConfig = EncoderConfig {
    width: 320,
    height: 180,
    fps: 20,
    bitrate: 300_000,
};

/// Waves that move with time, under fixed noise: never static, never random.
fn moving(width: u32, height: u32, frame: usize) -> I420 {
    let mut picture = I420::new(width as usize, height as usize);
    let shift = frame as f32 * 2.3;
    for (i, mut plane) in picture.planes_mut().into_iter().enumerate() {
        let scale = if i == 0 { 1.0 } else { 2.0 };
        for y in 0..plane.height() {
            for (x, value) in plane.row(y).iter_mut().enumerate() {
                let (x, y) = (x as f32 * scale + shift, y as f32 * scale - shift / 2.0);
                let wave = (x / 11.0).sin() * 45.0 + (y / 7.0 + x / 29.0).cos() * 40.0;
                *value = (128.0 + wave) as u8;
            }
        }
    }
    picture
}

/// The access units of a moving picture, the first of them a keyframe.
fn stream(config: EncoderConfig, frames: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(config).unwrap();
    (0..frames)
        .map(|i| {
            let mut unit = Vec::new();
            let picture = moving(config.width, config.height, i);
            let millis = i as u64 * 1000 / u64::from(config.fps);
            encoder.encode(picture.view(), millis, &mut unit).unwrap();
            unit
        })
        .collect()
}

fn luma_psnr(a: View<'_>, b: View<'_>) -> f64 {
    let mut error = 0u64;
    for y in 0..a.height() {
        for (a, b) in a.y.row(y).iter().zip(b.y.row(y)) {
            error += u64::from(a.abs_diff(*b)).pow(2);
        }
    }
    let mean = error as f64 / (a.width() * a.height()) as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

#[test]
fn the_codec_is_built_with_its_assembly() {
    // On a CPU without AVX2 the library cannot tell whether its AVX2 paths were built.
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        assert!(
            has_avx2_assembly(),
            "nasm was missing, or HAVE_AVX2 was not defined, when openh264-sys2 was built"
        );
    }
}

#[test]
fn what_is_encoded_comes_back() {
    let mut encoder = Encoder::new(CONFIG).unwrap();
    let mut decoder = Decoder::new().unwrap();
    for i in 0..10 {
        let picture = moving(320, 180, i);
        let mut unit = Vec::new();
        let keyframe = encoder
            .encode(picture.view(), i as u64 * 50, &mut unit)
            .unwrap();
        assert_eq!(keyframe, i == 0);
        assert_eq!(is_keyframe(&unit), keyframe);
        let decoded = decoder.decode(&unit).unwrap();
        assert!(!decoded.damaged);
        let back = decoded.picture.expect("no delay");
        assert_eq!((back.width(), back.height()), (320, 180));
        assert!(luma_psnr(picture.view(), back) > 28.0);
    }
}

#[test]
fn the_stream_is_constrained_baseline_at_the_level_that_fits() {
    let profile = |config| {
        let units = stream(config, 1);
        let sps = nal_units(&units[0]).find(|nal| nal_type(nal) == Some(NAL_SPS));
        let sps = sps.expect("a keyframe carries its parameter sets");
        assert_eq!(sps[1], 66, "baseline");
        // A.2.1: constraint_set1_flag makes it constrained baseline.
        assert_ne!(sps[2] & 0x40, 0);
        sps[3]
    };
    let at = |width, height, fps, bitrate| {
        profile(EncoderConfig {
            width,
            height,
            fps,
            bitrate,
        })
    };
    assert_eq!(at(640, 360, 20, 400_000), 22);
    assert_eq!(at(320, 180, 10, 120_000), 11);
    assert_eq!(at(1280, 720, 30, 1_500_000), 31);
}

#[test]
fn a_keyframe_comes_when_it_is_asked_for_and_not_otherwise() {
    let mut encoder = Encoder::new(CONFIG).unwrap();
    let mut keyframes = Vec::new();
    for i in 0..60 {
        // The picture changes all at once in the middle: no reason for a keyframe.
        let picture = moving(320, 180, i + if i > 30 { 5000 } else { 0 });
        if i == 20 {
            encoder.request_keyframe();
        }
        if encoder
            .encode(picture.view(), i as u64 * 50, &mut Vec::new())
            .unwrap()
        {
            keyframes.push(i);
        }
    }
    assert_eq!(keyframes, [0, 20]);
}

#[test]
fn a_running_encoder_takes_a_new_bitrate() {
    let mut encoder = Encoder::new(CONFIG).unwrap();
    encoder.set_bitrate(250_000).unwrap();
    let rate = |encoder: &mut Encoder, frames: std::ops::Range<usize>| {
        let seconds = frames.len() as f64 / 20.0;
        let mut bytes = Vec::new();
        for i in frames {
            let picture = moving(320, 180, i * 3);
            encoder
                .encode(picture.view(), i as u64 * 50, &mut bytes)
                .unwrap();
        }
        bytes.len() as f64 * 8.0 / seconds
    };
    rate(&mut encoder, 0..20);
    let before = rate(&mut encoder, 20..80);
    encoder.set_bitrate(90_000).unwrap();
    assert_eq!(raw::target_bitrate(&mut encoder.inner), Some(90_000));
    rate(&mut encoder, 80..100);
    let after = rate(&mut encoder, 100..160);
    assert!(after < before * 0.6, "{before:.0} then {after:.0}");
    encoder.set_bitrate(400_000).unwrap();
    assert_eq!(raw::target_bitrate(&mut encoder.inner), Some(400_000));
}

#[test]
fn a_picture_of_another_size_is_refused() {
    let mut encoder = Encoder::new(CONFIG).unwrap();
    let picture = moving(160, 90, 0);
    let result = encoder.encode(picture.view(), 0, &mut Vec::new());
    assert_eq!(result, Err(H264Error::Refused));
}

#[test]
fn a_lost_picture_is_concealed_and_reported() {
    let units = stream(CONFIG, 20);
    let mut decoder = Decoder::new().unwrap();
    let mut damaged = Vec::new();
    for (i, unit) in units.iter().enumerate().filter(|(i, _)| *i != 7) {
        let decoded = decoder.decode(unit).unwrap();
        assert!(decoded.picture.is_some(), "no picture for {i}");
        if decoded.damaged {
            damaged.push(i);
        }
    }
    assert_eq!(damaged.first(), Some(&8));
}

#[test]
fn a_truncated_picture_is_concealed_and_reported() {
    let units = stream(CONFIG, 6);
    let mut decoder = Decoder::new().unwrap();
    for unit in &units[..3] {
        decoder.decode(unit).unwrap();
    }
    let cut = &units[3][..units[3].len() / 2];
    assert!(decoder.decode(cut).unwrap().damaged);
}

#[test]
fn a_picture_that_is_too_large_is_refused_before_anything_is_allocated() {
    let bits = [
        "1",               // seq_parameter_set_id 0
        "1",               // log2_max_frame_num 4
        "011",             // pic_order_cnt_type 2
        "010",             // one reference frame
        "0",               // no gaps
        "000000011111111", // 255 macroblocks wide
        "000000011111111", // and high
        "1",               // frames only
    ];
    let bits = format!("{:0<48}", bits.concat());
    let mut sps = vec![0, 0, 1, 0x67, 66, 0xc0, 51];
    sps.extend((0..6).map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap()));
    let mut decoder = Decoder::new().unwrap();
    assert!(matches!(
        decoder.decode(&sps),
        Err(H264Error::TooLarge(4080, 4080))
    ));
    let long = vec![0; MAX_ACCESS_UNIT + 1];
    assert!(matches!(decoder.decode(&long), Err(H264Error::TooLong(_))));
    let unit = &stream(CONFIG, 1)[0];
    assert!(
        decoder.decode(unit).unwrap().picture.is_some(),
        "the decoder is still good"
    );
}

#[test]
fn units_are_found_behind_short_and_long_start_codes() {
    let stream = [
        0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 1, 0x65, 4, 0, 0,
    ];
    let units: Vec<&[u8]> = nal_units(&stream).collect();
    assert_eq!(units, [&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 4]]);
    assert!(is_keyframe(&stream));
    assert_eq!(nal_units(&[1, 2, 3]).count(), 0);
    assert_eq!(nal_units(&[0, 0, 1]).count(), 0);
}

#[test]
fn a_picture_of_one_colour_keeps_it() {
    let mut encoder = Encoder::new(CONFIG).unwrap();
    let mut decoder = Decoder::new().unwrap();
    let colour = Yuv {
        y: 81,
        u: 90,
        v: 220,
    };
    let mut picture = I420::new(320, 180);
    picture.fill(colour);
    let mut unit = Vec::new();
    encoder.encode(picture.view(), 0, &mut unit).unwrap();
    let back = decoder.decode(&unit).unwrap().picture.unwrap();
    let got = (back.y.row(90)[160], back.u.row(45)[80], back.v.row(45)[80]);
    assert!(got.0.abs_diff(81) < 4 && got.1.abs_diff(90) < 4 && got.2.abs_diff(220) < 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn damaged_streams_do_no_harm(
        hits in prop::collection::vec((0usize..6, any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut units = stream(EncoderConfig { width: 64, height: 64, ..CONFIG }, 6);
        for (unit, at, value) in hits {
            let unit = &mut units[unit];
            let at = at.index(unit.len());
            unit[at] = value;
        }
        let mut decoder = Decoder::new().unwrap();
        for unit in &units {
            if let Ok(Decoded { picture: Some(picture), .. }) = decoder.decode(unit) {
                prop_assert!(picture.width() as u64 * picture.height() as u64 <= MAX_PIXELS);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        units in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6), start: bool,
    ) {
        let mut decoder = Decoder::new().unwrap();
        for unit in units {
            let unit = if start { [&[0, 0, 0, 1, 0x67][..], &unit].concat() } else { unit };
            let _ = decoder.decode(&unit);
        }
    }
}
