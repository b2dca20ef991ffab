//! Custom messages: sent, and the last ones received.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentId, Wall};
use opamp_server::{CustomMessage, Dispatch, ReceivedCustom};
use opamp_store::WriteBatch;
use serde_json::json;

use super::audit::Deed;
use super::error::{SendCustomError, StoreFailure};
use super::settings::CustomSettings;
use super::types::Actor;
use super::{FleetManager, Inner};

/// What a message counts for beside its texts and data.
const ENTRY_BYTES: usize = 128;

/// A custom message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomEntry {
    /// Counts all messages received by this process, so that a reader knows what is new.
    pub number: u64,
    /// When it arrived.
    pub at: Wall,
    /// The message. Its data is empty if `data_left_out`.
    pub message: CustomMessage,
    /// Length of the data as it arrived.
    pub data_bytes: usize,
    /// The data is not kept, because the message alone exceeds what is kept of one agent.
    pub data_left_out: bool,
}

/// The last custom messages of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomMessages {
    /// Those that are kept, oldest first.
    pub messages: Vec<CustomEntry>,
    /// How many of this agent's are not kept any more.
    pub dropped: u64,
}

impl FleetManager {
    /// Sends a custom message to a connected agent that announced its capability. It is in the audit log, without its
    /// data, before it is sent.
    ///
    /// # Errors
    /// [`SendCustomError`]; the message was not sent. Messages do not wait for agents that are away.
    pub async fn send_custom(
        &self,
        actor: &Actor,
        agent: &AgentId,
        message: CustomMessage,
    ) -> Result<Dispatch, SendCustomError> {
        let (actor, agent) = (actor.clone(), *agent);
        self.complete(|inner| async move { inner.send_custom(&actor, &agent, message).await }).await
    }

    /// The last custom messages an agent sent to this process, within the bounds of [`CustomSettings`]; none if there is
    /// no such agent.
    pub fn custom_messages(&self, agent: &AgentId) -> Option<CustomMessages> {
        let state = self.inner.state();
        state.index.uid(agent)?;
        Some(state.custom.of(agent))
    }
}

impl Inner {
    async fn send_custom(
        self: Arc<Self>,
        actor: &Actor,
        id: &AgentId,
        message: CustomMessage,
    ) -> Result<Dispatch, SendCustomError> {
        let uid = self.state().index.uid(id).ok_or(SendCustomError::NotFound(*id))?;
        // What cannot be sent is told before the audit log says that it was.
        self.server.check_custom(&uid, &message)?;
        let value = json!({
            "capability": message.capability,
            "type": message.kind,
            "data_bytes": message.data.len(),
        });
        let mut batch = WriteBatch::new();
        let deed = Deed::of_agent("agent.send_custom", id, None, Some(value.clone()));
        batch.append_audit(self.audit_entry(actor, self.now().wall, deed));
        self.commit(batch, None).await.map_err(StoreFailure::from)?;
        // By its identity of now: that may have changed while the log was written.
        let uid = self.state().index.uid(id).ok_or(SendCustomError::NotFound(*id))?;
        let sent = self.server.send_custom(&uid, message);
        if sent.is_err() {
            let now = self.now();
            let deed = Deed::of_agent("agent.send_custom_failed", id, None, Some(value));
            let entry = self.audit_entry(actor, now.wall, deed);
            self.state().audit.push(entry, now.mono);
        }
        Ok(sent?)
    }

    /// Keeps a received message to be looked at.
    pub(super) fn observe_custom(&self, received: ReceivedCustom) {
        let ReceivedCustom { uid, at, message, dropped, .. } = received;
        if self.state().index.by_uid(&uid).is_none() {
            // Its first words: the record is made now, and not with the change that follows.
            self.admit(uid);
        }
        let mut state = self.state();
        state.custom.note_lost(dropped);
        match state.index.by_uid(&uid) {
            Some(id) => state.custom.push(id, at, message),
            None => tracing::debug!(%uid, "a custom message of nobody known is ignored"),
        }
    }
}

/// The last messages of all agents, bounded for each and for all together.
#[derive(Debug)]
pub(super) struct CustomLog {
    settings: CustomSettings,
    agents: BTreeMap<AgentId, Ring>,
    /// Whose each kept message is, in the order of arrival.
    order: BTreeMap<u64, AgentId>,
    bytes: usize,
    next: u64,
    lost: u64,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<CustomEntry>,
    bytes: usize,
    dropped: u64,
}

impl CustomLog {
    pub(super) fn new(settings: CustomSettings) -> Self {
        Self { settings, agents: BTreeMap::new(), order: BTreeMap::new(), bytes: 0, next: 1, lost: 0 }
    }

    /// Counts messages that the server dropped because this manager did not take them in time.
    fn note_lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// How many those were.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes a message in.
    fn push(&mut self, agent: AgentId, at: Wall, mut message: CustomMessage) {
        let number = self.next;
        self.next += 1;
        let ring = self.agents.entry(agent).or_default();
        let data_bytes = message.data.len();
        let bytes_max = self.settings.bytes_max.min(self.settings.total_bytes_max);
        let data_left_out = entry_bytes(&message) > bytes_max;
        if data_left_out {
            message.data = Bytes::new();
        }
        let entry = CustomEntry { number, at, message, data_bytes, data_left_out };
        let bytes = entry_bytes(&entry.message);
        ring.bytes += bytes;
        ring.entries.push_back(entry);
        self.bytes += bytes;
        self.order.insert(number, agent);
        while self
            .agents
            .get(&agent)
            .is_some_and(|ring| ring.entries.len() > self.settings.messages_max || ring.bytes > bytes_max)
        {
            self.drop_oldest(&agent);
        }
        while self.bytes > self.settings.total_bytes_max
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = *oldest;
            self.drop_oldest(&oldest);
        }
    }

    pub(super) fn of(&self, agent: &AgentId) -> CustomMessages {
        let ring = self.agents.get(agent);
        ring.map_or_else(CustomMessages::default, |ring| CustomMessages {
            messages: ring.entries.iter().cloned().collect(),
            dropped: ring.dropped,
        })
    }

    pub(super) fn forget(&mut self, agent: &AgentId) {
        if let Some(ring) = self.agents.remove(agent) {
            self.bytes -= ring.bytes;
            for entry in ring.entries {
                self.order.remove(&entry.number);
            }
        }
    }

    fn drop_oldest(&mut self, agent: &AgentId) {
        let Some(ring) = self.agents.get_mut(agent) else { return };
        let Some(entry) = ring.entries.pop_front() else { return };
        let bytes = entry_bytes(&entry.message);
        ring.bytes -= bytes;
        ring.dropped += 1;
        self.bytes -= bytes;
        self.order.remove(&entry.number);
    }
}

/// What a kept message counts for. Capability and type are bounded by the limits of the wire.
fn entry_bytes(message: &CustomMessage) -> usize {
    ENTRY_BYTES + message.capability.len() + message.kind.len() + message.data.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(data: usize) -> CustomMessage {
        CustomMessage { capability: "c".to_owned(), kind: "k".to_owned(), data: vec![7; data].into() }
    }

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 16])
    }

    const SETTINGS: CustomSettings =
        CustomSettings { messages_max: 3, bytes_max: 1_000, total_bytes_max: 2_000 };

    #[test]
    fn the_newest_messages_stay_and_the_rest_is_counted() {
        let mut log = CustomLog::new(SETTINGS);
        for number in 0..5 {
            log.push(agent(1), Wall(number), message(10));
        }
        let kept = log.of(&agent(1));
        assert_eq!(kept.messages.iter().map(|entry| entry.at.0).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(kept.dropped, 2);
        assert_eq!(log.of(&agent(2)), CustomMessages::default());
        log.forget(&agent(1));
        assert_eq!((log.bytes, log.order.len(), log.of(&agent(1))), (0, 0, CustomMessages::default()));
    }

    #[test]
    fn a_message_that_is_too_large_is_kept_without_its_data() {
        let mut log = CustomLog::new(SETTINGS);
        log.push(agent(1), Wall(1), message(870));
        log.push(agent(1), Wall(2), message(871));
        let entries = log.of(&agent(1)).messages;
        assert_eq!(entries.len(), 1, "there is room for one that large");
        assert_eq!(
            (entries[0].data_left_out, entries[0].data_bytes, entries[0].message.data.len()),
            (true, 871, 0)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_comes_the_bounds_hold_and_every_message_is_kept_or_counted(
            pushes in prop::collection::vec((0..9_u8, 0..1_500_usize), 0..60),
        ) {
            let mut log = CustomLog::new(SETTINGS);
            let mut told = BTreeMap::<u8, u64>::new();
            for (number, data) in pushes {
                log.push(agent(number), Wall(1), message(data));
                *told.entry(number).or_default() += 1;
                let rings = log.agents.values();
                let bytes = |ring: &Ring| ring.entries.iter().map(|entry| entry_bytes(&entry.message)).sum::<usize>();
                prop_assert!(log.bytes <= SETTINGS.total_bytes_max);
                prop_assert_eq!(log.bytes, rings.clone().map(bytes).sum::<usize>());
                prop_assert_eq!(log.order.len(), rings.clone().map(|ring| ring.entries.len()).sum::<usize>());
                for ring in rings {
                    prop_assert!(ring.entries.len() <= SETTINGS.messages_max && ring.bytes <= SETTINGS.bytes_max);
                }
            }
            for (number, count) in told {
                let kept = log.of(&agent(number));
                prop_assert_eq!(kept.messages.len() as u64 + kept.dropped, count);
            }
        }
    }
}
