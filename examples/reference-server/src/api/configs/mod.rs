//! Endpoints of configurations and their versions.

mod assign;
mod shape;

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use opamp_fleet::manager::{Actor, ConfigOpError};
use opamp_store::{ConfigVersion, Revision};

pub(crate) use self::assign::{AssignMatchingRequest, AssignedMatching, assign};
pub(crate) use self::shape::{
    Config, ConfigPage, Diff, NewConfigRequest, VersionContent, VersionRequest, VersionSummary,
};
use self::shape::{ConfigItem, config_map};
use super::{
    error::ApiError,
    extract::{Body, NoParameters, Parameters, Query, parse},
    paging::Paging,
    state::App,
    values,
};

/// Query parameters of a diff.
#[derive(Default)]
pub(crate) struct DiffParameters {
    from: Option<u32>,
    to: Option<u32>,
}

impl Parameters for DiffParameters {
    const NAMES: &'static [&'static str] = &["from", "to"];

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let version = Some(parse(name, value)?);
        match name {
            "from" => self.from = version,
            _ => self.to = version,
        }
        Ok(())
    }
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(page): Query<Paging<String>>,
) -> Result<Json<ConfigPage>, ApiError> {
    let page = app.fleet.configs(page.after, page.limit).await?;
    let mut configs = Vec::with_capacity(page.items.len());
    for name in page.items {
        let versions = app.fleet.versions(&name).await?;
        let count = u32::try_from(versions.len()).unwrap_or(u32::MAX);
        configs.extend(versions.into_iter().next_back().map(|latest| ConfigItem {
            name,
            versions: count,
            latest: latest.into(),
        }));
    }
    Ok(Json(ConfigPage { configs, next_cursor: page.next }))
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    Body(wanted): Body<NewConfigRequest>,
) -> Result<Response, ApiError> {
    let files = config_map(wanted.files)?;
    let version =
        app.fleet.create_config(&actor, &wanted.name, files, &wanted.comment.unwrap_or_default()).await?;
    Ok(tagged(StatusCode::CREATED, version))
}

pub(crate) async fn detail(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    _: Query<NoParameters>,
) -> Result<Json<Config>, ApiError> {
    let versions = app.fleet.versions(&name).await?;
    if versions.is_empty() {
        return Err(ApiError::not_found(format!("there is no config {name:?}")));
    }
    Ok(Json(Config { name, versions: versions.into_iter().map(VersionSummary::from).collect() }))
}

pub(crate) async fn create_version(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
    Body(wanted): Body<VersionRequest>,
) -> Result<Response, ApiError> {
    let files = config_map(wanted.files)?;
    let version = app.fleet.create_version(&actor, &name, files, &wanted.comment.unwrap_or_default()).await?;
    Ok(tagged(StatusCode::CREATED, version))
}

pub(crate) async fn version(
    State(app): State<Arc<App>>,
    at: VersionPath,
    _: Query<NoParameters>,
) -> Result<Response, ApiError> {
    let (version, files) = app.fleet.config(&at.config, at.version).await?;
    let tag = etag(&version);
    let content = VersionContent { files: values::files(files.map()), version: version.into() };
    Ok(([(header::ETAG, tag)], Json(content)).into_response())
}

pub(crate) async fn update_draft(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    at: VersionPath,
    headers: HeaderMap,
    Body(wanted): Body<VersionRequest>,
) -> Result<Response, ApiError> {
    let Some(expected) = if_match(&headers)? else {
        return Err(ApiError::precondition_required(
            "`If-Match` is needed, so that nobody's work is overwritten unseen",
        )
        .hint("send the `ETag` of the version you have read"));
    };
    let files = config_map(wanted.files)?;
    let comment = wanted.comment.unwrap_or_default();
    let version = app.fleet.update_draft(&actor, &at.config, at.version, files, &comment, expected).await;
    Ok(tagged(StatusCode::OK, version.map_err(|error| not_as_read(error, Some(expected)))?))
}

pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    at: VersionPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let expected = if_match(&headers)?;
    let version = app.fleet.publish(&actor, &at.config, at.version, expected).await;
    Ok(tagged(StatusCode::OK, version.map_err(|error| not_as_read(error, expected))?))
}

pub(crate) async fn archive(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    at: VersionPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let expected = if_match(&headers)?;
    let version = app.fleet.archive(&actor, &at.config, at.version, expected).await;
    Ok(tagged(StatusCode::OK, version.map_err(|error| not_as_read(error, expected))?))
}

pub(crate) async fn diff(
    State(app): State<Arc<App>>,
    Path(config): Path<String>,
    Query(parameters): Query<DiffParameters>,
) -> Result<Json<Diff>, ApiError> {
    let (Some(from), Some(to)) = (parameters.from, parameters.to) else {
        return Err(ApiError::bad_request("query parameters `from` and `to` are both needed"));
    };
    let files = app.fleet.diff(&config, from, to).await?;
    Ok(Json(Diff { config, from, to, files: files.into_iter().map(Into::into).collect() }))
}

/// The version named in the path.
pub(crate) struct VersionPath {
    pub(crate) config: String,
    pub(crate) version: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((config, version)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        let version = version.parse().map_err(|_| {
            ApiError::bad_request(format!("{version:?} is not a version: versions are numbers from 1 on"))
        })?;
        Ok(VersionPath { config, version })
    }
}

impl From<ConfigOpError> for ApiError {
    fn from(error: ConfigOpError) -> Self {
        let text = error.to_string();
        match error {
            ConfigOpError::Conflict { .. } | ConfigOpError::Exists(_) | ConfigOpError::WrongState { .. } => {
                ApiError::conflict(text)
            }
            ConfigOpError::Invalid(_) => ApiError::bad_request(text),
            ConfigOpError::NotFound { .. } => ApiError::not_found(text),
            ConfigOpError::TooManyVersions(_) => ApiError::conflict(text),
            ConfigOpError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}

fn tagged(status: StatusCode, version: ConfigVersion) -> Response {
    let tag = etag(&version);
    (status, [(header::ETAG, tag)], Json(VersionSummary::from(version))).into_response()
}

fn etag(version: &ConfigVersion) -> HeaderValue {
    // Digits in quotes are always a valid header value.
    HeaderValue::try_from(format!("\"{}\"", version.revision)).unwrap_or(HeaderValue::from_static("\"\""))
}

fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let revision = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    let revision = revision
        .ok_or_else(|| ApiError::bad_request("`If-Match` is the `ETag` of a version, such as `\"17\"`"))?;
    Ok(Some(Revision(revision)))
}

/// With `If-Match` a conflict is a failed precondition.
fn not_as_read(error: ConfigOpError, expected: Option<Revision>) -> ApiError {
    match error {
        ConfigOpError::Conflict { .. } if expected.is_some() => {
            ApiError::precondition_failed(error.to_string())
                .hint("read it again, and send its `ETag` as `If-Match`")
        }
        other => other.into(),
    }
}
