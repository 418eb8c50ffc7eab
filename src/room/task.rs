//! The actor that drives one [`Room`]: a tokio task with one bounded queue from the sockets and one from its worker.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time;

use crate::ids::{PeerId, RoomKey};
use crate::room::channel::ChannelReport;
use crate::room::snapshot::RoomSnapshot;
use crate::room::{
    JoinError, JoinRequest, LayoutError, LayoutRequest, Limits, Notice, Output, Request, Room,
};
use crate::worker::{Command, Event, WorkerHandle};

/// Sockets → room. When it is full the socket's reader waits, and its client's TCP connection with it.
pub const INBOX: usize = 1024;

/// Worker → room. When it is full the worker drops the event and counts it: the media thread never waits.
pub const EVENTS: usize = 8192;

/// Room → socket. A client for which this many notices wait does not read: it is removed, its socket closed.
pub const MAILBOX: usize = 512;

/// Commands that the worker had no place for are kept in order and tried again. When more than this many wait,
/// requests of clients are refused with an error; joins, leaves, lost sockets and the end of the room still queue, and those
/// are bounded by the number of members.
pub const BACKLOG: usize = 256;

/// How often waiting commands are tried again.
const RETRY: Duration = Duration::from_millis(20);

/// How long the end of a room is offered to a worker that takes no commands.
const FAREWELL: Duration = Duration::from_secs(1);

/// The way into one member's socket.
pub type Mailbox = mpsc::Sender<Notice>;

/// To a room's task.
#[derive(Debug)]
pub enum Message {
    /// A client enters.
    Join {
        /// Who.
        peer: PeerId,
        /// How.
        request: JoinRequest,
        /// Where its notices go. Dropped when the member is removed.
        mailbox: Mailbox,
        /// Whether it is in.
        reply: oneshot::Sender<Result<(), JoinError>>,
    },
    /// A member asks for something.
    Request {
        /// Who.
        peer: PeerId,
        /// What.
        request: Request,
    },
    /// A member has left.
    Leave {
        /// Who.
        peer: PeerId,
    },
    /// Somebody outside of the room wants its picture divided differently.
    SetLayout {
        /// How.
        wanted: LayoutRequest,
        /// Whether the room can.
        reply: oneshot::Sender<Result<(), LayoutError>>,
    },
    /// Figures are wanted.
    Snapshot {
        /// Where they go.
        reply: oneshot::Sender<RoomSnapshot>,
    },
    /// The server ends.
    Close,
}

/// Who is asked whether an empty room may end: the map that hands out its address.
pub trait Registry: Send + 'static {
    /// Takes the room out of the map.
    fn remove(&self);
}

/// The actor of one room.
pub struct RoomTask<R> {
    id: String,
    key: RoomKey,
    room: Room,
    worker: WorkerHandle,
    mailboxes: HashMap<PeerId, Mailbox>,
    backlog: VecDeque<Command>,
    inbox: mpsc::Receiver<Message>,
    events: mpsc::Receiver<Event>,
    registry: R,
}

impl<R: Registry> RoomTask<R> {
    /// Opens the room at its worker. `id` is for the log.
    pub fn new(
        id: String,
        key: RoomKey,
        limits: Limits,
        worker: WorkerHandle,
        inbox: mpsc::Receiver<Message>,
        registry: R,
    ) -> Self {
        let (event_sender, events) = mpsc::channel(EVENTS);
        let mut task = RoomTask {
            id,
            key,
            room: Room::new(key, limits, now()),
            worker,
            mailboxes: HashMap::new(),
            backlog: VecDeque::new(),
            inbox,
            events,
            registry,
        };
        task.command(Command::OpenRoom {
            room: key,
            events: event_sender,
            voices: limits.voices,
        });
        task
    }

    /// Runs until the room has been empty for long enough, or the server ends.
    pub async fn run(mut self) {
        tracing::info!(room = %self.id, "room made");
        loop {
            let wake = self.wake_at();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    None | Some(Message::Close) => break,
                    Some(message) => self.handle(message),
                },
                Some(event) = self.events.recv() => self.handle_event(event),
                () = sleep_until(wake) => self.room.handle_timeout(now()),
            }
            self.flush();
            if self.room.expired(now()) {
                break;
            }
        }
        self.end().await;
    }

    /// A join that was on its way finds its reply dropped, and tries again with a new room.
    async fn end(mut self) {
        self.registry.remove();
        self.inbox.close();
        self.command(Command::CloseRoom { room: self.key });
        let give_up = now() + FAREWELL;
        while !self.backlog.is_empty() && now() < give_up {
            time::sleep(RETRY).await;
            self.drain_backlog();
        }
        tracing::info!(room = %self.id, "room removed");
    }

    fn wake_at(&self) -> Option<Instant> {
        let retry = (!self.backlog.is_empty()).then(|| now() + RETRY);
        self.room.poll_timeout().into_iter().chain(retry).min()
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Join {
                peer,
                request,
                mailbox,
                reply,
            } => {
                if let Some(absent) = self.room.gives_way() {
                    self.leave(absent, "removed: its place is wanted, and it is not there");
                }
                let joined = self.room.handle_join(now(), peer, request);
                if joined.is_ok() {
                    self.mailboxes.insert(peer, mailbox);
                    tracing::info!(room = %self.id, client = %peer, members = self.room.member_count(), "joined");
                }
                // A socket that did not wait for its reply has dropped its membership, which says leave.
                let _ = reply.send(joined);
            }
            Message::Request { peer, request } => self.handle_request(peer, request),
            Message::Leave { peer } => self.leave(peer, "left"),
            Message::SetLayout { wanted, reply } => {
                // Who asked may have gone.
                let _ = reply.send(self.room.set_layout(&wanted));
            }
            Message::Snapshot { reply } => {
                let _ = reply.send(self.room.snapshot(now()));
            }
            Message::Close => {}
        }
    }

    fn handle_request(&mut self, peer: PeerId, request: Request) {
        let is_clients_own = !matches!(
            request,
            Request::SocketLost { .. } | Request::SocketBack { .. }
        );
        if self.backlog.len() > BACKLOG && is_clients_own {
            self.notify(
                peer,
                Notice::Error("the server is overloaded: try again in a moment".into()),
            );
        } else {
            self.room.handle_request(now(), peer, request);
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::ChannelText { peer, text } => match ChannelReport::parse(&text) {
                Ok(report) => self
                    .room
                    .handle_request(now(), peer, Request::Report(report)),
                Err(error) => tracing::debug!(room = %self.id, client = %peer, %error, "dropped"),
            },
            event => {
                if let Event::Disconnected { peer, reason } = &event {
                    tracing::info!(room = %self.id, client = %peer, %reason, "media connection lost");
                }
                self.room.handle_event(now(), event);
            }
        }
    }

    fn leave(&mut self, peer: PeerId, how: &str) {
        if self.mailboxes.remove(&peer).is_some() {
            self.room.handle_leave(now(), peer);
            tracing::info!(room = %self.id, client = %peer, members = self.room.member_count(), "{how}");
        }
    }

    /// Carries out what the room wants. A removed member makes the room want more: that comes in the same loop.
    fn flush(&mut self) {
        self.drain_backlog();
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Command(command) => self.command(command),
                Output::Notify(peer, notice) => self.notify(peer, notice),
            }
        }
    }

    fn notify(&mut self, peer: PeerId, notice: Notice) {
        let Some(mailbox) = self.mailboxes.get(&peer) else {
            return;
        };
        match mailbox.try_send(notice) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.leave(peer, "removed: does not read"),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.leave(peer, "left: its socket is gone")
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.backlog.push_back(command);
        self.drain_backlog();
    }

    fn drain_backlog(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            if let Err((command, _)) = self.worker.offer(command) {
                self.backlog.push_front(command);
                break;
            }
        }
    }
}

/// The runtime's clock.
fn now() -> Instant {
    time::Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
