//! The client's reports over the data channel `internal` (JSON text).

use serde::Deserialize;

/// A report that the room makes use of.
#[derive(Clone, Debug, PartialEq)]
pub enum ChannelReport {
    /// The client's outgoing side, once a second.
    Outgoing {
        /// Bit/s that its estimator allows.
        available_bps: u64,
        /// `qualityLimitationReason` of WebRTC stats.
        limitation: String,
    },
    /// A video element of the client changed its size; 0x0 is off screen.
    VideoSize {
        /// Which track it shows.
        track_id: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}

/// Text on the data channel that is not a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the data channel message is not understood: {0}")]
pub struct ChannelError(String);

/// Longest reason that is kept: those of WebRTC stats have at most nine letters.
const MAX_LIMITATION: usize = 32;

impl ChannelReport {
    /// Reads one message.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        let raw: Raw = serde_json::from_str(text).map_err(|e| ChannelError(e.to_string()))?;
        Ok(match raw {
            Raw::Stats(stats) => ChannelReport::Outgoing {
                // A float-to-integer cast saturates: NaN and negative values become 0.
                available_bps: stats.available_outgoing_bitrate.unwrap_or(0.0) as u64,
                limitation: stats
                    .quality_limitation_reason
                    .unwrap_or_default()
                    .chars()
                    .filter(|c| c.is_ascii_graphic())
                    .take(MAX_LIMITATION)
                    .collect(),
            },
            Raw::VideoSize(size) => ChannelReport::VideoSize {
                track_id: size.track_id,
                width: size.width as u32,
                height: size.height as u32,
            },
        })
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Raw {
    Stats(RawStats),
    VideoSize(RawSize),
}

#[derive(Deserialize)]
struct RawStats {
    available_outgoing_bitrate: Option<f64>,
    quality_limitation_reason: Option<String>,
}

#[derive(Deserialize)]
struct RawSize {
    track_id: String,
    width: f64,
    height: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_and_odd_numbers_saturate() {
        let text = r#"{"type":"stats","data":{"available_outgoing_bitrate":-3.5,"quality_limitation_reason":"cpu\n"}}"#;
        assert_eq!(
            ChannelReport::parse(text),
            Ok(ChannelReport::Outgoing {
                available_bps: 0,
                limitation: "cpu".into()
            })
        );
        let text = r#"{"type":"video_size","data":{"track_id":"t","width":640.5,"height":1e99}}"#;
        assert_eq!(
            ChannelReport::parse(text),
            Ok(ChannelReport::VideoSize {
                track_id: "t".into(),
                width: 640,
                height: u32::MAX
            })
        );
    }

    #[test]
    fn anything_else_is_an_error() {
        for text in [
            "",
            "1",
            "{}",
            r#"{"type":"stats"}"#,
            r#"{"type":"x","data":{}}"#,
        ] {
            assert!(ChannelReport::parse(text).is_err(), "{text}");
        }
    }
}
