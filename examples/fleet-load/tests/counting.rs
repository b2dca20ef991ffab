//! What the load program says is what the server counted: nothing lost, nothing invented.

#![allow(clippy::unwrap_used, reason = "what a test needs is there, or the test fails")]

mod support;

use std::{thread, time::Duration};

use fleet_load::floor::{Floor, Options};
use opamp_testkit::certs::Authority;
use support::{assert_good, load, messages, ours::Ours};

const PHASES: [&str; 8] = [
    "connect:agents=40,rate=2000,state=10k",
    "heartbeat:saturated,active=16,secs=200ms",
    "status:2k,rate=400,secs=200ms",
    "status:10k,saturated,active=40,secs=200ms",
    "push:4096,within=20",
    "reconnect:within=100ms",
    "churn:rate=100,secs=200ms",
    "hold:secs=400ms,heartbeat=200ms",
];

#[track_caller]
fn counted_by_both(server: &Ours, target: &str, more: &[&str]) {
    let mut words = vec!["--control", &server.control];
    words.extend(more);
    let lines = load(target, &PHASES, &words);
    assert_good(&lines);
    for line in &lines {
        assert_eq!(line.agents, 40, "{}", line.phase);
        assert!(line.messages > 0, "{}", line.phase);
    }
    assert_eq!(lines[4].messages, 40);
    assert_eq!(lines[4].counts.count("told"), 40);
    assert_eq!(server.handle.agents().len(), 40);
    assert_eq!(server.applied(4_096), 40);
    let stats = server.handle.stats();
    assert_eq!(stats.frames_received, messages(&lines));
    assert_eq!(stats.frames_rejected.iter().sum::<u64>(), 0);
}

#[test]
fn over_websocket_every_message_and_every_applied_config_is_counted_by_both_sides() {
    let server = Ours::start();
    counted_by_both(&server, &format!("ws://{}", server.address), &[]);
}

#[test]
fn several_workers_report_as_one() {
    let server = Ours::start();
    counted_by_both(&server, &format!("ws://{}", server.address), &["--workers", "3"]);
}

#[test]
fn over_tls_every_message_and_every_applied_config_is_counted_by_both_sides() {
    let server = Ours::with_tls();
    let ca = server.ca.clone().unwrap();
    counted_by_both(&server, &format!("wss://{}", server.address), &["--ca", ca.to_str().unwrap()]);
}

#[track_caller]
fn polls_lose_nothing(server: &Ours, target: &str, more: &[&str]) {
    let mut words = vec!["--control", &server.control];
    words.extend(more);
    let phases = ["connect:agents=30,state=10k", "heartbeat:saturated,secs=200ms", "push:4096,within=3"];
    let lines = load(target, &phases, &words);
    assert_good(&lines);
    assert_eq!((lines[2].agents, lines[2].messages), (30, 30));
    assert_eq!(server.applied(4_096), 30);
    assert_eq!(server.handle.stats().http_requests, server.handle.stats().frames_received);
}

#[test]
fn agents_that_poll_get_their_config_and_lose_nothing() {
    let server = Ours::start();
    polls_lose_nothing(&server, &format!("http://{}", server.address), &[]);
}

#[test]
fn agents_that_poll_over_tls_get_their_config_and_lose_nothing() {
    let server = Ours::with_tls();
    let ca = server.ca.clone().unwrap();
    polls_lose_nothing(&server, &format!("https://{}", server.address), &["--ca", ca.to_str().unwrap()]);
}

#[test]
fn large_configs_arrive_whole_in_fragments() {
    let server = Ours::start();
    let phases = ["connect:agents=5", "push:1MiB,within=20"];
    let lines = load(&format!("ws://{}", server.address), &phases, &["--control", &server.control]);
    assert_good(&lines);
    assert_eq!((lines[1].messages, server.applied(1 << 20)), (5, 5));
}

#[test]
fn peers_that_announce_and_stop_are_let_go_and_come_back() {
    let server = Ours::start();
    let phases = [
        "connect:agents=20",
        "slow:percent=10",
        "halfopen:percent=50",
        "halfopen:percent=100,upgraded",
        "announce:bytes=1MiB,secs=200ms",
        "slow:percent=0",
        "reconnect:within=100ms",
    ];
    let lines = load(&format!("ws://{}", server.address), &phases, &[]);
    assert_good(&lines);
    assert_eq!((lines[1].counts.count("slow"), lines[1].agents), (2, 18));
    assert_eq!(lines[2].counts.count("half_open"), 10);
    assert_eq!(lines[3].counts.count("half_open"), 20);
    // Those that take nothing announce nothing either.
    assert_eq!(lines[4].messages, 18);
    assert_eq!(lines[6].agents, 20);
    // Those that are to be slow come back for that.
    assert_eq!(server.handle.stats().websocket_opened, 20 + 2 + 20 + 20);
}

fn floor(tls: bool) -> (String, String, Option<String>) {
    let mut options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        control: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        reply_bytes: 24,
    };
    let mut ca = None;
    if tls {
        let authority = Authority::new("floor");
        let identity = authority.server(&["127.0.0.1"]);
        let (cert, key, root) =
            (support::unique("cert.pem"), support::unique("key.pem"), support::unique("root.pem"));
        std::fs::write(&cert, identity.cert_pem).unwrap();
        std::fs::write(&key, identity.key_pem).unwrap();
        std::fs::write(&root, authority.pem()).unwrap();
        ca = Some(root.to_str().unwrap().to_owned());
        options.tls = Some((cert, key));
    }
    let floor = Floor::new(&options).unwrap();
    let (address, control) = (floor.address().unwrap(), floor.control());
    thread::spawn(move || floor.serve().unwrap());
    let scheme = if tls { "wss" } else { "ws" };
    (format!("{scheme}://{address}"), format!("plain+http://{control}"), ca)
}

#[test]
fn the_floor_answers_everything_and_pushes_to_everyone() {
    let (target, control, _) = floor(false);
    let lines = load(&target, &PHASES, &["--control", &control]);
    assert_good(&lines);
    assert_eq!(lines[4].messages, 40);
}

#[test]
fn the_floor_does_so_over_tls_also_for_what_fills_many_records() {
    let (target, control, ca) = floor(true);
    let phases = ["connect:agents=10,state=10k", "status:10k,saturated,secs=200ms", "push:300KiB,within=20"];
    let lines = load(&target, &phases, &["--control", &control, "--ca", &ca.unwrap()]);
    assert_good(&lines);
    assert_eq!(lines[2].messages, 10);
}

#[test]
fn memory_and_cpu_time_of_the_server_are_in_the_report() {
    let server = Ours::start();
    let pid = std::process::id().to_string();
    let phases = ["connect:agents=10,state=10k", "heartbeat:saturated,secs=200ms"];
    let lines = load(&format!("ws://{}", server.address), &phases, &["--pid", &pid]);
    for line in &lines {
        assert!(line.rss_bytes.unwrap() > 1_000_000 && line.server_cpu_s.unwrap() > 0.0, "{line:?}");
        assert!(line.cpu_us_per_unit.unwrap() > 0.0);
        let latency = line.latency_us.unwrap();
        assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{latency:?}");
        assert!(Duration::from_secs_f64(line.seconds) > Duration::ZERO);
    }
    assert_eq!(lines[1].latency_us.unwrap().count, lines[1].messages);
}
