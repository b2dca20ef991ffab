//! The conformance suite, run by every implementation in this crate.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::sync::Arc;

use futures::future::BoxFuture;
use opamp_store::conformance::Location;
use opamp_store::{MemoryStore, SqliteOptions, SqliteStore, Store};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

use self::common::SqliteFile;

mod memory {
    use super::*;
    opamp_store::conformance_suite!(MemoryStore::new());
}

mod sqlite {
    use super::*;
    opamp_store::conformance_suite!(SqliteFile::new());
}

/// A store in a database of the application, with a pool of two connections.
struct SharedPool(SqliteFile);

impl Location for SharedPool {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async {
            let connect = SqliteConnectOptions::new().filename(self.0.path()).create_if_missing(true);
            let pool = SqlitePoolOptions::new().max_connections(2);
            let pool = pool.connect_with(connect.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
            Arc::new(SqliteStore::from_pool(pool, SqliteOptions::default()).await.unwrap()) as Arc<dyn Store>
        })
    }
}

mod sqlite_from_pool {
    use super::*;
    opamp_store::conformance_suite!(SharedPool(SqliteFile::new()));
}

/// The names in backticks at the end of the numbered clauses of the trait documentation.
fn clauses_of_the_documentation() -> Vec<String> {
    let traits = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/traits.rs")).unwrap();
    let mut clauses = Vec::new();
    let mut open = false;
    for line in traits.lines().map(str::trim) {
        let Some(text) = line.strip_prefix("/// ") else { continue };
        let numbered = text.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        assert!(!(numbered && open), "the clause before {text:?} names no test");
        open |= numbered;
        if open
            && let Some(rest) = text.strip_suffix('`')
            && let Some((_, name)) = rest.rsplit_once('`')
        {
            clauses.push(name.to_owned());
            open = false;
        }
    }
    assert!(!open, "the last clause names no test");
    clauses.sort();
    clauses
}

/// The names the macro expands to.
fn clauses_of_the_suite() -> Vec<String> {
    let suite = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/conformance/mod.rs")).unwrap();
    let (_, list) = suite.split_once("@clauses $location;").unwrap();
    let (list, _) = list.split_once('}').unwrap();
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let mut clauses: Vec<_> = lines.map(str::to_owned).collect();
    clauses.sort();
    clauses
}

#[test]
fn every_documented_clause_has_its_test_and_every_test_its_clause() {
    let clauses = clauses_of_the_documentation();
    assert!(clauses.len() > 50, "{clauses:?}");
    assert_eq!(clauses, clauses_of_the_suite());
}
