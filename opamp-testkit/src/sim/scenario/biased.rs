//! Scenarios bent towards what a seeded bug needs to show.

use opamp_fleet::faults::Fault;
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{LateJoiners, UnverifiedPolicy};

use super::drawn::number;
use super::{Act, ActAt, How, Scenario, Shape, SharedSpec};
use crate::sim::profiles::{Profile, Span, Stage};
use crate::sim::rng::{Rng, Subject};

impl Scenario {
    /// The scenario with more of the conditions under which a fault shows.
    #[must_use]
    pub fn biased(mut self, fault: Fault) -> Self {
        let mut rng = Rng::new(self.seed).fork(Subject::Scenario, 4);
        match fault {
            Fault::PauseLostOnRestore | Fault::WallClockJump => self.change_leaders(&mut rng),
            Fault::StaleEpochAccepted => {
                // What a leader sent last is still on its way when it leads again under another epoch, or leaves it when
                // somebody else leads.
                (self.replicas, self.faults.commit_slow) = (3, 80);
                self.crashes(1);
                self.acts.push(ActAt { at_s: 250, act: Act::StoreForgets });
                for at_s in (100..2_400).step_by(70) {
                    let replica = u8::try_from(rng.below(3)).unwrap_or(0);
                    let for_s = number(rng.between(45, 90));
                    self.acts.push(ActAt { at_s, act: Act::ReplicaPause { replica, for_s, at_write: true } });
                }
            }
            Fault::DoubleOffer => {
                // Offers stay where they are until somebody looks. Whoever leads next finds them there, and the agents as well:
                // nobody goes away with a replica that stands still.
                (self.replicas, self.faults.hint_lost) = (3, 95);
                for at_s in (90..2_400).step_by(60) {
                    let replica = u8::try_from(rng.below(3)).unwrap_or(0);
                    let for_s = number(rng.between(45, 90));
                    self.acts
                        .push(ActAt { at_s, act: Act::ReplicaPause { replica, for_s, at_write: false } });
                }
            }
            Fault::LockLeak => {
                // What was decided and not written is lost with the engine that decided it.
                self.faults.commit_slow = 50;
                for at_s in (90..2_000).step_by(15) {
                    self.acts.push(ActAt { at_s, act: Act::Interfere { rollout: 0 } });
                }
            }
            Fault::JoinerUngated => {
                self.each_rollout(|spec| {
                    spec.joiners = LateJoiners::Continuous;
                    (spec.in_flight_max, spec.touched_max) = (1, 6);
                });
                let agents = self.agents.iter_mut().step_by(3);
                agents.for_each(|agent| agent.arrives_s = Some(number(rng.between(120, 2_400))));
            }
            Fault::ResumeRevives => {
                // The end takes its time to be written, so that somebody still holds the rollout when it is resumed.
                (self.faults.commit_lost, self.faults.commit_slow) = (50, 50);
                self.acts.push(ActAt { at_s: 300, act: Act::Abort { rollout: 0 } });
                for at_s in 301..600 {
                    self.acts.push(ActAt { at_s, act: Act::Resume { rollout: 0, how: How::Plain } });
                }
            }
            Fault::InheritedTimer => self.each_rollout(|spec| {
                spec.shape = Shape::Canary { first: 2 };
                spec.dwell_later_s = spec.dwell_s + 600;
            }),
            Fault::RollbackLoop | Fault::CommonRollbackTarget => {
                // Who takes no configuration any more cannot be put back.
                self.profile(4, &Profile::DropsCapability);
                for at_s in [600, 1_200, 2_400] {
                    self.acts.push(ActAt { at_s, act: Act::RollBack { rollout: 0 } });
                }
            }
            Fault::DeferredCounted => {
                self.profile(3, &Profile::Offline { returns: Span::between(600, 6_000) })
            }
            Fault::AbsorbingClear => self.fail_late(),
            Fault::WindowPastDwell => self.each_rollout(|spec| {
                spec.shape = Shape::Canary { first: 2 };
                spec.window_s = spec.dwell_s.max(spec.dwell_later_s) + 60;
            }),
            Fault::LostEffect | Fault::ActBeforeCommit | Fault::NewBatchOnRetry => {
                (self.faults.commit_lost, self.faults.answer_lost) = (30, 30);
                self.change_leaders(&mut rng);
            }
            Fault::StaleReportCounts => {
                // Whoever leads next is told again what was said of the first offer while a further one waits.
                self.each_rollout(|spec| spec.retries = 2);
                self.profile(2, &Profile::Fails { rate: Ppm::percent(50) });
                self.faults.hint_lost = 95;
                self.crashes(5);
            }
            Fault::CapIgnored => {
                self.each_rollout(|spec| {
                    (spec.in_flight_max, spec.shape) = (2, Shape::Batches { size: 12 });
                });
                for at_s in (200..3_000).step_by(100) {
                    let act = if at_s % 200 == 0 {
                        Act::Pause { rollout: 0 }
                    } else {
                        Act::Resume { rollout: 0, how: How::Plain }
                    };
                    self.acts.push(ActAt { at_s, act });
                }
            }
            Fault::ForeignAppliedIsSuccess => {
                // Nothing else is broken and nobody else at work, so that whatever an agent says is heard.
                self.one_rollout_in_peace();
                self.profile(2, &Profile::SelfRollingBack { after: Span::between(1, 60) });
            }
            Fault::RetryOfRejected => {
                self.profile(2, &Profile::Fails { rate: Ppm::ALL });
                self.each_rollout(|spec| spec.retries = 2);
            }
            Fault::BlastPerWave => self.each_rollout(|spec| {
                (spec.touched_max, spec.shape) = (4, Shape::Batches { size: 3 });
            }),
            Fault::UndoForgotten => {
                self.profile(2, &Profile::Flapping { period: Span::between(20, 60) });
                self.each_rollout(|spec| spec.unverified = UnverifiedPolicy::Neutral);
                for at_s in (90..3_000).step_by(70) {
                    let agent = number(rng.below(self.agents.len() as u64));
                    self.acts.push(ActAt { at_s, act: Act::Outage { agent, for_s: 400 } });
                }
            }
            Fault::BudgetIgnored => {
                self.acts.clear();
                self.faults = super::Faulty::default();
                self.shared = SharedSpec { at_once: 2, ..SharedSpec::default() };
                self.each_rollout(|spec| {
                    (spec.shape, spec.in_flight_max, spec.touched_max) = (Shape::AllAtOnce, 1_000, u32::MAX);
                });
            }
            Fault::RecallIgnored => {
                // What agents have of the first rollout is recalled, and then they are put back to it.
                self.shared = SharedSpec::default();
                self.one_after_the_other();
                let recall = Act::Recall { config: self.rollouts[0].config };
                self.acts = vec![ActAt { at_s: 2_700, act: recall }];
                self.roll_back_the_second();
            }
            // Nothing has to be bent: it shows in every rollout.
            Fault::UnwatchedIsGood => {}
            Fault::SettlingStuck => self.one_rollout_in_peace(),
            Fault::JoinerEarly => {
                self.each_rollout(|spec| {
                    (spec.joiners, spec.shape) = (LateJoiners::Continuous, Shape::Canary { first: 2 });
                });
                let agents = self.agents.iter_mut().step_by(3);
                agents.for_each(|agent| agent.arrives_s = Some(number(rng.between(90, 400))));
            }
            Fault::RolledBackUnasked => {
                self.one_rollout_in_peace();
                self.acts.push(ActAt { at_s: 900, act: Act::RollBack { rollout: 0 } });
            }
            Fault::FailedIgnored => {
                self.one_rollout_in_peace();
                self.profile(2, &Profile::Fails { rate: Ppm::ALL });
            }
            // Nothing has to be bent: it shows in every rollout.
            Fault::DeadlineForgotten => {}
            Fault::EntryForgotten => {
                for (at_s, gate) in (200..1_000).step_by(100).zip(0..) {
                    self.acts.push(ActAt { at_s, act: Act::SkipGate { rollout: 0, gate } });
                }
            }
            Fault::SteadyKeyRepeats => {
                self.newcomers(&mut rng, (1_600, 2_350));
                self.roll_back_the_second();
            }
            Fault::SteadyUnlocked => {
                // They take their time, while the second rollout begins and whoever leads begins anew.
                self.newcomers(&mut rng, (2_250, 2_500));
                let late = self.agents.iter_mut().filter(|agent| agent.arrives_s.is_some());
                late.for_each(|agent| agent.apply = Span::between(60, 100));
                self.replicas = 1;
                for at_s in (2_400..2_900).step_by(25) {
                    self.acts.push(ActAt { at_s, act: Act::ReplicaCrash { replica: 0, back_s: 1 } });
                }
            }
            Fault::SteadyBringsNobody => {
                // They come when all is over.
                self.newcomers(&mut rng, (2_600, 3_600));
                self.rollouts.truncate(1);
            }
            Fault::SmallFaultPasses => {
                self.one_rollout_in_peace();
                self.agents.truncate(2);
                self.profile(1, &Profile::Fails { rate: Ppm::ALL });
                self.agents.iter_mut().for_each(|agent| agent.arrives_s = None);
                self.each_rollout(|spec| (spec.shape, spec.control_group) = (Shape::AllAtOnce, 0));
            }
            Fault::PercentIgnored => {
                self.one_rollout_in_peace();
                self.profile(2, &Profile::Silent { stage: Stage::Applying });
            }
            Fault::LoweredRateForgets => {
                self.acts.clear();
                self.each_rollout(|spec| {
                    (spec.shape, spec.in_flight_max, spec.per_minute) = (Shape::AllAtOnce, 1_000, 600);
                });
                for (at_s, per_minute) in (90..1_200).step_by(20).zip([2, 600].into_iter().cycle()) {
                    let limits = Act::Limit {
                        rollout: 0,
                        in_flight: 1_000,
                        touched: None,
                        per_minute: Some(per_minute),
                    };
                    self.acts.push(ActAt { at_s, act: limits });
                }
            }
            Fault::PinDropped => {
                let at_s = number(rng.between(300, 1_500));
                self.acts.push(ActAt { at_s, act: Act::Abort { rollout: 0 } });
            }
        }
        self.acts.sort_by_key(|act| act.at_s);
        self
    }

    fn each_rollout(&mut self, change: impl FnMut(&mut super::RolloutSpec)) {
        self.rollouts.iter_mut().for_each(change);
    }

    /// One rollout, and nobody who does anything or breaks anything: it is calm from the start.
    fn one_rollout_in_peace(&mut self) {
        self.acts.clear();
        self.rollouts.truncate(1);
    }

    /// Two rollouts, the second one when the first one has ended.
    fn one_after_the_other(&mut self) {
        let first = self.rollouts[0].clone();
        self.rollouts.truncate(1);
        self.rollouts.push(super::RolloutSpec {
            number: first.number + 1,
            at_s: 2_400,
            config: first.config + 1,
            ..first
        });
        self.each_rollout(|spec| {
            (spec.shape, spec.in_flight_max, spec.touched_max) = (Shape::AllAtOnce, 1_000, u32::MAX);
            (spec.zone_max, spec.per_minute, spec.frozen_s) = (u32::MAX, u32::MAX, None);
        });
    }

    fn roll_back_the_second(&mut self) {
        for at_s in [3_000, 3_300] {
            let act = Act::RollBack { rollout: self.rollouts[1].number };
            self.acts.push(ActAt { at_s, act });
        }
    }

    /// All have what the first of two rollouts brought to their group, and those who come later are to get it.
    fn newcomers(&mut self, rng: &mut Rng, (from_s, until_s): (u64, u64)) {
        self.acts.clear();
        self.faults = super::Faulty::default();
        self.shared = SharedSpec { steady: true, ..SharedSpec::default() };
        self.one_after_the_other();
        self.each_rollout(|spec| spec.control_group = 0);
        self.profile(1, &Profile::Well);
        for (place, agent) in self.agents.iter_mut().enumerate() {
            agent.ring = "rest".into();
            agent.arrives_s = place.is_multiple_of(3).then(|| number(rng.between(from_s, until_s)));
        }
    }

    /// Every so manieth agent has this profile.
    fn profile(&mut self, every: usize, profile: &Profile) {
        self.agents.iter_mut().step_by(every).for_each(|agent| agent.profile = profile.clone());
    }

    /// Sixty agents at once: most are well soon, and then fifteen fail that took their time.
    fn fail_late(&mut self) {
        let first = self.agents[0].clone();
        self.agents = (0..Self::AGENTS_MAX)
            .map(|at| {
                let fails = at % 4 == 3;
                super::AgentSpec {
                    number: number(at as u64),
                    ring: "rest".into(),
                    apply: if fails { Span::between(200, 270) } else { Span::between(1, 5) },
                    arrives_s: None,
                    profile: if fails { Profile::Fails { rate: Ppm::ALL } } else { Profile::Well },
                    ..first.clone()
                }
            })
            .collect();
        self.each_rollout(|spec| {
            (spec.shape, spec.retries, spec.control_group) = (Shape::AllAtOnce, 0, 0);
            (spec.in_flight_max, spec.touched_max) = (1_000, u32::MAX);
            (spec.zone_max, spec.per_minute, spec.frozen_s) = (u32::MAX, u32::MAX, None);
        });
        self.acts.clear();
    }

    /// Replicas crash in turn, all the time.
    fn crashes(&mut self, back_s: u32) {
        let replicas = self.replicas;
        for (turn, at_s) in (90..2_400).step_by(30).enumerate() {
            let replica = u8::try_from(turn % usize::from(replicas)).unwrap_or(0);
            self.acts.push(ActAt { at_s, act: Act::ReplicaCrash { replica, back_s } });
        }
    }

    /// Replicas stand still, crash and have wrong clocks all the time.
    fn change_leaders(&mut self, rng: &mut Rng) {
        self.replicas = 3;
        for at_s in (120..5_000).step_by(150) {
            let replica = u8::try_from(rng.below(3)).unwrap_or(0);
            let act = match rng.below(3) {
                0 => Act::ReplicaPause {
                    replica,
                    for_s: number(rng.between(31, 90)),
                    at_write: rng.chance(Ppm::percent(50)),
                },
                1 => Act::ReplicaCrash { replica, back_s: number(rng.between(5, 60)) },
                _ => Act::Skew { replica, by_s: i32::try_from(rng.below(1_201)).unwrap_or(0) - 600 },
            };
            self.acts.push(ActAt { at_s, act });
        }
        self.acts.push(ActAt { at_s: 300, act: Act::Pause { rollout: 0 } });
    }
}
