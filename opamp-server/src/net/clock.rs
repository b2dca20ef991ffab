//! Where the time comes from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opamp_proto::{Mono, Now, Wall};
use tokio::time::Instant;

/// The source of time of a server. Sessions never read a clock themselves.
pub trait Clock: Send + Sync + 'static {
    /// The time now, on both axes.
    fn now(&self) -> Now;
}

/// The machine's clocks: tokio's instant for durations, the system time for dates.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

/// A clock that follows tokio's, dates included, so that a paused or advanced runtime moves both.
#[derive(Debug)]
pub struct TokioClock {
    origin: Instant,
    epoch: Wall,
}

impl SystemClock {
    /// A clock whose monotonic part starts now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl TokioClock {
    /// A clock that shows `epoch` now.
    pub fn starting_at(epoch: Wall) -> Self {
        Self { origin: Instant::now(), epoch }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { mono: since(self.origin), wall: Wall(millis(wall)) }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Now {
        let mono = since(self.origin);
        Now { mono, wall: Wall(self.epoch.0 + mono.0) }
    }
}

fn since(origin: Instant) -> Mono {
    Mono(millis(origin.elapsed()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
