//! From file, environment and flags to one value per key: flags > environment > file > defaults.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{
    keys::{KEYS, Key, Kind},
    setting::Setting,
};

/// File that is read when it exists and no other is named.
pub const DEFAULT_FILE: &str = "opamp-server.toml";

/// Everything the configuration is made of, before it is understood.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Inputs {
    /// File named by the user; it must exist. `None`: [`DEFAULT_FILE`], if it is there.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not start with `OPAMP_` are not looked at.
    pub env: Vec<(String, String)>,
    /// Flags as key name and values.
    pub flags: Vec<(&'static str, Vec<String>)>,
}

/// One value per key, with its origin.
#[derive(Debug)]
pub(super) struct Values(BTreeMap<&'static str, Value>);

/// A value in text form, with its origin for error messages.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) texts: Vec<String>,
    pub(super) origin: Origin,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// Environment variable.
    Env(String),
    /// File and line.
    File(PathBuf, usize),
    /// Command-line flag.
    Flag(String),
}

/// A configuration that cannot be used. The text says where, what and how to put it right; it never repeats a value
/// that may be a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", origin_prefix(.origin.as_ref()))]
pub struct ConfigError {
    /// Where the mistake is, if at one place.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub message: String,
}

impl Inputs {
    /// Inputs of this process: its environment and no flags.
    pub fn from_process_env() -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        Inputs { env, ..Inputs::default() }
    }

    pub(super) fn values(&self) -> Result<Values, ConfigError> {
        let Values(mut values) = Values::defaults();
        values.extend(self.read_file()?);
        self.read_env(&mut values)?;
        for (name, texts) in &self.flags {
            let Some(key) = Key::by_name(name) else { continue };
            let texts = if key.kind == Kind::List { split_list(texts) } else { texts.clone() };
            values.insert(key.name, Value { texts, origin: Origin::Flag(key.flag()) });
        }
        Ok(Values(values))
    }

    fn read_env(&self, values: &mut BTreeMap<&'static str, Value>) -> Result<(), ConfigError> {
        for (variable, text) in &self.env {
            if !variable.starts_with("OPAMP_")
                || variable == "OPAMP_CONFIG"
                || is_service_link(variable, text)
            {
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.env() == *variable) else {
                let message = format!("unknown variable{}", nearest(variable, KEYS.iter().map(Key::env)));
                return Err(ConfigError { origin: Some(Origin::Env(variable.clone())), message });
            };
            let texts = match key.kind {
                Kind::List => split_list(std::slice::from_ref(text)),
                _ => vec![text.clone()],
            };
            values.insert(key.name, Value { texts, origin: Origin::Env(variable.clone()) });
        }
        Ok(())
    }

    fn read_file(&self) -> Result<BTreeMap<&'static str, Value>, ConfigError> {
        let named = self.file.clone().or_else(|| {
            let named = self.env.iter().find(|(variable, _)| variable == "OPAMP_CONFIG");
            named.map(|(_, path)| PathBuf::from(path))
        });
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeMap::new());
            }
            Err(error) => {
                return Err(ConfigError::new(format!(
                    "cannot read configuration file {}: {error}",
                    path.display()
                )));
            }
        };
        parse_file(&path, &text)
    }
}

impl Values {
    pub(super) fn defaults() -> Self {
        Values(KEYS.iter().map(|key| (key.name, default_of(key))).collect())
    }

    /// The typed value of a key.
    pub(super) fn read<T: Setting>(&self, name: &'static str) -> Result<T, ConfigError> {
        // The table is complete: every key was given its default first.
        let value = &self.0[name];
        T::read(&value.texts)
            .map_err(|message| ConfigError::at(&value.origin, format!("`{name}`: {message}")))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:?})", self.origin)
    }
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ConfigError { origin: None, message: message.into() }
    }

    pub(super) fn at(origin: &Origin, message: impl Into<String>) -> Self {
        ConfigError { origin: Some(origin.clone()), message: message.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Env(variable) => f.write_str(variable),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

fn origin_prefix(origin: Option<&Origin>) -> String {
    origin.map_or_else(String::new, |origin| format!("{origin}: "))
}

fn default_of(key: &Key) -> Value {
    let texts = match key.default {
        "" => Vec::new(),
        text => vec![text.to_owned()],
    };
    Value { texts, origin: Origin::Default }
}

fn split_list(texts: &[String]) -> Vec<String> {
    let parts = texts.iter().flat_map(|text| text.split(','));
    parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// `; the nearest known one is …`, or nothing if nothing is near.
pub(crate) fn nearest(wrong: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let scored =
        known.into_iter().map(|name| (strsim::normalized_damerau_levenshtein(wrong, name.as_ref()), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(score, _)| *score >= 0.4);
    best.map_or_else(String::new, |(_, name)| format!("; the nearest known one is `{}`", name.as_ref()))
}

/// Whether a variable was put there by a container platform for a service called `opamp…` rather than by a user:
/// `OPAMP_SERVICE_HOST`, `OPAMP_PORT=tcp://…`, `OPAMP_SERVER_PORT_4320_TCP_ADDR`.
fn is_service_link(variable: &str, value: &str) -> bool {
    let Some((_, rest)) = variable.split_once('_') else { return false };
    let rest = format!("_{rest}");
    let after_port = rest.rsplit_once("_PORT").map(|(_, tail)| tail);
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || after_port.is_some_and(|tail| match tail {
            "" => value.starts_with("tcp://") || value.starts_with("udp://") || rest.contains("_TCP_"),
            tail => tail.starts_with('_') && tail[1..].starts_with(|c: char| c.is_ascii_digit()),
        })
}

fn parse_file(path: &std::path::Path, text: &str) -> Result<BTreeMap<&'static str, Value>, ConfigError> {
    let line_of =
        |offset: usize| Origin::File(path.into(), text[..offset.min(text.len())].matches('\n').count() + 1);
    // Only the message: the error's own rendering quotes the line, which may hold a token.
    let table = DeTable::parse(text).map_err(|error| ConfigError {
        origin: Some(line_of(error.span().map_or(0, |span| span.start))),
        message: error.message().to_owned(),
    })?;
    let mut found = BTreeMap::new();
    walk("", table.get_ref(), &line_of, &mut found)?;
    Ok(found)
}

fn walk(
    prefix: &str,
    table: &DeTable<'_>,
    line_of: &impl Fn(usize) -> Origin,
    found: &mut BTreeMap<&'static str, Value>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let origin = line_of(name.span().start);
        let full = format!("{prefix}{}", name.get_ref());
        let section = format!("{full}.");
        let is_section = KEYS.iter().any(|key| key.name.starts_with(&section));
        match (Key::by_name(&full), value.get_ref()) {
            (None, DeValue::Table(inner)) if is_section => walk(&section, inner, line_of, found)?,
            (None, _) if is_section => {
                return Err(ConfigError::at(&origin, format!("`{full}` is a section: write `[{full}]`")));
            }
            (None, _) => {
                let message =
                    format!("unknown key `{full}`{}", nearest(&full, KEYS.iter().map(|key| key.name)));
                return Err(ConfigError::at(&origin, message));
            }
            (Some(key), value) => {
                let texts = texts_of(key, value).map_err(|message| ConfigError::at(&origin, message))?;
                found.insert(key.name, Value { texts, origin });
            }
        }
    }
    Ok(())
}

fn texts_of(key: &Key, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match (key.kind, value) {
        (Kind::List, DeValue::Array(items)) => {
            let item = |item: &DeValue<'_>| item.as_str().map(str::to_owned);
            let texts: Option<Vec<_>> = items.iter().map(|value| item(value.get_ref())).collect();
            texts.ok_or_else(|| format!("`{}` is a list of strings", key.name))
        }
        (Kind::List, _) => Err(format!("`{}` is a list of strings: write `[\"…\"]`", key.name)),
        (_, DeValue::String(text)) => Ok(if text.is_empty() { Vec::new() } else { vec![text.to_string()] }),
        (Kind::Count | Kind::Size, DeValue::Integer(number)) if number.radix() == 10 => {
            Ok(vec![number.as_str().into()])
        }
        (Kind::Switch, DeValue::Boolean(on)) => Ok(vec![on.to_string()]),
        (Kind::Switch, _) => Err(format!("`{}` is true or false", key.name)),
        (kind, _) => Err(format!("`{}` is a {} in quotes", key.name, kind.describe().replace("\\|", "|"))),
    }
}
