//! What a context remembers of its SSRCs.

use super::replay::Window;

/// SSRCs of which a receiving context keeps the state. Only authenticated packets take a place; when there is none
/// left the one that was heard longest ago is forgotten.
pub const MAX_RECEIVED_SSRCS: usize = 128;

/// 64-bit words of the replay window: 1024 packets of RTP.
const RTP_WINDOW: usize = 16;
/// 256 packets of RTCP.
const RTCP_WINDOW: usize = 4;

/// What a context remembers of one SSRC.
pub(super) struct Stream {
    pub(super) rtp: Window<RTP_WINDOW>,
    pub(super) rtcp: Window<RTCP_WINDOW>,
    used: u64,
}

/// The streams of a context, sorted by SSRC; packets come in runs, so the last one is tried first.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) ssrcs: Vec<u32>,
    streams: Vec<Stream>,
    last: usize,
    clock: u64,
}

impl Streams {
    pub(super) fn find(&self, ssrc: u32) -> Option<usize> {
        if self.ssrcs.get(self.last) == Some(&ssrc) {
            return Some(self.last);
        }
        self.ssrcs.binary_search(&ssrc).ok()
    }

    pub(super) fn at(&self, at: usize) -> &Stream {
        &self.streams[at]
    }

    pub(super) fn touch(&mut self, at: usize) -> &mut Stream {
        self.last = at;
        self.clock += 1;
        let stream = &mut self.streams[at];
        stream.used = self.clock;
        stream
    }

    /// Adds a stream that is not there yet.
    pub(super) fn insert(&mut self, ssrc: u32) -> usize {
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
    pub(super) fn insert_received(&mut self, ssrc: u32) -> usize {
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
