//! Forwarded clients that get the sound mixed.

use super::*;

/// Ann publishes a camera and a microphone; Ben gets her sound mixed and has subscribed to her picture.
fn ben_gets_mixed_audio() -> Bench {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.publish_kind(ANN, 2, "mic", MediaKind::Audio);
    bench.pass(UNTYPED_FOR);
    bench.request(BEN, Request::SwitchAudio(AudioMode::Mixed));
    bench.subscribe(BEN, &[(ANN, "cam")]);
    bench.notices.clear();
    bench.commands.clear();
    bench
}

fn mode(delivery: Delivery) -> Notice {
    let reason = ModeReason::Requested;
    Notice::Mode { delivery, reason }
}

#[test]
fn who_joins_with_mixed_audio_is_offered_pictures_only() {
    let mut bench = Bench::new();
    bench.join(ANN);
    bench.publish(ANN, 1, "cam");
    bench.publish_kind(ANN, 2, "mic", MediaKind::Audio);
    bench.pass(UNTYPED_FOR);
    bench
        .join_as(BEN, Mode::Sfu, AudioMode::Mixed, true)
        .expect("place");
    let [Notice::Welcome { delivery, .. }] = &bench.told(BEN)[..] else {
        panic!("no welcome");
    };
    assert_eq!(*delivery, Delivery::MixedAudio);
    bench.connect(BEN);
    assert_eq!(bench.available_to(BEN), [["cam"]]);
    // Of somebody who comes later, too: a sound or a screen's sound is no news for Ben, a picture is.
    bench.join(CEM);
    bench.connect(CEM);
    bench.publish_kind(CEM, 3, "voice", MediaKind::Audio);
    bench.type_as(CEM, "voice", SourceType::Screen);
    assert_eq!(bench.available_to(BEN), Vec::<Vec<String>>::new());
    bench.publish(CEM, 4, "face");
    bench.type_as(CEM, "face", SourceType::Media);
    assert_eq!(bench.available_to(BEN), [["face"]]);
}

#[test]
fn subscribing_to_a_sound_that_comes_mixed_is_an_error_that_says_why() {
    let mut bench = ben_gets_mixed_audio();
    bench.subscribe(BEN, &[(ANN, "mic"), (ANN, "cam")]);
    let error = bench.error_to(BEN);
    assert!(
        error.contains("audio=mixed") && error.contains("mic") && !error.contains("cam"),
        "{error}"
    );
    let [Command::Subscribe { tracks, .. }] = &bench.commands[..] else {
        panic!("{:?}", bench.commands);
    };
    assert_eq!(tracks, &[TrackKey(1)]);
}

#[test]
fn switching_the_audio_leaves_the_pictures_as_they_are() {
    let mut bench = ben_gets_mixed_audio();
    let mid = "3".to_owned();
    let (peer, track) = (BEN, TrackKey(1));
    bench.event(Event::Delivered { peer, track, mid });
    bench.told(BEN);
    bench.request(BEN, Request::SwitchAudio(AudioMode::Forwarded));
    let told = bench.told(BEN);
    assert_eq!(told[0], mode(Delivery::Forward));
    let [_, Notice::TracksAvailable(tracks)] = &told[..] else {
        panic!("{told:?}");
    };
    let ids: Vec<&str> = tracks.iter().map(|track| &*track.track_id).collect();
    assert_eq!(ids, ["mic"], "the picture flows already");
    bench.subscribe(BEN, &[(ANN, "mic")]);
    bench.request(BEN, Request::SwitchAudio(AudioMode::Mixed));
    assert_eq!(bench.told(BEN), [mode(Delivery::MixedAudio)]);
    let ben = &bench.room.members[&BEN];
    assert_eq!(ben.subscribed, BTreeSet::from([TrackKey(1)]));
    assert_eq!(ben.delivered.len(), 1);
    // Asking again is confirmed, and does nothing.
    bench.commands.clear();
    bench.request(BEN, Request::SwitchAudio(AudioMode::Mixed));
    assert_eq!(bench.told(BEN), [mode(Delivery::MixedAudio)]);
    assert_eq!(bench.take_commands(), Vec::<String>::new());
}

#[test]
fn the_wish_for_mixed_audio_outlives_a_time_in_mcu() {
    let mut bench = ben_gets_mixed_audio();
    bench.request(BEN, Request::SwitchMode(Mode::Mcu));
    assert_eq!(bench.told(BEN), [mode(Delivery::Mixed)]);
    bench.request(BEN, Request::SwitchMode(Mode::Sfu));
    let told = bench.told(BEN);
    assert_eq!(told[0], mode(Delivery::MixedAudio));
    assert!(matches!(&told[1], Notice::TracksAvailable(tracks) if tracks.len() == 1));
    // In mode mcu everything is mixed whatever is wished, and the last wish counts afterwards.
    bench.request(BEN, Request::SwitchMode(Mode::Mcu));
    bench.request(BEN, Request::SwitchAudio(AudioMode::Forwarded));
    assert_eq!(bench.told(BEN).last(), Some(&mode(Delivery::Mixed)));
    bench.request(BEN, Request::SwitchMode(Mode::Sfu));
    assert_eq!(bench.told(BEN)[0], mode(Delivery::Forward));
}

#[test]
fn a_connection_that_begins_anew_gets_the_sound_mixed_again() {
    let mut bench = ben_gets_mixed_audio();
    let reason = "gone".to_owned();
    bench.event(Event::Disconnected { peer: BEN, reason });
    bench.request(BEN, Request::Offer("v=0".to_owned()));
    let params = bench.commands.iter().find_map(|command| match command {
        Command::AddPeer { params, .. } => Some(params),
        _ => None,
    });
    let params = params.expect("the worker gets a new peer");
    assert_eq!(params.delivery, Delivery::MixedAudio);
}
