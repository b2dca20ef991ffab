//! What goes wrong on the way: one event each, with its class and what to do about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opamp_client::{Event, Failure, FailureKind, TlsProblem};
use opamp_proto::pb;
use opamp_server::{ServerSettings, StaticToken, StaticTokens};
use tokio::sync::Notify;

use crate::common::{Agent, TestServer, Unheard, builder, until};
use crate::stub::{HttpStub, Reply, ack, answer, status};

/// Asserts that exactly one failure of this kind is told, in one line that says what to do.
async fn told(agent: &Agent, kind: FailureKind, hint: &str) {
    let (found, text) = agent.failure().await;
    assert_eq!(found, kind, "{text}");
    assert!(text.contains(hint), "{text}");
    assert!(!text.contains('\n'), "{text}");
    // It waits now; nothing more comes of it.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let failures = agent.events.failures();
    assert!(failures.iter().all(|found| *found == kind), "{failures:?}");
    // A wait may be drawn as 0, and the next attempt fail as well.
    assert_eq!(failures.len() as u64, agent.client.stats().connects_failed, "one event per failure");
}

on_both_transports! {
    async fn nobody_listens(scheme) {
        let nobody = Unheard::new();
        let agent = Agent::start(builder(&nobody.url(scheme)));
        told(&agent, FailureKind::Refused, "check that the server runs").await;
    }

    async fn an_unknown_host(scheme) {
        let agent = Agent::start(builder(&format!("{scheme}://no-such-host.invalid:4320")));
        told(&agent, FailureKind::Dns, "check the host name").await;
    }

    async fn a_wrong_path(scheme) {
        let server = TestServer::start().await;
        let agent = Agent::start(builder(&format!("{scheme}://{}/elsewhere", server.address)));
        told(&agent, FailureKind::Status(404), "/v1/opamp").await;
    }

    async fn a_wrong_token(scheme) {
        let tokens = StaticTokens::new(vec![StaticToken::new("agent", "right")]);
        let server = TestServer::with(Arc::new(tokens), ServerSettings::default(), None).await;
        let agent = Agent::start(builder(&server.url(scheme)).bearer_token("wrong"));
        told(&agent, FailureKind::Auth, "check the token").await;
        let text = agent.events.all()[0].to_string();
        assert!(text.contains("401") && !text.contains("wrong"), "{text}");
        assert!(server.handle.agents().is_empty());
    }

    async fn a_server_that_answers_garbage(scheme) {
        let stub = HttpStub::start(|_, _| Reply::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec())).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        told(&agent, FailureKind::Protocol, "check that the endpoint is an OpAMP server").await;
    }

    async fn a_server_that_hangs_up(scheme) {
        let stub = HttpStub::start(|_, _| Reply::Hangup).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        let (kind, text) = agent.failure().await;
        assert!(matches!(kind, FailureKind::Closed | FailureKind::Protocol), "{text}");
    }

    async fn redirects_in_circles(scheme) {
        let stub = HttpStub::start(|number, _| {
            status("307 Temporary Redirect", &format!("location: /{}\r\n", number % 3), b"")
        }).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        told(&agent, FailureKind::Redirect, "where the server really is").await;
        assert!(stub.requests().len() <= 5, "{}", stub.requests().len());
    }

    async fn redirects_without_end(scheme) {
        let stub = HttpStub::start(|number, _| {
            status("308 Permanent Redirect", &format!("location: /{number}\r\n"), b"")
        }).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        told(&agent, FailureKind::Redirect, "more than 5 redirects").await;
    }

    async fn a_redirect_to_nowhere(scheme) {
        let stub = HttpStub::start(|_, _| status("302 Found", "", b"")).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        told(&agent, FailureKind::Redirect, "without a location").await;
    }

    async fn an_overloaded_server_says_when_to_come_back(scheme) {
        let stub = HttpStub::start(|_, _| status("503 Service Unavailable", "retry-after: 40\r\n", b"")).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        told(&agent, FailureKind::Throttled, "waits and comes back").await;
        agent.clock.advance(Duration::from_millis(39_999));
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert_eq!(stub.requests().len(), 1, "not a moment earlier");
        agent.clock.advance(Duration::from_millis(1_001));
        stub.request(1).await;
    }

    async fn a_date_to_come_back_at_is_understood(scheme) {
        // The clock of the agent shows 2023-11-14T22:13:20Z.
        let stub = HttpStub::start(|_, _| {
            status("429 Too Many Requests", "retry-after: Tue, 14 Nov 2023 22:14:20 GMT\r\n", b"")
        }).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        let event = agent.event("a failure", |event| event.failure().is_some()).await;
        let Event::ConnectFailed { retry_in, failure, .. } = event else { panic!("{event:?}") };
        assert_eq!(failure.retry_after, Some(Duration::from_secs(60)));
        assert!(retry_in.is_some_and(|wait| (60..=61).contains(&wait.as_secs())), "{retry_in:?}");
    }

    async fn what_the_server_says_in_text_is_passed_on(scheme) {
        let stub = HttpStub::start(|_, _| {
            status("400 Bad Request", "content-type: text/plain\r\n", b"tenant\x1b[31m missing")
        }).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Status(400));
        assert!(text.contains("tenant [31m missing"), "{text:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_with_the_wrong_certificate() {
    let server = TestServer::start().await;
    let tls = crate::tls::trusting(&opamp_testkit::certs::Authority::new("ca"));
    let agent = Agent::start(builder(&server.url("wss")).tls(tls));
    told(&agent, FailureKind::Tls(TlsProblem::NotTls), "use ws:// or http://").await;
}

#[tokio::test]
async fn a_poll_that_fails_later_is_told_once_and_the_agent_comes_back() {
    let stub =
        HttpStub::start(|number, _| if (1..=2).contains(&number) { Reply::Hangup } else { answer(&ack()) })
            .await;
    let agent = Agent::start(builder(&stub.url("http")));
    agent.connected().await;
    agent.advance(30);
    stub.request(2).await;
    agent.reconnect_until("it comes back", || stub.requests().len() >= 4).await;
    until("connected again", || agent.client.stats().is_connected).await;
    let events = agent.events.all();
    assert!(
        matches!(events[..], [Event::Connected { .. }, Event::Disconnected { .. }, Event::Connected { .. }]),
        "{events:?}"
    );
    assert_eq!(agent.client.stats().heartbeats_failed, 1);
    agent.advance(30);
    stub.request(4).await;
}

#[tokio::test]
async fn a_connection_closed_between_polls_is_no_event() {
    let stub = HttpStub::start(|_, _| {
        let Reply::Bytes(bytes) = answer(&ack()) else { unreachable!() };
        let text = [&bytes[..15], b"\r\nconnection: close", &bytes[15..]].concat();
        Reply::Bytes(text)
    })
    .await;
    let agent = Agent::start(builder(&stub.url("http")));
    for number in 0..5 {
        stub.request(number).await;
        until("answered", || agent.client.stats().messages_received > number as u64).await;
        agent.advance(30);
    }
    assert_eq!(agent.events.all().len(), 1, "{:?}", agent.events.all());
}

#[tokio::test]
async fn unavailable_in_the_body_of_an_answer_is_obeyed() {
    let stub = HttpStub::start(|number, _| {
        let info = pb::RetryInfo { retry_after_nanoseconds: 90_000_000_000 };
        let details = Some(pb::server_error_response::Details::RetryInfo(info));
        let error = pb::ServerErrorResponse { r#type: 2, error_message: "busy".into(), details };
        let unavailable = pb::ServerToAgent { error_response: Some(error), ..Default::default() };
        if number == 0 { answer(&unavailable) } else { answer(&ack()) }
    })
    .await;
    let agent = Agent::start(builder(&stub.url("http")));
    let (kind, text) = agent.failure().await;
    assert_eq!(kind, FailureKind::Throttled);
    assert!(text.contains("busy"), "{text}");
    agent.clock.advance(Duration::from_millis(89_999));
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stub.requests().len(), 1);
    agent.clock.advance(Duration::from_millis(1_001));
    let again = stub.request(1).await.message();
    assert!(again.agent_description.is_some(), "what it could not take comes again");
}

#[tokio::test]
async fn one_request_at_a_time_and_what_waits_follows_at_once() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let stub = HttpStub::start(move |number, _| match (number, answer(&ack())) {
        (1, Reply::Bytes(bytes)) => Reply::After(Arc::clone(&held), bytes),
        (_, reply) => reply,
    })
    .await;
    let agent = Agent::start(builder(&stub.url("http")));
    agent.connected().await;
    agent.advance(30);
    stub.request(1).await;
    for round in 0..5 {
        let config = opamp_client::EffectiveConfig::single(format!("{round}"));
        agent.client.set_effective_config(config).unwrap();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(stub.requests().len(), 2, "the poll has no answer yet");
    release.notify_one();
    let report = stub.request(2).await.message().effective_config.unwrap().config_map.unwrap();
    assert_eq!(&report.config_map[""].body[..], b"4", "at once, and once, without time passing");
    agent.received(3).await;
    assert_eq!(stub.requests().len(), 3);
    assert_eq!(stub.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn every_kind_of_failure_says_what_to_do() {
    for status in [400, 401, 403, 404, 405, 413, 418, 426, 429, 500, 502, 503] {
        assert!(Failure::from_status(status, None).hint().len() > 20);
    }
}
