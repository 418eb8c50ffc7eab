//! Members whose socket or path breaks.

use super::*;
use crate::worker::MEDIA_SILENCE;

const GONE_AFTER: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(200);

impl Bench {
    fn socket_lost(&mut self, peer: PeerId) {
        let heard = self.now;
        self.request(peer, Request::SocketLost { heard });
    }

    fn socket_back(&mut self, peer: PeerId, restate: bool) {
        self.request(peer, Request::SocketBack { restate });
    }

    fn names(&self) -> Vec<PeerId> {
        self.last_roster().iter().map(|(id, ..)| *id).collect()
    }
}

#[test]
fn a_broken_socket_alone_changes_nothing_for_the_others() {
    let mut bench = two_connected();
    bench.socket_lost(ANN);
    bench.pass(Duration::from_secs(29));
    assert!(bench.notices.is_empty(), "{:?}", bench.notices);
    assert!(bench.commands.is_empty(), "{:?}", bench.commands);
}

#[test]
fn whoever_is_heard_no_way_at_all_is_gone_after_ten_seconds() {
    let mut bench = two_connected();
    bench.socket_lost(ANN);
    bench.pass(MEDIA_SILENCE);
    bench.event(Event::MediaSilent { peer: ANN });
    bench.pass(GONE_AFTER - MEDIA_SILENCE - MOMENT);
    assert!(bench.notices.is_empty() && bench.commands.is_empty());
    bench.pass(2 * MOMENT);
    assert_eq!(bench.names(), [BEN]);
    assert_eq!(
        bench.take_commands(),
        [format!("Suspend {{ peer: {ANN:?} }}")]
    );
}

#[test]
fn the_time_runs_from_what_came_last_over_either() {
    let mut bench = two_connected();
    bench.event(Event::MediaSilent { peer: ANN });
    bench.take_commands();
    bench.pass(Duration::from_secs(20));
    // The socket is found dead twelve seconds after its last frame.
    let heard = bench.now - Duration::from_secs(12);
    bench.request(ANN, Request::SocketLost { heard });
    bench.pass(MOMENT);
    assert_eq!(bench.names(), [BEN], "at once");
}

#[test]
fn a_client_that_comes_back_is_seen_again_and_keeps_what_it_has() {
    for by_socket in [true, false] {
        let mut bench = two_connected();
        bench.publish(BEN, 1, "bens");
        bench.type_as(BEN, "bens", SourceType::Media);
        bench.subscribe(ANN, &[(BEN, "bens")]);
        bench.event(Event::MediaSilent { peer: ANN });
        bench.socket_lost(ANN);
        bench.pass(GONE_AFTER + MOMENT);
        assert_eq!(bench.names(), [BEN]);
        if by_socket {
            bench.socket_back(ANN, false);
        } else {
            bench.event(Event::MediaHeard { peer: ANN });
        }
        bench.pass(MOMENT);
        assert_eq!(bench.names(), [ANN, BEN]);
        assert!(bench.room.members[&ANN].subscribed.contains(&TrackKey(1)));
    }
}

#[test]
fn a_silent_path_is_restarted_while_there_is_signalling_or_when_there_is_again() {
    let restart = format!("RestartIce {{ peer: {ANN:?} }}");
    let mut bench = two_connected();
    bench.event(Event::MediaSilent { peer: ANN });
    assert_eq!(bench.take_commands(), std::slice::from_ref(&restart));
    bench.event(Event::MediaHeard { peer: ANN });
    bench.socket_lost(ANN);
    bench.event(Event::MediaSilent { peer: ANN });
    assert!(bench.take_commands().is_empty());
    bench.socket_back(ANN, false);
    assert_eq!(bench.take_commands(), [restart]);
    bench.event(Event::MediaHeard { peer: ANN });
    bench.socket_lost(ANN);
    bench.socket_back(ANN, false);
    assert!(bench.take_commands().is_empty());
}

#[test]
fn whoever_missed_things_is_told_all_that_holds() {
    let mut bench = two_connected();
    bench.publish(ANN, 1, "anns");
    bench.publish(BEN, 2, "bens");
    bench.type_as(BEN, "bens", SourceType::Screen);
    bench.subscribe(ANN, &[(BEN, "bens")]);
    let (peer, track) = (ANN, TrackKey(2));
    let mid = "s1".to_owned();
    bench.event(Event::Delivered { peer, track, mid });
    bench.socket_lost(ANN);
    bench.pass(Duration::from_secs(1));
    bench.notices.clear();
    bench.take_commands();
    bench.socket_back(ANN, true);
    assert!(matches!(&bench.notices[0], (ANN, Notice::Peers(peers)) if peers.len() == 2));
    let told = bench.told(ANN);
    let [
        Notice::TracksAdded(own),
        Notice::Delivered(delivered),
        Notice::TracksAvailable(tracks),
    ] = told.as_slice()
    else {
        panic!("{told:?}");
    };
    assert_eq!(own, &["anns"]);
    assert_eq!(delivered.mid, "s1");
    assert_eq!(tracks.len(), 1);
    assert_eq!(
        bench.take_commands(),
        [format!("Restate {{ peer: {ANN:?} }}")]
    );
    // A track that has ended sits nowhere.
    bench.event(Event::TrackEnded { peer: BEN, track });
    bench.notices.clear();
    bench.socket_back(ANN, true);
    assert!(
        !bench
            .told(ANN)
            .iter()
            .any(|n| matches!(n, Notice::Delivered(_)))
    );
}

#[test]
fn places_that_are_only_kept_give_way_when_the_room_is_full() {
    let mut bench = two_connected();
    assert_eq!(bench.room.gives_way(), None);
    bench.join(CEM);
    assert_eq!(bench.room.gives_way(), None, "full, and everybody is there");
    bench.socket_lost(ANN);
    assert_eq!(bench.room.gives_way(), None, "her media flows");
    bench.pass(MOMENT);
    bench.socket_lost(CEM);
    assert_eq!(bench.room.gives_way(), Some(CEM));
    bench.event(Event::MediaSilent { peer: ANN });
    bench.pass(2 * GONE_AFTER);
    assert_eq!(
        bench.room.gives_way(),
        Some(ANN),
        "she has been away longer"
    );
}
