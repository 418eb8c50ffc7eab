//! How long a spoken word takes from one person's microphone to another's ear.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::media::{Camera, RED};
use crate::support::person::{MIXED, Person};
use crate::support::server::Server;
use crate::{HIGH_VOICE, alone};

/// What the product promises for a mixed client.
const PROMISED_MS: f64 = 120.0;
/// A browser that shares two cores with another and a server is late at times, and stretches the sound until its buffer
/// has found its size: the first of so many takes that is like what was said, and in time, counts.
const TAKES: usize = 16;
const TAKE: Duration = Duration::from_secs(5);

/// Asynchronous. Arguments: CSS selector of the element whose sound is listened to (null: this page's microphone), milliseconds.
/// Gives `{pieces: [[moment, [power…]]…]}`: when a piece of sound was there (machine's clock, ms), and the power of its milliseconds.
const LISTEN: &str = r#"
const [selector, milliseconds, done] = arguments;
(async () => {
  const track = selector ? document.querySelector(selector).srcObject.getAudioTracks()[0]
    : __bench.pcs.flatMap(pc => pc.getSenders()).map(s => s.track).find(t => t && t.kind === 'audio');
  const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
  const until = __bench.now() + milliseconds, pieces = [];
  for (;;) {
    const { done: over, value } = await reader.read();
    if (over) break;
    const moment = __bench.now(), each = value.sampleRate / 1000;
    const samples = new Float32Array(value.numberOfFrames), powers = [];
    value.copyTo(samples, { planeIndex: 0, format: 'f32-planar' });
    value.close();
    for (let at = 0; at + each <= samples.length + 0.5; at += each) {
      let power = 0;
      for (let i = Math.round(at); i < Math.round(at + each) && i < samples.length; i++) power += samples[i] * samples[i];
      powers.push(power / each);
    }
    pieces.push([moment, powers]);
    if (moment > until) break;
  }
  await reader.cancel();
  return { pieces };
})().then(done, e => done({ error: String(e) }));
"#;

/// The loudness of a sound by the millisecond.
struct Envelope {
    /// When its first millisecond was over.
    begin_ms: f64,
    levels: Vec<f64>,
}

impl Envelope {
    fn new(heard: &Value) -> Self {
        let (mut levels, mut begin_ms) = (Vec::new(), f64::MAX);
        for piece in heard["pieces"].as_array().expect("pieces") {
            let moment = piece[0].as_f64().expect("a moment");
            let powers = piece[1].as_array().expect("powers");
            levels.extend(powers.iter().filter_map(Value::as_f64).map(f64::sqrt));
            // Pieces come late at times, and never early.
            begin_ms = begin_ms.min(moment - levels.len() as f64);
        }
        Envelope { begin_ms, levels }
    }

    /// By how many milliseconds `later` follows this, and how alike they are then, up to 1.
    fn delay_of(&self, later: &Envelope) -> (f64, f64) {
        let offset = later.begin_ms - self.begin_ms;
        let likeness = |delay: i64| {
            let pairs: Vec<(f64, f64)> = (0..self.levels.len() as i64)
                .filter_map(|i| {
                    let at = i + delay - offset.round() as i64;
                    let other = later.levels.get(usize::try_from(at).ok()?)?;
                    Some((self.levels[i as usize], *other))
                })
                .collect();
            correlation(&pairs)
        };
        let best = (0..600).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b)));
        let best = best.expect("600 delays");
        (best as f64, likeness(best))
    }
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len().max(1) as f64;
    let (a, b) = pairs
        .iter()
        .fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
    let (mut both, mut first, mut second) = (0.0, 1e-12, 1e-12);
    for (x, y) in pairs {
        both += (x - a) * (y - b);
        first += (x - a).powi(2);
        second += (y - b).powi(2);
    }
    both / f64::sqrt(first * second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_is_heard_in_the_mix_within_120_ms() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (speaker, listener) = tokio::join!(
        Person::open(
            &server,
            "room_id=delay&name=Anna",
            Camera::small(RED),
            HIGH_VOICE
        ),
        Person::viewer(&server, "room_id=delay&name=Vera&mode=mcu&max_kbps=450"),
    );
    tokio::join!(speaker.join(), listener.join());
    listener.sees_and_hears(1, Duration::from_secs(15)).await;
    let mut best = f64::MAX;
    for _ in 0..TAKES {
        let milliseconds = TAKE.as_millis() as u64;
        let (said, heard) = tokio::join!(
            speaker
                .browser
                .eval_async(LISTEN, vec![Value::Null, json!(milliseconds)]),
            listener
                .browser
                .eval_async(LISTEN, vec![json!(MIXED), json!(milliseconds)]),
        );
        let (delay, likeness) = Envelope::new(&said).delay_of(&Envelope::new(&heard));
        println!("mouth to ear: {delay:.0} ms (likeness {likeness:.2})");
        if likeness > 0.7 {
            best = best.min(delay);
        }
        if best < PROMISED_MS {
            break;
        }
    }
    println!("figure mix_mouth_to_ear_ms {best:.0} ms");
    assert!(best < PROMISED_MS, "{best} ms");
    for person in [speaker, listener] {
        person.close_in_good_order().await;
    }
}
