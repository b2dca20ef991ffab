//! The program as its users start it: start-up text, refusals, signals, offline commands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, net::TcpListener, path::Path, process::ExitStatus, time::Instant};

use reference_server::{Config, config::Inputs};
use serde_json::Value;
use support::{Agent, Client, Process, TempDir};

/// Runs a command to its end.
fn run(dir: &Path, arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut process = Process::run(dir, arguments);
    let status = process.ended();
    (status, process.stdout(), process.stderr())
}

/// The error text of a start that is refused.
fn refused(arguments: &[&str]) -> String {
    let dir = TempDir::new();
    let mut process = Process::serve(dir.path(), arguments);
    assert_eq!(process.ended().code(), Some(1), "{}", process.output());
    let error = process.stderr();
    assert!(error.starts_with("reference-server: ") && error.lines().count() == 1, "{error}");
    error
}

#[tokio::test]
async fn it_starts_without_configuration_and_says_how_to_go_on() {
    let dir = TempDir::new();
    let mut server = Process::serve(dir.path(), &[]);
    let (admin, token) = server.started();
    let text = server.stdout();
    let endpoint = server.endpoint();
    assert!(text.contains(&format!("endpoint: {endpoint}\n")), "the snippet has the real endpoint\n{text}");
    for part in ["extensions:\n", "opamp:\n", "service:\n", "curl -H", "not authenticated", "/api/v1/agents"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let client = Client::new(admin, token.as_deref());
    client.get("/api/v1/version").await.expect(200);
    assert_eq!(client.get("/health/live").await.status, 200);
    assert_eq!(client.get("/health/ready").await.status, 200);
    let data = dir.path().join("data");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&data).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
    }
    assert!(data.join("opamp.db").exists());
}

#[tokio::test]
async fn the_admin_token_is_printed_at_the_first_start_only_and_stays_valid() {
    let dir = TempDir::new();
    let mut server = Process::serve(dir.path(), &[]);
    let (_, token) = server.started();
    let token = token.unwrap();
    assert!(reference_server::token::is_well_formed(&token));
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0), "{}", server.output());
    let mut server = Process::serve(dir.path(), &[]);
    let (admin, none) = server.started();
    assert_eq!(none, None);
    assert!(server.stdout().contains("API tokens exist already"));
    Client::new(admin, Some(&token)).get("/api/v1/agents").await.expect(200);
    let database = fs::read(dir.path().join("data/opamp.db")).unwrap();
    assert!(!contains(&database, token.as_bytes()), "the token is stored in clear text");
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn exposing_ports_without_protection_is_refused_with_reason_and_remedy() {
    let text = refused(&["--listen=0.0.0.0:0"]);
    assert!(text.contains("agents are not authenticated") && text.contains("set `opamp.auth`"), "{text}");
    let text = refused(&["--listen=0.0.0.0:0", "--auth=token", "--tokens=a=b"]);
    assert!(text.contains("clear text") && text.contains("`opamp.tls_cert`"), "{text}");
    let text = refused(&["--admin-listen=0.0.0.0:0"]);
    assert!(text.contains("API tokens would cross") && text.contains("`admin.trusted_proxies`"), "{text}");
    let text = refused(&["--admin-listen=0.0.0.0:0", "--admin-trusted-proxies=0.0.0.0/0"]);
    assert!(text.contains("`admin.trusted_proxies`") && text.contains("everybody"), "{text}");
}

#[test]
fn a_configuration_that_is_printed_is_one_that_starts() {
    for wrong in [
        &["--listen=0.0.0.0:0"][..],
        &["--admin-listen=0.0.0.0:0"],
        &["--trusted-proxies=::/0"],
        &["--log-level=loud"],
        &["--tls-cert=cert.pem"],
    ] {
        let dir = TempDir::new();
        let (status, printed, error) = run(dir.path(), &[&["--print-config"], wrong].concat());
        assert!(status.code() == Some(1) && printed.is_empty(), "{wrong:?}: {printed}");
        assert_eq!(error, refused(wrong), "{wrong:?}");
    }
}

#[tokio::test]
async fn single_connections_are_not_logged_whether_they_are_served_or_refused() {
    let dir = TempDir::new();
    let tokens = ["--auth=token", "--tokens=edge=a-good-token"];
    let mut server = Process::serve(dir.path(), &tokens);
    server.started();
    server.wait_for_output("server started");
    let before = server.stderr();
    for number in 1..=3 {
        let agent = Agent::connect_as(&server.endpoint(), number, Some("a-good-token")).await;
        drop(agent.unwrap());
        assert!(Agent::connect_as(&server.endpoint(), number, Some("a-wrong-token")).await.is_none());
    }
    server.signal("TERM");
    assert!(server.ended().success());
    let log = server.stderr();
    let since: Vec<_> = log.strip_prefix(&before).unwrap().lines().collect();
    assert!(
        since.len() == 2 && since[0].contains("shutting down") && since[1].contains("stopped"),
        "{since:?}"
    );
}

#[tokio::test]
async fn a_very_wide_trusted_network_is_warned_of() {
    let dir = TempDir::new();
    let mut server = Process::serve(dir.path(), &["--admin-trusted-proxies=10.0.0.0/7"]);
    server.started();
    assert!(server.stderr().contains("`admin.trusted_proxies` has 10.0.0.0/7"), "{}", server.stderr());
}

#[tokio::test]
async fn with_protection_ports_beyond_loopback_are_served() {
    let dir = TempDir::new();
    let arguments = [
        "--listen=0.0.0.0:0",
        "--auth=token",
        "--tokens=edge=s3cret-agent-token",
        "--trusted-proxies=192.0.2.1",
        "--admin-listen=0.0.0.0:0",
        "--admin-trusted-proxies=192.0.2.0/24",
    ];
    let mut server = Process::serve(dir.path(), &arguments);
    server.wait_for_output("trusted proxies only");
    assert!(server.stdout().contains("endpoint: ws://HOST:"), "{}", server.stdout());
    assert!(server.stdout().contains("Authorization: Bearer ${env:AGENT_TOKEN}"));
    assert!(!server.output().contains("s3cret-agent-token"));

    // Who sets what the text names can start a server in the same shell.
    let text = server.stdout();
    let variables: Vec<_> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert!(variables.contains(&"AGENT_TOKEN") && variables.contains(&"TOKEN"), "{variables:?}");
    let mut inputs = Inputs::default();
    inputs.env = variables.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
    Config::load(&inputs).unwrap();
}

#[test]
fn mistakes_on_the_command_line_and_in_the_environment_are_explained() {
    let text = refused(&["--retry-after=soon"]);
    assert!(text.contains("--retry-after: `opamp.retry_after`: \"soon\" is not a duration"), "{text}");
    let dir = TempDir::new();
    let (status, _, error) = run(dir.path(), &["--listn=127.0.0.1:1"]);
    assert!(status.code() == Some(2) && error.contains("--listen"), "{error}");
    fs::write(dir.path().join("opamp-server.toml"), "[opamp]\nlistne = \"127.0.0.1:1\"\n").unwrap();
    let (status, _, error) = run(dir.path(), &[]);
    assert_eq!(status.code(), Some(1));
    assert!(error.contains("opamp-server.toml:2: unknown key `opamp.listne`"), "{error}");
    let text = refused(&["--log-level=loud"]);
    assert!(text.contains("`log.level` \"loud\" is not a level"), "{text}");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (flag, key) in [("--listen", "opamp.listen"), ("--admin-listen", "admin.listen")] {
        let dir = TempDir::new();
        let argument = format!("{flag}={address}");
        let mut process = Process::run(
            dir.path(),
            &[
                "--store=memory",
                if flag == "--listen" { "--admin-listen=127.0.0.1:0" } else { "--listen=127.0.0.1:0" },
                &argument,
            ],
        );
        assert_eq!(process.ended().code(), Some(1));
        let text = process.stderr();
        assert!(
            text.contains(&format!("cannot listen on {address} (`{key}`): the port is in use")),
            "{text}"
        );
        assert!(!dir.path().join("opamp-data").exists(), "nothing was made");
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_explained() {
    let dir = TempDir::new();
    fs::write(dir.path().join("file"), "").unwrap();
    let (_, _, error) =
        run(dir.path(), &["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--data-dir=file/below"]);
    assert!(
        error.contains("data directory file/below cannot be written") && error.contains("`data_dir`"),
        "{error}"
    );
}

#[test]
fn two_servers_never_share_a_data_directory() {
    let dir = TempDir::new();
    let mut first = Process::serve(dir.path(), &[]);
    first.started();
    let mut second = Process::serve(dir.path(), &[]);
    assert_eq!(second.ended().code(), Some(1));
    assert!(second.stderr().contains("is in use by a running server"), "{}", second.stderr());
    let (status, _, error) = run(dir.path(), &["token", "list", "--data-dir=data"]);
    assert!(!status.success() && error.contains("is in use by a running server"), "{error}");
}

#[tokio::test]
async fn a_signal_closes_sockets_with_1001_and_ends_with_success() {
    for signal in ["TERM", "INT"] {
        let dir = TempDir::new();
        let mut server = Process::serve(dir.path(), &[]);
        server.started();
        let mut agent = Agent::connect(&server.endpoint(), 1).await;
        server.signal(signal);
        assert_eq!(agent.closed().await, Some(1001));
        assert_eq!(server.ended().code(), Some(0), "{}", server.output());
    }
}

/// The agent does not answer the close frame, so the first signal alone would take its time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_whose_log_cannot_be_written_goes_on() {
    let dir = TempDir::new();
    let mut server = Process::serve_without_log(dir.path());
    let (admin, token) = server.started();
    let client = Client::new(admin, token.as_deref());
    // The start is logged, the Self-Agent's connection, and this.
    server.signal("HUP");
    let since = Instant::now();
    while client.get("/api/v1/self").await.expect(200)["verdict"] != "ok" {
        assert!(since.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let dir = TempDir::new();
    let mut server = Process::serve(dir.path(), &["--shutdown-timeout=60s"]);
    server.started();
    let _silent = Agent::connect(&server.endpoint(), 1).await;
    server.signal("TERM");
    server.wait_for_output("shutting down");
    let since = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(1), "{}", server.output());
    assert!(server.stderr().contains("second signal"), "{}", server.output());
    assert!(since.elapsed().as_secs() < 2);
}

#[test]
fn tokens_are_managed_offline() {
    let dir = TempDir::new();
    let (status, made, error) = run(dir.path(), &["token", "create", "--name", "ci", "--role", "operator"]);
    assert!(status.success(), "{error}");
    let token = made.lines().next().unwrap();
    assert!(reference_server::token::is_well_formed(token), "{made}");
    let (_, listed, _) = run(dir.path(), &["token", "list"]);
    assert!(listed.contains("operator") && listed.contains("ci") && listed.contains("valid"), "{listed}");
    assert!(!listed.contains(&token[10..30]));
    let id = listed.split_whitespace().next().unwrap();
    let (status, revoked, _) = run(dir.path(), &["token", "revoke", id]);
    assert!(status.success() && revoked.contains("is revoked"), "{revoked}");
    assert!(run(dir.path(), &["token", "list"]).1.contains("revoked 2"));
    let (status, _, error) = run(dir.path(), &["token", "revoke", "nobody"]);
    assert!(!status.success() && error.contains("no token with id \"nobody\""), "{error}");
    let (status, _, error) = run(dir.path(), &["token", "create", "--name", "x", "--role", "root"]);
    assert!(!status.success() && error.contains("viewer"), "{error}");
    let (status, _, error) = run(dir.path(), &["token", "list", "--store=memory"]);
    assert!(!status.success(), "{error}");
}

#[test]
fn documentation_and_effective_configuration_are_printed() {
    let dir = TempDir::new();
    let (status, docs, _) = run(dir.path(), &["config-docs"]);
    assert!(status.success() && docs == reference_server::config::docs::markdown());
    let (_, config, _) =
        run(dir.path(), &["--print-config", "--auth=token", "--tokens=edge=s3cret-value", "--path=/x"]);
    assert!(
        config.contains("path = \"/x\"") && config.contains("tokens = [\"edge=<redacted>\"]"),
        "{config}"
    );
    assert!(!config.contains("s3cret-value"));
    let (_, version, _) = run(dir.path(), &["version"]);
    assert_eq!(version, format!("reference-server {}\n", env!("CARGO_PKG_VERSION")));
    let (_, document, _) = run(dir.path(), &["openapi"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn logs_are_json_objects_when_asked() {
    let dir = TempDir::new();
    let mut server = Process::serve(dir.path(), &["--log-format=json", "--log-level=debug"]);
    server.started();
    let _agent = Agent::connect(&server.endpoint(), 1).await;
    server.signal("TERM");
    server.ended();
    let text = server.stderr();
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    assert!(
        lines.iter().any(|line| line["message"] == "server started" && line["level"] == "INFO"),
        "{text}"
    );
    assert!(lines.iter().any(|line| line["message"] == "stopped" && line["complete"] == true), "{text}");
}

/// A file on a disk that does not answer holds a thread for ever, which is none of the process's business.
#[cfg(unix)]
#[tokio::test]
async fn a_thread_that_a_file_holds_does_not_keep_the_process_from_ending() {
    let dir = TempDir::new();
    let file = dir.path().join("ca.pem");
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let ca_file = format!("--self-agent-ca-file={}", file.display());
    let arguments = [
        "--self-agent-enabled=true",
        "--self-agent-interval=500ms",
        "--self-agent-timeout=250ms",
        "--self-agent-external-url=wss://127.0.0.1:9/x",
        &ca_file,
    ];
    let mut server = Process::serve(dir.path(), &arguments);
    let (admin, token) = server.started();
    let admin = Client::new(admin, token.as_deref());
    let own = admin.eventually("/api/v1/self", |own| own["probes"]["external"]["state"] == "failed").await;
    assert_eq!(own["probes"]["external"]["last_failure"]["kind"], "local", "{own:#}");
    server.signal("TERM");
    let since = Instant::now();
    assert_eq!(server.ended().code(), Some(0), "{}", server.output());
    assert!(since.elapsed() < Config::default().server.shutdown_timeout, "{:?}", since.elapsed());
}
