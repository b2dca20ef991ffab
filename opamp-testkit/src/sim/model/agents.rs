//! What agents do with what they are offered: 16 bytes an agent, and one timer for each that is busy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use opamp_fleet::rollout::{AgentFact, ConfigStatus, Effective, Time, Withheld};
use opamp_proto::Fingerprint;

use super::draw::{Draw, Purpose};
use super::fleet::{FleetModel, Movement, capabilities};
use crate::sim::profiles::{Profile, Span, Stage};

/// An agent's own words about a failure.
pub(super) const FAILURE: &str = "the configuration cannot be put to use";
/// How long an agent is away that restarts, in milliseconds.
const RESTART_MS: (u64, u64) = (5_000, 20_000);
/// How long an offer is on its way to an agent with a WebSocket, in milliseconds.
const DELIVERY_MS: (u64, u64) = (10, 200);
/// How long it takes until an agent says that it has begun, in milliseconds.
const BEGIN_MS: (u64, u64) = (10, 100);
/// How long a crash-looping agent lasts between two crashes, in milliseconds.
const CRASH_EVERY_MS: u64 = 15_000;
/// What is reported late because the agent was away comes so long after it is back, in milliseconds.
const CATCH_UP_MS: u64 = 50;

/// The dynamic part of one agent; its kind follows from the seed.
#[derive(Clone, Copy, Debug, Default)]
struct Agent {
    /// The offer that is written for it.
    desired_offer: u32,
    /// The offer that it has received.
    sent: u32,
    /// What it should run: a position in [`Agents::configs`].
    desired: u16,
    runs: u16,
    flags: u8,
    /// How often it was away because of its kind.
    falls: u8,
}

const _: () = assert!(std::mem::size_of::<Agent>() <= 16);

const CONNECTED: u8 = 1;
/// It has something to report that it could not while it was away.
const OWES: u8 = 1 << 1;
/// It has reported that it is ill.
const ILL: u8 = 1 << 2;

/// What an agent does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// It is there again.
    Back,
    /// It says that it has begun.
    Begin,
    /// It receives the offer.
    Deliver,
    /// It says how it went.
    End,
    /// It becomes ill.
    FallIll,
    /// It goes away without a word.
    Gone,
    /// It comes to match the selector.
    Join,
    /// It ceases to.
    Leave,
    /// It goes back to what it ran before.
    StepBack,
}

/// Something an agent does at a time; of the same time the one that was decided first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Time,
    number: u64,
    agent: u32,
    offer: u32,
    what: What,
}

/// All agents of a fleet.
#[derive(Debug)]
pub(super) struct Agents<'a> {
    fleet: &'a FleetModel,
    draw: Draw,
    agents: Vec<Agent>,
    /// What they ran before, then the target.
    configs: Vec<Fingerprint>,
    due: BinaryHeap<Reverse<Due>>,
    number: u64,
    /// When the first agent was sent a configuration that is a fault for it.
    first_fault: Option<Time>,
}

impl<'a> Agents<'a> {
    /// All agents as they are before a rollout that starts at a time.
    pub(super) fn new(fleet: &'a FleetModel, target: Fingerprint, starts: Time) -> Self {
        let mut configs = fleet.befores();
        configs.push(target);
        let mut all = Self {
            fleet,
            draw: fleet.draw(),
            agents: Vec::with_capacity(fleet.agents as usize),
            configs,
            due: BinaryHeap::new(),
            number: 0,
            first_fault: None,
        };
        for agent in 0..fleet.agents {
            let runs = u16::try_from(fleet.before_of(agent)).unwrap_or_default();
            all.agents.push(Agent { desired: runs, runs, ..Agent::default() });
            if fleet.joins_later(agent) {
                all.moves(agent, Purpose::Join, fleet.joins, starts, What::Join);
                continue;
            }
            all.arrive(agent, fleet.begins);
            if fleet.leaves_later(agent) {
                all.moves(agent, Purpose::Leave, fleet.leaves, starts, What::Leave);
            }
        }
        all
    }

    /// When the next agent does something.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    /// When the first agent was sent a configuration that is a fault for it.
    pub(super) fn first_fault(&self) -> Option<Time> {
        self.first_fault
    }

    /// What an agent runs.
    pub(super) fn runs(&self, agent: u32) -> Option<Fingerprint> {
        let config = self.agents.get(agent as usize)?.runs;
        self.configs.get(usize::from(config)).copied()
    }

    /// Another configuration is desired of an agent.
    pub(super) fn desire(&mut self, agent: u32, offer: u32, config: Fingerprint, now: Time) {
        let desired = self.position(config);
        let Some(state) = self.agents.get_mut(agent as usize) else { return };
        (state.desired_offer, state.desired) = (offer, desired);
        state.flags &= !OWES;
        if state.flags & CONNECTED != 0 {
            self.send(agent, now);
        }
    }

    /// The next agent does what it does, and tells of it. Nothing if nobody does anything at that time.
    pub(super) fn act(&mut self, now: Time, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let Some(&Reverse(due)) = self.due.peek().filter(|due| due.0.at <= now) else { return };
        self.due.pop();
        let agent = due.agent;
        let Some(&state) = self.agents.get(agent as usize) else { return };
        let is_of_another_offer = due.offer != state.desired_offer;
        match due.what {
            What::Back => self.back(agent, now, tell),
            What::Gone => self.gone(agent, now, tell),
            What::Join => self.join(agent, now, tell),
            What::Leave => tell(agent, AgentFact::Left),
            What::Begin | What::Deliver | What::End | What::FallIll | What::StepBack
                if is_of_another_offer => {}
            What::Deliver => self.deliver(agent, now, tell),
            What::Begin => self.begin(agent, now, tell),
            What::End => self.end(agent, now, tell),
            What::FallIll => self.fall_ill(agent, tell),
            What::StepBack => self.step_back(agent, tell),
        }
    }

    /// It is part of the fleet from now on, there or away.
    fn arrive(&mut self, agent: u32, now: Time) {
        let state = &mut self.agents[agent as usize];
        state.flags = CONNECTED;
        match self.fleet.profile(agent) {
            Profile::Offline { returns } => {
                state.flags = 0;
                let after = self.draw.length_ms(agent, Purpose::After, 0, returns);
                self.later(agent, now, after, What::Back);
            }
            Profile::Flapping { period } => {
                let (_, after) = self.fleet.flaps(agent, period);
                self.later(agent, now, after, What::Gone);
            }
            Profile::IllBefore => state.flags |= ILL,
            _ => {}
        }
    }

    /// It joins or leaves at a time after the start.
    fn moves(&mut self, agent: u32, purpose: Purpose, moves: Option<Movement>, starts: Time, what: What) {
        let Some(Movement { after, .. }) = moves else { return };
        // Not at the start itself: a rollout takes in nobody before it runs.
        let after_ms = self.draw.length_ms(agent, purpose, 1, &after).max(1);
        self.later(agent, starts, after_ms, what);
    }

    fn join(&mut self, agent: u32, now: Time, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let befores = &self.configs[..self.configs.len() - 1];
        self.fleet
            .candidate(agent, now, befores, &mut |candidate| tell(agent, AgentFact::Joined(&candidate)));
        self.arrive(agent, now);
    }

    /// Whether what is offered to it is a fault for it, from the moment that it sets out.
    fn meets_fault(&mut self, agent: u32, now: Time) {
        if self.first_fault.is_none() && self.wants_target(agent) && self.fleet.is_faulty(agent) {
            self.first_fault = Some(now);
        }
    }

    /// The offer sets out.
    fn send(&mut self, agent: u32, now: Time) {
        let round = self.agents[agent as usize].desired_offer;
        let after = match self.fleet.profile(agent) {
            Profile::Silent { stage: Stage::Offered } if self.wants_target(agent) => {
                self.meets_fault(agent, now);
                return;
            }
            Profile::Polling { interval } => {
                let until_poll = Span { from: Duration::ZERO, until: interval.until };
                self.draw.length_ms(agent, Purpose::Delivery, round, &until_poll)
            }
            _ => self.between(agent, Purpose::Delivery, round, DELIVERY_MS),
        };
        self.later(agent, now, after, What::Deliver);
    }

    fn deliver(&mut self, agent: u32, now: Time, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let state = self.agents[agent as usize];
        if state.flags & CONNECTED == 0 || state.sent == state.desired_offer {
            return;
        }
        let offer = state.desired_offer;
        let profile = self.fleet.profile(agent);
        if matches!(profile, Profile::DropsCapability) && self.wants_target(agent) {
            let mut fewer = capabilities(profile);
            fewer.remove(opamp_proto::AgentCapabilities::ACCEPTS_REMOTE_CONFIG);
            tell(agent, AgentFact::Capabilities(fewer));
            tell(agent, AgentFact::Withheld { offer, why: Withheld::Capability });
            return;
        }
        self.agents[agent as usize].sent = offer;
        tell(agent, AgentFact::Delivered { offer });
        self.meets_fault(agent, now);
        if self.wants_target(agent) && matches!(profile, Profile::Silent { stage: Stage::Delivered }) {
            return;
        }
        let after = self.between(agent, Purpose::Begin, offer, BEGIN_MS);
        self.later(agent, now, after, What::Begin);
    }

    fn begin(&mut self, agent: u32, now: Time, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let profile = self.fleet.profile(agent);
        let state = self.agents[agent as usize];
        if state.flags & CONNECTED == 0 {
            self.agents[agent as usize].flags |= OWES;
            return;
        }
        if !matches!(profile, Profile::Mute | Profile::NoStatus) {
            let hash = self.configs[usize::from(state.desired)];
            let status = ConfigStatus::Applying;
            tell(agent, AgentFact::Reported { offer: state.sent, hash, status, text: None });
        }
        match profile {
            Profile::Silent { stage: Stage::Applying } if self.wants_target(agent) => {}
            Profile::RestartsOnApply => {
                let away = self.between(agent, Purpose::Apply, state.sent, RESTART_MS);
                let state = &mut self.agents[agent as usize];
                state.flags = state.flags & !CONNECTED | OWES;
                tell(agent, AgentFact::Disconnected { announced: false });
                self.later(agent, now, away, What::Back);
            }
            _ => {
                let share = &self.fleet.mix.shares()[self.fleet.profile_of(agent)];
                let failure = share.fails_after.as_ref().filter(|_| self.fails(agent));
                let span = failure.unwrap_or(&share.apply);
                let mut after = self.draw.length_ms(agent, Purpose::Apply, state.sent, span);
                if let Profile::Slow { delay } = profile {
                    let more = self.draw.length_ms(agent, Purpose::After, state.sent, delay);
                    after = after.saturating_add(more);
                }
                self.later(agent, now, after, What::End);
            }
        }
    }

    fn end(&mut self, agent: u32, now: Time, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let profile = self.fleet.profile(agent);
        let state = &mut self.agents[agent as usize];
        if state.flags & CONNECTED == 0 {
            state.flags |= OWES;
            return;
        }
        let (offer, hash) = (state.sent, self.configs[usize::from(state.desired)]);
        let says_how_it_went = !matches!(profile, Profile::Mute | Profile::NoStatus);
        if self.fails(agent) {
            let status = ConfigStatus::Failed;
            tell(agent, AgentFact::Reported { offer, hash, status, text: Some(FAILURE) });
            return;
        }
        let state = &mut self.agents[agent as usize];
        state.runs = state.desired;
        if says_how_it_went {
            let status = ConfigStatus::Applied;
            tell(agent, AgentFact::Reported { offer, hash, status, text: None });
        }
        let relation = match profile {
            Profile::Merges | Profile::Mute => Effective::Differs,
            Profile::Mismatched if self.wants_target(agent) => Effective::Differs,
            _ => Effective::Equal,
        };
        tell(agent, AgentFact::Effective { offer, relation });
        if !self.wants_target(agent) {
            self.recover(agent, offer, tell);
            return;
        }
        let (after, what) = match profile {
            Profile::CrashLooping { after } => (after, What::Gone),
            Profile::FallsIll { after } => (after, What::FallIll),
            Profile::SelfRollingBack { after } => (after, What::StepBack),
            _ => return,
        };
        let after = self.draw.length_ms(agent, Purpose::After, offer, after);
        self.later(agent, now, after, what);
    }

    /// Whether it cannot apply what it is to run.
    fn fails(&self, agent: u32) -> bool {
        let profile = self.fleet.profile(agent);
        let may_fail = matches!(profile, Profile::Fails { .. } | Profile::FailsOnVersion { .. });
        may_fail && self.wants_target(agent) && self.fleet.is_faulty(agent)
    }

    /// What it runs makes it ill.
    fn fall_ill(&mut self, agent: u32, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let state = &mut self.agents[agent as usize];
        if state.flags & (CONNECTED | ILL) == CONNECTED {
            state.flags |= ILL;
            let offer = state.sent;
            tell(agent, AgentFact::Health { offer, healthy: false });
        }
    }

    /// It runs what it ran before, and so is as well as it was.
    fn recover(&mut self, agent: u32, offer: u32, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let was_ill = matches!(self.fleet.profile(agent), Profile::IllBefore);
        let state = &mut self.agents[agent as usize];
        if !was_ill && state.flags & ILL != 0 {
            state.flags &= !ILL;
            tell(agent, AgentFact::Health { offer, healthy: true });
        }
    }

    fn gone(&mut self, agent: u32, now: Time, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let state = self.agents[agent as usize];
        let away_ms = match self.fleet.profile(agent) {
            Profile::CrashLooping { .. } if !self.runs_target(agent) => return,
            Profile::CrashLooping { .. } => RESTART_MS.0,
            Profile::Flapping { period } => {
                (self.draw.length_ms(agent, Purpose::After, 1 + u32::from(state.falls), period) / 4).max(1)
            }
            _ => return,
        };
        if state.flags & CONNECTED == 0 {
            return;
        }
        let state = &mut self.agents[agent as usize];
        state.flags &= !CONNECTED;
        state.falls = state.falls.saturating_add(1);
        tell(agent, AgentFact::Disconnected { announced: false });
        self.later(agent, now, away_ms, What::Back);
    }

    fn back(&mut self, agent: u32, now: Time, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        self.agents[agent as usize].flags |= CONNECTED;
        let state = self.agents[agent as usize];
        tell(agent, AgentFact::Connected);
        match self.fleet.profile(agent) {
            Profile::CrashLooping { .. } if self.runs_target(agent) => {
                if state.flags & ILL == 0 {
                    self.agents[agent as usize].flags |= ILL;
                    tell(agent, AgentFact::Health { offer: state.sent, healthy: false });
                }
                self.later(agent, now, CRASH_EVERY_MS, What::Gone);
            }
            Profile::Flapping { period } => {
                let after =
                    self.draw.length_ms(agent, Purpose::After, 1_000 + u32::from(state.falls), period);
                self.later(agent, now, after, What::Gone);
            }
            _ => {}
        }
        let state = &mut self.agents[agent as usize];
        if state.sent != state.desired_offer {
            self.send(agent, now);
        } else if state.flags & OWES != 0 {
            state.flags &= !OWES;
            self.later(agent, now, CATCH_UP_MS, What::End);
        }
    }

    fn step_back(&mut self, agent: u32, tell: &mut dyn FnMut(u32, AgentFact<'_>)) {
        let before = u16::try_from(self.fleet.before_of(agent)).unwrap_or_default();
        let state = &mut self.agents[agent as usize];
        if state.flags & CONNECTED == 0 || usize::from(state.runs) + 1 != self.configs.len() {
            return;
        }
        state.runs = before;
        let (offer, target) = (state.sent, self.configs[self.configs.len() - 1]);
        let (hash, status) = (self.configs[usize::from(before)], ConfigStatus::Applied);
        let failed = ConfigStatus::Failed;
        tell(agent, AgentFact::Reported { offer, hash: target, status: failed, text: Some(FAILURE) });
        tell(agent, AgentFact::Reported { offer, hash, status, text: None });
        tell(agent, AgentFact::Effective { offer, relation: Effective::Differs });
    }

    fn wants_target(&self, agent: u32) -> bool {
        usize::from(self.agents[agent as usize].desired) + 1 == self.configs.len()
    }

    fn runs_target(&self, agent: u32) -> bool {
        usize::from(self.agents[agent as usize].runs) + 1 == self.configs.len()
    }

    /// A configuration's position. The rollout knows none but the target and what its members ran before.
    fn position(&self, config: Fingerprint) -> u16 {
        let at = self.configs.iter().rposition(|known| *known == config).unwrap_or_default();
        u16::try_from(at).unwrap_or_default()
    }

    fn between(&self, agent: u32, purpose: Purpose, time: u32, (from, until): (u64, u64)) -> u64 {
        let ms = Duration::from_millis;
        self.draw.length_ms(agent, purpose, time, &Span { from: ms(from), until: ms(until) })
    }

    fn later(&mut self, agent: u32, now: Time, after_ms: u64, what: What) {
        let at = Time(now.0.saturating_add(after_ms));
        let offer = self.agents[agent as usize].desired_offer;
        self.number += 1;
        self.due.push(Reverse(Due { at, number: self.number, agent, offer, what }));
    }
}

#[cfg(test)]
mod tests;
