//! What the fleet knows of one agent, as far as decisions need it.

use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Wall};

use crate::agent_type::agent_type;
use crate::labels::{LabelScope, LabelValue, Labels};
use crate::selector::{LabelFact, Subject};
use crate::{Drift, Health, Liveness};

/// The facts of one agent: what selectors, counters and later rollouts look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// Key of the agent's record.
    pub id: AgentId,
    /// Its current identity on the wire.
    pub uid: InstanceUid,
    /// Announced capabilities, unknown bits kept; none if nothing was heard yet.
    pub capabilities: AgentCapabilities,
    /// Whether it is there.
    pub liveness: Liveness,
    /// Since when liveness is what it is.
    pub liveness_since: Wall,
    /// Whether it is well.
    pub health: Health,
    /// How its configuration relates to the desired one.
    pub drift: Drift,
    /// Its labels.
    pub labels: Labels,
}

impl AgentFacts {
    /// An agent that is expected and has not arrived.
    pub fn expected(id: AgentId, uid: InstanceUid, since: Wall) -> Self {
        Self {
            id,
            uid,
            capabilities: AgentCapabilities::NONE,
            liveness: Liveness::NeverSeen,
            liveness_since: since,
            health: Health::Unknown,
            drift: Drift::Unmanaged,
            labels: Labels::default(),
        }
    }

    /// The agent's type.
    pub fn agent_type(&self) -> &str {
        agent_type(&self.labels)
    }

    /// The version the agent gives, `service.version`.
    pub fn version(&self) -> Option<&str> {
        [LabelScope::Identifying, LabelScope::NonIdentifying]
            .into_iter()
            .find_map(|scope| self.labels.value(Some(scope), "service.version"))
            .and_then(LabelValue::as_text)
    }
}

impl Subject for AgentFacts {
    fn label(&self, scope: Option<LabelScope>, key: &str) -> LabelFact<'_> {
        match self.labels.value(scope, key) {
            Some(LabelValue::Text(text)) => LabelFact::Text(text),
            Some(LabelValue::Opaque) => LabelFact::Opaque,
            None if self.labels.is_truncated() => LabelFact::Unknown,
            None => LabelFact::Absent,
        }
    }

    fn capabilities(&self) -> AgentCapabilities {
        self.capabilities
    }

    fn drift(&self) -> Drift {
        self.drift
    }

    fn health(&self) -> Health {
        self.health
    }

    fn liveness(&self) -> Liveness {
        self.liveness
    }
}
