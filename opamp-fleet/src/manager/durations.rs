//! How long configurations take from offer to APPLIED.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::AgentTypes;

/// Upper bounds of [`ApplyHistogram`], in seconds.
pub const APPLY_DURATION_BOUNDS_S: [f64; 10] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];

/// Durations in buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApplyHistogram {
    /// Observations at or below each bound of [`APPLY_DURATION_BOUNDS_S`], not cumulative; the last is the rest.
    pub counts: [u64; APPLY_DURATION_BOUNDS_S.len() + 1],
    /// Sum of all observations in seconds.
    pub sum_s: f64,
}

/// One histogram for each agent type, their number bounded.
#[derive(Debug)]
pub(super) struct ApplyDurations {
    types: AgentTypes,
    by_type: BTreeMap<String, ApplyHistogram>,
}

impl ApplyDurations {
    pub(super) fn new(agent_types_max: usize) -> Self {
        Self { types: AgentTypes::new(agent_types_max), by_type: BTreeMap::new() }
    }

    pub(super) fn observe(&mut self, agent_type: &str, took: Duration) {
        let label = self.types.fold(agent_type);
        let histogram = match self.by_type.get_mut(label) {
            Some(histogram) => histogram,
            None => self.by_type.entry(label.to_owned()).or_default(),
        };
        let seconds = took.as_secs_f64();
        let bucket = APPLY_DURATION_BOUNDS_S.iter().position(|bound| seconds <= *bound);
        histogram.counts[bucket.unwrap_or(APPLY_DURATION_BOUNDS_S.len())] += 1;
        histogram.sum_s += seconds;
    }

    pub(super) fn by_type(&self) -> &BTreeMap<String, ApplyHistogram> {
        &self.by_type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_first_bucket_that_holds_them() {
        let mut durations = ApplyDurations::new(1);
        for (agent_type, ms) in [("a", 100), ("a", 101), ("a", 3_600_000), ("b", 7), ("c", 7)] {
            durations.observe(agent_type, Duration::from_millis(ms));
        }
        let a = &durations.by_type()["a"];
        assert_eq!((a.counts[0], a.counts[1], a.counts[10]), (1, 1, 1));
        assert!((a.sum_s - 3600.201).abs() < 1e-9);
        assert_eq!(durations.by_type()["other"].counts[0], 2);
        assert_eq!(durations.by_type().len(), 2);
    }
}
