//! Endpoints about the server itself: version, OpenAPI, health, metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use opamp_proto::Wall;
use serde_json::Value;

use super::{
    error::ApiError,
    extract::{NoParameters, Query},
    openapi,
    schema::reply,
    state::App,
};
use crate::{metrics, scrape};

reply! {
    /// What is running.
    pub(crate) struct ServerVersion {
        /// Name of the program.
        name: &'static str,
        /// Its version.
        version: &'static str,
        /// Version of the OpAMP specification it speaks.
        opamp_version: &'static str,
        /// When it was started.
        started_at: Wall,
    }
}

pub(crate) async fn version(State(app): State<Arc<App>>, _: Query<NoParameters>) -> Json<ServerVersion> {
    Json(ServerVersion {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        opamp_version: crate::OPAMP_VERSION,
        started_at: app.started_at,
    })
}

pub(crate) async fn openapi(_: Query<NoParameters>) -> Json<Value> {
    Json(openapi::document())
}

/// The process runs and answers; nothing else is looked at.
pub(crate) async fn live() -> &'static str {
    "live\n"
}

/// Whether this server can do its work now.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    if app.is_draining() {
        return Err(ApiError::unavailable("shutting down"));
    }
    app.fleet.ready().await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok("ready\n")
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    match scrape::snapshot(&app).render() {
        Ok(page) => {
            let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
            ([(header::CONTENT_TYPE, content_type)], page).into_response()
        }
        Err(error) => ApiError::internal(format!("metrics cannot be written: {error}")).into_response(),
    }
}
