//! Agents drop their connection and come back: all at once, or some all the time.

use super::{
    Activity, SECOND, Step,
    arrivals::{Arrivals, CONNECTING_MAX, First},
};
use crate::{
    report::Seen,
    worker::engine::{Engine, Happened},
};

/// How much longer than planned the last agent may take to be back, with Retry-After and all.
const PATIENCE_NS: u64 = 300_000_000_000;

/// All drop at once, and come back spread over a time.
pub(super) struct Reconnect {
    arrivals: Arrivals,
    wanted: u64,
    started_ns: u64,
    ended_ns: u64,
    give_up_ns: u64,
    missing: u64,
}

impl Reconnect {
    pub(super) fn start(engine: &mut Engine, within_ns: u64) -> Self {
        let now = engine.clock();
        // As many at once as there are: what holds them back has to be the server.
        let mut arrivals = Arrivals::new(now, First::Heartbeat, usize::MAX);
        // Also those that have lost their connection before.
        let agents: Vec<usize> =
            (0..engine.agents.len()).filter(|at| engine.agents[*at].sequence > 0).collect();
        for (at, agent) in agents.iter().enumerate() {
            engine.drop_link(*agent);
            let place = u128::from(within_ns) * at as u128 / agents.len() as u128;
            arrivals.add(*agent, now + place as u64);
        }
        Self {
            arrivals,
            wanted: agents.len() as u64,
            started_ns: now,
            ended_ns: now,
            give_up_ns: now + within_ns + PATIENCE_NS,
            missing: 0,
        }
    }
}

impl Activity for Reconnect {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        if self.arrivals.missing() == 0 {
            return Step::Done;
        }
        if engine.clock() >= self.give_up_ns {
            self.missing = self.arrivals.missing() as u64;
            return Step::Done;
        }
        Step::Wait(self.arrivals.tick(engine))
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        if self.arrivals.on(engine, happened) {
            self.ended_ns = engine.now();
        }
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen {
            units: self.arrivals.arrived,
            elapsed_ns: self.ended_ns - self.started_ns,
            latency: std::mem::take(&mut self.arrivals.latency),
            since_start: std::mem::take(&mut self.arrivals.since_start),
            ..Default::default()
        };
        seen.failures.add_n("not_back", self.missing);
        seen
    }

    fn progress(&self, _engine: &Engine) -> (u64, u64) {
        (self.arrivals.arrived, self.wanted)
    }
}

/// Some drop and come back all the time.
pub(super) struct Churn {
    arrivals: Arrivals,
    interval_ns: f64,
    dropped: u64,
    next: usize,
    started_ns: u64,
    ended_ns: u64,
    until_ns: u64,
    missing: u64,
}

impl Churn {
    pub(super) fn start(engine: &mut Engine, rate: f64, until_ns: u64) -> Self {
        let now = engine.clock();
        Self {
            arrivals: Arrivals::new(now, First::Heartbeat, CONNECTING_MAX),
            interval_ns: SECOND / rate,
            dropped: 0,
            next: 0,
            started_ns: now,
            ended_ns: now,
            until_ns,
            missing: 0,
        }
    }

    /// Drops whose turn it is, and says when the next is.
    fn drop_due(&mut self, engine: &mut Engine, now: u64) -> u64 {
        loop {
            let due = self.started_ns + (self.interval_ns * self.dropped as f64) as u64;
            if due > now || due >= self.until_ns || engine.agents.is_empty() {
                return due.min(self.until_ns);
            }
            self.dropped += 1;
            let agent = self.next;
            self.next = (self.next + 1) % engine.agents.len();
            if engine.agents[agent].can_send() {
                engine.drop_link(agent);
                self.arrivals.add(agent, now);
            }
        }
    }
}

impl Activity for Churn {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        let now = engine.clock();
        let next = if now < self.until_ns { Some(self.drop_due(engine, now)) } else { None };
        if next.is_none() {
            if self.arrivals.missing() == 0 {
                return Step::Done;
            }
            if now >= self.until_ns + PATIENCE_NS {
                self.missing = self.arrivals.missing() as u64;
                return Step::Done;
            }
        }
        let wake = self.arrivals.tick(engine);
        Step::Wait(match (wake, next) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        })
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        if self.arrivals.on(engine, happened) {
            self.ended_ns = engine.now();
        }
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen {
            units: self.arrivals.arrived,
            elapsed_ns: self.ended_ns - self.started_ns,
            latency: std::mem::take(&mut self.arrivals.latency),
            ..Default::default()
        };
        seen.failures.add_n("not_back", self.missing);
        seen
    }

    fn progress(&self, engine: &Engine) -> (u64, u64) {
        (engine.now() - self.started_ns, self.until_ns - self.started_ns)
    }
}
