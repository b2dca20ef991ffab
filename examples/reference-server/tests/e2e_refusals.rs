//! Whatever a peer does wrong is refused on the listener itself: with the documented status, close code or error response,
//! counted under its reason, audited with its address where it failed to prove who it is. A good agent notices none of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::{collections::BTreeMap, net::SocketAddr};

use e2e::{harness::Harness, pki::Pki, until, when, wire};
use opamp_proto::{AgentCapabilities, frame, pb};
use opamp_testkit::{
    agent::{Connector, Persona, ScriptedAgent, Wire},
    certs::Authority,
    raw::{
        Endpoint, Frame, Framing, Handshake, HttpRequest, HttpResponse, Length, Opcode, RawHttp, RawStream,
        RawWs, Received, gzip,
    },
    transcript::Transcript,
};
use prost::Message as _;
use reference_server::config::{AgentAuth, Mismatch, Size};
use serde_json::{Value, json};

use self::Act::{Frames, Request};

/// Largest message in these tests.
const LIMIT: usize = 1 << 20;
const GOOD: &str = "a-good-token";
const REVOKED: &str = "a-token-that-was-revoked";

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// With a message that is no error: nothing was refused as a whole.
    Answer,
    /// With a message whose `error_response` is BadRequest.
    BadRequest,
    /// With a Close frame of this code.
    Close(u16),
    /// With this HTTP status.
    Status(u16),
}

/// What a peer saw, and by which address the server knows it.
struct Seen {
    outcome: Outcome,
    source: SocketAddr,
}

/// What a peer does.
enum Act {
    /// It opens a WebSocket in order and sends these frames.
    Frames(Vec<Frame>),
    /// It sends this request.
    Request(HttpRequest),
}

/// One thing a peer does wrong.
struct Case {
    name: &'static str,
    act: fn(&Peer) -> Act,
    outcome: Outcome,
    /// The reason it is counted under, once; none if nothing is wrong.
    reason: Option<&'static str>,
    /// What the audit log says, if it is a failed authentication.
    audit: Option<&'static str>,
}

/// Somebody who wants something of the server.
struct Peer {
    endpoint: Endpoint,
    number: u32,
}

impl Peer {
    /// The opening request of a WebSocket.
    fn opening(&self) -> HttpRequest {
        Handshake::new(&self.endpoint).request
    }

    async fn does(&self, act: Act) -> Seen {
        match act {
            Frames(frames) => self.writes(frames).await,
            Request(request) => self.sends(request).await,
        }
    }

    async fn sends(&self, request: HttpRequest) -> Seen {
        let mut http = RawHttp::connect(&self.endpoint, &Transcript::new()).await.unwrap();
        let source = http.stream_mut().local_addr().unwrap();
        let response = http.exchange(&request).await.unwrap();
        Seen { outcome: outcome_of(&response), source }
    }

    /// A well-formed poll with the good token and this body.
    fn poll(&self, body: impl Into<bytes::Bytes>) -> HttpRequest {
        HttpRequest::post(&self.endpoint, body).bearer(GOOD)
    }

    async fn writes(&self, frames: Vec<Frame>) -> Seen {
        let handshake = Handshake::new(&self.endpoint).bearer(GOOD);
        let mut ws = RawWs::open(&self.endpoint, &handshake, &Transcript::new()).await.unwrap();
        let source = ws.stream_mut().local_addr().unwrap();
        for frame in frames {
            // The server may close before the last one.
            if ws.send_frame(&frame).await.is_err() {
                break;
            }
        }
        let outcome = match ws.next().await.unwrap() {
            Received::Binary(payload) => {
                let outcome = outcome_of_message(&pb::ServerToAgent::decode(&payload[1..]).unwrap());
                assert!(ws.fence().await.unwrap().is_empty(), "one answer, and the connection stays");
                outcome
            }
            Received::Close(close) => Outcome::Close(close.code.unwrap()),
            other => panic!("{other:?}"),
        };
        Seen { outcome, source }
    }

    /// A message behind a header of these bytes.
    fn headed(&self, header: &[u8]) -> Vec<Frame> {
        vec![Frame::binary([header, &self.full_state()].concat())]
    }

    fn full_state(&self) -> Vec<u8> {
        Persona::new(self.number).full_state().encode_to_vec()
    }

    /// A full state of exactly this size.
    fn full_state_of(&self, bytes: usize) -> Vec<u8> {
        Persona::new(self.number).with_full_state_of(bytes).full_state().encode_to_vec()
    }

    /// A full state whose identity is a byte short.
    fn short_uid(&self) -> Vec<u8> {
        let mut message = Persona::new(self.number).full_state();
        message.instance_uid.truncate(15);
        message.encode_to_vec()
    }

    /// A full state with health, without the capability to report it.
    fn ungated_health(&self) -> Vec<u8> {
        let mut persona = Persona::new(self.number).without(AgentCapabilities::REPORTS_HEALTH);
        let health = Some(persona.health.clone());
        pb::AgentToServer { health, ..persona.full_state() }.encode_to_vec()
    }

    fn nested(&self, levels: usize) -> Vec<u8> {
        wire::nested_health(Persona::new(self.number).uid.as_bytes(), levels)
    }
}

fn framed(payload: &[u8]) -> Frame {
    let mut bytes = Vec::new();
    frame::encode(payload, &mut bytes);
    Frame::binary(bytes)
}

fn outcome_of(response: &HttpResponse) -> Outcome {
    match response.status {
        200 => outcome_of_message(&response.message().unwrap()),
        status => Outcome::Status(status),
    }
}

fn outcome_of_message(message: &pb::ServerToAgent) -> Outcome {
    match &message.error_response {
        None => Outcome::Answer,
        Some(error) => {
            assert_eq!(error.r#type, pb::ServerErrorResponseType::BadRequest as i32);
            assert!(!error.error_message.is_empty(), "it says what is wrong");
            assert!(message.remote_config.is_none() && message.flags == 0, "an error comes alone");
            Outcome::BadRequest
        }
    }
}

const fn denied(name: &'static str, detail: &'static str, act: fn(&Peer) -> Act) -> Case {
    Case { name, act, outcome: Outcome::Status(401), reason: Some("auth_failed"), audit: Some(detail) }
}

const fn refused(name: &'static str, outcome: Outcome, reason: &'static str, act: fn(&Peer) -> Act) -> Case {
    Case { name, act, outcome, reason: Some(reason), audit: None }
}

const fn accepted(name: &'static str, act: fn(&Peer) -> Act) -> Case {
    Case { name, act, outcome: Outcome::Answer, reason: None, audit: None }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    denied("no token, WebSocket", "missing-credentials", |p| Request(p.opening())),
    denied("no token, HTTP", "missing-credentials", |p| Request(p.poll(p.full_state()).without("Authorization"))),
    denied("another scheme, WebSocket", "missing-scheme", |p| Request(p.opening().with("Authorization", "Basic YTpi"))),
    denied("another scheme, HTTP", "missing-scheme", |p| Request(p.poll(p.full_state()).replacing("Authorization", "Basic YTpi"))),
    denied("a bare token, WebSocket", "missing-scheme", |p| Request(p.opening().with("Authorization", GOOD))),
    denied("a bare token, HTTP", "missing-scheme", |p| Request(p.poll(p.full_state()).replacing("Authorization", GOOD))),
    denied("a wrong token, WebSocket", "unknown", |p| Request(p.opening().bearer("a-good-tokem"))),
    denied("a wrong token, HTTP", "unknown", |p| Request(p.poll(p.full_state()).without("Authorization").bearer("a-good-tokem"))),
    denied("a revoked token, WebSocket", "revoked", |p| Request(p.opening().bearer(REVOKED))),
    denied("a revoked token, HTTP", "revoked", |p| Request(p.poll(p.full_state()).without("Authorization").bearer(REVOKED))),

    refused("a text frame", Outcome::Close(1003), "protocol", |_| Frames(vec![Frame::new(Opcode::TEXT, "hello")])),
    refused("header 1", Outcome::BadRequest, "malformed", |p| Frames(p.headed(&[1]))),
    refused("a header of eleven bytes", Outcome::BadRequest, "malformed", |p| Frames(p.headed(&ELEVEN_BYTES))),
    accepted("a header of ten bytes", |p| Frames(p.headed(&ELEVEN_BYTES[1..]))),
    accepted("a header of two bytes", |p| Frames(p.headed(&ELEVEN_BYTES[9..]))),
    refused("garbage, WebSocket", Outcome::BadRequest, "malformed", |_| Frames(vec![framed(&[0xff; 32])])),
    refused("garbage, HTTP", Outcome::Status(400), "malformed", |p| Request(p.poll(&[0xff; 32][..]))),

    refused("one byte too long, WebSocket", Outcome::Close(1009), "oversize", |p| Frames(vec![framed(&p.full_state_of(LIMIT))])),
    accepted("as long as may be, WebSocket", |p| Frames(vec![framed(&p.full_state_of(LIMIT - 1))])),
    refused("too long in fragments", Outcome::Close(1009), "oversize", |p| Frames(fragments(&p.full_state_of(LIMIT)))),
    accepted("as long as may be, in fragments", |p| Frames(fragments(&p.full_state_of(LIMIT - 1)))),
    refused("a frame that says it is long", Outcome::Close(1009), "oversize", |_| Frames(vec![Frame { length: Length::Claimed(1 << 40), ..Frame::binary("x") }])),
    refused("one byte too long, HTTP", Outcome::Status(413), "oversize", |p| Request(p.poll(p.full_state_of(LIMIT + 1)))),
    refused("one byte too long, in chunks", Outcome::Status(413), "oversize", |p| Request(p.poll(p.full_state_of(LIMIT + 1)).framed(Framing::Chunked(64 << 10)))),
    accepted("as long as may be, HTTP", |p| Request(p.poll(p.full_state_of(LIMIT)))),
    accepted("as long as may be, compressed", |p| Request(p.poll(p.full_state_of(LIMIT)).gzipped())),
    refused("one byte too long when inflated", Outcome::Status(413), "oversize", |p| Request(p.poll(p.full_state_of(LIMIT + 1)).gzipped())),
    refused("a gzip bomb", Outcome::Status(413), "oversize", |p| Request(bomb(p))),
    refused("no gzip at all", Outcome::Status(400), "malformed", |p| Request(p.poll(p.full_state()).with("Content-Encoding", "gzip"))),

    refused("another path, WebSocket", Outcome::Status(404), "protocol", |p| Request(HttpRequest { target: "/v2/opamp".to_owned(), ..p.opening().bearer(GOOD) })),
    refused("another path, HTTP", Outcome::Status(404), "protocol", |p| Request(HttpRequest { target: "/".to_owned(), ..p.poll(p.full_state()) })),
    refused("another method", Outcome::Status(405), "protocol", |p| Request(HttpRequest { method: "PUT".to_owned(), ..p.poll(p.full_state()) })),
    refused("another content type", Outcome::Status(415), "protocol", |p| Request(p.poll(p.full_state()).replacing("Content-Type", "application/json"))),
    refused("no content type", Outcome::Status(415), "protocol", |p| Request(p.poll(p.full_state()).without("Content-Type"))),
    accepted("a content type with parameters", |p| Request(p.poll(p.full_state()).replacing("Content-Type", "Application/X-Protobuf; v=1; q=\"a;b\""))),
    refused("a content coding nobody knows", Outcome::Status(415), "protocol", |p| Request(p.poll(p.full_state()).with("Content-Encoding", "br"))),

    refused("an upgrade without Upgrade", Outcome::Status(426), "protocol", |p| Request(p.opening().bearer(GOOD).without("Upgrade"))),
    refused("an upgrade without Connection", Outcome::Status(426), "protocol", |p| Request(p.opening().bearer(GOOD).without("Connection"))),
    refused("an upgrade without version", Outcome::Status(426), "protocol", |p| Request(p.opening().bearer(GOOD).without("Sec-WebSocket-Version"))),
    refused("an upgrade without key", Outcome::Status(400), "protocol", |p| Request(p.opening().bearer(GOOD).without("Sec-WebSocket-Key"))),
    refused("another WebSocket version", Outcome::Status(426), "protocol", |p| Request(p.opening().bearer(GOOD).replacing("Sec-WebSocket-Version", "8"))),

    refused("an identity of 15 bytes, WebSocket", Outcome::BadRequest, "malformed", |p| Frames(vec![framed(&p.short_uid())])),
    refused("an identity of 15 bytes, HTTP", Outcome::BadRequest, "malformed", |p| Request(p.poll(p.short_uid()))),
    refused("10,000 nested levels, WebSocket", Outcome::BadRequest, "malformed", |p| Frames(vec![framed(&p.nested(10_000))])),
    refused("10,000 nested levels, HTTP", Outcome::Status(400), "malformed", |p| Request(p.poll(p.nested(10_000)))),
    accepted("twenty nested levels", |p| Frames(vec![framed(&p.nested(20))])),
];

/// Zero as a varint of eleven bytes: one more than any varint has.
const ELEVEN_BYTES: [u8; 11] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0];

/// A message in frames that are each within the limit.
fn fragments(payload: &[u8]) -> Vec<Frame> {
    Frame::fragments(&framed(payload).payload, 64 << 10)
}

/// Eight times the limit in a few kilobytes.
fn bomb(peer: &Peer) -> HttpRequest {
    let packed = gzip(&vec![0; 8 * LIMIT]);
    assert!(packed.len() < LIMIT / 64);
    peer.poll(packed).with("Content-Encoding", "gzip")
}

/// A server that asks for tokens.
async fn guarded(mismatch: Mismatch) -> Harness {
    Harness::with(|config, _| {
        config.opamp.auth = AgentAuth::Token;
        config.opamp.tokens = vec![format!("edge={GOOD}").parse().unwrap()];
        config.opamp.revoked_tokens = vec![format!("retired={REVOKED}").parse().unwrap()];
        config.opamp.message_bytes_max = Size(LIMIT);
        config.opamp.capability_mismatch = mismatch;
    })
    .await
}

/// Good agents that must notice nothing.
async fn witnesses(harness: &Harness) -> [ScriptedAgent; 2] {
    let connect = async |number, wire| {
        let connector = Connector::new(harness.endpoint(), wire).with_token(GOOD);
        connector.start(Persona::new(number)).await.unwrap().0
    };
    [connect(1, Wire::WebSocket).await, connect(2, Wire::Http).await]
}

async fn notice_nothing(witnesses: &mut [ScriptedAgent; 2], during: &str) {
    for witness in witnesses {
        let answer = witness.heartbeat().await.unwrap_or_else(|error| panic!("{during}: {error}"));
        assert!(answer.error_response.is_none() && answer.flags == 0, "{during}:\n{}", witness.transcript());
    }
}

/// What was counted more since `before`.
fn more(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = after.iter().map(|(reason, count)| (reason.clone(), count - before[reason]));
    more.filter(|(_, count)| *count > 0).collect()
}

/// The entry of an agent that was turned away at this address.
async fn audited(harness: &Harness, source: SocketAddr) -> Value {
    until(&format!("an audit entry for {source}"), || async {
        let page = harness.rest.get("/api/v1/audit?action=agent.refuse&limit=5").await;
        let entries = page["entries"].as_array().unwrap();
        let found = entries.iter().find(|entry| entry["source"] == source.to_string());
        found.cloned().ok_or_else(|| page.to_string())
    })
    .await
}

#[tokio::test]
async fn everything_wrong_is_refused_as_documented_and_good_agents_notice_nothing() {
    let harness = guarded(Mismatch::Ignore).await;
    let mut witnesses = witnesses(&harness).await;
    for (number, case) in (1000..).zip(CASES) {
        let before = harness.rest.metrics().await.rejected();
        let peer = Peer { endpoint: harness.endpoint(), number };
        let seen = peer.does((case.act)(&peer)).await;
        assert_eq!(seen.outcome, case.outcome, "{}", case.name);
        let counted = more(&before, &harness.rest.metrics().await.rejected());
        let expected = case.reason.map(|reason| (reason.to_owned(), 1)).into_iter().collect();
        assert_eq!(counted, expected, "{}", case.name);
        if let Some(detail) = case.audit {
            let entry = audited(&harness, seen.source).await;
            assert_eq!(entry["after"]["reason"], "auth_failed", "{}", case.name);
            assert_eq!(entry["after"]["detail"], detail, "{}", case.name);
            let actor = if detail == "revoked" { "retired" } else { "anonymous" };
            assert_eq!((&entry["actor"], &entry["role"]), (&json!(actor), &json!("agent")), "{}", case.name);
            for secret in [GOOD, REVOKED] {
                assert!(!entry.to_string().contains(secret), "{}", case.name);
            }
        }
        notice_nothing(&mut witnesses, case.name).await;
    }
    // Nothing that was refused had any effect.
    let welcome = CASES.iter().filter(|case| case.outcome == Outcome::Answer).count();
    until("exactly the good agents are in the inventory", || async {
        let stats = harness.rest.get("/api/v1/stats").await;
        when(stats["registered"] == 2 + welcome, (), stats)
    })
    .await;
    assert_eq!(harness.rest.get("/api/v1/audit/verify").await["intact"], true);
}

#[tokio::test]
async fn a_field_without_its_capability_is_ignored_and_noted() {
    let harness = guarded(Mismatch::Ignore).await;
    let mut witnesses = witnesses(&harness).await;
    for (number, wire) in [(10, Wire::WebSocket), (11, Wire::Http)] {
        let before = harness.rest.metrics().await.rejected();
        let peer = Peer { endpoint: harness.endpoint(), number };
        let message = peer.ungated_health();
        let act = match wire {
            Wire::WebSocket => Frames(vec![framed(&message)]),
            Wire::Http => Request(peer.poll(message)),
        };
        let seen = peer.does(act).await;
        assert_eq!(seen.outcome, Outcome::Answer, "{wire:?}");
        let counted = more(&before, &harness.rest.metrics().await.rejected());
        assert_eq!(counted, BTreeMap::from([("cap_mismatch".to_owned(), 1)]), "{wire:?}");
        let id = harness.rest.id_of(Persona::new(number).uid).await;
        let record = harness.rest.agent(&id).await;
        assert_eq!(record["ignored_fields"], json!(["health"]));
        assert_eq!((&record["health"], &record["health_report"]), (&json!("unknown"), &Value::Null));
        assert_eq!(record["description"]["identifying"]["service.name"], "scripted", "the rest counts");
        notice_nothing(&mut witnesses, "a field without its capability").await;
    }
}

#[tokio::test]
async fn a_strict_server_refuses_a_field_without_its_capability() {
    let harness = guarded(Mismatch::Reject).await;
    let mut witnesses = witnesses(&harness).await;
    for (number, wire) in [(10, Wire::WebSocket), (11, Wire::Http)] {
        let before = harness.rest.metrics().await.rejected();
        let peer = Peer { endpoint: harness.endpoint(), number };
        let message = peer.ungated_health();
        let act = match wire {
            Wire::WebSocket => Frames(vec![framed(&message)]),
            Wire::Http => Request(peer.poll(message)),
        };
        let seen = peer.does(act).await;
        assert_eq!(seen.outcome, Outcome::BadRequest, "{wire:?}");
        let counted = more(&before, &harness.rest.metrics().await.rejected());
        assert_eq!(counted, BTreeMap::from([("cap_mismatch".to_owned(), 1)]), "{wire:?}");
        notice_nothing(&mut witnesses, "a field without its capability").await;
    }
    // Agents get into the inventory in the order in which they came: once a later one is there, nobody is missing.
    let connector = Connector::new(harness.endpoint(), Wire::WebSocket).with_token(GOOD);
    let (last, _) = connector.start(Persona::new(3)).await.unwrap();
    harness.rest.id_of(last.persona.uid).await;
    assert_eq!(harness.rest.agents().await.len(), witnesses.len() + 1, "nothing of the messages was taken");
}

#[tokio::test]
async fn every_failed_authentication_looks_the_same_to_the_peer() {
    let harness = guarded(Mismatch::Ignore).await;
    let endpoint = harness.endpoint();
    let poll = HttpRequest::opamp(&endpoint, &Persona::new(1).full_state());
    let mut looks = Vec::new();
    for authorization in
        [None, Some("Basic YTpi"), Some(GOOD), Some("Bearer wrong"), Some(&format!("Bearer {REVOKED}"))]
    {
        let request = match authorization {
            None => poll.clone(),
            Some(value) => poll.clone().with("Authorization", value),
        };
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
        let mut response = http.exchange(&request).await.unwrap();
        assert_eq!(response.status, 401);
        assert!(response.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        looks.push((response.headers, response.body));
    }
    assert!(looks.iter().all(|look| *look == looks[0]), "{looks:#?}");
}

#[tokio::test]
async fn a_failed_client_certificate_is_counted_and_audited_with_its_address() {
    let mut pki = None;
    let harness = Harness::with(|config, dir| {
        let pki = pki.insert(Pki::new(dir));
        config.opamp.auth = AgentAuth::Mtls;
        config.opamp.tls_cert = Some(pki.cert.clone());
        config.opamp.tls_key = Some(pki.key.clone());
        config.opamp.client_ca = Some(pki.client_ca.clone());
    })
    .await;
    let authority = pki.unwrap().authority;
    let stranger = Authority::new("stranger").client("edge", &[]);
    let expired = authority.expired_client("edge");
    let cases = [
        (authority.client_config(), "client certificate missing"),
        (authority.client_config_with(&stranger), "client certificate not trusted"),
        (authority.client_config_with(&expired), "client certificate expired or not yet valid"),
    ];
    for (config, detail) in cases {
        let before = harness.rest.metrics().await.rejected();
        let endpoint = Endpoint::tls(harness.server.opamp_addr(), config, "localhost");
        // With TLS 1.3 the client learns of it after its own part of the handshake.
        let mut stream = RawStream::connect(&endpoint, &Transcript::new()).await.unwrap();
        let source = stream.local_addr().unwrap();
        stream.read_to_end().await.expect_err("an alert");
        let entry = audited(&harness, source).await;
        assert_eq!(
            (&entry["after"]["reason"], &entry["after"]["detail"]),
            (&json!("auth_failed"), &json!(detail))
        );
        let counted = more(&before, &harness.rest.metrics().await.rejected());
        assert_eq!(counted, BTreeMap::from([("auth_failed".to_owned(), 1)]), "{detail}");
    }
}

/// What `curl -i -H … http://…/v1/opamp` sends, byte by byte.
fn curl(address: SocketAddr) -> String {
    format!(
        "GET /v1/opamp HTTP/1.1\r\nHost: {address}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[tokio::test]
async fn curl_with_the_four_upgrade_headers_is_answered_101_or_401() {
    let open = Harness::start().await;
    let guarded = guarded(Mismatch::Ignore).await;
    for (harness, status) in [(&open, 101), (&guarded, 401)] {
        let endpoint = harness.endpoint();
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
        http.send_bytes(curl(endpoint.addr).as_bytes()).await.unwrap();
        let response = http.read_response().await.unwrap();
        assert_eq!(response.status, status);
        // The answer to the example key of RFC 6455, section 1.3.
        let accept = (status == 101).then_some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.header("sec-websocket-accept"), accept);
    }
}

#[tokio::test]
async fn health_is_answered_to_everyone() {
    let harness = guarded(Mismatch::Ignore).await;
    let endpoint = Endpoint::plain(harness.server.admin_addr());
    for path in ["/health/live", "/health/ready"] {
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
        let request = HttpRequest::new("GET", &endpoint.clone().with_path(path));
        assert_eq!(http.exchange(&request).await.unwrap().status, 200, "{path}");
    }
}
