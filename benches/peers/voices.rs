//! A room in which everybody speaks: one thread sends what all participants say, and counts what they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use talksy_mixer::audio::SILENCE;
use talksy_mixer::audio::level::Dbfs;
use talksy_mixer::audio::voice::SyntheticVoice;
use talksy_unit::mcu::codec::opus::{OpusEncoder, OpusSettings};
use talksy_unit::rtp::demux::{DatagramKind, classify};
use talksy_unit::rtp::extension::{AudioLevel, Extensions};
use talksy_unit::rtp::header::HeaderFields;
use talksy_unit::rtp::params::{MediaKind, Ssrc};
use talksy_unit::sfu::Publisher as Ingest;

use crate::Peer;
use crate::support::connection::Connection;
use crate::support::sdp::{AUDIO_SSRC, OPUS, PUBLISHED};

const FRAME: Duration = Duration::from_millis(20);
/// Frames that are said again and again: ten seconds.
const LOOP: u32 = 500;
/// Participants beyond this many say the same as others, later.
const DISTINCT: usize = 8;

type Speech = Vec<(Vec<u8>, AudioLevel)>;

/// A running conversation.
pub struct Voices {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Audio packets that came, of all participants.
    heard: AtomicU64,
    /// Packets that could not be read, or went missing.
    bad: AtomicU64,
}

impl Voices {
    pub fn start(peers: Vec<Peer>) -> Self {
        let shared = Arc::new(Shared::default());
        let speeches: Vec<Speech> = (0..DISTINCT.min(peers.len())).map(speech).collect();
        let speakers = peers.into_iter().enumerate();
        let mut room = Room {
            speakers: speakers.map(|(at, peer)| Speaker::new(at, peer)).collect(),
            speeches,
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("voices".into())
            .spawn(move || room.run())
            .expect("a thread");
        Voices { shared, thread }
    }

    /// Audio packets that all participants were sent so far, and those that were not whole.
    pub fn heard(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        (load(&self.shared.heard), load(&self.shared.bad))
    }

    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().expect("the voices end well");
    }
}

/// Somebody's ten seconds, as a browser would send them.
fn speech(number: usize) -> Speech {
    let mut voice = SyntheticVoice::new(number as u64, 90.0 + 20.0 * number as f32, -22.0);
    let mut encoder = OpusEncoder::new(OpusSettings::default()).expect("an encoder");
    let mut frame = SILENCE;
    let packet = |_| {
        voice.next_frame(&mut frame);
        let dbov = (-Dbfs::of(&frame).0).clamp(0.0, 127.0) as u8;
        let mut packet = Vec::new();
        let encoded = encoder.encode(&frame, false, &mut packet);
        encoded.expect("libopus encodes any frame");
        let voice = dbov < 50;
        (packet, AudioLevel { dbov, voice })
    };
    (0..LOOP).map(packet).collect()
}

struct Room {
    speakers: Vec<Speaker>,
    speeches: Vec<Speech>,
    shared: Arc<Shared>,
}

impl Room {
    /// The participants' clocks are spread over the 20 ms, as those of real ones are.
    fn run(&mut self) {
        let began = Instant::now();
        let step = FRAME / self.speakers.len() as u32;
        for number in 0.. {
            for at in 0..self.speakers.len() {
                if self.shared.stop.load(Ordering::Acquire) {
                    return;
                }
                let due = began + FRAME * number + step * at as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let speech = &self.speeches[at % self.speeches.len()];
                let later = (at / self.speeches.len()) as u32 * 37;
                let (packet, level) = &speech[((number + later) % LOOP) as usize];
                let speaker = &mut self.speakers[at];
                speaker.send(number, packet, *level);
                speaker.listen(&self.shared);
            }
        }
    }
}

struct Speaker {
    connection: Connection,
    ingest: Ingest,
    buffer: Vec<u8>,
    phase: u32,
    highest: Option<u64>,
}

impl Speaker {
    fn new(at: usize, peer: Peer) -> Self {
        let set = peer.connection.socket.set_nonblocking(true);
        set.expect("a non-blocking socket");
        let mut ingest = Ingest::new(Ssrc(99));
        ingest.set_lines(&peer.lines);
        Speaker {
            connection: peer.connection,
            ingest,
            buffer: Vec::with_capacity(2048),
            phase: at as u32 * 7919,
            highest: None,
        }
    }

    fn send(&mut self, number: u32, packet: &[u8], level: AudioLevel) {
        let fields = HeaderFields {
            payload_type: OPUS,
            marker: false,
            seq: number as u16,
            timestamp: (self.phase + number).wrapping_mul(960),
            ssrc: AUDIO_SSRC,
        };
        let extensions = Extensions {
            mid: Some("0"),
            audio_level: Some(level),
            transport_cc: Some(number as u16),
            ..Extensions::default()
        };
        self.buffer.clear();
        let header_len = fields.write(&PUBLISHED, &extensions, &mut self.buffer);
        self.buffer.extend_from_slice(packet);
        let sealed = self
            .connection
            .seal
            .seal_rtp(&mut self.buffer, 0, header_len);
        sealed.expect("keys that last");
        let _ = self.connection.socket.send(&self.buffer);
    }

    fn listen(&mut self, shared: &Shared) {
        let now = Instant::now();
        let mut buffer = [0u8; 2048];
        while let Ok(length) = self.connection.socket.recv(&mut buffer) {
            let datagram = &mut buffer[..length];
            match classify(datagram) {
                DatagramKind::Rtp => {
                    let counter = match self.take(now, datagram) {
                        Some(true) => &shared.heard,
                        Some(false) => &shared.bad,
                        None => continue,
                    };
                    counter.fetch_add(1, Ordering::AcqRel);
                }
                DatagramKind::Stun => {
                    if let Some(answer) = self.connection.ice.answer(datagram) {
                        let _ = self.connection.socket.send(&answer);
                    }
                }
                _ => {}
            }
        }
        loop {
            self.buffer.clear();
            if !self.ingest.poll_feedback(now, &mut self.buffer) {
                break;
            }
            let sealed = self.connection.seal.seal_rtcp(&mut self.buffer, 0);
            sealed.expect("keys that last");
            let _ = self.connection.socket.send(&self.buffer);
        }
        if let Some(check) = self.connection.ice.poll_consent(now) {
            let _ = self.connection.socket.send(&check);
        }
    }

    /// Whether a packet of the mix is the one that follows the last; `None` for pictures.
    fn take(&mut self, now: Instant, datagram: &mut [u8]) -> Option<bool> {
        let Ok(opened) = self.connection.open.open_rtp(datagram) else {
            return Some(false);
        };
        let Ok(packet) = self.ingest.handle_rtp(now, &datagram[..opened.len]) else {
            return Some(false);
        };
        if packet.codec.kind() != MediaKind::Audio {
            return None;
        }
        let expected = self.highest.is_none_or(|highest| packet.seq == highest + 1);
        self.highest = Some(packet.seq);
        Some(expected)
    }
}
