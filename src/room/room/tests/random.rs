//! Random sequences: membership, tracks and subscriptions stay consistent (design, invariant 7).

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What a worker would hold, made from the commands alone.
#[derive(Default)]
struct WorkerModel {
    peers: BTreeMap<PeerId, Delivery>,
    /// Published tracks and their publishers, until the worker or the peer ends them.
    tracks: BTreeMap<TrackKey, (PeerId, MediaKind)>,
    subscriptions: BTreeSet<(PeerId, TrackKey)>,
    /// Tracks that it has ended by itself, of which the room has not heard.
    suspended: Vec<(PeerId, TrackKey)>,
}

impl WorkerModel {
    /// Carries out a command and checks that it makes sense to a worker.
    fn apply(&mut self, command: Command) {
        match command {
            Command::AddPeer { peer, params, .. } => {
                let before = self.peers.insert(peer, params.delivery);
                assert_eq!(before, None, "{peer:?} was added twice");
            }
            Command::RemovePeer { peer } => {
                // The worker forgets a lost peer by itself, so it may be gone already.
                self.remove(peer);
            }
            Command::Subscribe { peer, tracks } => {
                let delivery = self.peers[&peer];
                for track in tracks {
                    let (owner, kind) = self.tracks.get(&track).expect("the track exists");
                    assert_ne!(*owner, peer, "nobody gets their own track");
                    assert!(delivery.forwards(*kind), "{kind:?} in {delivery:?}");
                    self.subscriptions.insert((peer, track));
                }
            }
            Command::SetDelivery { peer, delivery } => {
                let before = self.peers.insert(peer, delivery);
                assert!(before.is_some_and(|b| b != delivery));
                let tracks = &self.tracks;
                let goes_on = |track: &TrackKey| delivery.forwards(tracks[track].1);
                self.subscriptions
                    .retain(|(p, track)| *p != peer || goes_on(track));
            }
            Command::SetSource { track, .. } | Command::SetMuted { track, .. } => {
                assert!(self.tracks.contains_key(&track), "the track exists");
            }
            Command::Offer { peer, .. }
            | Command::Answer { peer, .. }
            | Command::Candidate { peer, .. }
            | Command::AskRenegotiation { peer }
            | Command::RestartIce { peer }
            | Command::Restate { peer }
            | Command::SetReceiveLimit { peer, .. } => {
                assert!(self.peers.contains_key(&peer), "{peer:?} is known");
            }
            Command::Suspend { peer } => {
                assert!(self.peers.contains_key(&peer), "{peer:?} is known");
                let own: Vec<TrackKey> = self
                    .tracks
                    .iter()
                    .filter(|(_, (owner, _))| *owner == peer)
                    .map(|(track, _)| *track)
                    .collect();
                for track in own {
                    self.end(track);
                    self.suspended.push((peer, track));
                }
            }
            other => panic!("a room does not say {other:?}"),
        }
    }

    fn remove(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.tracks.retain(|_, (owner, _)| *owner != peer);
        let tracks = &self.tracks;
        self.subscriptions
            .retain(|(p, track)| *p != peer && tracks.contains_key(track));
    }

    fn end(&mut self, track: TrackKey) {
        self.tracks.remove(&track);
        self.subscriptions.retain(|(_, t)| *t != track);
    }
}

const PEERS: u64 = 6;
const TRACK_IDS: [&str; 3] = ["a", "b", "c"];

struct Run {
    bench: Bench,
    worker: WorkerModel,
    rng: StdRng,
    members: BTreeSet<PeerId>,
    next_track: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        Run {
            bench: Bench::with_limits(Limits {
                peers_per_room: 4,
                tracks_per_peer: 3,
                empty_for: Duration::from_secs(10),
                voices: Default::default(),
                gone_after: Duration::from_secs(10),
            }),
            worker: WorkerModel::default(),
            rng: StdRng::seed_from_u64(seed),
            members: BTreeSet::new(),
            next_track: 1,
        }
    }

    fn step(&mut self) {
        let peer = PeerId(self.rng.random_range(0..PEERS));
        match self.rng.random_range(0..19) {
            0 | 1 => self.join(peer),
            2 => {
                self.bench.leave(peer);
                self.members.remove(&peer);
            }
            3 | 4 => {
                if self.worker.peers.contains_key(&peer) {
                    self.bench.connect(peer);
                }
            }
            5 => {
                if self.worker.peers.contains_key(&peer) {
                    // The worker has forgotten the peer when it says so.
                    self.worker.remove(peer);
                    let reason = "random".to_owned();
                    self.bench.event(Event::Disconnected { peer, reason });
                }
            }
            6..=8 => self.publish(peer),
            9 => self.end_a_track(),
            10 | 11 => self.subscribe(peer),
            12 => {
                let mode = [Mode::Sfu, Mode::Mcu, Mode::Auto][self.rng.random_range(0..3)];
                self.bench.request(peer, Request::SwitchMode(mode));
            }
            13 => {
                let id = self.track_id();
                self.bench.type_as(peer, id, SourceType::Screen);
            }
            14 => {
                let (track_id, muted) = (self.track_id().to_owned(), self.rng.random());
                self.bench.request(peer, Request::Mute { track_id, muted });
            }
            15 => self.disturb(peer),
            16 => {
                let audio = self.audio();
                self.bench.request(peer, Request::SwitchAudio(audio));
            }
            _ => {
                let sdp = "v=0".to_owned();
                let request = match self.rng.random_range(0..4) {
                    0 => Request::Offer(sdp),
                    1 => Request::Answer(sdp),
                    2 => Request::AskRenegotiation,
                    _ => Request::ReceiveLimit(None),
                };
                self.bench.request(peer, request);
            }
        }
        let millis = self.rng.random_range(0..700);
        self.bench.pass(Duration::from_millis(millis));
        self.carry_out();
        self.check();
    }

    fn carry_out(&mut self) {
        for command in std::mem::take(&mut self.bench.commands) {
            self.worker.apply(command);
        }
        for (peer, track) in std::mem::take(&mut self.worker.suspended) {
            self.bench.event(Event::TrackEnded { peer, track });
        }
        assert!(self.bench.commands.is_empty(), "{:?}", self.bench.commands);
    }

    /// Something happens to the peer's socket or path.
    fn disturb(&mut self, peer: PeerId) {
        let heard = self.bench.now;
        let restate = self.rng.random();
        match self.rng.random_range(0..4) {
            0 => self.bench.request(peer, Request::SocketLost { heard }),
            1 => self.bench.request(peer, Request::SocketBack { restate }),
            _ if !self.worker.peers.contains_key(&peer) => {}
            2 => self.bench.event(Event::MediaSilent { peer }),
            _ => self.bench.event(Event::MediaHeard { peer }),
        }
    }

    fn join(&mut self, peer: PeerId) {
        let mode = [Mode::Sfu, Mode::Mcu][self.rng.random_range(0..2)];
        let (audio, publish) = (self.audio(), self.rng.random());
        match self.bench.join_as(peer, mode, audio, publish) {
            Ok(()) => assert!(self.members.insert(peer), "joined twice"),
            Err(JoinError::Duplicate) => assert!(self.members.contains(&peer)),
            Err(JoinError::RoomFull(limit)) => assert_eq!(self.members.len(), limit),
        }
    }

    fn publish(&mut self, peer: PeerId) {
        if self.worker.peers.contains_key(&peer) {
            let key = self.next_track;
            self.next_track += 1;
            let kind = [MediaKind::Audio, MediaKind::Video][self.rng.random_range(0..2)];
            self.worker.tracks.insert(TrackKey(key), (peer, kind));
            let id = self.track_id();
            self.bench.publish_kind(peer, key, id, kind);
        }
    }

    fn end_a_track(&mut self) {
        let count = self.worker.tracks.len();
        if count > 0 {
            let place = self.rng.random_range(0..count);
            let found = self.worker.tracks.iter().nth(place);
            let (track, peer) = found.map(|(t, (p, _))| (*t, *p)).expect("in range");
            self.worker.end(track);
            self.bench.event(Event::TrackEnded { peer, track });
        }
    }

    fn subscribe(&mut self, peer: PeerId) {
        let wanted: Vec<(PeerId, &str)> = (0..self.rng.random_range(1..5))
            .map(|_| (PeerId(self.rng.random_range(0..PEERS)), self.track_id()))
            .collect();
        self.bench.subscribe(peer, &wanted);
    }

    fn audio(&mut self) -> AudioMode {
        [AudioMode::Forwarded, AudioMode::Mixed][self.rng.random_range(0..2)]
    }

    fn track_id(&mut self) -> &'static str {
        TRACK_IDS[self.rng.random_range(0..TRACK_IDS.len())]
    }

    fn check(&self) {
        let room = &self.bench.room;
        let members: BTreeSet<PeerId> = room.members.keys().copied().collect();
        assert_eq!(members, self.members);
        assert!(members.len() <= room.limits.peers_per_room);
        assert_eq!(room.empty_since.is_some(), members.is_empty());
        for (key, track) in &room.tracks {
            let known = (track.owner, track.published.kind);
            assert_eq!(self.worker.tracks.get(key), Some(&known));
            assert!(room.members[&track.owner].published.contains(key));
        }
        for (id, member) in &room.members {
            assert!(member.published.len() <= room.limits.tracks_per_peer);
            assert!(member.published.iter().all(|k| room.tracks.contains_key(k)));
            assert_eq!(
                member.link != Link::Lost,
                self.worker.peers.contains_key(id)
            );
            let held: BTreeSet<TrackKey> = self
                .worker
                .subscriptions
                .iter()
                .filter(|(peer, _)| peer == id)
                .map(|(_, track)| *track)
                .collect();
            assert_eq!(member.subscribed, held, "subscriptions of {id:?}");
            if let Some(delivery) = self.worker.peers.get(id) {
                assert_eq!(member.delivery, *delivery);
            }
        }
    }
}

#[test]
fn random_sequences_keep_membership_and_subscriptions_consistent() {
    for seed in 0..60 {
        let mut run = Run::new(seed);
        for _ in 0..400 {
            run.step();
        }
        let members = run.members.clone();
        for peer in members {
            run.bench.leave(peer);
            run.members.remove(&peer);
        }
        run.carry_out();
        run.check();
        assert!(run.worker.peers.is_empty());
        assert!(run.bench.room.tracks.is_empty());
    }
}
