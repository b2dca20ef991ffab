//! Endpoints of the packages of one agent.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, Json, extract::State};
use http::HeaderMap;
use opamp_fleet::manager::{Actor, AssignPackagesError};

use super::{AgentPackages, PackagesAssignment, switched_on};
use crate::api::{
    agents::{self, AgentPath},
    error::ApiError,
    extract::{Body, NoParameters, Query},
    schema::request,
    state::App,
};

request! {
    /// The packages an agent should have, all of them: what the server gave it before and is not there is removed.
    pub(crate) struct PackagesRequest {
        /// Versions by name.
        packages: BTreeMap<String, String>,
    }
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    AgentPath(id): AgentPath,
    _: Query<NoParameters>,
) -> Result<Json<AgentPackages>, ApiError> {
    Ok(Json(agents::known(&app, &id).await?.into()))
}

pub(crate) async fn assign(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    headers: HeaderMap,
    Body(wanted): Body<PackagesRequest>,
) -> Result<Json<PackagesAssignment>, ApiError> {
    switched_on(&app)?;
    let key = agents::idempotency_key(&headers)?;
    let assigned = app.fleet.assign_packages(&actor, &id, wanted.packages, key).await?;
    Ok(Json(assigned.into()))
}

pub(crate) async fn unassign(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    headers: HeaderMap,
) -> Result<Json<PackagesAssignment>, ApiError> {
    let key = agents::idempotency_key(&headers)?;
    let assigned = app.fleet.unassign_packages(&actor, &id, key).await?;
    Ok(Json(assigned.into()))
}

impl From<AssignPackagesError> for ApiError {
    fn from(error: AssignPackagesError) -> Self {
        let text = error.to_string();
        match error {
            AssignPackagesError::Conflict(_) | AssignPackagesError::NotAccepted(_) => {
                ApiError::conflict(text)
            }
            AssignPackagesError::NoUrlBase => ApiError::conflict(text).hint("set `packages.public_url`"),
            AssignPackagesError::IdempotencyKey
            | AssignPackagesError::InvalidOffer(_)
            | AssignPackagesError::NotSoleTopLevel
            | AssignPackagesError::TooMany { .. } => ApiError::bad_request(text),
            AssignPackagesError::NotFound(_) => ApiError::not_found(text),
            AssignPackagesError::PackageNotFound(_) => ApiError::not_found(text).hint("upload it first"),
            AssignPackagesError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}
