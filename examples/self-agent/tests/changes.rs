//! What changes under an agent: its configuration file, its certificates, what it kept from before.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use opamp_proto::pb::RemoteConfigStatuses::Applied;
use opamp_server::AgentSnapshot;
use opamp_testkit::certs::Authority;
use support::{Process, TempDir, TestServer, attribute, config_status, description, effective, health, yaml};

async fn start(server: &TestServer, rest: &str) -> (TempDir, Process) {
    let directory = TempDir::new();
    directory.write("agent.yaml", &yaml(&server.url("ws"), "", rest));
    let process = Process::start(&directory);
    (directory, process)
}

fn team(agent: &AgentSnapshot) -> Option<String> {
    attribute(&description(agent).non_identifying_attributes, "team")
}

const RED: &str = "agent: {description: {non_identifying_attributes: {team: red}}}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_at_a_restart_leaves_the_previous_configuration_in_force() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, RED).await;
    let uid = process.uid().await;
    let before = server.sees(uid, "the first report", |agent| health(agent).healthy).await;
    directory.write("agent.yaml", "server:\n  endpoint: ws://h\n  colour: blue\n");
    server.handle().restart_agent(&uid).unwrap();
    let complaint = "agent.yaml:3:3: unknown key `server.colour`";
    let seen = server
        .sees(uid, "it restarted and complains", |agent| {
            agent.sticky.start_time_changes == 1 && health(agent).last_error.contains(complaint)
        })
        .await;
    assert_eq!(health(&seen).last_error, format!("configuration: {complaint}"));
    assert_eq!(team(&seen).as_deref(), Some("red"), "as before");
    assert!(health(&seen).start_time_unix_nano > health(&before).start_time_unix_nano);
    let said = ["ERROR", "the previous configuration stays in force", complaint];
    assert_eq!(process.lines(&said), 1, "{}", process.log());
    // Mended, and read again.
    directory.write("agent.yaml", &yaml(&server.url("ws"), "", &RED.replace("red", "green")));
    server.handle().restart_agent(&uid).unwrap();
    let mended = |agent: &AgentSnapshot| health(agent).healthy && team(agent).as_deref() == Some("green");
    server.sees(uid, "mended", mended).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_only_starting_refuses_leaves_the_previous_configuration_in_force() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, RED).await;
    let uid = process.uid().await;
    server.sees(uid, "the first report", |agent| health(agent).healthy).await;
    let file = directory.write("file", "");
    for (change, complaint) in [
        (yaml(&server.url("ws"), "headers: {Content-Type: x}", RED), "is set by the transport"),
        (
            yaml(&server.url("ws"), "", RED).replace("directory: state", &format!("directory: {file}/x")),
            "file/x cannot be written",
        ),
        (yaml(&server.url("ws"), "tls: {ca_file: none.pem}", RED), "`server.tls.ca_file`: none.pem"),
    ] {
        directory.write("agent.yaml", &change);
        server.handle().restart_agent(&uid).unwrap();
        let seen = server.sees(uid, complaint, |agent| health(agent).last_error.contains(complaint)).await;
        assert!(health(&seen).last_error.starts_with("configuration: "));
        assert_eq!(team(&seen).as_deref(), Some("red"), "as before");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_reads_the_file_again() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, RED).await;
    let uid = process.uid().await;
    server.sees(uid, "the first report", |agent| health(agent).healthy).await;

    process.signal("HUP");
    let again = server.sees(uid, "it connected anew", |agent| agent.sticky.connects == 2).await;
    assert_eq!(again.sticky.start_time_changes, 0, "nothing has changed, so nothing starts anew");

    directory.write("agent.yaml", "server: [\n");
    process.signal("HUP");
    let seen = server.sees(uid, "it complains", |agent| !health(agent).healthy).await;
    assert!(health(&seen).last_error.starts_with("configuration: agent.yaml:"), "{:?}", health(&seen));
    assert_eq!((seen.sticky.connects, seen.sticky.start_time_changes), (2, 0), "it goes on as it was");

    directory.write("agent.yaml", &yaml(&server.url("ws"), "", &RED.replace("red", "green")));
    process.signal("HUP");
    let changed = |agent: &AgentSnapshot| team(agent).as_deref() == Some("green") && health(agent).healthy;
    let seen = server.sees(uid, "the new file is in force", changed).await;
    assert_eq!(seen.sticky.start_time_changes, 1);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_used_after_a_hangup() {
    let (directory, authority) = (TempDir::new(), Authority::new("ca"));
    let identity = authority.server(&["127.0.0.1"]);
    directory.write("ca.pem", &authority.pem());
    let server = TestServer::with_mutual_tls(&identity, &authority).await;
    let rotate = |authority: &Authority| {
        let client = authority.client("edge", &[]);
        directory.write("agent.pem", &client.cert_pem);
        directory.write("agent.key", &client.key_pem);
    };
    rotate(&authority);
    let tls = "tls: {ca_file: ca.pem, cert_file: agent.pem, key_file: agent.key}";
    directory.write("agent.yaml", &yaml(&server.url("wss"), tls, ""));
    let mut process = Process::start(&directory);
    let uid = process.uid().await;
    let seen = server.sees(uid, "the first certificate", |agent| agent.connection.is_some()).await;
    assert!(health(&seen).component_health_map["credentials"].healthy);
    // From here on the old one is of no use.
    let successor = Authority::new("successor");
    server.tls.as_ref().unwrap().replace(successor.mutual_server_config(&identity, true));
    rotate(&successor);
    process.signal("HUP");
    server.sees(uid, "connected anew", |agent| agent.sticky.connects == 2).await;
    directory.write("agent.pem", "half of a cert");
    let unusable = |agent: &AgentSnapshot| {
        health(agent).last_error.starts_with("credentials: agent.yaml:")
            && health(agent)
                .last_error
                .contains("`server.tls.cert_file`: agent.pem: no certificate in PEM form")
    };
    server.sees(uid, "half of a rotation", unusable).await;
    rotate(&successor);
    server.sees(uid, "the other half", |agent| health(agent).healthy).await;
    fs::remove_file(directory.path().join("agent.key")).unwrap();
    let unreadable = |agent: &AgentSnapshot| {
        health(agent).last_error.starts_with("credentials: agent.key cannot be read: ")
    };
    server.sees(uid, "a file is missing", unreadable).await;
    process.stop().await;
    assert!(!process.log().contains("PRIVATE"), "{}", process.log());
}

/// The file in the storage directory is gone or was changed by hand, while the state says that it was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_configuration_that_is_not_there_any_more_is_fetched_again() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, "").await;
    let uid = process.uid().await;
    server.assign(uid, "team", RED).await;
    let red =
        |agent: &AgentSnapshot| config_status(agent).0 == Applied && team(agent).as_deref() == Some("red");
    server.sees(uid, "applied", red).await;
    for (round, change) in [(2, None), (3, Some("nonsense")), (4, Some("# hash 01\nserver: {}\n"))] {
        process.stop().await;
        let file = directory.path().join("state/remote-config.yaml");
        match change {
            None => fs::remove_file(&file).unwrap(),
            Some(text) => fs::write(&file, text).unwrap(),
        }
        process = Process::start(&directory);
        process.logs("is in force").await;
        let seen = server
            .sees(uid, "applied again", |agent| {
                red(agent) && agent.sticky.connects == round && health(agent).healthy
            })
            .await;
        assert!(effective(&seen).contains("team: red"));
        let said =
            process.lines(&["WARN", "the agent runs by its file alone until the server sends it again"]);
        assert_eq!(said, usize::from(change.is_some()), "{}", process.log());
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_remote_configuration_is_still_known_as_failed_after_a_restart() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, "").await;
    let uid = process.uid().await;
    server.assign(uid, "bad", "server: {endpoint: 'ws://elsewhere'}").await;
    let failed = |agent: &AgentSnapshot| {
        health(agent).last_error.starts_with("remote_config: line 1, column 1: `server` cannot")
    };
    server.sees(uid, "failed", failed).await;
    process.stop().await;
    let mut again = Process::start(&directory);
    again.uid().await;
    server.sees(uid, "still", |agent| agent.sticky.connects == 2 && failed(agent)).await;
    again.stop().await;
    assert_eq!(again.lines(&["is refused"]), 0, "not tried again: {}", again.log());
}

/// A crash between keeping a configuration and saving that it was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_configuration_that_was_kept_is_applied_whatever_else_was_saved() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, "").await;
    let uid = process.uid().await;
    server.assign(uid, "team", RED).await;
    let red =
        |agent: &AgentSnapshot| config_status(agent).0 == Applied && team(agent).as_deref() == Some("red");
    server.sees(uid, "applied", red).await;
    let applied = "config-status applied\nconfig-attempts 0\nconfig-error \n";
    for (round, (status, attempts)) in (2..).zip([("applying", 1), ("applying", 3), ("failed", 0)]) {
        process.stop().await;
        let saved = process.stored("opamp-state");
        assert!(saved.contains(applied), "{saved}");
        let interrupted = format!("config-status {status}\nconfig-attempts {attempts}\nconfig-error \n");
        directory.write("state/opamp-state", &saved.replace(applied, &interrupted));
        process = Process::start(&directory);
        let seen = server
            .sees(uid, "it is back", |agent| agent.sticky.connects == round && health(agent).healthy)
            .await;
        assert!(red(&seen), "{status}: {seen:#?}");
        assert!(health(&seen).component_health_map["remote_config"].healthy);
        // Long enough for an offer, if the server had reason to make one.
        server.sees(uid, "heartbeats", |agent| agent.sequence_num.0 > seen.sequence_num.0 + 3).await;
        assert_eq!(process.lines(&["is in force"]), 0, "{}", process.log());
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_configuration_kept_from_before_is_not_used_once_it_is_switched_off() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, "").await;
    let uid = process.uid().await;
    server.assign(uid, "team", RED).await;
    server.sees(uid, "applied", |agent| team(agent).as_deref() == Some("red")).await;
    process.stop().await;
    let off = yaml(&server.url("ws"), "", "")
        .replace("accepts_remote_config: true", "accepts_remote_config: false");
    directory.write("agent.yaml", &off);
    let mut again = Process::start(&directory);
    again.logs("is not used: remote configuration is off").await;
    let seen = server
        .sees(uid, "as the file says", |agent| agent.sticky.connects == 2 && team(agent).is_none())
        .await;
    assert_eq!(seen.capabilities.bits() & 0x2, 0);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_does_not_inherit_the_remote_configuration_of_the_one_before() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, RED).await;
    let uid = process.uid().await;
    let config = "agent: {description: {non_identifying_attributes: {ring: canary}}}";
    server.assign(uid, "ring", config).await;
    let ring = |agent: &AgentSnapshot| attribute(&description(agent).non_identifying_attributes, "ring");
    server.sees(uid, "it is in force", |agent| ring(agent).as_deref() == Some("canary")).await;
    process.stop().await;
    fs::remove_file(directory.path().join("state/opamp-state")).unwrap();
    let mut successor = Process::start(&directory);
    let another = successor.uid().await;
    assert_ne!(another, uid);
    let seen = server.sees(another, "the first report", |agent| health(agent).healthy).await;
    assert_eq!(ring(&seen), None);
    assert!(!directory.path().join("state/remote-config.yaml").exists());
    successor.stop().await;
}
