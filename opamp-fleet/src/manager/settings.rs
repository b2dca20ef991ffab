//! Periods and bounds of a manager.

use std::time::Duration;

use opamp_store::WriteBehindLimits;

use crate::{ConfigLimits, IndexSettings};

/// Everything about a [`FleetManager`](super::FleetManager) that can be set.
#[derive(Clone, Debug)]
pub struct ManagerSettings {
    /// Periods and bounds of the inventory, T2 among them.
    pub index: IndexSettings,
    /// Bounds on configurations.
    pub config: ConfigLimits,
    /// How long changed records may wait to be written together. What waits is what a crash may lose; nothing that
    /// a call acknowledged ever waits.
    pub write_behind: WriteBehindLimits,
    /// How often sequence numbers and last-seen times are stored. Default 60 s. After a crash, agents that sent
    /// anything since are asked once for their full state.
    pub checkpoint_interval: Duration,
    /// How often expired agents, and refusals that were left out of the audit log, are looked for. Default 5 s.
    pub sweep_interval: Duration,
    /// How often blobs that nothing refers to any more are deleted. Default 1 h.
    pub blob_sweep_interval: Duration,
    /// Earlier assignments kept with each agent. Default 20. Each keeps its configuration from being deleted.
    pub history_max: usize,
    /// Earlier identities kept with each agent. Default 16.
    pub previous_uids_max: usize,
    /// Agent types that metrics keep apart; all others are `other`. Default 32.
    pub agent_types_max: usize,
    /// How many refused authentications the audit log takes, and how many newcomers and changes of credentials.
    pub auth_audit: AuditRate,
    /// Audit entries that may wait while the store is down; further ones are counted and dropped. Default 10,000.
    pub audit_waiting_max: usize,
    /// Which process writes: the audit chain its entries belong to. Default `fleet`. Replicas need different ones.
    pub audit_writer: String,
    /// How long [`FleetManager::ready`](super::FleetManager::ready) waits for the store. Default 2 s.
    pub ready_timeout: Duration,
}

/// A bound on audit entries that others can cause, so that nobody fills the disk. What is left out is counted in
/// the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRate {
    /// Entries that may come at once. Default 20.
    pub burst: u32,
    /// Entries a minute in the long run. Default 60.
    pub per_minute: u32,
}

impl Default for AuditRate {
    fn default() -> Self {
        Self { burst: 20, per_minute: 60 }
    }
}

impl Default for ManagerSettings {
    fn default() -> Self {
        Self {
            index: IndexSettings::default(),
            config: ConfigLimits::default(),
            write_behind: WriteBehindLimits::default(),
            checkpoint_interval: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(5),
            blob_sweep_interval: Duration::from_secs(3600),
            history_max: 20,
            previous_uids_max: 16,
            agent_types_max: 32,
            auth_audit: AuditRate::default(),
            audit_waiting_max: 10_000,
            audit_writer: "fleet".to_owned(),
            ready_timeout: Duration::from_secs(2),
        }
    }
}
