//! Events of the worker, one function each.

use std::sync::Arc;
use std::time::Instant;

use super::member::{Link, Track, Typing};
use super::{Room, UNTYPED_FOR};
use crate::ids::{PeerId, TrackKey};
use crate::room::{DeliveredTrack, Notice};
use crate::stats::PeerStats;
use crate::worker::{Command, PublishedTrack, SPEAKING_HOLD, VoiceReport};

impl Room {
    pub(super) fn connected(&mut self, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.link == Link::Waiting {
            member.link = Link::Connected;
            member.presence.media_begins();
            self.tell_everything_available(peer);
            if self.active.is_some() {
                self.notify(peer, Notice::ActiveSpeaker(self.active));
            }
        }
    }

    /// The client stays a member, and the worker forgets its transport: its next offer makes a fresh one.
    pub(super) fn disconnected(&mut self, now: Instant, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.link == Link::Lost {
            return;
        }
        member.link = Link::Lost;
        member.subscribed.clear();
        member.delivered.clear();
        member.voice = member.voice.changed(now, false);
        member.stats = PeerStats::default();
        for key in std::mem::take(&mut member.published) {
            self.forget_track(key);
        }
        self.roster.touch();
        self.command(Command::RemovePeer { peer });
    }

    pub(super) fn track_published(&mut self, now: Instant, peer: PeerId, track: PublishedTrack) {
        let limit = self.limits.tracks_per_peer;
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.link == Link::Lost || self.tracks.contains_key(&track.key) {
            return;
        }
        if member.published.len() >= limit {
            // Nobody is told of it, and muting keeps it out of the mix as well.
            self.command(Command::SetMuted {
                track: track.key,
                muted: true,
            });
            let text = format!(
                "track {} is not passed on: you publish {limit} tracks already, which is the limit",
                track.track_id
            );
            return self.refuse(peer, text);
        }
        member.published.push(track.key);
        self.notify(peer, Notice::TracksAdded(vec![track.track_id.clone()]));
        self.tracks.insert(
            track.key,
            Track {
                published: track,
                owner: peer,
                typing: Typing::Awaited {
                    until: now + UNTYPED_FOR,
                },
                muted: false,
            },
        );
        self.roster.touch();
    }

    pub(super) fn track_ended(&mut self, peer: PeerId, key: TrackKey) {
        if self.tracks.get(&key).is_some_and(|t| t.owner == peer) {
            self.with_member(peer, |m| m.published.retain(|k| *k != key));
            self.forget_track(key);
            self.roster.touch();
        }
    }

    pub(super) fn delivered(&mut self, peer: PeerId, key: TrackKey, mid: String) {
        let delivered = self.delivered_track(key, mid.clone());
        self.with_member(peer, |m| {
            m.delivered.insert(mid, key);
        });
        self.notify_member(peer, Notice::Delivered(delivered));
    }

    pub(super) fn delivered_track(&self, key: TrackKey, mid: String) -> DeliveredTrack {
        let track = self.tracks.get(&key);
        DeliveredTrack {
            mid,
            client_id: track.map(|t| t.owner),
            track_id: track.map(|t| t.published.track_id.clone()),
            stream_id: track.map(|t| t.published.stream_id.clone()),
        }
    }

    pub(super) fn bitrate_adjusted(&mut self, peer: PeerId, key: TrackKey, bitrate: u64) {
        let Some(track) = self.tracks.get(&key) else {
            return;
        };
        let track_id = track.published.track_id.clone();
        self.notify_member(peer, Notice::BitrateAdjusted { track_id, bitrate });
    }

    pub(super) fn speaking(&mut self, now: Instant, peer: PeerId, speaking: bool) {
        if let Some(member) = self.members.get_mut(&peer)
            && member.link != Link::Lost
            && member.voice.is_speaking() != speaking
        {
            member.voice = member.voice.changed(now, speaking);
            self.roster.touch();
        }
    }

    pub(super) fn active_speaker(&mut self, peer: PeerId) {
        let member = self.members.get(&peer);
        if member.is_some_and(|member| member.link != Link::Lost) && self.active != Some(peer) {
            self.set_active(Some(peer));
        }
    }

    pub(super) fn set_active(&mut self, active: Option<PeerId>) {
        self.active = active;
        for peer in self.member_ids() {
            self.notify(peer, Notice::ActiveSpeaker(active));
        }
    }

    /// The others hear of it with its packets.
    pub(super) fn voice(&mut self, now: Instant, peer: PeerId, report: Arc<VoiceReport>) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.link == Link::Lost {
            return;
        }
        if !report.speaking {
            // The end is known only after a silence, which is no voice.
            member.voice = member.voice.ended(now, SPEAKING_HOLD);
            self.roster.touch();
        }
        for other in self.member_ids() {
            if other != peer {
                self.notify(other, Notice::Voice(report.clone()));
            }
        }
    }

    pub(super) fn stats(&mut self, now: Instant, peer: PeerId, stats: PeerStats) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.link != Link::Lost {
            member.stats = stats;
            let snapshot = Box::new(member.snapshot(peer, now));
            self.notify(peer, Notice::Stats(snapshot));
        }
    }
}
