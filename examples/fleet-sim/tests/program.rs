//! The program as it is called: what it prints and writes, and what it says of mistakes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn fleet_sim(words: &[&str]) -> Output {
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    Command::new(env!("CARGO_BIN_EXE_fleet-sim")).args(words).current_dir(plans).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn a_plan_is_answered_with_text_json_and_a_picture() {
    let (json, svg) = (scratch("total-fault.json"), scratch("total-fault.svg"));
    let files = [json.to_str().unwrap(), svg.to_str().unwrap()];
    let output = fleet_sim(&["total-fault.toml", "--json", files[0], "--svg", files[1]]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/total-fault.txt");
    assert_eq!(text(&output.stdout), fs::read_to_string(golden).unwrap());
    assert_eq!(text(&output.stderr), "", "progress is for terminals");
    let result: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(result["result"]["state"], "rolled-back");
    assert!(result["result"]["events_per_s"].as_u64().is_some_and(|events| events > 0));
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg "));
}

#[test]
fn flags_change_the_fleet_and_the_preview() {
    let output = fleet_sim(&["total-fault.toml", "--agents", "50", "--seed", "9", "--preview"]);
    let printed = text(&output.stdout);
    assert!(printed.contains("50 agents") && printed.contains("a total fault touches 3"), "{printed}");
}

#[test]
fn a_rollout_that_does_not_succeed_is_a_failure_only_if_it_has_to() {
    for (plan, words, code) in [
        ("total-fault.toml", &[][..], 0),
        ("total-fault.toml", &["--require-success"], 4),
        ("decided.toml", &["--require-success"], 0),
        ("canary.toml", &["--agents", "1000", "--require-success"], 4),
    ] {
        let words: Vec<&str> = [plan].into_iter().chain(words.iter().copied()).collect();
        let output = fleet_sim(&words);
        assert_eq!(output.status.code(), Some(code), "{words:?}\n{}", text(&output.stdout));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_the_run() {
    let nowhere = scratch("nowhere/out.svg");
    let output = fleet_sim(&["total-fault.toml", "--svg", nowhere.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_file_that_is_read_or_written_already_is_not_written() {
    let directory = scratch("overwrite");
    fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (plan, config, json) = (path("plan.toml"), path("v2.yaml"), path("result.json"));
    let text = "[fleet]\nagents = 5\n[rollout]\ntitle = \"v2\"\nfile = \"v2.yaml\"\n";
    fs::write(&plan, text).unwrap();
    fs::write(&config, "receivers: {}\n").unwrap();
    let around = path("../overwrite/plan.toml");
    let _ = fs::remove_file(&json);
    for (words, code, expected) in [
        (vec!["--json", &*plan], 2, "would overwrite the plan"),
        (vec!["--svg", &*around], 2, "would overwrite the plan"),
        (vec!["--json", &*json, "--svg", &*json], 2, "would overwrite --json"),
        (vec!["--json", &*config], 1, "would overwrite rollout.file"),
    ] {
        let words: Vec<&str> = [&*plan].into_iter().chain(words).collect();
        let output = fleet_sim(&words);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {told}");
        assert!(told.contains(expected), "{words:?}: {told}");
    }
    assert_eq!(fs::read_to_string(&plan).unwrap(), text);
    assert_eq!(fs::read_to_string(&config).unwrap(), "receivers: {}\n");
    assert!(!Path::new(&json).exists(), "nothing is begun");
}

#[test]
fn a_plan_that_is_refused_leaves_files_as_they_are() {
    let kept = scratch("kept.svg");
    fs::write(&kept, "of the last run").unwrap();
    let output = fleet_sim(&["total-fault.toml", "--agents", "0", "--svg", kept.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&kept).unwrap(), "of the last run");
}

#[test]
fn a_plan_can_come_from_standard_input() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_fleet-sim"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(b"[fleet]\nagents = 5\n[rollout]\ntitle = \"v2\"\n").unwrap();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output.stdout).starts_with("v2, planned at "));
}

#[test]
fn whoever_reads_only_the_beginning_is_no_failure() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_fleet-sim"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/total-fault.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(program.stdout.take());
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn mistakes_are_told_in_one_message_and_with_the_file() {
    let (wrong, nowhere) = (scratch("wrong.toml"), scratch("nowhere/out.json"));
    fs::write(&wrong, "[fleet]\nagents = 5\n[rollout]\ntitle = \"v2\"\nbake = \"30 minutes\"\n").unwrap();
    let (wrong, nowhere) = (wrong.to_str().unwrap(), nowhere.to_str().unwrap());
    for (words, code, expected) in [
        (vec!["nowhere.toml"], 1, "fleet-sim: nowhere.toml: "),
        (vec![wrong], 1, "is no length of time such as `90 s` or `10 min`"),
        (
            vec!["total-fault.toml", "--agents", "0"],
            1,
            "fleet-sim: fleet.agents: 1 to 4,000,000 agents, not 0",
        ),
        (vec!["total-fault.toml", "--json", nowhere], 1, nowhere),
        (vec!["total-fault.toml", "--agents", "many"], 2, "invalid value 'many'"),
        (vec![], 2, "Usage: fleet-sim"),
    ] {
        let output = fleet_sim(&words);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {told}");
        assert!(told.contains(expected), "{words:?}: {told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}
