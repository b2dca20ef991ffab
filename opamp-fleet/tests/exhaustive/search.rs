//! Breadth-first search through all states.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use opamp_fleet::coordinator::Coordinator;
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::{Engine, NextAction, Reason, RolloutState, Scope as Back, Time, Who};

use crate::rules;
use crate::scope::{Bounds, Happens, Scope};
use crate::support::Driver;

/// How large a scope turned out to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    states: usize,
    transitions: usize,
    depth: usize,
    ends: usize,
    compared: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, depth, ends, compared } = self;
        write!(
            f,
            "{states} states, {transitions} transitions, depth {depth}, {ends} ends, {compared} states compared with \
             another way to them, frontier empty"
        )
    }
}

/// A state to go on from.
struct Node {
    number: u32,
    hash: u128,
    depth: usize,
    rollout: Rollout,
    left: Bounds,
    path: Option<Arc<Path>>,
}

/// What of a driver a step changes; the rest is the same everywhere.
#[derive(Clone)]
struct Rollout {
    engine: Engine,
    shared: Coordinator,
    now: Time,
}

impl Rollout {
    fn of(driver: &Driver) -> Self {
        Self { engine: driver.engine.clone(), shared: driver.shared.clone(), now: driver.now }
    }

    /// Puts it into the driver, without anything that was said on the way.
    fn to(&self, driver: &mut Driver) {
        driver.engine.clone_from(&self.engine);
        driver.shared.clone_from(&self.shared);
        driver.now = self.now;
        forget(driver);
    }
}

fn forget(driver: &mut Driver) {
    driver.entries.clear();
    driver.writes.clear();
    driver.acts.clear();
}

/// How a state was reached first.
struct Path {
    before: Option<Arc<Path>>,
    happened: Happens,
    entries: Box<[Entry]>,
}

/// Each state, by the hash of its canonical form, with its number.
#[derive(Default)]
struct Seen {
    numbers: HashMap<u128, u32>,
    /// Pairs of a state and one from which a step leads to it that nobody has to regret.
    sources: Vec<(u32, u32)>,
    /// Ends, and states that wait for orders when no more may come.
    ends: Vec<u32>,
    /// The sum of the states that all steps of a state lead to.
    leads: Vec<u128>,
    /// The hash of each state with the agents told apart, as it was reached first.
    told_apart: Vec<u128>,
}

/// Of so many steps to a state that is known already, one is gone on from all the same: it must lead to what the state led
/// to when it was found, unless it is the same only but for the names of the agents.
const COMPARED_EVERY: usize = 499;

/// A whole journal is replayed for one of so many states.
const REPLAYED_EVERY: u32 = 64;

/// Searches a scope to its end.
///
/// # Panics
/// If a rule does not hold, with the way there; if the scope is larger than it may be; if from some state there is no way
/// to an end; if two states that should be the same do different things.
pub(crate) fn search(scope: &Scope) -> Found {
    let (mut seen, mut found) = (Seen::default(), Found::default());
    let mut driver = scope.begin();
    let prelude = std::mem::take(&mut driver.entries);
    forget(&mut driver);
    let mut before = driver.clone();
    let (mut again, mut frontier) = (Vec::new(), VecDeque::new());
    let first = canonical(&driver, scope.bounds, true);
    seen.number_of(first, &driver, scope.bounds);
    let rollout = Rollout::of(&driver);
    frontier.push_back(Node { number: 0, hash: first, depth: 0, rollout, left: scope.bounds, path: None });
    while let Some(node) = frontier.pop_front() {
        found.depth = found.depth.max(node.depth);
        node.rollout.to(&mut before);
        node.rollout.to(&mut driver);
        if node.number.is_multiple_of(REPLAYED_EVERY) {
            check(replay(&node, &before, &prelude), &node.path);
        }
        if before.engine.state().is_terminal() {
            seen.ends.push(node.number);
            found.ends += 1;
        } else if node.left.commands == 0 && waits_for_somebody(&before) {
            seen.ends.push(node.number);
            if before.engine.next_deadline().is_none() {
                check(somebody_can_go_on(&node, &mut driver), &node.path);
                node.rollout.to(&mut driver);
            }
        }
        let mut leads = 0_u128;
        for (happens, left) in scope.next(&before.engine, &before.agents, node.left) {
            happens.to(&mut driver);
            found.transitions += 1;
            let reached = reached(&node, &driver, left);
            leads = leads.wrapping_add(elsewhere(&node, reached.1));
            if reached == (node.left, node.hash) && driver.entries.is_empty() && driver.now == before.now {
                continue;
            }
            let rules = rules::step(&before, &driver)
                .and_then(|()| rules::state(&driver))
                .and_then(|()| rules::rolled_back(&driver, rollback_of(&node, &driver)));
            let path = Path {
                before: node.path.clone(),
                happened: happens,
                entries: driver.entries.as_slice().into(),
            };
            let path = Some(Arc::new(path));
            check(rules, &path);
            let (left, hash) = reached;
            let (number, is_new) = seen.number_of(hash, &driver, left);
            if number != node.number && !happens.gives_up() {
                seen.sources.push((number, node.number));
            }
            if is_new || found.transitions.is_multiple_of(COMPARED_EVERY) {
                let (rollout, depth) = (Rollout::of(&driver), node.depth + 1);
                let reached = Node { number, hash, depth, rollout, left, path };
                if is_new {
                    assert!(seen.numbers.len() <= scope.states_max, "{scope:?} does not close: {found}");
                    frontier.push_back(reached);
                } else if seen.told_apart[number as usize] == canonical(&driver, left, false) {
                    again.push(reached);
                }
            }
            node.rollout.to(&mut driver);
        }
        seen.leads[node.number as usize] = leads;
    }
    found.states = seen.numbers.len();
    found.compared = again.len();
    for node in &again {
        check(leads_to_the_same(scope, node, &seen, &mut driver), &node.path);
    }
    let stuck = seen.stuck();
    assert!(
        stuck.is_empty(),
        "from {} states no way leads to an end, first {:?}",
        stuck.len(),
        stuck.first()
    );
    found
}

/// Why the rollback began that the rollout has come to last, and who goes back by it.
fn rollback_of(node: &Node, driver: &Driver) -> Option<(Reason, Back)> {
    let begins = |entry: &Entry| match entry {
        Entry::Rollout(entry) if entry.to == RolloutState::RollingBack => Some((entry.reason, entry.scope?)),
        _ => None,
    };
    let mut found = driver.entries.iter().rev().find_map(begins);
    let mut path = node.path.as_ref();
    while let Some(step) = path.filter(|_| found.is_none() && driver.engine.state().is_terminal()) {
        found = step.entries.iter().rev().find_map(begins);
        path = step.before.as_ref();
    }
    found
}

/// What may still happen after a step, and the state it led to. What has changed nothing does not count.
fn reached(node: &Node, driver: &Driver, left: Bounds) -> (Bounds, u128) {
    let changes_nothing = driver.entries.iter().all(|entry| matches!(entry, Entry::Command(_)));
    let left = if changes_nothing && driver.now == node.rollout.now { node.left } else { left };
    (left, canonical(driver, left, true))
}

/// What a step adds to the states that a state leads to: nothing if it stays where it is.
fn elsewhere(node: &Node, hash: u128) -> u128 {
    if hash == node.hash { 0 } else { hash }
}

/// A state that was reached again leads to the same states as when it was reached first: what the canonical form leaves
/// out does not matter.
fn leads_to_the_same(scope: &Scope, node: &Node, seen: &Seen, driver: &mut Driver) -> Result<(), String> {
    let mut leads = 0_u128;
    for (happens, left) in scope.next(&node.rollout.engine, &driver.agents, node.left) {
        node.rollout.to(driver);
        happens.to(driver);
        leads = leads.wrapping_add(elsewhere(node, reached(node, driver, left).1));
    }
    if leads == seen.leads[node.number as usize] {
        Ok(())
    } else {
        Err("it is in the form of another state and leads elsewhere".to_owned())
    }
}

fn waits_for_somebody(driver: &Driver) -> bool {
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    matches!(why.next, NextAction::Needs(Who::Approver | Who::Operator))
}

/// Where nothing happens before somebody acts, there is an order that moves it on.
fn somebody_can_go_on(node: &Node, driver: &mut Driver) -> Result<(), String> {
    for happens in Happens::orders().filter(|order| !order.gives_up()) {
        node.rollout.to(driver);
        happens.to(driver);
        if driver.entries.iter().any(|entry| !matches!(entry, Entry::Command(_))) {
            return Ok(());
        }
    }
    Err("somebody has to act, and no order does anything".to_owned())
}

/// The whole journal of a state, from the draft on, leads to it.
fn replay(node: &Node, driver: &Driver, prelude: &[Entry]) -> Result<(), String> {
    let mut steps = Vec::new();
    let mut path = node.path.as_ref();
    while let Some(step) = path {
        steps.push(&step.entries);
        path = step.before.as_ref();
    }
    let later = steps.into_iter().rev().flat_map(|entries| entries.iter()).cloned();
    let driver = Driver { entries: prelude.iter().cloned().chain(later).collect(), ..driver.clone() };
    rules::replay(&driver)
}

/// A broken rule is a failure that says how it came to be.
fn check(result: Result<(), String>, path: &Option<Arc<Path>>) {
    let Err(broken) = result else { return };
    let mut steps = Vec::new();
    let mut path = path.as_ref();
    while let Some(step) = path {
        steps.push(format!("{:?}", step.happened));
        path = step.before.as_ref();
    }
    steps.reverse();
    panic!("{broken}\nafter {} steps:\n{}", steps.len(), steps.join("\n"));
}

impl Seen {
    /// The number of a state, and whether it is new.
    fn number_of(&mut self, hash: u128, driver: &Driver, left: Bounds) -> (u32, bool) {
        let fresh = self.numbers.len() as u32;
        let number = *self.numbers.entry(hash).or_insert(fresh);
        let is_new = number == fresh;
        if is_new {
            self.leads.push(0);
            self.told_apart.push(canonical(driver, left, false));
        }
        (number, is_new)
    }

    /// States from which no end can be reached, going backwards from all ends.
    fn stuck(&mut self) -> Vec<usize> {
        self.sources.sort_unstable();
        let mut reaches = vec![false; self.numbers.len()];
        let mut todo = self.ends.clone();
        while let Some(number) = todo.pop() {
            if !std::mem::replace(&mut reaches[number as usize], true) {
                let first = self.sources.partition_point(|(to, _)| *to < number);
                let sources = self.sources[first..].iter().take_while(|(to, _)| *to == number);
                todo.extend(sources.map(|(_, from)| from));
            }
        }
        (0..reaches.len()).filter(|number| !reaches[*number]).collect()
    }
}

/// The hash of a state, and of what may still happen in it.
fn canonical(driver: &Driver, left: Bounds, merged: bool) -> u128 {
    let mut form = driver.engine.canonical(driver.now, merged);
    let Bounds { commands, losses, late } = left;
    form.extend([commands, losses, late]);
    hash(&form)
}

/// 128 bits of a form: two sums of multiplied words, each over its own odd numbers.
fn hash(form: &[u8]) -> u128 {
    let mut lanes = [0x9e37_79b9_7f4a_7c15_u64, 0xd1b5_4a32_d192_ed03];
    for chunk in form.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word) ^ (chunk.len() as u64) << 60;
        for (lane, odd) in lanes.iter_mut().zip([0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53]) {
            *lane = (*lane ^ word).wrapping_mul(odd);
            *lane ^= *lane >> 29;
        }
    }
    u128::from(lanes[0]) << 64 | u128::from(lanes[1])
}
