//! Every agent announces a message of 64 MiB, sends a little of it, and leaves it at that: all of them together more than the
//! server may hold.

use std::time::Duration;

use crate::workspace::WorkspaceError;

use super::{Bench, Claims, mib, without_failures};
use crate::load::metrics::Metrics;
use crate::load::servers::Store;

/// The phases before the one in question.
const BEFORE: usize = 2;
/// Beyond the budget: what an allocator keeps.
const SLACK_BYTES: f64 = 16.0 * 1024.0 * 1024.0;

/// Without so many looks at the memory nothing is known of its peak: the messages stand for ten seconds.
const LOOKS_MIN: usize = 20;

pub(super) fn run(bench: &Bench<'_>) -> Result<Claims, WorkspaceError> {
    let agents: u64 = bench.size(10_000, 1_000);
    // Small enough to be noticed beside the agents themselves. What the agents send is several times as much.
    let budget: u32 = 64 << 20;
    let sent: u64 = bench.size(64 << 10, 256 << 10);
    let flags = ["--buffered-bytes-max", &budget.to_string()];
    let server = bench.server("server", false, Store::Memory, &flags)?;
    let phases = [
        format!("connect:agents={agents},rate=1000,state=10k"),
        "idle:secs=5".to_owned(),
        format!("announce:bytes=64MiB,sent={sent},secs=10"),
        "settle:secs=5".to_owned(),
    ];
    let looks = (Duration::from_millis(200), Duration::from_secs(60));
    let (lines, samples) = bench.watched(&server, "announce", &phases, looks)?;
    let before = lines[BEFORE - 1].rss_bytes.unwrap_or_default();
    let during = samples.iter().filter(|sample| sample.phase >= BEFORE);
    let looks_taken = samples.iter().filter(|sample| sample.phase == BEFORE).count();
    let peak = during.map(|sample| sample.usage.rss_bytes).max().unwrap_or_default();
    let mut claims = Claims::default();
    claims.equal("agents that announced 64 MiB", lines[BEFORE].done, agents);
    without_failures(&mut claims, "connecting", &lines[..BEFORE]);
    claims.add(
        "looks at its memory meanwhile",
        looks_taken.to_string(),
        looks_taken >= LOOKS_MIN && before > 0.0,
    );
    claims.at_most(
        "memory on top while they do, with a budget of 64 MiB",
        mib(peak as f64 - before),
        mib(f64::from(budget) + SLACK_BYTES),
        "MiB",
    );
    let admin = server.admin.ok_or_else(|| WorkspaceError("ours has an admin port".to_owned()))?;
    let page = Metrics::read(admin)?;
    let charged = page.needed("opamp_buffered_bytes_peak")?;
    claims.at_most("bytes charged to the budget, at their peak", mib(charged), mib(budget.into()), "MiB");
    let denied = page.needed("opamp_buffered_denied_total")?;
    let arrived = mib((agents * sent) as f64);
    claims.add(
        format!("some of what arrived, {arrived:.0} MiB, is refused"),
        format!("{denied} refusals"),
        denied > 0.0,
    );
    claims.at_most("bytes charged once all are gone", page.needed("opamp_buffered_bytes")?, 0.0, "bytes");
    Ok(claims)
}
