//! R-ID-14 to R-ID-17: two agents with one identity.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{InstanceUid, pb};
use opamp_server::{
    DuplicateSettings, Liveness, OtherCredential, RefusalReason, SameCredential, StaticToken, StaticTokens,
};

use super::common::*;

/// A clone of the agent that reports a state of its own, at a place of its own in its count.
fn cloned(of: &Persona) -> Persona {
    let mut clone = of.clone();
    clone.sequence_num = 1_000;
    clone.health.status = "clone".to_owned();
    clone
}

fn reassigned(message: &pb::ServerToAgent) -> Option<InstanceUid> {
    let told = message.agent_identification.as_ref()?;
    Some(InstanceUid::try_from(&told.new_instance_uid[..]).unwrap())
}

/// Requires that two agents are known apart: each with its own state, under its own identity.
fn requires_two(server: &TestServer, first: &ScriptedAgent, second: &ScriptedAgent) {
    assert_ne!(first.persona.uid, second.persona.uid);
    assert_eq!(server.handle.agents().len(), 2);
    for agent in [first, second] {
        assert_eq!(server.health(agent.persona.uid).unwrap().status, agent.persona.health.status);
        assert_eq!(server.snapshot(agent.persona.uid).liveness, Liveness::Connected);
    }
}

/// A server that gives a WebSocket this long to show that it lives.
async fn patient_for(ping_timeout: Duration) -> TestServer {
    TestServer::with(|setup| setup.settings.duplicates.ping_timeout = ping_timeout).await
}

/// Lets `newcomer` report while `incumbent` answers pings, as a live agent does.
async fn beside(incumbent: &mut ScriptedAgent, newcomer: &mut ScriptedAgent) -> pb::ServerToAgent {
    tokio::select! {
        answer = newcomer.report_full_state() => answer.unwrap(),
        unasked = incumbent.ws().receive() => panic!("the incumbent was told {unasked:?}"),
    }
}

/// R-ID-15: a second agent of the same credential beside a live WebSocket, on either transport.
async fn beside_a_websocket(wire: Wire) {
    let server = TestServer::start().await;
    let mut first = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = first.persona.uid;
    let mut second = server.connector(wire).connect(cloned(&first.persona)).await.unwrap();
    let answer = beside(&mut first, &mut second).await;
    let fresh = reassigned(&answer).expect("an identity of its own");
    assert_eq!(&answer.instance_uid[..], uid.as_bytes(), "addressed with the old one");
    assert_eq!(fresh.as_bytes()[6] >> 4, 7, "version 7");
    assert_eq!(server.health(uid).unwrap().status, "running", "nothing of the message was processed");

    // If that was lost: the same again.
    let repeated = beside(&mut first, &mut second).await;
    assert_eq!(reassigned(&repeated), Some(fresh));

    second.persona.uid = fresh;
    let answer = second.heartbeat().await.unwrap();
    assert!(asks_full_state(&answer), "nobody knows it yet");
    let settled = second.obey(answer).await.unwrap();
    assert!(says_nothing(&settled), "{settled:?}");
    assert!(says_nothing(&first.heartbeat().await.unwrap()), "the first goes on undisturbed");
    requires_two(&server, &first, &second);
    assert!(server.snapshot(uid).sticky.uid_conflicts > 0, "visible");
    server.refusal(RefusalReason::UidConflict).await;
}

/// R-ID-14, R-ID-15: both over WebSocket.
#[tokio::test]
async fn a_second_websocket_with_a_live_identity_gets_an_identity_of_its_own() {
    Box::pin(beside_a_websocket(Wire::WebSocket)).await;
}

/// R-ID-14, R-ID-15: the newcomer polls.
#[tokio::test]
async fn a_poller_with_the_identity_of_a_live_websocket_gets_an_identity_of_its_own() {
    Box::pin(beside_a_websocket(Wire::Http)).await;
}

/// R-ID-15: a WebSocket comes while an older one polls. It takes over; when the poller comes again it is the newcomer.
#[tokio::test]
async fn a_poller_that_comes_back_beside_a_websocket_gets_an_identity_of_its_own() {
    let server = TestServer::start().await;
    let mut poller = server.agent(Wire::Http, Persona::new(1)).await;
    let mut socket = server.connector(Wire::WebSocket).connect(cloned(&poller.persona)).await.unwrap();
    let answer = socket.report_full_state().await.unwrap();
    assert!(reassigned(&answer).is_none());
    let answer = beside(&mut socket, &mut poller).await;
    poller.persona.uid = reassigned(&answer).expect("an identity of its own");
    let answer = poller.heartbeat().await.unwrap();
    poller.obey(answer).await.unwrap();
    assert!(says_nothing(&socket.heartbeat().await.unwrap()));
    requires_two(&server, &socket, &poller);
}

/// R-ID-15: two that poll are told apart by their two counts.
#[tokio::test]
async fn of_two_pollers_with_one_identity_the_later_gets_another() {
    let server = TestServer::start().await;
    let mut first = server.agent(Wire::Http, Persona::new(1)).await;
    let mut second = server.connector(Wire::Http).connect(cloned(&first.persona)).await.unwrap();
    let mut told = None;
    for _ in 0..10 {
        let answer = second.report_full_state().await.unwrap();
        told = reassigned(&answer);
        if told.is_some() {
            break;
        }
        let answer = first.report_full_state().await.unwrap();
        assert!(reassigned(&answer).is_none(), "the older one keeps its identity");
    }
    second.persona.uid = told.expect("an identity of its own within ten rounds");
    let answer = second.heartbeat().await.unwrap();
    second.obey(answer).await.unwrap();
    first.report_full_state().await.unwrap();
    requires_two(&server, &first, &second);
    for agent in [&mut first, &mut second] {
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    }
}

/// R-ID-16: a WebSocket that answers no ping any more is dead, and replaced by the newcomer.
#[tokio::test]
async fn a_silent_websocket_is_replaced() {
    let server = patient_for(Duration::from_millis(100)).await;
    let mut first = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = first.persona.uid;
    first.ws().auto_pong = false;
    let mut second = server.connector(Wire::WebSocket).connect(cloned(&first.persona)).await.unwrap();
    let answered = async {
        assert!(
            matches!(first.ws().next().await.unwrap(), Received::Ping(_)),
            "it is asked whether it lives"
        );
        first.ws().expect_close().await.unwrap()
    };
    let (answer, close) = tokio::join!(second.report_full_state(), answered);
    let answer = answer.unwrap();
    assert!(answer.error_response.is_none() && reassigned(&answer).is_none(), "{answer:?}");
    assert!(close.reason.contains("took over"), "{close:?}");
    assert_eq!(server.health(uid).unwrap().status, "clone");
    assert_eq!(server.handle.agents().len(), 1);
    assert_eq!(server.snapshot(uid).sticky.uid_conflicts, 0, "it was no other");
}

on_both_transports! {
    /// R-ID-17: who goes on counting is the same agent, and nobody waits for a ping; the old socket may still stand.
    async fn an_agent_that_goes_on_counting_is_let_in_at_once(wire: Wire) {
        let server = patient_for(Duration::from_secs(3600)).await;
        let mut half_open = server.agent(Wire::WebSocket, Persona::new(1)).await;
        half_open.ws().auto_pong = false;
        let uid = half_open.persona.uid;
        let mut back = server.connector(wire).connect(half_open.persona.clone()).await.unwrap();
        let answer = back.report_full_state().await.unwrap();
        assert!(says_nothing(&answer), "{answer:?}");
        let close = half_open.ws().expect_close().await.unwrap();
        assert!(close.reason.contains("took over"), "{close:?}");
        assert_eq!(server.handle.agents().len(), 1);
        assert_eq!(server.snapshot(uid).sticky.uid_conflicts, 0);
    }

    /// R-ID-17: after a crash the count begins anew; the connection before is gone, so there is no other.
    async fn an_agent_that_lost_its_count_is_no_duplicate_once_its_connection_ended(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        for _ in 0..5 {
            agent.heartbeat().await.unwrap();
        }
        agent.vanish();
        if wire == Wire::WebSocket {
            server.until(uid, |agent| agent.disconnect.is_some()).await;
        }
        agent.persona.sequence_num = 0;
        agent.reconnect().await.unwrap();
        for _ in 0..10 {
            let answer = agent.report_full_state().await.unwrap();
            assert!(reassigned(&answer).is_none() && answer.error_response.is_none(), "{answer:?}");
        }
        assert_eq!(server.handle.agents().len(), 1);
        assert_eq!(server.snapshot(uid).sticky.uid_conflicts, 0);
    }
}

/// R-ID-16 by setting: the newest has the identity, and no ping is waited for.
#[tokio::test]
async fn by_setting_the_newest_of_one_credential_wins() {
    let server = TestServer::with(|setup| {
        setup.settings.duplicates = DuplicateSettings {
            same_credential: SameCredential::NewestWins,
            ping_timeout: Duration::from_secs(3600),
            ..DuplicateSettings::default()
        };
    })
    .await;
    let mut first = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = first.persona.uid;
    let mut second = server.connector(Wire::WebSocket).connect(cloned(&first.persona)).await.unwrap();
    let answer = second.report_full_state().await.unwrap();
    assert!(reassigned(&answer).is_none() && answer.error_response.is_none());
    first.ws().expect_close().await.unwrap();
    assert_eq!(server.health(uid).unwrap().status, "clone");
}

/// An agent of credential a on a WebSocket, and a clone that shows credential b.
async fn rivals(policy: OtherCredential, wire: Wire) -> (TestServer, ScriptedAgent, ScriptedAgent) {
    let tokens = StaticTokens::new(vec![StaticToken::new("a", "token-a"), StaticToken::new("b", "token-b")]);
    let server = TestServer::with(|setup| {
        setup.auth = Arc::new(tokens);
        setup.settings.duplicates =
            DuplicateSettings { other_credential: policy, ..DuplicateSettings::default() };
    })
    .await;
    let owner = server.connector(Wire::WebSocket).with_token("token-a");
    let (owner, _) = owner.start(Persona::new(1)).await.unwrap();
    let rival = server.connector(wire).with_token("token-b").connect(cloned(&owner.persona)).await.unwrap();
    (server, owner, rival)
}

on_both_transports! {
    /// R-ID-16, policy Flag: the message is refused and all else stays as it is.
    async fn another_credential_is_refused_and_flagged(wire: Wire) {
        let (server, mut owner, mut rival) = rivals(OtherCredential::Flag, wire).await;
        let uid = owner.persona.uid;
        for _ in 0..2 {
            bad_request(&rival.report_full_state().await.unwrap());
        }
        assert_eq!(server.refusal(RefusalReason::UidConflict).await.principal.as_deref(), Some("token:b"));
        let snapshot = server.until(uid, |agent| agent.sticky.uid_conflicts > 0).await;
        assert!(snapshot.sticky.last_uid_conflict.is_some());
        assert!(says_nothing(&owner.heartbeat().await.unwrap()));
        assert_eq!(server.health(uid).unwrap().status, "running");
        assert_eq!(server.handle.agents().len(), 1);
    }

    /// R-ID-15, policy Rekey.
    async fn another_credential_gets_an_identity_of_its_own(wire: Wire) {
        let (server, mut owner, mut rival) = rivals(OtherCredential::Rekey, wire).await;
        let answer = rival.report_full_state().await.unwrap();
        rival.persona.uid = reassigned(&answer).expect("an identity of its own");
        let answer = rival.heartbeat().await.unwrap();
        rival.obey(answer).await.unwrap();
        assert!(says_nothing(&owner.heartbeat().await.unwrap()));
        requires_two(&server, &owner, &rival);
        assert!(server.snapshot(owner.persona.uid).sticky.uid_conflicts > 0, "flagged all the same");
        server.refusal(RefusalReason::UidConflict).await;
    }

    /// R-ID-16, policy NewestWins.
    async fn another_credential_may_take_over_if_that_is_wanted(wire: Wire) {
        let (server, mut owner, mut rival) = rivals(OtherCredential::NewestWins, wire).await;
        let uid = owner.persona.uid;
        let answer = rival.report_full_state().await.unwrap();
        assert!(answer.error_response.is_none() && reassigned(&answer).is_none(), "{answer:?}");
        owner.ws().expect_close().await.unwrap();
        let snapshot = server.snapshot(uid);
        assert_eq!(snapshot.connection.unwrap().principal.to_string(), "token:b");
        assert!(snapshot.sticky.uid_conflicts > 0, "flagged all the same");
    }
}

/// R-ID-16, policy Reject: the connection ends, in the words of each transport.
#[tokio::test]
async fn another_credential_is_shown_out_if_that_is_wanted() {
    let (server, mut owner, mut rival) = rivals(OtherCredential::Reject, Wire::WebSocket).await;
    let message = rival.persona.full_state();
    rival.ws().send_message(&message).await.unwrap();
    assert_eq!(rival.ws().expect_close().await.unwrap().code, Some(1008));
    assert!(says_nothing(&owner.heartbeat().await.unwrap()));
    server.refusal(RefusalReason::UidConflict).await;

    let request =
        HttpRequest::opamp(&server.endpoint(), &cloned(&owner.persona).full_state()).bearer("token-b");
    assert_eq!(server.post(&request).await.status, 403);
    assert_eq!(server.health(owner.persona.uid).unwrap().status, "running");
}
