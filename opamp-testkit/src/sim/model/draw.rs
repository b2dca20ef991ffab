//! Delays and faults of an agent, by hash of seed and agent: nothing is stored, and one more draw shifts no other.

use opamp_fleet::rollout::stats::Ppm;

use crate::sim::profiles::Span;
use crate::sim::rng::{Rng, whole_ms};

/// What is drawn. Draws for different purposes have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// How long it takes until a profile shows: a crash, a return, a step back.
    After,
    /// How long it takes to put a configuration to use.
    Apply,
    /// How long an offer is on its way.
    Delivery,
    /// Whether it fails.
    Fate,
    /// How long it is until it says that it has begun.
    Begin,
    /// A label other than the zone.
    Label,
    /// Which kind of agent it is.
    Profile,
    /// What it runs before.
    Before,
    /// Its version.
    Version,
    /// Its failure domain.
    Zone,
    /// Whether it joins later, and when.
    Join,
    /// Whether it leaves, and when.
    Leave,
}

/// Draws of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    seed: u64,
}

impl Draw {
    /// Draws of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// 64 bits for an agent, a purpose, and the how-manieth time it is for that purpose.
    #[must_use]
    pub const fn bits(self, agent: u32, purpose: Purpose, time: u32) -> u64 {
        let subject = ((agent as u64) << 32) ^ ((purpose as u64) << 24) ^ time as u64;
        stirred(stirred(self.seed).wrapping_add(stirred(subject)))
    }

    /// Whether something happens that happens at this rate.
    #[must_use]
    pub const fn happens(self, agent: u32, purpose: Purpose, rate: Ppm) -> bool {
        part_of(self.bits(agent, purpose, 0), Ppm::ALL.0) < rate.0
    }

    /// A length within a span, every millisecond as likely as another; in milliseconds.
    #[must_use]
    pub fn length_ms(self, agent: u32, purpose: Purpose, time: u32, span: &Span) -> u64 {
        let (from, until) = (whole_ms(span.from), whole_ms(span.until));
        let choices = u128::from(until.saturating_sub(from)) + 1;
        let within = (u128::from(self.bits(agent, purpose, time)) * choices) >> 64;
        // Below `choices`, which is at most 2^64.
        from.saturating_add(u64::try_from(within).unwrap_or(u64::MAX))
    }
}

/// A number below `whole`, every one as likely as another.
#[must_use]
pub const fn part_of(bits: u64, whole: u32) -> u32 {
    (((bits >> 32) * whole as u64) >> 32) as u32
}

/// The bits of a number, each depending on all of them.
const fn stirred(number: u64) -> u64 {
    Rng::new(number).draw()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_same_seed_agent_and_purpose_give_the_same_and_others_do_not() {
        let draw = Draw::new(7);
        let bits = draw.bits(3, Purpose::Fate, 0);
        assert_eq!(bits, Draw::new(7).bits(3, Purpose::Fate, 0));
        let others = [
            Draw::new(8).bits(3, Purpose::Fate, 0),
            draw.bits(4, Purpose::Fate, 0),
            draw.bits(3, Purpose::Apply, 0),
            draw.bits(3, Purpose::Fate, 1),
        ];
        assert!(!others.contains(&bits));
    }

    #[test]
    fn what_happens_at_a_rate_happens_that_often() {
        let often = |rate: Ppm| {
            (0..100_000).filter(|&agent| Draw::new(1).happens(agent, Purpose::Fate, rate)).count()
        };
        assert_eq!(often(Ppm(0)), 0);
        assert_eq!(often(Ppm::ALL), 100_000);
        // Four standard errors of 100,000 draws at 2 % are 177.
        assert!((1_823..=2_177).contains(&often(Ppm::percent(2))), "{}", often(Ppm::percent(2)));
    }

    #[test]
    fn lengths_cover_their_span_and_nothing_else() {
        let span = Span { from: Duration::from_millis(2), until: Duration::from_millis(5) };
        let mut seen = [0_u32; 8];
        for agent in 0..1_000 {
            let length = Draw::new(1).length_ms(agent, Purpose::Apply, 0, &span);
            seen[usize::try_from(length).unwrap()] += 1;
        }
        assert_eq!([seen[0], seen[1], seen[6], seen[7]], [0; 4]);
        assert!(seen[2..6].iter().all(|&count| count > 200), "{seen:?}");
        let still = Span { from: Duration::from_secs(1), until: Duration::from_secs(1) };
        assert_eq!(Draw::new(1).length_ms(0, Purpose::Apply, 0, &still), 1_000);
    }
}
