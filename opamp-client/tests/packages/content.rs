//! Contents that are not what was offered.

use std::time::Duration;

use crate::common::*;
use crate::server::{Body, Reply, Server};

const OLD: &[u8] = b"the old version";
const NEW: &[u8] = b"the new version, of another length";

/// An installer that has version 1 of `x`, and a server whose answer to everything else the test decides.
async fn upgrade_from(
    script: impl Fn(&crate::server::Request) -> Reply + Send + Sync + 'static,
    change: impl FnOnce(&mut opamp_client::packages::InstallerSettings),
    content: &[u8],
) -> (Directory, Server, String) {
    let server = Server::start(move |request| match request.path.as_str() {
        "/old" => Reply::file(request, OLD, "\"old\""),
        _ => script(request),
    })
    .await;
    let directory = Directory::new();
    let mut settings = settings();
    change(&mut settings);
    let installer = builder(&directory).settings(settings).open().unwrap();
    let statuses =
        apply(&installer, offer("1", [("x", package(&server.url("/old"), "x", "1", OLD))])).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    let statuses = apply(&installer, offer("2", [("x", package(&server.url("/new"), "x", "2", content))]))
        .await
        .unwrap();
    let why = why(&statuses, "x");
    // R-PKG-27, R-PKG-31: what is there is there, and told.
    assert_eq!(has(&statuses, "x").as_deref(), Some("1"));
    assert_eq!(in_use(&installer, "x").as_deref(), Some(OLD));
    assert_eq!(directory.names("packages/staging"), [""; 0]);
    drop(installer);
    let statuses = builder(&directory).open().unwrap().statuses().await;
    assert_eq!(self::why(&statuses, "x"), why, "the failure is told after a restart too");
    assert_eq!(has(&statuses, "x").as_deref(), Some("1"));
    (directory, server, why)
}

#[tokio::test]
async fn a_file_with_another_hash_is_never_installed() {
    let (directory, server, why) =
        upgrade_from(|request| Reply::file(request, b"something else", "\"new\""), |_| {}, NEW).await;
    assert!(why.contains("SHA-256"), "{why}");
    assert_eq!(server.count(), 2, "it came in one piece, so another attempt would bring the same");
    assert_eq!(directory.names("packages/downloads"), [""; 0], "nothing of it is kept");
}

#[tokio::test]
async fn a_body_without_end_is_stopped_at_the_bound() {
    let limit = 100_000;
    let (directory, _server, why) = upgrade_from(
        |_| Reply::new(200, Body::Endless),
        |settings| settings.download.file_bytes_max = limit,
        NEW,
    )
    .await;
    assert!(why.contains("does not end") && why.contains("100000"), "{why}");
    let kept: u64 = std::fs::read_dir(directory.path().join("packages/downloads"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept <= limit + 1_000, "{kept}");
}

#[tokio::test]
async fn a_file_that_says_it_is_too_long_is_not_begun() {
    let (_directory, _server, why) = upgrade_from(
        |_| Reply::new(200, Body::Cut(Vec::new(), 1 << 40)),
        |settings| settings.download.file_bytes_max = 1_000,
        NEW,
    )
    .await;
    assert!(why.contains("1099511627776 bytes"), "{why}");
}

#[tokio::test]
async fn a_length_that_is_too_short_gives_no_file() {
    let (_directory, _server, why) =
        upgrade_from(|_| Reply::new(200, Body::Lying(NEW.to_vec(), NEW.len() - 1)), |_| {}, NEW).await;
    assert!(why.contains("SHA-256"), "{why}");
}

/// As many as bring nothing.
fn attempts() -> usize {
    settings().download.fruitless_max as usize
}

#[tokio::test]
async fn a_length_that_is_too_long_ends_after_a_bounded_number_of_attempts() {
    let (_directory, server, why) =
        upgrade_from(|_| Reply::new(200, Body::Lying(NEW.to_vec(), NEW.len() + 1)), |_| {}, NEW).await;
    assert!(why.contains("without progress"), "{why}");
    assert!(server.count() <= 1 + 1 + attempts(), "{}", server.count());
}

#[tokio::test]
async fn refusals_are_told_and_not_repeated_and_overload_is_tried_again_but_not_for_ever() {
    for (status, requests, word) in [
        (404, 1, "404"),
        (401, 1, "401"),
        (410, 1, "410"),
        (503, attempts(), "503"),
        (500, attempts(), "500"),
    ] {
        let (_directory, server, why) = upgrade_from(move |_| Reply::status(status), |_| {}, NEW).await;
        assert!(why.contains(word), "{why}");
        assert_eq!(server.count(), 1 + requests, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let impatient = |settings: &mut opamp_client::packages::InstallerSettings| {
        settings.download.idle_timeout = Duration::from_millis(50);
        settings.download.fruitless_max = 2;
    };
    let (_directory, _server, why) =
        upgrade_from(|_| Reply::new(200, Body::Stalled(Vec::new(), 100)), impatient, NEW).await;
    assert!(why.contains("silent"), "{why}");
}

#[tokio::test]
async fn a_file_that_never_gets_through_is_given_up_although_it_grows() {
    let content = vec![7; 1_000_000];
    let served = content.clone();
    let slow = move |request: &crate::server::Request| {
        Reply::ranged(request, &served, "\"a\"", |rest| Body::Cut(rest[..1].to_vec(), rest.len()))
    };
    let (_directory, server, why) =
        upgrade_from(slow, |settings| settings.download.total_timeout = Duration::from_millis(300), &content)
            .await;
    assert!(why.contains("did not end within"), "{why}");
    assert!(server.count() > 3);
}

#[tokio::test]
async fn a_file_that_is_coded_unasked_is_refused() {
    let (_directory, server, why) = upgrade_from(
        |request| Reply::file(request, NEW, "\"a\"").header("content-encoding", "gzip"),
        |_| {},
        NEW,
    )
    .await;
    assert!(why.contains("gzip"), "{why}");
    let asked = server.requests().pop().unwrap();
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    assert_eq!(asked.method, "GET", "R-PKG-13");
}
