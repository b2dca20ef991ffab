use std::sync::Arc;

use bytes::Bytes;
use opamp_fleet::manager::{CustomSettings, ManagerSettings, SendCustomError, StoreFailure};
use opamp_proto::{AgentId, AgentToServerFlags, InstanceUid, pb};
use opamp_server::{
    CustomCapabilities, CustomError, CustomMessage, Dispatch, InsecureAcceptEveryone, ServerSettings,
};
use opamp_store::{AuditQuery, MemoryStore, Store};

use super::flaky::*;
use super::support::*;

const CAPABILITY: &str = "com.example.echo/1";

async fn process_of(store: Arc<dyn Store>, custom: CustomSettings) -> Process {
    process_at(store, &clock(), custom).await
}

async fn process_at(
    store: Arc<dyn Store>,
    clock: &Arc<opamp_server::TokioClock>,
    custom: CustomSettings,
) -> Process {
    let mut server = ServerSettings::default();
    server.session.custom_capabilities =
        CustomCapabilities::new([CAPABILITY.to_owned()]).expect("a good name");
    let settings = ManagerSettings { custom, ..ManagerSettings::default() };
    Process::start_full(store, clock, Arc::new(InsecureAcceptEveryone), server, settings).await
}

fn message(data: &'static [u8]) -> CustomMessage {
    CustomMessage {
        capability: CAPABILITY.to_owned(),
        kind: "echo".to_owned(),
        data: Bytes::from_static(data),
    }
}

async fn connected(process: &Process, n: u16) -> (Agent, AgentId) {
    let mut agent = Agent::new(n);
    let custom_capabilities = Some(pb::CustomCapabilities { capabilities: vec![CAPABILITY.to_owned()] });
    let hello = pb::AgentToServer { custom_capabilities, ..agent.full() };
    agent.send(process, hello).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    (agent, id)
}

async fn says(process: &Process, agent: &mut Agent, data: &[u8]) {
    let custom_message = Some(pb::CustomMessage {
        capability: CAPABILITY.to_owned(),
        r#type: "echo".to_owned(),
        data: data.to_vec().into(),
    });
    agent.send(process, pb::AgentToServer { custom_message, ..agent.bare() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_custom_message_is_audited_without_its_data_and_sent() {
    let process = process_of(Arc::new(MemoryStore::new()), CustomSettings::default()).await;
    let (mut agent, id) = connected(&process, 1).await;
    let sent = process.manager.send_custom(&operator(), &id, message(b"hunter2")).await;
    assert_eq!(sent, Ok(Dispatch::NextPoll));
    let received = agent.heartbeat(&process).await.custom_message.expect("it is sent");
    assert_eq!((received.capability.as_str(), &received.data[..]), (CAPABILITY, &b"hunter2"[..]));
    assert_eq!(agent.heartbeat(&process).await.custom_message, None, "once");
    let entries = process.audit("agent.send_custom").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].after.as_ref().unwrap()["data_bytes"], 7);
    assert!(!format!("{entries:?}").contains("hunter2"));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_not_in_the_audit_log_and_what_cannot_be_audited_is_not_sent() {
    let store = Flaky::new();
    let process = process_of(store.clone(), CustomSettings::default()).await;
    let (mut agent, id) = connected(&process, 1).await;
    let send = async |id: &AgentId, message| process.manager.send_custom(&operator(), id, message).await;
    let nobody = AgentId::from_bytes([9; 16]);
    assert_eq!(send(&nobody, message(b"x")).await, Err(SendCustomError::NotFound(nobody)));
    let foreign = CustomMessage { capability: "com.example.other".to_owned(), ..message(b"x") };
    let refused = send(&id, foreign).await;
    assert!(matches!(refused, Err(SendCustomError::NotSent(CustomError::NotOurs { .. }))), "{refused:?}");
    let mut deaf = Agent::new(2);
    deaf.connect(&process).await;
    process.settle().await;
    let refused = send(&process.id(&deaf.uid), message(b"x")).await;
    assert!(
        matches!(refused, Err(SendCustomError::NotSent(CustomError::NotAnnounced { .. }))),
        "{refused:?}"
    );
    let query = AuditQuery { action: Some("agent.send_custom".to_owned()), ..AuditQuery::default() };
    assert!(process.manager.audit(query).await.unwrap().items.is_empty());

    store.set(DOWN);
    let refused = send(&id, message(b"x")).await;
    assert!(matches!(refused, Err(SendCustomError::Store(StoreFailure::Unavailable(_)))), "{refused:?}");
    assert_eq!(agent.heartbeat(&process).await.custom_message, None);
    store.set(WORKS);
    agent.goodbye(&process).await;
    let gone = send(&id, message(b"x")).await;
    assert_eq!(gone, Err(SendCustomError::NotSent(CustomError::NoSession)));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_custom_messages_of_an_agent_are_kept_in_order_and_bounded() {
    let bounds = CustomSettings { messages_max: 3, ..CustomSettings::default() };
    let process = process_of(Arc::new(MemoryStore::new()), bounds).await;
    let (mut agent, id) = connected(&process, 1).await;
    for data in [&b"one"[..], b"two", b"\x00\xff", b"four"] {
        says(&process, &mut agent, data).await;
    }
    process.settle().await;
    let kept = process.manager.custom_messages(&id).expect("there is such an agent");
    let data: Vec<_> = kept.messages.iter().map(|entry| entry.message.data.to_vec()).collect();
    assert_eq!(data, [b"two".to_vec(), b"\x00\xff".to_vec(), b"four".to_vec()], "untouched, oldest first");
    assert_eq!(kept.dropped, 1);
    assert!(kept.messages.is_sorted_by_key(|entry| entry.number));
    assert_eq!(process.manager.custom_messages(&AgentId::from_bytes([9; 16])), None);
    process.manager.delete_agent(&operator(), &id).await.unwrap();
    assert_eq!(process.manager.custom_messages(&id), None);
    process.stop().await;
}

/// R-CUST-02, R-CUST-03: an agent does not repeat its list while it is unchanged, so the list outlives the process.
#[tokio::test(start_paused = true)]
async fn what_an_agent_announced_is_known_after_a_restart() {
    let (store, clock) = (MemoryStore::new(), clock());
    let start = async || process_at(Arc::new(store.clone()), &clock, CustomSettings::default()).await;
    let process = start().await;
    let (mut agent, id) = connected(&process, 1).await;
    process.stop().await;
    let process = start().await;
    agent.heartbeat(&process).await;
    assert_eq!(process.manager.send_custom(&operator(), &id, message(b"x")).await, Ok(Dispatch::NextPoll));
    assert!(agent.heartbeat(&process).await.custom_message.is_some());
    // An empty list takes everything back, and that is remembered too.
    let custom_capabilities = Some(pb::CustomCapabilities::default());
    agent.send(&process, pb::AgentToServer { custom_capabilities, ..agent.bare() }).await;
    process.stop().await;
    let process = start().await;
    agent.heartbeat(&process).await;
    let refused = process.manager.send_custom(&operator(), &id, message(b"x")).await;
    assert!(
        matches!(refused, Err(SendCustomError::NotSent(CustomError::NotAnnounced { .. }))),
        "{refused:?}"
    );
    assert_eq!(agent.asked, 0);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_words_of_an_agent_may_be_a_custom_message() {
    let process = process_of(Arc::new(MemoryStore::new()), CustomSettings::default()).await;
    let mut agent = Agent::new(1);
    let custom_capabilities = Some(pb::CustomCapabilities { capabilities: vec![CAPABILITY.to_owned()] });
    let custom_message = Some(pb::CustomMessage {
        capability: CAPABILITY.to_owned(),
        r#type: "hello".to_owned(),
        data: Bytes::from_static(b"here I am"),
    });
    let hello = pb::AgentToServer { custom_capabilities, custom_message, ..agent.full() };
    agent.send(&process, hello).await;
    process.settle().await;
    let kept = process.manager.custom_messages(&process.id(&agent.uid)).unwrap();
    assert_eq!(kept.messages.len(), 1);
    assert_eq!(process.manager.stats().registered, 1);
    process.stop().await;
}

/// R-ID-11: the server's list of custom capabilities comes with the new identity, so these are the first words under it.
#[tokio::test(start_paused = true)]
async fn the_first_words_under_an_assigned_identity_may_be_a_custom_message() {
    let process = process_of(Arc::new(MemoryStore::new()), CustomSettings::default()).await;
    let (mut agent, id) = connected(&process, 1).await;
    let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
    let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
    let assigned = answer.agent_identification.expect("a new identity").new_instance_uid;
    process.settle().await;
    agent.uid = InstanceUid::try_from(&assigned[..]).unwrap();
    says(&process, &mut agent, b"here I am again").await;
    process.settle().await;
    assert_eq!(process.manager.stats().registered, 1, "one agent, not two");
    assert_eq!(process.id(&agent.uid), id);
    assert_eq!(process.manager.custom_messages(&id).unwrap().messages.len(), 1);
    process.stop().await;
}
