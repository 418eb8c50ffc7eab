//! What the sources themselves have to show: pure modules read no clock and await nothing, and unsafe code stands
//! only where it is listed.

use std::path::{Path, PathBuf};

/// Folders and files that are told the time and do no I/O.
const PURE: [&str; 9] = [
    "mixer/src",
    "src/rtp",
    "src/sfu",
    "src/transport",
    "src/room/room.rs",
    "src/room/room",
    "src/room/roster.rs",
    "src/room/request.rs",
    "src/room/snapshot.rs",
];

/// What a pure module has no use for.
const IMPURE: [&str; 10] = [
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    "tokio",
    "async fn",
    "async move",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::thread",
    "thread::sleep",
];

/// Every file that may hold unsafe code, each block with its reason.
const UNSAFE: [&str; 7] = [
    "benches/support/allocations.rs",
    "mixer/src/video/simd.rs",
    "src/mcu/codec/openh264_raw.rs",
    "src/mcu/codec/vpx_raw.rs",
    "src/prefetch.rs",
    "tests/allocations.rs",
    "tests/mix_quality/surround.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under `path`, which may be a file itself; relative to the root.
fn sources(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(path)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).unwrap();
            found.push(relative.to_str().unwrap().to_owned());
        }
    }
    assert!(!found.is_empty(), "{path} has no sources");
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// A file of tests, by its name, by its folder, or because its parent declares it so.
fn is_test_file(path: &str) -> bool {
    let path = Path::new(path);
    let of_tests = |part: &str| part == "tests" || part == "tests.rs";
    if path.iter().any(|part| of_tests(part.to_str().unwrap())) {
        return true;
    }
    let module = path.file_stem().unwrap().to_str().unwrap();
    let parent = path.with_file_name("mod.rs");
    let declared = format!("#[cfg(test)]\nmod {module};");
    root().join(&parent).is_file() && read(parent.to_str().unwrap()).contains(&declared)
}

/// The code that ships: without comments, and without the test module that ends a file.
fn shipped(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    code.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
}

#[test]
fn pure_modules_read_no_clock_await_nothing_and_open_no_sockets() {
    let files: Vec<String> = PURE
        .iter()
        .flat_map(|path| sources(path))
        .filter(|path| !is_test_file(path))
        .collect();
    assert!(files.len() > 50, "{} files are looked at", files.len());
    let mut found = Vec::new();
    for path in files {
        let text = read(&path);
        for (at, line) in shipped(&text) {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{path}:{at}: {word}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unsafe_code_stands_only_where_it_is_listed_and_says_why() {
    let mut with_unsafe = Vec::new();
    for path in ["src", "mixer/src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
    {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        let code = |line: &str| line.split("//").next().unwrap_or("").to_owned();
        let is_unsafe = |line: &str| {
            let code = code(line);
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| code.contains(word) && !code.contains(&format!("\"{word}\"")))
        };
        let places: Vec<usize> = (0..lines.len())
            .filter(|at| is_unsafe(lines[*at]))
            .collect();
        if places.is_empty() {
            continue;
        }
        for at in places
            .into_iter()
            .filter(|at| code(lines[*at]).contains("unsafe {"))
        {
            let before = &lines[at.saturating_sub(4)..at];
            let reasoned = before.iter().any(|line| line.contains("SAFETY:"));
            assert!(
                reasoned,
                "{path}:{}: an unsafe block without SAFETY",
                at + 1
            );
        }
        with_unsafe.push(path);
    }
    with_unsafe.sort();
    assert_eq!(with_unsafe, UNSAFE);
}

#[test]
fn the_scanner_sees_what_it_looks_for() {
    let text = "use a;\nlet t = Instant::now(); // now\n// Instant::now\n#[cfg(test)]\nmod tests {\nInstant::now() }";
    let lines: Vec<usize> = shipped(text)
        .filter(|(_, line)| line.contains(IMPURE[0]))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(lines, [2]);
    assert!(is_test_file("src/sfu/testing.rs"));
    assert!(is_test_file("src/sfu/publisher/tests.rs"));
    assert!(!is_test_file("src/sfu/publisher.rs"));
}
