//! The ladder of evidence: what counts as applied, verified, unverified (R29).
//!
//! 1. APPLIED with the offered hash;
//! 2. an effective configuration equal to it;
//! 3. for an agent that reports neither: a report that it is well, under the present offer;
//! 4. nothing but the delivery: unverified, once the time is over.
//!
//! Steps 1 to 3 make a member applied. It is verified when every kind of evidence that it reports is there: status,
//! effective configuration if that means something for it, and last known health unless it was ill before. Health is
//! reported when it changes, so a fresh report is not asked for.

use crate::rollout::members::Flags;

/// Whether every kind of evidence that the agent reports is there.
pub(super) const fn is_complete(flags: Flags) -> bool {
    let has_status = !flags.contains(Flags::REPORTS_STATUS) || flags.contains(Flags::APPLIED_SEEN);
    let has_effective = !flags.contains(Flags::EXACT_EFFECTIVE) || flags.contains(Flags::EFFECTIVE_SEEN);
    has_status && has_effective && !is_ill(flags) && has_any(flags)
}

/// Whether the agent is ill and was not before.
pub(super) const fn is_ill(flags: Flags) -> bool {
    flags.contains(Flags::REPORTS_HEALTH)
        && !flags.contains(Flags::WAS_UNHEALTHY)
        && !flags.contains(Flags::HEALTHY)
}

/// Whether the agent has any way to show that it applied an offer.
pub(super) const fn can_be_given(flags: Flags) -> bool {
    flags.contains(Flags::REPORTS_STATUS)
        || flags.contains(Flags::EXACT_EFFECTIVE)
        || flags.contains(Flags::REPORTS_HEALTH)
}

/// Whether health is all that the agent can show: only then does a report of it mean that it applied an offer.
pub(super) const fn is_health_alone(flags: Flags) -> bool {
    !flags.contains(Flags::REPORTS_STATUS) && !flags.contains(Flags::EXACT_EFFECTIVE)
}

const fn has_any(flags: Flags) -> bool {
    flags.contains(Flags::APPLIED_SEEN)
        || flags.contains(Flags::EFFECTIVE_SEEN)
        || (is_health_alone(flags) && flags.contains(Flags::HEALTHY_SINCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Flags = Flags(
        Flags::REPORTS_STATUS.0 | Flags::EXACT_EFFECTIVE.0 | Flags::REPORTS_HEALTH.0 | Flags::HEALTHY.0,
    );

    #[test]
    fn every_kind_of_evidence_that_an_agent_reports_is_asked_for() {
        assert!(!is_complete(ALL));
        assert!(!is_complete(ALL | Flags::APPLIED_SEEN));
        assert!(!is_complete(ALL | Flags::EFFECTIVE_SEEN));
        assert!(is_complete(ALL | Flags::APPLIED_SEEN | Flags::EFFECTIVE_SEEN));
        assert!(is_complete(Flags::REPORTS_STATUS | Flags::APPLIED_SEEN));
        assert!(is_complete(Flags::EXACT_EFFECTIVE | Flags::EFFECTIVE_SEEN));
    }

    #[test]
    fn who_is_ill_is_not_verified_unless_it_was_ill_before() {
        let ill = Flags::REPORTS_HEALTH | Flags::REPORTS_STATUS | Flags::APPLIED_SEEN;
        assert!(!is_complete(ill));
        assert!(is_complete(ill | Flags::HEALTHY));
        assert!(is_complete(ill | Flags::WAS_UNHEALTHY));
    }

    #[test]
    fn a_report_of_health_is_evidence_only_from_who_can_show_nothing_else() {
        let well = Flags::REPORTS_HEALTH | Flags::HEALTHY | Flags::HEALTHY_SINCE;
        assert!(is_complete(well));
        assert!(!is_complete(well | Flags::REPORTS_STATUS));
        assert!(!is_complete(well | Flags::EXACT_EFFECTIVE));
        assert!(!is_complete(Flags::REPORTS_HEALTH | Flags::HEALTHY), "well, but not under this offer");
        assert!(!is_complete(Flags::default()));
    }
}
