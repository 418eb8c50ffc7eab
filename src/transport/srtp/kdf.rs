//! Key derivation (RFC 3711, section 4.3) and what each protection profile needs of it.

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};

/// A protection profile of DTLS-SRTP (RFC 5764, section 4.1.2; RFC 7714, section 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// `SRTP_AEAD_AES_128_GCM`: the cheapest one on any processor with AES instructions.
    AeadAes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`.
    AeadAes256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`: the mandatory one (RFC 8827, section 6.5).
    Aes128CmSha1_80,
}

impl SrtpProfile {
    /// Every profile, best first: the order in which one is chosen among those that a client offers.
    pub const PREFERENCE: [SrtpProfile; 3] = [
        SrtpProfile::AeadAes128Gcm,
        SrtpProfile::AeadAes256Gcm,
        SrtpProfile::Aes128CmSha1_80,
    ];

    /// Its value in the `use_srtp` extension.
    pub const fn code(self) -> u16 {
        match self {
            SrtpProfile::AeadAes128Gcm => 0x0007,
            SrtpProfile::AeadAes256Gcm => 0x0008,
            SrtpProfile::Aes128CmSha1_80 => 0x0001,
        }
    }

    /// The best of the offered codes, if any is known.
    pub fn choose(offered: &[u16]) -> Option<Self> {
        Self::PREFERENCE
            .into_iter()
            .find(|profile| offered.contains(&profile.code()))
    }

    /// Bytes of a master key.
    pub const fn key_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes256Gcm => 32,
            SrtpProfile::AeadAes128Gcm | SrtpProfile::Aes128CmSha1_80 => 16,
        }
    }

    /// Bytes of a master salt.
    pub const fn salt_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => 12,
            SrtpProfile::Aes128CmSha1_80 => 14,
        }
    }

    /// Bytes of keying material for both directions (RFC 5764, section 4.2).
    pub const fn material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Bytes that protection appends to an RTP packet.
    pub const fn tag_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => 16,
            SrtpProfile::Aes128CmSha1_80 => 10,
        }
    }
}

/// What a derived key is for (RFC 3711, section 4.3.1 and 4.3.2). Those of SRTCP are three higher.
#[derive(Clone, Copy)]
pub(super) enum Label {
    Encryption = 0,
    Authentication = 1,
    Salt = 2,
}

/// Labels of the two protocols that share one master key.
#[derive(Clone, Copy)]
pub(super) enum Protocol {
    Rtp = 0,
    Rtcp = 3,
}

/// Derives `LEN` bytes; the key derivation rate is 0, as DTLS-SRTP has it.
///
/// A salt of 96 bits is used as if followed by 16 zero bits (RFC 7714, section 11).
pub(super) fn derive<const LEN: usize>(
    master_key: &[u8],
    master_salt: &[u8],
    protocol: Protocol,
    label: Label,
) -> [u8; LEN] {
    let mut counter = [0u8; 16];
    counter[..master_salt.len()].copy_from_slice(master_salt);
    counter[7] ^= protocol as u8 + label as u8;
    let mut derived = [0u8; LEN];
    for (index, chunk) in derived.chunks_mut(16).enumerate() {
        counter[14..].copy_from_slice(&(index as u16).to_be_bytes());
        let block = encrypt_block(master_key, counter);
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    derived
}

/// One AES block; the key's length chooses the cipher.
fn encrypt_block(key: &[u8], block: [u8; 16]) -> [u8; 16] {
    let mut block = Block::from(block);
    if let Ok(aes) = Aes256::new_from_slice(key) {
        aes.encrypt_block(&mut block);
    } else {
        let aes = Aes128::new_from_slice(key).expect("a master key has 16 or 32 bytes");
        aes.encrypt_block(&mut block);
    }
    block.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::srtp::tests::unhex;

    #[test]
    fn derives_the_keys_of_rfc_3711_b_3() {
        let key = unhex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = unhex("0EC675AD498AFEEBB6960B3AABE6");
        let cipher: [u8; 16] = derive(&key, &salt, Protocol::Rtp, Label::Encryption);
        assert_eq!(cipher[..], unhex("C61E7A93744F39EE10734AFE3FF7A087"));
        let salt_key: [u8; 14] = derive(&key, &salt, Protocol::Rtp, Label::Salt);
        assert_eq!(salt_key[..], unhex("30CBBC08863D8C85D49DB34A9AE1"));
        let auth: [u8; 20] = derive(&key, &salt, Protocol::Rtp, Label::Authentication);
        assert_eq!(auth[..], unhex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn the_best_profile_wins_whatever_the_order_of_the_offer() {
        assert_eq!(
            SrtpProfile::choose(&[1, 8, 7]),
            Some(SrtpProfile::AeadAes128Gcm)
        );
        assert_eq!(
            SrtpProfile::choose(&[1, 2, 8]),
            Some(SrtpProfile::AeadAes256Gcm)
        );
        assert_eq!(
            SrtpProfile::choose(&[2, 1]),
            Some(SrtpProfile::Aes128CmSha1_80)
        );
        assert_eq!(SrtpProfile::choose(&[2, 5]), None);
    }
}
