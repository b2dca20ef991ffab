//! Facts to engines.

use opamp_fleet::rollout::{AgentFact, FleetEvent, FleetFact, RolloutId, RolloutState, Time};
use opamp_proto::{AgentId, Mono};

use super::{Leader, ToldOf, agent_facts, candidates};
use crate::sim::replica::facts::told;
use crate::sim::store::{AgentRow, Rows};

impl Leader {
    /// Reads all records that have changed since they were read last, and tells the engines.
    pub(in crate::sim) fn sweep(&mut self, rows: &Rows, mono: Mono) {
        if self.anything_started() {
            // Who came between plan and start joins now: it is looked at although nothing about it has changed.
            self.cursor = 0;
        }
        if self.tell_groups(rows, mono) {
            self.cursor = 0;
        }
        let cursor = self.cursor;
        let changed = rows.agents.iter().filter(|(_, row)| row.changed > cursor);
        for (id, row) in changed {
            self.agent(id, row, rows, mono);
        }
        self.cursor = rows.cursor;
        self.outside(rows, mono);
    }

    /// Tells the engines what is new of one agent.
    pub(in crate::sim) fn agent(&mut self, id: &AgentId, row: &AgentRow, rows: &Rows, mono: Mono) {
        let now = self.time(mono);
        let mut of = self.told.remove(&row.position).unwrap_or_default();
        self.tell(id, row, rows, &mut of, now);
        self.told.insert(row.position, of);
        self.place(id, row, rows, now);
    }

    fn tell(&mut self, id: &AgentId, row: &AgentRow, rows: &Rows, of: &mut ToldOf, now: Time) {
        if row.removed {
            if !std::mem::replace(&mut of.removed, true) {
                self.give(FleetEvent::Agent { rollout: None, agent: id, fact: AgentFact::Removed }, now);
                of.matched.clear();
            }
            return;
        }
        of.removed = false;
        let Some(facts) = &row.facts else { return };
        self.membership(id, row, rows, of, now);
        let news = told(of.facts.as_ref(), facts, row.desired, |generation| row.offer(generation));
        for told in news {
            self.give(FleetEvent::Agent { rollout: told.rollout, agent: id, fact: told.fact }, now);
        }
        of.facts = Some(facts.clone());
    }

    /// Whether it matches the selectors of the rollouts, where that has changed.
    fn membership(&mut self, id: &AgentId, row: &AgentRow, rows: &Rows, of: &mut ToldOf, now: Time) {
        let facts = agent_facts(id, row);
        let quarantined = rows.quarantined.contains_key(id);
        let takes = |state| matches!(state, RolloutState::Running | RolloutState::Paused);
        let live: Vec<(RolloutId, bool, bool)> = self
            .rollouts
            .engines()
            .map(|engine| (engine, engine.member(id).is_some()))
            // Before the start only members matter: the preflight takes in whoever comes.
            .filter(|(engine, is_member)| *is_member || takes(engine.state()))
            .map(|(engine, is_member)| (engine.id(), engine.plan().selector.matches(&facts), is_member))
            .collect();
        for (rollout, matches, is_member) in live {
            let before = of.matched.insert(rollout, matches);
            let joins = matches && (before == Some(false) || (before.is_none() && !is_member));
            let leaves = !matches && is_member && before != Some(false);
            let candidate = candidates::candidate(row, &facts, quarantined);
            let fact = match (joins, leaves) {
                (true, _) => AgentFact::Joined(&candidate),
                (_, true) => AgentFact::Left,
                _ => continue,
            };
            self.give(FleetEvent::Agent { rollout: Some(rollout), agent: id, fact }, now);
        }
    }

    /// Whether a rollout runs that did not when this was asked last.
    fn anything_started(&mut self) -> bool {
        let running = self.rollouts.engines().filter(|engine| engine.state() == RolloutState::Running);
        let running: Vec<RolloutId> = running.map(|engine| engine.id()).collect();
        let mut any = false;
        for id in running {
            any |= self.started.insert(id);
        }
        any
    }

    /// How the agents are that are in no rollout.
    fn outside(&mut self, rows: &Rows, mono: Mono) {
        let now = self.time(mono);
        let live: Vec<RolloutId> = self.rollouts.engines().map(|engine| engine.id()).collect();
        for rollout in live {
            let (mut total, mut away) = (0, 0);
            for (id, row) in &rows.agents {
                let Some(facts) = row.facts.as_ref().filter(|_| !row.removed) else { continue };
                let is_member =
                    self.rollouts.engine(rollout).is_some_and(|engine| engine.member(id).is_some());
                total += u32::from(!is_member);
                away += u32::from(!is_member && !facts.connected);
            }
            let fact = FleetFact::Outside { total, away };
            self.give(FleetEvent::Fleet { rollout: Some(rollout), fact }, now);
        }
    }

    /// Its lease was about to end: engines are told once it has been renewed, since another leader may have existed.
    pub(in crate::sim) fn doubts(&mut self, mono: Mono, doubtful: bool) {
        if !doubtful && self.doubtful {
            let now = self.time(mono);
            for doubt in [true, false] {
                let fact = FleetFact::LeadershipDoubtful(doubt);
                self.give(FleetEvent::Fleet { rollout: None, fact }, now);
            }
        }
        self.doubtful = doubtful;
    }
}
