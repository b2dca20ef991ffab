//! Servers on loopback ports, and the load program as a user starts it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    dead_code,
    reason = "support of several tests"
)]

pub mod crooked;
pub mod ours;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use fleet_load::report::Line;

/// A name that nothing else in this run of tests has.
pub fn unique(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fleet-load");
    fs::create_dir_all(&directory).unwrap();
    directory.join(format!("{}-{number}-{name}", std::process::id()))
}

/// Starts the program with these words.
pub fn program(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet-load")).args(words).output().unwrap()
}

/// Runs phases and returns their lines; the run itself has to go through.
pub fn load(target: &str, phases: &[&str], more: &[&str]) -> Vec<Line> {
    let json = unique("lines.jsonl");
    let mut words = vec!["run", "--target", target, "--json", json.to_str().unwrap()];
    for phase in phases {
        words.extend(["--phase", phase]);
    }
    words.extend(more);
    let output = program(&words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    let text = fs::read_to_string(&json).unwrap();
    fs::remove_file(&json).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), phases.len(), "{said}");
    lines
}

/// No line has a failure.
#[track_caller]
pub fn assert_good(lines: &[Line]) {
    for line in lines {
        assert!(line.failures.is_empty(), "{}: {}", line.phase, line.failures.text());
    }
}

/// Messages that agents say they have sent and had answered.
pub fn messages(lines: &[Line]) -> u64 {
    lines.iter().map(|line| line.messages + line.counts.count("full_state_asked")).sum()
}
