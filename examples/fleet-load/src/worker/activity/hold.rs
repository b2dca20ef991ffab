//! The steady state: every agent sends a heartbeat in an interval, for as long as one likes.

use super::{Activity, Step};
use crate::{
    latency::Latency,
    message::Kind,
    report::Seen,
    worker::engine::{Engine, Happened},
};

/// Heartbeats sent at once when the load generator is behind.
const BURST_MAX: usize = 64;

pub(super) struct Hold {
    interval_ns: u64,
    sent: u64,
    answered: u64,
    lost: u64,
    /// Whose time came before the end and who were not sent, because the load generator was behind.
    not_sent: u64,
    latency: Latency,
    late: Latency,
    started_ns: u64,
    ended_ns: u64,
    until_ns: u64,
}

impl Hold {
    pub(super) fn start(engine: &mut Engine, interval_ns: u64, until_ns: u64) -> Self {
        let now = engine.clock();
        Self {
            interval_ns,
            sent: 0,
            answered: 0,
            lost: 0,
            not_sent: 0,
            latency: Latency::new(),
            late: Latency::new(),
            started_ns: now,
            ended_ns: now,
            until_ns,
        }
    }

    /// Agents are spread over the interval, and each keeps its place in it.
    fn due(&self, agents: usize) -> u64 {
        self.started_ns
            + (u128::from(self.sent) * u128::from(self.interval_ns) / agents.max(1) as u128) as u64
    }

    fn send_due(&mut self, engine: &mut Engine, now: u64) -> u64 {
        let agents = engine.agents.len();
        for _ in 0..BURST_MAX {
            let due = self.due(agents);
            if due > now {
                return due;
            }
            let agent = (self.sent % agents.max(1) as u64) as usize;
            self.sent += 1;
            if !engine.agents[agent].can_send() {
                continue;
            }
            if engine.agents[agent].outstanding > 0 {
                // A whole interval without an answer.
                self.lost += 1;
                engine.agents[agent].outstanding = 0;
            }
            engine.send(agent, Kind::Heartbeat);
            self.late.record_ns(engine.agents[agent].sent_ns.saturating_sub(due));
        }
        now
    }
}

impl Activity for Hold {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        let now = engine.clock();
        if now < self.until_ns && !engine.agents.is_empty() {
            return Step::Wait(Some(self.send_due(engine, now).min(self.until_ns)));
        }
        let agents = engine.agents.len() as u128;
        let due = u128::from(self.until_ns - self.started_ns) * agents / u128::from(self.interval_ns.max(1));
        self.not_sent = u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(self.sent);
        self.ended_ns = self.ended_ns.max(self.until_ns);
        let waiting = engine.agents.iter().filter(|agent| agent.can_send() && agent.outstanding > 0).count();
        if waiting == 0 {
            return Step::Done;
        }
        if now > self.until_ns + engine.answer_timeout_ns {
            self.lost += waiting as u64;
            return Step::Done;
        }
        Step::Wait(None)
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        if let Happened::Answered { latency_ns, .. } = happened {
            self.answered += 1;
            self.latency.record_ns(latency_ns);
            self.ended_ns = engine.now();
        }
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen {
            units: self.answered,
            elapsed_ns: self.ended_ns - self.started_ns,
            latency: std::mem::take(&mut self.latency),
            late: std::mem::take(&mut self.late),
            ..Default::default()
        };
        seen.failures.add_n("answers_lost", self.lost);
        seen.counts.add_n("not_sent", self.not_sent);
        seen
    }

    fn progress(&self, engine: &Engine) -> (u64, u64) {
        (engine.now() - self.started_ns, self.until_ns - self.started_ns)
    }
}
