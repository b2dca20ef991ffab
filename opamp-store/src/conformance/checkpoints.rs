//! Checkpoints.

use opamp_proto::AgentId;

use super::Location;
use super::fixtures::*;
use crate::{Checkpoint, PAGE_MAX, Store};

/// `stats`, clause 1.
pub async fn checkpoints_are_packed(location: &impl Location) {
    const AGENTS: u64 = 3_000;
    const ROUNDS: u64 = 5;
    let store = location.open().await;
    put_agents(&*store, 0..AGENTS).await;
    let before = store.stats();
    for round in 0..ROUNDS {
        commit(&*store, |batch| {
            batch.checkpoints((0..AGENTS).map(|number| checkpoint(number, round)));
        })
        .await;
    }
    let after = store.stats();
    assert_eq!(after.commits - before.commits, ROUNDS);
    assert_eq!(after.rows_written, before.rows_written, "rows beyond checkpoints");
    assert_eq!(after.checkpoints_written - before.checkpoints_written, AGENTS * ROUNDS);
    let rows = after.checkpoint_rows_written - before.checkpoint_rows_written;
    assert!((1..=AGENTS * ROUNDS / 100).contains(&rows), "{rows} rows for {} checkpoints", AGENTS * ROUNDS);
}

/// `checkpoints`, clause 1.
pub async fn checkpoints_read_back_in_id_order(location: &impl Location) {
    const AGENTS: u64 = 2_500;
    let store = location.open().await;
    put_agents(&*store, 0..AGENTS).await;
    // Ascending, descending, and scattered over what is there already.
    let orders: [Vec<u64>; 3] = [
        (0..1_000).collect(),
        (1_000..AGENTS).rev().collect(),
        (0..AGENTS).map(|number| number * 7 % AGENTS).step_by(3).collect(),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (round, numbers) in (1_u64..).zip(orders) {
        for numbers in numbers.chunks(300) {
            let checkpoints = numbers.iter().map(|number| checkpoint(*number, round * 10_000 + number));
            expected.extend(checkpoints.clone().map(|checkpoint| (checkpoint.id, checkpoint)));
            commit(&*store, |batch| {
                batch.checkpoints(checkpoints);
            })
            .await;
        }
    }
    let expected: Vec<_> = expected.into_values().collect();
    for limit in [1, 511, 512, 513, PAGE_MAX] {
        let pages = if limit == 1 { 700 } else { usize::MAX };
        let read = walk(&*store, limit, pages).await;
        assert_eq!(read, expected[..read.len()]);
        assert!(read.len() == expected.len() || read.len() == 700);
    }
    let page = store.checkpoints(Some(agent_id(AGENTS - 1)), 10).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
}

/// `checkpoints`, clause 2.
pub async fn checkpoints_need_a_record(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, |batch| {
        batch.checkpoints([checkpoint(1, 1)]);
    })
    .await;
    assert!(store.checkpoints(None, 10).await.unwrap().items.is_empty());
    // A record in the same batch is enough, a deletion in it is not.
    commit(&*store, |batch| {
        batch.put_agent(agent(1)).put_agent(agent(2)).put_agent(agent(3));
        batch.checkpoints([checkpoint(1, 1), checkpoint(2, 2), checkpoint(9, 9)]);
    })
    .await;
    assert_eq!(store.checkpoints(None, 10).await.unwrap().items, [checkpoint(1, 1), checkpoint(2, 2)]);
    commit(&*store, |batch| {
        batch.delete_agent(agent_id(1)).checkpoints([checkpoint(1, 5), checkpoint(2, 5), checkpoint(3, 5)]);
    })
    .await;
    assert_eq!(store.checkpoints(None, 10).await.unwrap().items, [checkpoint(2, 5), checkpoint(3, 5)]);
    commit(&*store, |batch| {
        batch.delete_agent(agent_id(2)).delete_agent(agent_id(3));
    })
    .await;
    assert!(store.checkpoints(None, 10).await.unwrap().items.is_empty());
}

async fn walk(store: &dyn Store, limit: usize, pages: usize) -> Vec<Checkpoint> {
    let mut checkpoints = Vec::new();
    let mut after: Option<AgentId> = None;
    for _ in 0..pages {
        let page = store.checkpoints(after, limit).await.unwrap();
        assert!(page.items.len() <= limit);
        checkpoints.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    checkpoints
}
