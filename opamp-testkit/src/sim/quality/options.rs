//! What the table is asked to show.

use std::num::NonZero;

use opamp_fleet::rollout::stats::Ppm;

/// Which cells, and how many rollouts in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityOptions {
    /// Rollouts of each cell. Default 1,000.
    pub runs: u32,
    /// The seed of the first one. Default 1.
    pub first: u64,
    /// Fleet sizes.
    pub fleets: Vec<u32>,
    /// Fault rates.
    pub rates: Vec<Ppm>,
    /// Threads. Default one for each core.
    pub threads: NonZero<usize>,
}

impl Default for QualityOptions {
    fn default() -> Self {
        let half_percent = Ppm(5_000);
        Self {
            runs: 1_000,
            first: 1,
            fleets: vec![10, 100, 1_000, 10_000],
            rates: vec![
                Ppm(0),
                half_percent,
                Ppm::percent(2),
                Ppm::percent(5),
                Ppm::percent(20),
                Ppm::percent(50),
                Ppm::ALL,
            ],
            threads: super::threads(),
        }
    }
}
