//! The session's rules, one test each, without IO.

mod convergence;
mod liveness;
mod messages;
mod offers;
mod packages;
mod settings;
mod status;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{
    AgentCapabilities as Caps, AgentMessage, ConfigHash, InstanceUid, Limits, Mono, Now, Part, PartSet,
    SequenceNum, ServerCapabilities, Wall, material, pb,
};
use prost::Message as _;

use super::*;
use crate::desired::{Desired, PackagesOffer, RemoteConfigOffer};
use crate::snapshot::{ConnectionInfo, OfferSeed, Principal, StickyFacts};

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
const ALL: u64 = 0xffff;

/// A session with a scripted agent in front of it.
struct Table {
    session: Session,
    out: Outbox,
    now: Now,
    sequence: u64,
    capabilities: u64,
}

impl Table {
    fn on(transport: Transport) -> Self {
        Self::with(transport, SessionSettings::default())
    }

    fn with(transport: Transport, settings: SessionSettings) -> Self {
        let now = at(0);
        let session = Session::new(UID, &settings, now);
        let mut table = Self { session, out: Outbox::new(settings), now, sequence: 0, capabilities: ALL };
        table.attach(transport);
        table
    }

    fn websocket() -> Self {
        Self::on(Transport::WebSocket)
    }

    fn attach(&mut self, transport: Transport) {
        self.input(Input::Attached(connection(transport)));
    }

    fn input(&mut self, input: Input<'_>) -> Vec<pb::ServerToAgent> {
        self.out.clear();
        self.session.handle(input, self.now, &mut self.out).unwrap();
        self.sent()
    }

    fn sent(&self) -> Vec<pb::ServerToAgent> {
        self.out.messages().map(|message| pb::ServerToAgent::decode(&message[1..]).unwrap()).collect()
    }

    /// Sends a message as it is and returns the answers.
    fn raw(&mut self, message: &pb::AgentToServer) -> Result<Vec<pb::ServerToAgent>, SessionError> {
        let bytes = message.encode_to_vec();
        let session = &self.session;
        let message = AgentMessage::decode_knowing(&bytes, &Limits::default(), |_| Some(session)).unwrap();
        let assign = Some(InstanceUid::v7(1_700_000_000_000, [3; 10]));
        self.out.clear();
        self.session.handle(Input::Message { message: &message, assign }, self.now, &mut self.out)?;
        Ok(self.sent())
    }

    /// Sends the next message of the sequence and returns its one answer.
    fn say(&mut self, message: pb::AgentToServer) -> pb::ServerToAgent {
        self.sequence += 1;
        let uid = if message.instance_uid.is_empty() {
            Bytes::copy_from_slice(UID.as_bytes())
        } else {
            message.instance_uid.clone()
        };
        let message = pb::AgentToServer {
            instance_uid: uid,
            sequence_num: self.sequence,
            capabilities: self.capabilities,
            ..message
        };
        let mut answers = self.raw(&message).unwrap();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    fn heartbeat(&mut self) -> pb::ServerToAgent {
        self.say(pb::AgentToServer::default())
    }

    fn full(&mut self) -> pb::ServerToAgent {
        self.say(full_state())
    }

    fn reports(&mut self, hash: &[u8], status: pb::RemoteConfigStatuses) -> pb::ServerToAgent {
        self.say(pb::AgentToServer { remote_config_status: Some(report(hash, status)), ..Default::default() })
    }

    fn desire(&mut self, generation: u64, hash: &[u8]) -> Vec<pb::ServerToAgent> {
        self.input(Input::Desired(desired(generation, hash)));
        self.input(Input::Wake)
    }

    fn pass(&mut self, seconds: u64) {
        self.now = Now {
            mono: self.now.mono + Duration::from_secs(seconds),
            wall: Wall(self.now.wall.0 + seconds * 1000),
        };
    }
}

fn at(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1000), wall: Wall(1_700_000_000_000 + seconds * 1000) }
}

fn connection(transport: Transport) -> Arc<ConnectionInfo> {
    let principal = Principal::anonymous();
    Arc::new(ConnectionInfo { id: 1, transport, remote_addr: None, principal, connected_at: Wall(0) })
}

fn config(text: &str) -> pb::AgentConfigMap {
    let object =
        pb::AgentConfigObject { body: Bytes::copy_from_slice(text.as_bytes()), ..Default::default() };
    pb::AgentConfigMap { config_map: [(String::new(), object)].into() }
}

fn desired(generation: u64, hash: &[u8]) -> Desired {
    let offer = RemoteConfigOffer::new(ConfigHash::new(hash.to_vec()), &config("a: 1"));
    Desired::remote_config(generation, offer)
}

fn report(hash: &[u8], status: pb::RemoteConfigStatuses) -> pb::RemoteConfigStatus {
    let error_message =
        if status == pb::RemoteConfigStatuses::Failed { "no such exporter".into() } else { String::new() };
    pb::RemoteConfigStatus {
        last_remote_config_hash: Bytes::copy_from_slice(hash),
        status: status as i32,
        error_message,
    }
}

fn full_state() -> pb::AgentToServer {
    let attribute = pb::KeyValue {
        key: "service.name".into(),
        value: Some(pb::AnyValue { value: Some(pb::any_value::Value::StringValue("demo".into())) }),
    };
    pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute],
            ..Default::default()
        }),
        health: Some(pb::ComponentHealth { healthy: true, start_time_unix_nano: 5, ..Default::default() }),
        effective_config: Some(pb::EffectiveConfig { config_map: Some(config("a: 0")) }),
        remote_config_status: Some(report(b"", pb::RemoteConfigStatuses::Unset)),
        package_statuses: Some(pb::PackageStatuses::default()),
        available_components: Some(pb::AvailableComponents::default()),
        connection_settings_status: Some(pb::ConnectionSettingsStatus::default()),
        ..Default::default()
    }
}

fn asks_for_full_state(answer: &pb::ServerToAgent) -> bool {
    answer.flags & 1 == 1
}
