//! The little of STUN (RFC 8489) that has to be read outside of the ICE agent: to whom a request belongs, and
//! what it asks for. Nothing here is authenticated.

/// Bytes of a STUN header.
const HEADER: usize = 20;
/// RFC 8489, section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;
/// RFC 8445, section 16.1.
const USE_CANDIDATE: u16 = 0x0025;
const ICE_CONTROLLED: u16 = 0x8029;

/// What a binding message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Request,
    Success,
    Other,
}

/// A STUN message whose length and cookie are right.
#[derive(Clone, Copy)]
pub(super) struct Stun<'a> {
    bytes: &'a [u8],
}

impl<'a> Stun<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let whole = header[0] < 4 && header[4..8] == MAGIC_COOKIE && bytes.len() == HEADER + len;
        (whole && len.is_multiple_of(4)).then_some(Stun { bytes })
    }

    pub(super) fn class(self) -> Class {
        match (self.bytes[0], self.bytes[1]) {
            (0x00, 0x01) => Class::Request,
            (0x01, 0x01) => Class::Success,
            _ => Class::Other,
        }
    }

    pub(super) fn nominates(self) -> bool {
        self.attribute(USE_CANDIDATE).is_some()
    }

    /// Whether the sender says that it is the controlled side, which is this server's place.
    pub(super) fn claims_controlled(self) -> bool {
        self.attribute(ICE_CONTROLLED).is_some()
    }

    /// The username fragment of the receiver, which stands first (RFC 8445, section 7.2.2).
    fn ufrag(self) -> Option<&'a str> {
        let username = std::str::from_utf8(self.attribute(USERNAME)?).ok()?;
        username.split_once(':').map(|(ours, _)| ours)
    }

    fn attribute(self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = &self.bytes[HEADER..];
        while let Some((header, body)) = rest.split_first_chunk::<4>() {
            let kind = u16::from_be_bytes([header[0], header[1]]);
            let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if kind == wanted {
                return body.get(..len);
            }
            rest = body.get(len.next_multiple_of(4)..)?;
        }
        None
    }
}

/// The local username fragment that a STUN request names: tells the transports behind one socket apart when an
/// address is new. Not authenticated: the transport's agent does that.
pub fn requested_ufrag(datagram: &[u8]) -> Option<&str> {
    let stun = Stun::parse(datagram)?;
    match stun.class() {
        Class::Request => stun.ufrag(),
        Class::Success | Class::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = vec![0, 1];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(MAGIC_COOKIE);
        message.extend([9; 12]);
        message.extend(body);
        message
    }

    #[test]
    fn the_ufrag_of_a_request_is_read_behind_other_attributes() {
        let message = request(&[(0x8022, b"abcde"), (USERNAME, b"ours:theirs")]);
        assert_eq!(requested_ufrag(&message), Some("ours"));
        let mut response = message.clone();
        response[0] = 1;
        assert_eq!(requested_ufrag(&response), None);
    }

    #[test]
    fn flags_are_found_wherever_they_stand() {
        let message = request(&[(USERNAME, b"a:b"), (USE_CANDIDATE, b"")]);
        let stun = Stun::parse(&message).expect("valid");
        assert!(stun.nominates());
        assert!(!stun.claims_controlled());
    }

    #[test]
    fn a_wrong_length_or_cookie_is_not_stun() {
        let message = request(&[(USERNAME, b"a:b")]);
        assert!(Stun::parse(&message[..message.len() - 1]).is_none());
        let mut other = message;
        other[5] ^= 1;
        assert!(Stun::parse(&other).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_panic(kind in any::<u16>(), value in prop::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut message = request(&[(kind, &value), (USERNAME, b"a:b")]);
            let at = at.index(message.len());
            message[at] = byte;
            let _ = requested_ufrag(&message);
            if let Some(stun) = Stun::parse(&message) {
                let _ = (stun.nominates(), stun.claims_controlled());
            }
        }
    }
}
