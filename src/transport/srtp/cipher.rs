//! The transforms: AES-GCM (RFC 7714) and AES-CM with HMAC-SHA1 (RFC 3711, section 4).

use super::kdf::{Label, Protocol, SrtpProfile, derive};
use super::{ENCRYPTED, RTCP_HEADER, RTCP_INDEX, SrtpError};
use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use hmac::{Hmac, Mac};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha1::Sha1;

/// Session keys of one protocol in one direction.
#[expect(
    clippy::large_enum_variant,
    reason = "two per transport, and a box would cost a load per packet"
)]
pub(super) enum Cipher {
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
    pub(super) fn new(profile: SrtpProfile, key: &[u8], salt: &[u8], protocol: Protocol) -> Self {
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

    pub(super) fn tag_len(&self) -> usize {
        match self {
            Cipher::Gcm { .. } => 16,
            Cipher::Cm { .. } => CM_TAG,
        }
    }

    pub(super) fn open_rtp(
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

    pub(super) fn seal_rtp(
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
    pub(super) fn index_at(&self, len: usize) -> usize {
        match self {
            Cipher::Gcm { .. } => len - RTCP_INDEX,
            Cipher::Cm { .. } => len - CM_TAG - RTCP_INDEX,
        }
    }

    /// The packet is long enough for header, index and tag.
    pub(super) fn open_rtcp(
        &self,
        packet: &mut [u8],
        ssrc: u32,
        word: u32,
    ) -> Result<usize, SrtpError> {
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

    pub(super) fn seal_rtcp(
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
pub(super) fn apply_keystream(
    cipher: &Aes128,
    salt: &[u8; 14],
    ssrc: u32,
    index: u64,
    body: &mut [u8],
) {
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
