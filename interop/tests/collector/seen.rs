//! What the server shows of a collector.

use std::path::Path;

use interop::{Outcome, Rest, ensure};
use serde_json::{Value, json};

use super::{PLAIN, Pair, SENSITIVE, STALE, component, over};

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_is_seen_with_everything_it_reports() -> Outcome {
    over(&PLAIN, "seen", |scheme, directory| {
        let pair = Pair::start(directory, scheme, &[])?;
        let seen = pair.record()?.read()?;
        ensure!(seen["transport"] == if scheme == "ws" { "websocket" } else { "http" }, "{seen:#}");
        let all = ["ReportsStatus", "ReportsEffectiveConfig", "ReportsHealth", "ReportsAvailableComponents"];
        ensure!(seen["capabilities"] == json!(all), "{seen:#}");
        ensure!(seen["drift"] == "unmanaged" && seen["uid_conflict"] == false, "{seen:#}");
        ensure!(seen["sticky"]["gaps"] == 0 && seen["remote_config_status"].is_null(), "{seen:#}");
        ignored(&seen)?;
        description(&seen)?;
        health(&seen)?;
        effective_config(&seen, directory)?;
        components(&seen)?;
        selectors(&pair.server.rest(), pair.record()?.id.as_str())
    })
}

/// The extension has no heartbeats. What keeps it connected are pings, and its own polls.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_that_has_nothing_to_say_stays_connected() -> Outcome {
    over(&PLAIN, "idle", |scheme, directory| {
        let pair = Pair::start(directory, scheme, &SENSITIVE)?;
        let record = pair.record()?;
        let given_up = record
            .until("silence past the stale threshold", 2 * STALE, |seen| seen["liveness"] != "connected");
        ensure!(given_up.is_err(), "an idle collector was given up");
        let seen = record.read()?;
        ensure!(seen["sticky"]["connects"] == 1 && seen["sticky"]["gaps"] == 0, "{seen:#}");
        Ok(())
    })
}

/// R-CAP-18, R-CAP-26: the client below the extension puts empty statuses of configs and packages into complete reports
/// although their capabilities are not announced. They are named, if they were in the last message, and not believed.
fn ignored(seen: &Value) -> Outcome {
    let known = [json!("remote_config_status"), json!("package_statuses")];
    let others = seen["ignored_fields"].as_array().into_iter().flatten().find(|field| !known.contains(field));
    ensure!(others.is_none(), "{seen:#}");
    Ok(())
}

fn description(seen: &Value) -> Outcome {
    let (own, others) = (&seen["description"]["identifying"], &seen["description"]["non_identifying"]);
    ensure!(own["service.name"] == "otelcol-opamp", "{seen:#}");
    ensure!(own["service.instance.id"] == seen["uid"], "{seen:#}");
    ensure!(own["service.version"].as_str().is_some_and(|version| version.starts_with("v0.")), "{seen:#}");
    for key in ["host.arch", "host.name", "os.description", "os.type"] {
        ensure!(others[key].as_str().is_some_and(|text| !text.is_empty()), "no {key}: {seen:#}");
    }
    ensure!(others["zone"] == "north", "{seen:#}");
    ensure!(
        seen["host_name"] == others["host.name"] && seen["version"] == own["service.version"],
        "{seen:#}"
    );
    Ok(())
}

fn health(seen: &Value) -> Outcome {
    let report = &seen["health_report"];
    ensure!(report["healthy"] == true && report["status"] == "StatusOK", "{seen:#}");
    for (group, name) in [
        ("extensions", "extension:opamp"),
        ("pipeline:traces", "receiver:ailing"),
        ("pipeline:traces", "processor:batch"),
        ("pipeline:traces", "exporter:nop"),
        ("pipeline:logs", "receiver:otlp"),
        ("pipeline:logs", "exporter:nop"),
    ] {
        let health = component(seen, group, name);
        ensure!(health["healthy"] == true && health["status"] == "StatusOK", "{group} {name}: {seen:#}");
    }
    Ok(())
}

/// What runs, with everything that the config left to defaults.
fn effective_config(seen: &Value, directory: &Path) -> Outcome {
    let file = &seen["effective_config"][""];
    let body = file["body"].as_str().unwrap_or_default();
    ensure!(file["content_type"] == "text/yaml", "{seen:#}");
    for text in [&*directory.join("status").to_string_lossy(), "send_batch_size: 8192", "zone: north"] {
        ensure!(body.contains(text), "no {text}: {body}");
    }
    ensure!(seen["effective_config"].as_object().is_some_and(|files| files.len() == 1), "{seen:#}");
    Ok(())
}

/// The first report has their hash alone: the list has been asked for.
fn components(seen: &Value) -> Outcome {
    let kinds = &seen["available_components"]["components"];
    for (kind, name, module) in [
        ("receivers", "otlp", "go.opentelemetry.io/collector/receiver/otlpreceiver v0."),
        ("receivers", "ailing", "opamp-rs/interop/collector "),
        ("processors", "batch", "go.opentelemetry.io/collector/processor/batchprocessor v0."),
        ("exporters", "debug", "go.opentelemetry.io/collector/exporter/debugexporter v0."),
        (
            "extensions",
            "opamp",
            "github.com/open-telemetry/opentelemetry-collector-contrib/extension/opampextension v0.",
        ),
    ] {
        let namespace = &kinds[kind]["sub_components"][name]["metadata"]["code.namespace"];
        ensure!(namespace.as_str().is_some_and(|text| text.starts_with(module)), "{kind} {name}: {kinds:#}");
    }
    ensure!(kinds["connectors"]["sub_components"] == json!({}), "{kinds:#}");
    ensure!(seen["available_components"]["hash"].as_str().is_some_and(|hash| hash.len() == 64), "{kinds:#}");
    Ok(())
}

fn selectors(rest: &Rest, id: &str) -> Outcome {
    for (selector, found) in [
        ("service.name=otelcol-opamp,zone=north", true),
        ("os.type=linux", cfg!(target_os = "linux")),
        ("zone=south", false),
    ] {
        let page = rest.get(&format!("/api/v1/agents?selector={selector}"))?;
        ensure!((page["agents"][0]["id"] == id) == found, "{selector}: {page}");
    }
    Ok(())
}
