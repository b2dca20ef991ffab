//! Which packages an offer changes, and which it leaves alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opamp_client::ConfigHash;
use opamp_client::packages::{OpenError, PackageStatus, PackageVersion};

use crate::common::*;
use crate::server::{Reply, Server};

/// A server whose files are their own paths, and that misses some.
async fn server() -> Server {
    Server::start(|request| match request.path.contains("missing") {
        true => Reply::status(404),
        false => Reply::file(request, request.path.as_bytes(), "\"a\""),
    })
    .await
}

/// A package whose content is the path it is fetched from.
fn at(server: &Server, name: &str, version: &str, path: &str) -> opamp_proto::pb::PackageAvailable {
    package(&server.url(path), name, version, path.as_bytes())
}

#[tokio::test]
async fn only_the_package_that_changed_is_fetched() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let first = [
        ("x", at(&server, "x", "1", "/x1")),
        ("y", at(&server, "y", "1", "/y1")),
        ("z", at(&server, "z", "1", "/z1")),
    ];
    apply(&installer, offer("1", first.clone())).await.unwrap();
    assert_eq!(server.paths(), ["/x1", "/y1", "/z1"], "R-PKG-08: exactly one GET each");
    let mut second = first;
    second[1].1 = at(&server, "y", "2", "/y2");
    let statuses = apply(&installer, offer("2", second)).await.unwrap();
    assert_eq!(server.paths()[3..], ["/y2"], "R-PKG-09, R-PKG-43");
    assert!(is_installed(&statuses, "y", "2") && is_installed(&statuses, "z", "1"));
    assert_eq!(in_use(&installer, "y").unwrap(), b"/y2");
    assert_eq!(in_use(&installer, "x").unwrap(), b"/x1");
}

#[tokio::test]
async fn the_same_offer_again_asks_for_nothing_also_after_a_restart_and_whatever_came_of_it() {
    let (server, directory) = (server().await, Directory::new());
    let wanted =
        || offer("1", [("x", at(&server, "x", "1", "/x1")), ("y", at(&server, "y", "1", "/missing"))]);
    let installer = installer(&directory);
    let first = apply(&installer, wanted()).await.unwrap();
    assert_eq!(apply(&installer, wanted()).await.unwrap(), first, "R-PKG-07, R-PKG-44, R-PKG-48");
    drop(installer);
    let installer = self::installer(&directory);
    assert_eq!(installer.statuses().await, first, "R-PKG-23: the hash is kept, and the failure");
    assert_eq!(apply(&installer, wanted()).await.unwrap(), first);
    assert_eq!(server.paths(), ["/x1", "/missing"]);
}

fn installer(directory: &Directory) -> opamp_client::packages::Installer {
    crate::common::installer(directory)
}

#[tokio::test]
async fn another_package_hash_with_the_same_content_asks_for_nothing_and_another_content_for_one_file() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    apply(&installer, offer("1", [("x", at(&server, "x", "1", "/x1"))])).await.unwrap();
    let mut same = at(&server, "x", "1", "/x1");
    same.hash = ConfigHash::new("another").to_bytes();
    let statuses = apply(&installer, offer("2", [("x", same)])).await.unwrap();
    assert_eq!(server.count(), 1, "R-PKG-12, R-PKG-42");
    assert_eq!(statuses.get("x").unwrap().has().unwrap().hash().as_bytes(), b"another");
    apply(&installer, offer("3", [("x", at(&server, "x", "1", "/x2"))])).await.unwrap();
    assert_eq!(server.paths(), ["/x1", "/x2"]);
}

#[tokio::test]
async fn a_package_whose_hash_is_the_one_installed_is_left_alone_whatever_else_is_said_of_it() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let first = at(&server, "x", "1", "/x1");
    apply(&installer, offer("1", [("x", first.clone())])).await.unwrap();
    let same_hash = opamp_proto::pb::PackageAvailable { hash: first.hash, ..at(&server, "x", "1", "/x2") };
    let statuses = apply(&installer, offer("2", [("x", same_hash)])).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"), "R-PKG-43");
    assert_eq!(server.paths(), ["/x1"]);
    assert_eq!(in_use(&installer, "x").unwrap(), b"/x1");
}

#[tokio::test]
async fn a_failed_package_holds_up_no_other_and_the_last_report_has_all_of_them() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let mut bad = at(&server, "b", "1", "/b1");
    bad.file.as_mut().unwrap().content_hash = vec![1; 32].into();
    let wanted = [("a", at(&server, "a", "1", "/a1")), ("b", bad), ("c", at(&server, "c", "1", "/c1"))];
    let statuses = apply(&installer, offer("1", wanted)).await.unwrap();
    assert!(is_installed(&statuses, "a", "1") && is_installed(&statuses, "c", "1"), "R-PKG-18");
    assert!(statuses.packages().all(|(_, status)| status.is_final()));
    why(&statuses, "b");
    assert_eq!(statuses.packages().len(), 3);
    assert!(statuses.error().is_none(), "the offer as a whole could be processed (R-PKG-26)");
}

#[tokio::test]
async fn a_failed_package_that_is_offered_well_is_installed_and_its_failure_forgotten() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let mut bad = at(&server, "x", "1", "/x1");
    bad.file.as_mut().unwrap().signature = vec![0; 64].into();
    let good = at(&server, "x", "1", "/x1");
    apply(&installer, offer("1", [("x", bad.clone())])).await.unwrap();
    let statuses = apply(&installer, offer("2", [("x", good.clone())])).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"));
    bad.hash = ConfigHash::new("bad").to_bytes();
    apply(&installer, offer("3", [("x", bad)])).await.unwrap();
    let statuses = apply(&installer, offer("4", [("x", good)])).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"), "back to what is there");
    let message = statuses.to_message();
    assert!(message.packages["x"].error_message.is_empty(), "R-PKG-32");
    drop(installer);
    assert_eq!(self::installer(&directory).statuses().await, statuses);
}

#[tokio::test]
async fn what_is_not_offered_any_more_goes_after_the_new_ones_are_there_and_not_before() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    apply(&installer, offer("1", [("old", at(&server, "old", "1", "/o1"))])).await.unwrap();
    let folder = installer.installed("old").unwrap().directory;
    let mut bad = at(&server, "new", "1", "/n1");
    bad.file.as_mut().unwrap().content_hash = vec![1; 32].into();
    let statuses = apply(&installer, offer("2", [("new", bad)])).await.unwrap();
    assert!(is_installed(&statuses, "old", "1"), "its successor is not there: {statuses:?}");
    assert!(folder.exists());
    let statuses = apply(&installer, offer("3", [("new", at(&server, "new", "1", "/n1"))])).await.unwrap();
    assert!(statuses.get("old").is_none() && !folder.exists(), "R-PKG-10: {statuses:?}");
    let statuses = apply(&installer, offer("4", [])).await.unwrap();
    assert_eq!(statuses.packages().len(), 0);
    assert_eq!(directory.names("packages/packages"), [""; 0]);
}

#[tokio::test]
async fn local_packages_are_reported_and_never_removed() {
    let (server, directory) = (server().await, Directory::new());
    let local = |version: &str| PackageVersion::new(version, ConfigHash::new("local"));
    let installer = builder(&directory)
        .local_package("plugin", local("7"))
        .local_package("x", local("0"))
        .open()
        .unwrap();
    let at_first = installer.statuses().await;
    let message = at_first.to_message();
    assert!(message.packages["plugin"].server_offered_hash.is_empty(), "R-PKG-29, R-PKG-30");
    assert!(message.packages["plugin"].server_offered_version.is_empty());
    let statuses = apply(&installer, offer("1", [("x", at(&server, "x", "1", "/x1"))])).await.unwrap();
    assert!(is_installed(&statuses, "x", "1") && is_installed(&statuses, "plugin", "7"), "{statuses:?}");
    let statuses = apply(&installer, offer("2", [])).await.unwrap();
    assert!(
        is_installed(&statuses, "x", "0") && is_installed(&statuses, "plugin", "7"),
        "A-06: {statuses:?}"
    );
}

#[tokio::test]
async fn whatever_packages_are_called_they_are_kept_apart_and_inside() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let names = ["", "x", "X", "../../escape", "/etc/passwd", "a/b", "..", "packages", "ü"];
    let paths: Vec<_> = (0..names.len()).map(|number| format!("/{number}/same-file-name")).collect();
    let wanted = names.iter().zip(&paths).map(|(name, path)| (*name, at(&server, name, "1", path)));
    let statuses = apply(&installer, offer("1", wanted)).await.unwrap();
    for (name, path) in names.iter().zip(&paths) {
        assert!(is_installed(&statuses, name, "1"), "R-PKG-01, R-PKG-02: {name:?}");
        assert_eq!(in_use(&installer, name).unwrap(), path.as_bytes());
        let inside = directory.path().join("packages/packages").canonicalize().unwrap();
        assert!(installer.installed(name).unwrap().directory.canonicalize().unwrap().starts_with(inside));
    }
    assert_eq!(directory.names(""), ["packages"], "nothing was made outside");
}

#[tokio::test]
async fn a_lower_version_is_an_offer_like_others() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    apply(&installer, offer("1", [("x", at(&server, "x", "2", "/x2"))])).await.unwrap();
    let statuses = apply(&installer, offer("2", [("x", at(&server, "x", "1", "/x1"))])).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"), "R-PKG-53");
    assert_eq!(in_use(&installer, "x").unwrap(), b"/x1");
}

#[tokio::test]
async fn what_waits_is_pending_and_what_is_there_meanwhile_is_told() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    apply(&installer, offer("1", [("b", at(&server, "b", "1", "/b1"))])).await.unwrap();
    let (progress, mut reports) = silent();
    let wanted = offer("2", [("a", at(&server, "a", "1", "/a1")), ("b", at(&server, "b", "2", "/b2"))]);
    let applying = installer.apply(wanted, progress);
    let first = async { reports.next().await.unwrap() };
    let (_, first) = tokio::join!(applying, first);
    match first.get("b").unwrap() {
        PackageStatus::Pending { has, offered } => {
            assert_eq!(has.as_ref().unwrap().version(), "1");
            assert_eq!(offered.version(), "2");
        }
        other => panic!("R-PKG-37: {other:?}"),
    }
}

#[tokio::test]
async fn one_directory_is_for_one_installer() {
    let directory = Directory::new();
    let first = installer(&directory);
    assert!(matches!(builder(&directory).open(), Err(OpenError::InUse(_))));
    drop(first);
    builder(&directory).open().unwrap();
}

#[tokio::test]
async fn a_list_of_packages_that_is_none_is_told_and_not_taken_for_an_empty_one() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    apply(&installer, offer("1", [("x", at(&server, "x", "1", "/x1"))])).await.unwrap();
    drop(installer);
    std::fs::write(directory.path().join("packages/manifest"), "half").unwrap();
    let error = builder(&directory).open().unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt(path) if path.ends_with("manifest")), "{error}");
}

#[tokio::test]
async fn a_package_somebody_has_removed_is_not_there_and_comes_again() {
    let (server, directory) = (server().await, Directory::new());
    let wanted = || offer("1", [("x", at(&server, "x", "1", "/x1"))]);
    let installer = installer(&directory);
    apply(&installer, wanted()).await.unwrap();
    let at = installer.installed("x").unwrap();
    drop(installer);
    std::fs::remove_dir_all(at.directory).unwrap();
    let installer = self::installer(&directory);
    let statuses = installer.statuses().await;
    assert!(statuses.received().is_empty() && has(&statuses, "x").is_none(), "{statuses:?}");
    let statuses = apply(&installer, wanted()).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"));
    assert_eq!(in_use(&installer, "x").unwrap(), b"/x1");
}

#[tokio::test]
async fn leftovers_of_a_crash_are_swept_at_the_start() {
    let directory = Directory::new();
    drop(installer(&directory));
    let root = directory.path().join("packages");
    for folder in ["staging/7", "packages/gone-1/3"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        std::fs::write(root.join(folder).join("half"), "half").unwrap();
    }
    std::fs::write(root.join("manifest.new"), "half").unwrap();
    let installer = installer(&directory);
    assert_eq!(directory.names("packages/staging"), [""; 0]);
    assert_eq!(directory.names("packages/packages"), [""; 0]);
    assert!(!root.join("manifest.new").exists());
    drop(installer);
}

#[tokio::test]
async fn a_package_that_failed_is_tried_again_once_something_else_was_offered_in_between() {
    let back = Arc::new(AtomicBool::new(false));
    let there = Arc::clone(&back);
    let server = Server::start(move |request| match there.load(Ordering::SeqCst) || request.path == "/1" {
        true => Reply::file(request, request.path.as_bytes(), "\"a\""),
        false => Reply::status(503),
    })
    .await;
    let directory = Directory::new();
    let installer = installer(&directory);
    let of = |version: &str| {
        let path = format!("/{version}");
        offer(version, [("x", package(&server.url(&path), "x", version, path.as_bytes()))])
    };
    assert!(is_installed(&apply(&installer, of("1")).await.unwrap(), "x", "1"));
    assert!(why(&apply(&installer, of("2")).await.unwrap(), "x").contains("503"));
    back.store(true, Ordering::SeqCst);
    let asked = server.count();
    let again = apply(&installer, of("2")).await.unwrap();
    assert!(why(&again, "x").contains("503") && server.count() == asked, "the same is no news: {again:?}");
    assert!(is_installed(&apply(&installer, of("1")).await.unwrap(), "x", "1"));
    assert!(is_installed(&apply(&installer, of("2")).await.unwrap(), "x", "2"));
}
