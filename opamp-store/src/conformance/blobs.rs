//! [`BlobStore`](crate::BlobStore): content addresses and what keeps blobs alive.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Location;
use super::fixtures::*;
use crate::{AgentRecord, BlobId, PAGE_MAX, Store, Swept, sweep_unreferenced_blobs};

/// `blob`, clause 1.
pub async fn a_blob_reads_back(location: &impl Location) {
    let store = location.open().await;
    let contents =
        [Bytes::new(), bytes(1), Bytes::from(vec![0; 100_000]), Bytes::from_static(&[255, 0, 254])];
    for content in &contents {
        assert_eq!(store.blob(&BlobId::of(content)).await.unwrap(), None);
        commit(&*store, |batch| assert_eq!(batch.put_blob(content.clone()), BlobId::of(content))).await;
        assert_eq!(store.blob(&BlobId::of(content)).await.unwrap().as_ref(), Some(content));
    }
}

/// `blob`, clause 2.
pub async fn equal_blobs_are_stored_once(location: &impl Location) {
    let store = location.open().await;
    let mut written = Vec::new();
    for round in 0..3 {
        let before = store.stats().rows_written;
        commit(&*store, |batch| {
            batch.put_blob(bytes(1));
            batch.put_blob(bytes(1));
            batch.append_audit(audit("a", round));
        })
        .await;
        written.push(store.stats().rows_written - before);
    }
    assert_eq!(written, [written[0], written[0] - 1, written[0] - 1]);
    assert_eq!(store.unreferenced_blobs(None, 10).await.unwrap().items, [blob_id(1)]);
}

/// `unreferenced_blobs`, clause 1.
pub async fn every_kind_of_reference_pins_a_blob(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, |batch| {
        (1..=6).for_each(|content| {
            batch.put_blob(bytes(content));
        });
        batch.put_agent(AgentRecord { effective_config: Some(blob_id(1)), ..agent(1) });
        batch.put_agent(AgentRecord { desired: Some(desired(2)), ..agent(2) });
        batch.put_agent(AgentRecord { desired_history: [desired(3), desired(2)].into(), ..agent(3) });
        batch.put_config_version(version("edge", 1, 4));
        let known_good = Some(hash(5));
        batch.put_agent(AgentRecord { desired: Some(desired(5)), last_known_good: known_good, ..agent(4) });
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [6].into());

    // The last known good config outlives desired config and history; a blob lives as long as its last reference.
    let keeps_known_good =
        AgentRecord { desired: Some(desired(1)), last_known_good: Some(hash(5)), ..agent(4) };
    commit(&*store, |batch| {
        batch.put_agent(keeps_known_good.clone()).put_agent(agent(1)).put_agent(agent(2));
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [6].into());
    let shuffled = AgentRecord { desired_history: [desired(3)].into(), ..keeps_known_good };
    commit(&*store, |batch| {
        batch.put_agent(shuffled.clone()).put_agent(agent(3));
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [2, 6].into());
    let forgets_known_good = AgentRecord { last_known_good: Some(hash(3)), ..shuffled };
    commit(&*store, |batch| {
        batch.put_agent(forgets_known_good);
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [2, 5, 6].into());
    commit(&*store, |batch| {
        batch.put_config_version(version("edge", 1, 6));
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [2, 4, 5].into());
    commit(&*store, |batch| {
        batch.delete_agent(agent_id(4));
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [1, 2, 3, 4, 5].into());

    let with_settings = AgentRecord { desired_settings: Some(settings(1)), ..agent(5) };
    commit(&*store, |batch| {
        batch.put_agent(with_settings);
        batch.put_agent(AgentRecord { components: Some(blob_id(2)), ..agent(6) });
        put_package(batch, key("collector", "1"), &[3, 4, 3]);
        put_package(batch, key("collector", "2"), &[4]);
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [5].into());
    commit(&*store, |batch| {
        batch.put_agent(agent(5)).put_agent(agent(6)).delete_package(key("collector", "1"));
    })
    .await;
    assert_eq!(unreferenced(&*store).await, [1, 2, 3, 5].into());

    // A history that moves on, is cut, is turned round and names one twice.
    let histories: [(&[u64], &[u64]); 6] = [
        (&[1, 2, 3], &[5]),
        (&[2, 3, 5], &[1]),
        (&[3, 5, 3], &[1, 2]),
        (&[5, 3, 1], &[2]),
        (&[1, 1], &[2, 3, 5]),
        (&[], &[1, 2, 3, 5]),
    ];
    for (history, left) in histories {
        let desired_history = history.iter().map(|content| desired(*content)).collect();
        commit(&*store, |batch| {
            batch.put_agent(AgentRecord { desired_history, ..agent(7) });
        })
        .await;
        assert_eq!(unreferenced(&*store).await, left.iter().copied().collect(), "{history:?}");
    }
}

/// `unreferenced_blobs`, clause 2.
pub async fn unreferenced_blobs_are_paged(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, |batch| {
        (0..50).for_each(|content| {
            batch.put_blob(bytes(content));
        });
        let history = (0..25).map(|content| desired(content * 2)).collect();
        batch.put_agent(AgentRecord { desired_history: history, ..agent(1) });
    })
    .await;
    let expected: BTreeSet<_> = (0..25).map(|content| blob_id(content * 2 + 1)).collect();
    for limit in [1, 7, 25, 26] {
        let mut read = Vec::new();
        let mut after = None;
        loop {
            let page = store.unreferenced_blobs(after, limit).await.unwrap();
            assert!(page.items.len() <= limit);
            read.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(read, expected.iter().copied().collect::<Vec<_>>());
    }
}

/// `unreferenced_blobs`, clause 3.
pub async fn deletion_spares_referenced_blobs(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, |batch| {
        (1..=5).for_each(|content| {
            batch.put_blob(bytes(content));
        });
        batch.put_agent(AgentRecord { effective_config: Some(blob_id(1)), ..agent(1) });
        batch.put_config_version(version("edge", 1, 2));
        batch.put_blob(bytes(6));
        batch.put_blob(bytes(7));
        put_package(batch, key("collector", "1"), &[6]);
        batch.put_agent(AgentRecord { desired_settings: Some(settings(7)), ..agent(3) });
    })
    .await;
    commit(&*store, |batch| {
        (1..=9).for_each(|content| {
            batch.delete_blob_if_unreferenced(blob_id(content));
        });
        // What the batch itself brings or refers to stays.
        batch.put_blob(bytes(3));
        batch.put_agent(AgentRecord { effective_config: Some(blob_id(4)), ..agent(2) });
    })
    .await;
    for (content, stays) in [(1, true), (2, true), (3, true), (4, true), (5, false), (6, true), (7, true)] {
        assert_eq!(store.blob(&blob_id(content)).await.unwrap().is_some(), stays, "blob {content}");
    }
    commit(&*store, |batch| {
        batch.delete_agent(agent_id(1));
    })
    .await;
    assert_eq!(sweep_unreferenced_blobs(&*store, None).await, Ok(Swept { blobs: 2 }));
    assert_eq!(unreferenced(&*store).await, [].into());
    for (content, stays) in [(1, false), (2, true), (3, false), (4, true), (6, true), (7, true)] {
        assert_eq!(
            store.blob(&blob_id(content)).await.unwrap().is_some(),
            stays,
            "blob {content} after the sweep"
        );
    }
}

/// The numbers of the unreferenced ones among the blobs 0 to 9.
async fn unreferenced(store: &dyn Store) -> BTreeSet<u64> {
    let ids = store.unreferenced_blobs(None, PAGE_MAX).await.unwrap().items;
    (0..10).filter(|number| ids.contains(&blob_id(*number))).collect()
}
