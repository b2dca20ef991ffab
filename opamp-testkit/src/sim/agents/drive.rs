//! Driving an agent: what its session wants done, and what it does by itself.

use opamp_client::session::{Input, Output};
use opamp_client::{ConfigHash, EffectiveConfig, Rejected, RemoteConfig};
use opamp_proto::Mono;

use super::behaviour::{End, Then, course};
use super::{Happened, RESTART, Todo};
use crate::sim::profiles::Profile;
use crate::sim::schedule::What;
use crate::sim::world::World;

impl World {
    /// The agent's deadline has passed.
    pub(in crate::sim) fn agent_due(&mut self, agent: usize) {
        self.agents[agent].alarm.rang(self.mono);
        while let Some(todo) = self.agents[agent].due(self.mono) {
            self.does(agent, todo);
        }
        self.tell(agent, Input::Tick);
        self.wake_agent(agent);
    }

    /// Sees to it that the agent is called at its deadline.
    pub(in crate::sim) fn wake_agent(&mut self, agent: usize) {
        let one = &mut self.agents[agent];
        if let Some(deadline) = one.deadline() {
            one.alarm.set(deadline.max(self.mono), What::Agent(agent), &mut self.schedule);
        }
    }

    fn does(&mut self, agent: usize, todo: Todo) {
        match todo {
            Todo::Crash(back) => self.crash_agent(agent, self.mono + back),
            Todo::Cut => {
                self.cut(agent, false);
                if let Profile::Flapping { period } = self.agents[agent].spec.profile.clone()
                    && !self.is_calm()
                {
                    let one = &mut self.agents[agent];
                    let next = self.mono + one.rng.span(period);
                    one.todo.push((next, Todo::Cut));
                }
            }
            Todo::FallIll => {
                let one = &mut self.agents[agent];
                one.truth.ill = one.truth.runs != one.spec.runs;
                self.tell_health(agent);
            }
            Todo::Finish { hash, number, end } => self.finish(agent, hash, number, end),
            Todo::GoBack(number) => {
                let one = &mut self.agents[agent];
                one.runs(number, self.mono, Happened::WentBack(number));
                one.save_as_applied(number, &self.configs);
                self.crash_agent(agent, self.mono + RESTART);
            }
            Todo::Start => self.start_agent(agent),
        }
    }

    fn start_agent(&mut self, agent: usize) {
        let started = self.now_of_world().wall;
        let (mono, one) = (self.mono, &mut self.agents[agent]);
        if one.is_up() {
            return;
        }
        one.start_session(started);
        if let Profile::CrashLooping { after } = one.spec.profile.clone()
            && one.truth.runs != one.spec.runs
        {
            let next = mono + one.rng.span(after);
            one.todo.push((next, Todo::Crash(RESTART)));
        }
        let effective = one.effective();
        self.tell_health(agent);
        self.tell(agent, Input::EffectiveConfig(effective));
        self.tell(agent, Input::Start);
    }

    /// The session is told how the agent is, if that is told at all.
    fn tell_health(&mut self, agent: usize) {
        if let Some(health) = self.agents[agent].health() {
            self.tell(agent, Input::Health(health));
        }
    }

    /// The process ends without a word; it starts again at `back`.
    pub(in crate::sim) fn crash_agent(&mut self, agent: usize, back: Mono) {
        let one = &mut self.agents[agent];
        if !one.is_up() {
            return;
        }
        one.session = None;
        one.forget_work();
        one.todo.push((back, Todo::Start));
        self.hang_up(agent);
        self.wake_agent(agent);
    }

    /// Tells the session something, and does what it wants done.
    pub(in crate::sim) fn tell(&mut self, agent: usize, input: Input<'_>) {
        let now = self.now_of_world();
        let one = &mut self.agents[agent];
        if one.truth.hangs {
            return;
        }
        let Some(session) = &mut one.session else { return };
        if session.handle(input, now, &mut one.out).is_err() {
            return;
        }
        while let Some(output) = self.agents[agent].out.take() {
            self.perform(agent, output);
        }
        self.wake_agent(agent);
    }

    fn perform(&mut self, agent: usize, output: Output) {
        match output {
            Output::Abort => self.hang_up(agent),
            Output::Apply(config) => self.begin_applying(agent, &config),
            Output::Close(_) => {
                self.hang_up(agent);
                self.tell(agent, Input::Closed { code: Some(1000), reason: String::new() });
            }
            Output::Connect { .. } | Output::ConnectOffered(_) => self.connect(agent),
            Output::Persist => {
                let one = &mut self.agents[agent];
                if let Some(session) = &one.session {
                    one.saved = session.saved();
                }
            }
            Output::Ping => self.ping(agent),
            Output::Probe { .. } | Output::ProbeOffered(_) => self.tell(agent, Input::Probed(true)),
            Output::Send => self.send(agent),
            _ => {}
        }
    }

    /// The agent begins to apply a configuration.
    fn begin_applying(&mut self, agent: usize, config: &RemoteConfig) {
        let hash = config.hash().clone();
        let number = self.configs.number(hash.fingerprint());
        let one = &mut self.agents[agent];
        let is_first = number == Some(one.spec.runs);
        let course = course(&one.spec, is_first, &mut one.rng);
        // A configuration nobody knows would be the server's fault: it fails, and the invariants say the rest.
        let end = if number.is_none() { End::Failed } else { course.end };
        let number = number.unwrap_or(u8::MAX);
        one.todo.push((self.mono + course.takes, Todo::Finish { hash, number, end }));
    }

    fn finish(&mut self, agent: usize, hash: ConfigHash, number: u8, end: End) {
        let (mono, one) = (self.mono, &mut self.agents[agent]);
        let (result, then) = match end {
            End::Never => return,
            End::Failed => {
                one.truth.history.push((mono, Happened::Failed(number)));
                (Err(Rejected::new("this configuration does not work here")), Then::Stays)
            }
            End::Applied(then) => {
                one.runs(number, mono, Happened::Applied(number));
                (Ok(()), then)
            }
        };
        let before = one.truth.before;
        let effective: Option<EffectiveConfig> = result.is_ok().then(|| one.effective());
        match then {
            Then::CrashesEvery(after) => {
                let next = mono + one.rng.span(after);
                one.todo.push((next, Todo::Crash(RESTART)));
            }
            Then::FallsIll(after) => one.todo.push((mono + after, Todo::FallIll)),
            Then::GoesBack(after) => one.todo.push((mono + after, Todo::GoBack(before))),
            Then::Restarts | Then::Stays => {}
        }
        let recovers = result.is_ok() && std::mem::take(&mut one.truth.ill);
        self.tell(agent, Input::ConfigOutcome { hash, result, effective });
        if recovers {
            self.tell_health(agent);
        }
        if then == Then::Restarts {
            self.crash_agent(agent, mono + RESTART);
        }
    }
}
