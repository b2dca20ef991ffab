//! Blast radius: how much a rollout may touch (R54).

use crate::rollout::{Limits, Time};

/// Milliseconds of a minute.
const MINUTE: u64 = 60_000;
/// One minute more than an hour has, so that every hour lies within them.
const MINUTES: usize = 61;

/// Offers of the last hour, by minute. Any hour, wherever it begins, is covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hour {
    minutes: [u32; MINUTES],
    /// Number of the latest minute.
    latest: u64,
}

impl Hour {
    /// An hour without offers.
    pub(super) fn new(now: Time) -> Self {
        Self { minutes: [0; MINUTES], latest: now.0 / MINUTE }
    }

    /// So many offers were made then; what is longer ago than an hour does not count.
    pub(super) fn add(&mut self, at: Time, offers: u32) {
        let minute = at.0 / MINUTE;
        self.forget_until(minute);
        if self.latest - minute.min(self.latest) < MINUTES as u64 {
            let slot = &mut self.minutes[slot(minute)];
            *slot = slot.saturating_add(offers);
        }
    }

    /// None if one more may be made now, else when it may.
    pub(super) fn wait(&mut self, per_hour: u32, now: Time) -> Option<Time> {
        match per_hour {
            0 => return Some(Time::NEVER),
            u32::MAX => return None,
            _ => self.forget_until(now.0 / MINUTE),
        }
        let mut left: u64 = self.minutes.iter().map(|offers| u64::from(*offers)).sum();
        let first = (self.latest + 1).saturating_sub(MINUTES as u64);
        for minute in first..=self.latest {
            if left < u64::from(per_hour) {
                // The minutes before this one have to leave.
                let until = (minute > first).then(|| Time((minute - 1 + MINUTES as u64) * MINUTE));
                return until.filter(|until| *until > now);
            }
            left -= u64::from(self.minutes[slot(minute)]);
        }
        Some(Time((self.latest + MINUTES as u64) * MINUTE))
    }

    fn forget_until(&mut self, minute: u64) {
        if minute > self.latest {
            let gone = (minute - self.latest).min(MINUTES as u64);
            for minute in minute + 1 - gone..=minute {
                self.minutes[slot(minute)] = 0;
            }
            self.latest = minute;
        }
    }
}

fn slot(minute: u64) -> usize {
    (minute % MINUTES as u64) as usize
}

/// The smaller one of each.
pub(super) fn least(own: &Limits, hard: &Limits) -> Limits {
    Limits {
        touched_max: own.touched_max.min(hard.touched_max),
        fleet_percent_in_flight: own.fleet_percent_in_flight.min(hard.fleet_percent_in_flight),
        per_hour: own.per_hour.min(hard.per_hour),
        per_minute: own.per_minute.min(hard.per_minute),
        in_flight_max: own.in_flight_max.min(hard.in_flight_max),
        zone_in_flight: own.zone_in_flight.min(hard.zone_in_flight),
    }
}

/// The first limit that asks for more than the hard ones allow: what it is, what is allowed, what was asked for. A limit
/// left at its default asks for nothing.
pub(super) fn beyond(own: &Limits, hard: &Limits) -> Option<(&'static str, u32, u32)> {
    let bounds = hard.named().into_iter().zip(Limits::default().named());
    let mut rows = own.named().into_iter().zip(bounds);
    let found = rows.find(|((_, own), ((_, hard), (_, unset)))| own > hard && own != unset);
    found.map(|((what, own), ((_, hard), _))| (what, hard, own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::stats::Ppm;

    const HOUR: u64 = 60 * MINUTE;

    #[test]
    fn no_hour_has_more_offers_than_allowed_and_none_waits_longer_than_it_must() {
        let mut hour = Hour::new(Time(0));
        let (mut now, mut made) = (Time(30_000), Vec::new());
        while now.0 < 5 * HOUR {
            match hour.wait(7, now) {
                None => {
                    hour.add(now, 1);
                    made.push(now.0);
                    now.0 += 300_000;
                }
                Some(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        for (index, at) in made.iter().enumerate() {
            assert!(made[index..].iter().take_while(|later| **later < at + HOUR).count() <= 7);
        }
        assert!(made.len() >= 5 * 7 - 3, "{}", made.len());
    }

    #[test]
    fn what_was_offered_before_a_restore_counts_until_it_is_an_hour_old() {
        let mut hour = Hour::new(Time(2 * HOUR));
        hour.add(Time(10 * MINUTE), 9);
        assert_eq!(hour.wait(1, Time(2 * HOUR)), None, "that was longer ago");
        hour.add(Time(2 * HOUR - 30 * MINUTE), 2);
        assert_eq!(hour.wait(2, Time(2 * HOUR)), Some(Time(2 * HOUR + 31 * MINUTE)));
        assert_eq!(hour.wait(2, Time(2 * HOUR + 31 * MINUTE)), None);
    }

    #[test]
    fn none_is_never_and_no_limit_is_always() {
        let mut hour = Hour::new(Time(0));
        hour.add(Time(0), 1_000_000);
        assert_eq!(hour.wait(0, Time(0)), Some(Time::NEVER));
        assert_eq!(hour.wait(u32::MAX, Time(0)), None);
    }

    #[test]
    fn a_limit_left_at_its_default_is_never_beyond_the_hard_one() {
        let hard = Limits { touched_max: 100, per_hour: 50, in_flight_max: 10, ..Limits::default() };
        let own = Limits::default();
        assert_eq!(beyond(&own, &hard), None);
        assert_eq!(least(&own, &hard), hard);
        let more = Limits { per_hour: 51, ..own };
        assert_eq!(beyond(&more, &hard), Some(("offers in an hour", 50, 51)));
        let percent = Limits { fleet_percent_in_flight: Ppm::percent(5), ..hard };
        assert_eq!(least(&own, &percent).fleet_percent_in_flight, Ppm::percent(5));
    }
}
