//! Messages that wait until it is known whose identity they come under.

use std::collections::HashMap;

use opamp_proto::InstanceUid;

use crate::net::admission::budget::{Budget, Charge};
use crate::net::settings::DuplicateSettings;
use crate::refusal::SessionError;

/// The messages that wait on one WebSocket, by agent, and what was told to newcomers on it. Other agents on the socket are
/// served meanwhile.
#[derive(Default)]
pub(super) struct Newcomers(Option<Box<Inner>>);

/// A message that waits, drawn from the byte budget as long as it exists.
pub(super) struct Parked {
    pub(super) bytes: Box<[u8]>,
    _charge: Charge,
}

/// Allocated with the first newcomer: most sockets never have one.
#[derive(Default)]
struct Inner {
    parked: HashMap<InstanceUid, Vec<Parked>>,
    /// How many, of all agents.
    waiting: usize,
    bytes: usize,
    /// Identities that were told, by the one the newcomer came under.
    told: HashMap<InstanceUid, InstanceUid>,
}

impl Newcomers {
    /// Whether no message waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.waiting == 0)
    }

    /// Whether messages of this agent wait, so that the next has to wait behind them.
    pub(super) fn waits(&self, uid: &InstanceUid) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.parked.contains_key(uid))
    }

    /// Has a message wait, drawn from the byte budget. Where there is no room for it, its sender alone is sent away.
    pub(super) fn park(
        &mut self,
        uid: InstanceUid,
        message: &[u8],
        settings: &DuplicateSettings,
        budget: &Budget,
    ) -> Result<(), SessionError> {
        let inner = self.0.get_or_insert_default();
        let bytes = inner.bytes + message.len();
        if inner.waiting >= settings.waiting_max || (inner.waiting > 0 && bytes > settings.waiting_bytes_max)
        {
            return Err(SessionError::TooManyWaiting { limit: settings.waiting_max });
        }
        // The message is whole, so the socket can go on without it: other agents may share it.
        let full = SessionError::TooManyWaiting { limit: settings.waiting_max };
        let charge = budget.try_charge(message.len()).ok_or(full)?;
        inner.bytes = bytes;
        inner.waiting += 1;
        inner.parked.entry(uid).or_default().push(Parked { bytes: message.into(), _charge: charge });
        Ok(())
    }

    /// The messages of this agent, in the order they came; they wait no longer.
    pub(super) fn unpark(&mut self, uid: &InstanceUid) -> Vec<Parked> {
        let Some(inner) = &mut self.0 else { return Vec::new() };
        let messages = inner.parked.remove(uid).unwrap_or_default();
        inner.waiting -= messages.len();
        inner.bytes -= messages.iter().map(|message| message.bytes.len()).sum::<usize>();
        messages
    }

    /// What a newcomer under this identity was told on this socket.
    pub(super) fn told(&self, uid: &InstanceUid) -> Option<InstanceUid> {
        self.0.as_ref()?.told.get(uid).copied()
    }

    /// Remembers what was told, for at most `limit` newcomers.
    pub(super) fn tell(&mut self, uid: InstanceUid, fresh: InstanceUid, limit: usize) {
        let inner = self.0.get_or_insert_default();
        if inner.told.len() >= limit {
            inner.told.clear();
        }
        inner.told.insert(uid, fresh);
    }

    /// What was told to whoever came under this identity holds no longer.
    pub(super) fn forget(&mut self, uid: &InstanceUid) {
        if let Some(inner) = &mut self.0 {
            inner.told.remove(uid);
        }
    }

    /// An agent is served under this identity: if it was told, it did as it was told, and the identity it came under may come
    /// by again.
    pub(super) fn arrived(&mut self, uid: &InstanceUid) {
        if let Some(inner) = &mut self.0 {
            inner.told.retain(|_, fresh| fresh != uid);
        }
    }
}
