//! ICE, DTLS, SRTP and data channels of one peer, and its offer/answer. The only folder that names webrtc-rs.

pub mod negotiation;
