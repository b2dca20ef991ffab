//! Packages as the API shows them.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use opamp_fleet::manager::{AgentDetail, Assigned};
use opamp_proto::{ConfigHash, Wall, pb};
use opamp_store::{DesiredPackages, PackageVersion};

use crate::api::{
    agents::{self, Applied, Failure, Offered},
    schema::reply,
};

reply! {
    /// A version of a package: one file, which never changes.
    pub(crate) struct Package {
        /// `NAME@VERSION`, as paths have it.
        id: String,
        /// Name of the package; empty for an agent's sole top-level package.
        name: String,
        /// Its version.
        version: String,
        /// `top_level` or `add_on`.
        r#type: &'static str,
        /// Size of the file in bytes.
        size_bytes: u64,
        /// SHA-256 of the file.
        sha256: String,
        /// Signature of the file in base64, if it has one.
        signature: Option<String>,
        /// When it was uploaded.
        created_at: Wall,
        /// By whom.
        created_by: String,
    }
}

reply! {
    /// A page of the package catalogue.
    pub(crate) struct PackagePage {
        /// Ascending by name, then version, as texts.
        packages: Vec<Package>,
        /// Pass it as `cursor` for the next page; null on the last one.
        next_cursor: Option<String>,
    }
}

reply! {
    /// The packages an agent should have.
    pub(crate) struct DesiredSet {
        /// Versions by name.
        packages: BTreeMap<String, String>,
        /// Hash of all of them.
        hash: ConfigHash,
        /// Counts every change of what this agent should have.
        generation: u64,
        /// Who assigned them.
        assigned_by: String,
        /// When.
        assigned_at: Wall,
    }
}

reply! {
    /// What an agent says of a package.
    pub(crate) struct ReportedPackage {
        /// The version it has; empty if it has none.
        agent_has_version: String,
        /// Hash of the package it has.
        agent_has_hash: ConfigHash,
        /// The version it was offered; empty for a package of its own.
        server_offered_version: String,
        /// Hash of the package it was offered.
        server_offered_hash: ConfigHash,
        /// `INSTALLED`, `INSTALL_PENDING`, `INSTALLING`, `INSTALL_FAILED`, `DOWNLOADING`, or a number without a name.
        status: String,
        /// Why it failed.
        error: String,
        /// How much of it is downloaded, in percent.
        download_percent: Option<f64>,
        /// How fast it is downloaded.
        download_bytes_per_second: Option<f64>,
    }
}

reply! {
    /// What an agent says of its packages.
    pub(crate) struct ReportedSet {
        /// Hash of all packages of the last offer it knows.
        offered_hash: ConfigHash,
        /// What is wrong with that offer as a whole.
        error: String,
        /// Its packages by name.
        packages: BTreeMap<String, ReportedPackage>,
    }
}

reply! {
    /// The packages of an agent: what it should have, was offered and reports.
    pub(crate) struct AgentPackages {
        /// `unmanaged`, `in_sync`, `pending`, `applying`, `failed` or `drifted`.
        drift: &'static str,
        /// What it should have; null if its packages are left alone.
        desired: Option<DesiredSet>,
        /// Counts every change of that.
        generation: u64,
        /// What it was offered last.
        offered: Option<Offered>,
        /// What it reports.
        reported: Option<ReportedSet>,
        /// Whether what it should have failed, so that it is not offered again before it is assigned anew.
        failed: bool,
        /// Whether it cannot be offered, because it exceeds `opamp.message_bytes_max`.
        offer_too_large: bool,
        /// The last offer of which something failed.
        last_failure: Option<Failure>,
        /// The last offer that was installed completely.
        last_applied: Option<Applied>,
    }
}

reply! {
    /// What an assignment of packages did.
    pub(crate) struct PackagesAssignment {
        /// What the agent should have now.
        desired: Option<DesiredSet>,
        /// `pushed` to an open socket, `next_poll` of a polling agent, or `no_session`: it waits for the agent.
        dispatch: &'static str,
        /// The idempotency key was used before; nothing was changed this time.
        replayed: bool,
    }
}

impl From<PackageVersion> for Package {
    fn from(package: PackageVersion) -> Self {
        Package {
            id: package.key.to_string(),
            name: package.key.name,
            version: package.key.version,
            r#type: package.kind.as_str(),
            size_bytes: package.size_bytes,
            sha256: HEXLOWER.encode(&package.content_sha256),
            signature: package.signature.map(|signature| BASE64.encode(&signature)),
            created_at: package.created_at,
            created_by: package.created_by,
        }
    }
}

impl From<DesiredPackages> for DesiredSet {
    fn from(desired: DesiredPackages) -> Self {
        let keys = desired.packages.into_iter().map(|package| (package.key.name, package.key.version));
        DesiredSet {
            packages: keys.collect(),
            hash: desired.hash,
            generation: desired.generation,
            assigned_by: desired.assigned_by,
            assigned_at: desired.assigned_at,
        }
    }
}

impl From<&pb::PackageStatus> for ReportedPackage {
    fn from(status: &pb::PackageStatus) -> Self {
        let details = status.download_details.as_ref();
        ReportedPackage {
            agent_has_version: status.agent_has_version.clone(),
            agent_has_hash: ConfigHash::new(status.agent_has_hash.clone()),
            server_offered_version: status.server_offered_version.clone(),
            server_offered_hash: ConfigHash::new(status.server_offered_hash.clone()),
            status: state(status.status),
            error: status.error_message.clone(),
            // JSON has no numbers for what an agent may have made up.
            download_percent: details.map(|d| d.download_percent).filter(|number| number.is_finite()),
            download_bytes_per_second: details
                .map(|d| d.download_bytes_per_second)
                .filter(|number| number.is_finite()),
        }
    }
}

impl From<&pb::PackageStatuses> for ReportedSet {
    fn from(statuses: &pb::PackageStatuses) -> Self {
        let packages = statuses.packages.iter().map(|(name, status)| (name.clone(), status.into()));
        ReportedSet {
            offered_hash: ConfigHash::new(statuses.server_provided_all_packages_hash.clone()),
            error: statuses.error_message.clone(),
            packages: packages.collect(),
        }
    }
}

impl From<AgentDetail> for AgentPackages {
    fn from(agent: AgentDetail) -> Self {
        let reported = agent.package_statuses.as_ref().map(Into::into);
        let packages = agent.packages;
        AgentPackages {
            drift: packages.drift.as_str(),
            desired: packages.desired.map(Into::into),
            generation: packages.generation,
            offered: packages.offered.map(Into::into),
            reported,
            failed: packages.failed,
            offer_too_large: packages.too_large,
            last_failure: packages.last_failure.map(Into::into),
            last_applied: packages.last_applied.map(Into::into),
        }
    }
}

impl From<Assigned<DesiredPackages>> for PackagesAssignment {
    fn from(assigned: Assigned<DesiredPackages>) -> Self {
        PackagesAssignment {
            desired: assigned.desired.map(Into::into),
            dispatch: agents::dispatch(assigned.dispatch),
            replayed: assigned.replayed,
        }
    }
}

fn state(status: i32) -> String {
    use pb::PackageStatusEnum as State;
    match State::try_from(status) {
        Ok(State::Installed) => "INSTALLED".into(),
        Ok(State::InstallPending) => "INSTALL_PENDING".into(),
        Ok(State::Installing) => "INSTALLING".into(),
        Ok(State::InstallFailed) => "INSTALL_FAILED".into(),
        Ok(State::Downloading) => "DOWNLOADING".into(),
        Err(_) => status.to_string(),
    }
}
