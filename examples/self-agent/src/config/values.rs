//! One value per key, with its place, and the types values are read into.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, Origin, nearest};
use super::keys::{KEYS, Key, Kind};

/// One value per key that has one; defaults included.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Values(BTreeMap<&'static str, Found>);

/// A value with the place it was found at.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) raw: Raw,
    pub(crate) origin: Origin,
}

/// A value as it was written, variables expanded.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Raw {
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    Text(String),
}

impl Values {
    /// The defaults with what was found over them.
    pub(super) fn with_defaults(found: BTreeMap<&'static str, Found>) -> Self {
        let mut values: BTreeMap<_, _> =
            KEYS.iter().filter_map(|key| Some((key.name, default_of(key)?))).collect();
        values.extend(found);
        Self(values)
    }

    /// These values with remote ones over them. Maps are joined name by name.
    pub(super) fn overlaid(&self, remote: BTreeMap<&'static str, Found>) -> Self {
        let mut values = self.0.clone();
        for (name, mut found) in remote {
            if let (Some(Found { raw: Raw::Map(local), .. }), Raw::Map(over)) =
                (values.get(name), &mut found.raw)
            {
                let mut joined = local.clone();
                joined.append(over);
                *over = joined;
            }
            values.insert(name, found);
        }
        Self(values)
    }

    pub(super) fn raw(&self, name: &str) -> Option<&Raw> {
        self.0.get(name).map(|found| &found.raw)
    }

    /// Whether somebody wrote it.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|found| found.origin != Origin::Default)
    }

    /// An error about a key, with the place of its value.
    pub(super) fn error(&self, name: &str, message: impl fmt::Display) -> ConfigError {
        let origin = self.0.get(name).map(|found| found.origin.clone()).unwrap_or_default();
        ConfigError::new(origin, format!("`{name}`: {message}"))
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.raw(name) {
            Some(Raw::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn map(&self, name: &str) -> BTreeMap<String, String> {
        match self.raw(name) {
            Some(Raw::Map(entries)) => entries.clone(),
            _ => BTreeMap::new(),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.raw(name) {
            Some(Raw::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.parsed(name, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither `true` nor `false`".to_owned()),
        })
    }

    /// A whole number of at least `least`.
    pub(super) fn count(&self, name: &str, least: usize) -> Result<usize, ConfigError> {
        let parsed = self.parsed(name, |text| match text.parse::<usize>() {
            Ok(number) if number >= least => Ok(number),
            Ok(_) => Err(format!("must be at least {least}")),
            Err(_) => Err("is not a whole number".to_owned()),
        })?;
        Ok(parsed.unwrap_or_default())
    }

    /// A number within a range.
    pub(super) fn factor(&self, name: &str, least: f64, most: f64) -> Result<f64, ConfigError> {
        let parsed = self.parsed(name, |text| match text.parse::<f64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("is not a number from {least} to {most}")),
        })?;
        Ok(parsed.unwrap_or_default())
    }

    /// A span of time above zero.
    pub(super) fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        self.duration_within(name, Duration::from_millis(1), Duration::from_secs(366 * 24 * 3600))
    }

    /// A span of time within a range.
    pub(super) fn duration_within(
        &self,
        name: &str,
        least: Duration,
        most: Duration,
    ) -> Result<Duration, ConfigError> {
        let range =
            || format!("{} to {}", humantime::format_duration(least), humantime::format_duration(most));
        let parsed = self.parsed(name, |text| match humantime::parse_duration(text) {
            Ok(span) if (least..=most).contains(&span) => Ok(span),
            Ok(_) => Err(format!("is not within {}", range())),
            Err(_) => Err("is not a duration such as `30s` or `1m30s`".to_owned()),
        })?;
        Ok(parsed.unwrap_or_default())
    }

    /// A word out of the key's list, in small letters.
    pub(super) fn word(&self, name: &str) -> Result<String, ConfigError> {
        let words = match Key::by_name(name).map(|key| key.kind) {
            Some(Kind::Word(words)) => words,
            _ => &[],
        };
        let parsed = self.parsed(name, |text| {
            let lower = text.to_ascii_lowercase();
            match words.contains(&lower.as_str()) {
                true => Ok(lower),
                false => Err(format!("is none of {}{}", words.join(", "), nearest(&lower, words))),
            }
        })?;
        Ok(parsed.unwrap_or_default())
    }

    fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(Raw::Text(text)) = self.raw(name) else { return Ok(None) };
        let secret = Key::by_name(name).is_some_and(|key| key.secret);
        let shown = if secret { String::new() } else { format!("{text:?} ") };
        parse(text).map(Some).map_err(|what| self.error(name, format!("{shown}{what}")))
    }
}

/// The same value at another place is the same.
impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Found {}

/// Shows names and places, never values.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, found)| (name, &found.origin))).finish()
    }
}

fn default_of(key: &Key) -> Option<Found> {
    let raw = match key.default {
        "" => return None,
        text => Raw::Text(text.to_owned()),
    };
    Some(Found { raw, origin: Origin::Default })
}
