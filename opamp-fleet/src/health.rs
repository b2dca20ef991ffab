//! Health as one word: the axis independent of liveness.

use crate::words::closed_set;

closed_set! {
    /// What an agent last said of itself as a whole (`ComponentHealth.healthy` of the top level, R-HEALTH-01).
    ///
    /// It is kept while the agent is away: liveness says how old it may be.
    pub enum Health ("health") {
        /// `healthy` was true.
        Healthy = "healthy",
        /// `healthy` was false.
        Unhealthy = "unhealthy",
        /// No health was ever reported.
        Unknown = "unknown",
    }
}

impl Health {
    /// Health from the last report, if there was one.
    pub const fn from_report(healthy: Option<bool>) -> Self {
        match healthy {
            Some(true) => Self::Healthy,
            Some(false) => Self::Unhealthy,
            None => Self::Unknown,
        }
    }
}
