//! Puts load on an OpAMP server.

use std::{error::Error, fs, io, process::ExitCode};

use fleet_load::{
    cli::{self, Action},
    coordinator::Run,
    plan::Plan,
    report, worker,
};

/// The status with `--strict` when the run went through but not all was well.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fleet-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let (plan_file, flags) = match cli::parse() {
        Action::Worker => {
            worker::run()?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Run { plan_file, flags } => (plan_file, flags),
    };
    let plan = match plan_file.as_deref() {
        None => Plan::default(),
        Some("-") => Plan::from_toml(&io::read_to_string(io::stdin())?)?,
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| format!("{path} (--plan): {error}"))?;
            Plan::from_toml(&text).map_err(|error| format!("{path}: {error}"))?
        }
    };
    let plan = plan.overridden_by(*flags);
    let strict = plan.strict;
    let lines = Run::new(plan)?.run()?;
    print!("{}", report::table(&lines));
    let failed = lines.iter().any(|line| !line.failures.is_empty());
    Ok(if failed && strict { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
