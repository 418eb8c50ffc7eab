//! The SRTP entrance: without the keys nothing gets in, and nothing that got in gets in twice.
//!
//! The first byte chooses profile and form; the rest is a packet, taken as it is, or sealed and then damaged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::header::RtpPacket;
use talksy_unit::transport::srtp::{Direction, SrtpContext, SrtpKeys, SrtpProfile};

const PROFILES: [SrtpProfile; 3] = [
    SrtpProfile::AeadAes128Gcm,
    SrtpProfile::AeadAes256Gcm,
    SrtpProfile::Aes128CmSha1_80,
];

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, place, change], packet)) = data.split_first_chunk::<3>() else {
        return;
    };
    let profile = PROFILES[usize::from(choice) % PROFILES.len()];
    let keys = SrtpKeys::new(profile, vec![7; profile.material_len()]).expect("the right length");
    let mut receiver = SrtpContext::new(&keys, Direction::FromClient);
    if choice & 0x80 == 0 {
        let _ = receiver.open_rtp(&mut packet.to_vec());
        let _ = receiver.open_rtcp(&mut packet.to_vec());
        return;
    }
    let Ok(parsed) = RtpPacket::parse(packet) else {
        return;
    };
    let mut sender = SrtpContext::new(&keys, Direction::FromClient);
    let mut sealed = packet.to_vec();
    if sender.seal_rtp(&mut sealed, 0, parsed.header_len).is_err() {
        return;
    }
    if change != 0 {
        let mut damaged = sealed.clone();
        let at = usize::from(place) % damaged.len();
        damaged[at] ^= change;
        assert!(receiver.open_rtp(&mut damaged).is_err());
    }
    let opened = receiver.open_rtp(&mut sealed.clone()).expect("it is whole");
    assert_eq!(opened.len, packet.len());
    assert!(receiver.open_rtp(&mut sealed).is_err(), "a replay");
});
