//! A server: its session for the agent, and what a driver keeps beside.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use opamp_client::{InstanceUid, Transport};
use opamp_proto::{AgentMessage, Limits, Mono, Now, Part, pb};
use opamp_server::session::{Input, Outbox, Session, SessionSettings};
use opamp_server::{
    AgentSnapshot, ConnectionInfo, CustomCapabilities, CustomError, CustomMessage, Desired, DisconnectReason,
    Liveness, Principal,
};
use prost::Message as _;

use super::agent::CUSTOM;

pub(crate) struct Server {
    session: Session,
    out: Outbox,
    /// Complete lists of components by their hash.
    components: BTreeMap<Bytes, Bytes>,
    connections: u64,
    /// Numbers in the custom messages that came, in order.
    pub(crate) custom: Vec<u64>,
}

impl Server {
    pub(crate) fn new(uid: InstanceUid, desired: &Desired, now: Now) -> Self {
        let custom_capabilities = CustomCapabilities::new([CUSTOM, "com.example.server"]).expect("names");
        let settings = SessionSettings { custom_capabilities, ..SessionSettings::default() };
        let mut server = Self {
            session: Session::new(uid, &settings, now),
            out: Outbox::new(settings),
            components: BTreeMap::new(),
            connections: 0,
            custom: Vec::new(),
        };
        server.handle(Input::Desired(desired.clone()), now);
        server
    }

    /// The process ends and another begins, which knows what is desired and nothing else.
    pub(crate) fn restart(&mut self, uid: InstanceUid, desired: &Desired, now: Now) {
        let custom = std::mem::take(&mut self.custom);
        *self = Self { custom, ..Self::new(uid, desired, now) };
    }

    /// The agent has another identity from now on, and is somebody new.
    pub(crate) fn forget(&mut self, uid: InstanceUid, desired: &Desired, now: Now) {
        let settings = self.out.settings().clone();
        self.session = Session::new(uid, &settings, now);
        self.handle(Input::Desired(desired.clone()), now);
    }

    /// Takes something in; what is to be sent, as WebSocket messages.
    pub(crate) fn handle(&mut self, input: Input<'_>, now: Now) -> Vec<Vec<u8>> {
        self.out.clear();
        self.session.handle(input, now, &mut self.out).expect("nothing the agent says is refused");
        if let Some(message) = self.out.take_custom() {
            assert_eq!(message.capability, CUSTOM);
            self.custom.push(u64::from_le_bytes(message.data[..].try_into().expect("a number")));
        }
        self.out.messages().map(<[u8]>::to_vec).collect()
    }

    /// A message of the agent, without its header.
    pub(crate) fn receive(&mut self, payload: &[u8], assign: InstanceUid, now: Now) -> Vec<Vec<u8>> {
        let message = AgentMessage::decode(payload, &Limits::default()).expect("a message");
        if let Some(part) = message.part(Part::AvailableComponents) {
            self.share_components(part, now);
        }
        self.handle(Input::Message { message: &message, assign: Some(assign) }, now)
    }

    /// What a driver does with lists of components: kept by their hash for all agents.
    fn share_components(&mut self, part: &[u8], now: Now) {
        let report = pb::AvailableComponents::decode(part).expect("it was checked");
        if !report.components.is_empty() {
            self.components.insert(report.hash.clone(), Bytes::copy_from_slice(part));
        }
        if let Some(list) = self.components.get(&report.hash).cloned() {
            self.handle(Input::Components(list), now);
        }
    }

    pub(crate) fn attach(&mut self, transport: Transport, now: Now) {
        self.connections += 1;
        let transport = match transport {
            Transport::WebSocket => opamp_server::Transport::WebSocket,
            Transport::Http => opamp_server::Transport::Http,
        };
        let info = ConnectionInfo {
            id: self.connections,
            transport,
            remote_addr: None,
            principal: Principal::anonymous(),
            connected_at: now.wall,
        };
        self.handle(Input::Attached(Arc::new(info)), now);
    }

    pub(crate) fn detach(&mut self, now: Now) {
        self.handle(Input::Detached(DisconnectReason::Closed), now);
    }

    pub(crate) fn send_custom(&mut self, number: u64) -> Result<(), CustomError> {
        let data = number.to_le_bytes().to_vec().into();
        let message = CustomMessage { capability: CUSTOM.to_owned(), kind: "number".to_owned(), data };
        let settings = self.out.settings().clone();
        self.session.queue_custom(message, &settings)
    }

    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.session.deadline(self.out.settings())
    }

    pub(crate) fn liveness(&self) -> Liveness {
        self.session.liveness()
    }

    pub(crate) fn uid(&self) -> InstanceUid {
        self.session.uid()
    }

    pub(crate) fn snapshot(&self) -> AgentSnapshot {
        self.session.snapshot()
    }
}
