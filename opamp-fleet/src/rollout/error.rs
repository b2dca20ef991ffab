//! Why a command, a plan or a record is refused.

use std::time::Duration;

use super::gates::GateKind;
use super::plan::Finding;
use super::{MemberState, RolloutState, Serial, Time};
use crate::ConfigError;

/// Why a command is refused. Nothing has changed then but the memory of the command's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It asks for more than the hard limits allow: ask for less.
    #[error("{what} may be at most {limit}")]
    BeyondHardLimit {
        /// Which limit.
        what: &'static str,
        /// Its value.
        limit: u32,
    },
    /// A freeze or a closed window: wait, or override it.
    #[error("frozen until {until}")]
    Frozen {
        /// Until when.
        until: Time,
    },
    /// It has history, which would be lost.
    #[error("the rollout has history and cannot be changed; make a new one")]
    HasHistory,
    /// The key stands for another command: choose a new key.
    #[error("this key was used for another command")]
    KeyReused,
    /// A gate waits for a decision: resume with retry, waive, raise or skip, or roll back.
    #[error("{gate} waits for a decision: retry those that failed, waive, raise, skip, or roll back")]
    NeedsDecision {
        /// The gate.
        gate: String,
    },
    /// A limit of 0: pause it, if nothing is to be offered.
    #[error("0 {what} lets nobody through; pause the rollout instead")]
    LetsNobodyThrough {
        /// Which limit.
        what: &'static str,
    },
    /// Nobody has agreed yet.
    #[error("this needs an approval first")]
    NotApproved,
    /// It is dangerous: give a reason for overriding.
    #[error("this needs an override with a reason")]
    OverrideNeeded,
    /// The plan is another one than was looked at: look again.
    #[error("the plan has changed since it was looked at")]
    PlanChanged,
    /// The configuration was recalled.
    #[error("the configuration was recalled and is never offered again")]
    Recalled,
    /// Something has happened since: look again.
    #[error("expected serial {expected}, found {found}")]
    SerialBehind {
        /// What the caller has seen.
        expected: Serial,
        /// What it is.
        found: Serial,
    },
    /// The rollout is over: make a new one.
    #[error("the rollout is {0}, which is final; make a new one, which can also put members back")]
    Terminal(RolloutState),
    /// The agent is no member.
    #[error("the agent is no member of the rollout")]
    UnknownAgent,
    /// The plan has no such gate.
    #[error("the rollout has no such gate")]
    UnknownGate,
    /// The plan has no such wave.
    #[error("the rollout has no such wave")]
    UnknownWave,
    /// It makes no sense now.
    #[error("the rollout is {state}; this needs {needs}")]
    WrongState {
        /// What it is.
        state: RolloutState,
        /// What it would have to be, or which command does what is wanted.
        needs: &'static str,
    },
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It asks for more than the hard limits allow.
    #[error("{what} may be at most {limit}, not {found}")]
    BeyondHardLimit {
        /// Which limit.
        what: &'static str,
        /// Its value.
        limit: u32,
        /// What was asked for.
        found: u32,
    },
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A gate makes no sense as it is set.
    #[error("gate {gate}: {what}")]
    Gate {
        /// The gate.
        gate: GateKind,
        /// What is wrong.
        what: &'static str,
    },
    /// The configuration has findings that forbid it.
    #[error("the configuration has {} findings", .0.len())]
    Lint(Vec<Finding>),
    /// Nobody is left.
    #[error("no member is left, {excluded} are excluded")]
    NoMembers {
        /// How many are excluded.
        excluded: u32,
    },
    /// It is dangerous: give a reason.
    #[error("this needs an override with a reason")]
    OverrideNeeded,
    /// The configuration was recalled.
    #[error("the configuration was recalled and is never offered again")]
    Recalled,
    /// A strategy makes no sense as it is set.
    #[error("strategy: {what}")]
    Strategy {
        /// What is wrong.
        what: &'static str,
    },
    /// The time zone is not known.
    #[error("unknown time zone {name}")]
    TimeZone {
        /// What was given.
        name: Box<str>,
    },
    /// Too many gates.
    #[error("at most 16 gates")]
    TooManyGates,
    /// Too many members.
    #[error("at most {limit} members")]
    TooManyMembers {
        /// The bound.
        limit: u32,
    },
    /// Too many waves.
    #[error("at most {limit} waves")]
    TooManyWaves {
        /// The bound.
        limit: u16,
    },
    /// The gate would be asked before its window is over.
    #[error("the window of {gate} is {} s, longer than the dwell of {} s", .window.as_secs(), .dwell.as_secs())]
    WindowPastDwell {
        /// The gate.
        gate: GateKind,
        /// Its window.
        window: Duration,
        /// The shortest dwell.
        dwell: Duration,
    },
}

/// Why records are no rollout: they are damaged, or were written by a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Counters do not follow from the members.
    #[error("{what} does not follow from the members")]
    Counters {
        /// Which counter.
        what: &'static str,
    },
    /// An entry is a step that no rollout takes.
    #[error("member {member} cannot go from {from} to {to}")]
    Edge {
        /// The member.
        member: u32,
        /// Before.
        from: MemberState,
        /// After.
        to: MemberState,
    },
    /// A value is none that this could be.
    #[error("invalid {what}")]
    Invalid {
        /// What it should be.
        what: &'static str,
    },
    /// A page of members is missing or does not fit.
    #[error("page {number} is missing or damaged")]
    Page {
        /// Its number.
        number: u32,
    },
    /// The bytes end too early.
    #[error("the record ends too early")]
    Truncated,
    /// An entry that is not known.
    #[error("unknown entry {tag}")]
    UnknownTag {
        /// Its tag.
        tag: u8,
    },
    /// A version that is not known.
    #[error("version {found} of the records, {known} is known")]
    Version {
        /// What was found.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
}
