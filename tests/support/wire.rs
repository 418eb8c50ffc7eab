//! A bare signalling socket: says what a test wants, however wrong.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open socket of one client.
pub struct Wire {
    /// For what has no method here.
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What the server called it.
    pub client_id: String,
    /// What it was told of the server.
    pub welcome: Value,
    /// The tracks that it was told of so far, in whichever message.
    pub available: Vec<Value>,
}

impl Wire {
    /// Opens `url` (with its query) and takes `clientid` and `welcome`.
    pub async fn open(url: &str) -> Self {
        let (socket, _) = connect_async(url).await.unwrap();
        let mut wire = Wire {
            socket,
            client_id: String::new(),
            welcome: Value::Null,
            available: Vec::new(),
        };
        let id = wire.expect("clientid").await;
        wire.client_id = id.as_str().unwrap().to_owned();
        wire.welcome = wire.expect("welcome").await;
        wire
    }

    /// Sends a message of the protocol.
    pub async fn say(&mut self, kind: &str, data: Value) {
        self.say_text(json!({"type": kind, "data": data}).to_string())
            .await;
    }

    /// Sends any text.
    pub async fn say_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Closes the socket in good order, as a page does that is left, and waits for the server's end.
    pub async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// The next message: type and data. `None` when the socket has ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let mut message: Value = serde_json::from_str(&text).unwrap();
                    let kind = message["type"].as_str().unwrap().to_owned();
                    assert_eq!(message["status"], json!(kind != "error"), "{text}");
                    let data = message["data"].take();
                    if kind == "tracks_available" {
                        self.available
                            .extend(data.as_object().unwrap().values().cloned());
                    }
                    return Some((kind, data));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The data of the next message of type `kind`; others are skipped.
    ///
    /// # Panics
    /// When it does not come in time, or the socket ends.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let waiting = async {
            loop {
                let Some((found, data)) = self.next().await else {
                    panic!("the socket ended before {kind}");
                };
                if found == kind {
                    return data;
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("no {kind} in time"))
    }

    /// Reads until the server closes; gives the code of its close frame, if it sent one.
    pub async fn closed(&mut self) -> Option<u16> {
        let waiting = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map(|f| f.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(Error::ConnectionClosed)) | None => return None,
                    Some(Err(_)) => return None,
                }
            }
        };
        let closed = tokio::time::timeout(PATIENCE, waiting).await;
        closed.expect("the server closes the socket")
    }
}
