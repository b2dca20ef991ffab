//! What went wrong in protocol libraries and fleet managers elsewhere, with the rule that rules it out here and the tests that hold to it.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::{RegistryError, TestPath, Workspace};

/// Number of lessons on record.
pub const LESSONS: usize = 33;

/// All lessons, in the order they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lessons(Vec<Lesson>);

/// One failure that was seen elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// What was seen.
    pub seen: String,
    /// What rules it out.
    pub rule: String,
    /// Tests that are named after what they forbid, and fail if it comes back.
    pub tests: Vec<TestPath>,
}

impl Lessons {
    /// Reads `lessons.toml` in `directory`.
    ///
    /// # Errors
    ///
    /// A file that is missing or is not TOML, or a test path that is none.
    pub fn read(directory: &Path) -> Result<Self, RegistryError> {
        let path = directory.join("lessons.toml");
        let text =
            fs::read_to_string(&path).map_err(|source| RegistryError::Io { path: path.clone(), source })?;
        Self::parse(&text)
    }

    /// Reads lessons from TOML text.
    ///
    /// # Errors
    ///
    /// As for [`Lessons::read`].
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let file: RawFile = toml::from_str(text).map_err(|source| RegistryError::Toml {
            area: "of the lessons".to_owned(),
            source: Box::new(source),
        })?;
        file.lesson.into_iter().map(RawLesson::into_lesson).collect::<Result<_, _>>().map(Self)
    }

    /// The lessons.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Lesson> {
        self.0.iter()
    }

    /// Everything that is wrong with them, one line each: a number other than [`LESSONS`], a lesson without a test, tests
    /// that do not exist.
    pub fn violations(&self, workspace: &Workspace) -> Vec<String> {
        let mut found = Vec::new();
        if self.0.len() != LESSONS {
            found.push(format!("there are {} lessons and should be {LESSONS}", self.0.len()));
        }
        for lesson in &self.0 {
            if lesson.tests.is_empty() {
                found.push(format!("lesson {:?}: no test rules it out", lesson.seen));
            }
            let missing = lesson.tests.iter().filter_map(|test| workspace.find(test).err());
            found.extend(missing.map(|fault| format!("lesson {:?}: {fault}", lesson.seen)));
        }
        found
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    lesson: Vec<RawLesson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLesson {
    seen: String,
    rule: String,
    #[serde(default)]
    tests: Vec<String>,
}

impl RawLesson {
    fn into_lesson(self) -> Result<Lesson, RegistryError> {
        let Self { seen, rule, tests } = self;
        let fault = |what: String| RegistryError::Row { id: format!("lesson {seen:?}"), what };
        let tests = tests.iter().map(|path| path.parse()).collect::<Result<_, _>>().map_err(fault)?;
        Ok(Lesson { seen, rule, tests })
    }
}
