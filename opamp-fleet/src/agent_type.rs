//! The agent type: one label by which metrics are grouped, with bounded cardinality.

use std::collections::BTreeSet;

use crate::labels::{LabelScope, LabelValue, Labels};

/// Longest agent type, in bytes; a longer `service.name` is cut there.
pub const AGENT_TYPE_BYTES_MAX: usize = 64;

/// The type of an agent that gives no `service.name`.
pub const AGENT_TYPE_UNKNOWN: &str = "unknown";

/// What types beyond the bound of [`AgentTypes`] are counted under.
pub const AGENT_TYPE_OTHER: &str = "other";

/// The agent type of a description: its `service.name` (R-DESC-04), identifying before non-identifying, without
/// surrounding blanks. Server-set labels have no say in it.
pub fn agent_type(labels: &Labels) -> &str {
    normalised(
        [LabelScope::Identifying, LabelScope::NonIdentifying]
            .into_iter()
            .find_map(|scope| labels.value(Some(scope), "service.name"))
            .and_then(LabelValue::as_text),
    )
}

/// A `service.name` as agent type.
pub(crate) fn normalised(service_name: Option<&str>) -> &str {
    let name = service_name.unwrap_or_default().trim();
    let end = (0..=name.len().min(AGENT_TYPE_BYTES_MAX)).rev().find(|at| name.is_char_boundary(*at));
    match name[..end.unwrap_or(0)].trim_end() {
        "" => AGENT_TYPE_UNKNOWN,
        name => name,
    }
}

/// Folds agent types into a bounded set of metric labels: the first ones seen keep their name, all later ones
/// become [`AGENT_TYPE_OTHER`].
///
/// Agents can invent types, and each would be a new time series. A name once given is kept for the lifetime of
/// the value, so that no series changes its meaning.
#[derive(Clone, Debug)]
pub struct AgentTypes {
    names: BTreeSet<Box<str>>,
    names_max: usize,
}

impl AgentTypes {
    /// Keeps at most `names_max` types apart, `unknown` included and `other` not.
    pub fn new(names_max: usize) -> Self {
        Self { names: BTreeSet::new(), names_max }
    }

    /// The metric label for `agent_type`.
    pub fn fold<'a>(&mut self, agent_type: &'a str) -> &'a str {
        if self.names.contains(agent_type) {
            return agent_type;
        }
        if self.names.len() >= self.names_max {
            return AGENT_TYPE_OTHER;
        }
        self.names.insert(agent_type.into());
        agent_type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scope: LabelScope, name: &str) -> Labels {
        let mut labels = Labels::default();
        labels.insert(scope, "service.name".to_owned(), LabelValue::Text(name.to_owned()));
        labels
    }

    #[test]
    fn the_agent_type_is_the_service_name_the_agent_gives() {
        assert_eq!(agent_type(&labels(LabelScope::Identifying, " io.example.agent ")), "io.example.agent");
        assert_eq!(agent_type(&labels(LabelScope::NonIdentifying, "x")), "x");
        assert_eq!(agent_type(&labels(LabelScope::Server, "x")), AGENT_TYPE_UNKNOWN);
        assert_eq!(agent_type(&labels(LabelScope::Identifying, "  ")), AGENT_TYPE_UNKNOWN);
        assert_eq!(agent_type(&Labels::default()), AGENT_TYPE_UNKNOWN);
        assert!(agent_type(&labels(LabelScope::Identifying, &"ä".repeat(99))).len() <= AGENT_TYPE_BYTES_MAX);
    }

    #[test]
    fn invented_types_fold_into_other_beyond_the_bound() {
        let mut types = AgentTypes::new(2);
        assert_eq!(
            ["a", "b", "c", "a", "d", "b"].map(|t| types.fold(t)),
            ["a", "b", "other", "a", "other", "b"]
        );
    }
}
