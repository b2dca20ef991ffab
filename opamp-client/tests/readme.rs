//! The README shows the agent that the crate's documentation compiles.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[test]
fn the_agent_in_the_readme_is_the_one_that_compiles_and_has_at_most_25_lines() {
    let readme = include_str!("../../README.md");
    let section = readme.split("## Write an agent").nth(1).unwrap();
    let shown = section.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    let documented: String = include_str!("../src/lib.rs")
        .lines()
        .skip_while(|line| !line.starts_with("//! use opamp_client"))
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!").strip_prefix(' ').unwrap_or("")))
        .collect();
    assert_eq!(shown, documented);
    assert!(shown.lines().count() <= 25, "{} lines", shown.lines().count());
}
