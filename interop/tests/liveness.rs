//! How an agent left, or whether it only stopped talking, is told apart.

use std::path::Path;
use std::time::Duration;

use interop::process::Signal;
use interop::{Agent, Outcome, Record, Server, ensure, scenario};

const EVENTUALLY: Duration = Duration::from_secs(20);

/// Quick to notice silence, and slow to close a connection for it.
const SENSITIVE: [&str; 8] = [
    "--ping-interval",
    "200ms",
    "--websocket-stale-after",
    "2s",
    "--http-poll-interval",
    "300ms",
    "--http-stale-min",
    "1s",
];

const POLLING: [&str; 2] = ["-heartbeat", "200ms"];

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_that_stops_cleanly_is_disconnected_graceful() -> Outcome {
    scenario("clean", |directory| {
        let server = Server::start(directory, &SENSITIVE)?;
        let (agent, record) = connected(&server, directory, "ws", &[])?;
        agent.quit()?;
        let (seen, _) =
            record.until("disconnected", EVENTUALLY, |record| record["liveness"] == "disconnected")?;
        ensure!(
            seen["disconnect"]["graceful"] == true && seen["disconnect"]["reason"] == "graceful",
            "{seen:#}"
        );
        sums_hold(&server, "disconnected")
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_that_is_killed_is_disconnected_and_not_graceful() -> Outcome {
    scenario("killed", |directory| {
        let server = Server::start(directory, &SENSITIVE)?;
        let (agent, record) = connected(&server, directory, "ws", &[])?;
        agent.kill()?;
        let (seen, _) =
            record.until("disconnected", EVENTUALLY, |record| record["liveness"] == "disconnected")?;
        ensure!(
            seen["disconnect"]["graceful"] == false && seen["disconnect"]["reason"] == "closed",
            "{seen:#}"
        );
        sums_hold(&server, "disconnected")
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_that_is_frozen_is_stale_until_it_thaws() -> Outcome {
    scenario("frozen", |directory| {
        let server = Server::start(directory, &SENSITIVE)?;
        // Its own reports are far apart: what keeps it connected is that it answers pings.
        let (mut agent, record) = connected(&server, directory, "ws", &[])?;
        agent.signal(Signal::Stop)?;
        let (_, took) = record.until("stale", EVENTUALLY, |record| record["liveness"] == "stale")?;
        ensure!(
            took >= Duration::from_millis(500),
            "stale after {took:?}, which is within its ping interval"
        );
        sums_hold(&server, "stale")?;
        agent.signal(Signal::Continue)?;
        record.until("connected again", EVENTUALLY, |record| record["liveness"] == "connected")?;
        ensure!(agent.count("connected") == 1, "the frozen agent lost its connection");
        agent.quit()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_that_stops_polling_is_stale_then_disconnected() -> Outcome {
    scenario("silent", |directory| {
        let server = Server::start(directory, &SENSITIVE)?;
        let (agent, record) = connected(&server, directory, "http", &POLLING)?;
        agent.kill()?;
        record.until("stale", EVENTUALLY, |record| record["liveness"] == "stale")?;
        let (seen, _) =
            record.until("disconnected", EVENTUALLY, |record| record["liveness"] == "disconnected")?;
        ensure!(
            seen["disconnect"]["graceful"] == false && seen["disconnect"]["reason"] == "timeout",
            "{seen:#}"
        );
        sums_hold(&server, "disconnected")
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn idle_agent_that_answers_pings_stays_connected() -> Outcome {
    scenario("idle", |directory| {
        let server = Server::start(directory, &SENSITIVE)?;
        let (agent, record) = connected(&server, directory, "ws", &[])?;
        let silence = record.until("silence past the stale threshold", Duration::from_secs(5), |record| {
            record["liveness"] != "connected"
        });
        ensure!(silence.is_err(), "an idle agent was given up");
        agent.quit()
    })
}

fn connected<'a>(
    server: &'a Server,
    directory: &Path,
    scheme: &str,
    flags: &[&str],
) -> Outcome<(Agent, Record<'a>)> {
    let mut agent = Agent::named(directory, &server.url(scheme), "living", flags)?;
    agent.expect("connected")?;
    let record = server.agent("living")?;
    record.until("connected", EVENTUALLY, |record| record["liveness"] == "connected")?;
    Ok((agent, record))
}

/// One agent is registered, and every gauge by state adds up to one.
fn sums_hold(server: &Server, liveness: &str) -> Outcome {
    let stats = server.rest().get("/api/v1/stats")?;
    ensure!(stats["registered"] == 1, "{stats}");
    ensure!(stats["by_liveness"][liveness] == 1, "{stats}");
    for group in ["by_liveness", "by_health", "by_drift"] {
        let parts = stats[group].as_object().into_iter().flatten();
        let sum: u64 = parts.filter_map(|(_, count)| count.as_u64()).sum();
        ensure!(sum == 1, "{group} sums to {sum}: {stats}");
    }
    let gauge = server.metric(&format!(r#"opamp_agents{{liveness="{liveness}"}}"#))?;
    ensure!((gauge - 1.0).abs() < f64::EPSILON, "the gauge says {gauge}");
    Ok(())
}
