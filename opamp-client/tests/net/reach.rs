//! The way to the server: credentials, redirects, proxies, several endpoints.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opamp_client::{Event, FailureKind, Proxy, StartError, Transport};
use opamp_server::{ServerSettings, StaticToken, StaticTokens};
use opamp_testkit::proxy::HttpProxy;
use tokio::net::TcpListener;

use crate::common::{Agent, Memory, TestServer, Unheard, builder, session, until};
use crate::stub::{HttpStub, WsStub, ack, answer, status};

/// What stands there as a proxy, with a user and a password for it.
fn proxy_at(address: SocketAddr) -> Proxy {
    Proxy::url(&format!("http://user:secret@{address}")).unwrap()
}

/// Something that answers every request for a tunnel like this.
async fn refusing(line: &'static str, headers: &'static str) -> Proxy {
    proxy_at(HttpStub::start(move |_, _| status(line, headers, b"")).await.address)
}

#[tokio::test]
async fn a_websocket_goes_through_a_proxy_that_wants_a_header_and_lives_long() {
    let (proxy, stub) = (HttpProxy::builder().start().await.unwrap(), WsStub::start().await);
    let through = proxy_at(proxy.addr()).connect_header("X-Proxy-Token", "sesame").unwrap();
    let agent = Agent::start(builder(&stub.url()).proxy(through));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let asked = &proxy.asked()[0];
    let address = stub.address.to_string();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("CONNECT", address.as_str()));
    assert_eq!((asked.header("host"), asked.header("x-proxy-token")), (Some(&*address), Some("sesame")));
    assert!(asked.header("proxy-authorization").is_some_and(|value| value.starts_with("Basic ")));
    let seen = peer.headers.iter().any(|(name, _)| name.starts_with("x-proxy") || name.starts_with("proxy-"));
    assert!(!seen, "none of it reaches the server: {:?}", peer.headers);
    for beats in 1..=20 {
        agent.received(beats).await;
        agent.advance(30);
        peer.acknowledge().await;
    }
    assert_eq!((proxy.tunnels(), proxy.connections()), (1, 1));
    assert_eq!(agent.events.all().len(), 1);
}

#[tokio::test]
async fn plain_polls_go_through_a_proxy_as_requests_for_the_whole_address() {
    let (proxy, stub) = (HttpProxy::builder().start().await.unwrap(), HttpStub::acknowledging().await);
    let agent = Agent::start(builder(&stub.url("http")).proxy(proxy_at(proxy.addr())));
    agent.connected().await;
    let asked = &proxy.asked()[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", stub.url("http").as_str()));
    assert!(asked.header("proxy-authorization").is_some_and(|value| value.starts_with("Basic ")));
}

#[tokio::test]
async fn servers_on_the_list_of_exceptions_are_reached_without_the_proxy() {
    let (proxy, stub) = (HttpProxy::builder().start().await.unwrap(), HttpStub::acknowledging().await);
    let url = proxy.url();
    let agent =
        Agent::start(builder(&stub.url("http")).proxy(Proxy::with_exceptions(&url, "127.0.0.0/8").unwrap()));
    agent.connected().await;
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_from_a_server_that_does() {
    for (line, hint) in [("407 Proxy Authentication Required", "credentials"), ("403 Forbidden", "403")] {
        let agent = Agent::start(builder("ws://server.invalid:4320").proxy(refusing(line, "").await));
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Proxy, "{text}");
        assert!(text.contains(hint) && !text.contains("secret"), "{text}");
    }
    // What is behind it is just restarting: tried again soon, unless the proxy says when.
    for (line, headers, kind) in [
        ("503 Service Unavailable", "", FailureKind::Status(503)),
        ("503 Service Unavailable", "retry-after: 40\r\n", FailureKind::Throttled),
        ("502 Bad Gateway", "", FailureKind::Status(502)),
    ] {
        let agent = Agent::start(builder("ws://server.invalid:4320").proxy(refusing(line, headers).await));
        let (found, text) = agent.failure().await;
        assert!(found == kind && text.contains("the proxy answered 50"), "{text}");
    }
    let nobody = Unheard::new();
    let proxy = Proxy::url(&nobody.url("http")).unwrap();
    let agent = Agent::start(builder("ws://server.invalid:4320").proxy(proxy));
    let (kind, text) = agent.failure().await;
    assert!(kind == FailureKind::ProxyUnreachable && text.contains("check that the proxy runs"), "{text}");
}

#[tokio::test]
async fn a_redirected_poll_is_repeated_where_the_server_really_is() {
    let real = HttpStub::acknowledging().await;
    let location = format!("location: {}\r\n", real.url("http"));
    let stub = HttpStub::start(move |_, _| status("307 Temporary Redirect", &location, b"")).await;
    let agent = Agent::start(builder(&stub.url("http")).bearer_token("secret").header("X-Api-Key", "secret"));
    agent.connected().await;
    let (first, second) = (stub.request(0).await, real.request(0).await);
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("authorization"), Some("Bearer secret"));
    assert_eq!(first.header("x-api-key"), Some("secret"));
    assert_eq!(second.header("authorization"), None, "another server is shown no credentials");
    assert_eq!(second.header("x-api-key"), None);
    agent.advance(30);
    real.request(1).await;
    assert_eq!(stub.requests().len(), 1, "and it stays there while the connection does");
}

#[tokio::test]
async fn a_redirect_on_the_same_server_keeps_the_credentials() {
    let stub = HttpStub::start(|_, request| match request.target.as_str() {
        "/new" => answer(&ack()),
        _ => status("308 Permanent Redirect", "location: /new\r\n", b""),
    })
    .await;
    let agent = Agent::start(builder(&stub.url("http")).bearer_token("secret"));
    agent.connected().await;
    assert_eq!(stub.request(1).await.header("authorization"), Some("Bearer secret"));
}

#[tokio::test]
async fn a_redirected_websocket_is_opened_where_the_server_really_is() {
    let real = WsStub::start().await;
    let location = format!("location: http://{}/there\r\n", real.address);
    let stub = HttpStub::start(move |_, _| status("302 Found", &location, b"")).await;
    let _agent = Agent::start(builder(&stub.url("ws")).bearer_token("secret"));
    let mut peer = real.accept().await;
    peer.acknowledge().await;
    assert_eq!(peer.path, "/there");
    assert!(peer.headers.iter().all(|(name, _)| name != "authorization"), "{:?}", peer.headers);
}

on_both_transports! {
    async fn headers_and_credentials_reach_the_server(scheme) {
        let tokens = StaticTokens::new(vec![StaticToken::new("agent", "right")]);
        let server = TestServer::with(Arc::new(tokens), ServerSettings::default(), None).await;
        let agent = Agent::start(builder(&server.url(scheme)).bearer_token("right"));
        agent.connected().await;
        let stub = HttpStub::acknowledging().await;
        let _agent = Agent::start(builder(&stub.url(scheme)).basic_auth("user", "pass").header("X-A", "1").header("X-A", "2"));
        let request = stub.request(0).await;
        assert_eq!(request.header("authorization"), Some("Basic dXNlcjpwYXNz"));
        let values: Vec<_> = request.headers.iter().filter(|(name, _)| name == "x-a").map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(request.target, "/v1/opamp");
    }

    async fn a_refused_token_is_asked_for_anew(scheme) {
        let tokens = StaticTokens::new(vec![StaticToken::new("agent", "fresh")]);
        let server = TestServer::with(Arc::new(tokens), ServerSettings::default(), None).await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        let agent = Agent::start(builder(&server.url(scheme)).token_source(move |refused| {
            kept.lock().unwrap().push(refused);
            async move { Ok(if refused { "fresh".to_owned() } else { "stale".to_owned() }) }
        }));
        assert_eq!(agent.failure().await.0, FailureKind::Auth);
        agent.reconnect_until("let in", || agent.client.stats().is_connected).await;
        assert_eq!(asked.lock().unwrap()[..2], [false, true]);
    }

    async fn a_token_that_cannot_be_had_is_a_failure_of_this_machine(scheme) {
        let stub = HttpStub::acknowledging().await;
        let agent = Agent::start(builder(&stub.url(scheme)).token_source(|_| async {
            Err("/run/token: permission denied".to_owned())
        }));
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Local);
        assert!(text.contains("/run/token: permission denied"), "{text}");
        assert!(stub.requests().is_empty());
    }
}

#[tokio::test]
async fn the_next_endpoint_serves_while_the_first_is_gone_and_then_the_first_again() {
    let first = Unheard::new();
    let second = HttpStub::acknowledging().await;
    let agent = Agent::start(
        builder(&first.url("ws"))
            .fallback(&second.url("http"))
            .state(Memory::default())
            .settings(session(|session| session.retry.first = std::time::Duration::ZERO)),
    );
    agent.connected().await;
    assert!(second.request(0).await.message().agent_description.is_some());
    let events = agent.events.all();
    assert!(
        matches!(
            events[..],
            [Event::ConnectFailed { .. }, Event::Connected { transport: Transport::Http, .. }]
        ),
        "{events:?}"
    );
    // The first one comes up.
    let (service, handle, driver) =
        opamp_server::OpampServer::builder(Arc::new(opamp_server::InsecureAcceptEveryone)).build();
    tokio::spawn(driver.run());
    tokio::spawn(opamp_server::serve(first.listen(), None, service));
    until("it is looked for and found", || {
        agent.clock.advance(std::time::Duration::from_secs(10));
        handle.agent(&agent.client.uid()).is_some()
    })
    .await;
    let last = second.requests().pop().unwrap().message();
    assert!(last.agent_disconnect.is_some(), "it said goodbye to the second");
}

#[tokio::test]
async fn a_first_endpoint_that_only_seems_to_be_back_is_not_returned_to() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", silent.local_addr().unwrap());
    let looked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&looked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = silent.accept().await {
            // Accepts, and says nothing.
            kept.lock().unwrap().push(stream);
        }
    });
    let second = HttpStub::acknowledging().await;
    let tls = crate::tls::trusting(&opamp_testkit::certs::Authority::new("ca"));
    let agent = Agent::start(builder(&url).tls(tls).fallback(&second.url("http")));
    until("tried", || looked.lock().unwrap().len() == 1).await;
    agent.advance(30);
    agent.connected().await;
    for looks in 2..=3 {
        until("looked for again", || {
            agent.clock.advance(std::time::Duration::from_secs(1));
            looked.lock().unwrap().len() == looks
        })
        .await;
    }
    let failures = agent.events.failures();
    assert_eq!(failures, [FailureKind::Timeout], "only the first attempt: {:?}", agent.events.all());
    assert!(agent.client.stats().is_connected);
}

#[tokio::test]
async fn what_can_never_work_is_said_at_the_start() {
    let start = |url: &str| builder(url).start().map(drop).unwrap_err();
    assert!(matches!(start("ftp://h"), StartError::Endpoint(_)));
    assert!(start("ftp://h").to_string().contains("ws, wss, http or https"));
    assert!(matches!(start("wss://h"), StartError::TlsMissing(_)));
    assert!(matches!(start("h:4320"), StartError::Endpoint(_)));
    let header = builder("ws://h").header("host", "x").start().map(drop).unwrap_err();
    assert!(matches!(header, StartError::Header(_)));
    assert!(matches!(builder("ws://h").fallback("ws//h").start().map(drop), Err(StartError::Endpoint(_))));
}

#[test]
fn without_a_runtime_an_agent_does_not_start() {
    assert!(matches!(builder("ws://h").start().map(drop), Err(StartError::Runtime)));
}

on_both_transports! {
    async fn a_failure_behind_a_redirect_names_where_it_led(scheme) {
        let nobody = Unheard::new();
        let target = nobody.url(scheme).replace("ws:", "http:");
        let location = format!("location: {target}?token=secret\r\n");
        let stub = HttpStub::start(move |_, _| status("307 Temporary Redirect", &location, b"")).await;
        let agent = Agent::start(builder(&stub.url(scheme)));
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Refused, "{text}");
        assert!(text.contains(&format!("redirected to {}", nobody.url(scheme))) && !text.contains("secret"), "{text}");
    }
}
