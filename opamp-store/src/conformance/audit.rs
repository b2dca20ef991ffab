//! [`AuditLog`](crate::AuditLog).

use futures::future::join_all;
use opamp_proto::Wall;

use super::Location;
use super::fixtures::*;
use crate::{AuditEntry, AuditOrder, AuditQuery, NewAuditEntry};

/// `audit`, clause 1.
pub async fn audit_entries_keep_their_order(location: &impl Location) {
    let store = location.open().await;
    for round in 0..4 {
        commit(&*store, |batch| {
            for number in 0..5 {
                batch.append_audit(audit(if number % 2 == 0 { "a" } else { "b" }, round * 5 + number));
            }
        })
        .await;
    }
    let entries = store.audit(AuditQuery::default()).await.unwrap().items;
    assert_eq!(entries.len(), 20);
    let mut heads = std::collections::BTreeMap::new();
    for (number, entry) in (0..).zip(&entries) {
        let new = audit(if number % 5 % 2 == 0 { "a" } else { "b" }, number);
        let prev_hash = heads.get(&new.writer).copied().unwrap_or_default();
        assert_eq!(*entry, AuditEntry::seal(new, number + 1, prev_hash));
        heads.insert(entry.writer.clone(), entry.hash);
    }
}

/// `audit`, clause 2.
pub async fn every_audit_filter_is_applied(location: &impl Location) {
    let store = location.open().await;
    let word = |number: u64, words: [&str; 3]| words[number as usize % 3].to_owned();
    commit(&*store, |batch| {
        for number in 0..27 {
            batch.append_audit(NewAuditEntry {
                actor: word(number, ["olga", "otto", "Olga"]),
                action: word(number / 3, ["config.publish", "config", "agent.delete"]),
                entity: word(number / 9, ["agent:1", "agent:10", "config:edge"]),
                at: Wall(1_000 + number),
                ..audit("a", number)
            });
        }
    })
    .await;
    let text = |text: &str| Some(text.to_owned());
    let all = AuditQuery::default;
    type Admits = fn(u64) -> bool;
    let cases: [(AuditQuery, Admits); 9] = [
        (all(), |_| true),
        (AuditQuery { actor: text("olga"), ..all() }, |number| number % 3 == 0),
        (AuditQuery { action: text("config"), ..all() }, |number| number / 3 % 3 == 1),
        (AuditQuery { entity: text("agent:1"), ..all() }, |number| number / 9 == 0),
        (AuditQuery { since: Some(Wall(1_005)), ..all() }, |number| number >= 5),
        (AuditQuery { until: Some(Wall(1_005)), ..all() }, |number| number < 5),
        (AuditQuery { since: Some(Wall(u64::MAX)), ..all() }, |_| false),
        (AuditQuery { until: Some(Wall(u64::MAX)), after: Some(20), ..all() }, |number| number >= 20),
        (
            AuditQuery {
                actor: text("otto"),
                action: text("config"),
                entity: text("agent:10"),
                since: Some(Wall(1_010)),
                until: Some(Wall(1_020)),
                ..all()
            },
            |number| number == 13,
        ),
    ];
    for (query, admits) in cases {
        for order in [AuditOrder::OldestFirst, AuditOrder::NewestFirst] {
            // `after` points the other way in the other order.
            if order == AuditOrder::NewestFirst && query.after.is_some() {
                continue;
            }
            let query = AuditQuery { order, ..query.clone() };
            let mut expected: Vec<_> =
                (0..27).filter(|number| admits(*number)).map(|number| number + 1).collect();
            if order == AuditOrder::NewestFirst {
                expected.reverse();
            }
            let page = store.audit(query.clone()).await.unwrap();
            let found: Vec<_> = page.items.iter().map(|entry| entry.seq).collect();
            assert_eq!(found, expected, "{query:?}");
        }
    }
}

/// `audit`, clause 3.
pub async fn audit_is_paged_both_ways(location: &impl Location) {
    let (reader, writer) = (location.open().await, location.open().await);
    commit(&*writer, |batch| {
        (0..23).for_each(|number| {
            batch.append_audit(audit("a", number));
        })
    })
    .await;
    for limit in [1, 2, 22, 23, 24] {
        let mut query = AuditQuery { order: AuditOrder::NewestFirst, limit, ..AuditQuery::default() };
        let newest = reader.audit(AuditQuery { limit: 1, ..query.clone() }).await.unwrap().items[0].seq;
        let mut read = Vec::new();
        loop {
            let page = reader.audit(query.clone()).await.unwrap();
            read.extend(page.items.iter().map(|entry| entry.seq));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
            // What is appended during a walk towards the past does not disturb it.
            commit(&*writer, |batch| {
                batch.append_audit(audit("b", 1));
            })
            .await;
        }
        assert_eq!(read, (1..=newest).rev().collect::<Vec<_>>());
    }
    let mut query = AuditQuery { limit: 5, ..AuditQuery::default() };
    let mut read = Vec::new();
    loop {
        let page = reader.audit(query.clone()).await.unwrap();
        read.extend(page.items.iter().map(|entry| entry.seq));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(read, (1..=read.len() as u64).collect::<Vec<_>>());
    assert_eq!(reader.verify().await.unwrap().entries, read.len() as u64);
}

/// `verify`, clause 1.
pub async fn audit_chains_are_per_writer_and_verify(location: &impl Location) {
    let stores = [location.open().await, location.open().await];
    let empty = stores[0].verify().await.unwrap();
    assert!(empty.is_intact() && empty.entries == 0 && empty.chains.is_empty());
    let commits = (0..60_u64).map(|number| {
        let store = &stores[number as usize % 2];
        let writer = ["a", "b", "c"][number as usize % 3];
        async move {
            commit(&**store, |batch| {
                batch.append_audit(audit(writer, number));
            })
            .await
        }
    });
    join_all(commits).await;
    let report = stores[0].verify().await.unwrap();
    assert_eq!((report.entries, &report.broken), (60, &None));
    assert_eq!(report.chains.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    for (writer, head) in &report.chains {
        let entries = stores[1].audit(AuditQuery::default()).await.unwrap().items;
        let last = entries.iter().rfind(|entry| entry.writer == *writer).unwrap();
        assert_eq!((head.length, head.seq, head.hash), (20, last.seq, last.hash));
    }
}
