//! R-THROT: throttling.

use std::time::Duration;

use opamp_proto::pb;
use opamp_proto::pb::server_error_response::Details;
use opamp_server::{RefusalReason, Throttle};

use super::common::*;

const RETRY_AFTER: Duration = Duration::from_secs(40);
/// At least the configured time, at most twice as long.
const SPREAD: std::ops::RangeInclusive<u64> = 40..=80;

fn overloaded(server: &TestServer) {
    server.handle.throttle(Some(Throttle { retry_after: RETRY_AFTER }));
}

/// The seconds to wait in an Unavailable over WebSocket.
fn unavailable(message: &pb::ServerToAgent) -> u64 {
    let refused = error(message);
    assert_eq!(refused.r#type, pb::ServerErrorResponseType::Unavailable as i32);
    let alone = pb::ServerToAgent {
        instance_uid: message.instance_uid.clone(),
        error_response: message.error_response.clone(),
        ..Default::default()
    };
    assert_eq!(*message, alone, "an error excludes every other field");
    let Some(Details::RetryInfo(info)) = &refused.details else { panic!("no retry_info in {refused:?}") };
    info.retry_after_nanoseconds / 1_000_000_000
}

/// The seconds to wait in a 503.
fn retry_after(response: &HttpResponse) -> u64 {
    assert_eq!(response.status, 503);
    response.header("retry-after").expect("Retry-After").parse().expect("a number of seconds")
}

/// R-THROT-01, R-THROT-03.
#[tokio::test]
async fn on_an_open_websocket_an_overloaded_server_says_unavailable_and_when_to_come_back() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = agent.persona.uid;
    overloaded(&server);
    for _ in 0..3 {
        agent.persona.health.status = "while throttled".to_owned();
        let answer = agent.report_full_state().await.unwrap();
        assert!(SPREAD.contains(&unavailable(&answer)), "{answer:?}");
    }
    assert_eq!(server.health(uid).unwrap().status, "running", "nothing of it was processed");
    assert_eq!(server.rejected(RefusalReason::Unavailable), 3);

    // Whoever comes back in time reports what was lost.
    server.handle.throttle(None);
    agent.reconnect().await.unwrap();
    let answer = agent.report_full_state().await.unwrap();
    assert!(answer.error_response.is_none());
    assert_eq!(server.health(uid).unwrap().status, "while throttled");
}

/// R-THROT-06, R-THROT-07: before the upgrade and on plain HTTP alike.
#[tokio::test]
async fn an_overloaded_server_answers_503_with_a_time_to_come_back() {
    let server = TestServer::start().await;
    let mut known = server.agent(Wire::Http, Persona::new(1)).await;
    overloaded(&server);
    let endpoint = server.endpoint();
    let requests = [
        Handshake::new(&endpoint).request,
        HttpRequest::opamp(&endpoint, &Persona::new(2).full_state()),
        HttpRequest::opamp(&endpoint, &known.persona.heartbeat()),
    ];
    for request in &requests {
        let seconds = retry_after(&server.post(request).await);
        assert!(SPREAD.contains(&seconds), "{seconds}");
    }
    assert!(!server.knows(Persona::new(2).uid));
    assert_eq!(server.rejected(RefusalReason::Unavailable), 3);

    server.handle.throttle(None);
    for request in &requests {
        let response = server.post(request).await;
        assert!([101, 200].contains(&response.status), "{}", response.status);
    }
    assert!(known.heartbeat().await.unwrap().error_response.is_none());
}

/// R-THROT-03, R-THROT-07: a fleet that is sent away together does not come back together.
#[tokio::test]
async fn the_times_to_come_back_are_spread() {
    let server = TestServer::start().await;
    overloaded(&server);
    let endpoint = server.endpoint();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..40 {
        let request = HttpRequest::opamp(&endpoint, &Persona::new(number).full_state());
        seen.insert(retry_after(&server.post(&request).await));
    }
    assert!(seen.len() > 5, "{seen:?}");
    assert!(seen.iter().all(|seconds| SPREAD.contains(seconds)), "{seen:?}");
}
