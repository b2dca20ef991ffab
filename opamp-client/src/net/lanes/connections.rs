//! Connections handed to the application, in order and one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use opamp_proto::ConfigHash;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Common, Lanes, Outcome};
use crate::config::Rejected;
use crate::connection::{OtherSettings, Signal, TelemetrySettings};
use crate::event::Event;
use crate::session::{ConnectionPart, ConnectionsChange};

/// Handlers that were given up and have not ended, because they block instead of waiting; one for each part.
type Left = Vec<(ConnectionPart, JoinHandle<Result<(), Rejected>>)>;

/// Connections to be handed over.
pub(super) struct ConnectionJob {
    /// The offer they came with; `None` for those of an earlier process.
    hash: Option<ConfigHash>,
    /// Whether the connection to the server can be made like this.
    examination: Option<BoxFuture<'static, Result<(), Rejected>>>,
    telemetry: BTreeMap<Signal, Arc<TelemetrySettings>>,
    others: BTreeMap<String, Arc<OtherSettings>>,
}

impl Lanes {
    /// Hands over what an earlier process was given.
    pub(crate) fn restore(
        &self,
        telemetry: BTreeMap<Signal, Arc<TelemetrySettings>>,
        others: BTreeMap<String, Arc<OtherSettings>>,
    ) {
        if !telemetry.is_empty() || !others.is_empty() {
            // The task lives as long as this.
            let _ = self.connections.send(ConnectionJob { hash: None, examination: None, telemetry, others });
        }
    }

    /// Hands over what a server has set.
    pub(crate) fn connections(
        &self,
        change: ConnectionsChange,
        examination: Option<BoxFuture<'static, Result<(), Rejected>>>,
    ) {
        let ConnectionsChange { hash, telemetry, others, .. } = change;
        let _ = self.connections.send(ConnectionJob { hash: Some(hash), examination, telemetry, others });
    }
}

impl Common {
    pub(super) async fn connect(
        self: Arc<Self>,
        mut jobs: mpsc::UnboundedReceiver<ConnectionJob>,
        outcomes: mpsc::UnboundedSender<Outcome>,
    ) {
        let mut left = Left::new();
        while let Some(job) = jobs.recv().await {
            if outcomes.is_closed() {
                return;
            }
            let failed =
                self.hand_over(job.examination, job.telemetry, job.others, &mut left, &outcomes).await;
            match job.hash {
                // The driver may end meanwhile; then nobody is interested.
                Some(hash) => drop(outcomes.send(Outcome::Connections { hash, failed })),
                None => {
                    for (part, why) in failed {
                        let why = format!("{part}, as given earlier: {why}");
                        self.event(Event::ConnectionSettingsRejected { why });
                    }
                }
            }
        }
    }

    async fn hand_over(
        &self,
        examination: Option<BoxFuture<'static, Result<(), Rejected>>>,
        telemetry: BTreeMap<Signal, Arc<TelemetrySettings>>,
        others: BTreeMap<String, Arc<OtherSettings>>,
        left: &mut Left,
        outcomes: &mpsc::UnboundedSender<Outcome>,
    ) -> Vec<(ConnectionPart, Rejected)> {
        let mut failed = Vec::new();
        let mut note =
            |part, result: Result<(), Rejected>| failed.extend(result.err().map(|why| (part, why)));
        if let Some(examination) = examination {
            note(ConnectionPart::Opamp, self.examined(examination).await);
        }
        for (signal, settings) in telemetry {
            let Some(handler) = self.handlers.own_telemetry.clone() else { continue };
            let (client, part) = (self.shared.client(), ConnectionPart::Own(signal));
            let applying = async move { handler.apply(signal, settings, client).await };
            let applied = self.within("own telemetry", &part, applying, left, outcomes).await;
            note(part, applied);
        }
        for (name, settings) in others {
            let Some(handler) = self.handlers.other_connections.clone() else { continue };
            let (client, part) = (self.shared.client(), ConnectionPart::Other(name.clone()));
            let applying = async move { handler.apply(name, settings, client).await };
            let applied = self.within("other connections", &part, applying, left, outcomes).await;
            note(part, applied);
        }
        failed
    }

    /// What a disk that does not answer leaves open is a failure too.
    async fn examined(&self, examination: BoxFuture<'static, Result<(), Rejected>>) -> Result<(), Rejected> {
        let seconds = self.handler_timeout.as_secs();
        let too_late = self.clock.sleep_until(self.clock.now().mono + self.handler_timeout);
        tokio::select! {
            biased;
            examined = examination => examined,
            () = too_late => Err(Rejected::new(format!(
                "the settings could not be examined within {seconds} s; do the disks of this machine answer?"
            ))),
        }
    }

    async fn within(
        &self,
        handler: &'static str,
        part: &ConnectionPart,
        applying: impl Future<Output = Result<(), Rejected>> + Send + 'static,
        left: &mut Left,
        outcomes: &mpsc::UnboundedSender<Outcome>,
    ) -> Result<(), Rejected> {
        let failed = |why: &str| Err(Rejected::new(format!("the handler of the agent {why}")));
        if let Some(at) = left.iter().position(|(of, _)| of == part) {
            // It blocks, and would put older settings in force after newer ones.
            let (_, before) = &mut left[at];
            let too_late = self.clock.sleep_until(self.clock.now().mono + self.handler_timeout);
            tokio::select! {
                biased;
                () = outcomes.closed() => return failed("has ended"),
                _ = before => drop(left.swap_remove(at)),
                () = too_late => return failed("is still at work on earlier settings"),
            }
        }
        let (ended, blocking) = self.run(handler, self.handler_timeout, applying).await;
        left.extend(blocking.map(|task| (part.clone(), task)));
        ended.unwrap_or_else(|why| failed(&why))
    }
}
