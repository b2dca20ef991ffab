//! Operators: they ask for rollouts, look after them, and repeat what was not answered.
//!
//! A command counts as answered once the journal has it: before that its sender knows nothing, and repeats it under the
//! same key with whoever leads then.

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    Command, CommandKey, CreateError, Do, Epoch, GateIx, HandleError, Limits, Reason, Resume, RolloutId,
    RolloutState, Scope, WaveIx, WaveState,
};
use opamp_proto::Mono;

use super::World;
use crate::sim::ledger::{Story, WaveLine};
use crate::sim::rng::{Rng, Subject};
use crate::sim::scenario::{RolloutSpec, Scenario};
use crate::sim::schedule::What;

/// How often operators look.
const LOOK: Duration = Duration::from_secs(5);
/// How long they let a rollout stand still before they decide something.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// How long after the last act they end what has not ended.
const END_MS: u64 = 2 * 3_600_000;
/// Most commands that wait for an answer.
const WAITING_MAX: usize = 64;

/// The operators.
#[derive(Debug)]
pub struct Operators {
    /// Rollouts that were asked for.
    pub asked: Vec<Asked>,
    waiting: Vec<Waiting>,
    rng: Rng,
    /// What they do about each rollout.
    rngs: BTreeMap<RolloutId, Rng>,
    number: u64,
}

/// A rollout that was asked for.
#[derive(Debug)]
pub struct Asked {
    /// What was asked for.
    pub spec: RolloutSpec,
    /// Its name.
    pub id: RolloutId,
    /// It was made.
    pub made: bool,
    /// Why there is none and will be none.
    pub refused: Option<CreateError>,
}

/// A command that was given, and what came of it.
#[derive(Clone, Debug)]
pub struct CommandSeen {
    /// The rollout.
    pub rollout: RolloutId,
    /// The epoch of the leader it was given to.
    pub epoch: Epoch,
    /// The command.
    pub command: Command,
    /// What came of it.
    pub result: Result<(), HandleError>,
    /// How many entries and writes that led to, when it was the second time under its key.
    pub repeated: Option<usize>,
}

#[derive(Debug)]
struct Waiting {
    rollout: RolloutId,
    command: Command,
    next: Mono,
}

impl Operators {
    /// Operators who want the rollouts of a scenario.
    pub fn new(scenario: &Scenario, rng: Rng) -> Self {
        let asked = scenario.rollouts.iter().map(|spec| Asked {
            spec: spec.clone(),
            id: spec.id(),
            made: false,
            refused: None,
        });
        Self { asked: asked.collect(), waiting: Vec::new(), rng, rngs: BTreeMap::new(), number: 0 }
    }

    /// Whether every rollout was made or refused.
    pub fn is_through(&self) -> bool {
        self.asked.iter().all(|asked| asked.made || asked.refused.is_some())
    }

    /// The rollout of a number.
    pub fn id(&self, number: u32) -> Option<RolloutId> {
        self.asked.iter().find(|asked| asked.spec.number == number && asked.made).map(|asked| asked.id)
    }

    /// The random numbers for a rollout.
    fn rng(&mut self, rollout: RolloutId) -> &mut Rng {
        let asked = self.asked.iter().find(|asked| asked.id == rollout);
        let number = asked.map_or(u64::MAX, |asked| asked.spec.number.into());
        self.rngs.entry(rollout).or_insert_with(|| self.rng.fork(Subject::Operator, number))
    }

    fn waits_for(&self, rollout: RolloutId) -> bool {
        self.waiting.iter().any(|waiting| waiting.rollout == rollout)
    }
}

impl World {
    /// Operators look after what they asked for.
    pub(super) fn operate(&mut self) {
        self.schedule.put(self.mono + LOOK, What::Operators);
        let over = self.scenario.acts.iter().map(|act| act.at_s.saturating_add(act.act.lasts_s()));
        let last = over.chain(self.scenario.rollouts.iter().map(|spec| spec.at_s)).max().unwrap_or(0);
        if self.mono > Mono(u64::from(last) * 1_000) {
            // Who was to stand still at its next write does so no more.
            self.replicas.iter_mut().for_each(|replica| replica.pauses_at_write = None);
            if self.replicas.iter().all(|replica| replica.stands_still(self.mono).is_none()) {
                self.calm_down();
            }
        }
        self.collect_garbage();
        self.make_rollouts();
        self.repeat_commands();
        let live: Vec<RolloutId> = self.store.rows().rollouts.keys().copied().collect();
        for id in live {
            if !self.operators.waits_for(id)
                && let Some(wish) = self.wish(id)
            {
                self.order(id, wish);
            }
        }
    }

    /// Bodies of configurations that nobody needs are deleted.
    fn collect_garbage(&mut self) {
        let rows = self.store.rows();
        let asked = self.operators.asked.iter().filter(|asked| !asked.made && asked.refused.is_none());
        let wanted: Vec<_> = asked.filter_map(|asked| self.configs.fingerprint(asked.spec.config)).collect();
        let unknown = self.agents.iter().filter(|agent| !rows.agents.contains_key(&agent.id));
        let firsts: Vec<_> = unknown.filter_map(|agent| self.configs.fingerprint(agent.spec.runs)).collect();
        self.kept.retain(|config| rows.needs(*config) || wanted.contains(config) || firsts.contains(config));
    }

    fn make_rollouts(&mut self) {
        for number in 0..self.operators.asked.len() {
            let asked = &self.operators.asked[number];
            let due = self.mono >= Mono(u64::from(asked.spec.at_s) * 1_000);
            if asked.made || asked.refused.is_some() || !due || !self.store_is_reachable() {
                continue;
            }
            let (spec, id, now) = (asked.spec.clone(), asked.id, self.mono);
            let Some(replica) = self.who_leads() else { return };
            let Some(leader) = &mut self.replicas[replica].leader else { return };
            match leader.create(&spec, &mut self.store, &self.configs, now) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    let epoch = leader.epoch;
                    self.fenced(replica, "a rollout", epoch);
                    self.operators.asked[number].made = true;
                    self.seen.created.push(id);
                    self.lead(replica, None);
                }
                // It was made, and whoever did so did not live to say it.
                Err(CreateError::Exists) if self.store.rows().rollouts.contains_key(&id) => {
                    self.operators.asked[number].made = true;
                }
                Err(why) => self.operators.asked[number].refused = Some(why),
            }
        }
    }

    /// A replica that leads and can decide. Once the store has forgotten who leads there may be more than one.
    pub(super) fn who_leads(&self) -> Option<usize> {
        let now = self.mono;
        let leads = |replica: &crate::sim::replica::Replica| {
            let decides = replica.leader.as_ref().is_some_and(|leader| leader.may_decide(now));
            decides && replica.is_up() && replica.stands_still(now).is_none()
        };
        let there: Vec<usize> =
            self.replicas.iter().filter(|replica| leads(replica)).map(|replica| replica.position).collect();
        (!there.is_empty()).then(|| Rng::new(now.0).pick(&there))
    }

    /// What a rollout needs next of operators, if it needs something.
    fn wish(&mut self, id: RolloutId) -> Option<Do> {
        let wall = self.now_of_world().wall;
        let ends = self.calm_ms().is_some_and(|ms| ms > END_MS);
        let story = &self.store.rows().rollouts.get(&id)?.story;
        let plan = story.plan().hash;
        let stands_ms = wall.0.saturating_sub(story.entered.0);
        let is_patient = u128::from(stands_ms) < PATIENCE.as_millis();
        match story.state() {
            RolloutState::Draft => Some(Do::Submit),
            RolloutState::PendingApproval if self.operators.rng(id).below(12) == 0 => Some(Do::Reject),
            RolloutState::PendingApproval => Some(Do::Approve { plan, wave: None }),
            RolloutState::Scheduled | RolloutState::Ready => Some(Do::Start { plan }),
            RolloutState::Running | RolloutState::Baking | RolloutState::Paused if ends => Some(Do::Abort),
            RolloutState::Running => self.wish_of_waves(id, wall.0),
            RolloutState::Paused if !is_patient => Some(self.decision(id)),
            _ => None,
        }
    }

    /// What a running rollout needs of operators for one of its waves.
    fn wish_of_waves(&mut self, id: RolloutId, wall_ms: u64) -> Option<Do> {
        let story: &Story = &self.store.rows().rollouts.get(&id)?.story;
        let stands = |state: WaveState, for_ms: u64| {
            let mut waves = story.waves.iter();
            waves.any(|wave| wave.state == state && wall_ms.saturating_sub(wave.entered.0) >= for_ms)
        };
        let is_manual = story.plan().waves.iter().any(|wave| wave.manual);
        if is_manual && stands(WaveState::Waiting, 60_000) {
            return Some(Do::Advance);
        }
        let asks =
            |wave: &WaveLine| wave.state == WaveState::Waiting && matches!(wave.reason, Reason::Approval);
        if let Some(wave) = story.waves.iter().position(asks) {
            let wave = Some(WaveIx(u16::try_from(wave).unwrap_or(u16::MAX)));
            return Some(Do::Approve { plan: story.plan().hash, wave });
        }
        if stands(WaveState::Held, 20 * 60_000) {
            return Some(self.decision(id));
        }
        None
    }

    /// What operators do with something that stands still.
    fn decision(&mut self, id: RolloutId) -> Do {
        let rng = self.operators.rng(id);
        match rng.below(7) {
            0 => Do::Resume(Resume::Retry),
            1 => Do::Resume(Resume::Skip),
            2 => {
                let gate = u8::try_from(rng.below(10)).unwrap_or(0);
                Do::Resume(Resume::Waive { gate: GateIx(gate) })
            }
            3 => Do::RollBack(Scope::All),
            4 => Do::Abort,
            // Whatever it was that it reached.
            5 => Do::SetLimits(Limits::default()),
            _ => Do::Resume(Resume::Plain),
        }
    }

    /// Gives a command, and again until the journal has it.
    pub(super) fn order(&mut self, rollout: RolloutId, do_: Do) {
        let operators = &mut self.operators;
        operators.number += 1;
        let Ok(key) = CommandKey::new(&format!("operator-{}", operators.number)) else { return };
        let (actor, reason) = ("operator".into(), "as the scenario says".into());
        let command = Command { key, actor, reason, expected: None, do_ };
        if operators.waiting.len() < WAITING_MAX {
            operators.waiting.push(Waiting { rollout, command, next: self.mono });
        }
        self.repeat_commands();
    }

    fn repeat_commands(&mut self) {
        let now = self.mono;
        self.operators.waiting.retain(|waiting| self.store.rows().rollouts.contains_key(&waiting.rollout));
        for number in 0..self.operators.waiting.len() {
            let waiting = &self.operators.waiting[number];
            if waiting.next > now {
                continue;
            }
            let (rollout, command) = (waiting.rollout, waiting.command.clone());
            let Some(replica) = self.who_leads() else { return };
            self.operators.waiting[number].next = now + LOOK * 2;
            let doubled = Ppm::percent(self.faulty().command_doubled.into());
            let twice = self.operators.rng(rollout).chance(doubled);
            self.give(replica, rollout, &command, false);
            if twice {
                self.give(replica, rollout, &command, true);
            }
            self.lead(replica, None);
        }
        // What the journal has is answered; to a rollout that has ended nothing more is said.
        let rows = self.store.rows();
        self.operators.waiting.retain(|waiting| {
            let story = rows.rollouts.get(&waiting.rollout).map(|row| &row.story);
            story
                .is_some_and(|story| !story.has_command(&waiting.command.key) && !story.state().is_terminal())
        });
    }

    fn give(&mut self, replica: usize, rollout: RolloutId, command: &Command, again: bool) {
        let now = self.mono;
        let Some(leader) = &mut self.replicas[replica].leader else { return };
        let before = leader.wanted(rollout);
        let (result, epoch) = (leader.command(rollout, command, now), leader.epoch);
        let repeated = again.then(|| leader.wanted(rollout).saturating_sub(before));
        if result == Err(HandleError::UnknownRollout) && again {
            return;
        }
        self.seen.commands.push(CommandSeen { rollout, epoch, command: command.clone(), result, repeated });
    }
}
