//! Falls, and which of them make a loop (R35, R41).

use std::time::Duration;

use super::{HEALTH, Member, STATUS};
use crate::rollout::gates::FALLS;
use crate::rollout::member::{before_claim, on_retry};
use crate::rollout::members::Flags;
use crate::rollout::{AgentFact, ConfigStatus, MemberState, Reason};

const SECOND: Duration = Duration::from_secs(1);

/// Falls every so often for as long, and is back at once.
fn flap(member: &mut Member, every: Duration, times: u32) {
    for _ in 0..times {
        member.now = member.now + every;
        member.gone();
        member.fact(AgentFact::Connected);
    }
}

#[test]
fn falls_before_the_offer_count_if_they_are_recent() {
    let mut member = Member::new(STATUS);
    flap(&mut member, SECOND, 3);
    member.offer();
    assert_eq!((member.row.falls_before, member.row.falls), (2, 0));

    let mut member = Member::new(STATUS);
    flap(&mut member, SECOND, 3);
    member.now = member.now + 3_600 * SECOND;
    member.offer();
    assert_eq!(member.row.falls_before, 0);
}

#[test]
fn whoever_flaps_as_fast_after_the_offer_as_before_is_excused_whenever_the_offer_comes() {
    for every in (30_u32..=600).step_by(30) {
        for offered in (0..every).step_by(10) {
            let mut member = Member::new(STATUS);
            flap(&mut member, every * SECOND, 6);
            member.now = member.now + offered * SECOND;
            member.offer();
            member.fact(AgentFact::Delivered { offer: 1 });
            member.report(ConfigStatus::Applied);
            member.now = member.now + (every - offered) * SECOND;
            member.gone();
            member.fact(AgentFact::Connected);
            flap(&mut member, every * SECOND, 6);
            let is_loop = member.row.falls >= FALLS;
            assert_eq!(is_loop, every <= 300, "three within 600 s, every {every} s");
            let is_excused = member.row.falls_before == FALLS - 1;
            assert!(is_excused || !is_loop, "every {every} s, offered {offered} s after a fall");
        }
    }
}

#[test]
fn three_falls_within_the_window_are_a_loop_wherever_the_window_begins() {
    let mut member = Member::delivered(STATUS);
    // One, long nothing, and then three: the first one says nothing of the others.
    for after in [0, 599, 300, 299] {
        assert!(member.row.falls < FALLS);
        flap(&mut member, after * SECOND, 1);
    }
    assert_eq!(member.row.falls, FALLS);
    // It stays one, however rarely it falls from then on.
    flap(&mut member, 3_600 * SECOND, 2);
    assert_eq!(member.row.falls, FALLS);

    let mut rare = Member::delivered(STATUS);
    flap(&mut rare, 400 * SECOND, 20);
    assert_eq!(rare.row.falls, 2, "never three within ten minutes");
}

/// Its turn comes while it is away, and it is back later.
fn misses_its_turn(member: &mut Member) {
    let step = before_claim(&member.row, &member.around()).expect("it is away");
    assert_eq!(member.step(step), MemberState::Deferred);
    member.fact(AgentFact::Connected);
    assert_eq!((member.row.state, member.row.reason), (MemberState::Queued, Reason::Returned));
}

#[test]
fn what_the_first_try_broke_excuses_no_later_one_that_it_was_away_for() {
    let mut member = Member::delivered(STATUS | HEALTH);
    member.plan.settings.retries.timeout = 0;
    flap(&mut member, SECOND, 2);
    member.health(false);
    assert_eq!(member.expire(), MemberState::TimedOut);
    member.gone();
    let step = on_retry(&member.row, &member.around());
    assert_eq!(member.step(step), MemberState::Queued);
    misses_its_turn(&mut member);
    member.offer();
    let before = |member: &Member| (member.has(Flags::WAS_UNHEALTHY), member.row.view().falls_before());
    assert_eq!(before(&member), (false, 0));
    // The try that it is allowed does not reach it either.
    member.gone();
    assert_eq!(member.expire(), MemberState::Deferred);
    flap(&mut member, SECOND, 2);
    assert_eq!((member.row.state, member.row.reason), (MemberState::Queued, Reason::Returned));
    member.offer();
    assert_eq!(before(&member), (false, 0));

    // One that nothing has reached so far is compared with how it is now.
    let mut member = Member::offered(STATUS | HEALTH);
    member.gone();
    assert_eq!(member.expire(), MemberState::Deferred);
    member.fact(AgentFact::Connected);
    flap(&mut member, SECOND, 2);
    let offer = member.row.offer - 1;
    member.fact(AgentFact::Health { offer, healthy: false });
    member.gone();
    misses_its_turn(&mut member);
    member.offer();
    assert_eq!(before(&member), (true, 2));
}
