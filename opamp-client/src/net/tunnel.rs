//! Tunnels through HTTP proxies (RFC 9110 §9.3.6).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;

use super::clock::Clock;
use super::connector::BoxedIo;
use super::endpoint::Endpoint;
use super::exchange;
use crate::failure::{Failure, FailureKind};

/// Asks the proxy at the other end of `io` for a tunnel to the target.
pub(crate) async fn open(
    io: BoxedIo,
    target: &Endpoint,
    authorization: Option<&HeaderValue>,
    headers: &HeaderMap,
    clock: &dyn Clock,
) -> Result<BoxedIo, Failure> {
    let failed = |error: hyper::Error| {
        let mut failure =
            exchange::failure("the proxy failed", FailureKind::Proxy, FailureKind::ProxyUnreachable, &error);
        // A reset is the same hang-up, seen earlier.
        if failure.kind == FailureKind::Closed {
            failure.kind = FailureKind::ProxyUnreachable;
        }
        failure
    };
    let authority = target.authority();
    let mut request = Request::connect(&authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::new(FailureKind::Proxy, error.to_string()))?;
    let request_headers = request.headers_mut();
    request_headers.extend(headers.clone());
    if let Ok(host) = HeaderValue::from_str(&authority) {
        request_headers.insert(header::HOST, host);
    }
    if let Some(authorization) = authorization {
        request_headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    let answer = exchange::ask(io, request).await.map_err(failed)?;
    match answer.response.status() {
        status if status.is_success() => answer.into_stream().await.map_err(failed),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let detail = "the proxy wants other credentials (407)";
            Err(Failure::new(FailureKind::Proxy, detail))
        }
        // What is behind it is not there, which passes, or it is overloaded itself, if it says until when.
        status if status.is_server_error() => {
            let mut failure = answer.into_refusal().await.failure(clock);
            if failure.retry_after.is_none() {
                failure.kind = FailureKind::Status(status.as_u16());
            }
            failure.detail = format!("the proxy answered {} when asked for {authority}", status.as_u16());
            Err(failure)
        }
        status => {
            let detail = format!("the proxy answered {} when asked for {authority}", status.as_u16());
            Err(Failure::new(FailureKind::Proxy, detail))
        }
    }
}
