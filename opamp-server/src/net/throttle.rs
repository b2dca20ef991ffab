//! Sending everybody away for a while, because the application says that the server is overloaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How throttled agents are answered (R-THROT-01 to R-THROT-07).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// When they should come back, at least; up to twice as long at random, so that they do not come together. Between one
    /// millisecond and one day. How many are sent away changes nothing in that.
    pub retry_after: Duration,
}

/// The throttle that is set, if one is.
#[derive(Debug, Default)]
pub(crate) struct ThrottleState(AtomicU64);

const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

impl ThrottleState {
    pub(crate) fn set(&self, throttle: Option<Throttle>) {
        let millis = throttle.map_or(0, |throttle| {
            let retry_after = throttle.retry_after.clamp(Duration::from_millis(1), RETRY_AFTER_MAX);
            u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX)
        });
        self.0.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<Throttle> {
        let millis = self.0.load(Ordering::Relaxed);
        (millis != 0).then(|| Throttle { retry_after: Duration::from_millis(millis) })
    }
}
