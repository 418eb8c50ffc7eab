//! Codec threads: each takes the job whose deadline comes first.
//!
//! Audio and video have separate pools, so that a slow picture never delays a voice.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

/// A piece of work that comes back: one room's audio tick, one room's picture, one source's decoder.
pub trait Job: Send {
    /// Works once and says when it wants to be called again; `None` ends the job.
    fn run(&mut self, now: Instant) -> Option<Instant>;
}

struct Entry {
    deadline: Instant,
    /// Ties go to the one that has waited longer.
    order: u64,
    job: Box<dyn Job>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.deadline, self.order).cmp(&(other.deadline, other.order))
    }
}

#[derive(Default)]
struct Queue {
    entries: BinaryHeap<Reverse<Entry>>,
    next_order: u64,
    closed: bool,
}

impl Queue {
    fn push(&mut self, deadline: Instant, job: Box<dyn Job>) {
        self.next_order += 1;
        self.entries.push(Reverse(Entry {
            deadline,
            order: self.next_order,
            job,
        }));
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A job's panic is caught outside the lock, so the queue is whole even if the lock says otherwise.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, deadline: Instant, job: Box<dyn Job>) {
        self.lock().push(deadline, job);
        self.changed.notify_one();
    }
}

/// A set of threads with one queue of deadlines. The threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    _closer: Arc<Closer>,
}

struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Pool {
    /// Starts `threads` threads called `name-0`, `name-1` …
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        for index in 0..threads.max(1) {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || work(&shared))?;
        }
        Ok(Pool {
            _closer: Arc::new(Closer(shared.clone())),
            shared,
        })
    }

    /// Hands over a job, to run for the first time at `deadline`.
    pub fn spawn(&self, deadline: Instant, job: Box<dyn Job>) {
        self.shared.spawn(deadline, job);
    }

    /// For jobs that start others.
    pub fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.shared))
    }
}

/// Starts jobs, and does not keep the pool from ending.
#[derive(Clone)]
pub struct Spawner(Weak<Shared>);

impl Spawner {
    /// Hands over a job, to run at once. It is dropped if the pool has ended.
    pub fn spawn_now(&self, job: Box<dyn Job>) {
        if let Some(shared) = self.0.upgrade() {
            shared.spawn(Instant::now(), job);
        }
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        if queue.closed {
            return;
        }
        let now = Instant::now();
        let Some(Reverse(first)) = queue.entries.peek() else {
            queue = shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if first.deadline > now {
            let wait = first.deadline - now;
            queue = shared
                .changed
                .wait_timeout(queue, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            continue;
        }
        let Some(Reverse(Entry { mut job, .. })) = queue.entries.pop() else {
            continue;
        };
        // The next deadline may be due already: another thread shall look at it.
        if !queue.entries.is_empty() {
            shared.changed.notify_one();
        }
        drop(queue);
        match catch_unwind(AssertUnwindSafe(|| job.run(now))) {
            Ok(Some(next)) => {
                queue = shared.lock();
                queue.push(next, job);
            }
            Ok(None) => {
                drop(job);
                queue = shared.lock();
            }
            Err(_) => {
                tracing::error!("a codec job panicked; the mix of its room begins anew");
                queue = shared.lock();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    struct Count {
        left: u32,
        tell: mpsc::Sender<u32>,
    }

    impl Job for Count {
        fn run(&mut self, now: Instant) -> Option<Instant> {
            self.left -= 1;
            self.tell.send(self.left).ok()?;
            (self.left > 0).then(|| now + Duration::from_millis(1))
        }
    }

    struct Panics;

    impl Job for Panics {
        fn run(&mut self, _: Instant) -> Option<Instant> {
            panic!("as the test wants")
        }
    }

    #[test]
    fn a_job_comes_back_until_it_ends() {
        let pool = Pool::start("test", 2).unwrap();
        let (tell, hear) = mpsc::channel();
        pool.spawn(Instant::now(), Box::new(Count { left: 5, tell }));
        assert_eq!(hear.iter().collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
    }

    #[test]
    fn a_job_that_panics_takes_nobody_with_it() {
        let pool = Pool::start("test", 1).unwrap();
        let (tell, hear) = mpsc::channel();
        pool.spawn(Instant::now(), Box::new(Panics));
        pool.spawn(Instant::now(), Box::new(Count { left: 2, tell }));
        assert_eq!(hear.iter().count(), 2);
    }

    #[test]
    fn a_job_may_start_others_and_keeps_no_pool_alive() {
        struct Starts(Spawner, Option<mpsc::Sender<u32>>);
        impl Job for Starts {
            fn run(&mut self, now: Instant) -> Option<Instant> {
                let tell = self.1.take()?;
                self.0.spawn_now(Box::new(Count { left: 1, tell }));
                Some(now + Duration::from_secs(3600))
            }
        }
        let pool = Pool::start("test", 1).unwrap();
        let (tell, hear) = mpsc::channel();
        let starts = Starts(pool.spawner(), Some(tell));
        let shared = Arc::downgrade(&pool.shared);
        pool.spawn(Instant::now(), Box::new(starts));
        assert_eq!(hear.iter().collect::<Vec<_>>(), [0]);
        drop(pool);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn dropping_the_pool_drops_its_jobs() {
        let pool = Pool::start("test", 1).unwrap();
        let (tell, hear) = mpsc::channel();
        pool.spawn(
            Instant::now() + Duration::from_secs(3600),
            Box::new(Count { left: 1, tell }),
        );
        drop(pool);
        assert!(
            hear.recv_timeout(Duration::from_secs(10)) == Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
