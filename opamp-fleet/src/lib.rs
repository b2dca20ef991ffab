//! Fleets of OpAMP agents: who they are, what they should run, and how far they are from it.
//!
//! The crate is pure by default: facts come in as values, time is an argument, and nothing here awaits, reads a
//! clock, spawns, locks or draws a random number. What decides lives here:
//!
//! - [`FleetIndex`] holds the facts of every agent ([`AgentFacts`]) in memory, counts them by [`Liveness`],
//!   [`Health`] and [`Drift`], and lists them.
//! - [`Selector`] says which agents, in the grammar of Kubernetes label selectors.
//! - [`ConfigMap`] is a whole configuration with its canonical hash, [`VersionState`] the life of its versions,
//!   [`diff()`] what changed between two of them.
//! - [`rollout`] brings a configuration to a fleet in waves, judged by gates; [`coordinator`] is what rollouts share.
//! - [`Drift::judge`] relates what an agent reports to what it should run.
//!
//! With the feature `manager`, `manager::FleetManager` joins a server, a store and these.

mod agent_type;
#[cfg(feature = "collector")]
pub mod collector;
mod config;
pub mod coordinator;
pub mod diff;
mod drift;
mod facts;
pub mod faults;
mod flapping;
mod health;
mod index;
mod labels;
mod liveness;
#[cfg(feature = "manager")]
pub mod manager;
pub mod rollout;
mod secrets;
pub mod selector;
mod version;
mod words;

pub use agent_type::{AGENT_TYPE_BYTES_MAX, AGENT_TYPE_OTHER, AGENT_TYPE_UNKNOWN, AgentTypes, agent_type};
pub use config::{ConfigError, ConfigLimits, ConfigMap, VersionState};
pub use diff::{BodyDiff, DIFF_BYTES_MAX, DIFF_LINES_MAX, FileChange, FileDiff, diff};
pub use drift::{Drift, DriftFacts};
pub use facts::AgentFacts;
pub use flapping::FlapSettings;
pub use health::Health;
pub use index::{FleetCounts, FleetIndex, IndexQuery, IndexSettings, Listing, Matching};
pub use labels::{
    LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LabelError, LabelScope, LabelValue, Labels,
    SERVER_LABELS_MAX, check_server_labels,
};
pub use liveness::{Liveness, LivenessEvent};
pub use selector::{Selector, SelectorError};
pub use version::Version;
pub use words::UnknownWord;
