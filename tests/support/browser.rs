//! One headless browser with a camera and a microphone of its own: Chromium, driven through chromedriver, or Firefox.

use fantoccini::error::CmdError;
use fantoccini::wd::{TimeoutConfiguration, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use talksy_unit::demo::Sound;
use tempfile::TempDir;

use super::analysis::Recording;
use super::bidi::Bidi;
use super::media::{Camera, write_wav};
use super::network::namespace::Namespace;
use super::process::{Process, end_marked, free_port};
use super::{eventually, page};

/// What tests found to work on headless Debian machines.
const FLAGS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
];

/// Longest asynchronous script.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);

/// What the browser's user looks and sounds like.
#[derive(Clone, Debug)]
pub struct Devices {
    /// The camera; without it Chromium's own test pattern.
    pub camera: Option<Camera>,
    /// The microphone; without it Chromium's own beeps.
    pub microphone: Option<Sound>,
}

/// A running browser with one page. Dropping it ends its processes and removes its files.
pub struct Browser {
    driver: Driver,
    folder: TempDir,
}

/// The way into a browser.
enum Driver {
    Chromium {
        client: Client,
        // After the client: chromedriver goes when the session is no longer wanted.
        driver: Process,
    },
    Firefox(Box<Bidi>),
}

impl Browser {
    /// Starts chromedriver and Chromium.
    ///
    /// # Panics
    /// When one of them is missing or does not come up.
    pub async fn start(devices: &Devices) -> Self {
        Self::launch(devices, None).await
    }

    /// Starts Firefox, with the test picture and the tone that it makes itself.
    ///
    /// # Panics
    /// When it is missing or does not come up.
    pub async fn start_firefox() -> Self {
        let folder = folder();
        let driver = Driver::Firefox(Box::new(Bidi::start(folder.path(), page::HOOKS).await));
        Browser { driver, folder }
    }

    /// As [`Browser::start`], but inside a namespace, where the pages of `origin` may use the camera as well.
    pub async fn start_in(devices: &Devices, place: &Arc<Namespace>, origin: &str) -> Self {
        Self::launch(devices, Some((place, origin))).await
    }

    async fn launch(devices: &Devices, place: Option<(&Arc<Namespace>, &str)>) -> Self {
        let folder = folder();
        let driver_port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={driver_port}"));
        let mut capabilities = capabilities(devices, &folder);
        let (driver, address): (Process, SocketAddr) = match place {
            None => (
                Process::start(command),
                (Ipv4Addr::LOCALHOST, driver_port).into(),
            ),
            Some((place, origin)) => {
                let flag = format!("--unsafely-treat-insecure-origin-as-secure={origin}");
                add_flag(&mut capabilities, &flag);
                let driver = place.run(move || Process::start(command));
                (driver, place.doorway(driver_port).await)
            }
        };
        let address = format!("http://{address}");
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        // chromedriver needs a moment to listen; a Chromium that is missing fails every time and says so.
        let client = eventually("a Chromium session", Duration::from_secs(30), async || {
            builder.connect(&address).await
        })
        .await;
        let timeouts = TimeoutConfiguration::new(Some(SCRIPT_TIMEOUT), None, None);
        client.update_timeouts(timeouts).await.unwrap();
        let driver = Driver::Chromium { client, driver };
        let browser = Browser { driver, folder };
        browser
            .devtools(
                "Page.addScriptToEvaluateOnNewDocument",
                json!({"source": page::HOOKS}),
            )
            .await;
        browser
    }

    /// Opens an address.
    pub async fn goto(&self, url: &str) {
        match &self.driver {
            Driver::Chromium { client, .. } => client.goto(url).await.unwrap(),
            Driver::Firefox(bidi) => bidi.goto(url).await,
        }
    }

    /// Runs the body of a function with `arguments`; what it returns.
    ///
    /// # Panics
    /// When the script throws.
    pub async fn eval(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.try_eval(script, arguments)
            .await
            .unwrap_or_else(|e| panic!("{script}\n{e}"))
    }

    async fn try_eval(&self, script: &str, arguments: Vec<Value>) -> Result<Value, String> {
        match &self.driver {
            Driver::Chromium { client, .. } => {
                let value = client.execute(script, arguments).await;
                value.map_err(|e: CmdError| e.to_string())
            }
            Driver::Firefox(bidi) => bidi.eval(script, arguments).await,
        }
    }

    /// Runs the body of a function whose last argument is the callback for its result.
    ///
    /// # Panics
    /// When the script throws, takes longer than a minute or gives `{error}`.
    pub async fn eval_async(&self, script: &str, arguments: Vec<Value>) -> Value {
        let value = match &self.driver {
            Driver::Chromium { client, .. } => {
                let value = client.execute_async(script, arguments).await;
                value.map_err(|e| e.to_string())
            }
            Driver::Firefox(bidi) => bidi.eval_async(script, arguments).await,
        };
        let value = value.unwrap_or_else(|e| panic!("{script}\n{e}"));
        if let Some(error) = value.get("error").and_then(Value::as_str) {
            panic!("{script}\n{error}");
        }
        value
    }

    /// Waits until the JavaScript expression is true.
    ///
    /// # Panics
    /// When it is not in time; says what the page's console had.
    pub async fn wait_until(&self, expression: &str, within: Duration) {
        let script = format!("return Boolean({expression});");
        let waiting = eventually(expression, within, async || {
            match self.try_eval(&script, vec![]).await {
                Ok(Value::Bool(true)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        waiting.await;
    }

    /// Colours of a `<video>` at points given in shares of its size, once it shows a picture.
    pub async fn pixels(&self, selector: &str, points: &[(f32, f32)]) -> Vec<[u8; 3]> {
        let arguments = vec![json!(selector), json!(points)];
        eventually(
            &format!("a picture in {selector}"),
            Duration::from_secs(10),
            async || {
                let value = self.try_eval(page::PIXELS, arguments.clone()).await?;
                serde_json::from_value(value).map_err(|e| e.to_string())
            },
        )
        .await
    }

    /// Records what a media element plays.
    pub async fn record(&self, selector: &str, duration: Duration) -> Recording {
        let arguments = vec![json!(selector), json!(duration.as_millis() as u64)];
        let value = self.eval_async(page::RECORD, arguments).await;
        let samples: Vec<i16> = serde_json::from_value(value["samples"].clone()).unwrap();
        Recording {
            samples: samples
                .into_iter()
                .map(|s| f32::from(s) / 32_768.0)
                .collect(),
        }
    }

    /// Figures of the page's peer connections; see [`page::STATS`].
    pub async fn stats(&self) -> Vec<Value> {
        match self.eval_async(page::STATS, vec![]).await {
            Value::Array(connections) => connections,
            other => panic!("{other}"),
        }
    }

    /// What the page's hooks have counted; see [`page::HOOKS`].
    pub async fn counted(&self) -> Value {
        let script = "const b = window.__bench; return { remoteOffers: b.remoteOffers, remoteAnswers: b.remoteAnswers, \
                      localOffers: b.localOffers, messages: b.messages, connections: b.pcs.length };";
        self.eval(script, vec![]).await
    }

    /// A picture of the page as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        match &self.driver {
            Driver::Chromium { client, .. } => client.screenshot().await.unwrap(),
            Driver::Firefox(bidi) => bidi.screenshot().await,
        }
    }

    /// Sets the size of the window.
    pub async fn resize(&self, width: u32, height: u32) {
        match &self.driver {
            Driver::Chromium { client, .. } => client.set_window_size(width, height).await.unwrap(),
            Driver::Firefox(bidi) => bidi.resize(width, height).await,
        }
    }

    /// What the page has written to its console since the last call, errors that nobody caught included.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.command("se/log", json!({"type": "browser"})).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|entry| format!("{} {}", text(&entry["level"]), text(&entry["message"])))
            .collect()
    }

    /// Sends a command of the Chrome DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command(
            "goog/cdp/execute",
            json!({"cmd": command, "params": parameters}),
        )
        .await
    }

    async fn command(&self, path: &'static str, body: Value) -> Value {
        let Driver::Chromium { client, .. } = &self.driver else {
            panic!("Firefox knows no {path}");
        };
        let answer = client.issue_cmd(DriverCommand { path, body }).await;
        answer.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// What the command lines of all its processes contain, and no other's.
    pub fn mark(&self) -> String {
        self.folder.path().to_string_lossy().into_owned()
    }

    /// Closes the page as a user does, and the browser with it.
    pub async fn close(self) {
        match &self.driver {
            Driver::Chromium { client, .. } => {
                let _ = client.clone().close().await;
            }
            Driver::Firefox(bidi) => bidi.close().await,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        match &mut self.driver {
            Driver::Chromium { driver, .. } => {
                driver.terminate(Duration::from_secs(2));
            }
            Driver::Firefox(bidi) => bidi.end(),
        }
        // A session that was not closed leaves its Chromium behind.
        end_marked(&self.mark());
    }
}

/// For its profile and its devices; its name marks its processes.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("talksy-browser-").tempdir();
    folder.unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn capabilities(devices: &Devices, folder: &TempDir) -> Map<String, Value> {
    let path = |name: &str| folder.path().join(name);
    let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
    flags.push(format!("--user-data-dir={}", path("profile").display()));
    if let Some(camera) = devices.camera {
        camera.write_y4m(&path("camera.y4m"));
        flags.push(format!(
            "--use-file-for-fake-video-capture={}",
            path("camera.y4m").display()
        ));
    }
    if let Some(sound) = devices.microphone {
        write_wav(sound, &path("microphone.wav"));
        flags.push(format!(
            "--use-file-for-fake-audio-capture={}",
            path("microphone.wav").display()
        ));
    }
    let capabilities = json!({
        "browserName": "chrome",
        "acceptInsecureCerts": true,
        "goog:chromeOptions": {"args": flags},
        "goog:loggingPrefs": {"browser": "ALL"},
    });
    match capabilities {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn add_flag(capabilities: &mut Map<String, Value>, flag: &str) {
    if let Value::Array(flags) = &mut capabilities["goog:chromeOptions"]["args"] {
        flags.push(json!(flag));
    }
}

/// A command of chromedriver's own, POST below the session.
#[derive(Debug)]
struct DriverCommand {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for DriverCommand {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.path
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}
