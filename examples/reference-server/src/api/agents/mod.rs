//! Endpoints of agents.

mod shape;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use http::{HeaderMap, StatusCode};
use opamp_fleet::{
    Selector, SelectorError, UnknownWord,
    manager::{Actor, AgentCommandError, AgentDetail, AgentError, AgentQuery, AssignError, StoreFailure},
};
use opamp_proto::AgentId;

pub(crate) use self::shape::{Agent, AgentPage, Applied, Assignment, Dispatched, Failure, Offered, dispatch};
use super::{
    error::ApiError,
    extract::{Body, NoParameters, Parameters, Query, parse},
    paging,
    schema::request,
    state::App,
};

request! {
    /// What an agent should run.
    pub(crate) struct AssignRequest {
        /// Name of the config.
        config: String,
        /// A published version of it.
        version: u32,
    }
}

request! {
    /// The labels of an agent, all of them: what is not there is removed.
    pub(crate) struct LabelsRequest {
        /// Values by key.
        labels: BTreeMap<String, String>,
    }
}

/// Query parameters of the list.
pub(crate) struct ListParameters(AgentQuery);

impl Default for ListParameters {
    fn default() -> Self {
        ListParameters(AgentQuery { limit: paging::PAGE_DEFAULT, ..AgentQuery::default() })
    }
}

impl Parameters for ListParameters {
    const NAMES: &'static [&'static str] = &["selector", "liveness", "health", "drift", "limit", "cursor"];

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let word = |error: UnknownWord| ApiError::bad_request(format!("query parameter `{name}`: {error}"));
        let query = &mut self.0;
        match name {
            "selector" => {
                query.selector = Some(selector(value)?);
            }
            "liveness" => query.liveness = Some(value.parse().map_err(word)?),
            "health" => query.health = Some(value.parse().map_err(word)?),
            "drift" => query.drift = Some(value.parse().map_err(word)?),
            "limit" => query.limit = paging::limit(value)?,
            _ => query.after = Some(parse(name, value)?),
        }
        Ok(())
    }
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(ListParameters(query)): Query<ListParameters>,
) -> Result<Json<AgentPage>, ApiError> {
    // A selector is held against every agent, which must not keep a runtime's worker from its sockets.
    let listing = tokio::task::spawn_blocking(move || {
        let page = app.fleet.agents(&query);
        AgentPage { agents: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next }
    });
    let page = listing.await.map_err(|error| ApiError::internal(format!("no list was made: {error}")))?;
    Ok(Json(page))
}

pub(crate) async fn detail(
    State(app): State<Arc<App>>,
    AgentPath(id): AgentPath,
    _: Query<NoParameters>,
) -> Result<Json<Agent>, ApiError> {
    Ok(Json(known(&app, &id).await?.into()))
}

/// Everything known of an agent; 404 if there is none.
pub(crate) async fn known(app: &App, id: &AgentId) -> Result<AgentDetail, ApiError> {
    let found = app.fleet.agent(id).await?;
    found.ok_or_else(|| ApiError::not_found(format!("there is no agent {id}")))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
) -> Result<StatusCode, ApiError> {
    app.fleet.delete_agent(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn set_labels(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    Body(wanted): Body<LabelsRequest>,
) -> Result<StatusCode, ApiError> {
    app.fleet.set_labels(&actor, &id, wanted.labels).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn assign(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    headers: HeaderMap,
    Body(wanted): Body<AssignRequest>,
) -> Result<Json<Assignment>, ApiError> {
    let key = idempotency_key(&headers)?;
    let assigned = app.fleet.assign(&actor, &id, &wanted.config, wanted.version, key).await?;
    Ok(Json(assigned.into()))
}

pub(crate) async fn unassign(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    headers: HeaderMap,
) -> Result<Json<Assignment>, ApiError> {
    let key = idempotency_key(&headers)?;
    let assigned = app.fleet.unassign(&actor, &id, key).await?;
    Ok(Json(assigned.into()))
}

pub(crate) async fn restart(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
) -> Result<(StatusCode, Json<Dispatched>), ApiError> {
    let dispatch = app.fleet.restart_agent(&actor, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(dispatch.into())))
}

pub(crate) async fn request_full_state(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
) -> Result<(StatusCode, Json<Dispatched>), ApiError> {
    let dispatch = app.fleet.request_full_state(&actor, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(dispatch.into())))
}

/// The agent named in the path.
pub(crate) struct AgentPath(pub(crate) AgentId);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for AgentPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        let id = text
            .parse()
            .map_err(|error| ApiError::bad_request(format!("{text:?} is not an agent id: {error}")))?;
        Ok(AgentPath(id))
    }
}

/// The idempotency key of a request, if it has one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let value = headers.get("idempotency-key").map(|value| value.to_str().map(str::to_owned));
    value.transpose().map_err(|_| ApiError::bad_request("`Idempotency-Key` must be printable ASCII"))
}

/// Reads a selector; a mistake is shown where it stands.
pub(crate) fn selector(text: &str) -> Result<Selector, ApiError> {
    text.parse().map_err(|error: SelectorError| {
        ApiError::invalid_selector(error.to_string()).hint(point_at(text, error.column))
    })
}

/// The selector with a mark under the place that is wrong.
fn point_at(selector: &str, column: usize) -> String {
    format!("{selector}\n{}^", " ".repeat(column.saturating_sub(1)))
}

impl From<StoreFailure> for ApiError {
    fn from(failure: StoreFailure) -> Self {
        let text = failure.to_string();
        match failure {
            StoreFailure::Damaged(_) | StoreFailure::Refused(_) => {
                tracing::error!(error = text, "request failed");
                ApiError::internal(text)
            }
            StoreFailure::OutcomeUnknown(_) => {
                ApiError::unavailable(text).hint("it may have been written: look before you repeat it")
            }
            _ => ApiError::unavailable(text),
        }
    }
}

impl From<AgentError> for ApiError {
    fn from(error: AgentError) -> Self {
        let text = error.to_string();
        match error {
            AgentError::AlreadyKnown { .. } | AgentError::Conflict(_) => ApiError::conflict(text),
            AgentError::Labels(_) => ApiError::bad_request(text),
            AgentError::NotFound(_) => ApiError::not_found(text),
            AgentError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}

impl From<AssignError> for ApiError {
    fn from(error: AssignError) -> Self {
        let text = error.to_string();
        match error {
            AssignError::IdempotencyKey => ApiError::bad_request(text),
            AssignError::NotFound(_) | AssignError::VersionNotFound { .. } => ApiError::not_found(text),
            AssignError::NotPublished { .. } => ApiError::conflict(text).hint("publish it first"),
            AssignError::Conflict(_) | AssignError::NotAccepted(_) => ApiError::conflict(text),
            AssignError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}

impl From<AgentCommandError> for ApiError {
    fn from(error: AgentCommandError) -> Self {
        let text = error.to_string();
        match error {
            AgentCommandError::NotAccepted(_) | AgentCommandError::NotConnected(_) => {
                ApiError::conflict(text)
            }
            AgentCommandError::NotFound(_) => ApiError::not_found(text),
            AgentCommandError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}
