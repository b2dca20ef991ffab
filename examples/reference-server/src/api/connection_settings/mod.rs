//! Endpoints of the connection settings of one agent.

mod request;
mod shown;

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use http::HeaderMap;
use opamp_fleet::manager::{Actor, AgentDetail, Assigned, ConnectionSettingsError};
use opamp_proto::{ConfigHash, Wall, pb};
use opamp_server::{ConnectionSettingsOffer, ConnectionSettingsReport, InvalidOffer, Target};
use opamp_store::DesiredSettings;

pub(crate) use self::request::SettingsRequest;
use self::shown::Settings;
use super::{
    agents::{self, AgentPath, Applied, Failure, Offered},
    error::ApiError,
    extract::{Body, NoParameters, Query},
    schema::reply,
    state::App,
};

reply! {
    /// The connection settings an agent should have, without their content.
    pub(crate) struct DesiredConnection {
        /// Hash of all of them.
        hash: ConfigHash,
        /// Counts every change of what this agent should have.
        generation: u64,
        /// Who set them.
        set_by: String,
        /// When.
        set_at: Wall,
    }
}

reply! {
    /// What an agent says of connection settings.
    pub(crate) struct ReportedConnection {
        /// Hash of the last offer it knows.
        hash: ConfigHash,
        /// `UNSET`, `APPLIED`, `APPLYING`, `FAILED`, or a number without a name.
        status: String,
        /// Why it failed.
        error: String,
    }
}

reply! {
    /// The connection settings of an agent: what it should have, was offered and reports.
    pub(crate) struct AgentConnection {
        /// `unmanaged`, `in_sync`, `pending`, `applying`, `failed` or `drifted`.
        drift: &'static str,
        /// What it should have; null if nothing is offered.
        desired: Option<DesiredConnection>,
        /// The content of that, without its secrets.
        settings: Option<Settings>,
        /// Counts every change of that.
        generation: u64,
        /// What it was offered last.
        offered: Option<Offered>,
        /// What it reports.
        reported: Option<ReportedConnection>,
        /// Whether what it should have failed, so that it is not offered again before it is set anew.
        failed: bool,
        /// Whether it cannot be offered, because it exceeds `opamp.message_bytes_max`.
        offer_too_large: bool,
        /// The last settings that failed.
        last_failure: Option<Failure>,
        /// The last settings it applied.
        last_applied: Option<Applied>,
    }
}

reply! {
    /// What a change of connection settings did.
    pub(crate) struct ConnectionAssignment {
        /// What the agent should have now.
        desired: Option<DesiredConnection>,
        /// `pushed` to an open socket, `next_poll` of a polling agent, or `no_session`: it waits for the agent.
        dispatch: &'static str,
        /// The idempotency key was used before; nothing was changed this time.
        replayed: bool,
    }
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    AgentPath(id): AgentPath,
    _: Query<NoParameters>,
) -> Result<Json<AgentConnection>, ApiError> {
    let agent = agents::known(&app, &id).await?;
    let target = app.fleet.connection_settings(&id).await?;
    Ok(Json(connection(agent, target.as_ref())))
}

pub(crate) async fn set(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    headers: HeaderMap,
    Body(wanted): Body<SettingsRequest>,
) -> Result<Json<ConnectionAssignment>, ApiError> {
    let config = &app.config.connection_settings;
    if !config.enabled {
        return Err(ApiError::conflict("connection settings are switched off")
            .hint("set `connection_settings.enabled = true`"));
    }
    let key = agents::idempotency_key(&headers)?;
    let rules = wanted.rules(config.plain_http_telemetry);
    let offer = ConnectionSettingsOffer::with_rules(wanted.into_settings(), rules).map_err(refused)?;
    let set = app.fleet.set_connection_settings(&actor, &id, offer, key).await?;
    Ok(Json(set.into()))
}

pub(crate) async fn clear(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    headers: HeaderMap,
) -> Result<Json<ConnectionAssignment>, ApiError> {
    let key = agents::idempotency_key(&headers)?;
    let cleared = app.fleet.clear_connection_settings(&actor, &id, key).await?;
    Ok(Json(cleared.into()))
}

/// The text names the field and never its value.
fn refused(invalid: InvalidOffer) -> ApiError {
    let error = ApiError::bad_request(invalid.to_string());
    match invalid {
        InvalidOffer::Endpoint { field, .. } if field.starts_with("own_") => {
            error.hint("`http://` destinations need `connection_settings.plain_http_telemetry = true`")
        }
        _ => error,
    }
}

fn connection(agent: AgentDetail, target: Option<&Target<ConnectionSettingsOffer>>) -> AgentConnection {
    let settings = agent.connection_settings;
    // Both were read one after the other: content of another decision is not shown for this one.
    let content = target.filter(|target| target.generation == settings.generation);
    let content = content.and_then(|target| target.offer.as_ref());
    AgentConnection {
        drift: settings.drift.as_str(),
        settings: content.map(|offer| offer.settings().into()),
        desired: settings.desired.map(Into::into),
        generation: settings.generation,
        offered: settings.offered.map(Into::into),
        reported: settings.report.map(Into::into),
        failed: settings.failed,
        offer_too_large: settings.too_large,
        last_failure: settings.last_failure.map(Into::into),
        last_applied: settings.last_applied.map(Into::into),
    }
}

impl From<DesiredSettings> for DesiredConnection {
    fn from(desired: DesiredSettings) -> Self {
        DesiredConnection {
            hash: desired.hash,
            generation: desired.generation,
            set_by: desired.assigned_by,
            set_at: desired.assigned_at,
        }
    }
}

impl From<ConnectionSettingsReport> for ReportedConnection {
    fn from(report: ConnectionSettingsReport) -> Self {
        use pb::ConnectionSettingsStatuses as Status;
        let status = match Status::try_from(report.status) {
            Ok(Status::Unset) => "UNSET".into(),
            Ok(Status::Applied) => "APPLIED".into(),
            Ok(Status::Applying) => "APPLYING".into(),
            Ok(Status::Failed) => "FAILED".into(),
            Err(_) => report.status.to_string(),
        };
        ReportedConnection { hash: report.hash, status, error: report.error }
    }
}

impl From<Assigned<DesiredSettings>> for ConnectionAssignment {
    fn from(assigned: Assigned<DesiredSettings>) -> Self {
        ConnectionAssignment {
            desired: assigned.desired.map(Into::into),
            dispatch: agents::dispatch(assigned.dispatch),
            replayed: assigned.replayed,
        }
    }
}

impl From<ConnectionSettingsError> for ApiError {
    fn from(error: ConnectionSettingsError) -> Self {
        let text = error.to_string();
        match error {
            ConnectionSettingsError::Conflict(_) | ConnectionSettingsError::NotAccepted(_) => {
                ApiError::conflict(text)
            }
            ConnectionSettingsError::IdempotencyKey => ApiError::bad_request(text),
            ConnectionSettingsError::NotFound(_) => ApiError::not_found(text),
            ConnectionSettingsError::TooLarge { .. } => {
                ApiError::too_large(text).hint("`connection_settings.bytes_max` is the limit")
            }
            ConnectionSettingsError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}
