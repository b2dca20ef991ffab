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
    /// How long after a look at what agents report the next one is, so that reports gather: what one agent says meanwhile is one
    /// change, and a fleet that talks all the time wakes the manager some fifty times a second and not for every message. By
    /// so much the inventory may be behind. Default 20 ms; zero takes every report at once. A change of identity never waits.
    pub gather: Duration,
    /// How often sequence numbers and last-seen times are stored. Default 60 s. After a crash, agents that sent
    /// anything since are asked once for their full state.
    pub checkpoint_interval: Duration,
    /// How often expired agents, and refusals that were left out of the audit log, are looked for. Default 5 s.
    pub sweep_interval: Duration,
    /// How often blobs that nothing refers to any more are deleted. Default 1 h. Connection settings, which hold
    /// secrets, are deleted with the decision that replaces or withdraws them and do not wait for this.
    pub blob_sweep_interval: Duration,
    /// Longest connection settings of one agent, encoded, in bytes. Default 1 MiB. They must stay below what the server may
    /// send in one message.
    pub connection_settings_bytes_max: usize,
    /// Packages.
    pub packages: PackageSettings,
    /// Custom messages that are kept to be looked at.
    pub custom: CustomSettings,
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
    /// Most bytes of records kept because their agents are about to answer an assignment to all that match a selector,
    /// counted roughly. Default 32 MiB; zero keeps none. Each is kept until its agent answers, at most for one
    /// [`sweep_interval`](Self::sweep_interval), and saves a read of the store. With less, a larger part of a fleet that
    /// answers at once is read again; more is of use for large records only, as no more than 16,384 are kept.
    pub assigned_bytes_max: usize,
    /// Which process writes: the audit chain its entries belong to. Default `fleet`. Replicas need different ones.
    pub audit_writer: String,
    /// How long [`FleetManager::ready`](super::FleetManager::ready) waits for the store. Default 2 s.
    pub ready_timeout: Duration,
}

/// Where packages are downloaded from, and bounds on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageSettings {
    /// Where agents download: `{url_base}/{agent id}/{SHA-256 of the content, in hexadecimal digits}`, without a slash at
    /// its end. None, the default: packages can be published but not assigned. A change reaches agents with their next
    /// assignment or the next process; it changes no hash, so that nothing is downloaded again.
    pub url_base: Option<String>,
    /// Largest content, in bytes. Default 1 GiB, at most 16 GiB. It lies in the store, whose file does not become smaller
    /// when a package is deleted: the space is used again.
    pub file_bytes_max: u64,
    /// Most bytes of all package versions and of the uploads of this process that are under way, together. Default 4 GiB.
    /// What is deleted, and what was uploaded in vain, is not counted any more and takes its space until the next sweep of
    /// blobs ([`ManagerSettings::blob_sweep_interval`]).
    pub total_bytes_max: u64,
    /// Most package versions in the catalogue. Default 1,000, at most
    /// [`PackageVersion::PACKAGES_MAX`](opamp_store::PackageVersion::PACKAGES_MAX).
    pub versions_max: usize,
    /// Most packages of one agent. Default 32. Each is some 400 bytes of its offer.
    pub per_agent_max: usize,
    /// Most uploads at a time. Default 4. Each holds up to two chunks of 1 MiB in memory.
    pub uploads_max: usize,
}

impl Default for PackageSettings {
    fn default() -> Self {
        Self {
            url_base: None,
            file_bytes_max: 1 << 30,
            total_bytes_max: 4 << 30,
            versions_max: 1_000,
            per_agent_max: 32,
            uploads_max: 4,
        }
    }
}

/// Bounds on received custom messages that are kept in memory, newest first to stay. They do not survive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomSettings {
    /// Most messages of one agent. Default 32.
    pub messages_max: usize,
    /// Most bytes of one agent. Default 256 KiB. A larger message is kept without its data.
    pub bytes_max: usize,
    /// Most bytes of all agents together; the oldest of all go first. Default 32 MiB.
    pub total_bytes_max: usize,
}

impl Default for CustomSettings {
    fn default() -> Self {
        Self { messages_max: 32, bytes_max: 256 << 10, total_bytes_max: 32 << 20 }
    }
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
            gather: Duration::from_millis(20),
            checkpoint_interval: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(5),
            blob_sweep_interval: Duration::from_secs(3600),
            connection_settings_bytes_max: 1 << 20,
            packages: PackageSettings::default(),
            custom: CustomSettings::default(),
            history_max: 20,
            previous_uids_max: 16,
            agent_types_max: 32,
            auth_audit: AuditRate::default(),
            audit_waiting_max: 10_000,
            assigned_bytes_max: 32 << 20,
            audit_writer: "fleet".to_owned(),
            ready_timeout: Duration::from_secs(2),
        }
    }
}
