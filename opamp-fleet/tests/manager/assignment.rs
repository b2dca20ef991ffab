use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::manager::AssignError;
use opamp_fleet::{AGENT_TYPE_UNKNOWN, Drift, Liveness, VersionState};
use opamp_proto::hash::config_hash;
use opamp_proto::pb::RemoteConfigStatuses::{Applied, Applying, Failed};
use opamp_proto::{AgentCapabilities, AgentId, pb};
use opamp_server::Dispatch;
use opamp_store::{AgentStore as _, MemoryStore};

use super::support::*;

async fn connected(process: &Process, n: u16) -> (Agent, AgentId) {
    let mut agent = Agent::new(n);
    agent.connect(process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    (agent, id)
}

async fn drift(process: &Process, agent: &Agent) -> Drift {
    process.settle().await;
    process.detail(&agent.uid).await.summary.drift
}

#[tokio::test(start_paused = true)]
async fn an_assigned_config_is_offered_applied_and_in_sync() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut agent, id) = connected(&process, 1).await;
    let version = process.publish("edge", "receivers: { otlp: {} }").await;
    let assigned = process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    assert_eq!((assigned.dispatch, assigned.replayed), (Dispatch::NextPoll, false));
    let desired = assigned.desired.unwrap();
    assert_eq!((desired.config.as_str(), desired.version, desired.generation), ("edge", 1, 1));
    assert_eq!(desired.assigned_by, "olivia");
    assert_eq!(drift(&process, &agent).await, Drift::Pending);

    let offer = agent.heartbeat(&process).await.remote_config.expect("it is offered");
    assert_eq!(offer.config_hash, desired.hash.to_bytes());
    agent.report(&process, &offer, Applying, "").await;
    assert_eq!(drift(&process, &agent).await, Drift::Applying);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let answer = agent.report(&process, &offer, Applied, "").await;
    assert_eq!(answer.remote_config, None, "an agent that reports the hash is not offered it again");
    assert_eq!(drift(&process, &agent).await, Drift::InSync);

    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.last_known_good, Some(desired.hash.clone()));
    assert_eq!(detail.effective_config_hash, Some(desired.hash.clone()));
    assert_eq!(detail.sticky.last_applied.as_ref().map(|(hash, _)| hash), Some(&desired.hash));
    let stats = process.manager.stats();
    assert_eq!(stats.by_drift[&Drift::InSync], 1);
    let durations = &stats.apply_durations["io.example.collector"];
    assert_eq!(durations.counts.iter().sum::<u64>(), 1);
    assert!((6.0..7.0).contains(&durations.sum_s), "offer to APPLIED took {} s", durations.sum_s);
    assert!(!stats.apply_durations.contains_key(AGENT_TYPE_UNKNOWN));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_agent_is_offered_its_own_files_as_they_were_made_under_a_hash_that_lasts() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let raw = |body: &'static [u8], content_type: &str| pb::AgentConfigObject {
        body: body.into(),
        content_type: content_type.to_owned(),
        role: "main".to_owned(),
    };
    let made = |body: &'static [u8]| pb::AgentConfigMap {
        config_map: BTreeMap::from([
            (String::new(), raw(body, "")),
            ("raw".to_owned(), raw(b"\x00\r\n\xff\xfe", "application/octet-stream")),
            ("c.yaml".to_owned(), raw(b"c: 1", "text/yaml; charset=utf-8")),
        ]),
    };
    let mut agents = Vec::new();
    for (n, body) in [b"first".as_slice(), b"second"].into_iter().enumerate() {
        let (agent, id) = connected(&process, n as u16).await;
        let name = format!("config-{n}");
        process.manager.create_config(&operator(), &name, made(body), "").await.unwrap();
        process.manager.publish(&operator(), &name, 1, None).await.unwrap();
        process.manager.assign(&operator(), &id, &name, 1, None).await.unwrap();
        agents.push((agent, made(body)));
    }
    let mut hashes = Vec::new();
    for (agent, files) in &mut agents {
        let offer = agent.heartbeat(&process).await.remote_config.expect("offered");
        assert_eq!(offer.config.as_ref(), Some(&*files));
        assert_eq!(offer.config_hash, config_hash(files).to_bytes());
        hashes.push(offer.config_hash);
    }
    assert_ne!(hashes[0], hashes[1]);
    process.stop().await;
    let process = Process::start(Arc::new(store), &clock).await;
    for ((agent, files), hash) in agents.iter_mut().zip(hashes) {
        let offer = agent.heartbeat(&process).await.remote_config.expect("it did not report the hash yet");
        assert_eq!((offer.config.as_ref(), offer.config_hash), (Some(&*files), hash));
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_in_the_store_with_its_audit_entry_when_it_is_acknowledged() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let (_, id) = connected(&process, 1).await;
    let version = process.publish("edge", "a: 1").await;
    let desired = process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap().desired;
    process.crash().await;
    assert_eq!(store.agent(&id).await.unwrap().unwrap().desired.as_deref(), desired.as_ref());
    let process = Process::start(Arc::new(store), &clock()).await;
    let entries = process.audit("agent.assign").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].entity, format!("agent:{id}"));
    assert_eq!(entries[0].before, None);
    assert_eq!(entries[0].after.as_ref().unwrap()["config"], "edge");
    assert_eq!((entries[0].role.as_str(), entries[0].trace_id.as_deref()), ("operator", Some("trace-1")));
}

#[tokio::test(start_paused = true)]
async fn a_failed_config_is_remembered_and_tried_again_only_when_assigned_again() {
    let (store, clock) = (Arc::new(MemoryStore::new()), clock());
    let process = Process::start(store.clone(), &clock).await;
    let (mut agent, id) = connected(&process, 1).await;
    let good = process.publish("edge", "good").await;
    process.manager.assign(&operator(), &id, "edge", good, None).await.unwrap();
    let first = agent.heartbeat(&process).await.remote_config.unwrap();
    agent.report(&process, &first, Applied, "").await;
    let bad = process.publish("edge", "bad").await;
    process.manager.assign(&operator(), &id, "edge", bad, None).await.unwrap();
    let offer = agent.heartbeat(&process).await.remote_config.unwrap();
    let words = format!("no such receiver{}", "ü".repeat(4 << 10));
    agent.report(&process, &offer, Failed, &words).await;
    assert_eq!(drift(&process, &agent).await, Drift::Failed);
    // The agent went back by itself; the failure stays visible.
    agent.report(&process, &first, Applied, "").await;
    assert_eq!(drift(&process, &agent).await, Drift::Failed);
    let detail = process.detail(&agent.uid).await;
    let kept = detail.sticky.last_failure.unwrap().error;
    assert!(words.starts_with(&kept) && kept.len() == 4 << 10, "a bounded part of its words is kept");
    assert_ne!(
        detail.last_known_good,
        detail.desired.clone().map(|desired| desired.hash),
        "it still knows the good one"
    );
    assert_eq!(detail.desired_history.len(), 1);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(agent.heartbeat(&process).await.remote_config, None, "a failed hash is not offered again");
    }
    process.stop().await;

    let process = Process::start(store, &clock).await;
    for _ in 0..20 {
        assert_eq!(agent.heartbeat(&process).await.remote_config, None, "nor by the next process");
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(drift(&process, &agent).await, Drift::Failed);
    process.manager.assign(&operator(), &id, "edge", bad, None).await.unwrap();
    assert_eq!(drift(&process, &agent).await, Drift::Pending);
    let again = agent.heartbeat(&process).await.remote_config.expect("a new generation is a new try");
    agent.report(&process, &again, Applied, "").await;
    assert_eq!(drift(&process, &agent).await, Drift::InSync);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_unhealthy_agent_applied_is_not_its_last_known_good() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut agent, id) = connected(&process, 1).await;
    let version = process.publish("edge", "a: 1").await;
    process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    let offer = agent.heartbeat(&process).await.remote_config.unwrap();
    agent.health = health(false, 2);
    agent.connect(&process).await;
    agent.report(&process, &offer, Applied, "").await;
    process.settle().await;
    assert_eq!(process.detail(&agent.uid).await.last_known_good, None);
    agent.health = health(true, 3);
    agent.connect(&process).await;
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.last_known_good, detail.desired.map(|desired| desired.hash), "once it is well it is");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_offer_goes_to_an_agent_that_does_not_accept_remote_configuration() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let version = process.publish("edge", "a: 1").await;
    let mut agent = Agent::new(1);
    agent.capabilities = AgentCapabilities::REPORTS_STATUS;
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    let refused = process.manager.assign(&operator(), &id, "edge", version, None).await;
    assert_eq!(refused, Err(AssignError::NotAccepted(id)));
    assert_eq!(agent.heartbeat(&process).await.remote_config, None);
    assert_eq!(process.detail(&agent.uid).await.desired, None);
    assert!(process.audit("agent.assign").await.is_empty());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_published_versions_of_known_configs_go_to_known_agents() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (_, id) = connected(&process, 1).await;
    let draft = process.manager.create_config(&operator(), "edge", files(&[("", "x")]), "").await.unwrap();
    let assign = async |id: &AgentId, config: &str, version| {
        process.manager.assign(&operator(), id, config, version, None).await.map(drop)
    };
    let not_published =
        |state| Err(AssignError::NotPublished { config: "edge".to_owned(), version: 1, state });
    assert_eq!(assign(&id, "edge", draft.version).await, not_published(VersionState::Draft));
    process.manager.publish(&operator(), "edge", 1, None).await.unwrap();
    assert_eq!(assign(&id, "edge", 1).await, Ok(()));
    process.manager.archive(&operator(), "edge", 1, None).await.unwrap();
    assert_eq!(assign(&id, "edge", 1).await, not_published(VersionState::Archived));
    for (config, version) in [("edge", 2), ("other", 1)] {
        let missing = AssignError::VersionNotFound { config: config.to_owned(), version };
        assert_eq!(assign(&id, config, version).await, Err(missing));
    }
    let nobody = AgentId::from_bytes([9; 16]);
    assert_eq!(assign(&nobody, "edge", 1).await, Err(AssignError::NotFound(nobody)));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_under_one_idempotency_key_assigns_once() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut agent, id) = connected(&process, 1).await;
    let first = process.publish("edge", "a: 1").await;
    let second = process.publish("edge", "a: 2").await;
    let assign = async |version, key: &str| {
        process.manager.assign(&operator(), &id, "edge", version, Some(key.to_owned())).await
    };
    let done = assign(first, "k1").await.unwrap();
    let again = assign(first, "k1").await.unwrap();
    assert_eq!((done.replayed, again.replayed), (false, true));
    assert_eq!(done.desired, again.desired);
    assert!(!assign(second, "k1").await.unwrap().replayed, "the key was for another version");
    let late = assign(first, "k1").await.unwrap();
    assert!(late.replayed);
    assert_eq!(late.desired.unwrap().version, second, "a late repetition does not bring the first one back");
    let offer = agent.heartbeat(&process).await.remote_config.unwrap();
    assert_eq!(offer.config, Some(files(&[("collector.yaml", "a: 2")])));
    assert_eq!(process.audit("agent.assign").await.len(), 2);
    assert_eq!(assign(first, "").await, Err(AssignError::IdempotencyKey));
    assert_eq!(assign(first, &"k".repeat(65)).await, Err(AssignError::IdempotencyKey));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_expected_agent_can_be_labelled_and_assigned_to_before_it_comes() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let version = process.publish("edge", "a: 1").await;
    let labels = BTreeMap::from([("ring".to_owned(), "0".to_owned())]);
    let id = process.manager.expect_agent(&operator(), uid(1), labels.clone()).await.unwrap();
    assert!(
        process.manager.expect_agent(&operator(), uid(1), labels.clone()).await.is_err(),
        "there is one already"
    );
    let assigned = process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    assert_eq!(assigned.dispatch, Dispatch::NoSession);
    let detail = process.detail(&uid(1)).await;
    assert_eq!((detail.summary.liveness, detail.summary.last_seen), (Liveness::NeverSeen, None));

    let mut agent = Agent::new(1);
    assert!(
        agent.connect(&process).await.remote_config.is_some(),
        "it gets its config with the first answer"
    );
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!((detail.summary.id, detail.summary.liveness), (id, Liveness::Connected));
    assert_eq!(detail.summary.labels, labels);
    assert_eq!(process.audit("agent.first_seen").await.len(), 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_its_assignment_an_agent_is_left_alone() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut agent, id) = connected(&process, 1).await;
    let version = process.publish("edge", "a: 1").await;
    process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    let removed = process.manager.unassign(&operator(), &id, None).await.unwrap();
    assert_eq!(removed.desired, None);
    assert_eq!(agent.heartbeat(&process).await.remote_config, None);
    assert_eq!(drift(&process, &agent).await, Drift::Unmanaged);
    assert_eq!(process.detail(&agent.uid).await.desired_history.len(), 1);
    assert_eq!(process.audit("agent.unassign").await.len(), 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_history_of_assignments_is_bounded() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (agent, id) = connected(&process, 1).await;
    let version = process.publish("edge", "a: 1").await;
    for _ in 0..30 {
        process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    }
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.desired_history.len(), 20);
    assert_eq!(detail.desired_history.last().unwrap().generation, 29);
    assert_eq!(detail.desired.unwrap().generation, 30);
    process.stop().await;
}
