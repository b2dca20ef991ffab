//! Endpoints of the package catalogue.

use axum::routing::{delete, get, post};
use opamp_store::Role;

use super::{CURSOR, LIMIT, Param, Route, Shape};
use crate::api::packages;

/// The table.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/packages",
        role: Some(Role::Viewer),
        summary: "List package versions",
        query: &[LIMIT, CURSOR],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<packages::PackagePage>())),
        failures: &[400],
        handler: || get(packages::list),
    },
    Route {
        method: "POST",
        path: "/packages",
        role: Some(Role::Operator),
        summary: "Upload a package version: the body is the file",
        query: &[
            Param { name: "name", required: true, about: "Name of the package; may be empty." },
            Param { name: "version", required: true, about: "Its version." },
            Param { name: "type", required: true, about: "`top_level` or `add_on`." },
            Param { name: "sha256", required: false, about: "What the file's SHA-256 has to be." },
            Param {
                name: "signature",
                required: false,
                about: "A signature of the file in base64, for agents to verify.",
            },
        ],
        headers: &[],
        body: Some(Shape::bytes()),
        success: (201, Some(Shape::of::<packages::Package>())),
        failures: &[400, 409, 413, 415],
        handler: || post(packages::upload),
    },
    Route {
        method: "GET",
        path: "/packages/{package}",
        role: Some(Role::Viewer),
        summary: "A package version, named `NAME@VERSION`",
        query: &[],
        headers: &[],
        body: None,
        success: (200, Some(Shape::of::<packages::Package>())),
        failures: &[400, 404],
        handler: || get(packages::show),
    },
    Route {
        method: "DELETE",
        path: "/packages/{package}",
        role: Some(Role::Admin),
        summary: "Delete a package version that no agent should have",
        query: &[],
        headers: &[],
        body: None,
        success: (204, None),
        failures: &[400, 404, 409],
        handler: || delete(packages::delete),
    },
];
