//! Who this server is towards its peers, and how a peer proves who it is: certificates and their fingerprints.

use super::TransportError;
use ring::digest::{self, SHA256, SHA384, SHA512};
use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::crypto::Certificate;
use std::sync::Arc;

/// The certificate of this process. One for all transports: making one per peer costs a key pair each, and the
/// server has no reason to be unlinkable.
pub struct Identity {
    pub(super) provider: Arc<dyn RTCCryptoProvider>,
    pub(super) certificate: Certificate,
    fingerprint: String,
}

impl Identity {
    /// A fresh self-signed ECDSA P-256 certificate.
    pub fn new() -> Result<Self, TransportError> {
        let provider = rtc::crypto::default_provider()
            .map_err(|error| TransportError::Setup(error.to_string()))?;
        let names = vec!["talksy-unit".to_owned()];
        let certificate = Certificate::generate_self_signed(names, provider.crypto())
            .map_err(|error| TransportError::Setup(error.to_string()))?;
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| TransportError::Setup("no certificate was made".to_owned()))?;
        let fingerprint = colon_hex(digest::digest(&SHA256, der).as_ref());
        Ok(Identity {
            provider,
            certificate,
            fingerprint,
        })
    }

    /// SHA-256 of the certificate, as `a=fingerprint:sha-256` has it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// One `a=fingerprint` line of a peer's description (RFC 8122, section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, in any case.
    pub algorithm: String,
    /// Hexadecimal bytes, separated by colons.
    pub value: String,
}

/// Whether a certificate (DER) is one of those that the description named.
///
/// The strongest algorithm that is named and known decides: a weaker line must not vouch for a certificate that
/// the stronger one contradicts (RFC 8122, section 5).
pub(super) fn is_announced(fingerprints: &[Fingerprint], certificate: &[u8]) -> bool {
    let known = [
        ("sha-512", &SHA512),
        ("sha-384", &SHA384),
        ("sha-256", &SHA256),
    ];
    for (name, algorithm) in known {
        let mut named = fingerprints
            .iter()
            .filter(|line| line.algorithm.trim().eq_ignore_ascii_case(name))
            .peekable();
        if named.peek().is_some() {
            let value = colon_hex(digest::digest(algorithm, certificate).as_ref());
            return named.any(|line| line.value.trim().eq_ignore_ascii_case(&value));
        }
    }
    false
}

/// `AB:CD:…`
fn colon_hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(algorithm: &str, digest: &[u8]) -> Fingerprint {
        Fingerprint {
            algorithm: algorithm.to_owned(),
            value: colon_hex(digest).to_lowercase(),
        }
    }

    #[test]
    fn any_case_and_any_known_algorithm_will_do() {
        for (name, algorithm) in [
            ("SHA-256", &SHA256),
            ("sha-384", &SHA384),
            ("Sha-512", &SHA512),
        ] {
            let lines = [line(name, digest::digest(algorithm, b"der").as_ref())];
            assert!(is_announced(&lines, b"der"), "{name}");
            assert!(!is_announced(&lines, b"other"), "{name}");
        }
    }

    #[test]
    fn the_strongest_algorithm_decides() {
        let right = line("sha-256", digest::digest(&SHA256, b"der").as_ref());
        let wrong = line("sha-512", digest::digest(&SHA512, b"other").as_ref());
        assert!(!is_announced(&[right.clone(), wrong], b"der"));
        let another = line("sha-256", digest::digest(&SHA256, b"other").as_ref());
        assert!(is_announced(&[another, right], b"der"));
    }

    #[test]
    fn unknown_algorithms_vouch_for_nothing() {
        assert!(!is_announced(&[line("sha-1", &[1; 20])], b"der"));
        assert!(!is_announced(&[], b"der"));
    }

    #[test]
    fn the_own_fingerprint_is_that_of_the_certificate() {
        let identity = Identity::new().expect("a certificate");
        let own = Fingerprint {
            algorithm: "sha-256".to_owned(),
            value: identity.fingerprint().to_owned(),
        };
        assert!(is_announced(&[own], &identity.certificate.certificate[0]));
    }
}
