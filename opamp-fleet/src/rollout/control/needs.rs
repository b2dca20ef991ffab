//! The texts of refusals: all in one place, because a refusal that is read back from a record has the text it was
//! written with.

macro_rules! texts {
    ($( $name:ident = $text:literal, )+) => {
        $( pub(crate) const $name: &str = $text; )+

        /// All of them.
        pub(crate) const ALL: &[&str] = &[$($text),+];
    };
}

texts! {
    ABORT = "a rollout that does not run yet; abort ends one that runs",
    ABORT_ENDS = "a rollout that goes on; abort ends this one",
    APPROVAL_GIVEN = "a rollout that goes on; this one ends",
    BAKE_DECIDED = "a wave; in the bake waive or raise the gate, or roll back",
    CAUSE_REMAINS = "the cause of the pause to be gone",
    CHANGE_PLAN = "a rollout that runs; before that, change the plan",
    CANCEL = "a rollout that runs; cancel ends one that does not",
    DRAFT = "a draft",
    GATE = "a gate that waits for a decision; a pause of an operator is resumed",
    IN_FLIGHT_MAX = "members in flight",
    FAILED_MEMBERS = "members that failed; what a gate said of others is waived, raised, skipped or rolled back",
    FLEET_PERCENT = "millionths of the fleet in flight",
    NOT_BEGUN = "a rollout that has not begun",
    PER_HOUR = "offers in an hour",
    PER_MINUTE = "offers in a minute",
    RUNNING = "a rollout that runs",
    RESUME_FIRST = "a rollout that is not paused; resume it first",
    SECONDS_LEFT = "seconds left to watch",
    SUBMITTED = "a submitted rollout",
    TOUCHED = "members touched",
    TURN = "a wave whose turn has come",
    WAITS = "a wave that waits, or that soaks",
    WAITS_FOR_ROLLBACK = "the end of the rollback",
    WATCHED = "a wave that is not evaluated yet",
    ZONE_IN_FLIGHT = "members in flight in a failure domain",
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_texts_are_equal() {
        let texts: std::collections::BTreeSet<_> = super::ALL.iter().collect();
        assert_eq!(texts.len(), super::ALL.len());
    }
}
