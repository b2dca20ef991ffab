//! Custom messages between an application and a server.

use std::sync::{Arc, Mutex};

use opamp_client::{
    Client, ClientSettings, CustomCapabilityError, CustomMessage, Event, SendCustomError, StartError,
};
use opamp_proto::pb;
use tokio::sync::Notify;

use super::UID;
use crate::common::{Agent, Memory, builder, until};
use crate::stub::{HttpStub, WsStub, ack, answer};

const ECHO: &str = "com.example.echo/v1";

fn announcing(custom: Option<pb::CustomMessage>) -> pb::ServerToAgent {
    let capabilities = vec![ECHO.to_owned()];
    pb::ServerToAgent {
        custom_capabilities: Some(pb::CustomCapabilities { capabilities }),
        custom_message: custom,
        ..ack()
    }
}

fn from_server(kind: &str) -> pb::CustomMessage {
    pb::CustomMessage { capability: ECHO.into(), r#type: kind.into(), data: vec![0, 255].into() }
}

/// R-CUST-12, R-CUST-13: the server begins, the agent answers from within its handler, and so on.
#[tokio::test]
async fn either_side_may_begin_and_a_handler_may_answer() {
    let stub = WsStub::start().await;
    let echo = |message: CustomMessage, client: Client| async move {
        client.send_custom(CustomMessage { kind: format!("re: {}", message.kind), ..message }).unwrap();
    };
    let agent = Agent::start(builder(&stub.url()).state(Memory::of(UID)).custom_capability(ECHO, echo));
    let mut peer = stub.accept().await;
    let first = peer.receive().await;
    assert_eq!(first.custom_capabilities.unwrap().capabilities, [ECHO]);
    peer.send(&announcing(None)).await;
    for number in 0..10 {
        peer.send(&pb::ServerToAgent {
            custom_message: Some(from_server(&number.to_string())),
            ..Default::default()
        })
        .await;
    }
    for number in 0..10 {
        let custom = peer.acknowledge().await.custom_message.unwrap();
        assert_eq!(
            (custom.r#type.as_str(), &custom.data[..]),
            (format!("re: {number}").as_str(), &[0, 255][..])
        );
    }
    for number in 0..10 {
        agent.client.send_custom(CustomMessage::new(ECHO, number.to_string(), "x")).unwrap();
    }
    for number in 0..10 {
        assert_eq!(peer.acknowledge().await.custom_message.unwrap().r#type, number.to_string());
    }
    agent.stop_with(&mut peer).await;
    let stopped = agent.client.send_custom(CustomMessage::new(ECHO, "x", "x"));
    assert!(matches!(stopped, Err(SendCustomError::Stopped(_))));
}

/// R-CUST-12 over HTTP: one with each request.
#[tokio::test]
async fn over_http_each_request_has_one() {
    let stub = HttpStub::start(|_, _| answer(&announcing(None))).await;
    let ignore = |_: CustomMessage, _: Client| async {};
    let agent =
        Agent::start(builder(&stub.url("http")).state(Memory::of(UID)).custom_capability(ECHO, ignore));
    agent.connected().await;
    for number in 0..10 {
        agent.client.send_custom(CustomMessage::new(ECHO, number.to_string(), "x")).unwrap();
    }
    stub.request(10).await;
    let kinds = stub
        .requests()
        .iter()
        .filter_map(|request| Some(request.message().custom_message?.r#type))
        .collect::<Vec<_>>();
    assert_eq!(kinds, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    agent.stop().await;
}

/// Lesson: custom messages: one slot, silently overwritten.
#[tokio::test]
async fn full_is_an_error_in_both_directions() {
    let stub = WsStub::start().await;
    let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (began, waits, kinds) = (Arc::clone(&entered), Arc::clone(&go_on), Arc::clone(&taken));
    let slow = move |message: CustomMessage, _: Client| {
        let (began, waits, kinds) = (Arc::clone(&began), Arc::clone(&waits), Arc::clone(&kinds));
        async move {
            began.notify_one();
            waits.notified().await;
            kinds.lock().unwrap().push(message.kind);
        }
    };
    let mut settings = ClientSettings { custom_kept: 2, ..ClientSettings::default() };
    settings.session.custom_messages_max = 3;
    let agent = Agent::start(
        builder(&stub.url()).state(Memory::of(UID)).settings(settings).custom_capability(ECHO, slow),
    );
    let mut peer = stub.accept().await;
    peer.receive().await;
    let not_yet = agent.client.send_custom(CustomMessage::new(ECHO, "x", "x"));
    assert_eq!(not_yet, Err(SendCustomError::NotAnnounced(ECHO.into())));
    peer.send(&announcing(None)).await;
    agent.received(1).await;
    let send = |capability: &str| agent.client.send_custom(CustomMessage::new(capability, "x", "x"));
    assert_eq!(send("com.example.none"), Err(SendCustomError::NotOurs("com.example.none".into())));
    // Nothing is between two calls that could let one out.
    let results: Vec<_> = (0..4).map(|_| send(ECHO)).collect();
    assert!(results[..3].iter().all(Result::is_ok), "{results:?}");
    assert!(matches!(results[3], Err(SendCustomError::Full { messages: 3, .. })), "{results:?}");
    for _ in 0..3 {
        assert!(peer.acknowledge().await.custom_message.is_some());
    }
    until("room again", || send(ECHO).is_ok()).await;
    peer.acknowledge().await;
    let custom =
        |kind: &str| pb::ServerToAgent { custom_message: Some(from_server(kind)), ..Default::default() };
    peer.send(&custom("0")).await;
    entered.notified().await;
    for number in 1..=4 {
        peer.send(&custom(&number.to_string())).await;
    }
    agent.event("dropped", |event| matches!(event, Event::CustomDropped { .. })).await;
    until("two are lost", || agent.client.stats().custom_dropped == 2).await;
    for _ in 0..3 {
        go_on.notify_one();
        let count = taken.lock().unwrap().len();
        until("taken", || taken.lock().unwrap().len() > count).await;
    }
    assert_eq!(*taken.lock().unwrap(), ["0", "1", "2"], "in order, and the newest were dropped");
    agent.stop_with(&mut peer).await;
}

/// R-CUST-02, R-CUST-05.
#[tokio::test]
async fn capabilities_come_and_go_at_run_time_and_have_names_that_they_may_have() {
    let ignore = |_: CustomMessage, _: Client| async {};
    let error = builder("ws://127.0.0.1:1").custom_capability("echo", ignore).start().unwrap_err();
    assert!(matches!(error, StartError::CustomCapability(CustomCapabilityError::Name { .. })), "{error}");
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()).state(Memory::of(UID)));
    let mut peer = stub.accept().await;
    assert!(peer.acknowledge().await.custom_capabilities.is_none());
    let bad = agent.client.add_custom_capability("no name", ignore);
    assert!(matches!(bad, Err(CustomCapabilityError::Name { .. })), "{bad:?}");
    let names = |message: pb::AgentToServer| message.custom_capabilities.unwrap().capabilities;
    agent.client.add_custom_capability(ECHO, ignore).unwrap();
    assert_eq!(names(peer.acknowledge().await), [ECHO]);
    agent.client.remove_custom_capability(ECHO).unwrap();
    assert_eq!(names(peer.acknowledge().await), Vec::<String>::new());
    agent.stop_with(&mut peer).await;
}
