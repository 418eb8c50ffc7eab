//! How the operator says what the mixed sound is encoded with: `bitrate=32,complexity=6,fec=5,dtx=on`.

use crate::mcu::codec::opus::OpusSettings;

/// A list of encoder settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpusListError {
    /// Not of the form, or a name that there is not.
    #[error(
        "{option}: {entry:?} is not understood: name=value with bitrate, stereo, complexity, fec or dtx, comma-separated"
    )]
    Entry {
        /// The option.
        option: &'static str,
        /// As it was given.
        entry: String,
    },
    /// A number outside of what makes sense, or none.
    #[error("{option}: {name} has to be between {min} and {max}, not {value:?}")]
    Number {
        /// The option.
        option: &'static str,
        /// Which setting.
        name: &'static str,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
        /// As it was given.
        value: String,
    },
    /// Neither on nor off.
    #[error("{option}: dtx is on or off, not {value:?}")]
    Switch {
        /// The option.
        option: &'static str,
        /// As it was given.
        value: String,
    },
}

/// What `list` says, over `settings`.
///
/// # Errors
/// See [`OpusListError`]: it names the option and what is wrong.
pub fn settings(
    option: &'static str,
    list: &str,
    mut settings: OpusSettings,
) -> Result<OpusSettings, OpusListError> {
    let entries = list.split(',').map(str::trim);
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let unknown = || OpusListError::Entry {
            option,
            entry: entry.to_owned(),
        };
        let (name, value) = entry.split_once('=').ok_or_else(unknown)?;
        let value = value.trim();
        let number = |name, min, max| number(option, name, value, min, max);
        match name.trim() {
            // RFC 6716, section 2.1.1.
            "bitrate" => settings.bitrate = number("bitrate", 6, 510)? * 1000,
            "stereo" => settings.stereo_bitrate = number("stereo", 6, 510)? * 1000,
            "complexity" => settings.complexity = number("complexity", 0, 10)? as u8,
            "fec" => {
                settings.expected_loss = number("fec", 0, 100)? as u8;
                settings.fec = settings.expected_loss > 0;
            }
            "dtx" => {
                settings.dtx = match value {
                    "on" => true,
                    "off" => false,
                    _ => {
                        let value = value.to_owned();
                        return Err(OpusListError::Switch { option, value });
                    }
                }
            }
            _ => return Err(unknown()),
        }
    }
    Ok(settings)
}

fn number(
    option: &'static str,
    name: &'static str,
    value: &str,
    min: u32,
    max: u32,
) -> Result<u32, OpusListError> {
    let parsed = value.parse().ok();
    let in_range = parsed.filter(|number| (min..=max).contains(number));
    in_range.ok_or_else(|| OpusListError::Number {
        option,
        name,
        min,
        max,
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<OpusSettings, String> {
        settings("--mix-opus", list, OpusSettings::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        let default = OpusSettings::default();
        assert_eq!(read(""), Ok(default));
        assert_eq!(
            read("complexity=9, dtx=off"),
            Ok(OpusSettings {
                complexity: 9,
                dtx: false,
                ..default
            })
        );
        assert_eq!(
            read("bitrate=24,stereo=96,fec=0,dtx=on"),
            Ok(OpusSettings {
                bitrate: 24_000,
                stereo_bitrate: 96_000,
                fec: false,
                expected_loss: 0,
                ..default
            })
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_option() {
        for (list, words) in [
            ("loud", vec!["\"loud\"", "bitrate"]),
            ("rate=32", vec!["\"rate=32\""]),
            ("bitrate=5", vec!["bitrate", "6", "510", "\"5\""]),
            ("bitrate=many", vec!["bitrate", "\"many\""]),
            ("complexity=11", vec!["complexity", "10"]),
            ("complexity=-1", vec!["complexity", "\"-1\""]),
            ("fec=101", vec!["fec", "100"]),
            ("dtx=maybe", vec!["on or off", "\"maybe\""]),
        ] {
            let error = read(list).expect_err(list);
            assert!(error.starts_with("--mix-opus: "), "{error}");
            for word in words {
                assert!(error.contains(word), "{word} in {error}");
            }
        }
    }
}
