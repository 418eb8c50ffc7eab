//! `/metrics`: counters of both planes in the Prometheus text format.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::atomic::{AtomicU64, Ordering};

use super::App;
use crate::mcu::video::Load;
use crate::reach::Reach;
use crate::signalling::counters::REFUSALS;
use crate::worker::WorkerFigures;

/// A worker that has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers the scraper.
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let workers = app.session.rooms.worker_figures(PATIENCE).await;
    let mut text = Text::default();
    control_plane(&app, &mut text);
    text.sample("talksy_workers", "", workers.len() as u64);
    let answers: Vec<_> = workers.into_iter().flatten().collect();
    text.sample("talksy_workers_answering", "", answers.len() as u64);
    let mut sum = Sum::default();
    for figures in &answers {
        sum.add(figures);
    }
    sum.add_reach(&app.session.reach);
    sum.print(&mut text);
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        text.0,
    )
}

fn control_plane(app: &App, text: &mut Text) {
    let sockets = app.max_sockets - app.sockets.available_permits();
    text.sample("talksy_rooms", "", app.session.rooms.room_count() as u64);
    text.sample("talksy_sockets", "", sockets as u64);
    for (refusal, name) in REFUSALS {
        let labels = format!("reason=\"{name}\"");
        let count = app.session.counters.get(refusal);
        text.sample("talksy_refusals_total", &labels, count);
    }
}

/// Samples by metric and labels, in the order in which they first came.
#[derive(Default)]
struct Sum(Vec<(&'static str, String, u64)>);

impl Sum {
    fn count(&mut self, metric: &'static str, labels: String, count: u64) {
        let known = self
            .0
            .iter_mut()
            .find(|(m, l, _)| *m == metric && *l == labels);
        match known {
            Some((.., sum)) => *sum += count,
            None => self.0.push((metric, labels, count)),
        }
    }

    fn dropped(&mut self, stage: &str, reason: &str, count: u64) {
        let labels = format!("stage=\"{stage}\",reason=\"{reason}\"");
        self.count("talksy_media_drops_total", labels, count);
    }

    fn add(&mut self, figures: &WorkerFigures) {
        self.count("talksy_peers", String::new(), figures.peers as u64);
        self.count(
            "talksy_mixed_rooms",
            String::new(),
            figures.mixed_rooms as u64,
        );
        self.add_traffic(figures);
        self.add_bandwidth(figures);
        self.add_codecs(figures);
        self.add_drops(figures);
    }

    fn add_reach(&mut self, reach: &Reach) {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        if let Some(acceptor) = &reach.acceptor {
            let accepted = value(&acceptor.accepted);
            self.count("talksy_media_connections_total", String::new(), accepted);
            for (reason, count) in acceptor.drops() {
                self.dropped("connection", reason, count);
            }
        }
        if let Some(turn) = &reach.turn {
            let (allocations, bytes) = (&turn.counters.allocations, &turn.counters.relayed_bytes);
            self.count(
                "talksy_turn_allocations_total",
                String::new(),
                value(allocations),
            );
            self.count(
                "talksy_turn_relayed_bytes_total",
                String::new(),
                value(bytes),
            );
            for (reason, count) in turn.counters.drops() {
                self.dropped("turn", reason, count);
            }
        }
    }

    fn add_traffic(&mut self, figures: &WorkerFigures) {
        let (socket, sessions) = (&figures.socket, &figures.sessions);
        for (direction, datagrams, bytes) in [
            ("in", socket.datagrams_in, sessions.bytes_in),
            ("out", socket.datagrams_out, sessions.bytes_out),
        ] {
            let labels = format!("direction=\"{direction}\"");
            self.count("talksy_media_datagrams_total", labels.clone(), datagrams);
            self.count("talksy_media_bytes_total", labels, bytes);
        }
        self.count("talksy_media_sends_total", String::new(), socket.sends);
        let streams = &figures.streams;
        self.count("talksy_media_streams", String::new(), streams.open);
        for (direction, datagrams) in [("in", streams.datagrams_in), ("out", streams.datagrams_out)]
        {
            let labels = format!("direction=\"{direction}\"");
            self.count("talksy_media_stream_datagrams_total", labels, datagrams);
        }
    }

    /// The pacer's drops stand among those of the delivery.
    fn add_bandwidth(&mut self, figures: &WorkerFigures) {
        let (measured, sum) = figures.estimates;
        let counters = &figures.bandwidth;
        for (metric, count) in [
            ("talksy_estimates", measured),
            ("talksy_estimate_bits_per_second", sum),
            ("talksy_estimate_decreases_total", counters.decreases),
            ("talksy_probes_total", counters.probes.0),
            ("talksy_probes_raised_total", counters.probes.1),
            ("talksy_layer_changes_total", counters.changes),
            ("talksy_pauses_total", counters.pauses),
        ] {
            self.count(metric, String::new(), count);
        }
    }

    fn add_codecs(&mut self, figures: &WorkerFigures) {
        for (kind, (decodes, encodes)) in [
            ("audio", figures.audio_codec),
            ("video", figures.video_codec),
        ] {
            let labels = format!("kind=\"{kind}\"");
            self.count("talksy_codec_decodes_total", labels.clone(), decodes);
            self.count("talksy_codec_encodes_total", labels, encodes);
        }
        let late = String::new();
        self.count("talksy_late_pictures_total", late, figures.late_pictures);
        for (load, rooms) in Load::ALL.into_iter().zip(figures.loads) {
            let labels = format!("load=\"{}\"", load.name());
            self.count("talksy_picture_load_rooms", labels, rooms);
        }
        for (reason, count) in figures.decode_drops {
            self.dropped("decode", reason, count);
        }
        for (reason, count) in figures.audio_drops {
            self.dropped("mix", reason, count);
        }
    }

    /// The named reasons of transport and forwarding appear once they have occurred.
    fn add_drops(&mut self, figures: &WorkerFigures) {
        let (worker, sessions) = (&figures.worker, &figures.sessions);
        for (stage, reason, count) in [
            ("socket", "refused", figures.socket.refused),
            ("worker", "unknown_sender", worker.unknown),
            ("worker", "unclassified", worker.unclassified),
            ("worker", "moved", worker.moved),
            ("worker", "room_share", worker.over_share),
            ("worker", "event", figures.dropped_events),
            ("session", "before_keys", sessions.early),
            ("session", "unauthentic", sessions.unauthentic),
            ("session", "channel_message", sessions.channel),
            ("session", "flood_media", sessions.flood.media),
            ("session", "flood_reports", sessions.flood.reports),
            ("session", "flood_transport", sessions.flood.transport),
            ("session", "flood_texts", sessions.flood.texts),
            ("mix", "packet", figures.displaced),
            ("mix", "output", figures.dropped_outputs),
        ] {
            self.dropped(stage, reason, count);
        }
        for (reason, count) in figures.streams.drops() {
            self.dropped("stream", reason, count);
        }
        for (reason, count) in figures.transport.iter() {
            self.dropped("transport", reason.as_str(), count);
        }
        for (reason, count) in figures.ingest.iter() {
            self.dropped("ingest", reason.as_str(), count);
        }
        for (reason, count) in figures.delivery.iter() {
            self.dropped("delivery", reason.as_str(), count);
        }
    }

    /// The samples of one metric have to stand together.
    fn print(mut self, text: &mut Text) {
        self.0.sort_by_key(|(metric, ..)| *metric);
        for (metric, labels, count) in &self.0 {
            text.sample(metric, labels, *count);
        }
    }
}

/// The page, with one type line before the first sample of each metric.
#[derive(Default)]
struct Text(String);

impl Text {
    fn sample(&mut self, metric: &str, labels: &str, value: u64) {
        let kind = if metric.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        let type_line = format!("# TYPE {metric} {kind}\n");
        if !self.0.contains(&type_line) {
            self.0.push_str(&type_line);
        }
        // Writing to a String cannot fail.
        let _ = match labels {
            "" => writeln!(self.0, "{metric} {value}"),
            _ => writeln!(self.0, "{metric}{{{labels}}} {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_are_added_and_each_metric_has_one_type_line() {
        let mut figures = WorkerFigures {
            peers: 2,
            ..WorkerFigures::default()
        };
        figures.worker.unknown = 5;
        figures.ingest.count(crate::sfu::DropReason::Duplicate);
        let mut sum = Sum::default();
        sum.add(&figures);
        sum.add(&figures);
        let mut text = Text::default();
        sum.print(&mut text);
        let text = text.0;
        for line in [
            "talksy_peers 4",
            "# TYPE talksy_media_drops_total counter",
            "talksy_media_drops_total{stage=\"worker\",reason=\"unknown_sender\"} 10",
            "talksy_media_drops_total{stage=\"ingest\",reason=\"duplicate\"} 2",
            "talksy_codec_decodes_total{kind=\"video\"} 0",
        ] {
            assert_eq!(
                text.lines().filter(|l| *l == line).count(),
                1,
                "{line} in {text}"
            );
        }
        let mut metrics: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(['{', ' ']).next().unwrap())
            .collect();
        metrics.dedup();
        let runs = metrics.len();
        metrics.sort_unstable();
        metrics.dedup();
        assert_eq!(
            runs,
            metrics.len(),
            "the samples of a metric stand together"
        );
    }
}
