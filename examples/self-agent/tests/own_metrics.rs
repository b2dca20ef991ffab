//! Own metrics, as a destination receives them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[macro_use]
mod support;

use std::collections::BTreeMap;

use opamp_proto::pb;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use prost::Message as _;
use support::{Offerer, Process, Stub, TempDir, attribute, description, ok, until};

async fn sink() -> Stub {
    Stub::start(|_| ok("application/x-protobuf", b"")).await
}

fn destination(sink: &Stub) -> pb::TelemetryConnectionSettings {
    let header = pb::Header { key: "X-Tenant".into(), value: "seven".into() };
    pb::TelemetryConnectionSettings {
        destination_endpoint: format!("http://{}/tenants/7/v1/metrics", sink.address),
        headers: Some(pb::Headers { headers: vec![header] }),
        ..Default::default()
    }
}

fn start(server: &Offerer, scheme: &str) -> (TempDir, Process) {
    let directory = TempDir::new();
    directory.write(
        "agent.yaml",
        &format!(
            "\
server:
  endpoint: {}
  heartbeat_interval: 100ms
  poll_interval: 100ms
  retry: {{first_interval: 20ms}}
capabilities:
  reports_own_metrics: true
agent:
  description:
    identifying_attributes: {{service.name: com.example.edge, service.namespace: north}}
telemetry:
  own_metrics_interval: 100ms
storage:
  directory: state
",
            server.url(scheme)
        ),
    );
    let process = Process::start(&directory);
    (directory, process)
}

fn newest(sink: &Stub) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest::decode(&sink.bodies().pop().unwrap()[..]).unwrap()
}

fn metrics(request: &ExportMetricsServiceRequest) -> BTreeMap<String, Metric> {
    let all = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    all.flat_map(|scope| &scope.metrics).map(|metric| (metric.name.clone(), metric.clone())).collect()
}

fn resource(request: &ExportMetricsServiceRequest, key: &str) -> Option<String> {
    let attributes = &request.resource_metrics[0].resource.as_ref().unwrap().attributes;
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

fn points(metric: &Metric) -> (&'static str, Vec<NumberDataPoint>) {
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => ("gauge", gauge.data_points.clone()),
        Data::Sum(sum) if sum.is_monotonic => ("counter", sum.data_points.clone()),
        Data::Sum(sum) => ("sum", sum.data_points.clone()),
        other => panic!("{other:?}"),
    }
}

fn whole(point: &NumberDataPoint) -> i64 {
    match point.value.unwrap() {
        number_data_point::Value::AsInt(value) => value,
        other => panic!("{other:?}"),
    }
}

on_both_transports! {
    async fn metrics_go_where_the_server_says_with_the_identity_of_the_agent_and_by_the_conventions(scheme) {
        let (server, sink) = (Offerer::start().await, sink().await);
        let (_directory, mut process) = start(&server, scheme);
        let uid = process.uid().await;
        let seen = server.connected(uid).await;
        server.offer_metrics(uid, 1, destination(&sink)).await.unwrap();
        until("several exports", || sink.bodies().len() > 3).await;
        let head = sink.requests().pop().unwrap();
        assert!(head.starts_with("POST /tenants/7/v1/metrics HTTP/1.1\r\n"), "R-OWN-01: {head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
        assert!(head.to_ascii_lowercase().contains("x-tenant: seven\r\n"), "{head}");

        let request = newest(&sink);
        let described = description(&seen).identifying_attributes;
        assert_eq!(described.len(), 4);
        for identifying in described {
            let reported = attribute(std::slice::from_ref(&identifying), &identifying.key);
            assert_eq!(resource(&request, &identifying.key), reported, "R-OWN-13: {}", identifying.key);
        }
        let metrics = metrics(&request);
        // Names, units and kinds of the conventions for process metrics.
        for (name, unit, kind) in [
            ("process.cpu.time", "s", "counter"),
            ("process.memory.usage", "By", "sum"),
            ("process.memory.virtual", "By", "sum"),
            ("process.thread.count", "{thread}", "sum"),
            ("process.context_switches", "{context_switch}", "counter"),
            ("process.paging.faults", "{fault}", "counter"),
            ("process.uptime", "s", "gauge"),
        ] {
            let metric = metrics.get(name).unwrap_or_else(|| panic!("R-OWN-11: {name} in {:?}", metrics.keys()));
            assert_eq!((metric.unit.as_str(), points(metric).0), (unit, kind), "{name}");
        }
        let (_, times) = points(&metrics["process.cpu.time"]);
        let modes: Vec<_> = times.iter().map(|point| point.attributes[0].key.as_str()).collect();
        assert_eq!(modes, ["cpu.mode", "cpu.mode"]);
        let (_, memory) = points(&metrics["process.memory.usage"]);
        assert!(whole(&memory[0]) > 1_000_000, "{memory:?}");
        assert!(memory[0].time_unix_nano > memory[0].start_time_unix_nano);
        // Its own state too (R-OWN-10).
        assert_eq!(whole(&points(&metrics["self_agent.connected"]).1[0]), 1);
        assert!(whole(&points(&metrics["self_agent.messages"]).1[0]) > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_destination_is_kept_over_a_restart_and_replaced_by_the_next() {
    let (server, one, other) = (Offerer::start().await, sink().await, sink().await);
    let (directory, mut process) = start(&server, "ws");
    let uid = process.uid().await;
    server.connected(uid).await;
    server.offer_metrics(uid, 1, destination(&one)).await.unwrap();
    until("it is used", || !one.bodies().is_empty()).await;
    process.stop().await;
    let before = one.bodies().len();
    let mut again = Process::start(&directory);
    again.uid().await;
    until("R-OWN-06: it is used again, unasked", || one.bodies().len() > before + 2).await;
    server.offer_metrics(uid, 2, destination(&other)).await.unwrap();
    until("the other is used", || other.bodies().len() > 2).await;
    let settled = one.bodies().len();
    let count = other.bodies().len();
    until("and it alone", || other.bodies().len() > count + 3).await;
    assert_eq!(one.bodies().len(), settled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_takes_nothing_is_told_once_and_tried_on() {
    let server = Offerer::start().await;
    let answers = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let takes = std::sync::Arc::clone(&answers);
    let sink = Stub::start(move |_| {
        if takes.load(std::sync::atomic::Ordering::SeqCst) {
            return ok("application/x-protobuf", b"");
        }
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec()
    })
    .await;
    let (_directory, mut process) = start(&server, "ws");
    let uid = process.uid().await;
    server.connected(uid).await;
    server.offer_metrics(uid, 1, destination(&sink)).await.unwrap();
    until("it is tried on", || sink.bodies().len() > 3).await;
    assert_eq!(process.lines(&["own metrics cannot be sent"]), 1, "{}", process.log());
    answers.store(true, std::sync::atomic::Ordering::SeqCst);
    process.logs("own metrics are taken again").await;
    let exports = points(&metrics(&newest(&sink))["self_agent.exports"]).1;
    assert!(exports.iter().any(|point| whole(point) > 2), "what failed is counted: {exports:?}");
    assert!(!process.log().contains("seven"), "headers are secrets");
}
