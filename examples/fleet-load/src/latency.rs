//! Distribution of durations, as percentiles that can be merged from several processes.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How long things took: three significant digits, up to ten minutes.
#[derive(Clone)]
pub struct Latency {
    histogram: Option<Histogram<u64>>,
}

/// Longer durations count as this one.
const NS_MAX: u64 = 600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many durations there are.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 % are not longer.
    pub p90: f64,
    /// 99 % are not longer.
    pub p99: f64,
    /// 99.9 % are not longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Without any duration. Takes no memory before the first.
    #[must_use]
    pub const fn new() -> Self {
        Self { histogram: None }
    }

    /// Counts one duration.
    pub fn record_ns(&mut self, ns: u64) {
        if let Some(histogram) = self.histogram() {
            histogram.saturating_record(ns.clamp(1, NS_MAX));
        }
    }

    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_ns(u64::try_from(duration.as_nanos()).unwrap_or(NS_MAX));
    }

    /// Adds those of another process.
    pub fn merge(&mut self, other: &Self) {
        for (ns, count) in other.values() {
            if let Some(histogram) = self.histogram() {
                histogram.saturating_record_n(ns, count);
            }
        }
    }

    /// The percentiles, none if there is no duration.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let histogram = self.histogram.as_ref().filter(|histogram| !histogram.is_empty())?;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Percentiles {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        })
    }

    fn values(&self) -> impl Iterator<Item = (u64, u64)> {
        self.histogram
            .iter()
            .flat_map(Histogram::iter_recorded)
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
    }

    /// None only if the bounds above are impossible, which the tests rule out.
    fn histogram(&mut self) -> Option<&mut Histogram<u64>> {
        if self.histogram.is_none() {
            self.histogram = Histogram::new_with_bounds(1, NS_MAX, SIGNIFICANT_DIGITS).ok();
        }
        self.histogram.as_mut()
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percentiles().fmt(f)
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.values())
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latency = Self::new();
        for (ns, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            if let Some(histogram) = latency.histogram() {
                histogram.saturating_record_n(ns.clamp(1, NS_MAX), count);
            }
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_processes_measured_is_what_one_would_have_measured() {
        let mut whole = Latency::new();
        let mut parts = [Latency::new(), Latency::new(), Latency::new()];
        for at in 1..=30_000_u64 {
            whole.record_ns(at * 977);
            parts[(at % 3) as usize].record_ns(at * 977);
        }
        let mut merged = Latency::new();
        for part in &parts {
            let text = serde_json::to_string(part).unwrap();
            merged.merge(&serde_json::from_str(&text).unwrap());
        }
        let (whole, merged) = (whole.percentiles().unwrap(), merged.percentiles().unwrap());
        assert_eq!(merged.count, 30_000);
        for (one, other) in [(whole.p50, merged.p50), (whole.p999, merged.p999), (whole.mean, merged.mean)] {
            assert!((one / other - 1.0).abs() < 0.003, "{one} {other}");
        }
        assert!((whole.p50 / (15_000.0 * 0.977) - 1.0).abs() < 0.002, "{whole:?}");
        assert!((whole.max / (30_000.0 * 0.977) - 1.0).abs() < 0.002, "{whole:?}");
    }

    #[test]
    fn nothing_measured_has_no_percentiles() {
        assert_eq!(Latency::new().percentiles(), None);
        let mut merged = Latency::new();
        merged.merge(&Latency::new());
        assert_eq!(merged.percentiles(), None);
    }
}
