//! From YAML to a tree, with bounds.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Largest file that is read, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Most values of one file, those that aliases repeat included.
pub const NODES_MAX: usize = 100_000;
/// Most bytes of all texts and keys of one file, those that aliases repeat included.
const SCALARS_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;
/// Levels of nesting.
const DEPTH_MAX: usize = 64;
/// Anchors of one file.
const ANCHORS_MAX: usize = 1_000;

/// Why files are no configuration of a Collector. Their content is not repeated: it may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCollector {
    /// A part is of the wrong kind.
    #[error("{path} should be {should}")]
    Shape {
        /// Where.
        path: String,
        /// What it should be.
        should: &'static str,
    },
    /// A file is no text.
    #[error("file {file:?} is no text")]
    Text {
        /// The file.
        file: String,
    },
    /// A file is too large.
    #[error("file {file:?} has more than {max} bytes", max = TEXT_BYTES_MAX)]
    TooLarge {
        /// The file.
        file: String,
    },
    /// A file is no YAML, or exceeds a bound on nesting, aliases or values.
    #[error("file {file:?} is no valid YAML, or too large a one, at line {line}, column {column}")]
    Yaml {
        /// The file.
        file: String,
        /// Line, from 1; 0 if it is not known.
        line: u64,
        /// Column, from 1; 0 if it is not known.
        column: u64,
    },
}

/// A value of a file. Keys are in order, and numbers are as they are written after parsing, so that `1.0` and `1.00` are
/// the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Bool(bool),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
    Null,
    Number(String),
    Text(String),
}

impl Node {
    /// The entries of a mapping; nothing at all is an empty one.
    pub(super) fn into_map(self, path: &str) -> Result<BTreeMap<String, Node>, NotCollector> {
        match self {
            Self::Map(map) => Ok(map),
            Self::Null => Ok(BTreeMap::new()),
            Self::Bool(_) | Self::List(_) | Self::Number(_) | Self::Text(_) => {
                Err(NotCollector::Shape { path: path.to_owned(), should: "a mapping" })
            }
        }
    }

    /// The texts of a list; nothing at all is an empty one.
    pub(super) fn into_texts(self, path: &str) -> Result<Vec<String>, NotCollector> {
        let wrong = || NotCollector::Shape { path: path.to_owned(), should: "a list of names" };
        match self {
            Self::Null => Ok(Vec::new()),
            Self::List(items) => items
                .into_iter()
                .map(|item| match item {
                    Self::Text(text) | Self::Number(text) => Ok(text),
                    Self::Bool(_) | Self::List(_) | Self::Map(_) | Self::Null => Err(wrong()),
                })
                .collect(),
            Self::Bool(_) | Self::Map(_) | Self::Number(_) | Self::Text(_) => Err(wrong()),
        }
    }
}

/// Reads one file.
pub(super) fn parse(file: &str, body: &[u8]) -> Result<Node, NotCollector> {
    if body.len() > TEXT_BYTES_MAX {
        return Err(NotCollector::TooLarge { file: file.to_owned() });
    }
    let text = str::from_utf8(body).map_err(|_| NotCollector::Text { file: file.to_owned() })?;
    let options: serde_saphyr::Options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: NODES_MAX },
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_anchors: ANCHORS_MAX,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: SCALARS_BYTES_MAX,
        },
    };
    let read =
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| Node::deserialize(yaml));
    read.map_err(|error| {
        let place = error.location().map(|location| (location.line(), location.column()));
        let (line, column) = place.unwrap_or_default();
        NotCollector::Yaml { file: file.to_owned(), line, column }
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Node>()? {
            map.insert(key, value);
        }
        Ok(Node::Map(map))
    }
}
