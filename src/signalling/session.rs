//! The life of one socket: `clientid`, the join, then a reader here and a writer in a task of its own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::ids::PeerId;
use crate::room::manager::RoomError;
use crate::room::task::MAILBOX;
use crate::room::{Membership, Notice, Request, RoomManager};
use crate::signalling::counters::{Counters, Refusal};
use crate::signalling::throttle::Throttle;
use crate::signalling::{ClientMessage, JoinQuery, ServerMessage};

/// Socket's reader → its writer. When it is full the reader waits: a client that does not read its errors is not
/// read either.
const REPLIES: usize = 16;

/// A frame that cannot be written within this time ends the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a closed socket waits for the client's own close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What every session of a server shares.
#[derive(Clone)]
pub struct SessionContext {
    /// The rooms.
    pub rooms: RoomManager,
    /// Limits and times.
    pub options: SessionOptions,
    /// What was refused.
    pub counters: Arc<Counters>,
    /// Becomes true when the server ends.
    pub shutdown: watch::Receiver<bool>,
}

/// Limits and times of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How often the client is pinged.
    pub ping: Duration,
    /// A socket from which nothing comes for this long is dead.
    pub idle: Duration,
    /// Longest message that is read, bytes.
    pub max_message: usize,
}

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed it, or it broke.
    Gone,
    /// The client sent `leave`.
    Left,
    /// Nothing came for too long.
    Dead,
    /// A message beyond what can be skipped.
    TooLarge,
    /// The server ends.
    Shutdown,
    /// The room has let the client go, or the writer could not write.
    Removed,
}

type Sink = SplitSink<WebSocket, Message>;

/// Runs a socket to its end. Dropping the future leaves the room.
pub async fn run(socket: WebSocket, query: JoinQuery, context: SessionContext) {
    let peer = PeerId::random();
    let (mut sink, stream) = socket.split();
    if send(&mut sink, &ServerMessage::ClientId(peer))
        .await
        .is_err()
    {
        return;
    }
    let (mailbox, notices) = mpsc::channel(MAILBOX);
    let joined = context
        .rooms
        .join(&query.room_id, peer, query.request, mailbox)
        .await;
    match joined {
        Ok(membership) => {
            let (replies, reply_queue) = mpsc::channel(REPLIES);
            let (close, close_order) = oneshot::channel();
            let writer = Writer {
                sink,
                peer,
                room_id: query.room_id,
                notices,
                replies: reply_queue,
                ping: context.options.ping,
                counters: context.counters.clone(),
            };
            let session = Session {
                stream,
                membership,
                replies,
                close,
                writer: tokio::spawn(writer.run(close_order)),
                throttle: Throttle::new(Instant::now().into_std()),
                context,
            };
            session.run(query.complaints).await;
        }
        Err(error) => {
            context.counters.count(Refusal::JoinRefused);
            refuse(sink, stream, error).await;
        }
    }
}

/// Says why there is no room, and closes.
async fn refuse(mut sink: Sink, stream: SplitStream<WebSocket>, error: RoomError) {
    let sentence = error.to_string();
    if send(&mut sink, &ServerMessage::Error(sentence.clone()))
        .await
        .is_ok()
    {
        let code = match error {
            RoomError::ShuttingDown => close_code::AWAY,
            _ => close_code::AGAIN,
        };
        if close(&mut sink, code, &sentence).await.is_ok() {
            await_close(stream).await;
        }
    }
}

/// The reading half.
struct Session {
    stream: SplitStream<WebSocket>,
    membership: Membership,
    replies: mpsc::Sender<ServerMessage>,
    close: oneshot::Sender<End>,
    writer: JoinHandle<()>,
    throttle: Throttle,
    context: SessionContext,
}

impl Session {
    async fn run(mut self, complaints: Vec<String>) {
        for complaint in complaints {
            self.error(complaint).await;
        }
        let end = loop {
            if let ControlFlow::Break(end) = self.step().await {
                break end;
            }
        };
        if end == End::Dead {
            self.context.counters.count(Refusal::Dead);
        }
        if end != End::Removed {
            // The writer may have ended by itself.
            let _ = self.close.send(end);
        }
        // The room hears of the leave now, however long the closing takes.
        drop(self.membership);
        if end != End::Removed {
            let _ = self.writer.await;
        }
        if !matches!(end, End::Gone | End::Dead) {
            await_close(self.stream).await;
        }
    }

    async fn step(&mut self) -> ControlFlow<End> {
        let frame = tokio::select! {
            _ = self.context.shutdown.wait_for(|ends| *ends) => return ControlFlow::Break(End::Shutdown),
            _ = &mut self.writer => return ControlFlow::Break(End::Removed),
            frame = timeout(self.context.options.idle, self.stream.next()) => frame,
        };
        match frame {
            Err(_) => ControlFlow::Break(End::Dead),
            Ok(None) => ControlFlow::Break(End::Gone),
            Ok(Some(Err(error))) => ControlFlow::Break(end_of(&error)),
            Ok(Some(Ok(message))) => self.handle(message).await,
        }
    }

    async fn handle(&mut self, message: Message) -> ControlFlow<End> {
        let bytes = match &message {
            Message::Text(text) => text.len(),
            Message::Binary(data) | Message::Ping(data) | Message::Pong(data) => data.len(),
            Message::Close(_) => return ControlFlow::Break(End::Gone),
        };
        let wait = self.throttle.pay(Instant::now().into_std(), bytes);
        match message {
            Message::Text(text) => self.handle_text(&text).await?,
            Message::Binary(_) => {
                let text = "messages are JSON text: binary ones are not understood";
                self.refuse(Refusal::Binary, text.to_owned()).await;
            }
            _ => {}
        }
        self.pause(wait).await
    }

    async fn handle_text(&mut self, text: &str) -> ControlFlow<End> {
        let limit = self.context.options.max_message;
        if text.len() > limit {
            let text = format!(
                "the message has {} bytes, and {limit} are the limit",
                text.len()
            );
            self.refuse(Refusal::TooLarge, text).await;
            return ControlFlow::Continue(());
        }
        let request = match ClientMessage::parse(text) {
            Ok(ClientMessage::Leave) => return ControlFlow::Break(End::Left),
            Ok(ClientMessage::Chat(text)) => Request::Chat {
                text,
                at: unix_millis(),
            },
            Ok(ClientMessage::Room(request)) => request,
            Err(error) => {
                self.refuse(Refusal::Malformed, error.to_string()).await;
                return ControlFlow::Continue(());
            }
        };
        match self.membership.request(request).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(End::Removed),
        }
    }

    /// Makes a client wait that talks faster than it may.
    async fn pause(&mut self, wait: Duration) -> ControlFlow<End> {
        if wait.is_zero() {
            return ControlFlow::Continue(());
        }
        tokio::select! {
            _ = self.context.shutdown.wait_for(|ends| *ends) => ControlFlow::Break(End::Shutdown),
            _ = &mut self.writer => ControlFlow::Break(End::Removed),
            () = sleep(wait) => ControlFlow::Continue(()),
        }
    }

    async fn refuse(&self, refusal: Refusal, sentence: String) {
        self.context.counters.count(refusal);
        self.error(sentence).await;
    }

    async fn error(&self, sentence: String) {
        // An error means that the writer has ended, which the next step notices.
        let _ = self.replies.send(ServerMessage::Error(sentence)).await;
    }
}

/// The writing half.
struct Writer {
    sink: Sink,
    peer: PeerId,
    room_id: String,
    notices: mpsc::Receiver<Notice>,
    replies: mpsc::Receiver<ServerMessage>,
    ping: Duration,
    counters: Arc<Counters>,
}

impl Writer {
    async fn run(mut self, mut close_order: oneshot::Receiver<End>) {
        // Nothing may come before the welcome, and it is the room's first notice.
        if let Some(welcome) = self.notices.recv().await
            && self.notice(welcome).await.is_err()
        {
            return;
        }
        let mut ping = interval_at(Instant::now() + self.ping, self.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let written = tokio::select! {
                order = &mut close_order => return self.close(order.unwrap_or(End::Gone)).await,
                notice = self.notices.recv() => match notice {
                    Some(notice) => self.notice(notice).await,
                    // The room lets go of a client that leaves, too: what was ordered before is the reason.
                    None => {
                        let end = close_order.try_recv().unwrap_or(End::Removed);
                        return self.close(end).await;
                    }
                },
                Some(reply) = self.replies.recv() => send(&mut self.sink, &reply).await,
                _ = ping.tick() => write(&mut self.sink, Message::Ping(Default::default())).await,
            };
            if let Err(error) = written {
                if error == WriteError::Slow {
                    self.counters.count(Refusal::Slow);
                }
                return;
            }
        }
    }

    async fn notice(&mut self, notice: Notice) -> Result<(), WriteError> {
        let message = ServerMessage::from_notice(notice, self.peer, &self.room_id);
        send(&mut self.sink, &message).await
    }

    /// Codes after which a client may well come back are not those for a policy (1008) or a normal end (1000).
    async fn close(mut self, end: End) {
        let (code, reason) = match end {
            End::Gone => return,
            End::Left => (close_code::NORMAL, "left"),
            End::Dead => (close_code::AWAY, "nothing came for too long"),
            End::TooLarge => (close_code::SIZE, "a message is far beyond the limit"),
            End::Shutdown => (close_code::AWAY, "the server is shutting down"),
            End::Removed => {
                self.counters.count(Refusal::Slow);
                (
                    close_code::AGAIN,
                    "the room has let this client go: it does not read, or the room has ended",
                )
            }
        };
        // The socket ends either way.
        let _ = close(&mut self.sink, code, reason).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteError {
    /// The socket is broken or closed.
    Broken,
    /// The client did not take the frame in time.
    Slow,
}

async fn send(sink: &mut Sink, message: &ServerMessage) -> Result<(), WriteError> {
    write(sink, Message::Text(message.to_json().into())).await
}

async fn close(sink: &mut Sink, code: u16, reason: &str) -> Result<(), WriteError> {
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

/// Reads the rest, so that the client gets our close frame and not a reset.
async fn await_close(mut stream: SplitStream<WebSocket>) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = timeout(CLOSE_TIMEOUT, rest).await;
}

/// The WebSocket library's capacity error is told apart by its text: its type is of a version that only axum names.
fn end_of(error: &axum::Error) -> End {
    if error.to_string().contains("Space limit exceeded") {
        End::TooLarge
    } else {
        End::Gone
    }
}

/// Milliseconds of the Unix epoch; 0 with a clock before it.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}
