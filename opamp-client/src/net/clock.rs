//! Where the time comes from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use opamp_proto::{Mono, Now, Wall};
use tokio::time::Instant;

/// The source of time of a client. Every interval and deadline is measured with it.
pub trait Clock: Send + Sync + 'static {
    /// The time now, on both axes.
    fn now(&self) -> Now;

    /// Ends when the monotonic time has come. It may end early; then it is called again.
    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()>;
}

/// The machine's clocks: tokio's instant for durations, the system time for dates.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic part starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
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
        Now { mono: Mono(millis(self.origin.elapsed())), wall: Wall(millis(wall)) }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        // One millisecond is the resolution: a little later is past it, a little earlier would be called again at once.
        let instant = self.origin.checked_add(Duration::from_millis(at.0.saturating_add(1)));
        Box::pin(async move {
            match instant {
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            }
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
