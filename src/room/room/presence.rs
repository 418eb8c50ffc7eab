//! Whether a member is still there: by its socket, and by what the worker hears of its media.

use std::time::{Duration, Instant};

use super::Room;
use super::member::{Link, Member};
use crate::ids::PeerId;
use crate::room::Notice;
use crate::worker::{Command, MEDIA_SILENCE};

/// What is known of a member's whereabouts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Presence {
    /// The socket is broken, and something came over it last then.
    socket_lost: Option<Instant>,
    /// The worker hears nothing, and heard something last then.
    media_lost: Option<Instant>,
    /// The others think that it is gone.
    hidden: bool,
}

impl Presence {
    pub(super) fn is_hidden(self) -> bool {
        self.hidden
    }

    /// A fresh connection: nothing is known against it.
    pub(super) fn media_begins(&mut self) {
        self.media_lost = None;
    }

    /// When the others are told that it is gone, if nothing comes until then. A member whose media flows stays,
    /// whatever its socket does, and one whose socket works stays without media.
    fn gone_at(self, link: Link, gone_after: Duration) -> Option<Instant> {
        let socket = self.socket_lost.filter(|_| !self.hidden)?;
        let last = match link {
            Link::Connected => socket.max(self.media_lost?),
            Link::Waiting | Link::Lost => socket,
        };
        Some(last + gone_after)
    }
}

impl Member {
    /// Since when its place is kept although nothing connects it.
    fn absent_since(&self) -> Option<Instant> {
        let since = self.presence.socket_lost?;
        (self.presence.hidden || self.link != Link::Connected).then_some(since)
    }

    pub(super) fn gone_at(&self, gone_after: Duration) -> Option<Instant> {
        self.presence.gone_at(self.link, gone_after)
    }
}

impl Room {
    /// Who gives way to a client that wants to enter a full room: of those whose place is only kept, the one that has
    /// been away longest. `None`: there is place, or everybody is there.
    pub fn gives_way(&self) -> Option<PeerId> {
        if self.members.len() < self.limits.peers_per_room {
            return None;
        }
        let absent = self.members.iter();
        let absent = absent.filter_map(|(peer, member)| Some((member.absent_since()?, *peer)));
        absent.min().map(|(_, peer)| peer)
    }

    /// The member's socket broke; `heard`: when something came over it last.
    pub(super) fn socket_lost(&mut self, peer: PeerId, heard: Instant) {
        self.with_member(peer, |m| m.presence.socket_lost = Some(heard));
    }

    /// The member has a new socket. `restate`: it may have missed anything, and is told what holds now.
    pub(super) fn socket_back(&mut self, peer: PeerId, restate: bool) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member.presence.socket_lost = None;
        let silent = member.presence.media_lost.is_some();
        self.show(peer);
        if restate {
            self.restate(peer);
        }
        if silent && self.link(peer) == Some(Link::Connected) {
            self.command(Command::RestartIce { peer });
        }
    }

    /// Signalling works and media does not: another way is looked for. Without a socket, when there is one again.
    pub(super) fn media_silent(&mut self, now: Instant, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member.presence.media_lost = now.checked_sub(MEDIA_SILENCE).or(Some(now));
        if member.presence.socket_lost.is_none() && member.link == Link::Connected {
            self.command(Command::RestartIce { peer });
        }
    }

    pub(super) fn media_heard(&mut self, peer: PeerId) {
        self.with_member(peer, |m| m.presence.media_lost = None);
        self.show(peer);
    }

    /// Members of whom nothing came for too long are gone for the others. Their place is kept while their signalling
    /// may be resumed.
    pub(super) fn hide_gone(&mut self, now: Instant) {
        let gone_after = self.limits.gone_after;
        let gone: Vec<PeerId> = self
            .members
            .iter()
            .filter(|(_, m)| m.gone_at(gone_after).is_some_and(|at| at <= now))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in gone {
            self.with_member(peer, |m| {
                m.presence.hidden = true;
                m.voice = m.voice.changed(now, false);
            });
            self.roster.touch();
            if self.link(peer) != Some(Link::Lost) {
                self.command(Command::Suspend { peer });
            }
        }
    }

    fn show(&mut self, peer: PeerId) {
        if let Some(member) = self.members.get_mut(&peer)
            && std::mem::take(&mut member.presence.hidden)
        {
            self.roster.touch();
        }
    }

    /// What holds now, as if all of it were news. The offer that is out and the layout come from the worker.
    fn restate(&mut self, peer: PeerId) {
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        let delivered = member.delivered.clone();
        let own: Vec<String> = member
            .published
            .iter()
            .filter_map(|key| Some(self.tracks.get(key)?.published.track_id.clone()))
            .collect();
        let peers = self.peer_summaries();
        self.notify(peer, Notice::Peers(peers));
        if !own.is_empty() {
            self.notify(peer, Notice::TracksAdded(own));
        }
        for (mid, key) in delivered {
            let track = self.delivered_track(key, mid);
            self.notify(peer, Notice::Delivered(track));
        }
        self.tell_everything_available(peer);
        if self.link(peer) != Some(Link::Lost) {
            self.command(Command::Restate { peer });
        }
    }
}
