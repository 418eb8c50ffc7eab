//! Whatever comes, nothing panics, and what is refused changes nothing.

use proptest::prelude::*;

use super::*;

/// A captured description, with lines dropped, repeated, moved and their ends cut or replaced.
fn mangled() -> impl Strategy<Value = String> {
    let source = prop::sample::select(vec![
        CHROMIUM_PUBLISH,
        CHROMIUM_RECVONLY,
        CHROMIUM_SIMULCAST,
        FIREFOX_PUBLISH,
        FIREFOX_SIMULCAST,
    ]);
    let edit = (
        any::<prop::sample::Index>(),
        0..5u8,
        "[ -~]{0,12}",
        any::<prop::sample::Index>(),
    );
    (source, prop::collection::vec(edit, 1..12)).prop_map(|(source, edits)| {
        let mut lines: Vec<String> = source.lines().map(str::to_owned).collect();
        for (at, what, text, other) in edits {
            let at = at.index(lines.len());
            let other = other.index(lines.len());
            match what {
                0 if lines.len() > 1 => drop(lines.remove(at)),
                1 => lines.insert(other, lines[at].clone()),
                2 => lines.swap(at, other),
                3 => {
                    let end = other % (lines[at].len() + 1);
                    lines[at].truncate(end);
                    lines[at].push_str(&text);
                }
                _ => lines[at].push_str(&text),
            }
        }
        lines.join("\r\n") + "\r\n"
    })
}

fn check(sdp: &str) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(false);
    bench.machine.want_channel();
    bench.machine.add_sender(video(1));
    bench.drain();
    bench.pass(Duration::from_secs(1));
    for role in [Role::Answer, Role::Offer, Role::Offer, Role::Answer] {
        let before = format!("{:?}", bench.machine.session);
        let result = match role {
            Role::Offer => bench.offer(sdp),
            Role::Answer => bench.answer(sdp),
        };
        let outputs = bench.drain();
        match result {
            Err(error) => {
                prop_assert!(error.to_string().len() < 600);
                prop_assert_eq!(before, format!("{:?}", bench.machine.session));
            }
            // What we say is something that we would read.
            Ok(()) => {
                for output in &outputs {
                    let (sdp, role) = match output {
                        Output::Answer(sdp) => (sdp, Role::Answer),
                        Output::Offer(sdp) => (sdp, Role::Offer),
                        _ => continue,
                    };
                    let sdp = sdp.replace("a=setup:passive", "a=setup:active");
                    let read = Description::parse(&sdp, role, 256);
                    prop_assert!(read.is_ok(), "{read:?} {sdp}");
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused_or_understood(text in "\\PC{0,300}") {
        check(&text)?;
    }

    #[test]
    fn any_bytes_are_refused_or_understood(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn a_mangled_description_is_refused_or_understood(sdp in mangled()) {
        check(&sdp)?;
    }
}

#[test]
fn the_longest_descriptions_are_read_in_reasonable_time() {
    let begin = CHROMIUM_PUBLISH
        .split_inclusive("a=rtcp-rsize\r\n")
        .next()
        .unwrap();
    for line in [
        "a=ssrc:%\r\n",
        "a=ssrc-group:FID % 1%\r\n",
        "a=rtpmap:% VP8/90000\r\n",
        "a=rtcp-fb:111 x%\r\n",
    ] {
        let mut sdp = begin.to_owned();
        let mut number = 0;
        while sdp.len() < 250_000 {
            sdp.push_str(&line.replace('%', &number.to_string()));
            number += 1;
        }
        let started = Instant::now();
        Bench::new(true)
            .offer(&sdp.replace("BUNDLE 0 1", "BUNDLE 0"))
            .unwrap();
        assert!(started.elapsed() < Duration::from_secs(2), "{line}");
    }
}
