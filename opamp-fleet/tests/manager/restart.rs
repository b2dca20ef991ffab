use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::manager::{AgentCommandError, ManagerSettings};
use opamp_fleet::{Drift, Liveness};
use opamp_proto::pb::RemoteConfigStatuses::Applied;
use opamp_proto::{AgentCapabilities, pb};
use opamp_server::{Dispatch, InsecureAcceptEveryone, ServerSettings};
use opamp_store::MemoryStore;

use super::support::*;

/// Agents with a healthy life behind them: connected, some assigned, some messages in.
async fn fleet(process: &Process, count: u16) -> Vec<Agent> {
    let version = process.publish("edge", "receivers: {}").await;
    let mut agents = Vec::new();
    for n in 0..count {
        let mut agent = Agent::new(n);
        agent.connect(process).await;
        agents.push(agent);
    }
    process.settle().await;
    for agent in &mut agents {
        let id = process.id(&agent.uid);
        process.manager.assign(&operator(), &id, "edge", version, None).await.expect("assigned");
        let offer = agent.heartbeat(process).await.remote_config.expect("offered");
        agent.report(process, &offer, Applied, "").await;
        agent.heartbeat(process).await;
    }
    assert!(agents.iter().all(|agent| agent.asked == 0));
    agents
}

#[tokio::test(start_paused = true)]
async fn after_an_orderly_restart_no_agent_is_asked_for_full_state() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agents = fleet(&process, 20).await;
    let mut before = Vec::new();
    process.settle().await;
    for agent in &agents {
        before.push(process.detail(&agent.uid).await);
    }
    // Said in the very last moment, and still known afterwards.
    agents[3].health = health(false, 5);
    let last_words = pb::AgentToServer { health: Some(agents[3].health.clone()), ..agents[3].bare() };
    agents[3].send(&process, last_words).await;
    let mut newcomer = Agent::new(100);
    newcomer.connect(&process).await;
    process.stop().await;

    tokio::time::sleep(Duration::from_secs(7)).await;
    let process = Process::start(Arc::new(store), &clock).await;
    assert_eq!(process.manager.stats().by_liveness[&Liveness::Disconnected], 21);
    for agent in agents.iter_mut().chain([&mut newcomer]) {
        let answer = agent.heartbeat(&process).await;
        assert_eq!(agent.asked, 0, "{} was asked", agent.uid);
        assert_eq!(answer.remote_config, None, "it runs what it should");
    }
    process.settle().await;
    assert_eq!(process.manager.stats().by_liveness[&Liveness::Connected], 21);
    assert_eq!(process.manager.stats().by_drift[&Drift::InSync], 20);
    for (agent, before) in agents.iter().zip(&before) {
        let after = process.detail(&agent.uid).await;
        assert_eq!(after.summary.id, before.summary.id);
        assert_eq!((&after.desired, &after.desired_history), (&before.desired, &before.desired_history));
        assert_eq!(after.description, before.description);
        assert_eq!(after.effective_config, before.effective_config);
        assert_eq!(after.health_report.as_ref().map(|h| h.healthy), Some(agent.health.healthy));
        assert_eq!(after.last_known_good, before.last_known_good);
        assert_eq!(after.sticky.connects, before.sticky.connects + 1, "counters go on");
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_every_agent_is_asked_at_most_once_and_nothing_stays_lost() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agents = fleet(&process, 10).await;
    // Past a checkpoint, then more said than any checkpoint knows, some of it not even written.
    tokio::time::sleep(Duration::from_secs(61)).await;
    for agent in &mut agents[..5] {
        agent.health = health(false, 7);
        let report = pb::AgentToServer { health: Some(agent.health.clone()), ..agent.bare() };
        agent.send(&process, report).await;
    }
    process.crash().await;

    let process = Process::start(Arc::new(store), &clock).await;
    for _ in 0..5 {
        for agent in &mut agents {
            agent.heartbeat(&process).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    for (n, agent) in agents.iter().enumerate() {
        assert_eq!(
            agent.asked,
            usize::from(n < 5),
            "agent {n}: only those that said something since are asked"
        );
        let detail = process.detail(&agent.uid).await;
        assert_eq!(detail.health_report, Some(agent.health.clone()), "agent {n}");
        assert_eq!(detail.summary.drift, Drift::InSync);
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_position_was_never_stored_is_asked() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    process.crash().await;
    let process = Process::start(Arc::new(store), &clock).await;
    agent.heartbeat(&process).await;
    agent.heartbeat(&process).await;
    assert_eq!(agent.asked, 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_missed_the_assignment_gets_it_after_the_restart() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let version = process.publish("edge", "a: 1").await;
    let id = process.id(&agent.uid);
    process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    process.crash().await;
    let process = Process::start(Arc::new(store), &clock).await;
    let offer = agent.heartbeat(&process).await.remote_config;
    assert_eq!(offer.unwrap().config, Some(files(&[("collector.yaml", "a: 1")])));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_order_is_audited_and_reaches_only_agents_that_accept_it() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut willing = Agent::new(1);
    willing.capabilities.insert(AgentCapabilities::ACCEPTS_RESTART_COMMAND);
    let mut unwilling = Agent::new(2);
    for agent in [&mut willing, &mut unwilling] {
        agent.connect(&process).await;
    }
    process.settle().await;
    let (id, other) = (process.id(&willing.uid), process.id(&unwilling.uid));
    assert_eq!(process.manager.restart_agent(&operator(), &id).await, Ok(Dispatch::NextPoll));
    let refused = process.manager.restart_agent(&operator(), &other).await;
    assert_eq!(refused, Err(AgentCommandError::NotAccepted(other)));
    assert!(willing.heartbeat(&process).await.command.is_some());
    assert!(unwilling.heartbeat(&process).await.command.is_none());
    let entries = process.audit("agent.restart").await;
    assert_eq!(entries.iter().map(|e| e.entity.clone()).collect::<Vec<_>>(), [format!("agent:{id}")]);

    willing.goodbye(&process).await;
    process.settle().await;
    let gone = process.manager.restart_agent(&operator(), &id).await;
    assert_eq!(gone, Err(AgentCommandError::NotConnected(id)));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_is_counted_once_across_a_restart_of_the_server() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    agent.health.start_time_unix_nano += 5;
    agent.connect(&process).await;
    process.stop().await;
    let process = Process::start(Arc::new(store), &clock).await;
    agent.connect(&process).await;
    process.settle().await;
    assert_eq!(process.detail(&agent.uid).await.sticky.start_time_changes, 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_report_equal_to_what_is_stored_is_no_change_after_a_restart() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let before = process.detail(&agent.uid).await;
    process.stop().await;
    let process = Process::start(Arc::new(store), &clock).await;
    agent.health.status_time_unix_nano += 1_000;
    agent.description.identifying_attributes.reverse();
    agent.connect(&process).await;
    process.settle().await;
    let after = process.detail(&agent.uid).await;
    assert_eq!(after.health_report, before.health_report, "a ticking time is not material");
    assert_eq!(after.description, before.description, "nor is the order of attributes");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn counters_go_on_when_the_server_forgot_an_agent_that_was_long_gone() {
    let (store, clock) = (MemoryStore::new(), clock());
    let settings = ServerSettings { forget_after: Duration::from_secs(600), ..ServerSettings::default() };
    let everyone = Arc::new(InsecureAcceptEveryone);
    let process =
        Process::start_full(Arc::new(store), &clock, everyone, settings, ManagerSettings::default()).await;
    let mut agent = Agent::new(1);
    for absence in 1..4 {
        agent.connect(&process).await;
        process.settle().await;
        let sticky = process.detail(&agent.uid).await.sticky;
        assert_eq!((sticky.connects, sticky.disconnects), (absence, absence - 1));
        agent.goodbye(&process).await;
        tokio::time::sleep(Duration::from_secs(700)).await;
        assert!(process.server.agent(&agent.uid).is_none(), "the server forgot it");
    }
    assert_eq!(process.detail(&agent.uid).await.sticky.disconnects, 3);
    process.stop().await;
}
