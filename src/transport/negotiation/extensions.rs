//! The RTP header extensions (RFC 8285) that are agreed, and their numbers.

use crate::rtp::params::{ExtensionIds, MediaKind};

/// Ids above it need two-byte headers, which are not agreed (no `a=extmap-allow-mixed`): RFC 8285, section 4.2.
const MAX_ID: u8 = 14;

/// An extension that the packet path knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extension {
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    TransportCc,
    AbsSendTime,
    VideoOrientation,
    DependencyDescriptor,
    PlayoutDelay,
}

use Extension::*;

impl Extension {
    const ALL: [Extension; 9] = [
        Mid,
        Rid,
        RepairedRid,
        AudioLevel,
        TransportCc,
        AbsSendTime,
        VideoOrientation,
        DependencyDescriptor,
        PlayoutDelay,
    ];

    /// Its name in `a=extmap`.
    pub(super) fn uri(self) -> &'static str {
        match self {
            Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            VideoOrientation => "urn:3gpp:video-orientation",
            DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        }
    }

    /// Its number in Chromium, where a microphone and a camera are offered.
    fn standard_id(self) -> u8 {
        match self {
            AudioLevel => 1,
            AbsSendTime => 2,
            TransportCc => 3,
            Mid => 4,
            Rid => 10,
            RepairedRid => 11,
            VideoOrientation => 13,
            DependencyDescriptor => 12,
            PlayoutDelay => 5,
        }
    }

    /// Only ever received: it tells the streams of a simulcast apart.
    pub(super) fn is_one_way(self) -> bool {
        matches!(self, Rid | RepairedRid)
    }

    fn fits(self, kind: MediaKind) -> bool {
        match self {
            Mid | TransportCc | AbsSendTime => true,
            AudioLevel => kind == MediaKind::Audio,
            Rid | RepairedRid | VideoOrientation | DependencyDescriptor | PlayoutDelay => {
                kind == MediaKind::Video
            }
        }
    }
}

/// An `a=extmap` line: the id, and the extension unless it is one that the packet path does not know.
pub(super) type Mapping = (u8, Option<Extension>);

/// Reads the value of `a=extmap`, `<id>["/"<direction>] <uri> [attributes]`. One-way mappings count as unknown, except for
/// what is only ever received (Firefox names those `sendonly`) and the playout delay (`recvonly` there: it is for us to write).
pub(super) fn parse_extmap(value: &str) -> Option<Mapping> {
    let mut fields = value.split_ascii_whitespace();
    let first = fields.next()?;
    let (id, direction) = first.split_once('/').unwrap_or((first, "sendrecv"));
    let id: u8 = id.parse().ok()?;
    let uri = fields.next()?;
    let known = Extension::ALL
        .into_iter()
        .find(|extension| extension.uri() == uri)
        .filter(|extension| {
            let both = direction == "sendrecv";
            both || (direction == "sendonly" && extension.is_one_way())
                || (direction == "recvonly" && *extension == PlayoutDelay)
        })
        .filter(|_| (1..=MAX_ID).contains(&id));
    Some((id, known))
}

/// The extensions of an m-line, as agreed or proposed: ids and extensions are each unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExtensionList(Vec<(u8, Extension)>);

impl ExtensionList {
    /// What is taken of an m-line's mappings; the first of two that contradict each other wins. Stream ids only where
    /// there are `rids`.
    pub(super) fn accepted(kind: MediaKind, mappings: &[Mapping], rids: bool) -> Self {
        let mut list = Vec::new();
        for &(id, extension) in mappings {
            let Some(extension) = extension else { continue };
            let taken = list.iter().any(|&(i, e)| i == id || e == extension);
            let wanted = extension.fits(kind) && (rids || !extension.is_one_way());
            if wanted && !taken {
                list.push((id, extension));
            }
        }
        ExtensionList(list)
    }

    /// Those of them that the other side's description has too, with the other side's numbers.
    pub(super) fn confirmed(&self, kind: MediaKind, mappings: &[Mapping]) -> Self {
        let mut list = Self::accepted(kind, mappings, true);
        list.0
            .retain(|(_, extension)| self.0.iter().any(|(_, ours)| ours == extension));
        list
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, Extension)> + '_ {
        self.0.iter().copied()
    }

    /// In the packet path's form.
    pub(super) fn ids(&self) -> ExtensionIds {
        let id = |wanted| self.iter().find(|&(_, e)| e == wanted).map(|(id, _)| id);
        ExtensionIds {
            mid: id(Mid),
            rid: id(Rid),
            repaired_rid: id(RepairedRid),
            audio_level: id(AudioLevel),
            transport_cc: id(TransportCc),
            abs_send_time: id(AbsSendTime),
            video_orientation: id(VideoOrientation),
            dependency_descriptor: id(DependencyDescriptor),
            playout_delay: id(PlayoutDelay),
        }
    }
}

/// The numbers in use on one leg. Under BUNDLE they are the same on all m-lines (RFC 9143, section 9.2).
#[derive(Clone, Debug, Default)]
pub(super) struct ExtensionNumbers {
    /// Index: the id. `None`: free.
    used: [Option<Mapping>; MAX_ID as usize + 1],
}

impl ExtensionNumbers {
    /// The client uses these.
    pub(super) fn learn(&mut self, mappings: &[Mapping]) {
        for &mapping in mappings {
            if let Some(slot) = self.used.get_mut(usize::from(mapping.0)) {
                *slot = Some(mapping);
            }
        }
    }

    /// The extensions of a new m-line of ours. The dependency descriptor only if the client brought it up.
    pub(super) fn for_offer(&mut self, kind: MediaKind) -> ExtensionList {
        let mut list = Vec::new();
        for extension in Extension::ALL {
            if !extension.fits(kind) || extension.is_one_way() {
                continue;
            }
            let id = match self.known(extension) {
                Some(id) => Some(id),
                None if extension == DependencyDescriptor => None,
                None => self.allocate(extension),
            };
            list.extend(id.map(|id| (id, extension)));
        }
        ExtensionList(list)
    }

    fn known(&self, extension: Extension) -> Option<u8> {
        let mut used = self.used.iter().flatten();
        used.find(|(_, e)| *e == Some(extension)).map(|(id, _)| *id)
    }

    fn allocate(&mut self, extension: Extension) -> Option<u8> {
        // As Chromium itself counts: it refuses an offer whose numbers collide with those of an offer of its own,
        // even of one that it is about to roll back.
        let id = std::iter::once(extension.standard_id())
            .chain((1..=MAX_ID).rev())
            .find(|id| self.used[usize::from(*id)].is_none())?;
        self.used[usize::from(id)] = Some((id, Some(extension)));
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extmap_line_is_read_with_and_without_direction_and_attributes() {
        assert_eq!(
            parse_extmap("4 urn:ietf:params:rtp-hdrext:sdes:mid"),
            Some((4, Some(Mid)))
        );
        assert_eq!(
            parse_extmap("1/sendrecv urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on"),
            Some((1, Some(AudioLevel)))
        );
        assert_eq!(
            parse_extmap("2/recvonly urn:3gpp:video-orientation"),
            Some((2, None))
        );
        assert_eq!(
            parse_extmap("9/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
            Some((9, Some(Rid)))
        );
        assert_eq!(
            parse_extmap("6/recvonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"),
            Some((6, Some(PlayoutDelay)))
        );
        assert_eq!(
            parse_extmap("15 urn:3gpp:video-orientation"),
            Some((15, None))
        );
        assert_eq!(parse_extmap("x urn:3gpp:video-orientation"), None);
        assert_eq!(parse_extmap("7"), None);
    }

    #[test]
    fn our_numbers_are_those_of_the_client_and_never_those_of_its_other_extensions() {
        let mut numbers = ExtensionNumbers::default();
        numbers.learn(&[(3, Some(Mid)), (1, None), (14, None)]);
        let list: Vec<_> = numbers.for_offer(MediaKind::Audio).iter().collect();
        assert_eq!(
            list,
            [
                (3, Mid),
                (13, AudioLevel),
                (12, TransportCc),
                (2, AbsSendTime)
            ]
        );
        let video = numbers.for_offer(MediaKind::Video).ids();
        assert_eq!((video.mid, video.transport_cc), (Some(3), Some(12)));
    }

    #[test]
    fn an_id_that_is_mapped_twice_keeps_its_first_meaning() {
        let list = ExtensionList::accepted(
            MediaKind::Video,
            &[(3, Some(Mid)), (3, Some(TransportCc)), (4, Some(Mid))],
            false,
        );
        assert_eq!(list.iter().collect::<Vec<_>>(), [(3, Mid)]);
    }
}
