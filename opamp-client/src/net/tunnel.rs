//! Tunnels through HTTP proxies (RFC 9110 §9.3.6).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::classify::source_failure;
use super::connector::BoxedIo;
use super::endpoint::Endpoint;
use super::task::OwnedTask;
use crate::failure::{Failure, FailureKind};

/// Asks the proxy at the other end of `io` for a tunnel to the target.
pub(crate) async fn open(
    io: BoxedIo,
    target: &Endpoint,
    authorization: Option<&HeaderValue>,
    headers: &HeaderMap,
) -> Result<BoxedIo, Failure> {
    let failed = |error: hyper::Error| source_failure("the proxy failed", FailureKind::Proxy, &error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    let _connection = OwnedTask::spawn(async move {
        // How it went shows in the answer.
        let _ = connection.with_upgrades().await;
    });
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
    let response = sender.send_request(request).await.map_err(failed)?;
    match response.status() {
        status if status.is_success() => {}
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let detail = "the proxy wants other credentials (407)";
            return Err(Failure::new(FailureKind::Proxy, detail));
        }
        status => {
            let detail = format!("the proxy answered {} when asked for {authority}", status.as_u16());
            return Err(Failure::new(FailureKind::Proxy, detail));
        }
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
