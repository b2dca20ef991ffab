//! What a worker does in a phase: one small state machine each, driven by the loop.

mod announce;
mod arrivals;
mod connect;
mod hold;
mod load;
mod push;
mod quiet;
mod reconnect;
mod slow;

use super::engine::{Engine, Happened};
use crate::{phase::Phase, report::Seen};

pub(crate) use self::quiet::Quiet;

/// Nanoseconds in a second.
const SECOND: f64 = 1e9;

/// What a phase does next.
pub(crate) enum Step {
    /// It is over.
    Done,
    /// It wants to be called again by then, or when something happens.
    Wait(Option<u64>),
}

/// A phase at work. The loop calls `tick` in every turn and `on` for everything that happens.
pub(crate) trait Activity {
    /// Does what is due.
    fn tick(&mut self, engine: &mut Engine) -> Step;

    /// Takes note of something.
    fn on(&mut self, engine: &mut Engine, happened: Happened);

    /// What it has seen, at its end. The loop adds agents, failures and counts.
    fn seen(&mut self) -> Seen;

    /// Whether something that is a failure elsewhere is what this phase is about.
    fn provokes(&self, _failure: &str) -> bool {
        false
    }

    /// How much is done, of how much.
    fn progress(&self, engine: &Engine) -> (u64, u64);
}

/// The phase at work, from now on.
pub(crate) fn start(phase: &Phase, engine: &mut Engine) -> Box<dyn Activity> {
    let now = engine.clock();
    match *phase {
        Phase::Announce { bytes, sent, secs } => {
            Box::new(announce::Announce::start(engine, bytes, sent, until(now, secs)))
        }
        Phase::Churn { rate, secs } => Box::new(reconnect::Churn::start(engine, rate, until(now, secs))),
        Phase::Connect { agents, rate, state } => {
            Box::new(connect::Connect::start(engine, agents as usize, rate, state))
        }
        Phase::HalfOpen { percent, upgraded } => {
            Box::new(Quiet::half_open(engine, percent, upgraded, until(now, 1.0)))
        }
        Phase::Hold { secs, heartbeat_secs } => {
            Box::new(hold::Hold::start(engine, until(now, heartbeat_secs) - now, until(now, secs)))
        }
        Phase::Idle { secs } | Phase::Settle { secs } => Box::new(Quiet::until(until(now, secs))),
        Phase::Load { message, pace, secs } => Box::new(load::start(engine, message, pace, until(now, secs))),
        Phase::Push { within_secs, .. } => Box::new(push::Push::start(engine, until(now, within_secs))),
        Phase::Reconnect { within_secs } => {
            Box::new(reconnect::Reconnect::start(engine, until(now, within_secs) - now))
        }
        Phase::Slow { percent } => Box::new(slow::Slow::start(engine, percent, until(now, 1.0))),
    }
}

fn until(now_ns: u64, secs: f64) -> u64 {
    now_ns + (secs * SECOND) as u64
}
