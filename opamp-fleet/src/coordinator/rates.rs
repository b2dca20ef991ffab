//! Rates of offers, as token buckets in integers (R25).
//!
//! A bucket holds what may be offered in one second and is refilled so slowly that no minute, wherever it begins, has more
//! offers than its rate. Once a rate is lowered, nothing is offered until the minute of the last offer is over that a higher
//! one let through.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Domain;
use crate::rollout::{GroupIx, RolloutId, Time};

/// One offer, in the units of a bucket's level: one unit for each offer a minute and millisecond.
const OFFER: u64 = 60_000;
/// What rates are of.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// What may be offered, as it fills up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    level: u64,
    at: Time,
    /// The highest rate that offers were made at within the last minute.
    rate: u32,
    /// When a minute has passed since the last offer.
    over: Time,
}

impl Bucket {
    const fn empty(at: Time) -> Self {
        Self { level: 0, at, rate: 0, over: Time(0) }
    }

    fn full(per_minute: u32, at: Time) -> Self {
        Self { level: burst(per_minute) * OFFER, ..Self::empty(at) }
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
        if now >= self.over {
            self.rate = 0;
        }
        if per_minute > 0 && per_minute < self.rate {
            return Some(self.over);
        }
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

    /// An offer is made for which [`Bucket::wait`] gave none.
    fn take(&mut self, per_minute: u32, now: Time) {
        if per_minute != u32::MAX {
            self.level = self.level.saturating_sub(OFFER);
        }
        (self.rate, self.over) = (self.rate.max(per_minute), self.over.max(now + MINUTE));
    }
}

/// Offers of one second, at least one.
fn burst(per_minute: u32) -> u64 {
    u64::from((per_minute / 60).max(1))
}

/// Offers of the last minute, as records have them, by when members came into their present states: counted too high rather
/// than too low, and too close to each other where many members changed at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lately {
    pub(super) offers: u32,
    pub(super) first: Time,
    pub(super) last: Time,
}

impl Lately {
    /// The least rate at which so many can have been offered in that time.
    fn rate(self) -> u32 {
        let within = |rate: &u32| {
            let refill = (u64::from(*rate) + 1).saturating_sub(burst(*rate));
            let span = self.last.0.saturating_sub(self.first.0);
            burst(*rate).saturating_add(span.saturating_mul(refill) / OFFER) >= u64::from(self.offers)
        };
        let (mut low, mut high) = (0, u32::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            (low, high) = if within(&middle) { (low, middle) } else { (middle + 1, high) };
        }
        low
    }
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
    pub(super) fn take(&mut self, rated: &Rated<'_>, now: Time) {
        if let Some(own) = self.rollouts.get_mut(&rated.rollout) {
            own.take(rated.per_minute, now);
        }
        let shared = self.shared.iter_mut().filter(|(domain, ..)| domain.covers(rated.group, rated.zone));
        for (_, per_minute, bucket) in shared {
            if let Some(bucket) = bucket {
                bucket.take(*per_minute, now);
            }
        }
    }

    /// The rollout comes from its records, which do not say at what rates it made the offers of the last minute, the first one
    /// and the last one of them then, and so many at most: its bucket starts empty, and so do shared ones that nobody has asked
    /// yet.
    pub(super) fn adopt(&mut self, rollout: RolloutId, lately: Option<Lately>, now: Time) {
        let mut bucket = Bucket::empty(now);
        if let Some(lately) = lately {
            (bucket.rate, bucket.over) = (lately.rate(), lately.last + MINUTE);
        }
        self.rollouts.insert(rollout, bucket);
        for (_, _, bucket) in &mut self.shared {
            bucket.get_or_insert(Bucket::empty(now));
        }
    }

    /// What was offered at a higher rate is forgotten: what a lowered rate without memory would do.
    pub(super) fn forget_rate(&mut self, rollout: RolloutId) {
        if let Some(own) = self.rollouts.get_mut(&rollout) {
            own.rate = 0;
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
                    rates.take(rated, now);
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
            rates.take(&rated(u32::MAX), Time(5));
        }
        assert_eq!(rates.wait(&rated(0), Time(5)), Some(Time::NEVER));
    }

    #[test]
    fn the_slowest_bucket_decides_and_a_denied_offer_takes_from_none() {
        let zone = super::super::ZoneKey("a".into());
        let mut rates = Rates::new([(Domain::Fleet, 120), (Domain::Zone(zone), 1)]);
        let in_zone = Rated { zone: Some("a"), ..rated(u32::MAX) };
        assert_eq!(rates.wait(&in_zone, Time(0)), None);
        rates.take(&in_zone, Time(0));
        assert_eq!(rates.wait(&in_zone, Time(0)), Some(Time(60_000)));
        let elsewhere = Rated { zone: Some("b"), ..rated(u32::MAX) };
        assert_eq!(rates.wait(&elsewhere, Time(0)), None, "the fleet's has one left");
        rates.take(&elsewhere, Time(0));
        assert!(rates.wait(&elsewhere, Time(0)).is_some());
    }

    #[test]
    fn a_rollout_from_its_records_starts_with_nothing() {
        let mut rates = Rates::new([]);
        rates.adopt(ROLLOUT, None, Time(0));
        assert_eq!(rates.wait(&rated(60), Time(0)), Some(Time(1_000)));
        assert_eq!(rates.wait(&rated(60), Time(1_000)), None);
    }

    #[test]
    fn a_rate_that_is_lowered_holds_for_the_minute_it_is_lowered_in() {
        for before in [600, u32::MAX] {
            let mut rates = Rates::new([]);
            for at in (0..30_000).step_by(1_000) {
                assert_eq!(rates.wait(&rated(before), Time(at)), None);
                rates.take(&rated(before), Time(at));
            }
            assert_eq!(rates.wait(&rated(0), Time(40_000)), Some(Time::NEVER));
            assert_eq!(rates.wait(&rated(10), Time(50_000)), Some(Time(89_000)));
            assert_eq!(rates.wait(&rated(10), Time(89_000)), None);
            rates.take(&rated(10), Time(89_000));
            assert_eq!(rates.wait(&rated(20), Time(92_000)), None, "a higher one holds at once");
        }
    }

    #[test]
    fn a_rollout_from_its_records_that_has_offered_more_than_it_may_waits_for_a_minute() {
        let mut rates = Rates::new([]);
        let lately = |offers, first| Some(Lately { offers, first: Time(first), last: Time(20_000) });
        // Ten within a second, and then it was lowered to ten in a minute.
        rates.adopt(ROLLOUT, lately(10, 19_000), Time(30_000));
        assert_eq!(rates.wait(&rated(10), Time(36_000)), Some(Time(80_000)));
        assert_eq!(rates.wait(&rated(10), Time(80_000)), None);
        // Twenty within twenty seconds are what 57 in a minute allow.
        rates.adopt(ROLLOUT, lately(20, 0), Time(30_000));
        assert_eq!(rates.wait(&rated(56), Time(31_000)), Some(Time(80_000)));
        assert_eq!(rates.wait(&rated(57), Time(32_000)), None);
    }

    #[test]
    fn time_that_stands_still_or_goes_back_brings_nothing() {
        let mut rates = Rates::new([]);
        assert_eq!(rates.wait(&rated(1), Time(90_000)), None);
        rates.take(&rated(1), Time(90_000));
        assert!(rates.wait(&rated(1), Time(10_000)).is_some());
        assert_eq!(rates.wait(&rated(1), Time(149_999)), Some(Time(150_000)));
        assert_eq!(rates.wait(&rated(1), Time(150_000)), None);
    }
}
