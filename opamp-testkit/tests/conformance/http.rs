//! R-HTTP: the plain HTTP transport.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{Limits, Part};
use opamp_server::RefusalReason;

use super::common::*;

const MIB_64: usize = 64 << 20;
const LIMIT: usize = 10_000;

async fn limited(bytes: usize) -> TestServer {
    TestServer::with(|setup| setup.limits.message_bytes_max = bytes).await
}

/// A request whose body has exactly `bytes` bytes.
fn request_of(server: &TestServer, number: u32, bytes: usize) -> HttpRequest {
    HttpRequest::opamp(&server.endpoint(), &padded(&Persona::new(number).heartbeat(), bytes))
}

/// gzip of `zeros` zero bytes whose end is damaged: who inflates it whole notices, who stops at the limit does not.
fn damaged_bomb(zeros: usize) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..zeros >> 16 {
        encoder.write_all(&[0; 1 << 16]).unwrap();
    }
    let mut packed = encoder.finish().unwrap();
    let end = packed.len() - 64;
    packed[end..].fill(0xff);
    packed.into()
}

/// R-HTTP-01.
#[tokio::test]
async fn a_post_of_a_bare_message_is_answered_with_a_bare_message() {
    let server = TestServer::start().await;
    let report = Persona::new(1).full_state();
    let response = server.post(&HttpRequest::opamp(&server.endpoint(), &report)).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/x-protobuf")));
    assert_ne!(response.body[0], 0, "no WebSocket header");
    assert_eq!(response.message().unwrap().instance_uid, report.instance_uid);

    // With the WebSocket header in front it is not an `AgentToServer`.
    let response = server.post(&HttpRequest::post(&server.endpoint(), framed(&report))).await;
    assert_eq!(response.status, 400);
}

/// R-HTTP-01.
#[tokio::test]
async fn other_methods_are_not_allowed() {
    let server = TestServer::start().await;
    let body = Persona::new(1).full_state().encode_to_vec();
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"] {
        let mut request = HttpRequest::post(&server.endpoint(), body.clone());
        request.method = method.to_owned();
        let mut http = server.http().await;
        http.send(&request).await.unwrap();
        let head = if method == "HEAD" {
            http.stream_mut().read_until(b"\r\n", "a head").await.unwrap()
        } else {
            let response = http.read_response().await.unwrap();
            assert!(
                response.header("allow").is_some_and(|allow| allow.contains("POST")),
                "{method}: {response:?}"
            );
            format!("HTTP/1.1 {}", response.status).into()
        };
        assert!(head.starts_with(b"HTTP/1.1 405"), "{method}: {head:?}");
    }
    assert!(!server.knows(Persona::new(1).uid));
    assert_eq!(server.rejected(RefusalReason::Protocol), 5);
}

/// R-HTTP-03.
#[tokio::test]
async fn what_is_pending_comes_with_the_next_answer() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::Http, Persona::new(1)).await;
    let (hash, dispatch) = server.assign(agent.persona.uid, &yaml("a: 1\n"));
    assert_eq!(dispatch, opamp_server::Dispatch::NextPoll);
    let answer = agent.heartbeat().await.unwrap();
    assert_eq!(&answer.remote_config.unwrap().config_hash[..], hash.as_bytes());
}

/// R-HTTP-10: the content type is a media type, so parameters and letter case do not matter.
#[tokio::test]
async fn the_content_type_is_read_as_a_media_type() {
    let server = TestServer::start().await;
    for (number, kind) in (1..).zip([
        "application/x-protobuf",
        "application/x-protobuf; charset=utf-8",
        "application/x-protobuf;messageType=\"opamp.proto.v1.AgentToServer\"",
        "Application/X-Protobuf",
    ]) {
        let report = Persona::new(number).full_state();
        let request = HttpRequest::opamp(&server.endpoint(), &report).replacing("Content-Type", kind);
        let response = server.post(&request).await;
        assert_eq!(response.status, 200, "{kind}");
        assert_eq!(response.message().unwrap().instance_uid, report.instance_uid);
    }
}

/// R-HTTP-11.
#[tokio::test]
async fn without_that_content_type_it_is_a_websocket_or_nothing() {
    let server = TestServer::start().await;
    assert!(server.ws().await.exchange(&Persona::new(1).heartbeat()).await.is_ok());
    let report = Persona::new(2).full_state();
    let request = HttpRequest::opamp(&server.endpoint(), &report);
    for request in [
        request.clone().without("Content-Type"),
        request.clone().replacing("Content-Type", "application/json"),
        request.clone().replacing("Content-Type", "application/x-protobuffer"),
        request.replacing("Content-Type", "text/plain; x=application/x-protobuf"),
    ] {
        let response = server.post(&request).await;
        assert_eq!(response.status, 415, "{request:?}");
    }
    assert!(!server.knows(Persona::new(2).uid));
    assert_eq!(server.rejected(RefusalReason::Protocol), 4);
}

/// R-HTTP-14.
#[tokio::test]
async fn the_content_encoding_is_honoured() {
    let server = TestServer::start().await;
    let report = Persona::new(1).full_state();
    let request = HttpRequest::opamp(&server.endpoint(), &report).gzipped();
    assert_eq!(server.post(&request.clone().without("Content-Encoding")).await.status, 400);
    assert_eq!(server.post(&request.clone().replacing("Content-Encoding", "br")).await.status, 415);
    let plain = HttpRequest::opamp(&server.endpoint(), &report).with("Content-Encoding", "gzip");
    assert_eq!(server.post(&plain).await.status, 400);
    assert!(!server.knows(Persona::new(1).uid));
    for coding in ["gzip", "GZIP", "x-gzip"] {
        let request = request.clone().replacing("Content-Encoding", coding);
        assert_eq!(server.post(&request).await.status, 200, "{coding}");
    }
    assert_eq!(server.health(Persona::new(1).uid), report.health);
    let identity = HttpRequest::opamp(&server.endpoint(), &report).with("Content-Encoding", "identity");
    assert_eq!(server.post(&identity).await.status, 200);
}

/// R-HTTP-15.
#[tokio::test]
async fn gzipped_and_plain_bodies_say_the_same() {
    let server = TestServer::start().await;
    let mut answers = Vec::new();
    for (number, gzipped) in [(1, true), (2, false)] {
        let report = Persona::new(number).with_full_state_of(20_000).full_state();
        let request = HttpRequest::opamp(&server.endpoint(), &report);
        let request = if gzipped { request.gzipped() } else { request };
        let mut answer = server.post(&request).await.message().unwrap();
        assert_eq!(std::mem::take(&mut answer.instance_uid), report.instance_uid);
        assert_eq!(server.part(Persona::new(number).uid, Part::EffectiveConfig), report.effective_config);
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1]);
}

/// R-HTTP-15: chunked bodies are HTTP/1.1 like any other.
#[tokio::test]
async fn a_body_in_chunks_is_understood() {
    let server = TestServer::start().await;
    for size in [1, 7, 100_000] {
        let report = Persona::new(1).full_state();
        let request = HttpRequest::opamp(&server.endpoint(), &report).framed(Framing::Chunked(size));
        assert_eq!(server.post(&request).await.status, 200);
    }
}

/// R-HTTP-17.
#[tokio::test]
async fn a_large_answer_is_compressed_if_the_client_allows_it() {
    let server = TestServer::start().await;
    let mut persona = Persona::new(1);
    server.post(&HttpRequest::opamp(&server.endpoint(), &persona.full_state())).await;
    let large = yaml(&"key: value\n".repeat(2_000));
    let mut poll = async |accept: Option<&str>| {
        server.assign(persona.uid, &large);
        let request = HttpRequest::opamp(&server.endpoint(), &persona.heartbeat());
        let request = accept.map_or(request.clone(), |accept| request.with("Accept-Encoding", accept));
        let response = server.post(&request).await;
        assert_eq!(response.message().unwrap().remote_config.unwrap().config.as_ref(), Some(&large));
        response
    };
    for accept in ["gzip", "deflate, gzip;q=0.5", "*", "GZIP"] {
        let response = poll(Some(accept)).await;
        assert_eq!(response.header("content-encoding"), Some("gzip"), "{accept}");
        assert!(response.body.len() < 2_000);
    }
    for accept in [None, Some("identity"), Some("gzip;q=0"), Some("br"), Some("*;q=0, identity")] {
        let response = poll(accept).await;
        assert_eq!(response.header("content-encoding"), None, "{accept:?}");
    }
}

/// R-HTTP-18, R-HTTP-20, R-HTTP-22.
#[tokio::test]
async fn the_limit_is_on_the_whole_body() {
    for limit in [1_000, LIMIT, 100_000] {
        let server = limited(limit).await;
        assert_eq!(server.post(&request_of(&server, 1, limit)).await.status, 200);
        assert_eq!(server.post(&request_of(&server, 2, limit + 1)).await.status, 413);
        let chunked = request_of(&server, 2, limit + 1).framed(Framing::Chunked(500));
        assert_eq!(server.post(&chunked).await.status, 413);
        assert!(!server.knows(Persona::new(2).uid));
        assert_eq!(server.rejected(RefusalReason::Oversize), 2);
    }
}

/// R-HTTP-19.
#[tokio::test]
async fn the_limit_is_64_mib_by_default() {
    assert_eq!(Limits::default().message_bytes_max, MIB_64);
    let server = TestServer::start().await;
    let mut http = server.http().await;
    http.stream_mut().set_wait(Duration::from_secs(60));
    assert_eq!(http.exchange(&request_of(&server, 1, MIB_64)).await.unwrap().status, 200);
    assert!(server.knows(Persona::new(1).uid));
    // The announced length alone is enough to refuse: not a byte of it need arrive.
    let announced = HttpRequest::post(&server.endpoint(), "").framed(Framing::Claimed(MIB_64 as u64 + 1));
    assert_eq!(server.post(&announced).await.status, 413);
}

/// R-HTTP-19, for what is sent.
#[tokio::test]
async fn the_send_limit_is_64_mib_by_default() {
    let server = TestServer::start().await;
    let mut persona = Persona::new(1);
    let mut http = server.http().await;
    http.stream_mut().set_wait(Duration::from_secs(60));
    http.exchange(&HttpRequest::opamp(&server.endpoint(), &persona.full_state())).await.unwrap();
    for (bytes, fits) in [(MIB_64, false), (MIB_64 - 1_000, true)] {
        server.assign_as(persona.uid, &any_hash(), &yaml(&"x".repeat(bytes)));
        let request = HttpRequest::opamp(&server.endpoint(), &persona.heartbeat());
        let response = http.exchange(&request).await.unwrap();
        assert_eq!(response.message().unwrap().remote_config.is_some(), fits);
        assert!(response.body.len() <= MIB_64);
    }
}

/// R-HTTP-21, R-HTTP-22: inflating stops at the limit, so the damage behind it is never seen.
#[tokio::test]
async fn a_gzip_bomb_is_refused_without_being_inflated() {
    let bomb = damaged_bomb(16 << 20);
    // The packed body is within the limit; what it unfolds to is 200 times as much.
    let server = limited(bomb.len()).await;
    let request = HttpRequest::post(&server.endpoint(), bomb).with("Content-Encoding", "gzip");
    assert_eq!(server.post(&request).await.status, 413);
    assert_eq!(server.rejected(RefusalReason::Oversize), 1);
}

/// R-HTTP-21: the limit holds for the inflated body to the byte.
#[tokio::test]
async fn the_limit_holds_after_inflation() {
    let server = limited(LIMIT).await;
    assert_eq!(server.post(&request_of(&server, 1, LIMIT).gzipped()).await.status, 200);
    let request = request_of(&server, 2, LIMIT + 1).gzipped();
    assert!(request.body.len() < LIMIT);
    assert_eq!(server.post(&request).await.status, 413);
    assert!(!server.knows(Persona::new(2).uid));
}

/// R-HTTP-28, R-HTTP-29, R-HTTP-30: the limit is on the plain size, however well it would compress.
#[tokio::test]
async fn an_answer_beyond_the_send_limit_is_never_sent_and_that_is_recorded() {
    let server = TestServer::with(|setup| setup.settings.session.send_bytes_max = LIMIT).await;
    let mut agent = server.agent(Wire::Http, restartable(1)).await;
    let uid = agent.persona.uid;
    server.assign(uid, &yaml(&"x".repeat(LIMIT)));
    let request =
        HttpRequest::opamp(&server.endpoint(), &agent.persona.heartbeat()).with("Accept-Encoding", "gzip");
    let response = server.post(&request).await;
    assert_eq!(response.status, 200);
    assert!(says_nothing(&response.message().unwrap()));
    assert_eq!(server.handle.stats().messages_discarded_oversize, 1);
    assert!(server.snapshot(uid).remote_config.too_large);

    server.assign(uid, &yaml("small: true\n"));
    assert_eq!(agent.next_offer().await.unwrap().config, Some(yaml("small: true\n")));
    assert!(!server.snapshot(uid).remote_config.too_large);
}
