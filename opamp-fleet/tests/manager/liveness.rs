use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::Liveness;
use opamp_fleet::manager::AgentQuery;
use opamp_store::MemoryStore;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_clean_stop_is_told_from_a_silence() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut clean, mut silent) = (Agent::new(1), Agent::new(2));
    for agent in [&mut clean, &mut silent] {
        agent.connect(&process).await;
    }
    clean.goodbye(&process).await;
    process.settle().await;
    let detail = process.detail(&clean.uid).await;
    assert_eq!(detail.summary.liveness, Liveness::Disconnected);
    let connection = detail.connection.unwrap();
    assert_eq!((connection.graceful, connection.disconnect_reason.as_deref()), (true, Some("graceful")));

    // Three assumed polling intervals without a word, then three more.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(process.detail(&silent.uid).await.summary.liveness, Liveness::Stale);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let detail = process.detail(&silent.uid).await;
    assert_eq!(detail.summary.liveness, Liveness::Disconnected);
    let connection = detail.connection.unwrap();
    assert_eq!((connection.graceful, connection.disconnect_reason.as_deref()), (false, Some("timeout")));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_return_expires_and_stays_as_a_tombstone_until_it_does() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    agent.goodbye(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    tokio::time::sleep(Duration::from_secs(24 * 3600 - 60)).await;
    assert_eq!(process.manager.stats().by_liveness[&Liveness::Disconnected], 1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let stats = process.manager.stats();
    assert_eq!((stats.registered, stats.by_liveness[&Liveness::Expired]), (1, 1));
    let query = AgentQuery { liveness: Some(Liveness::Expired), ..process.everyone() };
    assert_eq!(process.manager.agents(&query).items.len(), 1);

    // A restart does not make it younger.
    process.stop().await;
    let process = Process::start(Arc::new(store), &clock).await;
    assert_eq!(process.manager.stats().by_liveness[&Liveness::Expired], 1);
    agent.heartbeat(&process).await;
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!((detail.summary.id, detail.summary.liveness), (id, Liveness::Connected));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_and_goes_is_flagged() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut flapping, mut steady) = (Agent::new(1), Agent::new(2));
    steady.connect(&process).await;
    for _ in 0..5 {
        flapping.connect(&process).await;
        process.settle().await;
        flapping.goodbye(&process).await;
        process.settle().await;
    }
    assert!(process.detail(&flapping.uid).await.summary.flapping);
    assert!(!process.detail(&steady.uid).await.summary.flapping);
    assert_eq!(process.manager.stats().flapping, 1);
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert!(!process.detail(&flapping.uid).await.summary.flapping);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn reconnects_faster_than_the_manager_looks_are_still_counted() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    for _ in 0..3 {
        agent.goodbye(&process).await;
        agent.heartbeat(&process).await;
    }
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!((detail.sticky.connects, detail.sticky.disconnects), (4, 3));
    assert_eq!(detail.summary.liveness, Liveness::Connected);
    process.stop().await;
}
