//! [`LeaseStore`](crate::LeaseStore). No case waits: a lease of no duration has ended when it is answered.

use std::time::Duration;

use futures::future::join_all;

use super::Location;
use super::fixtures::*;
use crate::{Acquired, Lease, LeaseError, Store};

/// `acquire`, clause 1.
pub async fn a_free_role_is_acquired(location: &impl Location) {
    let store = location.open().await;
    for role in ["leader", "sweeper"] {
        let lease = acquire(&*store, role, "me", LONG).await;
        assert_eq!((lease.role.as_str(), lease.holder.as_str(), lease.epoch), (role, "me", 1));
        assert_eq!(lease.expires_at.since(lease.store_time), LONG);
    }
    let unnamed = store.acquire("", "me", LONG).await;
    assert!(matches!(unnamed, Err(LeaseError::Invalid(_))));
}

/// `acquire`, clause 2.
pub async fn a_held_role_is_taken(location: &impl Location) {
    let (one, other) = (location.open().await, location.open().await);
    let lease = acquire(&*one, "leader", "me", LONG).await;
    for (store, holder) in [(&one, "me"), (&one, "you"), (&other, "you")] {
        let Acquired::Taken(held) = store.acquire("leader", holder, LONG).await.unwrap() else {
            panic!("acquired")
        };
        assert_eq!((held.holder.as_str(), held.epoch, held.expires_at), ("me", 1, lease.expires_at));
    }
}

/// `acquire`, clause 3.
pub async fn an_ended_lease_is_claimable_with_the_next_epoch(location: &impl Location) {
    let (one, other) = (location.open().await, location.open().await);
    for epoch in 1..5 {
        let store = if epoch % 2 == 0 { &one } else { &other };
        assert_eq!(acquire(&**store, "leader", "me", Duration::ZERO).await.epoch, epoch);
    }
    assert_eq!(acquire(&*one, "leader", "me", LONG).await.epoch, 5);
    assert!(matches!(other.acquire("leader", "you", LONG).await, Ok(Acquired::Taken(_))));
}

/// `acquire`, clause 4.
pub async fn one_of_many_acquires_a_role(location: &impl Location) {
    let stores = [location.open().await, location.open().await];
    let attempts = (0..16).map(|attempt| {
        let store = &stores[attempt % 2];
        async move { store.acquire("leader", &format!("holder {attempt}"), LONG).await.unwrap() }
    });
    let results = join_all(attempts).await;
    let winners: Vec<_> = results.iter().filter(|result| matches!(result, Acquired::Mine(_))).collect();
    assert_eq!(winners.len(), 1);
    for result in &results {
        let (Acquired::Mine(lease) | Acquired::Taken(lease)) = result;
        let Acquired::Mine(winner) = winners[0] else { unreachable!("filtered") };
        assert_eq!((&lease.holder, lease.epoch), (&winner.holder, 1));
    }
}

/// `renew`, clause 1.
pub async fn renewal_keeps_the_epoch(location: &impl Location) {
    let store = location.open().await;
    let lease = acquire(&*store, "leader", "me", LONG).await;
    let renewed = store.renew(&lease, 2 * LONG).await.unwrap();
    assert_eq!((renewed.epoch, renewed.expires_at.since(renewed.store_time)), (1, 2 * LONG));
    assert!(renewed.expires_at > lease.expires_at && renewed.store_time >= lease.store_time);
    // The end can also come nearer; and a lease that has ended, but was not taken, can be renewed.
    let ended = store.renew(&lease, Duration::ZERO).await.unwrap();
    assert!(ended.expires_at <= ended.store_time);
    assert_eq!(store.renew(&lease, LONG).await.unwrap().epoch, 1);
    assert!(matches!(store.acquire("leader", "you", LONG).await, Ok(Acquired::Taken(_))));
}

/// `renew`, clause 2.
pub async fn a_lost_lease_cannot_be_renewed(location: &impl Location) {
    let store = location.open().await;
    let lost = |presented, current| Err(LeaseError::Lost { role: "leader".into(), presented, current });
    let first = acquire(&*store, "leader", "me", Duration::ZERO).await;
    let second = acquire(&*store, "leader", "me", LONG).await;
    assert_eq!(store.renew(&first, LONG).await, lost(1, 2));
    let impostor = Lease { holder: "you".into(), ..second.clone() };
    assert_eq!(store.renew(&impostor, LONG).await, lost(2, 2));
    assert_eq!(store.release(&first).await.map(|()| second.clone()), lost(1, 2));
    store.release(&second).await.unwrap();
    assert_eq!(store.renew(&second, LONG).await, lost(2, 2));
    let unknown = Lease { role: "sweeper".into(), ..second };
    let never = LeaseError::Lost { role: "sweeper".into(), presented: 2, current: 0 };
    assert_eq!(store.renew(&unknown, LONG).await, Err(never));
}

/// `release`, clause 1.
pub async fn a_released_role_is_claimable(location: &impl Location) {
    let store = location.open().await;
    let lease = acquire(&*store, "leader", "me", LONG).await;
    store.release(&lease).await.unwrap();
    // Writes under it stay possible until somebody takes over.
    store.commit(crate::WriteBatch::new(), Some(lease.fence())).await.unwrap();
    assert_eq!(acquire(&*store, "leader", "you", LONG).await.epoch, 2);
}

/// `lease`, clause 1.
pub async fn the_last_lease_is_visible(location: &impl Location) {
    let (one, other) = (location.open().await, location.open().await);
    assert_eq!(other.lease("leader").await.unwrap(), None);
    let lease = acquire(&*one, "leader", "me", LONG).await;
    let seen = other.lease("leader").await.unwrap().unwrap();
    assert_eq!(seen, Lease { store_time: seen.store_time, ..lease.clone() });
    assert!(seen.store_time >= lease.store_time);
    one.release(&lease).await.unwrap();
    let released = other.lease("leader").await.unwrap().unwrap();
    assert!(released.expires_at < released.store_time && released.epoch == 1);
}

async fn acquire(store: &dyn Store, role: &str, holder: &str, ttl: Duration) -> Lease {
    match store.acquire(role, holder, ttl).await.unwrap() {
        Acquired::Mine(lease) => lease,
        Acquired::Taken(lease) => panic!("taken: {lease:?}"),
    }
}
