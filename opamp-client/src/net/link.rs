//! Whatever connects the agent to its server at the moment.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use opamp_proto::InstanceUid;

use super::connector::{Connected, Connector};
use super::polling::Polling;
use super::websocket::Socket;
use crate::failure::Failure;
use crate::session::{CloseCode, Input, Unusable};

/// Nothing, an attempt, or a connection.
pub(crate) enum Link {
    Dialing(BoxFuture<'static, Result<Connected, Failure>>),
    Http(Polling),
    None,
    WebSocket(Box<Socket>),
}

/// What comes from the other side.
pub(crate) enum LinkEvent {
    Alive,
    Closed { code: Option<u16>, reason: String },
    Connected,
    Failed(Failure),
    Received(Bytes),
    Unusable(Unusable),
    Written,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn dial(connector: &Arc<Connector>, endpoint: usize) -> Self {
        Self::Dialing(Box::pin(Arc::clone(connector).connect(endpoint)))
    }

    /// Begins to connect in a way that a server has set.
    pub(crate) const fn dial_offered(attempt: BoxFuture<'static, Result<Connected, Failure>>) -> Self {
        Self::Dialing(attempt)
    }

    /// Begins to send a message of this agent.
    pub(crate) fn send(&mut self, uid: &InstanceUid, message: &[u8]) {
        match self {
            Self::Http(polling) => polling.send(uid, message),
            Self::WebSocket(socket) => socket.send(message),
            Self::Dialing(_) | Self::None => {}
        }
    }

    pub(crate) fn ping(&mut self) {
        if let Self::WebSocket(socket) = self {
            socket.ping();
        }
    }

    pub(crate) fn close(&mut self, code: CloseCode) {
        if let Self::WebSocket(socket) = self {
            socket.close(code);
        }
    }

    /// What happens next; never, if there is nothing. Nothing is lost if the caller gives up waiting.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        match self {
            Self::Dialing(attempt) => {
                let (next, event) = match ready!(attempt.poll_unpin(cx)) {
                    Ok(Connected::Http(polling)) => (Self::Http(polling), LinkEvent::Connected),
                    Ok(Connected::WebSocket(socket)) => (Self::WebSocket(socket), LinkEvent::Connected),
                    Err(failure) => (Self::None, LinkEvent::Failed(failure)),
                };
                *self = next;
                Poll::Ready(event)
            }
            Self::Http(polling) => polling.poll_event(cx),
            Self::None => Poll::Pending,
            Self::WebSocket(socket) => socket.poll_event(cx),
        }
    }
}

impl LinkEvent {
    /// The event as the session takes it.
    pub(crate) fn as_input(&self) -> Input<'_> {
        match self {
            Self::Alive => Input::Alive,
            Self::Closed { code, reason } => Input::Closed { code: *code, reason: reason.clone() },
            Self::Connected => Input::Connected,
            Self::Failed(failure) => Input::Failed(failure.clone()),
            Self::Received(bytes) => Input::Received(bytes),
            Self::Unusable(what) => Input::Unusable(what.clone()),
            Self::Written => Input::Written,
        }
    }
}
