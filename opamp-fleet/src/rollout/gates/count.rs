//! The counts of gates in their scopes, kept while members change.

use super::{GateConfig, Scopes, rules};
use crate::rollout::members::RowView;
use crate::rollout::plan::Plan;
use crate::rollout::{GateIx, MemberState};
use crate::words::closed_set;

/// One gate in one scope: a wave, all waves, or a failure domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateCount {
    /// Members that take part and are not excused: `n`.
    pub eligible: u32,
    /// Those of them that count against the gate: `k`.
    pub bad: u32,
    /// Members that take part and are excused.
    pub excused: u32,
    /// Members that take no part yet, because they were offered it and have not answered. Sequential tests and bounds take
    /// them for well.
    pub awaited: u32,
    /// What the gate said last.
    pub state: GateState,
}

const _: () = assert!(std::mem::size_of::<GateCount>() <= 20);

closed_set! {
    /// What a gate said last in a scope.
    #[derive(Default)]
    pub enum GateState ("gate state") {
        /// Nothing that matters.
        #[default]
        Armed = "armed",
        /// It failed.
        Fired = "fired",
        /// It failed and was waived.
        Waived = "waived",
    }
}

/// Whether a member takes part in a gate; it follows from its row alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Participation {
    /// It takes part, and is not held against the rollout.
    Excused,
    /// It takes part.
    In,
    /// It does not take part.
    Out,
}

/// What one member is to one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) part: Participation,
    /// Whether it counts against the gate, if it takes part.
    pub(crate) bad: bool,
    /// Whether it takes no part because its answer is awaited.
    pub(crate) awaited: bool,
}

impl Standing {
    fn of(gate: GateIx, rule: &rules::Functions, row: RowView<'_>) -> Self {
        Self {
            part: rule.participation(gate, row),
            bad: row.counts_against(gate),
            awaited: rule.is_awaited(gate, row),
        }
    }
}

impl GateCount {
    /// A member changed, came (nothing before) or left (nothing after).
    pub(crate) fn change(&mut self, before: Option<Standing>, after: Option<Standing>) {
        if let Some(before) = before {
            self.tally(before, |count| count.saturating_sub(1));
        }
        if let Some(after) = after {
            self.tally(after, |count| count.saturating_add(1));
        }
    }

    /// The wave begins anew: its gate forgets what it said, unless it has no say. Members go on being counted as they are.
    pub(crate) fn restart(&mut self) {
        if self.state != GateState::Waived {
            self.state = GateState::Armed;
        }
    }

    fn tally(&mut self, standing: Standing, change: impl Fn(u32) -> u32) {
        match standing.part {
            Participation::Excused => self.excused = change(self.excused),
            Participation::In => {
                self.eligible = change(self.eligible);
                if standing.bad {
                    self.bad = change(self.bad);
                }
            }
            Participation::Out if standing.awaited => self.awaited = change(self.awaited),
            Participation::Out => {}
        }
    }
}

/// Counts one member in the gates of a scope. Nothing before: it comes into the scope; nothing after: it leaves it.
pub(crate) fn count(
    plan: &Plan,
    counts: &mut [GateCount],
    before: Option<RowView<'_>>,
    after: Option<RowView<'_>>,
) {
    count_where(plan, [counts], before, after, |_| true);
}

/// The same in two scopes that the member is in before and after.
pub(crate) fn count_both(
    plan: &Plan,
    one: &mut [GateCount],
    other: &mut [GateCount],
    before: RowView<'_>,
    after: RowView<'_>,
) {
    count_where(plan, [one, other], Some(before), Some(after), |_| true);
}

/// Counts one member in the gates of a failure domain: in those alone that are counted there.
pub(crate) fn count_zone(
    plan: &Plan,
    counts: &mut [GateCount],
    before: Option<RowView<'_>>,
    after: Option<RowView<'_>>,
) {
    count_where(plan, [counts], before, after, |config| config.scopes.contains(Scopes::ZONE));
}

fn count_where<const SCOPES: usize>(
    plan: &Plan,
    mut scopes: [&mut [GateCount]; SCOPES],
    before: Option<RowView<'_>>,
    after: Option<RowView<'_>>,
    is_counted: impl Fn(&GateConfig) -> bool,
) {
    for (gate, config) in super::numbered(plan) {
        let Some(rule) = rules::of(config.kind).filter(|_| is_counted(config)) else { continue };
        let standing = |row| Standing::of(gate, rule, row);
        let (before, after) = (before.map(standing), after.map(standing));
        if before == after {
            continue;
        }
        for counts in &mut scopes {
            if let Some(count) = counts.get_mut(gate.index()) {
                count.change(before, after);
            }
        }
    }
}

/// Whether a member counts against a gate in a sequential test; none if it takes no part in it. Whose answer is awaited is
/// taken for well: those in flight, and those that are tried again or waited for.
pub(crate) fn mark(gate: GateIx, config: &GateConfig, row: RowView<'_>) -> Option<bool> {
    let rule = rules::of(config.kind)?;
    match rule.participation(gate, row) {
        Participation::In => Some(row.counts_against(gate)),
        Participation::Out => rule.is_awaited(gate, row).then_some(false),
        Participation::Excused => None,
    }
}

/// Members of the control group by gate: those that can show what the gate looks for, and those of them that do (R43).
pub(crate) fn count_control(
    plan: &Plan,
    counts: &mut [(u32, u32)],
    before: Option<RowView<'_>>,
    after: Option<RowView<'_>>,
) {
    let is_in = |row: &RowView<'_>| row.state() == MemberState::Control;
    let (before, after) = (before.filter(is_in), after.filter(is_in));
    if before.is_none() && after.is_none() {
        return;
    }
    for ((gate, config), (of, bad)) in super::numbered(plan).zip(counts) {
        let Some(rule) = rules::of(config.kind) else { continue };
        let shows = [before, after].map(|row| row.filter(|row| rule.is_comparable(*row)));
        let fails = shows.map(|row| row.is_some_and(|row| row.counts_against(gate)));
        *of = stepped(*of, shows.map(|row| row.is_some()));
        *bad = stepped(*bad, fails);
    }
}

/// A count after something that was so before, or not, is so now, or not.
const fn stepped(count: u32, so: [bool; 2]) -> u32 {
    match so {
        [false, true] => count.saturating_add(1),
        [true, false] => count.saturating_sub(1),
        [false, false] | [true, true] => count,
    }
}

/// What counting all of these members at once gives, but for what gates said, which is as at the beginning.
pub(crate) fn recount<'a>(plan: &Plan, rows: impl Iterator<Item = RowView<'a>>) -> Vec<GateCount> {
    let mut counts = vec![GateCount::default(); plan.gates.len()];
    for row in rows {
        count(plan, &mut counts, None, Some(row));
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Standing = Standing { part: Participation::In, bad: false, awaited: false };
    const BAD: Standing = Standing { bad: true, ..WELL };
    const EXCUSED: Standing = Standing { part: Participation::Excused, ..BAD };
    const OUT: Standing = Standing { part: Participation::Out, ..BAD };
    const AWAITED: Standing = Standing { awaited: true, ..OUT };

    fn after(changes: &[(Option<Standing>, Option<Standing>)]) -> GateCount {
        let mut count = GateCount::default();
        for (before, after) in changes {
            count.change(*before, *after);
        }
        count
    }

    #[test]
    fn members_are_counted_once_and_leave_no_trace_when_they_go() {
        let come = [WELL, BAD, EXCUSED, OUT, AWAITED].map(|standing| (None, Some(standing)));
        let found = after(&come);
        assert_eq!((found.eligible, found.bad, found.excused, found.awaited), (2, 1, 1, 1));
        let gone: Vec<_> = come.into_iter().chain(come.map(|(none, some)| (some, none))).collect();
        assert_eq!(after(&gone), GateCount::default());
    }

    #[test]
    fn a_member_that_wavers_leaves_the_count_of_the_others_as_it_is() {
        let (ill, well) = ((Some(WELL), Some(BAD)), (Some(BAD), Some(WELL)));
        let others = [(None, Some(WELL)), (None, Some(BAD)), (None, Some(BAD))];
        let found = after(&[&others[..], &[ill, well].repeat(5)].concat());
        assert_eq!((found.eligible, found.bad), (3, 2));
    }

    #[test]
    fn a_wave_that_begins_anew_keeps_its_members() {
        let mut count = after(&[(None, Some(BAD)), (None, Some(WELL))]);
        count.state = GateState::Fired;
        count.restart();
        let expected = GateCount { eligible: 2, bad: 1, ..GateCount::default() };
        assert_eq!(count, expected);
        count.state = GateState::Waived;
        count.restart();
        assert_eq!(count.state, GateState::Waived, "an operator has taken its say");
    }
}
