//! The supervisor between the server and a collector: it takes configs, tries them and tells how that went.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use interop::collector::NAME;
use interop::{Certificates, Outcome, Record, Server, Supervisor, each, ensure, scenario};
use serde_json::{Value, json};

use super::{EVENTUALLY, component, is_gone};

/// A server and a supervisor that is connected and whose collector is well.
pub(crate) struct Supervised {
    // Ends before the server does.
    pub(crate) supervisor: Supervisor,
    pub(crate) server: Server,
}

impl Supervised {
    pub(crate) fn start(directory: &Path, scheme: &str, adapt: impl FnOnce(&mut Value)) -> Outcome<Self> {
        let server = Server::start(directory, &[])?;
        let mut config = Supervisor::config(directory, &server.url(scheme))?;
        adapt(&mut config);
        let this = Self { supervisor: Supervisor::start(directory, &config)?, server };
        this.record()?.until("a healthy collector below", EVENTUALLY, is_well)?;
        Ok(this)
    }

    pub(crate) fn record(&self) -> Outcome<Record<'_>> {
        self.server.agent(NAME)
    }

    /// Publishes and assigns a first config, and waits until it runs. Answers its hash.
    pub(crate) fn configure(&self, files: &Value) -> Outcome<String> {
        let hash = self.server.publish("pipeline", files)?;
        let record = self.record()?;
        record.assign("pipeline", 1)?;
        record.until("APPLIED", EVENTUALLY, |seen| seen["drift"] == "in_sync" && is_well(seen))?;
        Ok(hash)
    }
}

/// Connected, healthy, and its components known.
pub(crate) fn is_well(record: &Value) -> bool {
    record["liveness"] == "connected"
        && record["health"] == "healthy"
        && record["available_components"]["components"]["receivers"].is_object()
}

/// A config that listens on a port and has a recognisable batch size.
pub(crate) fn listening(port: SocketAddr, batch: u32) -> Value {
    let config = json!({
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": port.to_string()}}}},
        "processors": {"batch": {"send_batch_size": batch}},
        "exporters": {"nop": {}},
        "service": {"pipelines": {
            "traces": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["nop"]},
        }},
    });
    json!({"": {"body": format!("{config:#}"), "content_type": "text/yaml"}})
}

/// A config that no collector starts with.
fn unknown_receiver() -> Value {
    let config = json!({
        "receivers": {"nonsense": {}},
        "exporters": {"nop": {}},
        "service": {"pipelines": {"traces": {"receivers": ["nonsense"], "exporters": ["nop"]}}},
    });
    json!({"": {"body": format!("{config:#}"), "content_type": "text/yaml"}})
}

pub(crate) fn effective(record: &Value) -> &str {
    record["effective_config"][""]["body"].as_str().unwrap_or_default()
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn config_is_applied_by_the_collector_below_and_what_runs_is_shown() -> Outcome {
    each(&["ws", "wss"], |scheme| {
        scenario(&format!("supervised-{scheme}"), |directory| {
            let files = Certificates::issue(directory)?;
            let [cert, key] = [files.certificate("server"), files.key("server")];
            let [cert, key] = [&cert, &key].map(|path| path.to_string_lossy());
            let tls: &[&str] = if *scheme == "wss" { &["--tls-cert", &cert, "--tls-key", &key] } else { &[] };
            let server = Server::start(directory, tls)?;
            let mut config = Supervisor::config(directory, &server.url(scheme))?;
            config["server"]["tls"] = json!({"ca_file": files.certificate("ca")});
            let supervised = Supervised { supervisor: Supervisor::start(directory, &config)?, server };
            let record = supervised.record()?;
            let (seen, _) = record.until("a healthy collector below", EVENTUALLY, is_well)?;
            announced(&seen)?;
            let port = interop::server::free_address()?;
            let hash = supervised.configure(&listening(port, 77))?;
            let seen = record.read()?;
            ensure!(seen["remote_config_status"]["hash"] == hash.as_str(), "{seen:#}");
            ensure!(seen["apply_error"].is_null() && seen["last_known_good"] == hash.as_str(), "{seen:#}");
            for text in ["send_batch_size: 77", &port.to_string()] {
                ensure!(effective(&seen).contains(text), "no {text}: {seen:#}");
            }
            ensure!(component(&seen, "pipeline:traces", "receiver:otlp")["healthy"] == true, "{seen:#}");
            TcpStream::connect(port)?;
            let offers = supervised.server.metric("opamp_offers_sent_total")?;
            ensure!((offers - 1.0).abs() < f64::EPSILON, "{offers} offers were sent");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn config_that_the_collector_does_not_start_with_is_failed_and_the_next_one_repairs_it() -> Outcome {
    scenario("supervised-failed", |directory| {
        let supervised = Supervised::start(directory, "ws", |_| {})?;
        let port = interop::server::free_address()?;
        let good = supervised.configure(&listening(port, 77))?;
        let record = supervised.record()?;
        let (version, bad) = supervised.server.publish_next("pipeline", &unknown_receiver())?;
        record.assign("pipeline", version)?;
        let (seen, _) = record
            .until("FAILED", EVENTUALLY, |seen| seen["drift"] == "failed" && seen["health"] == "unhealthy")?;
        ensure!(seen["remote_config_status"]["hash"] == bad.as_str(), "{seen:#}");
        let error = seen["apply_error"].as_str().unwrap_or_default();
        ensure!(error.contains("exit code 1"), "{seen:#}");
        ensure!(seen["last_known_good"] == good.as_str(), "{seen:#}");
        let (version, _) = supervised.server.publish_next("pipeline", &listening(port, 78))?;
        record.assign("pipeline", version)?;
        let (seen, _) = record.until("the good config", EVENTUALLY, |seen| {
            seen["drift"] == "in_sync" && is_well(seen) && effective(seen).contains("send_batch_size: 78")
        })?;
        ensure!(seen["apply_error"].is_null(), "{seen:#}");
        ensure!(seen["sticky"]["last_failure"]["hash"] == bad.as_str(), "{seen:#}");
        ensure!(seen["sticky"]["connects"] == 1, "the supervisor went away: {seen:#}");
        Ok(())
    })
}

/// With `validate_config` the supervisor tries a config before it stops the collector that runs.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn config_that_does_not_validate_leaves_the_running_one_alone() -> Outcome {
    scenario("supervised-validated", |directory| {
        let supervised =
            Supervised::start(directory, "ws", |config| config["agent"]["validate_config"] = json!(true))?;
        let port = interop::server::free_address()?;
        let good = supervised.configure(&listening(port, 77))?;
        let record = supervised.record()?;
        let before = record.read()?;
        let (version, bad) = supervised.server.publish_next("pipeline", &unknown_receiver())?;
        record.assign("pipeline", version)?;
        let (seen, _) = record.until("FAILED", EVENTUALLY, |seen| seen["drift"] == "failed")?;
        ensure!(seen["remote_config_status"]["hash"] == bad.as_str(), "{seen:#}");
        let error = seen["apply_error"].as_str().unwrap_or_default();
        ensure!(error.contains("nonsense"), "{seen:#}");
        for key in ["health", "health_report", "effective_config", "last_known_good"] {
            ensure!(seen[key] == before[key], "{key} is another one: {seen:#}");
        }
        ensure!(seen["last_known_good"] == good.as_str(), "{seen:#}");
        TcpStream::connect(port)?;
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn restart_command_restarts_the_collector_below() -> Outcome {
    scenario("supervised-restart", |directory| {
        let supervised = Supervised::start(directory, "ws", |_| {})?;
        let port = interop::server::free_address()?;
        supervised.configure(&listening(port, 77))?;
        let record = supervised.record()?;
        let before = record.read()?;
        record.restart()?;
        let (seen, _) = record.until("another start", EVENTUALLY, |seen| {
            let start = &seen["health_report"]["start_time"];
            is_well(seen) && start.is_string() && *start != before["health_report"]["start_time"]
        })?;
        ensure!(seen["uid"] == before["uid"] && seen["drift"] == "in_sync", "{seen:#}");
        ensure!(seen["sticky"]["connects"] == 1, "{seen:#}");
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn restarts_of_the_server_leave_the_collector_below_alone() -> Outcome {
    scenario("supervised-server", |directory| {
        let mut supervised = Supervised::start(directory, "ws", |_| {})?;
        supervised.configure(&listening(interop::server::free_address()?, 77))?;
        for killed in [false, true] {
            let before = supervised.record()?.read()?;
            if killed {
                supervised.server.kill()?
            } else {
                supervised.server.terminate()?
            }
            supervised.server.start_again()?;
            let (seen, _) = supervised.record()?.until("it is back", EVENTUALLY, |seen| {
                is_well(seen) && seen["connected_at"].as_str() > before["connected_at"].as_str()
            })?;
            for key in ["uid", "drift", "last_known_good", "effective_config", "remote_config_status"] {
                ensure!(seen[key] == before[key], "{key} is another one: {seen:#}");
            }
            ensure!(
                seen["health_report"]["start_time"] == before["health_report"]["start_time"],
                "the collector restarted: {seen:#}"
            );
            let offers = supervised.server.metric("opamp_offers_sent_total")?;
            ensure!(offers < 0.5, "what it has was offered again {offers} times");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn supervisor_that_restarts_is_the_same_agent_with_the_same_config() -> Outcome {
    scenario("supervised-again", |directory| {
        let mut supervised = Supervised::start(directory, "ws", |_| {})?;
        let port = interop::server::free_address()?;
        supervised.configure(&listening(port, 77))?;
        let before = supervised.record()?.read()?;
        supervised.supervisor.stop()?;
        let (seen, _) = supervised.record()?.until("disconnected", EVENTUALLY, is_gone)?;
        ensure!(seen["disconnect"]["reason"] == "graceful", "{seen:#}");
        ensure!(seen["health_report"]["last_error"] == "Supervisor is shutdown", "{seen:#}");
        ensure!(TcpStream::connect(port).is_err(), "the collector below outlived its supervisor");
        supervised.supervisor.start_again()?;
        let (seen, _) = supervised.record()?.until("it is back", EVENTUALLY, |seen| {
            is_well(seen) && effective(seen).contains("send_batch_size: 77")
        })?;
        for key in ["id", "uid", "last_known_good"] {
            ensure!(seen[key] == before[key], "{key} is another one: {seen:#}");
        }
        supervised.record()?.until("in sync", EVENTUALLY, |seen| seen["drift"] == "in_sync")?;
        let offers = supervised.server.metric("opamp_offers_sent_total")?;
        ensure!((offers - 1.0).abs() < f64::EPSILON, "what it has was offered again: {offers}");
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn supervisor_that_dies_with_its_collector_comes_back_as_the_same_agent() -> Outcome {
    scenario("supervised-killed", |directory| {
        let mut supervised = Supervised::start(directory, "ws", |_| {})?;
        let port = interop::server::free_address()?;
        supervised.configure(&listening(port, 77))?;
        let before = supervised.record()?.read()?;
        supervised.supervisor.kill()?;
        let (seen, _) = supervised.record()?.until("disconnected", EVENTUALLY, is_gone)?;
        ensure!(seen["disconnect"]["reason"] == "closed", "{seen:#}");
        supervised.supervisor.start_again()?;
        let (seen, _) = supervised.record()?.until("it is back", EVENTUALLY, |seen| {
            is_well(seen) && seen["drift"] == "in_sync" && effective(seen).contains("send_batch_size: 77")
        })?;
        ensure!(seen["uid"] == before["uid"], "{seen:#}");
        Ok(())
    })
}

fn announced(seen: &Value) -> Outcome {
    let capabilities = seen["capabilities"].as_array().cloned().unwrap_or_default();
    for name in [
        "AcceptsOpAMPConnectionSettings",
        "AcceptsRemoteConfig",
        "AcceptsRestartCommand",
        "ReportsAvailableComponents",
        "ReportsEffectiveConfig",
        "ReportsHealth",
        "ReportsHeartbeat",
        "ReportsOwnMetrics",
        "ReportsRemoteConfig",
    ] {
        ensure!(capabilities.contains(&json!(name)), "{name} is missing: {seen:#}");
    }
    ensure!(seen["description"]["identifying"]["service.name"] == NAME, "{seen:#}");
    ensure!(seen["description"]["identifying"]["service.instance.id"] == seen["uid"], "{seen:#}");
    Ok(())
}
