//! What one room's mix has done so far.

/// Counters since the mix began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioCounters {
    /// Ticks in which something was mixed.
    pub ticks: u64,
    /// Ticks that a stall of the machine has cost.
    pub ticks_given_up: u64,
    /// Packets decoded to be heard.
    pub decodes: u64,
    /// Packets decoded for a decoder that wakes up.
    pub pre_roll: u64,
    /// Frames encoded and sent.
    pub encodes: u64,
    /// Frames encoded and thrown away, so that a new encoder has a past.
    pub primes: u64,
    /// Frames of silence sent in place of encoding.
    pub dtx_frames: u64,
    /// Times that sound was made up for what was lost, late or at an end.
    pub plc: u64,
    /// Lost packets whose successor was there to recover them from.
    pub fec: u64,
    /// Samples left out to shorten a delay.
    pub shortened: u64,
    /// Times that a source was too far behind for that, and jumped.
    pub restarts: u64,
    /// Packets that libopus refused although they looked right.
    pub undecodable: u64,
    /// Encodings that libopus refused.
    pub unencodable: u64,
    /// Packets that were not taken.
    pub dropped: AudioDrops,
}

/// Packets that were not taken, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioDrops {
    /// Of no source of this mix.
    pub unknown_source: u64,
    /// Of a muted source.
    pub muted: u64,
    /// While nobody listened.
    pub unheard: u64,
    /// Not Opus.
    pub malformed: u64,
    /// Of 5.1 or more channels, which nobody is offered.
    pub surround: u64,
    /// Of a time that has its sound.
    pub overlapping: u64,
    /// After their time.
    pub late: u64,
    /// The second time.
    pub duplicate: u64,
    /// The jitter buffer was full: the oldest went.
    pub overflow: u64,
    /// Too old after a pause.
    pub stale: u64,
}

/// Reasons of [`AudioDrops`].
pub const AUDIO_DROPS: usize = 12;

impl AudioCounters {
    /// What was not heard, with names.
    pub fn drops(&self) -> [(&'static str, u64); AUDIO_DROPS] {
        let dropped = &self.dropped;
        [
            ("unknown_source", dropped.unknown_source),
            ("muted", dropped.muted),
            ("unheard", dropped.unheard),
            ("malformed", dropped.malformed),
            ("surround", dropped.surround),
            ("overlapping", dropped.overlapping),
            ("late", dropped.late),
            ("duplicate", dropped.duplicate),
            ("overflow", dropped.overflow),
            ("stale", dropped.stale),
            ("undecodable", self.undecodable),
            ("unencodable", self.unencodable),
        ]
    }
}
