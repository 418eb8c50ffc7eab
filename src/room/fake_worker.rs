//! A media worker for tests: it records commands and sends what the test tells it to.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ids::{PeerId, RoomKey};
use crate::worker::{Command, Event, EventSender, WorkerHandle};

/// Longer than any test needs, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// The worker's end of a [`WorkerHandle`].
pub struct FakeWorker {
    sender: Sender<Command>,
    commands: Receiver<Command>,
    rooms: Vec<(RoomKey, EventSender)>,
}

impl FakeWorker {
    /// Takes up to `capacity` commands that the test has not looked at.
    pub fn new(capacity: usize) -> Self {
        let (sender, commands) = bounded(capacity);
        FakeWorker {
            sender,
            commands,
            rooms: Vec::new(),
        }
    }

    /// The handle for rooms.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle::new(self.sender.clone(), Arc::new(|| ()))
    }

    /// The first command that fits, skipping others. Lets the runtime work meanwhile.
    pub async fn expect<T>(
        &mut self,
        what: &str,
        mut fits: impl FnMut(&Command) -> Option<T>,
    ) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            while let Ok(command) = self.commands.try_recv() {
                if let Command::OpenRoom { room, events, .. } = &command {
                    self.rooms.push((*room, events.clone()));
                }
                if let Some(found) = fits(&command) {
                    return found;
                }
            }
            assert!(
                tokio::time::Instant::now() < end,
                "the worker got no {what}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for the next peer that is added.
    pub async fn expect_peer(&mut self) -> PeerId {
        let added = |c: &Command| match c {
            Command::AddPeer { peer, .. } => Some(*peer),
            _ => None,
        };
        self.expect("AddPeer", added).await
    }

    /// Waits until this peer is removed.
    pub async fn expect_removed(&mut self, gone: PeerId) {
        let removed = |c: &Command| match c {
            Command::RemovePeer { peer } if *peer == gone => Some(()),
            _ => None,
        };
        self.expect("RemovePeer", removed).await;
    }

    /// The commands that came and that no expectation has looked at.
    pub fn drain(&mut self) -> Vec<Command> {
        self.commands.try_iter().collect()
    }

    /// Sends an event to the latest room.
    pub async fn send(&self, event: Event) {
        let (_, events) = self.rooms.last().expect("a room was opened");
        events.send(event).await.expect("the room runs");
    }
}
