use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::Liveness;
use opamp_proto::pb;
use opamp_store::{MemoryStore, Store as _};

use super::flaky::*;
use super::support::*;

const AGENTS: u16 = 1_000;

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_heartbeats_with_ticking_health_write_nothing_but_checkpoints() {
    let store = Arc::new(MemoryStore::new());
    let process = Process::start(store.clone(), &clock()).await;
    let mut agents: Vec<Agent> = (0..AGENTS).map(Agent::new).collect();
    for agent in &mut agents {
        agent.connect(&process).await;
    }
    // Also what of them was left out of the audit log is told by now.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = store.stats();
    assert!(before.rows_written >= u64::from(AGENTS), "every record was written once");

    for round in 0..20 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        for agent in &mut agents {
            agent.health = health(true, 1_000_000 + round);
            let report = pb::AgentToServer { health: Some(agent.health.clone()), ..agent.bare() };
            agent.send(&process, report).await;
        }
    }
    process.settle().await;
    let after = store.stats();
    assert_eq!(after.rows_written, before.rows_written, "no row is written per heartbeat");
    let checkpoints = after.checkpoint_rows_written - before.checkpoint_rows_written;
    assert!((8..=12).contains(&checkpoints), "{checkpoints} packed rows in ten minutes");
    assert!(after.checkpoints_written - before.checkpoints_written >= 8 * u64::from(AGENTS));

    let stats = process.manager.stats();
    assert_eq!(stats.by_liveness[&Liveness::Connected], u64::from(AGENTS));
    let last_seen = process.detail(&uid(7)).await.summary.last_seen.unwrap();
    assert!(process.now().0 - last_seen.0 < 10_000, "heartbeats refresh the last sign of life");
    assert!(agents.iter().all(|agent| agent.asked == 0));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_positions_of_a_fleet_too_large_for_one_commit_are_stored_once_each_also_after_an_outage() {
    const MANY: u16 = 5_000;
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    for agent in &mut (0..MANY).map(Agent::new).collect::<Vec<_>>() {
        agent.connect(&process).await;
    }
    process.settle().await;
    let before = store.stats();
    assert_eq!(before.checkpoints_written, 0);
    store.set(DOWN);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(store.stats().checkpoints_written, 0);
    store.set(WORKS);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = store.stats();
    assert_eq!(after.checkpoints_written, u64::from(MANY));
    assert!(after.commits - before.commits > 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn positions_come_in_the_order_of_uids_so_that_those_stored_together_are_neighbours() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    for agent in &mut (0..500).rev().map(Agent::new).collect::<Vec<_>>() {
        agent.connect(&process).await;
    }
    let uids: Vec<_> = process.server.checkpoints().map(|position| position.uid).collect();
    assert_eq!(uids, (0..500).map(uid).collect::<Vec<_>>());
    assert_eq!(process.server.checkpoints().count(), 0, "they are told once");
    process.stop().await;
}
