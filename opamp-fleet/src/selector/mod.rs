//! Selectors: which agents, in the grammar of Kubernetes label selectors.
//!
//! ```text
//! selector    = [ requirement *( "," requirement ) ]          comma is "and"; the empty selector matches all
//! requirement = key                                           the label exists
//!             | "!" key                                       the label does not exist
//!             | key ( "=" | "==" | "!=" ) value               "key=" asks for the empty value
//!             | key ( "in" | "notin" ) "(" value *( "," value ) ")"
//!             | key ( "<" | "<=" | ">" | ">=" ) version       compared as versions; whole numbers are versions
//! key, value  = word | quoted
//! word        = 1*( letter | digit | "-" | "_" | "." | "/" | ":" | "+" | "@" )
//! quoted      = DQUOTE *( any character, with \" and \\ escaped ) DQUOTE
//! ```
//!
//! Differences from Kubernetes: `<=` and `>=` exist, the ordering operators compare versions instead of integers
//! only, any text can be quoted, and an empty value in a list is written `""`.
//!
//! # Keys
//!
//! A key names a label. Labels come from three places, looked up in this order: what operators set on the server,
//! identifying attributes, non-identifying attributes; the first that has the key decides. A prefix asks one place
//! only: `label/team`, `identifying/service.name`, `non-identifying/os.type`.
//!
//! These words are no labels but facts of the agent (a label of that name is reached by a prefix or by quoting):
//!
//! | key | values | operators |
//! |---|---|---|
//! | `agent_type` | `service.name` as the agent gives it, or `unknown` | `=`, `!=`, `in`, `notin` |
//! | `capability` | capability names; the agent has any of them, or for `!=` and `notin` none of them | `=`, `!=`, `in`, `notin` |
//! | `drift` | the words of [`Drift`](crate::Drift) | `=`, `!=`, `in`, `notin` |
//! | `health` | the words of [`Health`](crate::Health) | `=`, `!=`, `in`, `notin` |
//! | `liveness` | the words of [`Liveness`](crate::Liveness) | `=`, `!=`, `in`, `notin` |
//! | `version` | `service.version` as the agent gives it; equal versions are equal however written | all |
//!
//! `group` is reserved.
//!
//! # What does not match
//!
//! As in Kubernetes, `!=` and `notin` match an agent that does not have the label. Beyond that a selector fails
//! closed: a requirement that cannot be evaluated matches nothing, whatever its operator. Such are comparisons
//! with lists, maps and bytes, ordering of what is no version, and absence where labels were dropped at a bound.

mod error;
mod lexer;
mod matching;
mod parser;

use std::fmt;
use std::str::FromStr;

pub use error::SelectorError;
pub use matching::{LabelFact, Subject};

use crate::labels::LabelScope;

/// Longest selector, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 16 * 1024;

/// Most requirements of one selector.
pub const REQUIREMENTS_MAX: usize = 64;

/// Most values of one `in` or `notin`.
pub const VALUES_MAX: usize = 256;

/// A word that no label key may use without prefix or quotes, because it will name a fact of its own.
const RESERVED_GROUP: &str = "group";

/// Which agents: a conjunction of requirements in the grammar given in the [module documentation](self).
///
/// The text form round-trips: parsing what is displayed gives an equal selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// The requirements, all of which must hold.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it asks for nothing and so matches every agent. Callers that act on what matches, instead of
    /// listing it, should refuse that.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: Key,
    test: Test,
}

/// What a requirement looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    AgentType,
    Capability,
    Drift,
    Health,
    Label { scope: Option<LabelScope>, name: String },
    Liveness,
    Version,
}

/// What a requirement asks. Values are sorted and distinct.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Absent,
    Compare(Comparison, String),
    Exists,
    In(Vec<String>),
    NotIn(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Key {
    const PSEUDO: [Self; 6] =
        [Self::AgentType, Self::Capability, Self::Drift, Self::Health, Self::Liveness, Self::Version];

    fn pseudo(word: &str) -> Option<Self> {
        Self::PSEUDO.into_iter().find(|key| key.word() == Some(word))
    }

    fn word(&self) -> Option<&'static str> {
        Some(match self {
            Self::AgentType => "agent_type",
            Self::Capability => "capability",
            Self::Drift => "drift",
            Self::Health => "health",
            Self::Label { .. } => return None,
            Self::Liveness => "liveness",
            Self::Version => "version",
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parser::parse(text)
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, requirement) in self.requirements.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list = |f: &mut fmt::Formatter<'_>, operator: &str, values: &[String]| {
            write!(f, "{key} {operator} (")?;
            for (position, value) in values.iter().enumerate() {
                let comma = if position > 0 { "," } else { "" };
                write!(f, "{comma}{}", Quotable(value))?;
            }
            f.write_str(")")
        };
        match &self.test {
            Test::Absent => write!(f, "!{key}"),
            Test::Compare(comparison, bound) => write!(f, "{key}{}{}", comparison.symbol(), Quotable(bound)),
            Test::Exists => write!(f, "{key}"),
            Test::In(values) => match values.as_slice() {
                [value] => write!(f, "{key}={}", Quotable(value)),
                values => list(f, "in", values),
            },
            Test::NotIn(values) => match values.as_slice() {
                [value] => write!(f, "{key}!={}", Quotable(value)),
                values => list(f, "notin", values),
            },
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label { scope: Some(scope), name } => write!(f, "{}", Quotable(&format!("{scope}/{name}"))),
            // A bare word that means something else is quoted; a quoted one never does.
            Self::Label { scope: None, name } if Self::pseudo(name).is_some() || name == RESERVED_GROUP => {
                write!(f, "\"{name}\"")
            }
            Self::Label { scope: None, name } => write!(f, "{}", Quotable(name)),
            pseudo => f.write_str(pseudo.word().unwrap_or_default()),
        }
    }
}

impl Comparison {
    const fn symbol(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }
}

/// Text, in quotes if it needs them.
struct Quotable<'a>(&'a str);

impl fmt::Display for Quotable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if lexer::is_bare(self.0) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        for char in self.0.chars() {
            if matches!(char, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{char}")?;
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests;
