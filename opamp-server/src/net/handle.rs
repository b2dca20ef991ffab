//! Steering a running server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opamp_proto::{InstanceUid, Now};

use super::changes::Events;
use super::core::Core;
use super::directory::Owner;
use super::stats::Stats;
use super::throttle::Throttle;
use crate::capability::Restart;
use crate::custom::{CustomCapabilities, CustomError, CustomMessage};
use crate::desired::Desired;
use crate::refusal::CloseCode;
use crate::session::Input;
use crate::snapshot::{AgentSnapshot, Checkpoint, DisconnectReason, Dispatch, Principal, Seed};

/// The application's side of a server: what agents should have goes in, what they report comes out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerHandle(pub(crate) Arc<Core>);

/// Why a command cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The agent is not there. Commands do not wait for agents; try again when it is connected.
    #[error("the agent is not connected")]
    NoSession,
    /// The agent did not announce AcceptsRestartCommand (R-CAP-24). Nothing can be done on the server.
    #[error("the agent does not accept this command")]
    NotAccepted,
}

impl ServerHandle {
    /// The events, once: the first caller gets them.
    pub fn events(&self) -> Option<Events> {
        let taken = self.0.events_taken.swap(true, Ordering::AcqRel);
        (!taken).then(|| Events(Arc::clone(&self.0.changes)))
    }

    /// Makes agents known that an earlier process knew. Call it before serving; an agent known already stays as it is.
    pub fn restore(&self, seeds: impl IntoIterator<Item = Seed>) {
        for seed in seeds {
            self.0.restore(seed);
        }
    }

    /// Sets what an agent should have. It is kept for an agent that is not there, and replaces what was set before:
    /// ten changes while an agent is slow become one offer (R-RETRY-07). An older generation than the one that is set
    /// changes nothing, nor does the same one with the same hash; each kind is judged by itself.
    pub fn set_desired(&self, uid: &InstanceUid, desired: Desired) -> Dispatch {
        self.0.set_desired(uid, desired)
    }

    /// Orders a connected agent to restart, at most once: the order does not outlive its connection.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if it is not there or did not announce that it accepts the command.
    pub fn restart_agent(&self, uid: &InstanceUid) -> Result<Dispatch, CommandError> {
        let slot = self.0.directory.find(uid).ok_or(CommandError::NoSession)?;
        {
            let inner = slot.lock();
            if matches!(inner.owner, Owner::Nobody) {
                return Err(CommandError::NoSession);
            }
            if inner.session.negotiated().permit::<Restart>().is_none() {
                return Err(CommandError::NotAccepted);
            }
        }
        match self.0.dispatch(&slot, || Input::Restart) {
            Some(Dispatch::NoSession) | None => Err(CommandError::NoSession),
            Some(dispatch) => Ok(dispatch),
        }
    }

    /// Sends a custom message to a connected agent: at most once, in the order of the calls, each in a message of its own. A
    /// polling agent takes one with every answer.
    ///
    /// # Errors
    ///
    /// [`CustomError`] if it cannot be sent. What was accepted and not sent, because the connection ended before, shows in
    /// [`StickyFacts::custom_undelivered`](crate::StickyFacts) and in the counters.
    pub fn send_custom(&self, uid: &InstanceUid, message: CustomMessage) -> Result<Dispatch, CustomError> {
        self.0.send_custom(uid, message)
    }

    /// Whether [`ServerHandle::send_custom`] would take this message now, for callers that record what they do before they do
    /// it. It may still be refused a moment later.
    ///
    /// # Errors
    ///
    /// The same as `send_custom`.
    pub fn check_custom(&self, uid: &InstanceUid, message: &CustomMessage) -> Result<(), CustomError> {
        self.0.check_custom(uid, message)
    }

    /// Announces other custom capabilities from now on: at once to agents on a socket, with the next answer to those that poll
    /// (R-CUST-02). They replace the ones before.
    pub fn set_custom_capabilities(&self, capabilities: CustomCapabilities) {
        self.0.set_custom_capabilities(capabilities);
    }

    /// Sends every agent away until it is called with `None`: upgrades and polls are answered 503 with `Retry-After`, messages on
    /// open sockets with `UNAVAILABLE` and retry information. Nothing of them is processed, except that agents may say good-bye.
    pub fn throttle(&self, throttle: Option<Throttle>) {
        self.0.throttle.set(throttle);
    }

    /// The throttle that is set.
    pub fn throttled(&self) -> Option<Throttle> {
        self.0.throttle.get()
    }

    /// Has an agent asked for its full state, at once or with its next answer.
    pub fn request_full_state(&self, uid: &InstanceUid) -> Dispatch {
        let slot = self.0.directory.find(uid);
        slot.and_then(|slot| self.0.dispatch(&slot, || Input::RequestFullState))
            .unwrap_or(Dispatch::NoSession)
    }

    /// Closes the socket an agent is on, with all agents on it; false if it is on none.
    pub fn disconnect(&self, uid: &InstanceUid) -> bool {
        let Some(slot) = self.0.directory.find(uid) else {
            return false;
        };
        let inner = slot.lock();
        let Owner::Socket(connection) = &inner.owner else {
            return false;
        };
        connection.close(CloseCode::Policy, DisconnectReason::Requested);
        true
    }

    /// Closes every socket this principal has; the number of them. For credentials that were revoked.
    pub fn disconnect_principal(&self, principal: &Principal) -> usize {
        let mut theirs = 0;
        let connections = self.0.connections.all();
        for connection in connections.iter().filter(|connection| connection.info.principal == *principal) {
            connection.close(CloseCode::Policy, DisconnectReason::Requested);
            theirs += 1;
        }
        theirs
    }

    /// Forgets an agent: its session, its desired state. If it is connected its socket closes unless others share
    /// it; if it comes back it is new. False if it was not known.
    pub fn forget(&self, uid: &InstanceUid) -> bool {
        self.0.forget(uid)
    }

    /// What is known of one agent.
    pub fn agent(&self, uid: &InstanceUid) -> Option<AgentSnapshot> {
        self.0.directory.find(uid).map(|slot| slot.lock().session.snapshot())
    }

    /// What is known of all agents, in no order.
    pub fn agents(&self) -> Vec<AgentSnapshot> {
        let mut agents = Vec::with_capacity(self.0.directory.len());
        self.0.directory.for_each(|slot| agents.push(slot.lock().session.snapshot()));
        agents
    }

    /// Where the conversations stand that moved since they were last asked for, in the order of the agents' uids: each read when
    /// its turn comes, so that memory for all of a large fleet is never taken at once. Store them in batches, and hand them back
    /// with [`ServerHandle::restore`].
    pub fn checkpoints(&self) -> impl Iterator<Item = Checkpoint> {
        self.0.directory.in_order().filter_map(|slot| slot.lock().session.take_checkpoint())
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.0.directory.len(), self.0.admission.stats())
    }

    /// The time by the server's clock.
    pub fn now(&self) -> Now {
        self.0.now()
    }

    /// Stops: refuses what is new with 503, and closes every WebSocket with 1001: all at once if there are few, otherwise at
    /// [`ServerSettings::drain_rate`](crate::ServerSettings::drain_rate), or faster so that all are told before the deadline.
    /// Sockets whose turn has not come are served as before. True if all were closed in time. Afterwards driver and
    /// events end.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.0.drain(deadline).await
    }
}
