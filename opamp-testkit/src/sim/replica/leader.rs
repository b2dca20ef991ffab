//! The duties of a leader: facts to engines, batches to the store, acts after them.

mod candidates;
mod feed;
mod pump;
pub(in crate::sim) mod steady;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::coordinator::CoordinatorSettings;
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::commit::{Batch, CommitSettings, Committer};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{Plan, PlannedMembers};
use opamp_fleet::rollout::{
    Command, CommandKey, CreateError, Engine, EngineClock, Epoch, FleetEvent, HandleError, RolloutEffects,
    RolloutId, Rollouts, Serial, Time, Write,
};
use opamp_proto::{Fingerprint, Mono, Wall};

use super::facts::Facts;
use crate::sim::configs::Configs;
use crate::sim::scenario::RolloutSpec;
use crate::sim::store::{CreateRow, LEASE, Rows, SimStore};
use crate::sim::world::StepSeen;
use candidates::Known;

pub(super) use candidates::agent_facts;

/// How often the lease is renewed.
pub(in crate::sim) const RENEW: Duration = Duration::from_secs(10);
/// So long before its lease ends a leader stops to decide anything.
const MARGIN: Duration = Duration::from_secs(5);
/// A snapshot joins a batch after so many entries: often, so that it is exercised.
const SNAPSHOT_ENTRIES: usize = 96;

/// What a replica leads with.
#[derive(Debug)]
pub struct Leader {
    /// Its epoch.
    pub epoch: Epoch,
    /// The rollouts.
    pub rollouts: Rollouts,
    /// When its lease ends at the latest, by its own clock.
    pub ends: Mono,
    clock: EngineClock,
    /// When it looked at the clock last, and what it showed.
    last: (Mono, Time),
    committers: BTreeMap<RolloutId, Committer>,
    effects: RolloutEffects,
    /// What engines were told of each agent, by its position.
    told: BTreeMap<usize, ToldOf>,
    /// Up to where records of agents were read.
    cursor: u64,
    /// Rollouts to be rebuilt from their records.
    rebuild: BTreeSet<RolloutId>,
    /// Writes that belong to no rollout and are not committed yet; the first so many are on their way.
    shared: Vec<Write>,
    shared_asked: usize,
    /// When a committer wants to be asked again.
    wait: Option<Time>,
    /// Its lease was about to end, and has been renewed since.
    doubtful: bool,
    degraded: BTreeSet<RolloutId>,
    /// Rollouts that were seen running.
    started: BTreeSet<RolloutId>,
    /// Plans that were made anew, to be written with the batch that says so.
    replanned: BTreeMap<(RolloutId, Fingerprint), Arc<CreateRow>>,
    /// What it was told that groups should have; none if it keeps no steady states.
    groups: Option<steady::Groups>,
    faults: Faults,
}

/// What engines were told of one agent.
#[derive(Debug, Default)]
struct ToldOf {
    facts: Option<Facts>,
    removed: bool,
    matched: BTreeMap<RolloutId, bool>,
}

impl Leader {
    /// A leader of this epoch, whose lease was asked for at `sent` and answered with the store's time.
    pub fn new(
        epoch: Epoch,
        settings: CoordinatorSettings,
        rows: &Rows,
        (store_time, sent): (Wall, Mono),
        faults: Faults,
    ) -> Self {
        let live = rows.rollouts.iter().filter(|(_, row)| !row.story.state().is_terminal());
        Self {
            epoch,
            rollouts: Rollouts::new(settings, rows.coordinator(), faults),
            ends: sent + LEASE,
            clock: EngineClock::new(store_time, sent),
            last: (sent, Time::from(store_time)),
            committers: BTreeMap::new(),
            effects: RolloutEffects::default(),
            told: BTreeMap::new(),
            cursor: 0,
            rebuild: live.map(|(id, _)| *id).collect(),
            shared: Vec::new(),
            shared_asked: 0,
            wait: None,
            doubtful: false,
            degraded: BTreeSet::new(),
            started: BTreeSet::new(),
            replanned: BTreeMap::new(),
            groups: None,
            faults,
        }
    }

    /// Its lease was renewed.
    pub fn renewed(&mut self, store_time: Wall, sent: Mono) {
        self.clock.renewed(store_time, sent);
        self.ends = self.ends.max(sent + LEASE);
    }

    /// Whether its lease is over.
    pub fn is_over(&self, now: Mono) -> bool {
        now >= self.ends
    }

    /// Whether it may decide: its lease lasts for a while.
    pub fn may_decide(&self, now: Mono) -> bool {
        now + MARGIN < self.ends
    }

    /// Engine time.
    pub fn time(&mut self, mono: Mono) -> Time {
        self.last = (mono, self.clock.now(mono));
        self.last.1
    }

    /// When it has something to do by itself.
    pub fn deadline(&self) -> Option<Mono> {
        let next = self.rollouts.next_deadline().into_iter().chain(self.wait).min()?;
        let (mono, time) = self.last;
        Some(mono + next.since(time))
    }

    /// Whether engines want nothing that was not handed on.
    pub(in crate::sim) fn is_quiet(&self) -> bool {
        self.effects.is_empty() && self.rebuild.is_empty()
    }

    /// Rebuilds what has to be rebuilt; what cannot be is told.
    pub(in crate::sim) fn rebuild(&mut self, store: &SimStore, mono: Mono, seen: &mut StepSeen) {
        for id in std::mem::take(&mut self.rebuild) {
            self.forget(id);
            match self.restored(id, store.rows()) {
                Ok(None) => {}
                Ok(Some((engine, serial, at))) => {
                    self.clock.not_before(at);
                    let now = self.time(mono);
                    self.rollouts.restore(engine, now);
                    self.rollouts.committed(id, serial);
                    self.committers.insert(id, self.committer(id, serial));
                    seen.rebuilt.push(id);
                }
                Err(why) => seen.impossible.push(format!("rollout {id} cannot be rebuilt: {why}")),
            }
            // Engines are told everything anew: facts may be repeated.
            self.told.clear();
            self.cursor = 0;
        }
        self.settle_in(store.rows(), mono);
    }

    /// Nothing of a rollout is left here.
    fn forget(&mut self, id: RolloutId) {
        self.rollouts.drop_engine(id);
        self.committers.remove(&id);
        self.effects.forget(id);
        self.replanned.retain(|(of, _), _| *of != id);
    }

    fn committer(&self, id: RolloutId, serial: Serial) -> Committer {
        let settings = CommitSettings { snapshot_entries: SNAPSHOT_ENTRIES, ..CommitSettings::default() };
        Committer::new(id, serial, self.epoch, settings, self.faults)
    }

    fn restored(&self, id: RolloutId, rows: &Rows) -> Result<Option<(Engine, Serial, Time)>, String> {
        let Some(row) = rows.rollouts.get(&id) else { return Ok(None) };
        let plan = Plan::decode(&row.plan).map_err(|error| error.to_string())?;
        let members = PlannedMembers::from_pages(&row.members).map_err(|error| error.to_string())?;
        let tail = row.tail.iter().cloned();
        let engine = Engine::restore(Arc::new(plan), members, row.snapshot.as_ref(), tail, self.faults)
            .map_err(|error| error.to_string())?;
        Ok(Some((engine, row.serial, row.at)))
    }

    /// Makes a rollout and writes its record. None if the store did not take it, so that it has to be tried again.
    ///
    /// # Errors
    /// Why there is none and will be none.
    pub(in crate::sim) fn create(
        &mut self,
        spec: &RolloutSpec,
        store: &mut SimStore,
        configs: &Configs,
        mono: Mono,
    ) -> Result<Option<RolloutId>, CreateError> {
        let now = self.time(mono);
        let selector = RolloutSpec::selector();
        let Some(config) = configs.get(spec.config) else { return Ok(None) };
        let known = Known::of(store.rows());
        let request = spec.request(config, &selector, self.faults);
        let id = request.id;
        self.rollouts.create(request, known.candidates(), known.sizes(), now)?;
        let Some(engine) = self.rollouts.engine(id) else { return Ok(None) };
        let row = CreateRow::of(engine, known.rows());
        if store.create(self.epoch, row).is_err() {
            self.forget(id);
            return Ok(None);
        }
        self.committers.insert(id, self.committer(id, Serial(0)));
        Ok(Some(id))
    }

    /// Gives a command.
    ///
    /// # Errors
    /// As [`Rollouts::handle`].
    pub(in crate::sim) fn command(
        &mut self,
        rollout: RolloutId,
        command: &Command,
        mono: Mono,
    ) -> Result<(), HandleError> {
        let now = self.time(mono);
        self.rollouts.handle(FleetEvent::Command { rollout, command }, now, &mut self.effects)
    }

    /// What time alone does.
    pub(in crate::sim) fn tick(&mut self, mono: Mono) {
        let now = self.time(mono);
        if self.rollouts.next_deadline().is_some_and(|next| next <= now) {
            self.give(FleetEvent::Tick, now);
        }
    }

    /// Rollouts that have to be compared with the fleet before they run: their plan is made anew. If it is another one, it
    /// is written with the batch that says so.
    pub(in crate::sim) fn preflight<'a>(
        &mut self,
        specs: &(impl Iterator<Item = &'a RolloutSpec> + Clone),
        store: &SimStore,
        configs: &Configs,
        mono: Mono,
        seen: &mut StepSeen,
    ) {
        let now = self.time(mono);
        let wanting: Vec<RolloutId> = self.rollouts.want_preflight().collect();
        let selector = RolloutSpec::selector();
        for id in wanting {
            let spec = specs.clone().find(|spec| spec.id() == id);
            let Some((spec, config)) = spec.and_then(|spec| Some(spec).zip(configs.get(spec.config))) else {
                continue;
            };
            let Ok(key) = CommandKey::new(&format!("preflight-{}", now.0)) else { continue };
            let (actor, reason) = ("controller".into(), "preflight".into());
            let command = |do_| Command { key, actor, reason, expected: None, do_ };
            let known = Known::of(store.rows());
            let request = spec.request(config, &selector, self.faults);
            let (candidates, sizes) = (known.candidates(), known.sizes());
            match self.rollouts.preflight(request, candidates, sizes, command, now, &mut self.effects) {
                Ok(None) => {}
                Ok(Some(plan)) => {
                    let Some(engine) = self.rollouts.engine(id) else { continue };
                    let row = Arc::new(CreateRow::of(engine, known.rows()));
                    self.replanned.insert((id, plan.hash), row);
                    if let Some(committer) = self.committers.get_mut(&id) {
                        committer.replanned();
                    }
                }
                Err(why) => seen.impossible.push(format!("the preflight of rollout {id} was refused: {why}")),
            }
        }
    }

    /// The plan that a batch says was made anew.
    pub(in crate::sim) fn replanned(&self, batch: &Batch) -> Option<Arc<CreateRow>> {
        let plan = batch.entries.iter().rev().find_map(|entry| match entry {
            Entry::Rollout(entry) => entry.plan,
            _ => None,
        })?;
        self.replanned.get(&(batch.key.rollout, plan)).map(Arc::clone)
    }

    /// Engines that have ended, and whose end is committed, are dropped.
    pub(in crate::sim) fn drop_ended(&mut self, rows: &Rows) {
        let is_over =
            |id: &RolloutId| rows.rollouts.get(id).is_some_and(|row| row.story.state().is_terminal());
        let engines = self.rollouts.engines().filter(|engine| engine.state().is_terminal());
        let ended: Vec<RolloutId> = engines.map(Engine::id).filter(is_over).collect();
        ended.into_iter().for_each(|id| self.forget(id));
    }

    /// Takes the answer of a provider in.
    pub(in crate::sim) fn reading(&mut self, event: FleetEvent<'_>, mono: Mono) {
        let now = self.time(mono);
        self.give(event, now);
    }

    /// Never to be offered again.
    pub(in crate::sim) fn recall(&mut self, config: Fingerprint, mono: Mono) {
        let now = self.time(mono);
        self.give(FleetEvent::Recall { config, actor: "operator", reason: "it does harm" }, now);
    }

    /// Tells the rollouts something that is no operator's command: nobody waits for an answer, and what is refused changes
    /// nothing.
    fn give(&mut self, event: FleetEvent<'_>, now: Time) {
        let _: Result<(), HandleError> = self.rollouts.handle(event, now, &mut self.effects);
    }
}
