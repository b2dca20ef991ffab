//! What is compiled without the simulator: building the whole workspace turns it on, and so shows nothing of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::fs;
use std::path::Path;

#[test]
fn tests_of_the_simulator_are_compiled_only_with_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse::<toml::Table>().unwrap();
    let needs_it = |name: &str| {
        let tests = manifest["test"].as_array().unwrap();
        tests.iter().any(|test| {
            test["name"].as_str() == Some(name)
                && test["required-features"].as_array().unwrap().contains(&"sim".into())
        })
    };
    let uses = ["opamp_testkit::sim", "opamp_fleet::"].map(|path| format!("use {path}"));
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if uses.iter().any(|line| text.contains(line)) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(needs_it(&name), "{name} needs required-features = [\"sim\"]");
            found.push(name);
        }
    }
    assert!(found.len() >= 2, "{found:?}");
}
