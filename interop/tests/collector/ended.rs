//! How a collector ends, and who it is afterwards.

use interop::process::Signal;
use interop::{Look, Outcome, ensure, eventually, scenario};
use serde_json::{Value, json};

use super::{EVENTUALLY, Pair, SENSITIVE, UID, is_gone, is_well, over};

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_that_is_told_to_end_says_goodbye() -> Outcome {
    for (name, signal) in [("interrupted", Signal::Interrupt), ("terminated", Signal::Terminate)] {
        scenario(name, |directory| {
            let mut pair = Pair::start(directory, "ws", &[])?;
            pair.collector.stop(signal)?;
            let (seen, _) = pair.record()?.until("disconnected", EVENTUALLY, is_gone)?;
            let end = &seen["disconnect"];
            ensure!(end["reason"] == "graceful" && end["graceful"] == true, "{name}: {seen:#}");
            // What it said last is that it is on its way out.
            ensure!(seen["health"] == "unhealthy", "{name}: {seen:#}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The client says nothing when it stops polling (R-LIFE-07): an end in order looks like any other.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn polling_collector_that_ends_falls_silent() -> Outcome {
    scenario("silent", |directory| {
        let mut pair = Pair::start(directory, "http", &SENSITIVE)?;
        pair.collector.stop(Signal::Interrupt)?;
        let (seen, _) = pair.record()?.until("disconnected", EVENTUALLY, is_gone)?;
        let end = &seen["disconnect"];
        ensure!(end["reason"] == "timeout" && end["graceful"] == false, "{seen:#}");
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_that_is_killed_is_not_graceful() -> Outcome {
    over(&["ws", "http"], "killed", |scheme, directory| {
        let mut pair = Pair::start(directory, scheme, &SENSITIVE)?;
        pair.collector.kill()?;
        let (seen, _) = pair.record()?.until("disconnected", EVENTUALLY, is_gone)?;
        let expected = if scheme == "ws" { "closed" } else { "timeout" };
        ensure!(seen["disconnect"]["reason"] == expected, "{seen:#}");
        // Nobody said otherwise.
        ensure!(seen["health"] == "healthy", "{seen:#}");
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_with_a_configured_uid_keeps_its_record_over_restarts() -> Outcome {
    over(&["ws", "http"], "kept", |scheme, directory| {
        let mut pair = Pair::with(directory, scheme, &[], |config| config.with("instance_uid", json!(UID)))?;
        let (id, before) = (pair.record()?.id, pair.record()?.read()?);
        ensure!(before["uid"] == UID, "{before:#}");
        pair.collector.stop(Signal::Interrupt)?;
        pair.collector.start_again()?;
        let later = |seen: &Value| {
            is_well(seen)
                && seen["health_report"]["start_time"] != before["health_report"]["start_time"]
                && seen["health_report"]["start_time"].is_string()
        };
        let (seen, _) = pair.record()?.until("it is back", EVENTUALLY, later)?;
        ensure!(pair.record()?.id == id && seen["uid"] == UID, "{seen:#}");
        ensure!(seen["uid_conflict"] == false && seen["sticky"]["uid_conflicts"] == 0, "{seen:#}");
        Ok(())
    })
}

/// Its uid comes from its telemetry's `service.instance.id`, which is a new one in each process.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_without_a_configured_uid_is_another_agent_after_a_restart() -> Outcome {
    scenario("another", |directory| {
        let mut pair = Pair::start(directory, "ws", &[])?;
        pair.collector.stop(Signal::Interrupt)?;
        pair.record()?.until("disconnected", EVENTUALLY, is_gone)?;
        pair.collector.start_again()?;
        let (page, _) = eventually("a second record", EVENTUALLY, || {
            let page = pair.server.rest().get("/api/v1/agents")?;
            let connected = page["agents"].as_array().into_iter().flatten();
            let connected = connected.filter(|agent| agent["liveness"] == "connected").count();
            let shown = page.to_string();
            Ok(Look::when(connected == 1 && page["agents"][1].is_object(), page, shown))
        })?;
        ensure!(page["agents"][0]["uid"] != page["agents"][1]["uid"], "{page:#}");
        ensure!(page["agents"][2].is_null(), "{page:#}");
        Ok(())
    })
}
