//! The inventory in memory: every agent's facts, counted and listed.

mod counts;
mod intern;
mod packed;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Now, Wall};

pub use counts::FleetCounts;
use intern::Interner;
use packed::Packed;

use crate::agent_type::normalised;
use crate::facts::AgentFacts;
use crate::flapping::{FlapSettings, Flapping};
use crate::labels::{LabelScope, Labels};
use crate::liveness::LivenessEvent;
use crate::selector::{LabelFact, Selector, Subject};
use crate::{Drift, Health, Liveness};

/// Bounds and periods of a [`FleetIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSettings {
    /// T2: how long an agent may be away before it is `expired`. Default 24 h. It must be longer than the longest
    /// `for:` of an alert on absent agents, which otherwise can never fire.
    pub expire_after: Duration,
    /// When an agent counts as flapping.
    pub flapping: FlapSettings,
    /// Distinct label keys over the whole fleet. Default 4,096. Agents whose keys find no place are marked
    /// truncated, and selectors that ask for absence do not match them.
    pub label_keys_max: u16,
    /// Distinct values of one key that are stored once for all agents. Default 256. Values beyond are kept with
    /// each agent: a higher number saves memory when values repeat, and costs some when they do not.
    pub shared_values_per_key_max: usize,
}

impl Default for IndexSettings {
    fn default() -> Self {
        Self {
            expire_after: Duration::from_secs(24 * 3600),
            flapping: FlapSettings::default(),
            label_keys_max: 4096,
            shared_values_per_key_max: 256,
        }
    }
}

/// Which agents to list. Everything that is given must hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexQuery<'a> {
    /// A selector.
    pub selector: Option<&'a Selector>,
    /// Only agents of this liveness.
    pub liveness: Option<Liveness>,
    /// Only agents of this health.
    pub health: Option<Health>,
    /// Only agents of this drift.
    pub drift: Option<Drift>,
    /// Only agents after this one.
    pub after: Option<AgentId>,
}

/// A stretch of a listing, ordered by [`AgentId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The agents that match.
    pub agents: Vec<AgentFacts>,
    /// Where to go on: the last agent looked at, if there are agents after it.
    pub resume: Option<AgentId>,
}

/// A stretch of the agents that match, by their ids alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// The agents that match.
    pub ids: Vec<AgentId>,
    /// As in [`Listing::resume`].
    pub resume: Option<AgentId>,
}

/// The facts of every agent, keyed by [`AgentId`], with counters that are right at every moment.
///
/// Every update costs O(log n) and what changed, counting costs O(1), listing O(agents looked at). Label keys and
/// repeated values are stored once; a typical agent takes less than 400 bytes in all.
#[derive(Clone, Debug)]
pub struct FleetIndex {
    settings: IndexSettings,
    rows: BTreeMap<AgentId, Box<Row>>,
    by_uid: HashMap<InstanceUid, AgentId>,
    counts: FleetCounts,
    interner: Interner,
    /// Agents for which T2 runs, by the moment at which they went away.
    away: BTreeSet<(Wall, AgentId)>,
    flapping: Flapping,
}

#[derive(Clone, Debug)]
struct Row {
    uid: InstanceUid,
    capabilities: AgentCapabilities,
    liveness_since: Wall,
    labels: Packed,
    liveness: Liveness,
    health: Health,
    drift: Drift,
    truncated: bool,
}

impl Row {
    fn cell(&self) -> (Liveness, Health, Drift) {
        (self.liveness, self.health, self.drift)
    }
}

impl FleetIndex {
    /// An empty inventory.
    pub fn new(settings: IndexSettings) -> Self {
        Self {
            settings,
            rows: BTreeMap::new(),
            by_uid: HashMap::new(),
            counts: FleetCounts::default(),
            interner: Interner::new(settings.label_keys_max, settings.shared_values_per_key_max),
            away: BTreeSet::new(),
            flapping: Flapping::new(settings.flapping),
        }
    }

    /// Puts an agent in, or replaces all that is known of it.
    ///
    /// An `instance_uid` names one agent: one that had it before keeps its facts and is no longer found by it.
    pub fn insert(&mut self, facts: &AgentFacts) {
        self.take_out(&facts.id);
        let (labels, dropped) = Packed::new(&facts.labels, &mut self.interner);
        let row = Row {
            uid: facts.uid,
            capabilities: facts.capabilities,
            liveness_since: facts.liveness_since,
            labels,
            liveness: facts.liveness,
            health: facts.health,
            drift: facts.drift,
            truncated: dropped || facts.labels.is_truncated(),
        };
        self.counts.add(row.cell());
        if row.liveness.is_away() {
            self.away.insert((row.liveness_since, facts.id));
        }
        self.by_uid.insert(facts.uid, facts.id);
        self.rows.insert(facts.id, Box::new(row));
    }

    /// Forgets an agent. False if it was not there.
    pub fn remove(&mut self, id: &AgentId) -> bool {
        self.flapping.forget(id);
        self.take_out(id)
    }

    fn take_out(&mut self, id: &AgentId) -> bool {
        let Some(row) = self.rows.remove(id) else { return false };
        self.counts.subtract(row.cell());
        self.away.remove(&(row.liveness_since, *id));
        if self.by_uid.get(&row.uid) == Some(id) {
            self.by_uid.remove(&row.uid);
        }
        row.labels.release(&mut self.interner);
        true
    }

    /// Takes note of a sign of life, a silence, an end or a lapse. Gives the liveness before and after, or none
    /// for an agent that is not here.
    pub fn observe(&mut self, id: &AgentId, event: LivenessEvent, now: Now) -> Option<(Liveness, Liveness)> {
        let row = self.rows.get_mut(id)?;
        let (before, after) = (row.liveness, row.liveness.after(event));
        if before != after {
            self.counts.subtract(row.cell());
            self.away.remove(&(row.liveness_since, *id));
            row.liveness = after;
            row.liveness_since = now.wall;
            self.counts.add(row.cell());
            if after.is_away() {
                self.away.insert((now.wall, *id));
            }
            if before != Liveness::NeverSeen && after != Liveness::Expired {
                self.flapping.record(*id, now.mono);
            }
        }
        Some((before, after))
    }

    /// Sets health. False for an agent that is not here.
    pub fn set_health(&mut self, id: &AgentId, health: Health) -> bool {
        self.recount(id, |row| row.health = health)
    }

    /// Sets drift. False for an agent that is not here.
    pub fn set_drift(&mut self, id: &AgentId, drift: Drift) -> bool {
        self.recount(id, |row| row.drift = drift)
    }

    /// Sets capabilities. False for an agent that is not here.
    pub fn set_capabilities(&mut self, id: &AgentId, capabilities: AgentCapabilities) -> bool {
        self.recount(id, |row| row.capabilities = capabilities)
    }

    /// Sets capabilities, health and drift at once. False for an agent that is not here.
    pub fn set_status(
        &mut self,
        id: &AgentId,
        capabilities: AgentCapabilities,
        health: Health,
        drift: Drift,
    ) -> bool {
        self.recount(id, |row| {
            row.capabilities = capabilities;
            row.health = health;
            row.drift = drift;
        })
    }

    /// Replaces the labels. False for an agent that is not here.
    pub fn set_labels(&mut self, id: &AgentId, labels: &Labels) -> bool {
        let Some(row) = self.rows.get_mut(id) else { return false };
        // Packed before the old ones are released, so that what both have is not dropped and added again.
        let (packed, dropped) = Packed::new(labels, &mut self.interner);
        let old = std::mem::replace(&mut row.labels, packed);
        row.truncated = dropped || labels.is_truncated();
        old.release(&mut self.interner);
        true
    }

    /// Gives an agent another `instance_uid`. False for an agent that is not here.
    pub fn set_uid(&mut self, id: &AgentId, uid: InstanceUid) -> bool {
        let Some(row) = self.rows.get_mut(id) else { return false };
        let old = std::mem::replace(&mut row.uid, uid);
        if self.by_uid.get(&old) == Some(id) {
            self.by_uid.remove(&old);
        }
        self.by_uid.insert(uid, *id);
        true
    }

    fn recount(&mut self, id: &AgentId, change: impl FnOnce(&mut Row)) -> bool {
        let Some(row) = self.rows.get_mut(id) else { return false };
        self.counts.subtract(row.cell());
        change(row);
        self.counts.add(row.cell());
        true
    }

    /// Expires agents whose T2 has passed, at most `expired_max` of them, and lets old transitions go. Gives the
    /// agents that expired. Costs O(expired + recently changed).
    pub fn sweep(&mut self, now: Now, expired_max: usize) -> Vec<AgentId> {
        self.flapping.sweep(now.mono);
        let mut expired = Vec::new();
        while expired.len() < expired_max
            && let Some((since, id)) = self.away.first().copied()
            && self.expires_at(since) <= now.wall
        {
            self.away.remove(&(since, id));
            self.observe(&id, LivenessEvent::Lapsed, now);
            expired.push(id);
        }
        expired
    }

    /// When the next agent expires, if one is away.
    pub fn next_expiry(&self) -> Option<Wall> {
        self.away.first().map(|(since, _)| self.expires_at(*since))
    }

    fn expires_at(&self, since: Wall) -> Wall {
        let after_ms = u64::try_from(self.settings.expire_after.as_millis()).unwrap_or(u64::MAX);
        Wall(since.0.saturating_add(after_ms))
    }

    /// The facts of one agent.
    pub fn facts(&self, id: &AgentId) -> Option<AgentFacts> {
        self.rows.get(id).map(|row| self.unpack(*id, row))
    }

    /// The agent that has this `instance_uid` now.
    pub fn by_uid(&self, uid: &InstanceUid) -> Option<AgentId> {
        self.by_uid.get(uid).copied()
    }

    /// The `instance_uid` an agent has now.
    pub fn uid(&self, id: &AgentId) -> Option<InstanceUid> {
        self.rows.get(id).map(|row| row.uid)
    }

    /// The type of an agent, [`AGENT_TYPE_UNKNOWN`](crate::AGENT_TYPE_UNKNOWN) of one that is not here. Nothing is unpacked.
    pub fn agent_type(&self, id: &AgentId) -> &str {
        let row = self.rows.get(id);
        let label = |scope| row?.labels.find(&self.interner, Some(scope), "service.name");
        match label(LabelScope::Identifying).or_else(|| label(LabelScope::NonIdentifying)) {
            Some(LabelFact::Text(name)) => normalised(Some(name)),
            _ => normalised(None),
        }
    }

    /// The liveness of an agent.
    pub fn liveness(&self, id: &AgentId) -> Option<Liveness> {
        self.rows.get(id).map(|row| row.liveness)
    }

    /// The health of an agent.
    #[cfg(feature = "manager")]
    pub(crate) fn health(&self, id: &AgentId) -> Option<Health> {
        self.rows.get(id).map(|row| row.health)
    }

    /// Whether an agent comes and goes more often than [`IndexSettings::flapping`] allows.
    pub fn is_flapping(&self, id: &AgentId, now: Now) -> bool {
        self.flapping.is_flapping(id, now.mono)
    }

    /// How many agents do.
    pub fn flapping(&self, now: Now) -> usize {
        self.flapping.count(now.mono)
    }

    /// Agents by liveness, health and drift.
    pub fn counts(&self) -> &FleetCounts {
        &self.counts
    }

    /// Number of agents.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lists agents that match, at most `limit` (at least 1), after looking at no more than `looked_at_max`. Whoever holds a
    /// lock around the index bounds with the latter how long, and goes on at [`Listing::resume`].
    pub fn list(&self, query: &IndexQuery<'_>, limit: usize, looked_at_max: usize) -> Listing {
        let start = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = self.rows.range((start, Bound::Unbounded));
        let mut listing = Listing { agents: Vec::new(), resume: None };
        let mut looked_at = 0;
        while listing.agents.len() < limit && looked_at < looked_at_max {
            let Some((id, row)) = rows.next() else {
                listing.resume = None;
                return listing;
            };
            looked_at += 1;
            listing.resume = Some(*id);
            if query.matches(self, row) {
                listing.agents.push(self.unpack(*id, row));
            }
        }
        if rows.next().is_none() {
            listing.resume = None;
        }
        listing
    }

    /// The ids of those that match among the next `looked_at_max` agents after `query.after`. Much cheaper than
    /// [`FleetIndex::list`], which unpacks what is known of each.
    pub fn ids(&self, query: &IndexQuery<'_>, looked_at_max: usize) -> Matching {
        let start = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = self.rows.range((start, Bound::Unbounded));
        let looked_at = rows.by_ref().take(looked_at_max);
        let mut last = None;
        let matching = looked_at.filter_map(|(id, row)| {
            last = Some(*id);
            query.matches(self, row).then_some(*id)
        });
        let ids = matching.collect();
        Matching { ids, resume: last.filter(|_| rows.next().is_some()) }
    }

    fn unpack(&self, id: AgentId, row: &Row) -> AgentFacts {
        let mut labels = row.labels.unpack(&self.interner);
        if row.truncated {
            labels.mark_truncated();
        }
        AgentFacts {
            id,
            uid: row.uid,
            capabilities: row.capabilities,
            liveness: row.liveness,
            liveness_since: row.liveness_since,
            health: row.health,
            drift: row.drift,
            labels,
        }
    }

    #[cfg(test)]
    fn interned(&self) -> (usize, usize) {
        self.interner.sizes()
    }
}

impl IndexQuery<'_> {
    fn matches(&self, index: &FleetIndex, row: &Row) -> bool {
        self.liveness.is_none_or(|liveness| row.liveness == liveness)
            && self.health.is_none_or(|health| row.health == health)
            && self.drift.is_none_or(|drift| row.drift == drift)
            && self
                .selector
                .is_none_or(|selector| selector.matches(&RowView { row, interner: &index.interner }))
    }
}

/// A row as subject of a selector, without unpacking it.
struct RowView<'a> {
    row: &'a Row,
    interner: &'a Interner,
}

impl Subject for RowView<'_> {
    fn label(&self, scope: Option<LabelScope>, key: &str) -> LabelFact<'_> {
        match self.row.labels.find(self.interner, scope, key) {
            Some(fact) => fact,
            None if self.row.truncated => LabelFact::Unknown,
            None => LabelFact::Absent,
        }
    }

    fn capabilities(&self) -> AgentCapabilities {
        self.row.capabilities
    }

    fn drift(&self) -> Drift {
        self.row.drift
    }

    fn health(&self) -> Health {
        self.row.health
    }

    fn liveness(&self) -> Liveness {
        self.row.liveness
    }
}

#[cfg(test)]
mod tests;
