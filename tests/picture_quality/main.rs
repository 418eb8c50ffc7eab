//! How good the mixed picture is: nine moving cameras through encoders, RTP with loss, decoders, the mix and a viewer's
//! decoder, compared with what the composite would be without all that. In virtual time; all seeds are fixed.
//!
//! Each test prints what it measured as `figure <name> <value> <unit>`.

mod chain;
mod film;
mod measure;
mod scenes;
mod screen;

use chain::{FPS, Seen, run};

const CAMERAS: usize = 9;
/// What every tile reaches without loss; below it, with loss, a tile is wrong.
const GOOD_DB: f64 = 34.0;
/// Frames: a tile that shows what was there half a second ago is wrong as well.
const OLD: usize = FPS as usize / 2;

fn figure(name: &str, value: f64, unit: &str) {
    println!("figure picture_{name} {value:.2} {unit}");
}

#[test]
fn without_loss_every_tile_is_as_good_as_its_camera() {
    let (seen, kbits) = run(5 * FPS, &[0.0; CAMERAS]);
    figure("bitrate", kbits, "kbit/s");
    assert_eq!(seen.len() as u64, 5 * FPS, "a picture for each");
    // The encoders are given a second to make their first keyframes sharp.
    let settled = &seen[FPS as usize..];
    let mut least = f64::INFINITY;
    for tile in 0..CAMERAS {
        let values = || settled.iter().map(|tiles| tiles[tile].psnr);
        let mean = values().sum::<f64>() / settled.len() as f64;
        let worst = values().fold(f64::INFINITY, f64::min);
        println!("tile {tile}: {mean:.2} dB, worst frame {worst:.2} dB");
        least = least.min(worst);
        let old = settled.iter().position(|tiles| tiles[tile].age > 0);
        assert_eq!(old, None, "tile {tile} is late");
    }
    figure("psnr_of_the_worst_frame_of_any_tile", least, "dB");
    assert!(least >= GOOD_DB, "{least} dB");
}

#[test]
fn with_two_percent_of_loss_no_tile_is_wrong_for_a_second() {
    let (seen, _) = run(10 * FPS, &[0.02; CAMERAS]);
    let seen = &seen[FPS as usize..];
    let longest = (0..CAMERAS).map(|tile| longest_wrong(seen, tile)).max();
    let longest = longest.unwrap_or(0) as f64 * 1000.0 / FPS as f64;
    figure("longest_wrong_at_2_percent", longest, "ms");
    let wrong = seen.iter().flatten().filter(|seen| !is_right(seen)).count();
    let share = wrong as f64 / (seen.len() * CAMERAS) as f64;
    figure("wrong_at_2_percent", share * 100.0, "percent");
    assert!(longest <= 1000.0, "{longest} ms");
    assert!(share > 0.0, "the loss is seen");
}

#[test]
fn one_bad_line_costs_the_others_no_frame() {
    let mut loss = [0.0; CAMERAS];
    loss[4] = 0.5;
    let (seen, _) = run(5 * FPS, &loss);
    assert_eq!(seen.len() as u64, 5 * FPS, "a picture for each");
    for tile in (0..CAMERAS).filter(|tile| loss[*tile] == 0.0) {
        let late = seen.iter().filter(|tiles| tiles[tile].age > 0).count();
        let least = seen[FPS as usize..].iter().map(|tiles| tiles[tile].psnr);
        let least = least.fold(f64::INFINITY, f64::min);
        println!("tile {tile}: {late} pictures late, worst frame {least:.2} dB");
        assert_eq!(late, 0, "tile {tile} shows each frame in its turn");
        assert!(least >= GOOD_DB, "tile {tile}: {least} dB");
    }
    let wrong = longest_wrong(&seen, 4);
    println!("the bad line's tile was wrong for {wrong} frames on end");
    assert!(wrong > 0);
    let grey = seen.iter().filter(|tiles| tiles[4].grey).count();
    assert_eq!(grey, 0, "a card or an old picture, but nothing grey");
}

fn is_right(seen: &Seen) -> bool {
    seen.psnr >= GOOD_DB && seen.age < OLD
}

/// Frames on end in which this tile was wrong.
fn longest_wrong(seen: &[Vec<Seen>], tile: usize) -> usize {
    let runs = seen.split(|tiles| is_right(&tiles[tile]));
    runs.map(<[_]>::len).max().unwrap_or(0)
}
