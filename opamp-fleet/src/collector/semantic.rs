//! What changes between two Collector configurations, component by component.

use std::collections::BTreeSet;

use opamp_proto::pb;

use super::change::{Change, ComponentChange, SemanticDiff, ValueChange};
use super::model::{CollectorConfig, ComponentId, ComponentKind, Pipeline, Role};
use super::parse::{Node, NotCollector};
use super::path::{Part, Path};

/// Compares two configurations of a Collector by what they mean.
///
/// # Errors
/// [`NotCollector`] if one of them is none, or is beyond a bound; the textual difference can be told all the same.
pub fn semantic_diff(
    before: &pb::AgentConfigMap,
    after: &pb::AgentConfigMap,
) -> Result<SemanticDiff, NotCollector> {
    let (before, after) = (CollectorConfig::read(before)?, CollectorConfig::read(after)?);
    let mut diff = SemanticDiff::default();
    for signal in before.exported().difference(&after.exported()) {
        diff.push(Change::SignalLost { signal: *signal });
    }
    pipelines(&before, &after, &mut diff);
    components(&before, &after, &mut diff);
    for name in before.extensions.symmetric_difference(&after.extensions) {
        diff.push(Change::Extension { name: name.clone(), on: after.extensions.contains(name) });
    }
    settings(&before, &after, &mut diff);
    Ok(diff)
}

impl SemanticDiff {
    fn push(&mut self, change: Change) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.changes.push(change);
        }
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= Self::CHANGES_MAX
    }
}

fn pipelines(before: &CollectorConfig, after: &CollectorConfig, diff: &mut SemanticDiff) {
    let names: BTreeSet<&String> = before.pipelines.keys().chain(after.pipelines.keys()).collect();
    for name in names {
        match (before.pipelines.get(name), after.pipelines.get(name)) {
            (None, Some(_)) => diff.push(Change::PipelineAdded { name: name.clone() }),
            (Some(_), None) => diff.push(Change::PipelineRemoved { name: name.clone() }),
            (Some(before), Some(after)) if before != after => pipeline(name, before, after, diff),
            _ => {}
        }
    }
}

/// The order of receivers and of exporters means nothing, that of processors does.
fn pipeline(name: &str, before: &Pipeline, after: &Pipeline, diff: &mut SemanticDiff) {
    for role in Role::ALL {
        let old: BTreeSet<&String> = before.role(role).iter().collect();
        let new: BTreeSet<&String> = after.role(role).iter().collect();
        for part in old.symmetric_difference(&new) {
            let joined = new.contains(*part);
            diff.push(Change::Role { pipeline: name.to_owned(), role, name: (*part).clone(), joined });
        }
    }
    let [old, new] =
        [before, after].map(|pipeline| pipeline.processors.iter().collect::<BTreeSet<&String>>());
    let kept_before = before.processors.iter().filter(|name| new.contains(name));
    let kept_after = after.processors.iter().filter(|name| old.contains(name));
    if !kept_before.eq(kept_after) {
        let processors = after.processors.clone();
        diff.push(Change::Reordered { pipeline: name.to_owned(), processors });
    }
}

fn components(before: &CollectorConfig, after: &CollectorConfig, diff: &mut SemanticDiff) {
    let ids: BTreeSet<&ComponentId> = before.components.keys().chain(after.components.keys()).collect();
    let mut left = SemanticDiff::VALUES_OF_ALL_MAX;
    for id in ids {
        if diff.is_full() {
            diff.more += usize::from(before.components.get(id) != after.components.get(id));
            continue;
        }
        let (change, of) = match (before.components.get(id), after.components.get(id)) {
            (None, _) => (ComponentChange::Added, after),
            (Some(_), None) => (ComponentChange::Removed, before),
            (Some(old), Some(new)) => {
                if old == new {
                    continue;
                }
                let mut values = Values::new(SemanticDiff::VALUES_MAX.min(left));
                values.compare(&mut Path::default(), Some(old), Some(new));
                left -= values.found.len();
                diff.more += values.more;
                (ComponentChange::Changed(values.found), after)
            }
        };
        let used_by = match id.kind {
            ComponentKind::Extension if of.extensions.contains(&id.name) => vec!["service".to_owned()],
            _ => of.users(id),
        };
        diff.push(Change::Component { id: id.clone(), change, used_by });
    }
}

fn settings(before: &CollectorConfig, after: &CollectorConfig, diff: &mut SemanticDiff) {
    let keys: BTreeSet<&String> = before.settings.keys().chain(after.settings.keys()).collect();
    let mut values = Values::new(SemanticDiff::CHANGES_MAX);
    for key in keys {
        let mut path = Path::default();
        path.push(Part::Key(key));
        values.compare(&mut path, before.settings.get(key), after.settings.get(key));
    }
    diff.more += values.more;
    for value in values.found {
        diff.push(Change::Setting(value));
    }
}

/// Values that differ, so many and no more.
struct Values {
    found: Vec<ValueChange>,
    max: usize,
    more: usize,
}

impl Values {
    fn new(max: usize) -> Self {
        Self { found: Vec::new(), max, more: 0 }
    }

    /// Compares two values: mappings by key, lists by position.
    fn compare<'a>(&mut self, path: &mut Path<'a>, before: Option<&'a Node>, after: Option<&'a Node>) {
        match (before, after) {
            (Some(before), Some(after)) if before == after => {}
            (Some(Node::Map(before)), Some(Node::Map(after))) => {
                let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for key in keys {
                    path.push(Part::Key(key));
                    self.compare(path, before.get(key), after.get(key));
                    path.pop();
                }
            }
            (Some(Node::List(before)), Some(Node::List(after))) => {
                for index in 0..before.len().max(after.len()) {
                    path.push(Part::Index(index));
                    self.compare(path, before.get(index), after.get(index));
                    path.pop();
                }
            }
            (before, after) if self.found.len() < self.max => {
                let shown = |node: Option<&Node>| node.map(|node| path.shown(node));
                let (before, after) = (shown(before), shown(after));
                self.found.push(ValueChange { path: path.text(), before, after });
            }
            _ => self.more += 1,
        }
    }
}
