//! What a plan would change in configurations of the OpenTelemetry Collector, by what they mean (R11).

use opamp_proto::Fingerprint;

use super::PreviewLimits;
use crate::ConfigMap;
use crate::collector::{NotCollector, SemanticDiff, semantic_diff};
use crate::rollout::plan::{Plan, PlannedMembers};

/// What would change for the members that run one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentMeaning {
    /// What they run.
    pub config: Fingerprint,
    /// How many members run it.
    pub members: u32,
    /// What would change, or why that cannot be told: one of the two is no configuration of a Collector.
    pub changes: Result<SemanticDiff, NotCollector>,
}

/// What a plan would change for each configuration that members run, the most frequent first, at most
/// [`PreviewLimits::configs_max`]: beside the textual differences of [`super::preview`]. Configurations that `configs` does
/// not have are left out.
pub fn semantic(
    plan: &Plan,
    members: &PlannedMembers,
    configs: &dyn Fn(Fingerprint) -> Option<ConfigMap>,
    limits: &PreviewLimits<'_>,
) -> Vec<CurrentMeaning> {
    let Some(target) = configs(plan.target) else { return Vec::new() };
    let shown = members.currents.iter().take(limits.configs_max);
    let known = shown.filter_map(|(config, members)| Some(((*config)?, *members)));
    let meaning = |(config, members)| {
        let changes = semantic_diff(configs(config)?.map(), target.map());
        Some(CurrentMeaning { config, members, changes })
    };
    known.filter_map(meaning).collect()
}
