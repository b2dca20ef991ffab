//! [`Store::commit`]: atomicity, visibility, revisions, conflicts.

use futures::future::join_all;
use serde_json::json;

use super::fixtures::*;
use super::{Dump, Location};
use crate::{
    CommitError, ConfigState, Fence, InvalidWrite, NewAuditEntry, PAGE_MAX, Precondition, Revision,
    ServerSecret, WriteBatch,
};

/// `commit`, clause 1.
pub async fn acknowledged_writes_are_visible_at_once(location: &impl Location) {
    let (one, other) = (location.open().await, location.open().await);
    for number in 1..20 {
        let revision = put_agents(&*one, [number]).await;
        for store in [&one, &other] {
            assert_eq!(store.agent(&agent_id(number)).await.unwrap().unwrap().revision, revision);
            assert_eq!(store.changed_since(Revision::default(), 1).await.unwrap().records.len(), 1);
        }
    }
}

/// `commit`, clause 2.
pub async fn revisions_grow_with_every_commit(location: &impl Location) {
    let stores = [location.open().await, location.open().await];
    let mut last = Revision::default();
    for number in 0..10 {
        let revision = put_agents(&*stores[number as usize % 2], [number]).await;
        assert_eq!(revision, last.next());
        last = revision;
    }
    let commits = (100..140_u64).map(|number| {
        let store = &stores[number as usize % 2];
        async move { (number, put_agents(&**store, [number]).await) }
    });
    let mut revisions = join_all(commits).await;
    for (number, revision) in &revisions {
        assert_eq!(stores[0].agent(&agent_id(*number)).await.unwrap().unwrap().revision, *revision);
    }
    revisions.sort_by_key(|(_, revision)| *revision);
    for (_, revision) in revisions {
        assert_eq!(revision, last.next());
        last = revision;
    }
}

/// `commit`, clause 3.
pub async fn checkpoints_alone_make_no_revision(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(revision(&*store).await, Revision(0));
    let put = put_agents(&*store, [1, 2]).await;
    assert_eq!(revision(&*store).await, put);
    let checkpointed = commit(&*store, |batch| {
        batch.checkpoints([checkpoint(1, 5), checkpoint(2, 6)]);
    })
    .await;
    assert_eq!(checkpointed, put);
    assert_eq!(store.agent(&agent_id(1)).await.unwrap().unwrap().revision, put);
    assert!(store.changed_since(put, PAGE_MAX).await.unwrap().records.is_empty());
}

/// `commit`, clause 4.
pub async fn failed_commit_leaves_nothing(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, fill).await;
    let before = Dump::of(&*store, 3).await;
    let spoilers: [fn(&mut WriteBatch); 11] = [
        |batch| {
            batch.require(Precondition::AgentAbsent(agent_id(1)));
        },
        |batch| {
            batch.require(Precondition::AgentAt(agent_id(1), Revision(99)));
        },
        |batch| {
            batch.put_agent(crate::AgentRecord { uid: uid(1), ..agent(77) });
        },
        |batch| {
            batch.put_agent(crate::AgentRecord { effective_config: Some(blob_id(404)), ..agent(77) });
        },
        |batch| {
            batch.put_config_version(version("edge", 404, 404));
        },
        |batch| {
            batch.put_config_version(version("published", 1, 2));
        },
        |batch| {
            batch.put_token(token("thief", 3));
        },
        |batch| {
            batch.put_config_version(version("", 1, 1));
        },
        |batch| {
            batch.delete_package(key("collector", "1"));
        },
        |batch| put_package(batch, key("collector", "1"), &[1]),
        |batch| {
            let desired_packages = Some(packages([key("never", "1")]));
            batch.put_agent(crate::AgentRecord { desired_packages, ..agent(77) });
        },
    ];
    for (index, spoil) in spoilers.into_iter().enumerate() {
        let error = refused(&*store, |batch| {
            change_everything(batch);
            spoil(batch);
        })
        .await;
        assert!(!matches!(error, CommitError::OutcomeUnknown(_)), "{index}: {error}");
        assert_eq!(Dump::of(&*store, 3).await, before, "after {index}: {error}");
        assert_eq!(store.secret("downloads").await.unwrap().unwrap().expose(), [1]);
    }
    let fence = Some(Fence { role: "leader".into(), epoch: 1 });
    let stale = store.commit(batch(change_everything), fence).await;
    assert!(matches!(stale, Err(CommitError::StaleFence { .. })), "{stale:?}");
    assert_eq!(Dump::of(&*store, 3).await, before);
    // Without a spoiler the same batch is good.
    commit(&*store, change_everything).await;
    assert_ne!(Dump::of(&*store, 3).await, before);
}

/// `commit`, clause 6.
pub async fn one_of_many_conflicting_commits_wins(location: &impl Location) {
    let stores = [location.open().await, location.open().await];
    let mut at = put_agents(&*stores[0], [1]).await;
    for round in 0..5 {
        let attempts = (0..16_u64).map(|attempt| {
            let mut batch = WriteBatch::new();
            batch.require(Precondition::AgentAt(agent_id(1), at));
            batch.put_agent(crate::AgentRecord { desired_generation: round * 100 + attempt, ..agent(1) });
            stores[attempt as usize % 2].commit(batch, None)
        });
        let results = join_all(attempts).await;
        let winners: Vec<_> = (0_u64..).zip(&results).filter(|(_, result)| result.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let record = stores[1].agent(&agent_id(1)).await.unwrap().unwrap();
        assert_eq!(record.desired_generation, round * 100 + winners[0].0);
        let conflict = CommitError::Precondition(Precondition::AgentAt(agent_id(1), at));
        assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|error| *error == conflict));
        at = record.revision;
    }
}

/// `commit`, clause 7.
pub async fn a_refused_commit_takes_no_other_with_it(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, [0]).await;
    let commits = (1..=60_u64).map(|number| {
        let mut batch = WriteBatch::new();
        batch.put_agent(agent(number)).append_audit(audit("a", number));
        match number % 6 {
            0 => {
                batch.require(Precondition::AgentAbsent(agent_id(0)));
            }
            3 => {
                batch.put_agent(crate::AgentRecord { effective_config: Some(blob_id(404)), ..agent(1_000) });
            }
            _ => (),
        }
        store.commit(batch, None)
    });
    let results = join_all(commits).await;
    for (number, result) in (1..).zip(results) {
        let good = number % 3 != 0;
        assert_eq!(result.is_ok(), good, "{number}: {result:?}");
        assert_eq!(store.agent(&agent_id(number)).await.unwrap().is_some(), good);
    }
    let report = store.verify().await.unwrap();
    assert_eq!((report.entries, report.broken), (40, None));
}

/// Something in every aggregate.
fn fill(batch: &mut WriteBatch) {
    for content in 1..=4 {
        batch.put_blob(bytes(content));
    }
    put_package(batch, key("collector", "1"), &[1, 2]);
    put_package(batch, key("collector", "2"), &[2]);
    batch.put_secret("downloads".into(), ServerSecret::new(vec![1]));
    batch.put_agent(full_agent(1)).put_agent(agent(2)).put_agent(agent(3));
    batch.checkpoints([checkpoint(1, 10), checkpoint(2, 20)]);
    batch.put_config_version(version("edge", 1, 1));
    batch.put_config_version(crate::ConfigVersion {
        state: ConfigState::Published,
        ..version("published", 1, 1)
    });
    batch.put_token(token("a", 1)).append_audit(audit("a", 1)).append_audit(audit("b", 2));
}

/// A change in every aggregate of what `fill` made.
fn change_everything(batch: &mut WriteBatch) {
    batch.put_blob(bytes(50));
    batch.put_agent(agent(1)).delete_agent(agent_id(2)).put_agent(agent(50));
    batch.checkpoints([checkpoint(1, 11), checkpoint(3, 30), checkpoint(50, 1)]);
    batch.put_config_version(version("edge", 1, 2)).put_config_version(version("edge", 2, 50));
    batch.put_token(token("a", 2)).put_token(token("b", 3));
    batch.delete_package(key("collector", "2"));
    put_package(batch, key("collector", "3"), &[50]);
    batch.put_secret("downloads".into(), ServerSecret::new(vec![2]));
    batch.append_audit(audit("a", 50));
    batch.append_audit(NewAuditEntry { after: Some(json!({"name": "new"})), ..audit("c", 51) });
    batch.delete_blob_if_unreferenced(blob_id(3));
}

/// `commit`, clause 10.
pub async fn oversized_batches_are_refused(location: &impl Location) {
    let store = location.open().await;
    let too_large = |error| matches!(error, CommitError::Invalid(InvalidWrite::TooLarge { .. }));
    let out_of_range = |error| matches!(error, CommitError::Invalid(InvalidWrite::OutOfRange { .. }));
    let deletions = |count: usize| {
        move |batch: &mut WriteBatch| {
            (0..count as u64).for_each(|number| {
                batch.delete_agent(agent_id(number));
            });
        }
    };
    commit(&*store, deletions(WriteBatch::OPS_MAX)).await;
    assert!(too_large(refused(&*store, deletions(WriteBatch::OPS_MAX + 1)).await));
    let checkpoints = |count: usize| {
        move |batch: &mut WriteBatch| {
            batch.checkpoints((0..count as u64).map(|number| checkpoint(number, 1)));
        }
    };
    commit(&*store, checkpoints(WriteBatch::CHECKPOINTS_MAX)).await;
    assert!(too_large(refused(&*store, checkpoints(WriteBatch::CHECKPOINTS_MAX + 1)).await));
    let error = refused(&*store, |batch| {
        batch.put_blob(bytes::Bytes::from(vec![0; WriteBatch::BYTES_MAX]));
    })
    .await;
    assert!(too_large(error));
    for length in [0, WriteBatch::NAME_BYTES_MAX + 1] {
        let name = "n".repeat(length);
        assert!(out_of_range(
            refused(&*store, |batch| {
                batch.idempotency_key(name.clone());
            })
            .await
        ));
        assert!(out_of_range(
            refused(&*store, |batch| {
                batch.put_token(token(&name, 1));
            })
            .await
        ));
        let config = |batch: &mut WriteBatch| {
            batch.put_blob(bytes(1));
            batch.put_config_version(version(&name, 1, 1));
        };
        assert!(out_of_range(refused(&*store, config).await));
    }
    for number in [0, crate::ConfigVersion::VERSION_MAX + 1] {
        let config = |batch: &mut WriteBatch| {
            batch.put_blob(bytes(1));
            batch.put_config_version(version("edge", number, 1));
        };
        assert!(out_of_range(refused(&*store, config).await));
    }
}
