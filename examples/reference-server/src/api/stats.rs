//! Numbers about the fleet and the server.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use opamp_server::RefusalReason;

use super::{
    error::ApiError,
    extract::{NoParameters, Query},
    schema::reply,
    state::App,
};

reply! {
    /// Numbers about the fleet. Each group sums to `registered`.
    pub(crate) struct Stats {
        /// Every agent of the inventory.
        registered: u64,
        /// Agents by liveness.
        by_liveness: BTreeMap<String, u64>,
        /// Agents by health.
        by_health: BTreeMap<String, u64>,
        /// Agents by drift.
        by_drift: BTreeMap<String, u64>,
        /// Agents that come and go too often.
        flapping: u64,
        /// WebSockets open now.
        websockets: u64,
        /// Messages received from agents since the start.
        frames_received: u64,
        /// What was refused since the start, by reason.
        frames_rejected: BTreeMap<String, u64>,
        /// Changed records that wait to be written.
        records_waiting: u64,
    }
}

pub(crate) async fn stats(
    State(app): State<Arc<App>>,
    _: Query<NoParameters>,
) -> Result<Json<Stats>, ApiError> {
    let fleet = app.fleet.stats();
    let server = app.opamp.stats();
    let rejected = RefusalReason::ALL.map(|r| (r.as_str().to_owned(), server.frames_rejected[r.index()]));
    Ok(Json(Stats {
        registered: fleet.registered,
        by_liveness: fleet.by_liveness.into_iter().map(|(word, count)| (word.to_string(), count)).collect(),
        by_health: fleet.by_health.into_iter().map(|(word, count)| (word.to_string(), count)).collect(),
        by_drift: fleet.by_drift.into_iter().map(|(word, count)| (word.to_string(), count)).collect(),
        flapping: fleet.flapping,
        websockets: server.websocket_active,
        frames_received: server.frames_received,
        frames_rejected: rejected.into(),
        records_waiting: fleet.records_waiting,
    }))
}
