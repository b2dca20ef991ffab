//! Connections handed to the application, in order and one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use opamp_proto::ConfigHash;
use tokio::sync::mpsc;

use super::{Common, Lanes, Outcome};
use crate::config::Rejected;
use crate::connection::{OtherSettings, Signal, TelemetrySettings};
use crate::event::Event;
use crate::session::{ConnectionPart, ConnectionsChange};

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
        while let Some(job) = jobs.recv().await {
            if outcomes.is_closed() {
                return;
            }
            let failed = self.hand_over(job.examination, job.telemetry, job.others).await;
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
    ) -> Vec<(ConnectionPart, Rejected)> {
        let mut failed = Vec::new();
        let mut note =
            |part, result: Result<(), Rejected>| failed.extend(result.err().map(|why| (part, why)));
        if let Some(examination) = examination {
            note(ConnectionPart::Opamp, examination.await);
        }
        for (signal, settings) in telemetry {
            let Some(handler) = self.handlers.own_telemetry.clone() else { continue };
            let client = self.shared.client();
            let applying = async move { handler.apply(signal, settings, client).await };
            note(ConnectionPart::Own(signal), self.within("own telemetry", applying).await);
        }
        for (name, settings) in others {
            let Some(handler) = self.handlers.other_connections.clone() else { continue };
            let (client, part) = (self.shared.client(), ConnectionPart::Other(name.clone()));
            let applying = async move { handler.apply(name, settings, client).await };
            note(part, self.within("other connections", applying).await);
        }
        failed
    }

    async fn within(
        &self,
        handler: &'static str,
        applying: impl Future<Output = Result<(), Rejected>> + Send + 'static,
    ) -> Result<(), Rejected> {
        let (ended, _) = self.run(handler, self.handler_timeout, applying).await;
        ended.unwrap_or_else(|why| Err(Rejected::new(format!("the handler of the agent {why}"))))
    }
}
