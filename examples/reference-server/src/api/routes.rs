//! The table of endpoints. The router, the role checks and the OpenAPI document are all made from it, so none of them
//! can know an endpoint that the others do not.

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, post, put};
use opamp_store::Role;
use serde_json::{Map, Value};

use super::{agents, audit, configs, schema::Schema, self_agent, state::App, stats, system, tokens};

/// One endpoint.
pub(crate) struct Route {
    /// Method in upper case.
    pub(crate) method: &'static str,
    /// Path below `/api/v1`, parameters in braces.
    pub(crate) path: &'static str,
    /// The least role that may call it; `None` is open to everyone.
    pub(crate) role: Option<Role>,
    /// One line.
    pub(crate) summary: &'static str,
    /// Query parameters.
    pub(crate) query: &'static [Param],
    /// Request headers beyond `Authorization`.
    pub(crate) headers: &'static [Param],
    /// Request body.
    pub(crate) body: Option<Shape>,
    /// Status and body of success.
    pub(crate) success: (u16, Option<Shape>),
    /// Statuses of failure that belong to this endpoint; 403 and 408 belong to all, 401 and 503 to those with a role.
    pub(crate) failures: &'static [u16],
    /// The handler, with its method.
    pub(crate) handler: fn() -> MethodRouter<Arc<App>>,
}

/// A query parameter or header.
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

/// A JSON shape: its schema, and the definitions that needs.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) schema: fn() -> Value,
    pub(crate) define: fn(&mut Map<String, Value>),
}

impl Shape {
    pub(crate) const fn of<T: Schema>() -> Self {
        Shape { schema: T::schema, define: T::define }
    }
}

impl Route {
    /// A name for generated clients: method and path without braces.
    pub(crate) fn operation_id(&self) -> String {
        let words = self.path.split(['/', '-', '.']).filter(|word| !word.is_empty());
        let words = words.map(|word| word.trim_matches(['{', '}']));
        std::iter::once(self.method.to_ascii_lowercase().as_str()).chain(words).collect::<Vec<_>>().join("_")
    }
}

/// Every endpoint below `/api/v1`.
pub(crate) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/agents",
        role: Some(Role::Viewer),
        summary: "List agents",
        query: &[
            Param {
                name: "selector",
                required: false,
                about: "Label selector such as `service.name=otelcol,env in (prod,dev)`.",
            },
            Param { name: "liveness", required: false, about: "Only this liveness." },
            Param { name: "health", required: false, about: "Only this health." },
            Param { name: "drift", required: false, about: "Only this drift." },
            LIMIT,
            CURSOR,
        ],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<agents::AgentPage>())),
        failures: &[400],
        handler: || get(agents::list),
    },
    Route {
        method: "GET",
        path: "/agents/{id}",
        role: Some(Role::Viewer),
        summary: "Everything known of one agent",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<agents::Agent>())),
        failures: &[400, 404],
        handler: || get(agents::detail),
    },
    Route {
        method: "DELETE",
        path: "/agents/{id}",
        role: Some(Role::Admin),
        summary: "Forget an agent; if it is connected it comes back as a new one",
        query: &[],
        headers: &[],
        body: None,
        success: (204, None),
        failures: &[400, 404, 409],
        handler: || delete(agents::delete),
    },
    Route {
        method: "PUT",
        path: "/agents/{id}/labels",
        role: Some(Role::Operator),
        summary: "Replace the labels of an agent",
        query: &[],
        headers: &[],
        body: Some(Shape::of::<agents::LabelsRequest>()),
        success: (204, None),
        failures: &[400, 404, 409, 413, 415],
        handler: || put(agents::set_labels),
    },
    Route {
        method: "POST",
        path: "/agents/{id}/assign",
        role: Some(Role::Operator),
        summary: "Assign a published config version to an agent",
        query: &[],
        headers: &[IDEMPOTENCY_KEY],
        body: Some(Shape::of::<agents::AssignRequest>()),
        success: (200, Some(Shape::of::<agents::Assignment>())),
        failures: &[400, 404, 409, 413, 415],
        handler: || post(agents::assign),
    },
    Route {
        method: "DELETE",
        path: "/agents/{id}/assign",
        role: Some(Role::Operator),
        summary: "Stop managing the configuration of an agent",
        query: &[],
        headers: &[IDEMPOTENCY_KEY],
        body: None,
        success: (200, Some(Shape::of::<agents::Assignment>())),
        failures: &[400, 404, 409],
        handler: || delete(agents::unassign),
    },
    Route {
        method: "POST",
        path: "/agents/{id}/restart",
        role: Some(Role::Operator),
        summary: "Order a connected agent to restart",
        query: &[],
        headers: &[],
        body: None,
        success: (202, Some(Shape::of::<agents::Dispatched>())),
        failures: &[400, 404, 409],
        handler: || post(agents::restart),
    },
    Route {
        method: "POST",
        path: "/agents/{id}/request-full-state",
        role: Some(Role::Operator),
        summary: "Ask an agent for its full state",
        query: &[],
        headers: &[],
        body: None,
        success: (202, Some(Shape::of::<agents::Dispatched>())),
        failures: &[400, 404, 409],
        handler: || post(agents::request_full_state),
    },
    Route {
        method: "GET",
        path: "/configs",
        role: Some(Role::Viewer),
        summary: "List configs",
        query: &[LIMIT, CURSOR],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<configs::ConfigPage>())),
        failures: &[400],
        handler: || get(configs::list),
    },
    Route {
        method: "POST",
        path: "/configs",
        role: Some(Role::Operator),
        summary: "Make a config with a draft of its first version",
        query: &[],
        headers: &[],
        body: Some(Shape::of::<configs::NewConfigRequest>()),
        success: (201, Some(Shape::of::<configs::VersionSummary>())),
        failures: &[400, 409, 413, 415],
        handler: || post(configs::create),
    },
    Route {
        method: "GET",
        path: "/configs/{name}",
        role: Some(Role::Viewer),
        summary: "A config with all its versions",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<configs::Config>())),
        failures: &[400, 404],
        handler: || get(configs::detail),
    },
    Route {
        method: "POST",
        path: "/configs/{name}/versions",
        role: Some(Role::Operator),
        summary: "Make a draft of the next version",
        query: &[],
        headers: &[],
        body: Some(Shape::of::<configs::VersionRequest>()),
        success: (201, Some(Shape::of::<configs::VersionSummary>())),
        failures: &[400, 404, 409, 413, 415],
        handler: || post(configs::create_version),
    },
    Route {
        method: "GET",
        path: "/configs/{name}/versions/{version}",
        role: Some(Role::Viewer),
        summary: "A version with its files",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<configs::VersionContent>())),
        failures: &[400, 404],
        handler: || get(configs::version),
    },
    Route {
        method: "PUT",
        path: "/configs/{name}/versions/{version}",
        role: Some(Role::Operator),
        summary: "Replace the content of a draft",
        query: &[],
        headers: &[IF_MATCH],
        body: Some(Shape::of::<configs::VersionRequest>()),
        success: (200, Some(Shape::of::<configs::VersionSummary>())),
        failures: &[400, 404, 409, 412, 413, 415, 428],
        handler: || put(configs::update_draft),
    },
    Route {
        method: "POST",
        path: "/configs/{name}/versions/{version}/publish",
        role: Some(Role::Operator),
        summary: "Publish a draft: from then on it is immutable and can be assigned",
        query: &[],
        headers: &[IF_MATCH_OPTIONAL],
        body: None,
        success: (200, Some(Shape::of::<configs::VersionSummary>())),
        failures: &[400, 404, 409, 412],
        handler: || post(configs::publish),
    },
    Route {
        method: "POST",
        path: "/configs/{name}/versions/{version}/archive",
        role: Some(Role::Operator),
        summary: "Archive a published version: it cannot be assigned any more",
        query: &[],
        headers: &[IF_MATCH_OPTIONAL],
        body: None,
        success: (200, Some(Shape::of::<configs::VersionSummary>())),
        failures: &[400, 404, 409, 412],
        handler: || post(configs::archive),
    },
    Route {
        method: "GET",
        path: "/configs/{name}/diff",
        role: Some(Role::Viewer),
        summary: "What changes from one version to another",
        query: &[
            Param { name: "from", required: true, about: "The older version." },
            Param { name: "to", required: true, about: "The newer version." },
        ],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<configs::Diff>())),
        failures: &[400, 404],
        handler: || get(configs::diff),
    },
    Route {
        method: "GET",
        path: "/stats",
        role: Some(Role::Viewer),
        summary: "Numbers about the fleet; the parts sum to the whole",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<stats::Stats>())),
        failures: &[400],
        handler: || get(stats::stats),
    },
    Route {
        method: "GET",
        path: "/audit",
        role: Some(Role::Viewer),
        summary: "Who did what",
        query: &[
            Param { name: "actor", required: false, about: "Only this actor." },
            Param { name: "action", required: false, about: "Only this action." },
            Param { name: "entity", required: false, about: "Only this entity." },
            Param { name: "since", required: false, about: "From this time on, RFC 3339." },
            Param { name: "until", required: false, about: "Before this time, RFC 3339." },
            Param { name: "order", required: false, about: "`newest` (default) or `oldest` first." },
            LIMIT,
            CURSOR,
        ],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<audit::AuditPage>())),
        failures: &[400],
        handler: || get(audit::list),
    },
    Route {
        method: "GET",
        path: "/audit/verify",
        role: Some(Role::Operator),
        summary: "Check every hash of the audit log; one such check runs at a time",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<audit::AuditVerification>())),
        failures: &[400, 409],
        handler: || get(audit::verify),
    },
    Route {
        method: "GET",
        path: "/self",
        role: Some(Role::Viewer),
        summary: "Whether the server is at fault or the network before it, as its own agent sees it",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<self_agent::SelfReport>())),
        failures: &[400],
        handler: || get(self_agent::report),
    },
    Route {
        method: "GET",
        path: "/version",
        role: Some(Role::Viewer),
        summary: "What is running",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<system::ServerVersion>())),
        failures: &[400],
        handler: || get(system::version),
    },
    Route {
        method: "GET",
        path: "/tokens",
        role: Some(Role::Admin),
        summary: "List API tokens, without their secrets",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<tokens::TokenList>())),
        failures: &[400],
        handler: || get(tokens::list),
    },
    Route {
        method: "POST",
        path: "/tokens",
        role: Some(Role::Admin),
        summary: "Make an API token; the answer shows it once",
        query: &[],
        headers: &[],
        body: Some(Shape::of::<tokens::NewTokenRequest>()),
        success: (201, Some(Shape::of::<tokens::CreatedToken>())),
        failures: &[400, 409, 413, 415],
        handler: || post(tokens::create),
    },
    Route {
        method: "DELETE",
        path: "/tokens/{id}",
        role: Some(Role::Admin),
        summary: "Revoke an API token",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<tokens::TokenReply>())),
        failures: &[404, 409],
        handler: || delete(tokens::revoke),
    },
    Route {
        method: "GET",
        path: "/openapi.json",
        role: None,
        summary: "This document",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<Value>())),
        failures: &[400],
        handler: || get(system::openapi),
    },
];

const LIMIT: Param = Param { name: "limit", required: false, about: "Items of a page, 1 to 1000." };
const CURSOR: Param = Param { name: "cursor", required: false, about: "`next_cursor` of the page before." };
const IDEMPOTENCY_KEY: Param = Param {
    name: "Idempotency-Key",
    required: false,
    about: "1 to 64 characters; repeating a request with the same key changes nothing a second time.",
};
const IF_MATCH: Param =
    Param { name: "If-Match", required: true, about: "The `ETag` of the version that was read." };
const IF_MATCH_OPTIONAL: Param = Param { required: false, ..IF_MATCH };
