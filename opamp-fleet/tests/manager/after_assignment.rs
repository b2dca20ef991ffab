//! What follows an assignment to all that match: records are kept for what agents say to it, and for nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use opamp_fleet::Drift;
use opamp_fleet::manager::ManagerSettings;
use opamp_proto::pb::RemoteConfigStatuses;
use opamp_server::InsecureAcceptEveryone;
use opamp_store::{AgentRecord, AgentStore as _, MemoryStore, Store as _, WriteBatch};

use super::assign_matching::{assign, fleet};
use super::flaky::Flaky;
use super::support::*;

const ALL: &str = "capability=AcceptsRemoteConfig";

fn ring(ring: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("ring".to_owned(), ring.to_owned())])
}

/// Another manager on the same store.
async fn another(store: &MemoryStore) -> Process {
    let settings = ManagerSettings { audit_writer: "another".to_owned(), ..ManagerSettings::default() };
    Process::start_with(Arc::new(store.clone()), &clock(), Arc::new(InsecureAcceptEveryone), settings).await
}

#[tokio::test(start_paused = true)]
async fn what_agents_say_to_an_assignment_is_merged_without_reading_their_records_again() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let mut fleet = fleet(&process, 3).await;
    process.publish("edge", "a: 1").await;
    assign(&process, "capability=AcceptsRemoteConfig", 9).await.unwrap();
    let late = fleet.pop().expect("three agents");
    let reads = || store.reads.load(Ordering::SeqCst);
    let before = reads();
    for agent in &mut fleet {
        let offer = agent.heartbeat(&process).await.remote_config.unwrap();
        agent.report(&process, &offer, RemoteConfigStatuses::Applied, "").await;
    }
    process.settle().await;
    assert_eq!(reads(), before);
    assert_eq!(process.manager.stats().by_drift[&Drift::InSync], 2);
    // A record is not kept for one who says nothing for long.
    tokio::time::sleep(ManagerSettings::default().sweep_interval).await;
    let mut late = late;
    let offer = late.heartbeat(&process).await.remote_config.unwrap();
    late.report(&process, &offer, RemoteConfigStatuses::Applied, "").await;
    process.settle().await;
    assert!(reads() > before);
    for agent in fleet.iter().chain([&late]) {
        let stored = store.agent(&process.id(&agent.uid)).await.unwrap().expect("it is in the store");
        assert_eq!(stored.last_known_good.as_ref(), stored.desired.as_ref().map(|desired| &desired.hash));
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_another_process_changed_since_an_assignment_loses_neither_change() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let mut fleet = fleet(&process, 1).await;
    process.publish("edge", "a: 1").await;
    assign(&process, "capability=AcceptsRemoteConfig", 9).await.unwrap();
    let id = process.id(&fleet[0].uid);
    let labels = BTreeMap::from([("ring".to_owned(), "1".to_owned())]);
    let stored = store.agent(&id).await.unwrap().expect("it is in the store");
    let mut batch = WriteBatch::new();
    batch.put_agent(AgentRecord { labels: labels.clone(), ..AgentRecord::clone(&stored) });
    store.commit(batch, None).await.unwrap();
    let offer = fleet[0].heartbeat(&process).await.remote_config.unwrap();
    fleet[0].report(&process, &offer, RemoteConfigStatuses::Applied, "").await;
    process.settle().await;
    let stored = store.agent(&id).await.unwrap().expect("it is in the store");
    assert_eq!((&stored.labels, stored.last_known_good.is_some()), (&labels, true));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn labels_that_another_process_changed_since_an_assignment_can_be_set_back() {
    let store = Arc::new(MemoryStore::new());
    let process = Process::start(store.clone(), &clock()).await;
    let mut fleet = fleet(&process, 1).await;
    let id = process.id(&fleet[0].uid);
    process.manager.set_labels(&operator(), &id, ring("0")).await.unwrap();
    process.publish("edge", "a: 1").await;
    let another = another(&store).await;
    assign(&process, ALL, 9).await.unwrap();
    another.manager.set_labels(&operator(), &id, ring("1")).await.unwrap();
    process.manager.set_labels(&operator(), &id, ring("0")).await.unwrap();
    let stored = store.agent(&id).await.unwrap().expect("it is in the store");
    assert_eq!((&stored.labels, stored.desired.is_some()), (&ring("0"), true));
    // And what is told to the assignment afterwards changes none of it.
    let offer = fleet[0].heartbeat(&process).await.remote_config.unwrap();
    fleet[0].report(&process, &offer, RemoteConfigStatuses::Applied, "").await;
    process.settle().await;
    let stored = store.agent(&id).await.unwrap().expect("it is in the store");
    assert_eq!((&stored.labels, stored.last_known_good.is_some()), (&ring("0"), true));
    assert_eq!(store.stats().commits_failed, 0, "what was kept went with the change of labels");
    process.stop().await;
    another.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_another_process_carried_out_since_an_assignment_is_a_repetition() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let fleet = fleet(&process, 1).await;
    let id = process.id(&fleet[0].uid);
    process.publish("edge", "a: 1").await;
    process.publish("edge", "a: 2").await;
    let another = another(&store).await;
    assign(&process, ALL, 9).await.unwrap();
    let key = || Some("once".to_owned());
    let there = another.manager.assign(&operator(), &id, "edge", 2, key()).await.unwrap();
    let here = process.manager.assign(&operator(), &id, "edge", 2, key()).await.unwrap();
    assert_eq!((there.replayed, here.replayed), (false, true));
    process.manager.assign(&operator(), &id, "edge", 1, None).await.unwrap();
    process.stop().await;
    another.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_bytes_of_records_are_kept_for_what_agents_say_than_allowed() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let first = fleet(&process, 3).await;
    let stored = store.agent(&process.id(&first[0].uid)).await.unwrap().expect("it is in the store");
    // Three that say the same.
    let weight = stored.weight();
    process.stop().await;

    for (assigned_bytes_max, read) in [(0, 3), (3 * weight - 1, 1), (3 * weight, 0)] {
        let (store, auth) = (Flaky::new(), Arc::new(InsecureAcceptEveryone));
        let settings = ManagerSettings { assigned_bytes_max, ..ManagerSettings::default() };
        let process = Process::start_with(store.clone(), &clock(), auth, settings).await;
        let mut fleet = fleet(&process, 3).await;
        process.publish("edge", "a: 1").await;
        assign(&process, ALL, 9).await.unwrap();
        let before = store.reads.load(Ordering::SeqCst);
        for agent in &mut fleet {
            let offer = agent.heartbeat(&process).await.remote_config.unwrap();
            agent.report(&process, &offer, RemoteConfigStatuses::Applied, "").await;
        }
        process.settle().await;
        assert_eq!(store.reads.load(Ordering::SeqCst) - before, read, "{assigned_bytes_max} bytes");
        assert_eq!(process.manager.stats().by_drift[&Drift::InSync], 3);
        process.stop().await;
    }
}
