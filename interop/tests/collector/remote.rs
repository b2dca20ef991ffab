//! What a server may ask of a collector without a supervisor: nothing, and a restart if it is told so.

use interop::collector::{Collector, CollectorConfig, NAME};
use interop::{Outcome, Rest, Server, ensure, scenario};
use serde_json::{Value, json};

use super::{EVENTUALLY, PLAIN, Pair, UID, is_well, over};

/// R-CONF-04, R-CAP-24: it says what it does not accept, so the operator is told at once, and it is sent nothing.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn what_the_extension_does_not_accept_is_refused_by_name_and_not_sent() -> Outcome {
    over(&PLAIN, "withheld", |scheme, directory| {
        let pair = Pair::start(directory, scheme, &[])?;
        let record = pair.record()?;
        let rest = pair.server.rest();
        pair.server.publish("pipeline", &json!({"": {"body": "receivers: {}\n"}}))?;
        let agent = format!("/api/v1/agents/{}", record.id);
        let config = json!({"config": "pipeline", "version": 1});
        refused(&rest, "POST", &format!("{agent}/assign"), Some(&config), "AcceptsRemoteConfig")?;
        refused(&rest, "POST", &format!("{agent}/restart"), None, "AcceptsRestartCommand")?;
        let settings = json!({"opamp": {"destination_endpoint": pair.server.url(scheme)}});
        refused(&rest, "PUT", &format!("{agent}/connection-settings"), Some(&settings), "does not accept")?;

        let seen = record.read()?;
        ensure!(seen["desired_config"].is_null() && seen["offered"].is_null(), "{seen:#}");
        ensure!(seen["drift"] == "unmanaged" && seen["remote_config_status"].is_null(), "{seen:#}");
        let offers = pair.server.metric("opamp_offers_sent_total")?;
        ensure!(offers < 0.5, "{offers} offers were sent");
        let page = rest.get("/api/v1/agents?selector=capability=AcceptsRemoteConfig")?;
        ensure!(page["agents"] == json!([]), "{page}");
        Ok(())
    })
}

/// Behind a feature gate, the extension takes the restart command: the collector reads its config anew.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn restart_command_makes_the_collector_read_its_config_again() -> Outcome {
    scenario("reload", |directory| {
        let server = Server::start(directory, &[])?;
        let mut config = CollectorConfig::new(directory, &server.url("ws"))?
            .with("instance_uid", json!(UID))
            .with("capabilities", json!({"accepts_restart_command": true}));
        let _collector =
            Collector::start(&config, &["--feature-gates=extension.opampextension.RemoteRestarts"])?;
        let record = server.agent(NAME)?;
        record.until("a healthy collector", EVENTUALLY, is_well)?;
        config.value["processors"]["batch"] = json!({"send_batch_size": 77});
        config.write()?;
        record.restart()?;
        let (seen, _) = record.until("the new config", EVENTUALLY, |seen: &Value| {
            let body = seen["effective_config"][""]["body"].as_str().unwrap_or_default();
            is_well(seen) && body.contains("send_batch_size: 77")
        })?;
        // The process stays; extension, connection and everything else are new.
        ensure!(seen["uid"] == UID && seen["sticky"]["connects"] == 2, "{seen:#}");
        ensure!(seen["sticky"]["uid_conflicts"] == 0, "{seen:#}");
        Ok(())
    })
}

fn refused(rest: &Rest, method: &str, path: &str, body: Option<&Value>, reason: &str) -> Outcome {
    let answer = rest.call(method, path, &[], body)?;
    ensure!(
        answer.status == 409 && answer.text().contains(reason),
        "{path}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}
