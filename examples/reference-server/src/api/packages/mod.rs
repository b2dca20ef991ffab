//! Endpoints of the package catalogue, and of the packages of one agent.

mod assigned;
mod shape;
mod upload;

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Path, State},
};
use http::{StatusCode, request::Parts};
use opamp_fleet::manager::{Actor, PackageError};
use opamp_store::PackageKey;

pub(crate) use self::{
    assigned::{PackagesRequest, assign, show as assigned, unassign},
    shape::{AgentPackages, Package, PackagePage, PackagesAssignment},
    upload::upload,
};
use super::{
    error::ApiError,
    extract::{NoParameters, Query},
    paging::{Cursor, Paging},
    state::App,
};

impl Cursor for PackageKey {
    fn read(value: &str) -> Result<Self, ApiError> {
        key(value)
    }
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(page): Query<Paging<PackageKey>>,
) -> Result<Json<PackagePage>, ApiError> {
    let page = app.fleet.packages(page.after, page.limit).await?;
    let packages = page.items.into_iter().map(Package::from).collect();
    Ok(Json(PackagePage { packages, next_cursor: page.next.map(|key| key.to_string()) }))
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    PackagePath(key): PackagePath,
    _: Query<NoParameters>,
) -> Result<Json<Package>, ApiError> {
    let found = app.fleet.package(&key).await?;
    Ok(Json(found.ok_or(PackageError::NotFound(key))?.into()))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    PackagePath(key): PackagePath,
) -> Result<StatusCode, ApiError> {
    app.fleet.delete_package(&actor, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The package version named in the path.
pub(crate) struct PackagePath(PackageKey);

impl<S: Send + Sync> FromRequestParts<S> for PackagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        key(&text).map(PackagePath)
    }
}

/// Reads `NAME@VERSION`, of which the name may be empty and neither has an `@`.
fn key(text: &str) -> Result<PackageKey, ApiError> {
    match text.split_once('@') {
        Some((name, version)) if !version.is_empty() => Ok(PackageKey::new(name, version)),
        _ => Err(ApiError::bad_request(format!("{text:?} is not a package version"))
            .hint("write `NAME@VERSION`, or `@VERSION` for the package with the empty name")),
    }
}

impl From<PackageError> for ApiError {
    fn from(error: PackageError) -> Self {
        let text = error.to_string();
        match error {
            PackageError::Aborted | PackageError::ContentLost => ApiError::conflict(text),
            PackageError::Exists(_) => ApiError::conflict(text).hint("choose another version"),
            PackageError::InUse { .. } => ApiError::conflict(text)
                .hint("assign other packages, or none, to the agents that have it; the audit log names them"),
            PackageError::NoRoom { .. } => ApiError::conflict(text)
                .hint("delete versions that no agent needs, or raise `packages.total_bytes_max`"),
            PackageError::TooMany { .. } => ApiError::conflict(text)
                .hint("delete versions that no agent needs, or raise `packages.versions_max`"),
            PackageError::Empty
            | PackageError::Name
            | PackageError::Signature { .. }
            | PackageError::Version
            | PackageError::WrongHash { .. } => ApiError::bad_request(text),
            PackageError::NotFound(_) => ApiError::not_found(text),
            PackageError::TooLarge { .. } => {
                ApiError::too_large(text).hint("`packages.file_bytes_max` is the limit")
            }
            PackageError::TooManyUploads { .. } => ApiError::unavailable(text),
            PackageError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}

/// Changes are refused while packages are switched off: nobody would see them take effect.
fn switched_on(app: &App) -> Result<(), ApiError> {
    if app.config.packages.enabled {
        return Ok(());
    }
    Err(ApiError::conflict("packages are switched off").hint("set `packages.enabled = true`"))
}
