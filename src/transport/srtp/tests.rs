use super::cipher::apply_keystream;
use super::*;
use aes::Aes128;
use aes::cipher::KeyInit;
use proptest::prelude::*;
use ring::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};

pub(in crate::transport) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// "Quid pro quo", as in RFC 7714, section 16.
fn gcm_salt() -> [u8; 12] {
    unhex("517569642070726f2071756f").try_into().unwrap()
}

fn gcm(key_len: u8) -> Cipher {
    let key: Vec<u8> = (0..key_len).collect();
    let algorithm = if key_len == 16 {
        &AES_128_GCM
    } else {
        &AES_256_GCM
    };
    Cipher::Gcm {
        key: LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap()),
        salt: gcm_salt(),
    }
}

fn keys(profile: SrtpProfile) -> SrtpKeys {
    let material = (0..profile.material_len() as u8).collect::<Vec<u8>>();
    SrtpKeys::new(profile, material).unwrap()
}

fn pair(profile: SrtpProfile) -> (SrtpContext, SrtpContext) {
    let keys = keys(profile);
    (
        SrtpContext::new(&keys, Direction::FromServer),
        SrtpContext::new(&keys, Direction::FromServer),
    )
}

fn rtp(ssrc: u32, seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 7]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn sealed(context: &mut SrtpContext, ssrc: u32, seq: u16) -> Vec<u8> {
    let mut packet = rtp(ssrc, seq, b"payload");
    context.seal_rtp(&mut packet, 0, 12).unwrap();
    packet
}

#[test]
fn gcm_agrees_with_rfc_7714_16() {
    let plain = unhex(
        "8040f17b8041f8d35501a0b2 47616c6c696120657374206f6d6e6973 20646976697361 20696e207061727465732074726573",
    );
    let cases = [
        (
            16,
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            32,
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ];
    for (key_len, expected) in cases {
        let cipher = gcm(key_len);
        let mut packet = plain.clone();
        cipher
            .seal_rtp(&mut packet, 0, 12, 0x5501_a0b2, 0xf17b)
            .unwrap();
        assert_eq!(packet, unhex(expected));
        let len = cipher
            .open_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b)
            .unwrap();
        assert_eq!(packet[..len], plain);
    }
}

#[test]
fn gcm_agrees_with_rfc_7714_17() {
    let plain = unhex(
        "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
    );
    let cases = [
        (
            16,
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        ),
        (
            32,
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        ),
    ];
    for (key_len, expected) in cases {
        let cipher = gcm(key_len);
        let mut packet = plain.clone();
        cipher
            .seal_rtcp(&mut packet, 0, 0x4d61_7273, 0x8000_05d4)
            .unwrap();
        assert_eq!(packet, unhex(expected));
        let len = cipher
            .open_rtcp(&mut packet, 0x4d61_7273, 0x8000_05d4)
            .unwrap();
        assert_eq!(packet[..len], plain);
    }
}

#[test]
fn the_keystream_agrees_with_rfc_3711_b_2() {
    let key: [u8; 16] = unhex("2B7E151628AED2A6ABF7158809CF4F3C")
        .try_into()
        .unwrap();
    let salt: [u8; 14] = unhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let mut stream = [0u8; 48];
    apply_keystream(&Aes128::new(&key.into()), &salt, 0, 0, &mut stream);
    let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(stream[..], unhex(expected));
}

#[test]
fn every_profile_opens_what_it_sealed() {
    for profile in SrtpProfile::PREFERENCE {
        let (mut sender, mut receiver) = pair(profile);
        let mut buffer = b"what was there before".to_vec();
        let start = buffer.len();
        buffer.extend(rtp(7, 65_535, b"hello"));
        sender.seal_rtp(&mut buffer, start, 12).unwrap();
        assert_eq!(buffer.len(), start + 12 + 5 + profile.tag_len());
        assert_ne!(&buffer[start + 12..start + 17], b"hello");
        let opened = receiver.open_rtp(&mut buffer[start..]).unwrap();
        assert_eq!((opened.header_len, opened.len), (12, 17));
        assert_eq!(&buffer[start + 12..start + 17], b"hello");

        let report = unhex("80c90001 00000007 cafebabe");
        let mut buffer = report.clone();
        sender.seal_rtcp(&mut buffer, 0).unwrap();
        assert_ne!(buffer[8..12], report[8..]);
        let len = receiver.open_rtcp(&mut buffer).unwrap();
        assert_eq!(buffer[..len], report);
    }
}

#[test]
fn the_two_directions_have_different_keys() {
    let keys = keys(SrtpProfile::AeadAes128Gcm);
    let mut packet = sealed(&mut SrtpContext::new(&keys, Direction::FromServer), 1, 1);
    let mut other = SrtpContext::new(&keys, Direction::FromClient);
    assert_eq!(other.open_rtp(&mut packet), Err(SrtpError::Authentication));
}

#[test]
fn a_packet_is_opened_once() {
    for profile in SrtpProfile::PREFERENCE {
        let (mut sender, mut receiver) = pair(profile);
        let packet = sealed(&mut sender, 1, 9);
        receiver.open_rtp(&mut packet.clone()).unwrap();
        assert_eq!(
            receiver.open_rtp(&mut packet.clone()),
            Err(SrtpError::Replayed)
        );
        let mut report = unhex("80c90001 00000007 cafebabe");
        sender.seal_rtcp(&mut report, 0).unwrap();
        receiver.open_rtcp(&mut report.clone()).unwrap();
        assert_eq!(receiver.open_rtcp(&mut report), Err(SrtpError::Replayed));
    }
}

#[test]
fn a_sequence_number_is_sealed_once() {
    let (mut sender, _) = pair(SrtpProfile::AeadAes128Gcm);
    sealed(&mut sender, 1, 9);
    sealed(&mut sender, 1, 7);
    let mut again = rtp(1, 9, b"something else");
    assert_eq!(
        sender.seal_rtp(&mut again, 0, 12),
        Err(SrtpError::IndexReused)
    );
}

#[test]
fn the_rollover_counter_is_followed_with_loss_and_reordering() {
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmSha1_80] {
        let (mut sender, mut receiver) = pair(profile);
        let mut seq = 65_000u16;
        for step in 0..2_000u32 {
            let first = sealed(&mut sender, 3, seq);
            let second = sealed(&mut sender, 3, seq.wrapping_add(1));
            if step % 5 != 0 {
                receiver.open_rtp(&mut second.clone()).unwrap();
            }
            receiver.open_rtp(&mut first.clone()).unwrap();
            seq = seq.wrapping_add(97);
        }
    }
}

#[test]
fn forged_packets_leave_no_state() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let mut forged = sealed(&mut sender, 5, 40_000);
    forged[2] ^= 0x40;
    assert_eq!(
        receiver.open_rtp(&mut forged),
        Err(SrtpError::Authentication)
    );
    assert!(receiver.streams.ssrcs.is_empty());
    receiver
        .open_rtp(&mut sealed(&mut sender, 5, 40_001))
        .unwrap();
}

#[test]
fn the_table_of_received_streams_is_bounded_and_forgets_the_oldest() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    for ssrc in 0..MAX_RECEIVED_SSRCS as u32 {
        receiver
            .open_rtp(&mut sealed(&mut sender, ssrc, 1))
            .unwrap();
    }
    receiver.open_rtp(&mut sealed(&mut sender, 0, 2)).unwrap();
    receiver
        .open_rtp(&mut sealed(&mut sender, 9_999, 1))
        .unwrap();
    assert_eq!(receiver.streams.ssrcs.len(), MAX_RECEIVED_SSRCS);
    assert!(receiver.streams.find(0).is_some(), "heard lately");
    assert!(receiver.streams.find(1).is_none(), "heard longest ago");
}

#[test]
fn rtcp_in_the_clear_is_refused() {
    for profile in SrtpProfile::PREFERENCE {
        let (_, mut receiver) = pair(profile);
        assert_eq!(
            receiver.open_rtcp(&mut [0u8; 64]),
            Err(SrtpError::Unencrypted)
        );
    }
}

#[test]
fn the_keys_do_not_print() {
    assert!(format!("{:?}", keys(SrtpProfile::AeadAes128Gcm)).contains("REDACTED"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), first in 0x80u8..=0xbf) {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        for profile in SrtpProfile::PREFERENCE {
            let (mut sender, mut receiver) = pair(profile);
            prop_assert!(receiver.open_rtp(&mut bytes.clone()).is_err());
            prop_assert!(receiver.open_rtcp(&mut bytes.clone()).is_err());
            let _ = sender.seal_rtp(&mut bytes.clone(), 3, 12);
            let _ = sender.seal_rtcp(&mut bytes.clone(), 3);
        }
    }
}
