//! Asking a publisher for keyframes: many viewers, one request.

use std::time::{Duration, Instant};

/// One request leaves per layer in this time, however many viewers ask.
pub const REQUEST_WINDOW: Duration = Duration::from_millis(300);

/// The requests for one layer of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyframeRequests {
    wanted: Option<Instant>,
    sent: Option<Instant>,
    number: u8,
}

impl KeyframeRequests {
    /// Somebody needs a keyframe.
    pub fn request(&mut self, now: Instant) {
        self.wanted.get_or_insert(now);
    }

    /// A keyframe came: whoever waited has what it needs.
    pub fn handle_keyframe(&mut self) {
        self.wanted = None;
    }

    /// When a request is to be sent.
    pub fn due(&self) -> Option<Instant> {
        let wanted = self.wanted?;
        Some(
            self.sent
                .map_or(wanted, |sent| wanted.max(sent + REQUEST_WINDOW)),
        )
    }

    /// Whether a request is to be sent now; then it counts as sent. Its number, for an intra request.
    pub fn poll(&mut self, now: Instant) -> Option<u8> {
        self.due().filter(|due| *due <= now)?;
        self.wanted = None;
        self.sent = Some(now);
        self.number = self.number.wrapping_add(1);
        Some(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_one_request_and_the_rest_is_remembered() {
        let t0 = Instant::now();
        let mut requests = KeyframeRequests::default();
        for _ in 0..50 {
            requests.request(t0);
        }
        assert_eq!(requests.poll(t0), Some(1));
        assert_eq!(requests.poll(t0), None);
        let t1 = t0 + Duration::from_millis(100);
        requests.request(t1);
        assert_eq!(requests.poll(t1), None);
        assert_eq!(requests.due(), Some(t0 + REQUEST_WINDOW));
        assert_eq!(requests.poll(t0 + REQUEST_WINDOW), Some(2));
        assert_eq!(requests.due(), None);
    }

    #[test]
    fn a_keyframe_settles_what_was_remembered() {
        let t0 = Instant::now();
        let mut requests = KeyframeRequests::default();
        requests.request(t0);
        requests.poll(t0);
        requests.request(t0);
        requests.handle_keyframe();
        assert_eq!(requests.poll(t0 + REQUEST_WINDOW), None);
    }
}
