//! One rollout: events in, journal entries and effects out (R4).
//!
//! Everything that is decided is recorded as an [`Entry`], and only applying an entry changes the [`State`]: replaying the
//! entries gives the same state. What the engine remembers besides ([`Volatile`]) only saves it from looking twice.

mod apply_member;
mod apply_rollout;
mod apply_wave;
mod check;
mod facts;
mod state;
mod tick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opamp_proto::{AgentId, Fingerprint};

pub(crate) use apply_member::set_row;
pub(crate) use apply_rollout::index_of;
pub use check::Broken;
pub(crate) use facts::cut;
pub(crate) use state::{Remembered, Samples, State, Total, ZoneCount};

use super::gates::{Evidence, GateConfig, GateCount, Readings};
use super::journal::{self, Entry, Snapshot};
use super::members::Flags;
use super::plan::{Plan, PlannedMembers};
use super::waves::Walked;
use super::windows::Opening;
use super::{
    ConfigIx, Effects, Event, MemberIx, MemberState, PauseReason, Reason, Refused, RestoreError, RolloutId,
    RolloutState, Serial, Time, WaveIx, ZoneIx,
};
use crate::coordinator::{Coordinator, Denied};
use crate::faults::{Faults, seeded};

/// One rollout. It decides and records; only what is recorded changes it.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) plan: Arc<Plan>,
    pub(crate) state: State,
    /// The rollout's last committed batch: what `Command.expected` is compared with.
    pub(crate) serial: Serial,
    /// The next time at which time alone changes something; [`Time::NEVER`] if there is none.
    pub(crate) next: Time,
    /// Events that came where they cannot come.
    pub(crate) surprises: u64,
    pub(crate) faults: Faults,
    /// What was told of the world outside. It is no part of the state: what it led to is in the entries.
    pub(crate) outside: Outside,
    pub(crate) volatile: Volatile,
}

/// What an engine was told last of the world outside its rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Agents outside the rollout.
    pub(crate) total: u32,
    /// Those of them that went away within the disconnect window.
    pub(crate) away: u32,
    /// Since when no commit succeeds.
    pub(crate) degraded_since: Option<Time>,
    /// Whether another leader may exist.
    pub(crate) doubtful: bool,
}

impl Outside {
    /// What outside a rollout can stand in its way.
    pub(crate) const CAUSES: [PauseReason; 2] =
        [PauseReason::StorageDegraded, PauseReason::SplitLeaderSuspected];

    /// Whether this stands in its way.
    pub(crate) fn is_there(&self, cause: PauseReason) -> bool {
        match cause {
            PauseReason::SplitLeaderSuspected => self.doubtful,
            PauseReason::StorageDegraded => self.degraded_since.is_some(),
            PauseReason::BlastRadius
            | PauseReason::Gate
            | PauseReason::Inconclusive
            | PauseReason::Operator => false,
        }
    }

    /// What stands in its way.
    pub(crate) fn cause(&self) -> Option<(PauseReason, Reason)> {
        let cause = Self::CAUSES.into_iter().find(|cause| self.is_there(*cause))?;
        let is_storage = cause == PauseReason::StorageDegraded;
        Some((cause, if is_storage { Reason::StorageDegraded } else { Reason::SplitLeaderSuspected }))
    }
}

/// What saves the engine from looking twice. An engine that is rebuilt begins without it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volatile {
    /// Why the last claim was denied that stopped dispatch, until one is granted.
    pub(crate) denied: Option<Denied>,
    /// When a denied claim is asked for again.
    pub(crate) retry_at: Option<Time>,
    /// Failure domains that may not have another offer, each until it is asked for again.
    pub(crate) full: BTreeMap<ZoneIx, Time>,
    /// There is more to do than one call may do.
    pub(crate) unfinished: bool,
    /// Offers made in this call.
    offers: u32,
    /// What the calendar said, and until when that holds.
    pub(crate) opening: Option<Opening>,
    /// Members before it were looked at since the rollout began to end.
    pub(crate) scanned: u32,
    /// Members before `scanned` that have changed since, and are looked at again.
    pub(crate) late: BTreeSet<MemberIx>,
    /// Members that wait for their previous configuration, by failure domain.
    pub(crate) going_back: BTreeMap<ZoneIx, BTreeSet<MemberIx>>,
    /// Previous configurations that are pinned.
    pinned: BTreeSet<ConfigIx>,
    /// How many members of a wave, or of all, may stay away, once it was asked.
    pub(crate) leaving: Option<Leaving>,
    /// For each wave, up to where its queue was looked through for members whose failure domain has room.
    pub(crate) walked: BTreeMap<WaveIx, Walked>,
    /// Values and verdicts from outside.
    pub(crate) readings: Readings,
    /// The evaluation for which providers were asked last: its wave, and when it began.
    pub(crate) asked: Option<(WaveIx, Time)>,
}

/// Members of a wave that went away before a time and may stay away; of all for the tail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(crate) wave: WaveIx,
    pub(crate) before: Time,
    pub(crate) members: u32,
}

impl Leaving {
    /// Whether that is what is asked for.
    pub(crate) fn is_of(&self, wave: WaveIx, before: Time) -> bool {
        (self.wave, self.before) == (wave, before)
    }
}

/// One call of [`Engine::handle`]: when, with whom it is shared, where effects go.
pub(crate) struct Run<'a> {
    pub(crate) now: Time,
    pub(crate) shared: &'a mut Coordinator,
    pub(crate) out: &'a mut Effects,
}

impl Engine {
    /// How long a denied claim without a time of its own is waited for: others may have settled by then.
    pub(crate) const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(15);

    /// A rollout of these members, as a draft.
    pub fn new(plan: Arc<Plan>, members: PlannedMembers, now: Time, faults: Faults) -> Self {
        let state = State::new(&plan, members, now);
        Self::with(plan, state, faults)
    }

    /// The rollout of these records: its plan and planned members, the last snapshot, and the entries after it. Nothing
    /// is offered again by that: who is offered stays offered.
    ///
    /// # Errors
    /// [`RestoreError`] if the records are damaged, do not belong together, or were written by a newer version.
    pub fn restore(
        plan: Arc<Plan>,
        members: PlannedMembers,
        snapshot: Option<&Snapshot>,
        tail: impl IntoIterator<Item = Entry>,
        faults: Faults,
    ) -> Result<Self, RestoreError> {
        let state = journal::restored(&plan, members, snapshot, tail, faults)?;
        let mut engine = Self::with(plan, state, faults);
        // What was waited for outside the state is looked at by the first tick.
        engine.next = if engine.state.state.is_terminal() { Time::NEVER } else { Time(0) };
        Ok(engine)
    }

    fn with(plan: Arc<Plan>, state: State, faults: Faults) -> Self {
        let mut volatile = Volatile::default();
        for (at, row) in state.members.rows.iter().enumerate() {
            if row.flags.contains(Flags::TOUCHED) {
                volatile.pinned.insert(row.previous);
            }
            if row.state == MemberState::RollbackQueued {
                volatile.going_back.entry(row.zone).or_default().insert(MemberIx(at as u32));
            }
        }
        let mut engine = Self {
            plan,
            state,
            serial: Serial(0),
            next: Time::NEVER,
            surprises: 0,
            faults,
            outside: Outside::default(),
            volatile,
        };
        engine.next = engine.earliest(engine.state.last);
        engine
    }

    /// Takes the plan that was made anew before the start: it has to be the one of the last `Preflighted`. Members are
    /// those of the new plan; what the rollout remembers of commands stays.
    ///
    /// # Errors
    /// [`Refused::HasHistory`] once it has run, [`Refused::PlanChanged`] if it is another plan.
    pub fn replan(&mut self, plan: Arc<Plan>, members: PlannedMembers, now: Time) -> Result<(), Refused> {
        let before_start = matches!(
            self.state.state,
            RolloutState::Draft
                | RolloutState::PendingApproval
                | RolloutState::Scheduled
                | RolloutState::Preflight
                | RolloutState::Ready
        );
        if !before_start {
            return Err(Refused::HasHistory);
        }
        if plan.hash != self.state.plan || plan.id != self.plan.id {
            return Err(Refused::PlanChanged);
        }
        let fresh = State::new(&plan, members, now);
        let old = std::mem::replace(&mut self.state, fresh);
        if plan.gates == self.plan.gates {
            self.state.keep_waived(&old);
        }
        self.state.state = old.state;
        self.state.reason = old.reason;
        self.state.from = old.from;
        self.state.entered = old.entered;
        self.state.commands = old.commands;
        self.state.limits = old.limits;
        self.state.last = old.last;
        self.plan = plan;
        self.next = self.earliest(now);
        Ok(())
    }

    /// Takes one event in, changes the state, and puts what follows into `out`. Events about agents that are no members,
    /// and facts that change nothing, leave `out` as it was. How a command ended is in [`Effects::answer`].
    ///
    /// # Errors
    /// [`Refused`] for commands only; nothing has changed then but the memory of the command's key.
    pub fn handle(
        &mut self,
        event: Event<'_>,
        now: Time,
        shared: &mut Coordinator,
        out: &mut Effects,
    ) -> Result<(), Refused> {
        let now = now.max(self.state.last);
        let is_idle = matches!(event, Event::Tick) && now < self.next;
        if is_idle {
            return Ok(());
        }
        let mut run = Run { now, shared, out };
        self.volatile.offers = 0;
        self.volatile.unfinished = false;
        let result = match event {
            Event::Agent { agent, fact } => {
                self.agent_fact(agent, &fact, &mut run);
                Ok(())
            }
            Event::Command(command) => self.command(command, &mut run),
            Event::Fleet(fact) => {
                self.fleet_fact(fact, &mut run);
                Ok(())
            }
            Event::Reading(reading) => {
                self.reading(reading, &mut run);
                Ok(())
            }
            Event::Tick => {
                self.tick(&mut run);
                Ok(())
            }
        };
        self.go_on(&mut run);
        self.next = self.earliest(now);
        result
    }

    /// Another rollout of the slot has ended: members it held are asked for again.
    pub fn retry_locked(&mut self, now: Time, shared: &mut Coordinator, out: &mut Effects) {
        let now = now.max(self.state.last);
        let mut run = Run { now, shared, out };
        self.volatile.offers = 0;
        self.volatile.unfinished = false;
        self.unblock_all(&mut run);
        self.go_on(&mut run);
        self.next = self.earliest(now);
    }

    /// The breaker was closed by hand: what it has denied is asked for again.
    pub(crate) fn breaker_closed(&mut self, now: Time, shared: &mut Coordinator, out: &mut Effects) {
        if !matches!(self.volatile.denied, Some(Denied::Breaker { .. })) {
            return;
        }
        let now = now.max(self.state.last);
        let mut run = Run { now, shared, out };
        self.volatile.offers = 0;
        self.volatile.unfinished = false;
        self.volatile.denied = None;
        self.ask_again();
        self.go_on(&mut run);
        self.next = self.earliest(now);
    }

    /// Its members as they are now, as planning gives them: what is stored beside the plan before anything has happened
    /// to one of them.
    pub fn planned(&self) -> PlannedMembers {
        let members = &self.state.members;
        PlannedMembers {
            rows: members.rows.clone(),
            ids: members.ids.clone(),
            paces: members.paces.clone(),
            configs: members.configs.clone(),
            ..PlannedMembers::default()
        }
    }

    /// The rollout's name.
    pub fn id(&self) -> RolloutId {
        self.plan.id
    }

    /// Its plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Its state.
    pub fn state(&self) -> RolloutState {
        self.state.state
    }

    /// The next time at which time alone changes something.
    pub fn next_deadline(&self) -> Option<Time> {
        (self.next != Time::NEVER).then_some(self.next)
    }

    /// The rollout's records have this serial now. Told by whoever commits.
    pub fn committed(&mut self, serial: Serial) {
        self.serial = serial;
    }

    /// Events that came where they cannot come: 0, or there is a bug.
    pub fn surprises(&self) -> u64 {
        self.surprises
    }

    /// Gates that stopped or hold it, or would have to be decided about before it goes on.
    pub fn fired(&self) -> Vec<Evidence> {
        self.state.fired.clone()
    }

    /// What each gate of the plan has counted over all waves.
    pub fn counted(&self) -> impl Iterator<Item = (&GateConfig, &GateCount)> {
        self.plan.gates.iter().zip(&self.state.overall)
    }

    /// Configurations that must be kept (R71): the target, and what touched members can go back to.
    pub fn pinned(&self) -> impl Iterator<Item = Fingerprint> {
        let previous =
            self.volatile.pinned.iter().filter_map(|at| self.state.members.configs.get(at.index()));
        std::iter::once(self.plan.target).chain(previous.copied())
    }

    /// Members for whom an offer was ever written, with what became of it: what the coordinator is rebuilt from.
    pub fn touched(&self) -> impl Iterator<Item = (&AgentId, MemberState)> {
        let members = &self.state.members;
        let rows = members.ids.iter().zip(&members.rows);
        rows.filter(|(_, row)| row.flags.contains(Flags::TOUCHED)).map(|(id, row)| (id, row.state))
    }

    /// Applies an entry and, if it fits, puts it into the journal. One that does not fit is a bug.
    pub(crate) fn record(&mut self, entry: Entry, run: &mut Run<'_>) -> bool {
        if let Err(error) = self.state.apply(&self.plan, &entry) {
            debug_assert!(false, "{error}: {entry:?}");
            self.surprises += 1;
            return false;
        }
        debug_assert_eq!(check::after(&self.state, &self.plan, &entry), Ok(()), "{entry:?}");
        if !(matches!(entry, Entry::Waived(_)) && seeded!(self.faults, EntryForgotten)) {
            run.out.entries.push(entry);
        }
        true
    }

    /// Whether another offer may be made in this call; what is left over is done in the next one, at once.
    pub(crate) fn may_offer_more(&mut self) -> bool {
        let more = self.volatile.offers < self.plan.settings.offers_at_once.max(1);
        self.volatile.unfinished |= !more;
        more
    }

    /// One more offer, or one more member looked at in a scan, of those that one call may do.
    pub(crate) fn count_offer(&mut self) {
        self.volatile.offers += 1;
    }

    /// Whether this previous configuration was not pinned yet; from now on it is.
    pub(crate) fn newly_pinned(&mut self, ix: MemberIx) -> Option<Fingerprint> {
        let at = self.state.members.row(ix).previous;
        let config = self.state.members.previous(ix)?;
        self.volatile.pinned.insert(at).then_some(config)
    }
}
