//! One headless Firefox with one page, driven through WebDriver BiDi (W3C), which it speaks by itself.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::eventually;
use super::process::{Process, free_port};

/// A fake camera and microphone without a question, no visits to its maker, and candidates that can be reached on loopback.
const SETTINGS: [(&str, &str); 12] = [
    ("media.navigator.streams.fake", "true"),
    ("media.navigator.permission.disabled", "true"),
    ("media.autoplay.default", "0"),
    ("media.peerconnection.ice.loopback", "true"),
    ("media.peerconnection.ice.obfuscate_host_addresses", "false"),
    ("media.gmp-provider.enabled", "false"),
    ("app.update.auto", "false"),
    ("browser.shell.checkDefaultBrowser", "false"),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("services.settings.server", "\"data:,\""),
];

/// A cold start of Firefox on two busy cores.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A session of Firefox.
pub struct Bidi {
    socket: Mutex<(Socket, u64)>,
    context: String,
    // After the socket.
    process: Process,
}

impl Bidi {
    /// Starts Firefox with a profile of its own in `folder`; `preload` is a script that runs before every page's own.
    ///
    /// # Panics
    /// When it is missing or does not come up.
    pub async fn start(folder: &Path, preload: &str) -> Self {
        let profile = folder.join("firefox");
        std::fs::create_dir_all(&profile).unwrap();
        let lines = SETTINGS.map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"));
        std::fs::write(profile.join("user.js"), lines.concat()).unwrap();
        let port = free_port();
        let mut command = Command::new("firefox-esr");
        command
            .args(["--headless", "--no-remote", "--profile"])
            .arg(&profile)
            .args(["--remote-debugging-port", &port.to_string()])
            .env("HOME", folder);
        let mut process = Process::start(command);
        let address = format!("ws://127.0.0.1:{port}/session");
        let socket = eventually("a Firefox session", STARTS_WITHIN, async || {
            if let Some(status) = process.exited() {
                panic!("Firefox ended at once: {status}");
            }
            connect_async(&address).await.map(|(socket, _)| socket)
        })
        .await;
        let mut bidi = Bidi {
            socket: Mutex::new((socket, 0)),
            context: String::new(),
            process,
        };
        bidi.command("session.new", json!({"capabilities": {}}))
            .await;
        let tree = bidi.command("browsingContext.getTree", json!({})).await;
        bidi.context = tree["contexts"][0]["context"].as_str().unwrap().to_owned();
        let preload = json!({"functionDeclaration": format!("() => {{ {preload} }}")});
        bidi.command("script.addPreloadScript", preload).await;
        bidi
    }

    /// Opens an address.
    pub async fn goto(&self, url: &str) {
        let parameters = json!({"context": self.context, "url": url, "wait": "complete"});
        self.command("browsingContext.navigate", parameters).await;
    }

    /// Runs the body of a function with `arguments`; what it returns.
    ///
    /// # Errors
    /// What the script threw.
    pub async fn eval(&self, script: &str, arguments: Vec<Value>) -> Result<Value, String> {
        let function = format!(
            "json => JSON.stringify((function() {{ {script} }}).apply(null, JSON.parse(json)) ?? null)"
        );
        self.call(function, arguments).await
    }

    /// Runs the body of a function whose last argument is the callback for its result.
    ///
    /// # Errors
    /// What the script threw.
    pub async fn eval_async(&self, script: &str, arguments: Vec<Value>) -> Result<Value, String> {
        let function = format!(
            "json => new Promise(done => (function() {{ {script} }}).apply(null, [...JSON.parse(json), done]))\
             .then(value => JSON.stringify(value ?? null))"
        );
        self.call(function, arguments).await
    }

    async fn call(&self, function: String, arguments: Vec<Value>) -> Result<Value, String> {
        let arguments = Value::from(arguments).to_string();
        let parameters = json!({
            "functionDeclaration": function,
            "arguments": [{"type": "string", "value": arguments}],
            "target": {"context": self.context},
            "awaitPromise": true,
        });
        let outcome = self.command("script.callFunction", parameters).await;
        match outcome["result"]["value"].as_str() {
            Some(json) => serde_json::from_str(json).map_err(|e| e.to_string()),
            None => Err(outcome["exceptionDetails"]["text"].to_string()),
        }
    }

    /// Sets the size of the page.
    pub async fn resize(&self, width: u32, height: u32) {
        let viewport = json!({"width": width, "height": height});
        let parameters = json!({"context": self.context, "viewport": viewport});
        self.command("browsingContext.setViewport", parameters)
            .await;
    }

    /// A picture of the page as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let parameters = json!({"context": self.context});
        let picture = self
            .command("browsingContext.captureScreenshot", parameters)
            .await;
        BASE64_STANDARD
            .decode(picture["data"].as_str().unwrap())
            .unwrap()
    }

    /// Closes the page as a user does, and Firefox with it.
    pub async fn close(&self) {
        self.goto("about:blank").await;
        self.command("browser.close", json!({})).await;
    }

    /// Ends it, whatever it does.
    pub fn end(&mut self) {
        self.process.terminate(Duration::from_secs(5));
    }

    /// The result of a command.
    ///
    /// # Panics
    /// When Firefox refuses it or is gone.
    async fn command(&self, method: &str, parameters: Value) -> Value {
        let mut session = self.socket.lock().await;
        session.1 += 1;
        let id = session.1;
        let command = json!({"id": id, "method": method, "params": parameters});
        let sent = session.0.send(Message::text(command.to_string())).await;
        sent.unwrap_or_else(|e| panic!("{method}: {e}"));
        loop {
            let message = session.0.next().await;
            let message = message.unwrap_or_else(|| panic!("{method}: Firefox is gone"));
            let Ok(Message::Text(text)) = message else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["type"] == "success", "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}
