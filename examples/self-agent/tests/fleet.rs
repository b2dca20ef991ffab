//! The agent as a process, against the real fleet server, over both transports.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[macro_use]
mod support;

use opamp_proto::pb::RemoteConfigStatuses::{Applied, Failed};
use opamp_proto::{AgentCapabilities, InstanceUid};
use opamp_server::{AgentSnapshot, DisconnectReason, Liveness};
use opamp_testkit::proxy::{Direction, Forwarder};
use support::{
    Process, TempDir, TestServer, attribute, config_status, description, effective, health, url, yaml,
};

const DESCRIBED: &str = "\
agent:
  description:
    identifying_attributes:
      service.name: com.example.edge
      service.version: 1.10
    non_identifying_attributes:
      team: blue
";

const REMOTE: &str = "\
telemetry:
  logs:
    level: debug
agent:
  description:
    non_identifying_attributes:
      ring: canary
      team: green
health:
  interval: 150ms
";

async fn start(server: &TestServer, scheme: &str) -> (TempDir, Process) {
    let directory = TempDir::new();
    directory.write("agent.yaml", &yaml(&server.url(scheme), "", DESCRIBED));
    let process = Process::start(&directory);
    (directory, process)
}

fn applied(agent: &AgentSnapshot) -> bool {
    config_status(agent).0 == Applied
}

on_both_transports! {
    async fn a_server_sees_who_the_agent_is_how_it_is_and_what_it_runs(scheme) {
        let server = TestServer::start().await;
        let (_directory, mut process) = start(&server, scheme).await;
        let uid = process.uid().await;
        let seen = server.sees(uid, "the first report", |agent| !effective(agent).is_empty()).await;
        let described = description(&seen);
        let identifying = |key| attribute(&described.identifying_attributes, key);
        assert_eq!(identifying("service.name").as_deref(), Some("com.example.edge"));
        assert_eq!(identifying("service.version").as_deref(), Some("1.10"), "as it was written");
        assert_eq!(identifying("service.instance.id"), Some(uid.to_string()));
        let other = |key| attribute(&described.non_identifying_attributes, key);
        assert_eq!(other("team").as_deref(), Some("blue"));
        assert!(other("os.type").is_some() && other("host.arch").is_some() && other("host.name").is_some());
        let health = health(&seen);
        assert!(health.healthy && health.start_time_unix_nano > 0, "{health:?}");
        assert_eq!(health.status, "running");
        let components: Vec<_> = health.component_health_map.keys().map(String::as_str).collect();
        assert_eq!(components, ["configuration", "remote_config", "storage"]);
        assert!(effective(&seen).contains("service.name: com.example.edge"), "{}", effective(&seen));
        let all = AgentCapabilities::REPORTS_STATUS
            | AgentCapabilities::ACCEPTS_REMOTE_CONFIG
            | AgentCapabilities::REPORTS_REMOTE_CONFIG
            | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG
            | AgentCapabilities::REPORTS_HEALTH
            | AgentCapabilities::REPORTS_HEARTBEAT
            | AgentCapabilities::ACCEPTS_RESTART_COMMAND;
        assert_eq!(seen.capabilities.bits(), all.bits());
        process.stop().await;
        let gone = server.sees(uid, "the goodbye", |agent| agent.liveness == Liveness::Disconnected).await;
        assert_eq!(gone.disconnect.unwrap().0, DisconnectReason::Graceful);
        assert_eq!((gone.sticky.gaps, gone.sticky.full_state_requests), (0, 0));
    }

    async fn heartbeats_keep_coming_and_change_nothing(scheme) {
        let server = TestServer::start().await;
        let (_directory, mut process) = start(&server, scheme).await;
        let uid = process.uid().await;
        let first = server.sees(uid, "the first report", |agent| !effective(agent).is_empty()).await;
        let later = server.sees(uid, "heartbeats", |agent| agent.sequence_num.0 >= first.sequence_num.0 + 5).await;
        assert_eq!(health(&later), health(&first), "uptime is no news");
        assert_eq!(later.sticky.connects, 1);
    }

    async fn a_remote_configuration_is_applied_live_and_kept_over_a_restart(scheme) {
        let server = TestServer::start().await;
        let (directory, mut process) = start(&server, scheme).await;
        let uid = process.uid().await;
        assert!(!process.log().contains("DEBUG"));
        server.assign(uid, "tuned", REMOTE).await;
        let tuned = |agent: &AgentSnapshot| {
            let described = description(agent);
            let of = |key| attribute(&described.non_identifying_attributes, key);
            applied(agent)
                && of("ring").as_deref() == Some("canary")
                && of("team").as_deref() == Some("green")
                && effective(agent).contains("level: debug")
        };
        let seen = server.sees(uid, "everything is in force", tuned).await;
        assert!(effective(&seen).contains("interval: 150ms"), "{}", effective(&seen));
        assert!(effective(&seen).contains("heartbeat_interval: 100ms"), "the whole configuration");
        process.logs("health checked").await;

        process.stop().await;
        let kept = process.stored("remote-config.yaml");
        assert!(kept.starts_with("# hash ") && kept.ends_with(REMOTE), "{kept}");
        let mut again = Process::start(&directory);
        assert_eq!(again.uid().await, uid);
        again.logs("health checked").await;
        let before = seen.sticky.connects;
        server.sees(uid, "it is back as it was", |agent| agent.sticky.connects > before && tuned(agent)).await;
        again.stop().await;
        assert_eq!(again.lines(&["remote configuration"]), 0, "neither fetched nor applied again: {}", again.log());
    }

    async fn an_invalid_remote_configuration_fails_with_reason_and_position(scheme) {
        let server = TestServer::start().await;
        let (_directory, mut process) = start(&server, scheme).await;
        let uid = process.uid().await;
        server.assign(uid, "good", REMOTE).await;
        server.sees(uid, "the good one", applied).await;
        server.assign(uid, "bad", "health:\n  interval: 150ms\ntelemetry:\n  logs: {level: loud}\n").await;
        let seen = server.sees(uid, "failed", |agent| {
            config_status(agent).0 == Failed && !health(agent).last_error.is_empty()
        }).await;
        let (_, why) = config_status(&seen);
        assert_eq!(
            why,
            "line 4, column 10: `telemetry.logs.level`: \"loud\" is none of error, warn, info, debug, trace"
        );
        assert!(effective(&seen).contains("level: debug"), "the one before stays in force");
        assert_eq!(health(&seen).last_error, format!("remote_config: {why}"));
        process.logs_times(&["WARN", "is refused", &why], 1).await;
        server.assign(uid, "good-again", "health: {interval: 1s}").await;
        let well = |agent: &AgentSnapshot| applied(agent) && health(agent).healthy;
        let seen = server.sees(uid, "applied and well", well).await;
        assert!(!effective(&seen).contains("ring: canary"), "what is not in it any more is gone");
    }

    async fn a_restart_command_starts_the_agent_anew_with_its_identity(scheme) {
        let server = TestServer::start().await;
        let (directory, mut process) = start(&server, scheme).await;
        let uid = process.uid().await;
        let before = server.sees(uid, "the first report", |agent| health(agent).healthy).await;
        // By the file as it is then.
        directory.write("agent.yaml", &yaml(&server.url(scheme), "", &DESCRIBED.replace("blue", "red")));
        server.handle().restart_agent(&uid).unwrap();
        let restarted = |agent: &AgentSnapshot| {
            agent.sticky.start_time_changes == 1
                && attribute(&description(agent).non_identifying_attributes, "team").as_deref() == Some("red")
        };
        let after = server.sees(uid, "the restart", restarted).await;
        assert!(health(&after).start_time_unix_nano > health(&before).start_time_unix_nano);
        assert_eq!(after.sticky.disconnects, 1, "with a goodbye");
        assert_eq!(after.sticky.gaps, 0);
        assert_eq!(process.lines(&["the server wants this agent to restart"]), 1);
        process.stop().await;
    }

    async fn an_identity_from_the_server_is_kept_over_a_restart(scheme) {
        let server = TestServer::start().await;
        let directory = TempDir::new();
        directory.write("agent.yaml", &yaml(&server.url(scheme), "", "agent:\n  request_instance_uid: true\n"));
        let mut process = Process::start(&directory);
        let first = process.uid().await;
        process.logs("the server changed the instance uid").await;
        let log = process.log();
        let (_, changed) = log.split_once("the server changed the instance uid from ").unwrap();
        let (from, to) = changed.lines().next().unwrap().split_once(" to ").unwrap();
        assert_eq!(from, first.to_string());
        let assigned: InstanceUid = to.parse().unwrap();
        server.sees(assigned, "it is in use", |agent| agent.liveness == Liveness::Connected).await;
        process.stop().await;
        assert!(process.stored("opamp-state").contains(&format!("uid {assigned}\nuid-assigned yes\n")));
        let mut again = Process::start(&directory);
        assert_eq!(again.uid().await, assigned);
        server.sees(assigned, "it is back", |agent| agent.liveness == Liveness::Connected).await;
        again.stop().await;
        assert_eq!(again.lines(&["changed the instance uid"]), 0, "asked for once");
    }

    async fn everything_is_told_again_when_the_server_asks(scheme) {
        let server = TestServer::start().await;
        let relay = Forwarder::start(server.address).await.unwrap();
        let directory = TempDir::new();
        directory.write("agent.yaml", &yaml(&url(scheme, relay.addr()), "", DESCRIBED));
        let mut process = Process::start(&directory);
        let uid = process.uid().await;
        let first = server.sees(uid, "the first report", |agent| !effective(agent).is_empty()).await;
        let beats = |count| move |agent: &AgentSnapshot| agent.sequence_num.0 >= count;
        let seen = server.sees(uid, "heartbeats", beats(first.sequence_num.0 + 3)).await;
        let said_so_far = || usize::try_from(relay.passed(Direction::ToServer)).unwrap();
        let (bytes, whole) = (said_so_far(), first.state.len_bytes());
        server.sees(uid, "more heartbeats", beats(seen.sequence_num.0 + 3)).await;
        let in_beats = said_so_far() - bytes;
        let (before, seen) = (said_so_far(), server.handle().agent(&uid).unwrap());
        server.handle().request_full_state(&uid);
        let later = server.sees(uid, "it went on", beats(seen.sequence_num.0 + 4)).await;
        let said = said_so_far() - before;
        assert!(
            said > whole && said > in_beats,
            "{said} bytes, {in_beats} without being asked, {whole} is all of it"
        );
        assert_eq!(later.sticky.full_state_requests, 1, "asked once");
        assert_eq!((effective(&later), description(&later)), (effective(&first), description(&first)));
        process.stop().await;
    }
}
