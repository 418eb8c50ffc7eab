//! Sounds that are no microphone of a browser: a telephone, and music in two channels.

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

/// How loud each of some tones is in each channel of an element, in dB.
const CHANNELS: &str = r"
const [selector, tones, done] = arguments;
(async () => {
const context = new AudioContext(), splitter = context.createChannelSplitter(2);
const stream = document.querySelector(selector).srcObject;
const source = context.createMediaStreamSource(new MediaStream(stream.getAudioTracks()));
source.connect(splitter);
const analysers = [0, 1].map(channel => {
  const analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
  splitter.connect(analyser, channel);
  return analyser;
});
await new Promise(done => setTimeout(done, 700));
const levels = analysers.map(analyser => {
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  return tones.map(hz => Math.max(-200, bins[Math.round(hz * 8192 / context.sampleRate)]));
});
await context.close();
return levels;
})().then(done, error => done({ error: String(error) }));
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_telephone_is_forwarded_and_mixed_and_music_keeps_its_two_channels() {
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

    // Bare tones pass, because they are music, and stay on their sides.
    anna.press("#mute").await;
    let state = ben
        .browser
        .eval_async(PLAY, vec![json!(440.0), json!(1000.0)])
        .await;
    assert_eq!(state, "running");
    eventually(
        "music in two channels",
        Duration::from_secs(10),
        async || {
            let levels = viewer
                .browser
                .eval_async(CHANNELS, vec![json!(MIXED), json!([440.0, 1000.0])])
                .await;
            let level =
                |channel: usize, tone: usize| levels[channel][tone].as_f64().unwrap_or(-200.0);
            let apart = (level(0, 0) - level(1, 0)).min(level(1, 1) - level(0, 1));
            match apart > 20.0 && level(0, 0) > -45.0 && level(1, 1) > -45.0 {
                true => {
                    println!("figure stereo_separation_in_the_browser {apart:.0} dB");
                    Ok(())
                }
                false => Err(levels.to_string()),
            }
        },
    )
    .await;
    for person in [viewer, ben, anna] {
        person.close_in_good_order().await;
    }
}
