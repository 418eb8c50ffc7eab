//! SRTP and SRTCP (RFC 3711, RFC 7714): one context per direction of a transport, in place, without allocation
//! once every SSRC is known.

mod cipher;
mod kdf;
mod replay;
mod streams;

pub use kdf::SrtpProfile;
pub use streams::MAX_RECEIVED_SSRCS;

use cipher::Cipher;
use kdf::Protocol;
use replay::estimate_index;
use rtc::crypto::SecretVec;
use streams::Streams;

/// Set in the index word of an SRTCP packet that is encrypted (RFC 3711, section 3.4).
const ENCRYPTED: u32 = 0x8000_0000;
/// Bytes of a sender's part of the RTCP header, which stays in the clear.
const RTCP_HEADER: usize = 8;
/// Bytes of the index word.
const RTCP_INDEX: usize = 4;

/// Why a packet was not opened or sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SrtpError {
    /// Shorter than its own header says, or than a tag.
    #[error("the packet is too short")]
    TooShort,
    /// Forged, damaged, or of other keys.
    #[error("the packet's authentication tag is wrong")]
    Authentication,
    /// Received before, or older than the replay window.
    #[error("the packet was seen before, or is older than the replay window")]
    Replayed,
    /// SRTCP in the clear, which RFC 8827 (section 6.5) does not allow.
    #[error("the packet is not encrypted")]
    Unencrypted,
    /// Sealing this sequence number again would use a nonce twice, which gives the key away.
    #[error("the sequence number was sealed before")]
    IndexReused,
    /// 2^31 SRTCP packets or 2^48 RTP packets were sealed: the keys are used up.
    #[error("the keys are used up")]
    KeysExhausted,
}

/// Whose packets a context is for. The DTLS client's keys come first in the keying material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sent by the DTLS client: what this server opens.
    FromClient,
    /// Sent by the DTLS server: what this server seals.
    FromServer,
}

/// What the DTLS handshake agreed on. The keying material is zeroed on drop and never printed.
#[derive(Clone, Debug)]
pub struct SrtpKeys {
    profile: SrtpProfile,
    material: SecretVec,
}

impl SrtpKeys {
    /// Keys of a profile. `None` if the material does not have [`SrtpProfile::material_len`] bytes.
    pub fn new(profile: SrtpProfile, material: impl Into<SecretVec>) -> Option<Self> {
        let material = material.into();
        (material.len() == profile.material_len()).then_some(SrtpKeys { profile, material })
    }

    /// The profile.
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Master key and salt of a direction (RFC 5764, section 4.2).
    fn master(&self, direction: Direction) -> (&[u8], &[u8]) {
        let (key, salt) = (self.profile.key_len(), self.profile.salt_len());
        let (keys, salts) = self.material.as_ref().split_at(2 * key);
        match direction {
            Direction::FromClient => (&keys[..key], &salts[..salt]),
            Direction::FromServer => (&keys[key..], &salts[salt..]),
        }
    }
}

/// Where the parts of an opened RTP packet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the header with its CSRCs and extensions.
    pub header_len: usize,
    /// Bytes of the packet without the tag: the payload is `packet[header_len..len]`.
    pub len: usize,
}

/// One direction of one transport.
pub struct SrtpContext {
    rtp: Cipher,
    rtcp: Cipher,
    streams: Streams,
    sent_rtcp: u32,
}

impl SrtpContext {
    /// The context of one direction.
    pub fn new(keys: &SrtpKeys, direction: Direction) -> Self {
        let (key, salt) = keys.master(direction);
        SrtpContext {
            rtp: Cipher::new(keys.profile, key, salt, Protocol::Rtp),
            rtcp: Cipher::new(keys.profile, key, salt, Protocol::Rtcp),
            streams: Streams::default(),
            sent_rtcp: 0,
        }
    }

    /// Authenticates and decrypts an SRTP packet in place.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<Opened, SrtpError> {
        let header_len = header_len(packet).ok_or(SrtpError::TooShort)?;
        let (ssrc, seq) = (be32(packet, 8), be16(packet, 2));
        let known = self.streams.find(ssrc);
        let highest = known.and_then(|at| self.streams.at(at).rtp.highest());
        let index = estimate_index(highest, seq).ok_or(SrtpError::Replayed)?;
        if known.is_some_and(|at| !self.streams.at(at).rtp.is_fresh(index)) {
            return Err(SrtpError::Replayed);
        }
        let len = self.rtp.open_rtp(packet, header_len, ssrc, index)?;
        let at = known.unwrap_or_else(|| self.streams.insert_received(ssrc));
        self.streams.touch(at).rtp.mark(index);
        Ok(Opened { header_len, len })
    }

    /// Encrypts the RTP packet `buffer[start..]`, whose header has `header_len` bytes, and appends the tag.
    ///
    /// Sequence numbers of an SSRC may come out of order, but each one only once. The first of a stream should be
    /// below 2^15, or a receiver that misses the wrap cannot follow (RFC 3711, section 3.3.1).
    pub fn seal_rtp(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
    ) -> Result<(), SrtpError> {
        let packet = buffer.get(start..).ok_or(SrtpError::TooShort)?;
        if header_len < 12 || packet.len() < header_len {
            return Err(SrtpError::TooShort);
        }
        let (ssrc, seq) = (be32(packet, 8), be16(packet, 2));
        let at = match self.streams.find(ssrc) {
            Some(at) => at,
            None => self.streams.insert(ssrc),
        };
        let window = &mut self.streams.touch(at).rtp;
        let index = estimate_index(window.highest(), seq).ok_or(SrtpError::IndexReused)?;
        if !window.is_fresh(index) {
            return Err(SrtpError::IndexReused);
        }
        if index >> 48 != 0 {
            return Err(SrtpError::KeysExhausted);
        }
        window.mark(index);
        self.rtp.seal_rtp(buffer, start, header_len, ssrc, index)
    }

    /// Authenticates and decrypts an SRTCP packet in place; returns the length of the compound packet.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        if packet.len() < RTCP_HEADER + RTCP_INDEX + self.rtcp.tag_len() {
            return Err(SrtpError::TooShort);
        }
        let ssrc = be32(packet, 4);
        let word = be32(packet, self.rtcp.index_at(packet.len()));
        if word & ENCRYPTED == 0 {
            return Err(SrtpError::Unencrypted);
        }
        let index = u64::from(word & !ENCRYPTED);
        let known = self.streams.find(ssrc);
        if known.is_some_and(|at| !self.streams.at(at).rtcp.is_fresh(index)) {
            return Err(SrtpError::Replayed);
        }
        let len = self.rtcp.open_rtcp(packet, ssrc, word)?;
        let at = known.unwrap_or_else(|| self.streams.insert_received(ssrc));
        self.streams.touch(at).rtcp.mark(index);
        Ok(len)
    }

    /// Encrypts the compound RTCP packet `buffer[start..]` and appends index and tag.
    pub fn seal_rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> {
        let packet = buffer.get(start..).ok_or(SrtpError::TooShort)?;
        if packet.len() < RTCP_HEADER {
            return Err(SrtpError::TooShort);
        }
        if self.sent_rtcp == !ENCRYPTED {
            return Err(SrtpError::KeysExhausted);
        }
        self.sent_rtcp += 1;
        let ssrc = be32(packet, 4);
        self.rtcp
            .seal_rtcp(buffer, start, ssrc, self.sent_rtcp | ENCRYPTED)
    }
}

/// Bytes of the RTP header with CSRCs and extension (RFC 3550, section 5.1): what SRTP leaves in the clear.
fn header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let mut len = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = packet.get(len + 2..len + 4)?;
        len += 4 + 4 * usize::from(be16(words, 0));
    }
    (first >> 6 == 2 && packet.len() >= len).then_some(len)
}

/// The caller has checked that the bytes are there.
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The caller has checked that the bytes are there.
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
