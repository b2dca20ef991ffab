//! Where files may come from, and what is shown to whom.

use opamp_proto::pb;
use opamp_testkit::certs::Authority;

use crate::common::*;
use crate::server::{Reply, Request, Server};

const CONTENT: &[u8] = b"content";

fn with_headers(mut package: pb::PackageAvailable, headers: &[(&str, &str)]) -> pb::PackageAvailable {
    let header = |(key, value): &(&str, &str)| pb::Header { key: (*key).into(), value: (*value).into() };
    package.file.as_mut().unwrap().headers =
        Some(pb::Headers { headers: headers.iter().map(header).collect() });
    package
}

fn secret(url: &str) -> pb::PackageAvailable {
    with_headers(
        package(url, "x", "1", CONTENT),
        &[("Authorization", "Bearer secret"), ("X-Token", "secret")],
    )
}

fn shows_a_secret(request: &Request) -> bool {
    request.headers.values().any(|value| value.contains("secret"))
}

/// What becomes of the package when fetched from there.
async fn outcome(url: &str) -> Result<(), String> {
    let directory = Directory::new();
    let installer = installer(&directory);
    let statuses = apply(&installer, offer("1", [("x", secret(url))])).await.unwrap();
    if is_installed(&statuses, "x", "1") { Ok(()) } else { Err(why(&statuses, "x")) }
}

#[tokio::test]
async fn offered_headers_are_sent_and_shown_again_after_a_redirect_to_the_same_server() {
    let server = Server::start(|request| match request.path.as_str() {
        "/a" => Reply::redirect("/b"),
        _ if request.header("authorization") != Some("Bearer secret") => Reply::status(401),
        _ => Reply::file(request, CONTENT, "\"a\""),
    })
    .await;
    outcome(&server.url("/a")).await.unwrap();
    assert_eq!(server.paths(), ["/a", "/b"]);
    assert!(server.requests().iter().all(shows_a_secret), "R-PKG-14");
}

#[tokio::test]
async fn another_host_gets_the_file_and_no_credentials() {
    let other = Server::start(|request| Reply::file(request, CONTENT, "\"a\"")).await;
    let target = other.url("/there");
    let server = Server::start(move |_| Reply::redirect(&target)).await;
    outcome(&server.url("/x")).await.unwrap();
    assert!(server.requests().iter().all(shows_a_secret));
    assert!(!other.requests().iter().any(shows_a_secret), "another port is another server");
    assert_eq!(other.count(), 1);
}

#[tokio::test]
async fn credentials_come_back_with_the_server_they_are_for() {
    let other = Server::start(|request| {
        let back = request.path.trim_start_matches("/back-to/");
        Reply::redirect(&format!("http://127.0.0.1:{back}/file"))
    })
    .await;
    let there = other.url("/back-to/");
    let server = Server::start(move |request| match request.path.as_str() {
        "/file" => Reply::file(request, CONTENT, "\"a\""),
        _ => {
            let port = request.header("host").unwrap().rsplit_once(':').unwrap().1;
            Reply::redirect(&format!("{there}{port}"))
        }
    })
    .await;
    outcome(&server.url("/x")).await.unwrap();
    assert!(server.requests().iter().all(shows_a_secret) && !other.requests().iter().any(shows_a_secret));
}

#[tokio::test]
async fn redirects_in_circles_and_without_end_are_given_up() {
    let circle = Server::start(|request| match request.path.as_str() {
        "/a" => Reply::redirect("/b"),
        _ => Reply::redirect("/a"),
    })
    .await;
    assert!(outcome(&circle.url("/a")).await.unwrap_err().contains("circles"));
    assert_eq!(circle.count(), 2);
    let endless = Server::start(|request| Reply::redirect(&format!("{}x", request.path))).await;
    assert!(outcome(&endless.url("/a")).await.unwrap_err().contains("more than 5 redirects"));
    assert_eq!(endless.count(), 6);
    let nowhere = Server::start(|_| Reply::status(302)).await;
    assert!(outcome(&nowhere.url("/a")).await.unwrap_err().contains("without a location"));
}

#[tokio::test]
async fn tls_is_never_given_up_on_the_way() {
    let plain = Server::start(|request| Reply::file(request, CONTENT, "\"a\"")).await;
    let authority = Authority::new("packages");
    let target = plain.url("/x");
    let config = Authority::server_config(&authority.server(&["localhost"]));
    let server = Server::start_tls(config, move |_| Reply::redirect(&target)).await;
    let directory = Directory::new();
    let tls = opamp_client::TlsSource::new((*authority.client_config()).clone());
    // Plain HTTP is allowed here, and still this is no way down.
    let installer = builder(&directory).tls(tls).open().unwrap();
    let statuses = apply(&installer, offer("1", [("x", secret(&server.url("/x")))])).await.unwrap();
    assert!(why(&statuses, "x").contains("from TLS"), "{statuses:?}");
    assert_eq!((server.count(), plain.count()), (1, 0));
}

#[tokio::test]
async fn files_come_over_tls_from_whom_is_trusted() {
    let authority = Authority::new("packages");
    let config = Authority::server_config(&authority.server(&["localhost"]));
    let server = Server::start_tls(config, |request| Reply::file(request, CONTENT, "\"a\"")).await;
    let with = |authority: &Authority, directory: &Directory| {
        let tls = opamp_client::TlsSource::new((*authority.client_config()).clone());
        let mut strict = settings();
        strict.download.allow_plain_http = false;
        builder(directory).tls(tls).settings(strict).open().unwrap()
    };
    let directory = Directory::new();
    let wanted = || offer("1", [("x", secret(&server.url("/x")))]);
    let statuses = apply(&with(&authority, &directory), wanted()).await.unwrap();
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    let other = Directory::new();
    let statuses = apply(&with(&Authority::new("another"), &other), wanted()).await.unwrap();
    assert!(why(&statuses, "x").contains("authority not trusted"), "{statuses:?}");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn addresses_without_tls_are_refused_unless_allowed() {
    let server = Server::start(|request| Reply::file(request, CONTENT, "\"a\"")).await;
    let directory = Directory::new();
    let mut strict = settings();
    strict.download.allow_plain_http = false;
    let installer = builder(&directory).settings(strict).open().unwrap();
    let statuses =
        apply(&installer, offer("1", [("x", secret(&server.url("/x?token=secret")))])).await.unwrap();
    let why = why(&statuses, "x");
    assert!(why.contains("no TLS") && !why.contains("secret"), "{why}");
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn addresses_and_headers_that_make_no_sense_fail_the_package_and_show_no_secret() {
    for url in [
        "ftp://h/x",
        "ws://127.0.0.1:1/x",
        "file:///etc/passwd",
        "/etc/passwd",
        "http://user:secret@127.0.0.1:1/x",
        "http://h o/x",
    ] {
        let why = outcome(url).await.unwrap_err();
        assert!(why.contains("download_url") && !why.contains("secret"), "{url}: {why}");
    }
    let server = Server::start(|request| Reply::file(request, CONTENT, "\"a\"")).await;
    for header in [
        ("a b", "secret"),
        ("x", "secret\r\nevil: 1"),
        ("Host", "secret"),
        ("Range", "secret"),
        ("if-range", "secret"),
        ("Content-Length", "secret"),
    ] {
        let directory = Directory::new();
        let installer = installer(&directory);
        let package = with_headers(package(&server.url("/x"), "x", "1", CONTENT), &[header]);
        let statuses = apply(&installer, offer("1", [("x", package)])).await.unwrap();
        let why = why(&statuses, "x");
        assert!(!why.contains("secret"), "{why}");
    }
    assert_eq!(server.count(), 0);
}
