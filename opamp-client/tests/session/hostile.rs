//! A server that sends whatever it likes: nothing of it breaks the agent, and little of it matters.

use bytes::Bytes;
use opamp_client::session::{Input, Output};
use opamp_client::{ServerFault, Transport};
use opamp_proto::pb;
use proptest::option::weighted;
use proptest::prelude::*;
use prost::Message as _;

use crate::bench::{Bench, UID, on_both, parts, seconds};

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn error() -> impl Strategy<Value = pb::ServerErrorResponse> {
    (-2..5_i32, any::<String>(), proptest::option::of(any::<u64>())).prop_map(
        |(r#type, error_message, retry)| {
            let info = |retry_after_nanoseconds| pb::RetryInfo { retry_after_nanoseconds };
            let details = retry.map(info).map(pb::server_error_response::Details::RetryInfo);
            pb::ServerErrorResponse { r#type, error_message, details }
        },
    )
}

fn offer() -> impl Strategy<Value = pb::AgentRemoteConfig> {
    let files = proptest::collection::btree_map(any::<String>(), bytes(20), 0..4);
    (proptest::option::of(files), bytes(3)).prop_map(|(files, config_hash)| {
        let object = |body| pb::AgentConfigObject { body, ..Default::default() };
        let map = |files: std::collections::BTreeMap<String, Bytes>| pb::AgentConfigMap {
            config_map: files.into_iter().map(|(name, body)| (name, object(body))).collect(),
        };
        pb::AgentRemoteConfig { config: files.map(map), config_hash }
    })
}

fn message() -> impl Strategy<Value = pb::ServerToAgent> {
    let uid = prop_oneof![Just(Bytes::new()), Just(Bytes::copy_from_slice(UID.as_bytes())), bytes(18)];
    (
        uid,
        weighted(0.1, error()),
        weighted(0.3, offer()),
        weighted(0.2, any::<u64>()),
        any::<u64>(),
        any::<u64>(),
        weighted(0.2, bytes(18)),
        weighted(0.1, any::<i32>()),
    )
        .prop_map(
            |(
                instance_uid,
                error_response,
                remote_config,
                interval,
                flags,
                capabilities,
                new_uid,
                command,
            )| {
                pb::ServerToAgent {
                    instance_uid,
                    error_response,
                    remote_config,
                    connection_settings: interval
                        .and_then(|seconds| crate::bench::interval(seconds).connection_settings),
                    flags,
                    capabilities,
                    agent_identification: new_uid
                        .map(|new_instance_uid| pb::AgentIdentification { new_instance_uid }),
                    command: command.map(|r#type| pb::ServerToAgentCommand { r#type }),
                    ..Default::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn whatever_the_server_sends_the_agent_keeps_its_manners(
        http: bool,
        messages in proptest::collection::vec((0..90_000_u64, prop_oneof![4 => message().prop_map(|message| message.encode_to_vec()), 1 => bytes(40).prop_map(|bytes| bytes.to_vec())]), 1..40),
    ) {
        let mut bench = Bench::able(if http { Transport::Http } else { Transport::WebSocket });
        let mut step = bench.connect();
        for (pause_ms, message) in &messages {
            step.extend(bench.pass(std::time::Duration::from_millis(*pause_ms)));
            step.extend(bench.receive_bytes(message));
            if !step.connects().is_empty() {
                step.extend(bench.tell(Input::Connected));
            }
            for hash in step.applies().iter().map(|config| config.hash().clone()).collect::<Vec<_>>() {
                step.extend(bench.tell(Input::ConfigOutcome { hash, result: Ok(()), effective: None }));
            }
            if step.outputs.iter().any(|output| matches!(output, Output::Close(_))) {
                step.extend(bench.tell(Input::Closed { code: None, reason: String::new() }));
            }
            step.outputs.clear();
        }
        let mut last = None;
        for message in &step.sent {
            prop_assert_eq!(message.instance_uid.len(), 16);
            prop_assert_eq!(message.capabilities & !0xffff, 0);
            prop_assert!(message.capabilities & 1 != 0);
            prop_assert!(last.is_none_or(|last: u64| message.sequence_num == last + 1));
            last = Some(message.sequence_num);
        }
        for event in &step.events {
            let line = event.to_string();
            prop_assert!(line.len() < 2_000 && !line.contains(char::is_control), "{}", line);
        }
        // It is still there, at the latest after the longest wait a server can ask for.
        let mut step = bench.pass(seconds(24 * 3600 + 400));
        if !step.connects().is_empty() {
            step.extend(bench.tell(Input::Connected));
        }
        prop_assert!(bench.session.deadline().is_some());
    }
}

#[test]
fn an_offer_of_connection_settings_changes_nothing_but_the_interval() {
    for transport in on_both() {
        let mut bench = Bench::able(transport);
        bench.connect();
        let opamp = pb::OpAmpConnectionSettings {
            destination_endpoint: "ws://evil.example/v1/opamp".into(),
            headers: Some(pb::Headers {
                headers: vec![pb::Header { key: "authorization".into(), value: "x".into() }],
            }),
            heartbeat_interval_seconds: 10,
            tls: Some(pb::TlsConnectionSettings { insecure_skip_verify: true, ..Default::default() }),
            ..Default::default()
        };
        let offers =
            pb::ConnectionSettingsOffers { opamp: Some(opamp), hash: vec![1].into(), ..Default::default() };
        let step =
            bench.answer(pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() });
        let quiet = step.outputs.is_empty() && step.events.is_empty();
        assert!(
            quiet && step.sent.iter().all(|message| parts(message).is_empty()),
            "no reconnect, nothing lowered, nothing reported: {step:?}"
        );
        assert!((10..=11).contains(&bench.pass(seconds(100)).sent.len()));
    }
}

#[test]
fn texts_of_the_server_are_made_fit_for_a_log_line() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    let response = pb::ServerErrorResponse {
        r#type: 1,
        error_message: format!("a\r\nfake log line\u{1b}[31m{}", "x".repeat(1 << 20)),
        details: None,
    };
    let step = bench.receive(pb::ServerToAgent { error_response: Some(response), ..Default::default() });
    let line = step.events[0].to_string();
    assert!(!line.contains(char::is_control) && line.len() < 1_000, "{}", line.len());
}

#[test]
fn faults_name_no_content() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    let step = bench.tell(Input::Received(b"\0\x1a\x7fpassword"));
    assert!(!format!("{:?}", step.events).contains("password"));
    assert!(matches!(step.events[..], [opamp_client::Event::ServerFault(ServerFault::Malformed { .. })]));
    assert!(parts(bench.pass(seconds(30)).message()).is_empty(), "and the session goes on");
}
