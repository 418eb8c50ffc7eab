//! The streams in `tests/media`.

use std::path::Path;

fn read(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mcu/video/tests/media");
    std::fs::read(folder.join(name)).expect("it is in the repository")
}

/// The frames of an IVF file.
pub fn vp8(name: &str) -> Vec<Vec<u8>> {
    let file = read(name);
    let header = u16::from_le_bytes([file[6], file[7]]);
    let mut rest = &file[usize::from(header)..];
    let mut frames = Vec::new();
    while let Some((size, tail)) = rest.split_first_chunk::<4>() {
        let (frame, tail) = tail[8..].split_at(u32::from_le_bytes(*size) as usize);
        frames.push(frame.to_vec());
        rest = tail;
    }
    frames
}

/// The access units of an Annex B file that has a delimiter before each.
pub fn h264(name: &str) -> Vec<Vec<u8>> {
    const DELIMITER: [u8; 5] = [0, 0, 0, 1, 9];
    let file = read(name);
    let begins = |at: &usize| file[*at..].starts_with(&DELIMITER);
    let mut starts: Vec<usize> = (0..file.len()).filter(begins).collect();
    starts.push(file.len());
    starts
        .windows(2)
        .map(|ends| file[ends[0]..ends[1]].to_vec())
        .collect()
}
