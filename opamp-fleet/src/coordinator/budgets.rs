//! Disruption budgets: how many agents may be disturbed at a time, over all rollouts (R58).

use super::ZoneKey;
use super::flight::Hold;
use crate::rollout::GroupIx;
use crate::rollout::stats::Ppm;

/// Agents that may be disturbed at a time in one domain, over all rollouts: a count and a percent, the smaller one holds.
/// An agent that is disturbed in two slots at a time is one agent. The percent lets at least one agent through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most agents.
    pub at_once: u32,
    /// Largest part of the domain. [`Ppm::ALL`]: no limit.
    pub percent: Ppm,
}

impl Budget {
    /// How many agents of a domain of this size; 0 if its size is not known, and then the percent allows one.
    fn allows(&self, size: u32) -> u32 {
        if self.percent == Ppm::ALL {
            return self.at_once;
        }
        self.at_once.min(self.percent.of(size).max(1))
    }
}

/// What a budget or a rate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// All agents.
    Fleet,
    /// One group.
    Group(GroupIx),
    /// One failure domain.
    Zone(ZoneKey),
}

impl Domain {
    /// Whether an agent of this group and failure domain belongs to it.
    pub(super) fn covers(&self, group: Option<GroupIx>, zone: Option<&str>) -> bool {
        match self {
            Self::Fleet => true,
            Self::Group(own) => group == Some(*own),
            Self::Zone(own) => zone == Some(&*own.0),
        }
    }

    fn covers_hold(&self, hold: &Hold) -> bool {
        self.covers(hold.group, hold.zone.as_deref())
    }
}

/// All budgets, and how much of each is in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Budgets {
    counted: Vec<Counted>,
}

#[derive(Clone, Debug)]
struct Counted {
    domain: Domain,
    budget: Budget,
    in_use: u32,
    size: u32,
}

impl Budgets {
    pub(super) fn new(budgets: impl IntoIterator<Item = (Domain, Budget)>) -> Self {
        let counted = |(domain, budget)| Counted { domain, budget, in_use: 0, size: 0 };
        Self { counted: budgets.into_iter().map(counted).collect() }
    }

    /// How many agents a domain has.
    pub(super) fn sized(&mut self, domain: &Domain, agents: u32) {
        for counted in self.counted.iter_mut().filter(|counted| counted.domain == *domain) {
            counted.size = agents;
        }
    }

    /// A domain has at least so many agents.
    pub(super) fn sized_at_least(&mut self, domain: &Domain, agents: u32) {
        for counted in self.counted.iter_mut().filter(|counted| counted.domain == *domain) {
            counted.size = counted.size.max(agents);
        }
    }

    /// Failure domains that have a budget.
    pub(super) fn zones(&self) -> impl Iterator<Item = &ZoneKey> {
        self.counted.iter().filter_map(|counted| match &counted.domain {
            Domain::Zone(zone) => Some(zone),
            Domain::Fleet | Domain::Group(_) => None,
        })
    }

    /// Whether an agent may be disturbed that is disturbed already for `others`.
    pub(super) fn have_room<'a>(
        &self,
        group: Option<GroupIx>,
        zone: Option<&str>,
        others: &(impl Iterator<Item = &'a Hold> + Clone),
    ) -> bool {
        self.counted.iter().all(|counted| {
            !counted.domain.covers(group, zone)
                || others.clone().any(|other| counted.domain.covers_hold(other))
                || counted.in_use < counted.budget.allows(counted.size)
        })
    }

    /// The agent is disturbed for `hold`, and was for `others`.
    pub(super) fn take<'a>(&mut self, hold: &Hold, others: &(impl Iterator<Item = &'a Hold> + Clone)) {
        for counted in &mut self.counted {
            if is_alone(&counted.domain, hold, others.clone()) {
                counted.in_use = counted.in_use.saturating_add(1);
            }
        }
    }

    /// The agent is not disturbed for `hold` any more, and still for `others`.
    pub(super) fn free<'a>(&mut self, hold: &Hold, others: &(impl Iterator<Item = &'a Hold> + Clone)) {
        for counted in &mut self.counted {
            if is_alone(&counted.domain, hold, others.clone()) {
                counted.in_use = counted.in_use.saturating_sub(1);
            }
        }
    }
}

/// Whether `hold` is the only one of its agent in the domain.
fn is_alone<'a>(domain: &Domain, hold: &Hold, mut others: impl Iterator<Item = &'a Hold>) -> bool {
    domain.covers_hold(hold) && !others.any(|other| domain.covers_hold(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_count_and_percent_holds_and_a_percent_lets_one_through() {
        let budget = |at_once, percent| Budget { at_once, percent: Ppm::percent(percent) };
        assert_eq!(budget(10, 5).allows(100), 5);
        assert_eq!(budget(3, 5).allows(100), 3);
        assert_eq!(budget(10, 5).allows(7), 1);
        assert_eq!(budget(10, 5).allows(0), 1, "nobody has said how large it is");
        assert_eq!(budget(10, 100).allows(0), 10);
        assert_eq!(budget(0, 100).allows(100), 0, "nothing at all can be meant");
    }

    #[test]
    fn a_domain_covers_what_belongs_to_it() {
        let zone = Domain::Zone(ZoneKey("a".into()));
        let group = Domain::Group(GroupIx(3));
        assert!(Domain::Fleet.covers(None, None));
        assert!(zone.covers(None, Some("a")) && !zone.covers(None, Some("b")) && !zone.covers(None, None));
        assert!(group.covers(Some(GroupIx(3)), None) && !group.covers(Some(GroupIx(4)), None));
        assert!(!group.covers(None, None));
    }
}
