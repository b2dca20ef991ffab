//! Where the time comes from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opamp_proto::{Mono, Now, Wall};
use tokio::time::Instant;

/// The source of time of a server. Sessions never read a clock themselves.
pub trait Clock: Send + Sync + 'static {
    /// The time now, on both axes.
    fn now(&self) -> Now;
}

/// The machine's clocks: tokio's instant for durations, the system time for dates, which it follows within a tenth of a second
/// when that is set.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    dates: Dates,
}

/// Dates by the monotonic clock, compared with the system time now and then: a message asks several times what time it is.
#[derive(Debug)]
struct Dates {
    /// The date at which the monotonic clock showed 0, in milliseconds since the Unix epoch.
    origin: AtomicU64,
    compared: AtomicU64,
}

/// How long a date may differ from a system time that was set.
const DATES_COMPARED_MS: u64 = 100;

/// A clock that follows tokio's, dates included, so that a paused or advanced runtime moves both.
#[derive(Debug)]
pub struct TokioClock {
    origin: Instant,
    epoch: Wall,
}

impl SystemClock {
    /// A clock whose monotonic part starts now.
    pub fn new() -> Self {
        Self { origin: Instant::now(), dates: Dates::default() }
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

impl Default for Dates {
    fn default() -> Self {
        // Due for the first look.
        let compared = 0_u64.wrapping_sub(DATES_COMPARED_MS);
        Self { origin: AtomicU64::new(0), compared: AtomicU64::new(compared) }
    }
}

impl Dates {
    /// The date at `mono`. Threads may look at once: each of them finds a date that was right.
    fn at(&self, mono: Mono, system: impl FnOnce() -> Wall) -> Wall {
        let Mono(now) = mono;
        // Of a look that was later than this one, the difference wraps around: then it is looked once more.
        if now.wrapping_sub(self.compared.load(Ordering::Relaxed)) >= DATES_COMPARED_MS {
            self.origin.store(system().0.wrapping_sub(now), Ordering::Relaxed);
            self.compared.store(now, Ordering::Relaxed);
        }
        Wall(self.origin.load(Ordering::Relaxed).wrapping_add(now))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mono = since(self.origin);
        let system = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { mono, wall: self.dates.at(mono, || Wall(millis(system()))) }
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
    duration.as_secs().saturating_mul(1_000).saturating_add(duration.subsec_millis().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_a_system_time_that_was_set_either_way_within_a_tenth_of_a_second() {
        let dates = Dates::default();
        let at = |mono, system| dates.at(Mono(mono), || Wall(system)).0;
        assert_eq!(at(0, 5_000_000), 5_000_000);
        assert_eq!(at(99, 9_000_099), 5_000_099, "not looked at yet");
        assert_eq!(at(100, 9_000_100), 9_000_100);
        assert_eq!(at(150, 0), 9_000_150);
        assert_eq!(at(200, 7), 7, "before the monotonic clock began");
        assert_eq!(at(250, 0), 57);
        assert_eq!(at(190, 1_000_000), 1_000_000, "of an earlier moment than the last look");
    }

    #[test]
    fn a_system_clock_shows_the_system_time() {
        let system = || millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        let before = system();
        let shown = SystemClock::new().now().wall.0;
        assert!((before..=system()).contains(&shown), "{shown}");
    }
}
