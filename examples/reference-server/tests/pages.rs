//! What the pages say about the server, held against the server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

use http::StatusCode;

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The statuses that the rows between two headings or sentences of "What is refused" name.
fn named_between(start: &str, end: &str) -> BTreeSet<u16> {
    let from = OPERATIONS.find(start).unwrap_or_else(|| panic!("{start:?} is not in the page"));
    let text = &OPERATIONS[from..];
    let text = &text[..text.find(end).unwrap_or_else(|| panic!("{end:?} is not in the page"))];
    let answers = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let words = answers.flat_map(|answer| answer.split([' ', ',']));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Every source text below a directory, without its unit tests.
fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            found.push(text.split("#[cfg(test)]").next().unwrap().to_owned());
        }
    }
}

/// The words that follow `mark` in the sources.
fn after<'a>(sources: &'a [String], mark: &'a str) -> impl Iterator<Item = &'a str> {
    let rests = sources.iter().flat_map(move |text| text.split(mark).skip(1));
    rests.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap())
}

/// Statuses of 400 and above that the sources of the OpAMP port name, by constant or by number.
#[test]
fn every_status_the_opamp_port_refuses_with_is_in_the_operations_page() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../opamp-server/src"), &mut texts);
    let names: BTreeSet<_> = after(&texts, "StatusCode::").collect();
    let numbers = texts.iter().flat_map(|text| text.split(", RefusalReason::"));
    let numbers = numbers.filter_map(|before| before.rsplit(' ').next()?.parse().ok());
    let constant = |status: StatusCode| {
        status.canonical_reason().unwrap_or_default().to_uppercase().replace([' ', '-'], "_")
    };
    let by_name = (400..600).filter(|status| {
        *status != 500 && names.contains(constant(StatusCode::from_u16(*status).unwrap()).as_str())
    });
    let used: BTreeSet<u16> = by_name.chain(numbers.filter(|status| (400..600).contains(status))).collect();
    assert!(used.is_superset(&[401, 403, 413, 426, 503].into()), "the sources are not understood: {used:?}");
    let named = named_between("Before a WebSocket is open", "On an open WebSocket");
    assert_eq!(used.difference(&named).collect::<Vec<_>>(), Vec::<&u16>::new(), "not in the page");
}

#[test]
fn every_status_the_admin_port_refuses_with_is_in_the_operations_page() {
    let document = reference_server::openapi_document();
    let mut used = BTreeSet::from([404, 405]);
    for operations in document["paths"].as_object().unwrap().values() {
        for operation in operations.as_object().unwrap().values() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            used.extend(
                statuses.map(|status| status.parse::<u16>().unwrap()).filter(|status| *status >= 400),
            );
        }
    }
    assert!(used.len() > 8, "{used:?}");
    let named = named_between("On the admin port", "## Liveness");
    assert_eq!(used.difference(&named).collect::<Vec<_>>(), Vec::<&u16>::new(), "not in the page");
}
