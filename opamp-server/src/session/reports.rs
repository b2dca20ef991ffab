//! What agents report of the three kinds of offers, read from their status parts.

use bytes::Bytes;
use opamp_proto::{ConfigHash, DecodeError, Wall, pb};
use prost::Message as _;

use super::offer::Reported;
use crate::snapshot::{
    ConnectionSettingsReport, FailureFact, OfferFacts, OfferSeed, PackagesReport, PackagesState,
    RemoteConfigReport,
};

/// A report on an offer.
pub(super) trait Report: Clone + PartialEq + Sized {
    /// Reads the encoded status part.
    fn read(encoded: &[u8]) -> Result<Self, DecodeError>;
    fn hash(&self) -> &ConfigHash;
    fn error(&self) -> &str;
    fn outcome(&self) -> Outcome;
}

/// How an offer ended, if it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Applied,
    Failed,
    Open,
}

/// What is known of one kind of offer from reports.
#[derive(Clone, Debug)]
pub(super) struct KindFacts<R> {
    pub(super) report: Option<R>,
    /// Boxed, because few agents have one.
    last_failure: Option<Box<FailureFact>>,
    last_applied: Option<(ConfigHash, Wall)>,
}

impl<R> Default for KindFacts<R> {
    fn default() -> Self {
        Self { report: None, last_failure: None, last_applied: None }
    }
}

impl<R: Report> KindFacts<R> {
    pub(super) fn restore(seed: OfferSeed<R>) -> Self {
        Self {
            report: seed.report,
            last_failure: seed.last_failure.map(Box::new),
            last_applied: seed.last_applied,
        }
    }

    /// Takes an encoded status over; says whether it is news. One that is repeated byte for byte is not read again.
    pub(super) fn take(
        &mut self,
        encoded: &[u8],
        repeated: bool,
        offered_at: Option<Wall>,
        now: Wall,
    ) -> Result<bool, DecodeError> {
        let report = match self.report.as_ref().filter(|_| repeated) {
            // Only failures can be news again.
            Some(report) if report.outcome() != Outcome::Failed => return Ok(false),
            Some(report) => report.clone(),
            None => R::read(encoded)?,
        };
        Ok(self.note(report, offered_at, now))
    }

    /// Takes a report over; says whether it is news. `offered_at` is when what is desired was offered last.
    pub(super) fn note(&mut self, report: R, offered_at: Option<Wall>, now: Wall) -> bool {
        let outcome = report.outcome();
        let failed_at = self.last_failure.as_ref().map(|failure| failure.at);
        // The same words about a later offer are another failure.
        let again = outcome == Outcome::Failed && offered_at > failed_at;
        if self.report.as_ref() == Some(&report) && !again {
            return false;
        }
        match outcome {
            Outcome::Applied => self.last_applied = Some((report.hash().clone(), now)),
            Outcome::Failed => {
                let (hash, error) = (report.hash().clone(), report.error().to_owned());
                self.last_failure = Some(Box::new(FailureFact { hash, error, at: now }));
            }
            Outcome::Open => {}
        }
        self.report = Some(report);
        true
    }

    /// The last report, as far as it decides about offers.
    pub(super) fn reported(&self) -> Option<Reported<'_>> {
        let report = self.report.as_ref()?;
        Some(Reported { hash: report.hash(), failed: report.outcome() == Outcome::Failed })
    }

    /// Completes the facts about an offer with what was reported.
    pub(super) fn complete(&self, facts: OfferFacts<R>) -> OfferFacts<R> {
        OfferFacts {
            report: self.report.clone(),
            last_failure: self.last_failure.as_deref().cloned(),
            last_applied: self.last_applied.clone(),
            ..facts
        }
    }
}

impl RemoteConfigReport {
    /// What a status says.
    pub fn of(status: &pb::RemoteConfigStatus) -> Self {
        let hash = owned(&status.last_remote_config_hash);
        Self { hash, status: status.status, error: status.error_message.clone() }
    }
}

impl ConnectionSettingsReport {
    /// What a status says.
    pub fn of(status: &pb::ConnectionSettingsStatus) -> Self {
        let hash = owned(&status.last_connection_settings_hash);
        Self { hash, status: status.status, error: status.error_message.clone() }
    }
}

impl PackagesReport {
    /// What statuses say together. Whether all packages of an offer are among them, they do not say.
    pub fn of(statuses: &pb::PackageStatuses) -> Self {
        use pb::PackageStatusEnum::{InstallFailed, Installed};
        let state = |status: &pb::PackageStatus| pb::PackageStatusEnum::try_from(status.status);
        let is_final = |status: &pb::PackageStatus| matches!(state(status), Ok(Installed | InstallFailed));
        let has_what_was_offered = |status: &pb::PackageStatus| {
            status.server_offered_hash.is_empty() || status.agent_has_hash == status.server_offered_hash
        };
        let failed = statuses.packages.iter().find(|(_, status)| state(status) == Ok(InstallFailed));
        let (state, error) = match failed {
            _ if !statuses.error_message.is_empty() => {
                (PackagesState::Failed, statuses.error_message.clone())
            }
            // What failed before says nothing yet about an offer that is being worked on.
            _ if !statuses.packages.values().all(is_final) => (PackagesState::Pending, String::new()),
            Some((name, status)) => (PackagesState::Failed, format!("{name}: {}", status.error_message)),
            None if statuses.packages.values().all(has_what_was_offered) => {
                (PackagesState::Installed, String::new())
            }
            None => (PackagesState::Pending, String::new()),
        };
        Self { hash: owned(&statuses.server_provided_all_packages_hash), state, error }
    }
}

impl Report for RemoteConfigReport {
    fn read(encoded: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::of(&pb::RemoteConfigStatus::decode(encoded)?))
    }

    fn hash(&self) -> &ConfigHash {
        &self.hash
    }

    fn error(&self) -> &str {
        &self.error
    }

    fn outcome(&self) -> Outcome {
        match pb::RemoteConfigStatuses::try_from(self.status) {
            Ok(pb::RemoteConfigStatuses::Applied) => Outcome::Applied,
            Ok(pb::RemoteConfigStatuses::Failed) => Outcome::Failed,
            _ => Outcome::Open,
        }
    }
}

impl Report for ConnectionSettingsReport {
    fn read(encoded: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::of(&pb::ConnectionSettingsStatus::decode(encoded)?))
    }

    fn hash(&self) -> &ConfigHash {
        &self.hash
    }

    fn error(&self) -> &str {
        &self.error
    }

    fn outcome(&self) -> Outcome {
        match pb::ConnectionSettingsStatuses::try_from(self.status) {
            Ok(pb::ConnectionSettingsStatuses::Applied) => Outcome::Applied,
            Ok(pb::ConnectionSettingsStatuses::Failed) => Outcome::Failed,
            _ => Outcome::Open,
        }
    }
}

impl Report for PackagesReport {
    fn read(encoded: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::of(&pb::PackageStatuses::decode(encoded)?))
    }

    fn hash(&self) -> &ConfigHash {
        &self.hash
    }

    fn error(&self) -> &str {
        &self.error
    }

    fn outcome(&self) -> Outcome {
        match self.state {
            PackagesState::Failed => Outcome::Failed,
            // Without a hash they are none of this server's.
            PackagesState::Installed if !self.hash.is_empty() => Outcome::Applied,
            PackagesState::Installed | PackagesState::Pending => Outcome::Open,
        }
    }
}

/// A copy: a slice would keep the whole received message alive.
fn owned(hash: &Bytes) -> ConfigHash {
    ConfigHash::new(Bytes::copy_from_slice(hash))
}
