//! Agents that connect, say their first message, and come again if they are sent away.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    time::Duration,
};

use super::super::engine::{Engine, Happened};
use crate::{latency::Latency, message::Kind};

/// Connections being made at once where agents come at a rate of their own: more would queue in the kernel, and their
/// waiting would look like the server's.
pub(super) const CONNECTING_MAX: usize = 512;
/// An attempt that takes longer is given up.
const ATTEMPT_NS_MAX: u64 = 30_000_000_000;
/// How often attempts are looked at for that.
const LOOK_NS: u64 = 1_000_000_000;
/// When an agent comes again that was not told when.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Agents on their way.
pub(super) struct Arrivals {
    due: BinaryHeap<Reverse<(u64, usize)>>,
    connecting: HashSet<usize>,
    connecting_max: usize,
    look_ns: u64,
    started_ns: u64,
    /// Whether they say that they are there, or have full states to tell.
    first: First,
    pub(super) arrived: u64,
    /// From the start of the attempt that succeeded.
    pub(super) latency: Latency,
    /// From the start of the phase.
    pub(super) since_start: Latency,
}

/// What agents say first.
#[derive(Clone, Copy)]
pub(super) enum First {
    /// Only a heartbeat: the server remembers them.
    Heartbeat,
    /// Their state.
    State,
}

impl Arrivals {
    /// None yet, of which at most so many are being connected at once.
    pub(super) fn new(now_ns: u64, first: First, connecting_max: usize) -> Self {
        Self {
            due: BinaryHeap::new(),
            connecting: HashSet::new(),
            connecting_max,
            look_ns: now_ns + LOOK_NS,
            started_ns: now_ns,
            first,
            arrived: 0,
            latency: Latency::new(),
            since_start: Latency::new(),
        }
    }

    /// An agent that is to connect at a time.
    pub(super) fn add(&mut self, agent: usize, due_ns: u64) {
        self.due.push(Reverse((due_ns, agent)));
    }

    /// How many are not there yet.
    pub(super) fn missing(&self) -> usize {
        self.due.len() + self.connecting.len()
    }

    /// Starts what is due, and says when more is.
    pub(super) fn tick(&mut self, engine: &mut Engine) -> Option<u64> {
        let now = engine.clock();
        if now >= self.look_ns {
            self.look_ns = now + LOOK_NS;
            for &agent in &self.connecting {
                let started = engine.agents[agent].link.as_ref().map_or(0, |link| link.started_ns);
                if now.saturating_sub(started) > ATTEMPT_NS_MAX {
                    engine.down(agent, "connect_timeout", None);
                }
            }
        }
        while let Some(Reverse((due, agent))) = self.due.peek().copied() {
            if self.connecting.len() >= self.connecting_max {
                return Some(self.look_ns);
            }
            if due > now {
                return Some(due.min(self.look_ns));
            }
            self.due.pop();
            self.connecting.insert(agent);
            engine.connect(agent);
        }
        Some(self.look_ns)
    }

    /// Takes note of something; true if an agent has arrived.
    pub(super) fn on(&mut self, engine: &mut Engine, happened: Happened) -> bool {
        match happened {
            Happened::Opened { agent } => {
                let kind = match self.first {
                    First::Heartbeat => Kind::Heartbeat,
                    First::State => Kind::First(engine.agents[agent].state),
                };
                engine.send(agent, kind);
            }
            Happened::Answered { agent, .. } => {
                if self.forget(agent) {
                    let now = engine.now();
                    let started = engine.agents[agent].link.as_ref().map_or(now, |link| link.started_ns);
                    self.latency.record_ns(now - started);
                    self.since_start.record_ns(now - self.started_ns);
                    self.arrived += 1;
                    return true;
                }
            }
            Happened::Down { agent, retry_after } => {
                if self.forget(agent) {
                    let wait = retry_after.unwrap_or(RETRY_AFTER);
                    let due = engine.now() + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX / 2);
                    self.add(agent, due);
                }
            }
            Happened::Applied { .. } => {}
        }
        false
    }

    fn forget(&mut self, agent: usize) -> bool {
        self.connecting.remove(&agent)
    }
}
