//! Two browsers in one room, forwarded; and one that changes to the mix and back.

use std::time::Duration;
use talksy_unit::demo::Sound;

use crate::support::analysis::colour_distance;
use crate::support::media::{Camera, GREEN, RED};
use crate::support::person::{MIXED, Person, of_kind};
use crate::support::server::Server;
use crate::{ABSENT, ABSENT_VOICE, ALONE, HIGH_VOICE, LOW_VOICE, SLACK, alone};

/// From Start to seeing and hearing the others.
const START_TO_CALL: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_browsers_see_and_hear_each_other_and_one_changes_to_the_mix_and_back() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (anna, ben) = tokio::join!(
        Person::open(
            &server,
            "room_id=1111&name=Anna",
            Camera::small(RED),
            LOW_VOICE
        ),
        Person::open(
            &server,
            "room_id=1111&name=Ben",
            Camera::small(GREEN),
            HIGH_VOICE
        ),
    );
    anna.join().await;
    let pressed = ben.start().await;
    tokio::join!(
        anna.sees_and_hears(1, START_TO_CALL + SLACK),
        ben.sees_and_hears(1, START_TO_CALL + SLACK)
    );
    let took = pressed.elapsed();
    println!("figure start_to_call_ms {} ms", took.as_millis());
    assert!(took < START_TO_CALL + SLACK, "{took:?}");

    let annas = anna.id().await;
    let (annas_tile, bens_tile) = (Person::tile_of(&annas), Person::tile_of(&ben.id().await));
    tokio::join!(
        meets(&anna, &bens_tile, GREEN, HIGH_VOICE),
        meets(&ben, &annas_tile, RED, LOW_VOICE)
    );
    full_size(&anna).await;

    remember_session(&ben).await;
    ben.press("#mode").await;
    ben.wait("talksy.mode === 'mcu' && talksy.mixed?.getTracks().length === 2")
        .await;
    meets_mix(&ben, &annas).await;
    ben.press("#mode").await;
    ben.wait("talksy.mode === 'sfu' && talksy.remotes.length === 1")
        .await;
    meets(&ben, &annas_tile, RED, LOW_VOICE).await;
    same_session(&ben).await;

    ben.press("#disconnect").await;
    anna.wait("talksy.remotes.length === 0 && talksy.peers.length === 1")
        .await;
    anna.close_in_good_order().await;
    ben.close_in_good_order().await;
}

/// `person` sees the colour in `selector`, alive, and hears the voice there and no other.
async fn meets(person: &Person, selector: &str, colour: [u8; 3], voice: Sound) {
    person.sees_move(10).await;
    let seen = person.browser.pixels(selector, &[(0.5, 0.5)]).await[0];
    assert!(
        colour_distance(seen, colour) < 24,
        "{seen:?} is not {colour:?}"
    );
    hears_only(person, selector, voice).await;
}

async fn hears_only(person: &Person, selector: &str, voice: Sound) {
    let heard = person.likeness(selector, &[voice, ABSENT_VOICE]).await;
    assert!(
        heard[0] > ALONE && heard[1] < ABSENT,
        "{voice:?}: {heard:?}"
    );
}

/// The picture arrives as large as the camera makes it.
async fn full_size(person: &Person) {
    let size = "talksy.remotes[0].videoElement";
    person
        .wait(&format!(
            "{size}.videoWidth === 640 && {size}.videoHeight === 360"
        ))
        .await;
}

/// Both tiles are in the one picture; of the two voices there is only the other's.
async fn meets_mix(ben: &Person, annas: &str) {
    ben.wait(&format!(
        "__bench.last.layout?.tiles.some(tile => tile.client_id === '{annas}')"
    ))
    .await;
    ben.sees_move(10).await;
    crate::mixed::shows(ben, annas, RED).await;
    let bens = ben.id().await;
    crate::mixed::shows(ben, &bens, GREEN).await;
    let inbound = ben.inbound().await;
    let live = |kind| of_kind(&inbound, kind).count();
    assert!(live("video") >= 1 && live("audio") >= 1, "{inbound:?}");
    let heard = ben.likeness(MIXED, &[LOW_VOICE, HIGH_VOICE]).await;
    assert!(heard[0] > ALONE && heard[1] < ABSENT, "{heard:?}");
}

async fn remember_session(person: &Person) {
    let script = "window.before = { id: talksy.clientId, socket: talksy.socket, pc: talksy.pc };";
    person.browser.eval(script, vec![]).await;
}

/// Nobody has joined anew: the same id, the same socket, the same connection.
async fn same_session(person: &Person) {
    let same = "before.id === talksy.clientId && before.socket === talksy.socket && before.pc === talksy.pc \
                && __bench.sockets.length === 1 && __bench.pcs.length === 1";
    assert_eq!(person.value(same).await, true);
}
