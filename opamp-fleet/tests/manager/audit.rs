use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::manager::{Actor, AgentCommandError, AuditRate, ManagerSettings};
use opamp_server::{StaticToken, StaticTokens};
use opamp_store::{AuditQuery, MemoryStore};

use super::flaky::*;
use super::support::*;

async fn guarded(rate: AuditRate) -> Process {
    let revoked = StaticToken { revoked: true, ..StaticToken::new("old", "was-good") };
    let tokens = StaticTokens::new(vec![StaticToken::new("edge", "good"), revoked]);
    let settings = ManagerSettings { auth_audit: rate, ..ManagerSettings::default() };
    Process::start_with(Arc::new(MemoryStore::new()), &clock(), Arc::new(tokens), settings).await
}

#[tokio::test(start_paused = true)]
async fn every_authentication_failure_is_audited_with_source_and_reason() {
    let process = guarded(AuditRate::default()).await;
    let agent = Agent::new(1);
    for token in [None, Some("wrong"), Some("was-good")] {
        let (status, _) = process.poll(&agent.full(), agent.from, token).await;
        assert_eq!(status, 401);
    }
    process.settle().await;
    let entries = process.audit("agent.refuse").await;
    let found: BTreeSet<_> = entries
        .iter()
        .map(|entry| {
            let after = entry.after.as_ref().unwrap();
            (
                after["reason"].as_str().unwrap(),
                after["detail"].as_str().unwrap(),
                entry.source.as_deref().unwrap(),
            )
        })
        .collect();
    let source = "198.51.100.7:4001";
    let expected =
        ["missing-credentials", "unknown", "revoked"].map(|detail| ("auth_failed", detail, source));
    assert_eq!(found, BTreeSet::from(expected));
    assert_eq!(process.manager.stats().registered, 0, "nobody gets a record without proof");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_failures_fills_no_disk_and_none_is_uncounted() {
    let process = guarded(AuditRate { burst: 5, per_minute: 60 }).await;
    let agent = Agent::new(1);
    for _ in 0..500 {
        process.poll(&agent.full(), agent.from, Some("wrong")).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let entries = process.audit("agent.refuse").await;
    assert!(entries.len() <= 8, "{} entries", entries.len());
    let left_out =
        entries.iter().map(|entry| entry.after.as_ref().unwrap()["left_out_before"].as_u64().unwrap());
    let told = entries.iter().filter(|entry| entry.role == "agent").count() as u64;
    assert_eq!(told + left_out.sum::<u64>(), 500);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn faults_that_are_no_question_of_identity_stay_out_of_the_log() {
    let process = guarded(AuditRate::default()).await;
    let garbled = opamp_proto::pb::AgentToServer { instance_uid: vec![1; 15].into(), ..Default::default() };
    process.poll(&garbled, Agent::new(1).from, Some("good")).await;
    process.settle().await;
    assert!(process.audit("agent.refuse").await.is_empty());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_is_queried_by_who_and_what_and_verifies() {
    let process = guarded(AuditRate::default()).await;
    let mut agent = Agent { token: Some("good".to_owned()), ..Agent::new(1) };
    agent.connect(&process).await;
    process.settle().await;
    process.publish("edge", "token: hunter2").await;
    let admin = Actor { name: "ada".to_owned(), role: "admin".to_owned(), ..operator() };
    process.manager.append_audit(&admin, "token.create", "token:7", None, None).await.unwrap();
    let query = AuditQuery { actor: Some("ada".to_owned()), ..AuditQuery::default() };
    let found = process.manager.audit(query).await.unwrap().items;
    assert_eq!(found.iter().map(|entry| entry.entity.as_str()).collect::<Vec<_>>(), ["token:7"]);
    let seen = process.audit("agent.first_seen").await;
    assert_eq!((seen[0].actor.as_str(), seen[0].role.as_str()), ("token:edge", "agent"));
    let everything = process.manager.audit(AuditQuery::default()).await.unwrap().items;
    assert!(!format!("{everything:?}").contains("hunter2"), "bodies of configs stay out");
    let report = process.manager.audit_verify().await.unwrap();
    assert!(report.is_intact());
    assert_eq!(report.entries, everything.len() as u64);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_newcomers_fills_no_disk_and_none_is_uncounted() {
    let tokens = StaticTokens::new(vec![StaticToken::new("edge", "good")]);
    let settings =
        ManagerSettings { auth_audit: AuditRate { burst: 5, per_minute: 60 }, ..ManagerSettings::default() };
    let process =
        Process::start_with(Arc::new(MemoryStore::new()), &clock(), Arc::new(tokens), settings).await;
    for n in 0..500 {
        let mut agent = Agent { token: Some("good".to_owned()), ..Agent::new(n) };
        agent.connect(&process).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let entries = process.audit("agent.first_seen").await;
    assert!(entries.len() <= 8, "{} entries", entries.len());
    let left_out = |after: &serde_json::Value| after["left_out_before"].as_u64().unwrap_or(0);
    let left_out = entries.iter().filter_map(|entry| entry.after.as_ref()).map(left_out);
    let told = entries.iter().filter(|entry| entry.role == "agent").count() as u64;
    assert_eq!(told + left_out.sum::<u64>(), 500);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_bounded_whatever_it_tells() {
    let process = guarded(AuditRate::default()).await;
    let long = "ü".repeat(1 << 20);
    let actor = Actor { name: long.clone(), role: long.clone(), ..operator() };
    let value = serde_json::json!({ "text": long });
    process.manager.append_audit(&actor, "x.y", long, Some(value.clone()), Some(value)).await.unwrap();
    let entry = process.audit("x.y").await.remove(0);
    for text in [&entry.actor, &entry.role, &entry.entity] {
        assert!((1_000..=1_024).contains(&text.len()) && text.starts_with('ü'));
    }
    let left_out = entry.after.unwrap()["left_out_bytes"].as_u64().unwrap();
    assert!(left_out > 2 << 20, "{left_out}");
    assert!(entry.before.unwrap()["text"].is_null());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_full_state_without_an_entry() {
    let store = Flaky::new();
    let process = Process::start(store.clone(), &clock()).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let (id, asked) = (process.id(&agent.uid), agent.asked);
    store.set(DOWN);
    let refused = process.manager.request_full_state(&operator(), &id).await;
    assert!(matches!(refused, Err(AgentCommandError::Store(_))), "{refused:?}");
    store.set(WORKS);
    agent.heartbeat(&process).await;
    assert_eq!(agent.asked, asked);
    process.manager.request_full_state(&operator(), &id).await.unwrap();
    agent.heartbeat(&process).await;
    assert_eq!(agent.asked, asked + 1);
    assert_eq!(process.audit("agent.request_full_state").await.len(), 1);
    process.stop().await;
}
