//! After success: the desired state of a group, new agents, moves (R22b, R24).
//!
//! What a rollout brought to a group is what its agents should have from then on: new ones, ones that are moved into it, ones
//! whose labels change. None of that is pushed at once. Each assignment takes a claim like any offer, and a group starts
//! with one agent, takes one more with each success, and stops after failures until somebody lets it go on:
//!
//! ```text
//! Placed ─► away ─► queued ─claim─► assigned ─► in place
//!            ▲       ▲   ▲             ├──────► failed      never assigned this again
//!            └─ gone ┘   │             └──────► late        time was over
//!        in a rollout ───┘ when that has ended
//! in place ─► drifted ─► told, shown, or queued again (R80)
//! ```
//!
//! That the time was over counts as failure of an agent that was assigned here, is connected and could have said something:
//! one that never reports a status has an unknown outcome, as in a rollout (R29).
//!
//! Nothing of it is stored: it follows from what the store has of groups and agents, which is told again after a restart.
//! What was assigned shortly before that holds its locks and budgets again, for the rest of its time.

mod agents;
pub mod drift;
mod group;
mod placed;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use opamp_proto::{AgentId, Fingerprint};

pub use drift::{DriftAction, DriftClass, DriftSettings};
pub use placed::{GroupView, Placed, SteadySettings, SteadyView};

use self::drift::Loops;
use self::group::Group;
use super::{Act, Alert, AlertKind, Effects, GroupIx, OfferKey, Outcome, RolloutId, Slot, Time, Write};
use crate::Drift;
use crate::coordinator::{Coordinator, Denied};
use crate::faults::{Faults, seeded};

/// The steady states of all groups, and the agents that are not in theirs.
#[derive(Clone, Debug)]
pub struct Steady {
    settings: SteadySettings,
    groups: BTreeMap<GroupSlot, Group>,
    agents: BTreeMap<AgentSlot, Tracked>,
    /// When assignments are late.
    timers: BTreeSet<(Time, AgentSlot)>,
    /// When groups ask again.
    retries: BTreeSet<(Time, GroupSlot)>,
    /// Groups in which something changed since the last dispatch.
    changed: BTreeSet<GroupSlot>,
    /// When that was.
    last: Time,
    loops: Loops,
    faults: Faults,
}

type GroupSlot = (GroupIx, Slot);
type AgentSlot = (AgentId, Slot);

/// An agent that is not where it should be.
#[derive(Clone, Debug)]
struct Tracked {
    group: GroupIx,
    zone: Option<Box<str>>,
    connected: bool,
    reports: bool,
    stage: Stage,
    /// Under which rollout it was assigned.
    rollout: RolloutId,
    /// The number of its next assignment.
    offer: u32,
    /// What its record said when it was last told, and the offer that had made it so: what an assignment goes over.
    recorded: Option<Fingerprint>,
    over: Option<OfferKey>,
}

impl Tracked {
    /// Whether somebody else has written its record since it was assigned: the assignment comes to nothing then.
    fn is_overtaken(&self, placed: &Placed<'_>) -> bool {
        let own =
            OfferKey { rollout: self.rollout, agent: *placed.agent, offer: self.offer.saturating_sub(1) };
        let is_assigned = matches!(self.stage, Stage::Assigned { .. });
        is_assigned && placed.offer != self.over && placed.offer != Some(own)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `here`: and not by the process before this one, or by the rollout.
    Assigned {
        until: Time,
        here: bool,
    },
    Away,
    Drifted(DriftClass),
    Failed,
    InRollout,
    Late,
    Queued,
}

/// What an agent's place asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Assignment,
    Connection,
    Drifted,
    Failed,
    Nothing,
    /// It runs it and its record does not say that it should.
    Record,
    UnderWay,
}

/// | the record says | and | it wants |
/// |---|---|---|
/// | another configuration, or none | a rollout left it that | nothing |
/// | | this one failed on it | to be left alone |
/// | | it runs this one | its record put right |
/// | | it is away, or lacks a capability | to come back |
/// | | otherwise | an assignment |
/// | this configuration | in sync; failed; drifted | nothing; to be left alone; a look at it |
/// | | pending, applying | time |
fn wants(placed: &Placed<'_>, config: Fingerprint) -> Wants {
    let has_failed = placed.failed.contains(&config);
    if placed.assigned != Some(config) {
        return match placed.runs {
            _ if placed.kept && placed.assigned.is_some() => Wants::Nothing,
            _ if has_failed => Wants::Failed,
            Some(runs) if runs == config => Wants::Record,
            _ if placed.connected && placed.accepts => Wants::Assignment,
            _ => Wants::Connection,
        };
    }
    match placed.drift {
        Drift::InSync => Wants::Nothing,
        Drift::Failed => Wants::Failed,
        Drift::Drifted => Wants::Drifted,
        Drift::Applying | Drift::Pending | Drift::Unmanaged if has_failed => Wants::Failed,
        Drift::Applying | Drift::Pending | Drift::Unmanaged => Wants::UnderWay,
    }
}

/// Where what follows goes: when, with whom it is shared, into which effects.
struct Run<'a> {
    now: Time,
    shared: &'a mut Coordinator,
    out: &'a mut Effects,
}

impl Steady {
    /// Most agents that are followed; of further ones nothing is done until they are told again.
    pub const AGENTS_MAX: usize = 4_000_000;
    /// Most agents of a group that are passed over in one dispatch because something of their own is in the way.
    const PASSED_OVER_MAX: u32 = 256;

    /// No group yet. Agents that change between configurations more often than `alternations_max` within an hour are
    /// quarantined.
    pub(crate) fn new(settings: SteadySettings, alternations_max: u8, faults: Faults) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            agents: BTreeMap::new(),
            timers: BTreeSet::new(),
            retries: BTreeSet::new(),
            changed: BTreeSet::new(),
            last: Time(0),
            loops: Loops::new(alternations_max),
            faults,
        }
    }

    /// How far a group is.
    pub fn group(&self, group: GroupIx, slot: Slot) -> Option<GroupView> {
        self.groups.get(&(group, slot)).map(|group| GroupView {
            config: group.config,
            queued: u32::try_from(group.queue.len()).unwrap_or(u32::MAX),
            in_flight: group.in_flight,
            window: group.window,
            held: group.held,
        })
    }

    /// Who is not where it should be, counted.
    pub fn view(&self) -> SteadyView {
        let mut view = SteadyView::default();
        for tracked in self.agents.values() {
            *match tracked.stage {
                Stage::Assigned { .. } => &mut view.assigned,
                Stage::Away => &mut view.away,
                Stage::Drifted(class) => &mut view.drifted[class.index()],
                Stage::Failed => &mut view.failed,
                Stage::InRollout => &mut view.in_rollout,
                Stage::Late => &mut view.late,
                Stage::Queued => &mut view.queued,
            } += 1;
        }
        view
    }

    /// When time alone changes something.
    pub fn next_deadline(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let retry = self.retries.first().map(|(at, _)| *at);
        // What has changed since the last dispatch was not looked at.
        let changed = Some(self.last).filter(|_| !self.changed.is_empty());
        timer.into_iter().chain(retry).chain(changed).min()
    }

    /// The group's steady state from now on. Gives the rollout whose name no group's assignments bear any more.
    pub(crate) fn desire(
        &mut self,
        group: GroupIx,
        slot: Slot,
        config: Fingerprint,
        rollout: RolloutId,
    ) -> Option<RolloutId> {
        let key = (group, slot);
        let desired = self.groups.entry(key).or_insert_with(|| Group::new(config, rollout));
        let before = desired.rollout;
        if (desired.config, before) != (config, rollout) {
            desired.desire(config, rollout);
            // Who has it already was queued for what the group had before.
            desired.queue.retain(|agent| {
                let agent = (*agent, slot);
                let has_it = self.agents.get(&agent).is_some_and(|tracked| tracked.recorded == Some(config));
                if has_it {
                    self.agents.remove(&agent);
                }
                !has_it
            });
        }
        self.changed.insert(key);
        let is_unused = self.groups.values().all(|group| group.rollout != before);
        is_unused.then_some(before)
    }

    pub(crate) fn go_on(&mut self, group: GroupIx, slot: Slot) {
        if let Some(desired) = self.groups.get_mut(&(group, slot)) {
            desired.go_on();
            self.changed.insert((group, slot));
        }
    }

    /// The rollout has succeeded in the group. What the group should have is known when that is committed; until then nobody
    /// is assigned what it had before.
    pub(crate) fn awaits(&mut self, group: GroupIx, slot: Slot, rollout: RolloutId) {
        if let Some(desired) = self.groups.get_mut(&(group, slot)) {
            desired.awaits = Some(rollout);
        }
    }

    /// The rollout has not succeeded after all: its records say so.
    pub(crate) fn awaits_no_more(&mut self, rollout: RolloutId) {
        for (key, desired) in &mut self.groups {
            if desired.awaits == Some(rollout) {
                desired.awaits = None;
                self.changed.insert(*key);
            }
        }
    }

    /// A rollout has ended, and agents keep what it brought them (R70): they are no business of their groups.
    pub(crate) fn left_by(
        &mut self,
        is_left: impl Fn(&AgentId, GroupIx, Option<Fingerprint>) -> bool,
        slot: Slot,
        now: Time,
        shared: &mut Coordinator,
        out: &mut Effects,
    ) {
        let mut run = Run { now, shared, out };
        let left = self.agents.iter().filter(|((agent, of), tracked)| {
            let is_assigned = matches!(tracked.stage, Stage::Assigned { .. });
            *of == slot && !is_assigned && is_left(agent, tracked.group, tracked.recorded)
        });
        let left: Vec<AgentSlot> = left.map(|(key, _)| *key).collect();
        for key in left {
            self.forget(key, Outcome::Neutral, &mut run);
        }
    }

    /// A rollout has ended, or was dropped: whom it held, and nobody else does now, waits for an assignment.
    pub(crate) fn freed(&mut self, shared: &Coordinator, is_ending: impl Fn(&AgentId, Slot) -> bool) {
        for ((agent, slot), tracked) in &mut self.agents {
            let is_held = || shared.holder(agent, *slot).is_some() || is_ending(agent, *slot);
            if tracked.stage != Stage::InRollout || is_held() {
                continue;
            }
            tracked.stage = Stage::Queued;
            let group = (tracked.group, *slot);
            if let Some(desired) = self.groups.get_mut(&group) {
                desired.queue.insert(*agent);
                self.changed.insert(group);
            }
        }
    }

    /// Whatever was denied is asked for again.
    pub(crate) fn ask_again(&mut self) {
        for (_, group) in std::mem::take(&mut self.retries) {
            if let Some(desired) = self.groups.get_mut(&group) {
                desired.retry_at = None;
            }
            self.changed.insert(group);
        }
    }

    /// Groups that should have the configuration stop.
    pub(crate) fn recalled(&mut self, config: Fingerprint, now: Time, out: &mut Effects) {
        let should_have_it = self.groups.iter().filter(|(_, desired)| desired.config == config);
        let groups: Vec<GroupSlot> = should_have_it.map(|(key, _)| *key).collect();
        for group in groups {
            self.recalled_in(group, now, out);
        }
    }

    /// Takes in where an agent is, and whether a rollout that has touched it is about to end. Whom it may assign, it assigns at
    /// the next dispatch.
    pub(crate) fn placed(
        &mut self,
        (placed, is_ending): (&Placed<'_>, bool),
        now: Time,
        shared: &mut Coordinator,
        out: &mut Effects,
    ) {
        let mut run = Run { now, shared, out };
        let key = (*placed.agent, placed.slot);
        let group = placed.group.filter(|group| self.groups.contains_key(&(*group, placed.slot)));
        if self.agents.get(&key).is_some_and(|tracked| Some(tracked.group) != group) {
            self.forget(key, Outcome::Neutral, &mut run);
        }
        let Some(group) = group else { return };
        let Some(desired) = self.groups.get(&(group, placed.slot)) else { return };
        let (config, rollout, awaits) = (desired.config, desired.rollout, desired.awaits.is_some());
        // What it runs and should run while another rollout holds it is that rollout's doing.
        let holder = run.shared.holder(placed.agent, placed.slot);
        let is_held = is_ending || holder.is_some_and(|holder| holder != rollout);
        if !is_held {
            self.look_for_loops(key, placed.runs, (config, rollout), &mut run);
        }
        if let Some(tracked) = self.agents.get_mut(&key) {
            (tracked.connected, tracked.reports) = (placed.connected, placed.reports);
        }
        if self.agents.get(&key).is_some_and(|tracked| tracked.is_overtaken(placed)) {
            self.forget(key, Outcome::Neutral, &mut run);
        }
        let tracked = self.agents.get(&key);
        let stage = tracked.map(|tracked| tracked.stage);
        // Its record may not have been read since.
        let assigned = stage.filter(|stage| matches!(stage, Stage::Assigned { .. }));
        let assigned = assigned.filter(|_| tracked.is_some_and(|tracked| tracked.rollout == rollout));
        let next = match wants(placed, config) {
            Wants::Nothing => None,
            // What the group had before is soon what it should have no more: all of its agents are told again then.
            Wants::Record if is_held || awaits => Some(Stage::InRollout),
            Wants::Record if run.shared.is_recalled(&config) => None,
            Wants::Record => {
                let key = OfferKey { rollout, agent: *placed.agent, offer: self.next_offer(placed) };
                run.out.writes.push(Write::Assign { key, slot: placed.slot, config, over: placed.offer });
                None
            }
            Wants::Assignment if seeded!(self.faults, SteadyBringsNobody) => None,
            Wants::Assignment if is_held => Some(assigned.unwrap_or(Stage::InRollout)),
            Wants::Assignment => Some(assigned.unwrap_or(Stage::Queued)),
            Wants::Connection => Some(assigned.unwrap_or(Stage::Away)),
            Wants::Failed => {
                if stage != Some(Stage::Failed) && !placed.failed.contains(&config) {
                    run.out.writes.push(failed(placed, config));
                }
                Some(Stage::Failed)
            }
            Wants::Drifted => self.drifted(placed, (rollout, stage), &mut run),
            Wants::UnderWay => Some(self.under_way(placed, (rollout, stage), is_ending, &run)),
        };
        match next {
            None => self.forget(key, Outcome::Well, &mut run),
            Some(next) => self.track(placed, group, rollout, next, &mut run),
        }
    }

    /// Assigns whom caps, rates and budgets let through. Whom a rollout has touched that is about to end is left to it until it
    /// has.
    pub(crate) fn dispatch(
        &mut self,
        is_ending: impl Fn(&AgentId, Slot) -> bool,
        now: Time,
        shared: &mut Coordinator,
        out: &mut Effects,
    ) {
        let mut run = Run { now, shared, out };
        self.last = now;
        while let Some((at, key)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, key));
            self.is_late(key, at, &mut run);
        }
        while let Some((at, key)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, key));
            self.changed.insert(key);
        }
        while let Some(key) = self.changed.pop_first() {
            self.dispatch_group(key, &is_ending, &mut run);
        }
    }

    fn dispatch_group(
        &mut self,
        key: GroupSlot,
        is_ending: &impl Fn(&AgentId, Slot) -> bool,
        run: &mut Run<'_>,
    ) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        let from = group.passed_over.take();
        let again = Some(run.now + self.settings.retry_after);
        let mut after = from.map_or(Bound::Unbounded, Bound::Excluded);
        // Who was passed over before is looked at when the others were.
        let mut retry = from.and(again);
        let mut passed_over = 0;
        while let Some(group) = self.groups.get_mut(&key).filter(|group| group.has_room()) {
            let Some(agent) = group.queue.range((after, Bound::Unbounded)).next().copied() else { break };
            if passed_over >= Self::PASSED_OVER_MAX {
                group.passed_over = if let Bound::Excluded(last) = after { Some(last) } else { None };
                break;
            }
            if is_ending(&agent, key.1) {
                self.leave_to_rollout(key, agent);
                continue;
            }
            let Err(denied) = self.assign(key, agent, run) else { continue };
            if let Denied::Locked(holder) = denied
                && run.shared.is_live(holder)
            {
                self.leave_to_rollout(key, agent);
                continue;
            }
            (after, passed_over, retry) = (Bound::Excluded(agent), passed_over + 1, again);
            match denied {
                // Others may be let through.
                Denied::Budget | Denied::Locked(_) | Denied::Quarantined { .. } | Denied::Zone { .. } => {}
                Denied::Blast { until: None } => break,
                Denied::Blast { until: Some(until) } | Denied::Breaker { until } | Denied::Rate { until } => {
                    retry = Some(until);
                    break;
                }
                Denied::Recalled => {
                    self.recalled_in(key, run.now, run.out);
                    retry = None;
                }
            }
        }
        self.retry_at(key, retry);
    }

    /// The agent waits for the end of the rollout that has it, and not in the queue.
    fn leave_to_rollout(&mut self, key: GroupSlot, agent: AgentId) {
        if let Some(group) = self.groups.get_mut(&key) {
            group.queue.remove(&agent);
        }
        if let Some(tracked) = self.agents.get_mut(&(agent, key.1)) {
            tracked.stage = Stage::InRollout;
        }
    }

    /// The group stops: what it should have was recalled.
    fn recalled_in(&mut self, key: GroupSlot, now: Time, out: &mut Effects) {
        if let Some(group) = self.groups.get_mut(&key).filter(|group| !group.held) {
            group.held = true;
            let text = format!("assignments of group {} stop: their configuration was recalled", key.0);
            out.acts.push(alert(AlertKind::Paused, group.rollout, now, text));
        }
    }

    /// The number of an assignment: greater than that of any offer that was written for the agent.
    fn next_offer(&self, placed: &Placed<'_>) -> u32 {
        let offers = if seeded!(self.faults, SteadyKeyRepeats) { 0 } else { placed.offers };
        offers.saturating_add(1)
    }

    fn retry_at(&mut self, key: GroupSlot, retry: Option<Time>) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        if let Some(before) = std::mem::replace(&mut group.retry_at, retry) {
            self.retries.remove(&(before, key));
        }
        if let Some(at) = retry {
            self.retries.insert((at, key));
        }
    }
}

fn failed(placed: &Placed<'_>, config: Fingerprint) -> Write {
    let (agent, slot, previous) = (*placed.agent, placed.slot, placed.previous);
    Write::Failed { agent, slot, config, previous, remembered: true }
}

fn alert(kind: AlertKind, rollout: RolloutId, at: Time, text: String) -> Act {
    Act::Alert(Box::new(Alert { kind, rollout, wave: None, at, text: text.into() }))
}
