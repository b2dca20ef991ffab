//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// How much of a message is kept.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A configuration that cannot be used. The text says where, what and how to put it right, in one line; it never
/// repeats a value that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", prefix(.origin))]
pub struct ConfigError {
    pub(crate) origin: Origin,
    pub(crate) message: String,
}

/// Where a value was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nowhere: it is the default.
    #[default]
    Default,
    /// In a file.
    File(Arc<PathBuf>, Option<Place>),
    /// In a remote configuration.
    Remote(Option<Place>),
}

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl ConfigError {
    pub(crate) fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, message: one_line(&message.into()) }
    }
}

impl Origin {
    /// The same source at a place.
    pub(crate) fn at(&self, place: Option<Place>) -> Self {
        match self {
            Self::Default => Self::Default,
            Self::File(path, _) => Self::File(Arc::clone(path), place),
            Self::Remote(_) => Self::Remote(place),
        }
    }

    pub(crate) const fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::File(path, Some(place)) => write!(f, "{}:{}:{}", path.display(), place.line, place.column),
            Self::Remote(None) => f.write_str("remote configuration"),
            Self::Remote(Some(place)) => write!(f, "line {}, column {}", place.line, place.column),
        }
    }
}

fn prefix(origin: &Origin) -> String {
    match origin {
        Origin::Default => String::new(),
        other => format!("{other}: "),
    }
}

/// Text that may hold names from afar, made fit for a line of log: no control characters, and not without end.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MESSAGE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(MESSAGE_BYTES_MAX));
        line.push('…');
    }
    line
}

/// `; did you mean …?`, or nothing if nothing is near.
pub(crate) fn nearest(wrong: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let scored =
        known.into_iter().map(|name| (strsim::normalized_damerau_levenshtein(wrong, name.as_ref()), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(score, _)| *score >= 0.7);
    best.map_or_else(String::new, |(_, name)| format!("; did you mean `{}`?", name.as_ref()))
}
