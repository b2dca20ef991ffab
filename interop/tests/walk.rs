//! A foreign agent is seen, given a config, and reports it back; over every way to connect.

use std::path::Path;
use std::time::Duration;

use interop::{Agent, Certificates, Outcome, Server, ensure, scenario};
use serde_json::{Value, json};

/// What the server has for an agent must have arrived, been applied and been reported back by then.
const PROMPTLY: Duration = Duration::from_secs(1);

/// For what nobody promised to do quickly.
const EVENTUALLY: Duration = Duration::from_secs(20);

/// Polls often, so that the walk is about the server and not about the interval.
const POLLING: [&str; 2] = ["-heartbeat", "200ms"];

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn config_is_applied_and_reported_over_websocket() -> Outcome {
    scenario("walk-ws", |directory| walk(directory, &Server::start(directory, &[])?, "ws", &[]))
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn config_is_applied_and_reported_over_polling() -> Outcome {
    scenario("walk-http", |directory| walk(directory, &Server::start(directory, &[])?, "http", &POLLING))
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn config_is_applied_and_reported_over_websocket_with_mutual_tls() -> Outcome {
    scenario("walk-wss", |directory| {
        let tls = Tls::new(directory)?;
        let server = tls.server(directory)?;
        walk(directory, &server, "wss", &tls.agent("client"))?;
        identity_is_the_certificate(&server)
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn config_is_applied_and_reported_over_polling_with_mutual_tls() -> Outcome {
    scenario("walk-https", |directory| {
        let tls = Tls::new(directory)?;
        let server = tls.server(directory)?;
        walk(directory, &server, "https", &[&POLLING[..], &tls.agent("client")].concat())?;
        identity_is_the_certificate(&server)
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_with_a_foreign_certificate_or_none_stays_outside() -> Outcome {
    scenario("walk-stranger", |directory| {
        let tls = Tls::new(directory)?;
        let server = tls.server(directory)?;
        for flags in [tls.agent("stranger"), vec!["-ca", &*tls.ca]] {
            let mut agent = Agent::named(directory, &server.url("wss"), "stranger", &flags)?;
            agent.expect("connect_failed")?;
            ensure!(agent.count("connected") == 0, "a stranger was let in with {flags:?}");
        }
        let stats = server.rest().get("/api/v1/stats")?;
        ensure!(stats["registered"] == 0, "a stranger is in the inventory: {stats}");
        Ok(())
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn failed_config_is_told_and_the_next_one_repairs_it() -> Outcome {
    scenario("failed", |directory| {
        let server = Server::start(directory, &[])?;
        let mut agent = Agent::named(directory, &server.url("ws"), "failing", &[])?;
        let record = server.agent("failing")?;
        let bad = server.publish("failing", &json!({"": {"body": "# reject\n"}}))?;
        record.assign("failing", 1)?;
        agent.expect("remote_config_status")?;
        let (seen, _) = record.until("the failure in the record", PROMPTLY, |record| {
            record["drift"] == "failed"
                && record["remote_config_status"]["hash"] == bad.as_str()
                && record["apply_error"].as_str().is_some_and(|text| text.contains("# reject"))
        })?;
        ensure!(seen["effective_config"][""]["body"] == "receivers: {}\n", "what runs has changed: {seen:#}");

        let (version, good) = server.publish_next("failing", &json!({"": {"body": "a: 1\n"}}))?;
        record.assign("failing", version)?;
        let (seen, _) = record.until("the good config in the record", PROMPTLY, |record| {
            record["drift"] == "in_sync" && record["last_known_good"] == good.as_str()
        })?;
        ensure!(seen["apply_error"].is_null(), "the error outlives its config: {seen:#}");
        ensure!(seen["sticky"]["last_failure"]["hash"] == bad.as_str(), "the failure is forgotten: {seen:#}");
        ensure!(agent.count("remote_config") == 2, "a failed config was offered again");
        agent.quit()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn restart_command_restarts_the_agent_over_websocket() -> Outcome {
    scenario("restart-ws", |directory| restart(directory, "ws", &[]))
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn restart_command_restarts_the_agent_over_polling() -> Outcome {
    scenario("restart-http", |directory| restart(directory, "http", &POLLING))
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn changes_of_health_and_description_arrive() -> Outcome {
    scenario("changes", |directory| {
        let server = Server::start(directory, &[])?;
        let mut agent =
            Agent::named(directory, &server.url("ws"), "changing", &["-health-interval", "20ms"])?;
        let record = server.agent("changing")?;
        agent.command("health bad disk full")?;
        let unhealthy = |record: &Value| record["health"] == "unhealthy";
        let (seen, _) = record.until("unhealthy", PROMPTLY, unhealthy)?;
        ensure!(seen["health_report"]["last_error"] == "disk full", "{seen:#}");
        ensure!(seen["health_report"]["components"]["pipeline:logs"]["healthy"] == false, "{seen:#}");
        agent.command("health ok")?;
        record.until("healthy", PROMPTLY, |record| record["health"] == "healthy")?;
        agent.command("describe zone north")?;
        record.until("the new attribute", PROMPTLY, |record| {
            record["description"]["non_identifying"]["zone"] == "north"
        })?;
        let page = server.rest().get("/api/v1/agents?selector=zone=north,service.name=changing")?;
        ensure!(page["agents"][0]["id"] == record.id.as_str(), "the selector does not see it: {page}");
        agent.quit()
    })
}

fn walk(directory: &Path, server: &Server, scheme: &str, flags: &[&str]) -> Outcome {
    let mut agent = Agent::named(directory, &server.url(scheme), "walking", flags)?;
    agent.expect("connected")?;
    let record = server.agent("walking")?;
    let (seen, _) = record.until("a complete record", EVENTUALLY, |record| {
        record["liveness"] == "connected" && record["effective_config"][""]["body"] == "receivers: {}\n"
    })?;
    let transport = if scheme.starts_with("ws") { "websocket" } else { "http" };
    ensure!(seen["transport"] == transport, "{seen:#}");
    ensure!(seen["description"]["identifying"]["service.name"] == "walking", "{seen:#}");
    ensure!(seen["health_report"]["healthy"] == true && seen["health"] == "healthy", "{seen:#}");
    ensure!(seen["drift"] == "unmanaged", "{seen:#}");
    let capabilities = seen["capabilities"].as_array().cloned().unwrap_or_default();
    ensure!(capabilities.contains(&json!("AcceptsRemoteConfig")), "{seen:#}");

    let files = json!({
        "": {"body": "receivers:\n  otlp: {}\n", "content_type": "text/yaml"},
        "extra.yaml": {"body": "exporters: {}\n"},
    });
    let hash = server.publish("pipeline", &files)?;
    let assigned = record.assign("pipeline", 1)?;
    let dispatch = if transport == "websocket" { "pushed" } else { "next_poll" };
    ensure!(assigned["dispatch"] == dispatch, "{assigned}");
    let runs = |record: &Value, name: &str| record["effective_config"][name]["body"] == files[name]["body"];
    let (seen, took) = record.until("APPLIED, effective config, no drift", PROMPTLY, |record| {
        record["remote_config_status"]["status"] == "APPLIED"
            && record["remote_config_status"]["hash"] == hash.as_str()
            && record["drift"] == "in_sync"
            && runs(record, "")
            && runs(record, "extra.yaml")
    })?;
    println!("{scheme}: from the assignment to the record without drift in {took:?}");
    ensure!(seen["desired_config"]["hash"] == hash.as_str(), "{seen:#}");
    ensure!(seen["apply_error"].is_null(), "{seen:#}");
    let offered = agent.expect("remote_config")?;
    ensure!(offered["files"] == json!(["", "extra.yaml"]), "{offered}");
    ensure!(offered["hash"] == hash.as_str(), "{offered}");

    ensure!(server.metric("opamp_offers_sent_total")? >= 1.0, "the offer is not counted");
    let applied = server.metric(r#"opamp_apply_duration_seconds_count{agent_type="walking"}"#)?;
    ensure!((applied - 1.0).abs() < f64::EPSILON, "{applied} applied configs are counted");
    agent.quit()
}

fn restart(directory: &Path, scheme: &str, flags: &[&str]) -> Outcome {
    let server = Server::start(directory, &[])?;
    let mut agent = Agent::named(directory, &server.url(scheme), "restarting", flags)?;
    let record = server.agent("restarting")?;
    let (before, _) = record.until("health", EVENTUALLY, |record| record["health"] == "healthy")?;
    record.restart()?;
    agent.expect("restart_command")?;
    agent.expect("restarted")?;
    let (after, _) = record.until("the restart in the record", EVENTUALLY, |record| {
        record["liveness"] == "connected" && record["sticky"]["start_time_changes"] == 1
    })?;
    ensure!(after["uid"] == before["uid"], "{after:#}");
    ensure!(after["health_report"]["start_time"] != before["health_report"]["start_time"], "{after:#}");
    ensure!(agent.count("restart_command") == 1, "the command came more than once");
    agent.quit()
}

fn identity_is_the_certificate(server: &Server) -> Outcome {
    let record = server.agent("walking")?.read()?;
    let identity = record["identity"].as_str().unwrap_or_default();
    ensure!(identity.starts_with("certificate:"), "identity {identity:?}");
    Ok(())
}

/// Flags for both sides of mutual TLS.
struct Tls {
    files: Certificates,
    ca: String,
}

impl Tls {
    fn new(directory: &Path) -> Outcome<Self> {
        let files = Certificates::issue(directory)?;
        let ca = files.certificate("ca").to_string_lossy().into_owned();
        Ok(Self { files, ca })
    }

    fn server(&self, directory: &Path) -> Outcome<Server> {
        let (cert, key) = (self.files.certificate("server"), self.files.key("server"));
        let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
        Server::start(
            directory,
            &["--auth", "mtls", "--tls-cert", &cert, "--tls-key", &key, "--client-ca", &self.ca],
        )
    }

    fn agent(&self, name: &str) -> Vec<&str> {
        let leak =
            |path: std::path::PathBuf| &*Box::leak(path.to_string_lossy().into_owned().into_boxed_str());
        vec!["-ca", &self.ca, "-cert", leak(self.files.certificate(name)), "-key", leak(self.files.key(name))]
    }
}
