use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opamp_fleet::manager::{AgentError, AssignError, ManagerSettings, NotReady, StoreFailure};
use opamp_fleet::{Drift, VersionState};
use opamp_proto::{AgentId, AgentToServerFlags, InstanceUid, pb};
use opamp_server::{Dispatch, StaticToken, StaticTokens};
use opamp_store::*;

use super::flaky::*;
use super::support::*;

async fn started(store: &Arc<Flaky>) -> (Process, Agent, AgentId) {
    let process = Process::start(store.clone(), &clock()).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    process.publish("edge", "a: 1").await;
    (process, agent, id)
}

fn is_unknown<T>(outcome: &Result<T, AssignError>) -> bool {
    matches!(outcome, Err(AssignError::Store(StoreFailure::OutcomeUnknown(_))))
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_written_is_not_called_unwritten_because_the_store_went_away() {
    let store = Flaky::new();
    let (process, mut agent, id) = started(&store).await;
    let assign = async || process.manager.assign(&operator(), &id, "edge", 1, Some("once".to_owned())).await;
    store.set(DIES);
    let assigned = assign().await;
    assert!(is_unknown(&assigned), "{assigned:?}");
    assert_eq!(agent.heartbeat(&process).await.remote_config, None, "it is not known whether it is desired");
    store.set(WORKS);
    let again = assign().await.unwrap();
    assert_eq!((again.replayed, again.dispatch), (true, Dispatch::NextPoll));
    assert!(agent.heartbeat(&process).await.remote_config.is_some(), "the repeated call offers it");
    assert_eq!(process.manager.stats().by_drift[&Drift::Pending], 1);
    assert_eq!(process.audit("agent.assign").await.len(), 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_of_unknown_outcome_is_neither_overwritten_nor_forgotten() {
    let store = Flaky::new();
    let (process, mut agent, id) = started(&store).await;
    // A change waits that knows nothing of the assignment, and another one comes after it.
    agent.health = health(false, 2);
    agent.connect(&process).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    store.set(DIES);
    assert!(is_unknown(&process.manager.assign(&operator(), &id, "edge", 1, None).await));
    agent.description = description("moved");
    agent.connect(&process).await;
    process.settle().await;
    assert_eq!(process.manager.stats().changes_waiting, 1);
    store.set(WORKS);
    process.settle().await;
    assert_eq!(process.manager.stats().changes_waiting, 0);
    assert!(
        agent.heartbeat(&process).await.remote_config.is_some(),
        "what is in the store is what is offered"
    );
    assert_eq!(process.manager.stats().by_drift[&Drift::Pending], 1);
    process.manager.flush().await.unwrap();
    let stored = store.agent(&id).await.unwrap().unwrap();
    assert_eq!(stored.desired.as_ref().map(|desired| desired.generation), Some(1));
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.health_report, Some(agent.health.clone()));
    assert_eq!(detail.description, Some(agent.description.clone()));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changed_records_of_unknown_outcome_are_read_again_and_not_lost() {
    for mode in [DIES, LOSES] {
        let store = Flaky::new();
        let (process, mut agent, id) = started(&store).await;
        agent.health = health(false, 2);
        agent.connect(&process).await;
        let mut newcomer = Agent::new(2);
        newcomer.connect(&process).await;
        store.set(mode);
        process.settle().await;
        assert!(process.manager.ready().await.is_err());
        store.set(WORKS);
        process.settle().await;
        process.settle().await;
        let stats = process.manager.stats();
        assert_eq!(
            (stats.records_waiting, stats.changes_waiting, stats.registered),
            (0, 0, 2),
            "mode {mode}"
        );
        let stored = store.agent(&id).await.unwrap().unwrap();
        assert!(!opamp_proto::material::health_summary(stored.parts.health.as_ref().unwrap()).healthy);
        assert!(store.agent(&process.id(&newcomer.uid)).await.unwrap().is_some());
        assert_eq!(store.stats().commits_failed, 0, "they were read again, not tried again blindly");
        assert_eq!(process.audit("agent.first_seen").await.len(), 2, "mode {mode}");
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_another_process_changed_keeps_what_was_decided_there_and_reported_here() {
    let store = Flaky::new();
    let (process, mut agent, id) = started(&store).await;
    agent.health = health(false, 2);
    agent.connect(&process).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let labels = BTreeMap::from([("ring".to_owned(), "0".to_owned())]);
    let mut batch = WriteBatch::new();
    let stored = store.agent(&id).await.unwrap().unwrap();
    batch.put_agent(AgentRecord { labels: labels.clone(), ..AgentRecord::clone(&stored) });
    store.commit(batch, None).await.unwrap();
    process.settle().await;
    let stored = store.agent(&id).await.unwrap().unwrap();
    assert_eq!(stored.labels, labels);
    assert!(!opamp_proto::material::health_summary(stored.parts.health.as_ref().unwrap()).healthy);
    assert_eq!(process.detail(&agent.uid).await.summary.labels, labels);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_expected_agent_of_unknown_outcome_has_one_record_when_it_comes() {
    for (mode, kept) in [(DIES, true), (LOSES, false)] {
        let store = Flaky::new();
        let process = Process::start(store.clone(), &clock()).await;
        let labels = BTreeMap::from([("ring".to_owned(), "0".to_owned())]);
        store.set(mode);
        let expected = process.manager.expect_agent(&operator(), uid(1), labels.clone()).await;
        assert!(matches!(expected, Err(AgentError::Store(StoreFailure::OutcomeUnknown(_)))), "{expected:?}");
        store.set(WORKS);
        let mut agent = Agent::new(1);
        agent.connect(&process).await;
        process.settle().await;
        agent.heartbeat(&process).await;
        process.settle().await;
        let found = process.manager.agents(&process.everyone()).items;
        assert_eq!(found.len(), 1, "mode {mode}");
        assert_eq!(found[0].labels, if kept { labels } else { BTreeMap::new() });
        assert_eq!(store.agent_by_uid(&uid(1)).await.unwrap().map(|stored| stored.id), Some(found[0].id));
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_deletion_has_an_unknown_outcome_is_gone_if_its_record_is() {
    for (mode, gone) in [(DIES, true), (LOSES, false)] {
        let store = Flaky::new();
        let (process, mut agent, id) = started(&store).await;
        process.manager.assign(&operator(), &id, "edge", 1, None).await.unwrap();
        store.set(mode);
        let deleted = process.manager.delete_agent(&operator(), &id).await;
        assert!(matches!(deleted, Err(AgentError::Store(StoreFailure::OutcomeUnknown(_)))), "{deleted:?}");
        store.set(WORKS);
        process.settle().await;
        assert_eq!(process.manager.stats().registered, u64::from(!gone));
        let offered = agent.heartbeat(&process).await.remote_config;
        assert_eq!(offered.is_none(), gone, "the assignment went with the record, or stayed with it");
        process.settle().await;
        assert_eq!(process.id(&agent.uid) != id, gone);
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_archived_in_the_last_moment_is_not_assigned() {
    let store = Flaky::new();
    let (process, mut agent, id) = started(&store).await;
    store.set(ARCHIVES);
    let assigned = process.manager.assign(&operator(), &id, "edge", 1, None).await;
    let state = VersionState::Archived;
    assert_eq!(assigned, Err(AssignError::NotPublished { config: "edge".to_owned(), version: 1, state }));
    assert_eq!(agent.heartbeat(&process).await.remote_config, None);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_costs_the_others_nothing() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agents: Vec<Agent> = (0..3).map(Agent::new).collect();
    for agent in &mut agents {
        agent.connect(&process).await;
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    *store.damaged.lock().unwrap() = Some(process.id(&agents[0].uid));
    for agent in &mut agents {
        agent.health = health(false, 2);
        agent.connect(&process).await;
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(process.manager.stats().changes_waiting, 1);
    assert_eq!(process.manager.ready().await, Ok(()), "one damaged record is no outage");
    process.crash().await;

    *store.damaged.lock().unwrap() = None;
    let process = Process::start(store, &clock).await;
    for agent in &mut agents {
        agent.heartbeat(&process).await;
    }
    let asked: Vec<_> = agents.iter().map(|agent| agent.asked).collect();
    assert_eq!(asked, [1, 0, 0], "the positions of the others were stored");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_tried_once_in_a_while_not_once_for_each_agent() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agents: Vec<Agent> = (0..50).map(Agent::new).collect();
    for agent in &mut agents {
        agent.connect(&process).await;
    }
    process.settle().await;
    store.set(UNREADABLE);
    for agent in &mut agents {
        agent.health = health(false, 2);
        agent.connect(&process).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(process.manager.stats().changes_waiting, 50);
    let before = store.reads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tried = store.reads.load(Ordering::SeqCst) - before;
    assert!((5..=15).contains(&tried), "{tried} reads in ten seconds");
    store.set(WORKS);
    process.settle().await;
    assert_eq!(process.manager.stats().changes_waiting, 0);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn that_the_store_can_be_read_does_not_hide_that_it_cannot_be_written() {
    let store = Flaky::new();
    let (process, mut agent, id) = started(&store).await;
    let mut other = Agent::new(2);
    other.connect(&process).await;
    process.settle().await;
    agent.health = health(false, 2);
    agent.connect(&process).await;
    store.set(LOSES);
    process.settle().await;
    // A read of another agent's record.
    other.health = health(false, 3);
    other.connect(&process).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(process.manager.agent(&id).await.unwrap().is_some());
    assert!(matches!(process.manager.ready().await, Err(NotReady::Store(_))));
    store.set(WORKS);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(process.manager.ready().await, Ok(()));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_met_a_change_of_identity_follows_the_agent() {
    let store = Flaky::new();
    let (process, mut agent, id) = started(&store).await;
    store.set(SLOW);
    let former = agent.uid;
    let (manager, actor) = (process.manager.clone(), operator());
    let assigning = async { manager.assign(&actor, &id, "edge", 1, None).await.unwrap() };
    let moving = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
        let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
        let assigned = answer.agent_identification.unwrap().new_instance_uid;
        agent.uid = InstanceUid::try_from(&assigned[..]).unwrap();
        assert_eq!(agent.heartbeat(&process).await.remote_config, None);
    };
    tokio::join!(assigning, moving);
    store.set(WORKS);
    process.settle().await;
    process.settle().await;
    assert!(agent.heartbeat(&process).await.remote_config.is_some(), "it is offered under the new identity");
    assert!(process.server.agent(&former).is_none(), "nothing is left of the former one");
    assert_eq!(process.id(&agent.uid), id);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_audit_entry_of_unknown_outcome_is_written_once() {
    let store = Flaky::new();
    let tokens = Arc::new(StaticTokens::new(vec![StaticToken::new("edge", "good")]));
    let process = Process::start_with(store.clone(), &clock(), tokens, ManagerSettings::default()).await;
    let agent = Agent::new(1);
    store.set(DIES);
    assert_eq!(process.poll(&agent.full(), agent.from, Some("wrong")).await.0, 401);
    process.settle().await;
    // One that came meanwhile goes with a batch of its own.
    assert_eq!(process.poll(&agent.full(), agent.from, None).await.0, 401);
    process.settle().await;
    store.set(WORKS);
    process.settle().await;
    assert_eq!(process.audit("agent.refuse").await.len(), 2);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unusable_configuration_does_not_keep_the_fleet_from_starting() {
    let store = Flaky::new();
    let (process, mut agent, id) = started(&store).await;
    process.manager.assign(&operator(), &id, "edge", 1, None).await.unwrap();
    process.stop().await;
    let stored = store.agent(&id).await.unwrap().unwrap();
    let mut batch = WriteBatch::new();
    let blob = batch.put_blob(bytes::Bytes::from_static(b"\xff\xff no protobuf"));
    let desired =
        stored.desired.as_deref().map(|desired| Arc::new(DesiredConfig { blob, ..desired.clone() }));
    batch.put_agent(AgentRecord { desired, ..AgentRecord::clone(&stored) });
    store.commit(batch, None).await.unwrap();

    let process = Process::start(store, &clock()).await;
    assert_eq!(agent.heartbeat(&process).await.remote_config, None, "it is left alone");
    assert_eq!(process.id(&agent.uid), id);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_record_was_given_up_is_asked_by_the_next_process() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agents: Vec<Agent> = (0..2).map(Agent::new).collect();
    for agent in &mut agents {
        agent.connect(&process).await;
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    *store.refused.lock().unwrap() = Some(process.id(&agents[0].uid));
    for agent in &mut agents {
        agent.health = health(false, 2);
        agent.connect(&process).await;
    }
    process.settle().await;
    assert_eq!(process.manager.stats().records_waiting, 0);
    *store.refused.lock().unwrap() = None;
    process.stop().await;

    let process = Process::start(store, &clock).await;
    for agent in &mut agents {
        agent.heartbeat(&process).await;
    }
    process.settle().await;
    let asked: Vec<_> = agents.iter().map(|agent| agent.asked).collect();
    assert_eq!(asked, [1, 0], "what was given up is asked for");
    for agent in &agents {
        assert_eq!(process.detail(&agent.uid).await.health_report, Some(agent.health.clone()));
    }
    process.stop().await;
}
