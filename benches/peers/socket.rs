//! A WebSocket with JSON messages, blocking.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use super::process::PATIENCE;

/// One connection, with the messages that nobody has asked for yet.
pub struct Socket {
    inner: WebSocket<TcpStream>,
    waiting: VecDeque<Value>,
}

impl Socket {
    /// `None`: nobody listens there yet.
    pub fn open(address: SocketAddr, path: &str, protocol: Option<&'static str>) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        let mut request = format!("ws://{address}{path}").into_client_request().ok()?;
        if let Some(protocol) = protocol {
            let value = http::HeaderValue::from_static(protocol);
            request
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", value);
        }
        let (inner, _) = client(request, stream).ok()?;
        let short = Some(Duration::from_millis(20));
        inner.get_ref().set_read_timeout(short).ok()?;
        Some(Socket {
            inner,
            waiting: VecDeque::new(),
        })
    }

    pub fn send(&mut self, message: &Value) {
        let text = Message::text(message.to_string());
        self.inner.send(text).expect("the server listens");
    }

    /// The first message that `pick` takes.
    pub fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Value) -> Option<T>) -> T {
        let found = self.waiting.iter().enumerate();
        if let Some((at, value)) = found.filter_map(|(at, m)| Some((at, pick(m)?))).next() {
            self.waiting.remove(at);
            return value;
        }
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            match self.inner.read() {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    if let Some(value) = pick(&message) {
                        return value;
                    }
                    self.waiting.push_back(message);
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("while waiting for {what}: {error}"),
            }
        }
        panic!("{what} did not come; what came: {:#?}", self.waiting);
    }
}
