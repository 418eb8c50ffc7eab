//! SRTP and SRTCP (RFC 3711, RFC 7714): one context per direction of a transport, in place, without allocation
//! once every SSRC is known.

mod kdf;
mod replay;

pub use kdf::SrtpProfile;

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use hmac::{Hmac, Mac};
use kdf::{Label, Protocol, derive};
use replay::{Window, estimate_index};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rtc::crypto::SecretVec;
use sha1::Sha1;

/// SSRCs of which a receiving context keeps the state. Only authenticated packets take a place; when there is none
/// left the one that was heard longest ago is forgotten.
pub const MAX_RECEIVED_SSRCS: usize = 128;

/// 64-bit words of the replay window: 1024 packets of RTP.
const RTP_WINDOW: usize = 16;
/// 256 packets of RTCP.
const RTCP_WINDOW: usize = 4;
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
    pub fn new(profile: SrtpProfile, material: SecretVec) -> Option<Self> {
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

/// Session keys of one protocol in one direction.
#[expect(
    clippy::large_enum_variant,
    reason = "two per transport, and a box would cost a load per packet"
)]
enum Cipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    Cm {
        cipher: Aes128,
        salt: [u8; 14],
        auth: Hmac<Sha1>,
    },
}

impl Cipher {
    fn new(profile: SrtpProfile, key: &[u8], salt: &[u8], protocol: Protocol) -> Self {
        let gcm = |algorithm, session: &[u8]| Cipher::Gcm {
            key: LessSafeKey::new(
                UnboundKey::new(algorithm, session).expect("the key has the cipher's length"),
            ),
            salt: derive(key, salt, protocol, Label::Salt),
        };
        match profile {
            SrtpProfile::AeadAes128Gcm => {
                let session: [u8; 16] = derive(key, salt, protocol, Label::Encryption);
                gcm(&AES_128_GCM, &session)
            }
            SrtpProfile::AeadAes256Gcm => {
                let session: [u8; 32] = derive(key, salt, protocol, Label::Encryption);
                gcm(&AES_256_GCM, &session)
            }
            SrtpProfile::Aes128CmSha1_80 => {
                let session: [u8; 16] = derive(key, salt, protocol, Label::Encryption);
                let auth: [u8; 20] = derive(key, salt, protocol, Label::Authentication);
                Cipher::Cm {
                    cipher: Aes128::new(&session.into()),
                    salt: derive(key, salt, protocol, Label::Salt),
                    auth: <Hmac<Sha1> as Mac>::new_from_slice(&auth)
                        .expect("HMAC takes any length"),
                }
            }
        }
    }

    fn tag_len(&self) -> usize {
        match self {
            Cipher::Gcm { .. } => 16,
            Cipher::Cm { .. } => CM_TAG,
        }
    }

    fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let len = packet
            .len()
            .checked_sub(self.tag_len())
            .filter(|len| *len >= header_len)
            .ok_or(SrtpError::TooShort)?;
        match self {
            Cipher::Gcm { key, salt } => {
                let (header, body) = packet.split_at_mut(header_len);
                key.open_in_place(gcm_nonce(salt, ssrc, index), Aad::from(&*header), body)
                    .map_err(|_| SrtpError::Authentication)?;
            }
            Cipher::Cm { cipher, salt, auth } => {
                // The tag covers the rollover counter too (RFC 3711, section 4.2).
                let mut mac = auth.clone();
                mac.update(&packet[..len]);
                mac.update(&rollovers(index));
                mac.verify_truncated_left(&packet[len..])
                    .map_err(|_| SrtpError::Authentication)?;
                apply_keystream(cipher, salt, ssrc, index, &mut packet[header_len..len]);
            }
        }
        Ok(len)
    }

    fn seal_rtp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SrtpError> {
        let (header, body) = buffer[start..].split_at_mut(header_len);
        match self {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*header), body)
                    .map_err(|_| SrtpError::KeysExhausted)?;
                buffer.extend_from_slice(tag.as_ref());
            }
            Cipher::Cm { cipher, salt, auth } => {
                apply_keystream(cipher, salt, ssrc, index, body);
                let mut mac = auth.clone();
                mac.update(&buffer[start..]);
                mac.update(&rollovers(index));
                buffer.extend_from_slice(&mac.finalize().into_bytes()[..CM_TAG]);
            }
        }
        Ok(())
    }

    /// Where the index word of an SRTCP packet is: GCM has it after the tag (RFC 7714, section 9.2), CM before.
    fn index_at(&self, len: usize) -> usize {
        match self {
            Cipher::Gcm { .. } => len - RTCP_INDEX,
            Cipher::Cm { .. } => len - CM_TAG - RTCP_INDEX,
        }
    }

    /// The packet is long enough for header, index and tag.
    fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, word: u32) -> Result<usize, SrtpError> {
        let index = u64::from(word & !ENCRYPTED);
        let len = packet.len() - RTCP_INDEX - self.tag_len();
        match self {
            Cipher::Gcm { key, salt } => {
                let (header, rest) = packet.split_at_mut(RTCP_HEADER);
                let body = rest.len() - RTCP_INDEX;
                key.open_in_place(
                    gcm_nonce(salt, ssrc, index),
                    Aad::from(rtcp_aad(header, word)),
                    &mut rest[..body],
                )
                .map_err(|_| SrtpError::Authentication)?;
            }
            Cipher::Cm { cipher, salt, auth } => {
                let (covered, tag) = packet.split_at_mut(len + RTCP_INDEX);
                let mut mac = auth.clone();
                mac.update(covered);
                mac.verify_truncated_left(tag)
                    .map_err(|_| SrtpError::Authentication)?;
                apply_keystream(cipher, salt, ssrc, index, &mut covered[RTCP_HEADER..len]);
            }
        }
        Ok(len)
    }

    fn seal_rtcp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        ssrc: u32,
        word: u32,
    ) -> Result<(), SrtpError> {
        let index = u64::from(word & !ENCRYPTED);
        let (header, body) = buffer[start..].split_at_mut(RTCP_HEADER);
        match self {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let aad = Aad::from(rtcp_aad(header, word));
                let tag = key
                    .seal_in_place_separate_tag(nonce, aad, body)
                    .map_err(|_| SrtpError::KeysExhausted)?;
                buffer.extend_from_slice(tag.as_ref());
                buffer.extend_from_slice(&word.to_be_bytes());
            }
            Cipher::Cm { cipher, salt, auth } => {
                apply_keystream(cipher, salt, ssrc, index, body);
                buffer.extend_from_slice(&word.to_be_bytes());
                let mut mac = auth.clone();
                mac.update(&buffer[start..]);
                buffer.extend_from_slice(&mac.finalize().into_bytes()[..CM_TAG]);
            }
        }
        Ok(())
    }
}

/// Bytes of a truncated HMAC-SHA1 tag.
const CM_TAG: usize = 10;

/// RFC 7714, sections 8.1 and 9.1. The 48-bit index is ROC and sequence number, or that of SRTCP.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = [0u8; 12];
    nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
    nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
    for (byte, salt) in nonce.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 7714, section 9.2: the fixed header and the index word.
fn rtcp_aad(header: &[u8], word: u32) -> [u8; RTCP_HEADER + RTCP_INDEX] {
    let mut aad = [0; RTCP_HEADER + RTCP_INDEX];
    aad[..RTCP_HEADER].copy_from_slice(header);
    aad[RTCP_HEADER..].copy_from_slice(&word.to_be_bytes());
    aad
}

/// AES in counter mode (RFC 3711, section 4.1.1).
fn apply_keystream(cipher: &Aes128, salt: &[u8; 14], ssrc: u32, index: u64, body: &mut [u8]) {
    let mut counter = [0u8; 16];
    counter[..14].copy_from_slice(salt);
    for (byte, ssrc) in counter[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
        *byte ^= ssrc;
    }
    for (byte, index) in counter[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
        *byte ^= index;
    }
    let core =
        ctr::CtrCore::<&Aes128, ctr::flavors::Ctr128BE>::inner_iv_init(cipher, &counter.into());
    ctr::cipher::StreamCipherCoreWrapper::from_core(core).apply_keystream(body);
}

fn rollovers(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// What a context remembers of one SSRC.
struct Stream {
    rtp: Window<RTP_WINDOW>,
    rtcp: Window<RTCP_WINDOW>,
    used: u64,
}

/// The streams of a context, sorted by SSRC; packets come in runs, so the last one is tried first.
#[derive(Default)]
struct Streams {
    ssrcs: Vec<u32>,
    streams: Vec<Stream>,
    last: usize,
    clock: u64,
}

impl Streams {
    fn find(&self, ssrc: u32) -> Option<usize> {
        if self.ssrcs.get(self.last) == Some(&ssrc) {
            return Some(self.last);
        }
        self.ssrcs.binary_search(&ssrc).ok()
    }

    fn at(&self, at: usize) -> &Stream {
        &self.streams[at]
    }

    fn touch(&mut self, at: usize) -> &mut Stream {
        self.last = at;
        self.clock += 1;
        let stream = &mut self.streams[at];
        stream.used = self.clock;
        stream
    }

    /// Adds a stream that is not there yet.
    fn insert(&mut self, ssrc: u32) -> usize {
        let at = self.ssrcs.partition_point(|other| *other < ssrc);
        self.ssrcs.insert(at, ssrc);
        let stream = Stream {
            rtp: Window::new(),
            rtcp: Window::new(),
            used: 0,
        };
        self.streams.insert(at, stream);
        at
    }

    /// As [`Streams::insert`], within [`MAX_RECEIVED_SSRCS`].
    fn insert_received(&mut self, ssrc: u32) -> usize {
        if self.ssrcs.len() >= MAX_RECEIVED_SSRCS {
            let oldest = (0..self.streams.len()).min_by_key(|at| self.streams[*at].used);
            if let Some(oldest) = oldest {
                self.ssrcs.remove(oldest);
                self.streams.remove(oldest);
            }
        }
        self.insert(ssrc)
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
