//! The configuration file: what is accepted, what is refused and how, what is shown.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use self_agent::Config;
use self_agent::config::docs;
use self_agent::config::foreign::FOREIGN;
use self_agent::config::keys::KEYS;
use support::{TempDir, run};

const LEAST: &str = "server: {endpoint: 'ws://h'}\n";

fn load(text: &str) -> Result<Config, String> {
    let directory = TempDir::new();
    let file = directory.write("agent.yaml", text);
    Config::load(Path::new(&file)).map_err(|error| {
        let shown = error.to_string();
        assert!(!shown.contains('\n'), "one line: {shown}");
        shown.replace(&file, "agent.yaml")
    })
}

fn refused(text: &str) -> String {
    load(text).expect_err(text)
}

#[test]
fn the_readme_documents_every_key_as_it_is() {
    let readme = include_str!("../README.md");
    let expected = docs::markdown();
    assert!(readme.contains(&expected), "put this into README.md:\n{expected}");
}

#[test]
fn the_files_of_the_readme_are_valid() {
    let readme = include_str!("../README.md");
    let blocks: Vec<_> =
        readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    load(include_str!("../agent.yaml")).unwrap();
    load(blocks[0]).unwrap();
    let production = blocks[1].replace("${env:OPAMP_TOKEN}", "${env:OPAMP_TOKEN:-x}");
    load(&production).unwrap().with_remote(blocks[2]).unwrap();
}

#[test]
fn unknown_keys_are_refused_with_place_and_the_nearest_key() {
    for (text, expected) in [
        (
            "server:\n  endpoint: ws://h\n  tls:\n    cafile: x\n",
            "agent.yaml:4:5: unknown key `server.tls.cafile`; did you mean `server.tls.ca_file`?",
        ),
        (
            "server.endpoint: ws://h\n",
            "agent.yaml:1:1: unknown key `server.endpoint`; write each part on a line of its own",
        ),
        ("server: {endpoint: 'ws://h'}\nqwertyuiop: {}\n", "agent.yaml:2:1: unknown key `qwertyuiop`"),
        (
            "capabilities: {accepts_remote_configs: true}",
            "agent.yaml:1:16: unknown key `capabilities.accepts_remote_configs`; did you mean `capabilities.accepts_remote_config`?",
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn what_is_no_such_document_is_refused_with_its_place() {
    for (text, expected) in [
        ("server: {endpoint: 'ws://h'", "agent.yaml:"),
        ("- a\n", "agent.yaml: the document is a section"),
        ("server: [a]\n", "agent.yaml:1:9: `server`: is a section, so names belong below it"),
        ("server:\n  endpoint: [a]\n", "agent.yaml:2:13: `server.endpoint`: a single value belongs here"),
        ("server:\n  endpoint:\n", "agent.yaml:2:11: `server.endpoint` has no value"),
        (
            "server: {fallback_endpoints: 'ws://h'}\n",
            "agent.yaml:1:30: `server.fallback_endpoints`: a list belongs here",
        ),
        ("server: {headers: [a]}\n", "agent.yaml:1:19: `server.headers`: names and values belong below it"),
        ("server: {headers: {a: b, a: c}}\n", "agent.yaml:1:26: `server.headers`: has `a` twice"),
        (&format!("{LEAST}server: {{}}\n"), "agent.yaml:2:1: the document has `server` twice"),
        (&format!("{LEAST}---\na: b\n"), "agent.yaml:3:1: the document is followed by a second one"),
        ("", "agent.yaml: `server.endpoint` is missing"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
    let missing = Config::load(Path::new("/nonexistent/agent.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/agent.yaml: cannot be read: "), "{missing}");
}

#[test]
fn a_document_made_to_exhaust_memory_is_refused() {
    let deep = "{a: ".repeat(10_000);
    refused(&deep);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..60 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    refused(&bomb);
}

#[test]
fn values_in_the_wrong_notation_are_refused_with_key_and_place() {
    for (line, expected) in [
        (
            "heartbeat_interval: 30",
            "`server.heartbeat_interval`: \"30\" is not a duration such as `30s` or `1m30s`",
        ),
        ("poll_interval: 0s", "`server.poll_interval`: \"0s\" is not within 1ms to 1year 18h"),
        ("compression: zip", "`server.compression`: \"zip\" is none of none, gzip"),
        ("retry: {multiplier: 0.9}", "`server.retry.multiplier`: \"0.9\" is not a number from 1 to 100"),
        (
            "retry: {initial_interval: 2m}",
            "`server.retry.initial_interval`: is more than `server.retry.max_interval`",
        ),
        (
            "timeouts: {read: 30s}",
            "`server.timeouts.read`: must be longer than `server.ping_interval`: two to three times",
        ),
        ("limits: {send_bytes: 1}", "`server.limits.send_bytes`: \"1\" must be at least 256"),
        ("limits: {redirects: many}", "`server.limits.redirects`: \"many\" is not a whole number"),
        ("tls: {min_version: 1.1}", "`server.tls.min_version`: \"1.1\" is none of 1.2, 1.3"),
        ("tls: {cert_file: a}", "`server.tls.cert_file`: needs `server.tls.key_file` as well"),
        ("tls: {key_file: a}", "`server.tls.key_file`: needs `server.tls.cert_file` as well"),
        (
            "fallback_endpoints: [h]",
            "`server.fallback_endpoints`: does not begin with ws://, wss://, http:// or https://",
        ),
        ("proxy: {url: 'socks5://p'}", "`server.proxy.url`: not the address of an HTTP proxy"),
        ("proxy: {no_proxy: [h]}", "`server.proxy.no_proxy`: needs `server.proxy.url`"),
        (
            "proxy: {url: none, headers: {a: b}}",
            "`server.proxy.url`: is `none`, so nothing else belongs below it",
        ),
        ("headers: {a b: c}", "`server.headers`: \"a b\" cannot be the name of a header"),
        ("headers: {a: \"b\\nc\"}", "`server.headers`: the value of a cannot be sent in a header"),
        (
            "{headers: {Authorization: x}, bearer_token_file: y}",
            "`server.bearer_token_file`: there is an `Authorization`",
        ),
    ] {
        let text = match line.strip_prefix('{') {
            Some(rest) => format!("server: {{endpoint: 'ws://h', {rest}\n"),
            None => format!("server:\n  endpoint: ws://h\n  {line}\n"),
        };
        let error = refused(&text);
        let place = error.split('`').next().unwrap();
        assert!(place.starts_with("agent.yaml:") && place.len() > "agent.yaml:1:1: ".len() - 1, "{error}");
        assert!(error[place.len()..].starts_with(expected), "{line}\n{error}");
    }
}

#[test]
fn keys_of_the_supervisor_that_mean_nothing_here_are_refused_with_the_reason_unless_they_are_off() {
    for foreign in FOREIGN {
        let nested = |value: &str| {
            let parts: Vec<_> = foreign.name.split('.').collect();
            let mut text = String::from(LEAST);
            if parts[0] == "server" {
                text = "server:\n  endpoint: ws://h\n".to_owned();
            } else {
                text.push_str(&format!("{}:\n", parts[0]));
            }
            if parts.len() == 1 {
                return format!("{LEAST}{}: {value}\n", parts[0]);
            }
            for (depth, part) in parts.iter().enumerate().skip(1) {
                let value = if depth + 1 == parts.len() { value } else { "" };
                text.push_str(&format!("{}{part}: {value}\n", "  ".repeat(depth)));
            }
            text
        };
        for on in ["true", "x", "{a: b}", "[a]", "5"] {
            let error = refused(&nested(on));
            assert!(error.contains(&format!("`{}`: {}", foreign.name, foreign.why)), "{error}");
        }
        load(&nested("false")).unwrap();
    }
}

#[test]
fn verification_of_the_server_cannot_be_switched_off() {
    let error = refused("server:\n  endpoint: wss://h\n  tls:\n    insecure_skip_verify: true\n");
    assert_eq!(
        error,
        "agent.yaml:4:5: `server.tls.insecure_skip_verify`: the server's certificate is always verified; name the \
         authority that signed it in `server.tls.ca_file`"
    );
}

#[test]
fn capabilities_that_contradict_each_other_are_refused_by_name() {
    for (capabilities, more, expected) in [
        (
            "accepts_remote_config: true, reports_remote_config: false",
            "",
            "`capabilities.reports_remote_config`: contradicts",
        ),
        ("reports_remote_config: true", "", "`capabilities.reports_remote_config`: contradicts"),
        (
            "reports_health: false",
            "health: {interval: 5s}",
            "`health.interval`: contradicts `capabilities.reports_health: false`",
        ),
        (
            "accepts_packages: true",
            "",
            "`packages.public_key_files`: is missing: whose packages may be installed?",
        ),
        (
            "accepts_packages: true",
            "packages: {allow_unsigned: true, public_key_files: [key.pub]}",
            "`packages.allow_unsigned`: contradicts `packages.public_key_files`",
        ),
        (
            "accepts_packages: true",
            "packages: {allow_unsigned: true, activate_command: [reload]}",
            "`packages.activate_command`: has a program that is not named by its whole path",
        ),
        (
            "accepts_packages: true",
            "packages: {allow_unsigned: true, file_name: ../x}",
            "`packages.file_name`: is not the plain name of a file",
        ),
        ("reports_package_statuses: true", "", "`capabilities.reports_package_statuses`: contradicts"),
        (
            "reports_own_logs: true",
            "",
            "`capabilities.reports_own_logs`: this agent sends metrics of its own, and no logs",
        ),
        (
            "accepts_remote_config: perhaps",
            "",
            "`capabilities.accepts_remote_config`: \"perhaps\" is neither",
        ),
    ] {
        let error = refused(&format!("{LEAST}capabilities: {{{capabilities}}}\n{more}\n"));
        assert!(error.contains(expected), "{error}");
    }
    let error = refused(
        "server: {endpoint: 'ws://h', heartbeat_interval: 5s}\ncapabilities: {reports_heartbeat: false}\n",
    );
    assert!(
        error.contains("`server.heartbeat_interval`: contradicts `capabilities.reports_heartbeat: false`"),
        "{error}"
    );
    for fine in [
        "accepts_remote_config: true",
        "accepts_remote_config: true, reports_remote_config: true",
        "reports_remote_config: false, reports_own_metrics: false",
    ] {
        load(&format!("{LEAST}capabilities: {{{fine}}}\n")).unwrap();
    }
    assert!(!load(LEAST).unwrap().capabilities.remote_config, "off by default (R-SEC-09)");
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_key_and_place() {
    let error =
        refused("server:\n  endpoint: ws://h\n  headers:\n    Authorization: Bearer ${SELF_AGENT_UNSET}\n");
    assert!(
        error.starts_with(
            "agent.yaml:4:20: `server.headers.Authorization`: the environment variable SELF_AGENT_UNSET is not set"
        ),
        "{error}"
    );
}

#[test]
fn variables_stand_in_any_value_and_cannot_add_keys() {
    let path = std::env::var("PATH").unwrap();
    let text = "server:\n  endpoint: ws://${env:SELF_AGENT_UNSET:-h}\n  headers: {x-a: 'a ${PATH} ${env:PATH} $$1', x-b: \"${env:SELF_AGENT_UNSET:-x\\ny: z}\"}\n";
    let error = refused(text);
    assert!(error.contains("the value of x-b cannot be sent"), "text stays text: {error}");
    let config = load(&text.replace(", x-b: \"${env:SELF_AGENT_UNSET:-x\\ny: z}\"", "")).unwrap();
    assert_eq!(config.server.endpoint.reveal(), "ws://h");
    assert_eq!(config.server.headers["x-a"].reveal(), format!("a {path} {path} $1"));
}

#[test]
fn an_empty_text_does_not_switch_off_what_its_key_is_there_for() {
    for (server, key) in [
        ("endpoint: 'wss://h', tls: {ca_file: '${env:NOT_SET_ANYWHERE:-}'}", "server.tls.ca_file"),
        ("endpoint: 'ws://h', bearer_token_file: ''", "server.bearer_token_file"),
        ("endpoint: ''", "server.endpoint"),
    ] {
        let error = refused(&format!("server: {{{server}}}\n"));
        assert!(error.contains(&format!("`{key}` is empty")), "{error}");
    }
}

#[test]
fn endpoints_that_would_never_connect_or_give_credentials_away_are_refused() {
    for (server, what) in [
        ("endpoint: 'ws://h:99999/x'", "a port that does not exist"),
        ("endpoint: 'ws://h:/x'", "a port that does not exist"),
        ("endpoint: 'ws://h/x#token=s3cret'", "behind a `#`"),
        ("endpoint: 'ws://h', headers: {authorization: a, Authorization: b}", "is there twice"),
        (
            "endpoint: 'wss://h', fallback_endpoints: ['https://i', 'http://j/x?s3cret']",
            "`server.fallback_endpoints`: http://j/x?<redacted> has no TLS and `server.endpoint` has",
        ),
    ] {
        let error = refused(&format!("server: {{{server}}}\n"));
        assert!(error.contains(what) && !error.contains("s3cret"), "{error}");
    }
    for endpoint in ["ws://h:4320", "ws://[::1]:4320/x", "wss://[::1]", "http://h"] {
        load(&format!("server: {{endpoint: '{endpoint}'}}\n")).unwrap();
    }
    load("server: {endpoint: 'wss://h', fallback_endpoints: ['HTTPS://i']}\n").unwrap();
    load("server: {endpoint: 'ws://h', fallback_endpoints: ['http://i', 'wss://j']}\n").unwrap();
}

#[test]
fn credentials_in_an_endpoint_are_refused_and_not_repeated() {
    for endpoint in ["ws://user:hunter2@h/x", "ws://hunter2 @h", "hunter2"] {
        let error = refused(&format!("server: {{endpoint: '{endpoint}'}}\n"));
        assert!(error.contains("`server.endpoint`") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn what_is_in_effect_is_shown_without_secrets_and_can_be_read_again() {
    let text = "\
server:
  endpoint: wss://h/x?token=hunter2
  fallback_endpoints: ['wss://g?key=hunter2']
  headers: {Authorization: Bearer hunter2, x-count: 007}
  proxy: {url: 'http://user:hunter2@p:3128', headers: {x-proxy: hunter2}}
agent:
  description:
    non_identifying_attributes: {a: '1.10', b: 'yes', c: 'x: y', d: '#', e: ''}
";
    let config = load(text).unwrap();
    let shown = config.to_yaml();
    assert!(!shown.contains("hunter2") && !shown.contains("007"), "{shown}");
    for part in [
        "Authorization: <redacted>",
        "wss://h/x?<redacted>",
        "http://<redacted>@p:3128",
        "failback_after: 10m",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    // But for what a credential was cut out of.
    let readable = |text: &str| text.replace("?<redacted>", "").replace("<redacted>@", "");
    let again = load(&readable(&shown)).unwrap();
    assert_eq!(again.agent, config.agent, "text stays text");
    assert_eq!(again.to_yaml(), readable(&shown));
}

#[test]
fn every_key_with_a_default_shows_it() {
    let shown = load(LEAST).unwrap().to_yaml();
    let defaults = KEYS.iter().filter(|key| !key.default.is_empty()).count();
    let values = shown.lines().filter(|line| !line.trim_end().ends_with(':')).count();
    assert_eq!(values, defaults + 1, "and the endpoint\n{shown}");
}

#[test]
fn checking_a_file_prints_it_or_says_what_is_wrong_with_it_and_its_files() {
    let directory = TempDir::new();
    directory.write("agent.yaml", "server: {endpoint: 'ws://h', headers: {a: hunter2}}\n");
    let ended = run(directory.path(), &["check", "--config", "agent.yaml"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stdout.contains("endpoint: ws://h\n") && !ended.stdout.contains("hunter2"),
        "{}",
        ended.stdout
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was made");
    for (tls, expected) in [
        ("ca_file: none.pem", "agent.yaml:1:37: `server.tls.ca_file`: none.pem: No such file"),
        ("ca_file: agent.yaml", "`server.tls.ca_file`: agent.yaml: no certificate in PEM form"),
    ] {
        directory.write("agent.yaml", &format!("server: {{endpoint: 'wss://h', tls: {{{tls}}}}}\n"));
        let ended = run(directory.path(), &["check", "--config", "agent.yaml"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert!(
            ended.stderr.starts_with("self-agent: agent.yaml:1:") && ended.stderr.contains(expected),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stderr.lines().count(), 1);
    }
    directory.write("agent.yaml", "server: {endpoint: 'ws://h', headers: {Host: elsewhere}}\n");
    let ended = run(directory.path(), &["check", "--config", "agent.yaml"]);
    assert_eq!(ended.code, Some(1), "what the start would refuse");
    assert!(ended.stderr.contains("the header Host is set by the transport"), "{}", ended.stderr);
    for (token, what) in
        [(None, "No such file"), (Some(" \n"), "is empty"), (Some("a\nb"), "more than one line")]
    {
        directory.write("agent.yaml", "server: {endpoint: 'ws://h', bearer_token_file: token}\n");
        token.map(|text| directory.write("token", text));
        let ended = run(directory.path(), &["check", "--config", "agent.yaml"]);
        assert_eq!(ended.code, Some(1));
        assert!(
            ended.stderr.contains("`server.bearer_token_file`: token") && ended.stderr.contains(what),
            "{}",
            ended.stderr
        );
    }
}
