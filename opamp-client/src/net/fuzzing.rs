//! Doors for fuzzing: what the client makes of the bytes of a server, over any stream. Not for anything else.

use std::future::poll_fn;
use std::sync::Arc;

use http::HeaderMap;
use opamp_proto::InstanceUid;
use tokio::io::{AsyncRead, AsyncWrite};

use super::clock::SystemClock;
use super::connector::{Connector, Reached, Trail};
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::link::LinkEvent;
use super::polling::Polling;
use super::proxy::Proxy;
use super::settings::ClientSettings;
use super::websocket;

fn settings(receive_bytes_max: usize) -> ClientSettings {
    // No redirect is followed: nothing here may open a connection.
    ClientSettings { redirects_max: 0, receive_bytes_max, ..ClientSettings::default() }
}

/// What a client makes of the bytes a server answers its poll with: the body, or why there is none.
///
/// # Errors
///
/// What the client would tell its session, as text.
pub async fn poll_answer<S>(io: S, message: &[u8], receive_bytes_max: usize) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let endpoint = Endpoint::parse("http://fuzz.invalid/v1/opamp").map_err(|error| error.to_string())?;
    let connector = Arc::new(Connector {
        endpoints: vec![endpoint.clone()],
        tls: None,
        proxy: Proxy::none(),
        credentials: Credentials::new(),
        settings: settings(receive_bytes_max),
        clock: Arc::new(SystemClock::new()),
    });
    let reached = Reached { io: Box::new(io), through_proxy: None };
    let polling = Polling::new(connector, Trail::new(endpoint), reached).await;
    let mut polling = polling.map_err(|failure| failure.to_string())?;
    polling.send(&InstanceUid::from_bytes([7; 16]), message);
    match poll_fn(|cx| polling.poll_event(cx)).await {
        LinkEvent::Received(body) => Ok(body.to_vec()),
        LinkEvent::Failed(failure) => Err(failure.to_string()),
        LinkEvent::Unusable(what) => Err(format!("{what:?}")),
        _ => Err("no answer".to_owned()),
    }
}

/// What a client makes of the bytes a server answers its upgrade with, and of the frames after it: how long each message is.
///
/// # Errors
///
/// What the client would tell its session of an upgrade that failed, as text.
pub async fn upgrade_answer<S>(io: S, receive_bytes_max: usize) -> Result<Vec<usize>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let endpoint = Endpoint::parse("ws://fuzz.invalid/v1/opamp").map_err(|error| error.to_string())?;
    let upgraded =
        websocket::upgrade(Box::new(io), &endpoint, HeaderMap::new(), &settings(receive_bytes_max)).await;
    let mut socket = upgraded
        .map_err(|failure| failure.to_string())?
        .map_err(|refusal| refusal.failure(&SystemClock::new()).to_string())?;
    let mut lengths = Vec::new();
    loop {
        match poll_fn(|cx| socket.poll_event(cx)).await {
            LinkEvent::Received(message) => lengths.push(message.len()),
            LinkEvent::Closed { .. } | LinkEvent::Failed(_) | LinkEvent::Unusable(_) => return Ok(lengths),
            _ => {}
        }
    }
}
