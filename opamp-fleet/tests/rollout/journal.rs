//! The journal: what it says, what it is as bytes, and that it leads to the same state again (R5, R7, R8).

mod play;

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::gates::GateKind;
use opamp_fleet::rollout::journal::{Entry, Page, Retention, Snapshot, Touched, kept};
use opamp_fleet::rollout::plan::{Plan, PlannedMembers, Strategy};
use opamp_fleet::rollout::{Engine, MemberState, Reason, RestoreError, RolloutState};
use play::{happens, play};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::support::{Driver, START, agents, by_number, config, gate, request};

/// A running rollout of pairs with all gates that count failures.
fn pairs(count: u32) -> Driver {
    let (new, selector, fleet) = (config("new"), Selector::default(), agents(count));
    let mut asked = request(&new, &selector, Strategy::Batches { size: 2 });
    asked.order = by_number(&fleet);
    asked.gates = [GateKind::ApplyFailed, GateKind::NothingSucceeds].map(gate).into();
    asked.settings.retries.failed = 0;
    Driver::started(asked, &fleet)
}

/// Three members fail, which stops the rollout.
fn stopped() -> Driver {
    let mut driver = pairs(8);
    for _ in 0..200 {
        for agent in driver.in_state(MemberState::Offered) {
            driver.fail(agent);
        }
        driver.wait(Duration::from_secs(20));
        if driver.engine.state() != RolloutState::Running {
            return driver;
        }
    }
    panic!("it was not stopped: {:?}", driver.engine.summary(driver.now));
}

fn succeeded(count: u32) -> Driver {
    let mut driver = pairs(count);
    for _ in 0..2_000 {
        for agent in driver.in_state(MemberState::Offered) {
            driver.succeed(agent);
        }
        driver.wait(Duration::from_secs(20));
        if driver.engine.state() == RolloutState::Succeeded {
            return driver;
        }
    }
    panic!("no end: {:?}", driver.engine.summary(driver.now));
}

#[test]
fn every_transition_has_actor_reason_and_evidence() {
    let mut gates = 0;
    for driver in [stopped(), succeeded(5)] {
        let mut changes = 0;
        for entry in &driver.entries {
            match entry {
                Entry::Rollout(entry) => {
                    changes += 1;
                    assert!(!entry.actor.is_empty(), "{entry:?}");
                    assert_ne!(entry.reason, Reason::Nothing, "{entry:?}");
                    let by_gate = entry.reason == Reason::GateFailed;
                    assert_eq!(entry.evidence.is_some(), by_gate, "{entry:?}");
                    gates += usize::from(by_gate);
                }
                Entry::Wave { to, reason, .. } => {
                    assert_ne!(*reason, Reason::Nothing, "{to}");
                }
                _ => {}
            }
        }
        assert!(changes >= 3, "submitted, running, and an end");
    }
    assert!(gates > 0, "a gate stopped one of them");
}

#[test]
fn entries_are_read_back_from_bytes_as_they_were() {
    for driver in [stopped(), succeeded(7)] {
        let mut bytes = Vec::new();
        for entry in &driver.entries {
            let mut one = Vec::new();
            entry.encode(&mut one);
            for end in 0..one.len() {
                assert!(Entry::decode(&mut &one[..end]).is_err(), "{entry:?} cut at {end}");
            }
            bytes.extend(one);
        }
        assert_eq!(Entry::decode_all(&bytes).as_ref(), Ok(&driver.entries));
    }
}

#[test]
fn an_entry_about_a_member_takes_at_most_32_bytes() {
    let driver = stopped();
    for entry in driver.entries.iter().filter(|entry| matches!(entry, Entry::Member { .. })) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert!(bytes.len() <= 32, "{} bytes: {entry:?}", bytes.len());
    }
}

#[test]
fn an_entry_of_a_later_version_is_refused_with_its_tag() {
    assert_eq!(Entry::decode(&mut &[200, 1, 2][..]), Err(RestoreError::UnknownTag { tag: 200 }));
    assert_eq!(Entry::decode(&mut &[][..]), Err(RestoreError::Truncated));
}

#[test]
fn retention_keeps_what_is_notable_and_what_the_state_is_rebuilt_from() {
    let driver = succeeded(5);
    let entries = &driver.entries;
    let snapshot_at = entries.len() / 2;
    let left: Vec<&Entry> = kept(entries, snapshot_at).collect();
    assert!(left.len() < entries.len());
    assert!(left.ends_with(&entries[snapshot_at..].iter().collect::<Vec<_>>()), "all since the snapshot");
    let notable = entries[..snapshot_at].iter().filter(|entry| entry.is_notable()).count();
    assert_eq!(left.len(), notable + entries.len() - snapshot_at);
    assert_eq!(changes(left.into_iter()), changes(entries.iter()));
}

fn changes<'a>(entries: impl Iterator<Item = &'a Entry>) -> usize {
    entries.filter(|entry| matches!(entry, Entry::Wave { .. } | Entry::Rollout(_))).count()
}

#[test]
fn a_rollout_is_history_90_days_after_its_end_and_not_before() {
    let (retention, day) = (Retention::default(), Duration::from_secs(24 * 3_600));
    assert!(!retention.is_history(None, START + 1_000 * day));
    assert!(!retention.is_history(Some(START), START + 89 * day));
    assert!(retention.is_history(Some(START), START + 90 * day));
}

#[test]
fn a_snapshot_and_the_entries_since_lead_to_the_same_state_wherever_it_was_made() {
    let mut driver = pairs(6);
    let mut snapshots = vec![(0, (*driver.first).clone())];
    for round in 0..60 {
        for agent in driver.in_state(MemberState::Offered) {
            if round % 3 == 2 { driver.fail(agent) } else { driver.succeed(agent) }
        }
        driver.wait(Duration::from_secs(20));
        snapshots.push((driver.entries.len(), driver.engine.snapshot()));
    }
    let (entries, end) = (&driver.entries, driver.engine.snapshot());
    // The first snapshot is of the draft, before the commands that started it.
    for (at, snapshot) in &snapshots {
        let (plan, members) = (Arc::clone(&driver.plan), driver.members.clone());
        let tail = entries[*at..].iter().cloned();
        let rebuilt = Engine::restore(plan, members, Some(snapshot), tail, Faults::default());
        let rebuilt = rebuilt.expect("its own records");
        assert_eq!(rebuilt.snapshot(), end, "from entry {at}");
        rebuilt.check().expect("invariants");
    }
}

#[test]
fn pages_that_were_touched_laid_over_the_snapshot_before_are_the_whole() {
    let count = Page::MEMBERS as u32 + 10;
    let (new, selector, fleet) = (config("new"), Selector::default(), agents(count));
    let mut asked = request(&new, &selector, Strategy::AllAtOnce);
    asked.order = by_number(&fleet);
    let mut driver = Driver::started(asked, &fleet);
    let before = driver.engine.snapshot();
    assert_eq!(before.pages.len(), 2);
    let from = driver.entries.len();
    for _ in 0..3 {
        for agent in driver.in_state(MemberState::Offered) {
            driver.succeed(agent);
        }
    }
    let mut touched = Touched::nothing();
    driver.entries[from..].iter().for_each(|entry| touched.note(entry));
    let partial = driver.engine.snapshot_of(&touched);
    assert_eq!(
        partial.pages.iter().map(|page| page.number).collect::<Vec<_>>(),
        [0],
        "the others are as they were"
    );
    assert_eq!(before.overlaid(partial), driver.engine.snapshot());
    assert_eq!(driver.engine.snapshot_of(&Touched::everything()), driver.engine.snapshot());
}

#[test]
fn a_torn_snapshot_is_refused() {
    let mut driver = pairs(4);
    let before = driver.engine.snapshot();
    for agent in driver.in_state(MemberState::Offered) {
        driver.succeed(agent);
    }
    let after = driver.engine.snapshot();
    let load = |snapshot: &Snapshot| {
        let (plan, members) = (Arc::clone(&driver.plan), driver.members.clone());
        Engine::restore(plan, members, Some(snapshot), [], Faults::default()).map(|engine| engine.snapshot())
    };
    assert_eq!(load(&after).as_ref(), Ok(&after));
    let torn = Snapshot { head: after.head.clone(), pages: before.pages };
    assert!(matches!(load(&torn), Err(RestoreError::Counters { .. })), "{:?}", load(&torn));
    for end in 0..after.head.len() {
        let cut = Snapshot { head: after.head[..end].to_vec(), pages: after.pages.clone() };
        assert!(load(&cut).is_err(), "head cut at {end}");
    }
    let mut cut = after.clone();
    cut.pages[0].bytes.pop();
    assert_eq!(load(&cut), Err(RestoreError::Page { number: 0 }));
    let other = succeeded_plan_of_others();
    let foreign = Engine::restore(other.0, other.1, Some(&after), [], Faults::default());
    assert!(foreign.is_err(), "a snapshot of another plan");
}

/// A plan and its members that `pairs` would not make.
fn succeeded_plan_of_others() -> (Arc<Plan>, PlannedMembers) {
    let driver = pairs(5);
    (driver.plan, driver.members)
}

#[test]
fn an_entry_that_fits_nowhere_is_refused_and_is_no_panic() {
    let driver = succeeded(3);
    let mut entries = driver.entries.clone();
    let last = entries.iter_mut().rev().find_map(|entry| match entry {
        Entry::Member { member, .. } => Some(member),
        _ => None,
    });
    last.expect("a member").0 = 99;
    let (plan, members) = (Arc::clone(&driver.plan), driver.members.clone());
    let foreign = Engine::restore(plan, members, Some(&driver.first), entries, Faults::default());
    assert!(foreign.is_err());
}

#[test]
fn a_plan_and_its_members_are_read_back_from_bytes_as_they_were() {
    let driver = pairs(9);
    let bytes = driver.plan.encode();
    assert_eq!(Plan::decode(&bytes).as_ref(), Ok(&*driver.plan));
    for end in 0..bytes.len() {
        assert!(Plan::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Plan::decode(&longer).is_err());
    let mut later = bytes;
    later[0] = 2;
    assert_eq!(Plan::decode(&later), Err(RestoreError::Version { found: 2, known: 1 }));

    let pages = driver.members.pages();
    assert_eq!(PlannedMembers::from_pages(&pages).as_ref(), Ok(&driver.members));
    assert_eq!(PlannedMembers::from_pages(&[]), Err(RestoreError::Page { number: 0 }));
    let mut cut = pages;
    cut[0].bytes.pop();
    assert!(PlannedMembers::from_pages(&cut).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn replaying_the_journal_gives_the_same_state_whatever_happens(
        what in proptest::collection::vec(happens(), 0..60),
    ) {
        let mut driver = pairs(6);
        for happens in what {
            play(&mut driver, happens);
        }
        prop_assert_eq!(driver.engine.surprises(), 0);
        let rebuilt = driver.rebuilt();
        prop_assert_eq!(rebuilt.snapshot(), driver.engine.snapshot());
        let mut bytes = Vec::new();
        driver.entries.iter().for_each(|entry| entry.encode(&mut bytes));
        let read = Entry::decode_all(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&driver.entries));
    }

    #[test]
    fn junk_is_no_journal_and_no_panic(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::decode_all(&junk);
        let _ = Plan::decode(&junk);
        let _ = PlannedMembers::from_pages(&[Page { number: 0, bytes: junk }]);
    }
}
