//! Packages: what a server offers, what became of it, and who installs it.
//!
//! | subject | where |
//! |---|---|
//! | an offer, checked and bounded | [`PackagesOffer`], [`OfferedPackage`], [`OfferLimits`] |
//! | what is reported of packages | [`PackageStatuses`], [`PackageStatus`] |
//! | who takes offers | [`PackageHandler`], [`PackageProgress`] |
//! | installing them: download, verify, switch, go back | [`Installer`], with the feature `packages` |
//! | who may say what runs here | [`SignaturePolicy`], [`statement`] |
//!
//! The first two are plain values, without IO or clock.

// Half of what is linked to does not exist without the feature.
#![cfg_attr(not(feature = "packages"), allow(rustdoc::broken_intra_doc_links))]

mod offer;
mod status;

pub use offer::{
    FileProblem, InvalidPackagesOffer, OfferLimits, OfferedFile, OfferedPackage, PackageKind, PackagesOffer,
};
pub use status::{DownloadDetails, PackageStatus, PackageStatuses, PackageVersion, PackagesRejected};

#[cfg(feature = "net")]
mod handler;
#[cfg(feature = "net")]
pub use handler::{PackageHandler, PackageProgress, PackageReports};

#[cfg(feature = "packages")]
mod fetch;
#[cfg(feature = "packages")]
mod files;
#[cfg(feature = "packages")]
mod hooks;
#[cfg(feature = "packages")]
mod installer;
#[cfg(feature = "packages")]
mod manifest;
#[cfg(feature = "packages")]
mod signature;
#[cfg(feature = "packages")]
mod store;
#[cfg(feature = "packages")]
pub use {
    fetch::DownloadSettings,
    files::{FileSystem, LocalFiles},
    hooks::{InstallPackage, PackageAt, PackageHook, PlainFile, VerifiedFile},
    installer::{Installer, InstallerBuilder, InstallerSettings, OpenError},
    signature::{KeyError, PackageKey, SignaturePolicy, statement},
};
