//! Assigning a version to all agents that a selector matches.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use opamp_fleet::{
    Selector,
    manager::{Actor, AssignMatchingError, AssignedMatching as Outcome},
};

use super::{
    super::{
        agents::selector,
        error::ApiError,
        extract::Body,
        schema::{reply, request},
        state::App,
    },
    VersionPath,
};

request! {
    /// Which agents should run a version. Two such requests at a time go through their agents in turns: an agent that both match
    /// has in the end what was assigned to it last. Wait for the answer to one before the next.
    pub(crate) struct AssignMatchingRequest {
        /// Label selector such as `service.name=otelcol,env in (prod,dev)`; not empty.
        selector: String,
        /// If more agents match, nothing is done.
        at_most: u64,
    }
}

reply! {
    /// What became of the agents that match. Those in no other number were deleted meanwhile.
    pub(crate) struct AssignedMatching {
        /// Agents that match.
        matched: u64,
        /// Agents to which the version is assigned now and was not before.
        assigned: u64,
        /// Agents to which it was assigned before, which are left as they are.
        unchanged: u64,
        /// Agents that do not take remote configuration.
        not_accepted: u64,
        /// Agents whose record cannot be understood.
        damaged: u64,
    }
}

pub(crate) async fn assign(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    at: VersionPath,
    Body(wanted): Body<AssignMatchingRequest>,
) -> Result<Json<AssignedMatching>, ApiError> {
    let selector: Selector = selector(&wanted.selector)?;
    let at_most = usize::try_from(wanted.at_most).unwrap_or(usize::MAX);
    let outcome = app.fleet.assign_matching(&actor, &selector, at_most, &at.config, at.version).await?;
    Ok(Json(outcome.into()))
}

impl From<Outcome> for AssignedMatching {
    fn from(outcome: Outcome) -> Self {
        let count = |agents: usize| u64::try_from(agents).unwrap_or(u64::MAX);
        AssignedMatching {
            matched: count(outcome.matched),
            assigned: count(outcome.assigned),
            unchanged: count(outcome.unchanged),
            not_accepted: count(outcome.not_accepted),
            damaged: count(outcome.damaged),
        }
    }
}

impl From<AssignMatchingError> for ApiError {
    fn from(error: AssignMatchingError) -> Self {
        let text = error.to_string();
        match error {
            AssignMatchingError::Everything => ApiError::invalid_selector(text),
            AssignMatchingError::Interrupted { cause, .. } => {
                let error = ApiError { message: text, ..cause.into() };
                error.hint("repeat it: agents that have the version by now are left as they are")
            }
            AssignMatchingError::Refused(cause) => cause.into(),
            AssignMatchingError::TooMany { .. } => ApiError::conflict(text)
                .hint("narrow the selector, or raise `at_most` if all of them are meant"),
            _ => ApiError::internal(text),
        }
    }
}
