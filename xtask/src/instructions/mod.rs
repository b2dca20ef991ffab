//! Instruction counts as a regression check: the same program, compiler and input give the same count, whatever else the
//! machine does, so a change of a few percent shows that no clock would show.
//!
//! Counts depend on the compiler and the platform. Where those are not the ones of the baseline nothing is compared, and that
//! is said.

mod baseline;
mod count;
mod options;
mod verdict;

use std::collections::BTreeMap;

pub use baseline::{Baseline, Toolchain};
pub use options::Options;
pub use verdict::{Compared, Verdict, compare};

use crate::prerequisite;
use crate::workspace::{Workspace, WorkspaceError};

use self::count::Counter;

/// Where the baseline is committed.
const BASELINE: &str = "benches/instructions.toml";

/// Counts, and compares with the baseline or becomes it. The answer says whether everything held.
///
/// # Errors
///
/// valgrind is missing, the scenarios do not run, or the baseline cannot be read.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool, WorkspaceError> {
    let here = count::toolchain()?;
    let known = committed(workspace)?;
    if let Some(known) = known.as_ref().filter(|known| !options.update && known.counted_with != here) {
        println!("{}", incomparable(&known.counted_with, &here));
        return Ok(true);
    }
    let valgrind = prerequisite::valgrind()?;
    let Some(counter) = Counter::build(workspace, valgrind)? else {
        return Ok(false);
    };
    let mut counts = BTreeMap::new();
    for scenario in counter.scenarios()? {
        if options.only.as_ref().is_none_or(|part| scenario.name.contains(part)) {
            counts.insert(scenario.name.clone(), counter.count(&scenario)?);
        }
    }
    if counts.is_empty() {
        let part = options.only.as_deref().unwrap_or_default();
        return Err(WorkspaceError(format!("no scenario has `{part}` in its name")));
    }
    let known = known.unwrap_or_default();
    let whole = options.only.is_none();
    let lines = compare(&known, &counts, whole);
    println!("{}", verdict::HEADING);
    for line in &lines {
        println!("{}", line.line(if options.update { "is now" } else { "FAILED" }));
    }
    if options.update {
        workspace.write(BASELINE, &updated(known, here, counts, whole)?.to_text())?;
        println!("\nwritten to {BASELINE}");
        return Ok(true);
    }
    let complaints: Vec<String> =
        lines.iter().filter_map(|line| line.complaint(known.tolerance_percent)).collect();
    if complaints.is_empty() {
        return Ok(true);
    }
    println!();
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!(
        "\nIf this is meant: `cargo xtask instructions --update`, and commit {BASELINE} with the reason. \
         Where it comes from: `callgrind_annotate {}/<scenario>.callgrind`.",
        counter.details().display()
    );
    Ok(false)
}

/// The baseline that is committed; none before the first one is.
fn committed(workspace: &Workspace) -> Result<Option<Baseline>, WorkspaceError> {
    if !workspace.path(BASELINE).exists() {
        return Ok(None);
    }
    let read = Baseline::parse(&workspace.text(BASELINE)?);
    read.map(Some).map_err(|error| WorkspaceError(format!("{BASELINE}: {error}")))
}

/// The baseline with new counts. A selection replaces only its own, which must be of the same toolchain as the others.
fn updated(
    known: Baseline,
    here: Toolchain,
    counts: BTreeMap<String, u64>,
    whole: bool,
) -> Result<Baseline, WorkspaceError> {
    if whole {
        return Ok(Baseline { counted_with: here, counts, ..known });
    }
    if known.counted_with != here {
        return Err(WorkspaceError(format!(
            "{BASELINE} was counted with another toolchain: all scenarios are to be written, not some"
        )));
    }
    let mut merged = known;
    merged.counts.extend(counts);
    Ok(merged)
}

fn incomparable(known: &Toolchain, here: &Toolchain) -> String {
    format!(
        "nothing compared: {BASELINE} was counted with {} for {}, here is {} for {}; `cargo xtask instructions --update` counts anew",
        known.rustc, known.platform, here.rustc, here.platform
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(rustc: &str) -> Toolchain {
        Toolchain { rustc: rustc.into(), platform: "x86_64-unknown-linux-gnu".into() }
    }

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_selection_is_written_beside_the_others_and_everything_replaces_everything() {
        let known = || Baseline {
            counted_with: toolchain("1"),
            counts: counts(&[("a", 1), ("b", 2)]),
            ..Baseline::default()
        };
        let some = updated(known(), toolchain("1"), counts(&[("b", 3)]), false).unwrap();
        assert_eq!(some.counts, counts(&[("a", 1), ("b", 3)]));
        let all = updated(known(), toolchain("2"), counts(&[("c", 3)]), true).unwrap();
        assert_eq!((all.counts, all.counted_with), (counts(&[("c", 3)]), toolchain("2")));
        assert!(updated(known(), toolchain("2"), counts(&[("b", 3)]), false).is_err());
    }

    #[test]
    fn another_toolchain_is_named_in_one_sentence() {
        let text = incomparable(&toolchain("rustc 1.95.0"), &toolchain("rustc 1.96.0"));
        assert!(text.starts_with("nothing compared") && text.contains("1.95.0") && text.contains("1.96.0"));
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn the_committed_baseline_can_be_read() {
        let text = Workspace::here().text(BASELINE).unwrap();
        assert!(!Baseline::parse(&text).unwrap().counts.is_empty());
    }
}
