//! The rules one by one, on captured descriptions of browsers.

use std::time::{Duration, Instant};

use super::*;

mod browser;
mod bytes;
mod chromium;
mod model;
mod rules;

/// What Chromium 156 offers: one microphone and one camera.
const CHROMIUM_PUBLISH: &str = include_str!("../testdata/chromium_publish.sdp");
/// Two transceivers for receiving.
const CHROMIUM_RECVONLY: &str = include_str!("../testdata/chromium_recvonly.sdp");
/// A camera in three layers, and a data channel.
const CHROMIUM_SIMULCAST: &str = include_str!("../testdata/chromium_simulcast.sdp");

/// What Firefox 153 offers without an H.264 plugin: one microphone and one camera.
const FIREFOX_PUBLISH: &str = include_str!("../testdata/firefox_publish.sdp");
/// A camera in two layers.
const FIREFOX_SIMULCAST: &str = include_str!("../testdata/firefox_simulcast.sdp");

/// A transport that remembers what it was told.
#[derive(Default)]
pub(super) struct FakePort {
    pub remote: Vec<RemoteTransport>,
    pub refuses: bool,
    /// Offers have other credentials.
    pub restarts: bool,
}

impl TransportPort for FakePort {
    fn apply_remote(&mut self, _: Instant, remote: &RemoteTransport) -> Result<(), String> {
        if self.refuses {
            return Err("it is closed".to_owned());
        }
        self.remote.push(remote.clone());
        Ok(())
    }

    fn local(&self) -> LocalTransport {
        LocalTransport {
            ufrag: "serv".to_owned(),
            pwd: "0123456789abcdef012345".to_owned(),
            fingerprint: ["AB"; 32].join(":"),
            candidates: vec!["candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host".to_owned()],
        }
    }

    fn local_for_offer(&self) -> LocalTransport {
        let ufrag = if self.restarts { "next" } else { "serv" };
        LocalTransport {
            ufrag: ufrag.to_owned(),
            ..self.local()
        }
    }
}

/// A machine, its transport and its clock.
pub(super) struct Bench {
    pub machine: Negotiator,
    pub port: FakePort,
    pub now: Instant,
}

impl Bench {
    pub fn new(client_offers_first: bool) -> Self {
        Bench {
            machine: Negotiator::new(NegotiationConfig {
                client_offers_first,
                seed: 7,
                ..NegotiationConfig::default()
            }),
            port: FakePort::default(),
            now: Instant::now(),
        }
    }

    pub fn offer(&mut self, sdp: &str) -> Result<(), NegotiationError> {
        self.machine.handle_offer(self.now, sdp, &mut self.port)
    }

    pub fn answer(&mut self, sdp: &str) -> Result<(), NegotiationError> {
        self.machine.handle_answer(self.now, sdp, &mut self.port)
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.machine.poll_output(self.now, &mut self.port)
    }

    pub fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now);
    }
}

pub(super) fn spec(id: u64, kind: MediaKind, codec: Codec) -> SenderSpec {
    SenderSpec {
        id: SenderId(id),
        kind,
        codec,
        stream_id: format!("stream{id}"),
        track_id: format!("track{id}"),
        ssrc: Ssrc(1000 + id as u32),
        rtx_ssrc: Ssrc(2000 + id as u32),
        cname: "room".to_owned(),
        dedicated: false,
    }
}

pub(super) fn video(id: u64) -> SenderSpec {
    spec(id, MediaKind::Video, Codec::H264)
}

pub(super) fn audio(id: u64) -> SenderSpec {
    spec(id, MediaKind::Audio, Codec::Opus)
}
