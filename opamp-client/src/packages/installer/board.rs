//! What is said of the packages while an offer is being worked on, and afterwards.

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::ConfigHash;

use crate::config::Rejected;
use crate::packages::offer::PackagesOffer;
use crate::packages::status::{DownloadDetails, PackageStatus, PackageStatuses, PackageVersion};
use crate::packages::store::Store;

/// An offer, and how far it got.
pub(super) struct Board<'a> {
    pub(super) offer: &'a PackagesOffer,
    /// The package that is being worked on.
    pub(super) active: Option<(String, Phase)>,
    /// Packages that are over with, and why they failed if they did.
    pub(super) settled: BTreeMap<String, Option<Rejected>>,
}

/// What is being done to a package.
#[derive(Clone, Copy)]
pub(super) enum Phase {
    Downloading(Option<DownloadDetails>),
    Installing,
}

/// Packages that did not come from a server.
pub(super) type Locals = BTreeMap<String, PackageVersion>;

impl Board<'_> {
    pub(super) fn statuses(&self, store: &Store, locals: &Locals) -> PackageStatuses {
        let mut all = PackageStatuses::new(self.offer.hash().clone());
        for name in names(store, locals) {
            if self.offer.package(name).is_none()
                && let Some(status) = unoffered(store, locals, name)
            {
                all.set(name, status);
            }
        }
        for (name, package) in self.offer.packages() {
            all.set(name, self.offered(store, locals, name, package.version()));
        }
        all
    }

    fn offered(&self, store: &Store, locals: &Locals, name: &str, offered: &PackageVersion) -> PackageStatus {
        let (has, offered) = (has(store, locals, name), offered.clone());
        if let Some((active, phase)) = &self.active
            && active == name
        {
            return match *phase {
                Phase::Downloading(details) => PackageStatus::Downloading { offered, has, details },
                Phase::Installing => PackageStatus::Installing { offered, has },
            };
        }
        if let Some(Some(why)) = self.settled.get(name) {
            return PackageStatus::Failed { offered, has, why: why.clone() };
        }
        match store.has(name) {
            Some(version) if version.is(&offered) => {
                PackageStatus::Installed { has: version.told(), offered: Some(offered) }
            }
            _ => PackageStatus::Pending { offered, has },
        }
    }
}

/// What is said when no offer is being worked on.
pub(super) fn at_rest(store: &Store, locals: &Locals) -> PackageStatuses {
    let mut all = PackageStatuses::new(ConfigHash::new(store.manifest().received.clone()));
    for name in names(store, locals) {
        let failed = store.entry(name).and_then(|entry| entry.failed.as_ref());
        let status = match failed {
            Some(failed) => Some(PackageStatus::Failed {
                offered: failed.told(),
                has: has(store, locals, name),
                why: Rejected::new(failed.why.clone()),
            }),
            None => unoffered(store, locals, name),
        };
        if let Some(status) = status {
            all.set(name, status);
        }
    }
    all
}

fn names<'a>(store: &'a Store, locals: &'a Locals) -> BTreeSet<&'a str> {
    store.manifest().entries.keys().chain(locals.keys()).map(String::as_str).collect()
}

/// A package that is there and about which nothing is going on.
fn unoffered(store: &Store, locals: &Locals, name: &str) -> Option<PackageStatus> {
    if let Some(version) = store.has(name) {
        return Some(PackageStatus::Installed { has: version.told(), offered: Some(version.told()) });
    }
    let has = locals.get(name)?.clone();
    Some(PackageStatus::Installed { has, offered: None })
}

fn has(store: &Store, locals: &Locals, name: &str) -> Option<PackageVersion> {
    store.has(name).map(|version| version.told()).or_else(|| locals.get(name).cloned())
}
