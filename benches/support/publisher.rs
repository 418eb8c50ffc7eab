//! The sender: a thread that publishes a camera and a microphone until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use talksy_unit::rtp::extension::{AbsSendTime, AudioLevel, Extensions};
use talksy_unit::rtp::header::HeaderFields;
use talksy_unit::rtp::ntp::Ntp;
use talksy_unit::rtp::rtcp::{self, Rtcp, write};

use super::connection::Connection;
use super::pacing::{Pacer, Packet, TICK};
use super::sdp::{AUDIO_SSRC, H264, OPUS, PUBLISHED, VIDEO_SSRC};

/// Where the number of a packet stands in its payload: behind the two bytes of an FU-A header.
pub const NUMBER_AT: usize = 2;

/// A running sender.
pub struct Publisher {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    video: AtomicU64,
    audio: AtomicU64,
    /// Allocations of the worker in the last tick, for each tick: see [`Publisher::allocations`].
    windows: std::sync::Mutex<Vec<Window>>,
}

/// One tick: the packets that were sent at its beginning, and the worker's allocations until the next.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub packets: u64,
    pub allocations: u64,
}

impl Publisher {
    /// `bitrate` is the camera's, in bit/s.
    pub fn start(connection: Connection, bitrate: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let sender = Sender::new(connection, shared.clone(), bitrate);
        let thread = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || sender.run())
            .expect("a thread");
        Publisher { shared, thread }
    }

    /// Packets sent so far: video, audio.
    pub fn sent(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        (load(&self.shared.video), load(&self.shared.audio))
    }

    /// The ticks since the last call.
    pub fn take_windows(&self) -> Vec<Window> {
        std::mem::take(&mut self.shared.windows.lock().expect("no panic"))
    }

    /// Stops sending; returns how many packets there were of video and audio.
    pub fn stop(self) -> (u64, u64) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().expect("the sender ends well");
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        (load(&self.shared.video), load(&self.shared.audio))
    }
}

struct Sender {
    connection: Connection,
    shared: Arc<Shared>,
    bitrate: usize,
    began: Instant,
    transport_seq: u16,
    keyframe: bool,
    reports_due: Instant,
    octets: [u32; 2],
    buffer: Vec<u8>,
}

impl Sender {
    fn new(connection: Connection, shared: Arc<Shared>, bitrate: usize) -> Self {
        let set = connection.socket.set_nonblocking(true);
        set.expect("a non-blocking socket");
        Sender {
            connection,
            shared,
            bitrate,
            began: Instant::now(),
            transport_seq: 0,
            keyframe: true,
            reports_due: Instant::now() + Duration::from_millis(200),
            octets: [0; 2],
            buffer: Vec::with_capacity(2048),
        }
    }

    fn run(mut self) {
        let mut pacer = Pacer::new(1, self.bitrate);
        let mut packets = Vec::new();
        let mut due = Instant::now();
        let mut allocated = super::allocations::counted();
        while !self.shared.stop.load(Ordering::Acquire) {
            self.listen();
            packets.clear();
            pacer.tick(&mut self.keyframe, &mut packets);
            for packet in &packets {
                self.send(*packet);
            }
            self.report();
            due += TICK;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let now = super::allocations::counted();
            let window = Window {
                packets: packets.len() as u64,
                allocations: now - std::mem::replace(&mut allocated, now),
            };
            self.shared.windows.lock().expect("no panic").push(window);
        }
    }

    fn send(&mut self, packet: Packet) {
        let (payload_type, ssrc, mid) = match packet {
            Packet::Audio { .. } => (OPUS, AUDIO_SSRC, "0"),
            Packet::Video { .. } => (H264, VIDEO_SSRC, "1"),
        };
        let (counter, at) = match packet {
            Packet::Audio { .. } => (&self.shared.audio, 0),
            Packet::Video { .. } => (&self.shared.video, 1),
        };
        let number = counter.load(Ordering::Acquire);
        let (timestamp, marker, size) = match packet {
            Packet::Audio { number, size } => (number * 960, false, size),
            Packet::Video {
                frame, ends, size, ..
            } => (frame * 3000, ends, size),
        };
        self.transport_seq = self.transport_seq.wrapping_add(1);
        let fields = HeaderFields {
            payload_type,
            marker,
            seq: number as u16,
            timestamp,
            ssrc,
        };
        let level = AudioLevel {
            dbov: 30 + (number % 8) as u8,
            voice: true,
        };
        let extensions = Extensions {
            // Chromium stops telling the MID once it was acknowledged.
            mid: (number < 50).then_some(mid),
            audio_level: (at == 0).then_some(level),
            transport_cc: Some(self.transport_seq),
            abs_send_time: Some(AbsSendTime::from_epoch(self.began.elapsed())),
            ..Extensions::default()
        };
        self.buffer.clear();
        let header_len = fields.write(&PUBLISHED, &extensions, &mut self.buffer);
        self.buffer.extend_from_slice(&fragment_header(packet));
        self.buffer.extend_from_slice(&number.to_be_bytes());
        self.buffer.resize(header_len + size, number as u8);
        let seal = &mut self.connection.seal;
        seal.seal_rtp(&mut self.buffer, 0, header_len)
            .expect("keys that last");
        // What loopback cannot take is a loss, and shows in the count.
        let _ = self.connection.socket.send(&self.buffer);
        self.octets[at] = self.octets[at].wrapping_add(size as u32);
        counter.store(number + 1, Ordering::Release);
    }

    /// Two sender reports a second apart, as the server needs them for its own.
    fn report(&mut self) {
        let now = Instant::now();
        if now < self.reports_due {
            return;
        }
        self.reports_due = now + Duration::from_secs(1);
        let elapsed = self.began.elapsed().as_micros() as u64;
        for (at, ssrc, clock) in [(0, AUDIO_SSRC, 48), (1, VIDEO_SSRC, 90)] {
            self.buffer.clear();
            let info = write::SenderInfo {
                ssrc,
                ntp: Ntp::from_system(SystemTime::now()),
                timestamp: (elapsed * clock / 1000) as u32,
                packets: 1,
                octets: self.octets[at],
            };
            write::sender_report(&info, &mut self.buffer);
            write::description(ssrc, "bench", &mut self.buffer);
            let sealed = self.connection.seal.seal_rtcp(&mut self.buffer, 0);
            sealed.expect("keys that last");
            let _ = self.connection.socket.send(&self.buffer);
        }
        if let Some(check) = self.connection.ice.poll_consent(now) {
            let _ = self.connection.socket.send(&check);
        }
    }

    /// Answers STUN and notes requests for keyframes.
    fn listen(&mut self) {
        let mut buffer = [0u8; 2048];
        while let Ok(length) = self.connection.socket.recv(&mut buffer) {
            let datagram = &mut buffer[..length];
            match datagram.first() {
                Some(0..=3) => {
                    if let Some(answer) = self.connection.ice.answer(datagram) {
                        let _ = self.connection.socket.send(&answer);
                    }
                }
                Some(128..=191) => {
                    let Ok(length) = self.connection.open.open_rtcp(datagram) else {
                        continue;
                    };
                    let asked =
                        |packet| matches!(packet, Ok(Rtcp::Pli { media }) if media == VIDEO_SSRC);
                    self.keyframe |= rtcp::packets(&datagram[..length]).any(asked);
                }
                _ => {}
            }
        }
    }
}

/// The FU-A header of a video packet (RFC 6184, section 5.8); Opus has a byte of its own to begin with.
fn fragment_header(packet: Packet) -> [u8; NUMBER_AT] {
    match packet {
        Packet::Audio { .. } => [0xfc, 0],
        Packet::Video {
            begins,
            ends,
            keyframe,
            ..
        } => {
            let flags = if begins { 0x80 } else { 0 } | if ends { 0x40 } else { 0 };
            [0x7c, flags | if keyframe { 5 } else { 1 }]
        }
    }
}
