//! The model fleet: agents in 16 bytes, outcomes drawn, the real engine and coordinator, no bytes on a wire.
//!
//! ```text
//! FleetModel ─► Plan::make ─► Engine ─► Write::Desire ─► agents ─► AgentFact ─► Engine …
//!                               └─► Entry ─► Timeline, Tally
//! ```
//!
//! It decides what a plan is worth, on fleets of any size: the simulation of sessions, links and a store decides whether the
//! engine is right. Every commit succeeds at once here.

mod agents;
pub mod draw;
pub mod fleet;
mod operator;
pub mod planned;
mod script;
mod tally;
#[cfg(test)]
mod tests;
pub mod text;
pub mod timeline;

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::coordinator::{Coordinator, CoordinatorRows, CoordinatorSettings};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{ConflictPolicy, Plan, PlannedMembers};
use opamp_fleet::rollout::{
    AgentFact, Command, CommandKey, CommandOutcome, Do, Effects, Engine, Event, NextAction, PauseReason,
    Reason, RolloutState, Summary, Time, WaveIx, WaveState, Who, Why, Write,
};
use opamp_proto::{AgentId, Fingerprint};

pub use operator::{ACTS, Operator, act_named, act_words};
pub use script::Script;
pub use tally::{RunEnd, Tally};

use self::agents::Agents;
use self::fleet::{FleetModel, agent_of};
use self::timeline::{Answer, Timeline};

/// Steps without any time passing, and more of them for each agent, before the run counts as stuck: each agent does a few things
/// at one time at most, and a tick for each is plenty.
const STILL_STEPS_MAX: (u64, u64) = (1_000, 32);

/// What somebody is going to do about a wave that waits for it.
#[derive(Clone, Debug)]
struct Reaction {
    at: Time,
    wave: WaveIx,
    wanted: Do,
}

/// One rollout over a model fleet.
#[derive(Debug)]
pub struct Model<'a> {
    agents: Agents<'a>,
    fleet: &'a FleetModel,
    plan: Arc<Plan>,
    engine: Engine,
    shared: Coordinator,
    effects: Effects,
    operator: Operator,
    /// Position of the next act.
    act: usize,
    /// When somebody reacts to a wave that waits.
    reaction: Option<Reaction>,
    /// Whether it was told to start.
    started: bool,
    commands: u32,
    now: Time,
    /// Steps since time passed.
    still_steps: u64,
    tally: Tally,
    timeline: Option<Timeline>,
    script: Option<Script>,
}

impl<'a> Model<'a> {
    /// A rollout of a plan of this fleet, in draft.
    #[must_use]
    pub fn new(fleet: &'a FleetModel, plan: Arc<Plan>, members: PlannedMembers, operator: Operator) -> Self {
        Self::with(fleet, plan, members, operator, CoordinatorSettings::default())
    }

    /// The same under other shared bounds.
    #[must_use]
    pub fn with(
        fleet: &'a FleetModel,
        plan: Arc<Plan>,
        members: PlannedMembers,
        operator: Operator,
        shared: CoordinatorSettings,
    ) -> Self {
        let rows = CoordinatorRows { fleet: fleet.agents, ..CoordinatorRows::default() };
        let mut shared = Coordinator::new(shared, rows, Faults::default());
        // The only rollout: there is none it could be in conflict with.
        let registered = shared.register(plan.id, plan.slot, ConflictPolicy::Reject, &[]);
        debug_assert!(registered.is_ok());
        let engine = Engine::new(Arc::clone(&plan), members, fleet.begins, Faults::default());
        shared.adopt(&engine, fleet.begins);
        Self {
            agents: Agents::new(fleet, plan.target, plan.start_at.unwrap_or(fleet.begins)),
            fleet,
            engine,
            plan,
            shared,
            effects: Effects::default(),
            operator,
            act: 0,
            reaction: None,
            started: false,
            commands: 0,
            now: fleet.begins,
            still_steps: 0,
            tally: Tally::default(),
            timeline: None,
            script: None,
        }
    }

    /// Keeps what happens for [`Model::timeline`].
    pub fn watch(&mut self) {
        self.timeline = Some(Timeline::new(self.fleet.begins, &self.plan.waves));
    }

    /// Writes down from now on what the engine is told, for [`Model::script`].
    pub fn write_script(&mut self) {
        self.script = Some(Script::default());
    }

    /// Runs until the rollout ends, nothing happens any more, or `length` is over.
    pub fn run(&mut self, length: Duration) -> RunEnd {
        self.run_while(length, |_| true)
    }

    /// Runs until the first stop, if there is one.
    pub fn run_until_stopped(&mut self, length: Duration) -> RunEnd {
        match self.run_while(length, |tally| tally.first_stop.is_none()) {
            RunEnd::Stopped | RunEnd::Ended if self.tally.first_stop.is_some() => RunEnd::Stopped,
            other => other,
        }
    }

    /// Says of the acts that are left that they were not reached. No run comes after this.
    pub fn give_up_acts(&mut self) {
        let left = self.operator.acts.iter().skip(self.act);
        if let Some(timeline) = &mut self.timeline {
            for (after, wanted) in left {
                let words = act_words(wanted, &self.plan.gates);
                timeline.act(self.fleet.begins + *after, words, Answer::NotReached);
            }
        }
        self.act = self.operator.acts.len();
    }

    /// One event: what is due next. Nothing if nothing is.
    pub fn step(&mut self) -> Option<Time> {
        self.start();
        let next = self.next()?;
        self.still_steps = if next > self.now { 0 } else { self.still_steps + 1 };
        self.now = self.now.max(next);
        if let Some(wanted) = self.act_due() {
            self.play(wanted);
        } else if let Some(wanted) = self.reaction_due() {
            self.carry_out(wanted);
        } else if self.agents.next().is_some_and(|at| at <= self.now) {
            let Self { agents, engine, plan, shared, effects, now, tally, script, .. } = self;
            agents.act(*now, &mut |agent, fact| {
                // The engine relies on whoever tells it that the selector names who joins (R9).
                if matches!(&fact, AgentFact::Joined(joiner) if !plan.selector.matches(joiner.facts)) {
                    return;
                }
                tally.events += 1;
                if let Some(script) = script {
                    script.fact(*now, agent, fact);
                }
                let agent = fleet::id_of(agent);
                // Facts are never refused.
                let _ = engine.handle(Event::Agent { agent: &agent, fact }, *now, shared, effects);
            });
            self.drain();
        } else {
            self.tick();
        }
        Some(self.now)
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { first_fault: self.agents.first_fault(), ..self.tally }
    }

    /// What happened, if it was watched.
    #[must_use]
    pub fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    /// What the engine was told, if that was written down.
    #[must_use]
    pub fn script(&self) -> Option<&Script> {
        self.script.as_ref()
    }

    /// The rollout in operators' words.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.engine.summary(self.now)
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine with what it shares, and the time, without the fleet: what measurements of the engine alone begin with.
    #[must_use]
    pub fn into_engine(self) -> (Engine, Coordinator, Time) {
        (self.engine, self.shared, self.now)
    }

    /// Why the rollout does not move.
    #[must_use]
    pub fn why(&self) -> Why {
        self.engine.why_not_moving(self.now, &self.shared)
    }

    /// Why it does not move, if it waits for people, and the operator of this model is not going to do anything about it.
    #[must_use]
    pub fn waits_for_people(&self) -> Option<Why> {
        let is_left_alone = self.operator.acts.len() <= self.act && self.reaction().is_none();
        let expires = self.plan.expires_at.is_some_and(|at| at > self.now);
        let why = self.why();
        let waits = matches!(why.next, NextAction::Needs(Who::Approver | Who::Operator));
        (is_left_alone && !expires && waits).then_some(why)
    }

    /// What an agent runs.
    #[must_use]
    pub fn runs(&self, agent: &AgentId) -> Option<Fingerprint> {
        self.agents.runs(agent_of(agent))
    }

    /// Time passed since the rollout was planned.
    #[must_use]
    pub fn passed(&self) -> Duration {
        self.now.since(self.fleet.begins)
    }

    fn run_while(&mut self, length: Duration, goes_on: impl Fn(&Tally) -> bool) -> RunEnd {
        let until = self.fleet.begins + length;
        let still_max = STILL_STEPS_MAX.0 + STILL_STEPS_MAX.1 * u64::from(self.fleet.agents);
        let end = loop {
            // A tick may have taken it to where it waits for being compared with the fleet.
            self.start();
            if self.engine.state().is_terminal() {
                break RunEnd::Ended;
            }
            if !goes_on(&self.tally) {
                break RunEnd::Stopped;
            }
            if self.still_steps > still_max {
                break RunEnd::Stuck;
            }
            match self.next() {
                None => break RunEnd::Waits,
                Some(next) if next > until => break RunEnd::Time,
                Some(_) => _ = self.step(),
            }
        };
        if let Some(timeline) = &mut self.timeline {
            timeline.sample(self.now, &self.engine);
        }
        end
    }

    /// Takes it from draft to where its plan says that it begins, and from there on once it is time.
    fn start(&mut self) {
        let hash = self.plan.hash;
        while !self.started {
            let before = self.engine.state();
            let wanted = match before {
                RolloutState::Draft => Do::Submit,
                RolloutState::PendingApproval => Do::Approve { plan: hash, wave: None },
                RolloutState::Preflight => Do::Preflighted { plan: hash, usable: true },
                RolloutState::Ready => Do::Start { plan: hash },
                RolloutState::Scheduled if self.plan.start_at.is_none() => Do::Start { plan: hash },
                _ => return,
            };
            self.started = before == RolloutState::Ready;
            self.carry_out(wanted);
            if self.engine.state() == before {
                return;
            }
        }
    }

    fn next(&self) -> Option<Time> {
        let act = self.operator.acts.get(self.act).map(|(after, _)| self.fleet.begins + *after);
        let reaction = self.reaction().map(|reaction| reaction.at);
        let shared = self.shared.next_deadline().filter(|at| *at > self.now);
        let others = [act, reaction, shared, self.agents.next(), self.engine.next_deadline()];
        others.into_iter().flatten().min()
    }

    fn act_due(&mut self) -> Option<Do> {
        let (after, wanted) = self.operator.acts.get(self.act)?;
        if self.fleet.begins + *after > self.now {
            return None;
        }
        self.act += 1;
        Some(wanted.clone())
    }

    fn reaction_due(&mut self) -> Option<Do> {
        let is_due = self.reaction().is_some_and(|reaction| reaction.at <= self.now);
        if is_due { self.reaction.take().map(|reaction| reaction.wanted) } else { None }
    }

    /// What somebody is going to do about a wave that waits; nothing while the rollout is paused, and then after all.
    fn reaction(&self) -> Option<&Reaction> {
        self.reaction.as_ref().filter(|_| self.engine.state() == RolloutState::Running)
    }

    /// An act of the operator: it has a line, before those of what comes of it.
    fn play(&mut self, wanted: Do) {
        if let Some(timeline) = &mut self.timeline {
            timeline.act(self.now, act_words(&wanted, &self.plan.gates), Answer::Done);
        }
        let answer = self.command(wanted);
        if let Some(timeline) = &mut self.timeline {
            timeline.answered(answer);
        }
    }

    /// A command that nothing is said of unless it is refused: what comes of it is said.
    fn carry_out(&mut self, wanted: Do) {
        if let (Answer::Refused(why), Some(timeline)) = (self.command(wanted), &mut self.timeline) {
            timeline.refused(self.now, why);
        }
    }

    fn command(&mut self, wanted: Do) -> Answer {
        self.commands += 1;
        let key = match CommandKey::new(&format!("act-{}", self.commands)) {
            Ok(key) => key,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let command = Command {
            key,
            actor: "operator".into(),
            reason: "simulated".into(),
            expected: None,
            do_: wanted,
        };
        self.tally.events += 1;
        if let Some(script) = &mut self.script {
            script.command(self.now, &command);
        }
        let decides = matches!(command.do_, Do::Resume(_) | Do::SkipGate { .. });
        let handled =
            self.engine.handle(Event::Command(&command), self.now, &mut self.shared, &mut self.effects);
        let answer = match (handled, self.effects.answer()) {
            (Err(refused), _) => Answer::Refused(refused.to_string()),
            (Ok(()), Some(CommandOutcome::NothingToDo)) => Answer::NoEffect,
            (Ok(()), _) => match self.engine.summary(self.now).stopped_by.filter(|_| decides) {
                Some(said) => Answer::StillStopped(format!("still stopped by {said}")),
                None => Answer::Done,
            },
        };
        self.tally.refused += u64::from(matches!(answer, Answer::Refused(_)));
        self.drain();
        answer
    }

    fn tick(&mut self) {
        self.tally.events += 1;
        if let Some(script) = &mut self.script {
            script.tick(self.now);
        }
        self.shared.tick(self.now);
        // A tick is never refused.
        let _ = self.engine.handle(Event::Tick, self.now, &mut self.shared, &mut self.effects);
        self.drain();
    }

    /// Carries out what the engine wants, and looks at what it did.
    fn drain(&mut self) {
        if self.effects.is_empty() {
            return;
        }
        self.tally.commits += 1;
        self.tally.entries += self.effects.entries().len() as u64;
        let effects = std::mem::take(&mut self.effects);
        for entry in effects.entries() {
            self.note(entry);
        }
        for write in effects.writes() {
            if let Write::Desire { key, config, rollback, .. } = write {
                if *rollback {
                    self.tally.offers_back += 1;
                } else {
                    self.tally.offers += 1;
                    self.tally.touched += u32::from(key.offer == 1);
                }
                self.agents.desire(agent_of(&key.agent), key.offer, *config, self.now);
            }
        }
        self.effects = effects;
        self.effects.clear();
        if let Some(timeline) = &mut self.timeline {
            timeline.count(&self.engine);
            if timeline.is_due(self.now) {
                timeline.sample(self.now, &self.engine);
            }
        }
    }

    fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Rollout(change) => {
                let by_gate = matches!(change.pause, Some(PauseReason::Gate | PauseReason::Inconclusive));
                let stops = match change.to {
                    RolloutState::Paused => by_gate,
                    RolloutState::Aborting | RolloutState::RollingBack => change.evidence.is_some(),
                    _ => false,
                };
                if stops {
                    self.stopped(false);
                }
                if change.to == RolloutState::RollingBack {
                    self.tally.rolls_back_at = self.tally.rolls_back_at.or(Some(self.now));
                }
                if change.to.is_terminal() {
                    self.tally.ended_at = Some(self.now);
                }
            }
            Entry::Wave { wave, to, reason, .. } => {
                if *to == WaveState::Held {
                    self.stopped(true);
                }
                self.note_wait(*wave, *to, *reason);
            }
            _ => {}
        }
        self.watch_entry(entry);
    }

    /// Somebody is asked for by a wave, or not any more.
    fn note_wait(&mut self, wave: WaveIx, to: WaveState, reason: Reason) {
        let wanted = match (to, reason) {
            (WaveState::Waiting, Reason::Approval) => Do::Approve { plan: self.plan.hash, wave: Some(wave) },
            (WaveState::Waiting, Reason::Manual) => Do::Advance,
            _ => {
                self.reaction.take_if(|reaction| reaction.wave == wave);
                return;
            }
        };
        self.reaction =
            self.operator.reacts_after.map(|after| Reaction { at: self.now + after, wave, wanted });
    }

    fn watch_entry(&mut self, entry: &Entry) {
        if let Some(timeline) = &mut self.timeline {
            timeline.entry(self.now, entry, &self.engine);
        }
    }

    fn stopped(&mut self, held: bool) {
        if self.tally.first_stop.is_none() {
            (self.tally.first_stop, self.tally.held) = (Some(self.now), held);
        }
    }
}
