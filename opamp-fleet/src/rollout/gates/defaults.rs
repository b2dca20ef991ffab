//! The gates as they are if nobody says otherwise.

use std::time::Duration;

use super::{GateConfig, GateKind, NoData, Scopes, Severity, Test, Undecided};
use crate::rollout::Scope;
use crate::rollout::stats::Ppm;

/// 2 % of failures are fine, 20 % are not; 1 % of good rollouts may be stopped.
const SEQUENTIAL: Test =
    Test::Sequential { acceptable: Ppm::percent(2), bad: Ppm::percent(20), error: Ppm::percent(1) };

/// More than 2 % of failures over all waves.
const BOUND: Test = Test::Bound { over: Ppm::percent(2), error: Ppm(5_000) };

/// How long after it applied it a member may still begin to count where later says less and less of the configuration, and
/// how close to each other falls are in a loop.
const WINDOW: Duration = Duration::from_secs(600);

/// The gates a rollout has if nobody says otherwise: all that count members, and the one that notices that agents outside
/// go away as well.
#[must_use]
pub fn defaults() -> Box<[GateConfig]> {
    let counting = super::rules::KINDS.into_iter().chain([GateKind::MassDisconnect]);
    counting.map(GateConfig::of).collect()
}

impl GateConfig {
    /// The gate of this kind as it is by default. An external one needs a name; telemetry ones compare with an increase of
    /// 20 %.
    #[must_use]
    pub fn of(kind: GateKind) -> Self {
        let gate = Self {
            kind,
            name: "".into(),
            tests: Box::default(),
            min_sample: 1,
            window: Duration::ZERO,
            scopes: Scopes::WAVE.and(Scopes::CUMULATIVE),
            no_data: NoData::Pass,
            undecided: Undecided::default(),
            severity: Severity::Pause,
            all_failed: None,
            on_error: NoData::Hold,
            waivable: true,
        };
        let all_back = Some(Severity::RollBack(Scope::All));
        match kind {
            GateKind::ApplyFailed => Self {
                tests: [SEQUENTIAL, BOUND].into(),
                no_data: NoData::Hold,
                all_failed: all_back,
                ..gate
            },
            GateKind::Rejected => Self { tests: [SEQUENTIAL, BOUND].into(), ..gate },
            GateKind::TimedOut => Self { tests: percent(20), ..gate },
            GateKind::DisconnectRatio => {
                Self { tests: percent(20), window: Duration::from_secs(300), ..gate }
            }
            GateKind::Unhealthy => Self { tests: [SEQUENTIAL, over(10)].into(), min_sample: 20, ..gate },
            GateKind::EffectiveMismatch => {
                Self { tests: percent(20), window: WINDOW, severity: Severity::Hold, ..gate }
            }
            GateKind::CrashLoop => {
                Self { tests: [SEQUENTIAL, BOUND].into(), window: WINDOW, all_failed: all_back, ..gate }
            }
            GateKind::SelfRollback => Self { tests: [SEQUENTIAL, BOUND].into(), ..gate },
            GateKind::Unverified => Self {
                tests: percent(50),
                no_data: NoData::Hold,
                severity: Severity::Observe,
                all_failed: Some(Severity::Hold),
                ..gate
            },
            GateKind::NothingSucceeds => {
                Self { tests: [Test::Hard { failures: 3 }].into(), all_failed: all_back, ..gate }
            }
            GateKind::MassDisconnect => {
                Self { window: Duration::from_secs(300), severity: Severity::Hold, ..gate }
            }
            GateKind::ThroughputDrop
            | GateKind::ExportFailures
            | GateKind::QueueFill
            | GateKind::MemoryRise
            | GateKind::CpuRise => Self {
                tests: [Test::Compare { over: Ppm::percent(20) }].into(),
                min_sample: 5,
                scopes: Scopes::WAVE,
                no_data: NoData::Hold,
                severity: Severity::Observe,
                ..gate
            },
            GateKind::External => Self { scopes: Scopes::WAVE, no_data: NoData::Hold, ..gate },
        }
    }
}

fn percent(over_percent: u32) -> Box<[Test]> {
    [over(over_percent)].into()
}

fn over(percent: u32) -> Test {
    Test::Percent { over: Ppm::percent(percent), at_least: 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_makes_sense_but_an_external_gate_needs_a_name() {
        for kind in GateKind::ALL {
            let checked = GateConfig::of(kind).check();
            assert_eq!(checked.is_ok(), kind != GateKind::External, "{kind}: {checked:?}");
        }
        assert_eq!(super::super::check(&defaults()), Ok(()));
    }

    #[test]
    fn by_default_all_gates_that_count_members_are_there_with_the_one_that_cannot_be_left_out() {
        let kinds: Vec<GateKind> = defaults().iter().map(|gate| gate.kind).collect();
        assert_eq!(kinds.len(), 11);
        assert!(kinds.contains(&GateKind::NothingSucceeds) && !kinds.contains(&GateKind::External));
    }

    #[test]
    fn no_default_window_is_longer_than_the_first_dwell_of_a_canary() {
        assert!(defaults().iter().all(|gate| gate.window <= Duration::from_secs(600)));
    }
}
