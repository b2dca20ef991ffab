//! An agent's session and a server's session, with links between them that lose what they carry, on a virtual clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use opamp_client::session::{self as agent, EndpointInfo, Setup};
use opamp_client::{
    ConfigHash, Description, EffectiveConfig, Failure, FailureKind, Health, InstanceUid, Rejected,
    RemoteConfig, SavedState, Transport,
};
use opamp_proto::{AgentMessage, Limits, Mono, Now, Part, Wall, pb};
use opamp_server::session::{self as server, SessionSettings};
use opamp_server::{ConnectionInfo, Desired, DisconnectReason, Liveness, Principal, RemoteConfigOffer};
use prost::Message as _;

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
const LATENCY: Duration = Duration::from_millis(20);
/// How long the application takes to apply a configuration.
const APPLYING: Duration = Duration::from_millis(300);

/// What can happen to the two.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// The agent's process ends without a word, and starts again.
    AgentCrash,
    /// The agent's process stops in good order, and starts again.
    AgentRestart,
    /// The server wants this configuration to be run.
    Desire(u8),
    Describe(u8),
    EffectiveConfig(u8),
    Health(u8),
    /// The connection ends; what is on its way is lost. If silently, neither side is told.
    Cut {
        silently: bool,
    },
    /// Nothing gets through in either direction for so many seconds.
    Outage(u8),
    /// The server asks for everything.
    RequestFullState,
    Restart,
    /// The server forgets everything, what is desired excepted.
    ServerCrash,
}

pub(crate) struct World {
    agent: agent::Session,
    agent_out: agent::Outbox,
    server: server::Session,
    server_out: server::Outbox,
    transports: Vec<Transport>,
    pub(crate) now: Now,
    link: Option<Link>,
    /// Links before this moment are cut at once.
    outage_until: Mono,
    work: Option<(Mono, RemoteConfig)>,
    desired: Desired,
    connections: u64,
    saved: SavedState,
    pub(crate) truth: Truth,
    pub(crate) log: Log,
}

/// What is true of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    health: Health,
    description: Description,
    effective: EffectiveConfig,
}

/// What was seen since it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) messages: Vec<pb::AgentToServer>,
    pub(crate) answers: Vec<pb::ServerToAgent>,
    /// Hashes whose application began.
    pub(crate) applied: Vec<ConfigHash>,
    pub(crate) restarts: u32,
    /// Ends of the agent while it was applying, without a word.
    pub(crate) interruptions: u32,
}

/// Messages on their way, with the time they arrive.
type Wire = VecDeque<(Mono, Vec<u8>)>;

struct Link {
    transport: Transport,
    alive: bool,
    up: Wire,
    down: Wire,
}

impl World {
    pub(crate) fn new(transports: &[Transport], seed: u64) -> Self {
        let now = Now { mono: Mono(1_000), wall: Wall(1_700_000_000_000) };
        let truth = Truth {
            health: Health::healthy(Wall(1)),
            description: Description::new("com.example.agent"),
            effective: EffectiveConfig::single("start"),
        };
        let saved = SavedState::new(UID);
        let settings = SessionSettings::default();
        let mut world = Self {
            agent: new_agent(transports, &truth, saved.clone(), seed),
            agent_out: agent::Outbox::new(),
            server: server::Session::new(UID, &settings, now),
            server_out: server::Outbox::new(settings),
            transports: transports.to_vec(),
            now,
            link: None,
            outage_until: Mono(0),
            work: None,
            desired: Desired::default(),
            connections: 0,
            saved,
            truth,
            log: Log::default(),
        };
        world.begin();
        world
    }

    pub(crate) fn act(&mut self, act: &Act) {
        match act {
            Act::AgentCrash => {
                self.log.interruptions += u32::from(self.agent.is_applying());
                self.cut(false);
                self.revive();
            }
            Act::AgentRestart => {
                self.tell(agent::Input::Stop);
                for _ in 0..100 {
                    self.run(Duration::from_millis(100));
                    if self.agent.is_finished() {
                        break;
                    }
                }
                assert!(self.agent.is_finished(), "a stop takes no longer than it may: {:?}", self.agent);
                // Applying goes on beside the goodbye, and its outcome is waited for.
                while self.agent.is_applying() {
                    self.run(Duration::from_millis(100));
                }
                self.revive();
            }
            Act::Cut { silently } => self.cut(*silently),
            Act::Describe(number) => {
                self.truth.description =
                    Description::new("com.example.agent").attribute("number", i64::from(*number));
                self.tell(agent::Input::Describe(self.truth.description.clone()));
            }
            Act::Desire(number) => {
                let object = pb::AgentConfigObject { body: vec![*number].into(), ..Default::default() };
                let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
                let offer = RemoteConfigOffer::new(hash(*number), &config);
                self.desired =
                    Desired { generation: self.desired.generation + 1, remote_config: Some(offer) };
                self.tell_server(server::Input::Desired(self.desired.clone()));
                self.tell_server(server::Input::Wake);
            }
            Act::EffectiveConfig(number) => {
                self.truth.effective = EffectiveConfig::single(vec![*number]);
                self.tell(agent::Input::EffectiveConfig(self.truth.effective.clone()));
            }
            Act::Health(number) => {
                self.truth.health = Health::healthy(Wall(1)).status(number.to_string());
                self.tell(agent::Input::Health(self.truth.health.clone()));
            }
            Act::Outage(seconds) => {
                self.outage_until = self.now.mono + Duration::from_secs((*seconds).into());
                self.cut(false);
            }
            Act::RequestFullState => {
                self.tell_server(server::Input::RequestFullState);
                self.tell_server(server::Input::Wake);
            }
            Act::Restart => {
                self.tell_server(server::Input::Restart);
                self.tell_server(server::Input::Wake);
            }
            Act::ServerCrash => {
                self.cut(false);
                let settings = SessionSettings::default();
                self.server = server::Session::new(self.agent.uid(), &settings, self.now);
                self.tell_server(server::Input::Desired(self.desired.clone()));
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let target = self.now.mono + span;
        let mut steps = 0;
        while let Some(next) = self.next_event().filter(|next| *next <= target) {
            self.go_to(next);
            self.step();
            steps += 1;
            assert!(steps < 200_000, "they never come to rest: {:?}", self.agent);
        }
        self.go_to(target);
    }

    /// What the server holds of a part, decoded enough to be compared.
    pub(crate) fn view(&self, part: Part) -> Option<Vec<u8>> {
        self.server.snapshot().state.part(part).map(|bytes| bytes.to_vec())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.server.liveness() == Liveness::Connected && self.agent.is_connected()
    }

    /// What the server should hold of a part.
    pub(crate) fn expected(&self, part: Part) -> Vec<u8> {
        // A fresh agent with the same truth, asked for its first report.
        let mut fresh = new_agent(&[Transport::Http], &self.truth, self.agent.saved(), 0);
        let mut out = agent::Outbox::new();
        for input in [agent::Input::Start, agent::Input::Connected] {
            fresh.handle(input, self.now, &mut out).unwrap();
        }
        let message = AgentMessage::decode(out.message(), &Limits::default()).unwrap();
        message.part(part).expect("a complete report").to_vec()
    }

    pub(crate) fn desired_hash(&self) -> Option<ConfigHash> {
        self.desired.remote_config.as_ref().map(|offer| offer.hash().clone())
    }

    pub(crate) fn reported(&self) -> Option<(ConfigHash, i32)> {
        let snapshot = self.server.snapshot();
        snapshot.remote_config.map(|report| (report.hash, report.status))
    }

    fn begin(&mut self) {
        let health = agent::Input::Health(self.truth.health.clone());
        let effective = agent::Input::EffectiveConfig(self.truth.effective.clone());
        for input in [health, effective, agent::Input::Start] {
            self.tell(input);
        }
    }

    fn revive(&mut self) {
        self.work = None;
        self.link = None;
        let seed = self.now.mono.0;
        self.agent = new_agent(&self.transports, &self.truth, self.saved.clone(), seed);
        self.begin();
    }

    fn next_event(&self) -> Option<Mono> {
        let link = self.link.as_ref();
        let first = |queue: &Wire| queue.front().map(|(at, _)| *at);
        let settings = SessionSettings::default();
        [
            self.agent.deadline(),
            self.server.deadline(&settings),
            link.and_then(|link| first(&link.up)),
            link.and_then(|link| first(&link.down)),
            self.work.as_ref().map(|(at, _)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|next| next.max(self.now.mono))
    }

    fn step(&mut self) {
        let now = self.now.mono;
        if let Some((_, config)) = self.work.take_if(|(at, _)| *at <= now) {
            self.finish_work(&config);
        }
        if let Some(bytes) = self.arrived(|link| &mut link.up) {
            self.deliver_up(&bytes);
        }
        if let Some(bytes) = self.arrived(|link| &mut link.down) {
            self.tell(agent::Input::Received(&bytes));
        }
        self.tell_server(server::Input::Tick);
        self.tell(agent::Input::Tick);
    }

    fn arrived(&mut self, queue: fn(&mut Link) -> &mut Wire) -> Option<Vec<u8>> {
        let now = self.now.mono;
        let link = self.link.as_mut()?;
        let front = queue(link).pop_front_if(|(at, _)| *at <= now)?;
        Some(front.1)
    }

    fn deliver_up(&mut self, bytes: &[u8]) {
        let Some(link) = &self.link else { return };
        let transport = link.transport;
        let payload = if transport == Transport::WebSocket { &bytes[1..] } else { bytes };
        self.log.messages.push(pb::AgentToServer::decode(payload).unwrap());
        let gone = self.server.liveness() == Liveness::Disconnected;
        if transport == Transport::Http && gone {
            self.attach(transport);
        }
        let message = AgentMessage::decode(payload, &Limits::default()).unwrap();
        let input = server::Input::Message { message: &message, assign: None };
        self.tell_server(input);
    }

    fn attach(&mut self, transport: Transport) {
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
            connected_at: self.now.wall,
        };
        self.tell_server(server::Input::Attached(Arc::new(info)));
    }

    fn finish_work(&mut self, config: &RemoteConfig) {
        let body = config.single().unwrap();
        let result = if body[0] % 5 == 4 { Err(Rejected::new("every fifth is broken")) } else { Ok(()) };
        if result.is_ok() {
            self.truth.effective = EffectiveConfig::from(config);
        }
        let effective = Some(self.truth.effective.clone());
        self.tell(agent::Input::ConfigOutcome { hash: config.hash().clone(), result, effective });
    }

    fn cut(&mut self, silently: bool) {
        let Some(link) = &mut self.link else { return };
        link.alive = false;
        link.up.clear();
        link.down.clear();
        let websocket = link.transport == Transport::WebSocket;
        if silently {
            return;
        }
        self.link = None;
        if websocket {
            self.tell_server(server::Input::Detached(DisconnectReason::Closed));
        }
        self.tell(agent::Input::Failed(Failure::new(FailureKind::Closed, "cut")));
    }

    fn tell_server(&mut self, input: server::Input<'_>) {
        self.server_out.clear();
        self.server.handle(input, self.now, &mut self.server_out).expect("nothing the agent says is refused");
        let messages: Vec<Vec<u8>> = self.server_out.messages().map(<[u8]>::to_vec).collect();
        for message in messages {
            self.log.answers.push(pb::ServerToAgent::decode(&message[1..]).unwrap());
            if let Some(link) = self.link.as_mut().filter(|link| link.alive) {
                let skip = usize::from(link.transport == Transport::Http);
                link.down.push_back((self.now.mono + LATENCY, message[skip..].to_vec()));
            }
        }
    }

    fn tell(&mut self, input: agent::Input<'_>) {
        self.agent.handle(input, self.now, &mut self.agent_out).unwrap();
        while let Some(output) = self.agent_out.take() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: agent::Output) {
        use agent::Output;
        match output {
            Output::Abort => self.close(),
            Output::Apply(config) => {
                assert!(self.work.is_none(), "one configuration at a time");
                self.log.applied.push(config.hash().clone());
                self.work = Some((self.now.mono + APPLYING, config));
            }
            Output::Close(_) => {
                self.close();
                self.tell(agent::Input::Closed { code: Some(1000), reason: String::new() });
            }
            Output::Connect { endpoint } => self.connect(self.transports[endpoint]),
            Output::Persist => self.saved = self.agent.saved(),
            Output::Ping if self.link.as_ref().is_some_and(|link| link.alive) => {
                self.tell_server(server::Input::Alive);
                self.tell(agent::Input::Alive);
            }
            Output::Restart => self.log.restarts += 1,
            Output::Send => self.send(),
            Output::Probe { .. } => self.tell(agent::Input::Probed(self.now.mono >= self.outage_until)),
            _ => {}
        }
    }

    fn connect(&mut self, transport: Transport) {
        if self.now.mono < self.outage_until {
            let failure = Failure::new(FailureKind::Refused, "outage");
            return self.tell(agent::Input::Failed(failure));
        }
        self.close();
        self.link = Some(Link { transport, alive: true, up: VecDeque::new(), down: VecDeque::new() });
        if transport == Transport::WebSocket {
            self.attach(transport);
        }
        self.tell(agent::Input::Connected);
    }

    fn send(&mut self) {
        let message = self.agent_out.message().to_vec();
        let Some(link) = &mut self.link else { return };
        if link.alive {
            link.up.push_back((self.now.mono + LATENCY, message));
        }
        if link.transport == Transport::WebSocket {
            // Written, which is no promise that it arrives.
            self.tell(agent::Input::Written);
        }
    }

    fn close(&mut self) {
        // What was written before an orderly end arrives, as it does with TCP.
        while let Some((_, bytes)) = self.link.as_mut().and_then(|link| link.up.pop_front()) {
            self.deliver_up(&bytes);
        }
        if self.link.take().is_some_and(|link| link.transport == Transport::WebSocket) {
            self.tell_server(server::Input::Detached(DisconnectReason::Closed));
        }
    }

    fn go_to(&mut self, mono: Mono) {
        let passed = mono - self.now.mono;
        self.now = Now { mono, wall: self.now.wall + passed };
    }
}

pub(crate) fn hash(number: u8) -> ConfigHash {
    ConfigHash::new(vec![number, 0xcf])
}

fn new_agent(transports: &[Transport], truth: &Truth, saved: SavedState, seed: u64) -> agent::Session {
    let mut infos = transports
        .iter()
        .enumerate()
        .map(|(index, transport)| EndpointInfo::new(format!("endpoint {index}"), *transport));
    let first = infos.next().expect("an endpoint");
    let mut setup = Setup::new(first, truth.description.clone(), saved, seed);
    setup.fallbacks = infos.collect();
    setup.abilities.remote_config = true;
    setup.abilities.restart = true;
    let mut session = agent::Session::new(setup);
    let mut out = agent::Outbox::new();
    let now = Now { mono: Mono(0), wall: Wall(0) };
    for input in
        [agent::Input::Health(truth.health.clone()), agent::Input::EffectiveConfig(truth.effective.clone())]
    {
        session.handle(input, now, &mut out).unwrap();
    }
    session
}
