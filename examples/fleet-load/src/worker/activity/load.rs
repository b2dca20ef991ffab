//! Messages under load: in turn at a rate, or from a few agents as fast as answers come.

use super::{Activity, SECOND, Step};
use crate::{
    latency::Latency,
    message::{Kind, State},
    phase::{Pace, Traffic},
    report::Seen,
    worker::engine::{Engine, Happened},
};

/// Messages sent at once when the load generator is behind, so that answers are read in between.
const BURST_MAX: usize = 64;

pub(super) struct Load {
    kind: Kind,
    pace: Turns,
    /// Whether an agent waits for an answer to a message of this phase.
    waiting: Vec<bool>,
    in_flight: u64,
    answered: u64,
    latency: Latency,
    late: Latency,
    started_ns: u64,
    until_ns: u64,
    ended_ns: u64,
    lost: u64,
    /// Whose time came before the end and who were not sent, because the load generator was behind.
    not_sent: u64,
}

enum Turns {
    /// Whose turn it is, and when.
    Rate { interval_ns: f64, sent: u64, next: usize, stride: usize },
    /// Each sends when it is answered.
    Saturated,
}

pub(super) fn start(engine: &mut Engine, message: Traffic, pace: Pace, until_ns: u64) -> Load {
    let now = engine.clock();
    let agents = engine.agents.len();
    let mut load = Load {
        kind: match message {
            Traffic::Heartbeat => Kind::Heartbeat,
            Traffic::Status2k => Kind::Status,
            Traffic::Status10k => Kind::Full(State::Kib10),
            Traffic::Status10kMany => Kind::Full(State::Kib10Many),
        },
        pace: Turns::Saturated,
        waiting: vec![false; agents],
        in_flight: 0,
        answered: 0,
        latency: Latency::new(),
        late: Latency::new(),
        started_ns: now,
        until_ns,
        ended_ns: now,
        lost: 0,
        not_sent: 0,
    };
    match pace {
        Pace::Rate(rate) => {
            load.pace = Turns::Rate { interval_ns: SECOND / rate, sent: 0, next: 0, stride: stride(agents) };
        }
        Pace::Saturated { active } => {
            // Spread over all agents, so that they are not just the ones that connected first.
            let ready: Vec<usize> = (0..agents).filter(|agent| engine.agents[*agent].can_send()).collect();
            let active = (active as usize).min(ready.len());
            for at in 0..active {
                load.send(engine, ready[at * ready.len() / active]);
            }
        }
    }
    load
}

impl Load {
    fn send(&mut self, engine: &mut Engine, agent: usize) {
        engine.send(agent, self.kind);
        if !std::mem::replace(&mut self.waiting[agent], true) {
            self.in_flight += 1;
        }
    }

    /// Sends what is due, and says when the next is.
    fn send_due(&mut self, engine: &mut Engine, now: u64) -> u64 {
        for _ in 0..BURST_MAX {
            let Turns::Rate { interval_ns, sent, next, stride } = &mut self.pace else { break };
            let due = self.started_ns + (*interval_ns * *sent as f64) as u64;
            if due > now || due >= self.until_ns {
                return due.min(self.until_ns);
            }
            *sent += 1;
            let agents = engine.agents.len();
            let mut chosen = None;
            for _ in 0..agents.min(BURST_MAX) {
                let agent = *next;
                *next = (*next + *stride) % agents;
                if engine.agents[agent].can_send() && engine.agents[agent].outstanding == 0 {
                    chosen = Some(agent);
                    break;
                }
            }
            match chosen {
                Some(agent) => {
                    self.send(engine, agent);
                    self.late.record_ns(engine.agents[agent].sent_ns.saturating_sub(due));
                }
                None => engine.counts.add("skipped"),
            }
        }
        now
    }
}

impl Activity for Load {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        let now = engine.clock();
        if now < self.until_ns {
            return match self.pace {
                Turns::Rate { .. } => Step::Wait(Some(self.send_due(engine, now))),
                Turns::Saturated if self.in_flight == 0 => Step::Done,
                Turns::Saturated => Step::Wait(Some(self.until_ns)),
            };
        }
        if let Turns::Rate { interval_ns, sent, .. } = self.pace {
            self.not_sent = due_by(self.until_ns - self.started_ns, interval_ns).saturating_sub(sent);
        }
        self.ended_ns = self.ended_ns.max(self.until_ns);
        if self.in_flight == 0 {
            return Step::Done;
        }
        if now > self.until_ns + engine.answer_timeout_ns {
            self.lost = self.in_flight;
            return Step::Done;
        }
        Step::Wait(None)
    }

    fn on(&mut self, engine: &mut Engine, happened: Happened) {
        match happened {
            Happened::Answered { agent, latency_ns } if self.waiting[agent] => {
                self.waiting[agent] = false;
                self.in_flight -= 1;
                self.answered += 1;
                self.latency.record_ns(latency_ns);
                let now = engine.now();
                self.ended_ns = now;
                if now < self.until_ns && matches!(self.pace, Turns::Saturated) {
                    self.send(engine, agent);
                }
            }
            Happened::Down { agent, .. } if self.waiting[agent] => {
                self.waiting[agent] = false;
                self.in_flight -= 1;
                self.lost += 1;
            }
            _ => {}
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
        if self.answered == 0 {
            seen.failures.add("nothing_answered");
        }
        seen
    }

    fn progress(&self, engine: &Engine) -> (u64, u64) {
        (engine.now() - self.started_ns, self.until_ns - self.started_ns)
    }
}

/// Messages whose time comes within a phase, the first at its start and none at its end.
fn due_by(phase_ns: u64, interval_ns: f64) -> u64 {
    (phase_ns as f64 / interval_ns).ceil() as u64
}

/// A step through all agents that visits each once before it begins anew, and neighbours not one after the other.
fn stride(agents: usize) -> usize {
    const fn common(a: usize, b: usize) -> usize {
        if b == 0 { a } else { common(b, a % b) }
    }
    (agents * 5 / 8..agents).find(|stride| *stride > 0 && common(*stride, agents) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_due_as_are_sent_by_one_that_is_never_late() {
        for (phase_ns, interval_ns) in [(10, 3.0), (9, 3.0), (1, 3.0), (1_000_000_000, 333_333.3)] {
            let sent = (0_u64..).take_while(|sent| ((interval_ns * *sent as f64) as u64) < phase_ns).count();
            assert!(due_by(phase_ns, interval_ns) <= sent as u64, "{phase_ns} {interval_ns}");
            assert!(due_by(phase_ns, interval_ns) + 1 >= sent as u64, "{phase_ns} {interval_ns}");
        }
    }

    #[test]
    fn a_stride_visits_every_agent_once() {
        for agents in 1..200 {
            let stride = stride(agents);
            let mut visited = vec![false; agents];
            let mut at = 0;
            for _ in 0..agents {
                assert!(!std::mem::replace(&mut visited[at], true));
                at = (at + stride) % agents;
            }
        }
    }
}
