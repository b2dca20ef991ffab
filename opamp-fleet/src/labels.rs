//! Labels: what an agent says of itself and what operators say of it, bounded and comparable.

use std::borrow::Cow;
use std::collections::BTreeMap;

use opamp_proto::pb;
use opamp_proto::pb::any_value::Value;

use crate::words::closed_set;

/// Longest key of a label, in bytes. A longer one cannot be selected by, and the agent is marked truncated.
pub const LABEL_KEY_BYTES_MAX: usize = 256;

/// Longest value that can be compared, in bytes. Of a longer one a prefix is kept, which equals no selector value.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;

/// Most labels kept of one agent's description. Further ones are dropped, and the agent is marked truncated.
pub const LABELS_MAX: usize = 128;

/// Most labels operators may set on one agent.
pub const SERVER_LABELS_MAX: usize = 64;

closed_set! {
    /// Where a label comes from, in order of precedence: a key without a prefix is looked up in this order, and
    /// the first place that has it decides. What an operator set therefore cannot be overridden by what an
    /// agent claims.
    pub enum LabelScope ("label scope") {
        /// Set by operators on the server.
        Server = "label",
        /// `AgentDescription.identifying_attributes`.
        Identifying = "identifying",
        /// `AgentDescription.non_identifying_attributes`.
        NonIdentifying = "non-identifying",
    }
}

/// A label's value, as far as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LabelValue {
    /// Text, or a boolean or number in its decimal form.
    Text(String),
    /// A list, a map, bytes or nothing: it exists, and no comparison with it can be evaluated.
    Opaque,
}

impl LabelValue {
    /// The text, if the value is comparable.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Opaque => None,
        }
    }
}

/// The labels of one agent, by scope and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// By [`LabelScope::index`].
    scopes: [BTreeMap<String, LabelValue>; LabelScope::ALL.len()],
    truncated: bool,
}

impl Labels {
    /// The attributes of a description as labels.
    ///
    /// Of a key that is given twice the last value counts. Attributes beyond [`LABELS_MAX`] (identifying ones
    /// come first, then by key) and keys beyond [`LABEL_KEY_BYTES_MAX`] are dropped, after which
    /// [`Labels::is_truncated`] holds.
    pub fn from_description(description: &pb::AgentDescription) -> Self {
        let mut labels = Self::default();
        for (scope, attributes) in [
            (LabelScope::Identifying, &description.identifying_attributes),
            (LabelScope::NonIdentifying, &description.non_identifying_attributes),
        ] {
            let by_key: BTreeMap<&str, _> =
                attributes.iter().map(|a| (a.key.as_str(), a.value.as_ref())).collect();
            for (key, value) in by_key {
                if key.len() > LABEL_KEY_BYTES_MAX || labels.len() == LABELS_MAX {
                    labels.truncated = true;
                } else {
                    labels.insert(scope, key.to_owned(), comparable(value));
                }
            }
        }
        labels
    }

    /// Replaces the server-set labels.
    pub fn set_server(&mut self, labels: &BTreeMap<String, String>) {
        let texts = labels.iter().map(|(key, value)| (key.clone(), LabelValue::Text(value.clone())));
        self.scopes[LabelScope::Server.index()] = texts.collect();
    }

    /// Sets one label.
    pub fn insert(&mut self, scope: LabelScope, key: String, value: LabelValue) {
        self.scopes[scope.index()].insert(key, value);
    }

    /// The value of `key` in `scope`, or in the first scope that has it.
    pub fn value(&self, scope: Option<LabelScope>, key: &str) -> Option<&LabelValue> {
        match scope {
            Some(scope) => self.scopes[scope.index()].get(key),
            None => self.scopes.iter().find_map(|labels| labels.get(key)),
        }
    }

    /// Every label, by scope and key.
    pub fn iter(&self) -> impl Iterator<Item = (LabelScope, &str, &LabelValue)> {
        LabelScope::ALL
            .into_iter()
            .zip(&self.scopes)
            .flat_map(|(scope, labels)| labels.iter().map(move |(key, value)| (scope, key.as_str(), value)))
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.scopes.iter().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether labels were dropped at a bound. Absence then proves nothing, so that a selector which asks for it
    /// does not match.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Marks that labels were dropped.
    pub(crate) fn mark_truncated(&mut self) {
        self.truncated = true;
    }
}

/// Checks labels that an operator wants to set.
///
/// # Errors
/// Names the offending key and the rule; nothing may be stored then.
pub fn check_server_labels(labels: &BTreeMap<String, String>) -> Result<(), LabelError> {
    if labels.len() > SERVER_LABELS_MAX {
        return Err(LabelError::TooMany { count: labels.len() });
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX || key.chars().any(char::is_control) {
            return Err(LabelError::Key { key: key.chars().take(64).collect() });
        }
        if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(LabelError::Value { key: key.clone() });
        }
    }
    Ok(())
}

/// Why labels are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// More than [`SERVER_LABELS_MAX`]: remove some.
    #[error("{count} labels, at most {SERVER_LABELS_MAX} are allowed")]
    TooMany {
        /// How many were given.
        count: usize,
    },
    /// A key is empty, longer than [`LABEL_KEY_BYTES_MAX`] or has control characters: rename it.
    #[error("label key {key:?} must have 1 to {LABEL_KEY_BYTES_MAX} bytes and no control characters")]
    Key {
        /// The beginning of the key.
        key: String,
    },
    /// A value is longer than [`LABEL_VALUE_BYTES_MAX`] or has control characters: shorten it.
    #[error(
        "value of label {key:?} must have at most {LABEL_VALUE_BYTES_MAX} bytes and no control characters"
    )]
    Value {
        /// The key of the value.
        key: String,
    },
}

fn comparable(value: Option<&pb::AnyValue>) -> LabelValue {
    let text: Cow<'_, str> = match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => Cow::Borrowed(shortened(text)),
        Some(Value::BoolValue(value)) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Some(Value::IntValue(value)) => Cow::Owned(value.to_string()),
        Some(Value::DoubleValue(value)) => Cow::Owned(value.to_string()),
        Some(_) | None => return LabelValue::Opaque,
    };
    LabelValue::Text(text.into_owned())
}

/// At least one byte more than a selector value may have, so that a shortened value equals none.
fn shortened(text: &str) -> &str {
    let end = (LABEL_VALUE_BYTES_MAX + 1..text.len()).find(|at| text.is_char_boundary(*at));
    end.map_or(text, |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(key: &str, value: Option<Value>) -> pb::KeyValue {
        pb::KeyValue { key: key.to_owned(), value: Some(pb::AnyValue { value }) }
    }

    fn text(value: &str) -> Option<Value> {
        Some(Value::StringValue(value.to_owned()))
    }

    #[test]
    fn attributes_of_every_scalar_kind_are_comparable_and_the_rest_only_exist() {
        let description = pb::AgentDescription {
            identifying_attributes: vec![
                attribute("s", text("x")),
                attribute("b", Some(Value::BoolValue(true))),
            ],
            non_identifying_attributes: vec![
                attribute("i", Some(Value::IntValue(-7))),
                attribute("d", Some(Value::DoubleValue(1.5))),
                attribute("list", Some(Value::ArrayValue(pb::ArrayValue::default()))),
                attribute("bytes", Some(Value::BytesValue(bytes::Bytes::from_static(b"x")))),
                attribute("none", None),
                pb::KeyValue { key: "unset".to_owned(), value: None },
            ],
        };
        let labels = Labels::from_description(&description);
        let value = |key| labels.value(None, key).map(|value| value.as_text().unwrap_or("(opaque)"));
        let keys = ["s", "b", "i", "d", "list", "bytes", "none", "unset", "absent"];
        assert_eq!(
            keys.map(value),
            [
                Some("x"),
                Some("true"),
                Some("-7"),
                Some("1.5"),
                Some("(opaque)"),
                Some("(opaque)"),
                Some("(opaque)"),
                Some("(opaque)"),
                None
            ]
        );
        assert!(!labels.is_truncated());
    }

    #[test]
    fn server_labels_win_over_identifying_over_non_identifying() {
        let description = pb::AgentDescription {
            identifying_attributes: vec![attribute("k", text("first")), attribute("k", text("identifying"))],
            non_identifying_attributes: vec![attribute("k", text("other"))],
        };
        let mut labels = Labels::from_description(&description);
        let value =
            |labels: &Labels, scope| labels.value(scope, "k").and_then(|v| v.as_text().map(str::to_owned));
        assert_eq!(value(&labels, None).as_deref(), Some("identifying"), "of a repeated key the last counts");
        labels.set_server(&BTreeMap::from([("k".to_owned(), "operator".to_owned())]));
        assert_eq!(value(&labels, None).as_deref(), Some("operator"));
        assert_eq!(value(&labels, Some(LabelScope::NonIdentifying)).as_deref(), Some("other"));
        labels.set_server(&BTreeMap::new());
        assert_eq!(value(&labels, None).as_deref(), Some("identifying"));
    }

    #[test]
    fn labels_beyond_the_bounds_are_dropped_visibly() {
        let many = (0..LABELS_MAX + 1).map(|n| attribute(&format!("k{n:04}"), text("v"))).collect();
        let labels = Labels::from_description(&pb::AgentDescription {
            identifying_attributes: many,
            non_identifying_attributes: Vec::new(),
        });
        assert_eq!((labels.len(), labels.is_truncated()), (LABELS_MAX, true));

        let long_key = "k".repeat(LABEL_KEY_BYTES_MAX + 1);
        let labels = Labels::from_description(&pb::AgentDescription {
            identifying_attributes: vec![attribute(&long_key, text("v"))],
            non_identifying_attributes: Vec::new(),
        });
        assert_eq!((labels.len(), labels.is_truncated()), (0, true));
    }

    #[test]
    fn a_long_value_keeps_more_than_a_selector_can_ask_for() {
        for unit in ["x", "ä", "\u{1F980}"] {
            let labels = Labels::from_description(&pb::AgentDescription {
                identifying_attributes: vec![attribute("k", text(&unit.repeat(10_000)))],
                non_identifying_attributes: Vec::new(),
            });
            let kept = labels.value(None, "k").and_then(LabelValue::as_text).map_or(0, str::len);
            assert!(
                (LABEL_VALUE_BYTES_MAX + 1..LABEL_VALUE_BYTES_MAX + 5).contains(&kept),
                "{kept} bytes of {unit}"
            );
        }
    }

    #[test]
    fn server_labels_are_checked_before_they_are_set() {
        let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(check_server_labels(&labels("team", "edge")), Ok(()));
        assert_eq!(check_server_labels(&labels("team", "")), Ok(()));
        for (key, value) in
            [("", "x"), ("a\n", "x"), ("k", "a\u{7}"), ("k", &"v".repeat(257)), (&"k".repeat(257), "v")]
        {
            assert!(check_server_labels(&labels(key, value)).is_err(), "{key:?} = {value:?}");
        }
        let many = (0..=SERVER_LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(check_server_labels(&many), Err(LabelError::TooMany { count: SERVER_LABELS_MAX + 1 }));
    }
}
