//! `rollout.window`: a maintenance window.

use opamp_fleet::rollout::windows::{self, Days, Minute};
use serde::Deserialize;

use crate::input::InputError;

/// A span of some days, in the time of a place.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// IANA name of the place's time zone.
    pub zone: Box<str>,
    /// Days on which it begins: `mon-fri`, `sat,sun`, `all`. Default all.
    pub days: Option<String>,
    /// When it begins, such as `09:00`.
    pub from: String,
    /// When it ends; on the next day if that is not after `from`.
    pub until: String,
}

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Window {
    pub(super) fn window(&self) -> Result<windows::Window, InputError> {
        let bad =
            |text: &str, what: &str| InputError::value("rollout.window", format!("{text} is no {what}"));
        let days = self.days.as_deref().unwrap_or("all");
        Ok(windows::Window {
            zone: self.zone.clone(),
            days: read_days(days).ok_or_else(|| bad(days, "list of days such as mon-fri"))?,
            from: minute(&self.from).ok_or_else(|| bad(&self.from, "time of day such as 09:00"))?,
            until: minute(&self.until).ok_or_else(|| bad(&self.until, "time of day such as 17:00"))?,
        })
    }
}

fn read_days(text: &str) -> Option<Days> {
    if text == "all" {
        return Some(Days::ALL);
    }
    let day = |name: &str| NAMES.iter().position(|known| *known == name);
    let mut bits = 0;
    for part in text.split(',') {
        let (from, until) = part.split_once('-').unwrap_or((part, part));
        let (from, until) = (day(from.trim())?, day(until.trim())?);
        let length = (until + NAMES.len() - from) % NAMES.len();
        (0..=length).for_each(|after| bits |= 1 << ((from + after) % NAMES.len()));
    }
    Some(Days(bits))
}

fn minute(text: &str) -> Option<Minute> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= 1_440).then_some(Minute(minute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_listed_or_span_a_week() {
        assert_eq!(read_days("mon-fri"), Some(Days::WEEKDAYS));
        assert_eq!(read_days("all"), Some(Days::ALL));
        assert_eq!(read_days("sat, sun"), Some(Days(0b110_0000)));
        assert_eq!(read_days("sun-mon"), Some(Days(0b100_0001)));
        assert_eq!(read_days("mon-sun"), Some(Days::ALL));
        assert_eq!(["", "monday", "mon-", "mon;tue"].map(read_days), [None; 4]);
    }

    #[test]
    fn times_of_day_have_four_digits() {
        assert_eq!(minute("09:30"), Some(Minute(570)));
        assert_eq!(minute("24:00"), Some(Minute(1_440)));
        assert_eq!(["9:30", "24:01", "09:60", "0930", "+1:00", "ab:cd"].map(minute), [None; 6]);
    }
}
