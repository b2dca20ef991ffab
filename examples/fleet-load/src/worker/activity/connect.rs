//! Agents connect at a rate.

use super::{
    Activity, Step,
    arrivals::{Arrivals, CONNECTING_MAX, First},
    until,
};
use crate::{
    message::State,
    report::Seen,
    worker::engine::{Engine, Happened},
};

/// How much longer than planned it may take, with Retry-After and all.
const PATIENCE_SECS: f64 = 60.0;

pub(super) struct Connect {
    arrivals: Arrivals,
    wanted: u64,
    started_ns: u64,
    ended_ns: u64,
    give_up_ns: u64,
    missing: u64,
}

impl Connect {
    /// Connects agents until there are so many, the ones without a connection first.
    pub(super) fn start(engine: &mut Engine, agents: usize, rate: f64, state: State) -> Self {
        let now = engine.clock();
        let mut arrivals = Arrivals::new(now, First::State, CONNECTING_MAX);
        let mut wanted = 0;
        for agent in 0..agents.min(engine.agents.len()) {
            engine.agents[agent].state = state;
            if engine.agents[agent].link.is_none() {
                arrivals.add(agent, until(now, wanted as f64 / rate));
                wanted += 1;
            }
        }
        let give_up_ns = until(now, wanted as f64 / rate + PATIENCE_SECS);
        Self { arrivals, wanted, started_ns: now, ended_ns: now, give_up_ns, missing: 0 }
    }
}

impl Activity for Connect {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        let now = engine.clock();
        self.ended_ns = now;
        if self.arrivals.missing() == 0 {
            return Step::Done;
        }
        if now >= self.give_up_ns {
            self.missing = self.arrivals.missing() as u64;
            return Step::Done;
        }
        Step::Wait(self.arrivals.tick(engine))
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        self.arrivals.on(engine, happened);
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen {
            units: self.arrivals.arrived,
            elapsed_ns: self.ended_ns - self.started_ns,
            latency: std::mem::take(&mut self.arrivals.latency),
            ..Default::default()
        };
        seen.failures.add_n("not_connected", self.missing);
        seen
    }

    fn progress(&self, _engine: &Engine) -> (u64, u64) {
        (self.arrivals.arrived, self.wanted)
    }
}
