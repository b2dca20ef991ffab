//! Rates of offers, as token buckets in integers (R25).
//!
//! A bucket holds what may be offered in one second and is refilled so slowly that no minute, wherever it begins, has more
//! offers than its rate.

use std::collections::BTreeMap;

use super::Domain;
use crate::rollout::{GroupIx, RolloutId, Time};

/// One offer, in the units of a bucket's level: one unit for each offer a minute and millisecond.
const OFFER: u64 = 60_000;

/// What may be offered, as it fills up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    level: u64,
    at: Time,
}

impl Bucket {
    const fn empty(at: Time) -> Self {
        Self { level: 0, at }
    }

    fn full(per_minute: u32, at: Time) -> Self {
        Self { level: burst(per_minute) * OFFER, at }
    }

    /// Offers the time since brought, up to one second's.
    fn refill(&mut self, per_minute: u32, now: Time) {
        let burst = burst(per_minute);
        let refill = (u64::from(per_minute) + 1).saturating_sub(burst);
        let gone = now.0.saturating_sub(self.at.0);
        let level = self.level.saturating_add(gone.saturating_mul(refill));
        (self.level, self.at) = (level.min(burst * OFFER), self.at.max(now));
    }

    /// None if there is an offer now, else when there is a second's worth of them again.
    fn wait(&mut self, per_minute: u32, now: Time) -> Option<Time> {
        match per_minute {
            0 => return Some(Time::NEVER),
            u32::MAX => return None,
            _ => self.refill(per_minute, now),
        }
        if self.level >= OFFER {
            return None;
        }
        let burst = burst(per_minute);
        let refill = (u64::from(per_minute) + 1).saturating_sub(burst).max(1);
        let missing = (burst * OFFER - self.level).div_ceil(refill);
        Some(Time(now.0.saturating_add(missing)))
    }
}

/// Offers of one second, at least one.
fn burst(per_minute: u32) -> u64 {
    u64::from((per_minute / 60).max(1))
}

/// The buckets of the fleet, of groups and failure domains that have a rate, and of each rollout.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    shared: Vec<(Domain, u32, Option<Bucket>)>,
    rollouts: BTreeMap<RolloutId, Bucket>,
}

/// What an offer is for, as far as rates ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rated<'a> {
    pub(super) rollout: RolloutId,
    pub(super) group: Option<GroupIx>,
    pub(super) zone: Option<&'a str>,
    /// Of the rollout itself.
    pub(super) per_minute: u32,
}

impl Rates {
    /// Buckets for these rates, all of them full once the first offer is asked for.
    pub(super) fn new(rates: impl IntoIterator<Item = (Domain, u32)>) -> Self {
        let limited = rates.into_iter().filter(|(_, per_minute)| *per_minute != u32::MAX);
        Self {
            shared: limited.map(|(domain, per_minute)| (domain, per_minute, None)).collect(),
            rollouts: BTreeMap::new(),
        }
    }

    /// None if an offer may be made now, else when to ask again.
    pub(super) fn wait(&mut self, rated: &Rated<'_>, now: Time) -> Option<Time> {
        let own = self.rollouts.entry(rated.rollout).or_insert_with(|| Bucket::full(rated.per_minute, now));
        let mut wait = own.wait(rated.per_minute, now);
        for (domain, per_minute, bucket) in &mut self.shared {
            if domain.covers(rated.group, rated.zone) {
                let bucket = bucket.get_or_insert_with(|| Bucket::full(*per_minute, now));
                wait = wait.max(bucket.wait(*per_minute, now));
            }
        }
        wait
    }

    /// An offer is made for which [`Rates::wait`] gave none.
    pub(super) fn take(&mut self, rated: &Rated<'_>) {
        if rated.per_minute != u32::MAX
            && let Some(own) = self.rollouts.get_mut(&rated.rollout)
        {
            own.level = own.level.saturating_sub(OFFER);
        }
        let shared = self.shared.iter_mut().filter(|(domain, ..)| domain.covers(rated.group, rated.zone));
        for bucket in shared.filter_map(|(_, _, bucket)| bucket.as_mut()) {
            bucket.level = bucket.level.saturating_sub(OFFER);
        }
    }

    /// The rollout comes from its records: what it has offered lately is not known here, so its bucket starts empty, and
    /// so do shared ones that nobody has asked yet.
    pub(super) fn adopt(&mut self, rollout: RolloutId, now: Time) {
        self.rollouts.insert(rollout, Bucket::empty(now));
        for (_, _, bucket) in &mut self.shared {
            bucket.get_or_insert(Bucket::empty(now));
        }
    }

    /// The rollout is over.
    pub(super) fn forget(&mut self, rollout: RolloutId) {
        self.rollouts.remove(&rollout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLOUT: RolloutId = RolloutId::from_bytes([1; 16]);

    fn rated(per_minute: u32) -> Rated<'static> {
        Rated { rollout: ROLLOUT, group: None, zone: None, per_minute }
    }

    /// When offers are made if they are asked for as early as they may be, for ten minutes.
    fn offers(rates: &mut Rates, rated: &Rated<'_>) -> Vec<u64> {
        let (mut now, mut made) = (Time(1_000), Vec::new());
        while now.0 < 601_000 {
            match rates.wait(rated, now) {
                None => {
                    rates.take(rated);
                    made.push(now.0);
                }
                Some(until) => {
                    assert!(until > now, "{until:?} at {now:?}");
                    now = until;
                }
            }
        }
        made
    }

    #[test]
    fn no_minute_has_more_offers_than_the_rate_and_ten_minutes_have_nearly_all() {
        for per_minute in [1, 2, 59, 60, 61, 119, 120, 600, 6_000] {
            let made = offers(&mut Rates::new([]), &rated(per_minute));
            for (index, at) in made.iter().enumerate() {
                let in_minute = made[index..].iter().take_while(|later| **later < at + 60_000).count();
                assert!(in_minute <= per_minute as usize, "{in_minute} in a minute at {per_minute}");
            }
            let least = 10 * per_minute as usize * 95 / 100;
            assert!(made.len() >= least, "{} in ten minutes at {per_minute}", made.len());
        }
    }

    #[test]
    fn without_a_limit_nobody_waits_and_with_none_allowed_everybody_does() {
        let mut rates = Rates::new([(Domain::Fleet, u32::MAX)]);
        for _ in 0..10_000 {
            assert_eq!(rates.wait(&rated(u32::MAX), Time(5)), None);
            rates.take(&rated(u32::MAX));
        }
        assert_eq!(rates.wait(&rated(0), Time(5)), Some(Time::NEVER));
    }

    #[test]
    fn the_slowest_bucket_decides_and_a_denied_offer_takes_from_none() {
        let zone = super::super::ZoneKey("a".into());
        let mut rates = Rates::new([(Domain::Fleet, 120), (Domain::Zone(zone), 1)]);
        let in_zone = Rated { zone: Some("a"), ..rated(u32::MAX) };
        assert_eq!(rates.wait(&in_zone, Time(0)), None);
        rates.take(&in_zone);
        assert_eq!(rates.wait(&in_zone, Time(0)), Some(Time(60_000)));
        let elsewhere = Rated { zone: Some("b"), ..rated(u32::MAX) };
        assert_eq!(rates.wait(&elsewhere, Time(0)), None, "the fleet's has one left");
        rates.take(&elsewhere);
        assert!(rates.wait(&elsewhere, Time(0)).is_some());
    }

    #[test]
    fn a_rollout_from_its_records_starts_with_nothing() {
        let mut rates = Rates::new([]);
        rates.adopt(ROLLOUT, Time(0));
        assert_eq!(rates.wait(&rated(60), Time(0)), Some(Time(1_000)));
        assert_eq!(rates.wait(&rated(60), Time(1_000)), None);
    }

    #[test]
    fn time_that_stands_still_or_goes_back_brings_nothing() {
        let mut rates = Rates::new([]);
        assert_eq!(rates.wait(&rated(1), Time(90_000)), None);
        rates.take(&rated(1));
        assert!(rates.wait(&rated(1), Time(10_000)).is_some());
        assert_eq!(rates.wait(&rated(1), Time(149_999)), Some(Time(150_000)));
        assert_eq!(rates.wait(&rated(1), Time(150_000)), None);
    }
}
