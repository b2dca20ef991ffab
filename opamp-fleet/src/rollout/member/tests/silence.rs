//! Agents that say nothing, go away, and come back (R26, R27, R28).

use std::time::Duration;

use opamp_proto::AgentCapabilities;

use super::{EFFECTIVE, HEALTH, Member, STATUS, previous};
use crate::rollout::member::{before_claim, on_exclude, on_roll_back, on_stop};
use crate::rollout::members::{Flags, Pace};
use crate::rollout::{
    AgentFact, ConfigStatus, Deadlines, Effective, MemberState as M, Offline, Reason, Spans, Time,
    member::deadline,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn each_stage_has_its_span() {
    let mut member = Member::offered(STATUS | EFFECTIVE);
    assert_eq!(member.span(), 60 * SECOND);
    member.fact(AgentFact::Delivered { offer: 1 });
    assert_eq!(member.span(), 300 * SECOND);
    member.report(ConfigStatus::Applied);
    assert_eq!((member.row.state, member.span()), (M::Applied, 120 * SECOND));
    member.gone();
    assert_eq!((member.row.state, member.span()), (M::Absent, 90 * SECOND));
}

#[test]
fn a_silent_agent_is_timed_out_or_unverified_at_each_stage() {
    let mut member = Member::offered(STATUS);
    assert_eq!((member.expire(), member.row.reason), (M::Backoff, Reason::OfferTimeout));
    let mut member = Member::delivered(STATUS);
    assert_eq!((member.expire(), member.row.reason), (M::Backoff, Reason::ApplyTimeout));
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applying);
    assert_eq!((member.expire(), member.row.reason), (M::Backoff, Reason::ApplyTimeout));
    let mut member = Member::delivered(STATUS | EFFECTIVE);
    member.report(ConfigStatus::Applied);
    assert_eq!((member.expire(), member.row.reason), (M::Unverified, Reason::VerifyTimeout));
    let mut member = Member::delivered(HEALTH);
    assert_eq!((member.expire(), member.row.reason), (M::Unverified, Reason::NoEvidence));
}

#[test]
fn who_can_give_no_evidence_is_not_waited_for_as_long_as_who_can() {
    let mut member = Member::delivered(Flags::default());
    assert_eq!(member.span(), 120 * SECOND);
    assert_eq!(member.expire(), M::Unverified);
}

#[test]
fn applying_extends_the_deadline_once_however_often_it_is_said() {
    let mut member = Member::delivered(STATUS);
    member.now = member.now + 100 * SECOND;
    member.report(ConfigStatus::Applying);
    assert_eq!(member.span(), 300 * SECOND);
    for _ in 0..3 {
        member.now = member.now + 100 * SECOND;
        member.report(ConfigStatus::Applying);
    }
    assert_eq!(member.span(), Duration::ZERO);
}

#[test]
fn polls_at_30_s_and_at_5_min_are_waited_for_three_times() {
    for (interval_s, offer_s) in [(30, 150), (300, 960)] {
        let mut member = Member::new(STATUS | Flags::POLLING);
        let around = super::Around { pace: Pace { interval_s, spans: 0 }, ..member.around() };
        let changed = super::super::offered(&member.row, &around);
        member.row = member.row.with(&changed);
        assert_eq!(member.span(), Duration::from_secs(offer_s));
    }
    let deadlines = Deadlines::default();
    let grace = |interval_s, polling| deadline::grace(&deadlines, Pace { interval_s, spans: 0 }, polling);
    assert_eq!(grace(30, false), 90 * SECOND);
    assert_eq!(grace(10, false), 90 * SECOND, "never less than 90 s");
    assert_eq!(grace(300, true), 900 * SECOND);
    assert_eq!(grace(0, false), 90 * SECOND, "an interval that is not known is 30 s");
}

#[test]
fn an_agent_type_can_have_spans_of_its_own() {
    let mut member = Member::new(STATUS);
    let spans = Spans { offer: 5 * SECOND, apply: 6 * SECOND, verify: 7 * SECOND };
    member.plan.settings.deadlines.by_agent_type.insert("slow".into(), spans);
    let around = super::Around { pace: Pace { interval_s: 30, spans: 1 }, ..member.around() };
    let changed = super::super::offered(&member.row, &around);
    assert_eq!(changed.deadline, member.now + 5 * SECOND);
}

#[test]
fn who_restarts_on_apply_and_is_back_within_its_grace_goes_on() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applying);
    assert_eq!(member.gone(), M::Absent);
    member.now = member.now + 60 * SECOND;
    assert_eq!(member.fact(AgentFact::Connected), M::Applying);
    assert_eq!((member.span(), member.row.returns, member.row.falls), (300 * SECOND, 1, 1));
    assert_eq!(member.report(ConfigStatus::Applied), M::Verified);
}

#[test]
fn who_comes_and_goes_gets_its_span_three_times_and_no_more() {
    let mut member = Member::delivered(STATUS);
    for _ in 0..3 {
        member.gone();
        member.fact(AgentFact::Connected);
        assert_eq!(member.span(), 300 * SECOND);
    }
    member.gone();
    member.fact(AgentFact::Connected);
    assert_eq!(member.span(), Duration::ZERO);
    assert_eq!(member.expire(), M::Backoff);
}

#[test]
fn who_is_never_seen_to_connect_gets_its_span_three_times_as_well() {
    for status in [ConfigStatus::Applying, ConfigStatus::Applied] {
        let mut member = Member::delivered(STATUS | EFFECTIVE);
        for returns in 1..=4 {
            assert_eq!(member.gone(), M::Absent);
            member.report(status);
            assert_eq!(
                (member.row.returns, member.span() == Duration::ZERO),
                (returns, returns > 3),
                "{status}"
            );
        }
        assert!(member.expire().settled() || member.row.state == M::Backoff);
    }
    let mut member = Member::delivered(STATUS);
    for returns in 1..=4 {
        member.gone();
        let offer = member.row.offer;
        assert_eq!(member.fact(AgentFact::Delivered { offer }), M::Delivered);
        assert_eq!(member.span() == Duration::ZERO, returns > 3);
    }
}

#[test]
fn who_stays_away_after_the_delivery_is_deferred_and_counted_and_goes_on_when_it_is_back() {
    let mut member = Member::delivered(STATUS);
    member.gone();
    assert_eq!((member.expire(), member.row.reason), (M::Deferred, Reason::GraceOver));
    assert_eq!((member.last.undo, member.row.stage, member.row.offer), (false, M::Delivered, 1));
    assert_eq!(member.span(), Duration::from_secs(7 * 24 * 3600));
    assert_eq!(member.fact(AgentFact::Connected), M::Delivered);
    assert!(!member.last.requeue);
}

#[test]
fn who_announced_its_leaving_is_not_held_against_the_rollout() {
    let mut member = Member::delivered(STATUS);
    assert_eq!(member.fact(AgentFact::Disconnected { announced: true }), M::Absent);
    assert_eq!(member.row.falls, 0);
    assert_eq!((member.expire(), member.row.reason), (M::Deferred, Reason::AnnouncedLeave));
}

#[test]
fn an_offer_that_was_not_delivered_is_taken_back_when_the_agent_stays_away() {
    let mut member = Member::offered(STATUS);
    member.gone();
    assert_eq!((member.expire(), member.row.reason), (M::Deferred, Reason::NotConnected));
    assert_eq!((member.last.undo, member.row.offer, member.row.stage), (true, 2, M::Queued));
    assert_eq!(member.fact(AgentFact::Connected), M::Queued);
    assert!(member.last.requeue);
    member.offer();
    assert_eq!(member.row.offer, 3);
}

#[test]
fn who_is_not_connected_is_not_offered_anything() {
    let mut member = Member::new(STATUS);
    member.gone();
    let step = before_claim(&member.row, &member.around()).unwrap();
    assert_eq!((member.step(step), member.last.undo), (M::Deferred, false));
    assert_eq!(member.fact(AgentFact::Connected), M::Queued);

    let mut member = Member::new(STATUS);
    member.plan.settings.offline = Offline::Exclude;
    member.gone();
    let step = before_claim(&member.row, &member.around()).unwrap();
    assert_eq!((member.step(step), member.row.reason), (M::Excluded, Reason::NotConnected));
}

#[test]
fn an_older_offer_that_still_stands_is_taken_back_before_the_agent_is_waited_for() {
    let mut member = Member::delivered(STATUS);
    member.expire();
    member.expire();
    member.gone();
    let step = before_claim(&member.row, &member.around()).unwrap();
    assert_eq!((member.step(step), member.last.undo, member.row.offer), (M::Deferred, true, 2));
}

#[test]
fn a_verified_member_that_goes_away_is_away_after_its_grace_and_not_before() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applied);
    assert_eq!((member.gone(), member.span()), (M::Verified, 90 * SECOND));
    assert_eq!(member.fact(AgentFact::Connected), M::Verified);
    assert_eq!((member.row.deadline, member.row.reason), (Time::NEVER, Reason::Returned));
    member.gone();
    assert_eq!((member.expire(), member.row.reason), (M::Verified, Reason::GraceOver));
    assert_eq!(member.row.deadline, Time::NEVER);
    let deadline = member.row.deadline;
    member.gone();
    assert_eq!(member.row.deadline, deadline, "it was away already");
}

#[test]
fn who_was_away_for_too_long_expires() {
    let mut member = Member::offered(STATUS);
    member.gone();
    member.expire();
    assert_eq!((member.expire(), member.row.reason), (M::Expired, Reason::AwayTooLong));
}

#[test]
fn going_back_ends_with_the_previous_configuration_or_with_time() {
    let back = |reports| {
        let mut member = Member::delivered(reports);
        member.report(ConfigStatus::Applied);
        let step = on_roll_back(&member.row, &member.around());
        assert_eq!(member.step(step), M::RollbackQueued);
        member.offer();
        assert_eq!((member.row.state, member.row.offer), (M::RollbackOffered, 2));
        member
    };
    let mut member = back(STATUS);
    assert_eq!(member.report(ConfigStatus::Applied), M::RollbackOffered, "the new configuration");
    assert_eq!(member.report_of(previous(), ConfigStatus::Applied), M::RolledBack);
    let mut member = back(STATUS);
    assert_eq!(member.report_of(previous(), ConfigStatus::Failed), M::RollbackFailed);
    assert_eq!(member.report_of(previous(), ConfigStatus::Applied), M::RolledBack, "late");
    assert_eq!(back(STATUS).expire(), M::RollbackFailed);
    assert_eq!(back(HEALTH).expire(), M::RolledBack, "it cannot say");
    let mut member = back(STATUS);
    let equal = AgentFact::Effective { offer: 2, relation: Effective::Equal };
    assert_eq!(member.fact(equal), M::RolledBack);
    let mut member = back(STATUS);
    assert_eq!(member.gone(), M::RollbackDeferred);
    assert_eq!(member.fact(AgentFact::Connected), M::RollbackDeferred);
    assert!(member.last.offer_rollback);
}

#[test]
fn who_goes_away_while_it_goes_back_is_waited_for_ten_graces_and_no_more() {
    let mut member = Member::delivered(STATUS);
    // How often it came back before says nothing of that.
    member.gone();
    member.fact(AgentFact::Connected);
    member.report(ConfigStatus::Applied);
    let step = on_roll_back(&member.row, &member.around());
    member.step(step);
    for time in 1..=10 {
        member.offer();
        assert_eq!(member.gone(), M::RollbackDeferred);
        assert_eq!((member.row.reason, member.span()), (Reason::NotConnected, 90 * SECOND), "time {time}");
        member.now = member.now + 30 * SECOND;
        member.fact(AgentFact::Connected);
    }
    member.offer();
    assert_eq!(member.gone(), M::RollbackDeferred);
    assert_eq!((member.row.reason, member.span()), (Reason::GraceOver, 7 * 24 * 3600 * SECOND));
}

#[test]
fn who_does_not_come_back_to_go_back_is_waited_for_by_itself_alone() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applied);
    member.gone();
    let step = on_roll_back(&member.row, &member.around());
    member.step(step);
    let step = before_claim(&member.row, &member.around()).unwrap();
    assert_eq!((member.step(step), member.row.reason), (M::RollbackDeferred, Reason::NotConnected));
    assert_eq!((member.expire(), member.row.reason), (M::RollbackDeferred, Reason::GraceOver));
    assert_eq!((member.expire(), member.row.reason), (M::RollbackFailed, Reason::AwayTooLong));

    let mut member = Member::delivered(STATUS);
    member.gone();
    assert_eq!(member.expire(), M::Deferred);
    let step = on_roll_back(&member.row, &member.around());
    assert_eq!((member.step(step), member.row.reason), (M::RollbackDeferred, Reason::GraceOver));
}

#[test]
fn who_is_away_when_it_should_go_back_gets_the_good_configuration_first() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applied);
    member.gone();
    let step = on_roll_back(&member.row, &member.around());
    member.step(step);
    let step = before_claim(&member.row, &member.around()).unwrap();
    assert_eq!((member.step(step), member.last.undo, member.row.offer), (M::RollbackDeferred, true, 2));
}

#[test]
fn who_went_back_or_refused_is_back_already() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Failed);
    let step = on_roll_back(&member.row, &member.around());
    assert_eq!((member.step(step), member.last.undo, member.row.offer), (M::RolledBack, true, 2));
}

#[test]
fn who_has_gone_back_alone_is_given_what_it_had_as_long_as_that_was_not_written() {
    let queued = || {
        let mut member = Member::delivered(STATUS);
        member.report(ConfigStatus::Applied);
        let step = on_roll_back(&member.row, &member.around());
        assert_eq!(member.step(step), M::RollbackQueued);
        member
    };
    let mut member = queued();
    assert_eq!(member.report_of(previous(), ConfigStatus::Applied), M::RolledBack);
    assert_eq!((member.last.undo, member.row.offer), (true, 2));
    let mut member = queued();
    assert_eq!(member.fact(AgentFact::Capabilities(AgentCapabilities::NONE)), M::RollbackFailed);
    let equal = AgentFact::Effective { offer: 1, relation: Effective::Equal };
    assert_eq!(member.fact(equal), M::RollbackFailed, "to what it was to go back from");
    assert_eq!(member.report_of(previous(), ConfigStatus::Applied), M::RolledBack);
    assert_eq!((member.last.undo, member.row.offer), (true, 2));
    let mut member = queued();
    member.offer();
    assert_eq!((member.row.state, member.row.offer), (M::RollbackOffered, 2));
    assert_eq!(member.report_of(previous(), ConfigStatus::Applied), M::RolledBack);
    assert!(!member.last.undo, "it is written already");
}

#[test]
fn a_stop_drops_who_waits_and_leaves_the_others() {
    let mut member = Member::delivered(STATUS);
    assert_eq!(on_stop(&member.row, &member.around()).row, None);
    member.expire();
    let step = on_stop(&member.row, &member.around());
    assert_eq!((member.step(step), member.row.reason), (M::TimedOut, Reason::ApplyTimeout));
}

#[test]
fn a_stop_leaves_who_waits_to_go_back_out_and_that_is_no_failure() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applied);
    let step = on_roll_back(&member.row, &member.around());
    assert_eq!(member.step(step), M::RollbackQueued);
    let step = on_stop(&member.row, &member.around());
    assert_eq!((member.step(step), member.row.reason), (M::Excluded, Reason::RolloutEnded));
    assert_eq!(member.row.state.outcome(), crate::rollout::Outcome::Neutral);
    let step = on_roll_back(&member.row, &member.around());
    assert_eq!(member.step(step), M::RollbackQueued, "a later rollback takes it up again");
}

#[test]
fn what_failed_while_backing_off_has_failed_for_good_when_the_rollout_stops() {
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applying);
    assert_eq!(member.report(ConfigStatus::Failed), M::Backoff);
    let step = on_stop(&member.row, &member.around());
    assert_eq!((member.step(step), member.row.reason), (M::Failed, Reason::ReportedFailed));
}

#[test]
fn an_excluded_member_loses_an_offer_that_was_not_delivered_and_keeps_one_that_was() {
    let mut member = Member::offered(STATUS);
    let step = on_exclude(&member.row, &member.around());
    assert_eq!((member.step(step), member.last.undo), (M::Excluded, true));
    let mut member = Member::delivered(STATUS);
    let step = on_exclude(&member.row, &member.around());
    assert_eq!((member.step(step), member.last.undo), (M::Excluded, false));
    let mut member = Member::delivered(STATUS);
    member.report(ConfigStatus::Applied);
    assert_eq!(on_exclude(&member.row, &member.around()).row, None, "nothing to do");
}
