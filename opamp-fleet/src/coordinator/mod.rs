//! What rollouts share: locks, budgets, rates, blast radius, breaker, quarantine, recall.
//!
//! All of it but quarantine, recall and breaker follows from the rollouts themselves and is rebuilt from them: dropping an
//! engine leaves nothing behind.

mod adopt;
mod blast;
mod breaker;
mod budgets;
mod claim;
mod conflict;
mod flight;
mod layers;
mod locks;
mod quarantine;
mod rates;
mod recall;
mod settings;
mod zones;

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::{AgentId, Fingerprint};

pub use breaker::BreakerSettings;
pub use budgets::{Budget, Domain};
pub use claim::{Claim, ClaimKind, Denied};
pub use conflict::{Admission, Conflict};
pub use layers::{Layered, LayeredFile, LayersError};
pub use quarantine::QuarantineSettings;
pub use settings::{CoordinatorRows, CoordinatorSettings, CoordinatorView, ZoneKey};

use crate::faults::{Faults, seeded};
use crate::rollout::plan::ConflictPolicy;
use crate::rollout::stats::Ppm;
use crate::rollout::{Limits, Outcome, Reason, RolloutId, Slot, Time, Write};

/// What rollouts share. An engine asks before each offer; what it gets, it gets as a whole.
#[derive(Clone, Debug)]
pub struct Coordinator {
    settings: CoordinatorSettings,
    faults: Faults,
    locks: locks::Locks,
    flight: flight::Flight,
    rates: rates::Rates,
    hours: BTreeMap<RolloutId, blast::Hour>,
    quarantine: quarantine::Quarantine,
    recalls: recall::Recalls,
    breaker: breaker::Breaker,
    waiting: conflict::Waiting,
    rollouts: BTreeMap<RolloutId, Live>,
    /// Agents of the fleet; 0 if that is not known.
    fleet: u32,
    settled: [u64; 3],
    disturbed_ms: u64,
    /// Whose failure has opened the breaker, and until when, as long as nobody has asked.
    opened: Option<(RolloutId, Time)>,
}

/// A live rollout.
#[derive(Clone, Copy, Debug)]
struct Live {
    slot: Slot,
    /// Its members: the fleet, as long as nobody has said how large that is.
    members: u32,
}

impl Coordinator {
    /// A coordinator without rollouts.
    pub fn new(settings: CoordinatorSettings, rows: CoordinatorRows, faults: Faults) -> Self {
        let global = (Domain::Fleet, settings.global_per_minute);
        let mut budgets = budgets::Budgets::new(settings.disruption.iter().cloned());
        budgets.sized(&Domain::Fleet, rows.fleet);
        Self {
            faults,
            locks: locks::Locks::default(),
            flight: flight::Flight::new(budgets),
            rates: rates::Rates::new(settings.per_minute.iter().cloned().chain([global])),
            hours: BTreeMap::new(),
            quarantine: quarantine::Quarantine::new(settings.quarantine, rows.quarantined),
            recalls: recall::Recalls::new(rows.recalled),
            breaker: breaker::Breaker::new(settings.breaker, rows.breaker),
            waiting: conflict::Waiting::default(),
            rollouts: BTreeMap::new(),
            fleet: rows.fleet,
            settled: [0; 3],
            disturbed_ms: 0,
            opened: None,
            settings,
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &CoordinatorSettings {
        &self.settings
    }

    /// Takes what an offer of `config` needs: lock, budget, rate, blast radius, all of it or nothing.
    ///
    /// | | offer, reassert | rollback |
    /// |---|---|---|
    /// | recalled, locked | denied | denied |
    /// | quarantined, breaker open, touched and per hour | denied | – |
    /// | in flight, failure domain, budget, per minute | denied | denied |
    ///
    /// # Errors
    /// [`Denied`], and then nothing is taken.
    pub fn claim(&mut self, claim: &Claim<'_>, config: Fingerprint, now: Time) -> Result<(), Denied> {
        let Claim { rollout, agent, slot, group, zone, kind, limits } = *claim;
        self.is_permitted(claim, config, now)?;
        let limits = blast::least(limits, &self.settings.hard);
        if !self.flight.has(agent, slot, rollout) {
            self.has_room(claim, &limits, now)?;
        }
        let rated = rates::Rated { rollout, group, zone, per_minute: limits.per_minute };
        if seeded!(self.faults, LoweredRateForgets) {
            self.rates.forget_rate(rollout);
        }
        if let Some(until) = self.rates.wait(&rates::Rated { zone: None, ..rated }, now) {
            return Err(Denied::Rate { until });
        }
        if let Some(until) = self.rates.wait(&rated, now) {
            return Err(Denied::Zone { until: Some(until) });
        }
        if !self.locks.take(agent, slot, rollout) {
            return Err(Denied::Budget);
        }
        self.rates.take(&rated, now);
        if kind != ClaimKind::Rollback {
            self.hours.entry(rollout).or_insert_with(|| blast::Hour::new(now)).add(now, 1);
        }
        self.flight.enter(agent, slot, zone, rollout, group, (kind, now));
        Ok(())
    }

    /// What does not depend on how much is going on.
    fn is_permitted(&self, claim: &Claim<'_>, config: Fingerprint, now: Time) -> Result<(), Denied> {
        if self.recalls.contains(&config) && !seeded!(self.faults, RecallIgnored) {
            return Err(Denied::Recalled);
        }
        if let Some(holder) = self.locks.in_the_way(claim.agent, claim.slot, claim.rollout) {
            return Err(Denied::Locked(holder));
        }
        if claim.kind == ClaimKind::Rollback {
            return Ok(());
        }
        if let Some((until, _)) = self.quarantine.of(claim.agent, now) {
            return Err(Denied::Quarantined { until });
        }
        self.breaker.open_until(now).map_or(Ok(()), |until| Err(Denied::Breaker { until }))
    }

    /// Whether one more may be in flight.
    fn has_room(&mut self, claim: &Claim<'_>, limits: &Limits, now: Time) -> Result<(), Denied> {
        let Claim { rollout, agent, slot, group, zone, kind, .. } = *claim;
        let in_flight = self.flight.of(rollout);
        if kind != ClaimKind::Rollback {
            let touched =
                if seeded!(self.faults, BlastPerWave) { in_flight } else { self.locks.count(rollout) };
            if touched >= limits.touched_max && !self.locks.is_held_by(agent, slot, rollout) {
                return Err(Denied::Blast { until: None });
            }
            let hour = self.hours.entry(rollout).or_insert_with(|| blast::Hour::new(now));
            if let Some(until) = hour.wait(limits.per_hour, now) {
                return Err(Denied::Blast { until: Some(until) });
            }
        }
        let percent = self.part_of_fleet(rollout, limits.fleet_percent_in_flight);
        let all = self.part_of_fleet(rollout, self.settings.hard.fleet_percent_in_flight);
        if in_flight >= limits.in_flight_max.min(percent) || self.flight.len() >= all {
            return Err(Denied::Blast { until: None });
        }
        let is_short = |zone| {
            !self.flight.budgets_have_room(agent, slot, group, zone) && !seeded!(self.faults, BudgetIgnored)
        };
        if is_short(None) {
            return Err(Denied::Budget);
        }
        let is_full =
            zone.is_some_and(|zone| self.flight.zones.count(rollout, zone) >= limits.zone_in_flight);
        if is_full || is_short(zone) {
            return Err(Denied::Zone { until: None });
        }
        Ok(())
    }

    /// How many agents a part of the fleet is: at least one, and all of them without a limit.
    fn part_of_fleet(&self, rollout: RolloutId, part: Ppm) -> u32 {
        if part == Ppm::ALL {
            return u32::MAX;
        }
        let members = self.rollouts.get(&rollout).map_or(0, |live| live.members);
        part.of(if self.fleet == 0 { members } else { self.fleet }).max(1)
    }

    /// The agent's offer has settled: its budget is free again. The lock stays while the rollout lives; that of a steady
    /// state, which has no rollout any more, is free as well. Settling twice is settling once.
    pub fn settle(&mut self, rollout: RolloutId, agent: &AgentId, slot: Slot, outcome: Outcome, now: Time) {
        if !self.flight.has(agent, slot, rollout) {
            return;
        }
        let Some(hold) = self.flight.leave(agent, slot) else { return };
        let how = match outcome {
            Outcome::Well => 0,
            Outcome::Bad => 1,
            Outcome::Neutral | Outcome::Open => 2,
        };
        self.settled[how] += 1;
        self.disturbed_ms = self.disturbed_ms.saturating_add(now.0.saturating_sub(hold.since.0));
        if hold.kind == ClaimKind::Reassert {
            self.locks.release(agent, slot, rollout);
        }
    }

    /// An agent of the rollout is under way again without a new offer, because it came back or because what it says came
    /// late: it counts like any other until it settles. Whatever the caps are, nobody can be asked any more.
    pub fn resume(&mut self, claim: &Claim<'_>, now: Time) {
        let Claim { rollout, agent, slot, group, zone, kind, .. } = *claim;
        if !self.flight.has(agent, slot, rollout) && self.locks.is_held_by(agent, slot, rollout) {
            self.flight.enter(agent, slot, zone, rollout, group, (kind, now));
        }
    }

    /// An assignment of a steady state that was made before this process began and is under way: it is locked and counts
    /// like any other until it settles, as [`Coordinator::adopt`] has it for rollouts. False if another one holds the agent.
    pub fn take_in(&mut self, claim: &Claim<'_>, since: Time, now: Time) -> bool {
        let Claim { rollout, agent, slot, group, zone, kind, .. } = *claim;
        let is_free = self.locks.in_the_way(agent, slot, rollout).is_none();
        if !is_free || !self.locks.take(agent, slot, rollout) {
            return false;
        }
        let since = since.min(now);
        self.rates.adopt(rollout, None, now);
        self.hours.entry(rollout).or_insert_with(|| blast::Hour::new(now)).add(since, 1);
        self.flight.enter(agent, slot, zone, rollout, group, (kind, since));
        true
    }

    /// The rollout has ended: everything it held is free.
    pub fn finish(&mut self, rollout: RolloutId) {
        self.locks.release_all(rollout);
        self.drop_all_but_locks(rollout);
    }

    /// The rollout's engine was dropped: nothing of it is known any more until it is adopted again.
    pub fn forget(&mut self, rollout: RolloutId) {
        if seeded!(self.faults, LockLeak) {
            self.locks.leak(rollout);
        } else {
            self.locks.release_all(rollout);
        }
        self.drop_all_but_locks(rollout);
    }

    /// No steady state is the rollout's any more: how fast it went is forgotten.
    pub fn retire(&mut self, rollout: RolloutId) {
        self.rates.forget(rollout);
        self.hours.remove(&rollout);
    }

    fn drop_all_but_locks(&mut self, rollout: RolloutId) {
        self.flight.leave_all(rollout);
        self.retire(rollout);
        self.waiting.forget(rollout);
        self.rollouts.remove(&rollout);
    }

    /// How many agents a domain has: what percents are of.
    pub fn sized(&mut self, domain: &Domain, agents: u32) {
        if *domain == Domain::Fleet {
            self.fleet = agents;
        }
        self.flight.budgets.sized(domain, agents);
    }

    /// A new rollout of a slot, which has the same slot of some of the agents as `overlaps` say (R61).
    ///
    /// # Errors
    /// [`Conflict`] if there are any and the policy is to refuse then.
    pub fn register(
        &mut self,
        rollout: RolloutId,
        slot: Slot,
        policy: ConflictPolicy,
        overlaps: &[(RolloutId, u32)],
    ) -> Result<Admission, Conflict> {
        let admission = conflict::admit(policy, overlaps)?;
        self.rollouts.entry(rollout).or_insert(Live { slot, members: 0 });
        self.waiting.wait(rollout, overlaps.iter().map(|(other, _)| *other));
        Ok(admission)
    }

    /// The rollout waits for the end of these as well: they came to have some of its agents after it was registered.
    pub fn wait(&mut self, rollout: RolloutId, overlaps: &[(RolloutId, u32)]) {
        if self.is_live(rollout) {
            self.waiting.wait(rollout, overlaps.iter().map(|(other, _)| *other));
        }
    }

    /// A live rollout whose end this one waits for.
    pub fn waits_for(&self, rollout: RolloutId) -> Option<RolloutId> {
        self.waits_for_all(rollout).next()
    }

    /// All live rollouts whose end this one waits for.
    pub fn waits_for_all(&self, rollout: RolloutId) -> impl Iterator<Item = RolloutId> {
        let slot = self.rollouts.get(&rollout).map(|live| live.slot);
        let has_slot = move |other: &RolloutId| self.rollouts.get(other).map(|live| live.slot) == slot;
        self.waiting.behind(rollout).filter(move |other| slot.is_some() && has_slot(other))
    }

    /// Whether a rollout waits for another one, or for one that does.
    pub fn is_behind(&self, rollout: RolloutId, other: RolloutId) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![rollout]);
        while let Some(id) = next.pop() {
            next.extend(self.waits_for_all(id).filter(|behind| seen.insert(*behind)));
        }
        seen.contains(&other)
    }

    /// Whether the rollout is registered or adopted and has not ended.
    pub fn is_live(&self, rollout: RolloutId) -> bool {
        self.rollouts.contains_key(&rollout)
    }

    /// Who holds the agent for this slot.
    pub fn holder(&self, agent: &AgentId, slot: Slot) -> Option<RolloutId> {
        self.locks.holder(agent, slot)
    }

    /// Whether another rollout, or a steady state, holds the agent for this slot.
    pub fn is_held_by_another(&self, agent: &AgentId, slot: Slot, rollout: RolloutId) -> bool {
        self.locks.in_the_way(agent, slot, rollout).is_some()
    }

    /// The first of these limits that is above a hard one: what it limits, what is allowed, what was asked for. A limit
    /// left at its default asks for nothing and is brought down to the hard one.
    pub fn beyond_hard(&self, limits: &Limits) -> Option<(&'static str, u32, u32)> {
        blast::beyond(limits, &self.settings.hard)
    }

    /// A member has ended badly: that may quarantine its agent, or open the breaker.
    pub fn failure(&mut self, rollout: RolloutId, agent: &AgentId, now: Time, writes: &mut Vec<Write>) {
        if let Some(until) = self.quarantine.failed(agent, now) {
            self.hold(agent, until, Reason::FailedTooOften, writes);
        }
        if let Some(until) = self.breaker.failed(rollout, now) {
            writes.push(Write::Breaker { open_until: Some(until) });
            self.opened = Some((rollout, until));
        }
    }

    /// Whose failure has opened the breaker since this was asked last, and until when it is open: somebody should know.
    pub fn take_opened(&mut self) -> Option<(RolloutId, Time)> {
        self.opened.take()
    }

    /// The agent is left alone from now on, for as long as the settings say, or longer if it is left alone longer already.
    pub fn quarantine(&mut self, agent: &AgentId, reason: Reason, now: Time, writes: &mut Vec<Write>) {
        self.hold(agent, now + self.settings.quarantine.lasts, reason, writes);
    }

    fn hold(&mut self, agent: &AgentId, until: Time, reason: Reason, writes: &mut Vec<Write>) {
        let until = Some(until);
        if self.quarantine.hold(*agent, until, reason) {
            writes.push(Write::Quarantine { agent: *agent, until, reason });
        }
    }

    /// Why and until when the agent is left alone; none if it is not.
    pub fn quarantined(&self, agent: &AgentId, now: Time) -> Option<(Option<Time>, Reason)> {
        self.quarantine.of(agent, now)
    }

    /// The agent is not left alone any more.
    pub fn release(&mut self, agent: &AgentId, writes: &mut Vec<Write>) {
        if self.quarantine.release(agent) {
            writes.push(Write::Release { agent: *agent });
        }
    }

    /// Offers may be made again before the breaker closes by itself.
    pub fn close_breaker(&mut self, writes: &mut Vec<Write>) {
        if self.breaker.close() {
            writes.push(Write::Breaker { open_until: None });
        }
    }

    /// A configuration is never offered again. False if there are too many of them to take in one more.
    pub fn recall(&mut self, config: Fingerprint, reason: &str, writes: &mut Vec<Write>) -> bool {
        let added = self.recalls.add(config);
        if added == Some(true) {
            writes.push(Write::Recall { config, reason: reason.into() });
        }
        added.is_some()
    }

    /// Whether the configuration is never offered again.
    pub fn is_recalled(&self, config: &Fingerprint) -> bool {
        self.recalls.contains(config)
    }

    /// What is over by time alone ends: quarantines, the breaker.
    pub fn tick(&mut self, now: Time) {
        self.quarantine.tick(now);
        self.breaker.tick(now);
    }

    /// When [`Coordinator::tick`] has something to end. When a claim may be repeated is in its [`Denied`].
    pub fn next_deadline(&self) -> Option<Time> {
        self.quarantine.next_end().into_iter().chain(self.breaker.closes_at()).min()
    }

    /// What it holds.
    pub fn view(&self) -> CoordinatorView {
        CoordinatorView {
            rollouts: self.rollouts.len(),
            locks: self.locks.len(),
            in_flight: self.flight.len(),
            settled: self.settled,
            disturbed_ms: self.disturbed_ms,
            quarantined: self.quarantine.len(),
            recalled: self.recalls.len(),
            breaker: self.breaker.closes_at(),
        }
    }
}
