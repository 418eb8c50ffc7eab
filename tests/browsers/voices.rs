//! Who speaks: redundant audio between browsers and others, the active speaker on the page, and the loudest of many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use talksy_unit::demo::{Observed, Participant, ParticipantConfig, Sound, Turns, VoiceLoop};
use talksy_unit::rtp::params::MediaKind;

use crate::support::media::{Camera, GREEN, RED};
use crate::support::person::{Person, of_kind};
use crate::support::server::Server;
use crate::{ABSENT, ABSENT_VOICE, ALONE, HIGH_VOICE, LOW_VOICE, alone};

const DEADLINE: Duration = Duration::from_secs(20);

/// Prefers redundant audio for what the page sends, as the old page did.
const PREFER_RED: &str = r#"
const set = RTCPeerConnection.prototype.setLocalDescription;
RTCPeerConnection.prototype.setLocalDescription = function (...args) {
  const { codecs } = RTCRtpSender.getCapabilities('audio');
  const red = codec => codec.mimeType.toLowerCase() === 'audio/red' ? 0 : 1;
  for (const transceiver of this.getTransceivers())
    if (transceiver.sender.track?.kind === 'audio' && transceiver.currentDirection === null)
      transceiver.setCodecPreferences([...codecs].sort((a, b) => red(a) - red(b)));
  return set.apply(this, args);
};"#;

/// Somebody with a microphone only.
async fn speaker(
    server: &Server,
    room: &str,
    name: &str,
    voice: VoiceLoop,
    epoch: Instant,
) -> Participant {
    let config = ParticipantConfig {
        audio: Some(Arc::new(voice)),
        subscribe: false,
        epoch,
        ..ParticipantConfig::viewer(&server.socket(), room, name)
    };
    Participant::join(config).await.unwrap()
}

fn turn(index: u32, count: u32) -> VoiceLoop {
    VoiceLoop::encode(Sound::numbered(index), Turns::Shared { index, count }).unwrap()
}

/// Bytes of a packet of sound, on average, as this page receives it.
async fn packet_size(person: &Person) -> u64 {
    let inbound = person.inbound().await;
    let sound = of_kind(&inbound, "audio").max_by_key(|track| track["packets"].as_u64());
    let sound = sound.expect("a sound");
    sound["bytes"].as_u64().unwrap() / sound["packets"].as_u64().unwrap().max(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redundant_audio_goes_whole_to_browsers_and_plain_to_those_who_do_not_take_it() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (anna, ben) = tokio::join!(
        Person::open(
            &server,
            "room_id=red&name=Anna",
            Camera::small(RED),
            LOW_VOICE
        ),
        Person::open(
            &server,
            "room_id=red&name=Ben",
            Camera::small(GREEN),
            HIGH_VOICE
        ),
    );
    let viewer = ParticipantConfig::viewer(&server.socket(), "red", "plain");
    let mut viewer = Participant::join(viewer).await.unwrap();
    anna.browser.eval(PREFER_RED, vec![]).await;
    anna.join().await;
    ben.join().await;
    ben.sees_and_hears(1, DEADLINE).await;
    anna.sees_and_hears(1, DEADLINE).await;

    let answer = anna.value("talksy.pc.remoteDescription.sdp").await;
    let answer = answer.as_str().unwrap();
    assert!(answer.contains("UDP/TLS/RTP/SAVPF 63 111"), "{answer}");
    assert!(answer.contains("usedtx=1") && answer.contains("useinbandfec=1"));

    let heard = ben
        .likeness(
            &Person::tile_of(&anna.id().await),
            &[LOW_VOICE, ABSENT_VOICE],
        )
        .await;
    assert!(heard[0] > ALONE && heard[1] < ABSENT, "{heard:?}");
    let plain = |seen: &Observed| {
        let sounds = seen.tracks_of(MediaKind::Audio);
        sounds.filter(|track| track.packets > 100).count() == 2
    };
    let seen = viewer.wait_until(DEADLINE, plain).await.unwrap();
    let annas_stream = anna.value("document.querySelector('#self-tile video').srcObject.id");
    let annas_stream = annas_stream.await;
    for track in seen.tracks_of(MediaKind::Audio) {
        assert_eq!(track.codec.to_lowercase(), "audio/opus");
        let plain = track.bytes / track.packets;
        let is_annas = annas_stream == track.stream_id.as_str();
        let page = if is_annas { &ben } else { &anna };
        let received = packet_size(page).await;
        println!("figure audio_packet_bytes plain {plain} page {received} red {is_annas}");
        // A packet with its copy is about twice as large. Chromium names plain Opus as the codec of both.
        assert_eq!(
            received > plain * 3 / 2,
            is_annas,
            "{plain} and {received} bytes"
        );
    }
    assert_eq!(server.dropped("ingest", "malformed_red").await, 0);

    // The mixer hears the redundant voice too.
    ben.press("#mode").await;
    ben.wait("talksy.mode === 'mcu' && talksy.mixed?.getTracks().length === 2")
        .await;
    ben.sees_move(10).await;
    let heard = ben
        .likeness(crate::support::person::MIXED, &[LOW_VOICE, ABSENT_VOICE])
        .await;
    assert!(heard[0] > ALONE && heard[1] < ABSENT, "{heard:?}");
    viewer.leave().await.unwrap();
    anna.close_in_good_order().await;
    ben.close_in_good_order().await;
}

/// Packets of sound received so far, by m-line.
async fn packets(person: &Person) -> BTreeMap<String, u64> {
    let inbound = person.inbound().await;
    of_kind(&inbound, "audio")
        .map(|track| (track["mid"].to_string(), track["packets"].as_u64().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_six_who_take_turns_a_page_gets_the_three_loudest_and_marks_the_speaker() {
    const SPEAKERS: u32 = 6;
    let _turn = alone().await;
    let server = Server::start(&["--max-audio-streams", "3"]).await;
    let epoch = Instant::now();
    let mut speakers = Vec::new();
    for index in 0..SPEAKERS {
        let voice = tokio::task::spawn_blocking(move || turn(index, SPEAKERS));
        let name = format!("Speaker {index}");
        let voice = voice.await.unwrap();
        speakers.push(speaker(&server, "six", &name, voice, epoch).await);
    }
    let watcher = Person::viewer(&server, "room_id=six&name=Watcher").await;
    watcher.join().await;
    watcher
        .wait(&format!("talksy.remotes.length === {SPEAKERS}"))
        .await;

    let mut spoke = BTreeSet::new();
    let mut live = BTreeMap::new();
    let mut before = packets(&watcher).await;
    let mut measured = Instant::now();
    let end = measured + Duration::from_secs(25);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (now, passed) = (packets(&watcher).await, measured.elapsed());
        measured = Instant::now();
        let came: Vec<u64> = now
            .iter()
            .map(|(mid, packets)| packets - before.get(mid).unwrap_or(&0))
            .collect();
        // 50 packets a second each; browsers sample a little later than they say.
        let most = 3.0 * 50.0 * (passed.as_secs_f32() + 0.4);
        assert!(
            (came.iter().sum::<u64>() as f32) < most,
            "{came:?} in {passed:?}"
        );
        *live
            .entry(came.iter().filter(|count| **count > 30).count())
            .or_insert(0) += 1;
        before = now;
        let marked = "[...document.querySelectorAll('#remotes .active-speaker')].map(t => t.dataset.clientId)";
        let both = format!("JSON.stringify([{marked}, __bench.last.active_speaker?.client_id])");
        let marked = watcher.value(&both).await;
        let marked: (Vec<String>, Option<String>) =
            serde_json::from_str(marked.as_str().unwrap()).unwrap();
        assert_eq!(marked.0, marked.1.iter().cloned().collect::<Vec<_>>());
        spoke.extend(marked.1);
    }
    println!("figure streams_live_seconds {live:?}");
    assert!(live.keys().all(|count| *count <= 3), "{live:?}");
    assert_eq!(
        spoke.len(),
        SPEAKERS as usize,
        "everybody had the floor once"
    );
    let inbound = watcher.inbound().await;
    for track in of_kind(&inbound, "audio") {
        assert_eq!(
            (&track["nacks"], &track["lost"]),
            (&0.into(), &0.into()),
            "{track}"
        );
        assert!(
            track["packets"].as_u64() > Some(100),
            "each was heard: {track}"
        );
    }
    for speaker in speakers {
        speaker.leave().await.unwrap();
    }
    watcher.close_in_good_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_floor_follows_the_speakers_and_not_one_who_claims_to_be_loudest() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let epoch = Instant::now();
    let mut speakers = Vec::new();
    for index in 0..3 {
        let voice = tokio::task::spawn_blocking(move || turn(index, 3))
            .await
            .unwrap();
        speakers.push(speaker(&server, "floor", "Speaker", voice, epoch).await);
    }
    let liar = tokio::task::spawn_blocking(|| {
        let silence = Sound::Tone { hz: 440.0 };
        VoiceLoop::encode(silence, Turns::Always)
            .unwrap()
            .claiming(0)
    });
    let liar = speaker(&server, "floor", "Liar", liar.await.unwrap(), epoch).await;
    let id = |participant: &Participant| participant.observed().client_id.unwrap();
    let (liars, ids): (String, Vec<String>) = (id(&liar), speakers.iter().map(id).collect());
    // The claim is believed for its first three seconds at most.
    let mut floor: Vec<String> = Vec::new();
    let begun = Instant::now();
    let rounds = |floor: &[String], id: &String| floor.iter().filter(|told| *told == id).count();
    while ids.iter().any(|id| rounds(&floor, id) < 2) {
        // Elections are 300 ms apart: none is missed.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "{floor:?}");
        let seen = speakers[0].observed();
        let Some(told) = seen.last("active_speaker") else {
            continue;
        };
        let told = told["client_id"].as_str().unwrap().to_owned();
        let late = begun.elapsed() > Duration::from_secs(6);
        assert!(!late || told != liars, "the liar has the floor: {floor:?}");
        if floor.last() != Some(&told) {
            floor.push(told);
        }
    }
    let seen = speakers[0].observed();
    let changes = seen.message_counts["active_speaker"];
    assert!(
        changes <= floor.len() as u64 + 1,
        "on change only: {changes} for {floor:?}"
    );
    let voices = seen.message_counts.get("voice_detected").copied();
    assert!(
        voices >= Some(8),
        "beginnings and ends of the two others: {voices:?}"
    );
    let own = |data: &Value| data["stream_id"].is_string() && data["packets"].is_array();
    assert!(own(seen.last("voice_detected").unwrap()));
    for speaker in speakers {
        speaker.leave().await.unwrap();
    }
    liar.leave().await.unwrap();
}
