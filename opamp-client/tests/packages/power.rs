//! The agent ends, the power fails, or the disk refuses, between any two steps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use opamp_client::packages::{Installer, PackageAt, PackageStatuses, PackagesOffer};
use opamp_proto::pb;

use crate::common::*;
use crate::disk::{Disk, Fault, Names};
use crate::server::{Reply, Server};

/// More steps than an offer has; a guard against going on for ever.
const STEPS_MAX: usize = 400;

/// What is active of each package, as the hooks were told.
type Active = Arc<Mutex<BTreeMap<String, String>>>;

async fn server() -> Server {
    Server::start(|request| Reply::file(request, request.path.as_bytes(), "\"a\"")).await
}

fn at(server: &Server, name: &str, version: &str) -> pb::PackageAvailable {
    let path = format!("/{name}{version}");
    package(&server.url(&path), name, version, path.as_bytes())
}

fn before(server: &Server) -> PackagesOffer {
    offer("1", [("gone", at(server, "gone", "1")), ("x", at(server, "x", "1"))])
}

/// One package changes, one is new, one goes.
fn after(server: &Server, hash: &str) -> PackagesOffer {
    offer(hash, [("new", at(server, "new", "1")), ("x", at(server, "x", "2"))])
}

fn open(
    directory: &Directory,
    disk: &Arc<Disk>,
    active: &Active,
) -> Result<Installer, opamp_client::packages::OpenError> {
    let (activated, deactivated) = (Arc::clone(active), Arc::clone(active));
    builder(directory)
        .file_system(Arc::clone(disk) as Arc<dyn opamp_client::packages::FileSystem>)
        .on_activate(move |package: PackageAt| {
            activated.lock().unwrap().insert(package.name.clone(), package.version.version().to_owned());
            async { Ok(()) }
        })
        .on_deactivate(move |package: PackageAt| {
            deactivated.lock().unwrap().remove(&package.name);
            async { Ok(()) }
        })
        .open()
}

/// Whatever link there is leads to a whole version, as others on this machine see it.
fn every_package_is_whole(root: &Path, moment: &str) {
    for folder in std::fs::read_dir(root.join("packages")).into_iter().flatten() {
        let current = folder.unwrap().path().join("current");
        if !current.is_symlink() {
            continue;
        }
        let content =
            std::fs::read_to_string(current.join(FILE)).unwrap_or_else(|error| panic!("{moment}: {error}"));
        assert!(["/gone1", "/x1", "/x2", "/new1"].contains(&content.as_str()), "{moment}: {content:?}");
    }
}

/// What is told is what is in use, and what is in use is whole.
fn what_is_told_is_true(installer: &Installer, root: &Path, statuses: &PackageStatuses, moment: &str) {
    let told = statuses.packages().filter(|(_, status)| status.has().is_some()).count();
    let links = std::fs::read_dir(root.join("packages")).unwrap();
    let links = links.filter(|folder| folder.as_ref().unwrap().path().join("current").is_symlink()).count();
    assert_eq!(links, told, "{moment}: whoever looks finds what is told: {statuses:?}");
    for name in ["gone", "new", "x"] {
        let told = has(statuses, name).map(|version| format!("/{name}{version}").into_bytes());
        assert_eq!(in_use(installer, name), told, "{moment}: {name} in {statuses:?}");
    }
    // An upgrade never leaves nothing.
    assert!(has(statuses, "x").is_some(), "{moment}: {statuses:?}");
    // The old one goes after the new ones have come.
    if has(statuses, "gone").is_none() {
        assert_eq!(
            (has(statuses, "x").as_deref(), has(statuses, "new").as_deref()),
            (Some("2"), Some("1")),
            "{moment}"
        );
    }
}

async fn it_converges(installer: &Installer, directory: &Directory, offer: PackagesOffer, moment: &str) {
    let hash = offer.hash().clone();
    let statuses = apply(installer, offer).await.unwrap_or_else(|error| panic!("{moment}: {error}"));
    assert_eq!(statuses.received(), &hash);
    assert!(
        is_installed(&statuses, "x", "2") && is_installed(&statuses, "new", "1"),
        "{moment}: {statuses:?}"
    );
    assert!(statuses.get("gone").is_none(), "{moment}: {statuses:?}");
    what_is_told_is_true(installer, &directory.path().join("packages"), &statuses, moment);
    for folder in ["packages/staging", "packages/downloads"] {
        assert_eq!(directory.names(folder), [""; 0], "{moment}");
    }
    let packages = directory.names("packages/packages");
    assert_eq!(packages.len(), 2, "{moment}: {packages:?}");
    for folder in packages {
        assert_eq!(
            directory.names(&format!("packages/packages/{folder}")).len(),
            2,
            "{moment}: version and link"
        );
    }
}

/// Ends the agent at every step; with `loss` the machine as well.
async fn interrupted_at_every_step(loss: Option<Names>) -> usize {
    let server = server().await;
    for step in 1..STEPS_MAX {
        let (directory, active) = (Directory::new(), Active::default());
        let moment = format!("step {step}");
        let installer = open(&directory, &Arc::new(Disk::new(Fault::None)), &active).unwrap();
        apply(&installer, before(&server)).await.unwrap();
        drop(installer);

        let disk = Arc::new(Disk::new(Fault::Dead(step)));
        if let Ok(installer) = open(&directory, &disk, &active) {
            // Whatever it says now, nobody hears it any more.
            let (progress, _reports) = silent();
            let _ = installer.apply(after(&server, "2"), progress).await;
        }
        if let Some(names) = loss {
            disk.lose(names);
            active.lock().unwrap().clear();
        }
        let root = directory.path().join("packages");
        every_package_is_whole(&root, &moment);

        let disk_again = Arc::new(Disk::new(Fault::None));
        let installer = open(&directory, &disk_again, &active).unwrap();
        let statuses = installer.statuses().await;
        what_is_told_is_true(&installer, &root, &statuses, &moment);
        every_package_is_whole(&root, &moment);
        if loss.is_none() {
            for (name, version) in &*active.lock().unwrap() {
                assert_eq!(has(&statuses, name).as_ref(), Some(version), "{moment}: {name} runs");
            }
        }
        // An offer that was not finished is not known, so the server sends it again.
        let finished = statuses.received().as_bytes() == b"2";
        assert!(finished || statuses.received().as_bytes() == b"1", "{moment}: {statuses:?}");
        it_converges(&installer, &directory, after(&server, "2"), &moment).await;
        if !disk.has_failed() {
            assert!(finished);
            return step;
        }
    }
    panic!("an offer has fewer than {STEPS_MAX} steps");
}

#[tokio::test]
async fn after_an_end_of_the_agent_between_any_two_steps_every_package_is_whole_and_the_next_offer_converges()
{
    let steps = interrupted_at_every_step(None).await;
    assert!(steps > 40, "every step was interrupted: {steps}");
}

#[tokio::test]
async fn after_a_power_loss_that_takes_what_was_not_durable_every_package_is_whole_and_the_next_offer_converges()
 {
    for names in [Names::Kept, Names::Lost, Names::NewestKept] {
        interrupted_at_every_step(Some(names)).await;
    }
}

#[tokio::test]
async fn a_disk_that_refuses_any_one_step_fails_truthfully_and_the_next_offer_converges() {
    let server = server().await;
    for step in 1..STEPS_MAX {
        let (directory, active) = (Directory::new(), Active::default());
        let moment = format!("step {step}");
        let installer = open(&directory, &Arc::new(Disk::new(Fault::None)), &active).unwrap();
        apply(&installer, before(&server)).await.unwrap();
        drop(installer);

        let disk = Arc::new(Disk::new(Fault::Full(step)));
        let Ok(installer) = open(&directory, &disk, &active) else { continue };
        let (progress, reports) = silent();
        let ended = installer.apply(after(&server, "2"), progress).await;
        let last = reports.latest().unwrap();
        what_is_told_is_true(&installer, &directory.path().join("packages"), &last, &moment);
        every_package_is_whole(&directory.path().join("packages"), &moment);
        for (name, version) in &*active.lock().unwrap() {
            assert_eq!(has(&last, name).as_ref(), Some(version), "{moment}: {name} runs");
        }
        let failed = last.to_message().packages.values().any(|package| !package.error_message.is_empty());
        let complete = is_installed(&last, "x", "2") && is_installed(&last, "new", "1");
        assert!(failed || ended.is_err() || complete, "{moment}: {last:?}");
        if !disk.has_failed() {
            assert!(step > 40 && complete, "every step was refused: {step}");
            return;
        }
        it_converges(&installer, &directory, after(&server, "3"), &moment).await;
    }
    panic!("an offer has fewer than {STEPS_MAX} steps");
}

#[tokio::test]
async fn a_disk_on_which_nothing_can_be_written_is_told_and_changes_nothing() {
    let (server, directory, active) = (server().await, Directory::new(), Active::default());
    let installer = open(&directory, &Arc::new(Disk::new(Fault::None)), &active).unwrap();
    apply(&installer, before(&server)).await.unwrap();
    drop(installer);
    // Opening makes sure of three directories and sweeps; from then on nothing can be changed.
    let disk = Arc::new(Disk::new(Fault::FullFrom(5)));
    let installer = open(&directory, &disk, &active).unwrap();
    let (progress, reports) = silent();
    let error = installer.apply(after(&server, "2"), progress).await.unwrap_err();
    assert!(
        error.reason().contains("manifest") && error.reason().contains("free space"),
        "{}",
        error.reason()
    );
    let last = reports.latest().unwrap();
    assert!(why(&last, "x").contains("free space"), "{}", why(&last, "x"));
    assert_eq!(has(&last, "x").as_deref(), Some("1"));
    assert_eq!(in_use(&installer, "x").unwrap(), b"/x1");
}

/// Lets an agent end in the middle of the health check of what it is offered; on whose doing, the package does not know.
fn ends_while_it_checks(directory: &Directory, wanted: PackagesOffer) -> PackageStatuses {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let last = runtime.block_on(async {
        let begun = Arc::new(tokio::sync::Notify::new());
        let notify = Arc::clone(&begun);
        let installer = builder(directory)
            .health_check(move |_: PackageAt| {
                notify.notify_one();
                std::future::pending::<Result<(), opamp_client::Rejected>>()
            })
            .open()
            .unwrap();
        let (progress, reports) = silent();
        let applying = tokio::spawn(async move { installer.apply(wanted, progress).await });
        tokio::select! {
            ended = applying => ended.unwrap().unwrap(),
            () = begun.notified() => {}
        }
        reports.latest().unwrap()
    });
    runtime.shutdown_timeout(PATIENCE);
    last
}

#[test]
fn a_package_during_whose_installation_the_agent_ends_again_and_again_is_not_tried_for_ever() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(server());
    let directory = Directory::new();
    runtime.block_on(apply(&installer(&directory), offer("1", [("x", at(&server, "x", "1"))]))).unwrap();
    let wanted = |hash: &str| offer(hash, [("x", at(&server, "x", "2"))]);
    for _ in 0..3 {
        let last = ends_while_it_checks(&directory, wanted("2"));
        assert!(!last.get("x").unwrap().is_final(), "it is tried: {last:?}");
        let again = installer(&directory);
        let statuses = runtime.block_on(again.statuses());
        assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
        assert_eq!(statuses.received().as_bytes(), b"1", "so that it is offered again");
        assert_eq!(in_use(&again, "x").unwrap(), b"/x1");
    }
    let asked = server.count();
    let last = ends_while_it_checks(&directory, wanted("2"));
    assert!(why(&last, "x").contains("ended 3 times"), "{}", why(&last, "x"));
    assert_eq!(has(&last, "x").as_deref(), Some("1"));
    assert_eq!(server.count(), asked, "not even fetched");
    let last = ends_while_it_checks(&directory, offer("3", [("x", at(&server, "x", "3"))]));
    assert!(!last.get("x").unwrap().is_final(), "another version is another matter: {last:?}");
}
