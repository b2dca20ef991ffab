//! Everything a rollout was told, event by event: it can be told again to an engine alone, without agents, and an engine that
//! is told the same does the same.

use opamp_fleet::coordinator::Coordinator;
use opamp_fleet::rollout::{AgentFact, Command, Effects, Engine, Event, Refused, Time};

use super::agents::FAILURE;
use super::fleet::id_of;

/// Everything a rollout was told, in order.
#[derive(Clone, Debug, Default)]
pub struct Script {
    lines: Vec<(Time, Line)>,
}

#[derive(Clone, Debug)]
enum Line {
    Command(Box<Command>),
    Fact { agent: u32, fact: AgentFact<'static> },
    Tick,
}

impl Script {
    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing was told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Tells the event at a position; whether there is one. What the engine wants stays in `effects`.
    ///
    /// # Errors
    /// As when it was told first: a command can be refused.
    pub fn tell(
        &self,
        at: usize,
        engine: &mut Engine,
        shared: &mut Coordinator,
        effects: &mut Effects,
    ) -> Result<bool, Refused> {
        let Some((now, line)) = self.lines.get(at) else { return Ok(false) };
        match line {
            Line::Command(command) => engine.handle(Event::Command(command), *now, shared, effects)?,
            Line::Fact { agent, fact } => {
                let agent = id_of(*agent);
                engine.handle(Event::Agent { agent: &agent, fact: *fact }, *now, shared, effects)?;
            }
            Line::Tick => {
                shared.tick(*now);
                engine.handle(Event::Tick, *now, shared, effects)?;
            }
        }
        Ok(true)
    }

    /// Tells everything from a position on, and does nothing of what the engine wants.
    pub fn play(&self, from: usize, engine: &mut Engine, shared: &mut Coordinator) {
        let mut effects = Effects::default();
        for at in from..self.lines.len() {
            // What was refused at first is refused again.
            let _ = self.tell(at, engine, shared, &mut effects);
            effects.clear();
        }
    }

    pub(super) fn command(&mut self, now: Time, command: &Command) {
        self.lines.push((now, Line::Command(Box::new(command.clone()))));
    }

    pub(super) fn fact(&mut self, now: Time, agent: u32, fact: AgentFact<'_>) {
        if let Some(fact) = lasting(fact) {
            self.lines.push((now, Line::Fact { agent, fact }));
        }
    }

    pub(super) fn tick(&mut self, now: Time) {
        self.lines.push((now, Line::Tick));
    }
}

/// The fact without what it borrows: agents of a model have one text for all failures. Who joins is not written down: rollouts that
/// are told again have nobody who does.
fn lasting(fact: AgentFact<'_>) -> Option<AgentFact<'static>> {
    Some(match fact {
        AgentFact::Capabilities(capabilities) => AgentFact::Capabilities(capabilities),
        AgentFact::Connected => AgentFact::Connected,
        AgentFact::Delivered { offer } => AgentFact::Delivered { offer },
        AgentFact::Disconnected { announced } => AgentFact::Disconnected { announced },
        AgentFact::Effective { offer, relation } => AgentFact::Effective { offer, relation },
        AgentFact::Health { offer, healthy } => AgentFact::Health { offer, healthy },
        AgentFact::Joined(_) => return None,
        AgentFact::Left => AgentFact::Left,
        AgentFact::Removed => AgentFact::Removed,
        AgentFact::Reported { offer, hash, status, text } => {
            AgentFact::Reported { offer, hash, status, text: text.map(|_| FAILURE) }
        }
        AgentFact::Withheld { offer, why } => AgentFact::Withheld { offer, why },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use opamp_fleet::rollout::stats::Ppm;

    use super::super::fleet::FleetModel;
    use super::super::planned::{Planned, Subject};
    use super::super::{Model, Operator, RunEnd};
    use crate::sim::profiles::{Mix, Profile, Share, Span};

    #[test]
    fn an_engine_that_is_told_the_same_does_the_same() {
        let fails = Profile::Fails { rate: Ppm::percent(2) };
        let shares =
            vec![Share { profile: fails, share: Ppm::ALL, apply: Span::between(2, 20), fails_after: None }];
        let fleet = FleetModel::plain(5, 500, Mix::new(shares).unwrap());
        let subject = Subject::new(5, "v2").unwrap();
        let Planned { plan, members } = Planned::make(&fleet, subject.request()).unwrap();
        let model = || Model::new(&fleet, Arc::clone(&plan), members.clone(), Operator::default());
        let mut told = model();
        told.write_script();
        assert_eq!(told.run(Duration::from_secs(86_400)), RunEnd::Ended);
        let events = told.tally().events;
        let (script, summary) = (told.script().unwrap().clone(), told.summary());
        assert_eq!(script.len() as u64, events);
        assert!(summary.failed > 0, "{summary:?}");
        let (mut engine, mut shared, _) = model().into_engine();
        script.play(0, &mut engine, &mut shared);
        assert_eq!(engine.summary(told.now), summary);
        assert_eq!(engine.state(), told.engine().state());
    }
}
