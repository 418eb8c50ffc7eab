//! Data channels of one peer: SCTP over DTLS (RFC 8831) with DCEP (RFC 8832). The peer opens the association,
//! either side opens channels.
//!
//! The only file that names `rtc::sctp` and `rtc::datachannel`. What they want to be met with: an endpoint takes
//! 100 000 associations unless it is told not to, and makes another one of every repeated INIT; an association is
//! `Closed` until it is established; a stream's reset is reported as `AssociationLost`; streams cannot
//! be read before `Connected`; `Readable` comes once, not per message; a DCEP message of an internal type panics
//! when it is short, so that only openings and acknowledgements get through.

use super::TransportError;
use super::drops::{DropReason, Drops};
use super::dtls::PEER;
use bytes::{Bytes, BytesMut};
use rtc::datachannel::data_channel::{DataChannel, DataChannelConfig, DataChannelMessage};
use rtc::sansio::Protocol;
use rtc::sctp::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};
use rtc::shared::TransportProtocol;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

/// Longest message in either direction, in bytes: what `a=max-message-size` should say. Longer ones are dropped.
pub const MAX_MESSAGE_SIZE: usize = 65_536;
/// Channels that are open at once. Further openings are ignored.
const MAX_CHANNELS: usize = 16;
/// Longest label. A channel with a longer one is ignored.
const MAX_LABEL: usize = 256;
/// Bytes that wait for acknowledgement on a channel. A message beyond is refused: its sender decides what to do.
const MAX_BUFFERED: usize = 262_144;
/// Bytes that a peer may have under way to us.
const RECEIVE_BUFFER: u32 = 262_144;
/// Answers to INITs that the peer may still choose, and INITs in all: it repeats one whose answer was lost. The
/// oldest answer gives way; INITs beyond are refused.
const MAX_PENDING: usize = 4;
const MAX_INITS: u32 = 32;
/// Message types of DCEP (RFC 8832, section 8.2.1).
const DCEP_ACK: u8 = 2;
const DCEP_OPEN: u8 = 3;
/// First and highest stream of ours: the DTLS server has the odd ones (RFC 8832, section 6). None is used twice, so
/// that a late reset cannot hit a newer channel.
const FIRST_STREAM: u16 = 1;
const LAST_STREAM: u16 = 1023;

/// What happened on the channels.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChannelEvent {
    Open { label: String },
    Text { label: String, text: String },
    Binary { label: String, data: BytesMut },
    Closed { label: String },
}

/// See the module's documentation.
pub(super) struct Channels {
    endpoint: Endpoint,
    /// One per INIT, until the peer has chosen one of our answers.
    pending: VecDeque<Live>,
    inits: u32,
    association: Option<Live>,
    channels: BTreeMap<u16, Channel>,
    wanted: VecDeque<String>,
    next_stream: u16,
    out: VecDeque<Bytes>,
    events: VecDeque<ChannelEvent>,
}

struct Live {
    handle: AssociationHandle,
    association: Association,
    readable: BTreeSet<u16>,
}

struct Channel {
    dcep: DataChannel,
    open: bool,
}

impl Channels {
    pub(super) fn new() -> Self {
        let config = TransportConfig::default()
            .with_max_message_size(MAX_MESSAGE_SIZE as u32)
            .with_max_receive_buffer_size(RECEIVE_BUFFER)
            .with_max_num_inbound_streams(LAST_STREAM + 1)
            .with_max_num_outbound_streams(LAST_STREAM + 1);
        let endpoint = Endpoint::new(
            PEER,
            TransportProtocol::UDP,
            EndpointConfig::default().into(),
            Some(ServerConfig::new(config).into()),
        );
        Channels {
            endpoint,
            pending: VecDeque::new(),
            inits: 0,
            association: None,
            channels: BTreeMap::new(),
            wanted: VecDeque::new(),
            next_stream: FIRST_STREAM,
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Asks for a channel; it is opened when there is an association.
    pub(super) fn open(&mut self, now: Instant, label: &str, drops: &mut Drops) {
        if self.wanted.len() + self.channels.len() < MAX_CHANNELS && label.len() <= MAX_LABEL {
            self.wanted.push_back(label.to_owned());
        } else {
            drops.add(DropReason::TooManyChannels);
        }
        self.drive(now, drops);
    }

    /// Sends text on the open channel of this label.
    pub(super) fn send_text(
        &mut self,
        now: Instant,
        label: &str,
        text: &str,
        drops: &mut Drops,
    ) -> Result<(), TransportError> {
        if text.len() > MAX_MESSAGE_SIZE {
            return Err(TransportError::MessageTooLong);
        }
        let found = self
            .channels
            .iter_mut()
            .find(|(_, channel)| channel.open && channel.dcep.config().label == label);
        let (Some((stream, channel)), Some(live)) = (found, self.association.as_mut()) else {
            return Err(TransportError::ChannelNotOpen);
        };
        let buffered = live
            .association
            .stream(*stream)
            .and_then(|stream| stream.buffered_amount())
            .map_err(|_| TransportError::ChannelNotOpen)?;
        if buffered + text.len() > MAX_BUFFERED {
            return Err(TransportError::ChannelFull);
        }
        let message = DataChannel::get_data_channel_message(true, BytesMut::from(text));
        channel
            .dcep
            .handle_write(message)
            .map_err(|_| TransportError::ChannelNotOpen)?;
        self.drive(now, drops);
        Ok(())
    }

    /// An SCTP packet.
    pub(super) fn handle_read(&mut self, now: Instant, packet: BytesMut, drops: &mut Drops) {
        match self.endpoint.handle(now, PEER, None, packet.freeze()) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.add_pending(Live {
                    handle,
                    association,
                    readable: BTreeSet::new(),
                });
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                let mut all = self.association.iter_mut().chain(&mut self.pending);
                match all.find(|live| live.handle == handle) {
                    Some(live) => live.association.handle_event(event),
                    None => drops.add(DropReason::SctpUnexpected),
                }
            }
            Some(_) | None => drops.add(DropReason::SctpUnexpected),
        }
        self.drive(now, drops);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, drops: &mut Drops) {
        if let Some(live) = self.association.as_mut()
            && live
                .association
                .poll_timeout()
                .is_some_and(|due| due <= now)
        {
            live.association.handle_timeout(now);
            self.drive(now, drops);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.association.as_ref()?.association.poll_timeout()
    }

    /// An SCTP packet to send.
    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// Ends the association with an ABORT, as `close()` of a peer connection does (RFC 8831, section 6.2).
    pub(super) fn close(&mut self, now: Instant, drops: &mut Drops) {
        if let Some(live) = self.association.as_mut() {
            let _ = live.association.abort();
        }
        self.drive(now, drops);
    }

    fn add_pending(&mut self, live: Live) {
        self.inits += 1;
        if self.inits >= MAX_INITS {
            self.endpoint.reject_new_associations();
        }
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(live);
    }

    /// Answers INITs, and makes the association of the one that is established.
    fn drive_pending(&mut self, now: Instant) {
        let mut established = None;
        for (at, live) in self.pending.iter_mut().enumerate() {
            while let Some(event) = live.association.poll() {
                match event {
                    Event::Connected => established = Some(at),
                    Event::Stream(StreamEvent::Readable { id }) => {
                        live.readable.insert(id);
                    }
                    _ => {}
                }
            }
            transmit(live, now, &mut self.out);
        }
        if let Some(live) = established.and_then(|at| self.pending.remove(at)) {
            // RFC 8261, section 6: one association over a DTLS connection.
            self.endpoint.reject_new_associations();
            self.pending.clear();
            self.association = Some(live);
        }
    }

    /// Takes what the association has, and gives it what waits.
    fn drive(&mut self, now: Instant, drops: &mut Drops) {
        self.drive_pending(now);
        self.take_events();
        self.read_streams(drops);
        self.open_wanted();
        self.write_streams(now);
        let Some(live) = self.association.as_mut() else {
            return;
        };
        transmit(live, now, &mut self.out);
        while let Some(event) = live.association.poll_endpoint_event() {
            self.endpoint.handle_event(live.handle, event);
        }
        if live.association.is_closed() {
            self.association = None;
            for (_, channel) in std::mem::take(&mut self.channels) {
                report_closed(channel, &mut self.events);
            }
        }
    }

    fn take_events(&mut self) {
        let Some(live) = self.association.as_mut() else {
            return;
        };
        while let Some(event) = live.association.poll() {
            match event {
                Event::AssociationLost { id, .. } => {
                    live.readable.remove(&id);
                    if let Some(channel) = self.channels.remove(&id) {
                        report_closed(channel, &mut self.events);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => {
                    live.readable.insert(id);
                }
                _ => {}
            }
        }
    }

    fn read_streams(&mut self, drops: &mut Drops) {
        let Some(live) = self.association.as_mut() else {
            return;
        };
        let handle = live.handle.0;
        let mut messages = Vec::new();
        for stream_id in std::mem::take(&mut live.readable) {
            let Ok(mut stream) = live.association.stream(stream_id) else {
                continue;
            };
            while let Ok(Some(chunks)) = stream.read_sctp() {
                match chunks.to_payload(MAX_MESSAGE_SIZE) {
                    Ok(payload) => messages.push(DataChannelMessage {
                        association_handle: handle,
                        stream_id,
                        ppi: chunks.ppi,
                        payload,
                        negotiated: false,
                    }),
                    Err(_) => drops.add(DropReason::MessageTooLong),
                }
            }
        }
        for message in messages {
            self.read_message(message, drops);
        }
    }

    fn read_message(&mut self, message: DataChannelMessage, drops: &mut Drops) {
        let is_known = self.channels.contains_key(&message.stream_id);
        let expected = if is_known { DCEP_ACK } else { DCEP_OPEN };
        if message.ppi == Ppid::Dcep && message.payload.first() != Some(&expected) {
            drops.add(DropReason::ChannelUnknown);
            return;
        }
        let Some(channel) = self.channels.get_mut(&message.stream_id) else {
            match self.accept(&message) {
                Ok(()) => {}
                Err(reason) => drops.add(reason),
            }
            return;
        };
        if channel.dcep.handle_read(message).is_err() {
            drops.add(DropReason::ChannelUnknown);
        }
        let label = &channel.dcep.config().label;
        if channel.dcep.is_handshake_complete() && !channel.open {
            channel.open = true;
            let label = label.clone();
            self.events.push_back(ChannelEvent::Open { label });
        }
        while let Some(message) = channel.dcep.poll_read() {
            let label = channel.dcep.config().label.clone();
            match user_message(label, message) {
                Ok(event) => self.events.push_back(event),
                Err(reason) => drops.add(reason),
            }
        }
    }

    /// A channel that the peer opens.
    fn accept(&mut self, message: &DataChannelMessage) -> Result<(), DropReason> {
        if self.channels.len() >= MAX_CHANNELS {
            return Err(DropReason::TooManyChannels);
        }
        let dcep = DataChannel::accept(
            DataChannelConfig::default(),
            message.association_handle,
            message.stream_id,
            message.ppi,
            &message.payload,
        )
        .map_err(|_| DropReason::ChannelUnknown)?;
        let label = dcep.config().label.clone();
        if label.len() > MAX_LABEL {
            return Err(DropReason::TooManyChannels);
        }
        if let Some(live) = self.association.as_mut()
            && let Ok(mut stream) = live.association.stream(message.stream_id)
        {
            let (unordered, reliability) =
                DataChannel::get_reliability_params(dcep.config().channel_type);
            let value = dcep.config().reliability_parameter;
            let _ = stream.set_reliability_params(unordered, reliability, value);
        }
        let channel = Channel { dcep, open: true };
        self.channels.insert(message.stream_id, channel);
        self.events.push_back(ChannelEvent::Open { label });
        Ok(())
    }

    fn open_wanted(&mut self) {
        let Some(live) = self.association.as_mut() else {
            return;
        };
        while self.next_stream <= LAST_STREAM
            && let Some(label) = self.wanted.pop_front()
        {
            let id = self.next_stream;
            self.next_stream += 2;
            let config = DataChannelConfig {
                label,
                ..DataChannelConfig::default()
            };
            let opened = live
                .association
                .open_stream(id, Ppid::Dcep)
                .and_then(|mut stream| {
                    stream.set_reliability_params(false, ReliabilityType::Reliable, 0)?;
                    DataChannel::dial(config, live.handle.0, id)
                });
            if let Ok(dcep) = opened {
                self.channels.insert(id, Channel { dcep, open: false });
            }
        }
    }

    fn write_streams(&mut self, now: Instant) {
        let Some(live) = self.association.as_mut() else {
            return;
        };
        for (id, channel) in &mut self.channels {
            while let Some(message) = channel.dcep.poll_write() {
                if let Ok(mut stream) = live.association.stream(*id) {
                    let payload = message.payload.freeze();
                    let _ = stream.write_chunk_with_ppi(now, &payload, message.ppi);
                }
            }
        }
    }
}

fn transmit(live: &mut Live, now: Instant, out: &mut VecDeque<Bytes>) {
    while let Some(transmit) = live.association.poll_transmit(now) {
        if let Payload::RawEncode(packets) = transmit.message {
            out.extend(packets);
        }
    }
}

/// The event of a user message. Empty ones travel as one zero byte (RFC 8831, section 6.6).
fn user_message(label: String, message: DataChannelMessage) -> Result<ChannelEvent, DropReason> {
    match message.ppi {
        Ppid::String => String::from_utf8(message.payload.into())
            .map(|text| ChannelEvent::Text { label, text })
            .map_err(|_| DropReason::TextNotUtf8),
        Ppid::StringEmpty => Ok(ChannelEvent::Text {
            label,
            text: String::new(),
        }),
        Ppid::Binary => Ok(ChannelEvent::Binary {
            label,
            data: message.payload,
        }),
        Ppid::BinaryEmpty => Ok(ChannelEvent::Binary {
            label,
            data: BytesMut::new(),
        }),
        _ => Err(DropReason::ChannelUnknown),
    }
}

/// A channel that was never open was never reported.
fn report_closed(channel: Channel, events: &mut VecDeque<ChannelEvent>) {
    if channel.open {
        events.push_back(ChannelEvent::Closed {
            label: channel.dcep.config().label.clone(),
        });
    }
}
