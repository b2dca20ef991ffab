//! A server that does wrong is reported, with the right number; and so is a command line that does.

#![allow(clippy::unwrap_used, reason = "what a test needs is there, or the test fails")]

mod support;

use support::{
    crooked::{Crooked, Fault},
    load, program,
};

const PHASES: [&str; 2] = ["connect:agents=20,rate=2000", "heartbeat:rate=2000,secs=500ms"];
const SOON: [&str; 2] = ["--answer-timeout-ms", "300"];

/// Puts load on a server with a fault and returns how often that was reported, and how often the server did it.
fn reported(fault: Fault, phases: &[&str], name: &str) -> (u64, u64) {
    let server = Crooked::start(fault);
    let lines = load(&format!("ws://{}", server.address), phases, &SOON);
    let failures = &lines[phases.len() - 1].failures;
    assert_eq!(failures.total(), failures.count(name), "{}", failures.text());
    (failures.count(name), server.done())
}

#[test]
fn every_lost_answer_is_a_failure() {
    let (reported, done) = reported(Fault::Loses(70), &PHASES, "answers_lost");
    assert!(done > 0);
    assert_eq!(reported, done);
}

#[test]
fn lost_answers_are_failures_of_saturated_load_too() {
    let phases = ["connect:agents=20,rate=2000", "heartbeat:saturated,active=20,secs=500ms"];
    let (reported, done) = reported(Fault::Loses(70), &phases, "answers_lost");
    assert!(done > 0);
    assert_eq!(reported, done);
}

#[test]
fn lost_answers_are_failures_of_the_steady_state_too() {
    let phases = ["connect:agents=90,rate=2000", "hold:secs=800ms,heartbeat=200ms"];
    let (reported, done) = reported(Fault::Loses(70), &phases, "answers_lost");
    assert!(done > 0);
    assert_eq!(reported, done);
}

#[test]
fn an_answer_for_somebody_else_is_a_failure_and_no_answer() {
    let server = Crooked::start(Fault::Mistakes(70));
    let lines = load(&format!("ws://{}", server.address), &PHASES, &SOON);
    let failures = &lines[1].failures;
    assert!(server.done() > 0);
    assert_eq!(failures.count("wrong_uid"), server.done());
    assert_eq!(failures.count("answers_lost"), server.done());
}

#[test]
fn bytes_that_are_no_message_are_a_failure() {
    let server = Crooked::start(Fault::Garbles(70));
    let lines = load(&format!("ws://{}", server.address), &PHASES, &SOON);
    assert!(server.done() > 0);
    assert_eq!(lines[1].failures.count("malformed"), server.done());
}

#[test]
fn an_error_in_the_answer_is_a_failure() {
    let (reported, done) = reported(Fault::BadRequest(70), &PHASES, "bad_request");
    assert!(done > 0);
    assert_eq!(reported, done);
}

#[test]
fn a_connection_that_the_server_closes_is_a_failure_and_so_is_its_answer() {
    let server = Crooked::start(Fault::Closes(200));
    let lines = load(&format!("ws://{}", server.address), &PHASES, &SOON);
    assert!(server.done() > 0);
    let failures = &lines[1].failures;
    assert_eq!(failures.count("answers_lost"), server.done());
    assert_eq!(failures.count("closed") + failures.count("connection_reset"), server.done());
    assert_eq!(lines[1].agents, 20 - server.done());
}

#[test]
fn being_sent_away_with_a_time_to_come_back_is_no_failure_when_all_get_in() {
    for status in [503, 429] {
        let server = Crooked::start(Fault::Refuses(7, status));
        let lines = load(&format!("ws://{}", server.address), &PHASES[..1], &[]);
        support::assert_good(&lines);
        assert_eq!(lines[0].agents, 20);
        assert_eq!(lines[0].counts.count(&format!("refused_{status}")), 7);
    }
}

#[test]
fn being_refused_for_good_is_a_failure() {
    let server = Crooked::start(Fault::Refuses(3, 401));
    let lines = load(&format!("ws://{}", server.address), &PHASES[..1], &[]);
    assert_eq!(lines[0].failures.count("status_401"), 3);
}

#[test]
fn with_strict_failures_are_the_status_of_the_program() {
    let server = Crooked::start(Fault::BadRequest(50));
    let target = format!("ws://{}", server.address);
    let mut words = vec!["run", "--target", &target, "--strict"];
    for phase in PHASES {
        words.extend(["--phase", phase]);
    }
    let output = program(&words);
    assert_eq!(output.status.code(), Some(2));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("FAILURES in heartbeat 2000/s: bad_request"), "{table}");
}

#[test]
fn a_config_that_nobody_is_offered_is_not_applied() {
    let server = Crooked::start(Fault::Loses(1_000_000));
    let control = support::ours::Ours::start();
    let phases = ["connect:agents=20", "push:100,within=300ms"];
    let lines = load(&format!("ws://{}", server.address), &phases, &["--control", &control.control]);
    assert_eq!(lines[1].failures.count("not_applied"), 20);
    assert_eq!(lines[1].failures.count("not_told"), 20);
}

#[test]
fn a_wrong_command_line_says_what_to_do() {
    let target = ["--target", "ws://127.0.0.1:9"];
    let connect = ["--phase", "connect:agents=5"];
    let cases: [(&[&[&str]], &str); 8] = [
        (&[&connect], "add --target ws://127.0.0.1:4320/v1/opamp"),
        (&[&target], "such as --phase connect:agents=1000"),
        (&[&target, &["--phase", "idle"]], "first phase has to be connect:agents=N"),
        (&[&target, &["--phase", "conect:agents=5"]], "there is no phase `conect`"),
        (&[&target, &connect, &["--phase", "push:4096"]], "add --control"),
        (&[&target, &connect, &["--pid", "4294967295"]], "--pid"),
        (&[&["--target", "ws://192.0.2.1:4320"], &connect], "--allow-remote"),
        (
            &[&target, &["--phase", "connect:agents=50000"], &["--workers", "2"]],
            "leave --workers out or give 3",
        ),
    ];
    for (words, says) in cases {
        let words: Vec<&str> = std::iter::once("run").chain(words.concat()).collect();
        let output = program(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{words:?}: {said}");
    }
}

#[test]
fn wss_without_an_authority_says_so() {
    let output = program(&["run", "--target", "wss://127.0.0.1:9", "--phase", "connect:agents=1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--ca FILE"), "{said}");
}

#[test]
fn a_plan_is_read_from_a_file_and_its_mistakes_are_named() {
    let path = support::unique("plan.toml");
    let server = Crooked::start(Fault::Loses(1_000_000));
    let plan = format!("target = ['ws://{}']\nphases = ['connect:agents=3']\n", server.address);
    std::fs::write(&path, plan).unwrap();
    let output = program(&["run", "--plan", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("connect 3 none"));
    std::fs::write(&path, "phase = ['idle']\n").unwrap();
    let output = program(&["run", "--plan", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("phase") && said.contains("plan.toml"), "{said}");
}
