//! The order of members: deterministic whatever order candidates come in (R13).

use std::collections::BTreeMap;

use opamp_proto::{AgentId, ConfigHash, Wall};

use super::Order;
use crate::AgentFacts;
use crate::labels::LabelValue;
use crate::rollout::RolloutId;

/// The label that holds an agent's host name.
const HOST_NAME: &str = "host.name";

/// Before all that an order knows, and after it.
const KNOWN: u8 = 0;
const UNKNOWN: u8 = 1;

/// What orders members of one rollout. Keys are compared as bytes; no two agents have the same.
pub(super) struct Keys<'a> {
    order: &'a Order,
    rollout: RolloutId,
    /// Positions in an explicit list.
    ranks: BTreeMap<AgentId, u32>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(order: &'a Order, rollout: RolloutId) -> Self {
        let mut ranks = BTreeMap::new();
        if let Order::Explicit(agents) = order {
            for (agent, rank) in agents.iter().zip(0..) {
                ranks.entry(*agent).or_insert(rank);
            }
        }
        Self { order, rollout, ranks }
    }

    pub(super) fn of(&self, facts: &AgentFacts, first_seen: Wall) -> Box<[u8]> {
        key(self.order, self.rollout, facts, first_seen, self.ranks.get(&facts.id).copied())
    }
}

/// The key of one agent, for a late joiner: no list is indexed for it.
pub(super) fn key_of(order: &Order, rollout: RolloutId, facts: &AgentFacts, first_seen: Wall) -> Box<[u8]> {
    let rank = match order {
        Order::Explicit(agents) => {
            agents.iter().zip(0..).find(|(agent, _)| **agent == facts.id).map(|(_, rank)| rank)
        }
        Order::Hash | Order::Hostname | Order::LeastCritical { .. } | Order::Oldest => None,
    };
    key(order, rollout, facts, first_seen, rank)
}

/// Sixteen bytes that are another order of agents in each rollout.
pub(super) fn hash(rollout: RolloutId, agent: AgentId) -> [u8; 16] {
    let bytes = [rollout.as_bytes().as_slice(), agent.as_bytes()].concat();
    *ConfigHash::new(bytes).fingerprint().as_bytes()
}

/// What the order knows of the agent, then the hash, which breaks ties.
fn key(
    order: &Order,
    rollout: RolloutId,
    facts: &AgentFacts,
    first_seen: Wall,
    rank: Option<u32>,
) -> Box<[u8]> {
    let label = |name| facts.labels.value(None, name).and_then(LabelValue::as_text);
    let mut key = Vec::with_capacity(32);
    let mut known = |bytes: Option<&[u8]>| {
        key.push(if bytes.is_some() { KNOWN } else { UNKNOWN });
        key.extend_from_slice(bytes.unwrap_or_default());
    };
    match order {
        Order::Explicit(_) => known(rank.map(u32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice)),
        Order::Hash => {}
        Order::Hostname => {
            known(label(HOST_NAME).map(str::as_bytes));
            // A name that begins like another one comes before it.
            key.push(0);
        }
        Order::LeastCritical { label: name } => {
            let number = label(name).and_then(|text| text.trim().parse::<i64>().ok());
            known(number.map(ordered).as_ref().map(<[u8; 8]>::as_slice));
        }
        Order::Oldest => known(Some(&first_seen.0.to_be_bytes())),
    }
    key.extend_from_slice(&hash(rollout, facts.id));
    key.into_boxed_slice()
}

/// A number as bytes that are ordered as it is.
fn ordered(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_as_their_bytes() {
        let ascending = [i64::MIN, -5, -1, 0, 1, 300, i64::MAX];
        assert!(ascending.map(ordered).is_sorted());
    }

    #[test]
    fn each_rollout_has_another_order() {
        let order = |rollout: u8| {
            let mut agents: Vec<u8> = (0..50).collect();
            agents.sort_by_key(|agent| {
                hash(RolloutId::from_bytes([rollout; 16]), AgentId::from_bytes([*agent; 16]))
            });
            agents
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!(!order(1).is_sorted());
    }
}
