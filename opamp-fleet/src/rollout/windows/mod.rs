//! When new offers may begin: windows and freezes (R50, R51).
//!
//! A closed calendar begins nothing and ends nothing: what is in flight settles (R52), and rollbacks go on.
//!
//! A rollout has one calendar, which is part of its plan. Failure domains with hours of their own have rollouts of their own:
//! windows of several are a union, in which each domain would be changed in the hours of the others. A freeze that is
//! declared later stops no rollout that runs; pausing it does.

mod freeze;
mod zoned;

pub use freeze::{Freeze, Override};
pub use zoned::{Days, Minute, Window};

use super::{Reason, Time};
use zoned::Span;

/// When new offers may begin. Without windows that is always, but for freezes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// Open if one of them is. At most [`Calendar::WINDOWS_MAX`].
    pub windows: Box<[Window]>,
    /// Closed if one of them holds. At most [`Calendar::FREEZES_MAX`].
    pub freezes: Box<[Freeze]>,
    /// Failure domains it holds for, all of it; empty: all.
    pub zones: Box<[Box<str>]>,
}

impl Calendar {
    /// Most windows.
    pub const WINDOWS_MAX: usize = 64;
    /// Most freezes.
    pub const FREEZES_MAX: usize = 64;

    /// Whether it holds for a wave of this failure domain. A wave of no domain in particular may have members of any, so
    /// that it holds for it.
    #[must_use]
    pub fn holds_for(&self, zone: Option<&str>) -> bool {
        self.zones.is_empty() || zone.is_none_or(|zone| self.zones.iter().any(|name| **name == *zone))
    }

    /// Whether new offers may begin at `now`, and until when that is so. Beyond about two weeks it may be so for longer:
    /// looking again then is always right.
    #[must_use]
    pub fn at(&self, now: Time) -> Opening {
        if let Some(end) = self.frozen_until(now) {
            return Opening::Closed { until: self.opens_from(end), by: Reason::Freeze };
        }
        match self.hours(now) {
            Hours::Closed { until } => {
                let until = until.and_then(|next| self.opens_from(next));
                Opening::Closed { until, by: Reason::Window }
            }
            Hours::Open { until } => {
                let freezes = self.freezes.iter().filter(|freeze| freeze.is_in_force());
                let begins = freezes.filter(|freeze| freeze.from > now && freeze.from < freeze.until);
                let freeze = begins.map(|freeze| freeze.from).min();
                Opening::Open { until: until.into_iter().chain(freeze).min() }
            }
        }
    }

    /// The first time from `from` on at which it is open. None: never, as far as one can see.
    fn opens_from(&self, from: Time) -> Option<Time> {
        let mut at = from;
        // Each freeze moves the time past its end once, and each move may end in a closed hour.
        for _ in 0..=2 * self.freezes.len() {
            if at == Time::NEVER {
                return None;
            }
            at = match (self.frozen_until(at), self.hours(at)) {
                (Some(end), _) => end,
                (None, Hours::Open { .. }) => return Some(at),
                (None, Hours::Closed { until }) => until?,
            };
        }
        (at != Time::NEVER).then_some(at)
    }

    /// The end of the freezes that hold at `time`, one after the other; none if none does.
    fn frozen_until(&self, time: Time) -> Option<Time> {
        let mut end = time;
        while let Some(later) =
            self.freezes.iter().filter(|freeze| freeze.holds_at(end)).map(|f| f.until).max()
        {
            end = later;
        }
        (end > time).then_some(end)
    }

    /// What the windows alone say.
    fn hours(&self, now: Time) -> Hours {
        if self.windows.is_empty() {
            return Hours::Open { until: None };
        }
        let spans: Vec<Span> = self.windows.iter().flat_map(|window| window.spans(now)).collect();
        let mut end = now;
        while let Some(later) = spans.iter().filter(|span| span.0 <= end && end < span.1).map(|s| s.1).max() {
            end = later;
        }
        if end > now {
            return Hours::Open { until: Some(end) };
        }
        Hours::Closed { until: spans.iter().map(|span| span.0).filter(|begin| *begin > now).min() }
    }
}

/// What windows say without freezes.
enum Hours {
    Closed { until: Option<Time> },
    Open { until: Option<Time> },
}

/// Whether new offers may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// They may not.
    Closed {
        /// Until when; none: for good.
        until: Option<Time>,
        /// [`Reason::Window`] or [`Reason::Freeze`].
        by: Reason,
    },
    /// They may.
    Open {
        /// Until when; none: for good.
        until: Option<Time>,
    },
}

impl Opening {
    /// Whether they may.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// When to look again; none if nothing changes.
    #[must_use]
    pub const fn until(self) -> Option<Time> {
        match self {
            Self::Closed { until, .. } | Self::Open { until } => until,
        }
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::Wall;

    use super::*;

    fn at(text: &str) -> Time {
        text.parse::<Wall>().unwrap().into()
    }

    fn office() -> Window {
        Window {
            zone: "Europe/Berlin".into(),
            days: Days::WEEKDAYS,
            from: Minute::at(9, 0),
            until: Minute::at(17, 0),
        }
    }

    fn frozen(from: &str, until: &str) -> Freeze {
        Freeze { from: at(from), until: at(until), reason: "sale".into(), override_: None }
    }

    fn calendar(windows: &[Window], freezes: &[Freeze]) -> Calendar {
        Calendar { windows: windows.into(), freezes: freezes.into(), zones: Box::default() }
    }

    #[test]
    fn a_calendar_without_windows_and_freezes_is_open_for_good() {
        assert_eq!(Calendar::default().at(Time(5)), Opening::Open { until: None });
    }

    #[test]
    fn a_window_is_open_from_its_beginning_until_before_its_end() {
        let calendar = calendar(&[office()], &[]);
        // A Wednesday in summer.
        let until = Some(at("2026-07-15T15:00:00.000Z"));
        assert_eq!(calendar.at(at("2026-07-15T07:00:00.000Z")), Opening::Open { until });
        let until = Some(at("2026-07-16T07:00:00.000Z"));
        let closed = Opening::Closed { until, by: Reason::Window };
        assert_eq!(calendar.at(at("2026-07-15T15:00:00.000Z")), closed);
    }

    #[test]
    fn a_weekend_ends_with_the_next_window() {
        let calendar = calendar(&[office()], &[]);
        let until = Some(at("2026-07-20T07:00:00.000Z"));
        let closed = Opening::Closed { until, by: Reason::Window };
        assert_eq!(calendar.at(at("2026-07-18T12:00:00.000Z")), closed);
    }

    #[test]
    fn windows_that_touch_are_one() {
        let rest = Window { from: Minute::at(17, 0), until: Minute::at(20, 0), ..office() };
        let calendar = calendar(&[rest, office()], &[]);
        let until = Some(at("2026-07-15T18:00:00.000Z"));
        assert_eq!(calendar.at(at("2026-07-15T12:00:00.000Z")), Opening::Open { until });
    }

    #[test]
    fn a_window_that_never_closes_is_open_whenever_one_looks() {
        let always = Window { days: Days::ALL, from: Minute(0), until: Minute::MAX, ..office() };
        let calendar = calendar(&[always], &[]);
        let mut now = at("2026-03-20T00:00:00.000Z");
        for _ in 0..4 {
            let Opening::Open { until: Some(until) } = calendar.at(now) else { panic!("closed at {now}") };
            assert!(until > now);
            now = until;
        }
    }

    #[test]
    fn a_freeze_closes_an_open_window_and_ends_with_the_next_one() {
        let freeze = frozen("2026-07-15T10:00:00.000Z", "2026-07-17T20:00:00.000Z");
        let calendar = calendar(&[office()], &[freeze]);
        let until = Some(at("2026-07-15T10:00:00.000Z"));
        assert_eq!(calendar.at(at("2026-07-15T08:00:00.000Z")), Opening::Open { until });
        // Friday evening: the next window is on Monday.
        let until = Some(at("2026-07-20T07:00:00.000Z"));
        let closed = Opening::Closed { until, by: Reason::Freeze };
        assert_eq!(calendar.at(at("2026-07-15T10:00:00.000Z")), closed);
    }

    #[test]
    fn freezes_that_touch_are_one_and_a_closed_window_looks_past_them() {
        let first = frozen("2026-07-16T00:00:00.000Z", "2026-07-17T00:00:00.000Z");
        let second = frozen("2026-07-17T00:00:00.000Z", "2026-07-18T00:00:00.000Z");
        let without = calendar(&[], &[second.clone(), first.clone()]);
        let until = Some(at("2026-07-18T00:00:00.000Z"));
        let closed = Opening::Closed { until, by: Reason::Freeze };
        assert_eq!(without.at(at("2026-07-16T05:00:00.000Z")), closed);
        let with = calendar(&[office()], &[first, second]);
        let closed = Opening::Closed { until: Some(at("2026-07-20T07:00:00.000Z")), by: Reason::Window };
        assert_eq!(with.at(at("2026-07-15T20:00:00.000Z")), closed, "Thursday and Friday are frozen");
    }

    #[test]
    fn a_freeze_without_end_closes_for_good() {
        let forever =
            Freeze { until: Time::NEVER, ..frozen("2026-07-16T00:00:00.000Z", "2026-07-17T00:00:00.000Z") };
        let closed = Opening::Closed { until: None, by: Reason::Freeze };
        assert_eq!(calendar(&[office()], &[forever]).at(at("2026-08-16T00:00:00.000Z")), closed);
    }

    #[test]
    fn a_window_in_an_unknown_zone_is_closed_for_good() {
        let nowhere = Window { zone: "Europe/Atlantis".into(), ..office() };
        let closed = Opening::Closed { until: None, by: Reason::Window };
        assert_eq!(calendar(&[nowhere], &[]).at(at("2026-07-15T12:00:00.000Z")), closed);
    }

    #[test]
    fn a_calendar_of_some_domains_leaves_the_others_alone() {
        let calendar = Calendar { zones: [Box::<str>::from("eu")].into(), ..Calendar::default() };
        assert!(calendar.holds_for(Some("eu")) && !calendar.holds_for(Some("us")));
        assert!(calendar.holds_for(None), "some of a mixed wave may be there");
        assert!(Calendar::default().holds_for(None));
    }

    #[test]
    fn what_is_said_holds_until_the_time_that_is_said() {
        let night = Window { from: Minute::at(22, 30), until: Minute::at(3, 30), ..office() };
        let freeze = frozen("2026-10-24T05:00:00.000Z", "2026-10-26T01:00:00.000Z");
        let calendar = calendar(&[office(), night], &[freeze]);
        let (mut now, end) = (at("2026-10-20T00:00:00.000Z"), at("2026-11-03T00:00:00.000Z"));
        while now < end {
            let said = calendar.at(now);
            let until = said.until().unwrap();
            assert!(until > now, "{now}");
            let mut step = Time(now.0 + 15 * 60_000);
            while step < until {
                assert_eq!(calendar.at(step).is_open(), said.is_open(), "{step} in {now} to {until}");
                step = Time(step.0 + 15 * 60_000);
            }
            assert_ne!(calendar.at(until).is_open(), said.is_open(), "{until}");
            now = until;
        }
    }
}
