//! The server restarts, and the collector is there again.

use interop::{Look, Outcome, ensure, eventually};
use serde_json::Value;

use super::{EVENTUALLY, PLAIN, Pair, is_well, over};

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_comes_back_to_a_server_that_restarted_in_order() -> Outcome {
    over(&PLAIN, "restarted", |scheme, directory| {
        let mut pair = Pair::start(directory, scheme, &[])?;
        let before = pair.record()?.read()?;
        pair.server.terminate()?;
        pair.server.start_again()?;
        let (seen, _) = pair.record()?.until("it is back", EVENTUALLY, |seen| is_back(seen, &before))?;
        same(&seen, &before)?;
        let total = pair.server.metric("opamp_full_state_requests_total")?;
        ensure!(total <= 1.0, "full state was asked for {total} times");
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_comes_back_to_a_server_that_was_killed() -> Outcome {
    over(&PLAIN, "server-killed", |scheme, directory| {
        let mut pair = Pair::start(directory, scheme, &[])?;
        let before = pair.record()?.read()?;
        pair.server.kill()?;
        pair.server.start_again()?;
        let (seen, _) = pair.record()?.until("it is back", EVENTUALLY, |seen| is_back(seen, &before))?;
        same(&seen, &before)
    })
}

/// Reconnecting, the client says neither its health nor its components: the server has to ask.
#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn server_that_forgot_everything_learns_it_again() -> Outcome {
    over(&PLAIN, "forgot", |scheme, directory| {
        let mut pair = Pair::start(directory, scheme, &["--store", "memory"])?;
        let before = pair.record()?.read()?;
        pair.server.terminate()?;
        pair.server.start_again()?;
        let (seen, _) = eventually("it is there again", EVENTUALLY, || {
            let seen = pair.record()?.read()?;
            let shown = format!("{seen:#}");
            Ok(Look::when(is_well(&seen), seen, shown))
        })?;
        same(&seen, &before)?;
        let asked = pair.server.metric("opamp_full_state_requests_total")?;
        ensure!((1.0..=2.0).contains(&asked), "full state was asked for {asked} times");
        Ok(())
    })
}

/// It is connected and has said something since.
fn is_back(seen: &Value, before: &Value) -> bool {
    is_well(seen) && seen["connected_at"].as_str() > before["connected_at"].as_str()
}

fn same(seen: &Value, before: &Value) -> Outcome {
    for key in ["uid", "description", "capabilities", "effective_config", "available_components"] {
        ensure!(seen[key] == before[key], "{key} is another one:\n{:#}\n{:#}", before[key], seen[key]);
    }
    let health = |record: &Value| record["health_report"]["components"].clone();
    ensure!(health(seen) == health(before), "{:#}\n{:#}", health(before), health(seen));
    Ok(())
}
