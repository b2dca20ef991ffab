//! The REST API of the reference server: publish a config, assign it to the fleet, see who runs it.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::json;

use super::{http::Client, json};
use crate::report::Tally;

/// All agents that can take a config.
const SELECTOR: &str = "capability=AcceptsRemoteConfig";
/// More agents than a run can have.
const AT_MOST: u32 = 10_000_000;
/// How long the server's own numbers may lag behind its answers.
const LAG_MAX: Duration = Duration::from_secs(10);
const LAG_LOOK: Duration = Duration::from_millis(50);

/// What one server has been given so far.
#[derive(Debug)]
pub(super) struct Rest {
    /// How the identities of this run's agents begin, as text.
    uid_prefix: String,
    name: Option<String>,
    counts: Tally,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Assigned {
    assigned: u64,
    unchanged: u64,
}

#[derive(Deserialize)]
struct Page {
    agents: Vec<Item>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    uid: String,
    liveness: String,
}

#[derive(Deserialize)]
struct Stats {
    by_drift: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Assignment {
    dispatch: String,
}

impl Rest {
    pub(super) fn new(seed: u32) -> Self {
        let seed = format!("{seed:08x}");
        Self {
            uid_prefix: format!("019a{}-{}-7000-8000-", &seed[..4], &seed[4..]),
            name: None,
            counts: Tally::default(),
        }
    }

    pub(super) fn push(&mut self, client: &mut Client, bytes: u64) -> Result<u64, String> {
        self.counts = Tally::default();
        let (name, version) = self.publish(client, bytes)?;
        let path = format!("/api/v1/configs/{name}/versions/{version}/assign");
        let body = json!({ "selector": SELECTOR, "at_most": AT_MOST }).to_string();
        let (status, answer) = client.call("POST", &path, Some(body.as_bytes()))?;
        match status {
            200 => {
                let assigned: Assigned = serde_json::from_slice(&answer)
                    .map_err(|error| format!("the answer to POST {path} is not understood: {error}"))?;
                self.counts.add("assigned_by_selector");
                Ok(assigned.assigned + assigned.unchanged)
            }
            404 | 405 => self.one_by_one(client, &name, version),
            _ => {
                Err(format!("POST {path} was answered {status}: {}", String::from_utf8_lossy(&answer).trim()))
            }
        }
    }

    /// A config that no agent has: its first line says when it was made.
    fn publish(&mut self, client: &mut Client, bytes: u64) -> Result<(String, u64), String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let line = "receivers: {otlp: {protocols: {grpc: {}}}}\n";
        let length = usize::try_from(bytes).map_err(|_| "the config is too large".to_owned())?;
        let body: String = format!("# {now}\n").chars().chain(line.chars().cycle()).take(length).collect();
        let files = json!({ "": { "body": body, "content_type": "text/yaml" } });
        let (name, version) = match self.name.clone() {
            Some(name) => {
                let path = format!("/api/v1/configs/{name}/versions");
                let made: Version = json(client, "POST", &path, Some(&json!({ "files": files })), 201)?;
                (name, made.version)
            }
            None => {
                let name = format!("fleet-load-{now}");
                let config = json!({ "name": name, "files": files });
                let made: Version = json(client, "POST", "/api/v1/configs", Some(&config), 201)?;
                (name, made.version)
            }
        };
        self.name = Some(name.clone());
        let path = format!("/api/v1/configs/{name}/versions/{version}/publish");
        let _: Version = json(client, "POST", &path, None, 200)?;
        Ok((name, version))
    }

    /// For servers that assign to one agent at a time only: a request for each agent, which costs more than the fan-out.
    fn one_by_one(&mut self, client: &mut Client, name: &str, version: u64) -> Result<u64, String> {
        let body = json!({ "config": name, "version": version });
        let mut cursor = None::<String>;
        let mut told = 0;
        loop {
            let mut path = "/api/v1/agents?liveness=connected&limit=1000".to_owned();
            if let Some(cursor) = &cursor {
                path.push_str("&cursor=");
                path.push_str(cursor);
            }
            let page: Page = json(client, "GET", &path, None, 200)?;
            for agent in &page.agents {
                if agent.uid.starts_with(&self.uid_prefix) && agent.liveness == "connected" {
                    let path = format!("/api/v1/agents/{}/assign", agent.id);
                    let done: Assignment = json(client, "POST", &path, Some(&body), 200)?;
                    if done.dispatch != "no_session" {
                        told += 1;
                    }
                    self.counts.add("assigned_one_by_one");
                }
            }
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(told),
            }
        }
    }

    pub(super) fn confirmed(&mut self, client: &mut Client, expected: u64) -> Result<u64, String> {
        let deadline = Instant::now() + LAG_MAX;
        loop {
            let stats: Stats = json(client, "GET", "/api/v1/stats", None, 200)?;
            let in_sync = stats.by_drift.get("in_sync").copied().unwrap_or(0);
            if in_sync >= expected || Instant::now() >= deadline {
                return Ok(in_sync);
            }
            thread::sleep(LAG_LOOK);
        }
    }

    pub(super) fn counts(&self) -> Tally {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

    #[test]
    fn the_agents_of_a_run_are_known_by_how_their_identity_begins() {
        for seed in [1, 0xdead_beef] {
            let uid = opamp_proto::InstanceUid::from_bytes(message::uid(seed, 77)).to_string();
            assert!(uid.starts_with(&Rest::new(seed).uid_prefix), "{uid}");
        }
    }
}
