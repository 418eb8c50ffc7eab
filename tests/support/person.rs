//! Somebody at the server's own page: a browser with a face and a voice, and what its page shows and plays of the others.

use serde_json::Value;
use std::time::{Duration, Instant};
use talksy_unit::demo::Sound;

use super::browser::{Browser, Devices};
use super::eventually;
use super::media::Camera;
use super::network::Client;
use super::server::Server;

/// The element of the mixed picture and sound.
pub const MIXED: &str = "#mixed";

/// Energy (WebRTC's totalAudioEnergy: full-scale power times seconds) that only sound has: 20 ms of speech at -20 dBFS.
const HEARD: f64 = 2e-4;

/// Argument: CSS selector of a video element. Notes in `__seen` each picture that it shows: its width and since when it has
/// it (ms), and the longest time without one.
const WATCH: &str = r#"
const video = document.querySelector(arguments[0]);
const seen = window.__seen = { last: performance.now(), still: 0, width: 0, changes: [] };
const step = (now, picture) => {
  seen.still = Math.max(seen.still, now - seen.last);
  seen.last = now;
  if (picture.width !== seen.width) seen.changes.push([now, picture.width]);
  seen.width = picture.width;
  video.requestVideoFrameCallback(step);
};
video.requestVideoFrameCallback(step);
"#;

/// A browser at the server's page.
pub struct Person {
    /// Their browser.
    pub browser: Browser,
    /// What their microphone picks up.
    pub sound: Option<Sound>,
}

impl Person {
    /// Opens the page with `query`, joins nothing yet.
    pub async fn open(server: &Server, query: &str, camera: Camera, sound: Sound) -> Self {
        Self::at(server, query, Some(camera), Some(sound)).await
    }

    /// Somebody who only watches.
    pub async fn viewer(server: &Server, query: &str) -> Self {
        Self::at(server, &format!("{query}&publish=0"), None, None).await
    }

    /// Opens the page in Firefox, which has a camera and a tone of its own.
    pub async fn in_firefox(server: &Server, query: &str) -> Self {
        Self::visit(Browser::start_firefox().await, &server.page(query), None).await
    }

    /// Opens a page at any address, e.g. behind a bad network.
    pub async fn open_at(url: &str, camera: Camera, sound: Sound) -> Self {
        Self::at_url(url, Some(camera), Some(sound)).await
    }

    /// As [`Person::open`], from a network of their own.
    pub async fn afar(
        server: &Server,
        client: &Client,
        query: &str,
        camera: Camera,
        sound: Sound,
    ) -> Self {
        let devices = Devices {
            camera: Some(camera),
            microphone: Some(sound),
        };
        Self::from_afar(server, client, query, &devices).await
    }

    /// As [`Person::viewer`], from a network of their own.
    pub async fn viewer_afar(server: &Server, client: &Client, query: &str) -> Self {
        let devices = Devices {
            camera: None,
            microphone: None,
        };
        Self::from_afar(server, client, &format!("{query}&publish=0"), &devices).await
    }

    async fn from_afar(server: &Server, client: &Client, query: &str, devices: &Devices) -> Self {
        let origin = server.origin_afar();
        let browser = Browser::start_in(devices, &client.namespace, &origin).await;
        let page = format!("{origin}/?{query}");
        Self::visit(browser, &page, devices.microphone).await
    }

    async fn at(
        server: &Server,
        query: &str,
        camera: Option<Camera>,
        microphone: Option<Sound>,
    ) -> Self {
        Self::at_url(&server.page(query), camera, microphone).await
    }

    async fn at_url(url: &str, camera: Option<Camera>, microphone: Option<Sound>) -> Self {
        let browser = Browser::start(&Devices { camera, microphone }).await;
        Self::visit(browser, url, microphone).await
    }

    async fn visit(browser: Browser, page: &str, sound: Option<Sound>) -> Self {
        browser.goto(page).await;
        browser
            .wait_until("window.talksy", Duration::from_secs(10))
            .await;
        Person { browser, sound }
    }

    /// Presses a button of the page.
    pub async fn press(&self, button: &str) {
        let script = format!("document.querySelector('{button}').click();");
        self.browser.eval(&script, vec![]).await;
    }

    /// Presses Start; when that was.
    pub async fn start(&self) -> Instant {
        let pressed = Instant::now();
        self.press("#start").await;
        pressed
    }

    /// Presses Start and waits for the connection.
    pub async fn join(&self) {
        self.start().await;
        self.wait("talksy.connected").await;
    }

    /// Waits for an expression of the page, 15 s at most.
    pub async fn wait(&self, expression: &str) {
        self.browser
            .wait_until(expression, Duration::from_secs(15))
            .await;
    }

    /// The value of an expression of the page.
    pub async fn value(&self, expression: &str) -> Value {
        self.browser
            .eval(&format!("return {expression};"), vec![])
            .await
    }

    /// The id that the server gave.
    pub async fn id(&self) -> String {
        let id = self.value("talksy.clientId").await;
        id.as_str().unwrap().to_owned()
    }

    /// The tile in which this page shows another client's camera.
    pub fn tile_of(client_id: &str) -> String {
        format!("#remotes [data-client-id=\"{client_id}\"][data-source=media] video")
    }

    /// Waits until pictures are decoded and sound is heard of `streams` others (the mix is one).
    pub async fn sees_and_hears(&self, streams: usize, within: Duration) {
        let what = format!("pictures and sound of {streams}");
        eventually(&what, within, async || {
            let inbound = self.inbound().await;
            let seen = of_kind(&inbound, "video").filter(|t| t["frames"].as_u64() > Some(0));
            let heard = of_kind(&inbound, "audio").filter(|t| t["energy"].as_f64() > Some(HEARD));
            match (seen.count(), heard.count()) {
                (seen, heard) if seen >= streams && heard >= streams => Ok(()),
                _ => Err(inbound),
            }
        })
        .await;
    }

    /// What getStats() says of the tracks that arrive.
    pub async fn inbound(&self) -> Vec<Value> {
        let stats = self.browser.stats().await;
        let mut inbound: Vec<Value> = Vec::new();
        for connection in stats {
            inbound.extend(connection["inbound"].as_array().unwrap().iter().cloned());
        }
        inbound
    }

    /// Frames decoded so far, all tracks together.
    pub async fn frames(&self) -> u64 {
        let inbound = self.inbound().await;
        inbound.iter().filter_map(|t| t["frames"].as_u64()).sum()
    }

    /// Waits until `more` further frames have been decoded.
    pub async fn sees_move(&self, more: u64) {
        let before = self.frames().await;
        eventually(
            "further frames",
            Duration::from_secs(10),
            async || match self.frames().await {
                now if now >= before + more => Ok(()),
                now => Err(format!("{before}, then {now}")),
            },
        )
        .await;
    }

    /// From now on `__seen` in the page tells of the pictures that this element shows.
    pub async fn watches(&self, selector: &str) {
        self.browser.eval(WATCH, vec![selector.into()]).await;
    }

    /// Waits until the element that is watched shows pictures of this width.
    pub async fn sees_width(&self, width: u64, within: Duration) {
        eventually(&format!("{width} pixels"), within, async || {
            match self.value("window.__seen.width").await {
                Value::Number(now) if now.as_u64() == Some(width) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// Likeness of what an element plays with each of `sounds`.
    pub async fn likeness(&self, selector: &str, sounds: &[Sound]) -> Vec<f32> {
        let heard = self.browser.record(selector, Duration::from_secs(3)).await;
        let likeness = |sound: &Sound| heard.likeness(&sound.samples(3.0));
        sounds.iter().map(likeness).collect()
    }

    /// Sentences that the page had to show to its user.
    pub async fn complaints(&self) -> Vec<Value> {
        match self.value("talksy.errors").await {
            Value::Array(errors) => errors,
            other => panic!("{other}"),
        }
    }

    /// Closes the page without complaints: none shown, none in the console.
    pub async fn close_in_good_order(self) {
        let complaints = self.complaints().await;
        assert!(complaints.is_empty(), "{complaints:?}");
        self.browser.close().await;
    }
}

/// The tracks of one kind among those of [`Person::inbound`].
pub fn of_kind<'a>(inbound: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    inbound.iter().filter(move |track| track["kind"] == kind)
}
