//! What all rollouts are told, and what comes of it.

use std::collections::BTreeMap;

use opamp_proto::{AgentId, Fingerprint};

use crate::rollout::steady::Placed;
use crate::rollout::{
    Act, AgentFact, Command, Effects, FleetFact, GroupIx, PlanError, Reading, Refused, RolloutId, Slot, Write,
};

/// What all rollouts are told.
#[derive(Clone, Copy, Debug)]
pub enum FleetEvent<'a> {
    /// Something became known of an agent.
    Agent {
        /// The rollout whose offers the fact speaks of; none if it speaks of none, and then all are told that have the
        /// agent.
        rollout: Option<RolloutId>,
        /// The agent.
        agent: &'a AgentId,
        /// What became known.
        fact: AgentFact<'a>,
    },
    /// Offers may be made again, although the breaker is open (R55).
    CloseBreaker,
    /// Somebody wants something of a rollout.
    Command {
        /// The rollout.
        rollout: RolloutId,
        /// What.
        command: &'a Command,
    },
    /// Something became known of the fleet: told to one rollout, or to all.
    Fleet {
        /// The rollout; none: all.
        rollout: Option<RolloutId>,
        /// What became known.
        fact: FleetFact,
    },
    /// The steady state of a group is this one, as committed (R24). Told when it is written, and for each group at start.
    GroupDesired {
        /// The group.
        group: GroupIx,
        /// Which part of its agents.
        slot: Slot,
        /// What they should have.
        config: Fingerprint,
        /// Whose success made it so.
        rollout: RolloutId,
    },
    /// The assignments of a group that stopped after failures go on.
    GroupGoesOn {
        /// The group.
        group: GroupIx,
        /// Which part of its agents.
        slot: Slot,
    },
    /// Where an agent belongs and what it runs, as it is now (R22b, R24, R80). Told whenever that has changed, for all of a
    /// group after its [`FleetEvent::GroupDesired`], and at start for all agents of groups, before anything else is told:
    /// what was assigned shortly before holds its agents again then.
    Placed(&'a Placed<'a>),
    /// A value or a verdict for a rollout.
    Reading {
        /// The rollout.
        rollout: RolloutId,
        /// What.
        reading: &'a Reading,
    },
    /// A configuration is never to be offered again (R57).
    Recall {
        /// The configuration.
        config: Fingerprint,
        /// Who says so.
        actor: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// An agent's quarantine is over (R56).
    Release {
        /// The agent.
        agent: &'a AgentId,
    },
    /// `next_deadline()` has passed.
    Tick,
}

/// Effects by rollout: each is committed by itself.
#[derive(Clone, Debug, Default)]
pub struct RolloutEffects {
    pub(crate) by_rollout: BTreeMap<RolloutId, Effects>,
    pub(crate) shared: Effects,
}

impl RolloutEffects {
    /// The effects of one rollout, made if there are none yet.
    pub fn of(&mut self, id: RolloutId) -> &mut Effects {
        self.by_rollout.entry(id).or_default()
    }

    /// Rollouts with something to commit, by name.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (RolloutId, &mut Effects)> {
        self.by_rollout
            .iter_mut()
            .filter(|(_, effects)| !effects.is_empty())
            .map(|(id, effects)| (*id, effects))
    }

    /// What belongs to no live rollout: recalls, releases, assignments of steady states. It has writes and acts and no
    /// entries, and is committed by itself under the same fence, the acts after it; each write is idempotent by what it
    /// names. Nothing orders it against what rollouts commit, which is why an assignment names the offer it goes over.
    pub fn shared(&mut self) -> &mut Effects {
        &mut self.shared
    }

    /// Takes out what belongs to no live rollout.
    pub fn take_shared(&mut self) -> (Vec<Write>, Vec<Act>) {
        let (_, writes, acts) = self.shared.take();
        (writes, acts)
    }

    /// Forgets the effects of a rollout.
    pub fn forget(&mut self, id: RolloutId) {
        self.by_rollout.remove(&id);
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.by_rollout.values().all(Effects::is_empty)
    }
}

/// Why a rollout is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// There is one of this name already.
    #[error("there is a rollout of this name")]
    Exists,
    /// Another rollout has some of the agents, and the policy is to refuse then.
    #[error("{} rollouts have some of the agents", .0.len())]
    Overlaps(Vec<(RolloutId, u32)>),
    /// The plan is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Too many live rollouts.
    #[error("at most {limit} rollouts at a time")]
    TooMany {
        /// The bound.
        limit: usize,
    },
}

/// Why an event came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The rollout refuses the command.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// More configurations are recalled than can be remembered.
    #[error("too many recalled configurations")]
    TooManyRecalled,
    /// The rollout is not here: it is unknown, or it is being rebuilt from its records, and then the command may be
    /// repeated under its key.
    #[error("no rollout of this name is live here")]
    UnknownRollout,
}
