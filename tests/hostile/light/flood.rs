//! A member that sends tens of thousands of valid packets a second, under its own keys.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use talksy_unit::rtp::extension::Extensions;
use talksy_unit::rtp::header::HeaderFields;
use talksy_unit::rtp::rtcp::write;

use super::connection::Connection;
use super::sdp::{AUDIO_SSRC, OPUS, PUBLISHED, VIDEO_SSRC};

const TICK: Duration = Duration::from_millis(2);

/// What is sent in each tick of 2 ms.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Voice packets.
    pub voices: usize,
    /// RTCP packets.
    pub reports: usize,
    /// STUN requests.
    pub checks: usize,
}

impl Amount {
    /// 30 000 voice packets, 10 000 reports and 2000 checks a second.
    pub const FLOOD: Amount = Amount {
        voices: 60,
        reports: 20,
        checks: 4,
    };
    /// 3500 voice packets a second: all that a member may send.
    pub const ALLOWED: Amount = Amount {
        voices: 7,
        reports: 0,
        checks: 0,
    };
}
const PAYLOAD: usize = 100;

/// What was sent so far.
#[derive(Default)]
pub struct Sent {
    /// Voice packets.
    pub media: AtomicU64,
    /// RTCP packets.
    pub reports: AtomicU64,
    /// STUN requests.
    pub checks: AtomicU64,
}

/// Floods from its start to its end.
pub struct Flooder {
    stop: Arc<AtomicBool>,
    /// How much.
    pub sent: Arc<Sent>,
    thread: JoinHandle<()>,
}

impl Flooder {
    /// Begins at number `seq` of the voice.
    pub fn start(connection: Connection, seq: u16, server: SocketAddr, amount: Amount) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(Sent::default());
        let (stopped, counts) = (stop.clone(), sent.clone());
        let thread =
            std::thread::spawn(move || flood(connection, seq, server, amount, &stopped, &counts));
        Flooder { stop, sent, thread }
    }

    /// Ends.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
    }
}

fn flood(
    mut c: Connection,
    mut seq: u16,
    to: SocketAddr,
    amount: Amount,
    stop: &AtomicBool,
    sent: &Sent,
) {
    c.socket.set_nonblocking(true).unwrap();
    let state = UdpSocketState::new(UdpSockRef::from(&c.socket)).unwrap();
    // What the kernel refuses is not sent, and not counted.
    let send = |socket: &std::net::UdpSocket, group: &[u8], count: usize, counter: &AtomicU64| {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: group,
            segment_size: Some(group.len() / count),
            src_ip: None,
        };
        if state.try_send(UdpSockRef::from(socket), &transmit).is_ok() {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    };
    let mut due = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let mut group = Vec::new();
        for _ in 0..amount.voices {
            voice(&mut c, seq, &mut group);
            seq = seq.wrapping_add(1);
        }
        send(&c.socket, &group, amount.voices, &sent.media);
        group.clear();
        for _ in 0..amount.reports {
            let start = group.len();
            write::description(VIDEO_SSRC, "flood", &mut group);
            c.seal.seal_rtcp(&mut group, start).unwrap();
        }
        if amount.reports > 0 {
            send(&c.socket, &group, amount.reports, &sent.reports);
        }
        for _ in 0..amount.checks {
            let check = c.ice.check();
            send(&c.socket, &check, 1, &sent.checks);
        }
        let mut buffer = [0u8; 2048];
        while c.socket.recv(&mut buffer).is_ok() {}
        due += TICK;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// A few packets of a voice, so that there is a track to subscribe to. Gives the next one's number.
pub fn begin_voice(connection: &mut Connection) -> u16 {
    const PACKETS: u16 = 5;
    for seq in 0..PACKETS {
        let mut packet = Vec::new();
        voice(connection, seq, &mut packet);
        connection.socket.send(&packet).unwrap();
    }
    PACKETS
}

/// Appends one sealed packet of a voice, and says its end.
fn voice(connection: &mut Connection, seq: u16, out: &mut Vec<u8>) {
    let fields = HeaderFields {
        payload_type: OPUS,
        marker: false,
        seq,
        timestamp: u32::from(seq) * 960,
        ssrc: AUDIO_SSRC,
    };
    let extensions = Extensions {
        mid: Some("0"),
        ..Extensions::default()
    };
    let start = out.len();
    let header = fields.write(&PUBLISHED, &extensions, out);
    out.resize(start + header + PAYLOAD, 0);
    connection.seal.seal_rtp(out, start, header).unwrap();
}
