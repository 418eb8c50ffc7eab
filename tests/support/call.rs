//! Two participants who see and hear each other, and a watch over what they receive.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use talksy_unit::demo::{
    Participant, ParticipantConfig, Picture, PictureLoop, Sound, Turns, VoiceLoop,
};
use talksy_unit::rtp::params::MediaKind;
use tokio::sync::mpsc;

use super::server::Server;

/// How long a call may take to stand on a busy machine.
pub const CONNECTING: Duration = Duration::from_secs(20);

/// A small picture of 20 frames/s that costs little, made once for each test binary.
pub fn small_camera() -> Arc<PictureLoop> {
    static CAMERA: Mutex<Option<Arc<PictureLoop>>> = Mutex::new(None);
    let mut camera = CAMERA.lock().unwrap();
    let encode = || {
        let picture = Picture {
            width: 320,
            height: 180,
            bitrate: 150_000,
            ..Picture::numbered(1)
        };
        Arc::new(PictureLoop::encode(&picture).unwrap())
    };
    camera.get_or_insert_with(encode).clone()
}

/// A voice that speaks all the time, made once for each test binary.
pub fn voice() -> Arc<VoiceLoop> {
    static VOICE: Mutex<Option<Arc<VoiceLoop>>> = Mutex::new(None);
    let mut voice = VOICE.lock().unwrap();
    let encode = || Arc::new(VoiceLoop::encode(Sound::numbered(1), Turns::Always).unwrap());
    voice.get_or_insert_with(encode).clone()
}

/// Somebody with camera and microphone.
pub fn publisher(url: &str, room: &str, name: &str) -> ParticipantConfig {
    ParticipantConfig {
        video: Some(small_camera()),
        audio: Some(voice()),
        ..ParticipantConfig::viewer(url, room, name)
    }
}

/// The pauses between the packets of each track that one participant receives.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Vec<Pause>>>);

#[derive(Clone, Copy)]
struct Pause {
    last: Instant,
    longest: Duration,
    packets: u64,
}

impl Watch {
    /// A watch and where the packets go.
    pub fn new() -> (Self, mpsc::Sender<talksy_unit::demo::ReceivedPacket>) {
        let (packets, mut received) = mpsc::channel::<talksy_unit::demo::ReceivedPacket>(4096);
        let watch = Watch::default();
        let tracks = watch.0.clone();
        tokio::spawn(async move {
            while let Some(packet) = received.recv().await {
                let now = Instant::now();
                let mut tracks = tracks.lock().unwrap();
                let missing = (packet.track + 1).saturating_sub(tracks.len());
                tracks.extend(std::iter::repeat_n(Pause::begin(now), missing));
                tracks[packet.track].note(now);
            }
        });
        (watch, packets)
    }

    /// Forgets what was until now.
    pub fn begin(&self) {
        let now = Instant::now();
        for track in self.0.lock().unwrap().iter_mut() {
            *track = Pause::begin(now);
        }
    }

    /// The longest pause of any track since [`Watch::begin`], the present one included.
    pub fn longest(&self) -> Duration {
        let now = Instant::now();
        let tracks = self.0.lock().unwrap();
        let pauses = tracks
            .iter()
            .map(|track| track.longest.max(now - track.last));
        pauses.max().unwrap_or(Duration::MAX)
    }

    /// Packets of all tracks since [`Watch::begin`].
    pub fn packets(&self) -> u64 {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|track| track.packets)
            .sum()
    }
}

impl Pause {
    fn begin(now: Instant) -> Self {
        Pause {
            last: now,
            longest: Duration::ZERO,
            packets: 0,
        }
    }

    fn note(&mut self, now: Instant) {
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        self.packets += 1;
    }
}

/// The two.
pub struct Call {
    /// Each with the watch over what it receives.
    pub members: Vec<(Participant, Watch)>,
}

impl Call {
    /// Both join `room` and receive each other's sound and picture.
    pub async fn start(server: &Server, room: &str) -> Self {
        Self::over(&[&server.socket(), &server.socket()], room).await
    }

    /// One member for each socket address, e.g. that of a relay.
    pub async fn over(sockets: &[&str], room: &str) -> Self {
        let mut members = Vec::new();
        for (n, socket) in sockets.iter().enumerate() {
            let (watch, packets) = Watch::new();
            let config = ParticipantConfig {
                packets: Some(packets),
                ..publisher(socket, room, &format!("member {n}"))
            };
            members.push((Participant::join(config).await.unwrap(), watch));
        }
        let others = sockets.len() - 1;
        for (member, watch) in &mut members {
            let receives = |kind| {
                move |seen: &talksy_unit::demo::Observed| {
                    seen.tracks_of(kind).filter(|t| t.packets > 10).count() == others
                }
            };
            let (sound, picture) = (receives(MediaKind::Audio), receives(MediaKind::Video));
            member
                .wait_until(CONNECTING, |seen| sound(seen) && picture(seen))
                .await
                .unwrap();
            watch.begin();
        }
        Call { members }
    }

    /// Nobody missed anything for longer than a second since the last look; and packets still come.
    ///
    /// # Panics
    /// Otherwise, with `what` went on meanwhile.
    pub async fn is_undisturbed(&mut self, what: &str) {
        for (member, watch) in &mut self.members {
            let before = watch.packets();
            let more = async {
                while watch.packets() < before + 20 {
                    tokio::time::sleep(super::POLL_INTERVAL).await;
                }
            };
            let came = tokio::time::timeout(Duration::from_secs(5), more).await;
            assert!(came.is_ok(), "nothing comes any more after {what}");
            let longest = watch.longest();
            assert!(
                longest < Duration::from_secs(1),
                "{what}: a pause of {longest:?}"
            );
            assert!(
                !member.observed().closed,
                "{what}: a member lost its session"
            );
            watch.begin();
        }
    }
}
