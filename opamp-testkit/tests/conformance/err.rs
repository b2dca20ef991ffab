//! R-ERR: error responses.

use opamp_proto::pb;
use opamp_proto::pb::server_error_response::Details;
use opamp_server::RefusalReason;
use opamp_server::session::CapabilityMismatch;

use super::common::*;

/// Protobuf that is none, each in its own way.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let valid = Persona::new(1).full_state().encode_to_vec();
    vec![
        ("no field number", vec![0x07]),
        ("all ones", vec![0xff; 64]),
        ("cut short", valid[..valid.len() - 1].to_vec()),
        ("wrong wire type", [&valid[..], &[0x28, 0x01]].concat()),
        ("a string that is not UTF-8", [&valid[..], &[0x2a, 0x03, 0x1a, 0x01, 0xff]].concat()),
        ("a length beyond the end", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a group that never ends", vec![0x0b, 0x08, 0x01]),
        (
            "a varint that never ends",
            vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ),
    ]
}

on_both_transports! {
    /// R-ERR-01, R-ERR-02, R-ERR-03, R-ERR-09 (A-07: status 400 over HTTP).
    async fn garbage_is_answered_with_bad_request_and_the_next_message_is_served(wire: Wire) {
        let server = TestServer::start().await;
        for (number, (what, bytes)) in (1..).zip(garbage()) {
            let mut persona = Persona::new(number);
            let answers = match wire {
                Wire::WebSocket => {
                    let mut ws = server.ws().await;
                    ws.exchange(&persona.full_state()).await.unwrap();
                    ws.send_binary([vec![0], bytes].concat()).await.unwrap();
                    let error = ws.receive().await.unwrap();
                    [error, ws.exchange(&persona.heartbeat()).await.unwrap()]
                }
                Wire::Http => {
                    let mut http = server.http().await;
                    http.exchange(&HttpRequest::opamp(&server.endpoint(), &persona.full_state())).await.unwrap();
                    let error = http.exchange(&HttpRequest::post(&server.endpoint(), bytes)).await.unwrap();
                    assert_eq!(error.status, 400, "{what}");
                    assert_eq!(error.header("content-type"), Some("application/x-protobuf"));
                    let good = HttpRequest::opamp(&server.endpoint(), &persona.heartbeat());
                    [error.message().unwrap(), http.exchange(&good).await.unwrap().message().unwrap()]
                }
            };
            bad_request(&answers[0]);
            assert!(says_nothing(&answers[1]), "{what}: no gap, because nothing of it was processed");
        }
        assert_eq!(server.rejected(RefusalReason::Malformed), garbage().len() as u64);
    }

    /// R-ERR-01, R-ERR-02, R-ERR-03: what decodes and breaks a MUST.
    async fn a_message_that_breaks_a_must_is_answered_with_bad_request(wire: Wire) {
        let server = TestServer::with(|setup| {
            setup.settings.session.capability_mismatch = CapabilityMismatch::Reject;
        })
        .await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let mut no_uid = agent.persona.clone().full_state();
        no_uid.instance_uid.clear();
        bad_request(&agent.exchange(&no_uid).await.unwrap());
        let mut no_bit = agent.persona.clone().full_state();
        no_bit.capabilities = 1;
        bad_request(&agent.exchange(&no_bit).await.unwrap());
        assert!(server.handle.agents().is_empty(), "a refused message makes no agent");
        assert!(says_nothing(&agent.report_full_state().await.unwrap()));
    }

    /// R-ERR-05.
    async fn bad_request_only_answers_a_message(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(restartable(1)).await.unwrap();
        let mut faulty = agent.persona.clone().full_state();
        faulty.instance_uid.clear();
        bad_request(&agent.exchange(&faulty).await.unwrap());
        if wire == Wire::WebSocket {
            assert_eq!(agent.ws().fence().await.unwrap(), [], "one message, one error");
        }
        for message in scenario(&server, &mut agent).await {
            assert!(message.error_response.is_none());
        }
    }
}

/// R-ERR-08: a full server says Unavailable and when to come back; other errors have no such advice.
#[tokio::test]
async fn a_full_server_says_unavailable_and_when_to_come_back() {
    let server = TestServer::with(|setup| setup.settings.agents_max = 1).await;
    let mut known = server.agent(Wire::WebSocket, Persona::new(1)).await;

    let mut newcomer = server.connector(Wire::WebSocket).connect(Persona::new(2)).await.unwrap();
    let answer = newcomer.report_full_state().await.unwrap();
    let refused = error(&answer);
    assert_eq!(refused.r#type, pb::ServerErrorResponseType::Unavailable as i32);
    let Some(Details::RetryInfo(info)) = &refused.details else { panic!("no retry_info") };
    assert!((15..=30).contains(&(info.retry_after_nanoseconds / 1_000_000_000)), "{info:?}");

    let response = server.post(&HttpRequest::opamp(&server.endpoint(), &Persona::new(3).full_state())).await;
    assert_eq!(response.status, 503);
    let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=30).contains(&seconds), "{seconds}");
    assert_eq!(server.refusal(RefusalReason::Unavailable).await.reason, RefusalReason::Unavailable);

    newcomer.ws().send_binary(vec![1]).await.unwrap();
    bad_request(&newcomer.ws().receive().await.unwrap());
    assert!(says_nothing(&known.heartbeat().await.unwrap()), "who is in, stays in");
}

/// R-ERR-08, before the upgrade: HTTP has words of its own for it.
#[tokio::test]
async fn a_server_at_its_limit_of_connections_refuses_upgrades_with_503() {
    let server = TestServer::with(|setup| setup.settings.connections_max = 1).await;
    let mut known = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let response = server.post(&Handshake::new(&server.endpoint()).request).await;
    assert_eq!(response.status, 503);
    let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=30).contains(&seconds), "{seconds}");
    server.refusal(RefusalReason::Unavailable).await;
    assert!(says_nothing(&known.heartbeat().await.unwrap()));

    // There is room again once the one has left.
    known.disconnect().await.unwrap();
    server.eventually(|| (server.handle.stats().websocket_active == 0).then_some(())).await.unwrap();
    server.agent(Wire::WebSocket, Persona::new(2)).await;
}

/// R-ERR-09 in reason: who sends nothing but garbage is shown out.
#[tokio::test]
async fn a_stream_of_garbage_ends_the_connection() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    for _ in 0..10 {
        ws.send_binary(vec![0, 0xff]).await.unwrap();
    }
    assert_eq!(ws.expect_close().await.unwrap().code, Some(1008));

    // A good message in between starts the count anew.
    let mut ws = server.ws().await;
    let mut persona = Persona::new(1);
    for _ in 0..4 {
        for _ in 0..9 {
            ws.send_binary(vec![0, 0xff]).await.unwrap();
            bad_request(&ws.receive().await.unwrap());
        }
        assert!(ws.exchange(&persona.heartbeat()).await.unwrap().error_response.is_none());
    }
}

/// R-ERR-09: the handshake that is none leaves the server unharmed, and says what was wrong.
#[tokio::test]
async fn a_faulty_upgrade_is_answered_with_a_reason() {
    let server = TestServer::start().await;
    let endpoint = server.endpoint();
    let good = Handshake::new(&endpoint).request;
    for (request, status) in [
        (good.clone().without("Upgrade"), 426),
        (good.clone().without("Connection"), 426),
        (good.clone().without("Sec-WebSocket-Key"), 400),
        (good.clone().replacing("Sec-WebSocket-Key", "short"), 400),
        (good.clone().without("Sec-WebSocket-Version"), 426),
        (good.clone().replacing("Sec-WebSocket-Version", "8"), 426),
        (good.clone().replacing("Upgrade", "h2c"), 426),
    ] {
        let response = server.post(&request).await;
        assert_eq!(response.status, status, "{:?}", request.headers);
        if status == 426 {
            assert_eq!(response.header("sec-websocket-version"), Some("13"));
        }
        assert!(!response.body.is_empty());
    }
    assert_eq!(server.rejected(RefusalReason::Protocol), 7);
    let listed = good.replacing("Connection", "keep-alive, Upgrade").replacing("Upgrade", "WebSocket");
    assert_eq!(server.post(&listed).await.status, 101);
}
