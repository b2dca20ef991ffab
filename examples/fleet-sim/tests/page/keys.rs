//! Every key of a plan file changes what comes of a plan.

use std::error::Error;
use std::path::Path;

use fleet_sim::json::{Cost, json};
use fleet_sim::report::Report;
use fleet_sim::{Input, Simulation};

use crate::cases::{ACT, Case, GATE, PROFILE, RATE, ROLLOUT, STRATEGY, TOP, WINDOW};

/// A plan of these lines: of two that set the same key, the later one holds.
fn plan(lines: &[&str]) -> String {
    let default = ["fleet.agents = 60", "rollout.title = \"v2\"", "rollout.fit = \"stretch\""];
    let all: Vec<&str> = default.into_iter().chain(lines.iter().flat_map(|lines| lines.lines())).collect();
    let key = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let holds = |at: usize| !all[at + 1..].iter().any(|later| key(later) == key(all[at]));
    let kept: Vec<&str> = (0..all.len()).filter(|at| holds(*at)).map(|at| all[at]).collect();
    kept.join("\n")
}

/// What comes of a plan, without its hash, which is another one for each plan.
///
/// # Errors
/// Why it is refused.
fn outcome(text: &str) -> Result<String, Box<dyn Error>> {
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let input = Input::from_toml(text)?;
    let run = Simulation::run(&input, &input.files(&plans)?, &mut |_, _| {})?;
    let text = Report { run: &run, whole_preview: true }.to_string();
    let without_hash: Vec<&str> =
        text.lines().map(|line| line.strip_prefix("plan ").map_or(line, |line| &line[8..])).collect();
    let mut value = json(&run, Cost::default());
    let parts = ["timeline", "marks", "result"].map(|part| value[part].take().to_string());
    Ok(without_hash.join("\n") + &parts.join("\n"))
}

fn every_key_has_an_effect(cases: &[Case]) {
    for (key, without, with) in cases {
        let plans = [plan(&[without]), plan(&[without, with])];
        let outcomes = plans.each_ref().map(|plan| outcome(plan).map_err(|error| error.to_string()));
        assert!(outcomes[0] != outcomes[1], "{key} changes nothing:\n{}", plans[1]);
        // One of the two may be refused: that is what `fit` and `reason` are for.
        assert!(outcomes.iter().any(Result::is_ok), "{key}: {outcomes:?}");
        assert!(!format!("{outcomes:?}").contains("unknown field"), "{key}: {outcomes:?}");
    }
}

#[test]
fn every_key_of_a_plan_has_an_effect() {
    every_key_has_an_effect(&TOP);
    every_key_has_an_effect(&ROLLOUT);
}

#[test]
fn every_key_of_rates_and_windows_has_an_effect() {
    every_key_has_an_effect(&RATE);
    every_key_has_an_effect(&WINDOW);
}

#[test]
fn every_key_of_strategies_and_gates_has_an_effect() {
    every_key_has_an_effect(&STRATEGY);
    every_key_has_an_effect(&GATE);
}

#[test]
fn every_key_of_agents_and_acts_has_an_effect() {
    every_key_has_an_effect(&PROFILE);
    every_key_has_an_effect(&ACT);
}
