//! Agents counted by liveness, health and drift.

use crate::{Drift, Health, Liveness};

/// Counters over the three axes. Every agent is in exactly one cell, so that each axis sums to the total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetCounts {
    cells: [[[u64; Drift::ALL.len()]; Health::ALL.len()]; Liveness::ALL.len()],
}

impl FleetCounts {
    /// Agents in one cell.
    pub fn cell(&self, liveness: Liveness, health: Health, drift: Drift) -> u64 {
        self.cells[liveness.index()][health.index()][drift.index()]
    }

    /// Every agent of the inventory.
    pub fn registered(&self) -> u64 {
        self.cells.iter().flatten().flatten().sum()
    }

    /// Agents by liveness, in the order of [`Liveness::ALL`].
    pub fn by_liveness(&self) -> [u64; Liveness::ALL.len()] {
        self.cells.map(|health| health.iter().flatten().sum())
    }

    /// Agents by health, in the order of [`Health::ALL`].
    pub fn by_health(&self) -> [u64; Health::ALL.len()] {
        Health::ALL.map(|health| self.cells.iter().flat_map(|cells| &cells[health.index()]).sum())
    }

    /// Agents by drift, in the order of [`Drift::ALL`].
    pub fn by_drift(&self) -> [u64; Drift::ALL.len()] {
        Drift::ALL.map(|drift| self.cells.iter().flatten().map(|cells| cells[drift.index()]).sum())
    }

    pub(super) fn add(&mut self, (liveness, health, drift): (Liveness, Health, Drift)) {
        self.cells[liveness.index()][health.index()][drift.index()] += 1;
    }

    pub(super) fn subtract(&mut self, (liveness, health, drift): (Liveness, Health, Drift)) {
        self.cells[liveness.index()][health.index()][drift.index()] -= 1;
    }
}
