//! Sounds that are no microphone of a browser: a telephone, and music.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::eventually;
use crate::support::media::{Camera, GREEN, RED};
use crate::support::person::{MIXED, Person, of_kind};
use crate::support::server::Server;
use crate::{ABSENT, ALONE, AMONG_TWO, HIGH_VOICE, LOW_VOICE, alone};

/// Every microphone that the page sends is G.711 and nothing else, as a gateway's is.
const ONLY_PCMU: &str = r"
(() => {
  const add = RTCPeerConnection.prototype.addTransceiver;
  RTCPeerConnection.prototype.addTransceiver = function (track, ...rest) {
    const transceiver = add.call(this, track, ...rest);
    if (track?.kind === 'audio') {
      const { codecs } = RTCRtpSender.getCapabilities('audio');
      transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => mimeType === 'audio/PCMU'));
    }
    return transceiver;
  };
})();
";

/// In place of the microphone: a tone on the left and another on the right.
const PLAY: &str = r"
const [left, right, done] = arguments;
(async () => {
const context = new AudioContext(), merger = context.createChannelMerger(2);
[left, right].forEach((frequency, channel) => {
  const tone = new OscillatorNode(context, { frequency }), gain = new GainNode(context, { gain: 0.2 });
  tone.connect(gain).connect(merger, 0, channel);
  tone.start();
});
const out = new MediaStreamAudioDestinationNode(context, { channelCount: 2 });
merger.connect(out);
const sender = __bench.pcs.at(-1).getSenders().find(({ track }) => track?.kind === 'audio');
await sender.replaceTrack(out.stream.getAudioTracks()[0]);
return context.state;
})().then(done, error => done({ error: String(error) }));
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_telephone_is_forwarded_and_mixed_and_bare_tones_are_heard_as_music() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (anna, ben, viewer) = tokio::join!(
        Person::open(
            &server,
            "room_id=sound&name=Anna",
            Camera::small(RED),
            LOW_VOICE
        ),
        Person::open(
            &server,
            "room_id=sound&name=Ben&music=1&stereo=1",
            Camera::small(GREEN),
            HIGH_VOICE
        ),
        Person::viewer(&server, "room_id=sound&name=Vera&mode=mcu&stereo=1"),
    );
    anna.browser.eval(ONLY_PCMU, Vec::new()).await;
    tokio::join!(anna.join(), ben.join(), viewer.join());
    let annas = anna.id().await;

    // Ben hears the telephone as it is, the viewer in the mix.
    ben.sees_and_hears(1, Duration::from_secs(15)).await;
    viewer.sees_and_hears(1, Duration::from_secs(15)).await;
    let heard = ben
        .likeness(&Person::tile_of(&annas), &[LOW_VOICE, HIGH_VOICE])
        .await;
    assert!(heard[0] > ALONE && heard[1] < ABSENT, "{heard:?}");
    let inbound = ben.inbound().await;
    let codecs: Vec<&Value> = of_kind(&inbound, "audio")
        .map(|audio| &audio["codec"])
        .collect();
    assert_eq!(codecs, [&json!("audio/PCMU")], "as it was sent");
    let heard = viewer.likeness(MIXED, &[LOW_VOICE, HIGH_VOICE]).await;
    assert!(heard[0] > AMONG_TWO && heard[1] > AMONG_TWO, "{heard:?}");

    // Bare tones pass, because they are music.
    anna.press("#mute").await;
    let tones = vec![json!(440.0), json!(1000.0)];
    let state = ben.browser.eval_async(PLAY, tones).await;
    assert_eq!(state, "running");
    eventually("music", Duration::from_secs(10), async || {
        let heard = viewer
            .browser
            .record(MIXED, Duration::from_millis(700))
            .await;
        let levels = [440.0, 1000.0].map(|hz| heard.level_at(hz));
        match levels.iter().all(|level| *level > -45.0) {
            true => Ok(()),
            false => Err(levels),
        }
    })
    .await;
    for person in [viewer, ben, anna] {
        person.close_in_good_order().await;
    }
}
