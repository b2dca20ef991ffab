//! A newer offer ends the work on the one before, wherever that is.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use opamp_client::Rejected;
use opamp_client::packages::{
    InstallPackage, Installer, InstallerBuilder, PackageAt, PackageStatus, VerifiedFile,
};
use tokio::sync::Notify;

use crate::common::*;
use crate::server::{Body, Reply, Server};

/// A server that stalls in the middle of whatever is called `stalls`.
async fn server() -> Server {
    Server::start(|request| {
        let content = request.path.as_bytes();
        match request.path.contains("stalls") {
            true => Reply::new(200, Body::Stalled(content[..2].to_vec(), content.len())),
            false => Reply::file(request, content, "\"a\""),
        }
    })
    .await
}

fn at(server: &Server, version: &str) -> opamp_proto::pb::PackageAvailable {
    let path = format!("/{version}");
    package(&server.url(&path), "x", version, path.as_bytes())
}

/// Begins with `version`, and when it has got where it is to be cancelled comes with version 3.
async fn superseded(
    server: &Server,
    directory: &Directory,
    builder: InstallerBuilder,
    version: &str,
    there: impl Future<Output = ()>,
) -> Installer {
    drop(apply(&installer(directory), offer("1", [("x", at(server, "1"))])).await.unwrap());
    let installer = builder.open().unwrap();
    let (progress, reports) = silent();
    let running = {
        let (installer, wanted) = (installer.clone(), offer("2", [("x", at(server, version))]));
        tokio::spawn(async move { installer.apply(wanted, progress).await })
    };
    tokio::time::timeout(PATIENCE, there).await.expect("it gets there");
    reports.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it ends soon").unwrap().unwrap();
    let last = reports.latest().unwrap();
    assert!(
        matches!(last.get("x"), Some(PackageStatus::Pending { .. })),
        "nothing goes on any more: {last:?}"
    );
    let statuses = installer.statuses().await;
    assert!(is_installed(&statuses, "x", "1"), "whole, and told: {statuses:?}");
    assert_eq!(in_use(&installer, "x").unwrap(), b"/1");
    assert_ne!(statuses.received().as_bytes(), b"2", "it did not come to an end");
    let statuses = apply(&installer, offer("3", [("x", at(server, "3"))])).await.unwrap();
    assert!(is_installed(&statuses, "x", "3"), "{statuses:?}");
    assert_eq!(in_use(&installer, "x").unwrap(), b"/3");
    assert_eq!(directory.names("packages/staging"), [""; 0]);
    assert_eq!(directory.names("packages/downloads"), [""; 0]);
    installer
}

#[tokio::test]
async fn offers_that_never_come_to_an_end_leave_one_download_and_not_one_each() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    for round in 1..=5 {
        let path = format!("/stalls{round}");
        let package = package(&server.url(&path), "x", &path, path.as_bytes());
        let (progress, reports) = silent();
        let running = {
            let (installer, wanted) = (installer.clone(), offer(&path, [("x", package)]));
            tokio::spawn(async move { installer.apply(wanted, progress).await })
        };
        let hash = opamp_proto::ConfigHash::new(sha256(path.as_bytes()).to_vec()).to_hex();
        let of_this = |name: &String| name.starts_with(&hash);
        let begun = async {
            // What the one before left is there until this one takes its place.
            while !directory.names("packages/downloads").iter().any(of_this) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, begun).await.expect("it begins to download");
        reports.cancel();
        tokio::time::timeout(PATIENCE, running).await.expect("it ends soon").unwrap().unwrap();
        let kept = directory.names("packages/downloads");
        assert!(kept.iter().all(of_this), "after {round} offers: {kept:?}");
    }
}

#[tokio::test]
async fn while_it_downloads() {
    let (server, directory) = (server().await, Directory::new());
    let asked = async {
        while !server.paths().contains(&"/stalls".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    superseded(&server, &directory, builder(&directory), "stalls", asked).await;
}

#[tokio::test]
async fn while_it_waits_for_another_attempt() {
    let server = Server::start(|request| match request.path.as_str() {
        "/2" => Reply::status(503).header("retry-after", "3600"),
        _ => Reply::file(request, request.path.as_bytes(), "\"a\""),
    })
    .await;
    let directory = Directory::new();
    let mut patient = settings();
    patient.download.retry_delay_max = Duration::from_secs(3_600);
    let asked = async {
        while !server.paths().contains(&"/2".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    superseded(&server, &directory, builder(&directory).settings(patient), "2", asked).await;
}

/// Never comes to an end with version 2, and says that it has begun.
struct Stuck(Arc<Notify>);

impl InstallPackage for Stuck {
    fn install(&self, file: VerifiedFile) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(async move {
            std::fs::copy(file.file(), file.directory().join(FILE)).unwrap();
            if file.package().version.version() == "2" {
                self.0.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn while_it_is_laid_out() {
    let (server, directory, begun) = (server().await, Directory::new(), Arc::new(Notify::new()));
    let stuck = Stuck(Arc::clone(&begun));
    superseded(&server, &directory, builder(&directory).install(stuck), "2", begun.notified()).await;
}

fn stuck_hook(
    begun: &Arc<Notify>,
) -> impl Fn(PackageAt) -> BoxFuture<'static, Result<(), Rejected>> + Send + Sync + 'static {
    let begun = Arc::clone(begun);
    move |package| {
        let begun = Arc::clone(&begun);
        Box::pin(async move {
            if package.version.version() == "2" {
                begun.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn while_it_is_activated_or_checked_after_the_switch() {
    let server = server().await;
    for activation in [true, false] {
        let (directory, begun) = (Directory::new(), Arc::new(Notify::new()));
        let builder = builder(&directory);
        let builder = match activation {
            true => builder.on_activate(stuck_hook(&begun)),
            false => builder.health_check(stuck_hook(&begun)),
        };
        superseded(&server, &directory, builder, "2", begun.notified()).await;
    }
}

#[tokio::test]
async fn an_offer_that_was_not_wanted_any_more_when_it_began_changes_nothing() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let (progress, reports) = silent();
    reports.cancel();
    installer.apply(offer("1", [("x", at(&server, "1"))]), progress).await.unwrap();
    assert_eq!(server.count(), 0);
    let last = reports.latest().unwrap();
    assert!(matches!(last.get("x"), Some(PackageStatus::Pending { .. })), "{last:?}");
}

#[tokio::test]
async fn who_drops_the_work_on_an_offer_ends_it_at_a_whole_point() {
    let (server, directory, begun) = (server().await, Directory::new(), Arc::new(Notify::new()));
    drop(apply(&installer(&directory), offer("1", [("x", at(&server, "1"))])).await.unwrap());
    let installer = builder(&directory).health_check(stuck_hook(&begun)).open().unwrap();
    let (progress, _reports) = silent();
    tokio::select! {
        _ = installer.apply(offer("2", [("x", at(&server, "2"))]), progress) => panic!("it hangs"),
        () = begun.notified() => {}
    }
    let statuses = tokio::time::timeout(PATIENCE, installer.statuses()).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"));
    assert_eq!(in_use(&installer, "x").unwrap(), b"/1");
}
