//! Servers under load: the comparison of ours with the floor and with opamp-go, and claims about ours.
//!
//! Everything stays on this machine, is bounded in number and time, and ends with this command.

mod attend;
mod claims;
mod comparison;
mod figures;
mod fleet;
mod line;
mod metrics;
mod options;
mod programs;
mod scenarios;
mod servers;
mod setting;
mod statistics;
mod table;
mod usage;

use std::fs;

pub use attend::attend;
pub use options::Options;

use crate::workspace::{Workspace, WorkspaceError};

use self::options::{Scenario, What};
use self::programs::{Place, Programs};
use self::servers::Kind;
use self::setting::Setting;

/// Measures what the options ask for. The answer says whether everything held.
///
/// # Errors
///
/// A program does not start or does not finish, or a file cannot be written.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool, WorkspaceError> {
    let place = Place::new(workspace, options.what.name())?;
    let (kinds, skipped) = match options.what {
        What::Comparison => programs::present(&options.kinds),
        What::Scenario(_) => (vec![Kind::Ours], None),
    };
    if let Some(sentence) = &skipped {
        println!("{sentence}");
    }
    let setting = Setting::here(workspace, options.build).markdown();
    let Some(programs) = Programs::build(workspace, &place, &kinds, (needs_tls(options), options.build))?
    else {
        return Ok(false);
    };
    let (good, page) = match options.what {
        What::Comparison => {
            let outcome = comparison::run(options, &kinds, &programs, &place)?;
            println!("\n{}", outcome.text());
            let skipped = skipped.map(|sentence| format!("\n{sentence}.\n")).unwrap_or_default();
            (outcome.good(), outcome.markdown() + &skipped)
        }
        What::Scenario(scenario) => {
            let claims = scenarios::run(scenario, options, &programs, &place)?;
            println!();
            (claims.none_broken(), claims.markdown())
        }
    };
    println!("every phase of every run: {}", place.path().display());
    if let Some(path) = &options.markdown {
        fs::write(path, setting + &page)
            .map_err(|error| WorkspaceError(format!("cannot write {}: {error}", path.display())))?;
        println!("written to {}", path.display());
    }
    Ok(good)
}

fn needs_tls(options: &Options) -> bool {
    match options.what {
        What::Comparison => options.tls.contains(&true),
        What::Scenario(scenario) => scenario == Scenario::Scale,
    }
}
