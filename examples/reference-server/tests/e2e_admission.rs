//! Who comes when there is no room, too fast, or says nothing is made to wait or sent away, in a way that brings agents back
//! later, and `/metrics` shows each of it. A good agent notices none of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::time::Duration;

use e2e::{dir::TempDir, harness::Harness, process::Process, rest::Rest, until, when};
use opamp_proto::{ServerToAgentFlags, pb};
use opamp_testkit::{
    agent::{Connector, Persona, Wire},
    raw::{
        Endpoint, Frame, Framing, Handshake, HttpRequest, HttpResponse, Opening, RawHttp, RawStream, RawWs,
        Received,
    },
    transcript::Transcript,
};
use prost::Message as _;
use reference_server::config::{AgentAuth, Config, Count, Frames, Size};

const LIMIT: usize = 64 << 10;
const BOTH: [Frames; 2] = [Frames::Lean, Frames::Tungstenite];

async fn server(change: impl FnOnce(&mut Config)) -> Harness {
    Harness::with(|config, _| change(config)).await
}

async fn upgrade(harness: &Harness, token: Option<&str>) -> Result<RawWs, HttpResponse> {
    let mut handshake = Handshake::new(&harness.endpoint());
    if let Some(token) = token {
        handshake = handshake.bearer(token);
    }
    attempt(&harness.endpoint(), &handshake).await
}

async fn attempt(endpoint: &Endpoint, handshake: &Handshake) -> Result<RawWs, HttpResponse> {
    match RawWs::attempt(endpoint, handshake, &Transcript::new()).await.unwrap() {
        Opening::Open(socket) => Ok(*socket),
        Opening::Refused(response) => Err(response),
    }
}

async fn request(harness: &Harness, request: &HttpRequest) -> HttpResponse {
    let mut http = RawHttp::connect(&harness.endpoint(), &Transcript::new()).await.unwrap();
    http.exchange(request).await.unwrap()
}

fn poll(harness: &Harness, number: u32) -> HttpRequest {
    HttpRequest::opamp(&harness.endpoint(), &Persona::new(number).full_state())
}

/// The beginning of a message that has more frames to come.
fn beginning(bytes: usize) -> Frame {
    Frame { fin: false, ..Frame::binary(vec![0; bytes]) }
}

async fn metric_is(rest: &Rest, sample: &str, holds: impl Fn(f64) -> bool) {
    until(sample, || async {
        let value = rest.metrics().await.get(sample);
        when(holds(value), (), value)
    })
    .await;
}

/// The seconds of `Retry-After`, which there must be.
fn retry_after(response: &HttpResponse) -> u64 {
    response.header("retry-after").expect("Retry-After").parse().unwrap()
}

fn rejected(stage: &str) -> String {
    format!("opamp_admission_rejected_total{{stage=\"{stage}\"}}")
}

fn slow(with: &str) -> String {
    format!("opamp_slow_peers_closed_total{{with=\"{with}\"}}")
}

#[tokio::test]
async fn one_identity_has_as_many_connections_as_it_may_and_others_are_not_kept_out() {
    let harness = server(|config| {
        config.opamp.auth = AgentAuth::Token;
        config.opamp.tokens = vec!["edge=edge-token".parse().unwrap(), "core=core-token".parse().unwrap()];
        config.opamp.connections_per_identity_max = Some(Count(2));
    })
    .await;
    let first = upgrade(&harness, Some("edge-token")).await.unwrap();
    let _second = upgrade(&harness, Some("edge-token")).await.unwrap();
    let refused = upgrade(&harness, Some("edge-token")).await.unwrap_err();
    assert_eq!(refused.status, 429);
    assert!((15..=31).contains(&retry_after(&refused)), "{refused:?}");
    let refused = request(&harness, &poll(&harness, 1).bearer("edge-token")).await;
    assert_eq!(refused.status, 429);
    assert!(retry_after(&refused) >= 15);
    upgrade(&harness, Some("core-token")).await.unwrap();
    assert_eq!(request(&harness, &poll(&harness, 2).bearer("core-token")).await.status, 200);
    let metrics = harness.rest.metrics().await;
    assert_eq!(metrics.get(&rejected("identity")), 2.0);
    assert_eq!(metrics.rejected()["rate_limited"], 2);
    // A connection that has ended makes room for another one.
    drop(first);
    until("there is room again", || async {
        let upgraded = upgrade(&harness, Some("edge-token")).await;
        upgraded.map(drop).map_err(|refused| refused.status.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_request_that_there_is_no_room_for_is_sent_away_and_the_one_that_has_it_is_served() {
    let harness = server(|config| {
        config.opamp.message_bytes_max = Size(LIMIT);
        config.opamp.buffered_bytes_max = Size(LIMIT);
    })
    .await;
    let endpoint = harness.endpoint();
    let body = Persona::new(1).with_full_state_of(LIMIT - 1_000).full_state().encode_to_vec();
    let post = HttpRequest::post(&endpoint, body.clone()).framed(Framing::Length);
    let mut holder = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    holder.send_head(&post).await.unwrap();
    let (some, rest) = body.split_at(LIMIT - 8_000);
    holder.send_bytes(some).await.unwrap();
    metric_is(&harness.rest, "opamp_buffered_bytes", |held| held >= 40_000.0).await;

    let mut other = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    other.send_head(&post).await.unwrap();
    // The answer may come before all of it is sent.
    let _ = other.send_bytes(some).await;
    let refused = other.read_response().await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(retry_after(&refused) >= 15);

    holder.send_bytes(rest).await.unwrap();
    assert_eq!(holder.read_response().await.unwrap().status, 200);
    metric_is(&harness.rest, "opamp_buffered_bytes", |held| held == 0.0).await;
    let metrics = harness.rest.metrics().await;
    assert_eq!(metrics.get(&rejected("memory")), 1.0);
    assert!(metrics.get("opamp_buffered_denied_total") >= 1.0);
    assert_eq!(metrics.get("opamp_buffered_bytes_max"), LIMIT as f64);
    let peak = metrics.get("opamp_buffered_bytes_peak");
    assert!((40_000.0..=LIMIT as f64).contains(&peak), "{peak}");
    assert_eq!(metrics.rejected()["unavailable"], 1);
}

#[tokio::test]
async fn a_message_that_there_is_no_room_for_is_answered_unavailable_whoever_reads_the_frames() {
    for frames in BOTH {
        let harness = server(|config| {
            config.opamp.message_bytes_max = Size(LIMIT);
            config.opamp.buffered_bytes_max = Size(LIMIT);
            config.opamp.websocket_frames = frames;
        })
        .await;
        let connector = Connector::new(harness.endpoint(), Wire::WebSocket);
        let (mut witness, _) = connector.start(Persona::new(1)).await.unwrap();
        let mut holder = upgrade(&harness, None).await.unwrap();
        holder.send_frame(&beginning(40_000)).await.unwrap();
        metric_is(&harness.rest, "opamp_buffered_bytes", |held| held >= 40_000.0).await;

        let mut other = upgrade(&harness, None).await.unwrap();
        let _ = other.send_frame(&beginning(40_000)).await;
        let Received::Binary(answer) = other.next().await.unwrap() else { panic!("an answer first") };
        let answer = pb::ServerToAgent::decode(&answer[1..]).unwrap();
        let error = answer.error_response.unwrap();
        assert_eq!(error.r#type(), pb::ServerErrorResponseType::Unavailable, "{frames}");
        let Some(pb::server_error_response::Details::RetryInfo(retry)) = error.details else {
            panic!("it says when to come back")
        };
        assert!(retry.retry_after_nanoseconds >= 15_000_000_000, "{frames}");
        assert_eq!(other.expect_close().await.unwrap().code, Some(1013), "{frames}");

        assert!(witness.heartbeat().await.unwrap().error_response.is_none());
        drop(holder);
        metric_is(&harness.rest, "opamp_buffered_bytes", |held| held == 0.0).await;
        let metrics = harness.rest.metrics().await;
        assert_eq!(
            (metrics.get(&rejected("memory")), metrics.rejected()["unavailable"]),
            (1.0, 1),
            "{frames}"
        );
        assert!(metrics.get("opamp_buffered_bytes_peak") <= LIMIT as f64, "{frames}");
    }
}

#[tokio::test]
async fn connections_beyond_the_pace_wait_for_their_turn_and_are_all_served() {
    let harness = server(|config| {
        config.opamp.accept_rate = Count(20);
        config.opamp.accept_burst = Count(1);
    })
    .await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(RawStream::connect(&harness.endpoint(), &Transcript::new()).await.unwrap());
    }
    for (number, stream) in (0..).zip(streams) {
        let response = RawHttp::over(stream).exchange(&poll(&harness, number)).await.unwrap();
        assert_eq!(response.status, 200);
    }
    let metrics = harness.rest.metrics().await;
    assert_eq!(metrics.get("opamp_connections_admitted_total"), 5.0);
    assert!(metrics.get("opamp_connections_deferred_total") >= 3.0);
    assert_eq!(metrics.get("opamp_connection_wait_seconds_count"), 5.0);
    assert!(metrics.get("opamp_connection_wait_seconds_sum") > 0.1);
    assert_eq!(metrics.get("opamp_connections_waiting"), 0.0);
}

#[tokio::test]
async fn requests_for_full_state_beyond_the_pace_reach_agents_later_that_say_nothing_meanwhile() {
    const ASKED: u64 = ServerToAgentFlags::REPORT_FULL_STATE.bits();
    let harness = server(|config| {
        config.opamp.resync_rate = Count(2);
        config.opamp.resync_burst = Count(1);
    })
    .await;
    let mut agents = Vec::new();
    for number in 0..3 {
        let connector = Connector::new(harness.endpoint(), Wire::WebSocket);
        agents.push(connector.start(Persona::new(number)).await.unwrap().0);
    }
    let mut flags = Vec::new();
    for agent in &mut agents {
        // One message of it is lost on the way.
        agent.persona.heartbeat();
        flags.push(agent.heartbeat().await.unwrap().flags);
    }
    assert_eq!(flags, [ASKED, 0, 0]);
    for agent in &mut agents[1..] {
        assert_eq!(agent.ws().receive().await.unwrap().flags, ASKED, "without having said anything");
    }
    let metrics = harness.rest.metrics().await;
    assert_eq!(metrics.get("opamp_full_state_deferred_total"), 2.0);
    assert_eq!(metrics.get("opamp_full_state_requests_total"), 3.0);
    assert_eq!(metrics.get("opamp_full_state_waiting"), 0.0);
}

#[tokio::test]
async fn peers_that_say_nothing_or_not_enough_are_closed_each_with_its_reason() {
    for frames in BOTH {
        let harness = server(|config| {
            config.opamp.websocket_frames = frames;
            config.opamp.handshake_timeout = Duration::from_millis(300);
            config.opamp.first_message_timeout = Duration::from_millis(300);
            config.opamp.body_timeout = Duration::from_millis(300);
        })
        .await;
        let endpoint = harness.endpoint();
        let mut connected = RawStream::connect(&endpoint, &Transcript::new()).await.unwrap();
        let mut upgraded = upgrade(&harness, None).await.unwrap();
        let (mut begun, _) =
            Connector::new(endpoint.clone(), Wire::WebSocket).start(Persona::new(1)).await.unwrap();
        begun.ws().send_frame(&beginning(10)).await.unwrap();
        assert_eq!(upgraded.expect_close().await.unwrap().code, Some(1008), "{frames}");
        assert_eq!(begun.ws().expect_close().await.unwrap().code, Some(1008), "{frames}");
        connected.read_to_end().await.unwrap();
        for with in ["handshake", "first_message", "message"] {
            metric_is(&harness.rest, &slow(with), |closed| closed == 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_shutdown_closes_in_waves_and_the_admin_port_shows_how_far_it_is() {
    let harness = server(|config| {
        config.server.shutdown_timeout = Duration::from_secs(40);
        config.opamp.drain_rate = Count(2);
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(upgrade(&harness, None).await.unwrap());
    }
    let rest = harness.rest.clone();
    let stopping = tokio::spawn(harness.server.shutdown());
    metric_is(&rest, "opamp_drain_told", |told| told > 0.0).await;
    let metrics = rest.metrics().await;
    assert_eq!(metrics.get("opamp_drain_websockets"), 6.0);
    assert!(metrics.get("opamp_drain_told") < 6.0, "not all at once");
    assert_eq!(rest.call("GET", "/health/ready", None).await.status, 503);
    for socket in &mut sockets {
        let close = socket.expect_close().await.unwrap();
        assert_eq!(close.code, Some(1001));
        socket.answer_close(&close).await.unwrap();
    }
    assert!(stopping.await.unwrap(), "all of it in time");
}

#[tokio::test]
async fn after_a_restart_metrics_show_how_much_of_the_fleet_is_back() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let mut process = Process::start(&data, &[]).await;
    let token = process.printed_token().unwrap();
    for number in 0..4 {
        let connector = Connector::new(process.endpoint(), Wire::Http);
        let (agent, _) = connector.start(Persona::new(number)).await.unwrap();
        process.rest(&token).id_of(agent.persona.uid).await;
    }
    process.terminate();
    assert!(process.ended().await.success());

    let process = Process::start(&data, &[]).await;
    let rest = process.rest(&token);
    let metrics = rest.metrics().await;
    assert_eq!(metrics.get("opamp_fleet_return_expected"), 4.0);
    assert_eq!(metrics.get("opamp_fleet_return_returned"), 0.0);
    for number in 0..4 {
        Connector::new(process.endpoint(), Wire::WebSocket).start(Persona::new(number)).await.unwrap();
    }
    let metrics = rest.metrics().await;
    assert_eq!(metrics.get("opamp_fleet_return_returned"), 4.0);
    let after = |percent: u8| metrics.get(&format!("opamp_fleet_return_seconds{{percent=\"{percent}\"}}"));
    assert!(after(50) <= after(90) && after(90) <= after(99) && after(99) <= after(100));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_may_open_few_files_says_so_and_keeps_some_for_itself() {
    let dir = TempDir::new();
    let process = Process::start_with_files(&dir.path().join("data"), 128, 320, &[]).await;
    let log = process.errors();
    assert!(log.contains("may have 320 files open: WebSockets beyond 80 are answered 503"), "{log}");
    let mut sockets = Vec::new();
    for _ in 0..80 {
        sockets.push(RawWs::connect(&process.endpoint(), &Transcript::new()).await.unwrap());
    }
    let handshake = Handshake::new(&process.endpoint());
    let refused = attempt(&process.endpoint(), &handshake).await.unwrap_err();
    assert_eq!(refused.status, 503);
    assert!(retry_after(&refused) >= 15);
    let rest = process.rest(&process.printed_token().unwrap());
    let metrics = rest.metrics().await;
    assert_eq!(metrics.get("process_max_fds"), 320.0);
    assert_eq!(metrics.get(&rejected("connections")), 1.0);

    // A storm of others takes what is left of its sockets, and none of the files that the admin port needs.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(RawStream::connect(&process.endpoint(), &Transcript::new()).await.unwrap());
    }
    until("they are let in", async || {
        let open = rest.metrics().await.get("process_open_fds");
        when(open >= 160.0, (), open)
    })
    .await;
    for _ in 0..20 {
        let metrics = rest.metrics().await;
        assert!(metrics.get("process_open_fds") < 160.0 + 64.0);
        assert_eq!(metrics.get("opamp_accept_failures_total"), 0.0);
    }
    drop((silent, sockets));
    until("there is room again", async || {
        let attempted = attempt(&process.endpoint(), &handshake).await;
        attempted.map(drop).map_err(|refused| refused.status.to_string())
    })
    .await;
}
