//! Freezes, and overriding one with a reason and a second person (R51).

use crate::rollout::Time;

/// A span in which nothing new is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// When it begins.
    pub from: Time,
    /// When it is over.
    pub until: Time,
    /// Why.
    pub reason: Box<str>,
    /// Set if it does not hold for this rollout. One that is not [complete](Override::is_complete) changes nothing.
    pub override_: Option<Override>,
}

impl Freeze {
    /// Whether nothing new may be offered at `time` because of it.
    #[must_use]
    pub fn holds_at(&self, time: Time) -> bool {
        self.from <= time && time < self.until && self.is_in_force()
    }

    /// Whether nobody has overridden it.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        !self.override_.as_ref().is_some_and(Override::is_complete)
    }
}

/// Why a freeze does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Why.
    pub reason: Box<str>,
    /// Who says so.
    pub by: Box<str>,
    /// Who agrees: somebody else.
    pub second: Box<str>,
}

impl Override {
    /// Whether it has a reason and two people. Names that differ only in case or blanks are one person.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let [reason, by, second] = [&self.reason, &self.by, &self.second].map(|text| text.trim());
        !reason.is_empty()
            && !by.is_empty()
            && !second.is_empty()
            && by.to_lowercase() != second.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freeze(override_: Option<[&str; 3]>) -> Freeze {
        let override_ = override_.map(|[reason, by, second]| Override {
            reason: reason.into(),
            by: by.into(),
            second: second.into(),
        });
        Freeze { from: Time(10), until: Time(20), reason: "sale".into(), override_ }
    }

    #[test]
    fn a_freeze_holds_from_its_beginning_until_before_its_end() {
        let freeze = freeze(None);
        assert_eq!([9, 10, 19, 20].map(|at| freeze.holds_at(Time(at))), [false, true, true, false]);
    }

    #[test]
    fn an_override_needs_a_reason_and_two_people() {
        assert!(!freeze(Some(["outage", "ann", "bob"])).holds_at(Time(15)));
        for incomplete in
            [["", "ann", "bob"], [" ", "ann", "bob"], ["outage", "", "bob"], ["outage", "ann", " "]]
        {
            assert!(freeze(Some(incomplete)).holds_at(Time(15)), "{incomplete:?}");
        }
        for one_person in [["outage", "ann", "ann"], ["outage", "ann", " Ann "]] {
            assert!(freeze(Some(one_person)).holds_at(Time(15)), "{one_person:?}");
        }
    }
}
