//! The transport as offer and answer see it.

use std::time::Instant;

use crate::transport::negotiation::{LocalTransport, RemoteTransport, TransportPort};
use crate::transport::{Fingerprint, IceCredentials, RemoteParams, Transport, TransportError};

/// One peer's transport, for the time of one description.
pub(super) struct Port<'a> {
    pub(super) transport: &'a mut Transport,
    /// Candidate lines.
    pub(super) advertised: &'a [String],
    /// The description was that of another connection.
    pub(super) other_connection: bool,
}

impl TransportPort for Port<'_> {
    fn apply_remote(&mut self, now: Instant, remote: &RemoteTransport) -> Result<(), String> {
        let fingerprints = remote
            .fingerprints
            .iter()
            .map(|(algorithm, value)| Fingerprint {
                algorithm: algorithm.clone(),
                value: value.clone(),
            });
        let params = RemoteParams {
            ufrag: remote.ufrag.clone(),
            pwd: remote.pwd.clone(),
            fingerprints: fingerprints.collect(),
        };
        self.transport.set_remote(now, &params).map_err(|error| {
            self.other_connection = error == TransportError::OtherPeer;
            error.to_string()
        })?;
        for candidate in &remote.candidates {
            // A candidate that this server cannot use is no reason to refuse the description.
            let _ = self.transport.add_remote_candidate(candidate);
        }
        Ok(())
    }

    fn local(&self) -> LocalTransport {
        self.with_credentials(self.transport.local_credentials())
    }

    fn local_for_offer(&self) -> LocalTransport {
        self.with_credentials(self.transport.offered_credentials())
    }
}

impl Port<'_> {
    fn with_credentials(&self, credentials: IceCredentials) -> LocalTransport {
        LocalTransport {
            ufrag: credentials.ufrag,
            pwd: credentials.pwd,
            fingerprint: self.transport.fingerprint().to_string(),
            candidates: self.advertised.to_vec(),
        }
    }
}
