//! Nothing is sent; agents still answer what the server asks.

use super::{Activity, Step};
use crate::{
    message::Kind,
    report::Seen,
    worker::engine::{Engine, Happened},
};

pub(crate) struct Quiet {
    started_ns: Option<u64>,
    until_ns: u64,
    now_ns: u64,
}

impl Quiet {
    /// Until the next phase.
    pub(crate) const fn forever() -> Self {
        Self::until(u64::MAX)
    }

    pub(super) const fn until(until_ns: u64) -> Self {
        Self { started_ns: None, until_ns, now_ns: 0 }
    }

    /// Keeps so many connections that say nothing, beside the agents.
    pub(super) fn half_open(engine: &mut Engine, percent: f64, upgrades: bool, until_ns: u64) -> Self {
        engine.keep_mute(share(engine.agents.len(), percent), upgrades);
        Self::until(until_ns)
    }
}

impl Activity for Quiet {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        let now = engine.clock();
        self.started_ns.get_or_insert(now);
        self.now_ns = now;
        if now >= self.until_ns { Step::Done } else { Step::Wait(Some(self.until_ns)) }
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        // A connection that was still being made when its phase gave up.
        if let Happened::Opened { agent } = happened {
            engine.send(agent, Kind::First(engine.agents[agent].state));
        }
    }

    fn seen(&mut self) -> Seen {
        Seen { elapsed_ns: self.now_ns - self.started_ns.unwrap_or(self.now_ns), ..Default::default() }
    }

    fn progress(&self, _engine: &Engine) -> (u64, u64) {
        let started = self.started_ns.unwrap_or(self.now_ns);
        (self.now_ns - started, self.until_ns.saturating_sub(started))
    }
}

/// So many percent of the agents.
pub(super) fn share(agents: usize, percent: f64) -> usize {
    (agents as f64 * percent / 100.0).round() as usize
}
