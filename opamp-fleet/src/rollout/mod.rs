//! Rollouts: a configuration for a fleet, in waves, judged by gates, and taken back where it does harm.
//!
//! Everything here is pure and deterministic: events and the time come in as values, journal entries, writes and acts go
//! out, and the same events give the same entries.
//!
//! ```text
//! fact, command, tick ─► Rollouts::handle ─► Engine decides ─► Entry ─► State::apply
//!                                               │                └► Effects.entries ─┐
//!                                               ├─ Coordinator::claim                ├─► Committer ─► one transaction ─► acts
//!                                               └─ Effects.writes, Effects.acts ─────┘
//! ```
//!
//! - [`plan`] says who gets what, in which waves; [`preview`] what that would mean.
//! - [`Engine`] runs one rollout; [`Rollouts`] runs all, with [`crate::coordinator`].
//! - [`gates`] and [`stats`] stop it; [`windows`] say when it may go on.
//! - [`journal`] and [`commit`] make it survive crashes, conflicts and changes of the leader.
//! - [`Summary`] and [`Why`] tell operators, in their words.
//!
//! The states and their edges are drawn at [`RolloutState`] and [`WaveState`].

pub mod commit;
pub mod control;
mod edges;
mod effect;
mod engine;
mod error;
mod event;
pub mod gates;
mod ids;
pub mod journal;
mod member;
mod members;
pub mod plan;
pub mod preview;
mod reason;
mod rollouts;
mod settings;
mod shown;
pub mod stats;
pub mod steady;
mod summary;
mod time;
mod waves;
mod why;
pub mod windows;
mod words;

pub use control::{Command, CommandOutcome, Do, First, Resume, Scope};
pub use effect::{Act, Alert, AlertKind, Audit, Effects, Write};
pub use engine::{Broken, Engine};
pub use error::{PlanError, Refused, RestoreError};
pub use event::{
    AgentFact, ConfigStatus, Effective, Event, ExternalVerdict, FleetFact, Reading, Sample, Withheld,
};
pub use ids::{
    CommandKey, CommandKeyError, ConfigIx, Epoch, GateIx, GroupIx, MemberIx, OfferKey, RolloutId, Serial,
    Slot, WaveIx, ZoneIx,
};
pub use members::{Changed, Fell, Flags, MemberView, Pace};
pub use reason::Reason;
pub use rollouts::{CreateError, FleetEvent, HandleError, RolloutEffects, Rollouts};
pub(crate) use settings::SPAN_MAX;
pub use settings::{
    Deadlines, EngineSettings, Fit, LateJoiners, Leavers, Limits, NoProgress, Offline, Retries, Spans,
    UnverifiedPolicy,
};
pub use shown::Shown;
pub use summary::{OperatorState, Summary};
pub use time::{Countdown, EngineClock, Time};
pub use why::{NextAction, Who, Why};
pub use words::{MemberState, Outcome, PauseReason, RolloutState, WaveState};
