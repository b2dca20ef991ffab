//! What every request handler can reach.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use opamp_fleet::manager::{Actor, FleetManager};
use opamp_proto::Wall;
use opamp_server::{Clock, ServerHandle};
use opamp_store::Store;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{access::RefusalGate, throttle::InForce};
use crate::{
    config::Config, metrics::RequestCounts, packages::counts::DownloadCounts, self_agent::SelfAgent,
    tokens::Tokens,
};

/// Longest path of a refused request in the audit log; the rest is cut. Nobody had to show credentials to choose it.
const PLACE_BYTES_MAX: usize = 256;

/// The parts of a running server, as far as the admin port needs them.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tokens: Tokens,
    pub(crate) fleet: FleetManager,
    pub(crate) opamp: ServerHandle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started_at: Wall,
    pub(crate) self_agent: SelfAgent,
    pub(crate) requests: RequestCounts,
    pub(crate) refused: AtomicU64,
    pub(crate) refusal_gate: RefusalGate,
    pub(crate) downloads: Arc<DownloadCounts>,
    /// How agents are throttled, if they are.
    pub(crate) throttle: Mutex<Option<InForce>>,
    /// Held while the audit log is verified, which reads all of it.
    pub(crate) verifying: Mutex<()>,
    pub(crate) draining: AtomicBool,
}

impl App {
    pub(crate) fn now(&self) -> Wall {
        self.clock.now().wall
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a refused caller, and records the refusal unless there were too many lately.
    pub(crate) async fn audit_refusal(&self, action: &str, actor: &Actor, place: &str, mut after: Value) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        let Some(folded) = self.refusal_gate.admit(now) else { return };
        if folded > 0 {
            after["refusals_left_out_before"] = folded.into();
        }
        let place = &place[..place.floor_char_boundary(PLACE_BYTES_MAX)];
        if let Err(error) = self.fleet.append_audit(actor, action, place, None, Some(after)).await {
            tracing::error!(action, %error, "refusal not recorded in the audit log");
        }
    }
}
