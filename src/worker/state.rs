//! What a worker knows: peers, rooms, tracks, and who is sent what.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::audio::{AudioRung, MixId};
use crate::mcu::bus::{Bus, Rung};
use crate::mcu::codec::VideoCodec;
use crate::mcu::ladder::{MAX_STEPS, Shape, VideoRung};
use crate::rtp::params::Codec;
use crate::rtp::unwrap::TimestampUnwrapper;
use crate::sfu::{Layer, SenderClock, Tap, Target, VoiceId};
use crate::worker::bandwidth::Bandwidth;
use crate::worker::demux::Slot;
use crate::worker::rungs::sound_of_link;
use crate::worker::session::Session;
use crate::worker::shares::Share;
use crate::worker::speaking::Speaking;
use crate::worker::voices::Voices;
use crate::worker::{
    Avatar, Event, EventSender, LayoutWish, MixedLayout, PeerParams, PublishedTrack, SourceType,
    VoiceLimits,
};

/// Events of a room that wait because its actor's queue is full. Beyond it events are dropped and counted: the
/// actor is stuck, and its clients time out.
pub const EVENT_BACKLOG: usize = 8192;

/// A peer of this worker.
pub struct Peer {
    /// Its identity.
    pub id: PeerId,
    /// Its room.
    pub room: RoomKey,
    /// How it came.
    pub params: PeerParams,
    /// Its connection.
    pub session: Session,
    /// What it is to be sent.
    pub receiving: Receiving,
    /// What it publishes, in order of appearance.
    pub published: Vec<TrackKey>,
    /// From the levels of its microphone.
    pub speaking: Speaking,
    /// Whether those levels exist; otherwise the mixer tells.
    pub has_levels: bool,
    /// What its link can take, and who gets it.
    pub bandwidth: Bandwidth,
    /// What it may send at most, bit/s.
    pub publish_limit: Option<u64>,
    /// What it gets of every forwarded picture.
    pub target: Target,
    /// The next sender's id.
    pub next_sender: u64,
    /// When the session's timers are due.
    pub deadline: Instant,
    /// When figures are due.
    pub stats_due: Instant,
    /// What it published has ended for the others: its next packets publish it anew.
    pub suspended: bool,
    /// On its card in the mixed picture, in place of initials.
    pub avatar: Option<Arc<Avatar>>,
    /// Packets wait in the outbox.
    pub dirty: bool,
    /// Something happened that the session has to be asked about.
    pub touched: bool,
}

impl Peer {
    /// A packet waits in the pacer: the session's timers are due when it may leave. Returns when that is.
    pub fn wake_for_pacer(&mut self) -> Instant {
        let at = self.session.subscriber.poll_timeout();
        self.deadline = at.map_or(self.deadline, |at| at.min(self.deadline));
        self.deadline
    }

    /// When any of its timers is due.
    pub fn due(&self) -> Instant {
        self.deadline.min(self.stats_due).min(self.bandwidth.due)
    }
}

/// Loads the state of those whose turn comes soon, see [`crate::prefetch`]: `after` is who comes so many after the one who
/// is sent something now.
pub fn prefetch_receivers(peers: &Slab<Peer>, after: impl Fn(usize) -> Option<Slot>) {
    if let Some(peer) = after(4).and_then(|slot| peers.get(slot)) {
        peer.session.prefetch_sending();
    }
    // What that points to.
    if let Some(peer) = after(2).and_then(|slot| peers.get(slot)) {
        peer.session.subscriber.prefetch();
    }
}

/// What a peer is to be sent: tracks of the others, the mix, or some of both. Each kind comes one way or the other.
#[derive(Default)]
pub struct Receiving {
    /// Tracks of the others, each on a sender of its own.
    pub tracks: BTreeMap<TrackKey, Forwarded>,
    /// The mixed sound.
    pub sound: Option<MixedSender>,
    /// The mixed picture.
    pub picture: Option<MixedView>,
}

impl Receiving {
    /// The mixed sound goes to the peer.
    pub fn hears_mix(&self) -> bool {
        self.sound.is_some_and(|sound| sound.listening)
    }

    /// The mixed picture goes to the peer.
    pub fn sees_mix(&self) -> bool {
        self.picture.is_some_and(|view| view.listening)
    }
}

/// One forwarded track.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded {
    /// The sender in this peer's offer/answer.
    pub sender: u64,
    /// Its m-line is agreed: packets flow.
    pub attached: bool,
}

/// Loss from which on a link counts as lossy, and below which no longer.
const LOSSY: f64 = 0.01;
const FINE: f64 = 0.005;

/// The mixed sound on its way to a client, for as long as sound comes mixed.
#[derive(Clone, Copy, Debug)]
pub struct MixedSender {
    /// Its id in the peer's offer/answer.
    pub sender: u64,
    /// Its m-line is agreed.
    pub line: bool,
    /// The room's bus makes it for the peer.
    pub listening: bool,
    /// The peer likes it in two channels.
    pub stereo: bool,
    /// The link loses packets.
    pub lossy: bool,
    /// What it carries while there is no mixed picture beside it.
    pub rung: AudioRung,
    /// What it carries now.
    pub track: Option<TrackKey>,
}

impl MixedSender {
    /// One whose m-line is not agreed yet. `limit`: what the client allows, bit/s.
    pub fn new(sender: u64, limit: Option<u64>) -> Self {
        MixedSender {
            sender,
            line: false,
            listening: false,
            stereo: false,
            lossy: false,
            rung: sound_of_link(limit.unwrap_or(u64::MAX), AudioRung::Normal),
            track: None,
        }
    }

    /// The link carries so many bit/s: its new rung, if it is another one.
    pub fn follow(&mut self, estimate: u64) -> Option<AudioRung> {
        let rung = sound_of_link(estimate, self.rung);
        (std::mem::replace(&mut self.rung, rung) != rung).then_some(rung)
    }

    /// The link loses this share of the packets: whether that makes it lossy, if that is news.
    pub fn note_loss(&mut self, loss: f64) -> Option<bool> {
        let lossy = loss >= if self.lossy { FINE } else { LOSSY };
        (std::mem::replace(&mut self.lossy, lossy) != lossy).then_some(lossy)
    }

    /// The connection is there: whether the bus has to begin.
    pub fn begins(&mut self) -> bool {
        self.line && !std::mem::replace(&mut self.listening, true)
    }
}

/// The mixed picture on its way to a client, for as long as pictures come mixed.
#[derive(Clone, Copy, Debug)]
pub struct MixedView {
    /// The sender's id in the peer's offer/answer.
    pub sender: u64,
    /// Its m-line is agreed.
    pub line: bool,
    /// The room's bus makes it for the peer.
    pub listening: bool,
    /// What it carries now: the picture of another shape until a keyframe of its own is there.
    pub track: Option<TrackKey>,
    /// What it is to be sent, and the sound beside it.
    pub rung: Rung,
    /// How its canvas lies, also while it gets no picture.
    pub shape: Shape,
    /// Bit/s of payload that its link has for the picture; `None` before the first allocation.
    pub share: Option<u64>,
}

impl MixedView {
    /// The connection is there: whether the bus has to begin.
    pub fn begins(&mut self) -> bool {
        self.line && !std::mem::replace(&mut self.listening, true)
    }

    /// What the bus is to make for it: no picture for who cannot decode it.
    pub fn listens_to(&self) -> Rung {
        Rung {
            video: self.rung.video.filter(|_| self.line && self.listening),
            ..self.rung
        }
    }

    /// Whether this rung is made for it.
    pub fn receives(&self, rung: VideoRung) -> bool {
        self.listens_to().video == Some(rung)
    }
}

/// A track and its subscribers.
pub struct Track {
    /// Where.
    pub room: RoomKey,
    /// Whose.
    pub publisher: Slot,
    /// What.
    pub info: PublishedTrack,
    /// Camera or screen.
    pub source: SourceType,
    /// Nothing of it goes anywhere while muted.
    pub muted: bool,
    /// The bus listens.
    pub tapped: bool,
    /// What of it the bus hears or sees.
    pub tap: Tap,
    /// The largest tile that shows it, in pixels. `None`: the bus has no use for it.
    pub tile: Option<(u32, u32)>,
    /// Its place among the room's voices; `None` for pictures.
    pub voice: Option<VoiceId>,
    /// Not forwarded now: other voices are louder, or others spoke later.
    pub withheld: bool,
    /// Who gets it, on which sender.
    pub subscribers: Vec<(Slot, u64)>,
}

/// The picture of one shape: a published track of the server, whose layers are the rungs.
#[derive(Clone, Copy, Debug)]
pub struct MixedPicture {
    /// Its identity in the fanout.
    pub key: TrackKey,
    /// The next packet's sequence number of each rung.
    pub seqs: [u64; MAX_STEPS],
    /// RTP time against the server's clock, the same for all rungs.
    pub clock: Option<SenderClock>,
}

impl Default for MixedPicture {
    fn default() -> Self {
        MixedPicture {
            key: TrackKey::next(),
            seqs: [1 << 16; MAX_STEPS],
            clock: None,
        }
    }
}

/// One mixed sound: a published track of the server.
#[derive(Clone, Copy, Debug)]
pub struct MixedTrack {
    /// Its identity in the fanout.
    pub key: TrackKey,
    /// The next packet's sequence number.
    pub seq: u64,
    /// RTP time against the server's clock.
    pub clock: Option<SenderClock>,
}

impl Default for MixedTrack {
    fn default() -> Self {
        // Away from zero: a reordered first packet has a place before it.
        MixedTrack {
            key: TrackKey::next(),
            seq: 1 << 16,
            clock: None,
        }
    }
}

/// The media side of a room.
pub struct MediaRoom {
    events: EventSender,
    backlog: VecDeque<Event>,
    /// Events that were lost.
    pub dropped_events: u64,
    /// Members in the order in which they came.
    pub members: Vec<Slot>,
    /// Its part of the worker's time.
    pub share: Share,
    /// Who speaks.
    pub voices: Voices,
    /// Lives while somebody is mixed.
    pub bus: Option<Bus>,
    /// The sounds of the bus.
    pub audio: HashMap<MixId, MixedTrack>,
    /// The pictures of the bus.
    pub pictures: HashMap<Shape, MixedPicture>,
    /// The bus counts its sound in 32 bits, all mixes on one line.
    pub audio_time: TimestampUnwrapper,
    /// Likewise its pictures.
    pub video_time: TimestampUnwrapper,
    /// What the encoders of the rungs in use are to make, bit/s, where it is not what the ladder says.
    pub bitrates: HashMap<VideoRung, u32>,
    /// The last layout of each picture.
    pub layouts: HashMap<VideoRung, MixedLayout>,
    /// How the picture is to be divided.
    pub layout_wish: LayoutWish,
    /// Everybody gets the lowest rung: the codec threads are overloaded.
    pub lowest_only: bool,
}

impl MediaRoom {
    /// An empty room.
    pub fn new(events: EventSender, limits: VoiceLimits) -> Self {
        MediaRoom {
            events,
            share: Share::default(),
            voices: Voices::new(limits),
            backlog: VecDeque::new(),
            dropped_events: 0,
            members: Vec::new(),
            bus: None,
            audio: HashMap::new(),
            pictures: HashMap::new(),
            audio_time: TimestampUnwrapper::default(),
            video_time: TimestampUnwrapper::default(),
            bitrates: HashMap::new(),
            layouts: HashMap::new(),
            layout_wish: LayoutWish::default(),
            lowest_only: false,
        }
    }

    /// Tells the actor. Figures are dropped when it is behind; everything else waits its turn.
    pub fn emit(&mut self, event: Event) {
        if self.backlog.is_empty() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(tokio::sync::mpsc::error::TrySendError::Full(event)) => self.keep(event),
                Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => self.dropped_events += 1,
            }
        } else {
            self.keep(event);
        }
    }

    fn keep(&mut self, event: Event) {
        if matches!(event, Event::Stats { .. }) || self.backlog.len() >= EVENT_BACKLOG {
            self.dropped_events += 1;
        } else {
            self.backlog.push_back(event);
        }
    }

    /// Sends what waited.
    pub fn flush_backlog(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(tokio::sync::mpsc::error::TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return;
                }
                Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => self.dropped_events += 1,
            }
        }
    }

    /// The mix ends with all of its streams: another one begins at time zero, as other tracks.
    pub fn end_mix(&mut self) {
        self.bus = None;
        self.lowest_only = false;
        self.audio.clear();
        self.pictures.clear();
        self.bitrates.clear();
        self.audio_time = TimestampUnwrapper::default();
        self.video_time = TimestampUnwrapper::default();
        self.layouts.clear();
    }

    /// A codec thread dropped the room's mix: it has to be begun anew.
    pub fn is_mix_broken(&self) -> bool {
        self.bus.as_ref().is_some_and(Bus::is_broken)
    }

    /// The clock of a mixed stream, for sender reports.
    pub fn mixed_clock(&self, key: TrackKey, generation: u32) -> Option<SenderClock> {
        let sound = self.audio.values().find(|track| track.key == key);
        if let Some(sound) = sound {
            return sound.clock;
        }
        let picture = self.pictures.values().find(|picture| picture.key == key)?;
        picture.clock.map(|clock| SenderClock {
            generation,
            ..clock
        })
    }

    /// The rung whose picture this is.
    pub fn rung_of(&self, key: TrackKey, layer: Layer) -> Option<VideoRung> {
        let mut pictures = self.pictures.iter();
        let (shape, _) = pictures.find(|(_, picture)| picture.key == key)?;
        Some(VideoRung {
            step: layer.0,
            shape: *shape,
        })
    }

    /// A rung has no listener any more.
    pub fn forget_rung(&mut self, rung: VideoRung) {
        self.layouts.remove(&rung);
        self.bitrates.remove(&rung);
    }
}

/// What decodes it for the mixed picture, if anything.
pub fn video_codec(codec: Codec) -> Option<VideoCodec> {
    match codec {
        Codec::H264 => Some(VideoCodec::H264),
        Codec::Vp8 => Some(VideoCodec::Vp8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_of_the_next_mix_are_other_tracks_on_a_new_time_line() {
        let (events, _) = tokio::sync::mpsc::channel(1);
        let mut room = MediaRoom::new(events, VoiceLimits::default());
        let wide = |room: &mut MediaRoom| room.pictures.entry(Shape::Landscape).or_default().key;
        let first = wide(&mut room);
        let late = room.video_time.unwrap(u32::MAX);
        assert!(room.video_time.unwrap(0) > late, "32 bits wrap");
        let rung = room.rung_of(first, Layer(2));
        assert_eq!(rung, Some(VideoRung::landscape(2)));
        room.end_mix();
        assert_eq!(room.rung_of(first, Layer(2)), None);
        assert_ne!(wide(&mut room), first);
        assert!(room.video_time.unwrap(7) < late);
    }
}
