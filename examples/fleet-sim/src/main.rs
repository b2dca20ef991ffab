//! What would this rollout do? Reads a plan file, simulates it, prints what happened.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, process};

use fleet_sim::json::{Cost, json};
use fleet_sim::options::{self, Options};
use fleet_sim::overwrite::{Named, lost};
use fleet_sim::picture::picture;
use fleet_sim::report::{Clock, Report};
use fleet_sim::{Input, Simulation};
use opamp_fleet::rollout::RolloutState;
use opamp_fleet::rollout::preview::grouped;
use opamp_testkit::sim::model::RunEnd;

fn main() -> ExitCode {
    match run(&options::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fleet-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the plan, and says with which code to exit.
fn run(options: &Options) -> Result<u8, Box<dyn Error>> {
    let mut input = read(&options.plan)?;
    let directory = Path::new(&options.plan).parent().unwrap_or(Path::new(""));
    for (key, path) in input.paths(directory) {
        if let Some(what) = options.written().find_map(|file| lost(file, Named(key, &path))) {
            return Err(what.into());
        }
    }
    let files = input.files(directory)?;
    input.seed = options.seed.unwrap_or(input.seed);
    input.fleet.agents = options.agents.unwrap_or(input.fleet.agents);
    writable(options.json.as_deref())?;
    writable(options.svg.as_deref())?;
    let (begun, shows) = (Instant::now(), io::stderr().is_terminal());
    let mut told = false;
    let simulation = Simulation::run(&input, &files, &mut |passed, summary| {
        if shows {
            told = true;
            // A progress line that cannot be written is no reason to stop.
            let _ = write!(
                io::stderr(),
                "\r{}  wave {} of {}  applied {} of {}  ",
                Clock(passed),
                summary.batch,
                summary.batches,
                grouped(summary.applied),
                grouped(summary.total)
            );
        }
    })?;
    let cost = Cost { took: begun.elapsed(), peak_rss_kib: peak_rss_kib() };
    if told {
        eprintln!();
    }
    print(&Report { run: &simulation, whole_preview: options.preview })?;
    if let Some(path) = &options.json {
        write(path, &format!("{:#}\n", json(&simulation, cost)))?;
    }
    if let Some(path) = &options.svg {
        write(path, &picture(&simulation))?;
    }
    let has_succeeded = simulation.state == RolloutState::Succeeded;
    Ok(match simulation.end {
        RunEnd::Stuck => options::STUCK,
        _ if options.require_success && !has_succeeded => options::NO_SUCCESS,
        _ => 0,
    })
}

/// Prints it. Whoever reads only the beginning has seen enough.
fn print(report: &Report<'_>) -> io::Result<()> {
    match write!(io::stdout().lock(), "{report}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn read(plan: &str) -> Result<Input, Box<dyn Error>> {
    if plan == "-" {
        return Ok(Input::from_toml(&io::read_to_string(io::stdin())?)?);
    }
    let text = fs::read_to_string(plan).map_err(|error| format!("{plan}: {error}"))?;
    let is_json = Path::new(plan).extension().is_some_and(|extension| extension == "json");
    let input = if is_json { Input::from_json(&text) } else { Input::from_toml(&text) };
    Ok(input.map_err(|error| format!("{plan}: {error}"))?)
}

/// Looks before the run whether a file can be written: nobody has to wait for a path that is none. What is in it stays until
/// there is something to write.
fn writable(path: Option<&Path>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(|_| ()).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Most resident memory so far, in KiB, where the system says it.
fn peak_rss_kib() -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process::id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
