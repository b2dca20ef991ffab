//! However much comes in, a session keeps no more than its limits allow.

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use opamp_client::packages::{OfferLimits, PackagesRejected};
use opamp_client::session::{self as agent, EndpointInfo, Output, Setup};
use opamp_client::{Description, InstanceUid, SavedState, Transport};
use opamp_proto::{AgentMessage, Limits, Mono, Now, Wall, pb};
use opamp_server::session as server;
use opamp_server::{ConnectionInfo, CustomCapabilities, Principal};
use proptest::prelude::*;
use prost::Message as _;

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
/// Text or bytes of one part.
const PART_BYTES_MAX: usize = 20_000;
/// What the agent is set to keep of connections, and of packages each.
const KEPT_BYTES_MAX: usize = 4_096;

/// What a peer sends: which parts, how much in each, and what makes it different from the last.
#[derive(Clone, Copy, Debug)]
struct Load {
    parts: u16,
    bytes: usize,
    number: u8,
}

fn loads() -> impl Strategy<Value = Vec<Load>> {
    let bytes = prop_oneof![0..100_usize, 0..KEPT_BYTES_MAX, 0..PART_BYTES_MAX];
    let load =
        (any::<u16>(), bytes, any::<u8>()).prop_map(|(parts, bytes, number)| Load { parts, bytes, number });
    proptest::collection::vec(load, 1..40)
}

impl Load {
    fn has(self, part: u32) -> bool {
        self.parts & (1 << part) != 0
    }

    fn text(self) -> String {
        format!("{}{}", self.number, "x".repeat(self.bytes))
    }

    fn hash(self) -> bytes::Bytes {
        vec![self.number; 8].into()
    }

    fn config_map(self) -> pb::AgentConfigMap {
        let object = pb::AgentConfigObject { body: self.text().into(), ..Default::default() };
        pb::AgentConfigMap { config_map: [(self.number.to_string(), object)].into() }
    }

    /// Many small entries instead of one large.
    fn names(self) -> impl Iterator<Item = String> {
        (0..self.bytes / 20).map(move |number| format!("com.example.{}x{number}", self.number))
    }

    fn of_agent(self, sequence_num: u64) -> pb::AgentToServer {
        let attribute = |key: String| pb::KeyValue { key, value: None };
        pb::AgentToServer {
            instance_uid: UID.as_bytes().to_vec().into(),
            sequence_num,
            capabilities: 0xffff,
            agent_description: self.has(0).then(|| pb::AgentDescription {
                identifying_attributes: self.names().map(attribute).collect(),
                ..Default::default()
            }),
            health: self
                .has(1)
                .then(|| pb::ComponentHealth { last_error: self.text(), ..Default::default() }),
            effective_config: self
                .has(2)
                .then(|| pb::EffectiveConfig { config_map: Some(self.config_map()) }),
            remote_config_status: self.has(3).then(|| pb::RemoteConfigStatus {
                last_remote_config_hash: self.text().into(),
                status: 3,
                error_message: self.text(),
            }),
            package_statuses: self.has(4).then(|| pb::PackageStatuses {
                packages: self.names().map(|name| (name, pb::PackageStatus::default())).collect(),
                server_provided_all_packages_hash: self.text().into(),
                error_message: self.text(),
            }),
            custom_capabilities: self
                .has(5)
                .then(|| pb::CustomCapabilities { capabilities: self.names().collect() }),
            custom_message: self.has(6).then(|| pb::CustomMessage {
                capability: "com.example.ping".to_owned(),
                data: self.text().into(),
                ..Default::default()
            }),
            available_components: self.has(7).then(|| pb::AvailableComponents {
                components: self.names().map(|name| (name, pb::ComponentDetails::default())).collect(),
                hash: self.hash(),
            }),
            connection_settings_status: self.has(8).then(|| pb::ConnectionSettingsStatus {
                last_connection_settings_hash: self.text().into(),
                status: 3,
                error_message: self.text(),
            }),
            connection_settings_request: self.has(9).then(|| pb::ConnectionSettingsRequest {
                opamp: Some(pb::OpAmpConnectionSettingsRequest {
                    certificate_request: Some(pb::CertificateRequest { csr: self.text().into() }),
                }),
            }),
            ..Default::default()
        }
    }

    fn of_server(self) -> pb::ServerToAgent {
        let headers = pb::Headers {
            headers: self.names().map(|key| pb::Header { key, value: String::new() }).collect(),
        };
        let telemetry = pb::TelemetryConnectionSettings {
            destination_endpoint: format!("https://metrics.example/{}", self.text()),
            headers: Some(headers.clone()),
            ..Default::default()
        };
        let other = |name| (name, pb::OtherConnectionSettings::default());
        let settings = pb::ConnectionSettingsOffers {
            hash: self.hash(),
            opamp: self.has(2).then(|| pb::OpAmpConnectionSettings {
                destination_endpoint: format!("wss://one.example/{}", self.text()),
                headers: Some(headers.clone()),
                ..Default::default()
            }),
            own_metrics: self.has(3).then_some(telemetry),
            other_connections: if self.has(4) {
                self.names().map(other).collect()
            } else {
                Default::default()
            },
            ..Default::default()
        };
        let package = |name: String| (name, pb::PackageAvailable { hash: self.hash(), ..Default::default() });
        pb::ServerToAgent {
            instance_uid: UID.as_bytes().to_vec().into(),
            capabilities: 0x7f,
            remote_config: self
                .has(0)
                .then(|| pb::AgentRemoteConfig { config: Some(self.config_map()), config_hash: self.hash() }),
            connection_settings: self.has(1).then_some(settings),
            packages_available: self.has(5).then(|| pb::PackagesAvailable {
                packages: self.names().map(package).collect(),
                all_packages_hash: self.hash(),
            }),
            custom_capabilities: self
                .has(6)
                .then(|| pb::CustomCapabilities { capabilities: self.names().collect() }),
            custom_message: self.has(7).then(|| pb::CustomMessage {
                capability: "com.example.ping".to_owned(),
                data: self.text().into(),
                ..Default::default()
            }),
            error_response: self
                .has(8)
                .then(|| pb::ServerErrorResponse { error_message: self.text(), ..Default::default() }),
            ..Default::default()
        }
    }
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(1_700_000_000_000 + ms) }
}

/// A session on which everything is switched on, connected.
fn agent() -> agent::Session {
    let endpoint = EndpointInfo::new("wss://one.example/v1/opamp", Transport::WebSocket);
    let mut setup = Setup::new(endpoint, Description::new("a"), SavedState::new(UID), 1);
    let abilities = &mut setup.abilities;
    (abilities.remote_config, abilities.packages, abilities.durable) = (true, true, true);
    (abilities.opamp_settings, abilities.own_metrics, abilities.other_connections) = (true, true, true);
    let settings = &mut setup.settings;
    settings.config_files_max = 8;
    settings.config_hash_bytes_max = 64;
    settings.settings_bytes_max = KEPT_BYTES_MAX;
    settings.other_connections_max = 8;
    settings.custom_capabilities_max = 8;
    settings.package_limits = OfferLimits { packages_max: 8, name_bytes_max: 64, ..OfferLimits::default() };
    settings.faults_max = u32::MAX;
    agent::Session::new(setup)
}

/// Feeds everything; what of it is still allocated at the end. Configurations never end being applied, so the next wait.
fn kept_by_agent(session: &mut agent::Session, loads: &[Load]) -> i64 {
    let mut out = agent::Outbox::new();
    let life = || {
        for (round, load) in (0..).zip(loads) {
            let now = at(10_000 + round * 40_000);
            let bytes = [vec![0], load.of_server().encode_to_vec()].concat();
            let _ = session.handle(agent::Input::Received(&bytes), now, &mut out);
            let mut answers = Vec::new();
            while let Some(output) = out.take() {
                match output {
                    Output::Send => answers.push(agent::Input::Written),
                    Output::Connect { .. } | Output::ConnectOffered(_) => {
                        answers.push(agent::Input::Connected);
                    }
                    Output::Close(_) => {
                        answers.push(agent::Input::Closed { code: Some(1000), reason: String::new() });
                    }
                    // Every other offer of packages is refused, the others never end.
                    Output::SyncPackages(offer) if load.number % 2 == 0 => {
                        let result = Err(PackagesRejected::new("no"));
                        answers.push(agent::Input::PackagesOutcome { hash: offer.hash().clone(), result });
                    }
                    Output::Connections(change) => {
                        answers
                            .push(agent::Input::ConnectionsOutcome { hash: change.hash, failed: Vec::new() });
                    }
                    _ => {}
                }
            }
            for answer in answers {
                let _ = session.handle(answer, now, &mut out);
                while let Some(output) = out.take() {
                    if matches!(output, Output::Connect { .. } | Output::ConnectOffered(_)) {
                        let _ = session.handle(agent::Input::Connected, now, &mut out);
                    }
                }
            }
        }
        drop(std::mem::take(&mut out));
    };
    measure(life).bytes_current
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_agent_keeps_no_more_than_its_limits_allow_of_what_a_server_sends(loads in loads()) {
        let mut session = agent();
        let mut out = agent::Outbox::new();
        for input in [agent::Input::Start, agent::Input::Connected, agent::Input::Written] {
            session.handle(input, at(1_000), &mut out).unwrap();
        }
        drop(out);
        let kept = kept_by_agent(&mut session, &loads);
        // One configuration being applied and one that waits, which only the size of a message bounds; connections in use,
        // tried and waiting, packages at work and waiting; the reports about all that.
        let bound = 2 * PART_BYTES_MAX + 12 * KEPT_BYTES_MAX + (64 << 10);
        prop_assert!(kept < bound as i64, "{} bytes of {}", kept, bound);
    }

    #[test]
    fn a_server_keeps_no_more_of_an_agent_than_its_last_reports(loads in loads()) {
        let custom_capabilities = CustomCapabilities::new(["com.example.ping"]).unwrap();
        let settings = server::SessionSettings { custom_capabilities, ..Default::default() };
        let mut session = server::Session::new(UID, &settings, at(0));
        let mut out = server::Outbox::new(settings);
        let info = ConnectionInfo {
            id: 1,
            transport: opamp_server::Transport::WebSocket,
            remote_addr: None,
            principal: Principal::anonymous(),
            connected_at: Wall(0),
        };
        session.handle(server::Input::Attached(Arc::new(info)), at(0), &mut out).unwrap();
        let mut largest = [0; 16];
        let life = measure(|| {
            for (round, load) in (1..).zip(&loads) {
                let bytes = load.of_agent(round).encode_to_vec();
                let message = AgentMessage::decode(&bytes, &Limits::default()).unwrap();
                for part in message.parts().iter().filter(|part| part.is_status()) {
                    largest[part.index()] = message.part(part).unwrap_or_default().len();
                }
                out.clear();
                let input = server::Input::Message { message: &message, assign: None };
                session.handle(input, at(round * 1_000), &mut out).unwrap();
                let _ = session.take_change();
            }
            out.clear();
        });
        // Each status once, and once more what is looked at often: hashes and texts of the offers' reports, and of the last
        // failure of each; the list of components.
        let last: usize = largest.iter().sum();
        let bound = 3 * last + 6 * PART_BYTES_MAX + (64 << 10);
        prop_assert!(life.bytes_current < bound as i64, "{} bytes of {}", life.bytes_current, bound);
        let settings = out.settings().clone();
        prop_assert!(session.deadline(&settings).is_some_and(|next| next > at(0).mono + Duration::from_secs(1)));
    }
}
