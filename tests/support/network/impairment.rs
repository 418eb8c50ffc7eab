//! What a bad network does to packets, decided one by one: pure, seeded, told the time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::{Duration, Instant};

/// What one direction of a link does. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settings {
    /// The slowest hop, if there is one.
    pub rate: Option<Rate>,
    /// One way.
    pub delay: Duration,
    /// Uniformly more or less delay than that, packet by packet; delays below zero are none.
    pub jitter: Jitter,
    /// Share of packets that are lost, each for itself.
    pub loss: f64,
    /// Losses that come together.
    pub bursts: Option<Bursts>,
    /// Share of packets that come [`Settings::late_by`] late, after others that were sent later.
    pub late: f64,
    /// See [`Settings::late`].
    pub late_by: Duration,
    /// Share of packets that come twice.
    pub duplicates: f64,
}

/// A hop of limited rate with a queue that drops what does not fit (drop-tail).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Bits of whole frames, Ethernet header included, per second.
    pub bps: f64,
    /// What would wait longer is dropped.
    pub queue: Duration,
}

/// Delay that varies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Jitter {
    /// It does not.
    #[default]
    None,
    /// By up to this, and packets stay in order, as on most real networks: who follows a delayed one waits with it.
    InOrder(Duration),
    /// By up to this, each packet for itself, as netem does.
    Reordering(Duration),
}

/// The model of Gilbert and Elliott, with everything lost in the bad state and nothing in the good one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// From packet to packet, probability that a burst begins.
    pub begin: f64,
    /// From packet to packet, probability that it ends.
    pub end: f64,
}

impl Bursts {
    /// Loses `share` of the packets, `length` in a row on the mean.
    pub fn new(share: f64, length: f64) -> Self {
        let end = 1.0 / length;
        Bursts {
            begin: end * share / (1.0 - share),
            end,
        }
    }
}

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// [`Settings::loss`]
    Random,
    /// [`Settings::bursts`]
    Burst,
    /// [`Rate::queue`]
    QueueFull,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Lost(Cause),
    /// It leaves then.
    Leaves {
        /// When.
        at: Instant,
        /// Time in the queue of the slow hop, its own transmission not included.
        queued: Duration,
        /// Twice?
        twice: bool,
        /// Whether later ones may overtake it on purpose.
        late: bool,
    },
}

/// One direction of a link.
#[derive(Debug)]
pub struct Impairment {
    settings: Settings,
    random: StdRng,
    in_burst: bool,
    /// The slow hop sends until then.
    busy_until: Option<Instant>,
    /// The last departure of the packets that keep their order.
    last: Option<Instant>,
}

impl Impairment {
    /// Does nothing until it is [set](Impairment::set).
    pub fn new(seed: u64) -> Self {
        Impairment {
            settings: Settings::default(),
            random: StdRng::seed_from_u64(seed),
            in_burst: false,
            busy_until: None,
            last: None,
        }
    }

    /// From now on. What is on its way already is not touched.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
        self.in_burst = false;
    }

    /// The fate of a frame of `size` bytes.
    pub fn decide(&mut self, now: Instant, size: usize) -> Fate {
        let settings = self.settings;
        if let Some(bursts) = settings.bursts {
            let turn = if self.in_burst {
                bursts.end
            } else {
                bursts.begin
            };
            self.in_burst ^= self.chance(turn);
            if self.in_burst {
                return Fate::Lost(Cause::Burst);
            }
        }
        if self.chance(settings.loss) {
            return Fate::Lost(Cause::Random);
        }
        let (sent, queued) = match settings.rate {
            None => (now, Duration::ZERO),
            Some(rate) => {
                let begins = self.busy_until.map_or(now, |until| until.max(now));
                let queued = begins - now;
                if queued > rate.queue {
                    return Fate::Lost(Cause::QueueFull);
                }
                let sent = begins + Duration::from_secs_f64(size as f64 * 8.0 / rate.bps);
                self.busy_until = Some(sent);
                (sent, queued)
            }
        };
        let late = self.chance(settings.late);
        let mut at = sent + self.delay();
        match settings.jitter {
            _ if late => at += settings.late_by,
            Jitter::Reordering(_) => {}
            Jitter::None | Jitter::InOrder(_) => {
                at = self.last.map_or(at, |last| last.max(at));
                self.last = Some(at);
            }
        }
        Fate::Leaves {
            at,
            queued,
            twice: self.chance(settings.duplicates),
            late,
        }
    }

    fn delay(&mut self) -> Duration {
        let Settings { delay, jitter, .. } = self.settings;
        let range = match jitter {
            Jitter::None => return delay,
            Jitter::InOrder(range) | Jitter::Reordering(range) => range.as_secs_f64(),
        };
        let seconds = delay.as_secs_f64() + self.random.random_range(-range..=range);
        Duration::from_secs_f64(seconds.max(0.0))
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share.min(1.0))
    }
}
