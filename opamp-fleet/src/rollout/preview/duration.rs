//! How long a rollout takes at best and by its deadlines.

use std::time::Duration;

use super::turns;
use crate::rollout::Flags;
use crate::rollout::plan::{Plan, PlannedMembers};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// How long a rollout takes while it may go on: without the time in which windows are closed, somebody has to agree, or it
/// is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// If each member answers at once: rates, dwells and the bake remain.
    pub at_best: Duration,
    /// If each member takes as long as its deadlines let it at the first try.
    pub by_deadlines: Duration,
}

impl Lasting {
    pub(super) fn of(plan: &Plan, members: &PlannedMembers) -> Self {
        let (queued, longest) = (members.queued(), longest(plan, members));
        let limits = &plan.settings.limits;
        // Empty waves pass at once.
        let (mut at_best, mut by_deadlines) = (plan.settings.bake, plan.settings.bake);
        for wave in &plan.waves {
            let members = turns(wave, queued);
            if members == 0 {
                continue;
            }
            let rate = spent(members, limits.per_minute, MINUTE).max(spent(members, limits.per_hour, HOUR));
            let rounds = rounds(members, wave.cap);
            at_best = at_best.saturating_add(rate).saturating_add(wave.dwell);
            let waited = longest.saturating_mul(rounds).max(rate);
            by_deadlines = by_deadlines.saturating_add(waited).saturating_add(wave.dwell);
        }
        Self { at_best, by_deadlines }
    }
}

/// How long one member may take, at most: from the offer to the last evidence, with the one extension that APPLYING gives.
fn longest(plan: &Plan, members: &PlannedMembers) -> Duration {
    let deadlines = &plan.settings.deadlines;
    let own = [(deadlines.offer, deadlines.apply, deadlines.verify)];
    let by_type = deadlines.by_agent_type.values().map(|spans| (spans.offer, spans.apply, spans.verify));
    let spans = own
        .into_iter()
        .chain(by_type)
        .map(|(offer, apply, verify)| offer.saturating_add(apply.saturating_mul(2)).saturating_add(verify));
    let polling =
        members.rows.iter().zip(&members.paces).filter(|(row, _)| row.flags.contains(Flags::POLLING));
    let interval = polling.map(|(_, pace)| u64::from(pace.interval_s)).max().unwrap_or(0);
    // A poll brings the offer, another one its status: both have their intervals.
    let polls = Duration::from_secs(interval).saturating_mul(2 * u32::from(deadlines.polls));
    spans.max().unwrap_or_default().saturating_add(polls)
}

/// How long a rate makes so many offers take; the first ones of the first unit go at once.
fn spent(offers: u32, per_unit: u32, unit: Duration) -> Duration {
    let units = offers.saturating_sub(1) / per_unit.max(1);
    unit.saturating_mul(units)
}

/// Rounds in which a wave is offered if all goes well: 1, 2, 4, … up to its cap.
fn rounds(members: u32, cap: u32) -> u32 {
    let cap = cap.max(1);
    let (mut rounds, mut left, mut window) = (0, members, 1u32);
    while left > 0 && window < cap {
        left = left.saturating_sub(window);
        window = window.saturating_mul(2).min(cap);
        rounds += 1;
    }
    rounds + left.div_ceil(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_offered_in_rounds_that_double_up_to_its_cap() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8].map(|members| rounds(members, 1_000)), [0, 1, 2, 2, 3, 3, 4]);
        assert_eq!(rounds(10, 1), 10);
        assert_eq!(rounds(10, 3), 5, "1, 2, 3, 3, 1");
        assert_eq!(rounds(10, 0), 10);
    }

    #[test]
    fn a_rate_lets_the_first_unit_go_at_once() {
        assert_eq!(spent(600, 600, MINUTE), Duration::ZERO);
        assert_eq!(spent(601, 600, MINUTE), MINUTE);
        assert_eq!(spent(2_460, 600, MINUTE), 4 * MINUTE);
        assert_eq!(spent(5, u32::MAX, HOUR), Duration::ZERO);
    }
}
