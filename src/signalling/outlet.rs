//! What a client is told, for its whole stay: a task that outlives its sockets. While there is none it keeps what the
//! room says, and waits for the client to come back.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::ids::PeerId;
use crate::room::{Membership, Notice, Request};
use crate::signalling::ServerMessage;
use crate::signalling::counters::Refusal;
use crate::signalling::protocol::{Resumption, Welcome};
use crate::signalling::resume::{Log, Ticket};
use crate::signalling::session::SessionContext;

/// Socket's reader → the outlet. When it is full the reader waits: a client that does not read its errors is not
/// read either.
const REPLIES: usize = 16;

/// Sockets that wait to take over. One that finds no place begins a new stay.
const ARRIVALS: usize = 4;

/// A frame that cannot be written within this time breaks the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The writing half of a socket.
pub type Sink = SplitSink<WebSocket, Message>;

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It broke.
    Broken,
    /// The client closed it.
    Closed,
    /// The client sent `leave`.
    Left,
    /// Nothing came for too long.
    Dead,
    /// A message beyond what can be skipped.
    TooLarge,
    /// The server ends.
    Shutdown,
    /// The outlet has no more use for it: the room has let the client go, or another socket took over.
    Dismissed,
}

/// What the reader of a socket says at last.
pub struct Over {
    /// Why.
    pub end: End,
    /// When something came last.
    pub heard: Instant,
    /// The token by which this socket came, if nothing came over it.
    pub spare: Option<Ticket>,
}

/// A socket that wants to go on with this stay.
pub struct Arrival {
    /// Where to write.
    pub sink: Sink,
    /// The token that it named.
    pub token: String,
    /// Numbered messages that the client has.
    pub seen: Option<u64>,
    /// For its reader.
    pub seat: oneshot::Sender<Seat>,
}

/// What the reader of a socket needs.
pub struct Seat {
    /// Who.
    pub peer: PeerId,
    /// The way into the room.
    pub membership: Arc<Membership>,
    /// Answers that do not come from the room.
    pub replies: mpsc::Sender<ServerMessage>,
    /// Messages of the client that were taken so far, from all of its sockets.
    pub taken: Arc<AtomicU64>,
    /// Dropped when something came.
    pub spare: Option<Ticket>,
    /// Resolves when the reader is to end.
    pub dismissed: oneshot::Receiver<Infallible>,
    /// To be told of the end.
    pub over: oneshot::Sender<Over>,
}

/// The socket in use.
struct Line {
    sink: Sink,
    /// Dropping it dismisses the reader.
    stop: Option<oneshot::Sender<Infallible>>,
    over: oneshot::Receiver<Over>,
}

/// Why the outlet stops writing to a line.
enum Stop {
    Broken,
    Over(Over),
    Arrived(Arrival),
    /// The room has let the client go.
    Removed,
}

/// What comes next.
enum Turn {
    /// A resumed socket is greeted by what the client has missed after these numbered messages.
    Serve(Line, Option<Arrived>),
    Wait(Instant),
    Finish(Line, End),
    Vanish,
}

/// What a resuming client says.
struct Arrived {
    seen: Option<u64>,
}

/// See the module.
pub struct Outlet {
    context: SessionContext,
    membership: Arc<Membership>,
    notices: mpsc::Receiver<Notice>,
    replies: mpsc::Receiver<ServerMessage>,
    reply_sender: mpsc::Sender<ServerMessage>,
    arrivals: mpsc::Receiver<Arrival>,
    arrival_sender: mpsc::Sender<Arrival>,
    taken: Arc<AtomicU64>,
    welcome: Welcome,
    log: Log,
    /// Number of the last message that was written to a socket.
    written: u64,
    /// Of the last welcome.
    ticket: Ticket,
    /// Of the welcome before, while the last one may not have arrived.
    spare: Option<Ticket>,
}

impl Outlet {
    /// Begins a stay on `sink`, once the room's welcome is there; the seat is for the socket's reader. `None`: the
    /// room has ended.
    pub async fn start(
        context: SessionContext,
        peer: PeerId,
        room_id: String,
        membership: Membership,
        mut notices: mpsc::Receiver<Notice>,
        sink: Sink,
    ) -> Option<Seat> {
        // Nothing may come before the welcome, and it is the room's first notice.
        let first = ServerMessage::from_notice(notices.recv().await?, peer, &room_id);
        let ServerMessage::Welcome(welcome) = first else {
            tracing::error!(client = %peer, "the room said something before its welcome");
            return None;
        };
        let (reply_sender, replies) = mpsc::channel(REPLIES);
        let (arrival_sender, arrivals) = mpsc::channel(ARRIVALS);
        let ticket = context.resumes.issue(&room_id, arrival_sender.clone());
        let mut outlet = Outlet {
            context,
            membership: Arc::new(membership),
            notices,
            replies,
            reply_sender,
            arrivals,
            arrival_sender,
            taken: Arc::default(),
            welcome,
            log: Log::default(),
            written: 0,
            ticket,
            spare: None,
        };
        let (line, seat) = outlet.line(sink);
        tokio::spawn(outlet.run(line));
        Some(seat)
    }

    async fn run(mut self, line: Line) {
        let mut turn = Turn::Serve(line, None);
        loop {
            turn = match turn {
                Turn::Serve(line, arrived) => self.serve(line, arrived).await,
                Turn::Wait(heard) => self.wait(heard).await,
                Turn::Finish(line, end) => return self.finish(line, end).await,
                Turn::Vanish => return,
            };
        }
    }

    fn line(&mut self, sink: Sink) -> (Line, Seat) {
        let (stop, dismissed) = oneshot::channel();
        let (over_sender, over) = oneshot::channel();
        let seat = Seat {
            peer: self.welcome.client_id,
            membership: self.membership.clone(),
            replies: self.reply_sender.clone(),
            taken: self.taken.clone(),
            spare: self.spare.take(),
            dismissed,
            over: over_sender,
        };
        let stop = Some(stop);
        (Line { sink, stop, over }, seat)
    }

    /// Writes to a socket until something stops that.
    async fn serve(&mut self, mut line: Line, arrived: Option<Arrived>) -> Turn {
        let Err(stop) = self.write_on(&mut line, arrived).await;
        let (over, arrival) = match stop {
            Stop::Removed => return Turn::Finish(line, End::Dismissed),
            // By the room, not by us: it has ended.
            Stop::Over(over) if over.end == End::Dismissed => return Turn::Finish(line, over.end),
            Stop::Over(over) => (over, None),
            Stop::Broken => (self.until_over(&mut line).await, None),
            Stop::Arrived(arrival) => (self.until_over(&mut line).await, Some(arrival)),
        };
        self.spare = over.spare.or(self.spare.take());
        match (over.end, arrival) {
            (End::Broken | End::Dead | End::Dismissed, Some(arrival)) => {
                self.admit(arrival).unwrap_or(Turn::Wait(over.heard))
            }
            (End::Broken | End::Dead | End::Dismissed, None) => Turn::Wait(over.heard),
            (end, _) => Turn::Finish(line, end),
        }
    }

    async fn write_on(
        &mut self,
        line: &mut Line,
        arrived: Option<Arrived>,
    ) -> Result<Infallible, Stop> {
        match arrived {
            None => self.write_message(line, &self.greeting(false, 0)).await?,
            Some(arrived) => self.catch_up(line, arrived).await?,
        }
        let period = self.context.options.ping;
        let mut ping = interval_at(Instant::now() + period, period);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                over = &mut line.over => return Err(Stop::Over(over.unwrap_or_else(|_| Over::lost()))),
                Some(arrival) = self.arrivals.recv() => return Err(Stop::Arrived(arrival)),
                notice = self.notices.recv() => match notice {
                    Some(notice) => {
                        let message = self.message(notice);
                        self.tell(line, &message).await?;
                    }
                    // The room lets go of a client that leaves, too: the reader's reason counts.
                    None => return Err(match line.over.try_recv() {
                        Ok(over) => Stop::Over(over),
                        Err(_) => Stop::Removed,
                    }),
                },
                Some(reply) = self.replies.recv() => self.tell(line, &reply).await?,
                _ = ping.tick() => self.write(line, Message::Ping(Default::default())).await?,
            }
        }
    }

    /// To a client that comes back: who it is, what it missed, and what holds now where that is not known.
    async fn catch_up(&mut self, line: &mut Line, arrived: Arrived) -> Result<(), Stop> {
        let known = arrived.seen.filter(|seen| self.log.after(*seen).is_some());
        let seen = known.unwrap_or(self.written);
        let missed: Option<Vec<Utf8Bytes>> = self.log.after(seen).map(|m| m.cloned().collect());
        let restate = known.is_none();
        let seen = if missed.is_some() {
            seen
        } else {
            self.log.clear();
            self.log.last()
        };
        let id = ServerMessage::ClientId(self.welcome.client_id);
        self.write_message(line, &id).await?;
        self.write_message(line, &self.greeting(true, seen)).await?;
        // Its answer shows that the client is there, and has the new token.
        self.write(line, Message::Ping(Default::default())).await?;
        for text in missed.unwrap_or_default() {
            self.write(line, Message::Text(text)).await?;
        }
        self.written = self.log.last();
        // An error means that the room has ended, which its notices say.
        let back = Request::SocketBack { restate };
        let _ = self.membership.request(back).await;
        Ok(())
    }

    fn greeting(&self, resumed: bool, sent: u64) -> ServerMessage {
        let (reach, host) = (&self.context.reach, self.context.host.as_deref());
        ServerMessage::Welcome(Welcome {
            ice_servers: reach.ice_servers(self.welcome.client_id, host, SystemTime::now()),
            resume: Resumption {
                token: Some(self.ticket.token().to_owned()),
                resumed,
                sent,
                received: self.taken.load(Ordering::Relaxed),
            },
            ..self.welcome.clone()
        })
    }

    /// Keeps what the room says until the client is back, or has taken too long.
    async fn wait(&mut self, heard: Instant) -> Turn {
        let heard = heard.into_std();
        if self
            .membership
            .request(Request::SocketLost { heard })
            .await
            .is_err()
        {
            return Turn::Vanish;
        }
        let patience = sleep(self.context.options.resume);
        tokio::pin!(patience);
        let mut shutdown = self.context.shutdown.clone();
        loop {
            tokio::select! {
                () = &mut patience => return Turn::Vanish,
                _ = shutdown.wait_for(|ends| *ends) => return Turn::Vanish,
                Some(arrival) = self.arrivals.recv() => {
                    if let Some(turn) = self.admit(arrival) {
                        return turn;
                    }
                }
                notice = self.notices.recv() => match notice {
                    Some(notice) => {
                        let message = self.message(notice);
                        self.keep(&message);
                    }
                    None => return Turn::Vanish,
                },
            }
        }
    }

    /// Gives an arriving socket its place; `None` if it has gone already. The token that it named is used up when
    /// something comes over it.
    fn admit(&mut self, arrival: Arrival) -> Option<Turn> {
        let ticket = self
            .context
            .resumes
            .issue(&self.welcome.room_id, self.arrival_sender.clone());
        let last = std::mem::replace(&mut self.ticket, ticket);
        if last.token() == arrival.token {
            self.spare = Some(last);
        }
        let (line, seat) = self.line(arrival.sink);
        match arrival.seat.send(seat) {
            Ok(()) => {
                let seen = arrival.seen;
                Some(Turn::Serve(line, Some(Arrived { seen })))
            }
            Err(seat) => {
                self.spare = seat.spare;
                None
            }
        }
    }

    /// Dismisses the reader and waits for its last word. Its replies are kept meanwhile: it may wait for their place.
    async fn until_over(&mut self, line: &mut Line) -> Over {
        line.stop = None;
        loop {
            tokio::select! {
                over = &mut line.over => return over.unwrap_or_else(|_| Over::lost()),
                Some(reply) = self.replies.recv() => {
                    self.keep(&reply);
                }
            }
        }
    }

    fn message(&mut self, notice: Notice) -> ServerMessage {
        if let Notice::Mode { delivery, .. } = &notice {
            self.welcome.delivery = *delivery;
        }
        if matches!(notice, Notice::Error(_)) {
            self.context.counters.count(Refusal::NotCarriedOut);
        }
        ServerMessage::from_notice(notice, self.welcome.client_id, &self.welcome.room_id)
    }

    /// Numbers and keeps a message; figures are neither, because the next ones replace them.
    fn keep(&mut self, message: &ServerMessage) -> Utf8Bytes {
        let text = Utf8Bytes::from(message.to_json());
        if message.is_numbered() {
            self.log.push(text.clone());
        }
        text
    }

    async fn tell(&mut self, line: &mut Line, message: &ServerMessage) -> Result<(), Stop> {
        let text = self.keep(message);
        self.write(line, Message::Text(text)).await?;
        self.written = self.log.last();
        Ok(())
    }

    async fn write_message(
        &mut self,
        line: &mut Line,
        message: &ServerMessage,
    ) -> Result<(), Stop> {
        self.write(line, Message::Text(message.to_json().into()))
            .await
    }

    /// A client whose old socket takes nothing any more is not to wait for that when it comes back.
    async fn write(&mut self, line: &mut Line, message: Message) -> Result<(), Stop> {
        tokio::select! {
            written = write(&mut line.sink, message) => written.map_err(|error| {
                if error == WriteError::Slow {
                    self.context.counters.count(Refusal::Slow);
                }
                Stop::Broken
            }),
            over = &mut line.over => Err(Stop::Over(over.unwrap_or_else(|_| Over::lost()))),
            Some(arrival) = self.arrivals.recv() => Err(Stop::Arrived(arrival)),
        }
    }

    /// The stay ends. The room hears of it now, however long the closing takes. Codes after which a client may well
    /// come back are not those for a policy (1008) or a normal end (1000).
    async fn finish(self, mut line: Line, end: End) {
        let Outlet {
            membership,
            context,
            ..
        } = self;
        drop(membership);
        let (code, reason) = match end {
            End::Closed | End::Broken | End::Dead => return,
            End::Left => (close_code::NORMAL, "left"),
            End::TooLarge => (close_code::SIZE, "a message is far beyond the limit"),
            End::Shutdown => (close_code::AWAY, "the server is shutting down"),
            End::Dismissed => {
                context.counters.count(Refusal::Slow);
                (
                    close_code::AGAIN,
                    "the room has let this client go: it does not read, or the room has ended",
                )
            }
        };
        // The socket ends either way.
        let _ = close(&mut line.sink, code, reason).await;
    }
}

impl Over {
    /// Of a reader that was dropped.
    fn lost() -> Self {
        Over {
            end: End::Broken,
            heard: Instant::now(),
            spare: None,
        }
    }
}

/// Why a frame could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The socket is broken or closed.
    Broken,
    /// The client did not take the frame in time.
    Slow,
}

/// Writes a message to a socket that is in no stay (yet).
///
/// # Errors
/// See [`WriteError`].
pub async fn send(sink: &mut Sink, message: &ServerMessage) -> Result<(), WriteError> {
    write(sink, Message::Text(message.to_json().into())).await
}

/// Writes a close frame; what is too long of the reason is left out.
///
/// # Errors
/// See [`WriteError`].
pub async fn close(sink: &mut Sink, code: u16, reason: &str) -> Result<(), WriteError> {
    /// RFC 6455, section 5.5: a control frame carries 125 bytes, and two of them are the code.
    const MAX_REASON: usize = 123;
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = Utf8Bytes::from(&reason[..end]);
    write(sink, Message::Close(Some(CloseFrame { code, reason }))).await
}

async fn write(sink: &mut Sink, message: Message) -> Result<(), WriteError> {
    match timeout(WRITE_TIMEOUT, sink.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(WriteError::Broken),
        Err(_) => Err(WriteError::Slow),
    }
}
