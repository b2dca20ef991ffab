//! Disks that take their time: what is begun on one is done before anything else touches the same file, and nobody who only
//! looks waits for it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use opamp_client::packages::{FileSystem, LocalFiles, PackageStatus};

use crate::common::*;
use crate::server::{Body, Reply, Server};

/// Files of this machine; the first content that is written to a download or read from one, or the first note about one, waits
/// at a gate.
#[derive(Debug)]
struct Gated {
    at: Operation,
    gate: Gate,
    /// A download was touched while something waited there.
    overtaken: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Append,
    Note,
    Read,
}

#[derive(Debug, Default)]
struct Gate {
    /// Somebody waits, and whether that is over.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

/// Opens the gate also if the test fails, or its runtime would never end.
struct Opens(Arc<Gated>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.gate.open();
    }
}

impl Gate {
    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn is_held(&self) -> bool {
        matches!(*self.state.lock().unwrap(), (true, false))
    }

    /// The first one waits.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if !state.0 {
            state.0 = true;
            drop(self.changed.wait_while(state, |(_, open)| !*open).unwrap());
        }
    }
}

impl Gated {
    fn new(at: Operation) -> (Arc<Self>, Opens) {
        let gated = Arc::new(Self { at, gate: Gate::default(), overtaken: AtomicBool::new(false) });
        (Arc::clone(&gated), Opens(gated))
    }

    fn touch(&self, path: &Path) {
        let is_download = path.extension().is_some_and(|extension| extension == "part");
        if (is_download || path.ends_with("downloads")) && self.gate.is_held() {
            self.overtaken.store(true, Ordering::SeqCst);
        }
    }

    async fn held(&self) {
        let held = async {
            while !self.gate.is_held() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, held).await.expect("it comes to the gate");
    }
}

impl FileSystem for Gated {
    fn append(&self, path: &Path, from: u64, data: &[u8]) -> io::Result<()> {
        self.touch(path);
        if self.at == Operation::Append && !data.is_empty() {
            self.gate.pass();
        }
        LocalFiles.append(path, from, data)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        LocalFiles.create_directory(path)
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.touch(path);
        LocalFiles.entries(path)
    }

    fn is_directory(&self, path: &Path) -> io::Result<bool> {
        LocalFiles.is_directory(path)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.touch(path);
        LocalFiles.length(path)
    }

    fn link(&self, path: &Path, target: &OsStr) -> io::Result<()> {
        LocalFiles.link(path, target)
    }

    fn linked(&self, path: &Path) -> io::Result<Option<OsString>> {
        LocalFiles.linked(path)
    }

    fn publish(&self, path: &Path, executable: bool) -> io::Result<()> {
        LocalFiles.publish(path, executable)
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        self.touch(path);
        if self.at == Operation::Read && path.extension().is_some_and(|extension| extension == "part") {
            self.gate.pass();
        }
        LocalFiles.read(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalFiles.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalFiles.rename(from, to)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.touch(path);
        LocalFiles.sync(path)
    }

    fn sync_tree(&self, path: &Path) -> io::Result<()> {
        LocalFiles.sync_tree(path)
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if self.at == Operation::Note && path.extension().is_some_and(|extension| extension == "note") {
            self.gate.pass();
        }
        LocalFiles.write(path, data)
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_is_done_before_the_same_file_is_fetched_anew() {
    let content = vec![7; 400_000];
    let served = content.clone();
    let server = Server::start(move |request| Reply::file(request, &served, "\"a\"")).await;
    let directory = Directory::new();
    let (files, opens) = Gated::new(Operation::Append);
    let installer =
        builder(&directory).file_system(Arc::clone(&files) as Arc<dyn FileSystem>).open().unwrap();
    let of = |version: &str| offer(version, [("x", package(&server.url("/x"), "x", version, &content))]);

    let (progress, reports) = silent();
    let running = {
        let (installer, wanted) = (installer.clone(), of("1"));
        tokio::spawn(async move { installer.apply(wanted, progress).await })
    };
    files.held().await;
    reports.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it ends, the disk or not").unwrap().unwrap();

    let again = {
        let (installer, wanted) = (installer.clone(), of("2"));
        tokio::spawn(async move { apply(&installer, wanted).await })
    };
    // Long enough for the second to come to the file, if it did not wait.
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!files.overtaken.load(Ordering::SeqCst), "the first write may still land there");
    }
    drop(opens);
    let statuses = tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap().unwrap();
    assert!(is_installed(&statuses, "x", "2"), "{statuses:?}");
    assert_eq!(in_use(&installer, "x").unwrap(), content);
}

#[tokio::test]
async fn what_was_given_up_is_done_before_downloads_are_swept_and_leaves_nothing() {
    let stalls = |content: &[u8]| Reply::new(200, Body::Stalled(content[..2].to_vec(), content.len()));
    let server = Server::start(move |request| stalls(request.path.as_bytes())).await;
    let directory = Directory::new();
    let (files, opens) = Gated::new(Operation::Note);
    let installer =
        builder(&directory).file_system(Arc::clone(&files) as Arc<dyn FileSystem>).open().unwrap();
    let begin = |path: &'static str| {
        let (progress, reports) = silent();
        let wanted = offer(path, [("x", package(&server.url(path), "x", path, path.as_bytes()))]);
        let installer = installer.clone();
        (tokio::spawn(async move { installer.apply(wanted, progress).await }), reports)
    };

    let (running, reports) = begin("/first");
    files.held().await;
    reports.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it ends, the disk or not").unwrap().unwrap();

    let (running, reports) = begin("/second");
    // Long enough for the second to come to the sweep, if it did not wait.
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!files.overtaken.load(Ordering::SeqCst), "what is written now stays for ever");
    }
    drop(opens);
    let second = opamp_proto::ConfigHash::new(sha256(b"/second").to_vec()).to_hex();
    let begun = async {
        while !directory.names("packages/downloads").contains(&format!("{second}.part")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("it begins to download");
    reports.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it ends soon").unwrap().unwrap();
    let kept = directory.names("packages/downloads");
    assert!(kept.iter().all(|name| name.starts_with(&second)), "{kept:?}");
}

#[tokio::test]
async fn an_offer_that_waits_for_what_was_given_up_can_be_given_up_itself() {
    let server = Server::start(|request| Reply::file(request, request.path.as_bytes(), "\"a\"")).await;
    let directory = Directory::new();
    let (files, opens) = Gated::new(Operation::Note);
    let installer =
        builder(&directory).file_system(Arc::clone(&files) as Arc<dyn FileSystem>).open().unwrap();
    for (path, held) in [("/first", true), ("/second", false)] {
        let (progress, reports) = silent();
        let wanted = offer(path, [("x", package(&server.url(path), "x", path, path.as_bytes()))]);
        let installer = installer.clone();
        let running = tokio::spawn(async move { installer.apply(wanted, progress).await });
        if held {
            files.held().await;
        }
        reports.cancel();
        tokio::time::timeout(PATIENCE, running).await.expect("it ends, the disk or not").unwrap().unwrap();
    }
    drop(opens);
}

#[tokio::test]
async fn a_file_that_is_not_written_in_time_fails_the_offer_although_the_disk_hangs() {
    let server = Server::start(|request| Reply::file(request, request.path.as_bytes(), "\"a\"")).await;
    let directory = Directory::new();
    let (files, opens) = Gated::new(Operation::Append);
    let mut hasty = settings();
    hasty.download.total_timeout = Duration::from_millis(200);
    let installer = builder(&directory)
        .settings(hasty)
        .file_system(Arc::clone(&files) as Arc<dyn FileSystem>)
        .open()
        .unwrap();
    let wanted = offer("1", [("x", package(&server.url("/x"), "x", "1", b"/x"))]);
    let statuses = apply(&installer, wanted).await.unwrap();
    assert!(files.gate.is_held(), "the file is still being written");
    let failed = statuses.get("x").unwrap();
    assert!(matches!(failed, PackageStatus::Failed { .. }), "{failed:?}");
    drop(opens);
}

#[tokio::test]
async fn who_asks_where_a_package_is_does_not_wait_while_a_file_is_verified() {
    let server = Server::start(|request| Reply::file(request, request.path.as_bytes(), "\"a\"")).await;
    let directory = Directory::new();
    let (files, opens) = Gated::new(Operation::Read);
    let installer =
        builder(&directory).file_system(Arc::clone(&files) as Arc<dyn FileSystem>).open().unwrap();
    let running = {
        let wanted = offer("1", [("x", package(&server.url("/x"), "x", "1", b"/x"))]);
        let installer = installer.clone();
        tokio::spawn(async move { apply(&installer, wanted).await })
    };
    files.held().await;
    let asking = installer.clone();
    let asked = tokio::task::spawn_blocking(move || asking.installed("x"));
    let answer = tokio::time::timeout(Duration::from_secs(5), asked).await;
    drop(opens);
    assert!(answer.expect("an answer at once").unwrap().is_none(), "it is not there yet");
    let statuses = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
}
