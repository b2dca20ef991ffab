//! The page about the protocol says what the code does: its tables are made from the constants the code runs on.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use opamp_proto::{AgentCapabilities, ServerCapabilities};
use opamp_server::capability::{Direction, IfAbsent, RULES, Rule};
use opamp_testkit::registry::{Registry, RowId};

/// Contradictions and gaps of the specification that are on record.
const AMBIGUITIES: usize = 22;

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md")
}

/// The page as it was when the first test asked: one of them may write it.
static PAGE: LazyLock<String> = LazyLock::new(|| fs::read_to_string(page_path()).unwrap());

fn registry() -> Registry {
    Registry::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("registry")).unwrap()
}

/// Every generated table by the name of its markers.
fn tables() -> [(&'static str, String); 3] {
    let agent = AgentCapabilities::ALL.iter().map(|&(bit, name)| (bit.bits(), name));
    let server = ServerCapabilities::ALL.iter().map(|&(bit, name)| (bit.bits(), name));
    [
        ("fields", fields()),
        ("agent-bits", bits(agent, |rule| rule.agent.bits())),
        ("server-bits", bits(server, |rule| rule.server.bits())),
    ]
}

fn fields() -> String {
    let mut out = String::from(
        "| field | sent by | bits of the agent | bits of the server | without them | requirements |\n|---|---|---|---|---|---|\n",
    );
    for rule in RULES {
        let (message, sender) = match rule.direction {
            Direction::AgentToServer => ("AgentToServer", "agent"),
            Direction::ServerToAgent => ("ServerToAgent", "server"),
        };
        let otherwise = match rule.if_absent {
            IfAbsent::Ignore => "the server leaves it out of what it processes",
            IfAbsent::Withhold => "not sent",
        };
        let agent: Vec<_> = rule.agent.names().collect();
        let server: Vec<_> = rule.server.names().collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{message}.{}` | {sender} | {} | {} | {otherwise} | {} |",
            rule.field,
            agent.join(", "),
            server.join(", "),
            rule.requirements
        );
    }
    out
}

fn bits(bits: impl Iterator<Item = (u64, &'static str)>, of: impl Fn(&Rule) -> u64) -> String {
    let mut out = String::from("| bit | name | gates |\n|---|---|---|\n");
    for (bit, name) in bits {
        let gated: Vec<_> =
            RULES.iter().filter(|rule| of(rule) & bit != 0).map(|rule| format!("`{}`", rule.field)).collect();
        let gated = if gated.is_empty() { "–".to_owned() } else { gated.join(", ") };
        let _ = writeln!(out, "| `{bit:#06x}` | {name} | {gated} |");
    }
    out
}

/// The page with its tables made anew.
fn renewed(page: &str) -> Result<String, String> {
    let mut page = page.to_owned();
    for (name, table) in tables() {
        let begin = format!("<!-- {name}: generated -->\n");
        let end = format!("<!-- {name}: end -->");
        let from = page.find(&begin).ok_or_else(|| format!("no marker {begin:?}"))? + begin.len();
        let to = page[from..].find(&end).ok_or_else(|| format!("no marker {end:?}"))? + from;
        page.replace_range(from..to, &format!("\n{table}\n"));
    }
    Ok(page)
}

/// Every id of the form `R-AREA-NN` in a text.
fn ids(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("R-")).map(str::to_owned).collect()
}

/// Lesson "a published capability table with wrong values": the published table is made of the constants.
#[test]
fn the_capability_tables_are_generated_from_the_rules() {
    let rendered = renewed(&PAGE).unwrap();
    if std::env::var_os("UPDATE_PROTOCOL").is_some() {
        fs::write(page_path(), &rendered).unwrap();
        return;
    }
    assert!(
        *PAGE == rendered,
        "docs/protocol.md is out of date; run: UPDATE_PROTOCOL=1 cargo test -p opamp-testkit --test protocol"
    );
}

#[test]
fn a_table_that_was_edited_by_hand_is_found() {
    let right = renewed(&PAGE).unwrap();
    let wrong = right.replacen("| `0x0002` |", "| `0x0003` |", 1);
    assert_ne!(wrong, right);
    assert_eq!(renewed(&wrong).unwrap(), right);
    assert!(renewed("no markers at all").is_err());
}

/// Each rule of the page names requirements that exist, and so do those the rules of the code name.
#[test]
fn every_requirement_that_is_named_exists() {
    let registry = registry();
    let mut named = ids(&PAGE);
    named.extend(RULES.iter().flat_map(|rule| ids(rule.requirements)));
    assert!(named.len() > 50, "{named:?}");
    for id in named {
        let row: RowId = id.parse().unwrap_or_else(|fault| panic!("{id} {fault}"));
        assert!(registry.row(row).is_some(), "{id} does not exist");
    }
}

#[test]
fn every_ambiguity_of_the_specification_has_its_reading() {
    let page = &*PAGE;
    for number in 1..=AMBIGUITIES {
        let row = format!("\n| A-{number:02} | ");
        assert_eq!(page.matches(&row).count(), 1, "A-{number:02}");
    }
    assert!(!page.contains(&format!("A-{:02}", AMBIGUITIES + 1)));
}
