//! The rows as data, and how they are read from TOML.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::{AREAS, Area};

/// Every row, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    rows: BTreeMap<RowId, Row>,
}

impl Registry {
    /// Reads `<area>.toml` of every area from `directory`.
    ///
    /// # Errors
    ///
    /// A file that is missing, is not TOML, holds a row of another area, or a row that contradicts itself.
    pub fn read(directory: &Path) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        for area in &AREAS {
            let path = directory.join(format!("{}.toml", area.name.to_lowercase()));
            let text = fs::read_to_string(&path)
                .map_err(|source| RegistryError::Io { path: path.clone(), source })?;
            registry.add(area, &text)?;
        }
        Ok(registry)
    }

    /// Adds the rows of one area from TOML text.
    ///
    /// # Errors
    ///
    /// As for [`Registry::read`]; a second row with one id is among them.
    pub fn add(&mut self, area: &Area, text: &str) -> Result<(), RegistryError> {
        let rows: BTreeMap<String, RawRow> = toml::from_str(text)
            .map_err(|source| RegistryError::Toml { area: area.name.to_owned(), source: Box::new(source) })?;
        for (key, raw) in rows {
            let fault = |what: String| RegistryError::Row { id: key.clone(), what };
            let id: RowId = key.parse().map_err(fault)?;
            if id.area != area.name {
                return Err(fault(format!("does not belong to area {}", area.name)));
            }
            let row = raw.into_row().map_err(fault)?;
            if self.rows.insert(id, row).is_some() {
                return Err(fault("is there twice".to_owned()));
            }
        }
        Ok(())
    }

    /// Every row in the order of areas and numbers.
    pub fn rows(&self) -> impl Iterator<Item = (RowId, &Row)> {
        AREAS.iter().flat_map(|area| self.area(area))
    }

    /// The rows of one area in the order of their numbers.
    pub fn area(&self, area: &Area) -> impl Iterator<Item = (RowId, &Row)> {
        let name = area.name;
        self.rows.iter().filter(move |(id, _)| id.area == name).map(|(id, row)| (*id, row))
    }

    /// The row with this id.
    pub fn row(&self, id: RowId) -> Option<&Row> {
        self.rows.get(&id)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row at all.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// One requirement and how far it is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// How strongly the specification asks for it.
    pub level: Level,
    /// Whom it binds.
    pub side: Side,
    /// How settled the specification declares it.
    pub stability: Stability,
    /// What it asks, in one sentence.
    pub text: String,
    /// How far it is met.
    pub states: States,
}

/// Id of a row, such as `R-TRANS-01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// Name of the area.
    pub area: &'static str,
    /// Number within the area, from 1.
    pub number: usize,
}

impl FromStr for RowId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (area, number) = text
            .strip_prefix("R-")
            .and_then(|rest| rest.split_once('-'))
            .ok_or_else(|| "is not of the form R-AREA-NN".to_owned())?;
        let area = Area::named(area).ok_or_else(|| "names an unknown area".to_owned())?.name;
        let number = number.parse().map_err(|_| "has no number".to_owned())?;
        let id = Self { area, number };
        if id.to_string() == text { Ok(id) } else { Err(format!("is spelled {id}")) }
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "R-{}-{:02}", self.area, self.number)
    }
}

impl fmt::Debug for RowId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// How strongly a requirement is stated, in the words of the list: `MUST`, `SHOULD NOT`, `MUST (schema)`, `prose (may)` …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(String);

impl Level {
    /// The capitalised keyword, or [`Keyword::Prose`] where the specification uses none.
    pub fn keyword(&self) -> Keyword {
        match self.0.split(" (").next() {
            Some("MUST" | "MUST NOT") => Keyword::Must,
            Some("SHOULD" | "SHOULD NOT") => Keyword::Should,
            Some("MAY") => Keyword::May,
            _ => Keyword::Prose,
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KNOWN: [&str; 18] = [
            "MAY",
            "MUST",
            "MUST (guideline)",
            "MUST (schema)",
            "MUST NOT",
            "SHOULD",
            "SHOULD (guideline)",
            "SHOULD (schema)",
            "SHOULD NOT",
            "SHOULD NOT (schema)",
            "prose",
            "prose (may)",
            "prose (must not)",
            "prose (must)",
            "prose (recommended)",
            "prose (schema)",
            "prose (should not)",
            "prose (should)",
        ];
        if KNOWN.contains(&text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("has the unknown level {text:?}"))
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The capitalised keyword of a [`Level`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    /// MUST or MUST NOT.
    Must,
    /// SHOULD or SHOULD NOT.
    Should,
    /// MAY.
    May,
    /// Stated without a keyword.
    Prose,
}

/// Whom a requirement binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The server.
    Server,
    /// Agent and OpAMP client together.
    Client,
    /// Each of the two.
    Both,
}

impl Side {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Both => "both",
        }
    }
}

/// How settled the specification declares an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stability {
    /// Without a label.
    Stable,
    /// Labelled beta.
    Beta,
    /// Labelled development.
    Development,
}

/// The state of a row: one, or one for each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum States {
    /// Of a row that binds one side.
    One(State),
    /// Of a row that binds both.
    PerSide {
        /// How far the server meets it.
        server: State,
        /// How far agent and client meet it.
        client: State,
    },
}

/// How far one side meets a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Tests fail if it is violated.
    Proven {
        /// Those tests.
        tests: Vec<TestPath>,
    },
    /// A later piece of work does it.
    Deferred {
        /// Which one.
        topic: Topic,
    },
    /// Nothing here can be bound by it.
    NotApplicable {
        /// The reason.
        why: String,
    },
    /// To be done.
    Open,
}

/// The closed set of topics that a row can be deferred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Topic {
    /// Enrolment: approving, issuing and revoking credentials.
    #[serde(rename = "enrolment")]
    Enrolment,
    /// Several replicas of the server.
    #[serde(rename = "several replicas")]
    SeveralReplicas,
    /// The user interface.
    #[serde(rename = "user interface")]
    UserInterface,
}

impl fmt::Display for Topic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Enrolment => "enrolment",
            Self::SeveralReplicas => "several replicas",
            Self::UserInterface => "user interface",
        })
    }
}

/// Where a test stands: `package::file::function`, the file relative to the package's root, as in
/// `opamp-proto::src/frame.rs::long_zero_header_is_accepted`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TestPath {
    /// Name of the Cargo package.
    pub package: String,
    /// File relative to the package's root, with `/`.
    pub file: String,
    /// Name of the test function.
    pub function: String,
}

impl FromStr for TestPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split("::").collect();
        match parts[..] {
            [package, file, function]
                if !package.is_empty() && file.ends_with(".rs") && !function.is_empty() =>
            {
                Ok(Self { package: package.to_owned(), file: file.to_owned(), function: function.to_owned() })
            }
            _ => Err(format!("test path {text:?} is not of the form package::file.rs::function")),
        }
    }
}

impl fmt::Display for TestPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}::{}::{}", self.package, self.file, self.function)
    }
}

/// Why the registry could not be read. All of them are for the person who edits it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file is missing or cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not TOML, has an unknown key, or the same row twice.
    #[error("area {area}: {source}")]
    Toml {
        /// The area whose file it is.
        area: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A row contradicts itself.
    #[error("{id}: {what}")]
    Row {
        /// The row, as written.
        id: String,
        /// What is wrong.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    level: String,
    side: Side,
    stability: Stability,
    text: String,
    state: Option<String>,
    tests: Option<Vec<String>>,
    topic: Option<Topic>,
    why: Option<String>,
    server: Option<RawState>,
    client: Option<RawState>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawState {
    state: String,
    tests: Option<Vec<String>>,
    topic: Option<Topic>,
    why: Option<String>,
}

impl RawRow {
    fn into_row(self) -> Result<Row, String> {
        let (tests, topic, why) = (self.tests, self.topic, self.why);
        let states = match (self.side, self.state, self.server, self.client) {
            (Side::Both, None, Some(server), Some(client)) => {
                States::PerSide { server: server.into_state()?, client: client.into_state()? }
            }
            (Side::Both, ..) => {
                return Err("binds both sides and needs a state for `server` and `client`".to_owned());
            }
            (_, Some(state), None, None) => States::One(RawState { state, tests, topic, why }.into_state()?),
            _ => return Err("binds one side and needs one `state`".to_owned()),
        };
        Ok(Row {
            level: self.level.parse()?,
            side: self.side,
            stability: self.stability,
            text: self.text,
            states,
        })
    }
}

impl RawState {
    fn into_state(self) -> Result<State, String> {
        match (self.state.as_str(), self.tests, self.topic, self.why) {
            ("proven", Some(tests), None, None) if !tests.is_empty() => {
                let tests = tests.iter().map(|path| path.parse()).collect::<Result<_, _>>()?;
                Ok(State::Proven { tests })
            }
            ("proven", ..) => Err("is proven and needs `tests` and nothing else".to_owned()),
            ("deferred", None, Some(topic), None) => Ok(State::Deferred { topic }),
            ("deferred", ..) => Err("is deferred and needs a `topic` and nothing else".to_owned()),
            ("not-applicable", None, None, Some(why)) if why.split_whitespace().count() > 1 => {
                Ok(State::NotApplicable { why })
            }
            ("not-applicable", ..) => {
                Err("is not applicable and needs a reason in `why` and nothing else".to_owned())
            }
            ("open", None, None, None) => Ok(State::Open),
            ("open", ..) => Err("is open and needs nothing else".to_owned()),
            (other, ..) => Err(format!("has the unknown state {other:?}")),
        }
    }
}
