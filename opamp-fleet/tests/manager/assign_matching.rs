//! Assigning one version to all agents that a selector matches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::manager::{
    AssignError, AssignMatchingError, AssignedMatching, ManagerSettings, StoreFailure,
};
use opamp_fleet::{Drift, Selector, VersionState};
use opamp_proto::{AgentCapabilities, AgentId, ConfigHash};
use opamp_server::InsecureAcceptEveryone;
use opamp_store::{
    AgentRecord, AgentStore as _, DesiredConfig, FailureRecord, MemoryStore, Store as _, WriteBatch,
    WriteBehindLimits,
};

use super::flaky::*;
use super::support::*;

fn selector(text: &str) -> Selector {
    text.parse().expect("a selector")
}

pub(crate) async fn fleet(process: &Process, agents: u16) -> Vec<Agent> {
    let mut fleet: Vec<_> = (1..=agents).map(Agent::new).collect();
    for agent in &mut fleet {
        agent.connect(process).await;
    }
    process.settle().await;
    fleet
}

pub(crate) async fn assign(
    process: &Process,
    text: &str,
    at_most: usize,
) -> Result<AssignedMatching, AssignMatchingError> {
    process.manager.assign_matching(&operator(), &selector(text), at_most, "edge", 1).await
}

#[tokio::test(start_paused = true)]
async fn every_agent_that_matches_and_no_other_is_offered_the_version() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut fleet = fleet(&process, 3).await;
    process.publish("edge", "receivers: { otlp: {} }").await;
    let done = assign(&process, "host.name in (host-1,host-3)", 2).await.unwrap();
    assert_eq!(done, AssignedMatching { matched: 2, assigned: 2, ..AssignedMatching::default() });
    for (agent, offered) in fleet.iter_mut().zip([true, false, true]) {
        let detail = process.detail(&agent.uid).await;
        assert_eq!(detail.summary.drift == Drift::Pending, offered);
        assert_eq!(detail.desired.is_some_and(|desired| desired.assigned_by == "olivia"), offered);
        assert_eq!(agent.heartbeat(&process).await.remote_config.is_some(), offered);
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_than_one_commit_reaches_all_with_an_audit_entry_that_names_each_agent_once() {
    const AGENTS: u16 = 600;
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut fleet = fleet(&process, AGENTS).await;
    process.publish("edge", "a: 1").await;
    let all = "capability=AcceptsRemoteConfig";
    let done = assign(&process, all, usize::from(AGENTS)).await.unwrap();
    assert_eq!(done.assigned, usize::from(AGENTS));
    let entries = process.audit("config.assign").await;
    assert!((3..10).contains(&entries.len()), "{}", entries.len());
    let named: Vec<AgentId> = entries
        .iter()
        .flat_map(|entry| {
            assert_eq!((entry.entity.as_str(), entry.actor.as_str()), ("config:edge@1", "olivia"));
            let after = entry.after.as_ref().unwrap();
            assert_eq!(after["selector"], all);
            let agents = after["agents"].as_array().unwrap();
            agents.iter().map(|id| id.as_str().unwrap().parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let expected: BTreeSet<_> = fleet.iter().map(|agent| process.id(&agent.uid)).collect();
    assert_eq!(named.len(), expected.len());
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), expected);
    // Acknowledged is committed.
    process.crash().await;
    let process = Process::start(Arc::new(store), &clock).await;
    for agent in &mut fleet {
        assert!(agent.heartbeat(&process).await.remote_config.is_some());
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_stays_below_the_bytes_that_one_may_have() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let mut agents = fleet(&process, 5).await;
    process.publish("edge", "a: 1").await;
    let one = store.agent(&process.id(&agents[0].uid)).await.unwrap().expect("it is in the store");
    let mut batch = WriteBatch::new();
    let bytes = batch.put_agent(one).bytes();
    process.stop().await;

    // Two records do not fit, one does, also one that became a little larger.
    let write_behind = WriteBehindLimits { bytes_max: bytes * 7 / 4, ..WriteBehindLimits::default() };
    let settings = ManagerSettings { write_behind, ..ManagerSettings::default() };
    let auth = Arc::new(InsecureAcceptEveryone);
    let process = Process::start_with(Arc::new(store), &clock(), auth, settings).await;
    let done = assign(&process, "capability=AcceptsRemoteConfig", 5).await.unwrap();
    assert_eq!(done, AssignedMatching { matched: 5, assigned: 5, ..AssignedMatching::default() });
    assert_eq!(process.audit("config.assign").await.len(), 5, "one commit for each");
    for agent in &mut agents {
        assert!(agent.heartbeat(&process).await.remote_config.is_some());
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_may_be_as_large_as_any_leaves_room_for_what_an_assignment_adds() {
    // By how much two records stay below the largest batch: the longer history of the second has no room; it has, and the
    // audit entry has none.
    for room in [256, 512] {
        let weight = (WriteBatch::BYTES_MAX - room) / 2;
        let store = MemoryStore::new();
        let mut batch = WriteBatch::new();
        let blob = batch.put_blob(bytes::Bytes::from_static(b"config"));
        store.commit(batch, None).await.unwrap();
        for number in 1..=2 {
            let mut record = AgentRecord::new(AgentId::from_bytes([number; 16]), uid(number.into()), EPOCH);
            record.labels.insert("ring".to_owned(), "1".to_owned());
            record.desired = Some(Arc::new(DesiredConfig {
                config: "former".to_owned(),
                version: 1,
                hash: ConfigHash::new(bytes::Bytes::from_static(&[3; 32])),
                blob,
                generation: 1,
                assigned_by: "olga".to_owned(),
                assigned_at: EPOCH,
            }));
            record.desired_generation = 1;
            let error = "x".repeat(weight - record.weight());
            let hash = ConfigHash::new(bytes::Bytes::from_static(&[4; 32]));
            record.sticky.last_failure = Some(FailureRecord { hash, error, at: EPOCH });
            assert_eq!(record.weight(), weight);
            let mut batch = WriteBatch::new();
            batch.put_agent(record);
            store.commit(batch, None).await.unwrap();
        }
        let write_behind =
            WriteBehindLimits { bytes_max: WriteBatch::BYTES_MAX, ..WriteBehindLimits::default() };
        let settings = ManagerSettings { write_behind, ..ManagerSettings::default() };
        let auth = Arc::new(InsecureAcceptEveryone);
        let process = Process::start_with(Arc::new(store), &clock(), auth, settings).await;
        process.publish("edge", "a: 1").await;
        let done = assign(&process, "ring=1", 2).await.unwrap();
        assert_eq!(done, AssignedMatching { matched: 2, assigned: 2, ..AssignedMatching::default() });
        assert_eq!(process.audit("config.assign").await.len(), 2, "one commit for each");
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_leaves_those_alone_that_have_the_version() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut fleet = fleet(&process, 2).await;
    process.publish("edge", "a: 1").await;
    assign(&process, "host.name=host-1", 9).await.unwrap();
    let offer = fleet[0].heartbeat(&process).await.remote_config.unwrap();
    fleet[0].report(&process, &offer, opamp_proto::pb::RemoteConfigStatuses::Failed, "no").await;
    process.settle().await;
    let done = assign(&process, "service.name=io.example.collector", 9).await.unwrap();
    assert_eq!((done.matched, done.assigned, done.unchanged), (2, 1, 1));
    assert!(fleet[0].heartbeat(&process).await.remote_config.is_none(), "it failed and is left alone");
    assert!(fleet[1].heartbeat(&process).await.remote_config.is_some());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_no_configuration_is_left_out_and_counted() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut plain = Agent::new(1);
    plain.capabilities = AgentCapabilities::REPORTS_STATUS;
    plain.connect(&process).await;
    Agent::new(2).connect(&process).await;
    process.settle().await;
    process.publish("edge", "a: 1").await;
    let done = assign(&process, "service.name=io.example.collector", 9).await.unwrap();
    assert_eq!((done.matched, done.assigned, done.not_accepted), (2, 1, 1));
    assert!(plain.heartbeat(&process).await.remote_config.is_none());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_if_all_or_more_than_allowed_would_be_reached_or_the_version_cannot_be_assigned() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let _fleet = fleet(&process, 3).await;
    process.publish("edge", "a: 1").await;
    assert_eq!(assign(&process, "", 9).await, Err(AssignMatchingError::Everything));
    let all = "capability=AcceptsRemoteConfig";
    assert_eq!(assign(&process, all, 2).await, Err(AssignMatchingError::TooMany { at_most: 2 }));
    let unknown = process.manager.assign_matching(&operator(), &selector(all), 9, "edge", 2).await;
    let missing = AssignError::VersionNotFound { config: "edge".to_owned(), version: 2 };
    assert_eq!(unknown, Err(AssignMatchingError::Refused(missing)));
    assert_eq!(process.manager.stats().by_drift[&Drift::Unmanaged], 3);
    assert!(process.audit("config.assign").await.is_empty());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_archived_meanwhile_is_assigned_to_nobody_more() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let _fleet = fleet(&process, 1).await;
    process.publish("edge", "a: 1").await;
    store.set(ARCHIVES);
    let cause =
        AssignError::NotPublished { config: "edge".to_owned(), version: 1, state: VersionState::Archived };
    let all = "capability=AcceptsRemoteConfig";
    assert_eq!(assign(&process, all, 9).await, Err(AssignMatchingError::Interrupted { assigned: 0, cause }));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_interrupts_and_a_repetition_does_the_rest() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let mut fleet = fleet(&process, 300).await;
    process.publish("edge", "a: 1").await;
    let all = "capability=AcceptsRemoteConfig";
    store.set(SLOW);
    let manager = process.manager.clone();
    let call = tokio::spawn(async move {
        manager
            .assign_matching(&operator(), &selector("capability=AcceptsRemoteConfig"), 300, "edge", 1)
            .await
    });
    // The first commit is on its way; it ends the store's work.
    tokio::time::sleep(Duration::from_millis(500)).await;
    store.set(DOWN);
    let outcome = call.await.unwrap();
    assert!(
        matches!(
            outcome,
            Err(AssignMatchingError::Interrupted {
                assigned: 256,
                cause: AssignError::Store(StoreFailure::Unavailable(_))
            })
        ),
        "{outcome:?}"
    );
    store.set(WORKS);
    process.settle().await;
    let done = assign(&process, all, 300).await.unwrap();
    assert_eq!((done.unchanged, done.assigned), (256, 44));
    for agent in &mut fleet {
        assert!(agent.heartbeat(&process).await.remote_config.is_some());
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_does_not_keep_the_others_from_their_version() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let fleet = fleet(&process, 3).await;
    process.publish("edge", "a: 1").await;
    let damaged = process.id(&fleet[1].uid);
    *store.damaged.lock().expect("not poisoned") = Some(damaged);
    let done = assign(&process, "capability=AcceptsRemoteConfig", 3).await.unwrap();
    assert_eq!((done.matched, done.assigned, done.damaged), (3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_is_repeated_and_counted_once() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let mut fleet = fleet(&process, 2).await;
    process.publish("edge", "a: 1").await;
    store.set(FORGETS);
    let done = assign(&process, "capability=AcceptsRemoteConfig", 9).await.unwrap();
    assert_eq!(done.assigned, 2);
    assert_eq!(process.audit("config.assign").await.len(), 1);
    for agent in &mut fleet {
        assert!(agent.heartbeat(&process).await.remote_config.is_some());
        assert_eq!(process.detail(&agent.uid).await.desired.unwrap().generation, 1);
    }
    process.stop().await;
}
