//! What the store has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use opamp_fleet::coordinator::CoordinatorRows;
use opamp_fleet::rollout::commit::{Batch, BatchKey};
use opamp_fleet::rollout::journal::{Entry, Page, Snapshot};
use opamp_fleet::rollout::plan::{Plan, PlannedMembers};
use opamp_fleet::rollout::{
    Audit, Engine, Epoch, GroupIx, MemberState, OfferKey, RolloutId, Serial, Slot, Time, WaveIx, Write,
};
use opamp_proto::{AgentId, Fingerprint, Wall};

use super::Desired;
use crate::sim::ledger::{Change, Line, Story};
use crate::sim::replica::facts::Facts;

/// Everything the store has.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Records of agents.
    pub agents: BTreeMap<AgentId, AgentRow>,
    /// Records of rollouts.
    pub rollouts: BTreeMap<RolloutId, RolloutRow>,
    /// Who leads.
    pub lease: Lease,
    /// Configurations that rollouts need.
    pub pins: BTreeSet<(RolloutId, Fingerprint)>,
    /// Quarantined agents.
    pub quarantined: BTreeMap<AgentId, (Option<Time>, opamp_fleet::rollout::Reason)>,
    /// Recalled configurations.
    pub recalled: BTreeSet<Fingerprint>,
    /// Until when the breaker is open.
    pub breaker: Option<Time>,
    /// Steady states of groups.
    pub groups: BTreeMap<(GroupIx, u32), (Fingerprint, RolloutId)>,
    /// The audit log.
    pub audit: Vec<Audit>,
    /// Grows with each change of an agent's record.
    pub cursor: u64,
}

/// The leader's lease.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lease {
    /// Who has it.
    pub holder: Option<usize>,
    /// Grows with each new holding.
    pub epoch: Epoch,
    /// When it ends, by the store's clock.
    pub until: Wall,
}

/// The record of an agent.
#[derive(Clone, Debug, Default)]
pub struct AgentRow {
    /// Its position in the world.
    pub position: usize,
    /// Labels that operators set.
    pub labels: BTreeMap<String, String>,
    /// Its version.
    pub version: Box<str>,
    /// When it was first heard of.
    pub first_seen: Wall,
    /// What is known of it.
    pub facts: Option<Facts>,
    /// The configuration it should run.
    pub desired: Option<Fingerprint>,
    /// Grows with each change of it.
    pub generation: u64,
    /// The latest generation that anybody is known to have sent to it.
    pub sent: u64,
    /// When that was written last.
    pub assigned_at: Option<Time>,
    /// For what offer each generation was made, the last [`AgentRow::OFFERS_MAX`].
    pub offers: Vec<(u64, OfferKey)>,
    /// The configuration it last ran well for as long as it was watched (R66).
    pub known_good: Option<Fingerprint>,
    /// Configurations that failed on it, the last [`AgentRow::FAILED_MAX`].
    pub failed: Vec<Fingerprint>,
    /// The record is deleted.
    pub removed: bool,
    /// The cursor of its last change.
    pub changed: u64,
}

impl AgentRow {
    /// Most offers that are remembered.
    pub const OFFERS_MAX: usize = 64;
    /// Most failed configurations that are remembered.
    pub const FAILED_MAX: usize = 16;

    /// The offer of a generation: the latest one not after it.
    pub fn offer(&self, generation: u64) -> Option<(RolloutId, u32)> {
        let made = self.offers.iter().rev().find(|(of, _)| *of <= generation);
        made.map(|(_, key)| (key.rollout, key.offer))
    }

    /// Whether an offer is known to have been sent to it. One that is not remembered any more counts as sent.
    pub fn was_sent(&self, rollout: RolloutId, offer: u32) -> bool {
        let made = self.offers.iter().find(|(_, key)| (key.rollout, key.offer) == (rollout, offer));
        made.is_none_or(|(generation, _)| *generation <= self.sent)
    }

    /// Whether it should run a configuration, or ran it well last.
    fn holds(&self, config: Fingerprint) -> bool {
        [self.desired, self.known_good].contains(&Some(config))
    }

    /// It ran a configuration well for as long as it was watched: that it failed once does not count any more.
    fn ran_well(&mut self, config: Fingerprint) {
        self.known_good = Some(config);
        self.failed.retain(|failed| *failed != config);
    }

    /// A configuration is not its last known good one any more: what it had before is.
    fn gives_up(&mut self, config: Fingerprint, instead: Option<Fingerprint>) {
        if self.known_good == Some(config) {
            self.known_good = instead;
        }
    }

    fn remember_failed(&mut self, config: Fingerprint) {
        if self.failed.contains(&config) {
            return;
        }
        if self.failed.len() >= Self::FAILED_MAX {
            self.failed.remove(0);
        }
        self.failed.push(config);
    }

    /// What it goes back to if a rollout of `target` has to be undone.
    pub fn goes_back_to(&self, target: Fingerprint) -> Option<Fingerprint> {
        self.known_good.into_iter().chain(self.desired).find(|config| *config != target)
    }
}

/// What a rollout's record begins with.
#[derive(Clone, Debug)]
pub struct CreateRow {
    /// Its plan.
    pub plan: Plan,
    /// Its members.
    pub members: PlannedMembers,
    /// What was known of each member when the plan was made: what it can go back to.
    pub previous: BTreeMap<AgentId, Option<Fingerprint>>,
    /// What became of each member when the plan was made.
    pub story: Story,
}

impl CreateRow {
    /// The record of an engine that has just been made, or whose plan has: `known` are the agents it was made of.
    pub fn of<'a>(engine: &Engine, known: impl Iterator<Item = (&'a AgentId, &'a AgentRow)>) -> Self {
        let target = engine.plan().target;
        let previous = known.map(|(id, row)| (*id, row.goes_back_to(target))).collect();
        Self {
            plan: (**engine.plan()).clone(),
            members: engine.planned(),
            previous,
            story: Story::new(engine),
        }
    }
}

/// The record of a rollout.
#[derive(Clone, Debug)]
pub struct RolloutRow {
    /// Its plan, encoded.
    pub plan: Vec<u8>,
    /// Its members, by page.
    pub members: Vec<Page>,
    /// What each member can go back to.
    pub previous: BTreeMap<AgentId, Option<Fingerprint>>,
    /// The last snapshot.
    pub snapshot: Option<Snapshot>,
    /// Entries after it.
    pub tail: Vec<Entry>,
    /// Its last batch.
    pub serial: Serial,
    /// When that was.
    pub at: Time,
    /// Keys of batches and what they led to, the last [`RolloutRow::KEYS_MAX`].
    keys: VecDeque<(BatchKey, Serial)>,
    /// All that happened, read plainly.
    pub story: Story,
}

impl RolloutRow {
    /// Most keys that are remembered.
    pub const KEYS_MAX: usize = 1_024;

    pub(super) fn new(row: CreateRow) -> Self {
        Self {
            plan: row.plan.encode(),
            members: row.members.pages(),
            previous: row.previous,
            snapshot: None,
            tail: Vec::new(),
            serial: Serial(0),
            at: row.plan.made_at,
            keys: VecDeque::new(),
            story: row.story,
        }
    }

    /// What a batch of this key led to, if it was written.
    pub fn known(&self, key: BatchKey) -> Option<Serial> {
        self.keys.iter().find(|(known, _)| *known == key).map(|(_, serial)| *serial)
    }

    /// Takes a batch in.
    ///
    /// # Errors
    /// What makes no sense in it; nothing has changed then.
    pub(super) fn append(
        &mut self,
        batch: &Batch,
        replanned: Option<&CreateRow>,
    ) -> Result<Vec<Change>, String> {
        let (mut story, mut changes, mut planned) = (self.story.clone(), Vec::new(), None);
        for entry in &batch.entries {
            changes.extend(story.read(entry)?);
            if let Entry::Rollout(entry) = entry
                && let Some(plan) = entry.plan
            {
                let made = replanned.filter(|made| made.plan.hash == plan && batch.snapshot.is_some());
                let made = made.ok_or("a plan that was made anew is not with it")?;
                story = made.story.clone().replacing(story);
                planned = Some(made);
            }
        }
        if let Some(made) = planned {
            (self.plan, self.members) = (made.plan.encode(), made.members.pages());
            (self.previous, self.snapshot) = (made.previous.clone(), None);
        }
        self.story = story;
        self.tail.extend(batch.entries.iter().cloned());
        if let Some(snapshot) = &batch.snapshot {
            self.lay(snapshot);
            self.tail.clear();
        }
        self.serial = Serial(batch.base.0 + 1);
        self.at = self.at.max(batch.at);
        if self.keys.len() >= Self::KEYS_MAX {
            self.keys.pop_front();
        }
        self.keys.push_back((batch.key, self.serial));
        Ok(changes)
    }

    /// Pages replace those of the same number; the latest head counts.
    fn lay(&mut self, snapshot: &Snapshot) {
        let held = self.snapshot.get_or_insert_default();
        held.head.clone_from(&snapshot.head);
        for page in &snapshot.pages {
            match held.pages.binary_search_by_key(&page.number, |page| page.number) {
                Ok(place) => held.pages[place] = page.clone(),
                Err(place) => held.pages.insert(place, page.clone()),
            }
        }
    }
}

impl Rows {
    /// What a coordinator cannot find out from rollouts.
    pub fn coordinator(&self) -> CoordinatorRows {
        let quarantined = self.quarantined.iter().map(|(agent, (until, why))| (*agent, *until, *why));
        let fleet = self.agents.values().filter(|row| !row.removed).count();
        CoordinatorRows {
            quarantined: quarantined.collect(),
            recalled: self.recalled.iter().copied().collect(),
            breaker: self.breaker,
            fleet: u32::try_from(fleet).unwrap_or(u32::MAX),
        }
    }

    /// Whether a configuration has to be kept: somebody should run it or may have to go back to it, or a rollout needs it.
    /// A live one needs what its members had when they were planned as well, since it pins that only with their first offer.
    pub fn needs(&self, config: Fingerprint) -> bool {
        let is_needed_by = |row: &RolloutRow| {
            row.story.target() == config || row.previous.values().any(|own| *own == Some(config))
        };
        self.pins.iter().any(|(_, pinned)| *pinned == config)
            || self.groups.values().any(|(wanted, _)| *wanted == config)
            || self.agents.values().any(|row| !row.removed && row.holds(config))
            || self.rollouts.values().any(|row| !row.story.state().is_terminal() && is_needed_by(row))
    }

    /// What members that came late can go back to.
    pub(super) fn note_joined(&mut self, rollout: RolloutId, changes: &[Change]) {
        let Some(row) = self.rollouts.get_mut(&rollout) else { return };
        for change in changes {
            if let Change::Joined { agent, previous, .. } = change {
                let held = row.previous.entry(*agent).or_default();
                *held = held.or(*previous);
            }
        }
    }

    /// Writes one thing.
    pub(super) fn write(&mut self, write: &Write) -> Option<Desired> {
        match write {
            Write::Assign { key, slot: Slot::MainConfig, config, over } => {
                return self.assign(*key, *config, *over);
            }
            Write::Audit(audit) => self.audit.push((**audit).clone()),
            Write::Breaker { open_until } => self.breaker = *open_until,
            Write::Desire { key, slot: Slot::MainConfig, config, rollback } => {
                return self.desire(*key, *config, *rollback);
            }
            Write::Failed { agent, slot: Slot::MainConfig, config, previous, remembered } => {
                if let Some(row) = self.agents.get_mut(agent) {
                    row.gives_up(*config, *previous);
                    if *remembered {
                        row.remember_failed(*config);
                    }
                }
            }
            Write::KnownGood { rollout, slot: Slot::MainConfig, config, wave, at } => {
                self.known_good(*rollout, *config, *wave, *at);
            }
            // The fleet of the simulator has one slot.
            Write::Assign { .. } | Write::Desire { .. } | Write::Failed { .. } | Write::KnownGood { .. } => {}
            Write::GroupDesired { group, slot, config, rollout } => {
                self.groups.insert((*group, slot.code()), (*config, *rollout));
            }
            Write::Pin { rollout, config } => {
                self.pins.insert((*rollout, *config));
            }
            Write::Quarantine { agent, until, reason } => {
                self.quarantined.insert(*agent, (*until, *reason));
            }
            Write::Recall { config, .. } => {
                self.recalled.insert(*config);
            }
            Write::Release { agent } => {
                self.quarantined.remove(agent);
            }
            Write::Unpin { rollout } => self.pins.retain(|(of, _)| of != rollout),
        }
        None
    }

    /// Members that have been verified since then at least, those of a wave or all, run it well.
    fn known_good(&mut self, rollout: RolloutId, config: Fingerprint, wave: Option<WaveIx>, at: Time) {
        let Some(row) = self.rollouts.get(&rollout) else { return };
        let since = |line: &Line| line.row.map_or(Time(0), |row| row.since);
        let verified =
            row.story.lines.iter().filter(|line| line.state == MemberState::Verified && since(line) <= at);
        for line in verified.filter(|line| wave.is_none_or(|wave| line.wave == wave)) {
            if let Some(agent) = self.agents.get_mut(&line.agent) {
                agent.ran_well(config);
            }
        }
    }

    /// What a steady state wants: unless somebody else was first, or it was written before.
    fn assign(&mut self, key: OfferKey, config: Fingerprint, over: Option<OfferKey>) -> Option<Desired> {
        let offers = &self.agents.get(&key.agent)?.offers;
        let is_known = offers.iter().any(|(_, known)| *known == key);
        let is_first = offers.last().map(|(_, last)| *last) == over;
        if is_known || is_first { self.desire(key, config, false) } else { None }
    }

    fn desire(&mut self, key: OfferKey, config: Fingerprint, rollback: bool) -> Option<Desired> {
        let row = self.agents.get_mut(&key.agent)?;
        let repeated = row.offers.iter().any(|(_, known)| *known == key);
        let before = (row.desired, row.offers.last().map(|(_, key)| *key));
        if !repeated {
            self.cursor += 1;
            row.changed = self.cursor;
            row.generation += 1;
            row.desired = Some(config);
            if let Some(before) = before.0.filter(|_| rollback) {
                row.gives_up(before, Some(config));
            }
            if row.offers.len() >= AgentRow::OFFERS_MAX {
                row.offers.remove(0);
            }
            row.offers.push((row.generation, key));
        }
        Some(Desired { agent: key.agent, config, rollback, repeated, offer: key.offer, before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: AgentId = AgentId::from_bytes([7; 16]);

    fn key(offer: u32) -> OfferKey {
        OfferKey { rollout: RolloutId::from_bytes([1; 16]), agent: AGENT, offer }
    }

    fn desire(offer: u32, config: u8) -> Write {
        let config = Fingerprint::from_bytes([config; 16]);
        Write::Desire { key: key(offer), slot: Slot::MainConfig, config, rollback: false }
    }

    #[test]
    fn a_desired_configuration_is_written_once_for_each_offer() {
        let mut rows = Rows::default();
        rows.agents.insert(AGENT, AgentRow::default());
        assert!(!rows.write(&desire(1, 5)).unwrap().repeated);
        assert!(rows.write(&desire(1, 5)).unwrap().repeated);
        assert_eq!(rows.agents[&AGENT].generation, 1);
        assert!(!rows.write(&desire(2, 6)).unwrap().repeated);
        let row = &rows.agents[&AGENT];
        assert_eq!((row.generation, row.desired), (2, Some(Fingerprint::from_bytes([6; 16]))));
    }

    #[test]
    fn an_assignment_goes_over_the_offer_it_was_decided_over_and_no_other() {
        let mut rows = Rows::default();
        rows.agents.insert(AGENT, AgentRow::default());
        let slot = Slot::MainConfig;
        let config = |number| Fingerprint::from_bytes([number; 16]);
        let assign = |offer, over| Write::Assign { key: key(offer), slot, config: config(9), over };
        rows.write(&desire(1, 5));
        assert_eq!(rows.write(&assign(2, None)), None, "somebody else was first");
        assert!(!rows.write(&assign(2, Some(key(1)))).unwrap().repeated);
        rows.write(&desire(3, 6));
        assert_eq!(rows.write(&assign(4, Some(key(2)))), None);
        assert!(rows.write(&assign(2, Some(key(1)))).unwrap().repeated, "that it was written is all it says");
        assert_eq!(rows.agents[&AGENT].desired, Some(config(6)));
    }

    #[test]
    fn a_generation_belongs_to_the_latest_offer_not_after_it() {
        let mut rows = Rows::default();
        rows.agents.insert(AGENT, AgentRow { generation: 4, ..AgentRow::default() });
        rows.write(&desire(1, 5));
        rows.write(&desire(2, 6));
        let row = &rows.agents[&AGENT];
        let offers = [4, 5, 6, 9].map(|generation| row.offer(generation).map(|(_, offer)| offer));
        assert_eq!(offers, [None, Some(1), Some(2), Some(2)]);
    }

    #[test]
    fn what_a_rollout_pins_is_needed_until_it_unpins() {
        let (mut rows, config) = (Rows::default(), Fingerprint::from_bytes([5; 16]));
        assert!(!rows.needs(config));
        rows.write(&Write::Pin { rollout: key(1).rollout, config });
        assert!(rows.needs(config));
        rows.write(&Write::Unpin { rollout: key(1).rollout });
        assert!(!rows.needs(config));
    }

    #[test]
    fn what_members_of_a_live_rollout_had_is_needed_before_it_is_pinned() {
        let scenario = crate::sim::scenario::Scenario::drawn(1);
        let mut world = crate::sim::world::World::new(&scenario, opamp_fleet::faults::Faults::default());
        while world.store.rows().rollouts.is_empty() {
            world.step().unwrap();
        }
        let mut rows = world.store.rows().clone();
        rows.pins.clear();
        rows.agents.clear();
        let row = rows.rollouts.values_mut().next().unwrap();
        let own = row.previous.values().find_map(|own| *own).unwrap();
        assert!(rows.needs(own));
        rows.rollouts.clear();
        assert!(!rows.needs(own));
    }

    #[test]
    fn who_became_verified_after_the_watch_was_over_was_not_watched() {
        let scenario = crate::sim::scenario::Scenario::drawn(1);
        let mut world = crate::sim::world::World::new(&scenario, opamp_fleet::faults::Faults::default());
        let (rollout, agent, since) = loop {
            world.step().unwrap();
            let rollouts = world.store.rows().rollouts.iter();
            let mut lines = rollouts.flat_map(|(id, row)| row.story.lines.iter().map(|line| (*id, line)));
            if let Some((id, line)) = lines.find(|(_, line)| line.state == MemberState::Verified) {
                break (id, line.agent, line.row.unwrap().since);
            }
        };
        let (mut rows, config) = (world.store.rows().clone(), Fingerprint::from_bytes([9; 16]));
        let mut good = |at| {
            rows.write(&Write::KnownGood { rollout, slot: Slot::MainConfig, config, wave: None, at });
            rows.agents[&agent].known_good == Some(config)
        };
        assert!(!good(Time(since.0 - 1)));
        assert!(good(since));
    }
}
