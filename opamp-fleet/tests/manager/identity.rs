use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use opamp_fleet::manager::{AgentError, ManagerSettings};
use opamp_fleet::{Drift, Health, Liveness};
use opamp_proto::pb::RemoteConfigStatuses::Applied;
use opamp_proto::{AgentToServerFlags, InstanceUid, pb};
use opamp_server::{AuthRequest, Authenticate, Denied, Principal, PrincipalKind, StaticToken, StaticTokens};
use opamp_store::MemoryStore;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_reassigned_uid_keeps_record_history_and_assignment() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    for text in ["a: 1", "a: 2"] {
        let version = process.publish("edge", text).await;
        process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    }
    let offer = agent.heartbeat(&process).await.remote_config.unwrap();
    agent.report(&process, &offer, Applied, "").await;
    process.settle().await;
    let before = process.detail(&agent.uid).await;

    let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
    let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
    let assigned: Bytes = answer.agent_identification.expect("a new identity").new_instance_uid;
    let former = std::mem::replace(&mut agent.uid, InstanceUid::try_from(&assigned[..]).unwrap());
    assert_eq!(agent.heartbeat(&process).await.remote_config, None);
    process.settle().await;

    assert_eq!(process.manager.stats().registered, 1, "one agent, not two");
    assert_eq!(process.manager.agent_id(&former), None);
    let after = process.detail(&agent.uid).await;
    assert_eq!(after.summary.id, id);
    assert_eq!(after.previous_uids.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [former]);
    assert_eq!((&after.desired, &after.desired_history), (&before.desired, &before.desired_history));
    assert_eq!((after.summary.drift, after.description), (Drift::InSync, before.description));
    assert_eq!(process.audit("agent.change_uid").await.len(), 1);

    // Also for a process that never saw the former identity; an assignment reaches the new one.
    process.stop().await;
    let process = Process::start(Arc::new(store), &clock).await;
    assert_eq!(process.id(&agent.uid), id);
    let version = process.publish("edge", "a: 3").await;
    process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    let offer = agent.heartbeat(&process).await.remote_config.expect("offered under the new identity");
    assert_eq!(offer.config, Some(files(&[("collector.yaml", "a: 3")])));
    assert_eq!(agent.asked, 0);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_uid_change_survives_a_crash_right_after_it() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    // What is said now is looked at, and what comes after it would gather for a while.
    let said = health(false, 2);
    agent.send(&process, pb::AgentToServer { health: Some(said), ..agent.bare() }).await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_eq!(process.detail(&agent.uid).await.summary.health, Health::Unhealthy, "it was looked at");
    let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
    let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
    agent.uid = InstanceUid::try_from(&answer.agent_identification.unwrap().new_instance_uid[..]).unwrap();
    agent.heartbeat(&process).await;
    // Far less than reports may gather, and changed records may wait.
    tokio::time::sleep(Duration::from_millis(1)).await;
    process.crash().await;
    let process = Process::start(Arc::new(store), &clock).await;
    assert_eq!(process.id(&agent.uid), id);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_agent_that_returns_is_a_new_record() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    let version = process.publish("edge", "a: 1").await;
    process.manager.assign(&operator(), &id, "edge", version, None).await.unwrap();
    // A change is on its way while the record goes.
    agent.health = health(false, 2);
    agent.connect(&process).await;
    process.manager.delete_agent(&operator(), &id).await.unwrap();
    process.settle().await;
    assert_eq!(process.manager.stats().registered, 0, "what was on its way makes no record");
    assert_eq!(process.manager.agent(&id).await.unwrap(), None);
    assert_eq!(process.server.agent(&agent.uid).map(|snapshot| snapshot.uid), None);
    let again = process.manager.delete_agent(&operator(), &id).await;
    assert_eq!(again, Err(AgentError::NotFound(id)));

    let answer = agent.heartbeat(&process).await;
    assert_eq!(agent.asked, 1, "a stranger is asked who it is");
    assert_eq!(answer.remote_config, None, "the assignment went with the record");
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_ne!(detail.summary.id, id);
    assert_eq!((detail.desired, detail.summary.liveness), (None, Liveness::Connected));
    let entries = process.audit("agent.delete").await;
    assert_eq!(entries[0].before.as_ref().unwrap()["desired"]["config"], "edge");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_principal_is_bound_to_the_record_and_a_change_is_audited() {
    let tokens = StaticTokens::new(vec![StaticToken::new("first", "t1"), StaticToken::new("second", "t2")]);
    let (store, clock) = (MemoryStore::new(), clock());
    let auth = Arc::new(tokens);
    let process =
        Process::start_with(Arc::new(store.clone()), &clock, auth.clone(), ManagerSettings::default()).await;
    let mut agent = Agent { token: Some("t1".to_owned()), ..Agent::new(1) };
    agent.connect(&process).await;
    process.settle().await;
    assert_eq!(process.detail(&agent.uid).await.identity.as_deref(), Some("token:first"));
    agent.goodbye(&process).await;
    agent.token = Some("t2".to_owned());
    agent.heartbeat(&process).await;
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.identity.as_deref(), Some("token:second"));
    let entries = process.audit("agent.change_identity").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].before.as_ref().unwrap()["identity"], "token:first");
    assert_eq!(entries[0].source.as_deref(), Some("198.51.100.7:4001"));
    process.stop().await;
}

/// Takes the token for the name on a verified client certificate.
struct ByCertificate;

impl Authenticate for ByCertificate {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(async move {
            Ok(Principal { kind: PrincipalKind::Certificate, id: request.bearer()?.to_owned() })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_over_an_agent_that_proved_itself_by_certificate_even_after_a_restart() {
    let (store, clock) = (MemoryStore::new(), clock());
    let start = async || {
        let settings = ManagerSettings::default();
        Process::start_with(Arc::new(store.clone()), &clock, Arc::new(ByCertificate), settings).await
    };
    let process = start().await;
    let mut agent = Agent { token: Some("edge-1".to_owned()), ..Agent::new(1) };
    agent.connect(&process).await;
    process.settle().await;
    process.stop().await;

    let process = start().await;
    let (_, answer) = process.poll(&agent.full(), agent.from, Some("edge-2")).await;
    assert!(answer.error_response.is_some(), "another identity is refused: {answer:?}");
    process.settle().await;
    assert_eq!(process.detail(&agent.uid).await.identity.as_deref(), Some("certificate:edge-1"));
    let refused = process.audit("agent.refuse").await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].actor, "certificate:edge-2");
    assert_eq!(refused[0].after.as_ref().unwrap()["reason"], "uid_conflict");
    agent.heartbeat(&process).await;
    process.settle().await;
    let sticky = process.detail(&agent.uid).await.sticky;
    assert_eq!(sticky.uid_conflicts, 1);
    let first = sticky.last_uid_conflict.expect("it is known when");
    process.stop().await;

    // That it happened is not forgotten with the process, and the next one is another.
    let process = start().await;
    assert_eq!(process.detail(&agent.uid).await.sticky.last_uid_conflict, Some(first));
    agent.heartbeat(&process).await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    process.poll(&agent.full(), agent.from, Some("edge-2")).await;
    process.settle().await;
    let sticky = process.detail(&agent.uid).await.sticky;
    assert_eq!(sticky.uid_conflicts, 2);
    assert!(sticky.last_uid_conflict > Some(first));
    process.stop().await;
}
