//! A browser that gets everybody's picture and one sound.

use std::time::Duration;

use crate::support::analysis::colour_distance;
use crate::support::eventually;
use crate::support::media::{BLUE, Camera, GREEN, RED};
use crate::support::person::{MIXED, Person, of_kind};
use crate::support::server::Server;
use crate::{ABSENT, ABSENT_VOICE, ALONE, AMONG_TWO, HIGH_VOICE, LOW_VOICE, alone};

const DEADLINE: Duration = Duration::from_secs(15);

const ANNA: &str = "room_id=one-sound&name=Anna";
const BEN: &str = "room_id=one-sound&name=Ben";
const CARA: &str = "room_id=one-sound&name=Cara&audio=mixed";

const DORA: &str = "room_id=one-sound&name=Dora&audio=mixed";

/// A client that takes no sound, as one without a loudspeaker may: the lines of sound are closed in its answers.
const NO_SOUND: &str = r"
(() => {
  const set = RTCPeerConnection.prototype.setRemoteDescription;
  RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
    await set.call(this, description);
    const sounds = this.getTransceivers().filter(t => t.receiver.track.kind === 'audio');
    for (const sound of sounds) if (!sound.stopped) sound.stop();
  };
})();
";

/// In the page: how many people have a sound of their own.
const OWN_SOUNDS: &str = "talksy.remotes.filter(r => r.stream.getAudioTracks().length).length";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_mixed_audio_sees_everybody_and_hears_all_others_over_one_track() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (anna, ben, cara) = tokio::join!(
        Person::open(&server, ANNA, Camera::small(RED), LOW_VOICE),
        Person::open(&server, BEN, Camera::small(GREEN), HIGH_VOICE),
        Person::open(&server, CARA, Camera::small(BLUE), ABSENT_VOICE),
    );
    tokio::join!(anna.join(), ben.join(), cara.join());
    let people = [(anna.id().await, RED), (ben.id().await, GREEN)];
    sees_each(&cara, &people).await;
    hears_both_mixed(&cara).await;
    let inbound = cara.inbound().await;
    assert_eq!(of_kind(&inbound, "audio").count(), 1, "{inbound:?}");

    cara.press("#audio").await;
    cara.wait(&format!(
        "talksy.audio === 'forwarded' && {OWN_SOUNDS} === 2"
    ))
    .await;
    let tile = Person::tile_of(&people[0].0);
    let heard = cara.likeness(&tile, &[LOW_VOICE, HIGH_VOICE]).await;
    assert!(heard[0] > ALONE && heard[1] < ABSENT, "{heard:?}");
    assert_eq!(cara.value("talksy.mixed").await, serde_json::Value::Null);

    cara.press("#audio").await;
    cara.wait(&format!("talksy.audio === 'mixed' && {OWN_SOUNDS} === 0"))
        .await;
    hears_both_mixed(&cara).await;
    sees_each(&cara, &people).await;

    let dora = Person::viewer(&server, DORA).await;
    dora.browser.eval(NO_SOUND, Vec::new()).await;
    dora.join().await;
    sees_each(&dora, &people).await;
    dora.wait("/no mixed sound/.test(__bench.last.error)").await;
    hears_both_mixed(&cara).await;
    // That error is all that she complains of.
    assert_eq!(dora.complaints().await.len(), 1);
    dora.browser.close().await;
    for person in [cara, ben, anna] {
        person.close_in_good_order().await;
    }
}

/// Both pictures as they were sent, each in its tile.
async fn sees_each(person: &Person, people: &[(String, [u8; 3])]) {
    for (id, colour) in people {
        eventually("a forwarded picture", DEADLINE, async || {
            let tile = Person::tile_of(id);
            let seen = person.browser.pixels(&tile, &[(0.5, 0.5)]).await[0];
            match colour_distance(seen, *colour) < 24 {
                true => Ok(()),
                false => Err(format!("{seen:?} for {colour:?}")),
            }
        })
        .await;
    }
}

/// Both others and not herself, in the element of the mixed sound.
async fn hears_both_mixed(person: &Person) {
    person
        .wait(
            "talksy.mixed?.getAudioTracks().length === 1 && !talksy.mixed.getVideoTracks().length",
        )
        .await;
    eventually("both others in one sound", DEADLINE, async || {
        let heard = person
            .likeness(MIXED, &[LOW_VOICE, HIGH_VOICE, ABSENT_VOICE])
            .await;
        assert!(heard[2] < ABSENT, "she hears herself: {heard:?}");
        match heard[0] > AMONG_TWO && heard[1] > AMONG_TWO {
            true => Ok(()),
            false => Err(heard),
        }
    })
    .await;
}
