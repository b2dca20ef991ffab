//! R-ID: agent identity.

use std::collections::BTreeSet;

use opamp_proto::{InstanceUid, pb};
use opamp_server::{DisconnectReason, Liveness, RefusalReason, StaticToken, StaticTokens};
use std::sync::Arc;

use super::common::*;

const REQUEST_INSTANCE_UID: u64 = 1;

fn assigned(message: &pb::ServerToAgent) -> InstanceUid {
    let identification = message.agent_identification.as_ref().expect("an identity was asked for");
    assert_eq!(identification.new_instance_uid.len(), 16);
    InstanceUid::try_from(&identification.new_instance_uid[..]).unwrap()
}

async fn ask(agent: &mut ScriptedAgent) -> pb::ServerToAgent {
    let mut message = agent.persona.full_state();
    message.flags = REQUEST_INSTANCE_UID;
    agent.exchange(&message).await.unwrap()
}

on_both_transports! {
    /// R-ID-07, R-ID-09, R-ID-10.
    async fn who_asks_for_an_identity_gets_a_fresh_version_7_uuid(wire: Wire) {
        let server = TestServer::start().await;
        let mut seen = BTreeSet::new();
        for number in 0..10 {
            let mut agent = server.connector(wire).connect(Persona::new(number)).await.unwrap();
            let uid = assigned(&ask(&mut agent).await);
            let bytes = uid.as_bytes();
            assert_eq!(bytes[6] >> 4, 7, "version of {uid}");
            assert_eq!(bytes[8] >> 6, 0b10, "variant of {uid}");
            let millis = u64::from_be_bytes([0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]);
            assert_eq!(millis, server.handle.now().wall.0, "time of {uid}");
            assert!(seen.insert(uid), "{uid} was given twice");
            assert_ne!(uid, agent.persona.uid);
        }
    }

    /// R-ID-11, R-MSG-07.
    async fn state_is_carried_over_to_the_new_identity(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let old = agent.persona.uid;
        server.assign(old, &yaml("a: 1\n"));
        let answer = ask(&mut agent).await;
        assert_eq!(&answer.instance_uid[..], old.as_bytes(), "addressed with the old identity");
        let new = assigned(&answer);
        let answer = agent.obey(answer).await.unwrap();
        assert_eq!(agent.persona.uid, new);
        assert!(says_nothing(&answer), "no gap, no second offer: {answer:?}");

        assert_eq!(server.handle.agents().len(), 1, "one agent and not two");
        assert!(!server.knows(old));
        let snapshot = server.snapshot(new);
        assert_eq!(snapshot.uid, new);
        assert_eq!(snapshot.sticky.gaps, 0);
        assert_eq!(server.health(new), Some(agent.persona.health.clone()));
        let told = server.eventually(|| {
            server.changes(new).into_iter().find(|change| change.previous_uid == Some(old))
        });
        assert!(told.await.is_some(), "the application learns who that was");

        // What is desired goes on with the new identity.
        server.assign(new, &yaml("a: 2\n"));
        assert_eq!(agent.next_offer().await.unwrap().config, Some(yaml("a: 2\n")));
    }

    /// R-ID-11: an answer that was lost is repeated, with the same identity in it.
    async fn an_assignment_is_repeated_until_it_is_adopted(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let first = assigned(&ask(&mut agent).await);
        let again = assigned(&agent.heartbeat().await.unwrap());
        assert_eq!(first, again);
        assert_eq!(server.handle.agents().len(), 1);
        assert_eq!(server.handle.stats().agents, 1, "known under two identities and still one agent");
        agent.persona.uid = first;
        assert!(agent.heartbeat().await.unwrap().agent_identification.is_none());
    }

    /// R-ID-13.
    async fn an_identity_of_another_length_is_malformed(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        for length in [0, 15, 17, 26] {
            let mut message = agent.persona.full_state();
            message.instance_uid = vec![b'7'; length].into();
            let answer = agent.exchange(&message).await.unwrap();
            let complaint = bad_request(&answer);
            assert!(complaint.contains("instance_uid"), "{complaint}");
            assert!(answer.instance_uid.is_empty(), "A-08");
        }
        assert!(server.handle.agents().is_empty());
        assert_eq!(server.rejected(RefusalReason::Malformed), 4);
        assert!(agent.heartbeat().await.unwrap().error_response.is_none());
    }

    /// R-ID-17: a reconnect, clean or after a cut, is not a duplicate.
    async fn coming_back_is_not_taken_for_a_duplicate(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        for clean in [true, false, true, false] {
            if clean {
                agent.disconnect().await.unwrap();
            } else {
                agent.vanish();
            }
            agent.reconnect().await.unwrap();
            let answer = agent.heartbeat().await.unwrap();
            assert!(says_nothing(&answer), "no new identity, no error, no gap: {answer:?}");
        }
        assert_eq!(server.snapshot(uid).liveness, Liveness::Connected);
        assert_eq!(server.handle.agents().len(), 1);
        assert!(server.refusals().is_empty());
    }
}

/// R-ID-16: one agent with two connections: the newest has it; the older one is closed, so that the two never mix.
#[tokio::test]
async fn a_second_connection_with_the_same_identity_ends_the_first() {
    let server = TestServer::start().await;
    let mut first = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = first.persona.uid;
    let mut second = server.connector(Wire::WebSocket).connect(first.persona.clone()).await.unwrap();
    second.persona.health.status = "second".to_owned();
    let answer = second.report_full_state().await.unwrap();
    assert!(answer.error_response.is_none());

    let close = first.ws().expect_close().await.unwrap();
    assert!(close.reason.contains("took over"), "{close:?}");
    first.ws().answer_close(&close).await.unwrap();
    assert_eq!(server.health(uid).unwrap().status, "second");
    let snapshot = server.snapshot(uid);
    assert_eq!(snapshot.liveness, Liveness::Connected, "the late close of the first evicts nobody");
    assert_eq!(snapshot.connection.unwrap().remote_addr, second.local_addr());
    assert_eq!((snapshot.sticky.connects, snapshot.sticky.disconnects), (2, 1), "visible");
    server.assign(uid, &yaml("a: 1\n"));
    assert!(second.next_offer().await.is_ok());
}

/// R-ID-14, R-ID-16: who shows other credentials than the agent that is connected is refused.
#[tokio::test]
async fn a_live_identity_cannot_be_taken_with_other_credentials() {
    let tokens = StaticTokens::new(vec![StaticToken::new("a", "token-a"), StaticToken::new("b", "token-b")]);
    let server = TestServer::with(|setup| setup.auth = Arc::new(tokens)).await;
    let owner = server.connector(Wire::WebSocket).with_token("token-a");
    let (mut owner, _) = owner.start(Persona::new(1)).await.unwrap();
    let uid = owner.persona.uid;
    for wire in [Wire::WebSocket, Wire::Http] {
        let mut intruder =
            server.connector(wire).with_token("token-b").connect(Persona::new(1)).await.unwrap();
        intruder.persona.health.status = "intruder".to_owned();
        let answer = intruder.report_full_state().await.unwrap();
        bad_request(&answer);
    }
    assert_eq!(server.health(uid).unwrap().status, "running");
    let refusal = server.refusal(RefusalReason::UidConflict).await;
    assert_eq!(refusal.principal.as_deref(), Some("token:b"));
    assert!(refusal.remote_addr.is_some());
    assert_eq!(server.rejected(RefusalReason::UidConflict), 2);
    assert!(says_nothing(&owner.heartbeat().await.unwrap()), "the owner goes on undisturbed");

    // Once the owner has left, the identity may move to other credentials.
    owner.disconnect().await.unwrap();
    let moved = server.connector(Wire::WebSocket).with_token("token-b").start(Persona::new(1)).await.unwrap();
    assert!(moved.1.error_response.is_none());
}

/// R-ID-16: a move from one transport to the other is the same agent.
#[tokio::test]
async fn an_agent_may_change_its_transport() {
    let server = TestServer::start().await;
    let mut ws = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = ws.persona.uid;
    let mut http = server.connector(Wire::Http).connect(ws.persona.clone()).await.unwrap();
    assert!(says_nothing(&http.heartbeat().await.unwrap()), "no gap");
    let close = ws.ws().expect_close().await.unwrap();
    ws.ws().answer_close(&close).await.unwrap();
    let snapshot = server.snapshot(uid);
    assert_eq!(snapshot.liveness, Liveness::Connected);
    assert_eq!(snapshot.connection.unwrap().transport.as_str(), "http");
    assert_ne!(snapshot.disconnect.map(|(reason, _)| reason), Some(DisconnectReason::Closed));
}
