//! Every order of events in a small scope: the real engine and coordinator, breadth first.
//!
//! A few agents in waves of their own, one gate of each kind of test but bounds, and whatever agents, operators and time can
//! do next, in each state that can be reached. How often operators interfere, agents go away, or say something when nothing is
//! expected of them any more, is bounded for each scope and printed with it; what they say of the offer in flight is not.
//! Two states are the same if they will do the same ([`Engine::canonical`]), which is tried for some of them; time goes from
//! deadline to deadline, since nothing else compares times. In each step and in each state the rules of [`rules`] are
//! checked, and at the end that from each state an end of the rollout can be reached.
//!
//! [`Engine::canonical`]: opamp_fleet::rollout::Engine::canonical

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod rules;
mod scope;
mod search;
#[path = "../rollout/support.rs"]
mod support;

use scope::{Bounds, Profile, Scope};
use search::search;

/// Runs one scope to its end and prints its size.
fn closes(scope: Scope) {
    let found = search(&scope);
    println!("exhaustive: {scope:?}: {found}");
}

fn scope(agents: u32, profile: Profile, bounds: Bounds, states_max: usize) -> Scope {
    Scope { agents, profile, holds: false, removals: true, leavers: false, bounds, states_max }
}

#[test]
fn whatever_happens_to_two_agents_that_report_everything_the_rules_hold() {
    closes(scope(2, Profile::Open, Bounds::of(1, 0, 0), 30_000));
}

#[test]
fn whatever_happens_to_two_agents_that_report_nothing_the_rules_hold() {
    closes(scope(2, Profile::Mute, Bounds::of(1, 1, 1), 10_000));
}

#[test]
#[ignore = "minutes in a debug build: run in release, `cargo xtask sim --exhaustive`"]
fn whatever_happens_to_two_agents_of_which_one_goes_away_or_says_something_late_the_rules_hold() {
    for bounds in [Bounds::of(1, 1, 0), Bounds::of(1, 0, 1), Bounds::of(0, 1, 1)] {
        closes(scope(2, Profile::Open, bounds, 2_000_000));
    }
}

#[test]
#[ignore = "minutes in a debug build: run in release, `cargo xtask sim --exhaustive`"]
fn whatever_is_ordered_after_another_order_the_rules_hold() {
    for holds in [false, true] {
        closes(Scope { holds, ..scope(2, Profile::Open, Bounds::of(2, 0, 0), 2_000_000) });
    }
}

#[test]
#[ignore = "minutes in a debug build: run in release, `cargo xtask sim --exhaustive`"]
fn whatever_is_ordered_while_an_agent_leaves_and_goes_back_the_rules_hold() {
    closes(Scope { leavers: true, ..scope(2, Profile::Open, Bounds::of(1, 1, 0), 2_000_000) });
}

#[test]
#[ignore = "minutes in a debug build: run in release, `cargo xtask sim --exhaustive`"]
fn whatever_happens_to_three_agents_the_rules_hold() {
    closes(scope(3, Profile::Open, Bounds::of(1, 0, 0), 1_000_000));
    closes(scope(3, Profile::Open, Bounds::of(0, 0, 1), 1_000_000));
}

#[test]
#[ignore = "minutes in a debug build: run in release, `cargo xtask sim --exhaustive`"]
fn whatever_happens_to_four_agents_that_report_everything_the_rules_hold() {
    closes(scope(4, Profile::Open, Bounds::of(0, 0, 0), 1_000_000));
}

#[test]
#[ignore = "minutes in a debug build: run in release, `cargo xtask sim --exhaustive`"]
fn whatever_happens_to_four_agents_that_report_nothing_the_rules_hold() {
    for bounds in [Bounds::of(2, 1, 1), Bounds::of(1, 2, 1)] {
        closes(scope(4, Profile::Mute, bounds, 1_000_000));
    }
}
