//! The rules of a room, in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::room::channel::ChannelReport;
use crate::room::{AudioMode, LayoutRequest, ModeReason, Quality, TrackRef};
use crate::rtp::params::{Codec, Ssrc};
use crate::worker::{LayoutKind, PublishedTrack, Renegotiation, SPEAKING_HOLD, VoiceReport};

mod audio;
mod presence;
mod random;

const ANN: PeerId = PeerId(1);
const BEN: PeerId = PeerId(2);
const CEM: PeerId = PeerId(3);

/// A room with a clock and a record of what it wanted.
struct Bench {
    room: Room,
    now: Instant,
    commands: Vec<Command>,
    notices: Vec<(PeerId, Notice)>,
}

impl Bench {
    fn new() -> Self {
        Bench::with_limits(Limits {
            peers_per_room: 3,
            tracks_per_peer: 2,
            empty_for: Duration::from_secs(60),
            voices: Default::default(),
            gone_after: Duration::from_secs(10),
        })
    }

    fn with_limits(limits: Limits) -> Self {
        let now = Instant::now();
        Bench {
            room: Room::new(RoomKey(7), limits, now),
            now,
            commands: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Command(command) => self.commands.push(command),
                Output::Notify(peer, notice) => self.notices.push((peer, notice)),
            }
        }
    }

    fn join_with(&mut self, peer: PeerId, mode: Mode, publish: bool) -> Result<(), JoinError> {
        self.join_as(peer, mode, AudioMode::Forwarded, publish)
    }

    fn join_as(
        &mut self,
        peer: PeerId,
        mode: Mode,
        audio: AudioMode,
        publish: bool,
    ) -> Result<(), JoinError> {
        let request = JoinRequest {
            name: None,
            mode,
            audio,
            publish,
            max_receive_bps: None,
            canvas: None,
        };
        let joined = self.room.handle_join(self.now, peer, request);
        self.drain();
        joined
    }

    fn join(&mut self, peer: PeerId) {
        self.join_with(peer, Mode::Sfu, true)
            .expect("there is place");
    }

    fn connect(&mut self, peer: PeerId) {
        self.event(Event::Connected { peer });
    }

    fn event(&mut self, event: Event) {
        self.room.handle_event(self.now, event);
        self.drain();
    }

    fn request(&mut self, peer: PeerId, request: Request) {
        self.room.handle_request(self.now, peer, request);
        self.drain();
    }

    fn leave(&mut self, peer: PeerId) {
        self.room.handle_leave(self.now, peer);
        self.drain();
    }

    fn publish(&mut self, peer: PeerId, key: u64, id: &str) {
        self.publish_kind(peer, key, id, MediaKind::Video);
    }

    fn publish_kind(&mut self, peer: PeerId, key: u64, id: &str, kind: MediaKind) {
        let codec = match kind {
            MediaKind::Audio => Codec::Opus,
            MediaKind::Video => Codec::H264,
        };
        let track = PublishedTrack {
            key: TrackKey(key),
            track_id: id.into(),
            stream_id: format!("stream of {id}"),
            kind,
            codec,
            simulcast: false,
        };
        self.event(Event::TrackPublished { peer, track });
    }

    fn type_as(&mut self, peer: PeerId, id: &str, source: SourceType) {
        self.request(peer, Request::TrackTypes(vec![(id.into(), source)]));
    }

    fn subscribe(&mut self, peer: PeerId, tracks: &[(PeerId, &str)]) {
        let tracks = tracks
            .iter()
            .map(|(client, track)| TrackRef {
                client_id: client.to_string(),
                track_id: (*track).to_owned(),
            })
            .collect();
        self.request(peer, Request::Subscribe(tracks));
    }

    /// Lets time pass, with every timeout at its instant.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.room.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            if self.room.expired(self.now) {
                break;
            }
            self.room.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// What a member was told since the last time, without the roster.
    fn told(&mut self, peer: PeerId) -> Vec<Notice> {
        let mut told = Vec::new();
        self.notices.retain(|(to, notice)| {
            if *to == peer {
                told.push(notice.clone());
            }
            *to != peer
        });
        told.retain(|notice| !matches!(notice, Notice::Peers(_)));
        told
    }

    fn available_to(&mut self, peer: PeerId) -> Vec<Vec<String>> {
        let told = self.told(peer);
        told.into_iter()
            .filter_map(|notice| match notice {
                Notice::TracksAvailable(tracks) => {
                    Some(tracks.into_iter().map(|t| t.track_id).collect())
                }
                _ => None,
            })
            .collect()
    }

    fn error_to(&mut self, peer: PeerId) -> String {
        match self.told(peer).as_slice() {
            [Notice::Error(text)] => text.clone(),
            other => panic!("not one error but {other:?}"),
        }
    }

    fn last_roster(&self) -> Vec<(PeerId, String, bool, bool)> {
        let last = self.notices.iter().rev().find_map(|(_, n)| match n {
            Notice::Peers(peers) => Some(peers.clone()),
            _ => None,
        });
        last.expect("a roster was sent")
            .iter()
            .map(|p| (p.client_id, p.name.clone(), p.speaking, p.muted))
            .collect()
    }

    fn take_commands(&mut self) -> Vec<String> {
        self.commands.drain(..).map(|c| format!("{c:?}")).collect()
    }
}

/// Ann and Ben, both connected, with nothing left to be told.
fn two_connected() -> Bench {
    let mut bench = Bench::new();
    for peer in [ANN, BEN] {
        bench.join(peer);
        bench.connect(peer);
    }
    bench.pass(Duration::from_secs(1));
    bench.notices.clear();
    bench.commands.clear();
    bench
}

#[test]
fn the_welcome_is_the_first_notice_and_names_count_up() {
    let mut bench = Bench::new();
    bench.join(ANN);
    bench.join(BEN);
    for (peer, guest) in [(ANN, "Guest 1"), (BEN, "Guest 2")] {
        assert_eq!(
            bench.told(peer),
            [Notice::Welcome {
                name: guest.into(),
                delivery: Delivery::Forward
            }]
        );
    }
}

#[test]
fn a_full_room_refuses_and_has_place_again_after_a_leave() {
    let mut bench = Bench::new();
    for peer in [ANN, BEN, CEM] {
        bench.join(peer);
    }
    let late = PeerId(4);
    assert_eq!(
        bench.join_with(late, Mode::Sfu, true),
        Err(JoinError::RoomFull(3))
    );
    assert_eq!(
        bench.join_with(ANN, Mode::Sfu, true),
        Err(JoinError::Duplicate)
    );
    bench.leave(BEN);
    assert_eq!(bench.join_with(late, Mode::Sfu, true), Ok(()));
}

#[test]
fn only_a_client_that_does_not_publish_lets_the_server_offer_first() {
    let mut bench = Bench::new();
    for (peer, mode, publish) in [
        (ANN, Mode::Sfu, true),
        (BEN, Mode::Mcu, true),
        (CEM, Mode::Mcu, false),
    ] {
        bench.join_with(peer, mode, publish).expect("place");
    }
    let first: Vec<bool> = bench
        .commands
        .iter()
        .filter_map(|c| match c {
            Command::AddPeer { params, .. } => Some(params.client_offers_first),
            _ => None,
        })
        .collect();
    assert_eq!(first, [true, true, false]);
}

#[test]
fn tracks_are_available_once_typed_and_only_to_connected_others() {
    let mut bench = two_connected();
    bench.join(CEM);
    bench.told(CEM);
    bench.publish(ANN, 1, "cam");
    assert_eq!(bench.told(ANN), [Notice::TracksAdded(vec!["cam".into()])]);
    assert_eq!(bench.available_to(BEN), Vec::<Vec<String>>::new());
    bench.type_as(ANN, "cam", SourceType::Screen);
    let told = bench.told(BEN);
    let [Notice::TracksAvailable(tracks)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(
        tracks.as_slice(),
        [AvailableTrack {
            client_id: ANN,
            client_name: "Guest 1".into(),
            track_id: "cam".into(),
            stream_id: "stream of cam".into(),
            source: SourceType::Screen,
            kind: MediaKind::Video,
            is_simulcast: false
        }]
    );
    assert_eq!(bench.told(ANN), []);
    assert_eq!(bench.told(CEM), [], "not connected yet");
    bench.connect(CEM);
    assert_eq!(bench.available_to(CEM), [["cam"]]);
    bench.connect(CEM);
    assert_eq!(
        bench.available_to(CEM),
        Vec::<Vec<String>>::new(),
        "told once"
    );
}

#[test]
fn a_track_that_is_never_typed_is_media_after_two_seconds() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.pass(UNTYPED_FOR - Duration::from_millis(1));
    assert_eq!(bench.available_to(BEN), Vec::<Vec<String>>::new());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.available_to(BEN), [["cam"]]);
    assert!(
        bench
            .take_commands()
            .iter()
            .any(|c| c.contains("SetSource") && c.contains("Media"))
    );
}

#[test]
fn typing_a_track_twice_tells_the_others_only_of_a_change() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.type_as(ANN, "cam", SourceType::Media);
    bench.type_as(ANN, "cam", SourceType::Media);
    assert_eq!(bench.available_to(BEN).len(), 1);
    bench.type_as(ANN, "cam", SourceType::Screen);
    assert_eq!(bench.available_to(BEN).len(), 1);
}

#[test]
fn music_is_media_to_the_others_and_only_sound_can_be_music() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.told(ANN);
    bench.type_as(ANN, "cam", SourceType::Music);
    assert_eq!(
        bench.error_to(ANN),
        "tracks_added: only sound can be music, and this is a picture: cam"
    );
    let told = bench.told(BEN);
    let [Notice::TracksAvailable(tracks)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(tracks[0].source, SourceType::Media);
    bench.publish_kind(ANN, 2, "flute", MediaKind::Audio);
    bench.told(ANN);
    bench.take_commands();
    bench.type_as(ANN, "flute", SourceType::Music);
    assert_eq!(bench.told(ANN), []);
    let commands = bench.take_commands();
    assert!(
        commands
            .iter()
            .any(|c| c.contains("SetSource") && c.contains("Music")),
        "{commands:?}"
    );
}

#[test]
fn typing_a_track_that_is_not_published_names_it() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.type_as(BEN, "cam", SourceType::Media);
    assert_eq!(
        bench.error_to(BEN),
        "tracks_added: you publish no track cam"
    );
}

#[test]
fn publishers_with_the_same_track_id_are_told_apart() {
    let mut bench = two_connected();
    bench.join(CEM);
    bench.publish(ANN, 1, "same");
    bench.publish(BEN, 2, "same");
    bench.pass(UNTYPED_FOR);
    bench.connect(CEM);
    assert_eq!(
        bench.available_to(CEM),
        [["same"], ["same"]],
        "two messages: the map is keyed by track id"
    );
    bench.take_commands();
    bench.subscribe(CEM, &[(BEN, "same")]);
    let commands = bench.take_commands();
    assert_eq!(commands.len(), 1);
    assert!(commands[0].contains("TrackKey(2)"), "{commands:?}");
}

#[test]
fn subscribing_passes_on_what_exists_and_names_what_does_not() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.publish(BEN, 2, "own");
    bench.pass(UNTYPED_FOR);
    bench.told(BEN);
    bench.take_commands();
    bench.subscribe(
        BEN,
        &[
            (ANN, "cam"),
            (ANN, "cam"),
            (BEN, "own"),
            (CEM, "x"),
            (ANN, "own"),
        ],
    );
    assert_eq!(
        bench.take_commands(),
        ["Subscribe { peer: peer 0000000000000002, tracks: [TrackKey(1)] }"]
    );
    let told = bench.told(BEN);
    let [Notice::Error(own), Notice::Error(unknown)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(own, "subscribe_tracks: your own track own");
    assert!(
        unknown.contains("x of client 0000000000000003"),
        "{unknown}"
    );
    assert!(
        unknown.contains("own of client 0000000000000001"),
        "{unknown}"
    );
}

#[test]
fn a_flood_of_subscriptions_is_refused_as_a_whole() {
    let mut bench = two_connected();
    let track = TrackRef {
        client_id: ANN.to_string(),
        track_id: "x".into(),
    };
    bench.request(BEN, Request::Subscribe(vec![track; MAX_SUBSCRIBE + 1]));
    assert!(bench.error_to(BEN).contains("1024"));
    assert_eq!(bench.take_commands(), Vec::<String>::new());
}

#[test]
fn tracks_beyond_the_limit_are_kept_out_and_their_publisher_is_told() {
    let mut bench = two_connected();
    for key in 1..=3 {
        bench.publish(ANN, key, &format!("t{key}"));
    }
    let told = bench.told(ANN);
    assert!(
        matches!(&told[2], Notice::Error(text) if text.contains("t3")),
        "{told:?}"
    );
    assert_eq!(
        bench.take_commands(),
        ["SetMuted { track: TrackKey(3), muted: true }"]
    );
    bench.pass(UNTYPED_FOR);
    assert_eq!(bench.available_to(BEN), [["t1", "t2"]]);
}

#[test]
fn a_mixed_member_gets_no_tracks_and_may_not_subscribe() {
    let mut bench = two_connected();
    bench.join_with(CEM, Mode::Mcu, false).expect("place");
    bench.connect(CEM);
    bench.publish(ANN, 1, "cam");
    bench.pass(UNTYPED_FOR);
    assert_eq!(bench.available_to(CEM), Vec::<Vec<String>>::new());
    bench.take_commands();
    bench.subscribe(CEM, &[(ANN, "cam")]);
    assert!(bench.error_to(CEM).contains("mcu"));
    assert_eq!(bench.take_commands(), Vec::<String>::new());
}

#[test]
fn switching_changes_the_delivery_and_brings_the_tracks_back() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.pass(UNTYPED_FOR);
    bench.subscribe(BEN, &[(ANN, "cam")]);
    bench.told(BEN);
    bench.take_commands();
    let reason = ModeReason::Requested;
    bench.request(BEN, Request::SwitchMode(Mode::Mcu));
    let delivery = Delivery::Mixed;
    assert_eq!(bench.told(BEN), [Notice::Mode { delivery, reason }]);
    bench.request(BEN, Request::SwitchMode(Mode::Sfu));
    let told = bench.told(BEN);
    let delivery = Delivery::Forward;
    assert_eq!(told[0], Notice::Mode { delivery, reason });
    assert!(matches!(&told[1], Notice::TracksAvailable(tracks) if tracks.len() == 1));
    assert_eq!(bench.take_commands().len(), 2);
    // Asking again is confirmed, and does nothing.
    bench.request(BEN, Request::SwitchMode(Mode::Sfu));
    assert_eq!(bench.told(BEN), [Notice::Mode { delivery, reason }]);
    assert_eq!(bench.take_commands(), Vec::<String>::new());
}

#[test]
fn auto_is_refused_truthfully_and_changes_nothing() {
    let mut bench = two_connected();
    bench.request(BEN, Request::SwitchMode(Mode::Auto));
    assert!(bench.error_to(BEN).contains("not available yet"));
    assert_eq!(bench.take_commands(), Vec::<String>::new());
    bench.join_with(CEM, Mode::Auto, true).expect("place");
    let told = bench.told(CEM);
    assert!(matches!(
        told.as_slice(),
        [
            Notice::Welcome {
                delivery: Delivery::Forward,
                ..
            },
            Notice::Error(_)
        ]
    ));
}

#[test]
fn a_layout_goes_to_the_worker_for_the_whole_room() {
    let mut bench = two_connected();
    bench.publish_kind(BEN, 1, "camera", MediaKind::Video);
    bench.pass(UNTYPED_FOR);
    bench.take_commands();
    let kinds = [LayoutKind::Grid, LayoutKind::Speaker, LayoutKind::Screen];
    for kind in kinds {
        bench.request(ANN, Request::Layout(LayoutRequest { kind, pinned: None }));
    }
    let pin = |pinned: &str| {
        Request::Layout(LayoutRequest {
            kind: LayoutKind::Pinned,
            pinned: Some(pinned.to_owned()),
        })
    };
    bench.request(ANN, pin(&BEN.to_string()));
    let wishes: Vec<_> = bench
        .commands
        .drain(..)
        .filter_map(|command| match command {
            Command::SetLayout { wish, .. } => Some((wish.kind, wish.pinned)),
            _ => None,
        })
        .collect();
    let mut expected: Vec<_> = kinds.into_iter().map(|kind| (kind, None)).collect();
    expected.push((LayoutKind::Pinned, Some(BEN)));
    assert_eq!(wishes, expected);
}

#[test]
fn a_layout_that_cannot_be_is_refused_with_its_reason() {
    let mut bench = two_connected();
    let mut refusal = |pinned: Option<String>| {
        let kind = LayoutKind::Pinned;
        bench.request(ANN, Request::Layout(LayoutRequest { kind, pinned }));
        bench.error_to(ANN)
    };
    assert!(refusal(None).contains("needs the client id"));
    assert!(refusal(Some("nobody".into())).contains("no client nobody"));
    assert!(refusal(Some("7".repeat(5000))).len() < 300);
    assert!(refusal(Some(BEN.to_string())).contains("publishes nothing"));
}

#[test]
fn muting_reaches_the_worker_once_and_the_roster() {
    let mut bench = two_connected();
    bench.publish_kind(ANN, 1, "mic", MediaKind::Audio);
    bench.pass(UNTYPED_FOR);
    bench.take_commands();
    for _ in 0..2 {
        let (track_id, muted) = ("mic".to_owned(), true);
        bench.request(ANN, Request::Mute { track_id, muted });
    }
    assert_eq!(
        bench.take_commands(),
        ["SetMuted { track: TrackKey(1), muted: true }"]
    );
    bench.pass(Duration::from_secs(1));
    let muted: Vec<bool> = bench.last_roster().iter().map(|p| p.3).collect();
    assert_eq!(muted, [true, false]);
    bench.told(BEN);
    let (track_id, muted) = ("mic".to_owned(), true);
    bench.request(BEN, Request::Mute { track_id, muted });
    assert!(bench.error_to(BEN).contains("mic"), "it is Ann's");
}

#[test]
fn speaking_shows_in_the_roster_at_most_ten_times_a_second() {
    let mut bench = two_connected();
    for i in 0..100 {
        let (peer, speaking) = (ANN, i % 2 == 0);
        bench.event(Event::Speaking { peer, speaking });
        bench.pass(Duration::from_millis(10));
    }
    let rosters = bench.notices.len();
    assert!((18..=22).contains(&rosters), "{rosters} for two members");
    let (peer, speaking) = (ANN, true);
    bench.event(Event::Speaking { peer, speaking });
    bench.pass(Duration::from_secs(1));
    assert!(bench.last_roster()[0].2, "the last change is told");
}

#[test]
fn voice_activity_is_the_time_spoken() {
    let mut bench = two_connected();
    let voice = |speaking| Event::Speaking {
        peer: ANN,
        speaking,
    };
    bench.event(voice(true));
    bench.event(voice(true));
    bench.pass(Duration::from_secs(3));
    bench.event(voice(false));
    bench.pass(Duration::from_secs(5));
    bench.event(voice(true));
    bench.pass(Duration::from_secs(1));
    let snapshot = bench.room.snapshot(bench.now);
    assert_eq!(snapshot.peers[0].voice_activity, Duration::from_secs(4));
}

fn voice(speaking: bool) -> Event {
    let report = VoiceReport {
        track_id: "mic".into(),
        stream_id: "s".into(),
        ssrc: Ssrc(7),
        clock_rate: 48_000,
        speaking,
        packets: Vec::new(),
    };
    let (peer, report) = (ANN, Arc::new(report));
    Event::Voice { peer, report }
}

#[test]
fn a_voice_is_told_to_the_others_and_its_last_silence_is_no_voice() {
    let mut bench = two_connected();
    bench.told(BEN);
    bench.event(voice(true));
    bench.event(Event::Speaking {
        peer: ANN,
        speaking: true,
    });
    let heard = |notices: &[Notice]| {
        let voices = notices.iter().filter_map(|notice| match notice {
            Notice::Voice(report) => Some(report.speaking),
            _ => None,
        });
        voices.collect::<Vec<bool>>()
    };
    assert_eq!(heard(&bench.told(BEN)), [true]);
    bench.pass(Duration::from_secs(3));
    bench.event(voice(false));
    bench.event(Event::Speaking {
        peer: ANN,
        speaking: false,
    });
    assert_eq!(heard(&bench.told(BEN)), [false]);
    assert!(heard(&bench.told(ANN)).is_empty());
    let snapshot = bench.room.snapshot(bench.now);
    let spoken = snapshot.peers[0].voice_activity;
    assert_eq!(spoken, Duration::from_secs(3) - SPEAKING_HOLD);
}

#[test]
fn the_active_speaker_is_told_on_change_to_newcomers_and_when_it_leaves() {
    let mut bench = two_connected();
    bench.told(ANN);
    let told = |bench: &mut Bench, peer| {
        let notices = bench.told(peer);
        let speakers = notices.into_iter().filter_map(|notice| match notice {
            Notice::ActiveSpeaker(speaker) => Some(speaker),
            _ => None,
        });
        speakers.collect::<Vec<_>>()
    };
    bench.event(Event::ActiveSpeaker { peer: BEN });
    bench.event(Event::ActiveSpeaker { peer: BEN });
    assert_eq!(told(&mut bench, ANN), [Some(BEN)]);
    bench.join(CEM);
    bench.connect(CEM);
    assert_eq!(told(&mut bench, CEM), [Some(BEN)]);
    bench.leave(BEN);
    assert_eq!(told(&mut bench, ANN), [None]);
    bench.event(Event::ActiveSpeaker { peer: BEN });
    assert!(told(&mut bench, ANN).is_empty(), "it has left");
}

#[test]
fn a_lost_connection_takes_the_tracks_and_keeps_the_member() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.pass(UNTYPED_FOR);
    bench.take_commands();
    bench.event(Event::Disconnected {
        peer: ANN,
        reason: "test".into(),
    });
    assert_eq!(
        bench.take_commands(),
        ["RemovePeer { peer: peer 0000000000000001 }"]
    );
    assert_eq!(bench.room.member_count(), 2);
    bench.told(BEN);
    bench.subscribe(BEN, &[(ANN, "cam")]);
    assert!(bench.error_to(BEN).contains("cam"));
    bench.told(ANN);
    bench.request(ANN, Request::Candidate("candidate:1".into()));
    assert!(bench.error_to(ANN).contains("offer"));
    bench.request(ANN, Request::AskRenegotiation);
    assert_eq!(
        bench.told(ANN),
        [Notice::Renegotiation(Renegotiation::Allowed)]
    );
    // A new offer begins anew: the worker gets the peer first, and tracks are told again.
    bench.request(ANN, Request::Offer("v=0".into()));
    let commands = bench.take_commands();
    assert!(commands[0].starts_with("AddPeer"), "{commands:?}");
    assert!(
        commands[0].contains("client_offers_first: true"),
        "{commands:?}"
    );
    assert!(commands[1].starts_with("Offer"), "{commands:?}");
    bench.publish(BEN, 2, "cam of Ben");
    bench.pass(UNTYPED_FOR);
    bench.connect(ANN);
    assert_eq!(bench.available_to(ANN), [["cam of Ben"]]);
}

#[test]
fn chat_reaches_everybody_with_its_author() {
    let mut bench = two_connected();
    let (text, at) = ("hello".to_owned(), 5);
    bench.request(ANN, Request::Chat { text, at });
    for peer in [ANN, BEN] {
        let (from, text) = (ANN, "hello".to_owned());
        assert_eq!(bench.told(peer), [Notice::Chat { from, text, at }]);
    }
}

#[test]
fn nothing_of_a_stranger_has_any_effect() {
    let mut bench = two_connected();
    bench.request(CEM, Request::Offer("v=0".into()));
    bench.connect(CEM);
    bench.publish(CEM, 9, "ghost");
    bench.event(Event::TrackEnded {
        peer: BEN,
        track: TrackKey(9),
    });
    bench.leave(CEM);
    bench.pass(UNTYPED_FOR);
    assert!(bench.notices.is_empty(), "{:?}", bench.notices);
    assert!(bench.commands.is_empty(), "{:?}", bench.commands);
}

#[test]
fn a_peer_cannot_end_the_track_of_another() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.event(Event::TrackEnded {
        peer: BEN,
        track: TrackKey(1),
    });
    bench.pass(UNTYPED_FOR);
    assert_eq!(bench.available_to(BEN), [["cam"]]);
}

#[test]
fn a_delivered_track_is_named_by_its_publisher_and_the_mix_by_nobody() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    for key in [1, 1000] {
        bench.event(Event::Delivered {
            peer: BEN,
            track: TrackKey(key),
            mid: "3".into(),
        });
    }
    let told = bench.told(BEN);
    assert!(matches!(&told[0], Notice::Delivered(t) if t.client_id == Some(ANN) && t.mid == "3"));
    assert!(matches!(&told[1], Notice::Delivered(t) if t.client_id.is_none()));
}

#[test]
fn a_limit_on_receiving_is_passed_on_and_outlives_a_lost_connection() {
    let mut bench = two_connected();
    bench.request(ANN, Request::ReceiveLimit(Some(120_000)));
    assert_eq!(
        bench.take_commands(),
        ["SetReceiveLimit { peer: peer 0000000000000001, bps: Some(120000) }"]
    );
    bench.event(Event::Disconnected {
        peer: ANN,
        reason: "test".into(),
    });
    bench.take_commands();
    bench.request(ANN, Request::Offer("v=0".into()));
    assert!(bench.take_commands()[0].contains("max_receive_bps: Some(120000)"));
}

#[test]
fn bounds_of_quality_and_sending_are_passed_on_and_outlive_a_lost_connection() {
    let mut bench = two_connected();
    bench.request(ANN, Request::SwitchQuality(Quality::None));
    bench.request(ANN, Request::PublishBandwidth(500_000));
    let bounds = [
        "SetTarget { peer: peer 0000000000000001, target: Paused }",
        "SetPublishLimit { peer: peer 0000000000000001, bps: Some(500000) }",
    ];
    assert_eq!(bench.take_commands(), bounds);
    bench.event(Event::Disconnected {
        peer: ANN,
        reason: "test".into(),
    });
    bench.take_commands();
    bench.request(ANN, Request::SwitchQuality(Quality::None));
    assert!(bench.take_commands().is_empty(), "nobody to tell");
    bench.request(ANN, Request::Offer("v=0".into()));
    assert_eq!(bench.take_commands()[1..3], bounds);
    let layer = |spatial, temporal| Quality::Layer { spatial, temporal };
    for (quality, meant) in [
        (layer(1, Some(0)), "UpTo { layer: Layer(1), temporal: 0 }"),
        (layer(0, None), "UpTo { layer: Layer(0), temporal: 255 }"),
        (layer(2, Some(2)), "UpTo { layer: Layer(2), temporal: 2 }"),
    ] {
        bench.request(ANN, Request::SwitchQuality(quality));
        assert!(bench.take_commands()[0].contains(meant), "{meant}");
    }
    bench.request(ANN, Request::PublishBandwidth(0));
    assert!(bench.take_commands()[0].contains("bps: None"));
}

#[test]
fn the_size_of_an_element_is_that_of_the_subscribed_track() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.type_as(ANN, "cam", SourceType::Media);
    let size = |track_id: &str| {
        Request::Report(ChannelReport::VideoSize {
            track_id: track_id.into(),
            width: 320,
            height: 180,
        })
    };
    bench.take_commands();
    bench.request(BEN, size("cam"));
    assert!(bench.take_commands().is_empty(), "not subscribed");
    bench.subscribe(BEN, &[(ANN, "cam")]);
    bench.take_commands();
    bench.request(BEN, size("cam"));
    let commands = bench.take_commands();
    assert!(commands[0].starts_with("SetVideoSize"), "{commands:?}");
    assert!(commands[0].ends_with("width: 320, height: 180 }"));
    bench.request(BEN, size("other"));
    assert!(bench.take_commands().is_empty());
}

#[test]
fn the_mixed_picture_is_measured_and_adjusted_under_its_own_name() {
    let mut bench = two_connected();
    bench.take_commands();
    bench.request(
        BEN,
        Request::Report(ChannelReport::VideoSize {
            track_id: "mixed-video".into(),
            width: 800,
            height: 450,
        }),
    );
    let commands = bench.take_commands();
    assert!(commands[0].starts_with("SetPictureSize"), "{commands:?}");
    bench.told(BEN);
    bench.event(Event::PictureAdjusted {
        peer: BEN,
        bitrate: 200_000,
    });
    let adjusted = Notice::BitrateAdjusted {
        track_id: "mixed-video".into(),
        bitrate: 200_000,
    };
    assert!(bench.told(BEN).contains(&adjusted));
}

#[test]
fn what_the_worker_adjusts_is_told_by_the_publishers_id() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "cam");
    bench.told(BEN);
    for track in [TrackKey(1), TrackKey(1000)] {
        bench.event(Event::BitrateAdjusted {
            peer: BEN,
            track,
            bitrate: 150_000,
        });
    }
    bench.event(Event::NetworkCondition {
        peer: BEN,
        stable: false,
    });
    let adjusted = Notice::BitrateAdjusted {
        track_id: "cam".into(),
        bitrate: 150_000,
    };
    let told = bench.told(BEN);
    assert!(told.contains(&adjusted), "{told:?}");
    assert!(told.contains(&Notice::NetworkCondition { stable: false }));
}

#[test]
fn an_empty_room_expires_after_its_time_and_not_while_somebody_is_in() {
    let mut bench = Bench::new();
    bench.pass(Duration::from_secs(59));
    assert!(!bench.room.expired(bench.now));
    bench.join(ANN);
    bench.pass(Duration::from_secs(600));
    assert!(!bench.room.expired(bench.now));
    bench.leave(ANN);
    bench.pass(Duration::from_secs(59));
    assert!(!bench.room.expired(bench.now));
    bench.pass(Duration::from_secs(1));
    assert!(bench.room.expired(bench.now));
}
