//! Back-off: its bounds as properties, and what it does to a server that loses its whole fleet at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use opamp_client::retry::{Backoff, Pace, RetrySettings};
use opamp_client::session::{EndpointInfo, Input, Outbox, Output, Session, Setup};
use opamp_client::{Description, Failure, FailureKind, InstanceUid, Mono, Now, SavedState, Transport, Wall};
use proptest::prelude::*;

const FLEET: usize = 10_000;
const PACES: [Pace; 3] = [Pace::Slow, Pace::Throttled, Pace::Usual];

fn pace() -> impl Strategy<Value = Pace> {
    prop_oneof![Just(Pace::Slow), Just(Pace::Throttled), Just(Pace::Usual)]
}

/// The bound before jitter of the attempt after so many failures.
fn bound(settings: &RetrySettings, pace: Pace, attempts: i32) -> Duration {
    let grown = |initial: Duration, max: Duration| {
        let seconds = initial.as_secs_f64() * settings.multiplier.powi(attempts);
        max.min(Duration::from_secs_f64(seconds.min(1e9)))
    };
    match pace {
        Pace::Usual if attempts == 0 => settings.first,
        Pace::Usual => grown(settings.initial, settings.max),
        Pace::Slow => grown(settings.slow_initial, settings.slow_max),
        Pace::Throttled => settings.throttled_min + grown(settings.throttled_min / 2, settings.slow_max),
    }
}

proptest! {
    #[test]
    fn every_wait_is_within_its_bound(seed: u64, paces in proptest::collection::vec(pace(), 1..80)) {
        let settings = RetrySettings::default();
        let mut backoff = Backoff::new(settings.clone(), seed);
        for (attempts, pace) in (0..).zip(paces) {
            let wait = backoff.failed(pace, None, Mono(0));
            prop_assert!(wait <= bound(&settings, pace, attempts), "{wait:?} after {attempts}");
            let least = if pace == Pace::Throttled { settings.throttled_min } else { Duration::ZERO };
            prop_assert!(wait >= least);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_another_seed_others(seed: u64, other: u64) {
        prop_assume!(seed != other);
        let waits = |seed| {
            let mut backoff = Backoff::new(RetrySettings::default(), seed);
            (0..20).map(|_| backoff.failed(Pace::Usual, None, Mono(0))).collect::<Vec<_>>()
        };
        prop_assert_eq!(waits(seed), waits(seed));
        prop_assert_ne!(waits(seed), waits(other));
    }

    #[test]
    fn what_the_server_asks_for_is_obeyed_to_the_second(seed: u64, asked_ms in 1_000..86_400_000_u64, failures in 0..30) {
        let mut backoff = Backoff::new(RetrySettings::default(), seed);
        for _ in 0..failures {
            backoff.failed(Pace::Usual, None, Mono(0));
        }
        let asked = Duration::from_millis(asked_ms);
        let wait = backoff.failed(Pace::Throttled, Some(asked), Mono(0));
        prop_assert!(wait >= asked && wait <= asked + Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn only_a_stable_connection_starts_the_count_anew(seed: u64, lasted_ms in 0..200_000_u64) {
        let mut backoff = Backoff::new(RetrySettings::default(), seed);
        for _ in 0..10 {
            backoff.failed(Pace::Usual, None, Mono(0));
        }
        backoff.connected(Mono(1_000));
        backoff.failed(Pace::Usual, None, Mono(1_000 + lasted_ms));
        prop_assert_eq!(backoff.attempts(), if lasted_ms >= 60_000 { 1 } else { 11 });
    }

    #[test]
    fn odd_settings_neither_panic_nor_wait_for_ever(
        seed: u64,
        multiplier in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(0.0), 1.0..1e6],
        initial_ms: u64,
        max_ms: u64,
    ) {
        let settings = RetrySettings {
            initial: Duration::from_millis(initial_ms),
            max: Duration::from_millis(max_ms),
            multiplier,
            ..RetrySettings::default()
        };
        let mut backoff = Backoff::new(settings.clone(), seed);
        for _ in 0..50 {
            let wait = backoff.failed(Pace::Usual, None, Mono(0));
            prop_assert!(wait <= settings.max.max(settings.first).max(Duration::from_millis(100)));
        }
    }
}

#[test]
fn without_any_pause_in_the_settings_attempts_are_still_no_flood() {
    let none = Duration::ZERO;
    let settings = RetrySettings {
        first: none,
        initial: none,
        max: none,
        slow_initial: none,
        slow_max: none,
        throttled_min: none,
        ..RetrySettings::default()
    };
    for pace in PACES {
        let mut backoff = Backoff::new(settings.clone(), 1);
        let waits: Duration = (0..1_000).map(|_| backoff.failed(pace, None, Mono(0))).sum();
        assert!(waits > Duration::from_secs(40), "{pace:?}: {waits:?} for 1,000 attempts");
    }
}

#[test]
fn jitter_is_full_and_applied_after_the_maximum() {
    for pace in PACES {
        let (mut low, mut high, mut at_the_end) = (0, 0, 0);
        for seed in 0..2_000 {
            let mut backoff = Backoff::new(RetrySettings::default(), seed);
            let wait = (0..40).map(|_| backoff.failed(pace, None, Mono(0))).last().unwrap();
            let settings = RetrySettings::default();
            let least = if pace == Pace::Throttled { settings.throttled_min } else { Duration::ZERO };
            let most = bound(&settings, pace, 40);
            let share = (wait - least).as_secs_f64() / (most - least).as_secs_f64();
            low += u32::from(share < 0.1);
            high += u32::from(share > 0.9);
            at_the_end += u32::from(share > 0.999);
        }
        assert!((120..280).contains(&low) && (120..280).contains(&high), "{pace:?}: {low} {high}");
        assert!(at_the_end < 20, "{pace:?}: {at_the_end} waits at the maximum itself");
    }
}

/// Agents on a virtual clock in front of a server that answers each attempt the same way.
struct Fleet {
    sessions: Vec<Session>,
    out: Outbox,
    /// Deadlines, earliest first; stale ones are passed over.
    due: BinaryHeap<Reverse<(Mono, usize)>>,
    /// When each agent tried to connect.
    attempts: Vec<(Mono, usize)>,
}

impl Fleet {
    /// Everybody is connected and has been for a while.
    fn connected() -> Self {
        let endpoint = || EndpointInfo::new("ws://server", Transport::WebSocket);
        let session = |number: usize| {
            let saved = SavedState::new(InstanceUid::v7(number as u64, [1; 10]));
            let setup = Setup::new(endpoint(), Description::new("agent"), saved, number as u64 * 7_919);
            let mut session = Session::new(setup);
            let mut out = Outbox::new();
            for input in [Input::Start, Input::Connected, Input::Written, Input::Received(&[0])] {
                session.handle(input, at(Mono(0)), &mut out).unwrap();
            }
            session
        };
        let sessions = (0..FLEET).map(session).collect();
        Self { sessions, out: Outbox::new(), due: BinaryHeap::new(), attempts: Vec::new() }
    }

    /// Tells one agent that something failed.
    fn fail(&mut self, agent: usize, failure: &Failure, now: Mono) {
        self.tell(agent, Input::Failed(failure.clone()), now);
    }

    fn tell(&mut self, agent: usize, input: Input<'_>, now: Mono) {
        self.sessions[agent].handle(input, at(now), &mut self.out).unwrap();
        while let Some(output) = self.out.take() {
            if let Output::Connect { .. } = output {
                self.attempts.push((now, agent));
            }
        }
        if let Some(deadline) = self.sessions[agent].deadline() {
            self.due.push(Reverse((deadline, agent)));
        }
    }

    /// Lets time pass; every attempt ends in this failure at once.
    fn run(&mut self, until: Mono, failure: &Failure) {
        while let Some(Reverse((now, agent))) = self.due.pop().filter(|Reverse((at, _))| *at <= until) {
            if self.sessions[agent].deadline() != Some(now) {
                continue;
            }
            let before = self.attempts.len();
            self.tell(agent, Input::Tick, now);
            if self.attempts.len() > before {
                self.fail(agent, failure, now);
            }
        }
    }

    /// How many attempts fall into the fullest window of a length, from a time on; as a share of the fleet.
    fn fullest(&self, from: Mono, window: Duration) -> f64 {
        let mut counts = std::collections::BTreeMap::new();
        let width = window.as_millis() as u64;
        for (at, _) in self.attempts.iter().filter(|(at, _)| *at >= from) {
            *counts.entry(at.0 / width).or_insert(0_u32) += 1;
        }
        f64::from(counts.into_values().max().unwrap_or(0)) / FLEET as f64
    }
}

fn at(mono: Mono) -> Now {
    Now { mono, wall: Wall(1_700_000_000_000 + mono.0) }
}

#[test]
fn a_fleet_that_loses_its_server_at_once_comes_back_spread_out() {
    let mut fleet = Fleet::connected();
    let lost = Mono(100_000);
    let closed = Failure::new(FailureKind::Closed, "gone");
    for agent in 0..FLEET {
        fleet.fail(agent, &closed, lost);
    }
    fleet.run(lost + Duration::from_secs(600), &Failure::new(FailureKind::Refused, "refused"));

    let mut first: Vec<Option<Mono>> = vec![None; FLEET];
    for (at, agent) in &fleet.attempts {
        first[*agent].get_or_insert(*at);
    }
    let mut tenths = [0_u32; 10];
    for at in first.iter().map(|at| at.expect("everybody tries")) {
        let ms = (at - lost).as_millis() as usize;
        assert!(ms <= 1_000, "within the first second");
        tenths[(ms / 100).min(9)] += 1;
    }
    assert!(tenths.iter().all(|count| (800..=1_200).contains(count)), "evenly within it: {tenths:?}");

    let second = Duration::from_secs(1);
    assert!(fleet.fullest(lost, second) <= 1.9, "{}", fleet.fullest(lost, second));
    // In the end an agent tries every 30 s on average, which makes 0.033 of the fleet per second.
    for (after, share) in [(1, 1.0), (5, 0.42), (20, 0.14), (60, 0.05), (300, 0.045)] {
        let fullest = fleet.fullest(lost + Duration::from_secs(after), second);
        assert!(
            fullest <= share,
            "no second after {after} s may hold more than {share}, one holds {fullest}"
        );
    }
}

#[test]
fn a_fleet_told_to_wait_comes_back_after_that_time_and_spread_out() {
    let mut fleet = Fleet::connected();
    let lost = Mono(100_000);
    let overload = Failure::from_status(503, Some(Duration::from_secs(30)));
    for agent in 0..FLEET {
        fleet.fail(agent, &overload, lost);
    }
    fleet.run(lost + Duration::from_secs(32), &Failure::new(FailureKind::Refused, "refused"));
    let first = fleet.attempts.iter().map(|(at, _)| *at - lost).min().unwrap();
    assert!(first >= Duration::from_secs(30), "{first:?}");
    let due = fleet.attempts.iter().filter(|(at, _)| *at - lost <= Duration::from_secs(31)).count();
    assert!(due >= FLEET, "everybody within a second of it");
    let fullest = fleet.fullest(Mono(0), Duration::from_millis(100));
    assert!(fullest <= 0.2, "no tenth of a second may hold more than a fifth, one holds {fullest}");
}
