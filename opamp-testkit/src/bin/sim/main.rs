//! Simulated rollouts from the command line; `cargo xtask sim` builds and runs this.

mod options;

use std::error::Error;
use std::fs;
use std::io::{IsTerminal, Write, stderr};
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opamp_testkit::sim::quality::{self, QualityOptions};
use opamp_testkit::sim::run::{Breach, Outcome, RunSettings, replay_command, run};
use opamp_testkit::sim::scenario::Scenario;
use opamp_testkit::sim::shrink::shrink;

use options::{Seeds, What};

/// Failing seeds that are told in full and made smaller; further ones are told in one line.
const TOLD_MAX: usize = 5;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match options::parse(&words) {
        Ok(What::Seeds(options)) => seeds(&options),
        Ok(What::Replay { file, frames }) => replay(&file, frames),
        Ok(What::Quality { options, markdown }) => quality_table(&options, markdown.as_deref()),
        Ok(What::Bugs { only }) => bugs(only.as_deref()),
        Err(error) => {
            eprint!("{error}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Seeds that broke an invariant, with what was counted of all.
#[derive(Default)]
struct Found {
    steps: u64,
    length: Duration,
    broken: Vec<(u64, Breach)>,
}

fn seeds(options: &Seeds) -> Result<bool, Box<dyn Error>> {
    let begun = Instant::now();
    let settings = RunSettings { frames: options.frames, ..RunSettings::default() };
    let (next, found) = (AtomicU64::new(0), Mutex::new(Found::default()));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.get() {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= options.count {
                        break;
                    }
                    let outcome = run(&Scenario::drawn(options.first + number), &settings);
                    note(&mut found.lock().unwrap_or_else(PoisonError::into_inner), outcome);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.broken.sort_by_key(|(seed, _)| *seed);
    println!(
        "{} seeds from {}: {} broken; {} steps, {} h of virtual time, {:.1} s",
        options.count,
        options.first,
        found.broken.len(),
        found.steps,
        found.length.as_secs() / 3_600,
        begun.elapsed().as_secs_f64(),
    );
    let held = found.broken.is_empty();
    let further = found.broken.split_off(found.broken.len().min(TOLD_MAX));
    for (seed, breach) in found.broken {
        println!("\nseed {seed}: {breach}again: {}", replay_command(seed));
        smaller(seed, breach, &options.out)?;
    }
    for (seed, breach) in further {
        println!("seed {seed}: {} broke at step {}: {}", breach.invariant, breach.step, breach.found);
    }
    Ok(held)
}

/// Counts an outcome, and shows its frames if they were asked for. Who runs many seeds need not wait for the first that broke.
fn note(found: &mut Found, outcome: Outcome) {
    for frame in &outcome.frames {
        println!("{frame}");
    }
    found.steps += outcome.steps;
    found.length += outcome.length;
    if let Some(breach) = outcome.breach {
        println!("seed {} broke: {}", outcome.seed, breach.invariant);
        found.broken.push((outcome.seed, breach));
    }
}

/// Makes a failing scenario smaller, and writes it.
fn smaller(seed: u64, breach: Breach, directory: &Path) -> Result<(), Box<dyn Error>> {
    // Every candidate that panics would say so at length.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let shrunk = shrink(Scenario::drawn(seed), breach, &RunSettings::default());
    panic::set_hook(hook);
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let path = directory.join(format!("sim-{seed}.toml"));
    fs::write(&path, shrunk.scenario.to_toml()).map_err(|error| format!("{}: {error}", path.display()))?;
    println!(
        "smaller after {} runs: {}\nagain: cargo xtask sim --replay {}",
        shrunk.runs,
        shrunk.breach,
        path.display()
    );
    Ok(())
}

fn replay(file: &Path, frames: bool) -> Result<bool, Box<dyn Error>> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let scenario = Scenario::from_toml(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let outcome = run(&scenario, &RunSettings { frames, ..RunSettings::default() });
    for frame in &outcome.frames {
        println!("{frame}");
    }
    println!(
        "seed {}: {} steps, {} s of virtual time, trace {:016x}",
        outcome.seed,
        outcome.steps,
        outcome.length.as_secs(),
        outcome.trace
    );
    match outcome.breach {
        None => {
            println!("every invariant holds");
            Ok(true)
        }
        Some(breach) => {
            print!("{breach}");
            Ok(false)
        }
    }
}

fn quality_table(options: &QualityOptions, markdown: Option<&Path>) -> Result<bool, Box<dyn Error>> {
    let page = match markdown {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Some((path, text))
        }
    };
    let (begun, shows) = (Instant::now(), stderr().is_terminal());
    let table = quality::table(options, &|fleet, rate| {
        if shows {
            // A progress line that cannot be written is no reason to stop.
            let _ = write!(stderr(), "\r{fleet} agents, {rate} faulty, {} s  ", begun.elapsed().as_secs());
        }
    })?;
    if shows {
        eprintln!();
    }
    println!("{table}");
    if let Some((path, text)) = page {
        let with = quality::replaced(&text, &table)
            .ok_or_else(|| format!("{} has no marks for the table", path.display()))?;
        fs::write(path, with).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("written to {}", path.display());
    }
    let missed = table.missed();
    missed.iter().for_each(|line| println!("MISSED: {line}"));
    if table.endless() > 0 {
        println!("{} rollouts came to no end", table.endless());
    }
    Ok(table.endless() == 0 && missed.is_empty())
}

#[cfg(opamp_faults)]
fn bugs(only: Option<&str>) -> Result<bool, Box<dyn Error>> {
    use opamp_testkit::sim::bugs::{BUGS, hunt, mistakes};

    panic::set_hook(Box::new(|_| {}));
    let mistakes = mistakes();
    if !mistakes.is_empty() {
        return Err(format!("the table of bugs: {}", mistakes.join(", ")).into());
    }
    let chosen: Vec<_> =
        BUGS.iter().filter(|bug| only.is_none_or(|name| bug.fault.as_str() == name)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = BUGS.iter().map(|bug| bug.fault.as_str()).collect();
        let known = known.join(", ");
        return Err(format!("there is no bug {}; use one of {known}", only.unwrap_or_default()).into());
    }
    let mut held = true;
    for bug in chosen {
        let begun = Instant::now();
        let found = hunt(*bug);
        let by = found.breach.as_ref().map_or("nothing", |breach| breach.invariant);
        println!(
            "{:<6} {:<28} caught by {by}, seed {} of at most {} ({:.1} s)",
            if found.caught() { "ok" } else { "FAILED" },
            bug.fault,
            found.seeds,
            bug.seeds,
            begun.elapsed().as_secs_f64(),
        );
        if !found.caught() {
            println!("       it should be caught by {}", bug.caught_by.join(" or "));
            if let Some(breach) = &found.breach {
                print!("       {breach}");
            }
            if let Some(breach) = &found.without {
                print!("       without the bug, too: {breach}");
            }
        }
        held &= found.caught();
    }
    Ok(held)
}

#[cfg(not(opamp_faults))]
fn bugs(_: Option<&str>) -> Result<bool, Box<dyn Error>> {
    Err("this build cannot be broken on purpose: `cargo xtask sim --bugs` makes one that can".into())
}
