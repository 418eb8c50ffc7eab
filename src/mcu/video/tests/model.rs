//! Random commands.

use super::*;
use proptest::prelude::*;

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
        let mut mix = VideoMix::new(Ladder::default());
        let (mut now, mut tick) = (Instant::now(), VideoTick::default());
        let (mut pushed, mut listeners) = (0, BTreeMap::new());
        let mut begun = BTreeMap::from([(STANDARD, false), (LOW, false)]);
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
                    // Who moves goes on with the rung before until there is a keyframe of the other.
                    let open: Vec<VideoRung> = mix.rungs_in_use().collect();
                    prop_assert!(open.len() <= 2);
                    mix.tick(now, &mut tick);
                    for frame in &tick.frames {
                        let begun = begun.insert(frame.rung, true);
                        prop_assert!(frame.keyframe || begun == Some(true));
                        prop_assert!(open.contains(&frame.rung));
                    }
                    prop_assert!(tick.frames.len() <= 2);
                }
            }
            for (id, begun) in &mut begun {
                *begun &= mix.rungs_in_use().any(|open| open == *id);
            }
            for rung in listeners.values() {
                prop_assert!(mix.rungs_in_use().any(|open| open == *rung));
            }
        }
        let stats = mix.stats();
        let waiting: u64 = mix.sources.iter().map(|(_, source)| source.queued()).sum();
        let dropped = stats.dropped_unknown + stats.dropped_unheard + stats.dropped_muted
            + stats.dropped_queue_full + stats.dropped_before_keyframe + stats.dropped_undecodable
            + stats.dropped_hidden + stats.dropped_too_many;
        prop_assert_eq!(pushed, stats.decoded + dropped + waiting);
        prop_assert_eq!(stats.encode_failed, 0);
    }
}
