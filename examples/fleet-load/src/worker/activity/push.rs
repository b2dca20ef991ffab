//! Agents wait for a config, apply it, and wait for the answer to that.

use super::{Activity, Step};
use crate::{
    latency::Latency,
    message::Kind,
    report::Seen,
    worker::engine::{Engine, Happened},
};

pub(super) struct Push {
    /// Configs from this number on are new since the start, as the one that is pushed; older ones are what a late agent
    /// still reports.
    new_from: u16,
    missing: Vec<bool>,
    left: u64,
    applied: u64,
    since_start: Latency,
    latency: Latency,
    started_ns: u64,
    ended_ns: u64,
    until_ns: u64,
    lost: u64,
    polls: Option<Polls>,
}

/// Agents that have to ask: each does so in an interval, until it has its config.
struct Polls {
    interval_ns: u64,
    turns: u64,
}

/// Polls of one agent in the time that it may take.
const POLLS: u64 = 6;
/// Polls sent at once.
const BURST_MAX: usize = 64;

impl Push {
    /// Every agent that is connected now and takes what is sent has to apply it.
    pub(super) fn start(engine: &mut Engine, until_ns: u64) -> Self {
        let now = engine.clock();
        let missing: Vec<bool> = engine.agents.iter().map(super::super::engine::Agent::can_send).collect();
        let left = missing.iter().filter(|missing| **missing).count() as u64;
        let polls = (!engine.way.target.transport.websocket())
            .then(|| Polls { interval_ns: (until_ns - now) / POLLS, turns: 0 });
        Self {
            new_from: engine.messages.configs(),
            missing,
            left,
            applied: 0,
            since_start: Latency::new(),
            latency: Latency::new(),
            started_ns: now,
            ended_ns: now,
            until_ns,
            lost: 0,
            polls,
        }
    }

    /// Lets those ask whose turn it is, and says when the next turn is.
    fn poll_due(&mut self, engine: &mut Engine, now: u64) -> u64 {
        let agents = engine.agents.len() as u64;
        for _ in 0..BURST_MAX {
            let Some(polls) = &mut self.polls else { break };
            let place = u128::from(polls.turns) * u128::from(polls.interval_ns) / u128::from(agents.max(1));
            let due = self.started_ns + place as u64;
            if due > now {
                return due.min(self.until_ns);
            }
            let agent = (polls.turns % agents.max(1)) as usize;
            polls.turns += 1;
            if self.missing.get(agent) == Some(&true) && engine.agents[agent].outstanding == 0 {
                engine.send(agent, Kind::Heartbeat);
            }
        }
        if self.polls.is_some() { now } else { self.until_ns }
    }
}

impl Activity for Push {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        if self.left == 0 {
            return Step::Done;
        }
        let now = engine.clock();
        if now >= self.until_ns {
            self.lost += self.left;
            return Step::Done;
        }
        Step::Wait(Some(self.poll_due(engine, now)))
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        let now = engine.now();
        match happened {
            Happened::Answered { latency_ns, .. } => self.latency.record_ns(latency_ns),
            Happened::Applied { agent } => {
                if engine.agents[agent].config < self.new_from {
                    engine.counts.add("applied_an_older_config");
                } else if std::mem::take(&mut self.missing[agent]) {
                    self.left -= 1;
                    self.applied += 1;
                    self.ended_ns = now;
                    self.since_start.record_ns(now - self.started_ns);
                } else {
                    engine.counts.add("applied_again");
                }
            }
            Happened::Down { agent, .. } => {
                if std::mem::take(&mut self.missing[agent]) {
                    self.left -= 1;
                    self.lost += 1;
                }
            }
            Happened::Opened { .. } => {}
        }
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen {
            units: self.applied,
            elapsed_ns: self.ended_ns - self.started_ns,
            latency: std::mem::take(&mut self.latency),
            since_start: std::mem::take(&mut self.since_start),
            ..Default::default()
        };
        seen.failures.add_n("not_applied", self.lost);
        seen
    }

    fn progress(&self, _engine: &Engine) -> (u64, u64) {
        (self.applied, self.applied + self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::{Envelope, Messages, State},
        target::Target,
        worker::engine::Way,
    };

    #[test]
    fn only_the_config_that_is_pushed_counts_as_applied() {
        let target = Target::new("ws://127.0.0.1:1", false).unwrap();
        let way = Way { target, tls: None, upgrade: Vec::new(), accept: String::new() };
        let (mut engine, _waker) = Engine::new(way, Messages::new(Envelope::WebSocket)).unwrap();
        engine.add_agents(1, 0..1, State::None);
        let older = engine.messages.learn(b"older", b"").unwrap();
        let mut push = Push::start(&mut engine, u64::MAX);
        (push.missing, push.left) = (vec![true], 1);
        engine.agents[0].config = older;
        push.on(&mut engine, Happened::Applied { agent: 0 });
        assert_eq!((push.applied, push.left), (0, 1));
        engine.agents[0].config = engine.messages.learn(b"pushed", b"").unwrap();
        push.on(&mut engine, Happened::Applied { agent: 0 });
        assert_eq!((push.applied, push.left), (1, 0));
        assert_eq!(engine.counts.count("applied_an_older_config"), 1);
    }
}
