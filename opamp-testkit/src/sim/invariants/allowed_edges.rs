//! Waves and rollouts take the steps of their tables and no others, and members move by what is about their present offer.
//!
//! The steps of members are not compared here: an entry with one that the table does not have is refused when it is applied
//! and when it is replayed, and that the table is the right one is proved beside it, in `opamp-fleet`.

use opamp_fleet::rollout::{MemberState, Reason, RolloutState, WaveState};

use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Line};
use crate::sim::world::{Commit, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct AllowedEdges;

impl Invariant for AllowedEdges {
    fn name(&self) -> &'static str {
        "allowed_edges"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for commit in &seen.commits {
            for change in &commit.written.changes {
                match change {
                    Change::Member { .. } => {
                        offers_go_on(change)?;
                        by_its_offer(world, commit, change)?;
                    }
                    Change::Rollout { before, entry } => ensure(rollout(*before, entry.to), || {
                        format!("a rollout went from {before} to {}", entry.to)
                    })?,
                    Change::Wave { .. } => of_wave(world, commit, change)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

fn offers_go_on(change: &Change) -> Result<(), String> {
    let Change::Member { agent, row_before, after, .. } = change else { return Ok(()) };
    let offer = row_before.map_or(0, |row| row.offer);
    ensure(offer <= after.offer, || format!("member {agent} had offer {offer} and has {} now", after.offer))
}

/// An offer that has not left the server is answered by nobody: what an agent said of an earlier one is no answer.
fn by_its_offer(world: &World, commit: &Commit, change: &Change) -> Result<(), String> {
    let Change::Member { agent, before, row_before, after, .. } = change else { return Ok(()) };
    let Some(row) = row_before.filter(|row| row.offer == after.offer) else { return Ok(()) };
    let waits = *before == MemberState::Offered
        || *before == MemberState::Absent && row.stage == MemberState::Offered;
    let is_answered = match after.state {
        MemberState::Delivered | MemberState::Applying | MemberState::Applied | MemberState::Verified => true,
        MemberState::Backoff | MemberState::Failed | MemberState::Rejected => {
            matches!(after.reason, Reason::ReportedFailed | Reason::Refused)
        }
        _ => false,
    };
    let record = world.store.rows().agents.get(agent);
    let was_sent = record.is_none_or(|record| record.was_sent(commit.batch.key.rollout, after.offer));
    ensure(!waits || !is_answered || was_sent, || {
        format!("{agent} is {} by offer {}, which was never sent to it", after.state, after.offer)
    })
}

fn of_wave(world: &World, commit: &Commit, change: &Change) -> Result<(), String> {
    let Change::Wave { wave: number, before, after, reason, .. } = change else { return Ok(()) };
    let Some(story) = story(world, commit.batch.key.rollout) else { return Ok(()) };
    let stretched = story.waves.get(number.index()).is_some_and(|line| line.stretched);
    // The control group is released into the last wave, also if that was left out.
    let is_released = (*before, *after) == (WaveState::Skipped, WaveState::Dispatching)
        && number.index() + 1 == story.waves.len();
    // Of whom nobody could be offered anything there is nothing to watch.
    let is_empty =
        (*before, *after) == (WaveState::Settling, WaveState::Passed) && *reason == Reason::EmptyWave;
    // Who was waited for at the end of the wave has shown that it works, and was watched by nobody yet.
    let has_shown = |line: &Line| line.wave == *number && line.state == MemberState::Verified;
    let is_fresh = (*before, *after) == (WaveState::Evaluating, WaveState::Soaking)
        && *reason == Reason::GatesPass
        && story.lines.iter().any(has_shown);
    let extra = is_empty || is_released || is_fresh || stretched && of_stretched(*before, *after);
    ensure(extra || wave(*before, *after), || format!("wave {number} went from {before} to {after}"))
}

/// Whether the table of rollouts has this step.
fn rollout(from: RolloutState, to: RolloutState) -> bool {
    use RolloutState as R;
    let leads_to: &[R] = match from {
        R::Draft => &[
            R::PendingApproval,
            R::Scheduled,
            R::Preflight,
            R::Cancelled,
            R::Expired,
            R::Superseded,
            R::Rejected,
        ],
        R::PendingApproval => {
            &[R::Scheduled, R::Preflight, R::Rejected, R::Cancelled, R::Superseded, R::Expired]
        }
        R::Scheduled => &[R::Preflight, R::Rejected, R::Cancelled, R::Superseded, R::Expired],
        R::Preflight => {
            &[R::Ready, R::Running, R::PendingApproval, R::Rejected, R::Cancelled, R::Superseded, R::Expired]
        }
        R::Ready => &[R::Running, R::Rejected, R::Cancelled, R::Superseded, R::Expired],
        R::Running => &[R::Paused, R::Baking, R::Succeeded, R::Aborting, R::RollingBack],
        // Whoever leaves out what the bake is paused for ends it.
        R::Paused => &[R::Running, R::Baking, R::Succeeded, R::Aborting, R::RollingBack],
        R::Baking => &[R::Succeeded, R::Paused, R::Running, R::Aborting, R::RollingBack],
        R::Aborting => &[R::Aborted, R::Superseded, R::Expired, R::Failed, R::RollingBack],
        R::RollingBack => &[R::RolledBack, R::PartiallyRolledBack, R::RollbackFailed, R::Aborting],
        R::Aborted
        | R::Cancelled
        | R::Expired
        | R::Failed
        | R::PartiallyRolledBack
        | R::Rejected
        | R::RollbackFailed
        | R::RolledBack
        | R::Succeeded
        | R::Superseded => &[],
    };
    from == to || leads_to.contains(&to)
}

/// Whether the table of waves has this step.
fn wave(from: WaveState, to: WaveState) -> bool {
    use WaveState as W;
    let leads_to: &[W] = match from {
        W::Pending => &[W::Waiting, W::Dispatching, W::Passed, W::Skipped],
        W::Waiting => &[W::Dispatching, W::Skipped, W::Failed, W::Held],
        W::Dispatching => &[W::Waiting, W::Settling, W::Soaking, W::Held, W::Skipped, W::Failed],
        W::Settling => &[W::Soaking, W::Dispatching, W::Held, W::Skipped, W::Failed],
        W::Soaking => &[W::Evaluating, W::Dispatching, W::Held, W::Skipped, W::Failed],
        W::Evaluating => &[W::Passed, W::Dispatching, W::Held, W::Skipped, W::Failed],
        W::Held => &[
            W::Waiting,
            W::Dispatching,
            W::Settling,
            W::Soaking,
            W::Evaluating,
            W::Passed,
            W::Skipped,
            W::Failed,
        ],
        // The control group is released into the last wave.
        W::Passed => &[W::Dispatching],
        W::Skipped | W::Failed => &[],
    };
    from == to || leads_to.contains(&to)
}

/// Whether only a wave that was lent members takes this step: it is asked after each of them, and soaks once it is decided.
fn of_stretched(from: WaveState, to: WaveState) -> bool {
    matches!(
        (from, to),
        (WaveState::Settling, WaveState::Evaluating) | (WaveState::Evaluating, WaveState::Soaking)
    )
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::MemberState;

    use super::super::made::{member, row, seen, world};
    use super::*;

    #[test]
    fn nothing_leads_out_of_a_terminal_state_or_back_before_the_start() {
        for from in RolloutState::ALL {
            for to in RolloutState::ALL.into_iter().filter(|to| *to != from) {
                assert!(!(from.is_terminal() && rollout(from, to)), "{from} to {to}");
            }
        }
        assert!(!rollout(RolloutState::Running, RolloutState::Draft));
        assert!(rollout(RolloutState::Paused, RolloutState::Running));
        assert!(!wave(WaveState::Failed, WaveState::Dispatching));
    }

    #[test]
    fn offers_do_not_go_back() {
        let look =
            |before, after| AllowedEdges.after(&world(), &seen(vec![member(before, after)], Vec::new()));
        assert_eq!(look(row(MemberState::Queued, 0), row(MemberState::Offered, 1)), Ok(()));
        assert!(look(row(MemberState::Offered, 2), row(MemberState::Delivered, 1)).is_err());
    }
}
