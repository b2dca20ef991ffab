//! The health of components, from a failure to its end.

use std::net::TcpListener;

use interop::process::Signal;
use interop::{Outcome, ensure, scenario};
use serde_json::{Value, json};

use super::{EVENTUALLY, PLAIN, Pair, UID, component, is_gone, is_well, over};

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn component_that_fails_and_recovers_is_seen_to() -> Outcome {
    over(&PLAIN, "ailing", |scheme, directory| {
        let pair = Pair::start(directory, scheme, &[])?;
        let record = pair.record()?;
        pair.collector.ail("recoverable the disk is full")?;
        let (seen, _) = record.until("unhealthy", EVENTUALLY, |record| record["health"] == "unhealthy")?;
        let report = &seen["health_report"];
        ensure!(report["status"] == "StatusRecoverableError", "{seen:#}");
        ensure!(report["last_error"] == "the disk is full", "{seen:#}");
        let ailing = component(&seen, "pipeline:traces", "receiver:ailing");
        ensure!(ailing["healthy"] == false && ailing["last_error"] == "the disk is full", "{seen:#}");
        for (group, name) in [("pipeline:traces", "processor:batch"), ("pipeline:logs", "receiver:otlp")] {
            ensure!(component(&seen, group, name)["healthy"] == true, "{group} {name}: {seen:#}");
        }
        let stats = pair.server.rest().get("/api/v1/stats")?;
        ensure!(stats["by_health"]["unhealthy"] == 1, "{stats}");

        pair.collector.ail("ok")?;
        let (seen, _) = record.until("healthy", EVENTUALLY, is_well)?;
        ensure!(seen["health_report"]["last_error"] == "", "{seen:#}");
        // The extension never remembers when the collector started: each healthy report says "now".
        ensure!(seen["sticky"]["start_time_changes"] == 1, "{seen:#}");
        ensure!(seen["sticky"]["connects"] == 1, "{seen:#}");
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn permanent_failure_stays() -> Outcome {
    scenario("permanent", |directory| {
        let mut pair = Pair::with(directory, "ws", &[], |config| config.with("instance_uid", json!(UID)))?;
        pair.collector.ail("permanent no such table")?;
        let fits = |record: &Value| record["health_report"]["status"] == "StatusPermanentError";
        let (seen, _) = pair.record()?.until("a permanent failure", EVENTUALLY, fits)?;
        ensure!(seen["health"] == "unhealthy" && seen["liveness"] == "connected", "{seen:#}");
        ensure!(seen["health_report"]["last_error"] == "no such table", "{seen:#}");
        pair.collector.ail("ok")?;
        pair.collector.stop(Signal::Interrupt)?;
        pair.collector.start_again()?;
        pair.record()?.until("healthy after a restart", EVENTUALLY, is_well).map(drop)
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_that_ends_for_a_fatal_failure_is_gone_and_unhealthy() -> Outcome {
    scenario("fatal", |directory| {
        let mut pair = Pair::start(directory, "ws", &[])?;
        pair.collector.ail("fatal out of everything")?;
        pair.collector.ended()?;
        let (seen, _) = pair.record()?.until("disconnected", EVENTUALLY, is_gone)?;
        ensure!(seen["health"] == "unhealthy" && seen["disconnect"]["reason"] == "graceful", "{seen:#}");
        Ok(())
    })
}

/// Such a collector ends before or while its extension connects. Either way it is never seen to be well.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_whose_receiver_cannot_start_is_never_healthy() -> Outcome {
    scenario("taken", |directory| {
        let mut listens = None;
        let mut pair = Pair::with(directory, "ws", &[], |config| {
            listens = Some(config.listens());
            config.with("instance_uid", json!(UID))
        })?;
        let before = pair.record()?.read()?["health_report"]["start_time"].clone();
        pair.collector.stop(Signal::Interrupt)?;
        let _taken = listens.map(TcpListener::bind).transpose()?;
        pair.collector.start_again()?;
        let status = pair.collector.ended()?;
        ensure!(!status.success() && pair.collector.log()?.contains("address already in use"), "{status}");
        let (seen, _) = pair.record()?.until("disconnected", EVENTUALLY, is_gone)?;
        ensure!(seen["health"] == "unhealthy", "{seen:#}");
        let start = &seen["health_report"]["start_time"];
        ensure!(start.is_null() || *start == before, "it was healthy in between: {seen:#}");
        Ok(())
    })
}
