//! Configurations of the OpenTelemetry Collector, read as what they mean.
//!
//! [`semantic_diff`] tells what changes between two of them component by component and pipeline by pipeline, whatever the
//! order of keys, comments, quotes and anchors. Values under names that stand for secrets are never shown, only that they
//! differ.

mod change;
mod model;
mod parse;
mod path;
mod semantic;

pub use change::{Change, ComponentChange, SemanticDiff, ValueChange};
pub use model::{CollectorConfig, ComponentId, ComponentKind, Pipeline, Role, Signal};
pub use parse::{NODES_MAX, NotCollector, TEXT_BYTES_MAX};
pub use semantic::semantic_diff;

#[cfg(test)]
mod tests;
