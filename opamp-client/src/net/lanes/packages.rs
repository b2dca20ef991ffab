//! Packages: one offer at a time, which can be told that it is not wanted any more.

use std::sync::Arc;

use futures::future::{AbortHandle, Aborted, abortable};
use opamp_proto::ConfigHash;
use tokio::sync::{mpsc, oneshot};

use super::{Common, Lanes, Outcome};
use crate::event::Event;
use crate::packages::{PackageHandler, PackageProgress, PackageReports, PackagesOffer, PackagesRejected};

/// Who installs, and what is being done.
pub(super) struct PackageLane {
    handler: Option<Arc<dyn PackageHandler>>,
    /// Dropped when what is being done is not wanted any more.
    cancel: Option<oneshot::Sender<()>>,
    /// What runs of the handler.
    running: Vec<AbortHandle>,
    /// Held by everything that has the handler; closed when nothing does.
    held: Option<mpsc::Sender<()>>,
    released: mpsc::Receiver<()>,
}

impl PackageLane {
    pub(super) fn new(handler: Option<Arc<dyn PackageHandler>>) -> Self {
        let (held, released) = mpsc::channel(1);
        Self { handler, cancel: None, running: Vec::new(), held: Some(held), released }
    }

    /// The handler at work, which lets go of everything when it is aborted.
    fn at_work<T>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Result<T, Aborted>> + Send + 'static {
        let held = self.held.clone();
        let (work, abort) = abortable(async move {
            let _held = held;
            work.await
        });
        self.running.retain(|running| !running.is_aborted());
        // One at a time, and the question at the start.
        self.running.truncate(1);
        self.running.insert(0, abort);
        work
    }
}

impl Lanes {
    /// Asks what is installed; whether there is anybody to ask. Who takes too long, perhaps because a crash has to be made good
    /// first, is waited for nevertheless: nothing else would tell the server what is there.
    pub(crate) fn installed(&mut self) -> bool {
        let Some(handler) = self.packages.handler.clone() else { return false };
        let looking = self.packages.at_work(async move { handler.installed().await });
        let (common, told) = (Arc::clone(&self.common), self.told.clone());
        tokio::spawn(async move {
            let mut looking = tokio::spawn(looking);
            let too_late = common.clock.sleep_until(common.clock.now().mono + common.provider_timeout);
            let given_up = |why| {
                common.event(Event::HandlerFailed { handler: "packages", why });
                // The driver may have ended meanwhile, here and below.
                let _ = told.send(Outcome::Installed(None));
            };
            tokio::select! {
                biased;
                installed = &mut looking => match installed {
                    Ok(installed) => drop(told.send(Outcome::Installed(installed.ok()))),
                    Err(_) => given_up("panicked".to_owned()),
                },
                () = too_late => {
                    given_up(format!("did not end within {} s", common.provider_timeout.as_secs()));
                    if let Ok(Ok(installed)) = looking.await {
                        let _ = told.send(Outcome::PackageStatuses(installed));
                    }
                }
            }
        });
        true
    }

    /// Has an offer done. The session sees to it that the one before has ended.
    pub(crate) fn sync_packages(&mut self, offer: PackagesOffer) {
        let Some(handler) = self.packages.handler.clone() else { return };
        let (cancel, cancelled) = oneshot::channel();
        self.packages.cancel = Some(cancel);
        let hash = offer.hash().clone();
        let (progress, reports) = PackageProgress::channel();
        let client = self.common.shared.client();
        let syncing = self.packages.at_work(async move { handler.sync(offer, progress, client).await });
        tokio::spawn(Arc::clone(&self.common).sync(hash, syncing, reports, cancelled, self.told.clone()));
    }

    /// Tells who is at work on an offer that it is not wanted any more.
    pub(crate) fn cancel_packages(&mut self) {
        self.packages.cancel = None;
    }

    /// Lets go of who installs packages, and ends when nothing has it any more.
    pub(crate) async fn end(&mut self) {
        let lane = &mut self.packages;
        (lane.handler, lane.held) = (None, None);
        lane.running.drain(..).for_each(|work| work.abort());
        // Nothing is ever sent.
        let _ = lane.released.recv().await;
    }
}

impl Common {
    async fn sync(
        self: Arc<Self>,
        hash: ConfigHash,
        syncing: impl Future<Output = Result<Result<(), PackagesRejected>, Aborted>> + Send + 'static,
        mut reports: PackageReports,
        cancelled: oneshot::Receiver<()>,
        told: mpsc::UnboundedSender<Outcome>,
    ) {
        let mut running = Box::pin(self.run("packages", self.package_timeout, syncing));
        let mut cancelled = Some(cancelled);
        let (ended, left) = loop {
            tokio::select! {
                biased;
                Some(statuses) = reports.next() => drop(told.send(Outcome::PackageStatuses(statuses))),
                () = gone(&mut cancelled) => {
                    cancelled = None;
                    reports.cancel();
                }
                ended = &mut running => break ended,
            }
        };
        // The last one may have come with the end.
        if let Some(statuses) = reports.latest() {
            let _ = told.send(Outcome::PackageStatuses(statuses));
        }
        if let Some(left) = left {
            // It blocks; another one beside it would meet half of its work.
            let _ = left.await;
        }
        let result = match ended {
            Ok(Ok(result)) => result,
            Ok(Err(Aborted)) => Err(PackagesRejected::new("the agent has ended")),
            Err(why) => Err(PackagesRejected::new(format!("the handler of the agent {why}"))),
        };
        let _ = told.send(Outcome::Packages { hash, result });
    }
}

/// Ends when whoever wanted the offer lets go of it; never again after that.
async fn gone(cancelled: &mut Option<oneshot::Receiver<()>>) {
    match cancelled {
        Some(cancelled) => drop(cancelled.await),
        None => std::future::pending().await,
    }
}
