//! What has changed, in words.

use std::fmt;

use super::model::{ComponentId, Role, Signal};

/// What changes between two configurations of a Collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SemanticDiff {
    /// At most [`SemanticDiff::CHANGES_MAX`], what matters most first: signals that are lost, pipelines, components,
    /// extensions, settings.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub more: usize,
}

impl SemanticDiff {
    /// Most changes that are told.
    pub const CHANGES_MAX: usize = 1_000;
    /// Most pipelines that are named of those that use a component.
    pub const USERS_MAX: usize = 20;
    /// Most values that are told of one component.
    pub const VALUES_MAX: usize = 200;
    /// Most values that are told of all components together.
    pub const VALUES_OF_ALL_MAX: usize = 5_000;

    /// Whether the two mean the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Change {
    /// A component.
    Component {
        /// Which.
        id: ComponentId,
        /// What happened to it.
        change: ComponentChange,
        /// Pipelines that use it: after the change, or before it if it was removed; at most [`SemanticDiff::USERS_MAX`].
        used_by: Vec<String>,
    },
    /// An extension is switched on or off.
    Extension {
        /// Its name.
        name: String,
        /// Whether it is on.
        on: bool,
    },
    /// A pipeline is new.
    PipelineAdded {
        /// Its name.
        name: String,
    },
    /// A pipeline is gone.
    PipelineRemoved {
        /// Its name.
        name: String,
    },
    /// Data passes the processors of a pipeline in another order.
    Reordered {
        /// The pipeline.
        pipeline: String,
        /// The new order.
        processors: Vec<String>,
    },
    /// A component has another part in a pipeline.
    Role {
        /// The pipeline.
        pipeline: String,
        /// What the component does there.
        role: Role,
        /// The component's name.
        name: String,
        /// Whether it does that now; it did not before, or the other way round.
        joined: bool,
    },
    /// A value outside of components and pipelines.
    Setting(ValueChange),
    /// A signal left the Collector and does not any more: its data is lost.
    SignalLost {
        /// The signal.
        signal: Signal,
    },
}

/// What happened to a component.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "change", content = "values")]
pub enum ComponentChange {
    /// It is new.
    Added,
    /// It is configured in another way: at most [`SemanticDiff::VALUES_MAX`] values.
    Changed(Vec<ValueChange>),
    /// It is gone.
    Removed,
}

/// A value that differs. Secrets are shown as `(secret)`, long values in part.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ValueChange {
    /// Where, from the component or the document on, such as `tls.certs[0].name`; a long one in part.
    pub path: String,
    /// Before; none if it was not there.
    pub before: Option<String>,
    /// After; none if it is not there any more.
    pub after: Option<String>,
}

impl fmt::Display for ValueChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "all of it" } else { &self.path };
        match (&self.before, &self.after) {
            (None, None) => write!(f, "{path}"),
            (None, Some(after)) => write!(f, "{path}: {after} (new)"),
            (Some(before), None) => write!(f, "{path}: gone, was {before}"),
            (Some(before), Some(after)) => write!(f, "{path}: {before} → {after}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component { id, change, used_by } => {
                match change {
                    ComponentChange::Added => write!(f, "{id} is new")?,
                    ComponentChange::Removed => write!(f, "{id} is gone")?,
                    ComponentChange::Changed(values) => {
                        write!(f, "{id}: ")?;
                        list(f, values)?;
                    }
                }
                if used_by.is_empty() {
                    f.write_str(" (unused)")
                } else {
                    write!(f, " (in {})", used_by.join(", "))
                }
            }
            Self::Extension { name, on: true } => write!(f, "extension {name} is on"),
            Self::Extension { name, on: false } => write!(f, "extension {name} is off"),
            Self::PipelineAdded { name } => write!(f, "pipeline {name} is new"),
            Self::PipelineRemoved { name } => write!(f, "pipeline {name} is gone"),
            Self::Reordered { pipeline, processors } => {
                write!(f, "pipeline {pipeline}: processors in another order: {}", processors.join(", "))
            }
            Self::Role { pipeline, role, name, joined: true } => {
                write!(f, "pipeline {pipeline}: {role} + {name}")
            }
            Self::Role { pipeline, role, name, joined: false } => {
                write!(f, "pipeline {pipeline}: {role} - {name}")
            }
            Self::Setting(value) => write!(f, "{value}"),
            Self::SignalLost { signal } => write!(f, "{signal} leave the collector no more"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, values: &[ValueChange]) -> fmt::Result {
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            f.write_str("; ")?;
        }
        write!(f, "{value}")?;
    }
    Ok(())
}
