//! What is counted of a run, and why it is over.

use opamp_fleet::rollout::Time;

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The rollout has ended.
    Ended,
    /// The first stop was asked for, and is here.
    Stopped,
    /// Things happen all the time and no time passes: a bug.
    Stuck,
    /// The time is over.
    Time,
    /// Nothing happens any more unless somebody acts.
    Waits,
}

/// What was counted in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events told to the engine.
    pub events: u64,
    /// Calls that had something to commit.
    pub commits: u64,
    /// Journal entries.
    pub entries: u64,
    /// Offers of the new configuration.
    pub offers: u64,
    /// Offers of a previous one, those included that only take back what was not delivered.
    pub offers_back: u64,
    /// Agents that got an offer of the new configuration.
    pub touched: u32,
    /// When the first agent was sent a configuration that is a fault for it.
    pub first_fault: Option<Time>,
    /// When it first stopped: paused by a gate, held, aborting or rolling back.
    pub first_stop: Option<Time>,
    /// Whether that was a hold.
    pub held: bool,
    /// When it began to roll back.
    pub rolls_back_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Commands that were refused.
    pub refused: u64,
}
