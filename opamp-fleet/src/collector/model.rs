//! Components and pipelines of a Collector configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use opamp_proto::pb;

use super::change::SemanticDiff;
use super::parse::{Node, NotCollector, parse};
use crate::words::closed_set;

closed_set! {
    /// What a component is.
    pub enum ComponentKind ("component kind") {
        /// It joins pipelines: an exporter of one and a receiver of another.
        Connector = "connector",
        /// It sends data.
        Exporter = "exporter",
        /// It belongs to no pipeline.
        Extension = "extension",
        /// It changes data.
        Processor = "processor",
        /// It takes data in.
        Receiver = "receiver",
    }
}

impl ComponentKind {
    /// The key of the document under which they stand.
    pub(super) const fn section(self) -> &'static str {
        match self {
            Self::Connector => "connectors",
            Self::Exporter => "exporters",
            Self::Extension => "extensions",
            Self::Processor => "processors",
            Self::Receiver => "receivers",
        }
    }
}

closed_set! {
    /// What a component does in a pipeline.
    pub enum Role ("pipeline role") {
        /// Data leaves through it.
        Exporters = "exporters",
        /// Data passes it, in order.
        Processors = "processors",
        /// Data comes in through it.
        Receivers = "receivers",
    }
}

closed_set! {
    /// What a pipeline carries.
    pub enum Signal ("signal") {
        /// Log records.
        Logs = "logs",
        /// Metrics.
        Metrics = "metrics",
        /// Something this version does not know.
        Other = "other",
        /// Profiles.
        Profiles = "profiles",
        /// Traces.
        Traces = "traces",
    }
}

/// Longest name of a component or a pipeline, in bytes; that of the Collector itself.
const NAME_BYTES_MAX: usize = 1_024;

/// A component: its kind, and `type` or `type/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct ComponentId {
    /// Its kind.
    pub kind: ComponentKind,
    /// Its name, type included.
    pub name: String,
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// Names of receivers and connectors.
    pub receivers: Vec<String>,
    /// Names of processors, in the order in which data passes them.
    pub processors: Vec<String>,
    /// Names of exporters and connectors.
    pub exporters: Vec<String>,
}

impl Pipeline {
    /// Whoever has this role.
    pub fn role(&self, role: Role) -> &[String] {
        match role {
            Role::Exporters => &self.exporters,
            Role::Processors => &self.processors,
            Role::Receivers => &self.receivers,
        }
    }
}

/// A configuration of a Collector. Names that pipelines use and nobody defines are kept: this is no validation.
#[derive(Clone, Default, PartialEq)]
pub struct CollectorConfig {
    pub(super) components: BTreeMap<ComponentId, Node>,
    pub(super) pipelines: BTreeMap<String, Pipeline>,
    /// Extensions that are switched on.
    pub(super) extensions: BTreeSet<String>,
    /// Everything else by its key: the rest of `service`, and what this version does not know.
    pub(super) settings: BTreeMap<String, Node>,
}

/// Shows names, never values.
impl fmt::Debug for CollectorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorConfig")
            .field("components", &self.components.keys().collect::<Vec<_>>())
            .field("pipelines", &self.pipelines)
            .field("extensions", &self.extensions)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl CollectorConfig {
    /// Reads a whole configuration. Files are put on top of each other by name, as Collectors do that are given several:
    /// mappings are joined, everything else is replaced. Files whose content type is set and names no YAML are left out.
    ///
    /// # Errors
    /// [`NotCollector`].
    pub fn read(files: &pb::AgentConfigMap) -> Result<Self, NotCollector> {
        let mut whole = Node::Null;
        for (name, file) in &files.config_map {
            let content_type = file.content_type.to_ascii_lowercase();
            if content_type.is_empty() || content_type.contains("yaml") {
                put_on_top(&mut whole, parse(name, &file.body)?);
            }
        }
        Self::of(whole)
    }

    /// The components, in order.
    pub fn components(&self) -> impl Iterator<Item = &ComponentId> {
        self.components.keys()
    }

    /// The pipelines, by name.
    pub fn pipelines(&self) -> impl Iterator<Item = (&str, &Pipeline)> {
        self.pipelines.iter().map(|(name, pipeline)| (name.as_str(), pipeline))
    }

    /// Pipelines that use a component, at most [`SemanticDiff::USERS_MAX`].
    pub(super) fn users(&self, component: &ComponentId) -> Vec<String> {
        let roles: &[Role] = match component.kind {
            ComponentKind::Connector => &[Role::Exporters, Role::Receivers],
            ComponentKind::Exporter => &[Role::Exporters],
            ComponentKind::Extension => &[],
            ComponentKind::Processor => &[Role::Processors],
            ComponentKind::Receiver => &[Role::Receivers],
        };
        let uses =
            |pipeline: &Pipeline| roles.iter().any(|role| pipeline.role(*role).contains(&component.name));
        let users = self.pipelines.iter().filter(|(_, pipeline)| uses(pipeline));
        users.map(|(name, _)| name.clone()).take(SemanticDiff::USERS_MAX).collect()
    }

    /// Signals of which something leaves the Collector.
    pub(super) fn exported(&self) -> BTreeSet<Signal> {
        let is_connector = |name: &String| {
            let id = ComponentId { kind: ComponentKind::Connector, name: name.clone() };
            self.components.contains_key(&id)
        };
        let leaving =
            self.pipelines.iter().filter(|(_, pipeline)| !pipeline.exporters.iter().all(is_connector));
        leaving.map(|(name, _)| signal(name)).collect()
    }

    fn of(whole: Node) -> Result<Self, NotCollector> {
        let mut config = Self::default();
        let mut document = whole.into_map("the document")?;
        for kind in ComponentKind::ALL {
            let section = document.remove(kind.section()).unwrap_or(Node::Null);
            for (name, node) in named(section, kind.section())? {
                config.components.insert(ComponentId { kind, name }, node);
            }
        }
        let mut service = document.remove("service").unwrap_or(Node::Null).into_map("service")?;
        let extensions = service.remove("extensions").unwrap_or(Node::Null);
        config.extensions = extensions.into_texts("service.extensions")?.into_iter().collect();
        let pipelines = service.remove("pipelines").unwrap_or(Node::Null);
        for (name, node) in named(pipelines, "service.pipelines")? {
            let pipeline = pipeline(node, &format!("service.pipelines.{name}"))?;
            config.pipelines.insert(name, pipeline);
        }
        config.settings = document;
        if !service.is_empty() {
            config.settings.insert("service".to_owned(), Node::Map(service));
        }
        Ok(config)
    }
}

/// The entries of a mapping whose keys are names.
fn named(node: Node, path: &str) -> Result<BTreeMap<String, Node>, NotCollector> {
    let map = node.into_map(path)?;
    if map.keys().all(|name| name.len() <= NAME_BYTES_MAX) {
        return Ok(map);
    }
    Err(NotCollector::Shape { path: path.to_owned(), should: "a mapping with names of at most 1,024 bytes" })
}

/// What a pipeline of this name carries: the part before the `/`.
pub(super) fn signal(pipeline: &str) -> Signal {
    let word = pipeline.split('/').next().unwrap_or_default();
    word.parse().unwrap_or(Signal::Other)
}

fn pipeline(node: Node, path: &str) -> Result<Pipeline, NotCollector> {
    let mut map = node.into_map(path)?;
    let mut names = |role: Role| {
        let node = map.remove(role.as_str()).unwrap_or(Node::Null);
        node.into_texts(&format!("{path}.{role}"))
    };
    Ok(Pipeline {
        receivers: names(Role::Receivers)?,
        processors: names(Role::Processors)?,
        exporters: names(Role::Exporters)?,
    })
}

/// Mappings are joined, everything else is replaced; an empty file changes nothing.
fn put_on_top(below: &mut Node, above: Node) {
    match (below, above) {
        (_, Node::Null) => {}
        (Node::Map(below), Node::Map(above)) => {
            for (key, node) in above {
                match below.get_mut(&key) {
                    Some(old @ Node::Map(_)) if matches!(node, Node::Map(_)) => put_on_top(old, node),
                    _ => {
                        below.insert(key, node);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}
