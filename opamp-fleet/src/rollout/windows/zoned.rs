//! Windows in the time of a place, over changes of its clocks.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::rollout::Time;

/// Days that are looked at after a time: the longest a window with at least one day can stay closed, with room for one
/// of its days having no such hour.
const DAYS_AHEAD: usize = 16;

/// Days that are looked at before a time: a window over midnight may have begun the day before, and the time of a place
/// may be a day ahead.
const DAYS_BACK: usize = 2;

/// A span of each of some days, in the time of a place. One that begins in an hour that clocks leave out begins after it,
/// and one that lies wholly in such an hour does not open on that day; an hour that comes twice belongs to the window
/// from its first beginning to its second end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// IANA name of the place's time zone, such as `Europe/Berlin`.
    pub zone: Box<str>,
    /// The days on which it begins.
    pub days: Days,
    /// When it begins.
    pub from: Minute,
    /// When it ends; on the next day if that is not after `from`.
    pub until: Minute,
}

/// Days of the week, one bit each, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(pub u8);

impl Days {
    /// All seven.
    pub const ALL: Self = Self(0x7f);
    /// Monday to Friday.
    pub const WEEKDAYS: Self = Self(0x1f);

    /// Whether a day is one of them; `day` counts from 0 for Monday.
    #[must_use]
    pub const fn contains(self, day: u8) -> bool {
        day < 7 && self.0 >> day & 1 == 1
    }
}

/// A minute of the day, from 0 to 1,440.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(pub u16);

impl Minute {
    /// The end of the day.
    pub const MAX: Self = Self(24 * 60);

    /// The minute of a time of day.
    #[must_use]
    pub const fn at(hour: u8, minute: u8) -> Self {
        Self(hour as u16 * 60 + minute as u16)
    }
}

/// A span of time: from its first point until before its second.
pub(super) type Span = (Time, Time);

impl Window {
    /// Whether its time zone is known and it opens at all.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let days = self.days.0 != 0 && self.days.0 <= Days::ALL.0;
        days && self.from < Minute::MAX && self.until <= Minute::MAX
    }

    /// Whether the name of its time zone is known.
    #[must_use]
    pub fn has_known_zone(&self) -> bool {
        time_zone(&self.zone).is_some()
    }

    /// When it is open from some days before `around` to [`DAYS_AHEAD`] after it, ascending. Nothing if its time zone is
    /// not known, so that it never opens.
    pub(super) fn spans(&self, around: Time) -> Vec<Span> {
        let (Some(zone), Some(around)) = (time_zone(&self.zone), timestamp(around)) else {
            return Vec::new();
        };
        let mut date = zone.to_datetime(around).date();
        for _ in 0..DAYS_BACK {
            date = date.yesterday().unwrap_or(date);
        }
        let mut spans = Vec::new();
        for _ in 0..=DAYS_BACK + DAYS_AHEAD {
            if self.days.contains(weekday(date)) {
                spans.extend(self.span_on(&zone, date));
            }
            match date.tomorrow() {
                Ok(next) => date = next,
                Err(_) => break,
            }
        }
        spans
    }

    /// When it is open that begins on this date.
    fn span_on(&self, zone: &TimeZone, date: Date) -> Option<Span> {
        let begin = begin(zone, minute_of(date, self.from)?)?;
        let last = if self.until > self.from { date } else { date.tomorrow().ok()? };
        let end = end(zone, minute_of(last, self.until)?)?;
        (begin < end).then_some((begin, end))
    }
}

/// The database is the one in the binary: no file and no variable of the environment has a say.
fn time_zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok().filter(|zone| !zone.is_unknown())
}

fn timestamp(time: Time) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(time.0).ok()?).ok()
}

fn time(timestamp: Timestamp) -> Option<Time> {
    u64::try_from(timestamp.as_millisecond()).ok().map(Time)
}

/// From 0 for Monday.
fn weekday(date: Date) -> u8 {
    date.weekday().to_monday_zero_offset().unsigned_abs()
}

/// A minute of a date; the last one is the first of the next date.
fn minute_of(date: Date, minute: Minute) -> Option<DateTime> {
    let date = if minute >= Minute::MAX { date.tomorrow().ok()? } else { date };
    let minute = i8::try_from(minute.0 % 60).ok().zip(i8::try_from(minute.0 / 60 % 24).ok());
    minute.map(|(minute, hour)| date.at(hour, minute, 0, 0))
}

/// The first time at which clocks show it, or the moment at which they skip it.
fn begin(zone: &TimeZone, clock: DateTime) -> Option<Time> {
    let found = zone.to_ambiguous_timestamp(clock);
    match found.offset() {
        AmbiguousOffset::Gap { .. } => skip(zone, clock),
        AmbiguousOffset::Fold { .. } | AmbiguousOffset::Unambiguous { .. } => time(found.earlier().ok()?),
    }
}

/// The last time at which clocks show it, or the moment at which they skip it.
fn end(zone: &TimeZone, clock: DateTime) -> Option<Time> {
    let found = zone.to_ambiguous_timestamp(clock);
    match found.offset() {
        AmbiguousOffset::Gap { .. } => skip(zone, clock),
        AmbiguousOffset::Fold { .. } | AmbiguousOffset::Unambiguous { .. } => time(found.later().ok()?),
    }
}

/// The moment at which clocks go forward over a time that they never show: the first change after what would be that
/// time by the clocks of afterwards.
fn skip(zone: &TimeZone, clock: DateTime) -> Option<Time> {
    let before = zone.to_ambiguous_timestamp(clock).earlier().ok()?;
    let change = zone.following(before).next()?.timestamp();
    time(change)
}

#[cfg(test)]
mod tests {
    use opamp_proto::Wall;

    use super::*;

    fn at(text: &str) -> Time {
        text.parse::<Wall>().unwrap().into()
    }

    fn window(zone: &str, days: Days, from: (u8, u8), until: (u8, u8)) -> Window {
        let [from, until] = [from, until].map(|(hour, minute)| Minute::at(hour, minute));
        Window { zone: zone.into(), days, from, until }
    }

    /// Those spans that begin on the day of `around` in UTC or the day before or after.
    fn near(window: &Window, around: &str) -> Vec<(String, String)> {
        let around = at(around);
        let day = 24 * 3_600_000;
        let is_near = |span: &Span| span.0.0.abs_diff(around.0) < day;
        window
            .spans(around)
            .into_iter()
            .filter(is_near)
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect()
    }

    fn pair(begin: &str, end: &str) -> (String, String) {
        (begin.to_owned(), end.to_owned())
    }

    #[test]
    fn a_window_follows_the_clocks_of_its_place() {
        let office = window("Europe/Berlin", Days::ALL, (9, 0), (17, 0));
        let winter = pair("2026-01-15T08:00:00.000Z", "2026-01-15T16:00:00.000Z");
        let summer = pair("2026-07-15T07:00:00.000Z", "2026-07-15T15:00:00.000Z");
        assert!(near(&office, "2026-01-15T12:00:00.000Z").contains(&winter));
        assert!(near(&office, "2026-07-15T12:00:00.000Z").contains(&summer));
    }

    #[test]
    fn a_window_that_begins_in_a_skipped_hour_begins_after_it() {
        // 2026-03-29, 02:00 becomes 03:00 at 01:00 UTC.
        let night = window("Europe/Berlin", Days::ALL, (2, 30), (4, 0));
        let short = pair("2026-03-29T01:00:00.000Z", "2026-03-29T02:00:00.000Z");
        assert!(near(&night, "2026-03-29T01:00:00.000Z").contains(&short));
        // 2026-03-08, 02:00 becomes 03:00 at 07:00 UTC.
        let night = window("America/New_York", Days::ALL, (2, 15), (5, 0));
        let short = pair("2026-03-08T07:00:00.000Z", "2026-03-08T09:00:00.000Z");
        assert!(near(&night, "2026-03-08T07:00:00.000Z").contains(&short));
    }

    #[test]
    fn a_window_that_ends_in_a_skipped_hour_ends_before_it() {
        let night = window("Europe/Berlin", Days::ALL, (1, 0), (2, 30));
        let short = pair("2026-03-29T00:00:00.000Z", "2026-03-29T01:00:00.000Z");
        assert!(near(&night, "2026-03-29T00:00:00.000Z").contains(&short));
    }

    #[test]
    fn a_window_wholly_in_a_skipped_hour_does_not_open_that_day() {
        let night = window("Europe/Berlin", Days::ALL, (2, 10), (2, 50));
        let spans = near(&night, "2026-03-29T01:00:00.000Z");
        assert!(spans.iter().all(|(begin, _)| !begin.starts_with("2026-03-29")), "{spans:?}");
        assert!(spans.iter().any(|(begin, _)| begin.starts_with("2026-03-28")), "{spans:?}");
    }

    #[test]
    fn an_hour_that_comes_twice_belongs_to_the_window_twice() {
        // 2026-10-25, 03:00 becomes 02:00 at 01:00 UTC.
        let night = window("Europe/Berlin", Days::ALL, (2, 30), (2, 45));
        let long = pair("2026-10-25T00:30:00.000Z", "2026-10-25T01:45:00.000Z");
        assert!(near(&night, "2026-10-25T00:30:00.000Z").contains(&long));
        // 2026-11-01, 02:00 becomes 01:00 at 06:00 UTC.
        let night = window("America/New_York", Days::ALL, (1, 0), (2, 0));
        let long = pair("2026-11-01T05:00:00.000Z", "2026-11-01T07:00:00.000Z");
        assert!(near(&night, "2026-11-01T05:00:00.000Z").contains(&long));
    }

    #[test]
    fn a_window_whose_end_is_not_after_its_beginning_ends_the_next_day() {
        // 2026-07-17 is a Friday.
        let night = window("UTC", Days(1 << 4), (22, 0), (6, 0));
        let friday = pair("2026-07-17T22:00:00.000Z", "2026-07-18T06:00:00.000Z");
        assert_eq!(near(&night, "2026-07-18T02:00:00.000Z"), [friday]);
        let whole = window("UTC", Days(1 << 4), (9, 0), (9, 0));
        let day = pair("2026-07-17T09:00:00.000Z", "2026-07-18T09:00:00.000Z");
        assert_eq!(near(&whole, "2026-07-17T12:00:00.000Z"), [day]);
    }

    #[test]
    fn a_window_until_the_end_of_the_day_ends_at_midnight() {
        let evening = window("UTC", Days(1), (18, 0), (24, 0));
        let monday = pair("2026-07-13T18:00:00.000Z", "2026-07-14T00:00:00.000Z");
        assert_eq!(near(&evening, "2026-07-13T20:00:00.000Z"), [monday]);
    }

    #[test]
    fn a_window_in_an_unknown_zone_never_opens() {
        for name in ["Europe/Atlantis", "", "Etc/Unknown"] {
            let window = window(name, Days::ALL, (0, 0), (24, 0));
            assert!(!window.has_known_zone(), "{name}");
            assert!(window.spans(at("2026-07-13T20:00:00.000Z")).is_empty());
        }
    }

    #[test]
    fn a_window_opens_on_its_days_by_its_own_calendar() {
        // Monday 09:00 in Auckland is Sunday in UTC.
        let monday = window("Pacific/Auckland", Days(1), (9, 0), (10, 0));
        let spans = monday.spans(at("2026-07-15T00:00:00.000Z"));
        assert!(spans.contains(&(at("2026-07-19T21:00:00.000Z"), at("2026-07-19T22:00:00.000Z"))));
        assert!(spans.is_sorted());
    }

    #[test]
    fn a_window_needs_a_day_and_a_beginning_within_the_day() {
        let sound = window("UTC", Days::WEEKDAYS, (9, 0), (17, 0));
        assert!(sound.is_sound());
        assert!(!Window { days: Days(0), ..sound.clone() }.is_sound());
        assert!(!Window { days: Days(0x80), ..sound.clone() }.is_sound());
        assert!(!Window { from: Minute::MAX, ..sound.clone() }.is_sound());
        assert!(!Window { until: Minute(1_441), ..sound }.is_sound());
    }
}
