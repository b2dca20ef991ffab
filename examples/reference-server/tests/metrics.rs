//! `/metrics`: names, labels and meanings that dashboards and alerts rely on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::pb;
use serde_json::json;
use support::{Agent, TestServer};

/// Every metric by its name in the text, with its type. Renaming one breaks somebody's alert.
const NAMES: &[(&str, &str)] = &[
    ("opamp_websocket_active_connections", "gauge"),
    ("opamp_websocket_connection_duration_seconds", "histogram"),
    ("opamp_websocket_connections", "counter"),
    ("opamp_frames_received", "counter"),
    ("opamp_frames_sent", "counter"),
    ("opamp_frames_rejected", "counter"),
    ("opamp_http_requests", "counter"),
    ("opamp_offers_sent", "counter"),
    ("opamp_settings_offers_sent", "counter"),
    ("opamp_package_offers_sent", "counter"),
    ("opamp_component_requests_sent", "counter"),
    ("opamp_custom_messages_sent", "counter"),
    ("opamp_custom_messages_received", "counter"),
    ("opamp_uid_conflicts", "counter"),
    ("opamp_agents_rekeyed", "counter"),
    ("opamp_throttled", "counter"),
    ("opamp_throttle_active", "gauge"),
    ("opamp_package_downloads_active", "gauge"),
    ("opamp_package_downloads", "counter"),
    ("opamp_package_download_bytes", "counter"),
    ("opamp_full_state_requests", "counter"),
    ("opamp_restarts_sent", "counter"),
    ("opamp_messages_discarded_oversize", "counter"),
    ("opamp_connections_admitted", "counter"),
    ("opamp_connections_deferred", "counter"),
    ("opamp_connections_waiting", "gauge"),
    ("opamp_connections_gone", "counter"),
    ("opamp_connection_wait_seconds", "histogram"),
    ("opamp_accept_failures", "counter"),
    ("opamp_admission_rejected", "counter"),
    ("opamp_slow_peers_closed", "counter"),
    ("opamp_buffered_bytes", "gauge"),
    ("opamp_buffered_bytes_peak", "gauge"),
    ("opamp_buffered_bytes_max", "gauge"),
    ("opamp_buffered_denied", "counter"),
    ("opamp_full_state_deferred", "counter"),
    ("opamp_full_state_waiting", "gauge"),
    ("opamp_drain_websockets", "gauge"),
    ("opamp_drain_told", "gauge"),
    ("opamp_fleet_return_expected", "gauge"),
    ("opamp_fleet_return_returned", "gauge"),
    ("opamp_fleet_return_seconds", "gauge"),
    ("opamp_agents_registered", "gauge"),
    ("opamp_agents", "gauge"),
    ("opamp_agents_health", "gauge"),
    ("opamp_agents_drift", "gauge"),
    ("opamp_agents_flapping", "gauge"),
    ("opamp_apply_duration_seconds", "histogram"),
    ("opamp_store_records_waiting", "gauge"),
    ("opamp_audit_entries_waiting", "gauge"),
    ("opamp_audit_entries_dropped", "counter"),
    ("opamp_store_commits", "counter"),
    ("opamp_store_commits_failed", "counter"),
    ("opamp_store_transactions", "counter"),
    ("opamp_store_rows_written", "counter"),
    ("opamp_store_checkpoint_rows_written", "counter"),
    ("opamp_store_checkpoints_written", "counter"),
    ("opamp_admin_requests", "counter"),
    ("opamp_admin_refused", "counter"),
    ("opamp_build_info", "gauge"),
    ("opamp_start_time_seconds", "gauge"),
    ("opamp_self_verdict", "gauge"),
    ("opamp_self_probe", "gauge"),
    ("opamp_self_probe_duration_seconds", "gauge"),
    ("opamp_self_probe_failures", "counter"),
    ("process_cpu_seconds", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_threads", "gauge"),
];

/// Samples by name and labels.
async fn scrape(server: &TestServer) -> BTreeMap<String, f64> {
    let answer = server.admin.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn names_and_types_are_as_documented() {
    let server = TestServer::start().await;
    let text = server.admin.get("/metrics").await.text();
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let found: BTreeSet<_> = typed.collect();
    assert_eq!(found, NAMES.iter().copied().collect::<BTreeSet<_>>());
    for (name, kind) in NAMES {
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| {
                rest.starts_with(['{', ' '])
                    || ["_total", "_bucket", "_sum", "_count"].iter().any(|end| rest.starts_with(end))
            })
        });
        for sample in samples {
            let ends_in_total = sample.split(['{', ' ']).next().unwrap().ends_with("_total");
            assert_eq!(ends_in_total, *kind == "counter", "{sample}");
            assert!(!sample.contains("total_total"));
        }
    }
}

/// The name as a sample has it.
fn sample_name(name: &str, kind: &str) -> String {
    if kind == "counter" { format!("{name}_total") } else { name.to_owned() }
}

#[test]
fn the_operations_page_names_every_metric_and_no_other() {
    let page = include_str!("../../../docs/operations.md");
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: BTreeSet<_> = words
        .filter(|word| word.starts_with("opamp_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    let exported: BTreeSet<_> = NAMES.iter().map(|(name, kind)| sample_name(name, kind)).collect();
    assert_eq!(exported.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the page");
    assert_eq!(named.difference(&exported).collect::<Vec<_>>(), Vec::<&String>::new(), "not exported");
}

#[tokio::test]
async fn every_reason_and_every_state_is_there_from_the_start() {
    let server = TestServer::start().await;
    let samples = scrape(&server).await;
    for reason in [
        "oversize",
        "malformed",
        "cap_mismatch",
        "auth_failed",
        "rate_limited",
        "uid_conflict",
        "protocol",
        "timeout",
        "unavailable",
    ] {
        assert_eq!(samples[&format!("opamp_frames_rejected_total{{reason=\"{reason}\"}}")], 0.0);
    }
    for stage in
        ["handshake", "drain", "throttle", "authentication", "identity", "connections", "memory", "agents"]
    {
        assert_eq!(samples[&format!("opamp_admission_rejected_total{{stage=\"{stage}\"}}")], 0.0);
    }
    for with in ["handshake", "headers", "body", "first_message", "message", "silent", "write"] {
        assert_eq!(samples[&format!("opamp_slow_peers_closed_total{{with=\"{with}\"}}")], 0.0);
    }
    for liveness in ["connected", "stale", "disconnected", "expired", "never_seen"] {
        assert_eq!(samples[&format!("opamp_agents{{liveness=\"{liveness}\"}}")], 0.0);
    }
    for verdict in ["ok", "server", "network path", "unknown"] {
        // It is switched off in these tests, so nothing is known.
        let expected = f64::from(u8::from(verdict == "unknown"));
        assert_eq!(samples[&format!("opamp_self_verdict{{verdict=\"{verdict}\"}}")], expected);
    }
    for probe in ["in_process", "loopback", "external"] {
        for state in ["ok", "failed", "not_configured", "unknown"] {
            let expected = f64::from(u8::from(state == "not_configured"));
            let sample = format!("opamp_self_probe{{probe=\"{probe}\",state=\"{state}\"}}");
            assert_eq!(samples[&sample], expected, "{sample}");
        }
        assert_eq!(samples[&format!("opamp_self_probe_failures_total{{probe=\"{probe}\"}}")], 0.0);
    }
    for bound in ["60.0", "300.0", "900.0", "1800.0", "3600.0", "7200.0", "+Inf"] {
        let name = format!("opamp_websocket_connection_duration_seconds_bucket{{le=\"{bound}\"}}");
        assert_eq!(samples[&name], 0.0);
    }
}

#[tokio::test]
async fn agents_by_state_sum_to_the_registered_ones() {
    let server = TestServer::start().await;
    let first = Agent::connect(&server.endpoint("ws"), 1).await;
    let _second = Agent::connect(&server.endpoint("ws"), 2).await;
    drop(first);
    server
        .eventually("/api/v1/stats", |stats| {
            stats["by_liveness"]["disconnected"] == 1 && stats["registered"] == 2
        })
        .await;
    let samples = scrape(&server).await;
    assert_eq!(samples["opamp_agents_registered"], 2.0);
    for group in ["opamp_agents{", "opamp_agents_health{", "opamp_agents_drift{"] {
        let sum: f64 =
            samples.iter().filter(|(name, _)| name.starts_with(group)).map(|(_, value)| value).sum();
        assert_eq!(sum, 2.0, "{group}");
    }
    assert_eq!(samples["opamp_websocket_active_connections"], 1.0);
    assert_eq!(samples["opamp_websocket_connection_duration_seconds_count"], 1.0);
    assert_eq!(samples["opamp_websocket_connections_total"], 2.0);
    assert_eq!(samples["opamp_frames_received_total"], 2.0);
}

#[tokio::test]
async fn applied_offers_show_in_the_apply_duration_of_their_agent_type() {
    let server = TestServer::start().await;
    let mut agent = Agent::connect(&server.endpoint("ws"), 1).await;
    let page = server.eventually("/api/v1/agents", |page| page["agents"][0].is_object()).await;
    let path = format!("/api/v1/agents/{}", page["agents"][0]["id"].as_str().unwrap());
    server
        .admin
        .post("/api/v1/configs", json!({"name": "c", "files": {"": {"body": "x"}}}))
        .await
        .expect(201);
    server.admin.order("/api/v1/configs/c/versions/1/publish").await.expect(200);
    server.admin.post(&format!("{path}/assign"), json!({"config": "c", "version": 1})).await.expect(200);
    agent.take_offer(None).await;
    server.eventually(&path, |agent| agent["drift"] == "in_sync").await;
    let samples = scrape(&server).await;
    assert_eq!(samples["opamp_apply_duration_seconds_count{agent_type=\"otelcol\"}"], 1.0);
    assert_eq!(samples["opamp_offers_sent_total"], 1.0);
}

#[tokio::test]
async fn requests_are_counted_by_route_not_by_path() {
    let server = TestServer::start().await;
    for name in ["a", "b"] {
        server.admin.get(&format!("/api/v1/configs/{name}")).await.error(404);
    }
    server.admin.get("/anything").await.error(404);
    server.admin.send("BREW", "/api/v1/agents", None).await;
    let samples = scrape(&server).await;
    let count = |route: &str, method: &str, status: u16| {
        samples[&format!(
            "opamp_admin_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}"
        )]
    };
    assert_eq!(count("/api/v1/configs/{name}", "GET", 404), 2.0);
    assert_eq!(count("none", "GET", 404), 1.0);
    assert_eq!(count("/api/v1/agents", "other", 405), 1.0);
}

#[tokio::test]
async fn a_refused_message_is_counted_under_its_reason() {
    let server = TestServer::start().await;
    let mut agent = Agent::connect(&server.endpoint("ws"), 1).await;
    // A field whose capability the agent does not announce.
    let packages = pb::PackageStatuses::default();
    agent.report(pb::AgentToServer { package_statuses: Some(packages), ..Default::default() }).await;
    let samples = scrape(&server).await;
    assert_eq!(samples["opamp_frames_rejected_total{reason=\"cap_mismatch\"}"], 1.0);
}
