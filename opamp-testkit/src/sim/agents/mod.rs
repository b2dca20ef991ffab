//! Simulated agents: a client session, a profile, and the state of a disk.

pub mod behaviour;
mod drive;
mod wire;

use std::time::Duration;

use opamp_client::session::{EndpointInfo, Outbox, Session, Setup};
use opamp_client::{
    ConfigFile, ConfigHash, Description, EffectiveConfig, Health, OfferStatus, SavedOffer, SavedState,
    Transport,
};
use opamp_proto::{AgentId, Fingerprint, InstanceUid, Mono, Wall};

use super::configs::{Configs, files};
use super::links::Link;
use super::profiles::Profile;
use super::rng::{Rng, Subject};
use super::scenario::AgentSpec;
use super::schedule::Alarm;

/// How long a process takes to start again by itself.
pub(super) const RESTART: Duration = Duration::from_secs(3);

/// An agent: its process, its disk, and what is true of it.
#[derive(Debug)]
pub struct SimAgent {
    /// What it was made from.
    pub spec: AgentSpec,
    /// The key of its record.
    pub id: AgentId,
    /// Its identity on the wire.
    pub uid: InstanceUid,
    /// What is true of it.
    pub truth: Truth,
    /// Its connection.
    pub link: Option<Link>,
    pub(super) session: Option<Session>,
    pub(super) out: Outbox,
    /// What its disk has.
    pub(super) saved: SavedState,
    pub(super) todo: Vec<(Mono, Todo)>,
    pub(super) alarm: Alarm,
    /// Links before this moment are cut at once.
    pub(super) outage_until: Mono,
    /// What it does.
    pub(super) rng: Rng,
    /// What happens to its messages.
    pub(super) link_rng: Rng,
    /// What happens to hints about it.
    pub(super) hint_rng: Rng,
    /// How often its process has started, and when it did so last.
    starts: u64,
    started: Wall,
}

/// What is true of an agent, whatever anybody was told.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The configuration it runs.
    pub runs: u8,
    /// The configuration it ran before that.
    pub before: u8,
    /// What happened to configurations, in order.
    pub history: Vec<(Mono, Happened)>,
    /// It accepts no remote configurations any more.
    pub dropped_capability: bool,
    /// It does nothing any more until somebody restarts it.
    pub hangs: bool,
    /// What it runs has made it ill.
    pub ill: bool,
}

/// What happened to a configuration at an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It runs it.
    Applied(u8),
    /// It could not be used.
    Failed(u8),
    /// An offer of it arrived.
    Received(u8),
    /// It went back to it by itself.
    WentBack(u8),
}

/// What an agent will do by itself.
#[derive(Clone, Debug)]
pub(super) enum Todo {
    /// Its process dies, and starts again after so long.
    Crash(Duration),
    /// Its connection breaks; that is repeated.
    Cut,
    /// Applying has come to an end.
    Finish { hash: ConfigHash, number: u8, end: behaviour::End },
    /// It becomes ill.
    FallIll,
    /// It goes back to a configuration by itself.
    GoBack(u8),
    /// Its process starts.
    Start,
}

impl SimAgent {
    /// The agent of a spec, which begins when the world does, or later if its spec says so.
    pub fn new(spec: &AgentSpec, world: &Rng, configs: &Configs) -> Self {
        let number = u64::from(spec.number);
        let id = AgentId::v7(1_600_000_000_000, random(number));
        let uid = InstanceUid::v7(1_600_000_000_000, random(number ^ 0x5555));
        let mut rng = world.fork(Subject::Agent, number);
        let mut saved = SavedState::new(uid);
        saved.remote_config = Some(applied(spec.runs, configs));
        let mut starts_at = u64::from(spec.arrives_s.unwrap_or(0)) * 1_000 + rng.below(2_000);
        if let Profile::Offline { returns } = &spec.profile {
            starts_at += super::rng::whole_ms(rng.span(*returns));
        }
        let mut todo = vec![(Mono(starts_at), Todo::Start)];
        if let Profile::Flapping { period } = &spec.profile {
            todo.push((Mono(starts_at) + rng.span(*period), Todo::Cut));
        }
        Self {
            id,
            uid,
            truth: Truth {
                runs: spec.runs,
                before: spec.runs,
                history: Vec::new(),
                dropped_capability: false,
                hangs: false,
                ill: false,
            },
            link: None,
            session: None,
            out: Outbox::new(),
            saved,
            todo,
            alarm: Alarm::default(),
            outage_until: Mono(0),
            link_rng: world.fork(Subject::Link, number),
            hint_rng: world.fork(Subject::Hint, number),
            rng,
            starts: 0,
            started: Wall(0),
            spec: spec.clone(),
        }
    }

    /// How it is connected.
    pub fn transport(&self) -> Transport {
        if matches!(self.spec.profile, Profile::Polling { .. }) {
            Transport::Http
        } else {
            Transport::WebSocket
        }
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.session.is_some()
    }

    /// When it has something to do next.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let own = self.todo.iter().map(|(at, _)| *at).min();
        let session = self.session.as_ref().filter(|_| !self.truth.hangs).and_then(Session::deadline);
        own.into_iter().chain(session).min()
    }

    /// The first thing that is due.
    pub(super) fn due(&mut self, now: Mono) -> Option<Todo> {
        let first = self.todo.iter().enumerate().min_by_key(|(_, (at, _))| *at);
        let (number, _) = first.filter(|(_, (at, _))| *at <= now)?;
        Some(self.todo.remove(number).1)
    }

    /// What the process knows and does ends with it; what is to come from outside remains.
    pub(super) fn forget_work(&mut self) {
        self.todo.retain(|(_, todo)| matches!(todo, Todo::Cut | Todo::Start));
    }

    /// A fresh session of what the disk has.
    pub(super) fn start_session(&mut self, now: Wall) {
        self.starts += 1;
        self.started = now;
        let scheme = if self.transport() == Transport::Http { "https" } else { "wss" };
        let endpoint = EndpointInfo::new(format!("{scheme}://fleet.example/v1/opamp"), self.transport());
        let seed = self.rng.fork(Subject::Agent, self.starts).draw();
        let mut setup = Setup::new(endpoint, self.description(), self.saved.clone(), seed);
        setup.abilities.remote_config = true;
        setup.abilities.durable = true;
        if let Profile::Polling { interval } = &self.spec.profile {
            setup.settings.poll_interval = interval.from;
        }
        self.truth.hangs = false;
        self.session = Some(Session::new(setup));
    }

    fn description(&self) -> Description {
        Description::new("com.example.collector").version(&*self.spec.version)
    }

    /// Its health, if it tells.
    pub(super) fn health(&self) -> Option<Health> {
        let started = self.started;
        match self.spec.profile {
            Profile::Mute | Profile::NoHealth => None,
            Profile::IllBefore => Some(Health::unhealthy(started, "ill since long ago")),
            _ if self.truth.ill => Some(Health::unhealthy(started, "it does not do its work")),
            _ => Some(Health::healthy(started)),
        }
    }

    /// What it says that it runs.
    pub(super) fn effective(&self) -> EffectiveConfig {
        let effective = EffectiveConfig::from(files(self.truth.runs));
        let has_its_own = match self.spec.profile {
            Profile::Merges | Profile::Mute => true,
            Profile::Mismatched => self.truth.runs != self.spec.runs,
            _ => false,
        };
        if has_its_own {
            return effective.file("local.yaml", ConfigFile::new("exporters: local\n"));
        }
        effective
    }

    /// It runs another configuration.
    pub(super) fn runs(&mut self, number: u8, at: Mono, happened: Happened) {
        (self.truth.before, self.truth.runs) = (self.truth.runs, number);
        self.truth.history.push((at, happened));
    }

    /// Its disk says that it runs a configuration that it went back to.
    pub(super) fn save_as_applied(&mut self, number: u8, configs: &Configs) {
        self.saved.remote_config = Some(applied(number, configs));
    }

    /// Whether a configuration is the one it ran at first.
    pub fn is_first(&self, config: Fingerprint, configs: &Configs) -> bool {
        configs.number(config) == Some(self.spec.runs)
    }
}

fn applied(number: u8, configs: &Configs) -> SavedOffer {
    let hash = configs.get(number).map(|map| map.hash().clone()).unwrap_or_default();
    SavedOffer { hash, status: OfferStatus::Applied, error: String::new(), attempts: 0 }
}

fn random(number: u64) -> [u8; 10] {
    let mut bytes = [0x3c; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::Scenario;

    #[test]
    fn agents_of_different_numbers_have_different_names() {
        let (configs, rng) = (Configs::new(0..8), Rng::new(1));
        let scenario = Scenario::drawn(2);
        let agents: Vec<SimAgent> =
            scenario.agents.iter().map(|spec| SimAgent::new(spec, &rng, &configs)).collect();
        let ids: std::collections::BTreeSet<AgentId> = agents.iter().map(|agent| agent.id).collect();
        let uids: std::collections::BTreeSet<_> = agents.iter().map(|agent| *agent.uid.as_bytes()).collect();
        assert_eq!((ids.len(), uids.len()), (agents.len(), agents.len()));
    }

    #[test]
    fn what_is_due_first_is_done_first() {
        let scenario = Scenario::drawn(2);
        let mut agent = SimAgent::new(&scenario.agents[0], &Rng::new(1), &Configs::new(0..8));
        agent.todo = vec![(Mono(9), Todo::Cut), (Mono(4), Todo::Start)];
        assert_eq!(agent.deadline(), Some(Mono(4)));
        assert!(agent.due(Mono(3)).is_none());
        assert!(matches!(agent.due(Mono(9)), Some(Todo::Start)));
        assert!(matches!(agent.due(Mono(9)), Some(Todo::Cut)));
    }
}
