//! Half a minute of changes in a real browser's session: tracks come, go and are muted, others come and go, and offers cross.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use talksy_unit::demo::{Participant, ParticipantConfig, Picture, PictureLoop, Turns, VoiceLoop};
use talksy_unit::rtp::params::MediaKind;

use crate::support::eventually;
use crate::support::media::{BLUE, Camera, RED};
use crate::support::person::Person;
use crate::support::server::Server;
use crate::{HIGH_VOICE, LOW_VOICE, alone};

const ROOM: &str = "changes";
const SEED: u64 = 7;
const STEPS: u32 = 300;
/// Steps between two looks at whether both sides agree.
const LOOK_EVERY: u32 = 15;
/// After the last change; crossing offers are made again after a second of quiet.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
/// Others in the room, at most.
const MAX_OTHERS: usize = 4;

/// What the steps do in the page. `rude()` gives the page leave to offer without asking, so that its offer can cross the
/// server's; `hold()` keeps what the server says from its next offer on, until `release()`.
const CHANGES: &str = r#"
window.extra = [];
window.picture = hue => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 160, height: 90 });
  const paint = canvas.getContext('2d');
  setInterval(() => { paint.fillStyle = `hsl(${hue += 7} 80% 50%)`; paint.fillRect(0, 0, 160, 90); }, 100);
  return canvas.captureStream(5);
};
navigator.mediaDevices.getDisplayMedia = async () => picture(180);
window.add = () => {
  const stream = picture(90), [track] = stream.getTracks();
  extra.push(talksy.pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] }));
};
window.remove = index => { for (const one of extra.splice(index % extra.length, 1)) one.stop(); };
const socket = talksy.socket, send = socket.send, held = [];
let holding = false, releasing = false, rude = false;
const receive = socket.onmessage;
socket.onmessage = event => {
  if (holding && (held.length || JSON.parse(event.data).type === 'offer')) held.push(event);
  else receive.call(socket, event);
};
socket.send = data => {
  if (!rude || JSON.parse(data).type !== 'is_allow_renegotiation') return send.call(socket, data);
  const reply = JSON.stringify({ status: true, type: 'allow_renegotiation', data: true });
  queueMicrotask(() => receive.call(socket, new MessageEvent('message', { data: reply })));
};
window.hold = () => { holding = true; };
window.held = () => held.length;
window.release = () => { holding = rude = false; for (const event of held.splice(0)) receive.call(socket, event); };
window.rude = () => { rude = true; };
"#;

/// The m-lines that both descriptions of a settled page have; null while something is under way, or they differ.
const AGREED: &str = r#"(() => {
  const pc = talksy.pc, lines = sdp => sdp.split('\r\nm=').slice(1).map(section => [
    section.split(' ')[0], section.match(/a=mid:(\S+)/)?.[1], section.match(/^\w+ (\d+)/)[1] === '0',
    section.match(/a=(sendrecv|sendonly|recvonly|inactive)/)?.[1]]);
  if (pc.signalingState !== 'stable' || pc.connectionState !== 'connected') return null;
  const ours = lines(pc.currentLocalDescription.sdp), theirs = lines(pc.currentRemoteDescription.sdp);
  const mirror = { sendrecv: 'sendrecv', sendonly: 'recvonly', recvonly: 'sendonly', inactive: 'inactive' };
  const agree = ours.length === theirs.length && ours.every(([kind, mid, stopped, direction], i) =>
    kind === theirs[i][0] && mid === theirs[i][1] && stopped === theirs[i][2]
    && (stopped || kind === 'application' || direction === mirror[theirs[i][3]]));
  return agree ? ours.length : null;
})()"#;

/// A browser amid the changes, and the others who come and go.
struct Stage {
    server: Server,
    anna: Person,
    others: Vec<Participant>,
    picture: Arc<PictureLoop>,
    voice: Arc<VoiceLoop>,
    random: StdRng,
    crossed: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_sequence_of_changes_leaves_chromium_in_a_session_that_works() {
    let _turn = alone().await;
    let began = Instant::now();
    let mut stage = Stage::open().await;
    for step in 0..STEPS {
        stage.change().await;
        if step % LOOK_EVERY == LOOK_EVERY - 1 {
            stage.agrees().await;
        }
    }
    while stage.others.len() < 2 {
        stage.somebody_joins().await;
    }
    let lines = stage.agrees().await;
    stage.media_flows().await;
    println!(
        "{STEPS} changes in {:?}, {} crossed offers forced, {lines} m-lines",
        began.elapsed(),
        stage.crossed
    );
    assert!(stage.crossed > 3, "the seed has to cross offers");
    // Lines are used again: no more than were in use at once, and those that crossing held for a while.
    assert!(lines <= 30, "{lines} m-lines");
    stage.anna.close_in_good_order().await;
}

impl Stage {
    async fn open() -> Self {
        let server = Server::start(&[]).await;
        let loops = tokio::task::spawn_blocking(|| {
            (
                PictureLoop::encode(&Picture::plain(BLUE)).unwrap(),
                VoiceLoop::encode(HIGH_VOICE, Turns::Always).unwrap(),
            )
        });
        let query = format!("room_id={ROOM}&name=Anna");
        let anna = Person::open(&server, &query, Camera::small(RED), LOW_VOICE).await;
        anna.join().await;
        anna.browser.eval(CHANGES, vec![]).await;
        let (picture, voice) = loops.await.unwrap();
        Stage {
            server,
            anna,
            others: Vec::new(),
            picture: Arc::new(picture),
            voice: Arc::new(voice),
            random: StdRng::seed_from_u64(SEED),
            crossed: 0,
        }
    }

    /// One change, whatever is under way.
    async fn change(&mut self) {
        match self.random.random_range(0..12) {
            0 => self.anna.press("#mute").await,
            1 => self.anna.press("#camera").await,
            2 | 3 => self.anna.press("#screen").await,
            4 | 5 => self.page("extra.length < 3 ? add() : remove(0)").await,
            6 | 7 => {
                let index = self.random.random_range(0..8);
                self.page(&format!("extra.length ? remove({index}) : add()"))
                    .await;
            }
            8 | 9 if self.others.len() < MAX_OTHERS => self.somebody_joins().await,
            8..=10 => self.somebody_leaves().await,
            _ => self.offers_cross().await,
        }
    }

    async fn page(&self, script: &str) {
        self.anna.browser.eval(script, vec![]).await;
    }

    async fn somebody_joins(&mut self) {
        let config = ParticipantConfig {
            video: Some(self.picture.clone()),
            audio: Some(self.voice.clone()),
            ..ParticipantConfig::viewer(&self.server.socket(), ROOM, "Other")
        };
        self.others.push(Participant::join(config).await.unwrap());
    }

    async fn somebody_leaves(&mut self) {
        if !self.others.is_empty() {
            let index = self.random.random_range(0..self.others.len());
            self.others.swap_remove(index).leave().await.unwrap();
        }
    }

    /// The server offers because of a newcomer; before the page hears of it, it makes an offer of its own.
    async fn offers_cross(&mut self) {
        self.agrees().await;
        // From here on: if the page asked now, the reply would be kept behind the offer, and the page would wait for it.
        self.page("rude(); hold();").await;
        let before = self.anna.browser.counted().await["localOffers"].clone();
        self.somebody_joins().await;
        self.anna.wait("held() > 0").await;
        self.page("add()").await;
        self.anna
            .wait(&format!("__bench.localOffers > {before}"))
            .await;
        self.page("release()").await;
        self.crossed += 1;
        if self.others.len() > MAX_OTHERS {
            self.somebody_leaves().await;
        }
        self.page("while (extra.length > 3) remove(0)").await;
    }

    /// Waits until nothing is under way and both sides have the same m-lines; how many.
    async fn agrees(&self) -> u64 {
        eventually(
            "agreement on all m-lines",
            SETTLED_WITHIN,
            async || match self.anna.value(AGREED).await {
                Value::Number(lines) => Ok(lines.as_u64().unwrap()),
                _ => Err(self.anna.value(DESCRIPTIONS).await),
            },
        )
        .await
    }

    /// Both ways: the page decodes and plays everybody, and everybody gets what the page publishes.
    async fn media_flows(&mut self) {
        self.page("if (!talksy.state().cameraOn) document.querySelector('#camera').click();")
            .await;
        self.page("if (!talksy.state().microphoneOn) document.querySelector('#mute').click();")
            .await;
        let others = self.others.len();
        self.anna
            .wait(&format!(
                "talksy.state().cameraOn && talksy.remotes.length === {others} \
                 && talksy.remotes.every(remote => remote.stream.getTracks().length === 2)"
            ))
            .await;
        self.everybody_moves_in_the_page().await;
        for other in &mut self.others {
            let before = other.observed();
            let more = |seen: &talksy_unit::demo::Observed, kind, count| {
                seen.packets_of(kind) > before.packets_of(kind) + count
            };
            other
                .wait_until(SETTLED_WITHIN, |seen| {
                    more(seen, MediaKind::Video, 100) && more(seen, MediaKind::Audio, 100)
                })
                .await
                .unwrap();
        }
    }

    /// Every tile shows new pictures.
    async fn everybody_moves_in_the_page(&self) {
        let times = "talksy.remotes.map(remote => remote.videoElement.getVideoPlaybackQuality().totalVideoFrames)";
        let frames =
            async || -> Vec<u64> { serde_json::from_value(self.anna.value(times).await).unwrap() };
        let before = frames().await;
        eventually("new pictures in every tile", SETTLED_WITHIN, async || {
            let now = frames().await;
            match now.iter().zip(&before).all(|(now, then)| *now > then + 10) {
                true => Ok(()),
                false => Err(json!([before, now])),
            }
        })
        .await;
    }
}

const DESCRIPTIONS: &str = "[talksy.pc.signalingState, talksy.pc.connectionState, talksy.errors, talksy.pc.localDescription.sdp.match(/^(m=\\w+ \\d+|a=(mid|send|recv|inactive).*)/gm)?.join(' '), \
                            talksy.pc.remoteDescription.sdp.match(/^(m=\\w+ \\d+|a=(mid|send|recv|inactive).*)/gm)?.join(' ')]";
