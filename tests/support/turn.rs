//! A TURN client over UDP that asks for what browsers do not: permissions for anybody.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use turn_server_proto::types::attribute::{RequestedTransport, XorPeerAddress};
use turn_server_proto::types::message::{ALLOCATE, CREATE_PERMISSION};
use turn_server_proto::types::stun::attribute::{ErrorCode, Nonce, Realm, Username};
use turn_server_proto::types::stun::message::{
    BINDING, IntegrityAlgorithm, LongTermCredentials, Message, MessageClass, MessageType,
    MessageWriteVec, Method, TransactionId,
};
use turn_server_proto::types::stun::prelude::{AttributeWrite, MessageWrite, MessageWriteExt};

/// UDP, as RFC 8656 numbers it.
const UDP: u8 = 17;

/// See the module's text.
pub struct TurnClient {
    socket: UdpSocket,
    username: String,
    password: String,
    challenge: Option<(String, String)>,
}

impl TurnClient {
    /// At a server, with nothing allocated.
    pub async fn at(server: SocketAddr, username: &str, password: &str) -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        socket.connect(server).await.unwrap();
        TurnClient {
            socket,
            username: username.to_owned(),
            password: password.to_owned(),
            challenge: None,
        }
    }

    /// Asks for an allocation: the error code, if it is refused.
    pub async fn allocate(&mut self) -> Option<u16> {
        let transport = RequestedTransport::new(UDP);
        let reply = self
            .exchange(ALLOCATE, &|_| Box::new(transport.clone()))
            .await;
        let message = Message::from_bytes(&reply).unwrap();
        let text =
            |realm: Realm, nonce: Nonce| (realm.realm().to_owned(), nonce.nonce().to_owned());
        self.challenge = Some(text(
            message.attribute().unwrap(),
            message.attribute().unwrap(),
        ));
        let reply = self
            .exchange(ALLOCATE, &|_| Box::new(transport.clone()))
            .await;
        code(&reply)
    }

    /// Asks for a permission: the error code, if it is refused.
    pub async fn permission(&self, peer: SocketAddr) -> Option<u16> {
        let reply = self
            .exchange(CREATE_PERMISSION, &|id| {
                Box::new(XorPeerAddress::new(peer, id))
            })
            .await;
        code(&reply)
    }

    /// Asks for the own address.
    pub async fn binding(&self) -> Vec<u8> {
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let write = MessageWriteVec::with_capacity(64);
        let message = Message::builder(kind, TransactionId::generate(), write);
        self.ask(&message.finish()).await
    }

    async fn exchange(
        &self,
        method: Method,
        attribute: &dyn Fn(TransactionId) -> Box<dyn AttributeWrite>,
    ) -> Vec<u8> {
        let id = TransactionId::generate();
        let kind = MessageType::from_class_method(MessageClass::Request, method);
        let request = {
            let mut message = Message::builder(kind, id, MessageWriteVec::with_capacity(256));
            message.add_attribute(&*attribute(id)).unwrap();
            if let Some((realm, nonce)) = &self.challenge {
                let name = Username::new(&self.username).unwrap();
                message.add_attribute(&name).unwrap();
                message.add_attribute(&Realm::new(realm).unwrap()).unwrap();
                message.add_attribute(&Nonce::new(nonce).unwrap()).unwrap();
                let key = LongTermCredentials::new(self.username.clone(), self.password.clone())
                    .to_key(realm.clone());
                message
                    .add_message_integrity(&key.into(), IntegrityAlgorithm::Sha1)
                    .unwrap();
            }
            message.finish()
        };
        self.ask(&request).await
    }

    async fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.socket.send(request).await.unwrap();
        let mut reply = vec![0; 1500];
        let received = tokio::time::timeout(Duration::from_secs(5), self.socket.recv(&mut reply));
        let length = received.await.expect("an answer").unwrap();
        reply.truncate(length);
        reply
    }
}

fn code(reply: &[u8]) -> Option<u16> {
    let message = Message::from_bytes(reply).unwrap();
    message.attribute::<ErrorCode>().ok().map(|e| e.code())
}
