use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_fleet::manager::{
    FleetManager, ManagerSettings, NewPackage, PackageError, PackageSettings, StoreFailure,
};
use opamp_server::InsecureAcceptEveryone;
use opamp_store::{
    AuditQuery, BlobId, BlobStore as _, MemoryStore, PackageKey, PackageKind, PackageStore as _,
    PackageVersion, Store,
};
use sha2::{Digest as _, Sha256};

use super::flaky::*;
use super::support::*;

const MIB: usize = 1 << 20;

/// Bytes of which no two chunks are equal.
pub(crate) fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8 ^ (at / MIB) as u8).collect::<Vec<_>>().into()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn new(name: &str, version: &str) -> NewPackage {
    NewPackage {
        key: PackageKey::new(name, version),
        kind: PackageKind::TopLevel,
        expected_sha256: None,
        signature: None,
    }
}

/// Publishes a package in pieces of a size.
pub(crate) async fn publish(
    manager: &FleetManager,
    package: NewPackage,
    content: &Bytes,
    piece: usize,
) -> Result<PackageVersion, PackageError> {
    let mut upload = manager.begin_package(&operator(), package).await?;
    for start in (0..content.len()).step_by(piece) {
        upload.write(content.slice(start..content.len().min(start + piece))).await?;
    }
    assert_eq!(upload.size_bytes(), content.len() as u64);
    upload.finish().await
}

pub(crate) async fn process_with(store: Arc<dyn Store>, packages: PackageSettings) -> Process {
    let settings = ManagerSettings {
        packages,
        blob_sweep_interval: Duration::from_secs(600),
        ..ManagerSettings::default()
    };
    Process::start_with(store, &clock(), Arc::new(InsecureAcceptEveryone), settings).await
}

async fn read_back(manager: &FleetManager, version: &PackageVersion) -> Vec<u8> {
    let mut read = Vec::new();
    let mut index = 0;
    while let Some(chunk) = manager.package_chunk(version, index).await.unwrap() {
        assert!(chunk.len() <= version.chunk_bytes as usize);
        read.extend_from_slice(&chunk);
        index += 1;
    }
    read
}

/// R-PKG-49, R-PKG-52: `content_hash` is the SHA-256 of what is served, and a range is read without the rest.
#[tokio::test(start_paused = true)]
async fn content_reads_back_chunk_by_chunk_however_it_was_cut_when_it_came() {
    let process = process_with(Arc::new(MemoryStore::new()), PackageSettings::default()).await;
    let sizes = [1, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 17];
    for (number, size) in sizes.into_iter().enumerate() {
        for piece in [100_003, MIB, size] {
            let content = content(size);
            let package = NewPackage {
                kind: PackageKind::AddOn,
                expected_sha256: Some(sha256(&content)),
                signature: Some(Bytes::from_static(b"signature")),
                ..new("add-on", &format!("1.{number}.{piece}"))
            };
            let Ok(version) = publish(&process.manager, package.clone(), &content, piece).await else {
                assert_eq!(piece, size, "the size is one of the pieces before");
                continue;
            };
            assert_eq!((version.size_bytes, version.content_sha256), (size as u64, sha256(&content)));
            assert_eq!((version.kind, version.signature.clone()), (PackageKind::AddOn, package.signature));
            assert_eq!(version.created_by, "olivia");
            assert_eq!(read_back(&process.manager, &version).await, content);
            assert_eq!(process.manager.package(&version.key).await.unwrap(), Some(version.clone()));
            // One chunk is read without the others.
            let last = version.chunk_count() - 1;
            let chunk = process.manager.package_chunk(&version, last).await.unwrap().unwrap();
            assert_eq!(chunk, content.slice(last as usize * MIB..));
            assert_eq!(process.manager.package_chunk(&version, last + 1).await, Ok(None));
        }
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn content_that_is_not_what_was_meant_is_not_published() {
    let packages = PackageSettings { file_bytes_max: 1_000, ..PackageSettings::default() };
    let store = MemoryStore::new();
    let process = process_with(Arc::new(store.clone()), packages).await;
    let manager = &process.manager;
    let wrong = NewPackage { expected_sha256: Some([7; 32]), ..new("collector", "1") };
    let error = publish(manager, wrong, &content(10), 10).await.unwrap_err();
    assert!(matches!(error, PackageError::WrongHash { .. }), "{error}");
    let error = publish(manager, new("collector", "1"), &content(1_001), 300).await.unwrap_err();
    assert_eq!(error, PackageError::TooLarge { bytes_max: 1_000 });
    let empty = manager.begin_package(&operator(), new("collector", "1")).await.unwrap();
    assert_eq!(empty.finish().await, Err(PackageError::Empty));
    // Nothing goes on after a mistake.
    let mut upload = manager.begin_package(&operator(), new("collector", "1")).await.unwrap();
    assert!(upload.write(content(1_001)).await.is_err());
    assert_eq!(upload.write(content(1)).await, Err(PackageError::Aborted));
    assert_eq!(upload.finish().await, Err(PackageError::Aborted));
    assert!(manager.packages(None, 10).await.unwrap().items.is_empty());
    publish(manager, new("collector", "1"), &content(1_000), 300).await.unwrap();
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn names_versions_and_signatures_are_checked_before_anything_is_taken() {
    let process = process_with(Arc::new(MemoryStore::new()), PackageSettings::default()).await;
    let begin = async |package| process.manager.begin_package(&operator(), package).await.map(drop);
    let long = "a".repeat(129);
    for name in [".", "-a", "a b", "a/b", "ä", "a@1", "a\n", &long] {
        assert_eq!(begin(new(name, "1")).await, Err(PackageError::Name), "{name}");
    }
    for version in ["", "-1", "1 2", "1/2", "1@2", "ä", &long] {
        assert_eq!(begin(new("a", version)).await, Err(PackageError::Version), "{version}");
    }
    let signature = Some(Bytes::from(vec![0; 16 * 1024 + 1]));
    let refused = begin(NewPackage { signature, ..new("a", "1") }).await;
    assert_eq!(refused, Err(PackageError::Signature { bytes_max: 16 * 1024 }));
    for (name, version) in [("", "1"), ("Otel.col_1-x", "v1.2.3-rc.1+build~7"), (&long[1..], &long[1..])] {
        assert_eq!(begin(new(name, version)).await, Ok(()), "{name} {version}");
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_published_version_cannot_change() {
    let process = process_with(Arc::new(MemoryStore::new()), PackageSettings::default()).await;
    let manager = &process.manager;
    let first = content(10);
    // Two at the same time: one wins.
    let mut one = manager.begin_package(&operator(), new("collector", "1")).await.unwrap();
    let mut two = manager.begin_package(&operator(), new("collector", "1")).await.unwrap();
    one.write(first.clone()).await.unwrap();
    two.write(content(20)).await.unwrap();
    let published = one.finish().await.unwrap();
    let exists = PackageError::Exists(PackageKey::new("collector", "1"));
    assert_eq!(two.finish().await.unwrap_err(), exists);
    let again = manager.begin_package(&operator(), new("collector", "1")).await.map(drop);
    assert_eq!(again.unwrap_err(), exists);
    assert_eq!(read_back(manager, &published).await, first);
    let entries = process.audit("package.publish").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].entity.as_str(), entries[0].actor.as_str()), ("package:collector@1", "olivia"));
    let after = entries[0].after.as_ref().unwrap();
    let hash = data_encoding::HEXLOWER.encode(&sha256(&first));
    assert_eq!((&after["size_bytes"], &after["content_sha256"]), (&10.into(), &hash.into()));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn uploads_and_versions_are_bounded() {
    let packages = PackageSettings { uploads_max: 2, versions_max: 3, ..PackageSettings::default() };
    let process = process_with(Arc::new(MemoryStore::new()), packages).await;
    let begin = async |version: &str| process.manager.begin_package(&operator(), new("a", version)).await;
    let one = begin("1").await.unwrap();
    let two = begin("2").await.unwrap();
    assert_eq!(begin("3").await.map(drop), Err(PackageError::TooManyUploads { max: 2 }));
    drop(one);
    let three = begin("3").await.unwrap();
    drop((two, three));
    for version in ["1", "2", "3"] {
        publish(&process.manager, new("a", version), &content(10), 10).await.unwrap();
    }
    assert_eq!(begin("4").await.map(drop), Err(PackageError::TooMany { max: 3 }));
    process.manager.delete_package(&operator(), &PackageKey::new("a", "2")).await.unwrap();
    publish(&process.manager, new("a", "4"), &content(10), 10).await.unwrap();
    let listed = process.manager.packages(None, 10).await.unwrap().items;
    assert_eq!(
        listed.iter().map(|package| package.key.version.as_str()).collect::<Vec<_>>(),
        ["1", "3", "4"]
    );
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn all_packages_together_are_bounded_those_under_way_included() {
    let bytes_max = 3 * MIB as u64;
    let packages = PackageSettings { total_bytes_max: bytes_max, ..PackageSettings::default() };
    let process = process_with(Arc::new(MemoryStore::new()), packages).await;
    let manager = &process.manager;
    let begin = async |version: &str| manager.begin_package(&operator(), new("a", version)).await;
    let no_room = PackageError::NoRoom { bytes_max };
    publish(manager, new("a", "1"), &content(MIB), MIB).await.unwrap();
    let (mut two, mut three) = (begin("2").await.unwrap(), begin("3").await.unwrap());
    two.write(content(MIB)).await.unwrap();
    three.write(content(MIB)).await.unwrap();
    assert_eq!(
        begin("4").await.map(drop),
        Err(no_room.clone()),
        "nothing more fits beside what is under way"
    );
    assert_eq!(two.write(content(MIB)).await, Err(no_room.clone()), "each chunk is looked at");
    drop(two);
    three.write(content(MIB)).await.unwrap();
    // Less than a chunk is looked at with the last one.
    three.write(content(1)).await.unwrap();
    assert_eq!(three.finish().await, Err(no_room.clone()));
    publish(manager, new("a", "3"), &content(2 * MIB), MIB).await.unwrap();
    assert_eq!(begin("4").await.map(drop), Err(no_room));
    manager.delete_package(&operator(), &PackageKey::new("a", "1")).await.unwrap();
    publish(manager, new("a", "4"), &content(MIB), MIB).await.unwrap();
    process.stop().await;
}

/// Otherwise one answer would be made of two files.
#[tokio::test(start_paused = true)]
async fn a_version_that_was_published_anew_is_not_read_as_the_one_before() {
    let process = process_with(Arc::new(MemoryStore::new()), PackageSettings::default()).await;
    let manager = &process.manager;
    let before = publish(manager, new("a", "1"), &content(2 * MIB), MIB).await.unwrap();
    assert!(manager.package_chunk(&before, 0).await.unwrap().is_some());
    manager.delete_package(&operator(), &before.key).await.unwrap();
    let other = Bytes::from(vec![7; 2 * MIB]);
    let after = publish(manager, new("a", "1"), &other, MIB).await.unwrap();
    let read = manager.package_chunk(&before, 1).await.unwrap();
    assert!(read.is_none(), "of the same length, and not the same");
    assert_eq!(read_back(manager, &after).await, other);
    process.stop().await;
}

/// The sweep of blobs nothing refers to runs beside a slow upload, whose first chunks nothing refers to yet.
#[tokio::test(start_paused = true)]
async fn an_upload_outlives_sweeps_and_one_that_is_given_up_leaves_nothing() {
    let store = MemoryStore::new();
    let process = process_with(Arc::new(store.clone()), PackageSettings::default()).await;
    let (kept, left) = (content(2 * MIB), Bytes::from(vec![9; 2 * MIB]));
    let mut finished = process.manager.begin_package(&operator(), new("a", "1")).await.unwrap();
    let mut given_up = process.manager.begin_package(&operator(), new("a", "2")).await.unwrap();
    finished.write(kept.slice(..MIB)).await.unwrap();
    given_up.write(left.slice(..MIB)).await.unwrap();
    let left_id = BlobId::of(&left[..MIB]);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert!(store.blob(&left_id).await.unwrap().is_some(), "it is still under way");
    drop(given_up);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(store.blob(&left_id).await.unwrap(), None);
    finished.write(kept.slice(MIB..)).await.unwrap();
    let version = finished.finish().await.unwrap();
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(read_back(&process.manager, &version).await, kept);
    // What is deleted goes with the next sweep.
    process.manager.delete_package(&operator(), &version.key).await.unwrap();
    assert_eq!(process.manager.package_chunk(&version, 0).await, Ok(None));
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert!(store.unreferenced_blobs(None, 10).await.unwrap().items.is_empty());
    assert_eq!(store.blob(&BlobId::of(&kept[..MIB])).await.unwrap(), None);
    let gone = process.manager.delete_package(&operator(), &version.key).await;
    assert_eq!(gone, Err(PackageError::NotFound(version.key)));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_chunks_another_process_swept_is_not_published_with_a_hole() {
    let store = MemoryStore::new();
    let process = process_with(Arc::new(store.clone()), PackageSettings::default()).await;
    let mut upload = process.manager.begin_package(&operator(), new("a", "1")).await.unwrap();
    upload.write(content(MIB + 1)).await.unwrap();
    opamp_store::sweep_unreferenced_blobs(&store, None).await.unwrap();
    assert_eq!(upload.finish().await, Err(PackageError::ContentLost));
    assert!(process.manager.packages(None, 10).await.unwrap().items.is_empty());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_ends_an_upload_and_publishes_nothing() {
    let store = Flaky::new();
    let process = process_with(store.clone(), PackageSettings::default()).await;
    let mut upload = process.manager.begin_package(&operator(), new("a", "1")).await.unwrap();
    upload.write(content(MIB)).await.unwrap();
    store.set(DOWN);
    let error = upload.write(content(MIB)).await.unwrap_err();
    assert!(matches!(error, PackageError::Store(StoreFailure::Unavailable(_))), "{error}");
    store.set(WORKS);
    assert_eq!(upload.write(content(MIB)).await, Err(PackageError::Aborted), "bytes are missing");
    drop(upload);
    assert_eq!(store.package(&PackageKey::new("a", "1")).await.unwrap(), None);
    // Written, and nobody said so: the call is repeated under its idempotency key.
    let mut upload = process.manager.begin_package(&operator(), new("a", "1")).await.unwrap();
    upload.write(content(10)).await.unwrap();
    store.set(FORGETS);
    assert!(upload.finish().await.is_ok());
    let query = AuditQuery { action: Some("package.publish".to_owned()), ..AuditQuery::default() };
    assert_eq!(process.manager.audit(query).await.unwrap().items.len(), 1);
    process.stop().await;
}
