//! Plans as bytes, and what a plan's hash covers.

use opamp_proto::{AgentId, ConfigHash, Fingerprint};

use super::codec::{Wire, at_end, choices, records, words};
use super::snapshot::Page;
use crate::rollout::gates::{Boundaries, GateConfig, NoData, Scopes, Severity, Test, Undecided};
use crate::rollout::plan::{
    ConflictPolicy, Domains, Exclusion, FleetSizes, Order, Plan, PlannedMembers, Size, Step, Strategy,
    StratumKey, WavePlan,
};
use crate::rollout::windows::{Calendar, Freeze, Override, Window};
use crate::rollout::{
    Deadlines, EngineSettings, Fit, LateJoiners, Leavers, NoProgress, Offline, RestoreError, Retries, Spans,
    Time, UnverifiedPolicy,
};

/// The latest version of plans and of pages of planned members.
pub(super) const PLAN_VERSION: u32 = 1;

impl Plan {
    /// The plan's bytes: version, then every field. Its members are not in it: see [`PlannedMembers::pages`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        PLAN_VERSION.put(&mut out);
        self.put(&mut out);
        out
    }

    /// The plan of these bytes.
    ///
    /// # Errors
    /// [`RestoreError`] if they are no plan, or one of a later version.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RestoreError> {
        version(&mut bytes, PLAN_VERSION)?;
        let plan = Self::take(&mut bytes)?;
        at_end(bytes)?;
        plan.fits()?;
        Ok(plan)
    }

    /// Whether its parts belong together, as far as everything else relies on it.
    fn fits(&self) -> Result<(), RestoreError> {
        let gates = self.gates.len() == self.boundaries.len()
            && self.gates.len() <= crate::rollout::GateIx::MAX_GATES
            && self.gates.iter().zip(&self.boundaries).all(|(gate, each)| gate.tests.len() == each.len());
        let waves = !self.waves.is_empty()
            && self.waves.len() <= usize::from(Self::WAVES_MAX)
            && self.waves.iter().all(|wave| wave.first <= wave.end && wave.end <= self.members)
            && self.waves.windows(2).all(|pair| pair[0].end == pair[1].first);
        let zones = self.zones.len() <= usize::from(Self::ZONES_MAX);
        if !gates {
            return Err(RestoreError::Invalid { what: "gates of a plan" });
        }
        if !waves || self.members > Self::MEMBERS_MAX {
            return Err(RestoreError::Invalid { what: "waves of a plan" });
        }
        if !zones {
            return Err(RestoreError::Invalid { what: "zones of a plan" });
        }
        Ok(())
    }
}

/// The hash of a plan with its members, in order (R12). It does not cover when the plan was made, nor the hash that the plan
/// carries.
pub(crate) fn plan_hash(plan: &Plan, members: &PlannedMembers) -> Fingerprint {
    let plan = Plan { hash: Fingerprint::from_bytes([0; 16]), made_at: Time(0), ..plan.clone() };
    let mut form = plan.encode();
    for page in members.pages() {
        page.number.put(&mut form);
        page.bytes.len().put(&mut form);
        form.extend_from_slice(&page.bytes);
    }
    ConfigHash::new(form).fingerprint()
}

/// Takes the version from the front of a record.
pub(super) fn version(bytes: &mut &[u8], known: u32) -> Result<(), RestoreError> {
    let found = u32::take(bytes)?;
    if found == known { Ok(()) } else { Err(RestoreError::Version { found, known }) }
}

impl PlannedMembers {
    /// The members in pages of [`Page::MEMBERS`], ascending by number. The first page also has the lists of
    /// configurations, and there is always a first page.
    pub fn pages(&self) -> Vec<Page> {
        let pages = self.rows.len().div_ceil(Page::MEMBERS).max(1);
        (0..pages)
            .map(|number| {
                let range = number * Page::MEMBERS..self.rows.len().min((number + 1) * Page::MEMBERS);
                let mut bytes = Vec::new();
                PLAN_VERSION.put(&mut bytes);
                if number == 0 {
                    self.configs.put(&mut bytes);
                    self.currents.put(&mut bytes);
                }
                super::pages::put_rows(&self.rows[range.clone()], &self.paces[range.clone()], &mut bytes);
                self.ids[range].iter().for_each(|id| id.put(&mut bytes));
                Page { number: number as u32, bytes }
            })
            .collect()
    }

    /// The members of these pages.
    ///
    /// # Errors
    /// [`RestoreError`] if a page is missing or damaged, or of a later version.
    pub fn from_pages(pages: &[Page]) -> Result<Self, RestoreError> {
        if pages.is_empty() {
            return Err(RestoreError::Page { number: 0 });
        }
        let mut members = Self::default();
        for (expected, page) in pages.iter().enumerate() {
            let damaged = RestoreError::Page { number: expected as u32 };
            if page.number != expected as u32
                || expected > 0 && members.rows.len() != expected * Page::MEMBERS
            {
                return Err(damaged);
            }
            let mut bytes = &page.bytes[..];
            version(&mut bytes, PLAN_VERSION)?;
            if expected == 0 {
                members.configs = Wire::take(&mut bytes)?;
                members.currents = Wire::take(&mut bytes)?;
            }
            let (rows, paces) = super::pages::take_rows(&mut bytes)?;
            for _ in 0..rows.len() {
                members.ids.push(AgentId::take(&mut bytes)?);
            }
            let known = |row: &crate::rollout::members::Row| {
                row.previous == crate::rollout::ConfigIx::NONE || row.previous.index() < members.configs.len()
            };
            if !bytes.is_empty() || !rows.iter().all(known) {
                return Err(damaged);
            }
            members.rows.extend(rows);
            members.paces.extend(paces);
        }
        Ok(members)
    }
}

words! {
    ConflictPolicy = "queue reject supersede";
    Fit = "refuse stretch";
    LateJoiners = "continuous join-if-own-wave-done join-last-wave snapshot";
    Leavers = "finish revert";
    NoData = "hold pass";
    NoProgress = "fail pause";
    Offline = "defer exclude";
    UnverifiedPolicy = "failure neutral success";
}

records! {
    Calendar { windows, freezes, zones }
    Deadlines { offer, apply, verify, polls, grace_min, grace_heartbeats, by_agent_type }
    Domains { key, in_flight_max, anti_affinity }
    EngineSettings {
        deadlines, retries, bake, in_flight_max, offers_at_once, progress, on_no_progress, joiners, leavers, offline,
        unverified, deferred_ttl, lock_wait, auto_resume, auto_start, approval, recall_rolls_back, fit, limits,
    }
    Exclusion { reason, count, examples }
    FleetSizes { agents, group }
    Freeze { from, until, reason, override_ }
    GateConfig {
        kind, name, tests, min_sample, window, scopes, no_data, undecided, severity, all_failed, on_error, waivable,
    }
    Override { reason, by, second }
    Plan {
        id, title, slot, group, target_hash, target, target_bytes, agent_type, components, capabilities, selector,
        strategy, order, stratify, domains, control_group, gates, boundaries, settings, calendar, start_at, expires_at,
        override_reason, author, conflict, waves, zones, members, excluded, overlaps, fleet, made_at, hash,
    }
    Retries { transport, timeout, failed, first_after, after_max }
    Spans { offer, apply, verify }
    Step { until, dwell, approval }
    WavePlan { name, first, end, dwell, cap, approval, manual, zone, ring, last_key }
    Window { zone, days, from, until }
}

choices! {
    Boundaries { 1 = Bound { sizes, limits }, 2 = Plain, 3 = Sequential { weight, waves, all, grown } }
    Order { 1 = Explicit(agents), 2 = Hash, 3 = Hostname, 4 = LeastCritical { label }, 5 = Oldest }
    Severity { 1 = Abort, 2 = Hold, 3 = Observe, 4 = Pause, 5 = RollBack(scope), 6 = RollBackWave }
    Size { 1 = AtMost { count, percent }, 2 = Count(count), 3 = Percent(percent) }
    Strategy {
        1 = AllAtOnce,
        2 = Batches { size },
        3 = Canary { steps },
        4 = Exponential { first, factor },
        5 = LabelRings { key, rings },
        6 = Manual { size },
        7 = Percentages(parts),
        8 = ZoneByZone { key },
    }
    StratumKey { 1 = AgentType, 2 = Label(key), 3 = Version }
    Test {
        1 = Bound { over, error },
        2 = Count { over },
        3 = Hard { failures },
        4 = Percent { over, at_least },
        5 = Sequential { acceptable, bad, error },
        6 = Compare { over },
    }
    Undecided { 1 = Hold, 2 = Stretch { max } }
}

impl Wire for Scopes {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        u8::take(bytes).map(Self)
    }
}
