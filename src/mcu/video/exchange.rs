//! How a source's newest picture gets from its decoder to the compositor: three frames that go round, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use talksy_mixer::video::{I420, View};

/// Frames that wait to be drawn on again: one that the compositor gave back, one that it never took.
const SPARES: usize = 2;

/// A decoded picture, upright.
struct Frame {
    picture: I420,
    arrival: Instant,
    /// There is nothing to show any more.
    blank: bool,
}

struct Shared {
    /// The newest one. A newer one displaces it.
    ready: ArrayQueue<Box<Frame>>,
    spare: ArrayQueue<Box<Frame>>,
    needs_keyframe: AtomicBool,
    abandoned: AtomicBool,
}

/// The decoder's end.
pub struct PictureWriter(Arc<Shared>);

/// The compositor's end. Dropping it tells the decoder that it is not wanted any more.
pub struct PictureReader {
    shared: Arc<Shared>,
    frame: Option<Box<Frame>>,
}

/// Both ends of a new exchange. A keyframe is needed at first.
pub fn exchange() -> (PictureWriter, PictureReader) {
    let shared = Arc::new(Shared {
        ready: ArrayQueue::new(1),
        spare: ArrayQueue::new(SPARES),
        needs_keyframe: AtomicBool::new(true),
        abandoned: AtomicBool::new(false),
    });
    let writer = PictureWriter(shared.clone());
    let reader = PictureReader {
        shared,
        frame: None,
    };
    (writer, reader)
}

impl PictureWriter {
    /// Hands over a picture of which the last packet came at `arrival`, turned by `quarters` clockwise.
    pub fn publish(&mut self, view: View<'_>, quarters: u8, arrival: Instant) {
        self.hand_over(arrival, |frame| {
            frame.picture.copy_from(view, quarters);
            frame.blank = false;
        });
    }

    /// There is nothing to show from now on.
    pub fn publish_nothing(&mut self, now: Instant) {
        self.hand_over(now, |frame| frame.blank = true);
    }

    fn hand_over(&mut self, arrival: Instant, fill: impl FnOnce(&mut Frame)) {
        let mut frame = self.0.spare.pop().unwrap_or_else(|| {
            Box::new(Frame {
                picture: I420::new(0, 0),
                arrival,
                blank: true,
            })
        });
        fill(&mut frame);
        frame.arrival = arrival;
        if let Some(unseen) = self.0.ready.force_push(frame) {
            // There are three frames, and this one is not among the spare ones: it fits.
            let _ = self.0.spare.push(unseen);
        }
    }

    /// Says whether only a keyframe helps.
    pub fn set_needs_keyframe(&self, needs: bool) {
        self.0.needs_keyframe.store(needs, Ordering::Relaxed);
    }

    /// The compositor has dropped its end.
    pub fn is_abandoned(&self) -> bool {
        self.0.abandoned.load(Ordering::Relaxed)
    }
}

impl PictureReader {
    /// Takes the newest picture; true if there is one.
    pub fn update(&mut self) -> bool {
        let Some(newest) = self.shared.ready.pop() else {
            return false;
        };
        if let Some(old) = self.frame.replace(newest) {
            let _ = self.shared.spare.push(old);
        }
        true
    }

    /// The picture that was taken last, and when its last packet came.
    pub fn picture(&self) -> Option<(View<'_>, Instant)> {
        let frame = self.frame.as_ref().filter(|frame| !frame.blank)?;
        Some((frame.picture.view(), frame.arrival))
    }

    /// Whether the decoder waits for a keyframe, or shows what is wrong until one comes.
    pub fn needs_keyframe(&self) -> bool {
        self.shared.needs_keyframe.load(Ordering::Relaxed)
    }
}

impl Drop for PictureReader {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn luma(reader: &PictureReader) -> Option<u8> {
        reader.picture().map(|(view, _)| view.y.row(0)[0])
    }

    fn grey(luma: u8) -> I420 {
        let mut picture = I420::new(16, 16);
        let [mut y, ..] = picture.planes_mut();
        y.fill(luma);
        picture
    }

    #[test]
    fn the_newest_picture_is_taken_and_stays_until_there_is_another() {
        let now = Instant::now();
        let (mut writer, mut reader) = exchange();
        assert!(!reader.update() && luma(&reader).is_none() && reader.needs_keyframe());
        for value in [10, 20, 30] {
            writer.publish(grey(value).view(), 0, now);
        }
        assert!(reader.update() && !reader.update());
        assert_eq!(luma(&reader), Some(30));
        writer.publish_nothing(now);
        assert_eq!(luma(&reader), Some(30), "not before it is looked at");
        assert!(reader.update());
        assert_eq!(luma(&reader), None);
        drop(reader);
        assert!(writer.is_abandoned());
    }

    #[test]
    fn three_frames_are_enough_however_the_two_ends_take_turns() {
        let now = Instant::now();
        let (mut writer, mut reader) = exchange();
        let mut buffers = BTreeSet::new();
        for turn in 0..200u32 {
            writer.publish(grey(turn as u8).view(), 0, now);
            if turn.wrapping_mul(2_654_435_761) >> 30 > 1 {
                reader.update();
            }
            let rows = reader.picture().map(|(view, _)| view.y.data().as_ptr());
            buffers.extend(rows.map(|at| at as usize));
        }
        assert!(buffers.len() <= 3, "{} frames", buffers.len());
    }

    #[test]
    fn the_ends_may_live_on_two_threads() {
        let (mut writer, mut reader) = exchange();
        let sender = std::thread::spawn(move || {
            for value in 0..=200u8 {
                writer.publish(grey(value).view(), 0, Instant::now());
            }
            writer
        });
        let (mut last, mut seen) = (0, 0);
        while last < 200 {
            if reader.update() {
                let (view, _) = reader.picture().expect("never blank");
                let value = view.y.row(0)[0];
                assert!((0..16).all(|y| view.y.row(y).iter().all(|v| *v == value)));
                assert!(value >= last, "{value} after {last}");
                (last, seen) = (value, seen + 1);
            }
        }
        sender.join().expect("it has not panicked");
        assert!(seen >= 1);
    }
}
