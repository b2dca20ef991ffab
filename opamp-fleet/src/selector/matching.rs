//! Whether a selector matches, for anything that can answer for one agent.

use opamp_proto::AgentCapabilities;

use super::{Comparison, Key, Requirement, Selector, Test};
use crate::agent_type;
use crate::labels::LabelScope;
use crate::version::Version;
use crate::{Drift, Health, Liveness};

/// What a selector asks of an agent.
pub trait Subject {
    /// The label `key` in `scope`, or in the first scope that has it in the order of [`LabelScope::ALL`].
    fn label(&self, scope: Option<LabelScope>, key: &str) -> LabelFact<'_>;
    /// The announced capabilities; none if nothing was heard yet.
    fn capabilities(&self) -> AgentCapabilities;
    /// The agent's drift.
    fn drift(&self) -> Drift;
    /// The agent's health.
    fn health(&self) -> Health;
    /// The agent's liveness.
    fn liveness(&self) -> Liveness;
}

/// What is known of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelFact<'a> {
    /// The agent does not have it.
    Absent,
    /// It exists, with a value that cannot be compared.
    Opaque,
    /// Its value.
    Text(&'a str),
    /// Labels were dropped at a bound, and it may have been among them.
    Unknown,
}

impl Selector {
    /// Whether every requirement holds for `subject`. A requirement that cannot be evaluated does not hold.
    pub fn matches(&self, subject: &impl Subject) -> bool {
        self.requirements().iter().all(|requirement| requirement.evaluate(subject) == Some(true))
    }
}

impl Requirement {
    /// None if it cannot be evaluated for this agent.
    fn evaluate(&self, subject: &impl Subject) -> Option<bool> {
        match &self.key {
            Key::AgentType => match self_named(subject, "service.name") {
                LabelFact::Unknown => None,
                LabelFact::Text(name) => {
                    self.test.of_text(LabelFact::Text(agent_type::normalised(Some(name))))
                }
                LabelFact::Absent | LabelFact::Opaque => {
                    self.test.of_text(LabelFact::Text(agent_type::AGENT_TYPE_UNKNOWN))
                }
            },
            Key::Capability => Some(self.test.of_capabilities(subject.capabilities())),
            Key::Drift => self.test.of_text(LabelFact::Text(subject.drift().as_str())),
            Key::Health => self.test.of_text(LabelFact::Text(subject.health().as_str())),
            Key::Label { scope, name } => self.test.of_text(subject.label(*scope, name)),
            Key::Liveness => self.test.of_text(LabelFact::Text(subject.liveness().as_str())),
            Key::Version => self.test.of_version(self_named(subject, "service.version")),
        }
    }
}

impl Test {
    fn of_text(&self, fact: LabelFact<'_>) -> Option<bool> {
        match (self, fact) {
            (_, LabelFact::Unknown) => None,
            (Self::Exists, fact) => Some(fact != LabelFact::Absent),
            (Self::Absent, fact) => Some(fact == LabelFact::Absent),
            (Self::In(_) | Self::NotIn(_) | Self::Compare(..), LabelFact::Opaque) => None,
            (Self::In(values), LabelFact::Text(text)) => Some(contains(values, text)),
            (Self::In(_), LabelFact::Absent) => Some(false),
            (Self::NotIn(values), LabelFact::Text(text)) => Some(!contains(values, text)),
            (Self::NotIn(_), LabelFact::Absent) => Some(true),
            (Self::Compare(comparison, bound), LabelFact::Text(text)) => comparison.holds(text, bound),
            (Self::Compare(..), LabelFact::Absent) => None,
        }
    }

    /// As text, but versions that mean the same are the same, and one that is no version cannot be compared.
    fn of_version(&self, fact: LabelFact<'_>) -> Option<bool> {
        let (values, negated) = match (self, fact) {
            (Self::In(values), LabelFact::Text(_)) => (values, false),
            (Self::NotIn(values), LabelFact::Text(_)) => (values, true),
            _ => return self.of_text(fact),
        };
        let LabelFact::Text(text) = fact else { return None };
        let version = Version::parse(text)?;
        Some(values.iter().any(|value| Version::parse(value) == Some(version)) != negated)
    }

    fn of_capabilities(&self, capabilities: AgentCapabilities) -> bool {
        let has =
            |name: &String| AgentCapabilities::from_name(name).is_some_and(|bit| capabilities.contains(bit));
        match self {
            Self::In(names) => names.iter().any(has),
            Self::NotIn(names) => !names.iter().any(has),
            // The parser refuses these for a capability.
            Self::Exists | Self::Absent | Self::Compare(..) => false,
        }
    }
}

impl Comparison {
    /// None if one of the two is no version.
    fn holds(self, text: &str, bound: &str) -> Option<bool> {
        let order = Version::parse(text)?.cmp(&Version::parse(bound)?);
        Some(match self {
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        })
    }
}

/// A label by the agent's own word only: what operators set does not change what an agent is.
fn self_named<'a>(subject: &'a impl Subject, key: &str) -> LabelFact<'a> {
    match subject.label(Some(LabelScope::Identifying), key) {
        LabelFact::Absent => subject.label(Some(LabelScope::NonIdentifying), key),
        found => found,
    }
}

/// The values are sorted by the parser.
fn contains(values: &[String], text: &str) -> bool {
    values.binary_search_by(|value| value.as_str().cmp(text)).is_ok()
}
