//! Runs one scenario for a tool that counts instructions: `cargo xtask instructions` starts it under callgrind.
//!
//! `instructions --list` prints name and rounds of each scenario; `instructions NAME` runs one of them.

use std::process::ExitCode;

use opamp_benches::instructions::Scenario;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--list"] => {
            for scenario in Scenario::all() {
                println!("{} {}", scenario.name, scenario.rounds);
            }
            ExitCode::SUCCESS
        }
        [name] => match Scenario::named(name) {
            Some(scenario) => {
                counted(&mut *scenario.prepared());
                ExitCode::SUCCESS
            }
            None => {
                eprintln!("no scenario `{name}`; `--list` names them");
                ExitCode::from(2)
            }
        },
        _ => {
            eprintln!("usage: instructions --list | NAME");
            ExitCode::from(2)
        }
    }
}

/// What callgrind is told to count: it finds this function by its name, so it stays one.
#[inline(never)]
fn counted(rounds: &mut dyn FnMut()) {
    rounds();
    // Keeps the call above from becoming a jump out of here.
    std::hint::black_box(());
}
