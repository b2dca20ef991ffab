//! Signatures: nothing is fetched, let alone installed, that nobody trusted has signed.

use opamp_client::packages::{Installer, PlainFile, SignaturePolicy};
use opamp_client::{ConfigHash, Proxy};
use opamp_proto::pb;

use crate::common::*;
use crate::server::{Reply, Server};

const CONTENT: &[u8] = b"#!/bin/sh\necho harmless\n";

async fn server() -> Server {
    Server::start(|request| Reply::file(request, CONTENT, "\"a\"")).await
}

/// What becomes of a package whose signature the test makes.
async fn refused(change: impl FnOnce(&mut pb::PackageAvailable)) -> String {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let mut package = package(&server.url("/x"), "x", "2", CONTENT);
    change(&mut package);
    let statuses = apply(&installer, offer("1", [("x", package)])).await.unwrap();
    assert_eq!(has(&statuses, "x"), None);
    assert_eq!(in_use(&installer, "x"), None);
    assert_eq!(server.count(), 0, "not even fetched");
    assert_eq!(directory.names("packages/packages"), [""; 0]);
    why(&statuses, "x")
}

fn signed_as(package: &mut pb::PackageAvailable, signature: Vec<u8>) {
    package.file.as_mut().unwrap().signature = signature.into();
}

#[tokio::test]
async fn an_unsigned_package_is_not_installed() {
    let why = refused(|package| signed_as(package, Vec::new())).await;
    assert!(why.contains("not signed"), "{why}");
}

#[tokio::test]
async fn a_signature_of_a_key_not_trusted_here_does_not_count() {
    let why = refused(|package| signed_as(package, Signer::new(2).sign("x", "2", CONTENT))).await;
    assert!(why.contains("not one of a key trusted"), "{why}");
}

#[tokio::test]
async fn the_signature_of_the_same_content_under_another_name_or_version_does_not_count() {
    refused(|package| signed_as(package, Signer::new(1).sign("y", "2", CONTENT))).await;
    refused(|package| signed_as(package, Signer::new(1).sign("x", "1", CONTENT))).await;
    refused(|package| signed_as(package, Signer::new(1).sign("", "x2", CONTENT))).await;
}

#[tokio::test]
async fn a_signature_of_other_content_does_not_count() {
    refused(|package| signed_as(package, Signer::new(1).sign("x", "2", b"other"))).await;
}

#[tokio::test]
async fn every_changed_byte_makes_a_signature_worthless() {
    let good = Signer::new(1).sign("x", "2", CONTENT);
    for byte in [0, 31, 32, 63] {
        let mut bad = good.clone();
        bad[byte] ^= 1;
        refused(|package| signed_as(package, bad)).await;
    }
    refused(|package| signed_as(package, good[..63].to_vec())).await;
    refused(|package| signed_as(package, [good.clone(), vec![0]].concat())).await;
}

#[tokio::test]
async fn a_tampered_file_is_not_installed_also_if_the_server_fits_its_hash_to_it() {
    // R-SEC-11: whoever has the server can change file and content_hash, and cannot sign.
    let evil = b"#!/bin/sh\nrm -rf /\n";
    let server = Server::start(|request| Reply::file(request, evil, "\"a\"")).await;
    let directory = Directory::new();
    let installer = installer(&directory);
    let mut package = package(&server.url("/x"), "x", "2", CONTENT);
    package.file.as_mut().unwrap().content_hash = sha256(evil).to_vec().into();
    let statuses = apply(&installer, offer("1", [("x", package)])).await.unwrap();
    assert!(why(&statuses, "x").contains("signature"));
    assert_eq!(in_use(&installer, "x"), None);
}

#[tokio::test]
async fn keys_can_be_replaced_with_an_overlap() {
    let (server, directory) = (server().await, Directory::new());
    let keys = [Signer::new(1).key(), Signer::new(2).key()];
    let installer =
        Installer::builder(directory.path(), SignaturePolicy::require(&provider(), keys).unwrap())
            .install(PlainFile::new(FILE))
            .proxy(Proxy::none())
            .settings(settings())
            .open()
            .unwrap();
    let with_old = package(&server.url("/x"), "x", "2", CONTENT);
    let mut with_new = package(&server.url("/y"), "y", "2", CONTENT);
    signed_as(&mut with_new, Signer::new(2).sign("y", "2", CONTENT));
    let statuses = apply(&installer, offer("1", [("x", with_old), ("y", with_new)])).await.unwrap();
    assert!(is_installed(&statuses, "x", "2") && is_installed(&statuses, "y", "2"), "{statuses:?}");
}

#[tokio::test]
async fn unsigned_packages_are_installed_only_where_that_was_asked_for() {
    let (server, directory) = (server().await, Directory::new());
    let installer = Installer::builder(directory.path(), SignaturePolicy::insecure_accept_unsigned())
        .install(PlainFile::new(FILE))
        .proxy(Proxy::none())
        .settings(settings())
        .open()
        .unwrap();
    let mut package = package(&server.url("/x"), "x", "2", CONTENT);
    signed_as(&mut package, Vec::new());
    let statuses = apply(&installer, offer("1", [("x", package)])).await.unwrap();
    assert!(is_installed(&statuses, "x", "2"), "{statuses:?}");
}

#[tokio::test]
async fn another_version_of_the_same_content_needs_a_signature_of_its_own() {
    let (server, directory) = (server().await, Directory::new());
    let installer = installer(&directory);
    let first = package(&server.url("/x"), "x", "2", CONTENT);
    apply(&installer, offer("1", [("x", first.clone())])).await.unwrap();
    let mut relabelled = first;
    relabelled.version = "9".into();
    relabelled.hash = ConfigHash::new("another").to_bytes();
    let statuses = apply(&installer, offer("2", [("x", relabelled.clone())])).await.unwrap();
    assert!(why(&statuses, "x").contains("signature"));
    assert_eq!(has(&statuses, "x").as_deref(), Some("2"));
    signed_as(&mut relabelled, Signer::new(1).sign("x", "9", CONTENT));
    let statuses = apply(&installer, offer("3", [("x", relabelled)])).await.unwrap();
    assert!(is_installed(&statuses, "x", "9"), "{statuses:?}");
    assert_eq!(server.count(), 1, "the content is the one that is there");
}
