//! Every figure: where it stands in the report of a run, and what is asked of it.

use super::Bound::{AtMost, BelowGo, GoAtLeast, TimesFloor};
use super::Unit::{Bytes, Micros, Percent};
use super::{Figure, KB};
use crate::load::line::Line;

use self::Profile::{Kept, Unkept};

/// Which agents a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Profile {
    /// They say 10 KB of what nobody keeps.
    Unkept,
    /// They report 10 KB of state.
    Kept,
}

/// Where the phases of a run stand in its report.
pub(crate) mod phase {
    /// Connecting.
    pub(crate) const CONNECT: usize = 0;
    /// At rest after that.
    pub(crate) const IDLE: usize = 1;
    /// Heartbeats as fast as they are answered.
    pub(crate) const HEARTBEAT: usize = 2;
    /// Statuses of 2 KB, likewise.
    pub(crate) const STATUS_2K: usize = 3;
    /// Full states of 10 KB, likewise.
    pub(crate) const STATUS_10K: usize = 4;
    /// Heartbeats at a rate.
    pub(crate) const HEARTBEAT_PACED: usize = 5;
    /// Full states of 10 KB at a rate.
    pub(crate) const STATUS_10K_PACED: usize = 6;
    /// At rest after that: agents are what they were before the load.
    pub(crate) const SETTLE: usize = 7;
    /// A config of 4 KB for everyone.
    pub(crate) const PUSH_4K: usize = 8;
    /// A config of 64 KB for everyone.
    pub(crate) const PUSH_64K: usize = 9;
    /// At rest after that: agents have another config than before.
    pub(crate) const SETTLE_PUSHED: usize = 10;
}

/// The report of a run.
pub(super) struct Phases<'a>(pub(super) &'a [Line]);

impl Phases<'_> {
    fn cpu(&self, at: usize) -> Option<f64> {
        self.0.get(at)?.cpu_us_per_unit
    }

    fn rss(&self, at: usize) -> Option<f64> {
        self.0.get(at)?.rss_per_agent
    }
}

/// Every row, in the order of the budget.
pub(crate) const FIGURES: &[Figure] = &[
    Figure {
        title: "memory of an idle ws agent, state not kept",
        tls: false,
        profile: Unkept,
        unit: Bytes,
        must: &[AtMost(4.0 * KB), BelowGo],
        aim: &[AtMost(2.0 * KB)],
        read: |run| run.rss(phase::IDLE),
    },
    Figure {
        title: "memory of an idle wss agent, state not kept",
        tls: true,
        profile: Unkept,
        unit: Bytes,
        must: &[AtMost(12.0 * KB), BelowGo],
        aim: &[AtMost(6.5 * KB)],
        read: |run| run.rss(phase::IDLE),
    },
    Figure {
        title: "memory of a ws agent with its 10 KB state",
        tls: false,
        profile: Kept,
        unit: Bytes,
        must: &[AtMost(15.0 * KB), BelowGo],
        aim: &[AtMost(13.0 * KB)],
        read: |run| run.rss(phase::IDLE),
    },
    Figure {
        title: "memory of a wss agent with its 10 KB state",
        tls: true,
        profile: Kept,
        unit: Bytes,
        must: &[BelowGo],
        aim: &[AtMost(17.5 * KB)],
        read: |run| run.rss(phase::IDLE),
    },
    Figure {
        title: "growth after load, ws",
        tls: false,
        profile: Kept,
        unit: Percent,
        must: &[AtMost(10.0)],
        aim: &[AtMost(5.0), BelowGo],
        read: |run| growth(run, phase::SETTLE),
    },
    Figure {
        title: "growth after load, wss",
        tls: true,
        profile: Kept,
        unit: Percent,
        must: &[AtMost(10.0)],
        aim: &[AtMost(5.0), BelowGo],
        read: |run| growth(run, phase::SETTLE),
    },
    Figure {
        title: "growth a minute after a 64 KB push, ws",
        tls: false,
        profile: Kept,
        unit: Percent,
        must: &[],
        aim: &[AtMost(5.0), BelowGo],
        read: |run| growth(run, phase::SETTLE_PUSHED),
    },
    Figure {
        title: "growth a minute after a 64 KB push, wss",
        tls: true,
        profile: Kept,
        unit: Percent,
        must: &[],
        aim: &[AtMost(5.0), BelowGo],
        read: |run| growth(run, phase::SETTLE_PUSHED),
    },
    Figure {
        title: "heartbeat and reply, 1,000/s",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[GoAtLeast(2.7)],
        read: |run| run.cpu(phase::HEARTBEAT_PACED),
    },
    Figure {
        title: "heartbeat and reply, saturated",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[TimesFloor(1.35), BelowGo],
        aim: &[TimesFloor(1.2)],
        read: |run| run.cpu(phase::HEARTBEAT),
    },
    Figure {
        title: "2 KB status, saturated",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[TimesFloor(1.4)],
        read: |run| run.cpu(phase::STATUS_2K),
    },
    Figure {
        title: "10 KB full state, saturated",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[TimesFloor(1.8), BelowGo],
        aim: &[TimesFloor(1.5)],
        read: |run| run.cpu(phase::STATUS_10K),
    },
    Figure {
        title: "4 KB config to every agent, APPLIED answered",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[AtMost(20.0), BelowGo],
        aim: &[AtMost(18.0)],
        read: |run| run.cpu(phase::PUSH_4K),
    },
    Figure {
        title: "64 KB config to every agent, APPLIED answered",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[],
        read: |run| run.cpu(phase::PUSH_64K),
    },
    Figure {
        title: "connect, upgrade, 10 KB state, ws",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[AtMost(45.0)],
        read: |run| run.cpu(phase::CONNECT),
    },
    Figure {
        title: "connect, upgrade, 10 KB state, wss",
        tls: true,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[AtMost(150.0)],
        read: |run| run.cpu(phase::CONNECT),
    },
    Figure {
        title: "p99.9 of 10 KB statuses at 1,000/s",
        tls: false,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[AtMost(400.0)],
        read: |run| {
            // A load generator that is late measures itself.
            let line = run.0.get(phase::STATUS_10K_PACED).filter(|line| line.on_time())?;
            Some(line.latency_us?.p99_9)
        },
    },
    Figure {
        title: "10 KB full state over wss, saturated",
        tls: true,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[],
        read: |run| run.cpu(phase::STATUS_10K),
    },
    Figure {
        title: "4 KB config to every agent over wss",
        tls: true,
        profile: Kept,
        unit: Micros,
        must: &[BelowGo],
        aim: &[],
        read: |run| run.cpu(phase::PUSH_4K),
    },
];

/// How much memory an agent takes more at rest in that phase than at rest before the load.
fn growth(run: &Phases<'_>, at_rest: usize) -> Option<f64> {
    let (before, after) = (run.rss(phase::IDLE)?, run.rss(at_rest)?);
    (before > 0.0).then(|| (after / before - 1.0) * 100.0)
}
