//! Transactions made by hand, for tests of the invariants.

use std::sync::Arc;

use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::commit::{Batch, BatchKey};
use opamp_fleet::rollout::journal::RolloutEntry;
use opamp_fleet::rollout::{
    Changed, Epoch, Fell, Flags, MemberState, PauseReason, Reason, RolloutId, RolloutState, Serial, Time,
    WaveIx,
};
use opamp_proto::{AgentId, Fingerprint};

use crate::sim::ledger::Change;
use crate::sim::scenario::Scenario;
use crate::sim::store::{Desired, Written};
use crate::sim::world::{Commit, StepSeen, World};

pub(super) const ROLLOUT: RolloutId = RolloutId::from_bytes([1; 16]);
pub(super) const AGENT: AgentId = AgentId::from_bytes([2; 16]);
pub(super) const CONFIG: Fingerprint = Fingerprint::from_bytes([3; 16]);

pub(super) fn world() -> World {
    World::new(&Scenario::drawn(1), Faults::default())
}

pub(super) fn row(state: MemberState, offer: u32) -> Changed {
    Changed {
        state,
        reason: Reason::Nothing,
        stage: state,
        falls: 0,
        transport_tries: 0,
        failed_tries: 0,
        falls_before: 0,
        returns: 0,
        flags: Flags::default(),
        bad: 0,
        offer,
        since: Time(10),
        deadline: Time::NEVER,
        applied_at: Time(0),
        fell: Fell::default(),
    }
}

pub(super) fn member(before: Changed, after: Changed) -> Change {
    let row_before = Some(before);
    Change::Member { agent: AGENT, wave: WaveIx(0), before: before.state, row_before, after }
}

pub(super) fn rollout(before: RolloutState, to: RolloutState, pause: Option<PauseReason>) -> Change {
    let entry = RolloutEntry {
        to,
        reason: Reason::Nothing,
        pause,
        from: None,
        ending: None,
        scope: None,
        plan: None,
        actor: "test".into(),
        evidence: None,
        at: Time(20),
    };
    Change::Rollout { before, entry: Box::new(entry) }
}

pub(super) fn desired(offer: u32, rollback: bool) -> Desired {
    Desired { agent: AGENT, config: CONFIG, rollback, repeated: false, offer, before: (None, None) }
}

pub(super) fn commit(changes: Vec<Change>, desires: Vec<Desired>) -> Commit {
    let batch = Batch {
        key: BatchKey { rollout: ROLLOUT, base: Serial(0), epoch: Epoch(1) },
        epoch: Epoch(1),
        base: Serial(0),
        at: Time(20),
        entries: Vec::new(),
        writes: Vec::new(),
        snapshot: None,
    };
    let written = Written { serial: Serial(1), changes, desires };
    Commit { replica: 0, epoch: Epoch(1), batch: Arc::new(batch), written }
}

pub(super) fn seen(changes: Vec<Change>, desires: Vec<Desired>) -> StepSeen {
    StepSeen { commits: vec![commit(changes, desires)], ..StepSeen::default() }
}
