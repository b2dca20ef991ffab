//! What stands between agent and server does what it is told, and nothing else.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opamp_testkit::certs::Authority;
use opamp_testkit::proxy::{Direction, Forwarder, HttpProxy, HttpProxyBuilder, Mode};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing has to happen before it counts as not happening.
const A_WHILE: Duration = Duration::from_millis(50);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    soon(stream.read_exact(&mut buffer)).await.unwrap();
    String::from_utf8(buffer).unwrap()
}

/// Everything up to the end, whether that is in order or not.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut buffer = Vec::new();
    let _ = soon(stream.read_to_end(&mut buffer)).await;
    String::from_utf8(buffer).unwrap()
}

/// An answer's head, up to the empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push_str(&read(stream, 1).await);
    }
    text.to_ascii_lowercase()
}

async fn nothing_arrives(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(timeout(A_WHILE, stream.read(&mut byte)).await.is_err(), "something arrived");
}

/// Both ends of a connection through a forwarder.
struct Line {
    forwarder: Forwarder,
    listener: TcpListener,
    agent: TcpStream,
    server: TcpStream,
}

impl Line {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarder = Forwarder::start(listener.local_addr().unwrap()).await.unwrap();
        let agent = TcpStream::connect(forwarder.addr()).await.unwrap();
        let (server, _) = soon(listener.accept()).await.unwrap();
        Self { forwarder, listener, agent, server }
    }
}

#[tokio::test]
async fn bytes_and_the_end_of_a_stream_pass_in_both_directions() {
    let Line { mut agent, mut server, forwarder, .. } = Line::open().await;
    let long = "x".repeat(1 << 20);
    let sent = long.clone();
    tokio::spawn(async move {
        agent.write_all(sent.as_bytes()).await.unwrap();
        agent.shutdown().await.unwrap();
        assert_eq!(rest(&mut agent).await, "heard");
    });
    assert_eq!(rest(&mut server).await.len(), long.len());
    server.write_all(b"heard").await.unwrap();
    assert_eq!(forwarder.connections(), 1);
}

#[tokio::test]
async fn stalled_in_one_direction_the_other_one_flows_and_nothing_is_lost() {
    let Line { mut agent, mut server, forwarder, .. } = Line::open().await;
    for (stalled, to_agent) in [(Direction::ToServer, false), (Direction::ToAgent, true)] {
        let (mute, heard) = if to_agent { (&mut server, &mut agent) } else { (&mut agent, &mut server) };
        forwarder.set(Mode::Stall(stalled));
        mute.write_all(b"held").await.unwrap();
        heard.write_all(b"flows").await.unwrap();
        assert_eq!(read(mute, 5).await, "flows");
        nothing_arrives(heard).await;
        forwarder.set(Mode::Pass);
        assert_eq!(read(heard, 4).await, "held");
    }
}

#[tokio::test]
async fn a_stalled_line_shows_neither_an_end_nor_a_new_connection() {
    let Line { mut agent, mut server, forwarder, listener } = Line::open().await;
    forwarder.set(Mode::Stall(Direction::Both));
    agent.write_all(b"last").await.unwrap();
    drop(agent);
    nothing_arrives(&mut server).await;
    let mut second = TcpStream::connect(forwarder.addr()).await.unwrap();
    assert!(timeout(A_WHILE, listener.accept()).await.is_err());
    nothing_arrives(&mut second).await;
    forwarder.set(Mode::Pass);
    assert_eq!(rest(&mut server).await, "last");
    soon(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn behind_a_line_stalled_one_way_a_server_that_goes_on_talking_sees_no_end() {
    let Line { agent, mut server, forwarder, .. } = Line::open().await;
    forwarder.set(Mode::Stall(Direction::ToServer));
    drop(agent);
    for _ in 0..5 {
        server.write_all(b"still there?").await.unwrap();
        nothing_arrives(&mut server).await;
    }
    forwarder.set(Mode::Pass);
    assert_eq!(rest(&mut server).await, "");
}

#[tokio::test]
async fn a_refusing_line_ends_what_is_open_and_what_comes() {
    let Line { mut agent, mut server, forwarder, .. } = Line::open().await;
    forwarder.set(Mode::Refuse);
    assert_eq!((rest(&mut agent).await, rest(&mut server).await), (String::new(), String::new()));
    let mut second = TcpStream::connect(forwarder.addr()).await.unwrap();
    assert_eq!(rest(&mut second).await, "");
    assert_eq!(forwarder.connections(), 2);
}

#[tokio::test]
async fn a_line_is_cut_after_exactly_as_many_bytes_as_were_left() {
    for (bytes, arrives) in [(0, ""), (4, "what"), (9, "what else")] {
        let Line { mut agent, mut server, forwarder, .. } = Line::open().await;
        agent.write_all(b"before").await.unwrap();
        assert_eq!(read(&mut server, 6).await, "before");
        forwarder.set(Mode::Cut { direction: Direction::ToServer, bytes });
        server.write_all(b"does not count").await.unwrap();
        assert_eq!(read(&mut agent, 14).await, "does not count");
        agent.write_all(b"what").await.unwrap();
        if bytes > 0 {
            assert_eq!(read(&mut server, 4).await, "what");
        }
        let _ = agent.write_all(b" else").await; // it may be over already
        if bytes > 4 {
            assert_eq!(read(&mut server, 5).await, " else", "{arrives}");
            agent.write_all(b"!").await.unwrap();
        }
        assert_eq!((rest(&mut server).await, rest(&mut agent).await), (String::new(), String::new()));
    }
}

#[tokio::test]
async fn a_cut_answer_is_lost_after_its_request_got_through() {
    let Line { mut agent, mut server, forwarder, .. } = Line::open().await;
    forwarder.set(Mode::Cut { direction: Direction::ToAgent, bytes: 0 });
    agent.write_all(b"request").await.unwrap();
    assert_eq!(read(&mut server, 7).await, "request");
    server.write_all(b"answer").await.unwrap();
    assert_eq!(rest(&mut agent).await, "");
}

#[tokio::test]
async fn dropped_it_ends_every_connection() {
    let Line { mut agent, mut server, forwarder, .. } = Line::open().await;
    let address = forwarder.addr();
    drop(forwarder);
    assert_eq!((rest(&mut agent).await, rest(&mut server).await), (String::new(), String::new()));
    assert!(TcpStream::connect(address).await.is_err());
}

/// A server that answers each request with the bytes of its head, and the address it listens at.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                loop {
                    let seen = head(&mut stream).await;
                    let body = if seen.contains("content-length: 4") {
                        read(&mut stream, 4).await
                    } else {
                        String::new()
                    };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}{body}",
                        seen.len() + body.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

async fn started(builder: HttpProxyBuilder) -> (HttpProxy, TcpStream) {
    let proxy = builder.start().await.unwrap();
    let agent = TcpStream::connect(proxy.addr()).await.unwrap();
    (proxy, agent)
}

/// Sends a request and returns the head of the answer and its body.
async fn ask(agent: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> (String, String) {
    agent.write_all(request.as_bytes()).await.unwrap();
    let answer = head(agent).await;
    let length = answer.split("content-length: ").nth(1).map_or("0", |rest| rest.split('\r').next().unwrap());
    let body = read(agent, length.parse().unwrap()).await;
    (answer, body)
}

#[tokio::test]
async fn a_tunnel_carries_anything_to_where_it_was_asked_for() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = server.local_addr().unwrap();
    let (proxy, mut agent) = started(HttpProxy::builder()).await;
    let (answer, _) = ask(&mut agent, &format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    let (mut far, _) = soon(server.accept()).await.unwrap();
    agent.write_all(b"\0up").await.unwrap();
    assert_eq!(read(&mut far, 3).await, "\0up");
    far.write_all(b"down").await.unwrap();
    drop(far);
    assert_eq!(rest(&mut agent).await, "down");
    assert_eq!((proxy.tunnels(), proxy.forwarded(), proxy.refused()), (1, 0, 0));
    let asked = proxy.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].target.clone()), ("CONNECT", target.to_string()));
}

#[tokio::test]
async fn a_name_that_only_the_proxy_knows_leads_to_its_route() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let builder = HttpProxy::builder().route("opamp.invalid:443", server.local_addr().unwrap());
    let (proxy, mut agent) = started(builder).await;
    let (answer, _) = ask(&mut agent, "CONNECT opamp.invalid:443 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    soon(server.accept()).await.unwrap();
    let mut another = TcpStream::connect(proxy.addr()).await.unwrap();
    let (answer, _) = ask(&mut another, "CONNECT other.invalid:443 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("http/1.1 502"), "{answer}");
}

#[tokio::test]
async fn whoever_lacks_the_header_is_refused_and_with_it_the_server_does_not_see_it() {
    let target = mirror().await;
    for (status, challenge) in [(407, true), (403, false)] {
        let builder = HttpProxy::builder().require("X-Proxy-Token", "sesame", status);
        let (proxy, mut agent) = started(builder).await;
        let get = |headers: &str| format!("GET http://{target}/a?b=c HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        for wrong in ["", "X-Proxy-Token: sesam\r\n"] {
            let (answer, _) = ask(&mut agent, &get(wrong)).await;
            assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
            assert_eq!(answer.contains("proxy-authenticate: "), challenge, "{answer}");
        }
        let (answer, seen) = ask(&mut agent, &get("x-proxy-token: sesame\r\n")).await;
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(seen.starts_with("get /a?b=c http/1.1\r\n"), "{seen}");
        assert!(seen.contains(&format!("host: {target}\r\n")) && !seen.contains("sesame"), "{seen}");
        assert_eq!((proxy.refused(), proxy.forwarded(), proxy.tunnels()), (2, 1, 0));
        assert_eq!(proxy.asked()[2].header("X-Proxy-Token"), Some("sesame"));
    }
}

#[tokio::test]
async fn one_connection_to_the_proxy_serves_requests_for_several_servers() {
    let (one, other) = (mirror().await, mirror().await);
    let (proxy, mut agent) = started(HttpProxy::builder()).await;
    for target in [one, one, other, one] {
        let request = format!(
            "POST http://{target}/ HTTP/1.1\r\nProxy-Authorization: Basic eA==\r\nContent-Length: 4\r\n\r\nbody"
        );
        let (_, seen) = ask(&mut agent, &request).await;
        assert!(seen.contains(&format!("host: {target}\r\n")) && seen.ends_with("body"), "{seen}");
        assert!(!seen.contains("proxy-authorization"), "{seen}");
    }
    assert_eq!((proxy.forwarded(), proxy.connections()), (4, 1));
    let (answer, _) = ask(&mut agent, "GET /not-a-proxy-request HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("http/1.1 400"), "{answer}");
}

#[tokio::test]
async fn behind_tls_it_is_the_same_proxy() {
    let (authority, target) = (Authority::new("ca"), mirror().await);
    let identity = authority.server(&["127.0.0.1"]);
    let (proxy, agent) = started(HttpProxy::builder().tls(Authority::server_config(&identity))).await;
    assert!(proxy.url().starts_with("https://127.0.0.1:"), "{}", proxy.url());
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = TlsConnector::from(Arc::clone(&authority.client_config()));
    let mut agent = soon(connector.connect(name, agent)).await.unwrap();
    let (_, seen) = ask(&mut agent, &format!("GET http://{target}/ HTTP/1.1\r\n\r\n")).await;
    assert!(seen.starts_with("get / "), "{seen}");
    let (answer, _) = ask(&mut agent, &format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    let (_, seen) = ask(&mut agent, "GET /inside HTTP/1.1\r\n\r\n").await;
    assert!(seen.starts_with("get /inside "), "{seen}");
}

#[tokio::test]
async fn modes_hold_for_tunnels_that_stand() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = server.local_addr().unwrap();
    let (proxy, mut agent) = started(HttpProxy::builder()).await;
    ask(&mut agent, &format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
    let (mut far, _) = soon(server.accept()).await.unwrap();
    proxy.set(Mode::Stall(Direction::Both));
    agent.write_all(b"up").await.unwrap();
    far.write_all(b"down").await.unwrap();
    nothing_arrives(&mut agent).await;
    nothing_arrives(&mut far).await;
    proxy.set(Mode::Pass);
    assert_eq!((read(&mut far, 2).await, read(&mut agent, 4).await), ("up".into(), "down".into()));
    proxy.set(Mode::Refuse);
    assert_eq!((rest(&mut far).await, rest(&mut agent).await), (String::new(), String::new()));
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_tunnels() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = server.local_addr().unwrap();
    let (proxy, mut agent) = started(HttpProxy::builder()).await;
    ask(&mut agent, &format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
    let (mut far, _) = soon(server.accept()).await.unwrap();
    drop(proxy);
    assert_eq!((rest(&mut far).await, rest(&mut agent).await), (String::new(), String::new()));
}
