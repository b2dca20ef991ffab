//! The plans beside this program: what each comes to, word for word, and what is said of it in its first line.
//!
//! `UPDATE_GOLDEN=1 cargo test -p fleet-sim` writes the texts anew.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use fleet_sim::json::{self, Cost};
use fleet_sim::picture::picture;
use fleet_sim::report::Report;
use fleet_sim::{Input, Simulation, SimulationError};
use opamp_fleet::rollout::RolloutState;
use opamp_fleet::rollout::gates::GateKind;
use opamp_fleet::rollout::plan::Plan;
use opamp_testkit::sim::model::RunEnd;
use opamp_testkit::sim::model::timeline::Timeline;
use serde_json::{Value, json};

/// The plans, one for each strategy at least.
const PLANS: [&str; 11] = [
    "all-at-once",
    "batches",
    "canary",
    "collector",
    "decided",
    "exponential",
    "manual",
    "percentages",
    "rings",
    "total-fault",
    "zones",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plans")
}

fn input(name: &str) -> Input {
    let text = fs::read_to_string(directory().join(format!("{name}.toml"))).unwrap();
    Input::from_toml(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn report(run: &Simulation) -> String {
    // What changes in configurations is part of the whole preview.
    Report { run, whole_preview: !run.meanings.is_empty() }.to_string()
}

/// The run of a plan. Each is simulated once, whichever tests look at it.
fn run(name: &str) -> &'static Simulation {
    static RUNS: [OnceLock<Simulation>; PLANS.len()] = [const { OnceLock::new() }; PLANS.len()];
    let at = PLANS.iter().position(|plan| *plan == name).unwrap();
    RUNS[at].get_or_init(|| simulated(&input(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn simulated(input: &Input) -> Result<Simulation, SimulationError> {
    Simulation::run(input, &input.files(&directory())?, &mut |_, _| {})
}

#[test]
fn every_plan_is_listed() {
    let mut found: Vec<String> = fs::read_dir(directory())
        .unwrap()
        .filter_map(|entry| {
            Some(entry.unwrap().path().file_name()?.to_str()?.strip_suffix(".toml")?.to_owned())
        })
        .collect();
    found.sort();
    assert_eq!(found, PLANS);
}

#[test]
fn every_plan_comes_to_what_its_text_says() {
    for name in PLANS {
        let path = directory().join(format!("{name}.txt"));
        let text = report(run(name));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, expected, "{name}");
    }
}

#[test]
fn rollouts_in_which_few_or_none_fail_succeed() {
    for name in ["all-at-once", "batches", "manual", "percentages", "rings", "zones"] {
        let run = run(name);
        assert_eq!((run.end, run.state), (RunEnd::Ended, RolloutState::Succeeded), "{name}\n{}", report(run));
        assert_eq!(
            run.summary.applied + run.summary.failed + run.summary.neutral,
            run.plan.members,
            "{name}"
        );
    }
}

#[test]
fn a_total_fault_touches_three_agents_and_puts_them_back() {
    let run = run("total-fault");
    assert_eq!((run.tally.touched, run.rolled_back), (3, 3), "{}", report(run));
    assert_eq!((run.end, run.state), (RunEnd::Ended, RolloutState::RolledBack));
    assert!(run.time_to_detect().is_some() && run.time_to_roll_back().is_some());
    let gate = run.gates.iter().find(|gate| gate.kind == GateKind::NothingSucceeds).unwrap();
    assert_eq!((gate.bad, gate.of, gate.verdicts > 0), (3, 3, true), "{gate:?}");
}

#[test]
fn faults_of_a_part_are_noticed_before_a_quarter_is_touched() {
    for name in ["canary", "exponential"] {
        let run = run(name);
        let quarter = run.plan.members / 4;
        assert!(run.tally.first_stop.is_some() && run.tally.touched <= quarter, "{name}\n{}", report(run));
    }
}

#[test]
fn an_operator_who_waives_a_gate_gets_further_than_one_who_does_not() {
    let decided = run("decided");
    let alone = simulated(&Input { act: Vec::new(), ..input("decided") }).unwrap();
    assert_eq!((alone.end, alone.state), (RunEnd::Waits, RolloutState::Paused), "{}", report(&alone));
    assert!(decided.tally.touched > alone.tally.touched, "{}", report(decided));
    assert_eq!(decided.tally.refused, 0, "{}", report(decided));
}

#[test]
fn a_plan_that_is_refused_says_which_key_is_to_be_changed() {
    for (text, expected) in [
        ("strategy = { kind = \"all-at-once\" }", "rollout.reason"),
        ("selector = \"zone=nowhere\"", "rollout.selector"),
        ("[[rollout.gate]]\nkind = \"unhealthy\"\nwindow = \"2 h\"", "rollout.fit"),
    ] {
        let text = format!("[fleet]\nagents = 9\n[rollout]\ntitle = \"v2\"\n{text}\n");
        let error = simulated(&Input::from_toml(&text).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("no plan: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_label_that_no_agent_has_is_refused() {
    let plan =
        "[fleet]\nagents = 9\nlabels.tier = { a = 100 }\n[rollout]\ntitle = \"v2\"\norder = \"label:teir\"\n";
    let error = simulated(&Input::from_toml(plan).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "rollout.order: no agent has the label teir; there are tier");
}

#[test]
fn the_same_plan_and_seed_give_the_same_and_another_seed_another() {
    let first = report(run("exponential"));
    assert_eq!(first, report(&simulated(&input("exponential")).unwrap()));
    let other = Input { seed: 8, ..input("exponential") };
    assert_ne!(first, report(&simulated(&other).unwrap()));
}

/// The report of a plan of ten agents with these lines, and its JSON.
fn of_ten(lines: &str) -> (String, Value) {
    let text = format!("fleet.agents = 10\nrollout.title = \"v2\"\n{lines}\n");
    let run = simulated(&Input::from_toml(&text).unwrap()).unwrap();
    (report(&run), json::json(&run, Cost::default()))
}

#[test]
fn what_an_operator_does_is_a_line_with_what_comes_of_it() {
    let acts = [
        ("at = \"1 min\", do = \"extend\", by = \"1 h\"", "extend by 1 h", "done", Value::Null),
        ("at = \"2 min\", do = \"resume\"", "resume", "no effect", Value::Null),
        ("at = \"3 min\", do = \"pause\"", "pause", "done", Value::Null),
        (
            "at = \"4 min\", do = \"advance\"",
            "advance",
            "refused",
            "the rollout is paused; this needs a rollout that is not paused; resume it first".into(),
        ),
        ("at = \"5 min\", do = \"abort\"", "abort", "done", Value::Null),
        ("at = \"9 h\", do = \"resume\"", "resume", "not reached", Value::Null),
    ];
    let written: Vec<String> = acts.iter().map(|(act, ..)| format!("{{ {act} }}")).collect();
    let (text, json) = of_ten(&format!("act = [{}]", written.join(", ")));
    let told: Vec<&Value> = json["acts"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), acts.len());
    for ((_, act, answer, why), told) in acts.iter().zip(told) {
        assert_eq!((&told["act"], &told["answer"], &told["why"]), (&json!(act), &json!(answer), why));
        let details = why.as_str().map_or_else(|| (*answer).to_owned(), |why| format!("{answer}: {why}"));
        let line = format!("  {:<34}  {details}", format!("operator: {act}"));
        assert_eq!(text.lines().filter(|shown| shown.ends_with(&line)).count(), 1, "{line}\n{text}");
    }
    let lines: Vec<&str> = text.lines().collect();
    let at = |what: &str| lines.iter().position(|line| line.contains(what)).unwrap();
    assert_eq!(at("operator: pause") + 1, at("paused (operator)"), "{text}");
    assert!(lines[at("not reached")].starts_with("09:00:00  operator: resume"), "{text}");
    assert_eq!(lines[at("not reached") + 1], "", "it is the last line of what happened\n{text}");
}

#[test]
fn a_rollout_that_starts_later_is_played_to_its_end() {
    let (text, json) = of_ten("rollout.starts_after = \"5 min\"");
    assert_eq!(json["result"]["state"], "succeeded", "{text}");
    assert!(text.contains("\n00:05:00  running "), "{text}");
}

#[test]
fn a_run_that_is_over_before_the_rollout_says_how_long_was_looked() {
    let (text, json) = of_ten("length = \"5 min\"\nact = [{ at = \"6 min\", do = \"pause\" }]");
    assert!(text.contains("\nstill running after 00:05:00 · "), "{text}");
    assert!(text.contains("00:06:00  operator: pause "), "{text}");
    assert_eq!(json["result"]["length_ms"], 300_000);
    assert_eq!((&json["result"]["end"], &json["acts"][0]["answer"]), (&json!("time"), &json!("not reached")));
}

#[test]
fn the_json_counts_at_the_end_what_the_text_counts() {
    let away = "fleet.profile = [{ kind = \"offline\", returns = \"20 d\", share = 50 }, { kind = \"well\", share = 50 }]";
    let (text, json) = of_ten(away);
    let counts = &json["result"]["counts"];
    let shown = format!("· applied {}, deferred {} ·", counts["applied"], counts["deferred"]);
    assert!(counts["deferred"].as_u64() > Some(0) && text.contains(&shown), "{counts} {text}");
    assert_eq!(counts["neutral"], 0);
    assert_eq!(json["timeline"].as_array().unwrap().last().unwrap()["counts"], *counts);
    assert!(json["result"]["commits"].as_u64() > Some(0));
}

/// A plan of 60 agents of one kind.
fn of_one_kind(kind: &str) -> Simulation {
    let text = format!(
        "[fleet]\nagents = 60\nprofile = [{{ {kind}, share = 100 }}]\n[rollout]\ntitle = \"v2\"\nfit = \"stretch\"\n"
    );
    simulated(&Input::from_toml(&text).unwrap()).unwrap()
}

#[test]
fn a_fault_that_agents_never_receive_is_a_fault() {
    let run = of_one_kind("kind = \"silent\", stage = \"offered\"");
    assert!(run.time_to_detect().is_some(), "{}", report(&run));
    assert!(report(&run).contains("time to detect"), "{}", report(&run));
}

#[test]
fn a_stop_without_any_fault_is_called_one() {
    let run = of_one_kind("kind = \"flapping\", period = \"8 min\"");
    assert!(run.tally.first_stop.is_some() && run.time_to_detect().is_none(), "{}", report(&run));
    assert!(report(&run).contains("stopped though nobody had a fault"), "{}", report(&run));
}

#[test]
fn what_never_stopped_and_what_stopped_too_early_are_told_apart() {
    let run = run("total-fault");
    let with = |fault, stop| {
        let mut run = run.clone();
        (run.tally.first_fault, run.tally.first_stop) = (fault, stop);
        report(&run)
    };
    let (early, late) = (Some(run.begins), Some(run.begins + Duration::from_secs(5)));
    assert!(with(early, late).contains("time to detect 00:00:05"));
    assert!(with(late, early).contains("stopped before anybody had a fault"));
    assert!(with(early, None).contains("never stopped"));
    assert!(with(None, None).contains("nobody had a fault"));
}

#[test]
fn a_title_is_one_line_whatever_is_in_it() {
    let mut run = run("total-fault").clone();
    run.plan = Plan { title: "a\nb\u{1b}[31m".into(), ..(*run.plan).clone() }.into();
    assert!(report(&run).starts_with("a b [31m, planned at"));
}

#[test]
fn every_sample_of_the_json_counts_every_member() {
    let run = run("canary");
    let cost = Cost { took: Duration::from_millis(10), peak_rss_kib: Some(1) };
    let value = json::json(run, cost);
    let parts: Vec<&String> = value.as_object().unwrap().keys().collect();
    let expected = ["acts", "changes", "gates", "marks", "plan", "preview", "result", "timeline", "verdicts"];
    assert_eq!(parts, expected);
    assert_eq!(value["result"]["state"], run.state.as_str());
    assert_eq!(value["result"]["touched"], run.tally.touched);
    assert_eq!(value["gates"].as_array().unwrap().len(), run.plan.gates.len());
    assert!(value["verdicts"].as_array().is_some_and(|verdicts| !verdicts.is_empty()));
    let samples = value["timeline"].as_array().unwrap();
    assert!((1..=Timeline::SAMPLES_MAX).contains(&samples.len()));
    for sample in samples {
        let counts = sample["counts"].as_object().unwrap().values();
        let members: u64 = counts.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(members, u64::from(run.plan.members), "{sample}");
    }
}

#[test]
fn the_picture_is_one_svg_with_a_mark_for_the_gate() {
    let text = picture(run("total-fault"));
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    assert_eq!(text.matches("<svg").count(), 1);
    assert!(text.contains("nothing-succeeds: 3 of 3 failed"), "{text}");
}
