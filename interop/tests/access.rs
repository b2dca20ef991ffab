//! Who gets in: the handshake by hand, and the agent with and without a token.

use std::time::Duration;

use interop::rest::exchange;
use interop::{Agent, Look, Outcome, Server, ensure, eventually, scenario};

const EVENTUALLY: Duration = Duration::from_secs(20);

/// The four headers of RFC 6455 §4.1 that ask for a WebSocket, and perhaps credentials.
fn upgrade(server: &Server, authorization: Option<&str>) -> Outcome<u16> {
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /v1/opamp HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{authorization}\r\n",
        server.opamp_address()
    );
    let answer = exchange(server.opamp_address(), request.as_bytes())?;
    if answer.status == 101 {
        // The key is the example of RFC 6455 §1.3, and so is the answer to it.
        let accept = answer.header("sec-websocket-accept");
        ensure!(accept == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "accept {accept:?}");
    }
    Ok(answer.status)
}

#[test]
fn four_headers_open_a_websocket() -> Outcome {
    scenario("upgrade", |directory| {
        let server = Server::start(directory, &[])?;
        let status = upgrade(&server, None)?;
        ensure!(status == 101, "status {status}");
        Ok(())
    })
}

#[test]
fn with_authentication_on_only_a_bearer_token_opens_a_websocket() -> Outcome {
    scenario("token", |directory| {
        let server = Server::start(directory, &["--auth", "token", "--tokens", "fleet=sesame-open"])?;
        for (authorization, expected) in [
            (None, 401),
            (Some("sesame-open"), 401),
            (Some("Basic sesame-open"), 401),
            (Some("Bearer sesame-shut"), 401),
            (Some("Bearer sesame-open"), 101),
        ] {
            let status = upgrade(&server, authorization)?;
            ensure!(status == expected, "{authorization:?}: {status} instead of {expected}");
        }
        let refused = server.metric(r#"opamp_frames_rejected_total{reason="auth_failed"}"#)?;
        ensure!((refused - 4.0).abs() < f64::EPSILON, "{refused} refusals are counted");
        eventually("four audit entries with the source address", EVENTUALLY, || {
            let page = server.rest().get("/api/v1/audit?limit=100")?;
            let entries = page["entries"].as_array().cloned().unwrap_or_default();
            let failures = entries.iter().filter(|entry| {
                entry["action"] == "agent.refuse"
                    && entry["after"]["reason"] == "auth_failed"
                    && entry["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1:"))
            });
            Ok(Look::when(failures.count() == 4, (), page.to_string()))
        })?;
        Ok(())
    })
}

#[test]
fn liveness_and_readiness_need_no_credentials() -> Outcome {
    scenario("health", |directory| {
        let server = Server::start(directory, &[])?;
        for path in ["/health/live", "/health/ready"] {
            let status = server.ask(path)?.status;
            ensure!(status == 200, "{path}: {status}");
        }
        let status = server.ask("/api/v1/agents")?.status;
        ensure!(status == 401, "the inventory is open: {status}");
        Ok(())
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_with_the_token_is_let_in_over_websocket() -> Outcome {
    scenario("token-ws", |directory| token(&Server::start(directory, &TOKENS)?, "ws"))
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_with_the_token_is_let_in_over_polling() -> Outcome {
    scenario("token-http", |directory| token(&Server::start(directory, &TOKENS)?, "http"))
}

const TOKENS: [&str; 4] = ["--auth", "token", "--tokens", "fleet=sesame-open"];

fn token(server: &Server, scheme: &str) -> Outcome {
    let url = server.url(scheme);
    let refused = || server.metric(r#"opamp_frames_rejected_total{reason="auth_failed"}"#);
    let intruder = Agent::start(&["-url", &url, "-name", "intruder", "-token", "sesame-shut"])?;
    // Over HTTP the opamp-go client says nothing of a 401: the server's counter tells for both.
    eventually("the refusal", EVENTUALLY, || Ok(Look::when(refused()? >= 1.0, (), "no refusal")))?;
    intruder.kill()?;
    let mut agent = Agent::start(&["-url", &url, "-name", "member", "-token", "sesame-open"])?;
    agent.expect("connected")?;
    let record = server.agent("member")?.read()?;
    ensure!(record["identity"] == "token:fleet", "{record:#}");
    let stats = server.rest().get("/api/v1/stats")?;
    ensure!(stats["registered"] == 1, "the intruder is in the inventory: {stats}");
    agent.quit()
}
