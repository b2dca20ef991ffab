//! An agent and the servers of a fleet, with links between them that lose what they carry, on a virtual clock.

mod agent;
mod links;
mod offers;
mod places;
mod server;
mod sight;

use std::collections::BTreeSet;
use std::time::Duration;

use opamp_client::session::{self as client, Input, Output};
use opamp_client::{
    ConfigHash, CustomMessage, Description, EffectiveConfig, Health, InstanceUid, SavedState, Transport,
};
use opamp_proto::{Mono, Now, Wall, pb};
use opamp_server::session::Input as ServerInput;
use opamp_server::{Desired, Target};

use self::agent::{CUSTOM, Truth, Work};
use self::links::{Link, Wire};
pub(crate) use self::offers::config_hash;
use self::places::{Behind, Place, SERVERS};
use self::server::Server;

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

/// What can happen to agent and servers.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// The agent's process ends without a word, and starts again.
    AgentCrash,
    /// The agent's process stops in good order, and starts again.
    AgentRestart,
    /// The connection ends; what is on its way is lost. If silently, neither side is told.
    Cut {
        silently: bool,
    },
    Components(u8),
    CustomCapabilities {
        sometimes: bool,
    },
    /// A custom message to the agent.
    CustomDown,
    /// A custom message to the server.
    CustomUp,
    /// The servers want this configuration to be run.
    Desire(u8),
    /// The servers want these packages to be there.
    DesirePackages(u8),
    /// The servers want these connections to be used.
    DesireSettings(u8),
    Describe(u8),
    EffectiveConfig(u8),
    Health(u8),
    /// Nothing gets through in either direction for so many seconds.
    Outage(u8),
    /// The agent leaves and comes again.
    Reconnect,
    /// The server finds that another agent has the same identity, and gives this one a new one.
    Rekey(u8),
    /// The server asks for everything.
    RequestFullState,
    Restart,
    /// The server the agent is with forgets everything, what is desired excepted.
    ServerCrash,
}

pub(crate) struct World {
    agent: client::Session,
    agent_out: client::Outbox,
    servers: Vec<Server>,
    transports: Vec<Transport>,
    pub(crate) now: Now,
    link: Option<Link>,
    /// The server the agent talked to last.
    server: usize,
    /// Links before this moment are cut at once.
    outage_until: Mono,
    work: Work,
    desired: Desired,
    wanted: Wanted,
    /// The identity to give with the next answer.
    rekey: Option<InstanceUid>,
    custom_sent: u64,
    saved: SavedState,
    pub(crate) truth: Truth,
    pub(crate) log: Log,
}

/// The numbers of what is desired.
#[derive(Debug, Default)]
struct Wanted {
    config: Option<u8>,
    packages: Option<u8>,
    settings: Option<u8>,
    /// Settings that something came in the way of: their trial may have failed, and an agent stands by that.
    disturbed: BTreeSet<u8>,
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
    /// Numbers in the custom messages that came to the agent, in order.
    pub(crate) custom: Vec<u64>,
    /// Saves of the agent's state.
    pub(crate) saves: u32,
    /// Times the agent began to connect.
    pub(crate) connects: u32,
}

impl World {
    pub(crate) fn new(transports: &[Transport], seed: u64) -> Self {
        let now = Now { mono: Mono(1_000), wall: Wall(1_700_000_000_000) };
        let truth = Truth::new();
        let saved = SavedState::new(UID);
        let desired = Desired::default();
        let mut world = Self {
            agent: truth.session(transports, saved.clone(), seed),
            agent_out: client::Outbox::new(),
            servers: (0..SERVERS).map(|_| Server::new(UID, &desired, now)).collect(),
            transports: transports.to_vec(),
            now,
            link: None,
            server: 0,
            outage_until: Mono(0),
            work: Work::default(),
            desired,
            wanted: Wanted::default(),
            rekey: None,
            custom_sent: 0,
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
            Act::AgentRestart => self.restart_agent(),
            Act::Components(number) => {
                self.truth.components = agent::components(*number);
                self.tell(Input::AvailableComponents(self.truth.components.clone()));
            }
            Act::CustomCapabilities { sometimes } => {
                self.truth.custom = agent::custom(*sometimes);
                self.tell(Input::CustomCapabilities(self.truth.custom.clone()));
            }
            Act::CustomDown => {
                // Who is not there, or has not said what it can, gets none.
                if self.servers[self.server].send_custom(self.custom_sent).is_ok() {
                    self.custom_sent += 1;
                    self.tell_server(self.server, ServerInput::Wake);
                }
            }
            Act::CustomUp => {
                let data = self.custom_sent.to_le_bytes().to_vec();
                let message = CustomMessage::new(CUSTOM, "number", data);
                if self.agent.check_custom(&message).is_ok() {
                    self.custom_sent += 1;
                    self.tell(Input::Custom(message));
                }
            }
            Act::Cut { silently } => self.cut(*silently),
            Act::Describe(number) => {
                self.truth.description =
                    Description::new("com.example.agent").attribute("number", i64::from(*number));
                self.tell(Input::Describe(self.truth.description.clone()));
            }
            Act::Desire(number) => {
                let generation = self.desired.remote_config.generation + 1;
                self.desired.remote_config = Target::new(generation, Some(offers::config(*number)));
                self.wanted.config = Some(*number);
                self.desire();
            }
            Act::DesirePackages(number) => {
                let generation = self.desired.packages.generation + 1;
                self.desired.packages = Target::new(generation, Some(offers::packages(*number)));
                self.wanted.packages = Some(*number);
                self.desire();
            }
            Act::DesireSettings(number) => {
                let generation = self.desired.connection_settings.generation + 1;
                self.desired.connection_settings = Target::new(generation, Some(offers::settings(*number)));
                self.wanted.settings = Some(*number);
                self.desire();
            }
            Act::EffectiveConfig(number) => {
                self.truth.effective = EffectiveConfig::single(vec![*number]);
                self.tell(Input::EffectiveConfig(self.truth.effective.clone()));
            }
            Act::Health(number) => {
                self.truth.health = Health::healthy(Wall(1)).status(number.to_string());
                self.tell(Input::Health(self.truth.health.clone()));
            }
            Act::Outage(seconds) => {
                self.outage_until = self.now.mono + Duration::from_secs((*seconds).into());
                self.cut(false);
            }
            Act::Reconnect => self.tell(Input::Reconnect),
            Act::Rekey(number) => self.rekey = Some(InstanceUid::from_bytes([*number | 0x80; 16])),
            Act::RequestFullState => self.push(ServerInput::RequestFullState),
            Act::Restart => self.push(ServerInput::Restart),
            Act::ServerCrash => {
                // First of all: the agent may be back before anybody else has noticed.
                let uid = self.agent.uid();
                self.servers[self.server].restart(uid, &self.desired, self.now);
                self.cut(false);
            }
        }
        let comes_in_the_way = matches!(
            act,
            Act::AgentCrash
                | Act::AgentRestart
                | Act::Cut { .. }
                | Act::Outage(_)
                | Act::Reconnect
                | Act::Rekey(_)
                | Act::ServerCrash
        );
        if comes_in_the_way {
            // What is being tried may be what was desired before.
            let tried = self.agent.saved().connections.offer.map(|offer| offer.hash);
            let tried = (0..20).find(|number| tried.as_ref() == Some(offers::settings(*number).hash()));
            self.wanted.disturbed.extend(tried.into_iter().chain(self.wanted.settings));
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
            assert!(steps < 200_000 + span.as_secs(), "they never come to rest: {:?}", self.agent);
        }
        self.go_to(target);
    }

    fn restart_agent(&mut self) {
        self.tell(Input::Stop);
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

    fn begin(&mut self) {
        for input in self.truth.inputs() {
            self.tell(input);
        }
        self.tell(Input::Start);
    }

    fn revive(&mut self) {
        self.work = Work::default();
        self.link = None;
        let seed = self.now.mono.0;
        self.agent = self.truth.session(&self.transports, self.saved.clone(), seed);
        self.begin();
    }

    fn desire(&mut self) {
        for server in 0..SERVERS {
            self.tell_server(server, ServerInput::Desired(self.desired.clone()));
        }
        self.tell_server(self.server, ServerInput::Wake);
    }

    fn push(&mut self, input: ServerInput<'_>) {
        self.tell_server(self.server, input);
        self.tell_server(self.server, ServerInput::Wake);
    }

    fn next_event(&self) -> Option<Mono> {
        let link = self.link.as_ref();
        let first = |queue: &Wire| queue.front().map(|(at, _)| *at);
        let own = [
            self.agent.deadline(),
            link.and_then(|link| first(&link.up)),
            link.and_then(|link| first(&link.down)),
            self.work.deadline(),
        ];
        let servers = self.servers.iter().map(Server::deadline);
        own.into_iter().chain(servers).flatten().min().map(|next| next.max(self.now.mono))
    }

    fn step(&mut self) {
        for input in self.work.through(self.now.mono, &mut self.truth) {
            self.tell(input);
        }
        if let Some(bytes) = self.arrived(|link| &mut link.up) {
            self.deliver_up(&bytes);
        }
        if let Some(bytes) = self.arrived(|link| &mut link.down) {
            self.tell(Input::Received(&bytes));
        }
        for server in 0..SERVERS {
            self.tell_server(server, ServerInput::Tick);
        }
        self.tell(Input::Tick);
    }

    fn tell_server(&mut self, server: usize, input: ServerInput<'_>) {
        let messages = self.servers[server].handle(input, self.now);
        self.send_down(server, messages);
    }

    fn tell(&mut self, input: Input<'_>) {
        self.agent.handle(input, self.now, &mut self.agent_out).expect("it was not stopped");
        while let Some(output) = self.agent_out.take() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        let now = self.now.mono;
        let reachable = now >= self.outage_until;
        match output {
            Output::Abort => self.close(),
            Output::Apply(config) => {
                self.log.applied.push(config.hash().clone());
                self.work.apply(config, now);
            }
            Output::CancelPackages => self.work.cancel_packages(now),
            Output::Close(_) => {
                self.close();
                self.tell(Input::Closed { code: Some(1000), reason: String::new() });
            }
            Output::Connect { endpoint } => {
                let url = Place::url(self.transports[endpoint], Place::host(endpoint));
                self.connect(Place::at(&url));
            }
            Output::ConnectOffered(settings) => self.connect(Place::at(&settings.endpoint)),
            Output::Connections(change) => self.work.examine(change, now),
            Output::Custom(message) => {
                self.log.custom.push(u64::from_le_bytes(message.data[..].try_into().expect("a number")));
            }
            Output::Persist => {
                self.log.saves += 1;
                self.saved = self.agent.saved();
            }
            Output::Ping => {
                if let Some(link) =
                    self.link.as_ref().filter(|link| link.alive && link.place.behind == Behind::Good)
                {
                    let server = link.place.server;
                    self.tell_server(server, ServerInput::Alive);
                    self.tell(Input::Alive);
                }
            }
            Output::Probe { .. } => self.tell(Input::Probed(reachable)),
            Output::ProbeOffered(settings) => {
                let there = Place::at(&settings.endpoint).behind != Behind::Refused;
                self.tell(Input::Probed(reachable && there));
            }
            Output::Restart => self.log.restarts += 1,
            Output::Send => self.send(),
            Output::SyncPackages(offer) => {
                let news = self.work.install(offer, &self.truth, now);
                self.tell(news);
            }
            _ => {}
        }
    }

    fn go_to(&mut self, mono: Mono) {
        let passed = mono - self.now.mono;
        self.now = Now { mono, wall: self.now.wall + passed };
    }
}
