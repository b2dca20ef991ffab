//! A fleet at rest: heartbeats, ten minutes, a database.

use std::thread;
use std::time::{Duration, Instant};

use crate::workspace::WorkspaceError;

use super::{Bench, Claims, Sample, mib, without_failures};
use crate::load::metrics::Metrics;
use crate::load::servers::Store;
use crate::load::statistics::Summary;

/// The phase of the heartbeats.
const HOLD: usize = 2;
/// So many looks at the process come to one at the metrics.
const PAGE_EVERY: usize = 10;
/// The part of that phase at its begin, in its middle and at its end whose memory is compared.
const WINDOW: f64 = 0.1;
/// What memory may have grown to from begin to end: what an allocator and a database's cache take before they are settled.
const GROWTH: f64 = 1.05;
/// What it may have grown to from the middle to the end: nothing that goes on.
const GROWTH_LATER: f64 = 1.01;

pub(super) fn run(bench: &Bench<'_>) -> Result<Claims, WorkspaceError> {
    let agents: u64 = bench.size(15_000, 1_000);
    let secs: u64 = bench.size(600, 40);
    let interval: u64 = bench.size(30, 5);
    let server = bench.server("server", false, Store::Sqlite, &[])?;
    let admin = server.admin.ok_or_else(|| WorkspaceError("ours has an admin port".to_owned()))?;
    let phases = [
        format!("connect:agents={agents},rate=1000,state=10k"),
        format!("settle:secs={}", bench.size(90, 5)),
        format!("hold:secs={secs},heartbeat={interval}"),
    ];
    let mut fleet = bench.fleet(&server, "steady", &phases)?;
    let begun = Instant::now();
    let expected = Duration::from_secs(secs + 180);
    let (mut samples, mut pages) = (Vec::new(), Vec::new());
    while fleet.runs() && begun.elapsed() < expected * 2 {
        // Not a moment longer: that they leave at the end is written, and rightly so.
        if fleet.ended() == HOLD {
            if samples.len() % PAGE_EVERY == 0 {
                pages.push(Metrics::read(admin)?);
            }
            let at_s = begun.elapsed().as_secs_f64();
            samples.push(Sample { at_s, phase: HOLD, usage: server.usage()? });
        }
        thread::sleep(Duration::from_secs(1));
    }
    let lines = fleet.finish(expected)?;
    let [before, .., after] = &pages[..] else {
        return Err(WorkspaceError("the heartbeats ended before they were seen to begin".to_owned()));
    };
    let hold = &lines[HOLD];
    let mut claims = Claims::default();
    claims.equal("agents connected at the end", hold.agents, agents);
    without_failures(&mut claims, "all phases", &lines);
    let due = agents * secs / interval;
    let enough = hold.done * 100 >= due * 97;
    claims.add("heartbeats answered", format!("{} of about {due}", hold.done), enough);
    flat(&mut claims, &samples);
    let cpu = hold.server_cpu_s.unwrap_or(f64::INFINITY);
    println!(
        "        CPU: {:.1} µs a heartbeat with everything that goes on beside",
        hold.cpu_us_per_unit.unwrap_or_default()
    );
    claims.at_most("CPU, of one core", cpu / hold.seconds * 100.0, 5.0, "%");
    let delta = |name: &str| Ok::<f64, WorkspaceError>(after.needed(name)? - before.needed(name)?);
    claims.at_most(
        "rows written because of heartbeats",
        delta("opamp_store_rows_written_total")?,
        0.0,
        "rows",
    );
    let (checkpoints, rows) = (
        delta("opamp_store_checkpoints_written_total")?,
        delta("opamp_store_checkpoint_rows_written_total")?,
    );
    println!(
        "        {checkpoints} checkpoints in {rows} rows, in {} transactions",
        delta("opamp_store_transactions_total")?
    );
    // One checkpoint of every agent a minute, packed.
    let minutes = secs as f64 / 60.0;
    claims.at_most("packed rows of checkpoints a minute", rows / minutes, agents as f64 / 200.0, "rows");
    Ok(claims)
}

/// That memory is at the end what it was at the begin.
fn flat(claims: &mut Claims, samples: &[Sample]) {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        claims.add("memory", "not measured", false);
        return;
    };
    let window = (last.at_s - first.at_s) * WINDOW;
    let median = |of: &dyn Fn(&Sample) -> bool| {
        let found: Vec<f64> = samples.iter().filter(|s| of(s)).map(|s| s.usage.rss_bytes as f64).collect();
        Summary::of(&found).map_or(f64::NAN, |found| found.median)
    };
    let begin = median(&|sample| sample.at_s <= first.at_s + window);
    let half = f64::midpoint(first.at_s, last.at_s);
    let middle = median(&|sample| (sample.at_s - half).abs() <= window / 2.0);
    let end = median(&|sample| sample.at_s >= last.at_s - window);
    let [at_begin, at_half, at_end] = [begin, middle, end].map(mib);
    println!(
        "        memory: {at_begin:.1} MiB at the begin, {at_half:.1} MiB at half-time, {at_end:.1} MiB at the end"
    );
    claims.at_most("memory at the end beside the begin", end / begin, GROWTH, "times");
    claims.at_most("memory at the end beside half-time", end / middle, GROWTH_LATER, "times");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::usage::Usage;

    fn judged(rss: impl Fn(u32) -> u64) -> bool {
        let sample = |second: u32| Sample {
            at_s: second.into(),
            phase: HOLD,
            usage: Usage { cpu_s: 0.0, rss_bytes: rss(second) },
        };
        let mut claims = Claims::default();
        flat(&mut claims, &(0..600).map(sample).collect::<Vec<_>>());
        claims.none_broken()
    }

    #[test]
    fn memory_is_flat_if_it_ends_as_it_began_and_not_if_it_creeps() {
        assert!(judged(|_| 100 << 20));
        assert!(judged(|second| if second == 300 { 500 << 20 } else { 100 << 20 }));
        // Settles in the first minutes.
        assert!(judged(|second| (100 << 20) + u64::from(second.min(250)) * (15 << 10)));
        // Never settles.
        assert!(!judged(|second| (100 << 20) + u64::from(second) * (6 << 10)));
        assert!(!judged(|second| if second < 60 { 100 << 20 } else { 110 << 20 }));
    }
}
