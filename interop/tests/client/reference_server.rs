//! The self-agent against our reference server, both as the processes they are in production.

use std::path::Path;
use std::time::Duration;

use interop::{
    Certificates, Kind, Look, Ours, Outcome, Plan, Record, SelfAgent, Server, each, ensure, eventually,
    scenario,
};
use serde_json::{Value, json};

const EVENTUALLY: Duration = Duration::from_secs(20);

/// What a remote config may set, and something that it may not.
const GOOD: &str = "agent:\n  description:\n    non_identifying_attributes:\n      zone: north\n";
const BAD: &str = "server:\n  endpoint: ws://127.0.0.1:9\n";

/// A server that asks again soon whatever it has had no answer to.
const REPEATING: [&str; 2] = ["--repeat-after", "10ms"];

#[test]
fn everything_the_self_agent_does_is_in_its_record() -> Outcome {
    each(&["ws", "http", "wss", "https"], |scheme| {
        scenario(&format!("self-agent-{scheme}"), |directory| {
            let mut plan = Plan::new(directory, "", "walking");
            let server = if secure(scheme) {
                secured(directory, &mut plan)?
            } else {
                Server::start(directory, &REPEATING)?
            };
            plan.url = server.url(scheme);
            plan.heartbeat = Duration::from_millis(300);
            walk(&server, plan, scheme)
        })
    })
}

#[test]
fn uid_the_server_gave_is_kept_over_restarts_of_agent_and_server() -> Outcome {
    each(&["ws", "http"], |scheme| {
        scenario(&format!("self-agent-uid-{scheme}"), |directory| {
            let mut server = Server::start(directory, &[])?;
            let mut plan = Plan::new(directory, &server.url(scheme), "renamed");
            plan.request_uid = true;
            let mut agent = SelfAgent::start(plan)?;
            let (uid, _) = eventually("another uid", EVENTUALLY, || {
                let log = agent.log()?;
                let told = log.split("changed the instance uid from ").nth(1);
                let uid = told.and_then(|rest| rest.lines().next()?.split(" to ").nth(1)).map(str::to_owned);
                Ok(uid.map_or(Look::NotYet(log), Look::Found))
            })?;
            let has_it = |record: &Value| record["liveness"] == "connected" && record["uid"] == uid.as_str();
            let id =
                server.agent("renamed")?.until("the uid in the record", EVENTUALLY, has_it)?.0["id"].clone();
            agent.stop()?;
            server.terminate()?;
            server.start_again()?;
            agent.start_again()?;
            let (back, _) = server.agent("renamed")?.until("it is back", EVENTUALLY, has_it)?;
            ensure!(back["id"] == id, "{back:#}");
            let stats = server.rest().get("/api/v1/stats")?;
            ensure!(stats["registered"] == 1, "{stats}");
            agent.stop()
        })
    })
}

#[test]
fn server_that_is_killed_is_found_again_and_its_config_is_not_applied_twice() -> Outcome {
    each(&["ws", "http"], |scheme| {
        scenario(&format!("self-agent-killed-{scheme}"), |directory| {
            let mut server = Server::start(directory, &[])?;
            let mut agent =
                Ours::start(Kind::Program, Plan::new(directory, &server.url(scheme), "bereaved"))?;
            server.publish("kept", &json!({"": {"body": GOOD}}))?;
            server.agent("bereaved")?.assign("kept", 1)?;
            server.agent("bereaved")?.until("in sync", EVENTUALLY, |record| record["drift"] == "in_sync")?;
            server.kill()?;
            server.start_again()?;
            server.agent("bereaved")?.until("in sync again", EVENTUALLY, |record| {
                record["liveness"] == "connected" && record["drift"] == "in_sync"
            })?;
            agent.stop()?;
            server.agent("bereaved")?.until("gone", EVENTUALLY, gone_in_order)?;
            ensure!(agent.applications()? == 1, "applied {} times", agent.applications()?);
            Ok(())
        })
    })
}

/// Status, config, effective config, failure, full state, restart, heartbeats, goodbye.
fn walk(server: &Server, plan: Plan, scheme: &str) -> Outcome {
    let mut agent = Ours::start(Kind::Program, plan)?;
    let record = server.agent("walking")?;
    let (first, _) = record.until("a complete record", EVENTUALLY, |record| {
        record["liveness"] == "connected"
            && record["health"] == "healthy"
            && !record["effective_config"].is_null()
    })?;
    let transport = if scheme.starts_with("ws") { "websocket" } else { "http" };
    ensure!(first["transport"] == transport, "{first:#}");
    if secure(scheme) {
        let identity = first["identity"].as_str().unwrap_or_default();
        ensure!(identity.starts_with("certificate:"), "identity {identity:?}");
    }
    let secrets = first["effective_config"][""]["body"].as_str().unwrap_or_default();
    ensure!(secrets.contains("endpoint"), "{first:#}");

    let hash = server.publish("walking", &json!({"": {"body": GOOD}}))?;
    record.assign("walking", 1)?;
    let (seen, _) = record.until("APPLIED and in use", EVENTUALLY, |record| {
        record["remote_config_status"]["status"] == "APPLIED"
            && record["remote_config_status"]["hash"] == hash.as_str()
            && runs_good(record)
    })?;
    ensure!(seen["drift"] == "in_sync" && seen["last_known_good"] == hash.as_str(), "{seen:#}");
    record.until("the new attribute", EVENTUALLY, |record| {
        record["description"]["non_identifying"]["zone"] == "north"
    })?;

    let (version, bad) = server.publish_next("walking", &json!({"": {"body": BAD}}))?;
    record.assign("walking", version)?;
    let (seen, _) = record.until("FAILED", EVENTUALLY, |record| record["drift"] == "failed")?;
    ensure!(seen["remote_config_status"]["hash"] == bad.as_str(), "{seen:#}");
    let why = seen["apply_error"].as_str().unwrap_or_default();
    ensure!(why.contains("`server` cannot be set remotely"), "not the reason: {why:?}");
    ensure!(runs_good(&seen), "what runs changed by a config that failed: {seen:#}");
    record.assign("walking", 1)?;
    record.until("mended", EVENTUALLY, |record| record["drift"] == "in_sync")?;

    full_state(server, &record)?;

    record.restart()?;
    let (again, _) = record.until("the restart", EVENTUALLY, |record| {
        record["sticky"]["start_time_changes"] == 1 && record["liveness"] == "connected"
    })?;
    ensure!(again["uid"] == first["uid"] && runs_good(&again) && again["drift"] == "in_sync", "{again:#}");

    let before = sequence(&record.read()?);
    record.until("three heartbeats", EVENTUALLY, |record| sequence(record) >= before + 3)?;

    agent.stop()?;
    record.until("gone in order", EVENTUALLY, gone_in_order)?;
    Ok(())
}

/// The server asks, and is answered: it would otherwise ask again with each message.
fn full_state(server: &Server, record: &Record<'_>) -> Outcome {
    const QUIET: u64 = 5;
    let asked = || server.metric("opamp_full_state_requests_total");
    let before = asked()?;
    let path = format!("/api/v1/agents/{}/request-full-state", record.id);
    server.rest().call("POST", &path, &[], None)?.success()?;
    // The last request that was sent, and the message known by then.
    let mut last = (before, 0);
    eventually("messages that are not answered with a request for full state", EVENTUALLY, || {
        let message = sequence(&record.read()?);
        let requests = asked()?;
        if requests > last.0 {
            last = (requests, message);
        }
        let done = last.0 > before && message >= last.1 + QUIET;
        Ok(Look::when(done, (), format!("{} requests up to message {message}", requests - before)))
    })?;
    Ok(())
}

fn secured(directory: &Path, plan: &mut Plan) -> Outcome<Server> {
    let files = Certificates::issue(directory)?;
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let (cert, key, ca) =
        (path(files.certificate("server")), path(files.key("server")), path(files.certificate("ca")));
    plan.ca = Some(files.certificate("ca"));
    plan.identity = Some((files.certificate("client"), files.key("client")));
    let flags = ["--auth", "mtls", "--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca];
    Server::start(directory, &[&flags[..], &REPEATING].concat())
}

fn secure(scheme: &str) -> bool {
    matches!(scheme, "wss" | "https")
}

fn runs_good(record: &Value) -> bool {
    record["effective_config"][""]["body"].as_str().is_some_and(|body| body.contains("zone: north"))
}

fn gone_in_order(record: &Value) -> bool {
    record["liveness"] == "disconnected" && record["disconnect"]["graceful"] == true
}

fn sequence(record: &Value) -> u64 {
    record["sequence_num"].as_u64().unwrap_or_default()
}
