//! Two collectors with the same configured uid: a config that was copied with everything in it.

use std::fs;
use std::path::Path;

use interop::collector::{Collector, CollectorConfig, NAME};
use interop::{Look, Outcome, Server, ensure, eventually};
use serde_json::{Value, json};

use super::{EVENTUALLY, PLAIN, UID, is_well, over};

/// R-ID-14, R-ID-15: the newcomer is given another uid and takes it. Over WebSocket it has nothing to say under that, for
/// it has no heartbeats, until something changes.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collectors_that_share_a_uid_become_two_agents() -> Outcome {
    over(&PLAIN, "cloned", |scheme, directory| {
        let server = Server::start(directory, &[])?;
        let _first = start(&directory.join("first"), &server, scheme)?;
        let first = server.agent(NAME)?;
        // Both count from 0, and of two that poll, the numbers are all there is to tell them apart by.
        let settled =
            |seen: &Value| is_well(seen) && (scheme == "ws" || seen["sequence_num"].as_u64() >= Some(10));
        first.until("a healthy collector", EVENTUALLY, settled)?;
        let second = start(&directory.join("second"), &server, scheme)?;
        first
            .until("the conflict", EVENTUALLY, |seen| seen["sticky"]["uid_conflicts"].as_u64() >= Some(1))?;
        second.ail("recoverable the copy is ill")?;
        let (agents, _) = eventually("two agents", EVENTUALLY, || {
            let page = server.rest().get("/api/v1/agents")?;
            let agents: Vec<Value> = page["agents"].as_array().cloned().unwrap_or_default();
            let told_apart = agents.len() == 2
                && agents.iter().all(|agent| agent["liveness"] == "connected")
                && agents.iter().filter(|agent| agent["health"] == "unhealthy").count() == 1;
            Ok(Look::when(told_apart, agents, page.to_string()))
        })?;
        ensure!(agents.iter().filter(|agent| agent["uid"] == UID).count() == 1, "{agents:#?}");
        // It goes on saying that it is the instance it was.
        for agent in &agents {
            let path = format!("/api/v1/agents/{}", agent["id"].as_str().unwrap_or_default());
            let record = server.rest().get(&path)?;
            ensure!(record["description"]["identifying"]["service.instance.id"] == UID, "{record:#}");
        }
        if scheme == "ws" {
            let kept = agents.iter().find(|agent| agent["uid"] == UID);
            ensure!(kept.is_some_and(|agent| agent["health"] == "healthy"), "{agents:#?}");
        }
        Ok(())
    })
}

fn start(directory: &Path, server: &Server, scheme: &str) -> Outcome<Collector> {
    fs::create_dir(directory)?;
    let config = CollectorConfig::new(directory, &server.url(scheme))?.with("instance_uid", json!(UID));
    Collector::start(&config, &[])
}
