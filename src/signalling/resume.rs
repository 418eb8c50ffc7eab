//! Sockets that break: the tokens by which a client comes back, and what it may have missed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use rand::Rng;
use rand::distr::Alphanumeric;
use tokio::sync::mpsc;

use crate::signalling::outlet::Arrival;

/// Letters and digits of a token: 190 random bits.
const TOKEN_LEN: usize = 32;

/// Messages that a client may have missed and is told when it resumes, in number and in bytes of text. Of more the
/// oldest are forgotten, and a client that missed one of them is told the whole state instead.
pub const LOG_MESSAGES: usize = 512;
/// See [`LOG_MESSAGES`].
pub const LOG_BYTES: usize = 1 << 20;

/// What the query of a resuming socket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeQuery {
    /// Of the last `welcome`.
    pub token: String,
    /// Numbered messages of the server that the client has; `None`: it does not count.
    pub seen: Option<u64>,
}

/// The tokens that are good now, and whose they are. Cheap to clone.
#[derive(Clone, Default)]
pub struct Resumes(Arc<Mutex<HashMap<String, Owner>>>);

struct Owner {
    room_id: String,
    arrivals: mpsc::Sender<Arrival>,
}

impl Resumes {
    /// Makes a token that leads to `arrivals`, for a socket of the same room.
    pub fn issue(&self, room_id: &str, arrivals: mpsc::Sender<Arrival>) -> Ticket {
        let letters = rand::rng().sample_iter(Alphanumeric).take(TOKEN_LEN);
        let token: String = letters.map(char::from).collect();
        let room_id = room_id.to_owned();
        self.lock()
            .insert(token.clone(), Owner { room_id, arrivals });
        Ticket {
            resumes: self.clone(),
            token,
        }
    }

    /// Where a socket with this token belongs; `None`: unknown, used, expired, or of another room.
    pub fn find(&self, token: &str, room_id: &str) -> Option<mpsc::Sender<Arrival>> {
        let owners = self.lock();
        let owner = owners.get(token).filter(|owner| owner.room_id == room_id)?;
        Some(owner.arrivals.clone())
    }

    /// Number of good tokens.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The map is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token, good until this is dropped.
pub struct Ticket {
    resumes: Resumes,
    token: String,
}

impl Ticket {
    /// What the client has to say.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.resumes.lock().remove(&self.token);
    }
}

/// The latest numbered messages to a client, the first of its stay having number 1.
#[derive(Debug, Default)]
pub struct Log {
    messages: VecDeque<Utf8Bytes>,
    bytes: usize,
    /// Number of the last message.
    last: u64,
}

impl Log {
    /// Keeps a message under the next number.
    pub fn push(&mut self, text: Utf8Bytes) {
        self.bytes += text.len();
        self.messages.push_back(text);
        self.last += 1;
        while self.messages.len() > LOG_MESSAGES || self.bytes > LOG_BYTES {
            let forgotten = self.messages.pop_front();
            self.bytes -= forgotten.map_or(0, |text| text.len());
        }
    }

    /// Number of the last message; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The messages after number `seen`; `None`: some of them are forgotten, or there is no such number yet.
    pub fn after(&self, seen: u64) -> Option<impl Iterator<Item = &Utf8Bytes>> {
        let missed = usize::try_from(self.last.checked_sub(seen)?).ok()?;
        let skipped = self.messages.len().checked_sub(missed)?;
        Some(self.messages.iter().skip(skipped))
    }

    /// Forgets the messages; the numbers go on.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &Log, seen: u64) -> Option<Vec<&str>> {
        Some(log.after(seen)?.map(Utf8Bytes::as_str).collect())
    }

    #[test]
    fn what_was_missed_is_told_in_order_and_nothing_twice() {
        let mut log = Log::default();
        for text in ["a", "b", "c"] {
            log.push(text.into());
        }
        assert_eq!(texts(&log, 0), Some(vec!["a", "b", "c"]));
        assert_eq!(texts(&log, 2), Some(vec!["c"]));
        assert_eq!(texts(&log, 3), Some(vec![]));
        assert_eq!(texts(&log, 4), None, "nobody has seen it");
        log.clear();
        assert_eq!(texts(&log, 3), Some(vec![]));
        assert_eq!(texts(&log, 2), None);
        log.push("d".into());
        assert_eq!((log.last(), texts(&log, 3)), (4, Some(vec!["d"])));
    }

    #[test]
    fn the_log_is_bounded_in_messages_and_in_bytes() {
        let mut log = Log::default();
        for n in 0..10 * LOG_MESSAGES {
            log.push(n.to_string().into());
        }
        assert_eq!(log.messages.len(), LOG_MESSAGES);
        assert!(log.after(log.last() - LOG_MESSAGES as u64).is_some());
        assert!(log.after(log.last() - LOG_MESSAGES as u64 - 1).is_none());
        for _ in 0..100 {
            log.push("x".repeat(LOG_BYTES / 10).into());
            assert!(log.bytes <= LOG_BYTES);
        }
        log.push("x".repeat(2 * LOG_BYTES).into());
        assert_eq!((log.messages.len(), log.bytes), (0, 0));
        assert!(log.after(log.last()).is_some() && log.after(log.last() - 1).is_none());
    }

    #[test]
    fn a_token_is_good_in_its_room_while_its_ticket_lives_and_never_the_same() {
        let resumes = Resumes::default();
        let (arrivals, _) = mpsc::channel(1);
        let ticket = resumes.issue("a", arrivals.clone());
        let other = resumes.issue("a", arrivals);
        assert_ne!(ticket.token(), other.token());
        assert_eq!(ticket.token().len(), TOKEN_LEN);
        assert!(resumes.find(ticket.token(), "a").is_some());
        assert!(resumes.find(ticket.token(), "b").is_none());
        assert!(resumes.find("", "a").is_none());
        let token = ticket.token().to_owned();
        drop(ticket);
        assert!(resumes.find(&token, "a").is_none());
        assert_eq!(resumes.len(), 1);
    }
}
