//! What goes into a transport and comes out of it.

use super::channel::MAX_MESSAGE_SIZE;
use super::drops::DropReason;
use super::identity::Fingerprint;
use super::srtp::SrtpKeys;
use bytes::BytesMut;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a transport waits for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportConfig {
    /// From the peer's description to a selected pair.
    pub connect_timeout: Duration,
    /// From the selected pair to the keys.
    pub handshake_timeout: Duration,
    /// Silence until [`TransportEvent::IceDisconnected`]: more than one consent check of ours (3 s) unanswered, or two of
    /// the peer's (2.5 s in Chromium) lost.
    pub disconnected_after: Duration,
    /// Silence until the end (RFC 7675, section 5.1, has 30 s).
    pub closed_after: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(20),
            disconnected_after: Duration::from_secs(5),
            closed_after: Duration::from_secs(30),
        }
    }
}

/// `a=ice-ufrag` and `a=ice-pwd`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct IceCredentials {
    /// The username fragment.
    pub ufrag: String,
    /// The password.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

/// What the peer's description says about its transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteParams {
    /// `a=ice-ufrag`
    pub ufrag: String,
    /// `a=ice-pwd`
    pub pwd: String,
    /// Every `a=fingerprint`.
    pub fingerprints: Vec<Fingerprint>,
}

/// What a description changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteChange {
    /// It was the first one.
    New,
    /// Nothing.
    Same,
    /// An ICE restart: the answer has to have the new [`super::Transport::local_credentials`].
    Restarted,
}

/// What a transport refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The stack below could not be set up.
    #[error("the transport could not be set up: {0}")]
    Setup(String),
    /// The ICE agent refused something.
    #[error("ICE failed: {0}")]
    Ice(String),
    /// Credentials that are too short or too long (RFC 8839, section 5.4).
    #[error("the description needs an ice-ufrag of 4 and an ice-pwd of 22 to 256 characters")]
    BadCredentials,
    /// Not a candidate line.
    #[error("the candidate cannot be read")]
    BadCandidate,
    /// One candidate more than are taken.
    #[error("too many candidates: {0} are taken, and the rest is learned from the checks")]
    TooManyCandidates(usize),
    /// A description without fingerprint.
    #[error("the description has no fingerprint")]
    NoFingerprint,
    /// The fingerprints changed while the association lives.
    #[error("the description belongs to another DTLS association: a new transport is needed")]
    OtherPeer,
    /// A datagram was dropped, and counted.
    #[error("dropped: {0:?}")]
    Dropped(DropReason),
    /// No open data channel has that label.
    #[error("the data channel is not open")]
    ChannelNotOpen,
    /// The peer does not acknowledge: too much waits already.
    #[error("the data channel is congested")]
    ChannelFull,
    /// Longer than [`MAX_MESSAGE_SIZE`].
    #[error("the message is longer than {MAX_MESSAGE_SIZE} bytes")]
    MessageTooLong,
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
}

/// Why a transport ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// No pair was selected in time.
    #[error("no path to the client was found: check the advertised address and the firewall")]
    ConnectTimeout,
    /// DTLS did not complete in time.
    #[error("the DTLS handshake was not completed in time")]
    HandshakeTimeout,
    /// DTLS failed.
    #[error("the DTLS handshake failed: {0}")]
    HandshakeFailed(String),
    /// The certificate is not the announced one.
    #[error("the client's certificate does not have the fingerprint of its description")]
    FingerprintMismatch,
    /// The client offers no profile that this server has.
    #[error("the client offers no usable SRTP profile")]
    NoSrtpProfile,
    /// The peer said goodbye.
    #[error("the client closed its connection")]
    PeerClosed,
    /// Nothing was heard for too long.
    #[error("the client was not heard any more")]
    Silence,
    /// The stack below panicked on what the client sent.
    #[error("the transport stack failed on a message of the client")]
    Panicked,
}

/// What happened, in order.
#[derive(Debug)]
pub enum TransportEvent {
    /// The path goes to this address now.
    Selected(SocketAddr),
    /// The peer is authenticated: media can be opened and sealed.
    Keyed(SrtpKeys),
    /// A data channel is open.
    ChannelOpen {
        /// Its label.
        label: String,
    },
    /// Text on a data channel.
    ChannelText {
        /// The channel's label.
        label: String,
        /// At most [`MAX_MESSAGE_SIZE`] bytes.
        text: String,
    },
    /// Bytes on a data channel.
    ChannelBinary {
        /// The channel's label.
        label: String,
        /// At most [`MAX_MESSAGE_SIZE`] bytes.
        data: BytesMut,
    },
    /// A data channel was closed by the peer.
    ChannelClosed {
        /// Its label.
        label: String,
    },
    /// Nothing was heard for [`TransportConfig::disconnected_after`]. May recover.
    IceDisconnected,
    /// The peer was heard again.
    IceReconnected,
    /// The end. Nothing follows but what is left to send.
    Closed(CloseReason),
}
