//! Committing: conflicts, crashes, fences, repetition (R3, R5, R6).

mod leader;
mod store;

use std::sync::Arc;
use std::time::Duration;

use leader::{Crash, Leader, SETTINGS};
use opamp_fleet::Selector;
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::commit::{Batch, CommitOutcome, CommitSettings, Committer, Next};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::Strategy;
use opamp_fleet::rollout::{
    Act, Do, Engine, Epoch, Event, PauseReason, Refused, Resume, RolloutState, Serial, Time, Write,
};
use store::Store;

use crate::support::{self, Driver, START, agents, by_number, config, permissive};

/// Runs to the end, with one crash at most. Returns the last process and the records.
fn run(count: u32, crash: Option<Crash>) -> (Leader, Store) {
    let (mut leader, mut store) = (Leader::new(count), Store::default());
    let mut crash = crash;
    for _ in 0..2_000 {
        leader.step(&store);
        if leader.pump(&mut store, crash) {
            crash = None;
            leader = leader.rebuilt(&store, Epoch(2));
        }
        if leader.engine.state().is_terminal() {
            assert!(!leader.pump(&mut store, None));
            return (leader, store);
        }
    }
    panic!("no end with {crash:?}: {:?}", leader.engine.summary(leader.now));
}

#[test]
fn a_crash_after_each_commit_resumes_without_a_second_offer_and_without_losing_anybody() {
    let (undisturbed, store) = run(5, None);
    assert_eq!(undisturbed.engine.state(), RolloutState::Succeeded);
    assert!(store.serial > Serial(5), "a rollout of several batches");
    for commit in 0..store.serial.0 {
        for written in [false, true] {
            let (leader, store) = run(5, Some(Crash { commit, written }));
            assert_eq!(leader.engine.state(), RolloutState::Succeeded, "{commit}, {written}");
            assert_eq!(store.desired.len(), 5, "{commit}, {written}: nobody is lost");
            for desired in store.desired.values() {
                assert_eq!(
                    (desired.generation, desired.config),
                    (1, leader.plan.target),
                    "{commit}, {written}"
                );
            }
        }
    }
}

#[test]
fn a_crash_after_each_entry_resumes() {
    let mut first = {
        let (new, selector, fleet) = (config("new"), Selector::default(), agents(3));
        let mut request = support::request(&new, &selector, Strategy::Batches { size: 2 });
        request.order = by_number(&fleet);
        Driver::started(request, &fleet)
    };
    to_the_end(&mut first);
    let entries = std::mem::take(&mut first.entries);
    for end in 0..=entries.len() {
        let (plan, members) = (Arc::clone(&first.plan), first.members.clone());
        let tail = entries[..end].iter().cloned();
        let engine = Engine::restore(plan, members, Some(&first.first), tail, Faults::default());
        let engine = engine.expect("a part of the journal is a journal");
        let (mut shared, now) = (permissive(), engine_time(&entries[..end]));
        shared.adopt(&engine, now);
        let offered: Vec<_> = engine.touched().map(|(agent, _)| *agent).collect();
        let mut driver = Driver { engine, shared, now, commands: 0, ..first.clone() };
        driver.writes.clear();
        // Whoever gave the orders gives them again, under their keys.
        driver.start();
        to_the_end(&mut driver);
        for write in &driver.writes {
            if let Write::Desire { key, .. } = write {
                assert!(!offered.contains(&key.agent), "{end}: {key:?} was offered already");
            }
        }
        assert!((0..3).all(|agent| driver.offer_of(agent) == 1), "{end}: nobody is lost or offered twice");
    }
}

/// Agents do what is wanted of them, and say it again if nobody has heard it, until the rollout has succeeded.
fn to_the_end(driver: &mut Driver) {
    for _ in 0..500 {
        for agent in 0..driver.agents.len() {
            if driver.state_of(agent).in_flight() {
                driver.succeed(agent);
            }
        }
        driver.wait(Duration::from_secs(20));
        if driver.engine.state() == RolloutState::Succeeded {
            return;
        }
    }
    panic!("no end: {:?}", driver.engine.summary(driver.now));
}

/// Engine time after these entries, as far as members say.
fn engine_time(entries: &[Entry]) -> Time {
    let times = entries.iter().filter_map(|entry| match entry {
        Entry::Member { row, .. } => Some(row.since),
        _ => None,
    });
    times.max().unwrap_or(START)
}

#[test]
fn a_conflict_drops_the_engine_and_rebuilds_it() {
    let (mut old, mut store) = (Leader::new(3), Store::default());
    old.step(&store);
    old.pump(&mut store, None);
    // The next leader has read the records, and then a batch of the one before it arrives: on the same serial.
    let mut leader = old.rebuilt(&store, Epoch(2));
    old.command("pause", Do::Pause).expect("it runs");
    old.pump(&mut store, None);

    leader.step(&store);
    let Next::Commit(batch) = leader.committer.poll(leader.now) else { panic!("something waits") };
    let outcome = store.commit(&batch);
    assert_eq!(outcome, CommitOutcome::Conflict { found: store.serial }, "no repetition of the other one's");
    leader.committer.answered(batch.key, outcome, leader.now);
    assert_eq!(leader.committer.poll(leader.now), Next::Drop);
    assert_eq!(leader.committer.poll(leader.now), Next::Drop, "for good");
    assert!(leader.acts.is_empty(), "nothing of it acts");

    let leader = leader.rebuilt(&store, Epoch(2));
    assert_eq!(leader.engine.state(), RolloutState::Paused, "what the other one wrote holds");
    assert_eq!(leader.engine.snapshot(), old.engine.snapshot());
}

#[test]
fn a_stale_epoch_steps_down_and_nothing_of_it_acts() {
    let (mut old, mut store) = (Leader::new(3), Store::default());
    old.step(&store);
    old.pump(&mut store, None);
    let mut new = old.rebuilt(&store, Epoch(2));
    new.command("pause", Do::Pause).expect("it runs");
    new.pump(&mut store, None);
    let before = (store.serial, store.desired.len());

    old.acts.clear();
    old.step(&store);
    let Next::Commit(batch) = old.committer.poll(old.now) else { panic!("something waits") };
    let outcome = store.commit(&batch);
    assert_eq!(outcome, CommitOutcome::StaleEpoch { current: Epoch(2) });
    old.committer.answered(batch.key, outcome, old.now);
    assert_eq!(old.committer.poll(old.now), Next::StepDown);
    assert_eq!((store.serial, store.desired.len()), before);
    assert!(old.acts.is_empty());
}

#[test]
fn pause_and_abort_survive_a_rebuild() {
    let (mut leader, mut store) = (Leader::new(5), Store::default());
    leader.step(&store);
    leader.command("pause", Do::Pause).expect("it runs");
    leader.pump(&mut store, None);
    let mut leader = leader.rebuilt(&store, Epoch(2));
    assert_eq!(leader.engine.state(), RolloutState::Paused);
    let offered = store.desired.len();
    for _ in 0..100 {
        leader.step(&store);
        leader.pump(&mut store, None);
    }
    assert_eq!(leader.engine.state(), RolloutState::Paused, "nobody has resumed it");
    assert_eq!(store.desired.len(), offered, "nothing new is offered");
    let rollout = leader.engine.why_not_moving(leader.now, &leader.shared);
    assert!(rollout.reason.contains(PauseReason::Operator.as_str()), "{}", rollout.reason);

    leader.command("abort", Do::Abort).expect("it is paused");
    leader.pump(&mut store, None);
    let mut leader = leader.rebuilt(&store, Epoch(3));
    for _ in 0..100 {
        leader.step(&store);
        leader.pump(&mut store, None);
    }
    assert_eq!(leader.engine.state(), RolloutState::Aborted);
    assert_eq!(store.desired.len(), offered, "nothing new is offered");
    let resumed = leader.command("resume", Do::Resume(Resume::Plain));
    assert_eq!(resumed, Err(Refused::Terminal(RolloutState::Aborted)));
}

#[test]
fn a_batch_of_unknown_outcome_is_repeated_as_it_was_until_it_is_known_and_acts_once() {
    let (mut leader, mut store) = (Leader::new(3), Store::default());
    leader.step(&store);
    let Next::Commit(first) = leader.committer.poll(leader.now) else { panic!("something waits") };
    // The store has written, and the answer is lost; then it cannot be reached for a while.
    assert_eq!(store.commit(&first), CommitOutcome::Committed(Serial(1)));
    let mut waits = Vec::new();
    for _ in 0..8 {
        leader.committer.answered(first.key, CommitOutcome::Unknown, leader.now);
        let Next::Wait(at) = leader.committer.poll(leader.now) else { panic!("it waits") };
        waits.push(at.since(leader.now).as_millis());
        leader.now = at;
        let Next::Commit(again) = leader.committer.poll(leader.now) else { panic!("it is repeated") };
        assert_eq!(again, first);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assert!(leader.acts.is_empty(), "nothing acts before the commit is known");
    leader.committer.answered(first.key, store.commit(&first), leader.now);
    assert!(!leader.pump(&mut store, None));
    assert!(!leader.acts.is_empty(), "hints for those that are offered");
    let acts = leader.acts.len();
    leader.committer.answered(first.key, CommitOutcome::Committed(Serial(1)), leader.now);
    leader.pump(&mut store, None);
    assert_eq!(leader.acts.len(), acts, "a late answer changes nothing");
}

#[test]
fn effects_made_while_a_batch_is_at_the_store_are_in_the_next_one() {
    let (mut leader, mut store) = (Leader::new(5), Store::default());
    leader.step(&store);
    let Next::Commit(first) = leader.committer.poll(leader.now) else { panic!("something waits") };
    leader.command("pause", Do::Pause).expect("it runs");
    assert!(matches!(leader.committer.poll(leader.now), Next::Wait(_)), "one batch at a time");
    leader.committer.answered(first.key, store.commit(&first), leader.now);
    let next = loop {
        match leader.committer.poll(leader.now) {
            Next::Act(_) => {}
            Next::Commit(batch) => break batch,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((next.base, next.key.base), (Serial(1), Serial(1)));
    assert!(next.entries.iter().any(|entry| matches!(entry, Entry::Command(_))));
}

#[test]
fn the_store_counts_as_degraded_after_30_s_without_a_commit_and_not_before() {
    let (mut leader, mut store) = (Leader::new(3), Store::default());
    assert!(!leader.committer.is_degraded(leader.now + Duration::from_secs(3_600)), "nothing was wanted");
    leader.step(&store);
    let Next::Commit(batch) = leader.committer.poll(leader.now) else { panic!("something waits") };
    let later = |seconds| leader.now + Duration::from_secs(seconds);
    assert!(!leader.committer.is_degraded(later(29)));
    assert!(leader.committer.is_degraded(later(30)));
    leader.committer.answered(batch.key, store.commit(&batch), leader.now);
    assert!(!leader.committer.is_degraded(leader.now + Duration::from_secs(60)));
}

#[test]
fn a_refused_batch_freezes_the_rollout_and_tells_somebody() {
    let mut leader = Leader::new(3);
    leader.step(&Store::default());
    let Next::Commit(batch) = leader.committer.poll(leader.now) else { panic!("something waits") };
    leader.committer.answered(batch.key, CommitOutcome::Refused, leader.now);
    let Next::Act(acts) = leader.committer.poll(leader.now) else { panic!("an alert") };
    assert!(
        matches!(&acts[..], [Act::Alert(alert)] if alert.text.contains("refused as invalid")),
        "{acts:?}"
    );
    assert_eq!(leader.committer.poll(leader.now), Next::Poisoned);
    leader.event(Event::Tick).expect("a tick");
    assert_eq!(leader.committer.poll(leader.now), Next::Poisoned, "no loop of retries");
}

#[test]
fn the_caller_stops_feeding_where_there_is_no_room() {
    let mut leader = Leader::new(3);
    let settings = CommitSettings { entries_max: 3, ..SETTINGS() };
    leader.committer = Committer::new(leader.plan.id, Serial(0), Epoch(1), settings, Faults::default());
    assert!(leader.committer.has_room());
    leader.step(&Store::default());
    assert!(!leader.committer.has_room(), "also while they are at the store");
    let _ = leader.committer.poll(leader.now);
    assert!(!leader.committer.has_room());
}

#[test]
fn batches_take_at_most_what_one_transaction_takes_and_lead_to_the_same_state() {
    let (mut leader, mut store) = (Leader::new(5), Store::default());
    leader.step(&store);
    leader.pump(&mut store, None);
    let before = store.serial;
    let mut sent = Vec::new();
    for number in 0..3_000 {
        let (key, do_) =
            (format!("key {number}"), [Do::Pause, Do::Resume(Resume::Plain)][number % 2].clone());
        leader.command(&key, do_).expect("pause and resume in turn");
        sent.push(key);
    }
    let (mut written, mut batches) = (Vec::new(), 0);
    loop {
        match leader.committer.poll(leader.now) {
            Next::Act(_) => {}
            Next::Commit(batch) => {
                batches += 1;
                assert!(batch.entries.len() + batch.writes.len() <= Batch::CHANGES_MAX);
                written.extend(batch.entries.iter().filter_map(|entry| match entry {
                    Entry::Command(command) => Some(command.key.to_string()),
                    _ => None,
                }));
                leader.committer.answered(batch.key, store.commit(&batch), leader.now);
            }
            other => {
                assert_eq!(other, Next::Idle);
                break;
            }
        }
    }
    assert_eq!(written, sent, "each once, in order");
    assert_eq!(store.serial.0 - before.0, batches);
    assert!(batches > 1, "more than one transaction takes");
    let rebuilt = leader.rebuilt(&store, Epoch(1));
    assert_eq!(rebuilt.engine.snapshot(), leader.engine.snapshot());
}
