//! RTP header extensions (RFC 8285): the values that this server reads, forwards and writes.

use std::time::Duration;

use super::params::ExtensionIds;
use super::playout::PlayoutDelay;

/// Profile of a block in the one-byte form (RFC 8285, section 4.2).
pub const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// Profile of a block in the two-byte form; its lower four bits are free (RFC 8285, section 4.3).
pub const TWO_BYTE_PROFILE: u16 = 0x1000;

/// How loud a packet of audio is (RFC 6464).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// 0 (full scale) to 127 (silence), in -dBov.
    pub dbov: u8,
    /// The sender's own detector heard a voice.
    pub voice: bool,
}

impl AudioLevel {
    /// From the extension's byte (RFC 6464, section 3).
    pub fn from_byte(byte: u8) -> Self {
        AudioLevel {
            dbov: byte & 0x7f,
            voice: byte & 0x80 != 0,
        }
    }

    /// The extension's byte.
    pub fn to_byte(self) -> u8 {
        (self.dbov & 0x7f) | if self.voice { 0x80 } else { 0 }
    }
}

/// Departure time on the sender's clock, 24 bits of 2⁻¹⁸ s: wraps every 64 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsSendTime(pub u32);

impl AbsSendTime {
    /// The value for a moment that lies `since` after any fixed epoch of the sender.
    pub fn from_epoch(since: Duration) -> Self {
        AbsSendTime((super::ntp::units(since) >> 14) as u32 & 0x00ff_ffff)
    }
}

/// The known extensions of one packet, read or to be written. `None`: absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// Tag of the m-line (RFC 8843, section 15).
    pub mid: Option<&'a str>,
    /// Stream of a simulcast (RFC 8852).
    pub rid: Option<&'a str>,
    /// Stream that a retransmission repairs (RFC 8852).
    pub repaired_rid: Option<&'a str>,
    /// RFC 6464.
    pub audio_level: Option<AudioLevel>,
    /// Transport-wide sequence number.
    pub transport_cc: Option<u16>,
    /// When it left its sender.
    pub abs_send_time: Option<AbsSendTime>,
    /// Rotation and mirroring (3GPP TS 26.114, section 7.4.5).
    pub video_orientation: Option<u8>,
    /// Opaque here.
    pub dependency_descriptor: Option<&'a [u8]>,
    /// How long the receiver should hold a picture back.
    pub playout_delay: Option<PlayoutDelay>,
}

impl<'a> Extensions<'a> {
    /// Reads the elements of an extension block under the leg's ids.
    ///
    /// Unknown elements are skipped. An element that runs over the block's end, or whose value is no valid one,
    /// is ignored: the rest of the packet is good.
    pub fn parse(block: ExtensionBlock<'a>, ids: &ExtensionIds) -> Self {
        let mut known = Extensions::default();
        for (id, value) in block.elements() {
            known.set(Some(id), value, ids);
        }
        known
    }

    fn set(&mut self, id: Option<u8>, value: &'a [u8], ids: &ExtensionIds) {
        if id == ids.transport_cc {
            self.transport_cc = value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        } else if id == ids.mid {
            self.mid = text(value);
        } else if id == ids.audio_level {
            self.audio_level = value.first().map(|byte| AudioLevel::from_byte(*byte));
        } else if id == ids.abs_send_time {
            self.abs_send_time = value
                .first_chunk::<3>()
                .map(|&[a, b, c]| AbsSendTime(u32::from_be_bytes([0, a, b, c])));
        } else if id == ids.video_orientation {
            self.video_orientation = value.first().copied();
        } else if id == ids.rid {
            self.rid = text(value);
        } else if id == ids.repaired_rid {
            self.repaired_rid = text(value);
        } else if id == ids.dependency_descriptor {
            self.dependency_descriptor = Some(value);
        } else if id == ids.playout_delay {
            let bytes = value.first_chunk::<3>();
            self.playout_delay = bytes.map(|bytes| PlayoutDelay::from_bytes(*bytes));
        }
    }

    /// Calls `each` with id and value of every extension that is present and negotiated.
    fn for_each(&self, ids: &ExtensionIds, mut each: impl FnMut(u8, &[u8])) {
        let mut put = |id: Option<u8>, value: Option<&[u8]>| {
            if let (Some(id), Some(value)) = (id, value) {
                each(id, value);
            }
        };
        put(ids.mid, self.mid.map(str::as_bytes));
        put(ids.rid, self.rid.map(str::as_bytes));
        put(ids.repaired_rid, self.repaired_rid.map(str::as_bytes));
        let level = self.audio_level.map(|level| [level.to_byte()]);
        put(ids.audio_level, level.as_ref().map(|b| &b[..]));
        let sequence = self.transport_cc.map(u16::to_be_bytes);
        put(ids.transport_cc, sequence.as_ref().map(|b| &b[..]));
        let time = self.abs_send_time.map(|time| time.0.to_be_bytes());
        put(ids.abs_send_time, time.as_ref().map(|b| &b[1..]));
        let orientation = self.video_orientation.map(|byte| [byte]);
        put(ids.video_orientation, orientation.as_ref().map(|b| &b[..]));
        put(ids.dependency_descriptor, self.dependency_descriptor);
        let playout = self.playout_delay.map(PlayoutDelay::to_bytes);
        put(ids.playout_delay, playout.as_ref().map(|b| &b[..]));
    }

    /// Appends the extension block with its four-byte head, in the one-byte form where all ids and sizes allow it.
    /// Appends nothing and returns false when there is nothing to say.
    pub fn write(&self, ids: &ExtensionIds, out: &mut Vec<u8>) -> bool {
        let mut any = false;
        let mut long = false;
        self.for_each(ids, |id, value| {
            any = true;
            long |= id > 14 || value.is_empty() || value.len() > 16;
        });
        if !any {
            return false;
        }
        let profile = if long {
            TWO_BYTE_PROFILE
        } else {
            ONE_BYTE_PROFILE
        };
        out.extend_from_slice(&profile.to_be_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0; 2]);
        self.for_each(ids, |id, value| {
            if long {
                let size = value.len().min(255);
                out.extend_from_slice(&[id, size as u8]);
                out.extend_from_slice(&value[..size]);
            } else {
                out.push(id << 4 | (value.len() - 1) as u8);
                out.extend_from_slice(value);
            }
        });
        while !(out.len() - length_at - 2).is_multiple_of(4) {
            out.push(0);
        }
        let words = ((out.len() - length_at - 2) / 4) as u16;
        out[length_at..length_at + 2].copy_from_slice(&words.to_be_bytes());
        true
    }
}

/// Writes number and departure of a packet into the header that was written when it had to wait, where it has them.
pub fn stamp(packet: &mut [u8], ids: &ExtensionIds, number: Option<u16>, time: AbsSendTime) {
    let start = packet.as_ptr().addr();
    let Ok(parsed) = super::header::RtpPacket::parse(packet) else {
        return;
    };
    let place = |wanted: Option<u8>, size: usize| {
        let (_, value) = parsed
            .extension
            .elements()
            .find(|(id, value)| Some(*id) == wanted && value.len() == size)?;
        Some(value.as_ptr().addr() - start)
    };
    let (number_at, time_at) = (place(ids.transport_cc, 2), place(ids.abs_send_time, 3));
    if let (Some(at), Some(number)) = (number_at, number) {
        packet[at..at + 2].copy_from_slice(&number.to_be_bytes());
    }
    if let Some(at) = time_at {
        packet[at..at + 3].copy_from_slice(&time.0.to_be_bytes()[1..]);
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// The raw extension block of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtensionBlock<'a> {
    /// The 16 bits "defined by profile".
    pub profile: u16,
    /// The elements, padding included.
    pub data: &'a [u8],
}

impl<'a> ExtensionBlock<'a> {
    /// Id and value of each element; nothing for a profile that is neither form of RFC 8285.
    pub fn elements(self) -> Elements<'a> {
        let form = match self.profile {
            ONE_BYTE_PROFILE => Form::OneByte,
            profile if profile & 0xfff0 == TWO_BYTE_PROFILE => Form::TwoByte,
            _ => {
                return Elements {
                    form: Form::OneByte,
                    rest: &[],
                };
            }
        };
        Elements {
            form,
            rest: self.data,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Form {
    OneByte,
    TwoByte,
}

/// Iterator over the elements of an [`ExtensionBlock`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    form: Form,
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&head, tail) = self.rest.split_first()?;
            let (id, size, tail) = match self.form {
                // RFC 8285, section 4.1.2: a zero byte is padding, in either form.
                _ if head == 0 => {
                    self.rest = tail;
                    continue;
                }
                // Section 4.2: id 15 ends the block.
                Form::OneByte if head >> 4 == 15 => return None,
                Form::OneByte => (head >> 4, usize::from(head & 15) + 1, tail),
                Form::TwoByte => {
                    let (&size, tail) = tail.split_first()?;
                    (head, usize::from(size), tail)
                }
            };
            let (value, tail) = tail.split_at_checked(size)?;
            self.rest = tail;
            return Some((id, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> ExtensionIds {
        ExtensionIds {
            mid: Some(4),
            rid: Some(10),
            repaired_rid: Some(11),
            audio_level: Some(1),
            transport_cc: Some(3),
            abs_send_time: Some(2),
            video_orientation: Some(13),
            dependency_descriptor: Some(12),
            playout_delay: Some(5),
        }
    }

    fn read_back<'a>(written: &'a [u8], ids: &ExtensionIds) -> Extensions<'a> {
        let profile = u16::from_be_bytes([written[0], written[1]]);
        let words = usize::from(u16::from_be_bytes([written[2], written[3]]));
        assert_eq!(written.len(), 4 + words * 4);
        Extensions::parse(
            ExtensionBlock {
                profile,
                data: &written[4..],
            },
            ids,
        )
    }

    #[test]
    fn everything_that_is_written_is_read_back() {
        let descriptor = [7u8; 20];
        for descriptor in [&descriptor[..3], &descriptor[..]] {
            let values = Extensions {
                mid: Some("v1"),
                rid: Some("hi"),
                repaired_rid: Some("lo"),
                audio_level: Some(AudioLevel {
                    dbov: 33,
                    voice: true,
                }),
                transport_cc: Some(0xfffe),
                abs_send_time: Some(AbsSendTime(0x00ab_cdef)),
                video_orientation: Some(3),
                dependency_descriptor: Some(descriptor),
                playout_delay: Some(PlayoutDelay { min: 25, max: 1000 }),
            };
            let mut out = Vec::new();
            assert!(values.write(&ids(), &mut out));
            assert_eq!(read_back(&out, &ids()), values);
        }
    }

    #[test]
    fn a_high_id_takes_the_two_byte_form() {
        let ids = ExtensionIds {
            transport_cc: Some(17),
            ..ExtensionIds::default()
        };
        let values = Extensions {
            transport_cc: Some(5),
            mid: Some("not negotiated"),
            ..Extensions::default()
        };
        let mut out = Vec::new();
        assert!(values.write(&ids, &mut out));
        assert_eq!(out, [0x10, 0, 0, 1, 17, 2, 0, 5]);
        assert_eq!(read_back(&out, &ids).transport_cc, Some(5));
    }

    #[test]
    fn nothing_to_say_writes_nothing() {
        let mut out = Vec::new();
        assert!(!Extensions::default().write(&ids(), &mut out));
        assert!(out.is_empty());
    }

    #[test]
    fn id_fifteen_ends_and_padding_is_skipped() {
        let block = ExtensionBlock {
            profile: ONE_BYTE_PROFILE,
            data: &[0, 0x10, 0x85, 0, 0xf0, 1, 0x10, 9],
        };
        let elements: Vec<_> = block.elements().collect();
        assert_eq!(elements, [(1, &[0x85u8][..])]);
    }

    #[test]
    fn an_absolute_send_time_wraps_after_64_seconds() {
        assert_eq!(AbsSendTime::from_epoch(Duration::from_secs(1)).0, 1 << 18);
        assert_eq!(AbsSendTime::from_epoch(Duration::from_secs(64)).0, 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(profile in any::<u16>(), data in proptest::collection::vec(any::<u8>(), 0..64)) {
            for profile in [profile, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE | profile & 15] {
                Extensions::parse(ExtensionBlock { profile, data: &data }, &ids());
            }
        }
    }
}
