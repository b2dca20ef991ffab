//! [`PackageStore`](crate::PackageStore), and records that refer to packages.

use super::Location;
use super::fixtures::*;
use crate::{
    AgentRecord, BlobId, CommitError, InvalidWrite, PackageKey, PackageKind, PackageVersion, Revision, Store,
    WriteBatch, sweep_unreferenced_blobs,
};

/// `package`, clause 1.
pub async fn a_package_reads_back(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(store.package(&key("collector", "1")).await.unwrap(), None);
    let add_on = PackageVersion {
        kind: PackageKind::AddOn,
        signature: None,
        size_bytes: u64::MAX,
        chunk_bytes: u32::MAX,
        revision: Revision(77),
        ..package(key("", "ß \"1\" \u{0}"), 1)
    };
    let small = PackageVersion { size_bytes: 1, ..add_on.clone() };
    let at = commit(&*store, |batch| {
        batch.put_blob(bytes(1));
        put_package(batch, key("collector", "1"), &[1, 1]);
        batch.put_package(small.clone(), vec![blob_id(1)]);
    })
    .await;
    let expected = PackageVersion { revision: at, ..package(key("collector", "1"), 2) };
    assert_eq!(store.package(&expected.key).await.unwrap(), Some(expected));
    let expected = PackageVersion { revision: at, ..small };
    assert_eq!(store.package(&expected.key).await.unwrap(), Some(expected));
    // Numbers that contradict each other, and what is too large.
    let mistakes = [
        (add_on, vec![blob_id(1)]),
        (package(key("a", "1"), 2), vec![blob_id(1)]),
        (PackageVersion { size_bytes: 0, ..package(key("a", "1"), 1) }, vec![]),
        (package(key("a", ""), 1), vec![blob_id(1)]),
        (package(key(&"a".repeat(256), "1"), 1), vec![blob_id(1)]),
        (
            PackageVersion { signature: Some(vec![0; 16_385].into()), ..package(key("a", "1"), 1) },
            vec![blob_id(1)],
        ),
        (package(key("a", "1"), 16_385), vec![blob_id(1); 16_385]),
    ];
    for (version, chunks) in mistakes {
        let error = refused(&*store, |batch| {
            batch.put_package(version, chunks);
        })
        .await;
        assert!(matches!(error, CommitError::Invalid(_)), "{error}");
    }
}

/// `package`, clause 2.
pub async fn a_package_version_is_immutable(location: &impl Location) {
    let store = location.open().await;
    let put = |batch: &mut WriteBatch| put_package(batch, key("collector", "1"), &[1]);
    let at = commit(&*store, |batch| {
        batch.put_blob(bytes(1));
        put(batch);
    })
    .await;
    let exists = CommitError::Invalid(InvalidWrite::PackageExists(key("collector", "1")));
    assert_eq!(refused(&*store, put).await, exists);
    let other = |batch: &mut WriteBatch| put_package(batch, key("collector", "1"), &[1, 1]);
    assert_eq!(refused(&*store, other).await, exists);
    let expected = PackageVersion { revision: at, ..package(key("collector", "1"), 1) };
    assert_eq!(store.package(&expected.key).await.unwrap(), Some(expected));
}

/// `package`, clause 3.
pub async fn a_deleted_package_is_gone(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, |batch| {
        (1..=3).for_each(|content| {
            batch.put_blob(bytes(content));
        });
        put_package(batch, key("collector", "1"), &[1, 2, 1]);
        put_package(batch, key("collector", "2"), &[2, 3]);
    })
    .await;
    commit(&*store, |batch| {
        batch.delete_package(key("collector", "1")).delete_package(key("never", "1"));
    })
    .await;
    assert_eq!(store.package(&key("collector", "1")).await.unwrap(), None);
    assert_eq!(store.package_chunks(&key("collector", "1"), 0, 10).await.unwrap(), []);
    assert_eq!(store.packages(None, 10).await.unwrap().items.len(), 1);
    assert_eq!(store.unreferenced_blobs(None, 10).await.unwrap().items, [blob_id(1)]);
    sweep_unreferenced_blobs(&*store, None).await.unwrap();
    assert_eq!(store.blob(&blob_id(1)).await.unwrap(), None);
    assert!(store.blob(&blob_id(2)).await.unwrap().is_some());
    commit(&*store, |batch| put_package(batch, key("collector", "1"), &[3])).await;
    assert_eq!(store.package_chunks(&key("collector", "1"), 0, 10).await.unwrap(), [blob_id(3)]);
}

/// `package`, clause 4.
pub async fn an_assigned_package_cannot_be_deleted(location: &impl Location) {
    let store = location.open().await;
    let (one, two) = (key("collector", "1"), key("collector", "2"));
    let having = |number, key: &PackageKey| AgentRecord {
        desired_packages: Some(packages([key.clone()])),
        ..agent(number)
    };
    commit(&*store, |batch| {
        batch.put_blob(bytes(1));
        put_package(batch, one.clone(), &[1]);
        put_package(batch, two.clone(), &[1]);
        batch.put_agent(having(2, &one)).put_agent(having(1, &one));
    })
    .await;
    let in_use = |key: &PackageKey, number| {
        let agent = agent_id(number);
        CommitError::PackageInUse { key: key.clone(), agent }
    };
    let delete = |batch: &mut WriteBatch| {
        batch.delete_package(one.clone());
    };
    assert_eq!(refused(&*store, delete).await, in_use(&one, 1));
    // Nor one that the same batch takes away, or gives.
    let take_away = |batch: &mut WriteBatch| {
        batch.delete_package(one.clone()).put_agent(agent(1)).delete_agent(agent_id(2));
    };
    assert_eq!(refused(&*store, take_away).await, in_use(&one, 1));
    let give = |batch: &mut WriteBatch| {
        batch.delete_package(two.clone()).put_agent(having(3, &two));
    };
    assert_eq!(refused(&*store, give).await, in_use(&two, 3));
    commit(&*store, |batch| {
        batch.put_agent(AgentRecord { uid: uid(50), ..having(1, &two) }).delete_agent(agent_id(2));
    })
    .await;
    commit(&*store, delete).await;
    assert_eq!(
        refused(&*store, |batch| {
            batch.delete_package(two.clone());
        })
        .await,
        in_use(&two, 1)
    );
    commit(&*store, |batch| {
        batch.put_agent(agent(1));
    })
    .await;
    commit(&*store, |batch| {
        batch.delete_package(two.clone());
    })
    .await;
}

/// `package`, clause 5.
pub async fn too_many_packages_are_refused(location: &impl Location) {
    let store = location.open().await;
    let put = |batch: &mut WriteBatch, number: usize| {
        put_package(batch, key("collector", &number.to_string()), &[1]);
    };
    let numbers: Vec<_> = (0..PackageVersion::PACKAGES_MAX).collect();
    for part in numbers.chunks(2_500) {
        commit(&*store, |batch| {
            batch.put_blob(bytes(1));
            part.iter().for_each(|number| put(batch, *number));
        })
        .await;
    }
    let error = refused(&*store, |batch| put(batch, numbers.len())).await;
    assert!(matches!(error, CommitError::Invalid(InvalidWrite::TooLarge { .. })), "{error}");
    commit(&*store, |batch| {
        batch.delete_package(key("collector", "7"));
    })
    .await;
    commit(&*store, |batch| put(batch, numbers.len())).await;
}

/// `packages`, clause 1.
pub async fn packages_are_paged_in_order(location: &impl Location) {
    let store = location.open().await;
    assert!(store.packages(None, 10).await.unwrap().items.is_empty());
    let names = ["", "a", "A", "a/b", "ab", "ß"];
    let mut keys: Vec<_> =
        names.iter().flat_map(|name| ["2", "10", "1.0", "ß"].map(|version| key(name, version))).collect();
    commit(&*store, |batch| {
        batch.put_blob(bytes(1));
        keys.iter().for_each(|key| put_package(batch, key.clone(), &[1]));
    })
    .await;
    keys.sort();
    for limit in [1, 2, 23, 24, 25] {
        let mut read = Vec::new();
        let mut after = None;
        loop {
            let page = store.packages(after, limit).await.unwrap();
            assert!(page.items.len() <= limit);
            read.extend(page.items.into_iter().map(|package| package.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(read, keys, "pages of {limit}");
    }
}

/// `package_chunks`, clause 1.
pub async fn chunks_are_read_by_range(location: &impl Location) {
    let store = location.open().await;
    let numbers: Vec<u64> = (0..50).map(|number| number % 7).collect();
    commit(&*store, |batch| {
        (0..7).for_each(|content| {
            batch.put_blob(bytes(content));
        });
        put_package(batch, key("collector", "1"), &numbers);
        put_package(batch, key("collector", "1.1"), &[3]);
    })
    .await;
    let expected: Vec<BlobId> = numbers.iter().map(|number| blob_id(*number)).collect();
    let read =
        async |key: &PackageKey, first: u64, limit| store.package_chunks(key, first, limit).await.unwrap();
    let collector = key("collector", "1");
    for (first, limit) in [(0, 50), (0, 1), (7, 7), (49, 10), (30, 20)] {
        let end = (first + limit).min(50);
        assert_eq!(read(&collector, first as u64, limit).await, expected[first..end]);
    }
    for beyond in [50, 51, u64::MAX] {
        assert_eq!(read(&collector, beyond, 10).await, []);
    }
    assert_eq!(read(&key("collector", "2"), 0, 10).await, []);
}

/// `commit`, clause 14.
pub async fn a_reference_to_a_missing_package_is_refused(location: &impl Location) {
    let store = location.open().await;
    let (one, two) = (key("collector", "1"), key("add-on", "2"));
    let refer = |batch: &mut WriteBatch| {
        let desired_packages = Some(packages([one.clone(), two.clone()]));
        batch.put_agent(AgentRecord { desired_packages, ..agent(1) });
    };
    let missing = |key: &PackageKey| CommitError::PackageMissing(key.clone());
    assert_eq!(refused(&*store, refer).await, missing(&one));
    commit(&*store, |batch| {
        batch.put_blob(bytes(1));
        put_package(batch, one.clone(), &[1]);
    })
    .await;
    assert_eq!(refused(&*store, refer).await, missing(&two));
    let delete_too = |batch: &mut WriteBatch| {
        refer(batch);
        batch.delete_package(two.clone());
    };
    assert_eq!(refused(&*store, delete_too).await, missing(&two));
    commit(&*store, |batch| {
        refer(batch);
        put_package(batch, two.clone(), &[1]);
    })
    .await;
    commit(&*store, refer).await;
    // No packages at all are nothing to miss.
    commit(&*store, |batch| {
        batch.put_agent(AgentRecord { desired_packages: Some(packages([])), ..agent(2) });
    })
    .await;
    stays(&*store, &one).await;
}

async fn stays(store: &dyn Store, key: &PackageKey) {
    assert!(store.package(key).await.unwrap().is_some());
}
