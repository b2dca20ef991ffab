//! The connection of a supervisor: polling, settings of the server, and what it does not accept.

use std::path::Path;
use std::time::Duration;

use interop::collector::NAME;
use interop::{Certificates, Outcome, Server, Supervisor, ensure, scenario};
use serde_json::json;

use super::supervised::{Supervised, effective, is_well, listening};
use super::{EVENTUALLY, is_gone};

const SETTINGS: &str = "connection-settings";

/// It polls every 30 s, and an assignment waits for that.
const POLL: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn config_reaches_a_polling_supervisor_with_its_next_poll() -> Outcome {
    scenario("polling", |directory| {
        let supervised = Supervised::start(directory, "http", |_| {})?;
        let record = supervised.record()?;
        let hash = supervised.server.publish("pipeline", &listening(interop::server::free_address()?, 77))?;
        let assigned = record.assign("pipeline", 1)?;
        ensure!(assigned["dispatch"] == "next_poll", "{assigned}");
        let (seen, took) = record.until("APPLIED", POLL + EVENTUALLY, |seen| {
            is_well(seen) && seen["drift"] == "in_sync" && effective(seen).contains("send_batch_size: 77")
        })?;
        println!("from the assignment to APPLIED in {took:?}");
        ensure!(seen["transport"] == "http", "{seen:#}");
        ensure!(seen["remote_config_status"]["hash"] == hash.as_str(), "{seen:#}");
        Ok(())
    })
}

/// R-CONF-04: what is desired stays visible and is not sent to an agent that stopped accepting it.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn config_is_withheld_from_a_supervisor_that_no_longer_accepts_any() -> Outcome {
    scenario("withheld", |directory| {
        let mut supervised = Supervised::start(directory, "ws", |_| {})?;
        supervised.supervisor.stop()?;
        let record = supervised.record()?;
        record.until("disconnected", EVENTUALLY, is_gone)?;
        let hash = supervised.server.publish("pipeline", &listening(interop::server::free_address()?, 77))?;
        record.assign("pipeline", 1)?;
        let mut config = Supervisor::config(directory, &supervised.server.url("ws"))?;
        config["capabilities"]["accepts_remote_config"] = json!(false);
        Supervisor::write(directory, &config)?;
        supervised.supervisor.start_again()?;
        let record = supervised.record()?;
        let (seen, _) = record.until("it is back", EVENTUALLY, |seen| seen["liveness"] == "connected")?;
        ensure!(seen["desired_config"]["hash"] == hash.as_str(), "{seen:#}");
        ensure!(seen["drift"] == "pending" && seen["offered"].is_null(), "{seen:#}");
        let capabilities = seen["capabilities"].as_array().cloned().unwrap_or_default();
        ensure!(!capabilities.contains(&json!("AcceptsRemoteConfig")), "{seen:#}");
        let offers = supervised.server.metric("opamp_offers_sent_total")?;
        ensure!(offers < 0.5, "{offers} offers were sent");
        Ok(())
    })
}

/// The supervisor reports no status of settings: what shows is what it does.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn heartbeat_interval_of_the_server_is_used() -> Outcome {
    scenario("heartbeat", |directory| {
        let supervised = Supervised::start(directory, "ws", |_| {})?;
        let record = supervised.record()?;
        let settings = json!({"opamp": {
            "destination_endpoint": supervised.server.url("ws"), "heartbeat_interval_seconds": 1,
        }});
        record.set_offer(SETTINGS, &settings)?;
        let before = record.read()?;
        let number = |seen: &serde_json::Value| seen["sequence_num"].as_u64().unwrap_or_default();
        let (seen, _) = record.until("five heartbeats", EVENTUALLY, |seen| {
            seen["sticky"]["connects"] == 2 && number(seen) >= number(&before) + 5
        })?;
        ensure!(seen["uid"] == before["uid"] && seen["uid_conflict"] == false, "{seen:#}");
        Ok(())
    })
}

/// R-CONN-12, R-CONN-14: it neither tries settings nor goes back. It is lost until somebody restarts it; the server, which
/// gets no status of settings from it, offers them once and not again.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn supervisor_that_was_sent_nowhere_is_back_after_a_restart() -> Outcome {
    scenario("nowhere", |directory| {
        let mut supervised = Supervised::start(directory, "ws", |_| {})?;
        let record = supervised.record()?;
        record
            .set_offer(SETTINGS, &json!({"opamp": {"destination_endpoint": "ws://127.0.0.1:1/v1/opamp"}}))?;
        let (seen, _) = record.until("it left", EVENTUALLY, is_gone)?;
        ensure!(seen["disconnect"]["reason"] == "graceful", "{seen:#}");
        supervised.supervisor.stop()?;
        supervised.supervisor.start_again()?;
        let record = supervised.record()?;
        let (seen, _) = record.until("it is back", EVENTUALLY, is_well)?;
        ensure!(seen["sticky"]["connects"] == 2, "{seen:#}");
        let shown = record.read_offer(SETTINGS)?;
        ensure!(shown["drift"] == "pending" && shown["reported"].is_null(), "{shown:#}");
        Ok(())
    })
}

/// R-TLS-05: settings that name no certificate turn off the verification of the server in the supervisor, whatever its own
/// configuration says: a server of an authority it never heard of gets it.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn settings_without_a_certificate_make_the_supervisor_trust_everybody() -> Outcome {
    scenario("unverified", |directory| {
        let [ours, theirs] = ["ours", "theirs"].map(|name| directory.join(name));
        let (first, files) = encrypted(&ours)?;
        let (second, _) = encrypted(&theirs)?;
        let mut config = Supervisor::config(&ours, &first.url("wss"))?;
        config["server"]["tls"] = json!({"ca_file": files.certificate("ca")});
        let _supervisor = Supervisor::start(&ours, &config)?;
        let record = first.agent(NAME)?;
        record.until("a healthy collector below", EVENTUALLY, is_well)?;
        record.set_offer(SETTINGS, &json!({"opamp": {"destination_endpoint": second.url("wss")}}))?;
        second.agent(NAME)?.until("it is there", EVENTUALLY, |seen| seen["liveness"] == "connected").map(drop)
    })
}

/// A server with a certificate of an authority of its own.
fn encrypted(directory: &Path) -> Outcome<(Server, Certificates)> {
    std::fs::create_dir(directory)?;
    let files = Certificates::issue(directory)?;
    let [cert, key] = [files.certificate("server"), files.key("server")];
    let [cert, key] = [&cert, &key].map(|path| path.to_string_lossy());
    let server = Server::start(directory, &["--tls-cert", &cert, "--tls-key", &key])?;
    Ok((server, files))
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn own_metrics_of_the_server_get_into_the_config_of_the_collector_below() -> Outcome {
    scenario("own-metrics", |directory| {
        let supervised = Supervised::start(directory, "ws", |_| {})?;
        supervised.configure(&listening(interop::server::free_address()?, 77))?;
        let record = supervised.record()?;
        let endpoint = "https://127.0.0.1:9/v1/metrics";
        record.set_offer(SETTINGS, &json!({"own_metrics": {"destination_endpoint": endpoint}}))?;
        let (seen, _) = record.until("the endpoint in what runs", EVENTUALLY, |seen| {
            is_well(seen) && effective(seen).contains(endpoint)
        })?;
        ensure!(effective(&seen).contains("send_batch_size: 77"), "its own config is gone: {seen:#}");
        ensure!(seen["drift"] == "in_sync" && seen["sticky"]["connects"] == 1, "{seen:#}");
        Ok(())
    })
}
