//! The numbers inside payloads and descriptors of one leg: they go on across layers and sources, as those of a single
//! encoder would.

use crate::rtp::params::Codec;
use crate::rtp::{dependency_descriptor, vp8, vp9};

/// Longest dependency descriptor that a header extension holds (RFC 8285, section 4.3).
pub(super) const MAX_DESCRIPTOR: usize = 255;
/// Pictures left out that a late packet may be told from; beyond it its number is wrong, and its picture is lost.
const REMEMBERED: usize = 32;

/// A counter that is moved so that it goes on where another source stopped.
#[derive(Clone, Debug)]
struct Counter {
    mask: u16,
    /// Added to what comes.
    offset: u16,
    /// The next value begins a new source.
    begins: bool,
    /// Highest value that was given.
    last: Option<u16>,
    /// Highest value that came of this source.
    newest: u16,
    /// What was left out of this source last.
    left_out: [u16; REMEMBERED],
    left_out_count: usize,
}

impl Counter {
    const fn new(mask: u16) -> Self {
        Counter {
            mask,
            offset: 0,
            begins: true,
            last: None,
            newest: 0,
            left_out: [0; REMEMBERED],
            left_out_count: 0,
        }
    }

    fn begin(&mut self) {
        self.begins = true;
        self.left_out_count = 0;
    }

    /// The value for one that goes on, in a field of this `mask` at most.
    fn map(&mut self, value: u16, mask: u16) -> u16 {
        let mask = mask & self.mask;
        if self.begins {
            self.begins = false;
            self.newest = value;
            let next = self.last.map_or(value, |last| last.wrapping_add(1));
            self.offset = next.wrapping_sub(value);
        }
        let held = self.left_out_count.min(REMEMBERED);
        let later = if value == self.newest || is_ahead(value, self.newest, mask) {
            self.newest = value;
            0
        } else {
            let out = self.left_out[..held].iter();
            out.filter(|left_out| is_ahead(**left_out, value, mask))
                .count() as u16
        };
        let mapped = value.wrapping_add(self.offset).wrapping_add(later) & mask;
        if self.last.is_none_or(|last| is_ahead(mapped, last, mask)) {
            self.last = Some(mapped);
        }
        mapped
    }

    /// A value that does not go on: the next ones close the gap.
    fn leave_out(&mut self, value: u16, mask: u16) {
        let mask = mask & self.mask;
        if self.begins || !is_ahead(value, self.newest, mask) {
            return;
        }
        self.newest = value;
        self.offset = self.offset.wrapping_sub(1);
        self.left_out[self.left_out_count % REMEMBERED] = value;
        self.left_out_count += 1;
    }
}

fn is_ahead(value: u16, than: u16, mask: u16) -> bool {
    let distance = value.wrapping_sub(than) & mask;
    (1..=mask / 2).contains(&distance)
}

/// Picture ids, indices of temporal layer 0, frame numbers.
#[derive(Clone, Debug)]
pub(super) struct Numbering {
    picture: Counter,
    tl0: Counter,
    frame: Counter,
}

impl Default for Numbering {
    fn default() -> Self {
        Numbering {
            picture: Counter::new(0x7fff),
            tl0: Counter::new(0xff),
            frame: Counter::new(0xffff),
        }
    }
}

impl Numbering {
    /// The next packet begins a new source.
    pub fn begin(&mut self) {
        self.picture.begin();
        self.tl0.begin();
        self.frame.begin();
    }

    /// Renumbers a payload in place.
    pub fn renumber(&mut self, codec: Codec, payload: &mut [u8]) {
        match codec {
            Codec::Vp8 => {
                let Some(descriptor) = vp8::Descriptor::parse(payload) else {
                    return;
                };
                let id = descriptor.picture_id;
                let picture = id.map_or(0, |id| self.picture.map(id.value, id.mask()));
                let tl0 = self.tl0_index(descriptor.tl0_index());
                descriptor.renumber(payload, picture, tl0);
            }
            Codec::Vp9 => {
                let Some(descriptor) = vp9::Descriptor::parse(payload) else {
                    return;
                };
                let mask = |long: bool| if long { 0x7fff } else { 0x7f };
                let id = descriptor.picture_id;
                let picture = id.map_or(0, |(id, long)| self.picture.map(id, mask(long)));
                let tl0 = self.tl0_index(descriptor.tl0_index());
                descriptor.renumber(payload, picture, tl0);
            }
            Codec::H264 | Codec::Av1 => {}
            Codec::Opus | Codec::G722 | Codec::Pcmu | Codec::Pcma => {}
        }
    }

    fn tl0_index(&mut self, index: Option<u8>) -> u8 {
        index.map_or(0, |index| self.tl0.map(u16::from(index), 0xff) as u8)
    }

    /// Renumbers a dependency descriptor in place.
    pub fn renumber_descriptor(&mut self, descriptor: &mut [u8]) {
        if let Some(number) = dependency_descriptor::frame_number(descriptor) {
            let number = self.frame.map(number, 0xffff);
            dependency_descriptor::set_frame_number(descriptor, number);
        }
    }

    /// This payload does not go on. Only receivers of VP8 take a missing picture for a lost one: elsewhere
    /// dependencies are written as differences, which have to stay.
    pub fn leave_out(&mut self, codec: Codec, payload: &[u8]) {
        if codec == Codec::Vp8
            && let Some(id) = vp8::Descriptor::parse(payload).and_then(|d| d.picture_id)
        {
            self.picture.leave_out(id.value, id.mask());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vp8_packet(picture: u16, tl0: u8) -> Vec<u8> {
        let [high, low] = (picture | 0x8000).to_be_bytes();
        vec![0x90, 0xe0, high, low, tl0, 0x00, 0x01]
    }

    fn numbers(numbering: &mut Numbering, picture: u16, tl0: u8) -> (u16, u8) {
        let mut payload = vp8_packet(picture, tl0);
        numbering.renumber(Codec::Vp8, &mut payload);
        let descriptor = vp8::Descriptor::parse(&payload).expect("whole");
        (
            descriptor.picture_id.expect("has one").value,
            descriptor.tl0_index().expect("has one"),
        )
    }

    #[test]
    fn the_first_source_keeps_its_numbers_and_the_next_goes_on_from_them() {
        let mut numbering = Numbering::default();
        numbering.begin();
        assert_eq!(numbers(&mut numbering, 0x7fff, 255), (0x7fff, 255));
        assert_eq!(numbers(&mut numbering, 0, 0), (0, 0));
        numbering.begin();
        assert_eq!(numbers(&mut numbering, 500, 70), (1, 1));
        assert_eq!(
            numbers(&mut numbering, 502, 71),
            (3, 2),
            "lost ones stay lost"
        );
        assert_eq!(
            numbers(&mut numbering, 501, 70),
            (2, 1),
            "late ones have their place"
        );
        numbering.begin();
        assert_eq!(numbers(&mut numbering, 9, 9), (4, 3));
    }

    #[test]
    fn pictures_that_are_left_out_leave_no_gap_even_for_late_packets() {
        let mut numbering = Numbering::default();
        numbering.begin();
        assert_eq!(numbers(&mut numbering, 10, 1).0, 10);
        numbering.leave_out(Codec::Vp8, &vp8_packet(11, 1));
        numbering.leave_out(Codec::Vp8, &vp8_packet(11, 1));
        assert_eq!(numbers(&mut numbering, 13, 1).0, 12);
        assert_eq!(numbers(&mut numbering, 12, 1).0, 11);
        assert_eq!(numbers(&mut numbering, 10, 1).0, 10);
        numbering.leave_out(Codec::Vp8, &vp8_packet(12, 1));
        assert_eq!(
            numbers(&mut numbering, 14, 2).0,
            13,
            "12 was not left out in time"
        );
    }

    #[test]
    fn frame_numbers_of_descriptors_go_on_too() {
        let mut numbering = Numbering::default();
        let mut map = |begins: bool, number: u16| {
            let [high, low] = number.to_be_bytes();
            let mut descriptor = [0xc0, high, low];
            if begins {
                numbering.begin();
            }
            numbering.renumber_descriptor(&mut descriptor);
            u16::from_be_bytes([descriptor[1], descriptor[2]])
        };
        assert_eq!(map(true, 65_535), 65_535);
        assert_eq!(map(true, 3), 0);
        assert_eq!(map(false, 6), 3);
    }
}
