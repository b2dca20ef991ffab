//! Steady states of groups: what groups should have, and where each agent is (R22b, R24, R80). The fleet is one group; who
//! is in the ring `out` is in none.

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::rollout::steady::{Placed, SteadySettings};
use opamp_fleet::rollout::{ConfigStatus, FleetEvent, GroupIx, RolloutId, RolloutState, Scope, Slot, Time};
use opamp_proto::{AgentCapabilities, AgentId, Fingerprint, Mono};

use super::Leader;
use super::candidates::agent_facts;
use crate::sim::scenario::RolloutSpec;
use crate::sim::store::{AgentRow, Rows};

/// What groups should have, and by whose success.
pub(super) type Groups = BTreeMap<(GroupIx, u32), (Fingerprint, RolloutId)>;

/// How long an assignment may take: less than agents may be waited for here.
const SETTLE_WITHIN: Duration = Duration::from_secs(300);

impl Leader {
    /// Whether it keeps the steady states of groups.
    pub(in crate::sim) fn keeping_steady(mut self, is_wanted: bool) -> Self {
        if is_wanted {
            self.groups = Some(Groups::new());
            let settings = SteadySettings { settle_within: SETTLE_WITHIN, ..SteadySettings::default() };
            self.rollouts = self.rollouts.with_steady(settings);
        }
        self
    }

    /// When its rollouts are rebuilt it is told of all groups and agents before anything else happens.
    pub(super) fn settle_in(&mut self, rows: &Rows, mono: Mono) {
        if !self.groups.as_ref().is_some_and(BTreeMap::is_empty) || !self.tell_groups(rows, mono) {
            return;
        }
        let now = self.time(mono);
        for (id, row) in &rows.agents {
            self.place(id, row, rows, now);
        }
    }

    /// Tells what groups should have, where that is new. Whether it was: all agents are told anew then.
    pub(super) fn tell_groups(&mut self, rows: &Rows, mono: Mono) -> bool {
        let now = self.time(mono);
        let Some(told) = &mut self.groups else { return false };
        let is_new =
            |(key, desired): &(&(GroupIx, u32), &(Fingerprint, RolloutId))| told.get(key) != Some(desired);
        let new: Vec<_> = rows.groups.iter().filter(is_new).map(|(key, desired)| (*key, *desired)).collect();
        told.extend(new.iter().copied());
        for ((group, slot), (config, rollout)) in &new {
            let Some(slot) = Slot::from_code(*slot) else { continue };
            let (group, config, rollout) = (*group, *config, *rollout);
            self.give(FleetEvent::GroupDesired { group, slot, config, rollout }, now);
        }
        !new.is_empty()
    }

    /// Tells where an agent is, and what it runs.
    pub(super) fn place(&mut self, id: &AgentId, row: &AgentRow, rows: &Rows, now: Time) {
        if self.groups.is_none() {
            return;
        }
        let is_in = is_in_group(id, row);
        let known = row.facts.as_ref();
        let offer = row.offers.last().map(|(_, key)| *key);
        let accepts = AgentCapabilities::ACCEPTS_REMOTE_CONFIG;
        let placed = Placed {
            agent: id,
            slot: Slot::MainConfig,
            group: is_in.then_some(GroupIx(0)),
            zone: row.labels.get("zone").map(String::as_str),
            connected: known.is_some_and(|known| known.connected),
            accepts: known.is_some_and(|known| known.capabilities.contains(accepts)),
            assigned: row.desired,
            offer,
            assigned_at: row.assigned_at,
            offers: row.offers.iter().map(|(_, key)| key.offer).max().unwrap_or(0),
            kept: offer.is_some_and(|offer| is_kept(rows, offer.rollout, row.desired)),
            runs: runs(row),
            runs_known: true,
            previous: row.known_good.filter(|good| Some(*good) != row.desired),
            failed: &row.failed,
            drift: drift(row),
            reports: known.is_some_and(|known| {
                known.report.is_some()
                    || known.capabilities.contains(AgentCapabilities::REPORTS_REMOTE_CONFIG)
            }),
        };
        self.give(FleetEvent::Placed(&placed), now);
    }
}

/// Whether the agent is in the group that rollouts are for.
pub(in crate::sim) fn is_in_group(id: &AgentId, row: &AgentRow) -> bool {
    !row.removed && RolloutSpec::selector().matches(&agent_facts(id, row))
}

/// Whether the rollout that made it so that an agent should have this has ended, and the agent keeps it, although no group
/// should have it.
pub(in crate::sim) fn is_kept(rows: &Rows, rollout: RolloutId, config: Option<Fingerprint>) -> bool {
    use RolloutState::{
        Aborted, Expired, Failed, PartiallyRolledBack, RollbackFailed, RolledBack, Superseded,
    };
    let Some(story) = rows.rollouts.get(&rollout).map(|row| &row.story) else { return false };
    match story.state() {
        Aborted | Expired | Failed | Superseded => true,
        PartiallyRolledBack | RollbackFailed | RolledBack => {
            story.scope.is_some_and(|scope| scope != Scope::All) && config == Some(story.target())
        }
        _ => false,
    }
}

/// What it says it runs.
fn runs(row: &AgentRow) -> Option<Fingerprint> {
    let known = row.facts.as_ref()?;
    let applied = known.report.as_ref().filter(|report| report.status == ConfigStatus::Applied);
    applied.map(|report| report.hash).or(known.effective.map(|(config, _)| config))
}

/// How what it runs relates to what it should have: as [`Drift::judge`] has it, for an agent of this store.
pub(in crate::sim) fn drift(row: &AgentRow) -> Drift {
    let Some(desired) = row.desired else { return Drift::Unmanaged };
    let known = row.facts.as_ref();
    let report = known.and_then(|known| known.report.as_ref());
    let of_desired = report.filter(|report| report.hash == desired);
    match of_desired.map(|report| (report.status, report.sent >= row.generation)) {
        Some((ConfigStatus::Applied, _)) => return Drift::InSync,
        Some((ConfigStatus::Failed, true)) => return Drift::Failed,
        Some((ConfigStatus::Failed, false)) => return Drift::Pending,
        Some(_) => return Drift::Applying,
        None => {}
    }
    if known.and_then(|known| known.effective).is_some_and(|(config, _)| config == desired) {
        return Drift::InSync;
    }
    let applied_another =
        report.is_some_and(|report| report.status == ConfigStatus::Applied && report.sent >= row.generation);
    if applied_another && row.known_good == Some(desired) { Drift::Drifted } else { Drift::Pending }
}
