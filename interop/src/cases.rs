//! One scenario over many cases at once: they wait for processes and deadlines far more than they compute.

use std::fmt::Display;
use std::thread;

use crate::failure::{Failure, Outcome};

/// Runs a scenario for every case, all at the same time. A failure names its case.
///
/// # Errors
///
/// Those of all cases.
pub fn each<C: Display + Sync>(cases: &[C], scenario: impl Fn(&C) -> Outcome + Sync) -> Outcome {
    let scenario = &scenario;
    let failures: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|case| (case, scope.spawn(move || scenario(case)))).collect();
        running
            .into_iter()
            .filter_map(|(case, thread)| match thread.join() {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(format!("--- {case} ---\n{failure:?}")),
                Err(_) => Some(format!("--- {case} ---\npanicked, see above")),
            })
            .collect()
    });
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_names_its_case() {
        let outcome = each(&[1, 2, 3], |case| match case {
            2 => Ok(()),
            other => Err(Failure::new(format!("no {other}"))),
        });
        assert_eq!(format!("{:?}", outcome.unwrap_err()), "--- 1 ---\nno 1\n--- 3 ---\nno 3");
        assert!(each(&[1, 2], |_| Ok(())).is_ok());
    }
}
