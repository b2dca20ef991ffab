//! The agent as a program: signals, exit codes, log, and what it does with its directory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use opamp_proto::pb::RemoteConfigStatuses::Applied;
use opamp_server::{AgentSnapshot, DisconnectReason, Liveness};
use support::{Process, Stub, TempDir, TestServer, config_status, health, run, until, yaml};

async fn start(server: &TestServer, rest: &str) -> (TempDir, Process) {
    let directory = TempDir::new();
    directory.write("agent.yaml", &yaml(&server.url("ws"), "", rest));
    let process = Process::start(&directory);
    (directory, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_says_goodbye_and_ends_with_success() {
    let server = TestServer::start().await;
    for signal in ["INT", "TERM"] {
        let (_directory, mut process) = start(&server, "").await;
        let uid = process.uid().await;
        server.sees(uid, "connected", |agent| agent.liveness == Liveness::Connected).await;
        process.signal(signal);
        assert_eq!(process.ended().await.code(), Some(0), "{}", process.log());
        let gone = server.sees(uid, "gone", |agent| agent.liveness == Liveness::Disconnected).await;
        assert_eq!(gone.disconnect.unwrap().0, DisconnectReason::Graceful);
    }
}

/// The server takes the connection and is silent, so the first signal alone would take its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let directory = TempDir::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/opamp", silent.local_addr().unwrap());
    directory.write("agent.yaml", &yaml(&url, "timeouts: {stop: 60s}", ""));
    let mut process = Process::start(&directory);
    let _held = silent.accept().await.unwrap();
    process.signal("TERM");
    process.signal("TERM");
    process.logs("saying goodbye").await;
    assert!(!process.log().contains("second signal"), "at the same time they are one: {}", process.log());
    let since = Instant::now();
    while !process.log().contains("second signal, leaving at once") {
        assert!(since.elapsed().as_secs() < 20, "{}", process.log());
        process.signal("INT");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(process.ended().await.code(), Some(1), "{}", process.log());
}

#[test]
fn mistakes_on_the_command_line_and_in_the_file_have_exit_codes_of_their_own() {
    let directory = TempDir::new();
    let ended = run(directory.path(), &["--confg", "x"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--config"), "{}", ended.stderr);
    let ended = run(directory.path(), &["--config", "none.yaml"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("self-agent: none.yaml: cannot be read: "), "{}", ended.stderr);
    let ended = run(directory.path(), &["--version"]);
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("self-agent {}\n", env!("CARGO_PKG_VERSION"))));
    let help = run(directory.path(), &["--help"]).stdout;
    assert!(help.contains("check") && help.contains("HUP reads the configuration"), "{help}");
    let docs = run(directory.path(), &["config-docs"]).stdout;
    assert_eq!(docs, self_agent::config::docs::markdown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_as_root_is_warned_of_once() {
    let server = TestServer::start().await;
    let (_directory, mut process) = start(&server, "").await;
    process.logs("connected to").await;
    process.stop().await;
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    assert_eq!(process.lines(&["WARN", "running as root"]), usize::from(root), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_in_plain_text_beyond_this_machine_are_warned_of_once() {
    let header = "headers: {Authorization: Bearer hunter2}";
    for (endpoint, server, times) in [
        ("ws://opamp.invalid/x?key=hunter2", header, 1),
        ("http://192.0.2.1", "bearer_token_file: agent.yaml", 1),
        ("ws://opamp.invalid", "", 0),
        ("wss://opamp.invalid", header, 0),
        ("ws://localhost:1", header, 0),
        ("http://127.0.0.1:1", header, 0),
        ("http://[::1]:1", &format!("{header}\nfallback_endpoints: ['ws://127.0.0.2:1']"), 0),
        ("http://[::1]:1", &format!("{header}\nfallback_endpoints: ['ws://opamp.invalid']"), 1),
    ] {
        let directory = TempDir::new();
        directory.write("agent.yaml", &yaml(endpoint, server, ""));
        let mut process = Process::start(&directory);
        process.uid().await;
        assert_eq!(process.lines(&["WARN", " in plain text"]), times, "{endpoint}: {}", process.log());
        assert!(!process.log().contains("hunter2"), "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_for_the_owner_alone() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, "").await;
    let uid = process.uid().await;
    server.assign(uid, "any", "health: {interval: 1s}").await;
    server.sees(uid, "applied", |agent| config_status(agent).0 == Applied).await;
    process.stop().await;
    let state = directory.path().join("state");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["opamp-state", "opamp-state.lock", "remote-config.yaml"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_never_share_a_storage_directory() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, "").await;
    process.uid().await;
    let second = run(directory.path(), &["--config", "agent.yaml"]);
    assert_eq!(second.code, Some(1));
    assert!(
        second.stderr.contains(
            "storage directory state is in use by another agent; stop that one, or set `storage.directory`"
        ),
        "{}",
        second.stderr
    );
    process.stop().await;
    let mut again = Process::start(&directory);
    again.uid().await;
    again.stop().await;
}

#[test]
fn a_storage_directory_or_state_that_cannot_be_used_is_explained() {
    let directory = TempDir::new();
    let file = directory.write("file", "");
    directory.write(
        "agent.yaml",
        &yaml("ws://127.0.0.1:1", "", "").replace("directory: state", &format!("directory: {file}/below")),
    );
    let ended = run(directory.path(), &["--config", "agent.yaml"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("/file/below cannot be written: ")
            && ended.stderr.contains("set `storage.directory`"),
        "{}",
        ended.stderr
    );
    fs::create_dir(directory.path().join("state")).unwrap();
    directory.write("state/opamp-state", "nonsense\n");
    directory.write("agent.yaml", &yaml("ws://127.0.0.1:1", "", ""));
    let ended = run(directory.path(), &["--config", "agent.yaml"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("state/opamp-state: not a saved agent state")
            && ended.stderr.contains("remove it to start as a new agent"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_directory_that_is_lost_shows_in_health_until_it_is_back() {
    let server = TestServer::start().await;
    let (directory, mut process) = start(&server, "").await;
    let uid = process.uid().await;
    server.sees(uid, "well", |agent| health(agent).healthy).await;
    let (state, away) = (directory.path().join("state"), directory.path().join("away"));
    fs::rename(&state, &away).unwrap();
    let seen = server.sees(uid, "unwell", |agent| !health(agent).healthy).await;
    let health_now = health(&seen);
    assert!(health_now.last_error.starts_with("storage: state cannot be written: "), "{health_now:?}");
    assert!(!health_now.component_health_map["storage"].healthy);
    assert!(health_now.component_health_map["configuration"].healthy);
    assert_eq!(health_now.status, "running");
    // What cannot be kept is not put in force.
    server.assign(uid, "any", "health: {interval: 1s}").await;
    let refused =
        |agent: &AgentSnapshot| config_status(agent).1.contains("the configuration cannot be kept in state");
    server.sees(uid, "refused", refused).await;
    fs::rename(&away, &state).unwrap();
    let mended = |agent: &AgentSnapshot| health(agent).component_health_map["storage"].healthy;
    let seen = server.sees(uid, "mended", mended).await;
    assert!(health(&seen).last_error.starts_with("remote_config: "), "that one is still refused");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_is_read_for_each_connection() {
    let stub = Stub::start(|_| b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let directory = TempDir::new();
    directory.write("token", "first-hunter2\n");
    directory.write("agent.yaml", &yaml(&stub.url("http"), "bearer_token_file: token", ""));
    let mut process = Process::start(&directory);
    let shown = |token: &str| {
        stub.requests().iter().any(|head| head.contains(&format!("authorization: Bearer {token}\r\n")))
    };
    until("the first token", || shown("first-hunter2")).await;
    directory.write("token", "second-hunter2\n");
    until("the second token", || shown("second-hunter2")).await;
    fs::remove_file(directory.path().join("token")).unwrap();
    process.logs("local: no token for the server: token: No such file").await;
    process.stop().await;
    assert!(!process.log().contains("hunter2"), "{}", process.log());
}

/// Its log may be read by something that ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_log_nobody_reads_goes_on() {
    let server = TestServer::start().await;
    let (_directory, mut process) = start(&server, "").await;
    let uid = process.uid().await;
    server.sees(uid, "connected", |agent| agent.liveness == Liveness::Connected).await;
    process.stop_reading();
    // Each of these logs something.
    server.handle().restart_agent(&uid).unwrap();
    server.sees(uid, "started anew", |agent| agent.sticky.start_time_changes == 1).await;
    process.signal("HUP");
    server.sees(uid, "connected anew", |agent| agent.sticky.connects == 3).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let gone = server.sees(uid, "gone", |agent| agent.liveness == Liveness::Disconnected).await;
    assert_eq!(gone.disconnect.unwrap().0, DisconnectReason::Graceful);
}
