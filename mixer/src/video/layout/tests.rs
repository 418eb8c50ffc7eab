//! What holds for every room, canvas and change.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use proptest::prelude::*;

const WIDE: Size = Size {
    width: 640,
    height: 360,
};
const TALL: Size = Size {
    width: 360,
    height: 640,
};
const GRID: Scene = Scene {
    kind: Kind::Grid,
    large: None,
};

fn person(id: u64) -> Person {
    Person {
        id,
        spoke: 0,
        speaking: false,
        camera: true,
        screen: false,
    }
}

fn people(ids: impl IntoIterator<Item = u64>) -> Vec<Person> {
    ids.into_iter().map(person).collect()
}

fn speaks(people: &mut [Person], id: u64, ordinal: u64) {
    let person = people.iter_mut().find(|person| person.id == id).unwrap();
    (person.spoke, person.speaking) = (ordinal, true);
}

fn silent(people: &mut [Person], ordinal: u64) {
    for person in people.iter_mut().filter(|person| person.speaking) {
        (person.spoke, person.speaking) = (ordinal, false);
    }
}

fn ids(placed: &[Placed]) -> Vec<u64> {
    placed.iter().map(|placed| placed.id).collect()
}

fn rects(placed: &[Placed]) -> HashMap<u64, Rect> {
    placed.iter().map(|p| (p.id, p.rect)).collect()
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Grid, Kind::Speaker, Kind::Pinned, Kind::Screen])
}

fn canvas() -> impl Strategy<Value = Size> {
    prop_oneof![
        (16usize..140, 16usize..140),
        (16usize..2200, 16usize..2200),
        prop::sample::select(vec![
            (640, 360),
            (360, 640),
            (1280, 720),
            (160, 90),
            (90, 160)
        ]),
    ]
    .prop_map(|(width, height)| Size { width, height })
}

fn assert_sound(placed: &[Placed], canvas: Size) {
    for (i, a) in placed.iter().enumerate() {
        let Rect {
            x,
            y,
            width,
            height,
        } = a.rect;
        assert!(width > 0 && height > 0, "{a:?}");
        assert!(
            x + width <= canvas.width && y + height <= canvas.height,
            "{a:?} outside of {canvas:?}"
        );
        assert!([x, y, width, height].iter().all(|n| n % 2 == 0), "{a:?}");
        for b in &placed[i + 1..] {
            let apart = x + width <= b.rect.x
                || b.rect.x + b.rect.width <= x
                || y + height <= b.rect.y
                || b.rect.y + b.rect.height <= y;
            assert!(apart && a.id != b.id, "{a:?} {b:?} on {canvas:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_layout_is_total_even_disjoint_and_inside(
        kind in kind(), canvas in canvas(), count in 1u64..=49, large in 0u64..49,
    ) {
        let mut people = people(0..count);
        let large = large % count;
        people[large as usize].screen = kind == Kind::Screen;
        let scene = Scene { kind, large: (kind != Kind::Grid).then_some(large) };
        let mut arrangement = Arrangement::new(canvas);
        let placed = arrangement.arrange(scene, &people);
        assert_sound(placed, canvas);
        if kind == Kind::Grid {
            prop_assert_eq!(placed.len(), (count as usize).min(MAX_TILES));
        } else {
            prop_assert!(placed.len() >= (count as usize).min(2), "{} placed", placed.len());
            prop_assert!(placed[0].large && placed[0].id == large);
            prop_assert!(placed[1..].iter().all(|small| !small.large
                && small.rect.width * small.rect.height <= placed[0].rect.width * placed[0].rect.height));
        }
    }

    #[test]
    fn coming_permutes_nobody(kind in kind(), canvas in canvas(), count in 2u64..=24, more in 1u64..=4) {
        let scene = Scene { kind, large: (kind != Kind::Grid).then_some(0) };
        let mut arrangement = Arrangement::new(canvas);
        let before = ids(arrangement.arrange(scene, &people(0..count)));
        let after = ids(arrangement.arrange(scene, &people(0..count + more)));
        let old: Vec<u64> = after.iter().copied().filter(|id| *id < count).collect();
        prop_assert_eq!(old, before, "{:?}", after);
    }

    #[test]
    fn leaving_moves_as_few_as_the_places_permit(
        kind in kind(), canvas in canvas(), count in 2u64..=25, gone in 0u64..25,
    ) {
        let gone = 1 + gone % (count - 1);
        let scene = Scene { kind, large: (kind != Kind::Grid).then_some(0) };
        let mut arrangement = Arrangement::new(canvas);
        let before = rects(arrangement.arrange(scene, &people(0..count)));
        let rest = people((0..count).filter(|id| *id != gone));
        let after = rects(arrangement.arrange(scene, &rest));
        for id in before.keys().filter(|id| **id != gone) {
            let had = before[id];
            let stayed = after.get(id) == Some(&had);
            let place_is_left = after.values().any(|rect| *rect == had);
            prop_assert!(stayed || !place_is_left, "{id} had to leave {had:?} for somebody");
        }
    }

    #[test]
    fn any_sequence_of_changes_stays_sound_and_repeats_itself_on_no_change(
        canvas in canvas(),
        changes in prop::collection::vec((0u8..6, 0u64..40), 1..40),
    ) {
        let mut room = people(0..3);
        let mut director = Director::default();
        let mut arrangement = Arrangement::new(canvas);
        for (ordinal, (change, id)) in (1..).zip(changes) {
            match change {
                0 | 1 if room.iter().all(|person| person.id != id) => room.push(person(id)),
                2 => room.retain(|person| person.id != id),
                3 => {
                    silent(&mut room, ordinal);
                    if room.iter().any(|person| person.id == id) {
                        speaks(&mut room, id, ordinal);
                    }
                }
                4 => {
                    let kinds = [Kind::Grid, Kind::Speaker, Kind::Pinned, Kind::Screen];
                    director.set_wish(Wish { kind: kinds[id as usize % 4], pinned: Some(id / 4) });
                }
                _ => for shared in room.iter_mut().filter(|person| person.id == id) {
                    shared.screen = !shared.screen;
                    shared.spoke = ordinal;
                },
            }
            let now = Duration::from_millis(ordinal * 700);
            let scene = director.direct(now, &room);
            let placed = arrangement.arrange(scene, &room).to_vec();
            assert_sound(&placed, canvas);
            prop_assert_eq!(placed.is_empty(), room.is_empty());
            prop_assert_eq!(placed.first().filter(|p| p.large).map(|p| p.id), scene.large);
            for tile in &placed {
                let person = room.iter().find(|person| person.id == tile.id);
                let whole = tile.fit == super::super::scale::Fit::Whole;
                prop_assert_eq!(person.map(|p| p.screen), Some(whole));
            }
            prop_assert_eq!(arrangement.arrange(scene, &room), &placed[..]);
        }
    }

    #[test]
    fn who_speaks_comes_in_for_who_was_silent_longest(
        count in 26u64..=49, order in prop::collection::vec(0u64..49, 1..60),
    ) {
        let mut room = people(0..count);
        let mut arrangement = Arrangement::new(WIDE);
        arrangement.arrange(GRID, &room);
        for (ordinal, id) in (1..).zip(order) {
            let before = rects(arrangement.placed());
            let id = id % count;
            silent(&mut room, 2 * ordinal);
            speaks(&mut room, id, 2 * ordinal + 1);
            let after = rects(arrangement.arrange(GRID, &room));
            let spoke = |id: &u64| room[*id as usize].spoke;
            let gone: Vec<u64> = before.keys().filter(|id| !after.contains_key(id)).copied().collect();
            let stayed = before.iter().filter(|(id, _)| after.contains_key(id));
            for (other, rect) in stayed {
                prop_assert_eq!(after[other], *rect, "nobody else moves");
            }
            if let [gone] = gone[..] {
                prop_assert_eq!(after[&id], before[&gone], "into the same place");
                let quietest = before.keys().map(spoke).min();
                prop_assert_eq!(Some(spoke(&gone)), quietest);
            } else {
                prop_assert!(gone.is_empty() && before.contains_key(&id), "{gone:?}");
            }
        }
    }
}

#[test]
fn who_leaves_a_full_row_is_followed_by_the_last_row_only() {
    let mut arrangement = Arrangement::new(WIDE);
    let before = rects(arrangement.arrange(GRID, &people(0..9)));
    let after = rects(arrangement.arrange(GRID, &people((0..9).filter(|id| *id != 4))));
    let moved: Vec<u64> = (0..9)
        .filter(|id| *id != 4 && before[id] != after[id])
        .collect();
    assert_eq!(moved, [6, 7, 8]);
    assert_eq!(after[&6], before[&4]);
    assert!(after[&7].x < after[&8].x);
}

#[test]
fn a_newcomer_takes_the_place_of_who_leaves_in_the_same_moment() {
    let mut arrangement = Arrangement::new(WIDE);
    arrangement.arrange(GRID, &people(0..9));
    let after = arrangement.arrange(GRID, &people([0, 1, 2, 3, 5, 6, 7, 8, 20]));
    assert_eq!(ids(after), [0, 1, 2, 3, 20, 5, 6, 7, 8]);
}

#[test]
fn people_with_cameras_are_seen_before_others_that_never_spoke() {
    let mut room = people(0..40);
    for person in &mut room[..20] {
        person.camera = false;
    }
    let mut arrangement = Arrangement::new(WIDE);
    let seen = ids(arrangement.arrange(GRID, &room));
    assert_eq!(
        seen,
        [(0..5).collect::<Vec<_>>(), (20..40).collect()].concat()
    );
}

#[test]
fn a_new_speaker_swaps_places_with_the_old_one() {
    let room = people(0..6);
    let speaker = |id| Scene {
        kind: Kind::Speaker,
        large: Some(id),
    };
    for canvas in [WIDE, TALL] {
        let mut arrangement = Arrangement::new(canvas);
        let before = rects(arrangement.arrange(speaker(0), &room));
        let after = rects(arrangement.arrange(speaker(3), &room));
        assert_eq!((after[&3], after[&0]), (before[&0], before[&3]));
        for id in [1, 2, 4, 5] {
            assert_eq!(after[&id], before[&id]);
        }
    }
}

#[test]
fn the_strip_fills_the_side_of_a_16_9_canvas_exactly() {
    for (width, height) in [(1280, 720), (960, 540), (640, 360), (320, 180), (160, 90)] {
        let mut rects = Vec::new();
        places(Kind::Speaker, 9, Size { width, height }, &mut rects);
        assert_eq!(rects.len(), 6);
        assert_eq!(rects[1].y, 0);
        assert_eq!(rects[5].y + rects[5].height, height);
        assert_eq!(rects[0].width + rects[1].width, width);
    }
}

#[test]
fn a_shared_screen_comes_by_itself_and_goes_when_it_ends() {
    let mut room = people(0..3);
    let mut director = Director::default();
    assert_eq!(director.direct(Duration::ZERO, &room), GRID);
    room.push(Person {
        spoke: 4,
        screen: true,
        ..person(9)
    });
    let screen = Scene {
        kind: Kind::Screen,
        large: Some(9),
    };
    assert_eq!(director.direct(Duration::ZERO, &room), screen);
    // Somebody prefers the grid; the next screen comes by itself again.
    director.set_wish(Wish::default());
    assert_eq!(director.direct(Duration::ZERO, &room), GRID);
    let shared = room.pop();
    assert_eq!(director.direct(Duration::ZERO, &room), GRID);
    room.extend(shared);
    assert_eq!(director.direct(Duration::ZERO, &room), screen);
}

#[test]
fn the_newest_of_several_screens_is_large() {
    let screen = |id, spoke| Person {
        spoke,
        screen: true,
        ..person(id)
    };
    let room = [person(1), screen(2, 30), screen(3, 20)];
    let scene = Director::default().direct(Duration::ZERO, &room);
    assert_eq!(scene.large, Some(2));
}

#[test]
fn who_is_pinned_is_large_and_without_them_the_picture_is_a_grid() {
    let mut director = Director::default();
    director.set_wish(Wish {
        kind: Kind::Pinned,
        pinned: Some(2),
    });
    let large = |director: &mut Director, ids: &[u64]| {
        let scene = director.direct(Duration::ZERO, &people(ids.iter().copied()));
        (scene.kind, scene.large)
    };
    assert_eq!(large(&mut director, &[1, 2]), (Kind::Pinned, Some(2)));
    assert_eq!(large(&mut director, &[1]), (Kind::Grid, None));
    assert_eq!(large(&mut director, &[1, 2]), (Kind::Pinned, Some(2)));
}

/// The large one at each step of 100 ms, while `speaking` tells who speaks.
fn speakers(steps: u64, speaking: impl Fn(u64) -> Vec<u64>) -> Vec<u64> {
    let mut director = Director::default();
    director.set_wish(Wish {
        kind: Kind::Speaker,
        pinned: None,
    });
    let mut room = people(1..=4);
    (0..steps)
        .map(|step| {
            let now_speaking = speaking(step);
            for person in &mut room {
                let speaks = now_speaking.contains(&person.id);
                if std::mem::replace(&mut person.speaking, speaks) != speaks {
                    person.spoke = step + 1;
                }
            }
            let scene = director.direct(Duration::from_millis(100 * step), &room);
            scene.large.unwrap()
        })
        .collect()
}

#[test]
fn the_speaker_changes_with_turns_and_not_with_interjections() {
    let seen = speakers(60, |step| match step {
        0..20 => vec![1],
        // Somebody coughs in a pause.
        20..24 => vec![2],
        24..30 => vec![1],
        30..60 => vec![3],
        _ => vec![],
    });
    assert!(seen[..30].iter().all(|large| *large == 1));
    let turn = seen.iter().position(|large| *large == 3).unwrap();
    assert_eq!(turn, 38, "800 ms after they began");
    assert!(seen[turn..].iter().all(|large| *large == 3));
}

#[test]
fn who_talks_across_the_speaker_takes_over_once_and_not_back_and_forth() {
    let seen = speakers(200, |step| match step {
        0..10 => vec![1],
        _ => vec![1, 2],
    });
    let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 1);
    assert_eq!(seen[39..41], [1, 2]);
}

#[test]
fn silence_and_a_leaving_bystander_leave_the_speaker_alone() {
    let mut director = Director::default();
    director.set_wish(Wish {
        kind: Kind::Speaker,
        pinned: None,
    });
    let mut room = people(1..=4);
    speaks(&mut room, 3, 1);
    assert_eq!(director.direct(Duration::ZERO, &room).large, Some(3));
    silent(&mut room, 2);
    room.remove(0);
    let later = Duration::from_secs(60);
    assert_eq!(director.direct(later, &room).large, Some(3));
    // When the speaker leaves, who spoke last follows at once.
    room[2].spoke = 1;
    room.retain(|person| person.id != 3);
    assert_eq!(director.direct(later, &room).large, Some(4));
}
