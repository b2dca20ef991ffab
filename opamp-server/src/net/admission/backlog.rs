//! When those who are sent away should come back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opamp_proto::Mono;

use super::super::settings::ServerSettings;

/// How many peers were sent away for want of room and have not been let in since, by the pace at which they can be.
///
/// Each peer that is sent away so adds one, and [`ServerSettings::accept_rate`] of them per second are taken to have come back. So
/// the first are told to come soon and the last when the others are through, instead of all at the same time.
#[derive(Debug)]
pub(crate) struct Backlog {
    rate: u32,
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In thousandths of a peer.
    away: u64,
    at: Mono,
}

impl Backlog {
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        let longest = settings.retry_after_max.max(settings.retry_after);
        Self { rate: settings.accept_rate, longest, state: Mutex::default() }
    }

    /// Takes note of a peer that is sent away while `waiting` others wait to be let in: after how long there is room for it, at
    /// least `least`, and at most [`ServerSettings::retry_after_max`] unless `least` is longer.
    pub(crate) fn send_away(&self, waiting: u64, least: Duration, now: Mono) -> Duration {
        let Some(rate) = Some(u64::from(self.rate)).filter(|rate| *rate > 0) else { return least };
        let longest_ms = u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_ms = u64::try_from((now - state.at).as_millis()).unwrap_or(u64::MAX);
        let back = passed_ms.saturating_mul(rate);
        // What is told is capped, so more than that need not be remembered.
        let away = state.away.saturating_sub(back).min(longest_ms.saturating_mul(rate));
        state.away = away + 1_000;
        state.at = state.at.max(now);
        let before = away.saturating_add(waiting.saturating_mul(1_000));
        Duration::from_millis(before / rate).clamp(least, self.longest.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(15);

    fn backlog(accept_rate: u32) -> Backlog {
        Backlog::new(&ServerSettings { accept_rate, ..ServerSettings::default() })
    }

    #[test]
    fn a_few_are_told_the_least_and_a_fleet_is_spread_over_the_time_it_needs() {
        let backlog = backlog(2_000);
        assert!((0..1_000).all(|_| backlog.send_away(0, LEAST, Mono(0)) == LEAST));
        let told: Vec<Duration> = (0..99_000).map(|_| backlog.send_away(0, LEAST, Mono(0))).collect();
        assert!(told.is_sorted());
        assert_eq!(told.last().unwrap().as_millis(), 99_999 / 2);
        let within = |second: u64| told.iter().filter(|wait| wait.as_secs() == second).count();
        assert!((20..49).all(|second| within(second) == 2_000), "no second has more than can be let in");
    }

    #[test]
    fn what_was_sent_away_counts_until_it_had_the_time_to_come_back() {
        let backlog = backlog(100);
        (0..6_000).for_each(|_| _ = backlog.send_away(0, LEAST, Mono(0)));
        assert_eq!(backlog.send_away(0, LEAST, Mono(0)).as_secs(), 60);
        assert_eq!(backlog.send_away(0, LEAST, Mono(30_000)).as_secs(), 30);
        assert_eq!(backlog.send_away(0, LEAST, Mono(90_000)), LEAST);
    }

    #[test]
    fn those_who_wait_to_be_let_in_go_before() {
        assert_eq!(backlog(100).send_away(4_096, LEAST, Mono(0)).as_millis(), 40_960);
    }

    #[test]
    fn no_wait_is_longer_than_the_longest_unless_the_least_is() {
        let backlog = backlog(1);
        (0..100_000).for_each(|_| _ = backlog.send_away(0, LEAST, Mono(0)));
        assert_eq!(backlog.send_away(0, LEAST, Mono(0)).as_secs(), 300);
        assert_eq!(backlog.send_away(0, Duration::from_secs(3_600), Mono(0)).as_secs(), 3_600);
        assert!(
            backlog.send_away(0, LEAST, Mono(200_000)).as_secs() <= 101,
            "nothing beyond it is remembered"
        );
    }

    #[test]
    fn without_a_pace_there_is_no_backlog() {
        let backlog = backlog(0);
        assert!((0..100_000).all(|_| backlog.send_away(5_000, LEAST, Mono(0)) == LEAST));
    }
}
