//! What `cargo xtask load` starts does not outlive it.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn an_attended_program_is_ended_when_whoever_started_it_is_gone() {
    let mut attendant = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["attend", "sleep", "600"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(attendant.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().strip_prefix("attended process ").unwrap();
    let process = format!("/proc/{pid}");
    assert!(Path::new(&process).exists());
    drop(attendant.stdin.take());
    assert!(attendant.wait().unwrap().success());
    assert!(!Path::new(&process).exists());
}

#[test]
fn the_end_of_an_attended_program_is_passed_on() {
    for (program, succeeds) in [("true", true), ("false", false)] {
        let mut attendant = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["attend", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Waiting would close it.
        let pipe = attendant.stdin.take();
        let status = attendant.wait().unwrap();
        drop(pipe);
        assert_eq!(status.success(), succeeds, "{program}");
    }
}

#[test]
fn a_program_that_looks_at_its_stdin_ends_also_with_an_attendant_that_is_killed() {
    let mut attendant = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["attend", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(attendant.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    attendant.kill().unwrap();
    // The program has the same one: it ends when both are gone.
    assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
    attendant.wait().unwrap();
}
