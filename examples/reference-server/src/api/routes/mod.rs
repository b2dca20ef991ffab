//! The table of endpoints. The router, the role checks and the OpenAPI document are all made from it, so none of them
//! can know an endpoint that the others do not.

mod agents;
mod configs;
mod offers;
mod packages;
mod server;

use std::sync::Arc;

use axum::routing::MethodRouter;
use opamp_store::Role;
use serde_json::{Map, Value, json};

use super::{schema::Schema, state::App};

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

/// The shape of a body: its media type, its schema, and the definitions that needs.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) media_type: &'static str,
    pub(crate) schema: fn() -> Value,
    pub(crate) define: fn(&mut Map<String, Value>),
}

impl Shape {
    /// JSON.
    pub(crate) const fn of<T: Schema>() -> Self {
        Shape { media_type: "application/json", schema: T::schema, define: T::define }
    }

    /// Bytes as they are.
    pub(crate) const fn bytes() -> Self {
        Shape { media_type: "application/octet-stream", schema: || json!({}), define: |_| {} }
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
pub(crate) fn all() -> impl Iterator<Item = &'static Route> {
    [agents::ROUTES, offers::ROUTES, configs::ROUTES, packages::ROUTES, server::ROUTES].into_iter().flatten()
}

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
