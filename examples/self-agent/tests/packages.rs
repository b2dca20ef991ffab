//! Packages, from the key to the file in use, by the program itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use data_encoding::BASE64;
use opamp_proto::pb;
use opamp_proto::pb::PackageStatusEnum::{InstallFailed, Installed, Installing};
use support::{Offerer, Process, Stub, TempDir, ok, package, packages, run};

/// The program of the package, in two versions, and one that does not work.
const FIRST: &str = "#!/bin/sh\necho first\n";
const SECOND: &str = "#!/bin/sh\necho second\n";
const BROKEN: &str = "#!/bin/sh\necho broken >&2\nexit 1\n";

/// A machine with a signing key, an agent that trusts it and runs each package to see whether it works, and a server.
struct Site {
    directory: TempDir,
    server: Offerer,
    files: Stub,
}

impl Site {
    async fn new() -> Self {
        let directory = TempDir::new();
        let made = run(directory.path(), &["make-key", "signing.key"]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let files = Stub::start(|head| {
            let file = head.split(' ').nth(1).unwrap();
            let content = match file {
                "/first" => FIRST,
                "/second" => SECOND,
                "/broken" => BROKEN,
                other => panic!("{other} was never offered"),
            };
            ok("application/octet-stream", content.as_bytes())
        })
        .await;
        let server = Offerer::start().await;
        let check = directory.write("works", "#!/bin/sh\nexec \"$PACKAGE_CURRENT/tool\"\n");
        fs::set_permissions(&check, fs::Permissions::from_mode(0o755)).unwrap();
        directory.write(
            "agent.yaml",
            &format!(
                "\
server:
  endpoint: {}
  heartbeat_interval: 100ms
  retry: {{first_interval: 20ms}}
capabilities:
  accepts_packages: true
  accepts_restart_command: true
packages:
  public_key_files: [signing.key.pub]
  allow_plain_http: true
  file_name: tool
  executable: true
  health_command: [{check}]
storage:
  directory: state
",
                server.url("ws")
            ),
        );
        Self { directory, server, files }
    }

    /// A package as an operator offers it who signs with `self-agent sign`.
    fn signed(&self, name: &str, version: &str, path: &str, content: &str) -> pb::PackageAvailable {
        let file = self.directory.write("to-sign", content);
        let arguments = ["sign", "--key", "signing.key", "--name", name, "--version", version, &*file];
        let signed = run(self.directory.path(), &arguments);
        assert_eq!(signed.code, Some(0), "{}", signed.stderr);
        let line =
            |key: &str| signed.stdout.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let signature = BASE64.decode(line("signature ").as_bytes()).unwrap();
        let offered = package(&self.url(path), version, content.as_bytes(), &signature);
        let hash = opamp_proto::ConfigHash::new(offered.file.as_ref().unwrap().content_hash.clone());
        assert_eq!(line("sha256 "), hash.to_hex());
        offered
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.files.address)
    }

    /// What is in use of the only package.
    fn in_use(&self) -> String {
        let mut folders = fs::read_dir(self.directory.path().join("state/packages/packages")).unwrap();
        let folder: PathBuf = folders.next().unwrap().unwrap().path();
        assert!(folders.next().is_none());
        fs::read_to_string(folder.join("current/tool")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_package_is_installed_upgraded_taken_back_if_it_does_not_work_and_kept_over_restarts() {
    let site = Site::new().await;
    let mut process = Process::start(&site.directory);
    let uid = process.uid().await;
    site.server.connected(uid).await;
    let first = site.signed("tool", "1", "/first", FIRST);
    let statuses = site.server.offer_packages(uid, 1, &[("tool", first)]).await;
    assert_eq!(statuses.packages["tool"].status(), Installed, "{statuses:?}");
    assert_eq!(site.in_use(), FIRST);

    let second = site.signed("tool", "2", "/second", SECOND);
    let statuses = site.server.offer_packages(uid, 2, &[("tool", second)]).await;
    assert_eq!(statuses.packages["tool"].agent_has_version, "2");
    assert_eq!(site.in_use(), SECOND);

    let broken = site.signed("tool", "3", "/broken", BROKEN);
    let statuses = site.server.offer_packages(uid, 3, &[("tool", broken)]).await;
    let tool = &statuses.packages["tool"];
    assert_eq!((tool.status(), tool.agent_has_version.as_str()), (InstallFailed, "2"));
    assert!(tool.error_message.contains("broken"), "{}", tool.error_message);
    assert_eq!(site.in_use(), SECOND);

    // By command, and as a process.
    let before = site.files.requests().len();
    site.server.handle().restart_agent(&uid).unwrap();
    process.logs_times(&[" started"], 2).await;
    process.stop().await;
    let connects = site.server.handle().agent(&uid).unwrap().sticky.connects;
    let mut again = Process::start(&site.directory);
    assert_eq!(again.uid().await, uid);
    let told =
        |agent: &opamp_server::AgentSnapshot| agent.sticky.connects > connects && packages(agent) == statuses;
    site.server.sees(uid, "the same is told", told).await;
    assert_eq!(site.files.requests().len(), before, "nothing is fetched again");
    assert_eq!(site.in_use(), SECOND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_key_has_not_signed_is_not_installed() {
    let site = Site::new().await;
    let mut process = Process::start(&site.directory);
    let uid = process.uid().await;
    site.server.connected(uid).await;
    let other_name = site.signed("other", "1", "/first", FIRST);
    let mut other_version = site.signed("tool", "1", "/first", FIRST);
    other_version.version = "2".into();
    let mut unsigned = site.signed("tool", "1", "/first", FIRST);
    unsigned.file.as_mut().unwrap().signature = Default::default();
    for (generation, offered) in [other_name, other_version, unsigned].into_iter().enumerate() {
        let statuses = site.server.offer_packages(uid, generation as u64 + 1, &[("tool", offered)]).await;
        let tool = &statuses.packages["tool"];
        assert_eq!((tool.status(), tool.agent_has_version.as_str()), (InstallFailed, ""), "R-SEC-10");
        assert!(tool.error_message.contains("sign"), "{}", tool.error_message);
    }
    assert!(site.files.requests().is_empty());
    assert!(!site.directory.path().join("state/packages/packages").read_dir().unwrap().any(|_| true));
}

/// A restart command while a version is tried; putting the one before back into use takes longer than the goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_waits_until_an_installation_is_taken_back_however_long_its_commands_take() {
    let site = Site::new().await;
    let program = |name: &str, text: &str| {
        let path = site
            .directory
            .write(name, &format!("#!/bin/sh\ncd '{}'\n{text}", site.directory.path().display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let check = program("hangs", "[ $PACKAGE_VERSION = 2 ] || exit 0\n: > checking\nexec sleep 1000\n");
    let activate = program(
        "activate",
        "[ $PACKAGE_VERSION = 1 ] && [ -e checking ] || exit 0\nwhile [ ! -e go ]; do sleep 0.01; done\n",
    );
    let file = site.directory.path().join("agent.yaml");
    let works = format!("health_command: [{}]", site.directory.path().join("works").display());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&works), "{text}");
    let commands = format!("health_command: [{check}]\n  activate_command: [{activate}]");
    let text = text.replace(&works, &commands).replace("server:\n", "server:\n  timeouts: {stop: 100ms}\n");
    site.directory.write("agent.yaml", &text);
    let mut process = Process::start(&site.directory);
    let uid = process.uid().await;
    site.server.connected(uid).await;
    let first = site.signed("tool", "1", "/first", FIRST);
    site.server.offer_packages(uid, 1, &[("tool", first)]).await;
    let second = site.signed("tool", "2", "/second", SECOND);
    site.server.begin_packages(uid, 2, &[("tool", second)]);
    let installing = |agent: &opamp_server::AgentSnapshot| {
        packages(agent).packages.get("tool").is_some_and(|tool| tool.status() == Installing)
            && site.directory.path().join("checking").exists()
    };
    site.server.sees(uid, "the second is tried", installing).await;
    site.server.handle().restart_agent(&uid).unwrap();
    process.logs("waiting for that before starting anew").await;
    assert_eq!(process.lines(&[" started"]), 1);
    site.directory.write("go", "");
    process.logs_times(&[" started"], 2).await;
    process.stop().await;
}

#[test]
fn keys_are_private_and_never_replaced() {
    let directory = TempDir::new();
    let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(run(directory.path(), &["make-key", "k"]).code, Some(0));
    assert_eq!((mode("k"), mode("k.pub")), (0o600, 0o644));
    let before = fs::read(directory.path().join("k")).unwrap();
    let again = run(directory.path(), &["make-key", "k"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("k.pub"), "{}", again.stderr);
    assert_eq!(fs::read(directory.path().join("k")).unwrap(), before);
    fs::remove_file(directory.path().join("k.pub")).unwrap();
    assert_eq!(run(directory.path(), &["make-key", "k"]).code, Some(1));
    assert_eq!(fs::read(directory.path().join("k")).unwrap(), before);
    assert!(!directory.path().join("k.pub").exists(), "a public key without its private one");
}

#[test]
fn what_cannot_sign_says_so() {
    let directory = TempDir::new();
    directory.write("file", "content");
    run(directory.path(), &["make-key", "k"]);
    for (key, file, word) in [
        ("k.pub", "file", "not a private Ed25519 key"),
        ("missing", "file", "missing"),
        ("k", "gone", "gone"),
    ] {
        let ended = run(directory.path(), &["sign", "--key", key, "--version", "1", file]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn a_check_reads_the_keys() {
    let directory = TempDir::new();
    directory.write("no.pub", "no key");
    directory.write(
        "agent.yaml",
        "server: {endpoint: 'ws://h'}\ncapabilities: {accepts_packages: true}\npackages: {public_key_files: [no.pub]}\n",
    );
    let ended = run(directory.path(), &["check", "--config", "agent.yaml"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("no.pub: not an Ed25519 public key"), "{}", ended.stderr);
}
