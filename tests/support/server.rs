//! The server as its users start it: the built binary on free ports. And a static page for tests of the harness itself.

use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::eventually;
use super::process::{Process, free_port, free_udp_ports};

/// One media port for each worker.
const WORKERS: u16 = 2;

/// A running `talksy-unit`. Dropping it sends SIGTERM.
pub struct Server {
    /// The process, e.g. for its output and its end.
    pub process: Process,
    /// The page's and the socket's TCP port.
    pub port: u16,
}

impl Server {
    /// Starts the binary with further `arguments` and waits until it is healthy.
    ///
    /// # Panics
    /// When it is not healthy within 10 s.
    pub async fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_talksy-unit"));
        command
            .args(["--port", &port.to_string()])
            .args(["--media-port", &free_udp_ports(WORKERS).to_string()])
            .args(arguments);
        if !arguments.contains(&"--workers") {
            command.args(["--workers", &WORKERS.to_string()]);
        }
        if !arguments.contains(&"--media-tcp-port") {
            command.args(["--media-tcp-port", &free_port().to_string()]);
        }
        forget_settings(&mut command);
        let mut process = Process::start(command);
        eventually("a healthy server", Duration::from_secs(10), async || {
            if let Some(status) = process.exited() {
                panic!("the server ended at once, {status}: {:?}", process.output());
            }
            match http_get(port, "/healthz").await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        Server { process, port }
    }

    /// Address of the page with `query`; `localhost`, because browsers give cameras to no other insecure origin.
    pub fn page(&self, query: &str) -> String {
        format!("http://localhost:{}/?{query}", self.port)
    }

    /// The page's origin for those who reach the server over a [`super::network::Network`].
    pub fn origin_afar(&self) -> String {
        format!("http://{}:{}", super::network::SERVER, self.port)
    }

    /// Address of the socket.
    pub fn socket(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// A sample of `/metrics`, with its labels as they stand there; 0 where there is none (yet).
    pub async fn metric(&self, sample: &str) -> u64 {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200);
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Media that was dropped for this reason, of `/metrics`.
    pub async fn dropped(&self, stage: &str, reason: &str) -> u64 {
        let sample = format!("talksy_media_drops_total{{stage=\"{stage}\",reason=\"{reason}\"}}");
        self.metric(&sample).await
    }

    /// Messages and sockets that were refused for this reason, of `/metrics`.
    pub async fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("talksy_refusals_total{{reason=\"{reason}\"}}"))
            .await
    }

    /// The address of a worker's media socket, from its announcement.
    ///
    /// # Panics
    /// When the server has not announced one.
    pub fn media_addresses(&self) -> Vec<std::net::SocketAddr> {
        let lines = self.process.output();
        let line = lines
            .iter()
            .find_map(|line| line.strip_prefix("Media: UDP "));
        let list = line.and_then(|line| line.split(" (").next()).unwrap();
        list.split(", ")
            .map(|address| address.parse().unwrap())
            .collect()
    }

    /// Resident memory of the process, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line
            .and_then(|line| line.split_whitespace().next())
            .unwrap();
        kibibytes.parse::<u64>().unwrap() * 1024
    }

    /// Fetches a path: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        http_get(self.port, path).await.unwrap()
    }
}

/// The server's settings in the tester's own environment are not the test's.
fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let fixed = ["PORT", "PUBLIC_IP", "DEBUG", "TURN_ENABLED"];
        if text.starts_with("TALKSY_") || fixed.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
}

/// One GET over a connection of its own.
///
/// # Errors
/// When there is no answer.
pub async fn http_get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(head.to_owned()))?;
    Ok((status, body.to_owned()))
}

/// Serves one page under every path, on a port of its own, until it is dropped.
pub struct StaticPage {
    /// TCP port on loopback.
    pub port: u16,
    serving: JoinHandle<()>,
}

impl StaticPage {
    /// Starts serving `html`.
    pub async fn serve(html: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let length = html.len();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(html.as_bytes()).await;
                });
            }
        });
        StaticPage { port, serving }
    }

    /// The page's address.
    pub fn url(&self) -> String {
        format!("http://localhost:{}/", self.port)
    }
}

impl Drop for StaticPage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
