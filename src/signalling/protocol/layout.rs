//! The `layout` message, which is also the body of `POST /rooms/{id}/layout`.

use serde::Deserialize;
use serde_json::Value;

use super::ProtocolError;
use super::client::{bad, read as read_as};
use crate::room::LayoutRequest;
use crate::worker::LayoutKind;

const KINDS: [(&str, LayoutKind); 4] = [
    ("grid", LayoutKind::Grid),
    ("speaker", LayoutKind::Speaker),
    ("pinned", LayoutKind::Pinned),
    ("screen", LayoutKind::Screen),
];

/// The wire's name of a kind.
pub fn layout_name(kind: LayoutKind) -> &'static str {
    let named = KINDS.iter().find(|(_, known)| *known == kind);
    named.map_or("grid", |(name, _)| name)
}

/// Reads `{kind, pinned?}`.
///
/// # Errors
/// Another shape, or an unknown kind.
pub fn read(data: Value) -> Result<LayoutRequest, ProtocolError> {
    #[derive(Deserialize)]
    struct Raw {
        kind: String,
        #[serde(default)]
        pinned: Option<String>,
    }
    let Raw { kind, pinned } = read_as("layout", data)?;
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    let (_, kind) =
        known.ok_or_else(|| bad("layout", "a layout is grid, speaker, pinned or screen"))?;
    Ok(LayoutRequest {
        kind: *kind,
        pinned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_has_a_name_that_is_read_again() {
        for (name, kind) in KINDS {
            assert_eq!(layout_name(kind), name);
            assert_eq!(
                read(json!({ "kind": name })).map(|wish| wish.kind),
                Ok(kind)
            );
        }
    }
}
