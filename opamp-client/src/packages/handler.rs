//! Who takes offers of packages, and how it says how far it got.

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::offer::PackagesOffer;
use super::status::{PackageStatuses, PackagesRejected};
use crate::net::client::Client;

/// Installs packages. Installing one announces AcceptsPackages and ReportsPackageStatuses.
pub trait PackageHandler: Send + Sync + 'static {
    /// What is installed, as far as it is known when the agent starts. The hash in it is that of the last offer that came
    /// to an end: the same one again is then no news, and an interrupted one is offered again (R-PKG-07, R-PKG-23).
    fn installed(&self) -> BoxFuture<'_, PackageStatuses>;

    /// Does what an offer wants, and ends when nothing more is done about it.
    ///
    /// What becomes of each package is told through `progress`, the last time before this ends. An error means that the
    /// offer as a whole could not be processed; that a package failed is none.
    ///
    /// One offer at a time. When a newer one arrives, [`PackageProgress::cancelled`] ends; this should then end soon, at a
    /// point where every package is whole, and is called again with the newest.
    fn sync(
        &self,
        offer: PackagesOffer,
        progress: PackageProgress,
        client: Client,
    ) -> BoxFuture<'_, Result<(), PackagesRejected>>;
}

/// Through which a handler tells how far it got, and is told when to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PackageProgress {
    reports: watch::Sender<Option<PackageStatuses>>,
    cancelled: watch::Receiver<bool>,
}

/// The other end of a [`PackageProgress`]. Whoever drops it wants the handler to end.
#[derive(Debug)]
pub struct PackageReports {
    reports: watch::Receiver<Option<PackageStatuses>>,
    cancel: watch::Sender<bool>,
}

impl PackageProgress {
    /// Both ends, for whoever runs a handler.
    #[must_use]
    pub fn channel() -> (Self, PackageReports) {
        let (reports, received) = watch::channel(None);
        let (cancel, cancelled) = watch::channel(false);
        (Self { reports, cancelled }, PackageReports { reports: received, cancel })
    }

    /// Tells how all packages are now. The newest counts; one that nobody has taken yet is replaced.
    pub fn report(&self, statuses: PackageStatuses) {
        self.reports.send_replace(Some(statuses));
    }

    /// Ends when this offer is not wanted any more, because a newer one has arrived or the agent ends.
    pub async fn cancelled(&self) {
        // An error means that nobody is at the other end.
        let _ = self.cancelled.clone().wait_for(|cancelled| *cancelled).await;
    }

    /// Whether [`PackageProgress::cancelled`] has ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow() || self.cancelled.has_changed().is_err()
    }
}

impl PackageReports {
    /// The next report that is news; `None` when the handler has let go of its end and all was taken.
    pub async fn next(&mut self) -> Option<PackageStatuses> {
        self.reports.changed().await.ok()?;
        self.reports.borrow_and_update().clone()
    }

    /// The newest report, whether it was taken already or not.
    #[must_use]
    pub fn latest(&self) -> Option<PackageStatuses> {
        self.reports.borrow().clone()
    }

    /// Says that the offer is not wanted any more.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opamp_proto::ConfigHash;

    #[tokio::test]
    async fn the_newest_report_counts_and_the_last_is_taken_after_the_end() {
        let (progress, mut reports) = PackageProgress::channel();
        let of = |hash: &'static str| PackageStatuses::new(ConfigHash::new(hash));
        progress.report(of("1"));
        progress.report(of("2"));
        assert_eq!(reports.next().await, Some(of("2")));
        progress.report(of("3"));
        drop(progress);
        assert_eq!(reports.next().await, Some(of("3")));
        assert_eq!(reports.next().await, None);
        assert_eq!(reports.latest(), Some(of("3")));
    }

    #[tokio::test]
    async fn a_newer_offer_and_the_end_of_the_agent_are_told() {
        let (progress, reports) = PackageProgress::channel();
        assert!(!progress.is_cancelled());
        reports.cancel();
        progress.cancelled().await;
        assert!(progress.is_cancelled());
        let (progress, reports) = PackageProgress::channel();
        drop(reports);
        progress.cancelled().await;
        assert!(progress.is_cancelled());
    }
}
