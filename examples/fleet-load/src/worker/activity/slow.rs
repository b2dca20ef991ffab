//! Some agents come again with connections that hold little, and take nothing from them any more.

use super::{
    Activity, Step,
    arrivals::{Arrivals, First},
    quiet::share,
};
use crate::{
    report::Seen,
    worker::engine::{Engine, Happened},
};

/// How much longer than planned it may take until all of them are there.
const PATIENCE_NS: u64 = 60_000_000_000;

pub(super) struct Slow {
    arrivals: Arrivals,
    wanted: u64,
    started_ns: u64,
    now_ns: u64,
    until_ns: u64,
    missing: u64,
}

impl Slow {
    /// So many of the agents from here on; the others read what has piled up.
    pub(super) fn start(engine: &mut Engine, percent: f64, until_ns: u64) -> Self {
        let now = engine.clock();
        let agents = engine.agents.len();
        let slow = share(agents, percent);
        let mut arrivals = Arrivals::new(now, First::Heartbeat, slow);
        let mut wanted = 0;
        for at in 0..agents {
            // Spread evenly: the share grows by one at every agent that is chosen.
            let chosen = (at + 1) * slow / agents > at * slow / agents;
            let agent = &mut engine.agents[at];
            agent.narrow = chosen;
            match (agent.slow, chosen) {
                (true, false) => {
                    agent.slow = false;
                    engine.read(at);
                }
                (false, true) if agent.sequence > 0 => {
                    engine.drop_link(at);
                    arrivals.add(at, now);
                    wanted += 1;
                }
                _ => {}
            }
        }
        Self { arrivals, wanted, started_ns: now, now_ns: now, until_ns, missing: 0 }
    }
}

impl Activity for Slow {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        let now = engine.clock();
        self.now_ns = now;
        self.missing = self.arrivals.missing() as u64;
        if now >= self.until_ns && (self.missing == 0 || now >= self.until_ns + PATIENCE_NS) {
            let slow = engine.agents.iter().filter(|agent| agent.slow).count();
            engine.counts.add_n("slow", slow as u64);
            return Step::Done;
        }
        let due = self.arrivals.tick(engine);
        Step::Wait(if now < self.until_ns { due.map(|due| due.min(self.until_ns)) } else { due })
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        let arrived = self.arrivals.on(engine, happened);
        if let Happened::Answered { agent, .. } = happened
            && arrived
        {
            engine.agents[agent].slow = true;
        }
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen { elapsed_ns: self.now_ns - self.started_ns, ..Default::default() };
        seen.failures.add_n("not_slow", self.missing);
        seen
    }

    /// Those that were slow until now may find out that they were too slow for the server.
    fn provokes(&self, failure: &str) -> bool {
        failure.starts_with("closed") || failure == "connection_reset"
    }

    fn progress(&self, _engine: &Engine) -> (u64, u64) {
        (self.arrivals.arrived, self.wanted)
    }
}
