//! Points in time as plain numbers, handed in by the caller.
//!
//! Nothing in the protocol core reads a clock: `now` is an argument. [`Mono`] measures spans and deadlines, [`Wall`] is
//! what records and people see.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

const MS_PER_DAY: u64 = 86_400_000;
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const DAYS_TO_EPOCH: u64 = 719_468;
const DAYS_PER_ERA: u64 = 146_097;

/// A point of a monotonic clock: milliseconds since an arbitrary origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// A point of the calendar: milliseconds since the Unix epoch, in UTC and without leap seconds. Text is RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now {
    /// For spans and deadlines.
    pub mono: Mono,
    /// For records and people.
    pub wall: Wall,
}

/// The text is not an RFC 3339 time from 1970 on, such as `2026-08-12T09:30:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time from 1970 on, such as 2026-08-12T09:30:00.000Z")]
pub struct TimeError;

/// Later by the span in whole milliseconds; stops at the end of time instead of wrapping.
impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(whole_ms(span)))
    }
}

/// The span since an earlier point; zero if it is in fact later.
impl Sub for Mono {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Wall {
    /// The last point with a four-digit year, 9999-12-31T23:59:59.999Z.
    const LAST_OF_9999: u64 = 253_402_300_799_999;

    /// RFC 3339 text in UTC with milliseconds, such as `2026-08-12T09:30:00.000Z`. RFC 3339 ends with the year 9999, and
    /// so does this: later points read as its last millisecond.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        self.to_string()
    }

    /// The point that RFC 3339 text names, with any offset from UTC; fractions beyond milliseconds are cut off.
    ///
    /// # Errors
    ///
    /// [`TimeError`] for other text, for dates that do not exist, and for points before 1970.
    pub fn from_rfc3339(text: &str) -> Result<Self, TimeError> {
        parse(text.as_bytes()).map(Self).ok_or(TimeError)
    }

    /// The span since an earlier point; zero if it is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Later by the span in whole milliseconds; stops at the end of time instead of wrapping.
impl Add<Duration> for Wall {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(whole_ms(span)))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.min(Self::LAST_OF_9999);
        let (year, month, day) = civil_from_days(ms / MS_PER_DAY);
        let in_day = ms % MS_PER_DAY;
        let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
        let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl FromStr for Wall {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        Self::from_rfc3339(text)
    }
}

#[cfg(feature = "serde")]
crate::serde_impls::as_text!(Wall, "an RFC 3339 time from 1970 on");

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day of a day counted from 1970-01-01: Howard Hinnant's `civil_from_days`, for days of the epoch and
/// later. Years begin in March there, which puts the leap day last.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let era = days / DAYS_PER_ERA;
    let day_of_era = days % DAYS_PER_ERA;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// The inverse, as days since 0000-03-01; `None` for a date that does not exist or lies before that day.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap),
        _ => return None,
    };
    if day == 0 || day > days_in_month {
        return None;
    }
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * DAYS_PER_ERA + day_of_era)
}

fn parse(text: &[u8]) -> Option<u64> {
    let (date, rest) = text.split_at_checked(11)?;
    let (time, rest) = rest.split_at_checked(8)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't' | b' '] = *date else { return None };
    let [h0, h1, b':', i0, i1, b':', s0, s1] = *time else { return None };
    let days = days_from_civil(number(&[y0, y1, y2, y3])?, number(&[m0, m1])?, number(&[d0, d1])?)?;
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[i0, i1])?, number(&[s0, s1])?);
    // A leap second, 60, is the first one of the next minute for a clock without leap seconds.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, offset) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, offset) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
            let digit = |at: usize| fraction.get(at).map_or(0, |digit| u64::from(digit - b'0'));
            (digit(0) * 100 + digit(1) * 10 + digit(2), offset)
        }
        _ => (0, rest),
    };
    let local = days * MS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1_000 + fraction_ms;
    let utc = match *offset {
        [b'Z' | b'z'] => local,
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[h0, h1])?, number(&[m0, m1])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset_ms = (hours * 60 + minutes) * 60_000;
            if sign == b'+' { local.checked_sub(offset_ms)? } else { local + offset_ms }
        }
        _ => return None,
    };
    utc.checked_sub(DAYS_TO_EPOCH * MS_PER_DAY)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Milliseconds since the epoch from `date -u -d <text> +%s%3N`.
    const KNOWN: [(u64, &str); 9] = [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_800_000, "2000-03-01T00:00:00.000Z"),
        (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
        (1_786_527_000_123, "2026-08-12T09:30:00.123Z"),
        (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (Wall::LAST_OF_9999, "9999-12-31T23:59:59.999Z"),
    ];

    #[test]
    fn known_points_are_written_and_read() {
        for (ms, text) in KNOWN {
            assert_eq!(Wall(ms).to_rfc3339(), text);
            assert_eq!(Wall::from_rfc3339(text), Ok(Wall(ms)));
        }
    }

    #[test]
    fn points_after_the_year_9999_read_as_its_end() {
        assert_eq!(Wall(u64::MAX).to_rfc3339(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn offsets_fractions_and_lower_case_are_read() {
        let at = |text| Wall::from_rfc3339(text).map(|wall| wall.0);
        assert_eq!(at("2023-11-14T23:13:20+01:00"), Ok(1_700_000_000_000));
        assert_eq!(at("2023-11-14t16:43:20-05:30"), Ok(1_700_000_000_000));
        assert_eq!(at("2023-11-14 22:13:20z"), Ok(1_700_000_000_000));
        assert_eq!(at("2023-11-14T22:13:20.5Z"), Ok(1_700_000_000_500));
        assert_eq!(at("2023-11-14T22:13:20.123999999Z"), Ok(1_700_000_000_123));
        assert_eq!(at("2016-12-31T23:59:60Z"), Ok(1_483_228_800_000));
        assert_eq!(at("1969-12-31T23:30:00-00:30"), Ok(0));
    }

    #[test]
    fn other_text_is_refused() {
        let bad = [
            "",
            "2023",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20.Z",
            "2023-13-14T22:13:20Z",
            "2023-00-14T22:13:20Z",
            "2023-11-31T22:13:20Z",
            "2023-11-00T22:13:20Z",
            "2023-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2023-11-14T24:13:20Z",
            "2023-11-14T22:60:20Z",
            "2023-11-14T22:13:61Z",
            "2023-11-14T22:13:20+0100",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20ZZ",
            "+023-11-14T22:13:20Z",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "0000-03-01T00:00:00+00:01",
            "1970-01-01T00:00:00+00:01",
            "2023-11-14T22:13:2\u{0}Z",
            "２023-11-14T22:13:20Z",
        ];
        for text in bad {
            assert_eq!(Wall::from_rfc3339(text), Err(TimeError), "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Mono(5) + Duration::from_micros(1_999), Mono(6));
        assert_eq!(Mono(u64::MAX) + Duration::MAX, Mono(u64::MAX));
        assert_eq!(Mono(7) - Mono(4), Duration::from_millis(3));
        assert_eq!(Mono(4) - Mono(7), Duration::ZERO);
        assert_eq!(Wall(7).since(Wall(4)), Duration::from_millis(3));
        assert_eq!(Wall(4).since(Wall(7)), Duration::ZERO);
        assert_eq!(Wall(1) + Duration::from_secs(1), Wall(1_001));
    }

    proptest! {
        #[test]
        fn text_round_trips_and_sorts_like_time(a in 0..=Wall::LAST_OF_9999, b in 0..=Wall::LAST_OF_9999) {
            prop_assert_eq!(Wall::from_rfc3339(&Wall(a).to_rfc3339()), Ok(Wall(a)));
            prop_assert_eq!(Wall(a).to_rfc3339().cmp(&Wall(b).to_rfc3339()), a.cmp(&b));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}", almost in "[0-9TZ:.+\\- ]{19,35}") {
            let _ = Wall::from_rfc3339(&text);
            let _ = Wall::from_rfc3339(&almost);
        }
    }
}
