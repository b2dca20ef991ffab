//! Endpoints of throttling: having agents wait.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State};
use opamp_fleet::manager::Actor;
use opamp_proto::Wall;
use opamp_server::Throttle;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    extract::{Body, NoParameters, Query},
    schema::{reply, request},
    state::App,
};

/// Longest time agents can be told to wait: a mistyped number must not cost a day.
const RETRY_AFTER_MAX_S: u64 = 24 * 60 * 60;
/// What the audit log names as changed.
const ENTITY: &str = "server:opamp";

request! {
    /// How agents are throttled.
    pub(crate) struct ThrottleRequest {
        /// Seconds they are told to wait at least, 1 to 86400; up to twice as long at random.
        retry_after_seconds: u64,
    }
}

reply! {
    /// Whether agents are throttled now. Not kept over a restart of the server.
    pub(crate) struct ThrottleReply {
        /// Whether they are.
        throttled: bool,
        /// Seconds they are told to wait at least.
        retry_after_seconds: Option<u64>,
        /// Since when.
        since: Option<Wall>,
        /// By whom.
        throttled_by: Option<String>,
    }
}

/// Throttling that is in force.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    retry_after_s: u64,
    since: Wall,
    by: String,
}

impl InForce {
    fn audited(&self) -> Value {
        json!({"retry_after_seconds": self.retry_after_s})
    }
}

impl From<Option<&InForce>> for ThrottleReply {
    fn from(throttle: Option<&InForce>) -> Self {
        ThrottleReply {
            throttled: throttle.is_some(),
            retry_after_seconds: throttle.map(|throttle| throttle.retry_after_s),
            since: throttle.map(|throttle| throttle.since),
            throttled_by: throttle.map(|throttle| throttle.by.clone()),
        }
    }
}

pub(crate) async fn show(State(app): State<Arc<App>>, _: Query<NoParameters>) -> Json<ThrottleReply> {
    Json(app.throttle.lock().await.as_ref().into())
}

pub(crate) async fn set(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    Body(wanted): Body<ThrottleRequest>,
) -> Result<Json<ThrottleReply>, ApiError> {
    let retry_after_s = wanted.retry_after_seconds;
    if !(1..=RETRY_AFTER_MAX_S).contains(&retry_after_s) {
        return Err(ApiError::bad_request(format!("`retry_after_seconds` is 1 to {RETRY_AFTER_MAX_S}")));
    }
    change(app, actor, Some(retry_after_s)).await
}

pub(crate) async fn clear(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<ThrottleReply>, ApiError> {
    change(app, actor, None).await
}

/// Records a change and makes it, even if the caller stops waiting: what the log says has taken effect.
pub(crate) async fn change(
    app: Arc<App>,
    actor: Actor,
    retry_after_s: Option<u64>,
) -> Result<Json<ThrottleReply>, ApiError> {
    let changed = tokio::spawn(async move { record_and_make(&app, &actor, retry_after_s).await });
    changed.await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// One after the other: the log has the changes in the order in which they took effect.
async fn record_and_make(
    app: &App,
    actor: &Actor,
    retry_after_s: Option<u64>,
) -> Result<Json<ThrottleReply>, ApiError> {
    let mut throttle = app.throttle.lock().await;
    if throttle.as_ref().map(|throttle| throttle.retry_after_s) == retry_after_s {
        return Ok(Json(throttle.as_ref().into()));
    }
    let by = actor.name.clone();
    let wanted = retry_after_s.map(|retry_after_s| InForce { retry_after_s, since: app.now(), by });
    let (before, after) = (throttle.as_ref().map(InForce::audited), wanted.as_ref().map(InForce::audited));
    let action = if wanted.is_some() { "server.throttle" } else { "server.unthrottle" };
    app.fleet.append_audit(actor, action, ENTITY, before, after).await?;
    let for_agents = retry_after_s.map(|seconds| Throttle { retry_after: Duration::from_secs(seconds) });
    app.opamp.throttle(for_agents);
    *throttle = wanted;
    Ok(Json(throttle.as_ref().into()))
}
