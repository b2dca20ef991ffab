//! The three kinds of offers: between what a session tells, what the record keeps, and what callers see.

use opamp_proto::{ConfigHash, Wall, pb};
use opamp_server::{
    AgentSnapshot, ConnectionSettingsReport, FailureFact, OfferFacts, OfferSeed, OfferedBefore,
    PackagesReport, PackagesState,
};
use opamp_store::{AgentRecord, DesiredPackages, DesiredSettings, FailureRecord, OfferRecord, StoredParts};
use prost::Message as _;

use super::record;
use super::types::OfferDetail;
use crate::{Drift, DriftFacts};

/// How much of an agent's words about a failure is kept for good, in bytes.
const FAILURE_BYTES_MAX: usize = 4 << 10;

/// Remembers what was offered last. An offer that is repeated is the one that was made before: an agent that needs to be
/// told again and again causes no writes. Says whether anything is new.
pub(super) fn note_offered(record: &mut AgentRecord, snapshot: &AgentSnapshot) -> bool {
    note(&mut record.offered.remote_config, &snapshot.remote_config)
        | note(&mut record.offered.connection_settings, &snapshot.connection_settings)
        | note(&mut record.offered.packages, &snapshot.packages)
}

fn note<R>(kept: &mut Option<OfferRecord>, facts: &OfferFacts<R>) -> bool {
    let Some((hash, at)) = &facts.offered else { return false };
    let same = |kept: &OfferRecord| kept.hash == *hash && kept.generation == facts.generation;
    let news = !kept.as_ref().is_some_and(same);
    if news {
        *kept = Some(OfferRecord { hash: hash.clone(), generation: facts.generation, at: *at });
    }
    news
}

/// Takes over the last failure, if there is one; says whether it is another one.
pub(super) fn note_failure(kept: &mut Option<FailureRecord>, told: Option<&FailureFact>) -> bool {
    let Some(FailureFact { hash, error, at }) = told else { return false };
    let error = &error[..error.floor_char_boundary(FAILURE_BYTES_MAX)];
    let same = |kept: &FailureRecord| kept.hash == *hash && kept.error == error && kept.at == *at;
    let news = !kept.as_ref().is_some_and(same);
    if news {
        *kept = Some(FailureRecord { hash: hash.clone(), error: error.to_owned(), at: *at });
    }
    news
}

/// What became of one kind, as the record has it.
struct Kept<'a> {
    /// Hash and time of the decision.
    desired: Option<(&'a ConfigHash, Wall)>,
    offered: Option<&'a OfferRecord>,
    last_failure: Option<&'a FailureRecord>,
    last_applied: Option<&'a (ConfigHash, Wall)>,
}

impl<'a> Kept<'a> {
    fn remote_config(record: &'a AgentRecord) -> Self {
        Self {
            desired: record.desired.as_ref().map(|desired| (&desired.hash, desired.assigned_at)),
            offered: record.offered.remote_config.as_ref(),
            last_failure: record.sticky.last_failure.as_ref(),
            last_applied: record.sticky.last_applied.as_ref(),
        }
    }

    fn settings(record: &'a AgentRecord) -> Self {
        Self {
            desired: record.desired_settings.as_ref().map(|desired| (&desired.hash, desired.assigned_at)),
            offered: record.offered.connection_settings.as_ref(),
            last_failure: record.sticky.last_settings_failure.as_ref(),
            last_applied: record.sticky.last_settings_applied.as_ref(),
        }
    }

    fn packages(record: &'a AgentRecord) -> Self {
        Self {
            desired: record.desired_packages.as_ref().map(|desired| (&desired.hash, desired.assigned_at)),
            offered: record.offered.packages.as_ref(),
            last_failure: record.sticky.last_packages_failure.as_ref(),
            last_applied: record.sticky.last_packages_applied.as_ref(),
        }
    }

    /// Whether what is desired failed since it was decided, as [`Drift::judge`] has it.
    fn failed(&self) -> bool {
        let (Some((hash, at)), Some(failure)) = (self.desired, self.last_failure) else { return false };
        failure.hash == *hash && failure.at >= at
    }

    fn drift(&self, reported: Option<(&ConfigHash, i32)>) -> Drift {
        Drift::judge(&DriftFacts {
            desired: self.desired,
            reported: reported.map(|(hash, status)| (hash.as_bytes(), status)),
            last_failure: self.last_failure.map(|failure| (&failure.hash, failure.at)),
            last_applied_at: self.last_applied.map(|(_, at)| *at),
            last_known_good: self.last_applied.map(|(hash, _)| hash),
            effective: None,
        })
    }

    fn seed<R>(&self, report: Option<R>) -> OfferSeed<R> {
        let offered = self.offered;
        OfferSeed {
            report,
            offered: offered
                .map(|offered| OfferedBefore { hash: offered.hash.clone(), generation: offered.generation }),
            failed: self.failed(),
            last_failure: self.last_failure.map(|failure| FailureFact {
                hash: failure.hash.clone(),
                error: failure.error.clone(),
                at: failure.at,
            }),
            last_applied: self.last_applied.cloned(),
        }
    }

    fn detail<D, R>(
        &self,
        desired: Option<D>,
        generation: u64,
        drift: Drift,
        report: Option<R>,
        facts: Option<&OfferFacts<R>>,
    ) -> OfferDetail<D, R> {
        OfferDetail {
            desired,
            generation,
            drift,
            offered: self.offered.cloned(),
            report,
            failed: self.failed(),
            too_large: facts.is_some_and(|facts| facts.too_large),
            last_failure: self.last_failure.cloned(),
            last_applied: self.last_applied.cloned(),
        }
    }
}

pub(super) fn remote_config_seed(record: &AgentRecord) -> OfferSeed<opamp_server::RemoteConfigReport> {
    Kept::remote_config(record).seed(record::remote_config(&record.parts))
}

pub(super) fn settings_seed(record: &AgentRecord) -> OfferSeed<ConnectionSettingsReport> {
    Kept::settings(record).seed(settings_report(&record.parts))
}

pub(super) fn packages_seed(record: &AgentRecord) -> OfferSeed<PackagesReport> {
    Kept::packages(record).seed(package_statuses(&record.parts).as_ref().map(PackagesReport::of))
}

/// Connection settings as callers see them.
pub(super) fn settings_detail(
    record: &AgentRecord,
    snapshot: Option<&AgentSnapshot>,
) -> OfferDetail<DesiredSettings, ConnectionSettingsReport> {
    let kept = Kept::settings(record);
    let report = settings_report(&record.parts);
    // The numbers mean the same as those of remote configurations.
    let drift = kept.drift(report.as_ref().map(|report| (&report.hash, report.status)));
    let facts = snapshot.map(|snapshot| &snapshot.connection_settings);
    kept.detail(record.desired_settings.clone(), record.settings_generation, drift, report, facts)
}

/// Packages as callers see them.
pub(super) fn packages_detail(
    record: &AgentRecord,
    snapshot: Option<&AgentSnapshot>,
) -> OfferDetail<DesiredPackages, PackagesReport> {
    let kept = Kept::packages(record);
    let statuses = package_statuses(&record.parts);
    let report = statuses.as_ref().map(PackagesReport::of);
    let reported = statuses.as_ref().zip(report.as_ref()).map(|(statuses, report)| {
        // An agent may acknowledge an offer by its hash before it lists what is in it.
        let lacks = record.desired_packages.as_ref().is_some_and(|desired| !has_all(statuses, desired));
        let state = match report.state {
            PackagesState::Installed if lacks => PackagesState::Pending,
            state => state,
        };
        (&report.hash, packages_status(state))
    });
    let drift = kept.drift(reported);
    let facts = snapshot.map(|snapshot| &snapshot.packages);
    kept.detail(record.desired_packages.clone(), record.packages_generation, drift, report, facts)
}

fn settings_report(parts: &StoredParts) -> Option<ConnectionSettingsReport> {
    let status = pb::ConnectionSettingsStatus::decode(parts.connection_settings_status.clone()?).ok()?;
    Some(ConnectionSettingsReport::of(&status))
}

fn package_statuses(parts: &StoredParts) -> Option<pb::PackageStatuses> {
    pb::PackageStatuses::decode(parts.package_statuses.clone()?).ok()
}

/// Whether every package that is desired is reported as installed in the version that is.
fn has_all(statuses: &pb::PackageStatuses, desired: &DesiredPackages) -> bool {
    let installed = i32::from(pb::PackageStatusEnum::Installed);
    desired.packages.iter().all(|package| {
        let status = statuses.packages.get(&package.key.name);
        status.is_some_and(|status| {
            status.status == installed && status.agent_has_version == package.key.version
        })
    })
}

/// Where packages stand, in the numbers of the other kinds.
fn packages_status(state: PackagesState) -> i32 {
    let status = match state {
        PackagesState::Failed => pb::RemoteConfigStatuses::Failed,
        PackagesState::Installed => pb::RemoteConfigStatuses::Applied,
        PackagesState::Pending => pb::RemoteConfigStatuses::Applying,
    };
    status.into()
}
