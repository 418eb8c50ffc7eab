//! Probing: short bursts above the estimate, which show what the path would carry.
//!
//! A probe is sent only when the allocator could use more than the estimate. While it runs, everything that is sent
//! belongs to it, and padding fills it up. A link that is full stretches the probe: the slope of arrivals over
//! departures tells by how much, with all packets' jitter averaged out.

/// A probe may fill the queue of a link that has no more than the estimate with this much, ms.
const QUEUE: f64 = 60.0;
/// Shortest and longest probe, ms.
const DURATION: (f64, f64) = (20.0, 100.0);
/// Bytes of a probe at least: a handful of packets that lie apart.
const MIN_BYTES: f64 = 3_000.0;
/// Highest rate that is probed, bit/s.
const MAX_RATE: f64 = 30e6;
/// A probe goes this far beyond the estimate, or else to what the next step needs.
const STEP: f64 = 2.2;
/// Between two probes, ms: at first, factor after one that showed nothing new, at most.
const INTERVAL: f64 = 2_500.0;
const BACK_OFF: f64 = 1.3;
const MAX_INTERVAL: f64 = 4_500.0;
/// After overuse the queue is given time to drain, ms.
const AFTER_OVERUSE: f64 = 1_500.0;
/// A probe is given up when so much time has passed after its end, ms.
const PATIENCE: f64 = 1_000.0;
/// After a wide gap between two timer calls, the probe goes on from here instead of making up for all of it, ms.
const MAX_CATCH_UP: f64 = 10.0;
/// An arrival rate below this part of the rate of departure is that of a full link.
const FULL: f64 = 0.9;
/// Of a full link this much is used.
const UTILISATION: f64 = 0.97;
/// So much of a probe has to arrive.
const MIN_ARRIVED: f64 = 0.8;

/// One burst. Times of departure are µs of the estimator's epoch.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    id: u32,
    /// Bit/s.
    rate: f64,
    began: u64,
    /// When it is over, unless bytes are missing.
    until: u64,
    bytes: f64,
    sent: f64,
    packets: u32,
    last_sent: u64,
    arrived: Arrived,
}

#[derive(Clone, Copy, Debug, Default)]
struct Arrived {
    packets: u32,
    bytes: f64,
    /// Departure of the first and the last one, and the last one's size.
    first_sent: Option<u64>,
    last_sent: Option<(u64, f64)>,
    /// Arrival of the first one that was told.
    reference: Option<i64>,
    /// Sums of departures, arrivals, squares and products, in ms after `began` and `reference`.
    sums: (f64, f64, f64, f64),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    Sending(Cluster),
    Awaiting(Cluster),
}

/// What has been probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounters {
    /// Probes that were begun.
    pub begun: u64,
    /// Those that raised the estimate.
    pub raised: u64,
}

/// When to probe, and what came of it.
#[derive(Debug)]
pub struct Prober {
    phase: Phase,
    next_id: u32,
    /// ms.
    next_at: f64,
    interval: f64,
    counters: ProbeCounters,
}

impl Default for Prober {
    fn default() -> Self {
        Prober {
            phase: Phase::Idle,
            next_id: 1,
            next_at: 0.0,
            interval: INTERVAL,
            counters: ProbeCounters::default(),
        }
    }
}

impl Prober {
    /// What has been probed.
    pub fn counters(&self) -> ProbeCounters {
        self.counters
    }

    /// The probe that what is sent now belongs to; 0: none.
    pub fn cluster(&self) -> u32 {
        match &self.phase {
            Phase::Sending(cluster) => cluster.id,
            _ => 0,
        }
    }

    /// A probe is out: a queue that grows now may be its own.
    pub fn is_out(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// When a probe may begin, ms.
    pub fn next_at(&self) -> f64 {
        self.next_at
    }

    /// The path is congested.
    pub fn handle_overuse(&mut self, now: f64) {
        self.next_at = self.next_at.max(now + AFTER_OVERUSE);
        self.phase = Phase::Idle;
    }

    /// Begins a probe if one is due: `next` is the rate of the allocator's next step, `top` all that it could use;
    /// both above `estimate`, bit/s.
    pub fn begin(&mut self, now: u64, estimate: f64, next: f64, top: f64) {
        if self.is_out() || (now as f64 / 1e3) < self.next_at {
            return;
        }
        let rate = (STEP * estimate).min(1.15 * top).max(1.1 * next);
        let rate = rate.min(MAX_RATE);
        let excess = (rate - estimate).max(1.0);
        let duration = (QUEUE * estimate / excess).clamp(DURATION.0, DURATION.1);
        self.phase = Phase::Sending(Cluster {
            id: self.next_id,
            rate,
            began: now,
            until: now + (duration * 1e3) as u64,
            bytes: (rate * duration / 8e3).max(MIN_BYTES),
            sent: 0.0,
            packets: 0,
            last_sent: now,
            arrived: Arrived::default(),
        });
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.next_at = now as f64 / 1e3 + self.interval;
        self.counters.begun += 1;
    }

    /// Bytes that are to be sent now, so that the probe keeps its rate; 0: none. Ends the probe when it is full.
    pub fn due(&mut self, now: u64) -> usize {
        let Phase::Sending(cluster) = &mut self.phase else {
            return 0;
        };
        if cluster.sent >= cluster.bytes && now >= cluster.until {
            self.phase = Phase::Awaiting(*cluster);
            return 0;
        }
        let per_milli = cluster.rate / 8e3;
        let passed = (now - cluster.began) as f64 / 1e3;
        let due = per_milli * passed + 1.0 - cluster.sent;
        if due > per_milli * MAX_CATCH_UP {
            let late = ((due / per_milli - MAX_CATCH_UP) * 1e3) as u64;
            cluster.began += late;
            cluster.until += late;
            return (per_milli * MAX_CATCH_UP) as usize;
        }
        due.max(0.0) as usize
    }

    /// A packet of `size` bytes left at `now`.
    pub fn handle_sent(&mut self, now: u64, size: u32) {
        if let Phase::Sending(cluster) = &mut self.phase {
            cluster.sent += f64::from(size);
            cluster.packets += 1;
            cluster.last_sent = now;
        }
    }

    /// A packet of probe `id`, sent at `sent`, arrived at `arrival`, both µs.
    pub fn handle_arrival(&mut self, id: u32, sent: u64, arrival: i64, size: u32) {
        let (Phase::Sending(cluster) | Phase::Awaiting(cluster)) = &mut self.phase else {
            return;
        };
        if cluster.id != id {
            return;
        }
        let (began, size, arrived) = (cluster.began, f64::from(size), &mut cluster.arrived);
        arrived.packets += 1;
        arrived.bytes += size;
        arrived.first_sent = Some(arrived.first_sent.map_or(sent, |first| first.min(sent)));
        if arrived.last_sent.is_none_or(|(at, _)| sent >= at) {
            arrived.last_sent = Some((sent, size));
        }
        let reference = *arrived.reference.get_or_insert(arrival);
        let departed = (sent as f64 - began as f64) / 1e3;
        let came = (arrival - reference) as f64 / 1e3;
        let (x, y, xx, xy) = &mut arrived.sums;
        *x += departed;
        *y += came;
        *xx += departed * departed;
        *xy += departed * came;
    }

    /// What a probe has shown, bit/s: once everything up to the departure `newest` has been told, or it is overdue.
    pub fn conclude(&mut self, now: u64, newest: u64, estimate: f64) -> Option<f64> {
        let Phase::Awaiting(cluster) = self.phase else {
            return None;
        };
        let overdue = now as f64 / 1e3 > cluster.last_sent as f64 / 1e3 + PATIENCE;
        if newest < cluster.last_sent && !overdue {
            return None;
        }
        self.phase = Phase::Idle;
        let shown = cluster.shown().filter(|shown| *shown > 1.02 * estimate);
        match shown {
            Some(shown) => {
                self.counters.raised += 1;
                self.interval = INTERVAL;
                if shown > FULL * cluster.rate {
                    // There may be more: go on as soon as what was found is in use.
                    self.next_at = now as f64 / 1e3 + 50.0;
                }
            }
            None => self.interval = (self.interval * BACK_OFF).min(MAX_INTERVAL),
        }
        shown
    }
}

impl Cluster {
    fn shown(&self) -> Option<f64> {
        let arrived = &self.arrived;
        if arrived.packets < 5 || f64::from(arrived.packets) < MIN_ARRIVED * f64::from(self.packets)
        {
            return None;
        }
        let (last_sent, last_size) = arrived.last_sent?;
        let sending = last_sent.saturating_sub(arrived.first_sent?) as f64 / 1e6;
        if !(0.005..1.0).contains(&sending) {
            return None;
        }
        let sent = (arrived.bytes - last_size) * 8.0 / sending;
        let stretch = arrived.stretch()?.max(1.0);
        if stretch * FULL > 1.0 {
            Some(UTILISATION * sent / stretch)
        } else {
            Some(sent / stretch)
        }
    }
}

impl Arrived {
    /// Slope of arrivals over departures.
    fn stretch(&self) -> Option<f64> {
        let (count, (x, y, xx, xy)) = (f64::from(self.packets), self.sums);
        let spread = count * xx - x * x;
        (spread > 0.0).then(|| (count * xy - x * y) / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one probe over a link of `rate` bit/s and returns what it showed and its bytes.
    fn probe(estimate: f64, next: f64, top: f64, link: f64) -> (Option<f64>, f64) {
        let mut prober = Prober::default();
        prober.begin(1_000, estimate, next, top);
        assert!(prober.is_out());
        let (mut now, mut free, mut bytes) = (1_000u64, 0.0f64, 0.0);
        let mut packets = Vec::new();
        while prober.cluster() != 0 {
            let mut due = prober.due(now) as i64;
            while due > 0 {
                packets.push((prober.cluster(), now, 340u32));
                prober.handle_sent(now, 340);
                bytes += 340.0;
                due -= 340;
            }
            now += 1_000;
            assert!(now < 1_000_000, "a probe ends");
        }
        let mut newest = 0;
        for (id, sent, size) in packets {
            free = free.max(sent as f64) + f64::from(size) * 8e6 / link;
            prober.handle_arrival(id, sent, 20_000 + free as i64, size);
            newest = sent;
        }
        (prober.conclude(now, newest, estimate), bytes)
    }

    #[test]
    fn a_wide_link_shows_the_rate_of_the_probe() {
        let (shown, bytes) = probe(500_000.0, 600_000.0, 1_600_000.0, 20e6);
        let shown = shown.expect("more than before");
        assert!((900_000.0..1_250_000.0).contains(&shown), "{shown}");
        assert!(bytes < 12_000.0, "{bytes}");
    }

    #[test]
    fn a_full_link_shows_its_own_rate() {
        let (shown, _) = probe(400_000.0, 540_000.0, 1_600_000.0, 600_000.0);
        let shown = shown.expect("600 is more than 400");
        assert!((540_000.0..610_000.0).contains(&shown), "{shown}");
        let (shown, _) = probe(600_000.0, 1_600_000.0, 1_600_000.0, 600_000.0);
        assert_eq!(shown, None, "nothing new");
    }

    #[test]
    fn a_probe_that_shows_nothing_makes_the_next_one_wait_longer() {
        let mut prober = Prober::default();
        prober.begin(0, 3e5, 6e5, 2e6);
        let first = prober.next_at();
        let mut now = 0;
        while prober.cluster() != 0 {
            prober.handle_sent(now, 1_000);
            now += 1_000;
            prober.due(now);
        }
        assert_eq!(prober.conclude(3_000_000, 0, 3e5), None);
        prober.begin(4_000_000, 3e5, 6e5, 2e6);
        assert!(prober.next_at() - 4_000.0 > first);
    }

    #[test]
    fn a_probe_of_which_much_is_lost_shows_nothing() {
        let mut prober = Prober::default();
        prober.begin(0, 3e5, 6e5, 2e6);
        let id = prober.cluster();
        for n in 0..20u64 {
            prober.handle_sent(n * 2_000, 340);
            if n % 2 == 0 {
                prober.handle_arrival(id, n * 2_000, n as i64 * 2_000, 340);
            }
        }
        let mut now = 40_000;
        while prober.cluster() != 0 {
            prober.due(now);
            now += 1_000;
        }
        assert_eq!(prober.conclude(now + 50_000, 40_000, 3e5), None);
    }
}
