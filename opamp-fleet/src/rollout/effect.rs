//! What comes out of the engine: journal entries, writes of the same transaction, acts after it.

use opamp_proto::{AgentId, Fingerprint};

use super::gates::Evidence;
use super::journal::Entry;
use super::{CommandOutcome, GateIx, GroupIx, OfferKey, Reason, RolloutId, Slot, Time, WaveIx};
use crate::words::closed_set;

/// What one or more `handle` calls want recorded, written and done. Reused; cleared by the caller, or taken.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub(crate) entries: Vec<Entry>,
    pub(crate) writes: Vec<Write>,
    pub(crate) acts: Vec<Act>,
    pub(crate) answer: Option<CommandOutcome>,
}

impl Effects {
    /// Forgets everything, and keeps the memory for the next call.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.writes.clear();
        self.acts.clear();
        self.answer = None;
    }

    /// Whether there is nothing to record, write or do.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.writes.is_empty() && self.acts.is_empty()
    }

    /// What happened, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What has to be written in the same transaction.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// What is to be done after the commit.
    pub fn acts(&self) -> &[Act] {
        &self.acts
    }

    /// How the last command that was handled ended; none if there was none, or it was refused.
    pub fn answer(&self) -> Option<CommandOutcome> {
        self.answer
    }

    /// Takes everything out; the answer stays until [`Effects::clear`].
    pub fn take(&mut self) -> (Vec<Entry>, Vec<Write>, Vec<Act>) {
        (std::mem::take(&mut self.entries), std::mem::take(&mut self.writes), std::mem::take(&mut self.acts))
    }
}

/// Written in the same transaction as the entries. Each is idempotent by what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The desired state of one agent by the steady state of its group (R24). It changes nothing unless the last offer of that
    /// slot of the agent's record is still the one it goes over, which the store decides in its transaction: nothing orders
    /// it against what rollouts write. A second write of a key changes nothing either, and is answered as the first one was,
    /// whatever it goes over.
    Assign {
        /// The offer.
        key: OfferKey,
        /// Which part of the agent.
        slot: Slot,
        /// What it should have.
        config: Fingerprint,
        /// The offer that made what it should have so far in that slot; none if that was no rollout's.
        over: Option<OfferKey>,
    },
    /// Actor, reason, before, after, evidence (R7).
    Audit(Box<Audit>),
    /// The breaker is open until then, or closed.
    Breaker {
        /// Until when it is open.
        open_until: Option<Time>,
    },
    /// The desired state of one agent. A second write of the same key changes nothing. What an agent is put back *from* is
    /// not its last known good configuration any more: what it is put back to is.
    Desire {
        /// The offer.
        key: OfferKey,
        /// Which part of the agent.
        slot: Slot,
        /// What it should have.
        config: Fingerprint,
        /// Whether this puts the agent back, in a rollback or because an undelivered offer is taken back.
        rollback: bool,
    },
    /// A configuration does not work on an agent. If it is its last known good one, what it had before is (R66).
    Failed {
        /// The agent.
        agent: AgentId,
        /// Which part of it.
        slot: Slot,
        /// What does not work on it.
        config: Fingerprint,
        /// What it had before.
        previous: Option<Fingerprint>,
        /// Whether its record remembers it, so that no later rollout offers it again (R31). That it was not heard of in
        /// time, or that somebody edited it away, is no proof.
        remembered: bool,
    },
    /// The group's steady state after success; later agents get it without a rollout (R24).
    GroupDesired {
        /// The group.
        group: GroupIx,
        /// Which part of its agents.
        slot: Slot,
        /// What they should have.
        config: Fingerprint,
        /// Who says so.
        rollout: RolloutId,
    },
    /// A wave was watched as long as it was to be, and passed, or the rollout succeeded. Of each member that is verified then
    /// the configuration is the last known good one from now on (R66): what later rollouts put it back to. Verified alone
    /// it is not, and who became so after that in the same transaction was not watched. It is one write however many they are:
    /// [`super::Engine::members`] names them.
    KnownGood {
        /// Whose members.
        rollout: RolloutId,
        /// Which part of its agents.
        slot: Slot,
        /// What they run well.
        config: Fingerprint,
        /// Those of which wave; none for all.
        wave: Option<WaveIx>,
        /// When: members that came into their state later are left out. Who came into it in that very millisecond is not,
        /// be it before or after: where waves are watched for no time at all, that is everybody.
        at: Time,
    },
    /// The configuration must be kept as long as the rollout needs it (R71). It is written with the first offer to somebody
    /// who can go back to it: what members of a live rollout had when its plan was made must be kept before that.
    Pin {
        /// Who needs it.
        rollout: RolloutId,
        /// The configuration.
        config: Fingerprint,
    },
    /// The agent is left alone by rollouts (R56).
    Quarantine {
        /// The agent.
        agent: AgentId,
        /// Until when; none until it is released.
        until: Option<Time>,
        /// Why.
        reason: Reason,
    },
    /// The configuration is never offered again (R57).
    Recall {
        /// The configuration.
        config: Fingerprint,
        /// Why.
        reason: Box<str>,
    },
    /// The agent's quarantine is over.
    Release {
        /// The agent.
        agent: AgentId,
    },
    /// The rollout needs none of its configurations any more.
    Unpin {
        /// The rollout.
        rollout: RolloutId,
    },
}

/// Done after the commit. It may be lost, which a sweep repairs, or repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Somebody should look.
    Alert(Box<Alert>),
    /// A provider is asked for a verdict; it answers with [`super::Reading::External`].
    AskExternal {
        /// The gate that asks.
        gate: GateIx,
        /// The wave it asks about.
        wave: WaveIx,
        /// What the answer has to name.
        ticket: u64,
    },
    /// The agent's desired state has changed: its session should look.
    Hint {
        /// The agent.
        agent: AgentId,
    },
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The rollout.
    pub rollout: RolloutId,
    /// When.
    pub at: Time,
    /// Who: a user, or the engine itself.
    pub actor: Box<str>,
    /// Why, in the actor's words.
    pub reason: Box<str>,
    /// What it was before.
    pub before: Box<str>,
    /// What it is now.
    pub after: Box<str>,
    /// The gate's evidence, if a gate decided.
    pub evidence: Option<Evidence>,
}

/// Something an operator should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What kind of thing.
    pub kind: AlertKind,
    /// The rollout.
    pub rollout: RolloutId,
    /// The wave, if it is about one.
    pub wave: Option<WaveIx>,
    /// When.
    pub at: Time,
    /// One line.
    pub text: Box<str>,
}

closed_set! {
    /// Kinds of alerts.
    pub enum AlertKind ("alert kind") {
        /// The breaker has opened.
        BreakerOpen = "breaker-open",
        /// An agent left the steady state of its group.
        Drifted = "drifted",
        /// The rollout has ended badly.
        Ended = "ended",
        /// A gate failed, or would have acted while an operator has paused.
        Gate = "gate",
        /// A wave passed although its test was undecided.
        PassedUndecided = "passed-undecided",
        /// The rollout pauses or holds.
        Paused = "paused",
        /// The rollout is frozen in this process: its batch was refused as invalid.
        Poisoned = "poisoned",
        /// An agent was quarantined.
        Quarantined = "quarantined",
        /// The rollout rolls back.
        RollingBack = "rolling-back",
    }
}
