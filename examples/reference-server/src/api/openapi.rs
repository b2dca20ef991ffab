//! The OpenAPI 3.1 document, made from the table of endpoints.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    error::ErrorReply,
    routes::{self, Param, Route, Shape},
    schema::Schema,
};

/// Failures that every endpoint may answer.
const COMMON_FAILURES: [u16; 2] = [403, 408];
/// Failures that every endpoint with a role may answer, beside those.
const ROLE_FAILURES: [u16; 2] = [401, 503];

/// The document.
pub(crate) fn document() -> Value {
    let mut components = Map::new();
    ErrorReply::define(&mut components);
    let mut paths = Map::new();
    for route in routes::all() {
        let operation = operation(route, &mut components);
        let path = paths.entry(format!("/api/v1{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "OpAMP reference server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Inventory, configurations and assignments of an OpAMP fleet. Unknown fields and query parameters are refused.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "opamp-pat"}},
        },
    })
}

fn operation(route: &Route, components: &mut Map<String, Value>) -> Value {
    let mut parameters: Vec<_> =
        path_parameters(route.path).map(|name| parameter(name, "path", true, "")).collect();
    let described = |place| move |p: &Param| parameter(p.name, place, p.required, p.about);
    parameters.extend(route.query.iter().map(described("query")));
    parameters.extend(route.headers.iter().map(described("header")));

    let mut responses = Map::new();
    responses.insert(route.success.0.to_string(), response(route.success.0, route.success.1, components));
    let of_role = ROLE_FAILURES.iter().filter(|_| route.role.is_some());
    for status in route.failures.iter().chain(&COMMON_FAILURES).chain(of_role) {
        responses.insert(status.to_string(), response(*status, Some(Shape::of::<ErrorReply>()), components));
    }

    let mut operation = json!({
        "operationId": route.operation_id(),
        "summary": route.summary,
        "responses": responses,
        "parameters": parameters,
    });
    match route.role {
        Some(role) => operation["x-role"] = role.as_str().into(),
        None => operation["security"] = json!([]),
    }
    if let Some(body) = route.body {
        (body.define)(components);
        operation["requestBody"] =
            json!({"required": true, "content": {body.media_type: {"schema": (body.schema)()}}});
    }
    operation
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn parameter(name: &str, place: &str, required: bool, about: &str) -> Value {
    json!({"name": name, "in": place, "required": required, "description": about, "schema": {"type": "string"}})
}

fn response(status: u16, shape: Option<Shape>, components: &mut Map<String, Value>) -> Value {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let mut response = json!({"description": reason});
    if let Some(shape) = shape {
        (shape.define)(components);
        response["content"] = json!({shape.media_type: {"schema": (shape.schema)()}});
    }
    response
}
