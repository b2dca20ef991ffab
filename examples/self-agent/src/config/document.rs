//! From YAML to one value per key, strictly by the table of keys.
//!
//! Values are taken as they are written, so that `1.10` stays what it is, and each remembers its place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Options, Spanned};

use super::error::{ConfigError, Origin, Place, nearest};
use super::expansion::{Variables, expand, has_reference};
use super::foreign::{FOREIGN, Foreign};
use super::keys::{KEYS, Key, Kind};
use super::values::{Found, Raw};

/// Levels of nesting; the deepest key has four.
const DEPTH_MAX: usize = 16;
/// Anchors, which hardly anybody needs here.
const ANCHORS_MAX: usize = 64;

type Scalar = Spanned<Option<String>>;

/// Reads a document. In a remote one nothing is expanded, and only keys marked as remote are allowed.
pub(super) fn read(
    text: &str,
    origin: &Origin,
    variables: Variables<'_>,
) -> Result<BTreeMap<&'static str, Found>, ConfigError> {
    let reader = Reader {
        origin,
        variables,
        found: RefCell::default(),
        problem: RefCell::default(),
        at: RefCell::default(),
    };
    let options: Options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_anchors: ANCHORS_MAX },
    };
    let root = Section { reader: &reader, path: String::new() };
    let read =
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| root.deserialize(yaml));
    if let Some(problem) = reader.problem.into_inner() {
        return Err(problem);
    }
    if let Err(error) = read {
        let key = reader.at.into_inner();
        let key = if key.is_empty() { "the document ".to_owned() } else { format!("`{key}`: ") };
        let origin = origin.at(error.location().and_then(place));
        return Err(ConfigError::new(origin, format!("{key}{}", words(&error))));
    }
    Ok(reader.found.into_inner())
}

struct Reader<'a> {
    origin: &'a Origin,
    variables: Variables<'a>,
    found: RefCell<BTreeMap<&'static str, Found>>,
    /// The first one.
    problem: RefCell<Option<ConfigError>>,
    /// The key that is being read, for errors of the YAML itself.
    at: RefCell<String>,
}

impl Reader<'_> {
    fn complain(&self, place: Option<Place>, message: impl Into<String>) {
        self.problem.borrow_mut().get_or_insert_with(|| ConfigError::new(self.origin.at(place), message));
    }

    fn found(&self, key: &Key, place: Option<Place>, raw: Raw) {
        self.found.borrow_mut().insert(key.name, Found { raw, origin: self.origin.at(place) });
    }

    /// The text of a scalar, expanded; `None` and a complaint if there is none.
    fn text(&self, name: &str, scalar: Scalar) -> Option<String> {
        let place = place(scalar.referenced);
        let Some(text) = scalar.value else {
            self.complain(place, format!("`{name}` has no value; give it one, or leave the key out"));
            return None;
        };
        if !has_reference(&text) && !text.contains("$$") {
            return Some(text);
        }
        if self.origin.is_remote() {
            if has_reference(&text) {
                self.complain(place, format!("`{name}`: a remote configuration cannot refer to variables"));
            }
            return Some(text);
        }
        match expand(&text, self.variables) {
            Ok(text) => Some(text),
            Err(why) => {
                self.complain(place, format!("`{name}`: {why}"));
                None
            }
        }
    }

    /// What a name stands for in this document. `part` is the last part of it, as it is written.
    fn meaning(&self, part: &str, name: &str) -> Meaning {
        let remote = self.origin.is_remote();
        let below = format!("{name}.");
        let inside = |known: &str| known.starts_with(&below);
        let foreign = FOREIGN.iter().find(|foreign| foreign.name == name);
        let key = Key::by_name(name);
        let is_section = KEYS.iter().any(|key| inside(key.name));
        let allowed = |key: &&Key| !remote || key.remote;
        // One way to write a key, or it could be there twice.
        if part.contains('.') {
            return Meaning::None(format!("unknown key `{name}`; write each part on a line of its own"));
        }
        match (key, foreign) {
            (Some(key), _) if allowed(&key) => Meaning::Key(key),
            _ if KEYS.iter().filter(allowed).any(|key| inside(key.name)) => Meaning::Section,
            (_, Some(foreign)) if !remote => Meaning::Foreign(foreign),
            (None, None) if !is_section => {
                let near = nearest(name, KEYS.iter().filter(allowed).map(|key| key.name));
                Meaning::None(format!("unknown key `{name}`{near}"))
            }
            _ => {
                let keys = KEYS.iter().filter(allowed).map(|key| format!("`{}`", key.name));
                let keys: Vec<_> = keys.collect();
                Meaning::None(format!("`{name}` cannot be set remotely, only {}", keys.join(", ")))
            }
        }
    }

    fn leaf<'de, A: MapAccess<'de>>(
        &self,
        key: &'static Key,
        place: Option<Place>,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match key.kind {
            Kind::Map => map.next_value_seed(Entries { reader: self, key, place }),
            Kind::List => map.next_value_seed(Items { reader: self, key, place }),
            _ => {
                let value: Scalar = map.next_value()?;
                match self.text(key.name, value) {
                    // Taken for "not written", an empty variable would switch off what the key is there for.
                    Some(text) if text.is_empty() => {
                        let name = key.name;
                        self.complain(
                            place,
                            format!("`{name}` is empty; give it a value, or leave the key out"),
                        );
                    }
                    Some(text) => self.found(key, place, Raw::Text(text)),
                    None => {}
                }
                Ok(())
            }
        }
    }
}

/// What a name stands for.
enum Meaning {
    Foreign(&'static Foreign),
    Key(&'static Key),
    /// Nothing that belongs here, and why.
    None(String),
    Section,
}

/// A mapping whose names are parts of keys.
struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let reader = self.reader;
        let prefix = if self.path.is_empty() { String::new() } else { format!("{}.", self.path) };
        loop {
            reader.at.borrow_mut().clone_from(&self.path);
            let Some(part) = map.next_key::<Spanned<String>>()? else { return Ok(()) };
            let (place, name) = (place(part.referenced), format!("{prefix}{}", part.value));
            reader.at.borrow_mut().clone_from(&name);
            match reader.meaning(&part.value, &name) {
                Meaning::Foreign(foreign) => {
                    if !map.next_value_seed(Off)? {
                        reader.complain(place, format!("`{name}`: {}", foreign.why));
                    }
                }
                Meaning::Key(key) => reader.leaf(key, place, &mut map)?,
                Meaning::None(why) => {
                    reader.complain(place, why);
                    map.next_value::<IgnoredAny>()?;
                }
                Meaning::Section => map.next_value_seed(Section { reader, path: name })?,
            }
        }
    }

    // What is no mapping is not repeated: it may be a secret under a wrong indentation.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom("is a section, so names belong below it"))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom("is a section, so names belong below it, and no list"))
    }
}

/// Whether a value is `false`, or nothing.
struct Off;

impl<'de> DeserializeSeed<'de> for Off {
    type Value = bool;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Off {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_bool<E>(self, on: bool) -> Result<bool, E> {
        Ok(!on)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(false)
    }
}

/// A mapping whose names are the user's.
struct Entries<'a> {
    reader: &'a Reader<'a>,
    key: &'static Key,
    place: Option<Place>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let entries: Option<Pairs> = de::Deserialize::deserialize(deserializer)?;
        let mut texts = BTreeMap::new();
        for (name, value) in entries.map(|pairs| pairs.0).unwrap_or_default() {
            if let Some(text) = self.reader.text(&format!("{}.{name}", self.key.name), value) {
                texts.insert(name, text);
            }
        }
        self.reader.found(self.key, self.place, Raw::Map(texts));
        Ok(())
    }
}

/// Names and scalars as they come; names that are there twice are an error of the YAML.
struct Pairs(Vec<(String, Scalar)>);

impl<'de> de::Deserialize<'de> for Pairs {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names and texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// A list of texts.
struct Items<'a> {
    reader: &'a Reader<'a>,
    key: &'static Key,
    place: Option<Place>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let items: Option<Vec<Scalar>> = de::Deserialize::deserialize(deserializer)?;
        let texts = items.into_iter().flatten().filter_map(|item| self.reader.text(self.key.name, item));
        let texts = texts.collect();
        self.reader.found(self.key, self.place, Raw::List(texts));
        Ok(())
    }
}

fn place(location: Location) -> Option<Place> {
    (location.line() > 0).then(|| Place { line: location.line(), column: location.column() })
}

/// What is wrong with the YAML, without its place, which stands before it.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.render();
    let text = text.split(" at line ").next().unwrap_or_default();
    match text {
        "expected string scalar" => "a single value belongs here".to_owned(),
        "expected sequence start" => "a list belongs here: write `[first, second]`".to_owned(),
        "expected mapping start" => "names and values belong below it".to_owned(),
        text if text.starts_with("multiple YAML documents") => "is followed by a second one".to_owned(),
        text => match text.strip_prefix("duplicate mapping key: ") {
            Some(rest) => {
                let name = rest.split(", set ").next().unwrap_or_default();
                format!("has `{name}` twice")
            }
            None => text.replace(['\n', '\r'], " "),
        },
    }
}
