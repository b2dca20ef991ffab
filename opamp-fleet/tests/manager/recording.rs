use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::manager::{AgentQuery, ManagerSettings};
use opamp_fleet::{Drift, Health, Liveness};
use opamp_proto::hash::config_hash;
use opamp_proto::pb::any_value::Value;
use opamp_proto::{AgentCapabilities, pb};
use opamp_server::InsecureAcceptEveryone;
use opamp_store::{AgentStore as _, BlobStore as _, MemoryStore, Store as _, WriteBehindLimits};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_new_agent_is_recorded_with_everything_it_reports() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let mut agent = Agent::new(1);
    let connected_at = process.now();
    agent.connect(&process).await;
    process.settle().await;

    let detail = process.detail(&agent.uid).await;
    let summary = &detail.summary;
    assert_eq!(
        (summary.liveness, summary.health, summary.drift),
        (Liveness::Connected, Health::Healthy, Drift::Unmanaged)
    );
    assert_eq!(summary.agent_type, "io.example.collector");
    assert_eq!((summary.version.as_deref(), summary.host_name.as_deref()), (Some("0.128.0"), Some("host-1")));
    assert_eq!(summary.capabilities, CAPABILITIES);
    assert_eq!(summary.last_seen, Some(connected_at));
    assert_eq!(detail.first_seen, connected_at);
    assert_eq!(detail.description, Some(agent.description.clone()));
    assert_eq!(detail.health_report, Some(agent.health.clone()));
    assert_eq!(
        detail.effective_config,
        Some(pb::EffectiveConfig { config_map: Some(agent.effective.clone()) })
    );
    assert_eq!(detail.effective_config_hash, Some(config_hash(&agent.effective)));
    let connection = detail.connection.clone().expect("it is connected");
    assert_eq!((connection.transport.as_str(), connection.connected_at), ("http", connected_at));
    assert_eq!(connection.remote_addr.as_deref(), Some("198.51.100.7:4001"));
    assert_eq!(detail.sticky.connects, 1);

    let stored = store.agent(&detail.summary.id).await.unwrap().expect("it is in the store");
    assert_eq!(stored.uid, agent.uid);
    assert!(store.blob(&stored.effective_config.unwrap()).await.unwrap().is_some());
    assert_eq!(process.audit("agent.first_seen").await.len(), 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_says_within_the_gather_time_is_one_change() {
    let store = Arc::new(MemoryStore::new());
    // Every change that is merged is written at once, and so can be counted.
    let write_behind = WriteBehindLimits { delay: Duration::ZERO, ..WriteBehindLimits::default() };
    let settings = ManagerSettings { write_behind, ..ManagerSettings::default() };
    let (gather, tick) = (settings.gather, Duration::from_millis(1));
    let auth = Arc::new(InsecureAcceptEveryone);
    let process = Process::start_with(store.clone(), &clock(), auth, settings).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let before = store.stats().commits;
    let mut say = async |report: pb::ComponentHealth, changes: u64, shown: Health| {
        agent.send(&process, pb::AgentToServer { health: Some(report), ..agent.bare() }).await;
        tokio::time::sleep(tick).await;
        assert_eq!(process.detail(&agent.uid).await.summary.health, shown);
        assert_eq!(store.stats().commits - before, changes);
    };
    say(health(false, 2), 1, Health::Unhealthy).await; // nothing was said for long
    say(health(true, 3), 1, Health::Unhealthy).await;
    say(pb::ComponentHealth { last_error: "disk".into(), ..health(true, 4) }, 1, Health::Unhealthy).await;
    tokio::time::sleep(gather).await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!((detail.summary.health, store.stats().commits - before), (Health::Healthy, 2));
    assert_eq!(detail.health_report.unwrap().last_error, "disk");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_written_is_read_and_changed_as_if_it_were() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let id = process.id(&agent.uid);
    assert_eq!(store.agent(&id).await.unwrap(), None, "it waits");
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.effective_config, agent.full().effective_config);
    let labels = BTreeMap::from([("team".to_owned(), "edge".to_owned())]);
    process.manager.set_labels(&operator(), &id, labels.clone()).await.unwrap();
    let stored = store.agent(&id).await.unwrap().expect("acknowledged means written");
    assert_eq!(stored.labels, labels);
    assert!(stored.parts.health.is_some(), "what waited went along");
    assert_eq!(process.manager.stats().records_waiting, 0);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_omitted_part_is_kept_and_a_repeated_one_replaces_the_stored_one_whole() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut agent = Agent::new(1);
    let component = |healthy| pb::ComponentHealth { healthy, ..pb::ComponentHealth::default() };
    agent.health.component_health_map =
        BTreeMap::from([("a".to_owned(), component(true)), ("b".to_owned(), component(false))]);
    agent.connect(&process).await;
    agent.heartbeat(&process).await;
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.health_report.unwrap().component_health_map.len(), 2);
    assert_eq!(detail.description, Some(agent.description.clone()), "bare messages change nothing");

    agent.health = health(false, 2);
    agent.health.component_health_map = BTreeMap::from([("a".to_owned(), component(true))]);
    let report = pb::AgentToServer { health: Some(agent.health.clone()), ..agent.bare() };
    agent.send(&process, report).await;
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.health_report, Some(agent.health.clone()), "b is gone");
    assert_eq!(detail.summary.health, Health::Unhealthy);
    assert_eq!(detail.description, Some(agent.description.clone()));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attributes_of_every_kind_and_health_of_any_depth_are_shown_unchanged() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut agent = Agent::new(1);
    let any = |value| Some(pb::AnyValue { value: Some(value) });
    let attribute = |key: &str, value| pb::KeyValue { key: key.to_owned(), value: any(value) };
    let list = pb::ArrayValue { values: any(Value::IntValue(-3)).into_iter().collect() };
    let nested = pb::KeyValueList { values: vec![attribute("list", Value::ArrayValue(list.clone()))] };
    let attributes = vec![
        text("text", "grün"),
        attribute("bool", Value::BoolValue(true)),
        attribute("int", Value::IntValue(i64::MIN)),
        attribute("double", Value::DoubleValue(0.1)),
        attribute("list", Value::ArrayValue(list)),
        attribute("map", Value::KvlistValue(nested)),
        attribute("bytes", Value::BytesValue(b"\x00\xff".as_slice().into())),
    ];
    agent.description.non_identifying_attributes.extend(attributes.clone());
    let mut health = health(true, 1);
    for level in 0..10 {
        let outer = pb::ComponentHealth {
            status: format!("a word nobody knows, level {level}"),
            attributes: attributes.clone(),
            component_health_map: BTreeMap::from([("inner".to_owned(), health)]),
            ..pb::ComponentHealth::default()
        };
        health = outer;
    }
    agent.health = health;
    agent.connect(&process).await;
    process.settle().await;
    let detail = process.detail(&agent.uid).await;
    assert_eq!(detail.description, Some(agent.description.clone()));
    assert_eq!(detail.health_report, Some(agent.health.clone()));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn agents_are_listed_by_selector_and_axis_page_by_page() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    for n in 0..10 {
        let mut agent = Agent::new(n);
        agent.health = health(n % 2 == 0, 1);
        if n >= 8 {
            agent.capabilities = AgentCapabilities::REPORTS_STATUS;
        }
        agent.connect(&process).await;
    }
    process.settle().await;
    let list = |selector: &str| {
        let query = AgentQuery { selector: Some(selector.parse().unwrap()), ..process.everyone() };
        process.manager.agents(&query).items.len()
    };
    assert_eq!(list("host.name in (host-1,host-2)"), 2);
    assert_eq!(list("capability=AcceptsRemoteConfig,version>=0.100"), 8);
    assert_eq!(list("health=healthy,capability=ReportsHealth"), 4);
    assert_eq!(list("liveness=connected"), 10);

    let first = process.manager.agents(&AgentQuery {
        health: Some(Health::Unhealthy),
        limit: 3,
        ..AgentQuery::default()
    });
    assert_eq!((first.items.len(), first.next), (3, Some(first.items[2].id)));
    let rest = process.manager.agents(&AgentQuery {
        health: Some(Health::Unhealthy),
        after: first.next,
        limit: 3,
        ..AgentQuery::default()
    });
    assert_eq!((rest.items.len(), rest.next), (1, None), "8 and 9 report no health");
    let nobody = AgentQuery { drift: Some(Drift::Failed), ..process.everyone() };
    assert!(process.manager.agents(&nobody).items.is_empty());

    let stats = process.manager.stats();
    assert_eq!(stats.registered, 10);
    for parts in [
        stats.by_liveness.values().sum::<u64>(),
        stats.by_health.values().sum(),
        stats.by_drift.values().sum(),
        stats.counts.registered(),
    ] {
        assert_eq!(parts, stats.registered);
    }
    assert_eq!(stats.by_health[&Health::Unknown], 2);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn labels_are_set_audited_selected_by_and_survive_reports() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    let labels = BTreeMap::from([("team".to_owned(), "edge".to_owned())]);
    process.manager.set_labels(&operator(), &id, labels.clone()).await.unwrap();
    agent.health = health(false, 9);
    agent.connect(&process).await;
    process.settle().await;
    assert_eq!(process.detail(&agent.uid).await.summary.labels, labels);
    let query = AgentQuery { selector: Some("label/team=edge".parse().unwrap()), ..process.everyone() };
    assert_eq!(process.manager.agents(&query).items.len(), 1);

    let entries = process.audit("agent.label").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].actor.as_str(), entries[0].source.as_deref()), ("olivia", Some("192.0.2.1")));
    assert_eq!(entries[0].after, Some(serde_json::json!({ "labels": { "team": "edge" } })));
    let bad = BTreeMap::from([(String::new(), "x".to_owned())]);
    assert!(process.manager.set_labels(&operator(), &id, bad).await.is_err());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn equal_effective_configs_share_one_blob_however_they_are_encoded() {
    let store = MemoryStore::new();
    let process = Process::start(Arc::new(store.clone()), &clock()).await;
    let config = |names: [&str; 2]| {
        // A map entry is a repeated field: two encodings with the entries in either order.
        let entries = names.map(|name| pb::AgentConfigMap { config_map: files(&[(name, name)]).config_map });
        entries.iter().flat_map(prost::Message::encode_to_vec).collect::<Vec<u8>>()
    };
    let mut blobs = Vec::new();
    for (n, names) in [["a", "b"], ["b", "a"]].into_iter().enumerate() {
        let mut agent = Agent::new(n as u16);
        agent.connect(&process).await;
        let map = config(names);
        // Field 6 of AgentToServer, field 1 of EffectiveConfig, both length-delimited.
        let inner = [&[0x0a, map.len() as u8], map.as_slice()].concat();
        let part = [&[0x32, inner.len() as u8], inner.as_slice()].concat();
        agent.sequence += 1;
        let bare = pb::AgentToServer { sequence_num: agent.sequence, ..agent.bare() };
        let bytes = [prost::Message::encode_to_vec(&bare), part].concat();
        assert_eq!(process.post(bytes, agent.from, None).await.0, 200);
        process.settle().await;
        let stored = store.agent(&process.id(&agent.uid)).await.unwrap().unwrap();
        assert_eq!(stored.effective_config_hash, Some(config_hash(&files(&[("a", "a"), ("b", "b")]))));
        blobs.push(stored.effective_config.unwrap());
    }
    assert_eq!(blobs[0], blobs[1]);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn effective_configs_nobody_runs_any_more_are_deleted() {
    let store = MemoryStore::new();
    let settings =
        ManagerSettings { blob_sweep_interval: Duration::from_secs(600), ..ManagerSettings::default() };
    let everyone = Arc::new(InsecureAcceptEveryone);
    let process = Process::start_with(Arc::new(store.clone()), &clock(), everyone, settings).await;
    let mut agent = Agent::new(1);
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    let first = store.agent(&id).await.unwrap().unwrap().effective_config.unwrap();
    agent.effective = files(&[("", "receivers: { otlp: {} }")]);
    agent.connect(&process).await;
    process.settle().await;
    assert!(store.blob(&first).await.unwrap().is_some());
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(store.blob(&first).await.unwrap(), None);
    let second = store.agent(&id).await.unwrap().unwrap().effective_config.unwrap();
    assert!(store.blob(&second).await.unwrap().is_some());
    process.stop().await;
}
