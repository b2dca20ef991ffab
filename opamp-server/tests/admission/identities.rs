//! What one identity may take.

use std::sync::Arc;
use std::time::Duration;

use opamp_server::{
    AdmissionStage, InsecureAcceptEveryone, RefusalReason, ServerSettings, StaticToken, StaticTokens,
};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;

use super::common::{TestServer, full, numbered, uid};
use super::{answered, poll_head, said, upgrade_request};

async fn limited(limit: usize) -> TestServer {
    let tokens = ["one", "two"].map(|name| StaticToken::new(name, &format!("secret-{name}")));
    let settings = ServerSettings {
        connections_per_identity_max: Some(limit),
        retry_after: Duration::from_secs(7),
        ..ServerSettings::default()
    };
    TestServer::with(Arc::new(StaticTokens::new(tokens.into())), settings).await
}

const ONE: Option<&str> = Some("secret-one");
const TWO: Option<&str> = Some("secret-two");

async fn upgrade(server: &TestServer, token: Option<&str>) -> (u16, Option<Duration>) {
    answered(&mut said(server, upgrade_request(token)).await).await
}

/// R-THROT-06, R-THROT-07: on both transports.
#[tokio::test]
async fn an_identity_with_as_many_connections_as_it_may_have_is_answered_429_and_others_are_served() {
    let server = limited(2).await;
    let (first, second) = (server.connect(ONE).await, server.connect(ONE).await);
    let (status, retry_after) = upgrade(&server, ONE).await;
    assert_eq!(status, 429);
    assert!((7..=15).contains(&retry_after.unwrap().as_secs()), "{retry_after:?}");
    let polled = server.poll(ONE, &numbered(uid(1), 1, full())).await;
    assert!(polled.status == 429 && (7..=15).contains(&polled.retry_after.unwrap()), "{polled:?}");
    let mut other = server.connect(TWO).await;
    other.say(uid(2), full()).await;
    assert_eq!(server.poll(TWO, &numbered(uid(3), 1, full())).await.status, 200);

    let stats = server.handle.stats();
    assert_eq!(stats.admission.rejected[AdmissionStage::Identity.index()], 2);
    assert_eq!(stats.frames_rejected[RefusalReason::RateLimited.index()], 2);
    drop(first);
    server.until("its place is free", |handle| handle.stats().websocket_active == 2).await;
    assert_eq!(server.poll(ONE, &numbered(uid(1), 1, full())).await.status, 200);
    let third = server.connect(ONE).await;
    assert_eq!(upgrade(&server, ONE).await.0, 429);
    drop((second, third));
}

#[tokio::test]
async fn a_poll_counts_for_as_long_as_it_is_answered() {
    let server = limited(1).await;
    let message = numbered(uid(1), 1, full()).encode_to_vec();
    let mut polling = said(&server, poll_head(ONE, message.len())).await;
    server.until("it is being answered", |handle| handle.stats().http_requests == 1).await;
    assert_eq!(upgrade(&server, ONE).await.0, 429);
    polling.write_all(&message).await.unwrap();
    assert_eq!(answered(&mut polling).await.0, 200);
    server.connect(ONE).await;
}

#[tokio::test]
async fn a_poll_that_is_given_up_gives_its_place_back() {
    let server = limited(1).await;
    drop(said(&server, poll_head(ONE, 100)).await);
    server.until("it was noticed", |handle| handle.stats().http_requests == 1).await;
    for _ in 0..1_000 {
        if upgrade(&server, ONE).await.0 == 101 {
            return;
        }
    }
    panic!("its place is never free again");
}

#[tokio::test]
async fn who_is_nobody_in_particular_is_not_limited() {
    let settings = ServerSettings { connections_per_identity_max: Some(1), ..ServerSettings::default() };
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let agents = [server.connect(None).await, server.connect(None).await];
    assert_eq!(server.poll(None, &numbered(uid(1), 1, full())).await.status, 200);
    drop(agents);
}

#[tokio::test]
async fn who_takes_more_than_its_share_of_a_full_server_is_told_that_and_who_finds_no_room_keeps_no_share() {
    let tokens = ["one", "two"].map(|name| StaticToken::new(name, &format!("secret-{name}")));
    let settings = ServerSettings {
        connections_per_identity_max: Some(1),
        connections_max: 1,
        ..ServerSettings::default()
    };
    let server = TestServer::with(Arc::new(StaticTokens::new(tokens.into())), settings).await;
    let first = server.connect(ONE).await;
    assert_eq!(upgrade(&server, ONE).await.0, 429);
    assert_eq!(upgrade(&server, TWO).await.0, 503);
    let rejected = server.handle.stats().admission.rejected;
    let at = |stage: AdmissionStage| rejected[stage.index()];
    assert_eq!((at(AdmissionStage::Identity), at(AdmissionStage::Connections)), (1, 1));
    drop(first);
    server.until("there is room", |handle| handle.stats().websocket_active == 0).await;
    server.connect(TWO).await;
}
