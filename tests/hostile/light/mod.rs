//! Light peers (those of the benchmarks) over the signalling socket: ICE, DTLS and SRTP, and nothing that costs a processor.
#![allow(dead_code)]

#[path = "../../../benches/support/connection.rs"]
pub mod connection;
#[path = "../../../benches/support/pacing.rs"]
pub mod pacing;
#[path = "../../../benches/support/sdp.rs"]
pub mod sdp;

mod delay;
mod flood;

pub use delay::{Listeners, Talker, percentile};
pub use flood::{Amount, Flooder, begin_voice};

use connection::{Connection, Identity, Local};
use serde_json::{Value, json};
use talksy_unit::rtp::params::ReceiveLine;
use talksy_unit::transport::srtp::SrtpProfile;

use crate::support::server::Server;
use crate::support::wire::Wire;

/// A connected peer; who drops it leaves.
pub struct Light {
    /// Its signalling.
    pub wire: Wire,
    /// Its media.
    pub connection: Connection,
    /// On which lines it receives.
    pub lines: Vec<ReceiveLine>,
}

/// Connects light peers to one server.
pub struct Lights<'s> {
    server: &'s Server,
    identity: Identity,
    peers: usize,
}

impl<'s> Lights<'s> {
    pub fn new(server: &'s Server) -> Self {
        Lights {
            server,
            identity: Identity::new(),
            peers: 0,
        }
    }

    async fn join(&mut self, room: &str, query: &str) -> (Wire, Local) {
        let url = format!("{}?room_id={room}{query}", self.server.socket());
        self.peers += 1;
        (Wire::open(&url).await, self.identity.local(self.peers))
    }

    fn connect(&self, local: Local, sdp: &str) -> Connection {
        let to = self.server.media_addresses()[0];
        let profile = SrtpProfile::AeadAes128Gcm;
        let connected = || connection::connect(&self.identity, local, sdp, to, profile);
        tokio::task::block_in_place(connected).unwrap()
    }

    /// Somebody who offers a camera and a microphone.
    pub async fn publisher(&mut self, room: &str) -> Light {
        let (mut wire, local) = self.join(room, "").await;
        wire.say("offer", json!(sdp::offer(&local))).await;
        let answer = description(&wire.expect("answer").await);
        let connection = self.connect(local, &answer);
        Light {
            wire,
            connection,
            lines: Vec::new(),
        }
    }

    /// Somebody who takes the `tracks` tracks that are published in the room.
    pub async fn subscriber(&mut self, room: &str, tracks: usize) -> Light {
        let (mut wire, local) = self.join(room, "&publish=0").await;
        let first = description(&wire.expect("offer").await);
        let answer = sdp::answer(&first, &local);
        wire.say("answer", json!(answer)).await;
        let connection = self.connect(local.clone(), &first);
        while wire.available.len() < tracks {
            wire.next().await.unwrap();
        }
        let wanted = std::mem::take(&mut wire.available);
        wire.say("subscribe_tracks", json!(wanted)).await;
        let mut lines = Vec::new();
        while lines.len() < tracks {
            let offer = description(&wire.expect("offer").await);
            wire.say("answer", json!(sdp::answer(&offer, &local))).await;
            lines = sdp::receive_lines(&offer);
        }
        Light {
            wire,
            connection,
            lines,
        }
    }
}

fn description(message: &Value) -> String {
    message["sdp"].as_str().unwrap().to_owned()
}
