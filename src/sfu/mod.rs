//! Selective forwarding, pure: what a peer sends becomes packets for its subscribers.
