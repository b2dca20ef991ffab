//! Who is selected, and who is excluded before anything is offered, and why (R9, R10).

use std::cell::Cell;

use opamp_proto::{AgentCapabilities, Fingerprint};

use super::{Candidate, ConflictPolicy, Plan, PlanRequest};
use crate::labels::{LabelScope, LabelValue};
use crate::rollout::{Offline, Reason, RolloutId, Slot};
use crate::selector::{LabelFact, Subject};
use crate::{AgentFacts, Drift, Health, Liveness, Selector};

impl Plan {
    /// The label with which an agent, or an operator for it, stays out of rollouts: its value is [`Plan::OPT_OUT_VALUE`].
    pub const OPT_OUT_LABEL: &str = "opamp.rollouts";
    /// See [`Plan::OPT_OUT_LABEL`].
    pub const OPT_OUT_VALUE: &str = "off";
}

/// What a rollout asks of its members.
pub(super) struct Needs<'a> {
    id: RolloutId,
    target: Fingerprint,
    target_bytes: u64,
    agent_type: Option<&'a str>,
    components: &'a [Box<str>],
    capabilities: AgentCapabilities,
    offline: Offline,
    conflict: ConflictPolicy,
}

impl<'a> Needs<'a> {
    pub(super) fn of_request(request: &'a PlanRequest<'_>, target: Fingerprint, target_bytes: u64) -> Self {
        Self {
            id: request.id,
            target,
            target_bytes,
            agent_type: request.target.agent_type.as_deref(),
            components: &request.target.components,
            capabilities: capabilities(request.slot, request.target.capabilities),
            offline: request.settings.offline,
            conflict: request.conflict,
        }
    }

    pub(super) fn of_plan(plan: &'a Plan) -> Self {
        Self {
            id: plan.id,
            target: plan.target,
            target_bytes: plan.target_bytes,
            agent_type: plan.agent_type.as_deref(),
            components: &plan.components,
            capabilities: plan.capabilities,
            offline: plan.settings.offline,
            conflict: plan.conflict,
        }
    }

    /// Why a selected agent is left out; none if it is not. What somebody decided about it comes before what it is.
    pub(super) fn exclusion(&self, candidate: &Candidate<'_>) -> Option<Reason> {
        let facts = candidate.facts;
        let opt_out = facts.labels.value(None, Plan::OPT_OUT_LABEL).and_then(LabelValue::as_text);
        let is_away = match self.offline {
            Offline::Defer => facts.liveness == Liveness::NeverSeen,
            Offline::Exclude => facts.liveness != Liveness::Connected,
        };
        let lacks = |name: &str| candidate.components.is_some_and(|has| !has.has_component(name));
        let conditions = [
            (opt_out == Some(Plan::OPT_OUT_VALUE), Reason::OptedOut),
            (candidate.quarantined, Reason::Quarantined),
            (self.is_held_by_another(candidate), Reason::Locked),
            (is_away, Reason::NotConnected),
            (self.agent_type.is_some_and(|wanted| wanted != facts.agent_type()), Reason::WrongType),
            (!facts.capabilities.contains(self.capabilities), Reason::CapabilityMissing),
            (self.components.iter().any(|name| lacks(name)), Reason::ComponentMissing),
            (self.target_bytes > candidate.send_bytes_max, Reason::TooLarge),
            (candidate.failed.contains(&self.target), Reason::HashFailedBefore),
        ];
        conditions.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }

    /// Which other rollout holds the agent.
    pub(super) fn overlap(&self, candidate: &Candidate<'_>) -> Option<RolloutId> {
        candidate.locked_by.filter(|holder| *holder != self.id)
    }

    fn is_held_by_another(&self, candidate: &Candidate<'_>) -> bool {
        self.conflict == ConflictPolicy::Reject && self.overlap(candidate).is_some()
    }
}

/// What a slot asks for, and what the configuration asks for beside it.
pub(super) fn capabilities(slot: Slot, asked: AgentCapabilities) -> AgentCapabilities {
    let own = match slot {
        Slot::ConnectionSettings => AgentCapabilities::NONE,
        Slot::MainConfig | Slot::NamedConfig(_) => AgentCapabilities::ACCEPTS_REMOTE_CONFIG,
        Slot::Packages(_) => AgentCapabilities::ACCEPTS_PACKAGES,
        Slot::Restart => AgentCapabilities::ACCEPTS_RESTART_COMMAND,
    };
    own.union(asked)
}

/// Whether a selector names an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    No,
    /// Labels of it were dropped, and one of them would decide.
    Unknown,
    Yes,
}

/// A selector that can also say that it does not know.
pub(super) struct Selection<'a> {
    whole: &'a Selector,
    /// Its requirements, each by itself.
    parts: Vec<Selector>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(whole: &'a Selector) -> Self {
        // What a requirement displays is a selector that asks for it alone.
        let parts =
            whole.requirements().iter().filter_map(|requirement| requirement.to_string().parse().ok());
        Self { whole, parts: parts.collect() }
    }

    /// Fails closed: an agent of which it is not known is not selected, and reported.
    pub(super) fn of(&self, facts: &AgentFacts) -> Selected {
        if self.whole.matches(facts) {
            return Selected::Yes;
        }
        if !facts.labels.is_truncated() {
            return Selected::No;
        }
        let could_match = self.parts.iter().all(|part| {
            let asked = Asked { facts, unknown: Cell::new(false) };
            part.matches(&asked) || asked.unknown.get()
        });
        if could_match { Selected::Unknown } else { Selected::No }
    }
}

/// An agent's facts, and whether something was asked that is not known of it.
struct Asked<'a> {
    facts: &'a AgentFacts,
    unknown: Cell<bool>,
}

impl Subject for Asked<'_> {
    fn label(&self, scope: Option<LabelScope>, key: &str) -> LabelFact<'_> {
        let found = self.facts.label(scope, key);
        self.unknown.set(self.unknown.get() || found == LabelFact::Unknown);
        found
    }

    fn capabilities(&self) -> AgentCapabilities {
        self.facts.capabilities
    }

    fn drift(&self) -> Drift {
        self.facts.drift
    }

    fn health(&self) -> Health {
        self.facts.health
    }

    fn liveness(&self) -> Liveness {
        self.facts.liveness
    }
}
