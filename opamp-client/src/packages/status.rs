//! What an agent says of its packages.
//!
//! ```text
//!             offered                    room                verified             checked
//!  (nothing) ─────────► Pending ─────────────► Downloading ──────────► Installing ────────► Installed
//!                          ▲                        │                      │                    │
//!        another offer     │                        └──────────┬───────────┘                    │ another offer
//!                          ├───────────────────────────────── Failed                            │
//!                          └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each state holds what it must and has no place for what it must not (R-PKG-27 to R-PKG-38).

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use prost::Message as _;

use super::offer::PackagesOffer;
use crate::config::Rejected;

/// A version of a package: the text, and the hash the server knows the package by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageVersion {
    version: String,
    hash: ConfigHash,
}

/// The state of one package. Its name is the key under which it stands in the [`PackageStatuses`].
#[derive(Clone, Debug, PartialEq)]
pub enum PackageStatus {
    /// Being fetched.
    Downloading {
        /// What is fetched.
        offered: PackageVersion,
        /// What is there meanwhile.
        has: Option<PackageVersion>,
        /// How far it got, once that is known.
        details: Option<DownloadDetails>,
    },
    /// Offered, tried and given up; what was there before still is.
    Failed {
        /// What failed.
        offered: PackageVersion,
        /// What is there.
        has: Option<PackageVersion>,
        /// Why.
        why: Rejected,
    },
    /// There, and nothing else is wanted.
    Installed {
        /// What is there.
        has: PackageVersion,
        /// The offer it came from, or that it agrees with; `None` for a package that did not come from a server (R-PKG-20).
        offered: Option<PackageVersion>,
    },
    /// Being put into place.
    Installing {
        /// What is installed.
        offered: PackageVersion,
        /// What is there until then.
        has: Option<PackageVersion>,
    },
    /// Not begun (R-PKG-37).
    Pending {
        /// What waits.
        offered: PackageVersion,
        /// What is there meanwhile.
        has: Option<PackageVersion>,
    },
}

/// How far a download got.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DownloadDetails {
    percent: f64,
    bytes_per_second: f64,
}

/// All packages of an agent: installed, offered, or on their way (R-PKG-19). Always whole: a report replaces the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackageStatuses {
    received: ConfigHash,
    packages: BTreeMap<String, PackageStatus>,
    error: Option<PackagesRejected>,
}

/// Why an offer as a whole could not be processed; the text is shown to whoever offered it (R-PKG-26).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct PackagesRejected(Rejected);

impl PackageVersion {
    /// The version of a package.
    pub fn new(version: impl Into<String>, hash: ConfigHash) -> Self {
        Self { version: version.into(), hash }
    }

    /// The text.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The hash of the package; opaque (R-PKG-41).
    #[must_use]
    pub const fn hash(&self) -> &ConfigHash {
        &self.hash
    }
}

impl DownloadDetails {
    /// So many percent, and the rate now. What makes no sense counts as 0; more than all of it as all.
    #[must_use]
    pub fn new(percent: f64, bytes_per_second: f64) -> Self {
        let sane = |number: f64, max: f64| if number.is_nan() { 0.0 } else { number.clamp(0.0, max) };
        Self { percent: sane(percent, 100.0), bytes_per_second: sane(bytes_per_second, f64::MAX) }
    }

    /// From 0 to 100.
    #[must_use]
    pub const fn percent(&self) -> f64 {
        self.percent
    }

    /// The rate.
    #[must_use]
    pub const fn bytes_per_second(&self) -> f64 {
        self.bytes_per_second
    }
}

impl PackageStatus {
    /// What is there, if anything.
    #[must_use]
    pub const fn has(&self) -> Option<&PackageVersion> {
        match self {
            Self::Installed { has, .. } => Some(has),
            Self::Downloading { has, .. }
            | Self::Failed { has, .. }
            | Self::Installing { has, .. }
            | Self::Pending { has, .. } => has.as_ref(),
        }
    }

    /// What the server wants to be there, if it has to do with it.
    #[must_use]
    pub const fn offered(&self) -> Option<&PackageVersion> {
        match self {
            Self::Installed { offered, .. } => offered.as_ref(),
            Self::Downloading { offered, .. }
            | Self::Failed { offered, .. }
            | Self::Installing { offered, .. }
            | Self::Pending { offered, .. } => Some(offered),
        }
    }

    /// Whether nothing more is done about it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Installed { .. })
    }

    fn encode(&self, name: &str) -> pb::PackageStatus {
        let status = match self {
            Self::Downloading { .. } => pb::PackageStatusEnum::Downloading,
            Self::Failed { .. } => pb::PackageStatusEnum::InstallFailed,
            Self::Installed { .. } => pb::PackageStatusEnum::Installed,
            Self::Installing { .. } => pb::PackageStatusEnum::Installing,
            Self::Pending { .. } => pb::PackageStatusEnum::InstallPending,
        };
        let error_message = match self {
            Self::Failed { why, .. } => why.reason().to_owned(),
            _ => String::new(),
        };
        let download_details = match self {
            Self::Downloading { details, .. } => details.map(|details| pb::PackageDownloadDetails {
                download_percent: details.percent,
                download_bytes_per_second: details.bytes_per_second,
            }),
            _ => None,
        };
        let split = |version: Option<&PackageVersion>| {
            version.map_or_else(Default::default, |known| (known.version.clone(), known.hash.to_bytes()))
        };
        let (agent_has_version, agent_has_hash) = split(self.has());
        let (server_offered_version, server_offered_hash) = split(self.offered());
        pb::PackageStatus {
            name: name.to_owned(),
            agent_has_version,
            agent_has_hash,
            server_offered_version,
            server_offered_hash,
            status: status as i32,
            error_message,
            download_details,
        }
    }
}

impl PackageStatuses {
    /// No packages, and the hash of the offer that this is about: the one received last (R-PKG-23, R-PKG-47). Before the
    /// first, or if what was offered has not come to an end and should be offered again: `ConfigHash::default()`.
    #[must_use]
    pub const fn new(received: ConfigHash) -> Self {
        Self { received, packages: BTreeMap::new(), error: None }
    }

    /// Adds a package, or replaces the one of the same name. The name may be empty for a sole top-level package.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>, status: PackageStatus) -> Self {
        self.set(name, status);
        self
    }

    /// Adds a package, or replaces the one of the same name.
    pub fn set(&mut self, name: impl Into<String>, status: PackageStatus) {
        self.packages.insert(name.into(), status);
    }

    /// Says that the offer as a whole could not be processed.
    #[must_use]
    pub fn rejected(mut self, why: PackagesRejected) -> Self {
        self.error = Some(why);
        self
    }

    /// The same packages, said about another offer, which has not failed as a whole.
    #[must_use]
    pub fn about(mut self, received: ConfigHash) -> Self {
        self.received = received;
        self.error = None;
        self
    }

    /// The same packages at the moment when an offer arrives: what it wants otherwise is pending (R-PKG-37), so that nothing
    /// said about the offer before is taken for an answer to this one.
    #[must_use]
    pub fn awaiting(self, offer: &PackagesOffer) -> Self {
        let mut statuses = self.about(offer.hash().clone());
        for (name, package) in offer.packages() {
            let offered = package.version().clone();
            let status = match statuses.get(name).and_then(PackageStatus::has).cloned() {
                Some(has) if has.hash() == offered.hash() => {
                    PackageStatus::Installed { has, offered: Some(offered) }
                }
                has => PackageStatus::Pending { offered, has },
            };
            statuses.set(name, status);
        }
        statuses
    }

    /// The hash of the offer that this is about.
    #[must_use]
    pub const fn received(&self) -> &ConfigHash {
        &self.received
    }

    /// The packages by name.
    pub fn packages(&self) -> impl ExactSizeIterator<Item = (&str, &PackageStatus)> {
        self.packages.iter().map(|(name, status)| (name.as_str(), status))
    }

    /// The package of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PackageStatus> {
        self.packages.get(name)
    }

    /// Why the offer as a whole could not be processed.
    #[must_use]
    pub const fn error(&self) -> Option<&PackagesRejected> {
        self.error.as_ref()
    }

    /// The message. Keys equal names by construction (R-PKG-21, R-PKG-22).
    #[must_use]
    pub fn to_message(&self) -> pb::PackageStatuses {
        pb::PackageStatuses {
            packages: self
                .packages
                .iter()
                .map(|(name, status)| (name.clone(), status.encode(name)))
                .collect(),
            server_provided_all_packages_hash: self.received.to_bytes(),
            error_message: self.error.as_ref().map_or_else(String::new, |why| why.reason().to_owned()),
        }
    }

    /// The encoded message: what is the same has the same bytes, because the map is ordered.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.to_message().encode_to_vec().into()
    }
}

impl PackagesRejected {
    /// A refusal or failure with its reason. Long texts are cut at 16 KiB.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(Rejected::new(reason))
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.0.reason()
    }
}

impl From<String> for PackagesRejected {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}

impl From<&str> for PackagesRejected {
    fn from(reason: &str) -> Self {
        Self::new(reason)
    }
}

impl From<super::offer::InvalidPackagesOffer> for PackagesRejected {
    fn from(invalid: super::offer::InvalidPackagesOffer) -> Self {
        Self::new(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: &str) -> PackageVersion {
        PackageVersion::new(version, ConfigHash::new(version.as_bytes().to_vec()))
    }

    fn encoded(status: PackageStatus) -> pb::PackageStatus {
        PackageStatuses::new(ConfigHash::new("a"))
            .package("x", status)
            .to_message()
            .packages
            .remove("x")
            .unwrap()
    }

    /// Every state, with and without what is optional in it.
    fn every_state() -> Vec<PackageStatus> {
        let mut all = vec![
            PackageStatus::Installed { has: version("1"), offered: None },
            PackageStatus::Installed { has: version("1"), offered: Some(version("1")) },
        ];
        for has in [None, Some(version("1"))] {
            let offered = version("2");
            all.extend([
                PackageStatus::Pending { offered: offered.clone(), has: has.clone() },
                PackageStatus::Installing { offered: offered.clone(), has: has.clone() },
                PackageStatus::Failed { offered: offered.clone(), has: has.clone(), why: "broken".into() },
            ]);
            for details in [None, Some(DownloadDetails::new(40.0, 1e6))] {
                all.push(PackageStatus::Downloading { offered: offered.clone(), has: has.clone(), details });
            }
        }
        all
    }

    #[test]
    fn every_state_says_what_it_must_and_nothing_it_must_not() {
        for status in every_state() {
            let message = encoded(status.clone());
            let present = status.has().is_some();
            assert_eq!(message.agent_has_version.is_empty(), !present, "R-PKG-27: {message:?}");
            assert_eq!(message.agent_has_hash.is_empty(), !present, "R-PKG-28: {message:?}");
            let offered = status.offered().is_some();
            assert_eq!(message.server_offered_version.is_empty(), !offered, "R-PKG-29: {message:?}");
            assert_eq!(message.server_offered_hash.is_empty(), !offered, "R-PKG-30: {message:?}");
            let state = message.status();
            assert_eq!(
                message.error_message.is_empty(),
                state != pb::PackageStatusEnum::InstallFailed,
                "R-PKG-32, 34, 36"
            );
            if state != pb::PackageStatusEnum::Installed {
                assert!(!message.server_offered_hash.is_empty(), "R-PKG-33, 35, 36");
            }
            if state != pb::PackageStatusEnum::Downloading {
                assert_eq!(message.download_details, None, "R-PKG-38");
            }
            assert_eq!(message.name, "x", "R-PKG-22");
        }
    }

    #[test]
    fn after_a_failed_upgrade_what_is_there_and_what_is_offered_differ() {
        let message = encoded(PackageStatus::Failed {
            offered: version("2"),
            has: Some(version("1")),
            why: "no".into(),
        });
        assert_eq!((message.agent_has_version.as_str(), message.server_offered_version.as_str()), ("1", "2"));
        assert_eq!((&message.agent_has_hash[..], &message.server_offered_hash[..]), (&b"1"[..], &b"2"[..]));
        assert_eq!(message.error_message, "no");
    }

    #[test]
    fn every_key_is_the_name_in_its_status_also_the_empty_one() {
        let mut statuses = PackageStatuses::new(ConfigHash::new("a"));
        for name in ["", "x", "a/../b"] {
            statuses.set(name, PackageStatus::Installed { has: version("1"), offered: None });
        }
        let message = statuses.to_message();
        assert_eq!(message.packages.len(), 3);
        assert!(message.packages.iter().all(|(key, status)| *key == status.name));
    }

    #[test]
    fn the_hash_received_last_and_the_error_of_the_whole_offer_are_reported_and_the_error_goes_with_the_next_offer()
     {
        let statuses = PackageStatuses::new(ConfigHash::new("odd")).rejected("too many".into());
        let message = statuses.to_message();
        assert_eq!(&message.server_provided_all_packages_hash[..], b"odd");
        assert_eq!(message.error_message, "too many");
        let message = statuses.about(ConfigHash::new("next")).to_message();
        assert_eq!(&message.server_provided_all_packages_hash[..], b"next");
        assert!(message.error_message.is_empty());
    }

    #[test]
    fn what_an_offer_wants_otherwise_is_pending_from_the_moment_it_arrives() {
        let package = |version: &str| pb::PackageAvailable {
            version: version.into(),
            hash: version.as_bytes().to_vec().into(),
            ..Default::default()
        };
        let offer = pb::PackagesAvailable {
            packages: [("new", "1"), ("same", "1"), ("tried", "2"), ("up", "2")]
                .map(|(name, version)| (name.to_owned(), package(version)))
                .into(),
            all_packages_hash: Bytes::from_static(b"next"),
        };
        let offer = PackagesOffer::new(offer, &crate::packages::OfferLimits::default()).unwrap();
        let installed = || PackageStatus::Installed { has: version("1"), offered: None };
        let failed =
            PackageStatus::Failed { offered: version("2"), has: Some(version("1")), why: "no".into() };
        let statuses = PackageStatuses::new(ConfigHash::new("last"))
            .rejected("no".into())
            .package("local", installed())
            .package("same", installed())
            .package("tried", failed)
            .package("up", installed())
            .awaiting(&offer);
        let pending = |has: Option<&str>, offered: &str| PackageStatus::Pending {
            offered: version(offered),
            has: has.map(version),
        };
        assert_eq!(statuses.received().as_bytes(), b"next");
        assert_eq!(statuses.error(), None);
        assert_eq!(statuses.get("new"), Some(&pending(None, "1")));
        assert_eq!(statuses.get("tried"), Some(&pending(Some("1"), "2")));
        assert_eq!(statuses.get("up"), Some(&pending(Some("1"), "2")));
        assert_eq!(statuses.get("local"), Some(&installed()));
        let same = PackageStatus::Installed { has: version("1"), offered: Some(version("1")) };
        assert_eq!(statuses.get("same"), Some(&same));
    }

    #[test]
    fn a_percentage_is_one() {
        for (given, percent) in
            [(-1.0, 0.0), (f64::NAN, 0.0), (50.5, 50.5), (101.0, 100.0), (f64::INFINITY, 100.0)]
        {
            assert_eq!(DownloadDetails::new(given, 0.0).percent(), percent);
        }
        assert_eq!(DownloadDetails::new(0.0, f64::NAN).bytes_per_second(), 0.0);
        assert!(DownloadDetails::new(0.0, f64::INFINITY).bytes_per_second().is_finite());
    }
}
