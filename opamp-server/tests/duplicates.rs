//! Two under one `instance_uid`, on both transports in all pairs: an agent that came back, or a second one.

#![allow(clippy::unwrap_used, reason = "support of tests")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{SinkExt as _, StreamExt as _};
use opamp_proto::{InstanceUid, pb};
use opamp_server::{
    AdmissionStage, AuthRequest, Authenticate, ConnectionSettingsOffer, Denied, Desired, Event,
    InsecureAcceptEveryone, Liveness, OtherCredential, Principal, PrincipalKind, RefusalReason,
    SameCredential, ServerSettings, StaticToken, StaticTokens, Transport,
};
use tokio_tungstenite::tungstenite::Message;

use common::{PATIENCE, TestServer, full, numbered, uid};

/// Settings under which a live socket has time to answer and a test has not to wait for a silent one.
fn settings(ping_timeout: Duration) -> ServerSettings {
    let mut settings = ServerSettings::default();
    settings.duplicates.ping_timeout = ping_timeout;
    settings
}

async fn patient() -> TestServer {
    TestServer::with(Arc::new(InsecureAcceptEveryone), settings(PATIENCE)).await
}

fn beat() -> pb::AgentToServer {
    pb::AgentToServer::default()
}

/// The identity a newcomer was told, in a message that holds nothing else.
fn told(answer: &pb::ServerToAgent) -> Option<InstanceUid> {
    let identification = answer.agent_identification.as_ref()?;
    assert!(answer.flags == 0 && answer.remote_config.is_none() && answer.error_response.is_none());
    assert_eq!(&answer.instance_uid[..], uid(1).as_bytes(), "addressed by the identity it came under");
    let fresh: InstanceUid = identification.new_instance_uid[..].try_into().unwrap();
    assert_ne!(fresh, uid(1));
    assert_eq!(fresh.as_bytes()[6] >> 4, 7, "a version 7 UUID (R-ID-10)");
    Some(fresh)
}

fn description(name: &str) -> pb::AgentToServer {
    let value = pb::any_value::Value::StringValue(name.into());
    let attribute =
        pb::KeyValue { key: "service.name".into(), value: Some(pb::AnyValue { value: Some(value) }) };
    let description = pb::AgentDescription { identifying_attributes: vec![attribute], ..Default::default() };
    pb::AgentToServer { agent_description: Some(description), ..full() }
}

/// R-ID-14, R-ID-15, R-ID-16.
#[tokio::test]
async fn a_second_agent_beside_a_live_socket_is_told_another_identity() {
    let server = patient().await;
    let mut first = server.connect(None).await;
    first.say(uid(1), description("first")).await;
    let first = first.keep_alive();

    let mut second = server.connect(None).await;
    let fresh = told(&second.say(uid(1), description("second")).await).unwrap();
    assert_eq!(
        told(&second.say(uid(1), full()).await),
        Some(fresh),
        "the same to the same, without a new look"
    );
    let answer = second.say(fresh, beat()).await;
    assert_eq!(answer.flags, 1, "under its own identity nobody knows it yet");
    second.say(fresh, description("second")).await;

    let polled = server.poll(None, &numbered(uid(1), 77, full())).await;
    let third = told(&polled.message.unwrap()).expect("the same over HTTP");
    assert!(third != fresh);

    let (mut first, received) = first.stop().await;
    assert!(received.is_empty(), "the first notices nothing: {received:?}");
    assert_eq!(
        first.say(uid(1), beat()).await.flags,
        0,
        "no gap: nothing of the others was taken for its own"
    );
    let snapshot = server.handle.agent(&uid(1)).unwrap();
    assert_eq!(snapshot.sticky.uid_conflicts, 2);
    assert!(snapshot.sticky.last_uid_conflict.is_some());
    let bytes = snapshot.state.part(opamp_proto::Part::AgentDescription).unwrap().clone();
    assert!(String::from_utf8_lossy(&bytes).contains("first"));
    assert_eq!(server.handle.agents().len(), 2);
    let refusal = server.event("a refusal", |event| match event {
        Event::Refused(refusal) => Some(refusal),
        _ => None,
    });
    let refusal = refusal.await;
    assert_eq!(refusal.reason, RefusalReason::UidConflict);
    assert!(refusal.detail.contains(&fresh.to_string()));
    assert_eq!(server.handle.stats().rekeyed, 3);
}

/// R-ID-17: no wait, although the old socket is open and nobody reads it.
#[tokio::test]
async fn an_agent_that_goes_on_counting_takes_over_at_once() {
    let server = patient().await;
    let mut first = server.connect(None).await;
    first.say(uid(1), full()).await;
    let mut second = server.connect(None).await;
    let begin = Instant::now();
    second.send_numbered(uid(1), 2, full()).await;
    assert!(told(&second.receive().await).is_none());
    let polled = server.poll(None, &numbered(uid(1), 3, beat())).await.message.unwrap();
    assert!(told(&polled).is_none());
    let mut third = server.connect(None).await;
    third.send_numbered(uid(1), 4, beat()).await;
    assert!(told(&third.receive().await).is_none());
    assert!(begin.elapsed() < PATIENCE);
    let snapshot = server.handle.agent(&uid(1)).unwrap();
    assert_eq!((snapshot.sticky.uid_conflicts, snapshot.sticky.gaps), (0, 0));
    assert_eq!(snapshot.connection.unwrap().transport, Transport::WebSocket);
}

/// R-ID-17: it counts from the start again, and the old socket ended with the process.
#[tokio::test]
async fn an_agent_that_was_killed_and_comes_back_is_no_duplicate() {
    for round in 0..20 {
        let server = patient().await;
        let mut first = server.connect(None).await;
        first.say(uid(1), full()).await;
        first.say(uid(1), beat()).await;
        if round % 2 == 0 {
            first.send(uid(1), beat()).await; // on its way when it dies
        }
        drop(first);
        let answer = if round % 4 < 2 {
            let mut second = server.connect(None).await;
            second.say(uid(1), full()).await
        } else {
            server.poll(None, &numbered(uid(1), 1, full())).await.message.unwrap()
        };
        assert!(told(&answer).is_none(), "round {round}");
        assert_eq!(server.handle.agent(&uid(1)).unwrap().sticky.uid_conflicts, 0);
    }
}

/// R-ID-17: a cut that only the agent noticed.
#[tokio::test]
async fn a_silent_socket_is_replaced_after_the_ping_timeout() {
    for http in [false, true] {
        let timeout = Duration::from_millis(200);
        let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings(timeout)).await;
        let mut silent = server.connect(None).await;
        silent.say(uid(1), full()).await;
        let begin = Instant::now();
        let mut second = server.connect(None).await;
        let answer = if http {
            server.poll(None, &numbered(uid(1), 50, full())).await.message.unwrap()
        } else {
            second.send_numbered(uid(1), 50, full()).await;
            second.receive().await
        };
        assert!(told(&answer).is_none() && begin.elapsed() >= timeout);
        let snapshot = server.handle.agent(&uid(1)).unwrap();
        assert_eq!(snapshot.sticky.uid_conflicts, 0);
        let transport = if http { Transport::Http } else { Transport::WebSocket };
        assert_eq!(snapshot.connection.unwrap().transport, transport);
        assert_eq!(silent.close_code().await, 1000, "its old socket closes");
    }
}

#[tokio::test]
async fn a_poller_that_meets_a_socket_gives_way_and_is_told_when_it_comes_again() {
    let server = patient().await;
    let first = server.poll(None, &numbered(uid(1), 1, full())).await.message.unwrap();
    assert!(told(&first).is_none());
    let mut second = server.connect(None).await;
    second.send_numbered(uid(1), 100, full()).await;
    assert!(told(&second.receive().await).is_none(), "nobody can ask a poller whether it lives");
    let second = second.keep_alive();
    let again = server.poll(None, &numbered(uid(1), 2, beat())).await.message.unwrap();
    let fresh = told(&again).expect("the socket lives");
    let repeated = server.poll(None, &numbered(uid(1), 3, beat())).await.message.unwrap();
    assert_eq!(told(&repeated), Some(fresh), "its answer may have been lost");
    second.stop().await;
}

#[tokio::test]
async fn two_agents_that_poll_in_turns_are_told_apart() {
    let server = patient().await;
    let mut identities = Vec::new();
    for round in 0..4 {
        let first = server.poll(None, &numbered(uid(1), 10 + round, full())).await.message.unwrap();
        assert!(told(&first).is_none(), "the one that was there first stays");
        let second = server.poll(None, &numbered(uid(1), 500 + round, full())).await.message.unwrap();
        identities.extend(told(&second));
    }
    assert_eq!(identities.len(), 3, "after both took turns");
    assert!(identities.iter().all(|identity| *identity == identities[0]), "one identity for one newcomer");
    let clean = server.poll(None, &numbered(uid(1), 14, beat())).await.message.unwrap();
    assert_eq!(clean.flags, 1, "what the two said is mixed up: the one that stays is asked for all of it");
}

#[tokio::test]
async fn an_agent_that_polls_restarts_and_repeats_itself_is_one_agent() {
    let server = patient().await;
    for number in [1, 2, 3, 3, 4, 7, 8, 1, 2, 2, 3, 4, 5, 6, 1, 2] {
        let answer = server.poll(None, &numbered(uid(1), number, full())).await.message.unwrap();
        assert!(told(&answer).is_none(), "{number}");
    }
    assert_eq!(server.handle.agent(&uid(1)).unwrap().sticky.uid_conflicts, 0);
}

#[tokio::test]
async fn newest_wins_where_the_settings_say_so() {
    let mut settings = settings(PATIENCE);
    settings.duplicates.same_credential = SameCredential::NewestWins;
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let mut first = server.connect(None).await;
    first.say(uid(1), full()).await;
    let first = first.keep_alive();
    let mut second = server.connect(None).await;
    second.send_numbered(uid(1), 70, full()).await;
    assert!(told(&second.receive().await).is_none());
    first.stop().await;
}

/// A newcomer that waits costs the others on its socket nothing.
#[tokio::test]
async fn other_agents_are_served_while_a_newcomer_waits() {
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings(Duration::from_secs(3))).await;
    let mut silent = server.connect(None).await;
    silent.say(uid(1), full()).await;
    let mut shared = server.connect(None).await;
    shared.send_numbered(uid(1), 90, full()).await;
    let begin = Instant::now();
    for number in 2..20 {
        shared.send_numbered(uid(number), 1, full()).await;
        assert_eq!(&shared.receive().await.instance_uid[..], uid(number).as_bytes());
    }
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(&shared.receive().await.instance_uid[..], uid(1).as_bytes(), "and then it is answered");
}

#[tokio::test]
async fn messages_that_wait_are_answered_in_order_and_there_is_a_most_of_them() {
    let mut settings = settings(Duration::from_millis(300));
    settings.duplicates.waiting_max = 3;
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let mut silent = server.connect(None).await;
    silent.say(uid(1), full()).await;
    let mut second = server.connect(None).await;
    for number in 90..95 {
        second.send_numbered(uid(1), number, full()).await;
    }
    for _ in 0..2 {
        let error = second.receive().await.error_response.expect("more than may wait");
        assert_eq!(error.r#type, pb::ServerErrorResponseType::Unavailable as i32);
    }
    for _ in 0..3 {
        assert!(second.receive().await.error_response.is_none());
    }
    let snapshot = server.handle.agent(&uid(1)).unwrap();
    assert_eq!((snapshot.sequence_num.0, snapshot.sticky.gaps), (92, 1));
}

/// Nobody throttles, so nobody counts as throttled.
#[tokio::test]
async fn a_poller_whose_identity_is_taken_over_again_and_again_is_sent_away_as_what_it_is() {
    let server = patient().await;
    let mut owner = server.connect(None).await;
    owner.say(uid(1), full()).await;
    let message = numbered(uid(1), 500, full());
    let take_overs = async {
        for number in 2..5 {
            let asked = owner.socket.next().await;
            // Nobody reads on, so the ping is not answered and it is still being found out.
            assert!(matches!(asked, Some(Ok(Message::Ping(_)))), "{asked:?}");
            let mut next = server.connect(None).await;
            next.send_numbered(uid(1), number, full()).await;
            assert!(told(&next.receive().await).is_none());
            owner = next;
        }
    };
    let (polled, ()) = tokio::join!(server.poll(None, &message), take_overs);
    assert_eq!(polled.status, 503);
    assert!(polled.retry_after.is_some());
    let rejected = server.handle.stats().admission.rejected;
    assert_eq!(rejected[AdmissionStage::Throttle.index()], 0);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_newcomer() {
    let server = patient().await;
    let mut silent = server.connect(None).await;
    silent.say(uid(1), full()).await;
    let mut second = server.connect(None).await;
    second.send_numbered(uid(1), 90, full()).await;
    let message = numbered(uid(1), 190, full());
    let polling = server.poll(None, &message);
    let drained = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.handle.drain(Duration::from_secs(10)).await
    };
    let begin = Instant::now();
    let (polled, _) = tokio::join!(polling, drained);
    assert_eq!(polled.status, 503);
    assert_eq!(second.close_code().await, 1001);
    assert!(begin.elapsed() < PATIENCE);
}

#[tokio::test]
async fn the_good_bye_of_a_connection_that_was_followed_ends_nothing() {
    let server = patient().await;
    let mut old = server.connect(None).await;
    old.say(uid(1), full()).await;
    old.say(uid(2), full()).await; // keeps the old socket open
    let mut new = server.connect(None).await;
    new.send_numbered(uid(1), 2, beat()).await;
    new.receive().await;
    let bye = pb::AgentToServer { agent_disconnect: Some(pb::AgentDisconnect {}), ..Default::default() };
    old.send_numbered(uid(1), 9, bye).await;
    assert_eq!(&old.receive().await.instance_uid[..], uid(1).as_bytes());
    let snapshot = server.handle.agent(&uid(1)).unwrap();
    assert_eq!(snapshot.liveness, Liveness::Connected);
    assert_eq!((snapshot.sequence_num.0, snapshot.sticky.uid_conflicts), (2, 0));
}

async fn of_two_tokens(other_credential: OtherCredential) -> TestServer {
    let tokens = StaticTokens::new(vec![StaticToken::new("a", "one"), StaticToken::new("b", "two")]);
    let mut settings = settings(PATIENCE);
    settings.duplicates.other_credential = other_credential;
    TestServer::with(Arc::new(tokens), settings).await
}

/// R-ID-16: each of the four answers, on both transports; the incumbent is flagged in every case.
#[tokio::test]
async fn a_newcomer_with_other_credentials_is_treated_as_the_settings_say_and_always_flagged() {
    for policy in
        [OtherCredential::Flag, OtherCredential::NewestWins, OtherCredential::Reject, OtherCredential::Rekey]
    {
        let server = of_two_tokens(policy).await;
        let mut owner = server.connect(Some("one")).await;
        owner.say(uid(1), full()).await;
        // A number that would follow proves nothing with other credentials.
        let polled = server.poll(Some("two"), &numbered(uid(1), 2, full())).await;
        let mut thief = server.connect(Some("two")).await;
        let number = if policy == OtherCredential::NewestWins { 3 } else { 2 };
        thief.send_numbered(uid(1), number, full()).await;
        let answer = thief.receive().await;
        match policy {
            OtherCredential::Flag => {
                assert_eq!(polled.status, 200);
                assert!(polled.message.unwrap().error_response.is_some() && answer.error_response.is_some());
                thief.say(uid(7), full()).await; // the socket stays open
            }
            OtherCredential::NewestWins => {
                assert!(told(&polled.message.unwrap()).is_none() && answer.error_response.is_none());
                let connection = server.handle.agent(&uid(1)).unwrap().connection.unwrap();
                assert_eq!(connection.principal.to_string(), "token:b");
                assert_eq!(owner.close_code().await, 1000);
            }
            OtherCredential::Reject => {
                assert_eq!(polled.status, 403);
                assert!(answer.error_response.is_some());
                assert_eq!(thief.close_code().await, 1008);
            }
            OtherCredential::Rekey => {
                let fresh = told(&answer).expect("an identity of its own");
                assert!(told(&polled.message.unwrap()).is_some());
                thief.say(fresh, full()).await;
                assert_eq!(owner.say(uid(1), beat()).await.flags, 0, "the owner notices nothing");
            }
        }
        let flagged = server.handle.agent(&uid(1)).unwrap().sticky.uid_conflicts;
        let expected = if policy == OtherCredential::NewestWins { 1 } else { 2 };
        assert_eq!(flagged, expected, "{policy:?}");
        let rejected = server.handle.stats().frames_rejected[RefusalReason::UidConflict.index()];
        assert_eq!(rejected, u64::from(expected), "{policy:?}");
    }
}

fn offer_of(token: Option<&str>) -> ConnectionSettingsOffer {
    let header = |token: &str| pb::Header { key: "authorization".into(), value: format!("Bearer {token}") };
    let headers = token.map(|token| pb::Headers { headers: vec![header(token)] });
    let opamp = pb::OpAmpConnectionSettings {
        destination_endpoint: "wss://example.com/v1/opamp".into(),
        headers,
        ..Default::default()
    };
    let telemetry = pb::TelemetryConnectionSettings {
        destination_endpoint: "https://example.com/v1/logs".into(),
        ..Default::default()
    };
    ConnectionSettingsOffer::new(pb::ConnectionSettingsOffers {
        opamp: Some(opamp),
        own_logs: Some(telemetry),
        ..Default::default()
    })
    .unwrap()
}

/// R-CONN-04, R-CONN-09: it was told its new credentials by this very server.
#[tokio::test]
async fn an_agent_that_comes_with_the_credentials_it_was_offered_is_that_agent() {
    for http in [false, true] {
        let server = of_two_tokens(OtherCredential::Flag).await;
        server.poll(Some("one"), &numbered(uid(1), 1, full())).await;
        server.handle.set_desired(&uid(1), Desired::connection_settings(1, offer_of(Some("two"))));
        let early = server.poll(Some("two"), &numbered(uid(1), 2, full())).await;
        assert!(early.message.unwrap().error_response.is_some(), "it was not offered yet");
        let offered = server.poll(Some("one"), &numbered(uid(1), 2, beat())).await.message.unwrap();
        assert!(offered.connection_settings.is_some());
        let answer = if http {
            server.poll(Some("two"), &numbered(uid(1), 3, full())).await.message.unwrap()
        } else {
            let mut moved = server.connect(Some("two")).await;
            moved.send_numbered(uid(1), 3, full()).await;
            moved.receive().await
        };
        assert!(answer.error_response.is_none() && answer.agent_identification.is_none());
        let snapshot = server.handle.agent(&uid(1)).unwrap();
        assert_eq!(snapshot.connection.unwrap().principal.to_string(), "token:b");
        assert_eq!(snapshot.sticky.uid_conflicts, 1, "only the early one");
    }
}

/// Settings for a whole fleet have one hash: knowing it proves nothing.
#[tokio::test]
async fn the_hash_of_an_offer_opens_nothing() {
    let server = of_two_tokens(OtherCredential::Flag).await;
    for (generation, token) in [(1, None), (2, Some("three"))] {
        let offer = offer_of(token);
        server.poll(Some("one"), &numbered(uid(1), 10 * generation, full())).await;
        server.handle.set_desired(&uid(1), Desired::connection_settings(generation, offer.clone()));
        let offered = server.poll(Some("one"), &numbered(uid(1), 10 * generation + 1, full())).await;
        assert!(offered.message.unwrap().connection_settings.is_some());
        for status in [pb::ConnectionSettingsStatuses::Applying, pb::ConnectionSettingsStatuses::Applied] {
            let status = pb::ConnectionSettingsStatus {
                last_connection_settings_hash: offer.hash().to_bytes(),
                status: status as i32,
                ..Default::default()
            };
            let message = pb::AgentToServer { connection_settings_status: Some(status), ..full() };
            let thief = server.poll(Some("two"), &numbered(uid(1), 10 * generation + 2, message)).await;
            assert!(thief.message.unwrap().error_response.is_some());
        }
    }
    let principal = server.handle.agent(&uid(1)).unwrap().connection.unwrap().principal.clone();
    assert_eq!(principal.to_string(), "token:a");
}

/// Peers from before OpAMP 0.7: no header, in neither direction, and only if the server is set to it.
#[tokio::test]
async fn a_headerless_peer_is_served_without_headers_if_the_settings_allow_it() {
    use prost::Message as _;
    let settings = ServerSettings { accept_headerless: true, ..ServerSettings::default() };
    let lenient = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let strict = TestServer::start().await;
    for (server, served) in [(&lenient, true), (&strict, false)] {
        let mut agent = server.connect(None).await;
        for number in 1..3 {
            let bytes = numbered(uid(1), number, full()).encode_to_vec();
            agent.socket.send(Message::Binary(bytes.into())).await.unwrap();
            let Some(Message::Binary(answer)) = agent.next().await else { panic!("an answer") };
            let (header, payload) =
                if served { (None, &answer[..]) } else { (Some(&answer[0]), &answer[1..]) };
            assert!(header.is_none_or(|header| *header == 0));
            let answer = pb::ServerToAgent::decode(payload).unwrap();
            assert_eq!(answer.error_response.is_none(), served);
        }
        let mut modern = server.connect(None).await;
        assert!(modern.say(uid(2), full()).await.error_response.is_none());
    }
}

/// Takes a token that begins with "cert" for the name on a verified client certificate.
struct TokenOrCertificate;

impl Authenticate for TokenOrCertificate {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(async move {
            let token = request.bearer()?;
            let kind =
                if token.starts_with("cert") { PrincipalKind::Certificate } else { PrincipalKind::Token };
            Ok(Principal { kind, id: token.to_owned() })
        })
    }
}

/// R-ID-14, R-CONN-09: what the whole fleet may have been given opens no agent that a certificate is bound to.
#[tokio::test]
async fn a_token_that_was_offered_takes_over_no_agent_with_a_certificate() {
    let server = TestServer::with(Arc::new(TokenOrCertificate), settings(PATIENCE)).await;
    let mut owner = server.connect(Some("cert-1")).await;
    owner.say(uid(1), full()).await;
    server.handle.set_desired(&uid(1), Desired::connection_settings(1, offer_of(Some("fleet"))));
    assert!(owner.receive().await.connection_settings.is_some());
    for conflicts in [2, 4] {
        let polled = server.poll(Some("fleet"), &numbered(uid(1), 2, full())).await;
        assert!(polled.message.unwrap().error_response.is_some());
        let mut thief = server.connect(Some("fleet")).await;
        thief.send_numbered(uid(1), 2, full()).await;
        assert!(thief.receive().await.error_response.is_some());
        let snapshot = server.handle.agent(&uid(1)).unwrap();
        assert_eq!(snapshot.sticky.uid_conflicts, conflicts);
        assert_eq!(snapshot.connection.unwrap().principal.to_string(), "certificate:cert-1");
        let applied = pb::ConnectionSettingsStatus {
            last_connection_settings_hash: offer_of(Some("fleet")).hash().to_bytes(),
            status: pb::ConnectionSettingsStatuses::Applied as i32,
            ..Default::default()
        };
        let report = pb::AgentToServer { connection_settings_status: Some(applied), ..beat() };
        assert!(owner.say(uid(1), report).await.error_response.is_none(), "the owner notices nothing");
    }
}

/// R-ID-15, R-ID-16: they are worth what the same credentials are.
#[tokio::test]
async fn whoever_has_the_offered_token_too_does_not_drive_the_agent_from_its_socket() {
    let server = of_two_tokens(OtherCredential::Flag).await;
    let mut owner = server.connect(Some("one")).await;
    owner.say(uid(1), full()).await;
    server.handle.set_desired(&uid(1), Desired::connection_settings(1, offer_of(Some("two"))));
    assert!(owner.receive().await.connection_settings.is_some());
    let owner = owner.keep_alive();
    let polled = server.poll(Some("two"), &numbered(uid(1), 70, full())).await;
    assert!(told(&polled.message.unwrap()).is_some(), "the owner is there");
    let (mut owner, _) = owner.stop().await;
    let principal = server.handle.agent(&uid(1)).unwrap().connection.unwrap().principal.clone();
    assert_eq!(principal.to_string(), "token:a");

    // The agent could not use them: whoever comes with them is somebody else.
    let failed = pb::ConnectionSettingsStatus {
        last_connection_settings_hash: offer_of(Some("two")).hash().to_bytes(),
        status: pb::ConnectionSettingsStatuses::Failed as i32,
        error_message: "no such host".into(),
    };
    owner.say(uid(1), pb::AgentToServer { connection_settings_status: Some(failed), ..beat() }).await;
    let polled = server.poll(Some("two"), &numbered(uid(1), 3, full())).await;
    assert!(polled.message.unwrap().error_response.is_some());
}

/// R-ID-17: a gateway's socket answers for whoever was behind it.
#[tokio::test]
async fn an_agent_that_restarts_behind_a_gateway_and_comes_by_another_socket_is_no_duplicate() {
    let server = patient().await;
    let mut first = server.connect(None).await;
    for number in 1..4 {
        first.say(uid(number), full()).await;
    }
    let first = first.keep_alive();
    let mut second = server.connect(None).await;
    let begin = Instant::now();
    second.send_numbered(uid(1), 1, full()).await;
    assert!(told(&second.receive().await).is_none() && begin.elapsed() < PATIENCE);
    let polled = server.poll(None, &numbered(uid(2), 1, full())).await.message.unwrap();
    assert!(polled.agent_identification.is_none(), "nor by another transport");
    for number in 1..3 {
        assert_eq!(server.handle.agent(&uid(number)).unwrap().sticky.uid_conflicts, 0);
    }
    let (mut first, _) = first.stop().await;
    assert_eq!(first.say(uid(3), beat()).await.error_response, None, "the others stay where they are");
}

#[tokio::test]
async fn what_a_newcomer_was_told_is_not_told_to_the_one_it_was_taken_for() {
    for left in [false, true] {
        let server = patient().await;
        let mut incumbent = server.connect(None).await;
        incumbent.say(uid(1), full()).await;
        let alive = incumbent.keep_alive();
        let mut gateway = server.connect(None).await;
        gateway.send_numbered(uid(1), 70, full()).await;
        let fresh = told(&gateway.receive().await).unwrap();
        let (incumbent, _) = alive.stop().await;
        if left {
            drop(incumbent);
            let gone = |handle: &opamp_server::ServerHandle| {
                handle.agent(&uid(1)).is_some_and(|agent| agent.liveness == Liveness::Disconnected)
            };
            server.until("it is gone", gone).await;
        } else {
            // The newcomer goes on elsewhere, and then the agent itself comes by the gateway.
            server.poll(None, &numbered(fresh, 71, full())).await;
        }
        gateway.send_numbered(uid(1), 2, full()).await;
        let answer = gateway.receive().await;
        assert!(answer.agent_identification.is_none(), "{left}: {answer:?}");
        assert_eq!(server.handle.agent(&uid(1)).unwrap().sequence_num.0, 2, "it was served");
    }
}
