//! A talker whose packets say when they were sent, and listeners who know when they came: by the kernel's clock, so that
//! nobody's wake-up counts but the server's.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use talksy_unit::rtp::demux::{DatagramKind, classify};
use talksy_unit::rtp::extension::Extensions;
use talksy_unit::rtp::header::HeaderFields;
use talksy_unit::rtp::params::{MediaKind, Ssrc};
use talksy_unit::rtp::rtcp::{self, Rtcp};
use talksy_unit::sfu::{DropReason, Publisher as Ingest};

use super::Light;
use super::connection::Connection;
use super::pacing::{Pacer, Packet, TICK};
use super::sdp::{AUDIO_SSRC, H264, OPUS, PUBLISHED, VIDEO_SSRC};

const BITRATE: usize = 1_500_000;
/// Between two looks at the listeners' sockets.
const SWEEP: Duration = Duration::from_millis(5);
/// Behind the two bytes of an FU-A header: the packet's number, and when it was sent, nanoseconds of the Unix epoch.
const NUMBER: std::ops::Range<usize> = 2..10;
const SENT: std::ops::Range<usize> = 10..18;

/// Sends a camera of 1.5 Mbit/s and a microphone until it is stopped.
pub struct Talker {
    stop: Arc<AtomicBool>,
    /// Packets of sound and of the picture.
    sent: Arc<[AtomicU64; 2]>,
    thread: JoinHandle<()>,
}

impl Talker {
    pub fn start(connection: Connection) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (stopped, counts) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || talk(connection, &stopped, &counts));
        Talker { stop, sent, thread }
    }

    /// Ends, and says how many packets of sound and picture there were.
    pub fn stop(self) -> [u64; 2] {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
        [0, 1].map(|at| self.sent[at].load(Ordering::Acquire))
    }
}

fn talk(mut connection: Connection, stop: &AtomicBool, sent: &[AtomicU64; 2]) {
    connection.socket.set_nonblocking(true).unwrap();
    let mut pacer = Pacer::new(1, BITRATE);
    let (mut packets, mut keyframe, mut transport_seq) = (Vec::new(), true, 0);
    let mut due = Instant::now();
    while !stop.load(Ordering::Acquire) {
        keyframe |= hears(&mut connection);
        packets.clear();
        pacer.tick(&mut keyframe, &mut packets);
        for packet in &packets {
            let picture = matches!(packet, Packet::Video { .. });
            let number = sent[usize::from(picture)].fetch_add(1, Ordering::AcqRel);
            transport_seq += 1;
            say(&mut connection, *packet, number, transport_seq as u16);
        }
        due += TICK;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn say(connection: &mut Connection, packet: Packet, number: u64, transport_seq: u16) {
    let (payload_type, ssrc, mid, timestamp, size, header) = match packet {
        Packet::Audio { number, size } => (OPUS, AUDIO_SSRC, "0", number * 960, size, [0xfc, 0]),
        Packet::Video {
            frame,
            size,
            begins,
            ends,
            keyframe,
        } => {
            let flags = u8::from(begins) << 7 | u8::from(ends) << 6;
            let header = [0x7c, flags | if keyframe { 5 } else { 1 }];
            (H264, VIDEO_SSRC, "1", frame * 3000, size, header)
        }
    };
    let fields = HeaderFields {
        payload_type,
        marker: matches!(packet, Packet::Video { ends: true, .. }),
        seq: number as u16,
        timestamp,
        ssrc,
    };
    let extensions = Extensions {
        mid: (number < 50).then_some(mid),
        transport_cc: Some(transport_seq),
        ..Extensions::default()
    };
    let mut datagram = Vec::with_capacity(1500);
    let payload = fields.write(&PUBLISHED, &extensions, &mut datagram);
    datagram.extend(header);
    datagram.extend(number.to_be_bytes());
    datagram.extend(nanos(SystemTime::now()).to_be_bytes());
    datagram.resize(payload + size, 0);
    connection.seal.seal_rtp(&mut datagram, 0, payload).unwrap();
    connection.socket.send(&datagram).unwrap();
}

/// Answers STUN; whether somebody asks for a keyframe.
fn hears(connection: &mut Connection) -> bool {
    let (mut buffer, mut keyframe) = ([0u8; 2048], false);
    while let Ok(length) = connection.socket.recv(&mut buffer) {
        let datagram = &mut buffer[..length];
        match classify(datagram) {
            DatagramKind::Stun => answer(connection, datagram),
            DatagramKind::Rtcp => {
                let Ok(length) = connection.open.open_rtcp(datagram) else {
                    continue;
                };
                let pli = |packet| matches!(packet, Ok(Rtcp::Pli { .. }));
                keyframe |= rtcp::packets(&datagram[..length]).any(pli);
            }
            _ => {}
        }
    }
    if let Some(check) = connection.ice.poll_consent(Instant::now()) {
        connection.socket.send(&check).unwrap();
    }
    keyframe
}

fn answer(connection: &Connection, datagram: &[u8]) {
    if let Some(answer) = connection.ice.answer(datagram) {
        connection.socket.send(&answer).unwrap();
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// From the talker's send to the listener's socket, nanoseconds: of sound and picture.
pub type Delays = [Vec<u64>; 2];

/// The delay that so many of a hundred packets stay below.
pub fn percentile(delays: &mut [u64], percent: usize) -> Duration {
    assert!(delays.len() > 100, "{} packets", delays.len());
    delays.sort_unstable();
    Duration::from_nanos(delays[(delays.len() - 1) * percent / 100])
}

/// What one listener has got of one kind: the numbers in the order in which they came.
type Numbers = [Vec<u64>; 2];

/// Peers that take everything, each packet with its delay.
pub struct Listeners {
    stop: Arc<AtomicBool>,
    delays: Arc<std::sync::Mutex<Delays>>,
    thread: JoinHandle<Vec<Numbers>>,
}

impl Listeners {
    pub fn start(peers: Vec<Light>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let delays = Arc::new(std::sync::Mutex::default());
        let (stopped, noted) = (stop.clone(), delays.clone());
        let thread = std::thread::spawn(move || {
            let mut ears: Vec<Ear> = peers.into_iter().map(Ear::new).collect();
            while !stopped.load(Ordering::Acquire) {
                for ear in &mut ears {
                    ear.sweep(&noted);
                }
                std::thread::sleep(SWEEP);
            }
            ears.into_iter().map(|ear| ear.numbers).collect()
        });
        Listeners {
            stop,
            delays,
            thread,
        }
    }

    /// The delays of all since the last call.
    pub fn take(&self) -> Delays {
        std::mem::take(&mut self.delays.lock().unwrap())
    }

    /// Ends, and gives what each has got of sound and picture.
    pub fn stop(self) -> Vec<[Vec<u64>; 2]> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

struct Ear {
    peer: Light,
    ingest: Ingest,
    numbers: Numbers,
    control: Vec<u8>,
}

impl Ear {
    fn new(peer: Light) -> Self {
        let socket = &peer.connection.socket;
        socket.set_nonblocking(true).unwrap();
        setsockopt(socket, sockopt::ReceiveTimestampns, &true).unwrap();
        let mut ingest = Ingest::new(Ssrc(99));
        ingest.set_lines(&peer.lines);
        Ear {
            peer,
            ingest,
            numbers: Numbers::default(),
            control: nix::cmsg_space!(libc::timespec),
        }
    }

    fn sweep(&mut self, delays: &std::sync::Mutex<Delays>) {
        let mut buffer = [0u8; 2048];
        while let Some((length, came)) = self.receive(&mut buffer) {
            if let Some((kind, delay)) = self.take(&mut buffer[..length], came) {
                delays.lock().unwrap()[kind].push(delay);
            }
        }
        let (connection, now) = (&mut self.peer.connection, Instant::now());
        let mut out = Vec::new();
        while self.ingest.poll_feedback(now, &mut out) {
            connection.seal.seal_rtcp(&mut out, 0).unwrap();
            connection.socket.send(&out).unwrap();
            out.clear();
        }
        if let Some(check) = connection.ice.poll_consent(now) {
            connection.socket.send(&check).unwrap();
        }
    }

    /// A datagram's length, and when the kernel had it.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, u64)> {
        let fd = self.peer.connection.socket.as_raw_fd();
        let mut slices = [IoSliceMut::new(buffer)];
        let control = Some(self.control.as_mut_slice());
        let got = recvmsg::<()>(fd, &mut slices, control, MsgFlags::MSG_DONTWAIT).ok()?;
        let came = got.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => {
                Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
            }
            _ => None,
        });
        Some((got.bytes, came.expect("the kernel's time of arrival")))
    }

    /// Kind and delay of a packet of media.
    fn take(&mut self, datagram: &mut [u8], came: u64) -> Option<(usize, u64)> {
        // The server's estimator is told the kernel's time, too: a receiver without a processor is no narrow link.
        let age = Duration::from_nanos(nanos(SystemTime::now()).saturating_sub(came));
        let now = Instant::now() - age;
        let connection = &mut self.peer.connection;
        match classify(datagram) {
            DatagramKind::Stun => answer(connection, datagram),
            DatagramKind::Rtp => {
                let opened = connection.open.open_rtp(datagram).unwrap();
                let packet = match self.ingest.handle_rtp(now, &datagram[..opened.len]) {
                    Ok(packet) => packet,
                    // A probe of the server's estimator.
                    Err(DropReason::Padding) => return None,
                    Err(reason) => panic!("a packet was refused: {}", reason.as_str()),
                };
                let field = |range: std::ops::Range<usize>| {
                    u64::from_be_bytes(packet.payload[range].try_into().unwrap())
                };
                let kind = usize::from(packet.codec.kind() == MediaKind::Video);
                self.numbers[kind].push(field(NUMBER));
                return Some((kind, came.saturating_sub(field(SENT))));
            }
            _ => {}
        }
        None
    }
}
