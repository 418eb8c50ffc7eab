use super::*;
use crate::worker::acceptor::Incoming;
use mio::Poll;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

struct Bench {
    streams: Streams,
    id: StreamId,
    far: TcpStream,
    _poll: Poll,
}

fn bench() -> Bench {
    let poll = Poll::new().unwrap();
    let mut streams = Streams::new(poll.registry().try_clone().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (io, remote) = listener.accept().unwrap();
    let permits = Arc::new(tokio::sync::Semaphore::new(1));
    let incoming = Incoming {
        io,
        remote,
        ufrag: "abcd".into(),
        read: Vec::new(),
        permit: permits.try_acquire_owned().unwrap(),
    };
    let id = streams.open(Instant::now(), 3, incoming).unwrap();
    Bench {
        streams,
        id,
        far,
        _poll: poll,
    }
}

/// Reads until the stream has `count` whole datagrams.
fn received(bench: &mut Bench, count: usize) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut found = Vec::new();
    while found.len() < count && Instant::now() < deadline {
        bench.streams.read(Instant::now(), bench.id);
        let input = bench.streams.take_input(bench.id);
        let mut at = 0;
        while let Frame::Whole(range) = next_frame(&input, at) {
            at = range.end;
            found.push(input[range].to_vec());
        }
        bench.streams.return_input(bench.id, input, at, 0);
    }
    found
}

#[test]
fn datagrams_keep_their_borders_however_the_stream_is_cut() {
    let mut bench = bench();
    let mut bytes = Vec::new();
    for length in [3u16, 0, 500, 1] {
        bytes.extend(length.to_be_bytes());
        bytes.extend(std::iter::repeat_n(length as u8, usize::from(length)));
    }
    let (head, tail) = bytes.split_at(301);
    bench.far.write_all(head).unwrap();
    let first = received(&mut bench, 2);
    assert_eq!(first, [vec![3; 3], vec![]]);
    bench.far.write_all(tail).unwrap();
    let rest = received(&mut bench, 2);
    assert_eq!(rest, [vec![244; 500], vec![1]]);
}

#[test]
fn datagrams_go_out_with_their_lengths() {
    let mut bench = bench();
    let datagrams: [&[u8]; 2] = [&[7; 4], &[8; 1200]];
    bench.streams.send(bench.id, datagrams.into_iter());
    let mut read = vec![0; 2 + 4 + 2 + 1200];
    bench.far.read_exact(&mut read).unwrap();
    assert_eq!(read[..6], [0, 4, 7, 7, 7, 7]);
    assert_eq!(read[6..9], [0x04, 0xb0, 8]);
    assert_eq!(bench.streams.counters().datagrams_out, 2);
}

#[test]
fn a_slow_reader_loses_whole_datagrams_and_no_more_is_kept_than_the_queue_says() {
    let mut bench = bench();
    let datagram = [9u8; 1200];
    for _ in 0..20_000 {
        bench.streams.send(bench.id, std::iter::once(&datagram[..]));
    }
    let counters = bench.streams.counters();
    assert!(counters.slow_reader > 10_000, "{counters:?}");
    let waiting = bench.streams.get(bench.id).map(|s| s.output.capacity());
    assert!(waiting <= Some(4 * SEND_QUEUE), "{waiting:?}");
    // What is read is whole, down to the last one that was taken.
    let mut bytes = Vec::new();
    let mut read = [0; 65_536];
    while bytes.len() < counters.datagrams_out as usize * 1202 {
        let count = bench.far.read(&mut read).unwrap();
        bytes.extend_from_slice(&read[..count]);
        bench.streams.write(bench.id);
    }
    let whole = [&[0x04, 0xb0][..], &datagram].concat();
    assert!(bytes.chunks(whole.len()).all(|frame| frame == whole));
    bench.streams.send(bench.id, std::iter::once(&datagram[..]));
    assert_eq!(bench.streams.counters().slow_reader, counters.slow_reader);
}

#[test]
fn an_ended_connection_is_noticed_and_what_is_for_it_is_counted() {
    let mut bench = bench();
    bench.far.shutdown(std::net::Shutdown::Both).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while bench.streams.read(Instant::now(), bench.id) != ReadOutcome::Closed {
        assert!(Instant::now() < deadline);
    }
    bench.streams.send(bench.id, std::iter::once(&[1u8][..]));
    let counters = bench.streams.counters();
    assert_eq!((counters.open, counters.gone), (0, 1));
    assert_eq!(bench.streams.owner(bench.id), None);
}

#[test]
fn connections_on_which_nothing_comes_are_closed() {
    let mut bench = bench();
    let begin = Instant::now();
    bench.streams.sweep(begin + IDLE / 2);
    assert_eq!(bench.streams.counters().open, 1);
    bench.streams.sweep(begin + IDLE + SWEEP);
    assert_eq!(
        (bench.streams.counters().open, bench.streams.counters().idle),
        (0, 1)
    );
}

#[test]
fn a_length_that_no_datagram_has_is_refused() {
    assert_eq!(next_frame(&[0x10, 0x01, 0], 0), Frame::TooLong);
    assert_eq!(next_frame(&[0], 0), Frame::Partial);
    assert_eq!(next_frame(&[0, 2, 1], 0), Frame::Partial);
    assert_eq!(next_frame(&[0, 2, 1, 1], 0), Frame::Whole(2..4));
}
