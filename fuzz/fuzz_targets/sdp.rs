//! Offers and answers of a client, in any order: none is taken apart wrongly, each is answered or refused, and the
//! machine is as ready for the next as before.
//!
//! Descriptions are separated by a line of a NUL byte; the first byte of each says offer or answer.

#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::params::{Codec, MediaKind, Ssrc};
use talksy_unit::transport::negotiation::{
    LocalTransport, NegotiationConfig, Negotiator, Output, RemoteTransport, SenderId, SenderSpec,
    TransportPort,
};

struct Port;

impl TransportPort for Port {
    fn apply_remote(&mut self, _: Instant, _: &RemoteTransport) -> Result<(), String> {
        Ok(())
    }

    fn local(&self) -> LocalTransport {
        LocalTransport {
            ufrag: "ours".into(),
            pwd: "p".repeat(22),
            fingerprint: ["AB"; 32].join(":"),
            candidates: vec!["candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host".into()],
        }
    }
}

fn sender(id: u64, kind: MediaKind, codec: Codec) -> SenderSpec {
    SenderSpec {
        id: SenderId(id),
        kind,
        codec,
        stream_id: "stream".into(),
        track_id: format!("track{id}"),
        ssrc: Ssrc(1000 + id as u32),
        rtx_ssrc: Ssrc(2000 + id as u32),
        cname: "cname".into(),
        dedicated: id == 1,
    }
}

fuzz_target!(|data: &[u8]| {
    let now = Instant::now();
    let config = NegotiationConfig {
        client_offers_first: false,
        max_lines: 64,
        seed: 7,
        ..NegotiationConfig::default()
    };
    let mut machine = Negotiator::new(config);
    machine.add_sender(sender(1, MediaKind::Audio, Codec::Opus));
    machine.add_sender(sender(2, MediaKind::Video, Codec::H264));
    machine.want_channel();
    for part in data.split(|byte| *byte == 0).take(8) {
        let Some((&kind, text)) = part.split_first() else {
            continue;
        };
        let text = String::from_utf8_lossy(text);
        let is_offer = kind == b'o';
        let answered = match is_offer {
            true => machine.handle_offer(now, &text, &mut Port),
            false => machine.handle_answer(now, &text, &mut Port),
        };
        let outputs: Vec<Output> = std::iter::from_fn(|| machine.poll_output(now, &mut Port))
            .take(100)
            .collect();
        assert!(outputs.len() < 100, "the machine comes to rest");
        let answers = outputs
            .iter()
            .filter(|output| matches!(output, Output::Answer(_)));
        assert_eq!(answers.count(), usize::from(is_offer && answered.is_ok()));
        for output in &outputs {
            if let Output::LinesChanged { receive, send } = output {
                assert!(receive.len() <= 64 && send.len() <= 64);
                assert!(receive.iter().all(|line| !line.payloads.is_empty()));
            }
        }
    }
});
