//! The requirement registry is complete, honest and rendered.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::fs;
use std::path::{Path, PathBuf};

use opamp_testkit::registry::{
    AREAS, Area, Lessons, PUT_OFF, ROWS, Registry, RegistryError, Workspace, to_markdown, violations,
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

fn lessons() -> Lessons {
    Lessons::read(&Path::new(MANIFEST).join("registry")).unwrap()
}

/// A registry whose area `AUTH` was altered.
fn with_auth(alter: impl FnOnce(String) -> String) -> Result<Registry, RegistryError> {
    with("AUTH", alter)
}

/// A registry of which one area was altered.
fn with(name: &str, alter: impl FnOnce(String) -> String) -> Result<Registry, RegistryError> {
    let mut altered = Registry::default();
    for area in &AREAS {
        let path = Path::new(MANIFEST).join(format!("registry/{}.toml", area.name.to_lowercase()));
        let text = fs::read_to_string(path).unwrap();
        if area.name != name {
            altered.add(area, &text)?;
        }
    }
    let path = Path::new(MANIFEST).join(format!("registry/{}.toml", name.to_lowercase()));
    altered.add(Area::named(name).unwrap(), &alter(fs::read_to_string(path).unwrap()))?;
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
    let rendered = to_markdown(&registry(), &lessons());
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
fn a_must_that_is_open_or_put_off_is_found_on_either_side_where_it_is_due() {
    for (side, tail, complaint) in [
        ("server", "state = \"open\"\n", "MUST of the server and still open"),
        ("client", "state = \"open\"\n", "MUST of the client and still open"),
        (
            "server",
            "state = \"deferred\"\ntopic = \"whole protocol\"\n",
            "MUST of the server and put off to WholeProtocol",
        ),
        (
            "client",
            "state = \"deferred\"\ntopic = \"rollouts\"\n",
            "MUST of the client and put off to Rollouts",
        ),
    ] {
        let row = ROW.replace("\"server\"", &format!("{side:?}"));
        let altered = with_auth(|text| format!("{text}{row}{tail}")).unwrap();
        let found = violations(&altered, &workspace());
        assert!(found.contains(&format!("R-AUTH-05: {complaint}")), "{found:?}");
    }
    let row = ROW.replace("AUTH", "OWN").replace("-05", "-15");
    let altered = with("OWN", |text| format!("{text}{row}state = \"open\"\n")).unwrap();
    let found = violations(&altered, &workspace());
    assert!(found.iter().all(|line| !line.contains("still open")), "not due yet: {found:?}");
}

#[test]
fn what_is_put_off_is_put_off_to_the_rest_of_the_protocol_and_to_nothing_else() {
    let of_cap = |registry: &Registry| -> Vec<String> {
        let found = violations(registry, &workspace());
        found.into_iter().filter(|line| line.starts_with("R-CAP-")).collect()
    };
    let deferral = "state = \"deferred\"\ntopic = \"whole protocol\"";
    for replacement in ["state = \"open\"", "state = \"deferred\"\ntopic = \"rollouts\""] {
        let altered = with("CAP", |text| text.replace(deferral, replacement)).unwrap();
        let found = of_cap(&altered);
        assert_eq!(found.len(), PUT_OFF.len(), "{found:?}");
    }
    let proven = "state = \"proven\"\ntests = [\"opamp-testkit::tests/registry.rs::a_missing_row_is_found\"]";
    let altered = with("CAP", |text| text.replace(deferral, proven)).unwrap();
    let found = of_cap(&altered);
    assert_eq!(found.len(), PUT_OFF.len(), "what is done leaves the list: {found:?}");
}

#[test]
fn every_lesson_has_tests_that_exist_or_the_topic_that_brings_them() {
    let found = lessons().violations(&workspace());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_lesson_that_proves_nothing_is_refused_and_an_invented_test_of_one_is_found() {
    let lesson = "[[lesson]]\nseen = \"x\"\nrule = \"y\"\n";
    assert!(Lessons::parse(lesson).is_err());
    assert!(Lessons::parse(&format!("{lesson}later = \"some day\"\n")).is_err());
    let invented = Lessons::parse(&format!("{lesson}tests = [\"opamp-testkit::tests/registry.rs::x\"]\n"));
    let found = invented.unwrap().violations(&workspace());
    assert!(found.iter().any(|line| line.contains("no test function x")), "{found:?}");
    assert!(found.iter().any(|line| line.contains("there are 1 lessons")), "{found:?}");
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
