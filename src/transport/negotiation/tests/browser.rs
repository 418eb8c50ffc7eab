//! A model of a browser's RTCPeerConnection, as far as m-lines go: strict where Chromium is strict.

use std::fmt::Write;

use super::super::description::{Description, Direction, Role};
use crate::rtp::params::MediaKind;

/// An RTCRtpTransceiver.
#[derive(Clone, Debug)]
pub struct Transceiver {
    pub kind: MediaKind,
    /// What the page wants.
    pub wants: Direction,
    pub stopping: bool,
    pub stopped: bool,
    has_sent: bool,
    /// What was agreed.
    pub current: Direction,
    pub remote_msid: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub mid: String,
    pub media: String,
    pub rejected: bool,
    pub transceiver: Option<usize>,
    /// What the offer said that is out.
    offered: Direction,
}

/// The page's connection.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    pub transceivers: Vec<Transceiver>,
    pub slots: Vec<Slot>,
    /// The m-lines of an offer that is out.
    pub pending: Option<Vec<Slot>>,
    pub next_mid: u32,
    pub restarts: u32,
    pub version: u32,
    pub no_h264: bool,
}

/// Why a description was not taken: the state is as before.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused(pub String);

impl Browser {
    /// addTrack: takes over a transceiver that has never sent, else makes one.
    pub fn add_track(&mut self, kind: MediaKind) {
        let free = self
            .transceivers
            .iter_mut()
            .find(|t| t.kind == kind && !t.wants.send && !t.has_sent && !t.stopped && !t.stopping);
        match free {
            Some(transceiver) => transceiver.wants.send = true,
            None => self.add_transceiver(kind, true, true),
        }
    }

    pub fn add_transceiver(&mut self, kind: MediaKind, send: bool, receive: bool) {
        self.transceivers.push(Transceiver {
            kind,
            wants: Direction { send, receive },
            stopping: false,
            stopped: false,
            has_sent: false,
            current: Direction::default(),
            remote_msid: None,
        });
    }

    /// Whether `negotiationneeded` would fire.
    pub fn needs_negotiation(&self) -> bool {
        self.transceivers.iter().enumerate().any(|(index, t)| {
            if t.stopped {
                return false;
            }
            let placed = self.slots.iter().any(|s| s.transceiver == Some(index));
            match (placed, t.stopping) {
                (true, true) => true,
                (true, false) => t.wants.send != t.current.send,
                (false, stopping) => !stopping,
            }
        })
    }

    /// createOffer and setLocalDescription.
    pub fn make_offer(&mut self) -> String {
        let mut slots = self.slots.clone();
        for slot in &mut slots {
            let stopping = slot
                .transceiver
                .is_some_and(|t| self.transceivers[t].stopping);
            slot.rejected |= stopping;
        }
        for (index, transceiver) in self.transceivers.iter().enumerate() {
            let placed = slots.iter().any(|s| s.transceiver == Some(index));
            if placed || transceiver.stopped || transceiver.stopping {
                continue;
            }
            let mid = self.next_mid.to_string();
            self.next_mid += 1;
            let slot = Slot {
                mid,
                media: transceiver.kind.as_str().to_owned(),
                rejected: false,
                transceiver: Some(index),
                offered: Direction::default(),
            };
            let before = self.slots.iter();
            match before
                .zip(&slots)
                .position(|(old, new)| old.rejected && new.rejected)
            {
                Some(free) => slots[free] = slot,
                None => slots.push(slot),
            }
        }
        for slot in &mut slots {
            let wants = slot.transceiver.map(|t| self.transceivers[t].wants);
            slot.offered = wants.unwrap_or_default();
        }
        let sdp = self.text(&slots, Role::Offer, None);
        self.pending = Some(slots);
        sdp
    }

    pub fn rollback(&mut self) {
        self.pending = None;
    }

    /// setRemoteDescription of an offer, which rolls an own one back; then createAnswer and setLocalDescription.
    pub fn take_offer(&mut self, sdp: &str) -> Result<String, Refused> {
        self.pending = None;
        let offer = read(sdp, Role::Offer)?;
        if offer.sections.len() < self.slots.len() {
            return Err(Refused("the offer has lost m-lines".into()));
        }
        for (slot, section) in self.slots.iter().zip(&offer.sections) {
            let same = slot.mid == section.mid.as_str() && slot.media == section.media;
            if !same && !slot.rejected {
                return Err(Refused(format!(
                    "m-line {} became {}",
                    slot.mid, section.mid
                )));
            }
            if same && slot.rejected && section.live {
                return Err(Refused(format!("m-line {} came back to life", slot.mid)));
            }
        }
        for (index, section) in offer.sections.iter().enumerate() {
            let mid = section.mid.as_str().to_owned();
            let known = self
                .slots
                .get(index)
                .filter(|slot| slot.mid == mid)
                .cloned();
            let mut slot = known.unwrap_or(Slot {
                mid,
                media: section.media.clone(),
                rejected: false,
                transceiver: None,
                offered: Direction::default(),
            });
            if let (Some(kind), None, true) = (section.kind(), slot.transceiver, section.live) {
                self.add_transceiver(kind, false, true);
                slot.transceiver = Some(self.transceivers.len() - 1);
            }
            let decodable = !self.no_h264 || section.payloads.iter().any(|p| p.payload_type != 108);
            slot.rejected = !section.live || (section.kind().is_some() && !decodable);
            if let Some(t) = slot.transceiver {
                let transceiver = &mut self.transceivers[t];
                transceiver.stopped |= slot.rejected;
                transceiver.current = transceiver.wants.and(section.direction.reversed());
                if transceiver.stopped {
                    transceiver.current = Direction::default();
                }
                transceiver.has_sent |= transceiver.current.send;
                transceiver.remote_msid = section.track.stream.clone();
            }
            match self.slots.get_mut(index) {
                Some(place) => *place = slot,
                None => self.slots.push(slot),
            }
        }
        Ok(self.text(&self.slots.clone(), Role::Answer, Some(&offer)))
    }

    /// setRemoteDescription of an answer.
    pub fn take_answer(&mut self, sdp: &str) -> Result<(), Refused> {
        let Some(slots) = self.pending.clone() else {
            return Err(Refused("an answer in the state stable".into()));
        };
        let answer = read(sdp, Role::Answer)?;
        if answer.sections.len() != slots.len() {
            return Err(Refused("another number of m-lines".into()));
        }
        for (slot, section) in slots.iter().zip(&answer.sections) {
            if slot.mid != section.mid.as_str() || slot.media != section.media {
                return Err(Refused(format!(
                    "m-line {} became {}",
                    slot.mid, section.mid
                )));
            }
        }
        self.pending = None;
        self.slots = slots;
        for (slot, section) in self.slots.iter_mut().zip(&answer.sections) {
            slot.rejected |= !section.live;
            let Some(t) = slot.transceiver else { continue };
            let transceiver = &mut self.transceivers[t];
            transceiver.stopped |= slot.rejected;
            transceiver.current = slot.offered.and(section.direction.reversed());
            if transceiver.stopped {
                transceiver.current = Direction::default();
            }
            transceiver.has_sent |= transceiver.current.send;
            transceiver.remote_msid = section.track.stream.clone();
        }
        Ok(())
    }

    fn text(&mut self, slots: &[Slot], role: Role, offer: Option<&Description>) -> String {
        let mut out = String::new();
        let version = self.version;
        self.version += 1;
        let live: Vec<_> = slots
            .iter()
            .filter(|s| !s.rejected)
            .map(|s| s.mid.as_str())
            .collect();
        write!(
            out,
            "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
        )
        .unwrap();
        write!(out, "a=group:BUNDLE {}\r\n", live.join(" ")).unwrap();
        for (index, slot) in slots.iter().enumerate() {
            let offered = offer.map(|offer| &offer.sections[index]);
            self.m_line(&mut out, slot, role, offered).unwrap();
        }
        out
    }

    fn m_line(
        &self,
        out: &mut String,
        slot: &Slot,
        role: Role,
        offered: Option<&super::super::description::Section>,
    ) -> std::fmt::Result {
        let port = if slot.rejected { 0 } else { 9 };
        let setup = if role == Role::Offer {
            "actpass"
        } else {
            "active"
        };
        if slot.media == "application" {
            write!(
                out,
                "m=application {port} UDP/DTLS/SCTP webrtc-datachannel\r\n"
            )?;
            write!(
                out,
                "c=IN IP4 0.0.0.0\r\na=mid:{}\r\na=sctp-port:5000\r\n",
                slot.mid
            )?;
            self.transport(out, setup)?;
            return Ok(());
        }
        let all: &[&str] = match (slot.media.as_str(), self.no_h264) {
            ("audio", _) => &["111 opus/48000/2", "8 PCMA/8000"],
            (_, true) => &["96 VP8/90000", "97 rtx/90000"],
            _ => &[
                "96 VP8/90000",
                "97 rtx/90000",
                "108 H264/90000",
                "109 rtx/90000",
            ],
        };
        let number = |map: &&str| map.split(' ').next().and_then(|n| n.parse::<u8>().ok());
        let maps: Vec<&str> = all
            .iter()
            .copied()
            .filter(|map| {
                offered.is_none_or(|section| {
                    let types = section.payload_types();
                    number(map).is_some_and(|pt| types.contains(&pt))
                })
            })
            .collect();
        let types: Vec<_> = maps
            .iter()
            .filter_map(number)
            .map(|n| n.to_string())
            .collect();
        let types = if types.is_empty() {
            "0".to_owned()
        } else {
            types.join(" ")
        };
        write!(
            out,
            "m={} {port} UDP/TLS/RTP/SAVPF {types}\r\nc=IN IP4 0.0.0.0\r\n",
            slot.media
        )?;
        write!(out, "a=mid:{}\r\na=rtcp-mux\r\n", slot.mid)?;
        for map in maps {
            write!(out, "a=rtpmap:{map}\r\n")?;
        }
        write!(out, "a=fmtp:97 apt=96\r\na=fmtp:109 apt=108\r\n")?;
        write!(
            out,
            "a=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\n"
        )?;
        write!(out, "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n")?;
        let transceiver = slot.transceiver.map(|t| (t, &self.transceivers[t]));
        if let Some((t, transceiver)) = transceiver {
            let direction = match role {
                Role::Offer => transceiver.wants,
                Role::Answer => transceiver.current,
            };
            write!(out, "a={}\r\n", direction.as_str())?;
            if direction.send {
                write!(out, "a=msid:mine {t}\r\n")?;
            }
        } else {
            write!(out, "a=inactive\r\n")?;
        }
        self.transport(out, setup)
    }

    fn transport(&self, out: &mut String, setup: &str) -> std::fmt::Result {
        let (ufrag, fingerprint) = (self.restarts, ["CD"; 32].join(":"));
        write!(
            out,
            "a=ice-ufrag:u{ufrag:04}\r\na=ice-pwd:0123456789abcdef012345\r\n"
        )?;
        write!(
            out,
            "a=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\n"
        )
    }
}

/// The server's `a=setup:passive` in answers is right for a browser; our own reader refuses it from a client.
fn read(sdp: &str, role: Role) -> Result<Description, Refused> {
    let sdp = sdp.replace("a=setup:passive", "a=setup:active");
    Description::parse(&sdp, role, 256).map_err(|error| Refused(error.to_string()))
}
