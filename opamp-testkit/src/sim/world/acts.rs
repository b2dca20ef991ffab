//! Acts of a scenario.

use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{Do, GateIx, Limits, Resume, Scope, WaveIx};
use opamp_proto::Mono;

use super::World;
use crate::sim::scenario::{Act, How};

impl World {
    /// The act of this number.
    pub(super) fn act(&mut self, number: usize) {
        let Some(act) = self.scenario.acts.get(number).map(|act| act.act.clone()) else { return };
        match act {
            Act::Abort { rollout } => self.wants(rollout, Do::Abort),
            Act::Advance { rollout } => self.wants(rollout, Do::Advance),
            Act::AllowHash { rollout, agent } => {
                let id = self.agent(agent).map(|agent| self.agents[agent].id);
                if let Some(agent) = id {
                    self.wants(rollout, Do::AllowHash { agent });
                }
            }
            Act::AgentCrash { agent, back_s } => {
                let back = self.after(back_s);
                self.with_agent(agent, |world, agent| world.crash_agent(agent, back));
            }
            Act::Cancel { rollout } => self.wants(rollout, Do::Cancel),
            Act::Cut { agent, silently } => {
                self.with_agent(agent, |world, agent| world.cut(agent, silently));
            }
            Act::Exclude { rollout, agent } => {
                let id = self.agent(agent).map(|agent| self.agents[agent].id);
                if let Some(agent) = id {
                    self.wants(rollout, Do::Exclude { agent });
                }
            }
            Act::Extend { rollout, by_s } => {
                self.wants(rollout, Do::Extend { by: Duration::from_secs(by_s.into()) });
            }
            Act::Interfere { rollout } => {
                if let Some(id) = self.operators.id(rollout) {
                    self.store.interfere(id);
                }
            }
            Act::Limit { rollout, in_flight, touched, per_minute } => {
                self.limit(rollout, |limits| Limits {
                    in_flight_max: in_flight,
                    touched_max: touched.unwrap_or(limits.touched_max),
                    per_minute: per_minute.unwrap_or(limits.per_minute),
                    ..limits
                });
            }
            Act::Outage { agent, for_s } => {
                let until = self.after(for_s);
                self.with_agent(agent, |world, agent| {
                    world.agents[agent].outage_until = until;
                    world.cut(agent, false);
                });
            }
            Act::Pause { rollout } => self.wants(rollout, Do::Pause),
            Act::Raise { rollout, gate } => {
                let (gate, over, count) = (GateIx(gate), Ppm::percent(50), 5);
                self.wants(rollout, Do::Resume(Resume::Raise { gate, over, count }));
            }
            Act::Recall { config } => self.recall(config),
            Act::Relabel { agent, ring } => self.with_agent(agent, |world, agent| {
                let id = world.agents[agent].id;
                let label = ring.to_string();
                world.store.change_agent(&id, |row| {
                    row.labels.insert("ring".to_owned(), label);
                });
                world.hint(agent);
            }),
            Act::Release { rollout } => self.wants(rollout, Do::ReleaseControlGroup),
            Act::Remove { agent } => self.with_agent(agent, |world, agent| {
                let id = world.agents[agent].id;
                world.store.change_agent(&id, |row| row.removed = true);
                world.hint(agent);
            }),
            Act::ReplicaCrash { replica, back_s } => self.crash_replica(replica, back_s),
            Act::ReplicaPause { replica, for_s, at_write: true } => {
                if let Some(one) = self.replicas.get_mut(usize::from(replica)) {
                    one.pauses_at_write = Some(Duration::from_secs(for_s.into()));
                }
            }
            Act::ReplicaPause { replica, for_s, at_write: false } => {
                let until = self.after(for_s);
                if let Some(one) = self.replicas.get_mut(usize::from(replica)) {
                    one.paused_until = one.paused_until.max(until);
                    self.wake_replica(usize::from(replica));
                }
            }
            Act::Resume { rollout, how } => self.wants(rollout, Do::Resume(resume(how))),
            Act::RollBack { rollout } => self.wants(rollout, Do::RollBack(Scope::All)),
            Act::RollBackFailed { rollout } => self.wants(rollout, Do::RollBack(Scope::Failed)),
            Act::RollBackWave { rollout, wave } => {
                self.wants(rollout, Do::RollBack(Scope::Wave(WaveIx(wave))));
            }
            Act::Skew { replica, by_s } => {
                if let Some(one) = self.replicas.get_mut(usize::from(replica)) {
                    one.skew_ms = i64::from(by_s) * 1_000;
                }
            }
            Act::SkipGate { rollout, gate } => {
                self.wants(rollout, Do::SkipGate { gate: GateIx(gate), wave: None });
            }
            Act::SkipWave { rollout } => self.wants(rollout, Do::SkipWave),
            Act::StoreForgets => {
                // It goes back to what it had a little earlier: the copy is made now, and used soon.
                if self.store.keeps_copy() {
                    self.seen.forgot = self.store.forget();
                } else if self.store.generation() == 0 {
                    self.store.keep_copy();
                    self.schedule.put(self.after(Act::FORGETS_S), super::What::Act(number));
                }
            }
            Act::StoreOutage { for_s } => {
                self.store_outage_until = self.store_outage_until.max(self.after(for_s));
            }
            Act::Waive { rollout, gate } => {
                self.wants(rollout, Do::Resume(Resume::Waive { gate: GateIx(gate) }));
            }
        }
    }

    fn after(&self, seconds: u32) -> Mono {
        self.mono + Duration::from_secs(seconds.into())
    }

    /// The position of an agent by its number.
    fn agent(&self, number: u32) -> Option<usize> {
        self.agents.iter().position(|agent| agent.spec.number == number)
    }

    fn with_agent(&mut self, number: u32, act: impl FnOnce(&mut Self, usize)) {
        if let Some(agent) = self.agent(number) {
            act(self, agent);
        }
    }

    fn wants(&mut self, rollout: u32, do_: Do) {
        if let Some(id) = self.operators.id(rollout) {
            self.order(id, do_);
        }
    }

    fn limit(&mut self, rollout: u32, other: impl FnOnce(Limits) -> Limits) {
        let id = self.operators.id(rollout);
        let limits = id.and_then(|id| self.store.rows().rollouts.get(&id)).map(|row| row.story.limits);
        if let Some(limits) = limits {
            self.wants(rollout, Do::SetLimits(other(limits)));
        }
    }

    fn recall(&mut self, config: u8) {
        let (now, fingerprint) = (self.mono, self.configs.fingerprint(config));
        let Some(fingerprint) = fingerprint else { return };
        let Some(replica) = self.who_leads() else { return };
        if let Some(leader) = &mut self.replicas[replica].leader {
            leader.recall(fingerprint, now);
        }
        self.lead(replica, None);
    }

    fn crash_replica(&mut self, replica: u8, back_s: u32) {
        let (now, back, replica) = (self.mono, self.after(back_s), usize::from(replica));
        if self.replicas.get(replica).is_none_or(|one| !one.is_up()) {
            return;
        }
        self.replicas[replica].crash(now, back);
        self.lose_replica(replica);
        self.wake_replica(replica);
    }
}

fn resume(how: How) -> Resume {
    match how {
        How::Plain => Resume::Plain,
        How::Retry => Resume::Retry,
        How::Skip => Resume::Skip,
    }
}
