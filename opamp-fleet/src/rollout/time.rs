//! Engine time: points, the clock that gives them, and timers that can stand still.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use opamp_proto::{Mono, Wall};

/// A point of engine time: milliseconds since 1970 by the store's clock. It never goes back. Text is RFC 3339.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Later than everything: the deadline of what has none.
    pub const NEVER: Self = Self(u64::MAX);

    /// The span since an earlier point; zero if it is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Later by the span in whole milliseconds; stops at [`Time::NEVER`] instead of wrapping.
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(whole_ms(span)))
    }
}

impl From<Wall> for Time {
    fn from(wall: Wall) -> Self {
        Self(wall.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Wall(self.0), f)
    }
}

/// Engine time from the last renewal of the lease: the store's time then, and monotonic time since. The replica's wall
/// clock has no part in it.
#[derive(Clone, Debug)]
pub struct EngineClock {
    at: Time,
    mono: Mono,
    last: Time,
}

impl EngineClock {
    /// A clock that was told the store's time by a request sent at `mono`.
    pub fn new(store_time: Wall, mono: Mono) -> Self {
        let at = Time::from(store_time);
        Self { at, mono, last: at }
    }

    /// A renewal was answered. `sent` is when it was *sent*, so that the time the answer took is counted once.
    pub fn renewed(&mut self, store_time: Wall, sent: Mono) {
        (self.at, self.mono) = (Time::from(store_time), sent);
    }

    /// The time now, never before what was given earlier.
    pub fn now(&mut self, mono: Mono) -> Time {
        self.last = self.last.max(self.at + (mono - self.mono));
        self.last
    }

    /// An earlier leader committed at this time: engine time is never before it.
    pub fn not_before(&mut self, committed: Time) {
        self.last = self.last.max(committed);
    }
}

/// A timer that stands still while nothing may happen. It belongs to one rollout, wave and generation and is never
/// inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Countdown {
    remaining_ms: u64,
    running_since: Option<Time>,
}

impl Countdown {
    /// A timer of this length that does not run.
    pub fn stopped(length: Duration) -> Self {
        Self { remaining_ms: whole_ms(length), running_since: None }
    }

    /// The timer with these parts, as [`Countdown::parts`] gave them.
    pub const fn from_parts(remaining_ms: u64, running_since: Option<Time>) -> Self {
        Self { remaining_ms, running_since }
    }

    /// What remained when it was last started or stopped, in milliseconds, and since when it runs.
    pub const fn parts(&self) -> (u64, Option<Time>) {
        (self.remaining_ms, self.running_since)
    }

    /// The timer running from now on with what remains; unchanged if it runs.
    #[must_use]
    pub fn run(self, now: Time) -> Self {
        Self { running_since: self.running_since.or(Some(now)), ..self }
    }

    /// The timer standing still with what remains; unchanged if it stands.
    #[must_use]
    pub fn stop(self, now: Time) -> Self {
        Self { remaining_ms: whole_ms(self.remaining(now)), running_since: None }
    }

    /// When it ends; none while it stands still.
    pub fn ends_at(&self) -> Option<Time> {
        self.running_since.map(|since| since + Duration::from_millis(self.remaining_ms))
    }

    /// Whether it runs.
    pub const fn is_running(&self) -> bool {
        self.running_since.is_some()
    }

    /// The timer with this much more to go, running or not.
    #[must_use]
    pub fn extend(self, by: Duration) -> Self {
        Self { remaining_ms: self.remaining_ms.saturating_add(whole_ms(by)), ..self }
    }

    /// What remains; zero when it is over.
    pub fn remaining(&self, now: Time) -> Duration {
        let gone = self.running_since.map_or(Duration::ZERO, |since| now.since(since));
        Duration::from_millis(self.remaining_ms).saturating_sub(gone)
    }
}

/// Whole milliseconds of a span; the largest number if there are more.
pub(crate) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn engine_time_is_the_stores_time_at_the_request_and_monotonic_time_since() {
        let mut clock = EngineClock::new(Wall(1_000_000), Mono(500));
        assert_eq!(clock.now(Mono(500)), Time(1_000_000));
        assert_eq!(clock.now(Mono(750)), Time(1_000_250));
        clock.renewed(Wall(1_002_000), Mono(2_000));
        assert_eq!(clock.now(Mono(2_300)), Time(1_002_300), "the answer took 300 ms, which count once");
    }

    #[test]
    fn engine_time_never_goes_back() {
        let mut clock = EngineClock::new(Wall(10_000), Mono(0));
        assert_eq!(clock.now(Mono(5_000)), Time(15_000));
        clock.renewed(Wall(9_000), Mono(5_000));
        assert_eq!(clock.now(Mono(5_000)), Time(15_000), "the store's clock went back");
        assert_eq!(clock.now(Mono(4_000)), Time(15_000));
        assert_eq!(clock.now(Mono(11_500)), Time(15_500), "and has caught up");
        clock.not_before(Time(40_000));
        assert_eq!(clock.now(Mono(11_600)), Time(40_000), "an earlier leader committed then");
    }

    #[test]
    fn time_ends_instead_of_wrapping_and_is_written_as_a_date() {
        assert_eq!(Time(u64::MAX - 1) + SECOND, Time::NEVER);
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_countdown_that_stands_still_keeps_what_remains() {
        let stopped = Countdown::stopped(10 * SECOND);
        assert_eq!(stopped.ends_at(), None);
        assert_eq!(stopped.remaining(Time(99_000)), 10 * SECOND);
        let running = stopped.run(Time(1_000));
        assert_eq!(running.ends_at(), Some(Time(11_000)));
        let paused = running.stop(Time(4_000));
        assert_eq!(paused.remaining(Time(50_000)), 7 * SECOND);
        assert_eq!(paused.run(Time(50_000)).ends_at(), Some(Time(57_000)));
    }

    #[test]
    fn a_countdown_runs_once_and_ends_at_zero() {
        let running = Countdown::stopped(10 * SECOND).run(Time(1_000));
        assert_eq!(running.run(Time(5_000)), running);
        assert_eq!(running.remaining(Time(60_000)), Duration::ZERO);
        let over = running.stop(Time(60_000));
        assert_eq!(over.stop(Time(70_000)), over);
        assert_eq!(over.run(Time(80_000)).ends_at(), Some(Time(80_000)));
    }

    #[test]
    fn a_countdown_is_extended_whether_it_runs_or_not() {
        let stopped = Countdown::stopped(10 * SECOND).extend(5 * SECOND);
        assert_eq!(stopped.remaining(Time(0)), 15 * SECOND);
        let running = stopped.run(Time(1_000)).extend(SECOND);
        assert_eq!(running.ends_at(), Some(Time(17_000)));
        assert_eq!(
            Countdown::stopped(Duration::MAX).extend(SECOND).remaining(Time(0)),
            Duration::from_millis(u64::MAX)
        );
        let (remaining_ms, since) = running.parts();
        assert_eq!(Countdown::from_parts(remaining_ms, since), running);
    }
}
