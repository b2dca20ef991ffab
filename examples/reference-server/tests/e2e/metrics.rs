//! `/metrics` as a scraper reads it.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn parse(page: &str) -> Self {
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line:?}")))
        };
        Metrics(samples.map(sample).collect())
    }

    /// The value of a sample, labels and all as they are written.
    pub fn get(&self, sample: &str) -> f64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("{sample} is not among {:?}", self.0.keys()))
    }

    /// Refusals by reason.
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        let of_reason = |(name, value): (&String, &f64)| {
            let reason = name.strip_prefix("opamp_frames_rejected_total{reason=\"")?.strip_suffix("\"}")?;
            Some((reason.to_owned(), *value as u64))
        };
        self.0.iter().filter_map(of_reason).collect()
    }
}
