//! The requirement registry is complete, honest and rendered.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::fs;
use std::path::{Path, PathBuf};

use opamp_testkit::registry::{
    AREAS, Area, ROWS, Registry, RegistryError, Workspace, to_markdown, violations,
};

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

fn root() -> PathBuf {
    Path::new(MANIFEST).join("..")
}

fn workspace() -> Workspace {
    Workspace::at(&root()).unwrap()
}

fn registry() -> Registry {
    Registry::read(&Path::new(MANIFEST).join("registry")).unwrap()
}

/// A registry whose area `AUTH` was altered.
fn with_auth(alter: impl FnOnce(String) -> String) -> Result<Registry, RegistryError> {
    let mut altered = Registry::default();
    for area in &AREAS {
        let path = Path::new(MANIFEST).join(format!("registry/{}.toml", area.name.to_lowercase()));
        let text = fs::read_to_string(path).unwrap();
        if area.name != "AUTH" {
            altered.add(area, &text)?;
        }
    }
    let text = fs::read_to_string(Path::new(MANIFEST).join("registry/auth.toml")).unwrap();
    altered.add(Area::named("AUTH").unwrap(), &alter(text))?;
    Ok(altered)
}

#[test]
fn every_requirement_has_a_row_and_every_claim_a_test() {
    let found = violations(&registry(), &workspace());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_list_has_479_requirements() {
    assert_eq!(AREAS.iter().map(|area| area.rows).sum::<usize>(), ROWS);
    assert_eq!(registry().len(), ROWS);
    for area in &AREAS {
        assert_eq!(area.by_keyword.iter().sum::<usize>(), area.rows, "{}", area.name);
        assert_eq!(area.by_stability.iter().sum::<usize>(), area.rows, "{}", area.name);
    }
}

#[test]
fn the_conformance_page_is_generated_from_the_registry() {
    let path = root().join("docs/conformance.md");
    let rendered = to_markdown(&registry());
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        fs::create_dir_all(root().join("docs")).unwrap();
        fs::write(&path, &rendered).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == rendered,
        "docs/conformance.md is out of date; run: UPDATE_CONFORMANCE=1 cargo test -p opamp-testkit --test registry"
    );
}

const ROW: &str = "\n[R-AUTH-05]\nlevel = \"MUST\"\nside = \"server\"\nstability = \"beta\"\ntext = \"x\"\n";

#[test]
fn a_missing_row_is_found() {
    let altered = with_auth(|text| text.replace("[R-AUTH-03]", "[R-AUTH-05]")).unwrap();
    let found = violations(&altered, &workspace());
    assert!(found.contains(&"R-AUTH-03: the row is missing".to_owned()), "{found:?}");
    assert!(found.contains(&"R-AUTH-05: there is no such requirement".to_owned()), "{found:?}");
}

#[test]
fn an_altered_level_is_found() {
    let altered = with_auth(|text| text.replace("level = \"MUST\"", "level = \"MAY\"")).unwrap();
    let found = violations(&altered, &workspace());
    assert!(found.iter().any(|line| line.starts_with("area AUTH: rows by keyword")), "{found:?}");
}

#[test]
fn an_invented_test_is_found() {
    for (path, complaint) in [
        ("opamp-nothing::src/lib.rs::x", "no package opamp-nothing"),
        ("opamp-testkit::tests/nothing.rs::x", "nothing.rs"),
        ("opamp-testkit::tests/registry.rs::workspace", "no test function workspace"),
    ] {
        let row = format!("{ROW}state = \"proven\"\ntests = [\"{path}\"]\n");
        let altered = with_auth(|text| text + &row).unwrap();
        let found = violations(&altered, &workspace());
        assert!(found.iter().any(|line| line.contains(complaint)), "{path}: {found:?}");
    }
}

#[test]
fn an_open_must_of_the_server_is_found_where_it_is_due() {
    let altered = with_auth(|text| format!("{text}{ROW}state = \"open\"\n")).unwrap();
    let found = violations(&altered, &workspace());
    assert!(found.contains(&"R-AUTH-05: MUST and still open".to_owned()), "{found:?}");
}

#[test]
fn a_row_that_contradicts_itself_is_refused() {
    for tail in [
        "",
        "state = \"done\"\n",
        "state = \"proven\"\n",
        "state = \"proven\"\ntests = []\n",
        "state = \"deferred\"\n",
        "state = \"deferred\"\ntopic = \"some day\"\n",
        "state = \"not-applicable\"\n",
        "state = \"not-applicable\"\nwhy = \"\"\n",
        "state = \"open\"\ntopic = \"rollouts\"\n",
        "server = { state = \"open\" }\nclient = { state = \"open\" }\n",
    ] {
        assert!(with_auth(|text| format!("{text}{ROW}{tail}")).is_err(), "accepted: {tail}");
    }
    assert!(with_auth(|text| text.replace("[R-AUTH-03]", "[R-AUTH-02]")).is_err(), "the same id twice");
    assert!(with_auth(|text| text.replace("[R-AUTH-03]", "[R-ERR-09]")).is_err(), "a row of another area");
    assert!(
        with_auth(|text| text.replace("client = {", "# client = {")).is_err(),
        "one side without a state"
    );
}
