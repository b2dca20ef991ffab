//! [`Store::commit`]: preconditions, idempotency keys, fences, references.

use std::time::Duration;

use futures::future::join;

use super::Location;
use super::fixtures::*;
use crate::{Acquired, AgentRecord, CommitError, Fence, Precondition, Revision, ServerSecret, WriteBatch};

/// `commit`, clause 5.
pub async fn each_precondition_is_judged(location: &impl Location) {
    let store = location.open().await;
    let at = commit(&*store, |batch| {
        batch.put_blob(bytes(1));
        batch.put_agent(agent(1)).put_config_version(version("edge", 1, 1)).put_token(token("a", 1));
        batch.put_secret("downloads".into(), ServerSecret::new(vec![1]));
        put_package(batch, key("collector", "1"), &[1]);
    })
    .await;
    let absent = |config: &str, version| Precondition::ConfigVersionAbsent { config: config.into(), version };
    let package_at = |version, revision| Precondition::PackageAt(key("collector", version), revision);
    let version_at =
        |version, revision| Precondition::ConfigVersionAt { config: "edge".into(), version, revision };
    let cases = [
        (Precondition::AgentAbsent(agent_id(2)), Precondition::AgentAbsent(agent_id(1))),
        (Precondition::AgentAt(agent_id(1), at), Precondition::AgentAt(agent_id(1), at.next())),
        (Precondition::AgentAt(agent_id(1), at), Precondition::AgentAt(agent_id(2), at)),
        (Precondition::UidFree(uid(2)), Precondition::UidFree(uid(1))),
        (absent("edge", 2), absent("edge", 1)),
        (absent("core", 1), absent("edge", 1)),
        (version_at(1, at), version_at(1, Revision(0))),
        (version_at(1, at), version_at(2, at)),
        (Precondition::TokenAbsent("b".into()), Precondition::TokenAbsent("a".into())),
        (Precondition::SecretAbsent("other".into()), Precondition::SecretAbsent("downloads".into())),
        (
            Precondition::PackageAbsent(key("collector", "2")),
            Precondition::PackageAbsent(key("collector", "1")),
        ),
        (package_at("1", at), package_at("1", at.next())),
        (package_at("1", at), package_at("2", at)),
    ];
    for (holds, fails) in cases {
        commit(&*store, |batch| {
            batch.require(holds.clone());
        })
        .await;
        let error = refused(&*store, |batch| {
            batch.require(holds).require(fails.clone());
        })
        .await;
        assert_eq!(error, CommitError::Precondition(fails));
    }
    // The state before counts, not what the batch itself brings.
    commit(&*store, |batch| {
        batch.put_agent(agent(2)).require(Precondition::AgentAbsent(agent_id(2)));
    })
    .await;
    let uid_of_two = Precondition::UidFree(uid(2));
    let error = refused(&*store, |batch| {
        batch.delete_agent(agent_id(2)).require(uid_of_two.clone());
    })
    .await;
    assert_eq!(error, CommitError::Precondition(uid_of_two));
}

/// `commit`, clause 8.
pub async fn a_replayed_key_answers_the_first_revision(location: &impl Location) {
    let (one, other) = (location.open().await, location.open().await);
    let assign = |batch: &mut WriteBatch| {
        batch.require(Precondition::AgentAbsent(agent_id(1)));
        batch.put_agent(agent(1)).append_audit(audit("a", 1)).idempotency_key("assign-1".into());
    };
    let first = commit(&*one, assign).await;
    put_agents(&*one, [2]).await;
    let stale = Some(Fence { role: "leader".into(), epoch: 7 });
    assert_eq!(commit(&*one, assign).await, first);
    assert_eq!(commit(&*other, assign).await, first);
    assert_eq!(one.commit(batch(assign), stale).await, Ok(first));
    // Another batch under the same key changes nothing either.
    let misuse = |batch: &mut WriteBatch| {
        batch.delete_agent(agent_id(2)).checkpoints([checkpoint(1, 9)]).idempotency_key("assign-1".into());
    };
    assert_eq!(commit(&*one, misuse).await, first);
    assert!(one.agent(&agent_id(2)).await.unwrap().is_some());
    assert!(one.checkpoints(None, 10).await.unwrap().items.is_empty());
    assert_eq!(one.verify().await.unwrap().entries, 1);
    // Two at the same time as well.
    let both = |batch: &mut WriteBatch| {
        batch.append_audit(audit("a", 2)).idempotency_key("assign-2".into());
    };
    let (left, right) = join(commit(&*one, both), commit(&*other, both)).await;
    assert_eq!(left, right);
    assert_eq!(one.verify().await.unwrap().entries, 2);
}

/// `commit`, clause 9.
pub async fn a_failed_commit_leaves_its_key_free(location: &impl Location) {
    let store = location.open().await;
    put_agents(&*store, [1]).await;
    let key = |batch: &mut WriteBatch| {
        batch.put_agent(agent(2)).idempotency_key("once".into());
    };
    refused(&*store, |batch| {
        key(batch);
        batch.require(Precondition::AgentAbsent(agent_id(1)));
    })
    .await;
    let before = revision(&*store).await;
    assert_eq!(commit(&*store, key).await, before.next());
    assert!(store.agent(&agent_id(2)).await.unwrap().is_some());
}

/// `commit`, clause 11.
pub async fn a_stale_fence_is_refused(location: &impl Location) {
    let (old, new) = (location.open().await, location.open().await);
    let fence = |epoch| Some(Fence { role: "leader".into(), epoch });
    let put = |number| {
        batch(|batch| {
            batch.put_agent(agent(number));
        })
    };
    let stale =
        |presented, current| Err(CommitError::StaleFence { role: "leader".into(), presented, current });
    assert_eq!(old.commit(put(1), fence(0)).await, stale(0, 0));
    assert_eq!(old.commit(put(1), fence(1)).await, stale(1, 0));

    // A leader whose lease has ended may write until another one takes over.
    let Acquired::Mine(lease) = old.acquire("leader", "old", Duration::ZERO).await.unwrap() else {
        panic!("taken")
    };
    assert_eq!(lease.fence(), fence(1).unwrap());
    old.commit(put(1), fence(1)).await.unwrap();
    let Acquired::Mine(lease) = new.acquire("leader", "new", LONG).await.unwrap() else { panic!("taken") };
    assert_eq!(lease.epoch, 2);
    assert_eq!(old.commit(put(2), fence(1)).await, stale(1, 2));
    assert_eq!(old.commit(WriteBatch::new(), fence(1)).await, stale(1, 2));
    assert_eq!(old.agent(&agent_id(2)).await.unwrap(), None);
    new.commit(put(2), fence(2)).await.unwrap();
    assert_eq!(new.commit(put(3), fence(3)).await, stale(3, 2));
    // Roles are independent of each other.
    let other = Some(Fence { role: "sweeper".into(), epoch: 2 });
    let refused = new.commit(put(3), other).await;
    assert_eq!(refused, Err(CommitError::StaleFence { role: "sweeper".into(), presented: 2, current: 0 }));
}

/// `commit`, clause 12.
pub async fn a_reference_to_a_missing_blob_is_refused(location: &impl Location) {
    let store = location.open().await;
    let missing = Some(blob_id(1));
    let references: [fn(&mut WriteBatch); 7] = [
        |batch| {
            batch.put_agent(AgentRecord { effective_config: Some(blob_id(1)), ..agent(1) });
        },
        |batch| {
            batch.put_agent(AgentRecord { desired: Some(desired(1)), ..agent(2) });
        },
        |batch| {
            batch.put_agent(AgentRecord { desired_history: [desired(1)].into(), ..agent(3) });
        },
        |batch| {
            batch.put_config_version(version("edge", 1, 1));
        },
        |batch| {
            batch.put_agent(AgentRecord { desired_settings: Some(settings(1)), ..agent(4) });
        },
        |batch| {
            batch.put_agent(AgentRecord { components: Some(blob_id(1)), ..agent(5) });
        },
        |batch| put_package(batch, key("collector", &batch.ops().to_string()), &[1]),
    ];
    for refer in references {
        assert_eq!(Some(refused(&*store, refer).await), missing.map(CommitError::BlobMissing));
    }
    for refer in references {
        commit(&*store, |batch| {
            batch.put_blob(bytes(1));
            refer(batch);
        })
        .await;
        commit(&*store, refer).await;
    }
}

/// `commit`, clause 13.
pub async fn every_reference_of_many_records_is_judged(location: &impl Location) {
    let store = location.open().await;
    let places: [fn(&mut AgentRecord, u64); 5] = [
        |record, blob| record.desired = Some(desired(blob)),
        |record, blob| record.desired_settings = Some(settings(blob)),
        |record, blob| record.effective_config = Some(blob_id(blob)),
        |record, blob| record.components = Some(blob_id(blob)),
        // As long as another one, and it begins like it.
        |record, blob| record.desired_history = [desired(0), desired(blob)].into(),
    ];
    let mut full = agent(0);
    for (blob, refer) in (0..).zip(places) {
        refer(&mut full, blob);
    }
    let (full, nothing) = (&full, &agent(0));
    // A history that is the same is shared.
    let put = |batch: &mut WriteBatch, records: [&AgentRecord; 3]| {
        for (number, record) in (1..).zip(records) {
            batch.put_agent(AgentRecord { id: agent_id(number), uid: uid(number), ..record.clone() });
        }
    };
    commit(&*store, |batch| {
        (0..5).for_each(|blob| _ = batch.put_blob(bytes(blob)));
        put(batch, [full, nothing, full]);
    })
    .await;
    for (missing, (place, refer)) in (5..).zip(places.into_iter().enumerate()) {
        let next = (place + 1) % places.len();
        let mut only = agent(0);
        refer(&mut only, missing);
        let mut one = full.clone();
        refer(&mut one, missing);
        // What the others have in this place is in another one here.
        let mut moved = one.clone();
        places[next](&mut moved, place as u64);
        // And what is missing is in two.
        let mut twice = one.clone();
        places[next](&mut twice, missing);
        for last in [&only, &one, &moved, &twice] {
            let orders = [
                [full, full, last],
                [full, nothing, last],
                [full, last, last],
                [last, nothing, last],
                [last, full, full],
            ];
            for records in orders {
                let error = refused(&*store, |batch| put(batch, records)).await;
                assert_eq!(error, CommitError::BlobMissing(blob_id(missing)), "place {place}");
            }
        }
        // It is all that was missing.
        commit(&*store, |batch| {
            batch.put_blob(bytes(missing));
            put(batch, [full, &moved, &twice]);
        })
        .await;
    }
}
