//! R-CUST: custom capabilities and messages.

use bytes::Bytes;
use opamp_proto::pb;
use opamp_server::{CustomCapabilities, CustomError, CustomMessage, QueueBound};
use opamp_testkit::agent::custom_capabilities;

use super::common::*;

const PAUSE: &str = "com.example.pause/1";
const FIND: &str = "com.example.find";

fn ours(names: &[&str]) -> CustomCapabilities {
    CustomCapabilities::new(names.iter().map(|name| (*name).to_owned())).unwrap()
}

/// A server that announces both capabilities.
async fn server() -> TestServer {
    TestServer::with(|setup| setup.settings.session.custom_capabilities = ours(&[PAUSE, FIND])).await
}

fn message(capability: &str, kind: &str, data: &[u8]) -> CustomMessage {
    CustomMessage {
        capability: capability.to_owned(),
        kind: kind.to_owned(),
        data: Bytes::copy_from_slice(data),
    }
}

fn as_received(message: &pb::CustomMessage) -> (&str, &str, &[u8]) {
    (&message.capability, &message.r#type, &message.data)
}

on_both_transports! {
    /// R-CUST-01.
    async fn the_first_message_announces_the_custom_capabilities(wire: Wire) {
        let server = server().await;
        let (_agent, answer) = server.connector(wire).start(Persona::new(1)).await.unwrap();
        let mut announced = answer.custom_capabilities.expect("the list").capabilities;
        announced.sort();
        assert_eq!(announced, [FIND, PAUSE]);
    }

    /// R-CUST-01: a server that has none to announce need not say so.
    async fn a_server_without_custom_capabilities_does_not_mention_any(wire: Wire) {
        let server = TestServer::start().await;
        let (_agent, answer) = server.connector(wire).start(Persona::new(1)).await.unwrap();
        assert!(answer.custom_capabilities.unwrap_or_default().capabilities.is_empty());
    }

    /// R-CUST-02.
    async fn the_list_is_repeated_only_when_it_changes(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        for _ in 0..5 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        for names in [&[FIND][..], &[]] {
            server.handle.set_custom_capabilities(ours(names));
            let told = agent.until(|message| message.custom_capabilities.is_some()).await.unwrap();
            assert_eq!(told.custom_capabilities, Some(custom_capabilities(names)));
            for _ in 0..5 {
                assert!(says_nothing(&agent.heartbeat().await.unwrap()), "once is enough");
            }
        }
    }

    /// R-CUST-03: two names, one, none; what is not announced any more is not sent any more.
    async fn messages_follow_the_list_the_agent_announced_last(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        for names in [&[PAUSE, FIND][..], &[FIND], &[]] {
            let list = custom_capabilities(names);
            agent.report(|report| report.custom_capabilities = Some(list)).await.unwrap();
            agent.heartbeat().await.unwrap();
            for name in [PAUSE, FIND] {
                let sent = server.handle.send_custom(&uid, message(name, "x", b""));
                if names.contains(&name) {
                    sent.unwrap();
                    assert_eq!(agent.next_custom().await.unwrap().capability, name);
                } else {
                    assert!(matches!(sent, Err(CustomError::NotAnnounced { .. })), "{name}: {sent:?}");
                }
            }
        }
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    }

    /// R-CUST-04, R-CUST-09: silence means none, and nothing is sent on a guess.
    async fn an_agent_that_announced_nothing_is_sent_nothing(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let sent = server.handle.send_custom(&agent.persona.uid, message(PAUSE, "x", b""));
        assert!(matches!(sent, Err(CustomError::NotAnnounced { .. })), "{sent:?}");
        for _ in 0..3 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
    }

    /// R-CUST-06: what the server does not support reaches nobody.
    async fn a_message_of_an_unsupported_capability_reaches_nobody(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1).with_custom(&[PAUSE, "com.example.other"])).await;
        for capability in ["com.example.other", "com.example.pause", "com.example.pause/2", ""] {
            let message = agent.persona.custom(capability, "x", b"data");
            let answer = agent.exchange(&message).await.unwrap();
            assert!(says_nothing(&answer), "{capability}: {answer:?}");
        }
        let supported = agent.persona.custom(PAUSE, "x", b"data");
        agent.exchange(&supported).await.unwrap();
        assert_eq!(server.custom(1).await[0].message.capability, PAUSE, "and nothing before it");
    }

    /// R-CUST-07, R-CUST-08, R-CUST-10: the library knows no types: each message of a capability reaches the application, with
    /// the capability it belongs to, and has no other effect.
    async fn messages_of_every_type_reach_the_application_with_their_capability(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1).with_custom(&[PAUSE, FIND])).await;
        let sent = [(PAUSE, "start"), (FIND, "start"), (PAUSE, "never heard of"), (FIND, "")];
        for (capability, kind) in sent {
            let message = agent.persona.custom(capability, kind, b"");
            let answer = agent.exchange(&message).await.unwrap();
            assert!(says_nothing(&answer), "{answer:?}");
        }
        let received = server.custom(sent.len()).await;
        let received: Vec<_> =
            received.iter().map(|one| (one.message.capability.as_str(), one.message.kind.as_str())).collect();
        assert_eq!(received, sent);
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    }

    /// R-CUST-09: version included, and from either list.
    async fn a_name_that_is_announced_on_one_side_alone_is_not_sent(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1).with_custom(&[PAUSE, "com.example.find/2", "com.example.theirs"])).await;
        let uid = agent.persona.uid;
        for name in ["com.example.theirs", "com.example.pause", "com.example.pause/2", "com.example.find/2"] {
            let sent = server.handle.send_custom(&uid, message(name, "x", b""));
            assert!(matches!(sent, Err(CustomError::NotOurs { .. })), "{name}: {sent:?}");
        }
        let sent = server.handle.send_custom(&uid, message(FIND, "x", b""));
        assert!(matches!(sent, Err(CustomError::NotAnnounced { .. })), "{sent:?}");
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        server.handle.send_custom(&uid, message(PAUSE, "x", b"")).unwrap();
        assert_eq!(agent.next_custom().await.unwrap().capability, PAUSE);
    }

    /// R-CUST-11: in both directions.
    async fn data_is_handed_over_untouched(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1).with_custom(&[PAUSE])).await;
        let every_byte: Vec<u8> = (0..=255).collect();
        for (number, data) in (1..).zip([&every_byte[..], b"", &[0; 1000]]) {
            server.handle.send_custom(&agent.persona.uid, message(PAUSE, "down", data)).unwrap();
            assert_eq!(as_received(&agent.next_custom().await.unwrap()), (PAUSE, "down", data));
            let report = agent.persona.custom(PAUSE, "up", data);
            agent.exchange(&report).await.unwrap();
            assert_eq!(server.custom(number).await[number - 1].message.data, data);
        }
    }

    /// R-CUST-12: ten in a row, each once, in order, one a message, beside whatever else is said.
    async fn messages_of_the_server_arrive_once_each_and_in_order(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1).with_custom(&[PAUSE])).await;
        let uid = agent.persona.uid;
        for number in 0..10 {
            server.handle.send_custom(&uid, message(PAUSE, &number.to_string(), b"")).unwrap();
        }
        for number in 0..10 {
            assert_eq!(agent.next_custom().await.unwrap().r#type, number.to_string());
        }
        for _ in 0..3 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        // What was sent is not sent again on another connection, nor as part of a full state.
        agent.reconnect().await.unwrap();
        let answer = agent.report_full_state().await.unwrap();
        assert!(answer.custom_message.is_none());
        assert!(agent.heartbeat().await.unwrap().custom_message.is_none());
    }

    /// R-CUST-12: the other way, in messages that are heartbeats or reports.
    async fn messages_of_an_agent_arrive_once_each_and_in_order(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1).with_custom(&[PAUSE])).await;
        for number in 0..10 {
            let mut message = agent.persona.custom(PAUSE, &number.to_string(), b"");
            if number % 2 == 0 {
                message.health = Some(agent.persona.health.clone());
            }
            assert!(says_nothing(&agent.exchange(&message).await.unwrap()));
        }
        agent.report_full_state().await.unwrap();
        let kinds: Vec<_> = server.custom(10).await.iter().map(|one| one.message.kind.clone()).collect();
        assert_eq!(kinds, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    /// R-CUST-13.
    async fn either_side_may_begin(wire: Wire) {
        let server = server().await;
        let mut agent = server.agent(wire, Persona::new(1).with_custom(&[PAUSE, FIND])).await;
        let uid = agent.persona.uid;
        server.handle.send_custom(&uid, message(PAUSE, "pause", b"7")).unwrap();
        let asked = agent.next_custom().await.unwrap();
        let answer = agent.persona.custom(&asked.capability, "paused", &asked.data);
        agent.exchange(&answer).await.unwrap();
        let heard = server.custom(1).await.remove(0);
        assert_eq!((heard.uid, heard.message), (uid, message(PAUSE, "paused", b"7")));

        let request = agent.persona.custom(FIND, "find", b"db");
        agent.exchange(&request).await.unwrap();
        let asked = server.custom(2).await.remove(1);
        server.handle.send_custom(&asked.uid, message(&asked.message.capability, "found", b"db:1")).unwrap();
        assert_eq!(as_received(&agent.next_custom().await.unwrap()), (FIND, "found", &b"db:1"[..]));
    }
}

/// R-CUST-05.
#[test]
fn a_capability_is_named_by_its_owners_domain_in_reverse() {
    for wrong in ["", "pause", "com..pause", "com.example.pause/", "com.example.a b", "com.example.a/1/2"] {
        let refused = CustomCapabilities::new([wrong.to_owned()]);
        assert!(refused.is_err(), "{wrong:?}");
    }
    assert!(CustomCapabilities::new([PAUSE.to_owned(), FIND.to_owned()]).is_ok());
}

/// Lesson "custom messages: one slot, silently overwritten": the queue is bounded, and a full one says so to who would add
/// to it; what was accepted arrives, all of it.
#[tokio::test]
async fn a_full_queue_is_an_error_and_overwrites_nothing() {
    let server = TestServer::with(|setup| {
        setup.settings.session.custom_capabilities = ours(&[PAUSE]);
        setup.settings.session.custom_queue_max = 3;
    })
    .await;
    let mut agent = server.agent(Wire::Http, Persona::new(1).with_custom(&[PAUSE])).await;
    let uid = agent.persona.uid;
    for number in 0..3 {
        server.handle.send_custom(&uid, message(PAUSE, &number.to_string(), b"")).unwrap();
    }
    for _ in 0..2 {
        let refused = server.handle.send_custom(&uid, message(PAUSE, "too many", b""));
        assert!(matches!(refused, Err(CustomError::Full { max: QueueBound::Messages(3) })), "{refused:?}");
    }
    for number in 0..3 {
        let answer = agent.heartbeat().await.unwrap();
        assert_eq!(answer.custom_message.unwrap().r#type, number.to_string(), "one in each answer");
    }
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    server.handle.send_custom(&uid, message(PAUSE, "again", b"")).unwrap();
    assert_eq!(agent.next_custom().await.unwrap().r#type, "again");
}

/// R-CUST-12 in size: what could never be sent is refused where it is handed over.
#[tokio::test]
async fn a_message_beyond_the_limits_is_refused_at_once() {
    let server = TestServer::with(|setup| {
        setup.settings.session.custom_capabilities = ours(&[PAUSE]);
        setup.settings.session.send_bytes_max = 4_096;
    })
    .await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1).with_custom(&[PAUSE])).await;
    let uid = agent.persona.uid;
    let refused = server.handle.send_custom(&uid, message(PAUSE, "x", &[7; 8_192]));
    assert!(matches!(refused, Err(CustomError::TooLarge { .. })), "{refused:?}");
    server.handle.send_custom(&uid, message(PAUSE, "small", &[7; 1_000])).unwrap();
    assert_eq!(agent.next_custom().await.unwrap().r#type, "small");
}

/// R-CUST-13: nobody is there to hear it, and that is told.
#[tokio::test]
async fn a_message_to_an_agent_that_is_not_there_is_an_error() {
    let server = server().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1).with_custom(&[PAUSE])).await;
    let uid = agent.persona.uid;
    agent.disconnect().await.unwrap();
    server.until(uid, |agent| agent.disconnect.is_some()).await;
    for uid in [uid, Persona::new(2).uid] {
        let refused = server.handle.send_custom(&uid, message(PAUSE, "x", b""));
        assert!(matches!(refused, Err(CustomError::NoSession)), "{refused:?}");
    }
}
