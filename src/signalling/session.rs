//! The life of one socket: `clientid` and the join, or the place in a stay that it resumes; then its reader. What the
//! client is told comes from its [`Outlet`].

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{Message, WebSocket, close_code};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::ids::PeerId;
use crate::reach::Reach;
use crate::room::manager::RoomError;
use crate::room::task::MAILBOX;
use crate::room::{Membership, Request, RoomManager};
use crate::signalling::avatar;
use crate::signalling::counters::{Counters, Refusal};
use crate::signalling::outlet::{Arrival, End, Outlet, Over, Seat, Sink, close, send};
use crate::signalling::resume::{ResumeQuery, Resumes, Ticket};
use crate::signalling::throttle::Throttle;
use crate::signalling::{ClientMessage, JoinQuery, ServerMessage};

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
    /// By which clients come back.
    pub resumes: Resumes,
    /// Becomes true when the server ends.
    pub shutdown: watch::Receiver<bool>,
    /// What clients are told about ways to this server.
    pub reach: Arc<Reach>,
    /// Under which name this client reached us (its Host header).
    pub host: Option<String>,
}

/// Limits and times of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How often the client is pinged.
    pub ping: Duration,
    /// A socket from which nothing comes for this long is dead.
    pub idle: Duration,
    /// How long a client whose socket broke may take to come back.
    pub resume: Duration,
    /// Longest message that is read, bytes.
    pub max_message: usize,
}

/// Runs a socket to its end. Dropping the future breaks it.
pub async fn run(socket: WebSocket, query: JoinQuery, context: SessionContext) {
    let (sink, stream) = socket.split();
    let sink = match &query.resume {
        None => sink,
        Some(resume) => match resumed(resume, &query.room_id, sink, &context).await {
            Resumed::Seated(seat) => return Reader::new(stream, seat, context).run(vec![]).await,
            Resumed::Vanished => return,
            Resumed::Unknown(sink) => sink,
        },
    };
    join(sink, stream, query, context).await;
}

async fn join(
    mut sink: Sink,
    stream: SplitStream<WebSocket>,
    query: JoinQuery,
    context: SessionContext,
) {
    let peer = PeerId::random();
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
            let room_id = query.room_id;
            let shared = context.clone();
            let seat = Outlet::start(shared, peer, room_id, membership, notices, sink).await;
            if let Some(seat) = seat {
                Reader::new(stream, seat, context)
                    .run(query.complaints)
                    .await;
            }
        }
        Err(error) => {
            context.counters.count(Refusal::JoinRefused);
            refuse(sink, stream, error).await;
        }
    }
}

/// What becomes of a socket that wants to resume.
enum Resumed {
    Seated(Seat),
    /// The stay ended just now, and took the socket with it.
    Vanished,
    /// Nobody has this token: a new stay begins.
    Unknown(Sink),
}

async fn resumed(
    resume: &ResumeQuery,
    room_id: &str,
    sink: Sink,
    context: &SessionContext,
) -> Resumed {
    let Some(arrivals) = context.resumes.find(&resume.token, room_id) else {
        return Resumed::Unknown(sink);
    };
    let (seat, seated) = oneshot::channel();
    let arrival = Arrival {
        sink,
        token: resume.token.clone(),
        seen: resume.seen,
        seat,
    };
    match arrivals.try_send(arrival) {
        Ok(()) => seated.await.map_or(Resumed::Vanished, Resumed::Seated),
        Err(refused) => Resumed::Unknown(refused.into_inner().sink),
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
struct Reader {
    stream: SplitStream<WebSocket>,
    peer: PeerId,
    membership: Arc<Membership>,
    replies: mpsc::Sender<ServerMessage>,
    taken: Arc<AtomicU64>,
    spare: Option<Ticket>,
    dismissed: oneshot::Receiver<Infallible>,
    over: oneshot::Sender<Over>,
    heard: Instant,
    throttle: Throttle,
    context: SessionContext,
}

impl Reader {
    fn new(stream: SplitStream<WebSocket>, seat: Seat, context: SessionContext) -> Self {
        let now = Instant::now();
        Reader {
            stream,
            peer: seat.peer,
            membership: seat.membership,
            replies: seat.replies,
            taken: seat.taken,
            spare: seat.spare,
            dismissed: seat.dismissed,
            over: seat.over,
            heard: now,
            throttle: Throttle::new(now.into_std()),
            context,
        }
    }

    async fn run(mut self, complaints: Vec<String>) {
        for complaint in complaints {
            self.error(complaint).await;
        }
        let end = loop {
            if let ControlFlow::Break(end) = self.step().await {
                break end;
            }
        };
        tracing::debug!(client = %self.peer, ?end, "a socket ends");
        if end == End::Dead {
            self.context.counters.count(Refusal::Dead);
        }
        drop(self.membership);
        // An error means that the outlet has ended already.
        let _ = self.over.send(Over {
            end,
            heard: self.heard,
            spare: self.spare,
        });
        if matches!(end, End::Left | End::TooLarge | End::Shutdown) {
            // Resolves when the close frame is written.
            let _ = self.dismissed.await;
        }
        if !matches!(end, End::Broken | End::Closed | End::Dead) {
            await_close(self.stream).await;
        }
    }

    async fn step(&mut self) -> ControlFlow<End> {
        let frame = tokio::select! {
            _ = self.context.shutdown.wait_for(|ends| *ends) => return ControlFlow::Break(End::Shutdown),
            _ = &mut self.dismissed => return ControlFlow::Break(End::Dismissed),
            frame = timeout(self.context.options.idle, self.stream.next()) => frame,
        };
        match frame {
            Err(_) => ControlFlow::Break(End::Dead),
            Ok(None) => ControlFlow::Break(End::Broken),
            Ok(Some(Err(error))) => ControlFlow::Break(end_of(&error)),
            Ok(Some(Ok(message))) => {
                self.heard = Instant::now();
                // The client is here, and has the token of its last welcome.
                self.spare = None;
                self.handle(message).await
            }
        }
    }

    async fn handle(&mut self, message: Message) -> ControlFlow<End> {
        let bytes = match &message {
            Message::Text(text) => text.len(),
            Message::Binary(data) | Message::Ping(data) | Message::Pong(data) => data.len(),
            Message::Close(_) => return ControlFlow::Break(End::Closed),
        };
        let wait = self.throttle.pay(Instant::now().into_std(), bytes);
        match message {
            Message::Text(text) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                self.handle_text(&text).await?;
            }
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
            Ok(ClientMessage::Avatar(None)) => Request::Avatar(None),
            Ok(ClientMessage::Avatar(Some(file))) => match avatar::decode(file).await {
                Ok(avatar) => Request::Avatar(Some(avatar)),
                Err(error) => {
                    let sentence = format!("avatar: {error}");
                    self.refuse(Refusal::Malformed, sentence).await;
                    return ControlFlow::Continue(());
                }
            },
            Err(error) => {
                self.refuse(Refusal::Malformed, error.to_string()).await;
                return ControlFlow::Continue(());
            }
        };
        match self.membership.request(request).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(End::Dismissed),
        }
    }

    /// Makes a client wait that talks faster than it may.
    async fn pause(&mut self, wait: Duration) -> ControlFlow<End> {
        if wait.is_zero() {
            return ControlFlow::Continue(());
        }
        tokio::select! {
            _ = self.context.shutdown.wait_for(|ends| *ends) => ControlFlow::Break(End::Shutdown),
            _ = &mut self.dismissed => ControlFlow::Break(End::Dismissed),
            () = sleep(wait) => ControlFlow::Continue(()),
        }
    }

    async fn refuse(&self, refusal: Refusal, sentence: String) {
        self.context.counters.count(refusal);
        self.error(sentence).await;
    }

    async fn error(&self, sentence: String) {
        // An error means that the outlet has ended, which the next step notices.
        let _ = self.replies.send(ServerMessage::Error(sentence)).await;
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
        End::Broken
    }
}

/// Milliseconds of the Unix epoch; 0 with a clock before it.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}
