//! Reading requests strictly: what is not understood is refused by name instead of being dropped.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
};
use http::{header, request::Parts};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::config::nearest;

/// A JSON body. Unknown fields are refused with the nearest known one.
pub(crate) struct Body<T>(pub(crate) T);

/// Query parameters. Unknown and repeated ones are refused.
pub(crate) struct Query<T>(pub(crate) T);

/// The known parameters of a [`Query`] and how to read them.
pub(crate) trait Parameters: Sized + Default {
    /// Names, for suggestions.
    const NAMES: &'static [&'static str];

    /// Takes one parameter; the name is one of [`Parameters::NAMES`].
    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError>;
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
        if !media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json")) {
            return Err(ApiError::unsupported_media_type("the body must be JSON")
                .hint("send `Content-Type: application/json`"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| body_rejected(&error))?;
        serde_json::from_slice(&bytes).map(Body).map_err(|error| json_rejected(&error))
    }
}

impl<S: Send + Sync, T: Parameters> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let axum::extract::Query(pairs) = pairs.map_err(|error| ApiError::bad_request(error.body_text()))?;
        let mut parameters = T::default();
        for (index, (name, value)) in pairs.iter().enumerate() {
            if !T::NAMES.contains(&name.as_str()) {
                let suggestion = nearest(name, T::NAMES);
                return Err(ApiError::unknown_parameter(format!(
                    "unknown query parameter `{name}`{suggestion}"
                ))
                .hint(if T::NAMES.is_empty() {
                    "this endpoint takes none".to_owned()
                } else {
                    format!("known are {}", T::NAMES.join(", "))
                }));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::bad_request(format!("query parameter `{name}` is there twice")));
            }
            parameters.set(name, value)?;
        }
        Ok(Query(parameters))
    }
}

/// For endpoints without query parameters.
#[derive(Default)]
pub(crate) struct NoParameters;

impl Parameters for NoParameters {
    const NAMES: &'static [&'static str] = &[];

    fn set(&mut self, _: &str, _: &str) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Reads the value of a query parameter.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    value: &str,
) -> Result<T, ApiError> {
    value.parse().map_err(|error| ApiError::bad_request(format!("query parameter `{name}`: {error}")))
}

fn body_rejected(rejection: &BytesRejection) -> ApiError {
    match rejection.status() {
        http::StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::too_large("the body is larger than `admin.body_bytes_max`")
        }
        _ => ApiError::bad_request("the body could not be read"),
    }
}

/// serde's texts name the field or the expected type, and for a wrong type the value: that one may be part of a config
/// or a secret of the caller's own, and goes back to nobody but him.
fn json_rejected(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let place = format!("line {} column {}", error.line(), error.column());
    let mut quoted = text.split('`').skip(1).step_by(2);
    match quoted.next().filter(|_| text.starts_with("unknown field")) {
        Some(field) => {
            let known: Vec<_> = quoted.collect();
            let suggestion = nearest(field, &known);
            ApiError::unknown_field(format!("unknown field `{field}` at {place}{suggestion}"))
                .hint(format!("known are {}", known.join(", ")))
        }
        None => ApiError::invalid_json(text),
    }
}
