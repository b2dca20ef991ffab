//! The effects of what is about offers: packages, connection settings, own metrics.

use std::os::unix::fs::PermissionsExt as _;

use opamp_proto::{InstanceUid, pb};
use opamp_testkit::certs::Authority;

use crate::support::{Offerer, Process, Stub, TempDir, ok, package, packages, until};
use crate::{one_bit, start_in, try_load};

const UNSIGNED: (&str, &str) = ("packages.allow_unsigned", "true");
const ON: (&str, &str) = ("capabilities.accepts_packages", "true");
const PLAIN: (&str, &str) = ("packages.allow_plain_http", "true");
const CONTENT: &[u8] = b"#!/bin/sh\nexit 0\n";

/// A server that has the file.
async fn files() -> Stub {
    Stub::start(|_| ok("application/octet-stream", CONTENT)).await
}

fn script(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.write(name, &format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// An agent with these keys that was offered the file as package `x`, and what became of it.
async fn installed(keys: &[(&str, &str)]) -> (TempDir, pb::PackageStatus) {
    let directory = TempDir::new();
    let status = installed_in(&directory, keys).await;
    (directory, status)
}

async fn installed_in(directory: &TempDir, keys: &[(&str, &str)]) -> pb::PackageStatus {
    let (server, files) = (Offerer::start().await, files().await);
    let url = server.url("ws");
    let mut process = start_in(directory, &[&[("server.endpoint", &*url), ON], keys].concat(), &[]);
    let uid = process.uid().await;
    server.connected(uid).await;
    let offered = package(&files.url("http"), "1", CONTENT, b"");
    let mut statuses = server.offer_packages(uid, 1, &[("x", offered)]).await;
    process.stop().await;
    statuses.packages.remove("x").unwrap()
}

fn is_installed(status: &pb::PackageStatus) -> bool {
    status.status() == pb::PackageStatusEnum::Installed
}

/// The file of package `x`, wherever packages are.
fn file(directory: &TempDir, packages: &str, name: &str) -> std::path::PathBuf {
    let folder = directory.path().join(packages).join("packages");
    let mut all = std::fs::read_dir(folder).unwrap();
    all.next().unwrap().unwrap().path().join("current").join(name)
}

pub(crate) async fn switched_on(key: &str) {
    match key {
        "capabilities.accepts_packages" | "capabilities.reports_package_statuses" => {
            assert!(try_load(&[("server.endpoint", "ws://h"), ON]).unwrap_err().contains("whose packages"));
            let with = crate::bits(&[ON, UNSIGNED]).await;
            assert_eq!(with ^ crate::bits(&[]).await, 0x18);
            let error = try_load(&[("server.endpoint", "ws://h"), (key, "true")]).unwrap_err();
            assert!(key.contains("accepts") || error.contains("contradicts"), "{error}");
        }
        "capabilities.accepts_opamp_connection_settings" => one_bit(key, "true", 0x8100).await,
        "capabilities.reports_own_metrics" => one_bit(key, "true", 0x8040).await,
        "capabilities.reports_available_components" => one_bit(key, "true", 0x4000).await,
        "capabilities.diagnostics" => {
            let announced = crate::seen(&[(key, "true")]).await.custom_capabilities();
            assert_eq!(announced, [self_agent::diagnostics::CAPABILITY]);
            assert!(crate::seen(&[]).await.custom_capabilities().is_empty());
        }
        other => panic!("nothing shows that {other} has an effect"),
    }
}

pub(crate) async fn package_key(key: &str) {
    match key {
        "packages.public_key_files" => {
            // No unsigned package gets in.
            let directory = TempDir::new();
            self_agent::sign::make_key(&directory.path().join("key")).unwrap();
            let status = installed_in(&directory, &[(key, "[key.pub]"), PLAIN]).await;
            assert!(status.error_message.contains("not signed"), "{status:?}");
        }
        "packages.allow_unsigned" => assert!(is_installed(&installed(&[UNSIGNED, PLAIN]).await.1)),
        "packages.allow_plain_http" => {
            let status = installed(&[UNSIGNED]).await.1;
            assert!(status.error_message.contains("no TLS"), "{status:?}");
        }
        "packages.directory" | "packages.file_name" | "packages.executable" => {
            let keys = [
                ("packages.directory", "elsewhere"),
                ("packages.file_name", "tool"),
                ("packages.executable", "true"),
            ];
            let (directory, _) = installed(&[&[UNSIGNED, PLAIN], &keys[..]].concat()).await;
            let mode = std::fs::metadata(file(&directory, "elsewhere", "tool")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
            let (directory, _) = installed(&[UNSIGNED, PLAIN]).await;
            let mode = std::fs::metadata(file(&directory, "state/packages", "package"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o644);
        }
        "packages.file_bytes_max" => {
            let status = installed(&[UNSIGNED, PLAIN, (key, "10")]).await.1;
            assert!(status.error_message.contains("takes 10 at most"), "{status:?}");
        }
        "packages.download_timeout" => {
            let silent = Stub::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec()).await;
            let (server, directory) = (Offerer::start().await, TempDir::new());
            let url = server.url("ws");
            let keys = [("server.endpoint", &*url), ON, UNSIGNED, PLAIN, (key, "200ms")];
            let mut process = start_in(&directory, &keys, &[]);
            let uid = process.uid().await;
            server.connected(uid).await;
            let statuses = server
                .offer_packages(uid, 1, &[("x", package(&silent.url("http"), "1", CONTENT, b""))])
                .await;
            let why = &statuses.packages["x"].error_message;
            assert!(why.contains("download did not end within"), "{why}");
        }
        "packages.activate_command" | "packages.deactivate_command" => commands().await,
        "packages.health_command" => {
            let directory = TempDir::new();
            let sick = script(&directory, "sick", "echo it has a cold >&2; exit 3");
            let status = installed_in(&directory, &[UNSIGNED, PLAIN, (key, &format!("[{sick}]"))]).await;
            let why = &status.error_message;
            assert!(
                why.contains("the health check failed: sick ended with exit status: 3: it has a cold"),
                "{why}"
            );
        }
        "packages.command_timeout" => {
            let directory = TempDir::new();
            let slow = script(&directory, "slow", "exec sleep 600");
            let keys = [UNSIGNED, PLAIN, ("packages.health_command", &*format!("[{slow}]")), (key, "100ms")];
            let status = installed_in(&directory, &keys).await;
            assert!(status.error_message.contains("did not end within"), "{status:?}");
        }
        other => panic!("nothing shows that {other} has an effect"),
    }
}

async fn commands() {
    let (server, files, directory) = (Offerer::start().await, files().await, TempDir::new());
    let notes = directory.path().join("notes");
    let say = format!(
        "echo \"$1 $PACKAGE_NAME $PACKAGE_VERSION $(cat \"$PACKAGE_CURRENT/package\" | wc -c)$SECRET\" >> {}",
        notes.display()
    );
    let say = script(&directory, "say", &say);
    let (on, off) = (format!("[{say}, on]"), format!("[{say}, off]"));
    let url = server.url("ws");
    let keys = [
        ("server.endpoint", &*url),
        ON,
        UNSIGNED,
        PLAIN,
        ("packages.activate_command", &on),
        ("packages.deactivate_command", &off),
    ];
    let mut process = start_in(&directory, &keys, &[("SECRET", "of the agent alone")]);
    let uid = process.uid().await;
    server.connected(uid).await;
    server.offer_packages(uid, 1, &[("x", package(&files.url("http"), "1", CONTENT, b""))]).await;
    server.begin_packages(uid, 2, &[]);
    server.sees(uid, "it is gone", |agent| packages(agent).packages.is_empty()).await;
    let length = CONTENT.len();
    assert_eq!(std::fs::read_to_string(notes).unwrap(), format!("on x 1 {length}\noff x 1 {length}\n"));
}

fn destination(endpoint: &str, tls: Option<pb::TlsConnectionSettings>) -> pb::TelemetryConnectionSettings {
    pb::TelemetryConnectionSettings { destination_endpoint: endpoint.to_owned(), tls, ..Default::default() }
}

/// What an agent with these keys makes of a destination for its metrics.
async fn destined(keys: &[(&str, &str)], own_metrics: pb::TelemetryConnectionSettings) -> Result<(), String> {
    let (directory, authority) = (TempDir::new(), Authority::new("ca"));
    let ca = directory.write("ca.pem", &authority.pem());
    let server = Offerer::start().await;
    let url = server.url("ws");
    let base = [
        ("server.endpoint", &*url),
        ("server.tls.ca_file", &*ca),
        ("capabilities.reports_own_metrics", "true"),
    ];
    let mut process = start_in(&directory, &[&base[..], keys].concat(), &[]);
    let uid = process.uid().await;
    server.connected(uid).await;
    server.offer_metrics(uid, 1, own_metrics).await
}

pub(crate) async fn permission(key: &str) {
    match key {
        "offers.allow_plaintext_telemetry" => {
            let elsewhere = || destination("http://192.0.2.1:4318/v1/metrics", None);
            let why = destined(&[], elsewhere()).await.unwrap_err();
            assert!(why.contains("no TLS"), "{why}");
            destined(&[(key, "true")], elsewhere()).await.unwrap();
        }
        "offers.allow_insecure_skip_verify" => {
            let unverified = || {
                let tls = pb::TlsConnectionSettings { insecure_skip_verify: true, ..Default::default() };
                destination("https://127.0.0.1:1/v1/metrics", Some(tls))
            };
            let why = destined(&[], unverified()).await.unwrap_err();
            assert!(why.contains("insecure_skip_verify"), "{why}");
            destined(&[(key, "true")], unverified()).await.unwrap();
        }
        "offers.allow_older_tls" => {
            let older = || {
                let tls = pb::TlsConnectionSettings { min_version: "1.2".into(), ..Default::default() };
                destination("https://127.0.0.1:1/v1/metrics", Some(tls))
            };
            let newest = ("server.tls.min_version", "1.3");
            let why = destined(&[newest], older()).await.unwrap_err();
            assert!(why.contains("min_version"), "{why}");
            destined(&[newest, (key, "true")], older()).await.unwrap();
        }
        "offers.allow_plaintext" => {
            for allowed in [false, true] {
                let (directory, authority, other) =
                    (TempDir::new(), Authority::new("ca"), Offerer::start().await);
                let ca = directory.write("ca.pem", &authority.pem());
                let server = Offerer::with_tls(&authority.server(&["127.0.0.1"])).await;
                let url = server.url("wss");
                let value = allowed.to_string();
                let keys = [("server.endpoint", &*url), ("server.tls.ca_file", &ca), (key, &value)];
                let (_process, uid) = led_elsewhere(&directory, &keys, &server, &other.url("ws")).await;
                if allowed {
                    other.connected(uid).await;
                } else {
                    let refused = |agent: &opamp_server::AgentSnapshot| {
                        let report = agent.connection_settings.report.as_ref();
                        report.is_some_and(|report| report.error.contains("has no TLS"))
                    };
                    server.sees(uid, "it is refused", refused).await;
                }
            }
        }
        "offers.allow_credentials_elsewhere" => {
            for allowed in [false, true] {
                let (directory, server, other) =
                    (TempDir::new(), Offerer::start().await, Stub::start(|_| Vec::new()).await);
                let (url, value) = (server.url("ws"), allowed.to_string());
                let keys = [("server.endpoint", &*url), ("server.headers.x-key", "secret"), (key, &value)];
                let _led = led_elsewhere(&directory, &keys, &server, &other.url("ws")).await;
                until("the other server is tried", || !other.requests().is_empty()).await;
                assert_eq!(other.requests()[0].contains("x-key: secret"), allowed);
            }
        }
        other => panic!("nothing shows that {other} has an effect"),
    }
}

/// An agent that its server wants at another one.
async fn led_elsewhere(
    directory: &TempDir,
    keys: &[(&str, &str)],
    server: &Offerer,
    endpoint: &str,
) -> (Process, InstanceUid) {
    let on = ("capabilities.accepts_opamp_connection_settings", "true");
    let mut process = start_in(directory, &[keys, &[on]].concat(), &[]);
    let uid = process.uid().await;
    server.connected(uid).await;
    let opamp =
        pb::OpAmpConnectionSettings { destination_endpoint: endpoint.to_owned(), ..Default::default() };
    server.begin_settings(uid, 1, pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() });
    (process, uid)
}

pub(crate) async fn metrics_interval(key: &str) {
    let sinks = [
        Stub::start(|_| ok("application/x-protobuf", b"")).await,
        Stub::start(|_| ok("application/x-protobuf", b"")).await,
    ];
    let server = Offerer::start().await;
    let url = server.url("ws");
    let mut running = Vec::new();
    for (interval, sink) in ["100ms", "1h"].iter().zip(&sinks) {
        let directory = TempDir::new();
        let keys =
            [("server.endpoint", &*url), ("capabilities.reports_own_metrics", "true"), (key, interval)];
        let mut process = start_in(&directory, &keys, &[]);
        let uid = process.uid().await;
        server.connected(uid).await;
        server.offer_metrics(uid, 1, destination(&sink.url("http"), None)).await.unwrap();
        running.push((directory, process));
    }
    until("one export", || !sinks[1].requests().is_empty()).await;
    let before = sinks[0].requests().len();
    until("many exports", || sinks[0].requests().len() > before + 5).await;
    assert_eq!(sinks[1].requests().len(), 1);
}
