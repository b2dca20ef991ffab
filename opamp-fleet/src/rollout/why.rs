//! Why a rollout or a member does not move, and what happens next (R76).

use opamp_proto::AgentId;

use super::engine::{Engine, State};
use super::members::{Flags, Row};
use super::waves::Wave;
use super::windows::Opening;
use super::{MemberState, PauseReason, Reason, RolloutState, Shown, Time, WaveState, summary};
use crate::coordinator::{Coordinator, Denied};
use crate::words::closed_set;

/// Why a rollout, or a member of it, does not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The rollout's state.
    pub state: RolloutState,
    /// Why, in one line.
    pub reason: String,
    /// Since when it, or the wave or member that is looked at, is in its state.
    pub since: Time,
    /// What happens next.
    pub next: NextAction,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// Something by itself.
    At(Time, &'static str),
    /// Nothing before somebody acts.
    Needs(Who),
    /// Nothing any more.
    Never,
}

closed_set! {
    /// Who has to act.
    pub enum Who ("actor") {
        /// The agent.
        Agent = "agent",
        /// Whoever approves.
        Approver = "approver",
        /// A provider of verdicts, or another rollout.
        External = "external",
        /// An operator.
        Operator = "operator",
    }
}

impl Engine {
    /// Why the rollout does not move, since when, and what happens next.
    pub fn why_not_moving(&self, now: Time, shared: &Coordinator) -> Why {
        let state = &self.state;
        let (reason, since, next) = match state.state {
            RolloutState::Draft => self.why("it is a draft", NextAction::Needs(Who::Operator)),
            RolloutState::PendingApproval => {
                self.why("somebody has to agree to its plan", NextAction::Needs(Who::Approver))
            }
            RolloutState::Scheduled | RolloutState::Preflight | RolloutState::Ready => {
                self.why_agreed(now, shared)
            }
            RolloutState::Running => self.why_running(),
            RolloutState::Paused => self.why_paused(),
            RolloutState::Baking => self.why_baking(now),
            RolloutState::Aborting => {
                let reason = format!("{} until nobody is in flight: {} are", state.state, state.in_flight());
                (reason, state.entered, self.when_a_member_is_due())
            }
            RolloutState::RollingBack => self.why_rolling_back(),
            RolloutState::Aborted
            | RolloutState::Cancelled
            | RolloutState::Expired
            | RolloutState::Failed
            | RolloutState::PartiallyRolledBack
            | RolloutState::Rejected
            | RolloutState::RollbackFailed
            | RolloutState::RolledBack
            | RolloutState::Succeeded
            | RolloutState::Superseded => self.why(state.reason.as_str(), NextAction::Never),
        };
        Why { state: state.state, reason, since, next }
    }

    /// Why a member does not move, since when, and what happens next; none if the agent is no member.
    pub fn why_member_not_moving(&self, agent: &AgentId, now: Time, shared: &Coordinator) -> Option<Why> {
        let row = self.state.members.row(self.state.members.find(agent)?);
        let shown = self.state.shown_as(row);
        let next = if self.state.state.is_terminal() {
            NextAction::Never
        } else if row.deadline != Time::NEVER {
            NextAction::At(row.deadline, at_deadline(row))
        } else {
            match row.state {
                // Its turn is a matter of its wave.
                MemberState::Queued | MemberState::RollbackQueued => self.why_not_moving(now, shared).next,
                state if state.settled() => NextAction::Never,
                _ => NextAction::Needs(Who::Agent),
            }
        };
        let reason = match (row.reason, shown) {
            (Reason::Nothing, _) => shown.to_string(),
            (reason, Shown::Soaking | Shown::Done) => format!("{shown}: {}, {reason}", row.state),
            (reason, _) => format!("{shown}: {reason}"),
        };
        Some(Why { state: self.state.state, reason, since: row.since, next })
    }

    fn why(&self, reason: &str, next: NextAction) -> (String, Time, NextAction) {
        (reason.to_owned(), self.state.entered, next)
    }

    /// Agreed to and not begun: its time comes first, then the end of others, then a look at the fleet, then who starts it.
    fn why_agreed(&self, now: Time, shared: &Coordinator) -> (String, Time, NextAction) {
        let state = &self.state;
        if let Some(start) = self.plan.start_at.filter(|_| state.state == RolloutState::Scheduled) {
            return self.why("it is not started", NextAction::At(start, "it starts"));
        }
        if let Some(other) = shared.waits_for(self.plan.id) {
            let reason = format!("it waits for the end of rollout {other}, which has some of its agents");
            return (reason, state.entered, NextAction::Needs(Who::External));
        }
        match (state.state, self.plan.calendar.at(now)) {
            (RolloutState::Preflight, _) => {
                self.why("its plan is compared with the fleet", NextAction::Needs(Who::External))
            }
            _ if state.from == RolloutState::Running => {
                self.why("its plan is made anew", NextAction::Needs(Who::External))
            }
            (_, Opening::Closed { until: Some(until), by }) => {
                let reason = format!("somebody has to start it; {} until {until}", closed(by));
                (reason, state.entered, NextAction::Needs(Who::Operator))
            }
            _ => self.why("somebody has to start it", NextAction::Needs(Who::Operator)),
        }
    }

    fn why_running(&self) -> (String, Time, NextAction) {
        let state = &self.state;
        let Some(ix) = state.current() else {
            let tail = &state.tail;
            if state.waits_for_the_first() && tail.waiting() == 0 {
                let reason = format!(
                    "its members are away: {} are waited for",
                    state.members_in(MemberState::Deferred)
                );
                return (reason, tail.entered, NextAction::Needs(Who::Agent));
            }
            let (reason, next) = self.why_dispatching("late joiners", tail);
            return (reason, tail.entered, next);
        };
        let wave = state.wave(ix);
        let name = format!("wave {} of {}", ix.0 + 1, state.waves.len());
        let (reason, next) = match wave.state {
            WaveState::Waiting => self.why_waiting(&name, wave),
            WaveState::Pending | WaveState::Dispatching => self.why_dispatching(&name, wave),
            WaveState::Settling => {
                (format!("{name} waits for {} members", wave.in_flight), self.when_a_member_is_due())
            }
            WaveState::Soaking => {
                (format!("{name} is watched"), at(wave.dwell.ends_at(), "its dwell is over"))
            }
            WaveState::Evaluating if self.waits_for_graces(ix) => (
                format!("{name} waits until it is known who is away"),
                at(self.next_deadline(), "a member's grace is over"),
            ),
            WaveState::Evaluating
                if self.waits_for_others(ix) && !self.volatile.readings.waits(&self.plan, ix) =>
            {
                (
                    format!(
                        "{name} waits for {} members who may show that it works",
                        wave.in_flight - wave.count(MemberState::RollbackOffered)
                    ),
                    self.when_a_member_is_due(),
                )
            }
            WaveState::Evaluating => {
                (format!("{name} waits for a verdict"), NextAction::Needs(Who::External))
            }
            WaveState::Held => {
                let said = summary::stopped_by(state, &self.plan);
                let cause = said.map_or_else(|| wave.reason.to_string(), ToString::to_string);
                (format!("{name} is held: {cause}"), NextAction::Needs(Who::Operator))
            }
            WaveState::Passed | WaveState::Failed | WaveState::Skipped => {
                (format!("{name} is {}", wave.state), at(self.next_deadline(), "it goes on"))
            }
        };
        (reason, wave.entered, next)
    }

    fn why_waiting(&self, name: &str, wave: &Wave) -> (String, NextAction) {
        let reason = format!("{name} waits: {}", wave.reason);
        let next = match wave.reason {
            Reason::Approval => NextAction::Needs(Who::Approver),
            Reason::Manual => NextAction::Needs(Who::Operator),
            _ => at(self.next_deadline(), "it looks again"),
        };
        (reason, next)
    }

    fn why_dispatching(&self, name: &str, wave: &Wave) -> (String, NextAction) {
        let counts = format!(
            "{name}: {} in flight of {} at a time, {} queued, {} backing off",
            wave.in_flight,
            wave.window,
            wave.count(MemberState::Queued),
            wave.count(MemberState::Backoff),
        );
        match self.volatile.denied {
            Some(denied) => {
                let next = self.asks_again().unwrap_or_else(|| self.when_a_member_is_due());
                (format!("{counts}; {}", denial(denied)), next)
            }
            None => (counts, self.when_a_member_is_due()),
        }
    }

    /// A bake that is over waits for who is on its way back, for who may be away, or for a verdict.
    fn why_baking(&self, now: Time) -> (String, Time, NextAction) {
        let over = self.state.bake.ends_at();
        if over.is_none_or(|over| over > now) {
            return self.why("its gates stay armed", at(over, "the bake ends"));
        }
        let open = self.state.in_flight() + self.state.members_in(MemberState::RollbackQueued);
        if open > 0 {
            let reason = format!("its bake is over, and {open} members have not settled");
            return (reason, self.state.entered, self.when_a_member_is_due());
        }
        let next = self.next_deadline().filter(|at| *at > now);
        let next = next.map_or(NextAction::Needs(Who::External), |at| NextAction::At(at, "it looks again"));
        self.why("its bake is over, and it waits for a verdict or for who is away", next)
    }

    fn why_paused(&self) -> (String, Time, NextAction) {
        let pause = self.state.pause.unwrap_or(PauseReason::Operator);
        let reason = match summary::stopped_by(&self.state, &self.plan) {
            Some(said) if matches!(pause, PauseReason::Gate | PauseReason::Inconclusive) => {
                format!("paused by {pause}: {said}")
            }
            _ if self.state.reason == Reason::NoProgress => {
                let seconds = self.plan.settings.progress.as_secs();
                format!("paused by {pause}: no member has settled for {seconds} s")
            }
            // What a gate has said since an operator paused it, or before, has to be decided as well.
            Some(said) if self.undecided().is_some() => {
                format!("paused by {pause}; somebody has to decide as well about {said}")
            }
            _ => format!("paused by {pause}"),
        };
        (reason, self.state.entered, NextAction::Needs(Who::Operator))
    }

    fn why_rolling_back(&self) -> (String, Time, NextAction) {
        let (queued, offered) = (
            self.state.members_in(MemberState::RollbackQueued),
            self.state.members_in(MemberState::RollbackOffered),
        );
        let settling = self.state.in_flight().saturating_sub(offered);
        let mut reason = format!(
            "rolling back: {queued} queued, {offered} offered, {settling} still at the new configuration"
        );
        if self.state.restarting > 0 {
            reason += &format!(", {} gone and waited for", self.state.restarting);
        }
        let Some(next) = self.asks_again().filter(|_| queued > 0) else {
            return (reason, self.state.entered, self.when_a_member_is_due());
        };
        // Of failure domains only it is known until when they are full.
        let denied = self.volatile.denied.filter(|_| self.volatile.retry_at.is_some());
        let denied = denied.unwrap_or(Denied::Zone { until: None });
        (format!("{reason}; {}", denial(denied)), self.state.entered, next)
    }

    /// When a claim is made again that was denied.
    fn asks_again(&self) -> Option<NextAction> {
        let asks = self.volatile.retry_at.into_iter().chain(self.volatile.full.values().copied());
        asks.min().map(|at| NextAction::At(at, "it asks again"))
    }

    /// Next comes what becomes of a member at its deadline: of one that is waited for now, if there is any, and not of one that
    /// is away. Without one the rollout looks again when it is due.
    fn when_a_member_is_due(&self) -> NextAction {
        let is_away = |row: &Row| matches!(row.state, MemberState::Deferred | MemberState::RollbackDeferred);
        let is_later = |row: &Row| is_away(row) && !State::counts_restarting(row);
        let deadlines = self.state.members.with_deadline().map(|(_, row)| (is_later(row), row.deadline));
        match deadlines.min().map(|(_, at)| at) {
            Some(at) => NextAction::At(at, "a member's time is over"),
            None => at(self.next_deadline(), "it looks again"),
        }
    }
}

/// Something by itself at a time; if there is no such time, when an operator acts.
fn at(time: Option<Time>, what: &'static str) -> NextAction {
    time.map_or(NextAction::Needs(Who::Operator), |time| NextAction::At(time, what))
}

/// What happens to a member at its deadline.
fn at_deadline(row: &Row) -> &'static str {
    match row.state {
        MemberState::Queued => "it is asked for again",
        MemberState::Backoff => "it is tried again",
        MemberState::Offered | MemberState::Delivered | MemberState::Applying => "its time is over",
        MemberState::Applied => "it counts as unverified",
        MemberState::Absent | MemberState::Verified | MemberState::Unverified => "it counts as away",
        MemberState::Deferred => "it is not waited for any more",
        MemberState::RollbackOffered if !row.flags.contains(Flags::REPORTS_STATUS) => {
            "it counts as rolled back, since it never says so"
        }
        MemberState::RollbackDeferred if State::counts_restarting(row) => {
            "the rollback does not wait for it any more"
        }
        MemberState::RollbackOffered | MemberState::RollbackDeferred => "it counts as not rolled back",
        MemberState::AlreadyCurrent
        | MemberState::NotApplicable
        | MemberState::Excluded
        | MemberState::Control
        | MemberState::Removed
        | MemberState::Expired
        | MemberState::Failed
        | MemberState::Rejected
        | MemberState::SelfRolledBack
        | MemberState::TimedOut
        | MemberState::RollbackQueued
        | MemberState::RolledBack
        | MemberState::RollbackFailed => "nothing",
    }
}

fn closed(by: Reason) -> &'static str {
    if by == Reason::Freeze { "a freeze holds" } else { "no maintenance window is open" }
}

/// Why a claim was denied.
fn denial(denied: Denied) -> String {
    match denied {
        Denied::Blast { .. } => "as much is touched or in flight as may be".to_owned(),
        Denied::Breaker { until } => format!("the breaker is open until {until}"),
        Denied::Budget => "as many agents are disturbed as may be".to_owned(),
        Denied::Locked(other) => format!("rollout {other} holds the agent"),
        Denied::Quarantined { .. } => "the agent is in quarantine".to_owned(),
        Denied::Rate { until } => format!("the rate is used up until {until}"),
        Denied::Recalled => "the configuration was recalled".to_owned(),
        Denied::Zone { .. } => "the failure domain has as many under way as may be".to_owned(),
    }
}
