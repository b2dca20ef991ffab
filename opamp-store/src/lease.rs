//! Leases and fences: who may act in a role, and how a former holder's writes are refused.

use opamp_proto::Wall;

/// Proof of a role that a batch carries: refused when the role has moved to another epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The role, such as `leader`.
    pub role: String,
    /// The epoch in which it was acquired.
    pub epoch: u64,
}

/// A held role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The role.
    pub role: String,
    /// Who holds it.
    pub holder: String,
    /// Grows by one with every acquisition of this role.
    pub epoch: u64,
    /// When it ends, by the store's clock; the Unix epoch when it was given up.
    pub expires_at: Wall,
    /// The store's clock when this was answered: `expires_at - store_time` is what is left, whatever the holder's own
    /// wall clock says.
    pub store_time: Wall,
}

impl Lease {
    /// The end of a lease that was given up: long past, and not an end that any running clock could set.
    pub(crate) const RELEASED: Wall = Wall(0);

    /// The fence for writes under this lease.
    pub fn fence(&self) -> Fence {
        Fence { role: self.role.clone(), epoch: self.epoch }
    }
}

/// What an attempt to acquire a role found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The role is now the caller's.
    Mine(Lease),
    /// Somebody holds it, the caller's former self included.
    Taken(Lease),
}
