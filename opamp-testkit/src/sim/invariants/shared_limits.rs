//! What all rollouts share holds over all of them, also when the leader changes: the disruption budget, the rate of all
//! together, offers of one rollout in an hour; what was recalled goes to nobody, and nothing new goes to who is
//! quarantined, or to anybody while the breaker is open (R25, R54 to R58).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opamp_fleet::rollout::{RolloutId, Time};
use opamp_proto::{AgentId, Fingerprint};

use super::assigned::{self, Assigned, LATE};
use super::{Invariant, NewOffer, ensure, new_offers};
use crate::sim::ledger::Change;
use crate::sim::rng::whole_ms;
use crate::sim::store::Desired;
use crate::sim::world::{Commit, StepSeen, World};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// How far engine time may be ahead of what is seen when something is written.
const APART: Duration = Duration::from_secs(15);

/// An offer that was made.
#[derive(Clone, Copy, Debug)]
struct Made {
    at: Time,
    rollout: RolloutId,
    /// It puts its agent back.
    back: bool,
}

/// A member that came into flight, or left it.
#[derive(Clone, Copy, Debug)]
struct Move {
    at: Time,
    agent: AgentId,
    enters: bool,
    /// Somebody was asked first.
    claimed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct SharedLimits {
    made: Vec<Made>,
    /// Who was in flight when engines were rebuilt last.
    began_with: BTreeSet<AgentId>,
    /// What became of members since. Of what was decided before that and not written only the engines knew.
    moves: Vec<Move>,
    /// What was recalled, and when that was seen.
    recalled: BTreeMap<Fingerprint, Time>,
    /// Who is under way to what its group should have.
    assigned: Assigned,
}

impl Invariant for SharedLimits {
    fn name(&self) -> &'static str {
        "shared_limits"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            (self.made, self.recalled) = Default::default();
        }
        if seen.forgot || !seen.rebuilt.is_empty() {
            self.begin_anew(world);
        }
        let now = Time::from(world.now_of_world().wall);
        for config in &world.store.rows().recalled {
            self.recalled.entry(*config).or_insert(now);
        }
        for commit in &seen.commits {
            self.note(commit);
            let offers: Vec<NewOffer> = new_offers(&commit.written.changes).collect();
            offers.iter().try_for_each(|offer| self.is_permitted(world, commit, offer))?;
        }
        for (agent, span) in self.assigned.follow(world, seen) {
            self.was_assigned(agent, span);
        }
        assigned::new(seen).try_for_each(|desired| self.may_be_assigned(world, desired, now))
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let shared = &world.scenario.shared;
        self.made.sort_by_key(|made| made.at);
        let all: Vec<Time> = self.made.iter().map(|made| made.at).collect();
        ensure(most_within(&all, MINUTE) <= shared.per_minute, || {
            format!("more than {} offers of all rollouts within a minute", shared.per_minute)
        })?;
        for id in world.store.rows().rollouts.keys() {
            let of = self.made.iter().filter(|made| made.rollout == *id && !made.back);
            let of: Vec<Time> = of.map(|made| made.at).collect();
            ensure(most_within(&of, HOUR) <= shared.per_hour, || {
                format!("more than {} offers of rollout {id} within an hour", shared.per_hour)
            })?;
        }
        budget_holds(self.began_with.clone(), std::mem::take(&mut self.moves), shared.at_once)
    }
}

impl SharedLimits {
    /// Engines know no more than what is written.
    fn begin_anew(&mut self, world: &World) {
        self.moves.clear();
        let rollouts = world.store.rows().rollouts.values();
        let lines = rollouts.filter(|row| !row.story.state().is_terminal()).flat_map(|row| &row.story.lines);
        self.began_with = lines.filter(|line| line.state.in_flight()).map(|line| line.agent).collect();
    }

    fn note(&mut self, commit: &Commit) {
        let rollout = commit.batch.key.rollout;
        for offer in new_offers(&commit.written.changes) {
            self.made.push(Made { at: offer.at, rollout, back: offer.back });
        }
        for change in &commit.written.changes {
            let (agent, was, is, at, claimed) = match change {
                Change::Member { agent, before, row_before, after, .. } => {
                    let claimed = row_before.map_or(0, |row| row.offer) < after.offer;
                    (*agent, before.in_flight(), after.state.in_flight(), after.since, claimed)
                }
                Change::Joined { agent, state, .. } => {
                    (*agent, true, state.in_flight(), commit.batch.at, false)
                }
                _ => continue,
            };
            let last = self.moves.iter().rposition(|one| one.agent == agent);
            match last.filter(|last| self.moves[*last].enters && self.moves[*last].at == at) {
                // It took no time.
                Some(last) if !is => {
                    self.moves.remove(last);
                }
                _ if was != is || claimed && is => {
                    self.moves.push(Move { at, agent, enters: is, claimed });
                }
                _ => {}
            }
        }
    }

    /// An agent was under way to what its group should have, for as long as that is certain by whatever clock.
    fn was_assigned(&mut self, agent: AgentId, (since, until): (Time, Time)) {
        let since = since + APART;
        if until > since + APART {
            let enters = Move { at: since, agent, enters: true, claimed: false };
            let leaves = Move { at: Time(until.0 - whole_ms(APART)), enters: false, ..enters };
            self.moves.extend([enters, leaves]);
        }
    }

    /// What was recalled is assigned to nobody; nobody is assigned anything that is quarantined, or while the breaker is
    /// open. Records are put right nevertheless.
    fn may_be_assigned(&self, world: &World, desired: &Desired, now: Time) -> Result<(), String> {
        let (rows, shared) = (world.store.rows(), &world.scenario.shared);
        let (agent, config) = (desired.agent, desired.config);
        let recalled = self.recalled.get(&config);
        ensure(recalled.is_none_or(|since| now <= *since + LATE), || {
            format!("{agent} is assigned {config}, which was recalled at {recalled:?}")
        })?;
        if self.assigned.of(&agent).is_none() {
            return Ok(());
        }
        // Engine time may be ahead: what ends soon may have ended for who decided it.
        let is_within = |until: Time, lasts: Duration| now + APART < until && now + lasts > until + LATE;
        let quarantined = rows.quarantined.get(&agent).and_then(|(until, _)| *until);
        ensure(!quarantined.is_some_and(|until| is_within(until, shared.quarantine().lasts)), || {
            format!("{agent} is quarantined until {quarantined:?} and is assigned something at {now}")
        })?;
        let open = rows.breaker;
        ensure(!open.is_some_and(|until| is_within(until, shared.breaker().open_for)), || {
            format!("the breaker is open until {open:?}, and {agent} is assigned something at {now}")
        })
    }

    /// What does not depend on how much is going on.
    fn is_permitted(&self, world: &World, commit: &Commit, offer: &NewOffer) -> Result<(), String> {
        let (rows, shared) = (world.store.rows(), &world.scenario.shared);
        let Some(row) = rows.rollouts.get(&commit.batch.key.rollout) else { return Ok(()) };
        let (agent, target) = (offer.agent, row.story.target());
        let config = if offer.back { row.previous.get(&agent).copied().flatten() } else { Some(target) };
        let recalled = config.and_then(|config| self.recalled.get(&config));
        ensure(recalled.is_none_or(|since| offer.at <= *since + APART), || {
            format!("{agent} is offered {config:?}, which was recalled at {recalled:?}")
        })?;
        if offer.back {
            return Ok(());
        }
        // When it was decided follows from when it ends.
        let is_within = |until: Time, lasts: Duration| until.since(offer.at) < lasts && offer.at < until;
        let quarantined = rows.quarantined.get(&agent).and_then(|(until, _)| *until);
        ensure(!quarantined.is_some_and(|until| is_within(until, shared.quarantine().lasts)), || {
            format!("{agent} is quarantined until {quarantined:?} and is offered something at {}", offer.at)
        })?;
        let open = rows.breaker;
        ensure(!open.is_some_and(|until| is_within(until, shared.breaker().open_for)), || {
            format!("the breaker is open until {open:?}, and {agent} is offered something at {}", offer.at)
        })
    }
}

/// Most of these times, in order, that lie within a span.
fn most_within(times: &[Time], span: Duration) -> u32 {
    let mut first = 0;
    let mut most = 0;
    for (last, at) in times.iter().enumerate() {
        while times[first] + span <= *at {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// Whenever somebody was asked, the agent that was let through was within the budget. Who comes back is in flight without
/// having asked.
fn budget_holds(mut now: BTreeSet<AgentId>, mut moves: Vec<Move>, most: u32) -> Result<(), String> {
    // Of what happened at the same time, in whatever rollout, what makes room came first.
    moves.sort_by_key(|one| (one.at, one.enters));
    for Move { at, agent, enters, claimed } in moves {
        if !enters {
            now.remove(&agent);
            continue;
        }
        let is_new = now.insert(agent);
        ensure(!(claimed && is_new) || now.len() <= most as usize, || {
            format!("{} agents are disturbed at {at}, at most {most} may be", now.len())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 16])
    }

    fn moved(at: u64, number: u8, enters: bool) -> Move {
        Move { at: Time(at), agent: agent(number), enters, claimed: true }
    }

    #[test]
    fn an_agent_too_many_at_a_time_is_found_whatever_order_it_was_written_in() {
        let fine = vec![moved(9, 2, true), moved(5, 1, true), moved(9, 1, false)];
        assert_eq!(budget_holds(BTreeSet::new(), fine.clone(), 1), Ok(()));
        let early = vec![moved(8, 2, true), moved(5, 1, true), moved(9, 1, false)];
        assert!(budget_holds(BTreeSet::new(), early, 1).is_err());
        assert!(budget_holds([agent(3)].into(), fine, 1).is_err());
        let back = Move { claimed: false, ..moved(6, 2, true) };
        assert_eq!(budget_holds(BTreeSet::new(), vec![moved(5, 1, true), back], 1), Ok(()));
    }

    #[test]
    fn the_most_within_a_span_is_counted_wherever_it_lies() {
        let times: Vec<Time> = [0, 30_000, 60_000, 61_000, 89_999, 200_000].map(Time).into();
        assert_eq!(most_within(&times, MINUTE), 4);
        assert_eq!(most_within(&[], MINUTE), 0);
    }
}
