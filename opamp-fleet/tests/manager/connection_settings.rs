use std::sync::Arc;

use opamp_fleet::Drift;
use opamp_fleet::manager::{ConnectionSettingsError, ManagerSettings, StoreFailure};
use opamp_proto::pb::ConnectionSettingsStatuses::{Applied, Applying, Failed};
use opamp_proto::{AgentCapabilities, AgentId, AgentToServerFlags, InstanceUid, pb};
use opamp_server::{ConnectionSettingsOffer, Dispatch, InsecureAcceptEveryone};
use opamp_store::{AgentStore as _, AuditQuery, BlobStore as _, MemoryStore};

use super::flaky::*;
use super::support::*;

/// Takes all connection settings, and tells what becomes of them.
fn willing(n: u16) -> Agent {
    let mut agent = Agent::new(n);
    agent.capabilities.insert(AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS);
    agent.capabilities.insert(AgentCapabilities::REPORTS_HEARTBEAT);
    agent.capabilities.insert(AgentCapabilities::REPORTS_OWN_METRICS);
    agent.capabilities.insert(AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS);
    agent
}

/// The same that says nothing about them.
fn silent(n: u16) -> Agent {
    let mut agent = willing(n);
    let spoken = AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS.bits();
    agent.capabilities = AgentCapabilities::from_bits(agent.capabilities.bits() & !spoken);
    agent
}

const SECRET: &str = "hunter2-of-the-agent";

fn offer(host: &str) -> ConnectionSettingsOffer {
    let header = pb::Header { key: "Authorization".to_owned(), value: format!("Bearer {SECRET}") };
    let headers = Some(pb::Headers { headers: vec![header] });
    let settings = pb::ConnectionSettingsOffers {
        opamp: Some(pb::OpAmpConnectionSettings {
            destination_endpoint: format!("wss://{host}:4320/v1/opamp"),
            headers: headers.clone(),
            ..pb::OpAmpConnectionSettings::default()
        }),
        own_metrics: Some(pb::TelemetryConnectionSettings {
            destination_endpoint: format!("https://user:{SECRET}@{host}/v1/metrics?key={SECRET}"),
            headers,
            ..pb::TelemetryConnectionSettings::default()
        }),
        ..pb::ConnectionSettingsOffers::default()
    };
    ConnectionSettingsOffer::new(settings).expect("valid settings")
}

async fn connected(process: &Process, mut agent: Agent) -> (Agent, AgentId) {
    agent.connect(process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    (agent, id)
}

/// Reports what became of settings.
async fn report(
    process: &Process,
    agent: &mut Agent,
    hash: &[u8],
    status: pb::ConnectionSettingsStatuses,
    error: &str,
) -> pb::ServerToAgent {
    agent.settings = Some(pb::ConnectionSettingsStatus {
        last_connection_settings_hash: hash.to_vec().into(),
        status: status.into(),
        error_message: error.to_owned(),
    });
    let message = pb::AgentToServer { connection_settings_status: agent.settings.clone(), ..agent.bare() };
    agent.send(process, message).await
}

async fn drift(process: &Process, agent: &Agent) -> Drift {
    process.settle().await;
    process.detail(&agent.uid).await.connection_settings.drift
}

#[tokio::test(start_paused = true)]
async fn settings_are_offered_in_full_and_what_the_agent_says_of_them_is_shown() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut agent, id) = connected(&process, willing(1)).await;
    let offer = offer("a.example");
    let assigned =
        process.manager.set_connection_settings(&operator(), &id, offer.clone(), None).await.unwrap();
    assert_eq!((assigned.dispatch, assigned.replayed), (Dispatch::NextPoll, false));
    let desired = assigned.desired.unwrap();
    assert_eq!((&desired.hash, desired.generation), (offer.hash(), 1));
    assert_eq!(drift(&process, &agent).await, Drift::Pending);

    let received = agent.heartbeat(&process).await.connection_settings.expect("it is offered");
    assert_eq!(&received, offer.settings());
    report(&process, &mut agent, &received.hash, Applying, "").await;
    assert_eq!(drift(&process, &agent).await, Drift::Applying);
    let answer = report(&process, &mut agent, &received.hash, Applied, "").await;
    assert_eq!(answer.connection_settings, None);
    assert_eq!(drift(&process, &agent).await, Drift::InSync);
    let detail = process.detail(&agent.uid).await.connection_settings;
    assert_eq!(detail.desired, Some(desired.clone()));
    let offered = detail.offered.expect("it was offered");
    assert_eq!((&offered.hash, offered.generation), (offer.hash(), 1));
    assert_eq!(detail.report.map(|report| report.hash), Some(desired.hash.clone()));
    assert_eq!(detail.last_applied.map(|(hash, _)| hash), Some(desired.hash));
    assert!(!detail.failed && !detail.too_large);
    let known = process.manager.connection_settings(&id).await.unwrap().unwrap();
    assert_eq!((known.generation, known.offer.unwrap().settings()), (1, offer.settings()));
    process.stop().await;
}

/// R-CONN-04: settings are stored under the agent's identity before they are sent, so a crash loses none of them.
#[tokio::test(start_paused = true)]
async fn settings_that_were_decided_are_offered_after_a_crash_and_those_applied_are_not() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let (mut done, done_id) = connected(&process, willing(1)).await;
    let (mut missed, missed_id) = connected(&process, willing(2)).await;
    let (mut trying, trying_id) = connected(&process, willing(3)).await;
    let settings = offer("a.example");
    for id in [&done_id, &missed_id, &trying_id] {
        process.manager.set_connection_settings(&operator(), id, settings.clone(), None).await.unwrap();
    }
    let received = done.heartbeat(&process).await.connection_settings.unwrap();
    report(&process, &mut done, &received.hash, Applied, "").await;
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    let sent = trying.heartbeat(&process).await.connection_settings;
    process.crash().await;

    let process = Process::start(Arc::new(store), &clock).await;
    assert_eq!(done.heartbeat(&process).await.connection_settings, None, "it has them");
    let offered = missed.heartbeat(&process).await.connection_settings;
    assert_eq!(offered.as_ref(), Some(settings.settings()), "hash and secrets as they were decided");
    assert_eq!((done.asked, missed.asked), (0, 0));
    // It was killed right after the offer. Nobody heard what became of it, so it goes out again, and is the same.
    let again = trying.heartbeat(&process).await.connection_settings;
    assert_eq!((&sent, again), (&Some(settings.settings().clone()), sent.clone()));
    let answer = report(&process, &mut trying, &sent.unwrap().hash, Applied, "").await;
    assert_eq!(answer.connection_settings, None, "the hash of before is the hash of now");
    assert_eq!(drift(&process, &done).await, Drift::InSync);
    process.stop().await;
}

/// R-CONN-06 from the server's side: who reconnects to apply settings and says nothing of them is not sent away again.
#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_is_offered_settings_once_in_a_generation_even_across_restarts() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let (mut agent, id) = connected(&process, silent(1)).await;
    process.manager.set_connection_settings(&operator(), &id, offer("a.example"), None).await.unwrap();
    assert!(agent.heartbeat(&process).await.connection_settings.is_some());
    agent.connect(&process).await;
    process.stop().await;

    let process = Process::start(Arc::new(store), &clock).await;
    for _ in 0..5 {
        assert_eq!(agent.connect(&process).await.connection_settings, None, "it was offered them before");
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    }
    let offered = process.detail(&agent.uid).await.connection_settings.offered;
    assert_eq!(
        offered.map(|offered| offered.generation),
        Some(1),
        "what an earlier process offered is shown"
    );
    process.manager.set_connection_settings(&operator(), &id, offer("a.example"), None).await.unwrap();
    assert!(agent.heartbeat(&process).await.connection_settings.is_some(), "a new generation is a new offer");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn settings_that_failed_are_offered_again_only_when_they_are_decided_again_even_after_a_restart() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let (mut agent, id) = connected(&process, willing(1)).await;
    process.manager.set_connection_settings(&operator(), &id, offer("a.example"), None).await.unwrap();
    let received = agent.heartbeat(&process).await.connection_settings.unwrap();
    report(&process, &mut agent, &received.hash, Failed, "connection refused").await;
    assert_eq!(drift(&process, &agent).await, Drift::Failed);
    process.stop().await;

    let process = Process::start(Arc::new(store), &clock).await;
    // It went back and says so: a newest-wins view would have forgotten the failure.
    let back = report(&process, &mut agent, b"older", Applied, "").await;
    assert_eq!(back.connection_settings, None);
    assert_eq!(drift(&process, &agent).await, Drift::Failed);
    let detail = process.detail(&agent.uid).await.connection_settings;
    let failure = detail.last_failure.expect("it is remembered");
    assert_eq!((failure.hash.as_bytes(), failure.error.as_str()), (&received.hash[..], "connection refused"));
    assert!(detail.failed);
    let again =
        process.manager.set_connection_settings(&operator(), &id, offer("a.example"), None).await.unwrap();
    assert_eq!(again.desired.unwrap().generation, 2);
    assert!(agent.heartbeat(&process).await.connection_settings.is_some());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn settings_follow_an_agent_to_its_new_identity() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut agent, id) = connected(&process, willing(1)).await;
    let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
    let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
    agent.uid = InstanceUid::try_from(&answer.agent_identification.unwrap().new_instance_uid[..]).unwrap();
    agent.heartbeat(&process).await;
    process.settle().await;
    assert_eq!(process.id(&agent.uid), id);
    process.manager.set_connection_settings(&operator(), &id, offer("a.example"), None).await.unwrap();
    let received = agent.heartbeat(&process).await.connection_settings.expect("under the new identity");
    report(&process, &mut agent, &received.hash, Applied, "").await;
    process.stop().await;
}

/// The decision is committed while the agent changes its identity: it went to a session nobody comes for.
#[tokio::test(start_paused = true)]
async fn settings_that_met_a_change_of_identity_follow_the_agent() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let (mut agent, id) = connected(&process, willing(1)).await;
    store.set(SLOW);
    let (manager, actor) = (process.manager.clone(), operator());
    let setting =
        async { manager.set_connection_settings(&actor, &id, offer("a.example"), None).await.unwrap() };
    let moving = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
        let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
        agent.uid =
            InstanceUid::try_from(&answer.agent_identification.unwrap().new_instance_uid[..]).unwrap();
        assert_eq!(agent.heartbeat(&process).await.connection_settings, None);
    };
    tokio::join!(setting, moving);
    store.set(WORKS);
    process.settle().await;
    process.settle().await;
    assert!(agent.heartbeat(&process).await.connection_settings.is_some(), "offered under the new identity");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_secret_of_settings_is_in_the_audit_log_or_in_any_debug_output() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (agent, id) = connected(&process, willing(1)).await;
    let set = async |host: &str| {
        process.manager.set_connection_settings(&operator(), &id, offer(host), None).await.unwrap()
    };
    let first = set("a.example").await;
    let second = set("b.example").await;
    let cleared = process.manager.clear_connection_settings(&operator(), &id, None).await.unwrap();
    assert_eq!(cleared.desired, None);
    set("c.example").await;
    process.manager.delete_agent(&operator(), &id).await.unwrap();

    let entries = process.audit("agent.set_connection_settings").await;
    assert_eq!(entries.len(), 3);
    let parts = &entries[1].after.as_ref().unwrap()["parts"];
    assert_eq!(parts["opamp"]["endpoint"], "wss://b.example:4320/v1/opamp");
    assert_eq!(parts["own_metrics"]["endpoint"], "https://b.example/v1/metrics");
    assert_eq!(entries[1].before.as_ref().unwrap()["generation"], 1);
    assert_eq!(process.audit("agent.clear_connection_settings").await.len(), 1);
    let everything =
        process.manager.audit(AuditQuery { limit: 1_000, ..AuditQuery::default() }).await.unwrap();
    let shown = format!("{everything:?} {first:?} {second:?} {:?}", process.manager);
    assert!(!shown.contains(SECRET) && !shown.contains("hunter2"), "{shown}");
    assert!(process.manager.agent_id(&agent.uid).is_none());
    process.stop().await;
}

/// Replaced, withdrawn and deleted settings do not wait for a sweep: they hold secrets.
#[tokio::test(start_paused = true)]
async fn settings_that_are_not_meant_any_more_are_gone_from_the_store_at_once() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let (_, id) = connected(&process, willing(1)).await;
    let (_, other) = connected(&process, willing(2)).await;
    let set = async |agent: &AgentId, host: &str| {
        let set = process.manager.set_connection_settings(&operator(), agent, offer(host), None).await;
        set.unwrap().desired.unwrap().blob
    };
    let is_there = async |blob| store.blob(&blob).await.unwrap().is_some();
    let first = set(&id, "a.example").await;
    assert!(is_there(first).await);
    let second = set(&id, "b.example").await;
    assert!(!is_there(first).await && is_there(second).await);
    assert_eq!(set(&other, "b.example").await, second, "equal settings share a blob");
    assert_eq!(set(&id, "b.example").await, second, "and may be decided again");
    process.manager.clear_connection_settings(&operator(), &id, None).await.unwrap();
    assert!(is_there(second).await, "the other agent still has them");
    process.manager.delete_agent(&operator(), &other).await.unwrap();
    assert!(!is_there(second).await);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_under_one_idempotency_key_sets_once() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (mut agent, id) = connected(&process, willing(1)).await;
    let set = async |host: &str, key: &str| {
        process.manager.set_connection_settings(&operator(), &id, offer(host), Some(key.to_owned())).await
    };
    let done = set("a.example", "k").await.unwrap();
    let again = set("a.example", "k").await.unwrap();
    assert_eq!((done.replayed, again.replayed, &done.desired), (false, true, &again.desired));
    assert!(!set("b.example", "k").await.unwrap().replayed, "the key was for other settings");
    let late = set("a.example", "k").await.unwrap();
    assert!(late.replayed);
    assert_eq!(late.desired.unwrap().generation, 2, "a late repetition does not bring the first ones back");
    let received = agent.heartbeat(&process).await.connection_settings.unwrap();
    assert_eq!(received.opamp.unwrap().destination_endpoint, "wss://b.example:4320/v1/opamp");
    for key in [String::new(), "k".repeat(65)] {
        assert_eq!(set("a.example", &key).await, Err(ConnectionSettingsError::IdempotencyKey));
    }
    assert_eq!(process.audit("agent.set_connection_settings").await.len(), 2);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn settings_nobody_can_take_or_send_are_refused() {
    let settings = ManagerSettings { connection_settings_bytes_max: 600, ..ManagerSettings::default() };
    let everyone = Arc::new(InsecureAcceptEveryone);
    let process = Process::start_with(Arc::new(MemoryStore::new()), &clock(), everyone, settings).await;
    let (_, unwilling) = connected(&process, Agent::new(1)).await;
    let set = async |id: &AgentId, offer| {
        let set = process.manager.set_connection_settings(&operator(), id, offer, None).await;
        set.map(|assigned| assigned.dispatch)
    };
    let refused = set(&unwilling, offer("a.example")).await;
    assert_eq!(refused, Err(ConnectionSettingsError::NotAccepted(unwilling)));
    // One that takes a part of them is offered that part.
    let mut metrics = Agent::new(2);
    metrics.capabilities.insert(AgentCapabilities::REPORTS_OWN_METRICS);
    let (mut metrics, id) = connected(&process, metrics).await;
    set(&id, offer("a.example")).await.unwrap();
    let received = metrics.heartbeat(&process).await.connection_settings.unwrap();
    assert!(received.opamp.is_none() && received.own_metrics.is_some());
    // Of one that never came nobody knows.
    let expected =
        process.manager.expect_agent(&operator(), uid(3), std::collections::BTreeMap::new()).await.unwrap();
    assert_eq!(set(&expected, offer("a.example")).await, Ok(Dispatch::NoSession));
    let mut agent = willing(3);
    let answer = agent.connect(&process).await;
    assert!(answer.connection_settings.is_some(), "it gets them with the first answer");
    let large = set(&id, offer(&"a".repeat(400))).await;
    assert!(matches!(large, Err(ConnectionSettingsError::TooLarge { bytes_max: 600, .. })), "{large:?}");
    let nobody = AgentId::from_bytes([9; 16]);
    assert_eq!(set(&nobody, offer("a.example")).await, Err(ConnectionSettingsError::NotFound(nobody)));
    assert_eq!(process.manager.connection_settings(&nobody).await.map(|found| found.is_none()), Ok(true));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn settings_of_unknown_outcome_are_what_the_store_has() {
    for (mode, kept) in [(DIES, true), (LOSES, false)] {
        let store = Flaky::new();
        let process = Process::start(store.clone(), &clock()).await;
        let (mut agent, id) = connected(&process, willing(1)).await;
        // A change waits that knows nothing of the decision.
        agent.health = health(false, 2);
        agent.connect(&process).await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        store.set(mode);
        let set = process.manager.set_connection_settings(&operator(), &id, offer("a.example"), None).await;
        let unknown = ConnectionSettingsError::Store(StoreFailure::OutcomeUnknown(String::new()));
        assert_eq!(
            std::mem::discriminant(&set.unwrap_err()),
            std::mem::discriminant(&unknown),
            "mode {mode}"
        );
        assert_eq!(agent.heartbeat(&process).await.connection_settings, None);
        store.set(WORKS);
        process.settle().await;
        let offered = agent.heartbeat(&process).await.connection_settings;
        assert_eq!(offered.is_some(), kept, "mode {mode}");
        process.manager.flush().await.unwrap();
        let stored = store.agent(&id).await.unwrap().unwrap();
        assert_eq!((stored.desired_settings.is_some(), stored.settings_generation), (kept, u64::from(kept)));
        assert!(!opamp_proto::material::health_summary(stored.parts.health.as_ref().unwrap()).healthy);
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_desired_of_one_kind_is_untouched_by_decisions_about_another() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let (mut agent, id) = connected(&process, willing(1)).await;
    let version = process.publish("edge", "a: 1").await;
    process.manager.set_connection_settings(&operator(), &id, offer("a.example"), None).await.unwrap();
    process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    let answer = agent.heartbeat(&process).await;
    let later = agent.heartbeat(&process).await;
    let settings = answer.connection_settings.or(later.connection_settings).expect("both are offered");
    let config = answer.remote_config.or(later.remote_config).expect("both are offered");
    report(&process, &mut agent, &settings.hash, Applied, "").await;
    agent.report(&process, &config, pb::RemoteConfigStatuses::Failed, "no").await;
    process.manager.unassign(&operator(), &id, None).await.unwrap();
    let answer = agent.heartbeat(&process).await;
    assert_eq!((answer.connection_settings, answer.remote_config), (None, None));
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!((detail.summary.drift, detail.connection_settings.drift), (Drift::Unmanaged, Drift::InSync));
    assert_eq!(detail.connection_settings.last_failure, None);
    process.stop().await;
}
