//! What a peer's link can take, put to use: layers for its forwarded tracks, a rung for its mixed picture, and what
//! it is told about that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::ids::{PeerId, TrackKey};
use crate::rtp::bwe::Estimator;
use crate::rtp::params::MediaKind;
use crate::sfu::{Allocator, Budget, Choice, Demand, Layer, Target};
use crate::worker::demux::Slot;
use crate::worker::rungs::audio_rung;
use crate::worker::state::Peer;
use crate::worker::thread::Worker;
use crate::worker::{Event, SourceType};

/// Between two allocations; a fall of the estimate does not wait for it.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);
/// Without anything that it could do, an allocator looks again after this.
const IDLE: Duration = Duration::from_secs(1);
/// A link is unstable with more loss or queueing delay than this,
const BAD_LOSS: f64 = 0.1;
const BAD_DELAY: Duration = Duration::from_millis(250);
/// and stable again when it has had neither, and room for everything, for so long.
const RECOVERY: Duration = Duration::from_secs(4);
/// A picture that flows is paused only when the link has been too narrow for its lowest layer for so long: an estimate that
/// fell for a moment (jitter, a receiver without a processor) costs quality, and no standing picture. Meanwhile the pacer
/// lets voices pass.
const PATIENCE: Duration = Duration::from_millis(2500);
/// And only while more than this queues, or much is lost: what flows without either fits, whatever the estimate says.
const CALM_DELAY: Duration = Duration::from_millis(150);
/// A voice that sends more than this many bit/s is one that speaks.
const SPEAKS: u64 = 4_000;

/// What came of the allocations, for figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthCounters {
    /// Tracks that were paused for want of bandwidth.
    pub pauses: u64,
    /// Changes of what is forwarded of a track.
    pub changes: u64,
    /// Times that the estimate fell.
    pub decreases: u64,
    /// Probes begun, and those that raised the estimate.
    pub probes: (u64, u64),
}

impl BandwidthCounters {
    /// Adds another's counts.
    pub fn merge(&mut self, other: &BandwidthCounters) {
        self.pauses += other.pauses;
        self.changes += other.changes;
        self.decreases += other.decreases;
        self.probes.0 += other.probes.0;
        self.probes.1 += other.probes.1;
    }
}

/// A choice as it is carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) choice: Choice,
    /// Its target is the first, or other than before.
    pub(super) moved: bool,
    /// Something that the client is told.
    pub(super) changed: bool,
}

/// One peer's part of it.
#[derive(Debug)]
pub struct Bandwidth {
    /// When tracks are weighed anew.
    pub due: Instant,
    pub(super) allocator: Allocator,
    /// Element sizes in pixels. Those of tracks that are gone are forgotten with the next allocation.
    tiles: HashMap<TrackKey, (u32, u32)>,
    targets: HashMap<u64, Target>,
    /// Senders whose lowest layer does not fit, and since when.
    short: HashMap<u64, Instant>,
    decreases: u64,
    stable: bool,
    bad_at: Option<Instant>,
    pub(super) pauses: u64,
    pub(super) changes: u64,
    /// Size of the element that shows the mixed picture, in pixels.
    pub(super) picture: Option<(u32, u32)>,
}

impl Bandwidth {
    /// A link of which nothing is known.
    pub fn new(now: Instant) -> Self {
        Bandwidth {
            due: now + INTERVAL,
            allocator: Allocator::default(),
            tiles: HashMap::new(),
            targets: HashMap::new(),
            short: HashMap::new(),
            decreases: 0,
            stable: true,
            bad_at: None,
            pauses: 0,
            changes: 0,
            picture: None,
        }
    }

    /// Another connection of the same client: its wishes stay.
    pub fn renewed(now: Instant, before: &Bandwidth) -> Self {
        Bandwidth {
            tiles: before.tiles.clone(),
            pauses: before.pauses,
            changes: before.changes,
            stable: before.stable,
            picture: before.picture,
            ..Bandwidth::new(now)
        }
    }

    /// The estimate has fallen since the last allocation.
    pub fn is_stale(&self, estimator: &Estimator) -> bool {
        estimator.decreases() != self.decreases
    }

    /// What came of it; `estimator` is that of the peer's connection.
    pub fn counters(&self, estimator: &Estimator) -> BandwidthCounters {
        let probes = estimator.probes();
        BandwidthCounters {
            pauses: self.pauses,
            changes: self.changes,
            decreases: estimator.decreases(),
            probes: (probes.begun, probes.raised),
        }
    }

    /// What becomes of a choice: a pause for want of bandwidth has to wait, with the lowest layer until then; for ever where
    /// the link is `calm`.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        choice: &Choice,
        demand: &Demand,
        calm: bool,
    ) -> Settled {
        let mut choice = *choice;
        let before = self.targets.get(&choice.sender).copied();
        if choice.target == Target::Paused && choice.limited {
            if calm {
                self.short.remove(&choice.sender);
            }
            let since = *self.short.entry(choice.sender).or_insert(now);
            let flows = before.is_some_and(|before| before != Target::Paused);
            if flows && now.saturating_duration_since(since) < PATIENCE {
                let lowest = demand.layers.iter().find(|layer| layer.active);
                choice.bitrate = lowest.map_or(0, |layer| layer.bitrate);
                choice.target = Target::UpTo {
                    layer: lowest.map_or(Layer(0), |layer| layer.layer),
                    temporal: u8::MAX,
                };
                // One layer is the same with and without a bound that it does not reach.
                if demand.layers.len() < 2
                    && let Some(before) = before
                {
                    choice.target = before;
                }
            }
        } else {
            self.short.remove(&choice.sender);
        }
        self.targets.insert(choice.sender, choice.target);
        Settled {
            choice,
            moved: before != Some(choice.target),
            changed: before.map_or(choice.changed, |before| before != choice.target),
        }
    }

    /// Whether the link's class has changed. `limited`: something does not get what it could use.
    fn judge(&mut self, now: Instant, estimator: &Estimator, limited: bool) -> Option<bool> {
        let fell = estimator.decreases() != self.decreases;
        self.decreases = estimator.decreases();
        let bad = estimator.loss() > BAD_LOSS || estimator.queue_delay() > BAD_DELAY;
        if bad || (limited && (fell || self.bad_at.is_some())) {
            self.bad_at = Some(now);
        }
        let stable = self
            .bad_at
            .is_none_or(|at| now.saturating_duration_since(at) > RECOVERY);
        if stable {
            self.bad_at = None;
        }
        (std::mem::replace(&mut self.stable, stable) != stable).then_some(stable)
    }
}

impl Worker {
    /// Shares the estimate of one peer between what it is sent.
    pub(super) fn allocate(&mut self, now: Instant, slot: Slot) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.bandwidth.due = now + IDLE;
        if !peer.session.is_connected() {
            return;
        }
        let limit = peer.params.max_receive_bps;
        peer.session.subscriber.estimator_mut().set_limit(limit);
        peer.session.subscriber.adjust_pace(now);
        let limited = if peer.receiving.picture.is_some() {
            self.allocate_rung(now, slot)
        } else {
            self.allocate_tracks(now, slot)
        };
        let peer = &mut self.peers[slot];
        let estimator = peer.session.subscriber.estimator();
        if let Some(stable) = peer.bandwidth.judge(now, estimator, limited) {
            self.emit(slot, |peer| Event::NetworkCondition { peer, stable });
        }
        // Probes and pacing may be due sooner than before.
        let peer = &mut self.peers[slot];
        peer.wake_for_pacer();
        self.timers.wake(slot, peer.due());
    }

    /// Layers for the tracks of the others. Whether more bandwidth would be of use.
    fn allocate_tracks(&mut self, now: Instant, slot: Slot) -> bool {
        let Wishes {
            tracks,
            demands,
            voices,
        } = self.wishes(now, slot);
        let peer = &mut self.peers[slot];
        if !demands.is_empty() {
            peer.bandwidth.due = now + INTERVAL;
        }
        let (estimator, limit) = (
            peer.session.subscriber.estimator(),
            peer.params.max_receive_bps,
        );
        let budget = Budget {
            estimate: estimator.estimate(now),
            kept: estimator.kept(now),
            undrained: estimator.undrained(now),
            starting: estimator.is_starting(now),
            voices,
        };
        if let Some(rung) = (peer.receiving.sound.as_mut()).and_then(|s| s.follow(budget.estimate))
            && let Some(bus) = (self.rooms.get(&peer.room)).and_then(|room| room.bus.as_ref())
            && peer.receiving.hears_mix()
        {
            bus.add_listener(peer.id, rung);
        }
        let calm = is_calm(now, estimator, limit);
        let allocation = peer.bandwidth.allocator.allocate(now, budget, &demands);
        let estimator = peer.session.subscriber.estimator_mut();
        estimator.set_wanted(allocation.wanted);
        let known = |sender: &u64| demands.iter().any(|demand| demand.sender == *sender);
        peer.bandwidth.targets.retain(|sender, _| known(sender));
        peer.bandwidth.short.retain(|sender, _| known(sender));
        let tiles = &mut peer.bandwidth.tiles;
        tiles.retain(|key, _| peer.receiving.tracks.contains_key(key));
        for ((choice, demand), key) in allocation.choices.iter().zip(&demands).zip(&tracks) {
            let bandwidth = &mut self.peers[slot].bandwidth;
            let settled = bandwidth.settle(now, choice, demand, calm);
            self.carry_out(now, slot, *key, settled);
        }
        allocation.choices.iter().any(|choice| choice.limited)
    }

    /// What the peer could be sent.
    fn wishes(&mut self, now: Instant, slot: Slot) -> Wishes {
        let mut wishes = Wishes::default();
        let peer = &self.peers[slot];
        let room = self.rooms.get(&peer.room);
        let dominant = room.and_then(|room| room.voices.dominant_for(slot));
        if peer.receiving.hears_mix() {
            let rung = audio_rung(&peer.receiving);
            wishes.voices = (self.codecs.sound.opus_of(rung).bitrate.into(), 1);
        }
        let tracks = peer.receiving.tracks.iter();
        let attached = tracks.filter(|(_, forwarded)| forwarded.attached);
        let attached: SmallVec<[(TrackKey, u64); 16]> = attached
            .map(|(key, forwarded)| (*key, forwarded.sender))
            .collect();
        for (key, sender) in attached {
            // What is withheld from everybody takes nothing of anybody's link.
            let Some(track) = self.tracks.get(&key).filter(|track| !track.withheld) else {
                continue;
            };
            let Some(publisher) = self.peers.get_mut(track.publisher) else {
                continue;
            };
            let layers = publisher.session.publisher.layers(now, key);
            if track.info.kind == MediaKind::Audio {
                let rate: u64 = layers.iter().map(|figures| figures.bitrate).sum();
                wishes.voices.0 += rate;
                wishes.voices.1 += u32::from(rate > SPEAKS);
                continue;
            }
            let demand = Demand {
                sender,
                source: track.source,
                dominant: track.source == SourceType::Media && dominant == Some(track.publisher),
                tile: self.peers[slot].bandwidth.tiles.get(&key).copied(),
                quality: self.peers[slot].target,
                layers,
            };
            wishes.tracks.push(key);
            wishes.demands.push(demand);
        }
        wishes
    }

    fn carry_out(&mut self, now: Instant, slot: Slot, key: TrackKey, settled: Settled) {
        let choice = settled.choice;
        let peer = &mut self.peers[slot];
        let room = peer.room;
        if settled.moved {
            let subscriber = &mut peer.session.subscriber;
            if let Some(layer) = subscriber.set_target(choice.sender, choice.target) {
                self.request_keyframe(now, room, key, layer);
            }
        }
        if settled.changed {
            let bandwidth = &mut self.peers[slot].bandwidth;
            bandwidth.changes += 1;
            bandwidth.pauses += u64::from(choice.limited && choice.target == Target::Paused);
            let bitrate = choice.bitrate;
            self.emit(slot, |peer| Event::BitrateAdjusted {
                peer,
                track: key,
                bitrate,
            });
        }
    }

    pub(super) fn set_receive_limit(&mut self, now: Instant, id: PeerId, bps: Option<u64>) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        self.peers[slot].params.max_receive_bps = bps;
        self.allocate(now, slot);
    }

    /// Sets the best that a peer gets of every picture that is forwarded to it, and of those that will be.
    pub(super) fn set_target(&mut self, now: Instant, id: PeerId, target: Target) {
        if let Some(peer) = self.peer_mut(id) {
            peer.target = target;
            self.reallocate(now, id);
        }
    }

    pub(super) fn set_video_size(
        &mut self,
        now: Instant,
        id: PeerId,
        track: TrackKey,
        size: (u32, u32),
    ) {
        if let Some(peer) = self.peer_mut(id)
            && peer.receiving.tracks.contains_key(&track)
        {
            peer.bandwidth.tiles.insert(track, size);
            self.reallocate(now, id);
        }
    }

    pub(super) fn reallocate(&mut self, now: Instant, id: PeerId) {
        if let Some(&slot) = self.slots.get(&id) {
            self.allocate(now, slot);
        }
    }
}

/// What a peer could be sent: a demand for each picture, and the payload rate and number of the voices that speak.
#[derive(Default)]
struct Wishes {
    tracks: SmallVec<[TrackKey; 8]>,
    demands: SmallVec<[Demand; 4]>,
    voices: (u64, u32),
}

/// More than this is lost on a link that carries less than it is sent, and has no room for a queue.
const PATH_LOSS: f64 = 0.35;

/// Nothing shows that a link carries less than it is sent, and the client has not said so (`limit`, bit/s).
pub(super) fn is_calm(now: Instant, estimator: &Estimator, limit: Option<u64>) -> bool {
    // What is lost although there is no queue is lost by the path, as long as it is not too much for that.
    let bearable = match estimator.lost_by_choking() {
        true => BAD_LOSS,
        false => PATH_LOSS,
    };
    estimator.queue_delay() < CALM_DELAY
        && estimator.loss() < bearable
        && limit.is_none_or(|limit| limit > estimator.path_estimate(now))
}

/// What a peer may be sent and what it is sent, bit/s, for its figures.
pub(super) fn estimate(now: Instant, peer: &Peer) -> Option<u64> {
    let estimator = peer.session.subscriber.estimator();
    let known = estimator.is_measured() || peer.params.max_receive_bps.is_some();
    known.then(|| estimator.estimate(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sfu::LayerFigures;

    fn camera(layers: u8) -> Demand {
        let figures = |at: u8| LayerFigures {
            layer: Layer(at),
            active: true,
            bitrate: 150_000 << (2 * at),
            ..LayerFigures::default()
        };
        Demand {
            sender: 1,
            source: SourceType::Media,
            dominant: false,
            tile: None,
            quality: Target::BEST,
            layers: (0..layers).map(figures).collect(),
        }
    }

    fn choice(target: Target, limited: bool) -> Choice {
        Choice {
            sender: 1,
            target,
            bitrate: 0,
            changed: true,
            limited,
        }
    }

    #[test]
    fn a_picture_that_flows_is_paused_only_after_a_while_and_keeps_its_lowest_layer_until_then() {
        let begin = Instant::now();
        let mut link = Bandwidth::new(begin);
        let (paused, demand) = (choice(Target::Paused, true), camera(3));
        link.settle(begin, &choice(Target::BEST, false), &demand, false);
        let kept = link.settle(begin, &paused, &demand, false);
        assert!(kept.changed && kept.choice.bitrate == 150_000, "{kept:?}");
        assert!(matches!(
            kept.choice.target,
            Target::UpTo {
                layer: Layer(0),
                ..
            }
        ));
        let early = begin + PATIENCE - Duration::from_millis(1);
        let changed = link.settle(early, &paused, &demand, false).changed;
        assert!(!changed, "told once");
        // It fits again for a moment: the time begins anew.
        link.settle(early, &choice(Target::BEST, false), &demand, false);
        let kept = link
            .settle(begin + PATIENCE, &paused, &demand, false)
            .choice;
        assert_ne!(kept.target, Target::Paused);
        let late = begin + 2 * PATIENCE;
        let gone = link.settle(late, &paused, &demand, false);
        assert!(gone.changed && gone.choice.target == Target::Paused);
        let changed = link
            .settle(late + PATIENCE, &paused, &demand, false)
            .changed;
        assert!(!changed, "and stays so");
    }

    #[test]
    fn what_flows_without_a_queue_is_not_paused_however_low_the_estimate() {
        let begin = Instant::now();
        let mut link = Bandwidth::new(begin);
        let (paused, demand) = (choice(Target::Paused, true), camera(3));
        link.settle(begin, &choice(Target::BEST, false), &demand, true);
        link.settle(begin, &paused, &demand, false);
        let calm = begin + 4 * PATIENCE;
        let kept = link.settle(calm, &paused, &demand, true).choice;
        assert_ne!(kept.target, Target::Paused);
        let early = calm + PATIENCE - Duration::from_millis(1);
        let kept = link.settle(early, &paused, &demand, false).choice;
        assert_ne!(
            kept.target,
            Target::Paused,
            "the time begins with the queue"
        );
        let gone = link.settle(calm + PATIENCE, &paused, &demand, false).choice;
        assert_eq!(gone.target, Target::Paused);
        // And what is paused stays so: a link that carries nothing is always calm.
        let gone = link
            .settle(calm + 2 * PATIENCE, &paused, &demand, true)
            .choice;
        assert_eq!(gone.target, Target::Paused);
    }

    #[test]
    fn the_only_layer_goes_on_untouched_and_what_nobody_wants_is_paused_at_once() {
        let begin = Instant::now();
        let mut link = Bandwidth::new(begin);
        let demand = camera(1);
        link.settle(begin, &choice(Target::BEST, false), &demand, false);
        let kept = link.settle(begin, &choice(Target::Paused, true), &demand, false);
        assert!(
            !kept.changed && kept.choice.target == Target::BEST,
            "{kept:?}"
        );
        let hidden = link.settle(begin, &choice(Target::Paused, false), &demand, false);
        assert!(hidden.changed && hidden.choice.target == Target::Paused);
        // Nor is what never flowed begun for that.
        let mut link = Bandwidth::new(begin);
        let first = link.settle(begin, &choice(Target::Paused, true), &demand, false);
        assert!(first.changed && first.choice.target == Target::Paused);
    }
}
