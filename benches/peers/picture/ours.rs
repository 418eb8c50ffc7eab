//! This server's side, as a process: its decoder, its compositor and its encoder, in the order of a tick.

use talksy_mixer::video::layout::Scene as Division;
use talksy_mixer::video::{Compositor, I420, Picture, Rect, Theme, TileSpec};
use talksy_unit::mcu::codec::h264::{Decoder, Encoder, nal_units};

use crate::systems::System;
use crate::{CANVAS, FPS, FRAMES, Files};

/// The argument that makes this program the one under measurement.
pub const COMMAND: &str = "mix-files";

/// Mixes the senders' files.
pub fn mix(files: &Files, people: usize) {
    let streams: Vec<Vec<u8>> = (0..people)
        .map(|person| std::fs::read(files.sender(person, "h264")).expect("a sender's file"))
        .collect();
    let mut units: Vec<_> = streams.iter().map(|stream| access_units(stream)).collect();
    let mut decoders: Vec<Decoder> = (0..people)
        .map(|_| Decoder::new().expect("a decoder"))
        .collect();
    let mut pictures = vec![I420::new(0, 0); people];
    let mut compositor = compositor(people);
    let mut encoder = Encoder::new(CANVAS).expect("an encoder");
    let mut out = Vec::new();
    for frame in 0..FRAMES {
        for ((decoder, picture), units) in decoders.iter_mut().zip(&mut pictures).zip(&mut units) {
            let unit = units.next().expect("as many access units as frames");
            let decoded = decoder.decode(&unit).expect("a good access unit");
            picture.copy_from(decoded.picture.expect("a picture for each"), 0);
        }
        compositor.compose(|person| Picture::Frame {
            view: pictures[person].view(),
            version: (frame * people + person) as u64,
        });
        let millis = frame as u64 * 1000 / u64::from(FPS);
        encoder
            .encode(compositor.canvas().view(), millis, &mut out)
            .expect("an encoded canvas");
    }
    std::fs::write(files.output(System::Ours), out).expect("room for the output");
}

/// The encoder makes one slice per picture: each ends an access unit.
fn access_units(stream: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut units = nal_units(stream);
    std::iter::from_fn(move || {
        let mut whole = Vec::new();
        for unit in units.by_ref() {
            whole.extend_from_slice(&[0, 0, 0, 1]);
            whole.extend_from_slice(unit);
            // A slice (ITU-T H.264, table 7-1).
            if matches!(unit[0] & 0x1f, 1 | 5) {
                return Some(whole);
            }
        }
        None
    })
}

/// Without names, which the others cannot write.
fn compositor(people: usize) -> Compositor {
    let (width, height) = (CANVAS.width as usize, CANVAS.height as usize);
    let mut compositor = Compositor::new(width, height, Theme::default());
    let tile = |id| TileSpec {
        id,
        ..TileSpec::default()
    };
    let tiles: Vec<TileSpec> = (0..people as u64).map(tile).collect();
    compositor.set_tiles(Division::default(), &tiles);
    compositor
}

/// Where everybody is, in the order of the people: the same for all systems.
pub fn tiles(people: usize) -> Vec<Rect> {
    let mut tiles: Vec<(u64, Rect)> = compositor(people).tiles().collect();
    tiles.sort_by_key(|(id, _)| *id);
    tiles.into_iter().map(|(_, rect)| rect).collect()
}
