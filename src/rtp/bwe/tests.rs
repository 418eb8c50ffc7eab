use super::*;
use crate::rtp::params::Ssrc;
use crate::rtp::rtcp::{self, Rtcp};
use crate::rtp::twcc::Recorder;
use proptest::prelude::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Feedback about these packets, as a receiver writes it.
fn feedback(estimator: &mut Estimator, recorder: &mut Recorder, now: Instant) {
    let mut out = Vec::new();
    while recorder.poll(now, Ssrc(1), Ssrc(2), 1100, &mut out) {}
    for packet in rtcp::packets(&out) {
        if let Ok(Rtcp::TransportWide(feedback)) = packet {
            estimator.handle_feedback(now, &feedback);
        }
    }
}

#[test]
fn a_peer_without_feedback_is_not_limited() {
    let t0 = Instant::now();
    let mut estimator = Estimator::default();
    for n in 0..300 {
        estimator.handle_sent(t0 + ms(n * 20), None, 1000);
    }
    assert_eq!(estimator.estimate(t0 + ms(6000)), MAX);
    estimator.set_limit(Some(400_000));
    assert_eq!(estimator.estimate(t0 + ms(6000)), 400_000);
}

#[test]
fn a_low_remb_binds_and_a_high_one_does_not() {
    let t0 = Instant::now();
    let mut estimator = Estimator::default();
    for n in 0..200 {
        estimator.handle_sent(t0 + ms(n * 10), None, 1000);
    }
    let now = t0 + ms(2000);
    estimator.handle_remb(now, 2_000_000);
    assert_eq!(estimator.estimate(now), MAX);
    estimator.handle_remb(now, 300_000);
    assert_eq!(estimator.estimate(now), 300_000);
    // The peer's estimate follows the smaller stream, and the bound is lifted step by step.
    for n in 0..1200 {
        let now = t0 + ms(2000 + n * 40);
        estimator.handle_sent(now, None, 1000);
        if n % 25 == 0 {
            estimator.handle_remb(now, 310_000);
        }
    }
    assert!(estimator.estimate(t0 + ms(50_000)) > 1_000_000);
}

#[test]
fn heavy_loss_in_receiver_reports_binds_at_first() {
    let t0 = Instant::now();
    let mut estimator = Estimator::default();
    for n in 0..100 {
        estimator.handle_sent(t0 + ms(n * 10), None, 1000);
    }
    estimator.handle_report(t0, 50, 50);
    estimator.handle_report(t0 + ms(1000), 50, 50);
    let bound = estimator.estimate(t0 + ms(1000));
    assert!((300_000..600_000).contains(&bound), "{bound}");
}

#[test]
fn silence_of_a_peer_that_used_to_answer_lowers_the_estimate() {
    let t0 = Instant::now();
    let (mut estimator, mut recorder) = (Estimator::default(), Recorder::default());
    for n in 0..50u16 {
        let now = t0 + ms(u64::from(n) * 20);
        estimator.handle_sent(now, Some(n), 1000);
        recorder.handle_packet(now + ms(30), n);
        feedback(&mut estimator, &mut recorder, now + ms(30));
    }
    let before = estimator.estimate(t0 + ms(1000));
    for n in 50..200u16 {
        let now = t0 + ms(u64::from(n) * 20);
        estimator.handle_sent(now, Some(n), 1000);
        estimator.poll_padding(now);
    }
    let after = estimator.estimate(t0 + ms(4000));
    assert!(after < before / 2, "{after} of {before}");
}

#[test]
fn feedback_that_is_lost_on_its_way_is_no_loss_of_what_was_sent() {
    let t0 = Instant::now();
    let (mut estimator, mut recorder) = (Estimator::default(), Recorder::default());
    let mut out = Vec::new();
    for n in 0..2000u16 {
        let now = t0 + ms(u64::from(n) * 10);
        estimator.handle_sent(now, Some(n), 1000);
        recorder.handle_packet(now + ms(30), n);
        if n % 10 == 9 {
            // Every third message is lost.
            if n % 30 == 9 {
                out.clear();
                while recorder.poll(now + ms(30), Ssrc(1), Ssrc(2), 1100, &mut out) {}
            } else {
                feedback(&mut estimator, &mut recorder, now + ms(30));
            }
        }
    }
    assert_eq!(estimator.loss(), 0.0);
    assert!(estimator.loss.bound().is_none());
}

#[test]
fn the_reference_time_wraps() {
    let mut estimator = Estimator::default();
    let first = estimator.unwrap_reference(0xff_fffe);
    assert_eq!(estimator.unwrap_reference(1) - first, 3);
    assert_eq!(estimator.unwrap_reference(0xff_ffff) - first, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_feedback_panics_or_leaves_the_bounds(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 16..80), 1..40),
        sizes in proptest::collection::vec(0usize..1500, 1..60),
    ) {
        let t0 = Instant::now();
        let mut estimator = Estimator::default();
        estimator.set_wanted(Wanted { next: 3_000_000, top: 9_000_000 });
        for (n, size) in sizes.iter().enumerate() {
            let now = t0 + ms(n as u64 * 7);
            estimator.handle_sent(now, Some(n as u16), *size);
            estimator.poll_padding(now);
        }
        for (n, body) in bodies.iter().enumerate() {
            let now = t0 + ms(500 + n as u64 * 50);
            // The packets' numbers, so that the feedback is about something.
            let mut body = body.clone();
            body[8] = 0;
            body[9] &= 0x3f;
            if let Some(feedback) = Feedback::parse(&body) {
                estimator.handle_feedback(now, &feedback);
            }
            estimator.poll_padding(now);
            prop_assert!((MIN..=MAX).contains(&estimator.estimate(now)));
        }
    }
}
