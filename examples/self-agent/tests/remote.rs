//! What a server can and cannot do to an agent with a remote configuration (R-SEC-01, R-SEC-05 to R-SEC-09).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use opamp_proto::pb::RemoteConfigStatuses::{Applied, Failed};
use opamp_server::AgentSnapshot;
use proptest::prelude::*;
use self_agent::Config;
use self_agent::config::foreign::FOREIGN;
use self_agent::config::keys::{KEYS, Kind};
use support::{Process, TempDir, TestServer, attribute, config_status, description, effective, yaml};

type Files<'a> = &'a [(&'a str, &'a [u8])];

const LOCAL: &str = "\
server:
  endpoint: wss://opamp.example.com
  headers: {Authorization: Bearer hunter2}
capabilities: {accepts_remote_config: true}
agent:
  description:
    identifying_attributes: {service.name: edge, site: here}
    non_identifying_attributes: {team: blue}
  limits: {attributes: 4, attribute_bytes: 40}
";

fn local() -> Config {
    let directory = TempDir::new();
    Config::load(Path::new(&directory.write("agent.yaml", LOCAL))).unwrap()
}

fn refused(text: &str) -> String {
    local().with_remote(text).expect_err(text).to_string()
}

/// A document that sets one key.
fn setting(key: &str, value: &str) -> String {
    let parts: Vec<_> = key.split('.').collect();
    let mut text = String::new();
    for (depth, part) in parts.iter().enumerate() {
        let value = if depth + 1 == parts.len() { value } else { "" };
        text.push_str(&format!("{}{part}: {value}\n", "  ".repeat(depth)));
    }
    text
}

#[test]
fn only_keys_of_the_list_can_be_set() {
    for key in KEYS.iter().filter(|key| !key.remote) {
        let value = match key.kind {
            Kind::Map => "{a: b}",
            Kind::List => "[a]",
            _ => "true",
        };
        for value in [value, "", "false", "[[a]]"] {
            let error = refused(&setting(key.name, value));
            let section = key.name.split('.').next().unwrap();
            assert!(
                error.starts_with("line ")
                    && error.contains(&format!("`{section}"))
                    && error.contains("cannot be set remotely, only `agent.description."),
                "{} {error}",
                key.name
            );
        }
    }
    for foreign in FOREIGN {
        let error = refused(&setting(foreign.name, "false"));
        assert!(error.contains("cannot be set remotely") || error.contains("unknown key"), "{error}");
    }
    assert_eq!(
        refused("agent:\n  limits: {attributes: 1000}\n"),
        "line 2, column 3: `agent.limits` cannot be set remotely, only \
         `agent.description.non_identifying_attributes`, `telemetry.logs.level`, `health.interval`"
    );
}

#[test]
fn the_list_itself_cannot_be_touched() {
    for text in
        ["remote: {server.endpoint: true}", "keys: [server.endpoint]", "server.endpoint: ws://h", "'': x"]
    {
        let error = refused(text);
        assert!(error.starts_with("line 1, column 1: unknown key "), "{error}");
    }
}

#[test]
fn the_identity_of_the_agent_cannot_be_touched() {
    for name in ["service.name", "service.version", "service.instance.id", "site"] {
        let error =
            refused(&format!("agent: {{description: {{non_identifying_attributes: {{{name}: other}}}}}}"));
        assert!(error.contains(&format!("`{name}` identifies the agent")), "{error}");
    }
}

#[test]
fn variables_of_this_machine_cannot_be_read() {
    for reference in ["${PATH}", "${env:PATH}", "x${env:NONE:-y}"] {
        let error =
            refused(&format!("agent: {{description: {{non_identifying_attributes: {{a: '{reference}'}}}}}}"));
        assert!(error.ends_with("`agent.description.non_identifying_attributes.a`: a remote configuration cannot refer to variables"), "{error}");
    }
    let config =
        local().with_remote("agent: {description: {non_identifying_attributes: {a: '$$ 5$'}}}").unwrap();
    assert_eq!(config.agent.non_identifying_attributes["a"], "$$ 5$", "a dollar is a dollar");
}

#[test]
fn values_out_of_range_are_refused() {
    for (text, expected) in [
        (
            "health: {interval: 99ms}",
            "line 1, column 10: `health.interval`: \"99ms\" is not within 100ms to 1h",
        ),
        ("health: {interval: 2h}", "is not within 100ms to 1h"),
        ("health: {interval: -1s}", "is not a duration"),
        ("health: {interval: 99999999999999999999d}", "is not a duration"),
        ("telemetry: {logs: {level: off}}", "\"off\" is none of error, warn, info, debug, trace"),
        ("health: {interval: [1s]}", "a single value belongs here"),
        ("health: 1s", "is a section"),
        (
            "agent: {description: {non_identifying_attributes: {a: 1, b: 2, c: 3, d: 4}}}",
            "has 5 attributes, and 4 are allowed",
        ),
        (
            "agent: {description: {non_identifying_attributes: {a: 0123456789012345678901234567890123456789x}}}",
            "the attribute \"a\" or its value is longer than 40 bytes",
        ),
        ("agent: {description: {non_identifying_attributes: {'': x}}}", "an attribute has no name"),
        ("agent: {description: {non_identifying_attributes: {a: {b: c}}}}", "a single value belongs here"),
        ("agent: {description: {non_identifying_attributes: {a: }}}", "has no value"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn documents_made_to_harm_are_refused_in_one_short_line() {
    let deep = "[".repeat(20_000);
    let long_name = format!("{}: x", "n".repeat(60_000));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..50 {
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{}", level - 1); 10].join(", ")
        ));
    }
    for text in [
        deep.as_str(),
        &long_name,
        &bomb,
        "\"a\\nERROR forged line\\x1b[2J\": x",
        "health: {interval: \"1s\\nforged\"}",
        "a: b\n---\nserver: {}\n",
        "health: {interval: 1s}\nhealth: {interval: 2s}\n",
        "<<: {server: {endpoint: 'ws://h'}}\n",
        "base: &b {endpoint: 'ws://h'}\nserver: *b\n",
        "? [a]\n: b\n",
        "\u{feff}\u{0}",
    ] {
        let error = refused(text);
        assert!(
            error.len() < 1200 && !error.chars().any(char::is_control),
            "{} bytes: {error:?}",
            error.len()
        );
    }
}

#[test]
fn attributes_are_added_and_replaced_and_gone_with_the_next() {
    let remote = |text: &str| local().with_remote(text).unwrap().agent.non_identifying_attributes;
    let attributes = remote("agent: {description: {non_identifying_attributes: {team: red, ring: canary}}}");
    assert_eq!(attributes["team"], "red");
    assert_eq!(attributes["ring"], "canary");
    for nothing in
        ["", "# nothing\n", "agent:\n", "agent: {description: {non_identifying_attributes: }}", "{}"]
    {
        assert_eq!(remote(nothing), local().agent.non_identifying_attributes, "{nothing}");
    }
}

proptest! {
    /// Whatever is offered, nothing but the settings of the list changes.
    #[test]
    fn whatever_is_offered_leaves_everything_else_alone(
        key in proptest::sample::select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>()),
        value in "[ -~]{0,20}",
        more in "(\\PC|\n){0,60}",
    ) {
        let local = local();
        for text in [setting(key, &value), more.clone(), format!("{}{more}", setting(key, &value))] {
            if let Ok(mut config) = local.with_remote(&text) {
                config.agent.non_identifying_attributes.clone_from(&local.agent.non_identifying_attributes);
                prop_assert_eq!(&config.server, &local.server);
                prop_assert_eq!(config.capabilities, local.capabilities);
                prop_assert_eq!(&config.agent, &local.agent);
                prop_assert_eq!(&config.storage_directory, &local.storage_directory);
            }
        }
    }
}

/// On the wire: what is no single YAML document, and who asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_single_text_document_fails_with_the_reason_and_the_agent_goes_on() {
    let server = TestServer::start().await;
    let directory = TempDir::new();
    directory.write("agent.yaml", &yaml(&server.url("ws"), "headers: {x-key: hunter2}", ""));
    let mut process = Process::start(&directory);
    let uid = process.uid().await;
    let large = "#".repeat(70_000);
    let cases: [(&str, Files<'_>, &str); 5] = [
        ("binary", &[("", b"health: \xff")], "the configuration is not text: byte 8 is not UTF-8"),
        (
            "two",
            &[("a.yaml", b""), ("b.yaml", b"")],
            "the configuration has 2 files; this agent takes one YAML document",
        ),
        ("large", &[("", large.as_bytes())], "the configuration has 70000 bytes, and this agent takes 65536"),
        (
            "elsewhere",
            &[("", b"server: {endpoint: 'ws://elsewhere'}")],
            "line 1, column 1: `server` cannot be set remotely",
        ),
        (
            "forged",
            &[("", b"\"a\\n2026-01-01 ERROR forged\": 1")],
            "line 1, column 1: unknown key `a 2026-01-01 ERROR forged`",
        ),
    ];
    for (name, files, expected) in cases {
        server.assign_files(uid, name, files).await;
        let failed = |agent: &AgentSnapshot| {
            let (status, why) = config_status(agent);
            status == Failed && why.starts_with(expected)
        };
        server.sees(uid, expected, failed).await;
    }
    server
        .assign_files(
            uid,
            "named",
            &[("any-name.yaml", b"agent: {description: {non_identifying_attributes: {a: 'ok'}}}")],
        )
        .await;
    let seen = server.sees(uid, "applied", |agent| config_status(agent).0 == Applied).await;
    let taken = |agent: &AgentSnapshot| {
        attribute(&description(agent).non_identifying_attributes, "a").as_deref() == Some("ok")
    };
    let seen =
        server.sees(uid, "in force", |agent| taken(agent) && agent.sequence_num >= seen.sequence_num).await;
    let shown = effective(&seen);
    assert!(shown.contains("x-key: <redacted>") && shown.contains(&server.url("ws")), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    process.stop().await;
    assert_eq!(
        process.log().lines().filter(|line| line.starts_with("2026-01-01")).count(),
        0,
        "no forged lines"
    );
    assert!(!process.log().contains("hunter2") && !process.stored("remote-config.yaml").contains("hunter2"));
}
