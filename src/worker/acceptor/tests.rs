use super::*;
use crate::worker::WorkerHandle;
use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::time::Instant;

fn request(ufrag: &str) -> Vec<u8> {
    let name = format!("{ufrag}:them");
    let padded = name.len().next_multiple_of(4);
    let mut stun = vec![0, 1, 0, 4 + padded as u8, 0x21, 0x12, 0xa4, 0x42];
    stun.extend([7; 12]);
    stun.extend([0, 6, 0, name.len() as u8]);
    stun.extend(name.as_bytes());
    stun.resize(24 + padded, 0);
    let mut framed = (stun.len() as u16).to_be_bytes().to_vec();
    framed.extend(stun);
    framed
}

struct Bench {
    acceptor: Acceptor,
    port: u16,
    commands: Vec<crossbeam_channel::Receiver<Command>>,
}

fn bench() -> Bench {
    let listeners = listen(0).unwrap();
    let port = listeners[0].local_addr().unwrap().port();
    let directory = Directory::default();
    directory.insert("onOne", 1);
    directory.insert("gone!", 0);
    directory.remove("gone!");
    let (handles, commands) = (0..2)
        .map(|_| {
            let (sender, commands) = crossbeam_channel::bounded(8);
            (WorkerHandle::new(sender, Arc::new(|| ())), commands)
        })
        .unzip();
    Bench {
        acceptor: Acceptor::start(listeners, handles, directory).unwrap(),
        port,
        commands,
    }
}

fn connect(bench: &Bench) -> Std {
    let stream = Std::connect(("127.0.0.1", bench.port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn is_closed(mut stream: Std) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

#[test]
fn a_connection_goes_to_the_worker_of_the_peer_that_it_names() {
    let bench = bench();
    let mut stream = connect(&bench);
    let mut bytes = request("onOne");
    bytes.extend([0, 3, 1, 2, 3]);
    // In pieces, as networks cut it.
    stream.write_all(&bytes[..1]).unwrap();
    stream.flush().unwrap();
    stream.write_all(&bytes[1..]).unwrap();
    let command = bench.commands[1].recv_timeout(Duration::from_secs(5));
    let Ok(Command::Connect(incoming)) = command else {
        panic!("{command:?}");
    };
    assert_eq!(incoming.ufrag, "onOne");
    assert_eq!(incoming.remote, stream.local_addr().unwrap());
    assert!(bytes.starts_with(&incoming.read) && incoming.read.len() >= request("onOne").len());
    assert!(bench.commands[0].is_empty());
}

#[test]
fn whoever_names_nobody_is_closed_and_counted() {
    let bench = bench();
    for bytes in [
        request("nobody"),
        request("gone!"),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0, 4, 1, 2, 3, 4],
    ] {
        let mut stream = connect(&bench);
        stream.write_all(&bytes).unwrap();
        assert!(is_closed(stream), "{bytes:?}");
    }
    assert_eq!(bench.acceptor.counters.drops()[1], ("unidentified", 4));
}

#[test]
fn an_address_has_a_limited_number_of_connections_that_say_nothing() {
    let bench = bench();
    let silent: Vec<Std> = (0..MAX_UNIDENTIFIED_PER_ADDRESS)
        .map(|_| connect(&bench))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    let accepted = || bench.acceptor.counters.accepted.load(Ordering::Relaxed);
    while accepted() < silent.len() as u64 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(is_closed(connect(&bench)), "one too many");
    assert_eq!(bench.acceptor.counters.drops()[0], ("too_many", 1));
    drop(silent);
}

#[test]
fn the_port_is_free_when_the_acceptor_is_gone() {
    let bench = bench();
    drop(bench.acceptor);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Std::connect(("127.0.0.1", bench.port)).is_ok() {
        assert!(Instant::now() < deadline);
    }
}
