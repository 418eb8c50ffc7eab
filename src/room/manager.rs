//! The only map that sockets share: room id → the address of its task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::ids::{PeerId, RoomKey};
use crate::room::snapshot::RoomSnapshot;
use crate::room::task::{INBOX, Mailbox, Message, Registry, RoomTask};
use crate::room::{JoinError, JoinRequest, LayoutError, LayoutRequest, Limits, Request};
use crate::worker::{Command, WorkerFigures, WorkerHandle};

/// The room of a client that names none.
pub const DEFAULT_ROOM: &str = "default";

/// Packets a second that a room is counted with beside what its worker measures: so that rooms that open at once are
/// spread.
const PACKETS_PER_ROOM: u64 = 300;

/// Why a client cannot have a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// The limit on rooms.
    #[error("the server has {0} rooms, which is its limit: join one of them or try again later")]
    TooManyRooms(usize),
    /// The room itself refuses.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The room ended again and again while the client tried to enter.
    #[error("the room was being removed: try again")]
    Vanished,
    /// The worker threads are gone.
    #[error("the server has no media worker")]
    NoWorker,
}

/// What one room is to forward, where that differs from other rooms. `Some(None)`: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoiceWishes {
    /// Sounds at one time.
    pub audio: Option<Option<usize>>,
    /// Cameras at one time.
    pub video: Option<Option<usize>>,
}

/// Makes rooms on demand and finds them. Cheap to clone.
#[derive(Clone)]
pub struct RoomManager {
    shared: Arc<Shared>,
}

struct Shared {
    workers: Vec<WorkerHandle>,
    limits: Limits,
    max_rooms: usize,
    map: Mutex<Map>,
}

#[derive(Default)]
struct Map {
    rooms: HashMap<String, Entry>,
    closed: bool,
}

struct Entry {
    key: RoomKey,
    worker: usize,
    inbox: mpsc::Sender<Message>,
}

impl RoomManager {
    /// A manager without rooms.
    pub fn new(workers: Vec<WorkerHandle>, limits: Limits, max_rooms: usize) -> Self {
        RoomManager {
            shared: Arc::new(Shared {
                workers,
                limits,
                max_rooms,
                map: Mutex::default(),
            }),
        }
    }

    /// Makes a room with a random id and returns that. What `audio` and `video` do not say is as in every room.
    pub fn create(&self, wishes: VoiceWishes) -> Result<String, RoomError> {
        let id = random_room_id();
        let mut limits = self.shared.limits;
        limits.voices.audio = wishes.audio.unwrap_or(limits.voices.audio);
        limits.voices.video = wishes.video.unwrap_or(limits.voices.video);
        self.open_with(&id, limits)?;
        Ok(id)
    }

    /// Enters a room, which is made if there is none of this id. The first notice is the welcome.
    pub async fn join(
        &self,
        room_id: &str,
        peer: PeerId,
        request: JoinRequest,
        mailbox: Mailbox,
    ) -> Result<Membership, RoomError> {
        /// A room may end between the look-up and the join; then there is a new one.
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            let inbox = self.open(room_id)?;
            let (reply, joined) = oneshot::channel();
            let message = Message::Join {
                peer,
                request: request.clone(),
                mailbox: mailbox.clone(),
                reply,
            };
            // Made before the reply: if this future is dropped in between, the room hears of the leave.
            let membership = Membership { peer, inbox };
            if membership.inbox.send(message).await.is_err() {
                continue;
            }
            match joined.await {
                Ok(Ok(())) => return Ok(membership),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Err(RoomError::Vanished)
    }

    /// Divides a room's mixed picture differently; `None` if there is no such room.
    pub async fn set_layout(
        &self,
        room_id: &str,
        wanted: LayoutRequest,
    ) -> Option<Result<(), LayoutError>> {
        let inbox = self.shared.lock().rooms.get(room_id)?.inbox.clone();
        let (reply, done) = oneshot::channel();
        let message = Message::SetLayout { wanted, reply };
        inbox.send(message).await.ok()?;
        done.await.ok()
    }

    /// The figures of a room; `None`: there is no such room.
    pub async fn snapshot(&self, room_id: &str) -> Option<RoomSnapshot> {
        let inbox = self.shared.lock().rooms.get(room_id)?.inbox.clone();
        let (reply, snapshot) = oneshot::channel();
        inbox.send(Message::Snapshot { reply }).await.ok()?;
        snapshot.await.ok()
    }

    /// What each worker did so far; `None` for one that does not answer within `patience`.
    pub async fn worker_figures(&self, patience: Duration) -> Vec<Option<Box<WorkerFigures>>> {
        let ask = |worker: &WorkerHandle| {
            let (reply, figures) = oneshot::channel();
            // A refused command drops the reply, and the answer is `None`.
            let _ = worker.send(Command::Figures { reply });
            figures
        };
        let answers: Vec<_> = self.shared.workers.iter().map(ask).collect();
        let deadline = Instant::now() + patience;
        let mut figures = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = timeout_at(deadline, answer).await;
            figures.push(answer.ok().and_then(Result::ok));
        }
        figures
    }

    /// Number of rooms.
    pub fn room_count(&self) -> usize {
        self.shared.lock().rooms.len()
    }

    /// Ends every room and makes no new ones.
    pub async fn close(&self) {
        let inboxes: Vec<_> = {
            let mut map = self.shared.lock();
            map.closed = true;
            map.rooms.values().map(|e| e.inbox.clone()).collect()
        };
        for inbox in inboxes {
            // A room that is gone already needs no telling.
            let _ = inbox.send(Message::Close).await;
        }
    }

    fn open(&self, id: &str) -> Result<mpsc::Sender<Message>, RoomError> {
        self.open_with(id, self.shared.limits)
    }

    fn open_with(&self, id: &str, limits: Limits) -> Result<mpsc::Sender<Message>, RoomError> {
        let mut map = self.shared.lock();
        if map.closed {
            return Err(RoomError::ShuttingDown);
        }
        if let Some(entry) = map.rooms.get(id) {
            return Ok(entry.inbox.clone());
        }
        if map.rooms.len() >= self.shared.max_rooms {
            return Err(RoomError::TooManyRooms(self.shared.max_rooms));
        }
        let loads = self.shared.workers.iter().map(|w| w.load().score());
        let worker = map.least_loaded(loads).ok_or(RoomError::NoWorker)?;
        let key = RoomKey::next();
        let (inbox, receiver) = mpsc::channel(INBOX);
        map.rooms.insert(
            id.to_owned(),
            Entry {
                key,
                worker,
                inbox: inbox.clone(),
            },
        );
        let place = Place {
            shared: self.shared.clone(),
            id: id.to_owned(),
            key,
        };
        let handle = self.shared.workers[worker].clone();
        tokio::spawn(RoomTask::new(id.to_owned(), key, limits, handle, receiver, place).run());
        Ok(inbox)
    }
}

impl Shared {
    /// The map is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    /// The worker that has the least to do; `None`: there are no workers. A room counts from the moment it is made, when
    /// nothing of it can be measured.
    fn least_loaded(&self, measured: impl Iterator<Item = u64>) -> Option<usize> {
        let mut loads: Vec<u64> = measured.collect();
        for entry in self.rooms.values() {
            loads[entry.worker] += PACKETS_PER_ROOM;
        }
        (0..loads.len()).min_by_key(|worker| loads[*worker])
    }
}

/// A room's place in the map.
struct Place {
    shared: Arc<Shared>,
    id: String,
    key: RoomKey,
}

impl Registry for Place {
    fn remove(&self) {
        let mut map = self.shared.lock();
        if map.rooms.get(&self.id).is_some_and(|e| e.key == self.key) {
            map.rooms.remove(&self.id);
        }
    }
}

/// A client's place in a room. Dropping it leaves the room.
#[derive(Debug)]
pub struct Membership {
    peer: PeerId,
    inbox: mpsc::Sender<Message>,
}

/// The room has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the room has ended")]
pub struct RoomEnded;

impl Membership {
    /// Asks the room for something; waits while its queue is full.
    pub async fn request(&self, request: Request) -> Result<(), RoomEnded> {
        let peer = self.peer;
        let message = Message::Request { peer, request };
        self.inbox.send(message).await.map_err(|_| RoomEnded)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let message = Message::Leave { peer: self.peer };
        if let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(message)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let inbox = self.inbox.clone();
            // An error means that the room has ended, and the membership with it.
            runtime.spawn(async move { inbox.send(message).await.ok() });
        }
    }
}

/// Unguessable: whoever knows it may enter.
fn random_room_id() -> String {
    const LENGTH: usize = 12;
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut rng = rand::rng();
    (0..LENGTH)
        .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
        .collect()
}

#[cfg(test)]
mod tests;
