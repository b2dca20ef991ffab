//! The same subjects once more with the reference server, by its REST API.

use std::fs;
use std::path::Path;

use interop::{Agent, Outcome, Record, Server, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{EVENTUALLY, PLAIN, over};

const ECHO: &str = "org.example.echo";

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn settings_that_lead_nowhere_and_settings_of_telemetry_are_in_the_record() -> Outcome {
    over(&PLAIN, "rest-settings", |scheme, directory| {
        let mut server = Server::start(directory, &[])?;
        let mut agent = start(directory, &server, scheme, &["-accept-settings", "-trial", "2s"])?;
        let record = server.agent("told")?;
        record.set_offer(
            SETTINGS,
            &json!({
                "opamp": {"destination_endpoint": format!("{scheme}://127.0.0.1:1/v1/opamp")},
            }),
        )?;
        agent.expect("settings_failed")?;
        let failed = record.until_offer(SETTINGS, EVENTUALLY, |shown| shown["drift"] == "failed")?;
        ensure!(failed["reported"]["status"] == "FAILED" && failed["reported"]["error"] != "", "{failed:#}");

        let good = record.set_offer(
            SETTINGS,
            &json!({
                "own_metrics": {"destination_endpoint": "https://127.0.0.1:9/v1/metrics"},
            }),
        )?;
        agent.expect("connection_settings")?;
        let applied = record.until_offer(SETTINGS, EVENTUALLY, |shown| shown["drift"] == "in_sync")?;
        ensure!(applied["reported"]["hash"] == good["desired"]["hash"], "{applied:#}");

        // In a full report opamp-go leaves this status out, so that a server had better not forget it.
        server.terminate()?;
        server.start_again()?;
        let record = server.agent("told")?;
        let back = |record: &Value| record["liveness"] == "connected" && record["health"] == "healthy";
        let (seen, _) = record.until("it is back", EVENTUALLY, back)?;
        let number = |record: &Value| record["sequence_num"].as_u64().unwrap_or_default();
        record.until("five more messages", EVENTUALLY, |later| number(later) >= number(&seen) + 5)?;
        let shown = record.read_offer(SETTINGS)?;
        ensure!(shown["drift"] == "in_sync", "{shown:#}");
        ensure!(agent.count("connection_settings") == 1, "what it has was offered again");
        agent.quit()
    })
}

/// R-PKG-53, R-AUTH-01: the file comes from the OpAMP port, with the header of the offer and not without.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn package_is_uploaded_assigned_downloaded_and_reported() -> Outcome {
    over(&PLAIN, "rest-packages", |scheme, directory| {
        let server = Server::start(directory, &[])?;
        let kept = directory.join("kept");
        let mut agent = start(directory, &server, scheme, &["-packages", &kept.to_string_lossy()])?;
        let record = server.agent("told")?;
        // More than one chunk of the store, and no multiple of it.
        let content: Vec<u8> = (0..(2 << 20) + 77).map(|at: u32| (at * 31 % 253) as u8).collect();
        let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("/api/v1/packages?name=plugin&version=1.0.0&type=top_level&sha256={digest}");
        server.rest().upload(&path, &content)?;
        record.set_offer("packages", &json!({"packages": {"plugin": "1.0.0"}}))?;
        agent.expect("packages_synced")?;
        let shown = record.until_offer("packages", EVENTUALLY, |shown| shown["drift"] == "in_sync")?;
        let reported = &shown["reported"]["packages"]["plugin"];
        ensure!(reported["status"] == "INSTALLED" && reported["agent_has_version"] == "1.0.0", "{shown:#}");
        ensure!(fs::read(kept.join("package-706c7567696e"))? == content, "not what was uploaded");
        agent.quit()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn custom_messages_and_components_are_in_the_record() -> Outcome {
    over(&PLAIN, "rest-custom", |scheme, directory| {
        let server = Server::start(directory, &["--custom-capabilities", ECHO])?;
        let mut agent = start(directory, &server, scheme, &["-custom", ECHO, "-component", "otlp=1.0"])?;
        let record = server.agent("told")?;
        record.until("its capability and its components", EVENTUALLY, |record| {
            record["custom_capabilities"] == json!([ECHO]) && record.to_string().contains("\"otlp\"")
        })?;
        let path = format!("/api/v1/agents/{}/custom-messages", record.id);
        for number in 0..10 {
            let body = json!({"capability": ECHO, "type": "ping", "data": format!("{number}")});
            server.rest().post(&path, &body)?;
        }
        for number in 0..10_u8 {
            let received = agent.expect("custom_message")?;
            ensure!(received["data"] == format!("{:02x}", b'0' + number), "{number}: {received}");
        }
        for number in 0..10_u8 {
            agent.order(&format!("custom {ECHO} pong {:02x}", b'0' + number))?;
        }
        let shown = received(&record, 10)?;
        for (number, message) in shown.iter().enumerate() {
            ensure!(
                message["type"] == "pong" && message["data"] == format!("{number}"),
                "{number}: {message}"
            );
        }
        agent.quit()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn throttled_agents_stay_away_until_that_is_over() -> Outcome {
    over(&PLAIN, "rest-throttle", |scheme, directory| {
        let server = Server::start(directory, &[])?;
        server.rest().put("/api/v1/throttle", &json!({"retry_after_seconds": 1}))?;
        let mut agent = start(directory, &server, scheme, &[])?;
        agent.expect("connect_failed")?;
        let stats = server.rest().get("/api/v1/stats")?;
        ensure!(stats["registered"] == 0, "it was let in: {stats}");
        server.rest().call("DELETE", "/api/v1/throttle", &[], None)?.success()?;
        agent.expect("connected")?;
        server.agent("told")?.until("it", EVENTUALLY, |record| record["liveness"] == "connected")?;
        agent.quit()
    })
}

const SETTINGS: &str = "connection-settings";

fn start(directory: &Path, server: &Server, scheme: &str, flags: &[&str]) -> Outcome<Agent> {
    Agent::named(directory, &server.url(scheme), "told", &[&["-heartbeat", "200ms"], flags].concat())
}

/// The custom messages of an agent, once there are so many.
fn received(record: &Record<'_>, count: usize) -> Outcome<Vec<Value>> {
    let all = |shown: &Value| shown["messages"].as_array().cloned().unwrap_or_default();
    let shown = record.until_offer("custom-messages", EVENTUALLY, |shown| all(shown).len() >= count)?;
    Ok(all(&shown))
}
