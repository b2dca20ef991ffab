//! The admin port's HTTP interface: REST under `/api/v1`, health, metrics.

pub(crate) mod access;
mod agents;
mod audit;
mod configs;
mod connection_settings;
mod custom;
mod error;
mod extract;
pub(crate) mod openapi;
mod packages;
mod paging;
mod routes;
mod schema;
mod self_agent;
pub(crate) mod state;
mod stats;
mod system;
pub(crate) mod throttle;
mod tokens;
mod values;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, Method, header};
use opamp_store::Role;

use self::{error::ApiError, state::App};
use crate::{config::MetricsAccess, exposure};

/// Where files are uploaded, with POST.
const UPLOADS: &str = "/api/v1/packages";

/// Everything that the admin port answers.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        let mut handler = (route.handler)();
        if let Some(role) = route.role {
            handler = handler.route_layer(from_fn_with_state((Arc::clone(app), role), access::authorize));
        }
        router = router.route(&format!("/api/v1{}", route.path), handler);
    }
    let admin = &app.config.admin;
    let limits = Limits { request: admin.request_timeout, upload: app.config.packages.upload_timeout };
    let metrics_open = match admin.metrics {
        MetricsAccess::Auto => exposure::is_loopback(&admin.listen),
        MetricsAccess::Open => true,
        MetricsAccess::Token => false,
    };
    let admit = from_fn_with_state(Arc::clone(app), access::admit);
    let mut metrics = get(system::metrics);
    if !metrics_open {
        let authorize = from_fn_with_state((Arc::clone(app), Role::Viewer), access::authorize);
        metrics = metrics.route_layer(authorize).route_layer(admit.clone());
    }
    // Where credentials are sent, the way they come matters; probes send none.
    router
        .layer(admit)
        .layer(map_response(not_stored))
        .route("/health/live", get(system::live))
        .route("/health/ready", get(system::ready))
        .route("/metrics", metrics)
        .fallback(|| async { ApiError::not_found("no such path").hint("see /api/v1/openapi.json") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed("this path has other methods") })
        .layer(DefaultBodyLimit::max(admin.body_bytes_max.0))
        .layer(from_fn_with_state(limits, within))
        .layer(from_fn_with_state(Arc::clone(app), count))
        .with_state(Arc::clone(app))
}

/// Answers may hold configurations and tokens: no cache keeps them.
async fn not_stored(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How long requests may take.
#[derive(Clone, Copy)]
struct Limits {
    request: Duration,
    upload: Duration,
}

/// Ends a request that takes too long. What an upload waits for it limits itself; this is for all around it.
async fn within(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let uploads = request.method() == Method::POST && route == Some(UPLOADS);
    let limit = if uploads { limits.request.saturating_add(limits.upload) } else { limits.request };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::timeout("the request took longer than `admin.request_timeout`").into_response(),
    }
}

/// Counts a request under its route.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let response = next.run(request).await;
    app.requests.count(&route, &method, response.status().as_u16());
    response
}
