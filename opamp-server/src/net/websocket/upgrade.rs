//! The opening handshake (RFC 6455 §4.2), and the hand-over to a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::frames::MessageStream;
use super::task;
use super::tungstenite::Tungstenite;
use crate::net::connection::Connection;
use crate::net::core::Core;
use crate::net::peer::PeerInfo;
use crate::net::presented::Presented;
use crate::net::service::{Response, text, unavailable};
use crate::net::write_deadline::WriteDeadline;
use crate::refusal::RefusalReason;
use crate::snapshot::{Principal, Transport};

/// Answers an upgrade request: 101 and a task, or a refusal that says what was wrong.
pub(crate) fn upgrade(
    core: &Arc<Core>,
    parts: &mut Parts,
    principal: Principal,
    remote_addr: Option<SocketAddr>,
) -> Response {
    let refuse = |reason, status, detail: &str| {
        core.refused(reason, detail.to_owned(), None, remote_addr, Some(Transport::WebSocket));
        let mut response = text(status, detail);
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    };
    let accept = match accept_key(&parts.headers) {
        Ok(accept) => accept,
        Err((status, detail)) => return refuse(RefusalReason::Protocol, status, detail),
    };
    let Some(on_upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        let detail = "this connection cannot be upgraded";
        return refuse(RefusalReason::Protocol, StatusCode::HTTP_VERSION_NOT_SUPPORTED, detail);
    };
    if core.counters.websocket_active() >= core.settings.connections_max as u64 {
        core.refused(
            RefusalReason::Unavailable,
            "too many connections".to_owned(),
            None,
            remote_addr,
            Some(Transport::WebSocket),
        );
        return unavailable(core, "the server is at its limit of connections");
    }
    let now = core.now();
    let info = core.next_connection(Transport::WebSocket, principal, remote_addr, now);
    let presented = Presented::of(&parts.headers, parts.extensions.get::<PeerInfo>());
    let connection = Arc::new(Connection::new(info, presented, now.mono));
    core.register(&connection);
    // A task of its own, so that nothing of the handshake stays alive with the connection.
    core.sockets.spawn(hand_over(Arc::clone(core), on_upgrade, connection));
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Waits for the 101 to be written, takes the bare socket out of the HTTP stack and spawns the connection's task.
async fn hand_over(core: Arc<Core>, on_upgrade: OnUpgrade, connection: Arc<Connection>) {
    let upgraded = tokio::time::timeout(core.settings.handshake_timeout, on_upgrade).await;
    let Ok(Ok(upgraded)) = upgraded else {
        core.unregister(&connection, core.now().mono);
        return;
    };
    let limit = core.limits.message_bytes_max;
    let frame = core.settings.frame_bytes;
    let upgraded = match bare::<TcpStream>(upgraded) {
        Ok((stream, read)) => {
            let stream = Tungstenite::new(stream, read, limit, frame).await;
            return spawn(core, stream, connection);
        }
        Err(upgraded) => upgraded,
    };
    match bare::<TlsStream<TcpStream>>(upgraded) {
        Ok((stream, read)) => {
            let stream = Tungstenite::new(stream, read, limit, frame).await;
            spawn(core, stream, connection);
        }
        Err(upgraded) => {
            let io: TokioIo<Upgraded> = TokioIo::new(upgraded);
            let stream = Tungstenite::new(io, bytes::Bytes::new(), limit, frame).await;
            spawn(core, stream, connection);
        }
    }
}

/// The stream of this type below an upgraded connection, be it of this crate's listener or of another one, and what was
/// read of it already.
fn bare<S>(upgraded: Upgraded) -> Result<(S, bytes::Bytes), Upgraded>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match upgraded.downcast::<TokioIo<WriteDeadline<S>>>() {
        Ok(parts) => Ok((parts.io.into_inner().into_inner(), parts.read_buf)),
        Err(upgraded) => {
            upgraded.downcast::<TokioIo<S>>().map(|parts| (parts.io.into_inner(), parts.read_buf))
        }
    }
}

fn spawn<S: MessageStream + 'static>(core: Arc<Core>, stream: S, connection: Arc<Connection>) {
    let sockets = core.sockets.clone();
    sockets.spawn(task::run(core, stream, connection));
}

fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, (StatusCode, &'static str)> {
    if !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "open a WebSocket here, or POST with Content-Type: application/x-protobuf",
        ));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"));
    };
    let no_key = (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64");
    if !is_key(key.as_bytes()) {
        return Err(no_key);
    }
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| no_key)
}

/// Whether this is the base64 of 16 bytes (RFC 6455 §4.2.1).
fn is_key(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else { return false };
    digits.len() == 22
        && digits.iter().all(|digit| digit.is_ascii_alphanumeric() || matches!(digit, b'+' | b'/'))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}
