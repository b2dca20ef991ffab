//! Activation, health check and going back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use opamp_client::Rejected;
use opamp_client::packages::{InstallPackage, Installer, PackageAt, VerifiedFile};

use crate::common::*;
use crate::server::{Reply, Server};

/// What the hooks were called for, in order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn note(&self, what: &str, package: &PackageAt) {
        self.0.lock().unwrap().push(format!("{what} {} {}", package.name, package.version.version()));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn server() -> Server {
    Server::start(|request| Reply::file(request, request.path.as_bytes(), "\"a\"")).await
}

fn at(server: &Server, version: &str) -> opamp_proto::pb::PackageAvailable {
    let path = format!("/{version}");
    package(&server.url(&path), "x", version, path.as_bytes())
}

/// An installer whose versions `bad`, `panics` and `hangs` do not work.
fn checked(directory: &Directory, calls: &Calls) -> Installer {
    let (activated, deactivated, checked) = (calls.clone(), calls.clone(), calls.clone());
    let mut settings = settings();
    settings.check_timeout = Duration::from_millis(50);
    builder(directory)
        .settings(settings)
        .on_activate(move |package: PackageAt| {
            activated.note("activate", &package);
            // Whoever follows the link finds the version that is activated.
            let found = std::fs::read(package.current.join(FILE)).unwrap();
            assert_eq!(found, format!("/{}", package.version.version()).into_bytes());
            let fails = package.version.version() == "dead";
            async move { if fails { Err(Rejected::new("will not start")) } else { Ok(()) } }
        })
        .on_deactivate(move |package: PackageAt| {
            deactivated.note("deactivate", &package);
            async { Ok(()) }
        })
        .health_check(move |package: PackageAt| {
            checked.note("check", &package);
            async move {
                match package.version.version() {
                    "bad" => Err(Rejected::new("no answer on port 1")),
                    "panics" => panic!("on purpose"),
                    "hangs" => std::future::pending().await,
                    _ => Ok(()),
                }
            }
        })
        .open()
        .unwrap()
}

#[tokio::test]
async fn a_version_that_does_not_work_is_taken_back_and_the_one_before_activated_again() {
    for (version, word) in [
        ("bad", "no answer on port 1"),
        ("panics", "panicked"),
        ("hangs", "did not end within"),
        ("dead", "will not start"),
    ] {
        let (server, directory, calls) = (server().await, Directory::new(), Calls::default());
        let installer = checked(&directory, &calls);
        apply(&installer, offer("1", [("x", at(&server, "1"))])).await.unwrap();
        assert_eq!(calls.take(), ["activate x 1", "check x 1"]);
        let statuses = apply(&installer, offer("2", [("x", at(&server, version))])).await.unwrap();
        assert!(why(&statuses, "x").contains(word), "{}", why(&statuses, "x"));
        assert_eq!(has(&statuses, "x").as_deref(), Some("1"));
        assert_eq!(in_use(&installer, "x").unwrap(), b"/1");
        let calls = calls.take();
        assert_eq!(calls.last().unwrap(), "activate x 1", "{calls:?}");
        let installed = installer.installed("x").unwrap();
        let folder = installed.directory.parent().unwrap();
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2, "the version and the link");
    }
}

#[tokio::test]
async fn a_first_version_that_does_not_work_leaves_nothing_and_is_deactivated() {
    let (server, directory, calls) = (server().await, Directory::new(), Calls::default());
    let installer = checked(&directory, &calls);
    let statuses = apply(&installer, offer("1", [("x", at(&server, "bad"))])).await.unwrap();
    why(&statuses, "x");
    assert_eq!(has(&statuses, "x"), None, "R-PKG-27, R-PKG-28");
    assert_eq!(calls.take(), ["activate x bad", "check x bad", "deactivate x bad"]);
    assert_eq!(directory.names("packages/packages"), [""; 0]);
}

#[tokio::test]
async fn a_package_is_deactivated_before_it_is_removed() {
    let (server, directory, calls) = (server().await, Directory::new(), Calls::default());
    let installer = checked(&directory, &calls);
    apply(&installer, offer("1", [("x", at(&server, "1"))])).await.unwrap();
    calls.take();
    apply(&installer, offer("2", [])).await.unwrap();
    assert_eq!(calls.take(), ["deactivate x 1"]);
}

#[tokio::test]
async fn each_changed_package_is_installed_and_activated_once() {
    let (server, directory, calls) = (server().await, Directory::new(), Calls::default());
    let installer = checked(&directory, &calls);
    let wanted = || offer("1", [("x", at(&server, "1"))]);
    apply(&installer, wanted()).await.unwrap();
    apply(&installer, wanted()).await.unwrap();
    apply(&installer, offer("2", [("x", at(&server, "1"))])).await.unwrap();
    assert_eq!(calls.take(), ["activate x 1", "check x 1"], "R-PKG-15");
}

/// Unpacks lines: a name, a colon, a content.
struct Lines;

impl InstallPackage for Lines {
    fn install(&self, file: VerifiedFile) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(async move {
            let failed = |error: std::io::Error| Rejected::new(error.to_string());
            for line in std::fs::read_to_string(file.file()).map_err(failed)?.lines() {
                let (name, content) = line.split_once(':').ok_or("not a line of this format")?;
                std::fs::create_dir_all(file.directory().join("sub")).map_err(failed)?;
                std::fs::write(file.directory().join("sub").join(name), content).map_err(failed)?;
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn an_archive_is_one_download_and_unpacked_by_whoever_knows_its_format() {
    let archive = b"a:first\nb:second\n";
    let server = Server::start(|request| match request.path.as_str() {
        "/good" => Reply::file(request, archive, "\"a\""),
        _ => Reply::file(request, b"no archive", "\"b\""),
    })
    .await;
    let directory = Directory::new();
    let installer = builder(&directory).install(Lines).open().unwrap();
    let wanted = |hash: &str, version: &str, path: &str, content: &[u8]| {
        offer(hash, [("x", package(&server.url(path), "x", version, content))])
    };
    apply(&installer, wanted("1", "1", "/good", archive)).await.unwrap();
    let current = installer.installed("x").unwrap().current;
    assert_eq!(std::fs::read(current.join("sub/b")).unwrap(), b"second", "R-PKG-05");
    assert_eq!(server.count(), 1);
    let statuses = apply(&installer, wanted("2", "2", "/bad", b"no archive")).await.unwrap();
    assert!(why(&statuses, "x").contains("not a line of this format"));
    assert_eq!(has(&statuses, "x").as_deref(), Some("1"));
    assert_eq!(std::fs::read(current.join("sub/a")).unwrap(), b"first");
    assert_eq!(directory.names("packages/staging"), [""; 0]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_plain_file_may_be_executed_only_if_that_was_asked_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = server().await;
    for (executable, mode) in [(false, 0o644), (true, 0o755)] {
        let directory = Directory::new();
        let plain = opamp_client::packages::PlainFile::new(FILE);
        let plain = if executable { plain.executable() } else { plain };
        let installer = builder(&directory).install(plain).open().unwrap();
        apply(&installer, offer("1", [("x", at(&server, "1"))])).await.unwrap();
        let file = installer.installed("x").unwrap().current.join(FILE);
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, mode);
        let root = std::fs::metadata(directory.path().join("packages")).unwrap().permissions().mode();
        assert_eq!(root & 0o777, 0o700);
    }
}

/// Never comes to an end.
struct Never;

impl InstallPackage for Never {
    fn install(&self, _file: VerifiedFile) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_package_that_cannot_be_laid_out_in_time_has_failed_and_leaves_nothing() {
    let (server, directory) = (server().await, Directory::new());
    let mut settings = settings();
    settings.install_timeout = Duration::from_millis(50);
    let installer = builder(&directory).settings(settings).install(Never).open().unwrap();
    let statuses = apply(&installer, offer("1", [("x", at(&server, "1"))])).await.unwrap();
    let why = why(&statuses, "x");
    assert!(why.contains("laying it out failed: it did not end within"), "{why}");
    assert_eq!(has(&statuses, "x"), None);
    assert_eq!(directory.names("packages/staging"), [""; 0]);
    assert_eq!(directory.names("packages/packages"), [""; 0]);
}
