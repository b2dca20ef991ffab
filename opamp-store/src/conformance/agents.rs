//! [`AgentStore`](crate::AgentStore): records, uids, paging.

use std::collections::BTreeMap;

use opamp_proto::AgentId;

use super::Location;
use super::fixtures::*;
use crate::{AgentRecord, CommitError, Revision, Store};

/// `agent`, clause 1.
pub async fn an_agent_reads_back_as_committed(location: &impl Location) {
    let store = location.open().await;
    let lie = Revision(77);
    let at = commit(&*store, |batch| {
        (1..=4).for_each(|content| {
            batch.put_blob(bytes(content));
        });
        put_package(batch, key("collector", "1"), &[1]);
        batch.put_agent(AgentRecord { revision: lie, ..full_agent(1) }).put_agent(agent(2));
    })
    .await;
    let expected = AgentRecord { revision: at, ..full_agent(1) };
    assert_eq!(store.agent(&agent_id(1)).await.unwrap().as_deref(), Some(&expected));
    assert_eq!(store.agent_by_uid(&uid(1)).await.unwrap().as_deref(), Some(&expected));
    let other = AgentRecord { revision: at, ..agent(2) };
    assert_eq!(store.agent(&agent_id(2)).await.unwrap().as_deref(), Some(&other));
    assert_eq!(store.agents(None, 1).await.unwrap().items, [expected]);
    // Replacing forgets what the newer record does not have.
    let at = put_agents(&*store, [1]).await;
    let replaced = AgentRecord { revision: at, ..agent(1) };
    assert_eq!(store.agent(&agent_id(1)).await.unwrap().as_deref(), Some(&replaced));
}

/// `agent`, clause 2.
pub async fn a_deleted_agent_is_gone(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(store.agent(&agent_id(1)).await.unwrap(), None);
    put_agents(&*store, [1, 2]).await;
    commit(&*store, |batch| {
        batch.checkpoints([checkpoint(1, 1), checkpoint(2, 2)]);
    })
    .await;
    commit(&*store, |batch| {
        batch.delete_agent(agent_id(1)).delete_agent(agent_id(99));
    })
    .await;
    assert_eq!(store.agent(&agent_id(1)).await.unwrap(), None);
    assert_eq!(store.agent_by_uid(&uid(1)).await.unwrap(), None);
    assert_eq!(store.agents(None, 10).await.unwrap().items.len(), 1);
    assert_eq!(store.checkpoints(None, 10).await.unwrap().items, [checkpoint(2, 2)]);
    // It can come back, without its checkpoint.
    put_agents(&*store, [1]).await;
    assert!(store.agent_by_uid(&uid(1)).await.unwrap().is_some());
    assert_eq!(store.checkpoints(None, 10).await.unwrap().items, [checkpoint(2, 2)]);
}

/// `agent_by_uid`, clause 1.
pub async fn only_the_present_uid_finds_an_agent(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, [1]).await;
    let moved = AgentRecord { uid: uid(50), previous_uids: vec![(uid(1), agent(1).first_seen)], ..agent(1) };
    commit(&*store, |batch| {
        batch.put_agent(moved);
    })
    .await;
    assert_eq!(store.agent_by_uid(&uid(1)).await.unwrap(), None);
    assert_eq!(store.agent_by_uid(&uid(50)).await.unwrap().map(|record| record.id), Some(agent_id(1)));
    // The former uid is free for another agent.
    commit(&*store, |batch| {
        batch.put_agent(AgentRecord { uid: uid(1), ..agent(2) });
    })
    .await;
    assert_eq!(store.agent_by_uid(&uid(1)).await.unwrap().map(|record| record.id), Some(agent_id(2)));
}

/// `agent_by_uid`, clause 2.
pub async fn the_uid_of_another_agent_is_refused(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, [1]).await;
    let thief = AgentRecord { uid: uid(1), ..agent(2) };
    let error = refused(&*store, |batch| {
        batch.put_agent(thief.clone());
    })
    .await;
    assert_eq!(error, CommitError::UidTaken { uid: uid(1), owner: agent_id(1) });
    let twins = |batch: &mut crate::WriteBatch| {
        batch.put_agent(AgentRecord { uid: uid(7), ..agent(3) });
        batch.put_agent(AgentRecord { uid: uid(7), ..agent(4) });
    };
    assert_eq!(refused(&*store, twins).await, CommitError::UidTaken { uid: uid(7), owner: agent_id(3) });
    let owner_stays = |batch: &mut crate::WriteBatch| {
        batch.put_agent(thief.clone()).put_agent(agent(1));
    };
    assert!(matches!(refused(&*store, owner_stays).await, CommitError::UidTaken { .. }));
    // When the owner goes in the same batch, the uid is free.
    commit(&*store, |batch| {
        batch.put_agent(thief.clone()).delete_agent(agent_id(1));
    })
    .await;
    assert_eq!(store.agent_by_uid(&uid(1)).await.unwrap().map(|record| record.id), Some(agent_id(2)));
}

/// `agent_by_uid`, clause 3.
pub async fn uids_can_be_swapped_in_one_batch(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, [1, 2, 3]).await;
    let at = commit(&*store, |batch| {
        for (number, takes) in [(1, 2), (2, 3), (3, 1)] {
            batch.put_agent(AgentRecord { uid: uid(takes), ..agent(number) });
        }
    })
    .await;
    for (number, owner) in [(1, 3), (2, 1), (3, 2)] {
        let record = store.agent_by_uid(&uid(number)).await.unwrap();
        assert_eq!(record.as_deref(), Some(&AgentRecord { uid: uid(number), revision: at, ..agent(owner) }));
    }
    assert_eq!(store.agents(None, 10).await.unwrap().items.len(), 3);
}

/// `agents`, clause 1.
pub async fn agents_are_paged_in_id_order(location: &impl Location) {
    let store = location.open().await;
    let page = store.agents(None, 10).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
    put_agents(&*store, (0..25).rev().map(|number| number * 3)).await;
    for limit in [1, 2, 24, 25, 26] {
        let ids: Vec<_> = walk(&*store, limit).await.iter().map(|record| record.id).collect();
        assert_eq!(ids, (0..25).map(|number| agent_id(number * 3)).collect::<Vec<_>>());
    }
    let page = store.agents(Some(agent_id(4)), 1).await.unwrap();
    assert_eq!((page.items[0].id, page.next), (agent_id(6), Some(agent_id(6))));
    let last = store.agents(Some(agent_id(71)), 1).await.unwrap();
    assert_eq!((last.items[0].id, last.next), (agent_id(72), None));
    assert!(store.agents(Some(agent_id(72)), 1).await.unwrap().items.is_empty());
}

/// `agents`, clause 2.
pub async fn agent_paging_is_stable_under_writes(location: &impl Location) {
    let (reader, writer) = (location.open().await, location.open().await);
    let lasting = (0..60).map(|number| number * 10);
    put_agents(&*writer, lasting.clone()).await;
    let mut seen = BTreeMap::<AgentId, u32>::new();
    let mut after = None;
    for round in 0.. {
        let page = reader.agents(after, 7).await.unwrap();
        page.items.iter().for_each(|record| *seen.entry(record.id).or_default() += 1);
        after = page.next;
        if after.is_none() {
            break;
        }
        // Before the next page: insert everywhere, delete what was inserted, rewrite everything that lasts.
        put_agents(&*writer, lasting.clone().map(|number| number + 1 + round % 9)).await;
        commit(&*writer, |batch| {
            lasting.clone().for_each(|number| {
                batch.delete_agent(agent_id(number + 1 + (round + 5) % 9));
            });
        })
        .await;
        put_agents(&*writer, lasting.clone()).await;
    }
    for number in lasting {
        assert_eq!(seen.get(&agent_id(number)), Some(&1), "agent {number}");
    }
    assert!(seen.values().all(|times| *times == 1));
}

async fn walk(store: &dyn Store, limit: usize) -> Vec<AgentRecord> {
    let mut records = Vec::new();
    let mut after = None;
    loop {
        let page = store.agents(after, limit).await.unwrap();
        assert!(page.items.len() <= limit);
        assert!(page.next.is_none() || page.items.len() == limit);
        records.extend(page.items);
        after = page.next;
        if after.is_none() {
            return records;
        }
    }
}
