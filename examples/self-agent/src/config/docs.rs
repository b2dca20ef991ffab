//! The table of keys for people, and the configuration in effect as a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Config;
use super::foreign::FOREIGN;
use super::keys::{KEYS, Key, Kind};
use super::secret::{Address, REDACTED};
use super::values::Raw;

/// A document in the order of the table.
#[derive(Serialize)]
#[serde(untagged)]
enum Node {
    Flag(bool),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    Number(u64),
    Real(f64),
    Section(Ordered),
    Text(String),
}

#[derive(Default)]
struct Ordered(Vec<(String, Node)>);

impl Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, node)| (name, node)))
    }
}

impl Ordered {
    fn insert(&mut self, path: &str, node: Node) {
        let Some((section, rest)) = path.split_once('.') else {
            self.0.push((path.to_owned(), node));
            return;
        };
        let at = self.0.iter().position(|(name, _)| name == section).unwrap_or_else(|| {
            self.0.push((section.to_owned(), Node::Section(Ordered::default())));
            self.0.len() - 1
        });
        if let Node::Section(inner) = &mut self.0[at].1 {
            inner.insert(rest, node);
        }
    }
}

impl Config {
    /// The configuration in effect as YAML: defaults included, secrets left out.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut document = Ordered::default();
        for key in KEYS {
            if let Some(raw) = self.values.raw(key.name) {
                document.insert(key.name, shown(key, raw));
            }
        }
        // Text in memory, and nothing in it that YAML cannot say.
        serde_saphyr::to_string(&document).unwrap_or_default()
    }
}

fn shown(key: &Key, raw: &Raw) -> Node {
    match raw {
        Raw::List(items) => Node::List(items.iter().map(|item| without_query(item)).collect()),
        Raw::Map(entries) if key.secret => {
            Node::Map(entries.keys().map(|name| (name.clone(), REDACTED.to_owned())).collect())
        }
        Raw::Map(entries) => Node::Map(entries.clone()),
        Raw::Text(text) => match key.kind {
            _ if key.secret && text != "none" => Node::Text(without_user(text)),
            Kind::Bool => Node::Flag(text == "true"),
            Kind::Bytes | Kind::Count => text.parse().map_or_else(|_| Node::Text(text.clone()), Node::Number),
            Kind::Factor => text.parse().map_or_else(|_| Node::Text(text.clone()), Node::Real),
            _ => Node::Text(without_query(text)),
        },
    }
}

/// Text as anybody may see it.
fn without_query(text: &str) -> String {
    if text.contains("://") { Address::from(text.to_owned()).to_string() } else { text.to_owned() }
}

/// The address of a proxy without the password in it.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{REDACTED}@{host}"),
        (None, Some((_, host))) => format!("{REDACTED}@{host}"),
        (_, None) => without_query(url),
    }
}

/// The keys in Markdown: those there are, and those that are refused. The README holds the same.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| key | value | default | remote | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let (remote, kind) = (if key.remote { "yes" } else { "" }, key.kind.describe());
        // Writing into a string does not fail.
        let _ = writeln!(text, "| `{}` | {kind} | {default} | {remote} | {} |", key.name, key.help);
    }
    text.push_str(
        "\nKeys of the supervisor that are refused unless they are `false`:\n\n| key | why |\n|---|---|\n",
    );
    for foreign in FOREIGN {
        let _ = writeln!(text, "| `{}` | {} |", foreign.name, foreign.why);
    }
    text
}
