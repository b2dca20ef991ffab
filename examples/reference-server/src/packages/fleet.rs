//! The files of the fleet's package catalogue.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::future::BoxFuture;
use opamp_fleet::manager::{Actor, FleetManager, StoreFailure};
use opamp_server::Clock;
use opamp_store::PackageVersion;
use serde_json::json;

use super::shelf::{Opened, Presented, Shelf, ShelfError};
use crate::api::access::RefusalGate;

/// The catalogue as downloads see it. What it refuses goes to the audit log, bounded in its rate.
pub(crate) struct FleetShelf {
    fleet: FleetManager,
    clock: Arc<dyn Clock>,
    gate: RefusalGate,
}

impl FleetShelf {
    pub(crate) fn new(fleet: FleetManager, clock: Arc<dyn Clock>) -> Self {
        FleetShelf { fleet, clock, gate: RefusalGate::default() }
    }

    async fn record(&self, refused: &Presented<'_>) {
        let Some(folded) = self.gate.admit(self.clock.now().wall) else { return };
        let actor = Actor {
            name: "anonymous".to_owned(),
            role: "agent".to_owned(),
            source: refused.source.clone(),
            trace_id: None,
        };
        let after = json!({"sha256": HEXLOWER.encode(&refused.content), "left_out_before": folded});
        let entity = format!("agent:{}", refused.agent);
        let appended =
            self.fleet.append_audit(&actor, "package.download_refused", entity, None, Some(after)).await;
        if let Err(error) = appended {
            tracing::error!(%error, "refused download not recorded in the audit log");
        }
    }
}

impl Shelf for FleetShelf {
    fn open<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Opened, ShelfError>> {
        Box::pin(async move {
            let Presented { agent, content, token, .. } = &presented;
            let opened = self.fleet.open_package(agent, content, token).await?;
            if opened.is_none() {
                self.record(&presented).await;
            }
            Ok(opened.map(Arc::new))
        })
    }

    fn chunk(
        self: Arc<Self>,
        file: Arc<PackageVersion>,
        index: u64,
    ) -> BoxFuture<'static, Result<Bytes, ShelfError>> {
        Box::pin(async move { self.fleet.package_chunk(&file, index).await?.ok_or(ShelfError::Gone) })
    }
}

impl From<StoreFailure> for ShelfError {
    fn from(failure: StoreFailure) -> Self {
        ShelfError::Store(failure.to_string())
    }
}
