//! [`AgentStore::changed_since`](crate::AgentStore::changed_since).

use std::collections::BTreeSet;

use futures::future::{join_all, join3};
use opamp_proto::AgentId;

use super::Location;
use super::fixtures::*;
use crate::{AgentRecord, Changes, PAGE_MAX, Revision, Store};

/// `changed_since`, clause 1.
pub async fn changes_come_in_revision_order(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(store.changed_since(Revision(0), 10).await.unwrap(), Changes::default());
    for number in [5, 3, 9, 1] {
        put_agents(&*store, [number]).await;
    }
    put_agents(&*store, [3]).await;
    let changed = |changes: Changes| changes.records.iter().map(|record| record.id).collect::<Vec<_>>();
    for (since, expected) in
        [(0, vec![5, 9, 1, 3]), (1, vec![9, 1, 3]), (4, vec![3]), (5, vec![]), (99, vec![])]
    {
        let changes = store.changed_since(Revision(since), 10).await.unwrap();
        assert_eq!(changed(changes), expected.into_iter().map(agent_id).collect::<Vec<_>>(), "since {since}");
    }
    assert!(store.changed_since(Revision(u64::MAX), 10).await.unwrap().records.is_empty());
}

/// `changed_since`, clause 2.
pub async fn changes_never_split_a_commit(location: &impl Location) {
    let store = location.open().await;
    for round in 0..4 {
        put_agents(&*store, (0..=round).map(|number| round * 10 + number)).await;
    }
    for limit in 1..12 {
        let mut since = Revision(0);
        let mut seen = 0;
        loop {
            let changes = store.changed_since(since, limit).await.unwrap();
            seen += changes.records.len();
            for revision in changes.records.iter().map(|record| record.revision) {
                let together = changes.records.iter().filter(|record| record.revision == revision);
                // The commit with revision r wrote r agents.
                assert_eq!(together.count() as u64, revision.0);
                assert!(since < revision && revision <= changes.upto);
            }
            since = changes.upto;
            if !changes.more {
                break;
            }
            assert!(changes.records.len() >= limit);
        }
        assert_eq!((seen, since), (10, Revision(4)));
    }
}

/// `changed_since`, clause 3: two writers, and a reader that follows them.
pub async fn no_change_appears_behind_a_reader(location: &impl Location) {
    const EACH: u64 = 150;
    let writers = [location.open().await, location.open().await];
    let reader = location.open().await;
    // Each agent is written once, so a change that became visible behind the reader would be missing in the end.
    let write = |writer: usize| {
        let store = &writers[writer];
        async move {
            for step in 0..EACH / 3 {
                let numbers = (0..3).map(|part| 1 + (step * 3 + part) * 2 + writer as u64);
                join_all(numbers.map(|number| put_agents(&**store, [number]))).await;
            }
            put_agents(&**store, [1_000 + writer as u64]).await;
        }
    };
    let mut follower = Follower::default();
    let ends = [agent_id(1_000), agent_id(1_001)];
    let follow = async {
        while !ends.iter().all(|end| follower.seen.contains(end)) {
            follower.step(&*reader).await;
        }
    };
    join3(write(0), write(1), follow).await;
    follower.step(&*reader).await;
    assert_eq!(follower.seen.len() as u64, 2 * EACH + 2);
    assert_eq!(reader.agents(None, PAGE_MAX).await.unwrap().items.len(), follower.seen.len());
}

/// `changed_since`, clause 4.
pub async fn changes_catch_up_without_agents(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, [1]).await;
    let mut at = Revision(0);
    for number in 1..5 {
        at = commit(&*store, |batch| {
            batch.append_audit(audit("a", number));
        })
        .await;
    }
    let changes = store.changed_since(Revision(0), 10).await.unwrap();
    assert_eq!((changes.records.len(), changes.upto, changes.more), (1, at, false));
    assert_eq!(
        store.changed_since(at, 10).await.unwrap(),
        Changes { records: vec![], upto: at, more: false }
    );
}

/// `changed_since`, clause 5.
pub async fn deleted_agents_are_not_among_the_changes(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, [1, 2]).await;
    let at = commit(&*store, |batch| {
        batch.delete_agent(agent_id(1));
    })
    .await;
    let changes = store.changed_since(Revision(0), 10).await.unwrap();
    let left = AgentRecord { revision: Revision(1), ..agent(2) };
    assert_eq!(changes, Changes { records: vec![left], upto: at, more: false });
}

#[derive(Default)]
struct Follower {
    upto: Revision,
    seen: BTreeSet<AgentId>,
}

impl Follower {
    async fn step(&mut self, store: &dyn Store) {
        let changes = store.changed_since(self.upto, 4).await.unwrap();
        assert!(changes.upto >= self.upto);
        for record in changes.records {
            assert!(record.revision > self.upto && record.revision <= changes.upto);
            assert!(self.seen.insert(record.id), "written once, seen twice");
        }
        self.upto = changes.upto;
    }
}
