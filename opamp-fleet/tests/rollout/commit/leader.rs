//! What a process does with one rollout: engine, committer, and agents that say all they can.

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::coordinator::Coordinator;
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::commit::{CommitSettings, Committer, Next};
use opamp_fleet::rollout::plan::{FleetSizes, Plan, PlannedMembers, Strategy};
use opamp_fleet::rollout::{
    Act, AgentFact, Command, CommandKey, CommandOutcome, ConfigStatus, Do, Effective, Effects, Engine, Epoch,
    Event, Refused, Serial, Time,
};

use super::store::Store;
use crate::support::{self, START, agents, by_number, config, permissive};

/// What a process does with one rollout.
pub(crate) struct Leader {
    pub(crate) plan: Arc<Plan>,
    pub(crate) members: PlannedMembers,
    pub(crate) engine: Engine,
    pub(crate) shared: Coordinator,
    pub(crate) committer: Committer,
    pub(crate) out: Effects,
    pub(crate) acts: Vec<Act>,
    pub(crate) now: Time,
}

/// Where a process dies: at its so-manieth commit, before or after the store has written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    pub(crate) commit: u64,
    pub(crate) written: bool,
}

pub(crate) const SETTINGS: fn() -> CommitSettings = CommitSettings::default;

impl Leader {
    pub(crate) fn new(count: u32) -> Self {
        let (new, selector, fleet) = (config("new"), Selector::default(), agents(count));
        let mut request = support::request(&new, &selector, Strategy::Batches { size: 2 });
        request.order = by_number(&fleet);
        let sizes = FleetSizes { agents: count, group: 0 };
        let made = Plan::make(request, fleet.iter().map(support::Known::candidate), sizes, START);
        let (plan, members) = made.expect("a plan");
        let plan = Arc::new(plan);
        let engine = Engine::new(Arc::clone(&plan), members.clone(), START, Faults::default());
        let committer = Committer::new(plan.id, Serial(0), Epoch(1), SETTINGS(), Faults::default());
        let mut shared = permissive();
        shared.register(plan.id, plan.slot, plan.conflict, &[]).expect("the only rollout");
        Self {
            plan,
            members,
            engine,
            shared,
            committer,
            out: Effects::default(),
            acts: Vec::new(),
            now: START,
        }
    }

    /// Another process with the same records, or the same one after it has dropped the engine.
    pub(crate) fn rebuilt(&self, store: &Store, epoch: Epoch) -> Self {
        let (plan, members) = (Arc::clone(&self.plan), self.members.clone());
        let tail = store.tail.iter().cloned();
        let engine = Engine::restore(
            Arc::clone(&plan),
            members.clone(),
            store.snapshot.as_ref(),
            tail,
            Faults::default(),
        );
        let mut engine = engine.expect("the records of a rollout");
        engine.committed(store.serial);
        engine.check().expect("invariants");
        let mut shared = permissive();
        shared.adopt(&engine, self.now);
        let committer = Committer::new(plan.id, store.serial, epoch, SETTINGS(), Faults::default());
        Self {
            plan,
            members,
            engine,
            shared,
            committer,
            out: Effects::default(),
            acts: Vec::new(),
            now: self.now,
        }
    }

    pub(crate) fn event(&mut self, event: Event<'_>) -> Result<Option<CommandOutcome>, Refused> {
        let result = self.engine.handle(event, self.now, &mut self.shared, &mut self.out);
        let answer = self.out.answer();
        self.committer.add(&mut self.out, self.now);
        self.out.clear();
        if let Some(touched) = self.committer.wants_snapshot() {
            let snapshot = self.engine.snapshot_of(touched);
            self.committer.add_snapshot(snapshot);
        }
        result.map(|()| answer)
    }

    pub(crate) fn command(&mut self, key: &str, do_: Do) -> Result<CommandOutcome, Refused> {
        let key = CommandKey::new(key).expect("a short key");
        let command = Command { key, actor: "operator".into(), reason: "a test".into(), expected: None, do_ };
        self.event(Event::Command(&command)).map(|answer| answer.expect("a command has an answer"))
    }

    /// Commits what waits. True if the process died on the way.
    pub(crate) fn pump(&mut self, store: &mut Store, crash: Option<Crash>) -> bool {
        loop {
            match self.committer.poll(self.now) {
                Next::Act(acts) => self.acts.extend(acts),
                Next::Commit(batch) => {
                    let dies = crash.is_some_and(|crash| crash.commit == batch.base.0);
                    if dies && crash.is_some_and(|crash| !crash.written) {
                        return true;
                    }
                    let outcome = store.commit(&batch);
                    if dies {
                        return true;
                    }
                    self.committer.answered(batch.key, outcome, self.now);
                    self.engine.committed(self.committer.serial());
                }
                Next::Idle | Next::Wait(_) => return false,
                other => panic!("{other:?}"),
            }
        }
    }

    /// One step: every agent with a committed offer says all it can, time goes on, and operators repeat themselves.
    pub(crate) fn step(&mut self, store: &Store) {
        let plan = self.plan.hash;
        let commands = [
            ("submit", Do::Submit),
            ("preflight", Do::Preflighted { plan, usable: true }),
            ("start", Do::Start { plan }),
            ("preflight again", Do::Preflighted { plan, usable: true }),
        ];
        for (key, do_) in commands {
            let _ = self.command(key, do_);
        }
        for (agent, desired) in &store.desired {
            let offer = desired.key.offer;
            let hash = desired.config;
            let facts = [
                AgentFact::Delivered { offer },
                AgentFact::Reported { offer, hash, status: ConfigStatus::Applied, text: None },
                AgentFact::Effective { offer, relation: Effective::Equal },
                AgentFact::Health { offer, healthy: true },
            ];
            for fact in facts {
                self.event(Event::Agent { agent, fact }).expect("a fact is not refused");
            }
        }
        self.now = self.now + Duration::from_secs(20);
        self.event(Event::Tick).expect("a tick is not refused");
    }
}
