//! Everyone loses the connection and comes back within seconds: once within what admission lets in anyway, once at several
//! times its pace.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::workspace::WorkspaceError;

use super::{Bench, Claims, mib, without_failures};
use crate::load::metrics::Metrics;
use crate::load::servers::Store;

/// The time over which they come back, in seconds, until when the last one must be back, and whether admission has to make
/// them wait.
const STORMS: [(u32, f64, bool); 2] = [(10, 30.0, false), (1, 60.0, true)];
/// The phases before the first one.
const BEFORE: usize = 2;
/// How often the server is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The connections that had to wait for the pace.
const DEFERRED: &str = "opamp_connections_deferred_total";

/// What memory may have grown to beside before, and by so much whatever the number of agents.
const GROWTH: f64 = 1.1;
const SLACK_BYTES: f64 = 16.0 * 1024.0 * 1024.0;

pub(super) fn run(bench: &Bench<'_>) -> Result<Claims, WorkspaceError> {
    let agents: u64 = bench.size(10_000, 1_000);
    // The server's own defaults; in a trial as much less as there are fewer agents.
    let pace = Pace { rate: bench.size(2_000, 200), burst: bench.size(2_000, 200) };
    let (rate, burst) = (pace.rate.to_string(), pace.burst.to_string());
    let flags = ["--accept-rate", &rate, "--accept-burst", &burst];
    let server = bench.server("server", false, Store::Sqlite, &flags)?;
    let admin = server.admin.ok_or_else(|| WorkspaceError("ours has an admin port".to_owned()))?;
    let mut phases = vec![format!("connect:agents={agents},rate=1000,state=10k"), "idle:secs=5".to_owned()];
    for (within, ..) in STORMS {
        phases.extend([format!("reconnect:within={within}s"), "heartbeat:rate=1000,secs=5".to_owned()]);
    }
    phases.push("settle:secs=10".to_owned());
    let expected = Duration::from_secs(240);
    let mut fleet = bench.fleet(&server, "storm", &phases)?;
    let (begun, mut peak, mut deferred) = (Instant::now(), 0, BTreeMap::new());
    while fleet.runs() && begun.elapsed() < expected * 2 {
        peak = peak.max(server.usage()?.rss_bytes);
        // Not during a storm: who asks would have to wait as well.
        let phase = fleet.ended();
        if phases.get(phase).is_some_and(|phase| !phase.starts_with("reconnect:")) {
            deferred.insert(phase, Metrics::read(admin)?.needed(DEFERRED)?);
        }
        thread::sleep(LOOK);
    }
    let lines = fleet.finish(expected)?;
    let mut claims = Claims::default();
    claims.equal("connected before", lines[1].agents, agents);
    for (number, (within, limit, waits)) in STORMS.into_iter().enumerate() {
        let at = BEFORE + 2 * number;
        let (storm, after) = (&lines[at], &lines[at + 1]);
        let what = format!("{agents} reconnects within {within} s");
        claims.equal(format!("{what}: back"), storm.agents, agents);
        let times = storm.since_start_us.unwrap_or_default();
        println!(
            "        {what}: half of them after {:.2} s, 99 % after {:.2} s, all after {:.2} s; server CPU {:.2} s",
            times.p50 / 1e6,
            times.p99 / 1e6,
            times.max / 1e6,
            storm.server_cpu_s.unwrap_or_default()
        );
        let last = if storm.since_start_us.is_some() { times.max / 1e6 } else { f64::INFINITY };
        claims.at_most(format!("{what}: the last one after"), last, limit, "s");
        if waits {
            claims.at_least(format!("{what}: the last one after"), last, pace.last_after(agents), "s");
            let had_to_wait = match (deferred.get(&(at - 1)), deferred.get(&(at + 1))) {
                (Some(before), Some(after)) => after - before,
                _ => f64::NAN,
            };
            let found = format!("{had_to_wait} connections");
            claims.add(format!("{what}: admission makes some of them wait"), found, had_to_wait > 0.0);
        }
        without_failures(&mut claims, &what, &lines[at..=at + 1]);
        claims.equal(format!("{what}: connected after heartbeats"), after.agents, agents);
    }
    admission(&Metrics::read(admin)?, agents, &mut claims)?;
    let settled = BEFORE + 2 * STORMS.len();
    let rss = |at: usize| lines[at].rss_bytes.unwrap_or(f64::NAN);
    let (before, after) = (rss(BEFORE - 1), rss(settled));
    println!("        memory at its peak: {:.1} MiB", mib(peak as f64));
    claims.at_most("memory afterwards", mib(after), mib(before * GROWTH + SLACK_BYTES), "MiB");
    Ok(claims)
}

/// How fast the server lets connections in.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// In a second.
    rate: u32,
    /// At once before that counts.
    burst: u32,
}

impl Pace {
    /// Seconds before which the last of so many cannot be in.
    fn last_after(self, agents: u64) -> f64 {
        agents.saturating_sub(self.burst.into()) as f64 / f64::from(self.rate)
    }
}

/// What the server says of those that came.
fn admission(page: &Metrics, agents: u64, claims: &mut Claims) -> Result<(), WorkspaceError> {
    let admitted = page.needed("opamp_connections_admitted_total")?;
    let due = agents * (1 + STORMS.len() as u64);
    // Whoever was sent away or gave up comes again.
    claims.add(
        "connections let in by the server",
        format!("{admitted} of {due} and more"),
        admitted >= due as f64,
    );
    println!(
        "        of them {} had to wait, {} s in all; {} gave up waiting, {} were sent away; {} full states were asked for later",
        page.needed(DEFERRED)?,
        page.needed("opamp_connection_wait_seconds_sum")?.round(),
        page.needed("opamp_connections_gone_total")?,
        page.value("opamp_admission_rejected_total").unwrap_or_default(),
        page.needed("opamp_full_state_deferred_total")?,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_not_in_before_all_but_the_burst_have_had_their_turn() {
        let pace = Pace { rate: 2_000, burst: 2_000 };
        assert_eq!(pace.last_after(10_000), 4.0);
        assert_eq!(pace.last_after(1_000), 0.0);
    }
}
