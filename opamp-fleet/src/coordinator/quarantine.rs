//! Agents that fail again and again are left alone for a while (R56).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use opamp_proto::AgentId;

use crate::rollout::{Reason, Time};

/// When an agent is quarantined, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// So many failures. Default 3. 0 is 1, and more than [`QuarantineSettings::FAILURES_MAX`] are as many.
    pub failures: u32,
    /// … within this time. Default 24 h.
    pub within: Duration,
    /// How long. Default 24 h.
    pub lasts: Duration,
}

impl QuarantineSettings {
    /// Most failures that are counted for one agent.
    pub const FAILURES_MAX: u32 = 1_024;
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3_600);
        Self { failures: 3, within: day, lasts: day }
    }
}

/// Who is quarantined until when, and who has failed lately.
#[derive(Clone, Debug)]
pub(super) struct Quarantine {
    settings: QuarantineSettings,
    held: BTreeMap<AgentId, (Option<Time>, Reason)>,
    ends: BTreeSet<(Time, AgentId)>,
    failures: BTreeMap<AgentId, VecDeque<Time>>,
    /// The agents of `failures` by their last one.
    by_last: BTreeSet<(Time, AgentId)>,
}

impl Quarantine {
    /// Most agents whose failures are remembered; those that failed longest ago are forgotten.
    pub(super) const FAILING_MAX: usize = 65_536;

    pub(super) fn new(
        settings: QuarantineSettings,
        rows: impl IntoIterator<Item = (AgentId, Option<Time>, Reason)>,
    ) -> Self {
        let mut quarantine = Self {
            settings,
            held: BTreeMap::new(),
            ends: BTreeSet::new(),
            failures: BTreeMap::new(),
            by_last: BTreeSet::new(),
        };
        for (agent, until, reason) in rows {
            quarantine.hold(agent, until, reason);
        }
        quarantine
    }

    /// Until when and why it is quarantined, if it is.
    pub(super) fn of(&self, agent: &AgentId, now: Time) -> Option<(Option<Time>, Reason)> {
        let held = self.held.get(agent).copied();
        held.filter(|(until, _)| until.is_none_or(|until| until > now))
    }

    /// It failed. Until when it should be quarantined, if that was once too often.
    pub(super) fn failed(&mut self, agent: &AgentId, now: Time) -> Option<Time> {
        self.forget_old(now);
        let QuarantineSettings { failures: allowed, within, lasts } = self.settings;
        let allowed = allowed.clamp(1, QuarantineSettings::FAILURES_MAX) as usize;
        let of_agent = self.failures.entry(*agent).or_default();
        if let Some(last) = of_agent.back() {
            self.by_last.remove(&(*last, *agent));
        }
        while of_agent.front().is_some_and(|at| now.since(*at) > within) || of_agent.len() >= allowed {
            of_agent.pop_front();
        }
        of_agent.push_back(now);
        let too_often = of_agent.len() >= allowed;
        if !too_often {
            self.by_last.insert((now, *agent));
            return None;
        }
        // It begins anew when it comes out.
        self.failures.remove(agent);
        Some(now + lasts)
    }

    /// It is quarantined from now on, until then, or until it is released. Whether that is new: one that lasts longer
    /// stays what it is.
    pub(super) fn hold(&mut self, agent: AgentId, until: Option<Time>, reason: Reason) -> bool {
        let end = |until: Option<Time>| until.unwrap_or(Time::NEVER);
        if self.held.get(&agent).is_some_and(|(before, _)| end(*before) >= end(until)) {
            return false;
        }
        self.release(&agent);
        if let Some(until) = until {
            self.ends.insert((until, agent));
        }
        self.held.insert(agent, (until, reason));
        true
    }

    /// It is not quarantined any more. Whether it was.
    pub(super) fn release(&mut self, agent: &AgentId) -> bool {
        let Some((until, _)) = self.held.remove(agent) else { return false };
        if let Some(until) = until {
            self.ends.remove(&(until, *agent));
        }
        true
    }

    /// Quarantines that are over end.
    pub(super) fn tick(&mut self, now: Time) {
        while let Some((until, agent)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, agent));
            self.held.remove(&agent);
        }
    }

    /// When the next one ends.
    pub(super) fn next_end(&self) -> Option<Time> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn forget_old(&mut self, now: Time) {
        let within = self.settings.within;
        while let Some((last, agent)) = self.by_last.first().copied() {
            if now.since(last) <= within && self.by_last.len() < Self::FAILING_MAX {
                return;
            }
            self.by_last.remove(&(last, agent));
            self.failures.remove(&agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: QuarantineSettings =
        QuarantineSettings { failures: 3, within: Duration::from_secs(10), lasts: Duration::from_secs(60) };

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 16])
    }

    #[test]
    fn too_many_failures_of_one_agent_within_the_time_quarantine_it() {
        let mut quarantine = Quarantine::new(SETTINGS, []);
        let failed: Vec<_> = [(1, 0), (2, 0), (1, 5_000), (2, 9_000), (1, 11_000), (1, 11_001)]
            .into_iter()
            .map(|(number, at)| {
                let until = quarantine.failed(&agent(number), Time(at));
                until.inspect(|until| {
                    assert!(quarantine.hold(agent(number), Some(*until), Reason::FailedTooOften));
                })
            })
            .collect();
        assert_eq!(failed, [None, None, None, None, None, Some(Time(71_001))]);
        let held = quarantine.of(&agent(1), Time(71_000));
        assert_eq!(held, Some((Some(Time(71_001)), Reason::FailedTooOften)));
        assert_eq!(quarantine.of(&agent(2), Time(71_000)), None);
        assert_eq!(quarantine.of(&agent(1), Time(71_001)), None);
    }

    #[test]
    fn quarantine_ends_by_time_or_by_hand_and_without_an_end_only_by_hand() {
        let rows = [
            (agent(1), Some(Time(10)), Reason::Operator),
            (agent(2), Some(Time(20)), Reason::Loop),
            (agent(3), None, Reason::Operator),
        ];
        let mut quarantine = Quarantine::new(SETTINGS, rows);
        assert_eq!(quarantine.next_end(), Some(Time(10)));
        quarantine.tick(Time(10));
        assert_eq!((quarantine.len(), quarantine.next_end()), (2, Some(Time(20))));
        assert!(quarantine.release(&agent(2)) && !quarantine.release(&agent(2)));
        quarantine.tick(Time(1_000_000));
        assert_eq!((quarantine.len(), quarantine.next_end()), (1, None));
    }

    #[test]
    fn the_later_end_holds() {
        let mut quarantine = Quarantine::new(SETTINGS, [(agent(1), None, Reason::Operator)]);
        assert!(!quarantine.hold(agent(1), Some(Time(10)), Reason::Loop));
        assert_eq!(quarantine.of(&agent(1), Time(0)), Some((None, Reason::Operator)));
        assert!(quarantine.hold(agent(2), Some(Time(10)), Reason::Loop));
        assert!(!quarantine.hold(agent(2), Some(Time(10)), Reason::FailedTooOften));
        assert!(quarantine.hold(agent(2), Some(Time(20)), Reason::FailedTooOften));
        assert_eq!(quarantine.next_end(), Some(Time(20)));
        assert!(quarantine.hold(agent(2), None, Reason::Operator));
        assert_eq!((quarantine.next_end(), quarantine.len()), (None, 2));
    }

    #[test]
    fn settings_without_sense_have_bounds() {
        let mut none = Quarantine::new(QuarantineSettings { failures: 0, ..SETTINGS }, []);
        assert!(none.failed(&agent(1), Time(0)).is_some(), "at the first one");
        let mut endless = Quarantine::new(QuarantineSettings { failures: u32::MAX, ..SETTINGS }, []);
        let failed: Vec<_> = (0..1_024).map(|_| endless.failed(&agent(1), Time(0)).is_some()).collect();
        assert_eq!(failed.iter().position(|failed| *failed), Some(1_023));
    }

    #[test]
    fn after_its_quarantine_an_agent_has_all_its_failures_again() {
        let mut quarantine = Quarantine::new(SETTINGS, []);
        for _ in 0..3 {
            quarantine.failed(&agent(1), Time(0));
        }
        quarantine.release(&agent(1));
        assert_eq!(quarantine.failed(&agent(1), Time(1)), None);
    }

    #[test]
    fn failures_are_forgotten_when_they_are_too_old_to_count() {
        let mut quarantine = Quarantine::new(SETTINGS, []);
        for number in 0..200 {
            quarantine.failed(&agent(number), Time(u64::from(number)));
        }
        quarantine.failed(&agent(0), Time(100_000));
        assert_eq!((quarantine.failures.len(), quarantine.by_last.len()), (1, 1));
    }
}
