//! Which rung of the ladder a mixed client gets: its picture is one track, and the rungs are its layers.

use std::time::Instant;

use crate::ids::{PeerId, RoomKey};
use crate::mcu::audio::AudioRung;
use crate::mcu::bus::Rung;
use crate::mcu::ladder::{Ladder, Shape, VideoRung};
use crate::sfu::{Budget, Choice, Demand, Layer, LayerFigures, Target, VIDEO_OVERHEAD};
use crate::worker::bandwidth::{INTERVAL, Settled, is_calm};
use crate::worker::demux::Slot;
use crate::worker::state::Receiving;
use crate::worker::thread::Worker;
use crate::worker::{Event, SourceType};

/// The payload of the mixed sound, bit/s: on the better of its two rungs, and on the other.
const SOUND: u64 = 32_000;
const LOW_SOUND: u64 = 20_000;
/// Who gets a picture of no more bit/s than this because the link has no more gets the lower sound, too,
const LOW_PICTURE: u64 = 100_000;
/// and so does everybody with a link of less than this.
const LOW_LINK: u64 = 80_000;
/// An element so much higher than wide gets a portrait canvas, one that is as wide as high a landscape one; between the
/// two it keeps what it has.
const TALL: f64 = 1.2;
/// The allocator takes a layer of three quarters of an element's width for enough. In a mixed picture there is text and
/// there are small faces: nine tenths are enough.
const SHARP: f64 = 1.2;
/// An encoder is told of another bit rate when it differs by this part of what the ladder says.
const BITRATE_STEP: f64 = 0.04;

/// Where a client begins: in the middle, so that its first picture comes soon, and below that if it wants less.
pub(super) fn first_rung(ladder: &Ladder, shape: Shape, limit: Option<u64>) -> Rung {
    let fits = |step: &u8| {
        let rung = VideoRung { step: *step, shape };
        let cost = f64::from(ladder.of(rung).bitrate) * VIDEO_OVERHEAD;
        limit.is_none_or(|limit| cost + (LOW_SOUND * 2) as f64 <= limit as f64)
    };
    let step = (0..=ladder.middle()).rev().find(fits).unwrap_or(0);
    let video = VideoRung { step, shape };
    let low = limit.is_some() && u64::from(ladder.of(video).bitrate) <= LOW_PICTURE;
    Rung {
        video: Some(video),
        audio: if low {
            AudioRung::Low
        } else {
            AudioRung::Normal
        },
    }
}

/// The mixed sound of a client: beside a picture what fits that, else what fits its link.
pub(super) fn audio_rung(receiving: &Receiving) -> AudioRung {
    match (receiving.picture, receiving.sound) {
        (Some(view), _) => view.rung.audio,
        (None, Some(sound)) => sound.rung,
        (None, None) => AudioRung::Normal,
    }
}

/// The shape for an element of this size, where the client named none.
fn shape_for(size: Option<(u32, u32)>, before: Shape) -> Shape {
    match size {
        Some((width, height)) if width > 0 && height > 0 => {
            let tall = f64::from(height) / f64::from(width);
            match before {
                _ if tall >= TALL => Shape::Portrait,
                _ if tall <= 1.0 => Shape::Landscape,
                before => before,
            }
        }
        _ => before,
    }
}

/// The part of an element that a canvas of this size fills when it is shown whole, in pixels.
fn shown((width, height): (u32, u32), canvas: (u32, u32)) -> (u32, u32) {
    let scale =
        (f64::from(width) / f64::from(canvas.0)).min(f64::from(height) / f64::from(canvas.1));
    let scaled = |side: u32| (f64::from(side) * scale).round() as u32;
    (scaled(canvas.0), scaled(canvas.1))
}

fn sharpened((width, height): (u32, u32)) -> (u32, u32) {
    let longer = |side: u32| (f64::from(side) * SHARP) as u32;
    (longer(width), longer(height))
}

/// The picture as something that the allocator can share a link with.
fn demand(
    sender: u64,
    ladder: &Ladder,
    shape: Shape,
    element: Option<(u32, u32)>,
    quality: Target,
) -> Demand {
    let sizes = |step: u8| {
        let of = ladder.of(VideoRung { step, shape });
        (of.width, of.height)
    };
    let layers = (0..=ladder.top()).map(|step| {
        let bitrate = ladder.of(VideoRung { step, shape }).bitrate;
        LayerFigures {
            layer: Layer(step),
            active: true,
            bitrate: u64::from(bitrate),
            size: Some(sizes(step)),
            least: Some(ladder.least(step).into()),
            ..LayerFigures::default()
        }
    });
    let quality = match quality {
        Target::Paused => Target::Paused,
        Target::UpTo { layer, .. } => Target::UpTo {
            layer: Layer(ladder.best_of(layer.0)),
            temporal: u8::MAX,
        },
    };
    Demand {
        sender,
        source: SourceType::Media,
        dominant: true,
        tile: element.map(|element| sharpened(shown(element, sizes(ladder.top())))),
        quality,
        layers: layers.collect(),
    }
}

/// What a choice of the allocator means. The sound follows the lowest pictures.
fn chosen(choice: &Choice, shape: Shape, estimate: u64) -> Rung {
    let low = choice.limited && choice.bitrate <= LOW_PICTURE;
    Rung {
        video: match choice.target {
            Target::Paused => None,
            Target::UpTo { layer, .. } => Some(VideoRung {
                step: layer.0,
                shape,
            }),
        },
        audio: sound(low || estimate < LOW_LINK),
    }
}

fn sound(low: bool) -> AudioRung {
    if low {
        AudioRung::Low
    } else {
        AudioRung::Normal
    }
}

/// The mixed sound without a picture beside it, for a link of so many bit/s: what was low rises with some room only.
pub(super) fn sound_of_link(estimate: u64, before: AudioRung) -> AudioRung {
    let least = match before {
        AudioRung::Normal => LOW_LINK,
        AudioRung::Low => LOW_LINK * 3 / 2,
    };
    sound(estimate < least)
}

/// What an encoder is to make for the `slowest` of its receivers, if that is news.
fn bitrate(least: u32, nominal: u32, now: u32, slowest: u64) -> Option<u32> {
    let wanted = u32::try_from(slowest).map_or(nominal, |bps| bps.clamp(least, nominal));
    let step = (f64::from(nominal) * BITRATE_STEP) as u32;
    let is_news = wanted.abs_diff(now) > step || (wanted == nominal && now != nominal);
    is_news.then_some(wanted)
}

/// What the codec threads can still make where they are overloaded: a picture of the lowest quality.
fn lowest(ladder: &Ladder, rung: Rung) -> Rung {
    let video = rung.video.map(|video| VideoRung {
        step: video.step.min(ladder.best_of(0)),
        ..video
    });
    Rung { video, ..rung }
}

/// What the picture's sender is to carry of it.
pub(super) fn target_of(rung: Rung) -> Target {
    rung.video.map_or(Target::Paused, |rung| Target::UpTo {
        layer: Layer(rung.step),
        temporal: u8::MAX,
    })
}

impl Worker {
    /// A rung for the mixed picture. Whether more bandwidth would be of use.
    pub(super) fn allocate_rung(&mut self, now: Instant, slot: Slot) -> bool {
        let peer = &mut self.peers[slot];
        peer.bandwidth.due = now + INTERVAL;
        let Some(view) = &mut peer.receiving.picture else {
            return false;
        };
        let element = peer.bandwidth.picture;
        view.shape = peer
            .params
            .canvas
            .unwrap_or_else(|| shape_for(element, view.shape));
        let estimator = peer.session.subscriber.estimator();
        let payload = match view.rung.audio {
            AudioRung::Normal => SOUND,
            AudioRung::Low => LOW_SOUND,
        };
        let mut budget = Budget {
            estimate: estimator.estimate(now),
            kept: estimator.kept(now),
            undrained: estimator.undrained(now),
            starting: estimator.is_starting(now),
            voices: (payload, 1),
        };
        let ladder = &self.codecs.ladder;
        if let (true, 0, Some(rung)) = (budget.starting, estimator.probes().raised, view.rung.video)
        {
            // A first guess is no reason to rise.
            let flows = f64::from(ladder.of(rung).bitrate) * VIDEO_OVERHEAD;
            budget.estimate = budget.estimate.min(flows as u64 + budget.voice_cost());
        }
        let picture = demand(view.sender, ladder, view.shape, element, peer.target);
        let demands = std::slice::from_ref(&picture);
        let allocator = &mut peer.bandwidth.allocator;
        if let (None, Some(rung), true) = (view.share, view.rung.video, view.line) {
            allocator.begin_with(now, view.sender, Layer(rung.step));
        }
        // Whoever cannot decode the picture has none to share its link with.
        let demands = if view.line { demands } else { &[] };
        let allocation = allocator.allocate(now, budget, demands);
        let calm = is_calm(now, estimator, peer.params.max_receive_bps);
        let settled = (allocation.choices.first())
            .map(|choice| peer.bandwidth.settle(now, choice, &picture, calm));
        let choice = settled.map(|settled| settled.choice);
        view.share = view.line.then(|| share(&budget));
        let rung = match &choice {
            Some(choice) => chosen(choice, view.shape, budget.estimate),
            None => Rung {
                audio: sound(budget.estimate < LOW_LINK),
                ..view.rung
            },
        };
        let estimator = peer.session.subscriber.estimator_mut();
        estimator.set_wanted(allocation.wanted);
        self.set_rung(slot, rung);
        if let Some(Settled { choice, .. }) = settled.filter(|settled| settled.changed) {
            let bandwidth = &mut self.peers[slot].bandwidth;
            bandwidth.changes += 1;
            bandwidth.pauses += u64::from(choice.limited && rung.video.is_none());
            let bitrate = choice.bitrate;
            self.emit(slot, |peer| Event::PictureAdjusted { peer, bitrate });
        }
        choice.is_some_and(|choice| choice.limited)
    }

    /// Moves a mixed client to another rung. What it sees goes on until a keyframe of that one.
    fn set_rung(&mut self, slot: Slot, rung: Rung) {
        let peer = &mut self.peers[slot];
        let (id, key) = (peer.id, peer.room);
        let Some(view) = &mut peer.receiving.picture else {
            return;
        };
        let overloaded = self.rooms.get(&key).is_some_and(|room| room.lowest_only);
        let rung = match overloaded {
            true => lowest(&self.codecs.ladder, rung),
            false => rung,
        };
        let before = std::mem::replace(&mut view.rung, rung);
        let view = *view;
        // What it hears now is what it goes on from when the picture ends.
        if let Some(sound) = &mut peer.receiving.sound {
            sound.rung = rung.audio;
        }
        if before != rung {
            let subscriber = &mut peer.session.subscriber;
            subscriber.set_target(view.sender, target_of(rung));
            let bus = self.rooms.get(&key).and_then(|room| room.bus.as_ref());
            if let Some(bus) = bus {
                bus.set_rung(id, view.listens_to());
            }
        }
        if before.video != rung.video {
            self.tell_layout(slot);
            before
                .video
                .inspect(|before| self.adjust_rung(key, *before));
        }
        rung.video.inspect(|rung| self.adjust_rung(key, *rung));
    }

    /// The encoder of a rung follows the slowest of those who receive it, as far as it goes.
    pub(super) fn adjust_rung(&mut self, key: RoomKey, rung: VideoRung) {
        let Some(room) = self.rooms.get_mut(&key) else {
            return;
        };
        let peers = &self.peers;
        let listens = |slot: &Slot| {
            let view = peers.get(*slot)?.receiving.picture?;
            view.receives(rung).then(|| view.share.unwrap_or(u64::MAX))
        };
        let Some(slowest) = room.members.iter().filter_map(listens).min() else {
            room.forget_rung(rung);
            return;
        };
        let ladder = &self.codecs.ladder;
        let (least, nominal) = (ladder.least(rung.step), ladder.of(rung).bitrate);
        let now = room.bitrates.get(&rung).copied().unwrap_or(nominal);
        if let (Some(bps), Some(bus)) = (bitrate(least, nominal, now, slowest), &room.bus) {
            bus.set_bitrate(rung, bps);
            room.bitrates.insert(rung, bps);
        }
    }

    /// The client shows the mixed picture in an element of this size.
    pub(super) fn set_picture_size(&mut self, now: Instant, id: PeerId, size: (u32, u32)) {
        if let Some(peer) = self.peer_mut(id) {
            peer.bandwidth.picture = Some(size);
            if peer.receiving.picture.is_some() {
                self.reallocate(now, id);
            }
        }
    }
}

/// Bit/s of payload that a link has for the picture. While nothing is known of the link, no encoder is slowed down
/// for it.
fn share(budget: &Budget) -> u64 {
    if budget.starting {
        return u64::MAX;
    }
    let left = budget.estimate.saturating_sub(budget.voice_cost());
    (left as f64 / VIDEO_OVERHEAD) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::state::MixedSender;

    const WIDE: Shape = Shape::Landscape;

    #[test]
    fn a_mixed_sound_alone_follows_its_link_down_and_up_and_does_not_flap() {
        let mut sound = MixedSender::new(1, None);
        assert_eq!(sound.rung, AudioRung::Normal);
        assert_eq!(MixedSender::new(1, Some(60_000)).rung, AudioRung::Low);
        let steps = [300_000, 79_000, 100_000, 119_000, 121_000, 90_000].map(|e| sound.follow(e));
        let (low, normal) = (Some(AudioRung::Low), Some(AudioRung::Normal));
        assert_eq!(steps, [None, low, None, None, normal, None]);
    }

    #[test]
    fn a_link_is_lossy_from_one_percent_on_until_half_a_percent() {
        let mut sound = MixedSender::new(1, None);
        let told = [0.0, 0.009, 0.01, 0.2, 0.006, 0.004, 0.006].map(|loss| sound.note_loss(loss));
        let news = [None, None, Some(true), None, None, Some(false), None];
        assert_eq!(told, news);
    }

    #[test]
    fn a_client_begins_in_the_middle_or_below_with_what_it_wants() {
        let ladder = Ladder::default();
        let first = |kbits: Option<u64>| {
            let rung = first_rung(&ladder, WIDE, kbits.map(|kbits| kbits * 1000));
            (rung.video.map(|video| video.step), rung.audio)
        };
        assert_eq!(first(None), (Some(3), AudioRung::Normal));
        assert_eq!(first(Some(5000)), (Some(3), AudioRung::Normal));
        assert_eq!(first(Some(300)), (Some(2), AudioRung::Normal));
        assert_eq!(first(Some(150)), (Some(1), AudioRung::Low));
        assert_eq!(first(Some(20)), (Some(0), AudioRung::Low));
    }

    #[test]
    fn an_element_that_is_tall_gets_a_tall_canvas_and_one_in_between_keeps_what_it_has() {
        let shape = |size, before| shape_for(Some(size), before);
        for before in [Shape::Landscape, Shape::Portrait] {
            assert_eq!(shape((360, 640), before), Shape::Portrait);
            assert_eq!(shape((640, 360), before), Shape::Landscape);
            assert_eq!(shape((600, 660), before), before);
            assert_eq!(shape((0, 0), before), before);
            assert_eq!(shape_for(None, before), before);
        }
    }

    #[test]
    fn an_element_counts_as_far_as_the_canvas_fills_it() {
        assert_eq!(shown((1000, 2000), (1280, 720)), (1000, 563));
        assert_eq!(shown((0, 0), (1280, 720)), (0, 0));
        assert_eq!(shown((2000, 360), (1280, 720)), (640, 360));
        let asked = demand(
            1,
            &Ladder::default(),
            Shape::Portrait,
            Some((360, 9000)),
            Target::BEST,
        );
        assert_eq!(asked.tile, Some((432, 768)));
        assert_eq!(asked.layers.len(), 6);
    }

    #[test]
    fn the_three_qualities_are_steps_of_the_ladder() {
        let ladder = Ladder::default();
        let bound = |quality| demand(1, &ladder, WIDE, None, quality).quality;
        let up_to = |layer| Target::UpTo {
            layer: Layer(layer),
            temporal: u8::MAX,
        };
        for (asked, step) in [(0, 1), (1, 3), (2, 5), (u8::MAX, 5)] {
            let quality = Target::UpTo {
                layer: Layer(asked),
                temporal: 0,
            };
            assert_eq!(bound(quality), up_to(step));
        }
        assert_eq!(bound(Target::Paused), Target::Paused);
    }

    #[test]
    fn overloaded_threads_make_the_lowest_quality_at_most() {
        let ladder = Ladder::default();
        let step = |step: Option<u8>| {
            let video = step.map(|step| VideoRung { step, shape: WIDE });
            let audio = AudioRung::Normal;
            lowest(&ladder, Rung { video, audio })
                .video
                .map(|video| video.step)
        };
        let steps = [Some(5), Some(2), Some(1), Some(0), None].map(step);
        assert_eq!(steps, [Some(1), Some(1), Some(1), Some(0), None]);
    }

    #[test]
    fn an_encoder_follows_its_slowest_receiver_in_steps_and_no_further_than_it_can() {
        assert_eq!(bitrate(280_000, 400_000, 400_000, u64::MAX), None);
        assert_eq!(bitrate(280_000, 400_000, 400_000, 390_000), None);
        assert_eq!(bitrate(280_000, 400_000, 400_000, 340_000), Some(340_000));
        assert_eq!(bitrate(280_000, 400_000, 340_000, 330_000), None);
        assert_eq!(bitrate(280_000, 400_000, 340_000, 100_000), Some(280_000));
        assert_eq!(bitrate(280_000, 400_000, 390_000, 2_000_000), Some(400_000));
    }

    #[test]
    fn the_sound_follows_the_lowest_pictures_of_a_weak_link() {
        let choice = |layer, bitrate, limited| Choice {
            sender: 1,
            target: Target::UpTo {
                layer: Layer(layer),
                temporal: u8::MAX,
            },
            bitrate,
            changed: false,
            limited,
        };
        let sound = |choice: Choice, estimate| chosen(&choice, WIDE, estimate).audio;
        assert_eq!(sound(choice(1, 100_000, true), 150_000), AudioRung::Low);
        assert_eq!(sound(choice(2, 200_000, true), 300_000), AudioRung::Normal);
        let small_window = sound(choice(0, 50_000, false), 5_000_000);
        assert_eq!(small_window, AudioRung::Normal);
        let paused = Choice {
            target: Target::Paused,
            ..choice(0, 0, false)
        };
        let rung = chosen(&paused, WIDE, 60_000);
        assert_eq!((rung.video, rung.audio), (None, AudioRung::Low));
    }
}
