//! The world: what happens next, and delivering it.
//!
//! Agents, replicas and the store share one virtual clock and nothing else: everything else travels as bytes on links, as
//! rows of the store, or as hints that may get lost. The same scenario gives the same run.

mod acts;
mod operators;
mod requests;
mod seen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::RolloutId;
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::stats::Ppm;
use opamp_proto::{AgentId, Fingerprint, Mono, Now, Wall};

use super::agents::SimAgent;
use super::configs::Configs;
use super::replica::Replica;
use super::rng::{Rng, Subject, mix, whole_ms};
use super::scenario::{Faulty, Scenario};
use super::schedule::{Schedule, What};
use super::store::{AgentRow, SimStore};
pub use operators::{Asked, CommandSeen, Operators};
use requests::Request;
pub use seen::{Acted, Commit, Delivery, Fenced, Heard, StepSeen};

/// When the world begins, by a calendar.
pub const BEGINS: Wall = Wall(1_700_000_000_000);
/// How long after the last act a run goes on at most.
pub const CALM: Duration = Duration::from_secs(4 * 3_600);
/// So long after it was written a configuration is in use, where nothing is broken.
pub const IN_USE_AFTER: Duration = Duration::from_secs(30 * 60);
/// So often it is looked at who should be brought to what its group has. A run goes on for two such looks longer than whatever
/// came due last may take, so that whoever was missed is found waiting for too long.
pub const LOOKED_EVERY: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// How many entries are kept for whoever asks what happened last.
const RECENT: usize = 20;
/// A hint takes so long, in milliseconds.
const HINT_MS: (u64, u64) = (1, 50);

/// A fleet, the replicas it talks to, and their store.
#[derive(Debug)]
pub struct World {
    /// What it began with.
    pub scenario: Scenario,
    /// All configurations.
    pub configs: Configs,
    /// The agents.
    pub agents: Vec<SimAgent>,
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// The store.
    pub store: SimStore,
    /// The operators, and what they asked for.
    pub operators: Operators,
    /// Configurations whose bodies are kept.
    pub kept: BTreeSet<Fingerprint>,
    pub(super) mono: Mono,
    pub(super) schedule: Schedule,
    pub(super) seen: StepSeen,
    pub(super) connections: u64,
    positions: BTreeMap<AgentId, usize>,
    requests: Vec<Request>,
    /// Answers of external gates, on their way or given.
    verdicts: Vec<requests::Verdict>,
    faults: Faults,
    /// What happens to requests to the store, by who asks and for what.
    store_rngs: BTreeMap<(usize, u64), Rng>,
    store_outage_until: Mono,
    /// Since when nothing is broken on purpose any more.
    calm_since: Option<Mono>,
    /// When something was written last that an agent or a group should have.
    last_desired: Mono,
    /// When somebody came last who is to be brought to what its group has.
    last_come: Mono,
    trace: u64,
    recent: VecDeque<(RolloutId, Entry)>,
    frames: Vec<String>,
    keeps_frames: bool,
}

impl World {
    /// The world of a scenario. `faults` breaks the engine on purpose; the default breaks nothing.
    pub fn new(scenario: &Scenario, faults: Faults) -> Self {
        let rng = Rng::new(scenario.seed);
        let firsts = scenario.agents.iter().map(|agent| agent.runs);
        let configs = Configs::new(firsts.chain(scenario.rollouts.iter().map(|spec| spec.config)));
        let agents: Vec<SimAgent> =
            scenario.agents.iter().map(|spec| SimAgent::new(spec, &rng, &configs)).collect();
        let positions = agents.iter().enumerate().map(|(position, agent)| (agent.id, position)).collect();
        let mut world = Self {
            kept: configs.all().collect(),
            operators: Operators::new(scenario, rng.fork(Subject::Operator, 0)),
            replicas: (0..usize::from(scenario.replicas)).map(Replica::new).collect(),
            store: SimStore::new(faults),
            mono: Mono(0),
            schedule: Schedule::default(),
            seen: StepSeen::default(),
            connections: 0,
            requests: Vec::new(),
            verdicts: Vec::new(),
            store_rngs: BTreeMap::new(),
            store_outage_until: Mono(0),
            calm_since: None,
            last_desired: Mono(0),
            last_come: Mono(0),
            trace: mix(scenario.seed),
            recent: VecDeque::new(),
            frames: Vec::new(),
            keeps_frames: false,
            scenario: scenario.clone(),
            configs,
            agents,
            positions,
            faults,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for agent in 0..self.agents.len() {
            if self.agents[agent].spec.arrives_s.is_none() {
                self.enroll(agent);
            }
            self.wake_agent(agent);
        }
        for replica in 0..self.replicas.len() {
            self.wake_replica(replica);
        }
        for (number, act) in self.scenario.acts.iter().enumerate() {
            self.schedule.put(Mono(u64::from(act.at_s) * 1_000), What::Act(number));
        }
        self.schedule.put(Mono(0), What::Operators);
    }

    /// Does what happens next, and says what was seen of it. None once the run is over.
    pub fn step(&mut self) -> Option<StepSeen> {
        if self.is_over() {
            return None;
        }
        let (at, what) = self.schedule.take()?;
        self.mono = self.mono.max(at);
        self.happens(what);
        let seen = std::mem::take(&mut self.seen);
        if !seen.shared.is_empty() || seen.commits.iter().any(Commit::desires_something) {
            self.last_desired = self.mono;
        }
        for delivery in &seen.deliveries {
            self.fold(delivery.at.0 ^ mix(delivery.agent as u64));
        }
        Some(seen)
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Act(number) => self.act(number),
            What::Agent(agent) => self.agent_due(agent),
            What::Down(agent) => self.arrived_down(agent),
            What::Hint { replica, agent } => self.hinted(replica, agent),
            What::Operators => self.operate(),
            What::Provider(verdict) => self.provider_answers(verdict),
            What::Replica(replica) => self.replica_due(replica),
            What::StoreDoes(request) => self.store_does(request),
            What::StoreSays(request) => self.store_says(request),
            What::Up(agent) => self.arrived_up(agent),
        }
    }

    /// Time since the world began.
    pub fn now(&self) -> Mono {
        self.mono
    }

    /// Both clocks, as they are right. The store's clock is right; those of replicas may be wrong.
    pub fn now_of_world(&self) -> Now {
        Now { mono: self.mono, wall: BEGINS + Duration::from_millis(self.mono.0) }
    }

    /// A hash of all frames and entries so far: the same scenario gives the same.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// The last entries that were committed, one line each.
    pub fn recent(&self) -> Vec<String> {
        self.recent.iter().map(|(id, entry)| format!("{id}: {entry:?}")).collect()
    }

    /// Keeps frames from now on.
    pub fn keep_frames(&mut self) {
        self.keeps_frames = true;
    }

    /// Frames since [`World::keep_frames`], one line each.
    pub fn frames(&self) -> &[String] {
        &self.frames
    }

    /// An agent's position.
    pub fn position(&self, agent: &AgentId) -> Option<usize> {
        self.positions.get(agent).copied()
    }

    /// Whether nothing is broken on purpose any more.
    pub fn is_calm(&self) -> bool {
        self.calm_since.is_some()
    }

    /// Since when nothing is broken on purpose any more.
    pub fn calm_since(&self) -> Option<Mono> {
        self.calm_since
    }

    /// When something was written last that an agent or a group should have.
    pub fn last_desired(&self) -> Mono {
        self.last_desired
    }

    /// So long after [`World::last_desired`] all that follows from it has happened, where nothing is broken. A run goes on for
    /// longer than that. Where only so many may be offered something in an hour, the others have their turn when it is over.
    pub fn in_use_after(&self) -> Duration {
        let is_slow = self.scenario.shared.steady && self.scenario.shared.per_hour != u32::MAX;
        if is_slow { IN_USE_AFTER + HOUR } else { IN_USE_AFTER }
    }

    /// Whether every rollout that was asked for is refused, or has ended and been committed.
    pub fn is_settled(&self) -> bool {
        self.operators.is_through()
            && self.store.rows().rollouts.values().all(|row| row.story.state().is_terminal())
    }

    fn is_over(&self) -> bool {
        let Some(since) = self.calm_since else { return false };
        // What was written last is to be in use, or nobody could say that it is not.
        let last_due = since.max(self.last_desired).max(self.last_come);
        let is_in_use = self.mono > last_due + self.in_use_after() + 2 * LOOKED_EVERY;
        self.is_settled() && is_in_use || self.mono > since + CALM
    }

    /// Whether a replica reaches the store.
    pub(super) fn store_is_reachable(&self) -> bool {
        self.is_calm() || self.mono >= self.store_outage_until
    }

    /// What goes wrong by itself at this time.
    pub(super) fn faulty(&self) -> Faulty {
        if self.is_calm() { Faulty::default() } else { self.scenario.faults }
    }

    /// Sees to it that the replica is called at its deadline.
    pub(super) fn wake_replica(&mut self, replica: usize) {
        let soonest = self.mono + Duration::from_millis(1);
        let one = &mut self.replicas[replica];
        let at = one.deadline().max(soonest);
        one.alarm.set(at, What::Replica(replica), &mut self.schedule);
    }

    /// Something about an agent has changed in the store: replicas are told, mostly.
    pub(super) fn hint(&mut self, agent: usize) {
        let faulty = self.faulty();
        for replica in 0..self.replicas.len() {
            let rng = &mut self.agents[agent].hint_rng;
            let lost = rng.chance(Ppm::percent(faulty.hint_lost.into()));
            let doubled = rng.chance(Ppm::percent(faulty.hint_doubled.into()));
            let delays = [(); 2].map(|()| rng.between(HINT_MS.0, HINT_MS.1));
            let times = if lost { 0 } else { 1 + usize::from(doubled) };
            for delay in delays.into_iter().take(times) {
                self.schedule.put(self.mono + Duration::from_millis(delay), What::Hint { replica, agent });
            }
        }
    }

    fn hinted(&mut self, replica: usize, agent: usize) {
        if let Some(until) = self.replicas[replica].stands_still(self.mono) {
            return self.schedule.put(until, What::Hint { replica, agent });
        }
        if !self.replicas[replica].is_up() || !self.store_is_reachable() {
            return;
        }
        if self.replicas[replica].peers.contains_key(&agent) {
            self.desire(replica, agent);
        }
        self.lead(replica, Some(agent));
    }

    fn replica_due(&mut self, replica: usize) {
        let now = self.mono;
        let one = &mut self.replicas[replica];
        one.alarm.rang(now);
        if one.stands_still(now).is_some() {
            return self.wake_replica(replica);
        }
        if !one.up {
            one.up = now >= one.back_at;
            return self.wake_replica(replica);
        }
        self.tick_sessions(replica);
        if now >= self.replicas[replica].sweep_at {
            self.replicas[replica].sweep_at = now + super::replica::SWEEP;
            if self.store_is_reachable() {
                self.sweep(replica);
                self.sweep_leader(replica);
            }
        }
        self.ask_lease(replica);
        self.lead(replica, None);
        self.wake_replica(replica);
    }

    /// The record of an agent that is heard of for the first time, or after it was deleted.
    pub(super) fn enroll(&mut self, agent: usize) {
        let (wall, one) = (self.now_of_world().wall, &self.agents[agent]);
        if self.store.rows().agents.get(&one.id).is_some_and(|row| !row.removed) {
            return;
        }
        // Of who was deleted nobody knows what it should run.
        let is_new = !self.store.rows().agents.contains_key(&one.id);
        let runs = self.configs.fingerprint(one.spec.runs).filter(|_| is_new);
        let labels = [("ring", &one.spec.ring), ("zone", &one.spec.zone)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_string()));
        let generation = self.store.rows().agents.get(&one.id).map_or(0, |row| row.generation) + 1;
        let row = AgentRow {
            position: agent,
            labels: labels.into(),
            version: one.spec.version.clone(),
            first_seen: wall,
            desired: runs,
            generation,
            known_good: runs,
            ..AgentRow::default()
        };
        self.store.put_agent(one.id, row);
        if self.scenario.shared.steady {
            self.last_come = self.mono;
        }
    }

    /// A frame that arrived.
    pub(super) fn frame(&mut self, agent: usize, way: &str, message: &[u8]) {
        let digest = message.iter().fold(self.mono.0, |sum, byte| mix(sum ^ u64::from(*byte)));
        self.fold(digest ^ mix(agent as u64));
        if self.keeps_frames {
            let seconds = self.mono.0 as f64 / 1_000.0;
            let said = super::links::said(way, self.agents[agent].payload(message));
            self.frames.push(format!("{seconds:>10.3} s  agent {agent:<3} {way:<4} {said}"));
        }
    }

    /// Entries that were committed.
    fn entries(&mut self, rollout: RolloutId, entries: &[Entry]) {
        let mut bytes = Vec::new();
        for entry in entries {
            entry.encode(&mut bytes);
        }
        let digest = bytes.iter().fold(self.mono.0, |sum, byte| mix(sum ^ u64::from(*byte)));
        self.fold(digest);
        for entry in entries.iter().skip(entries.len().saturating_sub(RECENT)) {
            if self.recent.len() >= RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((rollout, entry.clone()));
        }
    }

    fn fold(&mut self, value: u64) {
        self.trace = mix(self.trace.rotate_left(1) ^ value);
    }

    /// From now on nothing is broken on purpose.
    fn calm_down(&mut self) {
        if self.calm_since.is_none() {
            self.calm_since = Some(self.mono);
        }
    }

    /// Milliseconds since it became calm.
    fn calm_ms(&self) -> Option<u64> {
        self.calm_since.map(|since| whole_ms(self.mono - since))
    }
}

#[cfg(test)]
mod tests;
