//! The opening handshake (RFC 6455 §4.2), and the hand-over to a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream as OthersTlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::lean::Lean;
use super::task::Task;
use super::tungstenite::Tungstenite;
use crate::net::admission::stats::AdmissionStage;
use crate::net::connection::Connection;
use crate::net::core::Core;
use crate::net::peer::PeerInfo;
use crate::net::presented::Presented;
use crate::net::service::{Response, later, text};
use crate::net::settings::FrameReader;
use crate::net::tls::TlsStream;
use crate::net::write_deadline::WriteDeadline;
use crate::refusal::RefusalReason;
use crate::snapshot::{Principal, Transport};

/// No frame is larger, whatever the settings say, so that sizes can be reckoned with.
const FRAME_BYTES_MAX: usize = 1 << 30;

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
    let sender = (remote_addr, Transport::WebSocket);
    // First what is the peer's own doing: it must not count among those who are sent away for want of room.
    if !core.admission.identities.enter(&principal) {
        return later(core, AdmissionStage::Identity, Some(&principal), sender);
    }
    if core.counters.websocket_active() >= core.settings.connections_max as u64 {
        core.admission.identities.leave(&principal);
        return later(core, AdmissionStage::Connections, Some(&principal), sender);
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
    let upgraded = match bare::<TcpStream>(upgraded) {
        Ok((stream, read)) => return spawn(core, stream, read, connection).await,
        Err(upgraded) => upgraded,
    };
    let upgraded = match bare::<TlsStream<TcpStream>>(upgraded) {
        Ok((stream, read)) => return spawn(core, stream, read, connection).await,
        Err(upgraded) => upgraded,
    };
    match bare::<OthersTlsStream<TcpStream>>(upgraded) {
        Ok((stream, read)) => spawn(core, stream, read, connection).await,
        Err(upgraded) => spawn(core, TokioIo::new(upgraded), Bytes::new(), connection).await,
    }
}

/// The stream of this type below an upgraded connection, be it of this crate's listener or of another one, and what was
/// read of it already.
fn bare<S>(upgraded: Upgraded) -> Result<(S, Bytes), Upgraded>
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

/// Spawns the connection's task on the frames the settings name.
async fn spawn<S>(core: Arc<Core>, io: S, read: Bytes, connection: Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (limit, frame, sockets) = (
        core.limits.message_bytes_max,
        core.settings.frame_bytes.clamp(1, FRAME_BYTES_MAX),
        core.sockets.clone(),
    );
    let budget = &core.admission.budget;
    match core.settings.frames {
        FrameReader::Lean => {
            let stream = Lean::new(io, &read, limit, frame, budget);
            sockets.spawn(Task::new(core, stream, connection).run());
        }
        FrameReader::Tungstenite => {
            let stream = Tungstenite::new(io, read, limit, frame, budget).await;
            sockets.spawn(Task::new(core, stream, connection).run());
        }
    }
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
