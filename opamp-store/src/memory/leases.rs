//! Leases in memory.

use std::time::Duration;

use opamp_proto::Wall;

use super::state::State;
use crate::{Acquired, Lease, LeaseError};

impl State {
    pub(super) fn acquire(&mut self, role: &str, holder: &str, ttl: Duration, now: Wall) -> Acquired {
        let last = self.leases.get(role);
        if let Some(held) = last.filter(|lease| lease.expires_at > now) {
            return Acquired::Taken(Lease { store_time: now, ..held.clone() });
        }
        let lease = Lease {
            role: role.to_owned(),
            holder: holder.to_owned(),
            epoch: last.map_or(0, |lease| lease.epoch) + 1,
            expires_at: now + ttl,
            store_time: now,
        };
        self.leases.insert(role.to_owned(), lease.clone());
        Acquired::Mine(lease)
    }

    pub(super) fn renew(&mut self, lease: &Lease, ttl: Duration, now: Wall) -> Result<Lease, LeaseError> {
        let held = self.held(lease)?;
        held.expires_at = now + ttl;
        Ok(Lease { store_time: now, ..held.clone() })
    }

    pub(super) fn release(&mut self, lease: &Lease) -> Result<(), LeaseError> {
        self.held(lease)?.expires_at = Lease::RELEASED;
        Ok(())
    }

    pub(super) fn lease(&self, role: &str, now: Wall) -> Option<Lease> {
        Some(Lease { store_time: now, ..self.leases.get(role)?.clone() })
    }

    fn held(&mut self, lease: &Lease) -> Result<&mut Lease, LeaseError> {
        let current = self.leases.get(&lease.role).map_or(0, |held| held.epoch);
        self.leases
            .get_mut(&lease.role)
            .filter(|held| held.epoch == lease.epoch && held.holder == lease.holder)
            .filter(|held| held.expires_at != Lease::RELEASED)
            .ok_or_else(|| LeaseError::Lost { role: lease.role.clone(), presented: lease.epoch, current })
    }
}
