//! Commands of operators, and what each does in each state of a rollout (R20).
//!
//! A command is done once under its key (R2). In a final state nothing is done any more; what each command does in each
//! of the others is one exhaustive `match` over `Live`.

mod live;
mod members;
pub(crate) mod needs;
mod perform;
mod resume;
mod rollback;
mod start;
mod steer;
mod stop;

use std::time::Duration;

use opamp_proto::{AgentId, Fingerprint};

pub(crate) use live::Live;
pub(crate) use perform::asked;

use super::stats::Ppm;
use super::{CommandKey, GateIx, Limits, Refused, RolloutId, Serial, WaveIx};

/// The actor of what the engine does by itself.
pub(crate) const ENGINE: &str = "engine";

/// How a command ended.
type Done = Result<First, Refused>;

/// Something an operator, or a policy in an operator's name, wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What makes it idempotent: the same key with the same wish is done once (R2).
    pub key: CommandKey,
    /// Who. At most [`Command::TEXT_BYTES_MAX`] bytes; the rest is cut off.
    pub actor: Box<str>,
    /// Why, in their words. Cut off like the actor.
    pub reason: Box<str>,
    /// The last batch they have seen; refused if there is a later one (R3).
    pub expected: Option<Serial>,
    /// What.
    pub do_: Do,
}

impl Command {
    /// Longest actor and longest reason, in bytes.
    pub const TEXT_BYTES_MAX: usize = 1_024;
}

/// What a command wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Do {
    /// End it: nothing new, what is in flight settles, everybody keeps what they have (R70).
    Abort,
    /// The waiting wave goes on, or the dwell or bake ends now.
    Advance,
    /// This configuration may be offered to this agent again.
    AllowHash {
        /// The agent.
        agent: AgentId,
    },
    /// Agree to the plan, or to a wave.
    Approve {
        /// The plan that was looked at.
        plan: Fingerprint,
        /// The wave; none for the rollout as a whole, which is about no wave.
        wave: Option<WaveIx>,
    },
    /// End it before it runs.
    Cancel,
    /// Leave an agent out from now on. It keeps what it was offered: only an offer that has not reached it is taken back, and
    /// without a previous configuration not even that.
    Exclude {
        /// The agent.
        agent: AgentId,
    },
    /// The dwell or bake lasts longer.
    Extend {
        /// By how much.
        by: Duration,
    },
    /// Offer nothing new for now.
    Pause,
    /// The plan was compared with the fleet (told by the controller).
    Preflighted {
        /// The plan as it would be made now.
        plan: Fingerprint,
        /// Whether it can be carried out.
        usable: bool,
    },
    /// Disagree with the plan.
    Reject,
    /// The control group gets the configuration as well.
    ReleaseControlGroup,
    /// Go on.
    Resume(Resume),
    /// Put members back.
    RollBack(Scope),
    /// Other limits from now on.
    SetLimits(Limits),
    /// The gate has no say from now on.
    SkipGate {
        /// The gate.
        gate: GateIx,
        /// In this wave; none for all.
        wave: Option<WaveIx>,
    },
    /// Leave the wave out; its queued members go to the last one.
    SkipWave,
    /// Start it.
    Start {
        /// The plan that was looked at (R12).
        plan: Fingerprint,
    },
    /// The draft is finished.
    Submit,
    /// A newer rollout takes its place (R62).
    Supersede {
        /// The newer one.
        by: RolloutId,
    },
}

/// How to go on after a pause or a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resume {
    /// As before, if the cause is gone.
    Plain,
    /// With other limits of the gate.
    Raise {
        /// The gate.
        gate: GateIx,
        /// Its new ratio.
        over: Ppm,
        /// Its new count.
        count: u32,
    },
    /// With the failed members of the wave tried once more.
    Retry,
    /// With the next wave.
    Skip,
    /// With the gate observing only.
    Waive {
        /// The gate.
        gate: GateIx,
    },
}

/// Which members go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All that were touched.
    All,
    /// Those that failed.
    Failed,
    /// Those of one wave.
    Wave(WaveIx),
}

/// How a command ended that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// It was done.
    Done,
    /// It was so already.
    NothingToDo,
    /// The same key with the same wish came before: what it led to then. A refusal is repeated as that refusal.
    Repeated(First),
}

/// How a command ended the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// It was done.
    Done,
    /// It was so already.
    NothingToDo,
}
