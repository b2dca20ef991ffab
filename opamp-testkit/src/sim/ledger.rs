//! What committed entries say, read plainly: a second, simple reading beside the engine's, for the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opamp_fleet::rollout::gates::{Evidence, ScopeAt};
use opamp_fleet::rollout::journal::{CommandEntry, CountdownIx, Entry, RolloutEntry};
use opamp_fleet::rollout::plan::Plan;
use opamp_fleet::rollout::{
    Changed, CommandKey, Countdown, Engine, Limits, MemberIx, MemberState, Reason, RolloutState, Scope, Time,
    WaveIx, WaveState,
};
use opamp_proto::{AgentId, Fingerprint};

/// What an entry changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A command was handled.
    Command(Box<CommandEntry>),
    /// A countdown is another one now.
    Countdown {
        /// Which.
        which: CountdownIx,
        /// What it was.
        before: Countdown,
        /// What it is.
        to: Countdown,
    },
    /// A gate said something that matters.
    Gate {
        /// What.
        evidence: Box<Evidence>,
        /// Members of its scope that can be counted at all.
        countable: u32,
        /// Those of them that count against it.
        against: u32,
    },
    /// A member came late, or came back.
    Joined {
        /// Which.
        agent: AgentId,
        /// The wave whose queue it joined.
        wave: WaveIx,
        /// Its state then.
        state: MemberState,
        /// What it can go back to.
        previous: Option<Fingerprint>,
        /// It was no member before.
        is_new: bool,
        /// Its row before; none if no entry was about it.
        row_before: Option<Changed>,
    },
    /// Other limits hold.
    Limits(Limits),
    /// A member's row is another one.
    Member {
        /// Which.
        agent: AgentId,
        /// Its wave.
        wave: WaveIx,
        /// Its state before.
        before: MemberState,
        /// Its row before; none if no entry was about it.
        row_before: Option<Changed>,
        /// Its row now.
        after: Changed,
    },
    /// The rollout's state is another one, or its reason.
    Rollout {
        /// Its state before.
        before: RolloutState,
        /// What happened.
        entry: Box<RolloutEntry>,
    },
    /// A wave's state is another one.
    Wave {
        /// Which.
        wave: WaveIx,
        /// Its state before.
        before: WaveState,
        /// Its state now.
        after: WaveState,
        /// Why.
        reason: Reason,
        /// When.
        at: Time,
    },
}

/// One member as its entries say.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its agent.
    pub agent: AgentId,
    /// Its wave.
    pub wave: WaveIx,
    /// Its state.
    pub state: MemberState,
    /// Its row, once an entry was about it.
    pub row: Option<Changed>,
}

impl Line {
    /// Its present offer; 0 before the first.
    pub fn offer(&self) -> u32 {
        self.row.map_or(0, |row| row.offer)
    }
}

/// One wave as its entries say.
#[derive(Clone, Copy, Debug)]
pub struct WaveLine {
    /// Its state.
    pub state: WaveState,
    /// Why.
    pub reason: Reason,
    /// When it came into it.
    pub entered: Time,
    /// Its dwell.
    pub dwell: Countdown,
    /// Members of the next wave joined it.
    pub stretched: bool,
    /// Its planned members: the first, and the one after the last.
    own: (usize, usize),
}

/// A rollout as its entries say.
#[derive(Clone, Debug)]
pub struct Story {
    plan: Arc<Plan>,
    state: RolloutState,
    /// Which members go back, or went back in the end.
    pub scope: Option<Scope>,
    /// When it came into its state.
    pub entered: Time,
    /// Its members.
    pub lines: Vec<Line>,
    places: BTreeMap<AgentId, usize>,
    /// Its waves.
    pub waves: Vec<WaveLine>,
    /// Its limits.
    pub limits: Limits,
    /// Its bake.
    pub bake: Countdown,
    /// Its progress deadline.
    pub progress: Countdown,
    /// Keys of commands that were handled.
    commands: BTreeSet<CommandKey>,
}

impl Story {
    /// A rollout as it was when it was made.
    pub fn new(engine: &Engine) -> Self {
        let plan = Arc::clone(engine.plan());
        let views = engine.members(None, None, usize::MAX);
        let lines: Vec<Line> = views
            .iter()
            .map(|view| Line { agent: *view.agent, wave: view.wave, state: view.state, row: None })
            .collect();
        let places = lines.iter().enumerate().map(|(place, line)| (line.agent, place)).collect();
        let mut first = 0;
        let waves = plan.waves.iter().map(|wave| {
            let end = usize::try_from(wave.end).unwrap_or(usize::MAX);
            WaveLine {
                state: WaveState::Pending,
                reason: Reason::Nothing,
                entered: plan.made_at,
                dwell: Countdown::stopped(wave.dwell),
                stretched: false,
                own: (std::mem::replace(&mut first, end), end),
            }
        });
        let waves = waves.collect();
        Self {
            state: engine.state(),
            scope: None,
            entered: plan.made_at,
            places,
            waves,
            limits: plan.settings.limits,
            bake: Countdown::stopped(plan.settings.bake),
            progress: Countdown::stopped(plan.settings.progress),
            commands: BTreeSet::new(),
            lines,
            plan,
        }
    }

    /// The same rollout with a plan that was made anew before the start: `self` is what became of the new plan's members.
    #[must_use]
    pub fn replacing(self, old: Self) -> Self {
        Self { state: old.state, entered: old.entered, commands: old.commands, limits: old.limits, ..self }
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The configuration it brings.
    pub fn target(&self) -> Fingerprint {
        self.plan.target
    }

    /// Its state.
    pub fn state(&self) -> RolloutState {
        self.state
    }

    /// One member.
    pub fn line(&self, agent: &AgentId) -> Option<&Line> {
        self.lines.get(*self.places.get(agent)?)
    }

    /// Whether a command of this key was handled.
    pub fn has_command(&self, key: &CommandKey) -> bool {
        self.commands.contains(key)
    }

    /// Members of a wave.
    pub fn of_wave(&self, wave: WaveIx) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.wave == wave)
    }

    /// Members for whom an offer was ever written.
    pub fn touched(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.offer() > 0)
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub fn read(&mut self, entry: &Entry) -> Result<Option<Change>, String> {
        Ok(Some(match entry {
            Entry::Command(entry) => {
                self.commands.insert(entry.key.clone());
                Change::Command(entry.clone())
            }
            Entry::Countdown { which, to } => self.countdown(*which, *to)?,
            Entry::Gate(evidence) => self.gate(evidence),
            Entry::Joined(entry) => {
                let place = entry.member.index();
                let (is_new, row_before) =
                    self.lines.get(place).map_or((true, None), |line| (false, line.row));
                // It counts against nothing any more.
                let row =
                    row_before.map(|row| Changed { state: entry.state, bad: 0, flags: entry.flags, ..row });
                let (agent, wave, state, previous) = (entry.agent, entry.wave, entry.state, entry.previous);
                self.put(place, Line { agent, wave, state, row })?;
                Change::Joined { agent, wave, state, previous, is_new, row_before }
            }
            Entry::Limits(limits) => {
                self.limits = **limits;
                Change::Limits(**limits)
            }
            Entry::Member { member, row } => self.member(*member, row)?,
            Entry::Rollout(entry) => {
                let before = std::mem::replace(&mut self.state, entry.to);
                self.scope = entry.scope;
                if before != entry.to {
                    self.entered = entry.at;
                }
                Change::Rollout { before, entry: entry.clone() }
            }
            Entry::Stretched { wave, by } => {
                self.stretch(*wave, *by)?;
                return Ok(None);
            }
            Entry::Wave { wave, to, reason, at } => {
                let line = self.wave(*wave)?;
                let before = std::mem::replace(&mut line.state, *to);
                (line.reason, line.entered) = (*reason, *at);
                Change::Wave { wave: *wave, before, after: *to, reason: *reason, at: *at }
            }
            Entry::Reading(_) | Entry::Sampled(_) | Entry::Waived(_) | Entry::Window { .. } => {
                return Ok(None);
            }
        }))
    }

    fn put(&mut self, place: usize, line: Line) -> Result<(), String> {
        self.places.insert(line.agent, place);
        if place < self.lines.len() {
            if self.lines[place].agent != line.agent {
                return Err(format!("member {place} is another agent now"));
            }
            self.lines[place] = line;
        } else if place == self.lines.len() {
            self.lines.push(line);
        } else {
            return Err(format!("member {place} joined where {} are", self.lines.len()));
        }
        Ok(())
    }

    fn member(&mut self, member: MemberIx, row: &Changed) -> Result<Change, String> {
        let line = self.lines.get_mut(member.index()).ok_or_else(|| format!("no member {member}"))?;
        let before = std::mem::replace(&mut line.state, row.state);
        let row_before = line.row.replace(*row);
        Ok(Change::Member { agent: line.agent, wave: line.wave, before, row_before, after: *row })
    }

    fn gate(&self, evidence: &Evidence) -> Change {
        let gates = self.plan.gates.iter();
        let mut named =
            gates.enumerate().filter(|(_, gate)| gate.kind == evidence.gate && gate.name == evidence.name);
        let bit = named.next().map_or(0, |(place, _)| 1_u16 << (place & 15));
        let in_scope = |line: &&Line| match &evidence.scope {
            ScopeAt::Wave(wave) => line.wave == *wave,
            ScopeAt::All | ScopeAt::Zone(_) => true,
        };
        // Who failed and is tried again counts until it gets well, and who was away for too long was lost by the rollout.
        let counts = |line: &&Line| {
            let row = line.row.as_ref();
            is_countable(line.state)
                || row.is_some_and(|row| row.bad & bit != 0 || row.reason == Reason::GraceOver)
        };
        let countable: Vec<&Line> = self.lines.iter().filter(in_scope).filter(counts).collect();
        let against = countable.iter().filter(|line| line.row.is_some_and(|row| row.bad & bit != 0)).count();
        Change::Gate {
            evidence: Box::new(evidence.clone()),
            countable: u32::try_from(countable.len()).unwrap_or(u32::MAX),
            against: u32::try_from(against).unwrap_or(u32::MAX),
        }
    }

    /// The next wave that has members of its own lends its first queued ones, and whoever stands between them.
    fn stretch(&mut self, wave: WaveIx, by: u8) -> Result<(), String> {
        self.wave(wave)?.stretched = true;
        let lenders = self.waves.iter().enumerate().skip(wave.index() + 1);
        let lender = lenders.map(|(number, line)| (number, line.own)).find(|(_, (first, end))| first < end);
        let Some((next, (first, end))) = lender else {
            return Err(format!("nobody can lend to wave {wave}"));
        };
        let (mut left, mut place) = (by, first);
        while left > 0 && place < end {
            let line = &mut self.lines[place];
            if line.wave.index() == next {
                line.wave = wave;
                left -= u8::from(line.state == MemberState::Queued);
            }
            place += 1;
        }
        for between in &mut self.waves[wave.index() + 1..next] {
            between.own = (place, place);
        }
        self.waves[wave.index()].own.1 = place;
        self.waves[next].own.0 = place;
        if left == 0 { Ok(()) } else { Err(format!("wave {next} has {left} of {by} too few to lend")) }
    }

    fn wave(&mut self, wave: WaveIx) -> Result<&mut WaveLine, String> {
        self.waves.get_mut(wave.index()).ok_or_else(|| format!("no wave {wave}"))
    }

    fn countdown(&mut self, which: CountdownIx, to: Countdown) -> Result<Change, String> {
        let place = match which {
            CountdownIx::Bake => &mut self.bake,
            CountdownIx::Dwell(wave) => &mut self.wave(wave)?.dwell,
            CountdownIx::Progress => &mut self.progress,
        };
        let before = std::mem::replace(place, to);
        Ok(Change::Countdown { which, before, to })
    }
}

/// Whether a member of this state can be in a ratio: an offer was made, and what became of it says something.
fn is_countable(state: MemberState) -> bool {
    !matches!(
        state,
        MemberState::Queued
            | MemberState::AlreadyCurrent
            | MemberState::NotApplicable
            | MemberState::Excluded
            | MemberState::Control
            | MemberState::Removed
            | MemberState::Expired
            | MemberState::Deferred
    )
}
