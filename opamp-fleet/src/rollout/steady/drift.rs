//! Drift after success: classes, actions, and the end of loops (R31, R80).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use opamp_proto::{AgentId, Fingerprint};

use crate::rollout::{Slot, Time};
use crate::words::closed_set;

closed_set! {
    /// How an agent came to run something else than it ran well.
    pub enum DriftClass ("drift class") {
        /// Somebody changed it on the spot: it runs what this server does not know.
        LocalEdit = "local-edit",
        /// It went back by itself to what it ran before.
        SelfRollback = "self-rollback",
        /// Nothing can be said.
        Unknown = "unknown",
    }
}

impl DriftClass {
    /// The class of an agent that has left its configuration.
    ///
    /// | it runs | class |
    /// |---|---|
    /// | what it ran before | self-rollback |
    /// | a configuration the server does not know | local-edit |
    /// | another one the server knows, or it does not say | unknown |
    pub fn of(runs: Option<Fingerprint>, previous: Option<Fingerprint>, runs_known: bool) -> Self {
        match runs {
            None => Self::Unknown,
            Some(_) if runs == previous => Self::SelfRollback,
            Some(_) if runs_known => Self::Unknown,
            Some(_) => Self::LocalEdit,
        }
    }
}

closed_set! {
    /// What is done about drift.
    pub enum DriftAction ("drift action") {
        /// Somebody is told.
        Alert = "alert",
        /// The agent gets its configuration again, under the caps of assignments, so often and no more.
        Reassert = "reassert",
        /// It is counted and shown.
        Report = "report",
    }
}

/// What is done about drift, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriftSettings {
    /// Default alert.
    pub local_edit: DriftAction,
    /// Default alert: what it went back from does not suit it.
    pub self_rollback: DriftAction,
    /// Default report.
    pub unknown: DriftAction,
    /// How often an agent gets its configuration again within [`DriftSettings::within`]; then it is quarantined. Default 2.
    pub reasserts_max: u8,
    /// Default 24 h.
    pub within: Duration,
}

impl Default for DriftSettings {
    fn default() -> Self {
        Self {
            local_edit: DriftAction::Alert,
            self_rollback: DriftAction::Alert,
            unknown: DriftAction::Report,
            reasserts_max: 2,
            within: Duration::from_secs(24 * 3_600),
        }
    }
}

impl DriftSettings {
    /// What is done about this class.
    #[must_use]
    pub const fn action(&self, class: DriftClass) -> DriftAction {
        match class {
            DriftClass::LocalEdit => self.local_edit,
            DriftClass::SelfRollback => self.self_rollback,
            DriftClass::Unknown => self.unknown,
        }
    }
}

/// What agents did that left their configuration: which one they ran last, how often that changed, how often it was put
/// right.
#[derive(Clone, Debug)]
pub(super) struct Loops {
    alternations_max: u8,
    agents: BTreeMap<(AgentId, Slot), Memory>,
    by_last: BTreeSet<(Time, (AgentId, Slot))>,
}

#[derive(Clone, Debug)]
struct Memory {
    runs: Option<Fingerprint>,
    changes: VecDeque<Time>,
    reasserts: VecDeque<Time>,
    last: Time,
}

impl Loops {
    /// Most agents that are remembered; those of which nothing was heard for longest are forgotten.
    const AGENTS_MAX: usize = 65_536;
    /// Changes within this time are alternations.
    const HOUR: Duration = Duration::from_secs(3_600);

    pub(super) fn new(alternations_max: u8) -> Self {
        Self { alternations_max, agents: BTreeMap::new(), by_last: BTreeSet::new() }
    }

    /// Whether anything is remembered of the agent.
    pub(super) fn knows(&self, agent: (AgentId, Slot)) -> bool {
        self.agents.contains_key(&agent)
    }

    /// The agent runs this. Whether it has changed once too often: it begins anew then.
    pub(super) fn ran(&mut self, agent: (AgentId, Slot), config: Fingerprint, now: Time) -> bool {
        let allowed = usize::from(self.alternations_max);
        let memory = self.touch(agent, now);
        let before = memory.runs.replace(config);
        if before.is_none_or(|before| before == config) {
            return false;
        }
        forget_older(&mut memory.changes, Self::HOUR, now);
        memory.changes.push_back(now);
        let is_loop = memory.changes.len() > allowed;
        if is_loop {
            memory.changes.clear();
        }
        is_loop
    }

    /// The agent is to get its configuration again. Whether it may: not more often than the settings say.
    pub(super) fn may_reassert(
        &mut self,
        agent: (AgentId, Slot),
        settings: &DriftSettings,
        now: Time,
    ) -> bool {
        let memory = self.touch(agent, now);
        forget_older(&mut memory.reasserts, settings.within, now);
        if memory.reasserts.len() >= usize::from(settings.reasserts_max) {
            return false;
        }
        memory.reasserts.push_back(now);
        true
    }

    /// The memory of an agent, which is now the latest.
    fn touch(&mut self, agent: (AgentId, Slot), now: Time) -> &mut Memory {
        if !self.agents.contains_key(&agent)
            && self.agents.len() >= Self::AGENTS_MAX
            && let Some((_, oldest)) = self.by_last.pop_first()
        {
            self.agents.remove(&oldest);
        }
        let fresh = || Memory { runs: None, changes: VecDeque::new(), reasserts: VecDeque::new(), last: now };
        let memory = self.agents.entry(agent).or_insert_with(fresh);
        self.by_last.remove(&(memory.last, agent));
        memory.last = now;
        self.by_last.insert((now, agent));
        memory
    }
}

fn forget_older(times: &mut VecDeque<Time>, within: Duration, now: Time) {
    while times.front().is_some_and(|at| now.since(*at) > within) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: (AgentId, Slot) = (AgentId::from_bytes([1; 16]), Slot::MainConfig);

    fn config(number: u8) -> Fingerprint {
        Fingerprint::from_bytes([number; 16])
    }

    #[test]
    fn the_class_follows_from_what_it_runs() {
        let [before, other] = [Some(config(1)), Some(config(2))];
        assert_eq!(DriftClass::of(before, before, true), DriftClass::SelfRollback);
        assert_eq!(DriftClass::of(other, before, false), DriftClass::LocalEdit);
        assert_eq!(DriftClass::of(other, before, true), DriftClass::Unknown);
        assert_eq!(DriftClass::of(None, None, false), DriftClass::Unknown, "nothing is no way back");
    }

    #[test]
    fn each_class_has_its_own_action() {
        let settings = DriftSettings { local_edit: DriftAction::Reassert, ..DriftSettings::default() };
        let actions = DriftClass::ALL.map(|class| settings.action(class));
        assert_eq!(actions, [DriftAction::Reassert, DriftAction::Alert, DriftAction::Report]);
    }

    #[test]
    fn the_fourth_change_within_an_hour_is_a_loop_and_slower_ones_are_none() {
        let mut loops = Loops::new(3);
        let ran = [1, 2, 1, 1, 2, 1, 2].map(|number| loops.ran(AGENT, config(number), Time(1)));
        assert_eq!(ran, [false, false, false, false, false, true, false]);
        let mut slow = Loops::new(3);
        for hour in 0..20 {
            let number = u8::from(hour % 2 == 0);
            assert!(!slow.ran(AGENT, config(number), Time(hour * 1_200_001)));
        }
    }

    #[test]
    fn a_configuration_is_put_right_so_often_within_the_time_and_no_more() {
        let settings = DriftSettings { within: Duration::from_secs(10), ..DriftSettings::default() };
        let mut loops = Loops::new(3);
        let allowed = [0, 1, 2, 10_000, 10_001, 10_002, 10_003]
            .map(|at| loops.may_reassert(AGENT, &settings, Time(at)));
        assert_eq!(allowed, [true, true, false, false, true, true, false]);
        assert!(loops.knows(AGENT));
    }

    #[test]
    fn who_was_heard_of_longest_ago_is_forgotten_first() {
        let mut loops = Loops::new(3);
        let agent = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            (AgentId::from_bytes(bytes), Slot::MainConfig)
        };
        for number in 0..65_536 {
            loops.ran(agent(number), config(1), Time(u64::from(number)));
        }
        loops.ran(agent(0), config(1), Time(100_000));
        loops.ran(agent(65_536), config(1), Time(100_001));
        assert!(loops.knows(agent(0)) && !loops.knows(agent(1)) && loops.knows(agent(65_536)));
        assert_eq!((loops.agents.len(), loops.by_last.len()), (65_536, 65_536));
    }
}
