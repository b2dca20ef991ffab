//! Custom messages between application and driver: what may be sent, and what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::handler::CustomMessageHandler;
use crate::custom::{CustomMessage, SendCustomError};
use crate::session::{CustomLimits, SessionSettings};

/// Handlers to be installed or taken away, by capability.
type Changes = BTreeMap<String, Option<Arc<dyn CustomMessageHandler>>>;

/// What both sides look at.
pub(crate) struct Board(Mutex<State>);

struct State {
    limits: CustomLimits,
    /// The capabilities of this agent.
    ours: BTreeSet<String>,
    /// Those of the server.
    theirs: Arc<BTreeSet<String>>,
    /// Not taken by the driver yet.
    waiting: VecDeque<CustomMessage>,
    waiting_bytes: usize,
    /// Taken by the driver and not gone yet: how many, and their size.
    taken: (usize, usize),
    changes: Changes,
}

impl Board {
    pub(crate) fn new(settings: &SessionSettings) -> Self {
        Self(Mutex::new(State {
            limits: CustomLimits::of(settings),
            ours: BTreeSet::new(),
            theirs: Arc::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            taken: (0, 0),
            changes: Changes::new(),
        }))
    }

    /// Puts a message where the driver finds it.
    pub(crate) fn send(&self, message: CustomMessage) -> Result<(), SendCustomError> {
        let mut state = self.state();
        if !state.ours.contains(&message.capability) {
            return Err(SendCustomError::NotOurs(message.capability));
        }
        if !state.theirs.contains(&message.capability) {
            return Err(SendCustomError::NotAnnounced(message.capability));
        }
        let (messages, bytes) = state.taken;
        let waits = (messages + state.waiting.len(), bytes + state.waiting_bytes);
        let size = state.limits.admit(&message, waits)?;
        state.waiting_bytes += size;
        state.waiting.push_back(message);
        Ok(())
    }

    /// Takes all that waits over to the session.
    pub(crate) fn take(&self) -> VecDeque<CustomMessage> {
        let mut state = self.state();
        let (messages, bytes) = state.taken;
        state.taken = (messages + state.waiting.len(), bytes + std::mem::take(&mut state.waiting_bytes));
        std::mem::take(&mut state.waiting)
    }

    /// How many messages the session has, and their size. Nothing is between the two then.
    pub(crate) fn left(&self, taken: (usize, usize)) {
        let mut state = self.state();
        if state.taken != taken {
            state.taken = taken;
        }
    }

    /// What the server has announced.
    pub(crate) fn announced(&self, theirs: Arc<BTreeSet<String>>) {
        self.state().theirs = theirs;
    }

    /// Installs a handler, or takes it away.
    pub(crate) fn change(&self, name: String, handler: Option<Arc<dyn CustomMessageHandler>>) {
        let mut state = self.state();
        match handler {
            Some(_) => state.ours.insert(name.clone()),
            None => state.ours.remove(&name),
        };
        state.changes.insert(name, handler);
    }

    pub(crate) fn take_changes(&self) -> Changes {
        std::mem::take(&mut self.state().changes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
