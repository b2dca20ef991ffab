//! The ladder of evidence, and failures (R29, R30, R32).

use opamp_proto::AgentCapabilities;

use super::{EFFECTIVE, HEALTH, Member, STATUS, foreign, previous};
use crate::rollout::member::on_roll_back;
use crate::rollout::members::Flags;
use crate::rollout::{
    AgentFact, ConfigStatus, Effective, MemberState as M, Reason, RolloutState, Time, Withheld,
};

#[derive(Clone, Copy)]
enum Said {
    Applied,
    Equal,
    Well,
    Ill,
}

impl Member {
    fn said(&mut self, said: Said) -> M {
        let offer = self.row.offer;
        match said {
            Said::Applied => self.report(ConfigStatus::Applied),
            Said::Equal => self.fact(AgentFact::Effective { offer, relation: Effective::Equal }),
            Said::Well => self.health(true),
            Said::Ill => self.health(false),
        }
    }
}

#[test]
fn a_member_is_verified_when_every_kind_of_evidence_that_it_reports_is_there() {
    use Said::{Applied, Equal, Ill, Well};
    let none = Flags::default();
    let rows: [(Flags, &[Said], M); 17] = [
        (STATUS, &[Applied], M::Verified),
        (STATUS, &[Well], M::Delivered),
        (STATUS, &[Equal], M::Applied),
        (STATUS | EFFECTIVE, &[Applied], M::Applied),
        (STATUS | EFFECTIVE, &[Applied, Equal], M::Verified),
        (STATUS | EFFECTIVE, &[Equal, Applied], M::Verified),
        (STATUS | EFFECTIVE | HEALTH, &[Applied, Equal], M::Verified),
        (STATUS | EFFECTIVE | HEALTH, &[Ill, Applied, Equal], M::Applied),
        (STATUS | EFFECTIVE | HEALTH, &[Ill, Applied, Equal, Well], M::Verified),
        (STATUS | HEALTH, &[Applied], M::Verified),
        (EFFECTIVE, &[Equal], M::Verified),
        (EFFECTIVE, &[Well], M::Delivered),
        (HEALTH, &[Well], M::Verified),
        (HEALTH, &[Ill], M::Delivered),
        (HEALTH, &[Equal], M::Verified),
        (none, &[Equal], M::Verified),
        (none, &[], M::Delivered),
    ];
    for (at, (reports, said, expected)) in rows.into_iter().enumerate() {
        let mut member = Member::delivered(reports);
        for said in said {
            member.said(*said);
        }
        assert_eq!(member.row.state, expected, "row {at}");
    }
}

#[test]
fn applied_alone_of_a_supervisor_whose_collector_is_ill_is_not_verified() {
    let mut member = Member::delivered(STATUS | HEALTH);
    assert_eq!(member.health(false), M::Delivered);
    assert_eq!(member.report(ConfigStatus::Applied), M::Applied);
    assert_eq!(member.expire(), M::TimedOut);
    assert_eq!(member.row.reason, Reason::VerifyTimeout);
}

#[test]
fn who_was_ill_before_the_offer_is_not_asked_to_be_well() {
    let mut member = Member::new(STATUS | HEALTH);
    member.health(false);
    member.offer();
    assert!(member.has(Flags::WAS_UNHEALTHY));
    member.fact(AgentFact::Delivered { offer: 1 });
    assert_eq!(member.report(ConfigStatus::Applied), M::Verified);
}

#[test]
fn who_turned_ill_before_the_offer_reached_it_was_ill_before() {
    let mut member = Member::offered(STATUS | HEALTH);
    assert_eq!(member.fact(AgentFact::Health { offer: 0, healthy: false }), M::Offered);
    assert!(member.has(Flags::WAS_UNHEALTHY) && !member.has(Flags::HEALTHY));
    member.fact(AgentFact::Delivered { offer: 1 });
    member.fact(AgentFact::Health { offer: 0, healthy: true });
    assert!(!member.has(Flags::HEALTHY), "a report from before the delivery that arrives late");
}

#[test]
fn applied_for_another_configuration_is_not_success() {
    for hash in [previous(), foreign()] {
        let mut member = Member::delivered(STATUS);
        assert_eq!(member.report_of(hash, ConfigStatus::Applied), M::Delivered);
        assert_eq!(member.report(ConfigStatus::Applying), M::Applying);
        assert_eq!(member.report_of(hash, ConfigStatus::Applied), M::Applying);
    }
}

#[test]
fn who_fails_and_then_runs_its_previous_configuration_went_back_by_itself() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applying);
    assert_eq!(member.report(ConfigStatus::Failed), M::Backoff);
    assert_eq!(member.report_of(previous(), ConfigStatus::Applied), M::SelfRolledBack);
    assert_eq!((member.row.reason, member.row.deadline), (Reason::WentBack, Time::NEVER));
}

#[test]
fn who_applied_it_and_then_runs_its_previous_configuration_went_back_by_itself() {
    let mut member = Member::delivered(STATUS);
    assert_eq!(member.report(ConfigStatus::Applied), M::Verified);
    assert_eq!(member.report_of(previous(), ConfigStatus::Applied), M::SelfRolledBack);
}

#[test]
fn who_applied_it_and_then_runs_what_nobody_offered_was_edited() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applied);
    assert_eq!(member.report_of(foreign(), ConfigStatus::Applied), M::Failed);
    assert_eq!(member.row.reason, Reason::LocalEdit);
    assert_eq!(member.report(ConfigStatus::Applied), M::Verified, "the edit was taken back");
}

#[test]
fn failed_without_applying_is_a_refusal_unless_the_agent_was_away_in_between() {
    let mut member = Member::delivered(STATUS);
    assert_eq!(member.report(ConfigStatus::Failed), M::Rejected);
    assert_eq!((member.row.reason, member.row.deadline), (Reason::Refused, Time::NEVER));

    let mut member = Member::delivered(STATUS);
    member.gone();
    assert_eq!(member.fact(AgentFact::Connected), M::Delivered);
    assert_eq!(member.report(ConfigStatus::Failed), M::Backoff);
}

#[test]
fn failed_after_applied_is_final() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applied);
    assert_eq!(member.report(ConfigStatus::Failed), M::Failed);
    assert_eq!(member.row.failed_tries, 1);
}

#[test]
fn late_evidence_is_taken() {
    let mut member = Member::delivered(STATUS);
    member.plan.settings.retries.timeout = 0;
    assert_eq!(member.expire(), M::TimedOut);
    assert_eq!(member.report(ConfigStatus::Applied), M::Verified);

    let mut member = Member::delivered(EFFECTIVE | HEALTH);
    assert_eq!(member.expire(), M::Unverified);
    let offer = member.row.offer;
    assert_eq!(member.fact(AgentFact::Effective { offer, relation: Effective::Equal }), M::Verified);
}

#[test]
fn a_member_that_is_queued_again_and_reports_late_is_not_offered_again() {
    let mut member = Member::delivered(STATUS);
    assert_eq!(member.expire(), M::Backoff);
    assert_eq!(member.expire(), M::Queued);
    assert!(member.last.requeue);
    assert_eq!(member.report(ConfigStatus::Applied), M::Verified);
}

#[test]
fn what_is_reported_after_the_offer_was_taken_back_is_no_success() {
    let mut member = Member::offered(STATUS);
    member.gone();
    assert_eq!((member.expire(), member.last.undo, member.row.offer), (M::Deferred, true, 2));
    assert_eq!(member.fact(AgentFact::Connected), M::Queued);
    assert_eq!(member.report(ConfigStatus::Applied), M::Queued, "number 2 is its previous configuration");
    member.offer();
    assert_eq!((member.row.offer, member.report(ConfigStatus::Applied)), (3, M::Verified));
}

#[test]
fn who_waits_for_another_try_goes_back_with_the_others_and_who_waits_for_its_first_does_not() {
    let mut member = Member::delivered(STATUS);
    assert_eq!((member.expire(), member.expire()), (M::Backoff, M::Queued));
    let step = on_roll_back(&member.row, &member.around());
    assert_eq!(member.step(step), M::RollbackQueued);
    for mut member in [Member::new(STATUS), Member::offered(STATUS)] {
        member.gone();
        if member.row.state == M::Absent {
            member.expire();
            member.fact(AgentFact::Connected);
        }
        let step = on_roll_back(&member.row, &member.around());
        assert_eq!(member.step(step), M::Queued, "it has its previous configuration");
    }
}

#[test]
fn what_was_delivered_to_one_that_was_away_for_too_long_is_taken_back_by_a_rollback() {
    for (delivered, expected) in [(true, M::RollbackDeferred), (false, M::Expired)] {
        let mut member = if delivered { Member::delivered(STATUS) } else { Member::offered(STATUS) };
        member.gone();
        assert_eq!((member.expire(), member.expire()), (M::Deferred, M::Expired));
        let offer = member.row.offer;
        let step = on_roll_back(&member.row, &member.around());
        assert_eq!(member.step(step), expected);
        assert_eq!((member.last.undo, member.row.offer), (delivered, offer + u32::from(delivered)));
    }
}

#[test]
fn who_runs_it_already_is_current_and_who_failed_it_before_is_left_out() {
    let mut member = Member::new(STATUS);
    assert_eq!(member.report(ConfigStatus::Applied), M::AlreadyCurrent);
    let mut member = Member::new(STATUS);
    assert_eq!(member.report(ConfigStatus::Failed), M::Excluded);
    assert_eq!(member.row.reason, Reason::HashFailedBefore);
    let equal = AgentFact::Effective { offer: 0, relation: Effective::Equal };
    assert_eq!(Member::new(EFFECTIVE).fact(equal), M::AlreadyCurrent);
    assert_eq!(Member::new(STATUS | EFFECTIVE).fact(equal), M::Queued, "its status decides");
}

#[test]
fn a_capability_that_is_withdrawn_before_the_delivery_takes_the_offer_back() {
    let mut member = Member::offered(STATUS);
    assert_eq!(member.fact(AgentFact::Capabilities(AgentCapabilities::NONE)), M::NotApplicable);
    assert_eq!((member.last.undo, member.row.offer), (true, 2));

    let mut member = Member::offered(STATUS);
    let withheld = AgentFact::Withheld { offer: 1, why: Withheld::Capability };
    assert_eq!(member.fact(withheld), M::NotApplicable);
    assert!(member.last.undo);
    let mut member = Member::offered(STATUS);
    let withheld = AgentFact::Withheld { offer: 1, why: Withheld::TooLarge };
    assert_eq!((member.fact(withheld), member.row.reason), (M::Rejected, Reason::TooLarge));

    let mut member = Member::delivered(STATUS);
    assert_eq!(member.fact(AgentFact::Capabilities(AgentCapabilities::NONE)), M::Delivered);
}

#[test]
fn each_class_of_failure_has_its_own_number_of_tries() {
    let mut member = Member::offered(STATUS);
    let mut waits = Vec::new();
    for try_ in 0..3 {
        let offer = member.row.offer;
        assert_eq!(offer, try_ + 1);
        let state = member.expire();
        if state == M::Backoff {
            waits.push(member.span().as_secs());
            member.expire();
            member.offer();
        } else {
            assert_eq!(state, M::TimedOut);
        }
    }
    assert_eq!((waits, member.row.transport_tries), (vec![30, 60], 3));

    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applying);
    assert_eq!(member.report(ConfigStatus::Failed), M::Backoff);
    assert_eq!(member.span().as_secs(), 30);
    member.expire();
    member.offer();
    member.report(ConfigStatus::Applying);
    assert_eq!(member.report(ConfigStatus::Failed), M::Failed);
    assert_eq!((member.row.failed_tries, member.row.transport_tries), (2, 0));
}

#[test]
fn failed_while_backing_off_from_a_time_out_is_final_and_the_same_failure_twice_is_one() {
    let mut member = Member::delivered(STATUS);
    assert_eq!(member.expire(), M::Backoff);
    assert_eq!(member.report(ConfigStatus::Failed), M::Failed);

    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applying);
    member.report(ConfigStatus::Failed);
    assert_eq!(member.report(ConfigStatus::Failed), M::Backoff);
    assert_eq!(member.row.failed_tries, 1);
}

#[test]
fn what_would_never_be_tried_again_does_not_back_off() {
    let mut member = Member::delivered(STATUS);
    member.rollout = RolloutState::Aborting;
    assert_eq!(member.expire(), M::TimedOut);
}

#[test]
fn what_the_first_try_broke_does_not_excuse_the_second() {
    let mut member = Member::delivered(STATUS | HEALTH);
    member.report(ConfigStatus::Applying);
    member.health(false);
    assert_eq!(member.report(ConfigStatus::Failed), M::Backoff);
    member.expire();
    member.offer();
    assert!(!member.has(Flags::WAS_UNHEALTHY));
    assert!(!member.has(Flags::FAILED_SEEN), "the second offer begins anew");
}
