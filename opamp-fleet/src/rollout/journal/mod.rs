//! The journal: what happened to a rollout, from which its state follows (R7).
//!
//! Entries record what was decided, not why it had to be: replaying them asks no gate, no calendar and no coordinator.

mod canonical;
mod codec;
mod head;
mod pages;
mod plan_wire;
mod retention;
pub(crate) mod snapshot;
mod texts;
mod values;
mod wire;
#[cfg(test)]
mod wire_tests;

use opamp_proto::{AgentId, Fingerprint};

pub(crate) use plan_wire::plan_hash;
pub use retention::{Retention, kept};
pub(crate) use snapshot::restored;
pub use snapshot::{Page, Snapshot, Touched};

use super::gates::Evidence;
use super::members::{Changed, Fell, Flags, Pace};
use super::stats::Ppm;
use super::{
    CommandKey, Countdown, Do, First, GateIx, Limits, MemberIx, MemberState, PauseReason, Reading, Reason,
    Refused, RolloutState, Time, WaveIx, WaveState, ZoneIx,
};

/// One change. What is frequent is small and on the spot; what is rare is boxed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A command was handled, also one that was refused.
    Command(Box<CommandEntry>),
    /// A countdown was set, started, stopped or extended.
    Countdown {
        /// Which.
        which: CountdownIx,
        /// What it is now.
        to: Countdown,
    },
    /// A gate gave a verdict that matters.
    Gate(Box<Evidence>),
    /// A member came late, or came back.
    Joined(Box<JoinedEntry>),
    /// Other limits hold.
    Limits(Box<Limits>),
    /// The row of a member as it is now, but for wave, zone and previous. Counters by state, slow start and counts
    /// of gates follow from the row before and after.
    Member {
        /// The member.
        member: MemberIx,
        /// What it is now.
        row: Changed,
    },
    /// A value or verdict came from outside.
    Reading(Box<Reading>),
    /// The rollout's state changed.
    Rollout(Box<RolloutEntry>),
    /// An agent's own words about a failure.
    Sampled(Box<SampleEntry>),
    /// The first `by` queued members of the next wave belong to this one now.
    Stretched {
        /// The wave that grew.
        wave: WaveIx,
        /// By how many.
        by: u8,
    },
    /// A gate has no say any more, or other limits.
    Waived(Box<WaivedEntry>),
    /// A wave's state changed.
    Wave {
        /// The wave.
        wave: WaveIx,
        /// Its state now.
        to: WaveState,
        /// Why.
        reason: Reason,
        /// When.
        at: Time,
    },
    /// The in-flight window of a wave where it does not follow from its members: 1 when it is stretched or retried.
    Window {
        /// The wave.
        wave: WaveIx,
        /// Its window now.
        to: u32,
    },
}

const _: () = assert!(std::mem::size_of::<Entry>() <= 56);

impl Entry {
    /// Whether it is kept for good (R8): everything but what happened to single members and timers.
    pub fn is_notable(&self) -> bool {
        match self {
            Self::Command(_)
            | Self::Gate(_)
            | Self::Limits(_)
            | Self::Reading(_)
            | Self::Rollout(_)
            | Self::Stretched { .. }
            | Self::Waived(_)
            | Self::Wave { .. } => true,
            Self::Countdown { .. }
            | Self::Joined(_)
            | Self::Member { .. }
            | Self::Sampled(_)
            | Self::Window { .. } => false,
        }
    }
}

/// Which countdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CountdownIx {
    /// The bake.
    Bake,
    /// The dwell of a wave.
    Dwell(WaveIx),
    /// The progress deadline.
    Progress,
}

/// A change of the rollout's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutEntry {
    /// What it is now.
    pub to: RolloutState,
    /// Why.
    pub reason: Reason,
    /// Why it is paused, if `to` is `Paused`.
    pub pause: Option<PauseReason>,
    /// What a pause returns to, if `to` is `Paused`.
    pub from: Option<RolloutState>,
    /// What it ends as once nothing is in flight, if `to` is `Aborting`.
    pub ending: Option<RolloutState>,
    /// Which members go back, if `to` is `RollingBack`; which went back, if it is what a rollback ends as.
    pub scope: Option<super::Scope>,
    /// The plan that holds from now on, if it was made anew before the start.
    pub plan: Option<Fingerprint>,
    /// Who.
    pub actor: Box<str>,
    /// What a gate said, if a gate decided.
    pub evidence: Option<Evidence>,
    /// When.
    pub at: Time,
}

/// A command that was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEntry {
    /// Its key.
    pub key: CommandKey,
    /// Who.
    pub actor: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// What.
    pub do_: Do,
    /// How it ended.
    pub result: Result<First, Refused>,
    /// When.
    pub at: Time,
}

/// A member that came late, or came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedEntry {
    /// Its row: the next free one, or the one it had.
    pub member: MemberIx,
    /// The agent.
    pub agent: AgentId,
    /// The wave whose queue it joined, or [`WaveIx::TAIL`].
    pub wave: WaveIx,
    /// Its failure domain.
    pub zone: ZoneIx,
    /// What it can go back to.
    pub previous: Option<Fingerprint>,
    /// How often it is heard of, and its spans.
    pub pace: Pace,
    /// When it fell lately.
    pub fell: Fell,
    /// What is known of it.
    pub flags: Flags,
    /// Queued, or what the preflight made of it.
    pub state: MemberState,
    /// Why, if it is not queued.
    pub reason: Reason,
    /// When.
    pub at: Time,
}

/// An agent's own words about a failure. Equal texts are counted, not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleEntry {
    /// The member.
    pub member: MemberIx,
    /// At most [`SampleEntry::TEXT_BYTES_MAX`] bytes.
    pub text: Box<str>,
}

impl SampleEntry {
    /// Longest text that is kept, in bytes.
    pub const TEXT_BYTES_MAX: usize = 256;
    /// Most different texts that are kept.
    pub const TEXTS_MAX: usize = 16;
}

/// A gate that has no say any more, or other limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaivedEntry {
    /// The gate.
    pub gate: GateIx,
    /// In this wave; none for all.
    pub wave: Option<WaveIx>,
    /// Its new ratio and count, if it was raised; none: it observes only.
    pub raised: Option<(Ppm, u32)>,
    /// When.
    pub at: Time,
}
