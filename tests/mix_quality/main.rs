//! How good the mix is: real voices (espeak-ng, and the recordings of alsa-utils), computed noise, measured figures.
//!
//! Each test prints what it measured as `figure <name> <value> <unit>`. All seeds are fixed.

mod measure;
mod noise;
mod room;
mod surround;
mod voices;

mod clarity;
mod hostile;
mod loudness;
mod network;

/// Prints a measured figure.
fn figure(name: &str, value: f64, unit: &str) {
    println!("figure mix_{name} {value:.2} {unit}");
}
