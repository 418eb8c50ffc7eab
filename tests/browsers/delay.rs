//! How long a spoken word takes from one person's microphone to another's ear.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::media::{Camera, RED};
use crate::support::person::{MIXED, Person};
use crate::support::server::Server;
use crate::{HIGH_VOICE, alone};

/// What the product promises for a mixed client.
const PROMISED_MS: f64 = 120.0;
/// How long is listened.
const TAKE: Duration = Duration::from_secs(10);
/// A word begins after so much silence.
const PAUSE_MS: usize = 100;
/// A word is known by so much of its beginning.
const WORD_MS: usize = 200;
/// The silence before it that belongs to its beginning.
const BEFORE_MS: usize = 60;
/// Longer than any delay that is looked for.
const LONGEST_MS: usize = 400;
/// From here on a word that is heard is the one that was said, up to 1.
const ALIKE: f64 = 0.8;
/// Of about ten that are said meanwhile.
const FEWEST_WORDS: usize = 6;

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

/// The loudness of a sound by the millisecond, smoothed over five.
struct Envelope {
    /// When its first millisecond was over.
    begin_ms: f64,
    levels: Vec<f64>,
}

impl Envelope {
    fn new(heard: &Value) -> Self {
        let (mut powers, mut begin_ms) = (Vec::new(), f64::MAX);
        for piece in heard["pieces"].as_array().expect("pieces") {
            let moment = piece[0].as_f64().expect("a moment");
            let piece = piece[1].as_array().expect("powers");
            powers.extend(piece.iter().filter_map(Value::as_f64));
            // Pieces come late at times, and never early.
            begin_ms = begin_ms.min(moment - powers.len() as f64);
        }
        let smooth = |five: &[f64]| (five.iter().sum::<f64>() / 5.0).sqrt();
        let levels = powers.windows(5).map(smooth).collect();
        Envelope { begin_ms, levels }
    }

    /// Where words begin: the milliseconds that are loud after a pause.
    fn words(&self) -> Vec<usize> {
        let loud = self.levels.iter().fold(0.0, |a: f64, b| a.max(*b)) / 20.0;
        let (mut words, mut quiet) = (Vec::new(), 0);
        for (at, level) in self.levels.iter().enumerate() {
            if *level < loud {
                quiet += 1;
                continue;
            }
            if quiet >= PAUSE_MS && at >= BEFORE_MS {
                words.push(at - BEFORE_MS);
            }
            quiet = 0;
        }
        words
    }

    /// The piece of a word from `begin` on.
    fn word(&self, begin: usize) -> Option<&[f64]> {
        self.levels.get(begin..begin + BEFORE_MS + WORD_MS)
    }

    /// For each word: by how many milliseconds `later` repeats it after this, and how alike they are, up to 1.
    fn delays_of(&self, later: &Envelope) -> Vec<(f64, f64)> {
        let offset = self.begin_ms - later.begin_ms;
        let whole = |begin: &usize| {
            let begin = *begin as f64 + offset;
            let last = begin + (LONGEST_MS + BEFORE_MS + WORD_MS) as f64;
            begin >= 0.0 && last < later.levels.len() as f64
        };
        let delay = |begin: usize| {
            let word = self.word(begin)?;
            let first = (begin as f64 + offset).round() as usize;
            let delays = (0..LONGEST_MS).filter_map(|delay| {
                let heard = later.word(first + delay)?;
                Some((delay as f64, correlation(word, heard)))
            });
            delays.max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let words = self.words().into_iter().filter(whole);
        words.filter_map(delay).collect()
    }
}

fn correlation(first: &[f64], second: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len().max(1) as f64;
    let (a, b) = (mean(first), mean(second));
    let (mut both, mut one, mut other) = (0.0, 1e-12, 1e-12);
    for (x, y) in first.iter().zip(second) {
        both += (x - a) * (y - b);
        one += (x - a).powi(2);
        other += (y - b).powi(2);
    }
    both / f64::sqrt(one * other)
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
    let milliseconds = TAKE.as_millis() as u64;
    let (said, heard) = tokio::join!(
        speaker
            .browser
            .eval_async(LISTEN, vec![Value::Null, json!(milliseconds)]),
        listener
            .browser
            .eval_async(LISTEN, vec![json!(MIXED), json!(milliseconds)]),
    );
    let words = Envelope::new(&said).delays_of(&Envelope::new(&heard));
    println!("mouth to ear of each word, ms, and likeness: {words:.2?}");
    let known = words.iter().filter(|word| word.1 > ALIKE);
    let mut delays: Vec<f64> = known.map(|word| word.0).collect();
    assert!(
        delays.len() >= FEWEST_WORDS && 5 * delays.len() >= 4 * words.len(),
        "too few words are heard as they were said: {words:.2?}"
    );
    // A call begins at 140 ms, and the browser's buffer shrinks while it goes on.
    let settled = delays[delays.len() - 1];
    delays.sort_by(f64::total_cmp);
    let median = delays[delays.len() / 2];
    println!("figure mix_mouth_to_ear_ms {median:.0} ms");
    println!("figure mix_mouth_to_ear_settled_ms {settled:.0} ms");
    assert!(median < PROMISED_MS, "{median} ms");
    for person in [speaker, listener] {
        person.close_in_good_order().await;
    }
}
