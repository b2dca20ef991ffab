//! A session with a scripted server in front of it, and time in the test's hand.

use std::time::Duration;

use bytes::Bytes;
use opamp_client::connection::OpampSettings;
use opamp_client::session::{ConnectionsChange, EndpointInfo, Input, Outbox, Output, Session, Setup};
use opamp_client::{
    ConfigHash, Description, EffectiveConfig, Event, Failure, FailureKind, Health, InstanceUid, Mono, Now,
    Rejected, RemoteConfig, SavedState, Transport, Wall,
};
use opamp_proto::pb;
use prost::Message as _;

pub(crate) const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
/// A server that can do everything.
pub(crate) const ALL: u64 = 0x7f;

/// Runs a test once for each transport.
macro_rules! on_both_transports {
    ($($(#[$doc:meta])* fn $name:ident($transport:ident) $body:block)+) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$doc])*
            fn case($transport: opamp_client::Transport) $body

            #[test]
            fn over_websocket() {
                case(opamp_client::Transport::WebSocket);
            }

            #[test]
            fn over_http() {
                case(opamp_client::Transport::Http);
            }
        })+
    };
}

pub(crate) struct Bench {
    pub(crate) session: Session,
    pub(crate) now: Now,
    /// What the server announces with every answer.
    pub(crate) capabilities: u64,
    /// Whether messages are written (WebSocket) and answered at once, and pings are.
    pub(crate) answers: bool,
    pub(crate) transports: Vec<Transport>,
    pub(crate) endpoint: usize,
    /// The transport of settings that a server has set, if the agent connects with them.
    pub(crate) offered: Option<Transport>,
    /// Whether connections are handed over and found good at once.
    pub(crate) takes_connections: bool,
    out: Outbox,
}

/// What one step led to.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) sent: Vec<pb::AgentToServer>,
    pub(crate) events: Vec<Event>,
    /// Everything else, in order.
    pub(crate) outputs: Vec<Output>,
}

pub(crate) fn on_both() -> [Transport; 2] {
    [Transport::WebSocket, Transport::Http]
}

pub(crate) fn endpoint(name: &str, transport: Transport) -> EndpointInfo {
    EndpointInfo::new(name, transport)
}

pub(crate) fn setup(transport: Transport) -> Setup {
    let description = Description::new("com.example.agent").version("1");
    Setup::new(endpoint("first", transport), description, SavedState::new(UID), 42)
}

impl Bench {
    pub(crate) fn on(transport: Transport) -> Self {
        Self::with(transport, |_| {})
    }

    pub(crate) fn with(transport: Transport, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = setup(transport);
        change(&mut setup);
        Self::of(setup)
    }

    /// With remote configuration, restart, health and effective configuration.
    pub(crate) fn able(transport: Transport) -> Self {
        let mut bench = Self::with(transport, |setup| {
            setup.abilities.remote_config = true;
            setup.abilities.restart = true;
        });
        bench.tell(Input::Health(Health::healthy(Wall(1))));
        bench.tell(Input::EffectiveConfig(EffectiveConfig::single("a: 0")));
        bench
    }

    pub(crate) fn of(setup: Setup) -> Self {
        let transports =
            std::iter::once(&setup.endpoint).chain(&setup.fallbacks).map(|info| info.transport).collect();
        let now = Now { mono: Mono(1_000_000), wall: Wall(1_700_000_000_000) };
        Self {
            session: Session::new(setup),
            now,
            capabilities: ALL,
            answers: true,
            transports,
            endpoint: 0,
            offered: None,
            takes_connections: true,
            out: Outbox::new(),
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        self.offered.unwrap_or(self.transports[self.endpoint])
    }

    /// Starts, lets it connect, and returns what came of it.
    pub(crate) fn connect(&mut self) -> Step {
        let mut step = self.tell(Input::Start);
        assert!(step.connects().len() == 1, "{step:?}");
        step.extend(self.tell(Input::Connected));
        step
    }

    /// Feeds one input; messages are written and answered if the server answers.
    pub(crate) fn tell(&mut self, input: Input<'_>) -> Step {
        self.session.handle(input, self.now, &mut self.out).unwrap();
        self.collect()
    }

    /// A message of the server, to this agent unless it says otherwise.
    pub(crate) fn receive(&mut self, mut message: pb::ServerToAgent) -> Step {
        if message.instance_uid.is_empty() {
            message.instance_uid = Bytes::copy_from_slice(self.session.uid().as_bytes());
        }
        self.receive_bytes(&message.encode_to_vec())
    }

    /// The bytes of a `ServerToAgent`.
    pub(crate) fn receive_bytes(&mut self, payload: &[u8]) -> Step {
        let mut bytes = Vec::new();
        if self.transport() == Transport::WebSocket {
            bytes.push(0);
        }
        bytes.extend_from_slice(payload);
        self.tell(Input::Received(&bytes))
    }

    /// The answer to what the agent says next: over HTTP a poll is brought about, since a server cannot speak first.
    pub(crate) fn answer(&mut self, message: pb::ServerToAgent) -> Step {
        if self.transport() == Transport::WebSocket {
            return self.receive(message);
        }
        let answers = std::mem::replace(&mut self.answers, false);
        let mut step = self.pass(Duration::from_secs(30));
        assert_eq!(step.sent.len(), 1, "a poll");
        self.answers = answers;
        step.sent.clear();
        step.extend(self.receive(message));
        step
    }

    pub(crate) fn ack(&mut self) -> Step {
        self.receive(pb::ServerToAgent { capabilities: self.capabilities, ..Default::default() })
    }

    pub(crate) fn offer(&mut self, hash: &[u8], body: &'static str) -> Step {
        let message = offer(hash, body);
        self.answer(message)
    }

    pub(crate) fn outcome(&mut self, hash: &[u8], result: Result<(), &str>) -> Step {
        let hash = ConfigHash::new(hash.to_vec());
        self.tell(Input::ConfigOutcome { hash, result: result.map_err(Rejected::from), effective: None })
    }

    pub(crate) fn lose(&mut self) -> Step {
        self.tell(Input::Failed(Failure::new(FailureKind::Closed, "reset")))
    }

    /// Lets time pass, with a tick at every deadline.
    pub(crate) fn pass(&mut self, span: Duration) -> Step {
        let target = self.now.mono + span;
        let mut step = Step::default();
        let mut ticks = 0;
        while let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= target) {
            self.go_to(deadline.max(self.now.mono));
            let told = self.tell(Input::Tick);
            let next = self.session.deadline().is_none_or(|deadline| deadline > self.now.mono);
            assert!(next || !told.is_silent(), "a driver would spin: {:?}", self.session);
            step.extend(told);
            ticks += 1;
            assert!(ticks < 100_000, "the clock stands still: {:?}", self.session);
        }
        self.go_to(target);
        step
    }

    /// Waits for the next attempt and lets it succeed.
    pub(crate) fn reconnect(&mut self) -> Step {
        let step = self.pass(Duration::from_secs(3600).min(self.until_dial()));
        assert_eq!(step.connects().len(), 1, "{step:?}");
        self.tell(Input::Connected)
    }

    /// How long until the next deadline.
    pub(crate) fn until_dial(&self) -> Duration {
        self.session.deadline().expect("a deadline") - self.now.mono
    }

    fn go_to(&mut self, mono: Mono) {
        let passed = mono - self.now.mono;
        self.now = Now { mono, wall: self.now.wall + passed };
    }

    fn collect(&mut self) -> Step {
        let mut step = Step::default();
        while let Some(output) = self.out.take() {
            match output {
                Output::Send => {
                    let message = decode(self.out.message(), self.transport());
                    step.sent.push(message);
                    if self.answers {
                        step.extend(self.deliver());
                    }
                }
                Output::Event(event) => step.events.push(event),
                Output::Connect { endpoint } => {
                    (self.endpoint, self.offered) = (endpoint, None);
                    step.outputs.push(Output::Connect { endpoint });
                }
                Output::ConnectOffered(settings) => {
                    let http = settings.endpoint.starts_with("http");
                    self.offered = Some(if http { Transport::Http } else { Transport::WebSocket });
                    step.outputs.push(Output::ConnectOffered(settings));
                }
                Output::Connections(change) if self.takes_connections => {
                    let hash = change.hash.clone();
                    step.outputs.push(Output::Connections(change));
                    step.extend(self.tell(Input::ConnectionsOutcome { hash, failed: Vec::new() }));
                }
                Output::Ping if self.answers => {
                    step.outputs.push(Output::Ping);
                    step.extend(self.tell(Input::Alive));
                }
                other => step.outputs.push(other),
            }
        }
        step
    }

    fn deliver(&mut self) -> Step {
        let mut step = Step::default();
        if self.transport() == Transport::WebSocket {
            step.extend(self.tell(Input::Written));
        }
        step.extend(self.ack());
        step
    }
}

impl Step {
    pub(crate) fn extend(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.events.extend(other.events);
        self.outputs.extend(other.outputs);
    }

    /// The only message.
    pub(crate) fn message(&self) -> &pb::AgentToServer {
        assert_eq!(self.sent.len(), 1, "{self:?}");
        &self.sent[0]
    }

    pub(crate) fn connects(&self) -> Vec<usize> {
        let endpoint = |output: &Output| match output {
            Output::Connect { endpoint } => Some(*endpoint),
            _ => None,
        };
        self.outputs.iter().filter_map(endpoint).collect()
    }

    /// The settings that the agent connects with, in place of its own.
    pub(crate) fn dialed(&self) -> Vec<&OpampSettings> {
        self.outputs
            .iter()
            .filter_map(|output| match output {
                Output::ConnectOffered(settings) => Some(&**settings),
                _ => None,
            })
            .collect()
    }

    /// What was handed to the application.
    pub(crate) fn handed_over(&self) -> Vec<&ConnectionsChange> {
        self.outputs
            .iter()
            .filter_map(|output| match output {
                Output::Connections(change) => Some(&**change),
                _ => None,
            })
            .collect()
    }

    /// The states of connection settings that were reported, with their hashes and texts, in order.
    pub(crate) fn settings_reports(&self) -> Vec<(Vec<u8>, pb::ConnectionSettingsStatuses, String)> {
        let reports = self.sent.iter().filter_map(|message| message.connection_settings_status.as_ref());
        reports
            .map(|report| {
                (report.last_connection_settings_hash.to_vec(), report.status(), report.error_message.clone())
            })
            .collect()
    }

    pub(crate) fn applies(&self) -> Vec<&RemoteConfig> {
        fn config(output: &Output) -> Option<&RemoteConfig> {
            match output {
                Output::Apply(config) => Some(config),
                _ => None,
            }
        }
        self.outputs.iter().filter_map(config).collect()
    }

    /// The parts of each message, in order.
    pub(crate) fn said(&self) -> Vec<Vec<&'static str>> {
        self.sent.iter().map(parts).collect()
    }

    pub(crate) fn has(&self, output: &Output) -> bool {
        self.outputs.contains(output)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.sent.is_empty() && self.events.is_empty() && self.outputs.is_empty()
    }
}

pub(crate) fn decode(message: &[u8], transport: Transport) -> pb::AgentToServer {
    match transport {
        Transport::WebSocket => {
            assert_eq!(message[0], 0, "the frame header");
            pb::AgentToServer::decode(&message[1..]).unwrap()
        }
        Transport::Http => pb::AgentToServer::decode(message).unwrap(),
    }
}

pub(crate) fn offer(hash: &[u8], body: &'static str) -> pb::ServerToAgent {
    let object = pb::AgentConfigObject { body: Bytes::from_static(body.as_bytes()), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    pb::ServerToAgent {
        remote_config: Some(pb::AgentRemoteConfig {
            config: Some(config),
            config_hash: Bytes::copy_from_slice(hash),
        }),
        capabilities: ALL,
        ..Default::default()
    }
}

pub(crate) fn error(kind: pb::ServerErrorResponseType, retry_ns: u64) -> pb::ServerToAgent {
    let info = pb::RetryInfo { retry_after_nanoseconds: retry_ns };
    let details = (retry_ns > 0).then_some(pb::server_error_response::Details::RetryInfo(info));
    pb::ServerToAgent {
        error_response: Some(pb::ServerErrorResponse {
            r#type: kind as i32,
            error_message: "because".into(),
            details,
        }),
        ..Default::default()
    }
}

pub(crate) fn interval(seconds: u64) -> pb::ServerToAgent {
    let opamp = pb::OpAmpConnectionSettings {
        destination_endpoint: "wss://elsewhere/v1/opamp".into(),
        heartbeat_interval_seconds: seconds,
        ..Default::default()
    };
    let offers = pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() };
    pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() }
}

/// The names of the parts in a message.
pub(crate) fn parts(message: &pb::AgentToServer) -> Vec<&'static str> {
    let present = [
        ("agent_description", message.agent_description.is_some()),
        ("health", message.health.is_some()),
        ("effective_config", message.effective_config.is_some()),
        ("remote_config_status", message.remote_config_status.is_some()),
        ("package_statuses", message.package_statuses.is_some()),
        ("agent_disconnect", message.agent_disconnect.is_some()),
        ("connection_settings_request", message.connection_settings_request.is_some()),
        ("custom_capabilities", message.custom_capabilities.is_some()),
        ("custom_message", message.custom_message.is_some()),
        ("available_components", message.available_components.is_some()),
        ("connection_settings_status", message.connection_settings_status.is_some()),
    ];
    present.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) fn health(status: &str) -> Input<'static> {
    Input::Health(Health::healthy(Wall(1)).status(status))
}
