//! [`Store::health`], [`Store::close`], limits of pages.

use super::fixtures::*;
use super::{Dump, Location};
use crate::{
    Acquired, AuditQuery, CommitError, LeaseError, PAGE_MAX, ReadError, Revision, Unhealthy, WriteBatch,
};

/// `health`, clause 1.
pub async fn an_open_store_is_healthy(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(store.health().await, Ok(()));
    put_agents(&*store, [1]).await;
    assert_eq!(store.health().await, Ok(()));
}

/// `close`, clause 1.
pub async fn a_closed_store_says_so(location: &impl Location) {
    let store = location.open().await;
    let other = location.open().await;
    put_agents(&*store, [1]).await;
    let Acquired::Mine(lease) = store.acquire("leader", "me", LONG).await.unwrap() else { panic!("taken") };
    drop(store.close());
    assert_eq!(store.health().await, Ok(()), "an order that nobody waits for is none");
    store.close().await;
    store.close().await;
    assert_eq!(store.health().await, Err(Unhealthy::Closed));
    assert_eq!(store.commit(WriteBatch::new(), None).await, Err(CommitError::Closed));
    assert_eq!(store.agent(&agent_id(1)).await, Err(ReadError::Closed));
    assert_eq!(store.agent_by_uid(&uid(1)).await, Err(ReadError::Closed));
    assert_eq!(store.agents(None, 1).await, Err(ReadError::Closed));
    assert_eq!(store.changed_since(Revision(0), 1).await, Err(ReadError::Closed));
    assert_eq!(store.checkpoints(None, 1).await, Err(ReadError::Closed));
    assert_eq!(store.blob(&blob_id(1)).await, Err(ReadError::Closed));
    assert_eq!(store.unreferenced_blobs(None, 1).await, Err(ReadError::Closed));
    assert_eq!(store.config_names(None, 1).await, Err(ReadError::Closed));
    assert_eq!(store.versions("edge").await, Err(ReadError::Closed));
    assert_eq!(store.version("edge", 1).await, Err(ReadError::Closed));
    assert_eq!(store.package(&key("collector", "1")).await, Err(ReadError::Closed));
    assert_eq!(store.packages(None, 1).await, Err(ReadError::Closed));
    assert_eq!(store.package_chunks(&key("collector", "1"), 0, 1).await, Err(ReadError::Closed));
    assert_eq!(store.secret("downloads").await, Err(ReadError::Closed));
    assert_eq!(store.audit(AuditQuery::default()).await, Err(ReadError::Closed));
    assert_eq!(store.verify().await, Err(ReadError::Closed));
    assert_eq!(store.token("a").await, Err(ReadError::Closed));
    assert_eq!(store.token_by_secret_hash(&[1; 32]).await, Err(ReadError::Closed));
    assert_eq!(store.tokens().await, Err(ReadError::Closed));
    assert_eq!(store.lease("leader").await, Err(ReadError::Closed));
    assert_eq!(store.acquire("leader", "me", LONG).await, Err(LeaseError::Closed));
    assert_eq!(store.renew(&lease, LONG).await, Err(LeaseError::Closed));
    assert_eq!(store.release(&lease).await, Err(LeaseError::Closed));
    // Another handle on the same data is not affected.
    assert!(other.agent(&agent_id(1)).await.unwrap().is_some());
}

/// `close`, clause 2.
pub async fn everything_is_there_after_reopening(location: &impl Location) {
    let store = location.open().await;
    for round in 0..5_u64 {
        commit(&*store, |batch| {
            for content in 1..=4 {
                batch.put_blob(bytes(content));
            }
            batch.put_blob(bytes(100 + round));
            let number = if round == 0 { "1".to_owned() } else { format!("1.{round}") };
            put_package(batch, key("collector", &number), &[100 + round, 1, 100 + round]);
            batch.put_secret("downloads".into(), crate::ServerSecret::new(vec![round as u8; 40]));
            batch.put_agent(full_agent(round)).put_agent(agent(10 + round)).delete_agent(agent_id(9 + round));
            batch.checkpoints([checkpoint(round, 10 + round), checkpoint(10 + round, 1)]);
            batch.put_config_version(version("edge", 1 + round as u32, 100 + round));
            batch.put_token(token(&format!("t{round}"), round as u8));
            batch.append_audit(audit("a", round)).append_audit(audit("b", round));
            batch.idempotency_key(format!("round {round}"));
        })
        .await;
    }
    let Acquired::Mine(lease) = store.acquire("leader", "me", LONG).await.unwrap() else { panic!("taken") };
    let before = Dump::of(&*store, 3).await;
    let at = revision(&*store).await;
    store.close().await;

    let store = location.open().await;
    assert_eq!(Dump::of(&*store, 2).await, before);
    assert_eq!(revision(&*store).await, at);
    let secret = store.secret("downloads").await.unwrap().unwrap();
    assert_eq!(secret.expose(), [4; 40]);
    assert_eq!(store.lease("leader").await.unwrap().map(|lease| lease.epoch), Some(lease.epoch));
    // Keys, chains and revisions go on where they were.
    let replay = |batch: &mut WriteBatch| {
        batch.put_agent(agent(77)).idempotency_key("round 3".into());
    };
    assert_eq!(commit(&*store, replay).await, Revision(4));
    assert_eq!(
        commit(&*store, |batch| {
            batch.append_audit(audit("a", 9));
        })
        .await,
        at.next()
    );
    assert_eq!(store.verify().await.unwrap().broken, None);
}

/// `agents`, clause 3, and all other listings.
pub async fn page_limits_are_clamped(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, 0..PAGE_MAX as u64 + 1).await;
    commit(&*store, |batch| {
        (0..PAGE_MAX as u64 + 1).for_each(|number| {
            batch.put_blob(bytes(number));
        });
        batch.checkpoints((0..PAGE_MAX as u64 + 1).map(|number| checkpoint(number, 1)));
        (0..PAGE_MAX as u64 + 1).for_each(|number| {
            batch.append_audit(audit("a", number));
        });
    })
    .await;
    commit(&*store, |batch| {
        for number in 0..PAGE_MAX as u64 + 1 {
            batch.put_config_version(version(&format!("config {number}"), 1, 0));
            put_package(batch, key("collector", &number.to_string()), &[0]);
        }
    })
    .await;
    let chunks = vec![0; PAGE_MAX + 1];
    commit(&*store, |batch| put_package(batch, key("large", "1"), &chunks)).await;
    let after = |limit| AuditQuery { limit, ..AuditQuery::default() };
    for (limit, expected) in [(0, 1), (1, 1), (PAGE_MAX, PAGE_MAX), (usize::MAX, PAGE_MAX)] {
        assert_eq!(store.agents(None, limit).await.unwrap().items.len(), expected);
        assert_eq!(store.checkpoints(None, limit).await.unwrap().items.len(), expected);
        assert_eq!(store.unreferenced_blobs(None, limit).await.unwrap().items.len(), expected);
        assert_eq!(store.audit(after(limit)).await.unwrap().items.len(), expected);
        assert_eq!(store.config_names(None, limit).await.unwrap().items.len(), expected);
        assert_eq!(store.packages(None, limit).await.unwrap().items.len(), expected);
        assert_eq!(store.package_chunks(&key("large", "1"), 0, limit).await.unwrap().len(), expected);
    }
}
