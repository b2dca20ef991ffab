//! What members of a rollout take, counted at the allocator: while they are queued, and at most while the rollout runs, with
//! the locks and rates of its coordinator. Not a benchmark in time, so criterion's options mean nothing to it.
//!
//! The allocator that counts is the reason for a program of its own: it would slow the others down.

use opamp_benches::rollout::{Fleet, Prepared, sizes};

/// Fleets that are measured.
const AGENTS: [u32; 3] = [1_000, 100_000, 1_000_000];

fn main() {
    sizes(&AGENTS).iter().copied().for_each(measure);
}

fn measure(agents: u32) {
    let prepared = Prepared::new(agents, Fleet::Well);
    let script = prepared.script();
    let mut built = None;
    // Planned members are cloned for each engine: what they take is the engine's.
    let queued = allocation_counter::measure(|| built = Some(prepared.engine()));
    let Some((mut engine, mut shared, _)) = built else { return };
    let running = allocation_counter::measure(|| script.play(0, &mut engine, &mut shared));
    let a_member = |bytes: i64| bytes as f64 / f64::from(agents);
    let queued_bytes = queued.bytes_current;
    let most = queued_bytes.saturating_add(i64::try_from(running.bytes_max).unwrap_or(i64::MAX));
    println!(
        "rollout/memory/{agents:<9} {:>6.1} bytes a queued member, {:>6.1} at most while the rollout runs",
        a_member(queued_bytes),
        a_member(most),
    );
}
