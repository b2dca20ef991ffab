//! Packages: one offer at a time, and what is said of it.

use opamp_proto::{ConfigHash, Mono, Part, pb};

use super::Session;
use super::offers::{Offer, OfferState, Offered};
use super::outbox::{Outbox, Output};
use crate::event::ServerFault;
use crate::packages::{PackageStatus, PackageStatuses, PackagesOffer, PackagesRejected};
use crate::saved::{OfferStatus, SavedOffer};

impl Offer for PackagesOffer {
    fn hash(&self) -> &ConfigHash {
        Self::hash(self)
    }
}

/// The offer received last, and how all packages are.
#[derive(Debug, Default)]
pub(super) struct Packages {
    pub(super) offers: OfferState<PackagesOffer>,
    statuses: PackageStatuses,
    /// What is to be reported is more than how far a download is.
    urgent: bool,
    /// When packages were reported last.
    pub(super) reported: Option<Mono>,
}

impl Session {
    /// How packages are now.
    pub(super) fn package_statuses(&mut self, statuses: PackageStatuses) {
        if !self.abilities.packages {
            return;
        }
        let first = self.report.encoded(Part::PackageStatuses).is_none();
        if first && !statuses.received().is_empty() {
            // The last offer that came to an end is no news if it comes again (R-PKG-44).
            let (hash, error) = (statuses.received().clone(), String::new());
            let last = SavedOffer { hash, status: OfferStatus::Applied, error, attempts: 0 };
            self.packages.offers = OfferState::restore(Some(last), "these packages");
        }
        let statuses = match (self.packages.offers.last(), self.packages.statuses.error()) {
            // The newest could not be processed: how the packages are otherwise is said under its hash (R-PKG-23, R-PKG-26).
            (Some(last), Some(why)) if last.hash != *statuses.received() => {
                statuses.about(last.hash.clone()).rejected(why.clone())
            }
            // What was made for an earlier one is no word on the newest, which is being turned to and will be told of.
            (Some(last), None) if last.hash != *statuses.received() => return,
            _ => statuses,
        };
        self.report_packages(statuses);
    }

    /// The server offers packages: `content` is `None` if there is more of it than what is taken.
    pub(super) fn offered_packages(
        &mut self,
        hash: &[u8],
        content: Option<pb::PackagesAvailable>,
        out: &mut Outbox,
    ) {
        if hash.is_empty() || hash.len() > self.settings.package_limits.hash_bytes_max {
            return self.fault(ServerFault::PackagesWithoutHash, out);
        }
        let hash = ConfigHash::new(hash.to_vec());
        if self.packages.offers.is_last(&hash) {
            return;
        }
        let was_applying = self.packages.offers.is_applying();
        let offer = match content {
            Some(offer) => PackagesOffer::new(offer, &self.settings.package_limits)
                .map_err(|invalid| invalid.to_string()),
            None => Err(format!(
                "the offer is larger than what this agent takes: {} bytes",
                self.settings.packages_bytes_max
            )),
        };
        let statuses = self.packages.statuses.clone();
        let statuses = match &offer {
            Ok(offer) => statuses.awaiting(offer),
            Err(why) => statuses.about(hash.clone()).rejected(PackagesRejected::new(why.clone())),
        };
        let offered = self.packages.offers.offer(hash, offer);
        self.report_packages(statuses);
        match offered {
            Offered::Apply(offer) => out.push(Output::SyncPackages(offer)),
            // What is under way is not wanted any more.
            Offered::Noted if was_applying => out.push(Output::CancelPackages),
            Offered::Known | Offered::Noted => {}
        }
    }

    /// An offer has come to an end.
    pub(super) fn packages_outcome(
        &mut self,
        hash: &ConfigHash,
        result: Result<(), PackagesRejected>,
        out: &mut Outbox,
    ) {
        let why = result.as_ref().err().cloned();
        let text = result.map_err(|why| why.reason().to_owned());
        match self.packages.offers.outcome(hash, text) {
            // Who is about to end begins nothing.
            Some(_) if self.is_stopping() => self.packages.offers.abandon(),
            Some(next) => out.push(Output::SyncPackages(next)),
            None => {}
        }
        if let Some(why) = why
            && self.packages.offers.is_last(hash)
        {
            self.report_packages(self.packages.statuses.clone().rejected(why));
        }
    }

    /// When a report that only says how far packages are may be sent; at once if there is none.
    pub(super) fn packages_ready_at(&self) -> Option<Mono> {
        let reported = self.packages.reported.filter(|_| !self.packages.urgent)?;
        Some(reported + self.settings.package_report_spacing)
    }

    /// Packages are in a message that is under way.
    pub(super) fn packages_reported(&mut self, now: Mono) {
        self.packages.reported = Some(now);
        self.packages.urgent = false;
    }

    fn report_packages(&mut self, statuses: PackageStatuses) {
        self.packages.urgent |= !is_same_but_for_progress(&self.packages.statuses, &statuses);
        self.report.set(Part::PackageStatuses, statuses.encode());
        self.packages.statuses = statuses;
    }
}

/// Whether two reports differ in nothing but how far downloads are.
fn is_same_but_for_progress(one: &PackageStatuses, other: &PackageStatuses) -> bool {
    let same = |(name, status): (&str, &PackageStatus)| match (status, other.get(name)) {
        (
            PackageStatus::Downloading { offered, has, .. },
            Some(PackageStatus::Downloading { offered: o, has: h, .. }),
        ) => (offered, has) == (o, h),
        (status, other) => Some(status) == other,
    };
    one.received() == other.received()
        && one.error() == other.error()
        && one.packages().len() == other.packages().len()
        && one.packages().all(same)
}
