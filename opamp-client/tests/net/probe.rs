//! One attempt that says whether an agent could reach its server, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use opamp_client::{ClientSettings, FailureKind, ProbeError};
use opamp_server::{ServerSettings, StaticToken, StaticTokens};
use tokio::net::TcpListener;

use crate::common::{TestServer, Unheard, builder, session, until, within};

fn kind(outcome: Result<(), ProbeError>) -> FailureKind {
    match outcome {
        Err(ProbeError::Failed(failure)) => failure.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_would_take_the_agent_is_reached_and_left_again() {
    let server = TestServer::start().await;
    for scheme in ["ws", "http"] {
        within("an answer", builder(&server.url(scheme)).probe()).await.unwrap();
    }
    assert_eq!(server.handle.stats().websocket_opened, 1);
    until("the socket is gone", || server.handle.stats().websocket_active == 0).await;
    assert!(server.handle.agents().is_empty(), "nothing was said of an agent");
}

#[tokio::test]
async fn what_would_stop_the_agent_stops_its_probe() {
    let tokens = Arc::new(StaticTokens::new(vec![StaticToken::new("agents", "good")]));
    let server = TestServer::with(tokens, ServerSettings::default(), None).await;
    let url = server.url("ws");
    assert_eq!(kind(builder(&url).bearer_token("bad").probe().await), FailureKind::Auth);
    builder(&url).bearer_token("good").probe().await.unwrap();
    let elsewhere = format!("ws://{}/elsewhere", server.address);
    assert_eq!(kind(builder(&elsewhere).bearer_token("good").probe().await), FailureKind::Status(404));
    assert_eq!(kind(builder(&Unheard::new().url("ws")).probe().await), FailureKind::Refused);
    let outcome = builder("wss://127.0.0.1:1").probe().await;
    assert!(matches!(outcome, Err(ProbeError::Start(_))), "no TLS was configured: {outcome:?}");
}

#[tokio::test]
async fn a_probe_ends_in_time_whoever_is_silent() {
    // Takes connections, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let settings: ClientSettings = session(|settings| settings.connect_timeout = Duration::from_millis(50));
    let outcome = within("an end", builder(&url).settings(settings).probe()).await;
    assert_eq!(kind(outcome), FailureKind::Timeout);
}
