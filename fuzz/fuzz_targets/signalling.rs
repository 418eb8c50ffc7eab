//! Signalling text, and the query of the socket.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talksy_unit::signalling::protocol::ClientMessage;
use talksy_unit::signalling::query::{JoinQuery, room_id};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = ClientMessage::parse(text) {
        assert!(
            error.to_string().len() < 1000,
            "an error is a sentence: {error}"
        );
    }
    let pairs: Vec<(String, String)> = text
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let _ = room_id(&pairs);
    let _ = JoinQuery::parse(&pairs);
});
