//! Server and agents are restarted in every way, and nothing is lost or asked for twice.

use std::path::Path;
use std::time::Duration;

use interop::{Agent, Look, Outcome, Server, ensure, eventually, scenario};
use serde_json::{Value, json};

/// Long enough for the back-off of the opamp-go client.
const EVENTUALLY: Duration = Duration::from_secs(30);

/// Name, scheme and flags of an agent.
type Member = (&'static str, &'static str, &'static [&'static str]);

/// Agents that are quiet between heartbeats. Both transports are in every restart.
const QUIET: [Member; 3] =
    [("poller", "http", &["-heartbeat", "200ms"]), ("alpha", "ws", &[]), ("beta", "ws", &[])];

/// An agent that always has something to say. The opamp-go client forgets the message it is about to send when a
/// connection ends, so that after any end of a connection there may be a gap in its sequence.
const CHATTY: Member = ("chatty", "ws", &["-health-interval", "50ms"]);

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn graceful_restart_asks_no_agent_for_full_state() -> Outcome {
    scenario("graceful", |directory| {
        let mut fleet = Fleet::start(directory, &QUIET)?;
        fleet.server.terminate()?;
        fleet.server.start_again()?;
        let requests = fleet.all_are_back()?;
        ensure!(requests.iter().all(|count| *count == 0), "full state was asked for: {requests:?}");
        let total = fleet.server.metric("opamp_full_state_requests_total")?;
        ensure!(total < 0.5, "{total} full-state requests are counted");
        fleet.quit()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn kill_asks_each_agent_for_full_state_at_most_once() -> Outcome {
    scenario("killed", |directory| {
        let mut fleet = Fleet::start(directory, &[&QUIET[..], &[CHATTY]].concat())?;
        fleet.server.kill()?;
        fleet.server.start_again()?;
        let requests = fleet.all_are_back()?;
        ensure!(requests.iter().all(|count| *count <= 1), "full state was asked for again: {requests:?}");
        fleet.quit()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn restarted_agent_keeps_its_record_and_is_not_offered_what_it_has() -> Outcome {
    scenario("agent", |directory| {
        let server = Server::start(directory, &[])?;
        let url = server.url("ws");
        let mut first = Agent::named(directory, &url, "returning", &[])?;
        let id = server.agent("returning")?.id;
        server.publish("kept", &json!({"": {"body": "kept: true\n"}}))?;
        server.agent("returning")?.assign("kept", 1)?;
        first.expect("remote_config_status")?;
        server.agent("returning")?.until("in sync", EVENTUALLY, |record| record["drift"] == "in_sync")?;
        first.kill()?;

        let mut second = Agent::named(directory, &url, "returning", &[])?;
        second.expect("connected")?;
        let record = server.agent("returning")?;
        ensure!(record.id == id, "the agent got a second record");
        // What was reported a moment ago is taken in together, so the first connection may still be shown.
        record.until("back, in sync", EVENTUALLY, |record| {
            record["liveness"] == "connected"
                && record["drift"] == "in_sync"
                && record["sticky"]["connects"].as_u64() >= Some(2)
        })?;
        ensure!(second.count("remote_config") == 0, "the config it has was offered again");
        second.quit()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn config_assigned_while_the_agent_is_away_meets_it_on_return() -> Outcome {
    scenario("away", |directory| {
        let server = Server::start(directory, &[])?;
        let url = server.url("ws");
        let first = Agent::named(directory, &url, "absent", &[])?;
        let record = server.agent("absent")?;
        first.quit()?;
        record.until("disconnected", EVENTUALLY, |record| record["liveness"] == "disconnected")?;
        let hash = server.publish("late", &json!({"": {"body": "late: true\n"}}))?;
        let assigned = record.assign("late", 1)?;
        ensure!(assigned["dispatch"] == "no_session", "{assigned}");

        let second = Agent::named(directory, &url, "absent", &[])?;
        record.until("the config of its absence", EVENTUALLY, |record| {
            record["drift"] == "in_sync" && record["remote_config_status"]["hash"] == hash.as_str()
        })?;
        second.quit()
    })
}

/// Agents that all have their second config, so that there is a history to lose.
struct Fleet {
    server: Server,
    agents: Vec<(&'static str, Agent, Value)>,
}

impl Fleet {
    fn start(directory: &Path, members: &[Member]) -> Outcome<Self> {
        // What polls while the server drains is told to come back soon.
        let server = Server::start(directory, &["--retry-after", "1s"])?;
        server.publish("fleet", &json!({"": {"body": "v: 1\n"}}))?;
        server.publish_next("fleet", &json!({"": {"body": "v: 2\n"}, "extra.yaml": {"body": "x: 1\n"}}))?;
        let mut agents = Vec::new();
        for &(name, scheme, flags) in members {
            let agent = Agent::named(directory, &server.url(scheme), name, flags)?;
            let record = server.agent(name)?;
            let mut last = Value::Null;
            for version in [1, 2] {
                record.assign("fleet", version)?;
                (last, _) = record.until("in sync", EVENTUALLY, |record| {
                    record["drift"] == "in_sync"
                        && record["desired_config"]["version"] == version
                        && record["remote_config_status"]["hash"] == record["desired_config"]["hash"]
                        && record["last_known_good"] == record["desired_config"]["hash"]
                })?;
            }
            agents.push((name, agent, last));
        }
        // Reported facts are written within a bound; what was written in time is not to be learned again.
        eventually("everything written", EVENTUALLY, || {
            let stats = server.rest().get("/api/v1/stats")?;
            Ok(Look::when(stats["records_waiting"] == 0, (), stats.to_string()))
        })?;
        Ok(Self { server, agents })
    }

    /// Waits until every agent is connected and in sync with the record it had. Returns how often each was asked for
    /// full state.
    fn all_are_back(&mut self) -> Outcome<Vec<usize>> {
        let mut requests = Vec::new();
        for (name, agent, before) in &mut self.agents {
            let record = self.server.agent(name)?;
            let (after, _) = record.until(&format!("{name} back"), EVENTUALLY, |record| {
                record["liveness"] == "connected"
                    && record["connected_at"] != before["connected_at"]
                    && record["drift"] == "in_sync"
                    && record["effective_config"] == before["effective_config"]
            })?;
            for key in
                ["id", "uid", "first_seen", "desired_config", "history", "last_known_good", "description"]
            {
                ensure!(after[key] == before[key], "{name}: {key} was {} and is {}", before[key], after[key]);
            }
            let status = |record: &Value| record["remote_config_status"]["status"].clone();
            ensure!(status(&after) == "APPLIED", "{name}: {after:#}");
            ensure!(agent.count("remote_config") == 2, "{name}: what it has was offered again");
            requests.push(agent.count("full_state_requested"));
        }
        Ok(requests)
    }

    fn quit(self) -> Outcome {
        for (_, agent, _) in self.agents {
            agent.quit()?;
        }
        Ok(())
    }
}
