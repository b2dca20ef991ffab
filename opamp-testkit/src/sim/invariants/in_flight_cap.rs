//! Never more members in flight than the rollout, its wave, its failure domains and its slow start allow, and never more offers
//! in a minute (R15, R25).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use opamp_fleet::rollout::{Limits, MemberState, RolloutId, Time, WaveIx};
use opamp_proto::AgentId;

use super::{Invariant, NewOffer, ensure, new_offers, story};
use crate::sim::ledger::{Change, Story};
use crate::sim::world::{StepSeen, World};

/// Span of a rate.
const MINUTE: Duration = Duration::from_secs(60);

/// One rollout, change by change: what counts is who is in flight when an offer is made. Who comes back later, or is heard
/// late, is in flight again without one.
#[derive(Debug, Default)]
struct Flight {
    /// Members in flight with something new, with their waves.
    now: BTreeMap<AgentId, WaveIx>,
    /// Members that are well: each lets one more be in flight in its wave.
    well: BTreeSet<AgentId>,
    /// Limits that an operator has set.
    limits: Option<Limits>,
    /// When the latest offers were made, those that put back included.
    made: VecDeque<Time>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct InFlightCap {
    flights: BTreeMap<RolloutId, Flight>,
}

impl Invariant for InFlightCap {
    fn name(&self) -> &'static str {
        "in_flight_cap"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            let rows = world.store.rows().rollouts.iter();
            self.flights = rows.map(|(id, row)| (*id, Flight::of(&row.story))).collect();
        }
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            let Some(story) = story(world, rollout) else { continue };
            let flight = self.flights.entry(rollout).or_default();
            for change in &commit.written.changes {
                flight.follow(change);
                for offer in new_offers(std::slice::from_ref(change)) {
                    let judged = flight.rate(story, offer).and_then(|()| flight.judge(world, story, offer));
                    judged.map_err(|why| format!("rollout {rollout}: {why}"))?;
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl Flight {
    fn of(story: &Story) -> Self {
        let mut flight = Self { limits: Some(story.limits), ..Self::default() };
        for line in &story.lines {
            flight.note(line.agent, line.wave, line.state);
        }
        flight
    }

    fn follow(&mut self, change: &Change) {
        match change {
            Change::Joined { agent, wave, state, .. } => self.note(*agent, *wave, *state),
            Change::Member { agent, wave, after, .. } => self.note(*agent, *wave, after.state),
            Change::Limits(limits) => self.limits = Some(*limits),
            _ => {}
        }
    }

    fn note(&mut self, agent: AgentId, wave: WaveIx, state: MemberState) {
        if state.in_flight() && state != MemberState::RollbackOffered {
            self.now.insert(agent, wave);
        } else {
            self.now.remove(&agent);
        }
        if matches!(state, MemberState::Verified | MemberState::Unverified) {
            self.well.insert(agent);
        } else {
            self.well.remove(&agent);
        }
    }

    /// No minute has more offers than its limit.
    fn rate(&mut self, story: &Story, offer: NewOffer) -> Result<(), String> {
        let most = self.limits(story).per_minute;
        while self.made.front().is_some_and(|first| *first + MINUTE <= offer.at) {
            self.made.pop_front();
        }
        self.made.push_back(offer.at);
        let found = self.made.len();
        ensure(found <= most as usize, || format!("{found} offers in a minute, at most {most} may be"))
    }

    /// No failure domain has more in flight than it may.
    fn zone(&self, world: &World, story: &Story, offer: NewOffer) -> Result<(), String> {
        let Some(most) = story.plan().domains.as_ref().map(|domains| domains.in_flight_max) else {
            return Ok(());
        };
        let zone = zone_of(world, &offer.agent);
        let found = self.now.keys().filter(|agent| zone_of(world, agent) == zone).count();
        ensure(found <= most as usize, || format!("{found} are in flight in {zone:?}, at most {most} may be"))
    }

    fn limits(&self, story: &Story) -> Limits {
        self.limits.unwrap_or(story.plan().settings.limits)
    }

    fn judge(&self, world: &World, story: &Story, offer: NewOffer) -> Result<(), String> {
        if offer.back {
            return Ok(());
        }
        let limits = self.limits(story);
        self.zone(world, story, offer)?;
        let fleet = u32::try_from(world.agents.len()).unwrap_or(u32::MAX);
        let (all, most) =
            (self.now.len(), limits.in_flight_max.min(world.scenario.shared.most_in_flight(fleet)));
        ensure(all <= most as usize, || format!("{all} are in flight, at most {most} may be"))?;
        let Some(wave) = self.now.get(&offer.agent) else { return Ok(()) };
        let found = self.now.values().filter(|of| *of == wave).count();
        let well = story.of_wave(*wave).filter(|line| self.well.contains(&line.agent)).count();
        ensure(found <= 1 + well, || {
            format!("wave {wave} has {found} in flight, slow start allows {}", 1 + well)
        })?;
        let cap = story.plan().waves.get(wave.index()).map_or(u32::MAX, |plan| plan.cap);
        ensure(found <= cap as usize, || format!("wave {wave} has {found} in flight, its cap is {cap}"))
    }
}

/// The failure domain of an agent, by its label.
fn zone_of<'a>(world: &'a World, agent: &AgentId) -> Option<&'a str> {
    world.position(agent).map(|position| &*world.agents[position].spec.zone)
}

#[cfg(test)]
mod tests {
    use super::super::made::{AGENT, member, row, world};
    use super::*;

    #[test]
    fn who_is_offered_counts_until_it_settles_and_then_lets_one_more_in() {
        let mut flight = Flight::default();
        flight.follow(&member(row(MemberState::Queued, 0), row(MemberState::Offered, 1)));
        assert_eq!(flight.now, BTreeMap::from([(AGENT, WaveIx(0))]));
        flight.follow(&member(row(MemberState::Applied, 1), row(MemberState::Verified, 1)));
        assert!(flight.now.is_empty() && flight.well.contains(&AGENT));
        flight.follow(&member(row(MemberState::RollbackQueued, 1), row(MemberState::RollbackOffered, 2)));
        assert!(flight.now.is_empty(), "going back is not limited by what may be in flight");
        assert!(flight.well.is_empty(), "who goes back takes back what it gave");
        assert_eq!(InFlightCap::default().after(&world(), &StepSeen::default()), Ok(()));
    }
}
