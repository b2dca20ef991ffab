//! Plans of model fleets.

use std::sync::Arc;

use opamp_fleet::rollout::plan::{Plan, PlanRequest, PlannedMembers, Target};
use opamp_fleet::rollout::{PlanError, RolloutId};
use opamp_fleet::{ConfigError, ConfigMap, Selector};

use super::fleet::{FleetModel, config};

/// A plan with its members, made of a model fleet. One plan serves any number of rollouts: members are cloned.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its members.
    pub members: PlannedMembers,
}

/// What a rollout over a model fleet is about: the configuration, and who gets it.
#[derive(Clone, Debug)]
pub struct Subject {
    id: RolloutId,
    title: Box<str>,
    config: ConfigMap,
    selector: Selector,
}

impl Subject {
    /// A rollout of a configuration of this name for all agents. `seed` makes its id, and by that its order.
    ///
    /// # Errors
    /// [`ConfigError`] if the name is too long for a configuration.
    pub fn new(seed: u64, name: &str) -> Result<Self, ConfigError> {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&seed.to_be_bytes());
        let id = RolloutId::v7(0, random);
        Ok(Self { id, title: name.into(), config: config(name)?, selector: Selector::default() })
    }

    /// The same for some of them.
    #[must_use]
    pub fn for_agents(self, selector: Selector) -> Self {
        Self { selector, ..self }
    }

    /// The same with this configuration instead of one that is made of its name.
    #[must_use]
    pub fn with_config(self, config: ConfigMap) -> Self {
        Self { config, ..self }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ConfigMap {
        &self.config
    }

    /// A request with defaults everywhere: a canary over all agents, with all default gates.
    #[must_use]
    pub fn request(&self) -> PlanRequest<'_> {
        let target = Target::new(&self.config);
        PlanRequest { title: self.title.clone(), ..PlanRequest::new(self.id, target, &self.selector) }
    }
}

impl Planned {
    /// Makes the plan of a request for a fleet.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn make(fleet: &FleetModel, request: PlanRequest<'_>) -> Result<Self, PlanError> {
        let (plan, members) =
            Plan::make_of(request, |take| fleet.each_candidate(take), fleet.sizes(), fleet.begins)?;
        Ok(Self { plan: Arc::new(plan), members })
    }
}
