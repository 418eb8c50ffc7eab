//! A bus on real threads.

use super::*;
use crate::mcu::pool::Job;
use std::thread;

/// The longest that anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A room with one listener, and what its bus says.
struct Room {
    pools: CodecPools,
    bus: Bus,
    heard: Receiver<BusOutput>,
}

impl Room {
    fn start() -> Self {
        let pools = CodecPools::start(1, 1).expect("threads");
        let (queue, heard) = crossbeam_channel::bounded(OUTPUT_QUEUE);
        let output = BusSender::new(queue, Arc::new(|| ()));
        let bus = Bus::start(RoomKey::next(), &pools, output);
        bus.set_participants(vec![Participant {
            peer: PeerId(1),
            name: "Anna".into(),
            speaking: false,
            muted: false,
            camera_off: false,
            avatar: None,
        }]);
        bus.add_listener(PeerId(2), AudioRung::Normal);
        bus.set_picture(PeerId(2), Some(VideoRung::landscape(2)));
        Room { pools, bus, heard }
    }

    /// Waits for an output.
    fn hear(&self, mut wanted: impl FnMut(&BusOutput) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !wanted(&self.heard.recv_deadline(until).expect("in time")) {}
    }

    fn rooms_at(&self, load: Load) -> u64 {
        self.bus.totals.loads[load as usize].load(Ordering::Relaxed)
    }
}

/// Keeps a thread busy for longer than a picture may take, until it is told to end.
struct Hog(Arc<AtomicBool>);

impl Job for Hog {
    fn run(&mut self, _: Instant) -> Option<Instant> {
        thread::sleep(Duration::from_millis(300));
        (!self.0.load(Ordering::Relaxed)).then(Instant::now)
    }
}

#[test]
fn overloaded_threads_make_less_of_the_picture_and_all_of_it_again_when_they_have_time() {
    let room = Room::start();
    room.hear(|output| matches!(output, BusOutput::Video { .. }));
    assert_eq!(room.rooms_at(Load::Normal), 1);
    let over = Arc::new(AtomicBool::new(false));
    room.pools
        .video
        .spawn(Instant::now(), Box::new(Hog(over.clone())));
    let mut pictures = 0;
    room.hear(|output| {
        pictures += u32::from(matches!(output, BusOutput::Video { .. }));
        matches!(
            output,
            BusOutput::LowestOnly {
                lowest_only: true,
                ..
            }
        )
    });
    assert!(pictures > 0, "less is not nothing");
    assert_eq!(
        (room.rooms_at(Load::Normal), room.rooms_at(Load::LowestOnly)),
        (0, 1)
    );
    assert!(room.bus.counters().late_pictures.load(Ordering::Relaxed) > 3);
    over.store(true, Ordering::Relaxed);
    room.hear(|output| {
        matches!(
            output,
            BusOutput::LowestOnly {
                lowest_only: false,
                ..
            }
        )
    });
    let until = Instant::now() + PATIENCE;
    while room.rooms_at(Load::Normal) == 0 && Instant::now() < until {
        room.hear(|output| matches!(output, BusOutput::Video { .. }));
    }
    assert_eq!(room.rooms_at(Load::Normal), 1, "all of it");
    let Room { pools, bus, .. } = room;
    let totals = bus.totals.clone();
    drop(bus);
    while totals.loads[0].load(Ordering::Relaxed) > 0 {
        assert!(Instant::now() < until, "a room that ends is not counted");
        thread::yield_now();
    }
    drop(pools);
}
