//! The requirement registry is complete, honest and rendered.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use opamp_testkit::registry::{
    AREAS, Area, Lessons, ROWS, Registry, RegistryError, Workspace, to_markdown, violations,
};

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

fn root() -> PathBuf {
    Path::new(MANIFEST).join("..")
}

/// What was parsed once serves every test.
fn workspace() -> MutexGuard<'static, Workspace> {
    static WORKSPACE: LazyLock<Mutex<Workspace>> =
        LazyLock::new(|| Mutex::new(Workspace::at(&root()).unwrap()));
    WORKSPACE.lock().unwrap_or_else(PoisonError::into_inner)
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
fn a_row_that_is_open_is_found_on_either_side_and_at_every_level() {
    for (level, side) in
        [("MUST", "server"), ("MUST NOT", "client"), ("SHOULD", "server"), ("prose (may)", "client")]
    {
        let row = ROW.replace("\"server\"", &format!("{side:?}")).replace("\"MUST\"", &format!("{level:?}"));
        let altered = with_auth(|text| format!("{text}{row}state = \"open\"\n")).unwrap();
        let found = violations(&altered, &workspace());
        assert!(found.contains(&format!("R-AUTH-05: {level} of the {side} and still open")), "{found:?}");
    }
}

#[test]
fn only_what_speaks_of_credentials_waits_for_enrolment() {
    let about = |name: &str, id: &str| -> Vec<String> {
        let row = ROW.replace("R-AUTH-05", id);
        let deferred = format!("{row}state = \"deferred\"\ntopic = \"enrolment\"\n");
        let altered = with(name, |text| text + &deferred).unwrap();
        let found = violations(&altered, &workspace());
        found.into_iter().filter(|line| line.starts_with(id) && line.contains("put off")).collect()
    };
    assert_eq!(about("PKG", "R-PKG-54").len(), 1);
    assert_eq!(about("AUTH", "R-AUTH-05").len(), 1);
    assert_eq!(about("CRED", "R-CRED-12"), [""; 0]);
    let areas: Vec<_> = AREAS.iter().filter(|area| area.enrolment).map(|area| area.name).collect();
    assert_eq!(areas, ["CONN", "TLS", "CRED", "CSR"]);
}

#[test]
fn a_row_is_deferred_to_one_of_three_topics() {
    for (topic, is_one) in [
        ("enrolment", true),
        ("several replicas", true),
        ("user interface", true),
        ("whole protocol", false),
        ("load and admission", false),
        ("rollouts", false),
        ("some day", false),
    ] {
        let tail = format!("state = \"deferred\"\ntopic = {topic:?}\n");
        assert_eq!(with_auth(|text| format!("{text}{ROW}{tail}")).is_ok(), is_one, "{topic}");
    }
}

#[test]
fn every_lesson_has_tests_that_exist() {
    let found = lessons().violations(&workspace());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_lesson_that_nothing_rules_out_and_an_invented_test_of_one_are_found() {
    let lesson = "[[lesson]]\nseen = \"x\"\nrule = \"y\"\n";
    let found = Lessons::parse(lesson).unwrap().violations(&workspace());
    assert!(found.iter().any(|line| line.contains("no test rules it out")), "{found:?}");
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
        "state = \"open\"\ntopic = \"enrolment\"\n",
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
