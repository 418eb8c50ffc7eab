use super::*;
use turn_server_proto::types::attribute::{
    ChannelNumber, Data, RequestedTransport, XorRelayedAddress,
};
use turn_server_proto::types::channel::ChannelData;
use turn_server_proto::types::stun::attribute::{Nonce, Realm};
use turn_server_proto::types::stun::message::{LongTermKeyCredentials, Method};
use turn_server_proto::types::stun::prelude::AttributeWrite;

const MEDIA: &str = "203.0.113.9:7882";

struct Bench {
    client: Client,
    begin: Instant,
    key: LongTermKeyCredentials,
    username: String,
    nonce: String,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Bench {
    fn new(policy: PeerPolicy) -> Self {
        let (secret, begin) = (Secret::random(), Instant::now());
        let given = secret.issue("alice", SystemTime::now());
        let remote = at("198.51.100.4:40000");
        let key = LongTermCredentials::new(given.username.clone(), given.password)
            .to_key(REALM.to_owned());
        let listen = at("203.0.113.9:3478");
        Bench {
            client: Client::new(begin, remote, listen, Arc::new(policy), secret),
            begin,
            key,
            username: given.username,
            nonce: String::new(),
        }
    }

    /// With an allocation.
    fn allocated(policy: PeerPolicy) -> Self {
        let mut bench = Bench::new(policy);
        let challenge = bench.exchange(&bench.request(ALLOCATE, &[&RequestedTransport::new(17)]));
        let message = Message::from_bytes(&challenge).unwrap();
        assert_eq!(code(&message), Some(401));
        bench.nonce = message.attribute::<Nonce>().unwrap().nonce().to_owned();
        let request = bench.request(ALLOCATE, &[&RequestedTransport::new(17)]);
        assert_eq!(bench.handle(&request), Ok(None));
        let action = bench.client.poll(bench.begin);
        assert_eq!(action, Ok(Action::Allocate(AddressFamily::IPV4)));
        let relayed = at("127.0.0.1:50000");
        bench
            .client
            .allocated(bench.begin, AddressFamily::IPV4, Ok(relayed));
        let Ok(Action::Reply(reply)) = bench.client.poll(bench.begin) else {
            panic!("no reply");
        };
        let message = Message::from_bytes(&reply).unwrap();
        let told = message.attribute::<XorRelayedAddress>().unwrap();
        assert_eq!(told.addr(message.transaction_id()), relayed);
        bench
    }

    fn request(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        let write = MessageWriteVec::with_capacity(256);
        let mut message = Message::builder_request(method, write);
        for attribute in attributes {
            message.add_attribute(*attribute).unwrap();
        }
        if !self.nonce.is_empty() {
            let name = Username::new(&self.username).unwrap();
            message.add_attribute(&name).unwrap();
            message.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
            message
                .add_attribute(&Nonce::new(&self.nonce).unwrap())
                .unwrap();
            message
                .add_message_integrity(&self.key.clone().into(), IntegrityAlgorithm::Sha1)
                .unwrap();
        }
        message.finish()
    }

    fn handle(&mut self, bytes: &[u8]) -> Result<Option<Action>, (Refusal, Option<Action>)> {
        self.client.handle(self.begin, SystemTime::now(), bytes)
    }

    /// The reply to a message.
    fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self.handle(bytes) {
            Ok(Some(Action::Reply(reply))) | Err((_, Some(Action::Reply(reply)))) => reply,
            Ok(None) => match self.client.poll(self.begin) {
                Ok(Action::Reply(reply)) => reply,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// The error code of a request that names a peer; `None`: success.
    fn permission(&mut self, method: Method, peer: &str) -> Option<u16> {
        let write = MessageWriteVec::with_capacity(256);
        let id = Message::builder_request(method, write).transaction_id();
        let address = XorPeerAddress::new(at(peer), id);
        let channel = ChannelNumber::new(0x4000);
        // The peer's address is written with the transaction's id, so the message has to have that one.
        let write = MessageWriteVec::with_capacity(256);
        let kind = turn_server_proto::types::stun::message::MessageType::from_class_method(
            MessageClass::Request,
            method,
        );
        let mut message = Message::builder(kind, id, write);
        message.add_attribute(&address).unwrap();
        if method == CHANNEL_BIND {
            message.add_attribute(&channel).unwrap();
        }
        message
            .add_attribute(&Username::new(&self.username).unwrap())
            .unwrap();
        message.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
        message
            .add_attribute(&Nonce::new(&self.nonce).unwrap())
            .unwrap();
        message
            .add_message_integrity(&self.key.clone().into(), IntegrityAlgorithm::Sha1)
            .unwrap();
        let reply = self.exchange(&message.finish());
        let reply = Message::from_bytes(&reply).unwrap();
        assert!(
            reply.validate_integrity(&self.key.clone().into()).is_ok(),
            "clients believe signed answers only"
        );
        code(&reply)
    }
}

fn code(message: &Message<'_>) -> Option<u16> {
    message.attribute::<ErrorCode>().ok().map(|e| e.code())
}

fn media_only() -> PeerPolicy {
    PeerPolicy::media_only(&[at(MEDIA)])
}

#[test]
fn permissions_are_given_for_this_servers_media_and_for_nothing_else() {
    let mut bench = Bench::allocated(media_only());
    for peer in [
        "127.0.0.1:7882",
        "10.0.0.1:7882",
        "192.168.1.1:80",
        "8.8.8.8:53",
        "169.254.169.254:80",
    ] {
        for method in [CREATE_PERMISSION, CHANNEL_BIND] {
            assert_eq!(bench.permission(method, peer), Some(403), "{peer}");
        }
    }
    assert_eq!(bench.permission(CHANNEL_BIND, "203.0.113.9:22"), Some(403));
    assert_eq!(bench.permission(CREATE_PERMISSION, MEDIA), None);
    assert_eq!(bench.permission(CHANNEL_BIND, MEDIA), None);
}

#[test]
fn loopback_is_allowed_where_the_media_is_there() {
    let mut bench = Bench::allocated(PeerPolicy::media_only(&[at("127.0.0.1:7882")]));
    assert_eq!(bench.permission(CHANNEL_BIND, "127.0.0.1:7882"), None);
    assert_eq!(bench.permission(CHANNEL_BIND, "127.0.0.1:22"), Some(403));
}

#[test]
fn channel_data_goes_to_the_worker_over_loopback_and_back_as_from_the_advertised_address() {
    let mut bench = Bench::allocated(media_only());
    assert_eq!(bench.permission(CHANNEL_BIND, MEDIA), None);
    let mut data = vec![0x40, 0, 0, 5];
    data.extend(b"hello");
    let way = at("127.77.0.1:7882");
    assert_eq!(
        bench.handle(&data),
        Ok(Some(Action::Relay(way, b"hello".to_vec())))
    );
    let back = bench.client.handle_relayed(bench.begin, way, b"world!");
    let back = back.expect("for the client");
    let channel = ChannelData::parse(&back).unwrap();
    assert_eq!((channel.id(), channel.data()), (0x4000, &b"world!"[..]));
    for stranger in ["127.77.0.1:7883", "127.0.0.1:7882", "8.8.8.8:53"] {
        let relayed = bench.client.handle_relayed(bench.begin, at(stranger), b"x");
        assert_eq!(relayed, None, "{stranger}");
    }
}

#[test]
fn a_permission_is_for_the_address_but_only_media_ports_are_sent_to() {
    let mut bench = Bench::allocated(media_only());
    assert_eq!(bench.permission(CREATE_PERMISSION, MEDIA), None);
    let send = |peer: &str| {
        let write = MessageWriteVec::with_capacity(128);
        let mut message = Message::builder_indication(SEND, write);
        let id = message.transaction_id();
        message
            .add_attribute(&XorPeerAddress::new(at(peer), id))
            .unwrap();
        message.add_attribute(&Data::new(b"payload")).unwrap();
        message.finish()
    };
    let relayed = bench.handle(&send(MEDIA));
    let way = at("127.77.0.1:7882");
    assert_eq!(relayed, Ok(Some(Action::Relay(way, b"payload".to_vec()))));
    let refused = bench.handle(&send("203.0.113.9:22"));
    assert_eq!(refused, Err((Refusal::Forbidden, None)));
}

#[test]
fn wrong_and_expired_credentials_get_no_allocation() {
    for wrong in ["password", "expired", "made up"] {
        let mut bench = Bench::new(media_only());
        let challenge = bench.exchange(&bench.request(ALLOCATE, &[&RequestedTransport::new(17)]));
        let message = Message::from_bytes(&challenge).unwrap();
        bench.nonce = message.attribute::<Nonce>().unwrap().nonce().to_owned();
        match wrong {
            "password" => {
                let name = bench.username.clone();
                bench.key = LongTermCredentials::new(name, "guessed".into()).to_key(REALM.into());
            }
            "expired" => bench.username = "1000:alice".into(),
            _ => bench.username = "alice".into(),
        }
        let reply = bench.exchange(&bench.request(ALLOCATE, &[&RequestedTransport::new(17)]));
        assert_eq!(code(&Message::from_bytes(&reply).unwrap()), Some(401));
        assert!(bench.client.poll(bench.begin).is_err(), "{wrong}");
    }
}

#[test]
fn one_client_has_a_limited_number_of_peers() {
    let mut bench = Bench::allocated(media_only().and("any").unwrap());
    for peer in 0..MAX_PEERS {
        assert_eq!(
            bench.permission(CREATE_PERMISSION, &format!("192.0.2.{peer}:9")),
            None
        );
    }
    let further = bench.permission(CREATE_PERMISSION, "192.0.2.200:9");
    assert_eq!(further, Some(508));
    assert_eq!(bench.permission(CREATE_PERMISSION, "192.0.2.7:9"), None);
}

#[test]
fn an_allocation_that_is_not_refreshed_ends() {
    let mut bench = Bench::allocated(media_only());
    let later = bench.begin + Duration::from_secs(601);
    assert_eq!(bench.client.poll(later), Ok(Action::Release));
}

#[test]
fn the_first_message_of_an_address_is_weighed() {
    let remote = at("198.51.100.4:40000");
    let request =
        |method| Message::builder_request(method, MessageWriteVec::with_capacity(64)).finish();
    assert_eq!(first_message(remote, &request(ALLOCATE)), First::Allocate);
    assert_eq!(
        first_message(remote, &request(CREATE_PERMISSION)),
        First::Stray
    );
    assert_eq!(first_message(remote, b"\x40\0\0\x01x"), First::Stray);
    let First::Binding(reply) = first_message(remote, &request(BINDING)) else {
        panic!("no answer");
    };
    let reply = Message::from_bytes(&reply).unwrap();
    let mapped = reply.attribute::<XorMappedAddress>().unwrap();
    assert_eq!(mapped.addr(reply.transaction_id()), remote);
}
