use std::time::Duration;

use opamp_fleet::manager::{AgentError, AssignError, NotReady, StoreFailure};
use opamp_fleet::{Drift, Health, Liveness};
use opamp_proto::pb;
use opamp_proto::pb::RemoteConfigStatuses::Applied;
use opamp_store::*;

use super::flaky::*;
use super::support::*;

#[tokio::test(start_paused = true)]
async fn agents_stay_connected_while_the_store_is_down_and_nothing_of_it_is_lost() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agents: Vec<Agent> = (0..10).map(Agent::new).collect();
    for agent in &mut agents {
        agent.connect(&process).await;
    }
    process.settle().await;
    let version = process.publish("edge", "a: 1").await;
    let id = process.id(&agents[0].uid);
    process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    assert_eq!(process.manager.ready().await, Ok(()));

    store.set(DOWN);
    // What was committed before is still offered, and what agents say is still seen.
    let offer = agents[0].heartbeat(&process).await.remote_config.expect("offered");
    agents[0].report(&process, &offer, Applied, "").await;
    for round in 0..20 {
        for agent in &mut agents[1..6] {
            agent.health = health(round % 2 == 0, round);
            let report = pb::AgentToServer { health: Some(agent.health.clone()), ..agent.bare() };
            agent.send(&process, report).await;
        }
        agents[9].heartbeat(&process).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    agents[7].goodbye(&process).await;
    let mut newcomer = Agent::new(50);
    newcomer.connect(&process).await;
    process.settle().await;
    let stats = process.manager.stats();
    assert_eq!(stats.registered, 11, "an agent that comes now is in the inventory");
    assert_eq!(stats.by_health[&Health::Unhealthy], 5);
    assert_eq!(stats.by_liveness[&Liveness::Disconnected], 1);
    let waiting = stats.records_waiting + stats.changes_waiting;
    assert!((7..=11).contains(&waiting), "{waiting} changes wait: at most one for each agent");
    assert!(
        matches!(process.manager.ready().await, Err(NotReady::Store(reason)) if reason.contains("unplugged"))
    );

    store.set(WORKS);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(process.manager.ready().await, Ok(()));
    let stats = process.manager.stats();
    assert_eq!((stats.records_waiting, stats.changes_waiting), (0, 0));
    assert_eq!(stats.by_drift[&Drift::InSync], 1);
    for agent in &agents {
        let stored = store.agent(&process.id(&agent.uid)).await.unwrap().unwrap();
        let healthy = stored.parts.health.as_ref();
        let healthy = healthy.map(|bytes| opamp_proto::material::health_summary(bytes).healthy);
        assert_eq!(healthy, Some(agent.health.healthy));
    }
    let gone = process.detail(&agents[7].uid).await.connection.unwrap();
    assert!(gone.graceful);
    assert!(store.agent(&process.id(&newcomer.uid)).await.unwrap().is_some());
    assert_eq!(process.audit("agent.first_seen").await.len(), 11);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_change_something_are_refused_while_the_store_is_down() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let (manager, actor, id) = (&process.manager, operator(), process.id(&agent.uid));
    let version = process.publish("edge", "a: 1").await;
    store.set(DOWN);

    let assigned = manager.assign(&actor, &id, "edge", version, None).await;
    assert!(matches!(assigned, Err(AssignError::Store(StoreFailure::Unavailable(_)))), "{assigned:?}");
    let labelled = manager.set_labels(&actor, &id, [("a".to_owned(), "b".to_owned())].into()).await;
    assert!(matches!(labelled, Err(AgentError::Store(StoreFailure::Unavailable(_)))), "{labelled:?}");
    let deleted = manager.delete_agent(&actor, &id).await;
    assert!(matches!(deleted, Err(AgentError::Store(StoreFailure::Unavailable(_)))), "{deleted:?}");
    assert!(matches!(manager.agent(&id).await, Err(StoreFailure::Unavailable(_))));
    assert!(manager.create_config(&actor, "new", files(&[("", "x")]), "").await.is_err());
    assert!(manager.flush().await.is_ok(), "nothing waits");
    assert_eq!(manager.agents(&process.everyone()).items.len(), 1, "the inventory is in memory");
    assert_eq!(agent.heartbeat(&process).await.remote_config, None, "what is not committed is not offered");

    assert!(manager.ready().await.is_err());

    store.set(WORKS);
    assert_eq!(manager.ready().await, Ok(()), "it need not be tried to be believed");
    assert!(manager.assign(&actor, &id, "edge", version, None).await.is_ok());
    assert!(agent.heartbeat(&process).await.remote_config.is_some());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_is_repeated_and_counts_once() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let version = process.publish("edge", "a: 1").await;
    let id = process.id(&agent.uid);
    store.set(FORGETS);
    let assigned = process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    assert_eq!((assigned.replayed, assigned.desired.unwrap().generation), (false, 1));
    assert_eq!(process.audit("agent.assign").await.len(), 1);
    assert!(agent.heartbeat(&process).await.remote_config.is_some());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_completed_even_if_its_caller_stops_waiting() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let version = process.publish("edge", "a: 1").await;
    let id = process.id(&agent.uid);
    // The first try takes a pause, in which the caller leaves.
    store.set(FORGETS);
    let actor = operator();
    let impatient = process.manager.assign(&actor, &id, "edge", version, None);
    assert!(tokio::time::timeout(Duration::from_millis(10), impatient).await.is_err());
    process.settle().await;
    assert!(agent.heartbeat(&process).await.remote_config.is_some(), "what was committed is offered");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_position_is_not_stored_before_what_was_said_up_to_it() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    store.set(UNREADABLE);
    agent.health = health(false, 9);
    let report = pb::AgentToServer { health: Some(agent.health.clone()), ..agent.bare() };
    agent.send(&process, report).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(process.manager.stats().changes_waiting, 1);
    let ready = process.manager.ready().await;
    assert!(matches!(ready, Err(NotReady::Store(_))), "the probe is well, what waits is not: {ready:?}");
    process.crash().await;
    store.set(WORKS);
    let process = Process::start(store, &clock).await;
    agent.heartbeat(&process).await;
    process.settle().await;
    assert_eq!(agent.asked, 1, "what it said was lost, so it is asked");
    assert_eq!(process.detail(&agent.uid).await.health_report, Some(agent.health.clone()));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_another_process_changed_is_not_overwritten_by_a_call() {
    let (store, clock) = (Flaky::new(), clock());
    let process = Process::start(store.clone(), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let version = process.publish("edge", "a: 1").await;
    let id = process.id(&agent.uid);
    agent.health = health(false, 2);
    agent.connect(&process).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(process.manager.stats().records_waiting, 1, "a change waits that knows the record as it was");
    let mut batch = WriteBatch::new();
    batch.put_agent(store.agent(&id).await.unwrap().unwrap());
    store.commit(batch, None).await.unwrap();
    let assigned = process.manager.assign(&operator(), &id, "edge", version, None).await;
    assert_eq!(assigned, Err(AssignError::Conflict(id)));
    process.stop().await;
}
