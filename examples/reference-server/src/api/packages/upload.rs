//! Uploading a package: the file is the body of the request, and goes to the store as it arrives.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::{Body, BodyDataStream},
    extract::State,
};
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use futures::TryStreamExt as _;
use http::{HeaderMap, StatusCode, header};
use opamp_fleet::manager::{Actor, NewPackage};
use opamp_store::{PackageKey, PackageKind};
use tokio::time::{timeout, timeout_at};

use super::{Package, switched_on};
use crate::api::{
    error::ApiError,
    extract::{Parameters, Query},
    state::App,
};

/// Media type of the body.
const MEDIA_TYPE: &str = "application/octet-stream";

/// What the file is.
#[derive(Default)]
pub(crate) struct UploadParameters {
    name: Option<String>,
    version: Option<String>,
    kind: Option<PackageKind>,
    sha256: Option<[u8; 32]>,
    signature: Option<Bytes>,
}

impl Parameters for UploadParameters {
    const NAMES: &'static [&'static str] = &["name", "version", "type", "sha256", "signature"];

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let wrong = |what: &str| ApiError::bad_request(format!("query parameter `{name}` {what}"));
        match name {
            "name" => self.name = Some(value.to_owned()),
            "version" => self.version = Some(value.to_owned()),
            "type" => {
                let kind = [PackageKind::TopLevel, PackageKind::AddOn]
                    .into_iter()
                    .find(|kind| kind.as_str() == value);
                self.kind = Some(kind.ok_or_else(|| wrong("is `top_level` or `add_on`"))?);
            }
            "sha256" => {
                let digest = HEXLOWER_PERMISSIVE.decode(value.as_bytes()).ok();
                let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
                self.sha256 = Some(digest.ok_or_else(|| wrong("is 64 hexadecimal digits"))?);
            }
            _ => {
                let signature =
                    BASE64.decode(value.as_bytes()).ok().filter(|signature| !signature.is_empty());
                let encode = "is base64 with padding; write `+` as `%2B`";
                self.signature = Some(signature.ok_or_else(|| wrong(encode))?.into());
            }
        }
        Ok(())
    }
}

pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    Query(parameters): Query<UploadParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Package>), ApiError> {
    switched_on(&app)?;
    let missing = |name: &str| ApiError::bad_request(format!("query parameter `{name}` is needed"));
    // The empty name is one too, so it is said.
    let name = parameters.name.ok_or_else(|| missing("name"))?;
    let version = parameters.version.ok_or_else(|| missing("version"))?;
    let kind = parameters.kind.ok_or_else(|| missing("type"))?;
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE)) {
        return Err(ApiError::unsupported_media_type("the body is the file itself")
            .hint(format!("send `Content-Type: {MEDIA_TYPE}`")));
    }
    let new = NewPackage {
        key: PackageKey::new(name, version),
        kind,
        expected_sha256: parameters.sha256,
        signature: parameters.signature,
    };
    let limit = app.config.packages.upload_timeout;
    let deadline = tokio::time::Instant::now() + limit;
    let mut upload = app.fleet.begin_package(&actor, new).await?;
    let mut content = body.into_data_stream();
    // Whatever ends this early drops the upload, and with it everything that was stored of it.
    let receiving = async {
        while let Some(bytes) = next(&app, &mut content).await? {
            upload.write(bytes).await?;
        }
        Ok::<_, ApiError>(upload)
    };
    let upload = timeout_at(deadline, receiving)
        .await
        .map_err(|_| ApiError::timeout("the upload took longer than `packages.upload_timeout`"))??;
    let package = upload.finish().await?;
    Ok((StatusCode::CREATED, Json(package.into())))
}

/// The next bytes of the body. The way it ends tells a file that was sent whole from one that was cut.
async fn next(app: &App, content: &mut BodyDataStream) -> Result<Option<Bytes>, ApiError> {
    match timeout(app.config.admin.request_timeout, content.try_next()).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(ApiError::bad_request("the body ended before its time")),
        Err(_) => Err(ApiError::timeout("nothing of the body arrived for `admin.request_timeout`")),
    }
}
