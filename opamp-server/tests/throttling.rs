//! Sending agents away: when the application says so, and where a bound is reached.

#![allow(clippy::unwrap_used, reason = "support of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::pb;
use opamp_server::{InsecureAcceptEveryone, RefusalReason, ServerSettings, Throttle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use common::{TestServer, full, numbered, uid};

/// Status and `Retry-After` of an upgrade.
async fn upgrade(server: &TestServer) -> (u16, Option<u64>) {
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let request = "GET /v1/opamp HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = vec![0; 1_024];
    let read = stream.read(&mut response).await.unwrap();
    let head = String::from_utf8_lossy(&response[..read]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok()))
}

fn retry_info(answer: &pb::ServerToAgent) -> Option<Duration> {
    let error = answer.error_response.as_ref()?;
    assert_eq!(error.r#type, pb::ServerErrorResponseType::Unavailable as i32);
    assert!(answer.flags == 0 && answer.remote_config.is_none());
    let Some(pb::server_error_response::Details::RetryInfo(info)) = &error.details else {
        panic!("retry information");
    };
    Some(Duration::from_nanos(info.retry_after_nanoseconds))
}

/// R-THROT-01, R-THROT-03, R-THROT-06, R-THROT-07.
#[tokio::test]
async fn a_throttled_server_sends_everybody_away_on_both_transports_and_processes_nothing() {
    let server = TestServer::start().await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    server.handle.throttle(Some(Throttle { retry_after: Duration::from_secs(40) }));
    assert_eq!(server.handle.throttled().unwrap().retry_after, Duration::from_secs(40));

    let mut waits = Vec::new();
    for number in 0..10 {
        let unhealthy = pb::ComponentHealth { last_error: "lost".into(), ..Default::default() };
        let report = pb::AgentToServer { health: Some(unhealthy), ..Default::default() };
        waits.push(retry_info(&agent.say(uid(1), report.clone()).await).expect("sent away"));
        let polled = server.poll(None, &numbered(uid(2), number, report)).await;
        assert_eq!(polled.status, 503);
        waits.push(Duration::from_secs(polled.retry_after.unwrap()));
        let (status, retry_after) = upgrade(&server).await;
        assert_eq!(status, 503);
        waits.push(Duration::from_secs(retry_after.unwrap()));
    }
    let (earliest, latest) = (Duration::from_secs(40), Duration::from_secs(81));
    assert!(waits.iter().all(|wait| (earliest..=latest).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait != waits[0]), "they do not all come back together");
    let snapshot = server.handle.agent(&uid(1)).unwrap();
    assert_eq!(snapshot.sequence_num.0, 1);
    assert!(server.handle.agent(&uid(2)).is_none());
    let stats = server.handle.stats();
    assert_eq!((stats.throttled, stats.frames_rejected[RefusalReason::Unavailable.index()]), (30, 30));

    let bye = pb::AgentToServer { agent_disconnect: Some(pb::AgentDisconnect {}), ..Default::default() };
    assert!(agent.say(uid(1), bye).await.error_response.is_none(), "agents may leave");
    server.handle.throttle(None);
    assert_eq!(upgrade(&server).await.0, 101);
    assert_eq!(server.poll(None, &numbered(uid(2), 1, full())).await.status, 200);
    assert!(agent.say(uid(1), full()).await.error_response.is_none());
}

#[tokio::test]
async fn where_a_bound_is_reached_the_answers_are_the_same() {
    let settings = ServerSettings {
        connections_max: 1,
        agents_max: 1,
        retry_after: Duration::from_secs(7),
        ..ServerSettings::default()
    };
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    let within = |wait: Duration| (Duration::from_secs(7)..=Duration::from_secs(15)).contains(&wait);
    let (status, retry_after) = upgrade(&server).await;
    assert!(status == 503 && within(Duration::from_secs(retry_after.unwrap())));
    let polled = server.poll(None, &numbered(uid(2), 1, full())).await;
    assert!(polled.status == 503 && within(Duration::from_secs(polled.retry_after.unwrap())));
    let answer = agent.say(uid(3), full()).await;
    assert!(within(retry_info(&answer).unwrap()));
    assert!(agent.say(uid(1), full()).await.error_response.is_none(), "who is there stays");
}

/// R-THROT-07: who stays on its socket need not be let in again.
#[tokio::test]
async fn how_many_are_throttled_does_not_lengthen_what_the_application_set() {
    let settings = ServerSettings { accept_rate: 1, ..ServerSettings::default() };
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    server.handle.throttle(Some(Throttle { retry_after: Duration::from_secs(2) }));
    for _ in 0..30 {
        let wait = retry_info(&agent.say(uid(1), full()).await).expect("sent away");
        assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&wait), "{wait:?}");
    }
    let polled = server.poll(None, &numbered(uid(2), 1, full())).await;
    assert!(polled.status == 503 && (2..=4).contains(&polled.retry_after.unwrap()));
}
