//! The page on rollouts names what there is: every gate, every kind of agent, every act, every key; and every key does something.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod cases;
mod keys;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fleet_sim::input::{Act, Files};
use fleet_sim::json::{Cost, json};
use fleet_sim::{Input, Simulation};
use opamp_fleet::rollout::gates::{GateKind, defaults};
use opamp_testkit::sim::profiles::Share;
use serde_json::Value;

use cases::{ACT, Case, GATE, PROFILE, RATE, ROLLOUT, STRATEGY, TOP, WINDOW};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rollouts.md")).unwrap()
}

/// Words in backticks of the first column of the table whose heading begins so.
fn first_column(page: &str, heading: &str) -> Vec<String> {
    let table = page.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    let cells = table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    // Words between backticks, but not those in brackets: these are keys.
    let outside = |cell: &str| {
        cell.split('(').map(|part| part.rsplit(')').next().unwrap_or_default().to_owned()).collect::<String>()
    };
    cells
        .flat_map(|cell| outside(cell).split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_page_names_every_gate() {
    let named = first_column(&page(), "| gate |");
    let known: Vec<&str> = GateKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(named, known);
    assert!(defaults().iter().all(|gate| named.iter().any(|name| name == gate.kind.as_str())));
}

#[test]
fn the_page_names_every_kind_of_agents() {
    let named = first_column(&page(), "| profile |");
    assert_eq!(named.len(), 19, "{named:?}");
    for name in named {
        // With every key there is, each kind is refused for one that it does not have: its word is known.
        let all = "delay = \"1 s\"\nstage = \"offered\"\nrate = 5\nversion = \"1\"\nperiod = \"1 s\"\nafter = \"1 s\"\ninterval = \"1 s\"\nreturns = \"1 s\"\n";
        let read = toml::from_str::<Share>(&format!("kind = \"{name}\"\nshare = 100\n{all}")).unwrap_err();
        assert!(read.to_string().contains(&format!("{name} has no")), "{name}: {read}");
    }
}

#[test]
fn the_page_names_every_act() {
    let named = first_column(&page(), "| `do` |");
    assert_eq!(named, Act::words().collect::<Vec<_>>());
}

fn names(cases: &[Case]) -> BTreeSet<String> {
    cases.iter().map(|(key, ..)| (*key).to_owned()).collect()
}

#[test]
fn the_page_names_every_key_of_a_plan() {
    let page = page();
    let named = |heading| first_column(&page, heading).into_iter().collect::<BTreeSet<_>>();
    let with = |cases: &[Case], more: &[&str]| {
        let more = more.iter().map(|key| (*key).to_owned());
        names(cases).into_iter().chain(more).collect::<BTreeSet<_>>()
    };
    assert_eq!(named("| key |"), with(&TOP, &["rollout"]));
    assert_eq!(named("| key of `rollout` |"), names(&ROLLOUT));
    assert_eq!(named("| key of a gate |"), names(&GATE));
    let row = |word: &str| page.lines().find(|line| line.starts_with(&format!("| `{word}` |"))).unwrap();
    let has_word = |text: &str, key: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == key)
    };
    for (text, cases) in [(row("rate"), &RATE[..]), (row("window"), &WINDOW)] {
        assert!(cases.iter().all(|(key, ..)| has_word(text, key)), "{text}");
    }
    let table = |heading: &str| {
        let lines = page.lines().skip_while(|line| !line.starts_with(heading));
        lines.take_while(|line| !line.starts_with("##")).collect::<Vec<_>>().join("\n")
    };
    for (heading, cases) in
        [("| `strategy.kind` |", &STRATEGY[..]), ("| profile |", &PROFILE), ("| `do` |", &ACT)]
    {
        let text = table(heading) + row("act");
        let unnamed: Vec<_> = cases.iter().filter(|(key, ..)| !has_word(&text, key)).collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
    }
}

#[test]
fn the_page_names_every_key_of_the_json() {
    let plan = "fleet.agents = 9\nfleet.profile = [{ kind = \"fails\", rate = 100, share = 100 }]\nrollout.title = \"v2\"\nact = [{ at = \"1 d\", do = \"pause\" }]\n";
    let run = Simulation::run(&Input::from_toml(plan).unwrap(), &Files::default(), &mut |_, _| {}).unwrap();
    let value = json(&run, Cost::default());
    let page = page();
    let named: BTreeSet<String> = first_column(&page, "| key of the JSON |").into_iter().collect();
    assert_eq!(named, value.as_object().unwrap().keys().cloned().collect());
    for part in ["timeline", "marks", "acts", "verdicts", "gates", "result"] {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{part}` |"))).unwrap();
        let shown = value[part].get(0).unwrap_or(&value[part]);
        let keys = shown.as_object().unwrap_or_else(|| panic!("{part}: {shown}")).keys();
        let counts = shown.get("counts").filter(|_| part == "timeline").and_then(Value::as_object);
        for key in keys.chain(counts.into_iter().flat_map(|counts| counts.keys())) {
            assert!(row.contains(&format!("`{key}`")), "{part}: {key}");
        }
    }
}

/// Keys that are accepted where there is an unknown one.
fn accepted(plan: &str) -> Vec<String> {
    let text = format!("{plan}\nfleet.agents = 1\nrollout.title = \"v2\"\n");
    let error = Input::from_toml(&text).unwrap_err().to_string();
    let known = error.split_once("unknown field `unknown`").unwrap_or_else(|| panic!("{plan}: {error}")).1;
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_that_is_accepted_is_on_the_page() {
    let strategy = |kind: &str| format!("rollout.strategy = {{ kind = \"{kind}\", unknown = 1 }}");
    for (prefix, plan, cases) in [
        ("fleet.", "fleet.unknown = 1".to_owned(), &TOP[..]),
        ("operator.", "operator.unknown = 1".to_owned(), &TOP),
        ("", "rollout.unknown = 1".to_owned(), &ROLLOUT),
        ("", "rollout.rate.unknown = 1".to_owned(), &RATE),
        ("", "rollout.window = { unknown = 1 }".to_owned(), &WINDOW),
        ("", "rollout.gate = [{ unknown = 1 }]".to_owned(), &GATE),
        ("", "act = [{ unknown = 1 }]".to_owned(), &ACT),
        ("", strategy("batches"), &STRATEGY),
        ("", strategy("canary"), &STRATEGY),
        ("", strategy("exponential"), &STRATEGY),
        ("", strategy("label-rings"), &STRATEGY),
        ("", strategy("manual"), &STRATEGY),
        ("", strategy("percentages"), &STRATEGY),
        ("", strategy("zone-by-zone"), &STRATEGY),
        ("", "rollout.strategy = { kind = \"canary\", steps = [{ unknown = 1 }] }".to_owned(), &STRATEGY),
        ("", "fleet.profile = [{ unknown = 1 }]".to_owned(), &PROFILE),
    ] {
        let known = names(cases);
        let accepted = accepted(&plan).into_iter().filter(|key| key != "kind");
        let unnamed: Vec<String> =
            accepted.map(|key| format!("{prefix}{key}")).filter(|key| !known.contains(key)).collect();
        assert!(unnamed.is_empty(), "{plan}: {unnamed:?}");
    }
    let top = accepted("unknown = 1");
    let sections = TOP.iter().map(|(key, ..)| key.split('.').next().unwrap_or_default());
    let sections: BTreeSet<&str> = sections.chain(["rollout"]).collect();
    assert_eq!(top.iter().map(String::as_str).collect::<BTreeSet<_>>(), sections);
}

#[test]
fn a_plan_in_json_is_the_plan_in_toml() {
    let json = r#"{
        "seed": 3,
        "fleet": { "agents": 50, "profile": [{ "kind": "fails", "rate": 100, "share": 100 }] },
        "rollout": { "title": "v13", "strategy": { "kind": "canary" } },
        "act": [{ "at": "1 min", "do": "pause" }]
    }"#;
    let toml = "seed = 3\n[fleet]\nagents = 50\n[[fleet.profile]]\nkind = \"fails\"\nrate = 100\nshare = 100\n[rollout]\ntitle = \"v13\"\nstrategy = { kind = \"canary\" }\n[[act]]\nat = \"1 min\"\ndo = \"pause\"\n";
    let (from_json, from_toml) = (Input::from_json(json).unwrap(), Input::from_toml(toml).unwrap());
    assert_eq!(format!("{from_json:?}"), format!("{from_toml:?}"));
}
