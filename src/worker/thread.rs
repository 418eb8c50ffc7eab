//! The loop: commands in, codec output in, datagrams in, timers; everything that came of it out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::bus::{BusOutput, BusSender, CodecPools, OUTPUT_QUEUE};
use crate::prefetch::prefetch;
use crate::rtp::demux::{DatagramKind, classify};
use crate::rtp::h264::Packetizer;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::MediaKind;
use crate::transport::{Identity, TransportError};
use crate::worker::acceptor::Directory;
use crate::worker::bandwidth::Bandwidth;
use crate::worker::coalescing::Coalescing;
use crate::worker::demux::{Demux, Slot};
use crate::worker::figures::WorkerFigures;
use crate::worker::load::Load;
use crate::worker::moved::Trials;
use crate::worker::network::{Family, Socket, UDP_V4, UDP_V6};
use crate::worker::session::{Session, SessionEvent};
use crate::worker::shares::Shares;
use crate::worker::socket::{Path, ReceiveBatch};
use crate::worker::state::{MediaRoom, Peer, Track};
use crate::worker::streams::Readable;
use crate::worker::timers::Timers;
use crate::worker::{COMMAND_QUEUE, Command, Event, Renegotiation, WorkerHandle};

const WAKE: Token = Token(2);
/// The loop wakes at least this often, to look at its timers.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// Timers are looked at no more often than this.
pub(super) const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// Receive batches between two looks at commands and timers, so that a flood does not starve them.
const BATCHES_PER_PASS: usize = 16;
/// Nor does a pass go on for longer: a batch may be two thousand datagrams, each of them for hundreds of peers.
const LONGEST_PASS: Duration = Duration::from_millis(5);
/// Commands between two looks at the sockets: one offer takes up to a millisecond, and packets wait for it.
const COMMANDS_PER_PASS: usize = 16;
/// Outputs of the codec threads between two looks at the sockets.
const OUTPUTS_PER_PASS: usize = 256;
/// Events of the poll at once; the rest comes with the next.
const POLL_EVENTS: usize = 256;

/// How a pass over the queues ended.
enum Queues {
    /// All handles are gone.
    Ended,
    /// There is more to take.
    More,
    /// Nothing waits.
    Empty,
}

/// Datagrams that reached no session, or went no further for the other rooms' sake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounters {
    /// STUN for a user fragment, or anything else from an address, that no peer has.
    pub unknown: u64,
    /// Neither STUN, DTLS, RTP nor RTCP.
    pub unclassified: u64,
    /// The first media of a client from its new address, used up to find out whose it is.
    pub moved: u64,
    /// Media of a room that needs more than its part of an overloaded worker.
    pub over_share: u64,
}

/// What a worker is started with.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Its number among the workers.
    pub index: usize,
    /// Its UDP port, on every address of the host; 0: the system chooses.
    pub port: u16,
    /// Where the TCP port finds the peers.
    pub directory: Directory,
    /// Candidate lines for a given port (see `transport::candidates`).
    pub candidates: Arc<dyn Fn(u16) -> Vec<String> + Send + Sync>,
    /// The certificate of this process.
    pub identity: Arc<Identity>,
    /// The codec threads, shared by all workers.
    pub codecs: CodecPools,
}

/// One media thread's state. Its parts act in `control`, `delivery`, `mixed` and `upkeep`.
pub(super) struct Worker {
    pub(super) socket: Socket,
    pub(super) demux: Demux,
    pub(super) peers: Slab<Peer>,
    // Nobody outside chooses these keys, so they are hashed for speed.
    pub(super) slots: FxHashMap<PeerId, Slot>,
    pub(super) rooms: FxHashMap<RoomKey, MediaRoom>,
    pub(super) tracks: FxHashMap<TrackKey, Track>,
    pub(super) readable_streams: Readable,
    pub(super) codecs: CodecPools,
    pub(super) bus_sender: BusSender,
    /// Peers with packets in their outbox.
    pub(super) dirty: Vec<Slot>,
    /// Peers that others made something happen to.
    pub(super) touched: Vec<Slot>,
    /// Peers may have been touched by their flag alone.
    pub(super) flagged: bool,
    pub(super) packetizer: Packetizer,
    identity: Arc<Identity>,
    advertised: Arc<[String]>,
    poll: Poll,
    commands: Receiver<Command>,
    bus: Receiver<BusOutput>,
    pub(super) timers: Timers,
    /// From when on figures are told at even distances.
    pub(super) started: Instant,
    pub(super) load: Arc<Load>,
    pub(super) trials: Trials,
    shares: Shares,
    pub(super) coalescing: Coalescing,
    /// Who is sent a frame of the mixed sound; empty but for its memory.
    pub(super) listeners: Vec<Slot>,
    /// A copy of the datagram that is tried.
    pub(super) scratch: Vec<u8>,
    pub(super) counters: WorkerCounters,
    /// The counters of sessions and rooms that are gone.
    pub(super) past: WorkerFigures,
}

/// Starts one worker and returns the way into it, with its port.
///
/// # Errors
/// The port cannot be bound, or the operating system refuses a thread.
pub fn start(name: &str, config: WorkerConfig) -> io::Result<(WorkerHandle, u16)> {
    let poll = Poll::new()?;
    let socket = Socket::bind(config.port, poll.registry().try_clone()?)?;
    let port = socket.port()?;
    let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
    let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        // It fails only when the poll is gone, and then nobody is there to be woken.
        let _ = waker.wake();
    });
    let (command_sender, commands) = crossbeam_channel::bounded(COMMAND_QUEUE);
    let (bus_queue, bus) = crossbeam_channel::bounded(OUTPUT_QUEUE);
    let load = Arc::new(Load::default());
    let worker = Worker {
        socket,
        demux: Demux::new(config.directory, config.index),
        peers: Slab::new(),
        slots: FxHashMap::default(),
        rooms: FxHashMap::default(),
        tracks: FxHashMap::default(),
        readable_streams: Readable::default(),
        codecs: config.codecs,
        bus_sender: BusSender::new(bus_queue, wake.clone()),
        dirty: Vec::new(),
        touched: Vec::new(),
        flagged: false,
        packetizer: Packetizer::default(),
        identity: config.identity,
        advertised: (config.candidates)(port).into(),
        poll,
        commands,
        bus,
        timers: Timers::new(Instant::now()),
        started: Instant::now(),
        load: load.clone(),
        trials: Trials::new(Instant::now()),
        shares: Shares::new(Instant::now()),
        coalescing: Coalescing::new(Instant::now()),
        listeners: Vec::new(),
        scratch: Vec::new(),
        counters: WorkerCounters::default(),
        past: WorkerFigures::default(),
    };
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(move || worker.run())?;
    let handle = WorkerHandle::new(command_sender, wake).with_load(load);
    Ok((handle, port))
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(POLL_EVENTS);
        let mut batch = ReceiveBatch::default();
        let mut readable = [true; Family::ALL.len()];
        loop {
            let now = Instant::now();
            let queued = match self.drain_queues(now) {
                Queues::Ended => {
                    let (worker, socket) = (self.counters, self.socket.counters());
                    tracing::debug!(?worker, ?socket, "a media worker ends");
                    return;
                }
                Queues::More => true,
                Queues::Empty => false,
            };
            for family in Family::ALL {
                if readable[family as usize] {
                    readable[family as usize] = self.receive(family, &mut batch);
                }
            }
            self.receive_streams();
            let now = Instant::now();
            self.run_timers(now);
            self.flush();
            if self.shares.is_due(now) {
                let rooms = self.rooms.values_mut();
                self.shares.close(now, rooms.map(|room| &mut room.share));
            }
            let busy = queued || readable.contains(&true) || !self.readable_streams.is_empty();
            let sleep = if busy {
                Duration::ZERO
            } else {
                self.timers
                    .next()
                    .saturating_duration_since(now)
                    .clamp(TIMER_GRAIN, LONGEST_SLEEP)
            };
            let asleep = Instant::now();
            let rest = self
                .coalescing
                .rest(asleep)
                .map_or(Duration::ZERO, |rest| rest.min(sleep));
            if !rest.is_zero() {
                std::thread::sleep(rest);
            }
            // An interrupted poll is a short one.
            let _ = self.poll.poll(&mut events, Some(sleep - rest));
            if !sleep.is_zero() {
                self.shares.rest(asleep.elapsed());
            }
            if !events.is_empty() {
                self.coalescing.woken(Instant::now());
            }
            for event in &events {
                match event.token() {
                    UDP_V4 => readable[Family::V4 as usize] = true,
                    UDP_V6 => readable[Family::V6 as usize] = true,
                    WAKE => {}
                    _ => self.on_stream_event(event),
                }
            }
        }
    }

    /// Takes a bounded number of commands and outputs.
    fn drain_queues(&mut self, now: Instant) -> Queues {
        for _ in 0..COMMANDS_PER_PASS {
            match self.commands.try_recv() {
                Ok(command) => {
                    self.handle_command(now, command);
                    self.flagged = true;
                    // Each command's outcome is complete before the next one is looked at.
                    self.service_touched(now);
                }
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return Queues::Ended,
            }
        }
        for _ in 0..OUTPUTS_PER_PASS {
            let Ok(output) = self.bus.try_recv() else {
                break;
            };
            self.handle_bus(now, output);
        }
        if self.commands.is_empty() && self.bus.is_empty() {
            Queues::Empty
        } else {
            Queues::More
        }
    }

    /// Reads until the socket is empty or the pass is long enough; true: there may be more.
    fn receive(&mut self, family: Family, batch: &mut ReceiveBatch) -> bool {
        let began = Instant::now();
        for _ in 0..BATCHES_PER_PASS {
            let more = self.socket.receive(family, batch);
            let now = batch.arrival();
            self.prefetch_senders(batch);
            for (path, datagram) in batch.datagrams() {
                self.handle_datagram(now, path, datagram);
            }
            self.flush();
            if !more {
                return false;
            }
            if began.elapsed() > LONGEST_PASS {
                break;
            }
        }
        true
    }

    /// The senders of a batch are met one after the other; their state is loaded side by side.
    fn prefetch_senders(&self, batch: &ReceiveBatch) {
        let slots = batch.remotes().filter_map(|from| self.demux.lookup(from));
        let mut slots: smallvec::SmallVec<[Slot; 32]> = slots.collect();
        slots.dedup();
        if slots.len() < 2 {
            return;
        }
        let senders = || slots.iter().filter_map(|slot| self.peers.get(*slot));
        senders().for_each(|peer| peer.session.prefetch_receiving());
        // What that points to.
        for peer in senders() {
            peer.session.publisher.prefetch();
            let tracks = peer.published.iter();
            tracks
                .filter_map(|key| self.tracks.get(key))
                .for_each(prefetch);
        }
    }

    fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        let kind = classify(datagram);
        let known = self.demux.lookup(path.remote);
        let slot = match kind {
            DatagramKind::Stun => self.claim(path.remote, datagram, known),
            _ => known,
        };
        if slot.is_none()
            && matches!(kind, DatagramKind::Rtp | DatagramKind::Rtcp)
            && self.find_moved(now, path.remote, datagram).is_some()
        {
            self.counters.moved += 1;
            self.service_touched(now);
            return;
        }
        self.handle_classified(now, kind, slot, path, datagram);
    }

    /// A datagram of a peer's own TCP connection: whose it is needs no search.
    pub(super) fn handle_stream_datagram(
        &mut self,
        now: Instant,
        slot: Slot,
        path: Path,
        datagram: &mut [u8],
    ) {
        self.handle_classified(now, classify(datagram), Some(slot), path, datagram);
    }

    fn handle_classified(
        &mut self,
        now: Instant,
        kind: DatagramKind,
        slot: Option<Slot>,
        path: Path,
        datagram: &mut [u8],
    ) {
        if matches!(kind, DatagramKind::TurnChannel | DatagramKind::Unknown) {
            self.counters.unclassified += 1;
            return;
        }
        let Some((slot, peer)) = slot.and_then(|slot| Some((slot, self.peers.get_mut(slot)?)))
        else {
            self.counters.unknown += 1;
            return;
        };
        match kind {
            DatagramKind::Rtp => {
                let Some(packet) = peer.session.open_rtp(now, path.remote, datagram) else {
                    return;
                };
                let feedback = peer.session.publisher.poll_timeout();
                peer.deadline = feedback.map_or(peer.deadline, |at| at.min(peer.deadline));
                self.timers.wake(slot, peer.deadline);
                self.handle_packet(now, slot, &packet);
            }
            DatagramKind::Rtcp => self.handle_rtcp(now, slot, path.remote, datagram),
            _ => {
                peer.session.handle_transport(now, path, datagram);
                peer.touched = true;
                self.touched.push(slot);
                self.service_touched(now);
            }
        }
    }

    /// Whose a STUN message is, and with that its address.
    fn claim(&mut self, from: SocketAddr, datagram: &[u8], known: Option<Slot>) -> Option<Slot> {
        let Some(slot) = self.demux.addressee(datagram) else {
            return known;
        };
        let session = &self.peers.get(slot)?.session;
        if known.is_some_and(|owner| owner != slot) && !session.is_signed(datagram) {
            return known;
        }
        self.demux.claim(from, slot, session.selected());
        Some(slot)
    }

    fn handle_packet(&mut self, now: Instant, slot: Slot, packet: &crate::sfu::Received<'_>) {
        let peer = &self.peers[slot];
        if packet.first || (peer.suspended && !peer.published.contains(&packet.track)) {
            self.publish(now, slot, packet.track);
            self.flagged = true;
        }
        match packet.codec.kind() {
            MediaKind::Audio => self.hear(now, slot, packet),
            MediaKind::Video => self.coalescing.note_picture(now),
        }
        for lost in packet.recovered() {
            self.forward(now, &lost);
        }
        self.forward(now, packet);
    }

    fn handle_rtcp(&mut self, now: Instant, slot: Slot, from: SocketAddr, datagram: &mut [u8]) {
        let peer = &mut self.peers[slot];
        let wall = Ntp::from_system(SystemTime::now());
        let room = peer.room;
        // The borrow of the datagram ends with the sub-machines' own copies of what they keep.
        let Some(compound) = peer.session.open_rtcp(now, from, datagram) else {
            return;
        };
        peer.session.publisher.handle_rtcp(now, wall, compound);
        let wishes = peer.session.subscriber.handle_rtcp(now, wall, compound);
        peer.touched = true;
        self.touched.push(slot);
        if peer.bandwidth.is_stale(peer.session.subscriber.estimator()) {
            self.allocate(now, slot);
        }
        for (key, layer) in wishes {
            self.request_keyframe(now, room, key, layer);
        }
    }

    pub(super) fn on_session(&mut self, now: Instant, slot: Slot, event: SessionEvent) {
        match event {
            SessionEvent::Answer(sdp) => {
                self.emit(slot, |peer| Event::Answer { peer, sdp });
                self.trickle(slot);
            }
            SessionEvent::Offer(sdp) => {
                self.emit(slot, |peer| Event::Offer { peer, sdp });
                self.trickle(slot);
            }
            SessionEvent::LinesChanged { ended, send } => self.on_lines(now, slot, ended, &send),
            SessionEvent::RenegotiationSettled => {
                self.emit(slot, |peer| Event::RenegotiationReply {
                    peer,
                    reply: Renegotiation::Settled,
                });
            }
            SessionEvent::SenderRefused { sender, reason } => {
                self.on_refused(slot, sender, &reason)
            }
            SessionEvent::Connected => {
                self.emit(slot, |peer| Event::Connected { peer });
                self.peers[slot].bandwidth.due = now;
                self.timers.wake(slot, now);
                self.begin_listening(slot);
            }
            SessionEvent::Silent => self.emit(slot, |peer| Event::MediaSilent { peer }),
            SessionEvent::Heard => self.emit(slot, |peer| Event::MediaHeard { peer }),
            SessionEvent::Text(text) => self.emit(slot, |peer| Event::ChannelText { peer, text }),
            SessionEvent::Closed(reason) => self.on_closed(now, slot, reason),
        }
    }

    fn trickle(&mut self, slot: Slot) {
        let Some((mline_index, mid, candidates)) = self.peers[slot].session.poll_trickle() else {
            return;
        };
        for candidate in candidates.iter() {
            self.emit(slot, |peer| Event::Candidate {
                peer,
                candidate: candidate.clone(),
                mid: mid.clone(),
                mline_index,
            });
        }
    }

    /// The transport is gone, and the peer with it; the room adds it anew when it offers again.
    fn on_closed(&mut self, now: Instant, slot: Slot, reason: String) {
        self.end_media(slot, true);
        self.emit(slot, |peer| Event::Disconnected { peer, reason });
        self.remove_peer(now, slot);
    }

    /// Ends a session with all that it publishes, and begins another, which is sent what the first one was sent.
    pub(super) fn renew_session(&mut self, now: Instant, slot: Slot) {
        let (id, room) = (self.peers[slot].id, self.peers[slot].room);
        let tracks = &self.peers[slot].receiving.tracks;
        let subscribed: Vec<TrackKey> = tracks.keys().copied().collect();
        self.end_media(slot, true);
        self.demux.forget(slot);
        let client_offers_first = self.peers[slot].params.client_offers_first;
        match self.new_session(now, client_offers_first) {
            Ok(session) => {
                let peer = &mut self.peers[slot];
                let mut old = std::mem::replace(&mut peer.session, session);
                old.close(now, &mut self.socket);
                self.past.add(&old);
                peer.session.allowance = old.allowance;
                peer.session.publish_limit.set(now, peer.publish_limit);
                peer.bandwidth = Bandwidth::renewed(now, &peer.bandwidth);
                peer.touched = true;
                self.begin_mixed(slot);
                self.subscribe(id, &subscribed);
            }
            Err(error) => {
                let message =
                    format!("no new media transport could be opened: {error}; join again");
                self.emit(slot, |peer| Event::Failed { peer, message });
            }
        }
        self.update_bus(room);
    }

    pub(super) fn new_session(
        &self,
        now: Instant,
        client_offers_first: bool,
    ) -> Result<Session, TransportError> {
        Session::new(now, &self.identity, &self.advertised, client_offers_first)
    }

    /// Tells the peer's room something about it.
    pub(super) fn emit(&mut self, slot: Slot, event: impl FnOnce(PeerId) -> Event) {
        let Some(peer) = self.peers.get(slot) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            room.emit(event(peer.id));
        }
    }

    pub(super) fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let Some(peer) = self.peers.get_mut(slot) else {
                continue;
            };
            peer.dirty = false;
            peer.session.flush(&mut self.socket);
        }
    }
}
