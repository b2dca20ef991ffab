//! Whether gates make sense as they are set (R38, R39).

use std::time::Duration;

use super::{GateConfig, GateKind, Scopes, Test};
use crate::rollout::stats::{Ppm, log, sequential};
use crate::rollout::{GateIx, PlanError, SPAN_MAX};

/// Whether the gates of a plan make sense, each by itself and together.
///
/// # Errors
/// [`PlanError::TooManyGates`], and [`PlanError::Gate`] with what is wrong.
pub fn check(gates: &[GateConfig]) -> Result<(), PlanError> {
    if gates.len() > GateIx::MAX_GATES {
        return Err(PlanError::TooManyGates);
    }
    for (position, gate) in gates.iter().enumerate() {
        gate.check().map_err(|what| PlanError::Gate { gate: gate.kind, what })?;
        if gates[..position].iter().any(|other| other.kind == gate.kind && other.name == gate.name) {
            return Err(PlanError::Gate { gate: gate.kind, what: "it is there twice" });
        }
    }
    Ok(())
}

/// The longest window of the gates that act and count within one, which has to fit into each dwell (R39); none if no gate
/// does.
#[must_use]
pub fn longest_window(gates: &[GateConfig]) -> Option<(GateKind, Duration)> {
    let is_asked = |kind| super::has_window(kind) || !super::rules::KINDS.contains(&kind);
    longest(gates.iter().filter(|gate| is_asked(gate.kind)))
}

fn longest<'a>(gates: impl Iterator<Item = &'a GateConfig>) -> Option<(GateKind, Duration)> {
    let acting = gates.filter(|gate| gate.acts() && !gate.window.is_zero());
    acting.map(|gate| (gate.kind, gate.window)).max_by_key(|(_, window)| *window)
}

/// How long members that come late are watched by the gates that act: for the longest window that is set, and for ten minutes
/// by a gate without one, because it never ceases to look.
pub(crate) fn watch(gates: &[GateConfig]) -> Duration {
    const LOOK: Duration = Duration::from_secs(600);
    let counts = |gate: &&GateConfig| {
        gate.acts() && gate.kind != GateKind::NothingSucceeds && super::rules::KINDS.contains(&gate.kind)
    };
    let without = gates.iter().filter(counts).any(|gate| gate.window.is_zero());
    let longest = longest(gates.iter()).map_or(Duration::ZERO, |(_, window)| window);
    longest.max(if without { LOOK } else { Duration::ZERO })
}

/// After how many failures at the latest the first members' total failure stops a rollout with these gates, whatever way they
/// fail in; none if nothing is there that does. Of `nothing-succeeds` alone that can be said.
pub(crate) fn total_fault(gates: &[GateConfig]) -> Option<u16> {
    let stops = |gate: &&GateConfig| {
        let looks = gate.scopes.contains(Scopes::WAVE) || gate.scopes.contains(Scopes::CUMULATIVE);
        gate.kind == GateKind::NothingSucceeds && gate.acts() && looks
    };
    let tests = gates.iter().filter(stops).flat_map(|gate| &gate.tests);
    let hard = tests.filter_map(|test| match test {
        Test::Hard { failures } => Some(*failures),
        Test::Bound { .. }
        | Test::Compare { .. }
        | Test::Count { .. }
        | Test::Percent { .. }
        | Test::Sequential { .. } => None,
    });
    hard.min()
}

impl GateConfig {
    /// Whether the gate makes sense by itself; windows are compared with dwells by the plan.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.min_sample == 0 {
            return Err("the least sample is at least 1");
        }
        if self.scopes.0 == 0 || !ALL_SCOPES.contains(self.scopes) {
            return Err("it is counted nowhere");
        }
        if self.window > SPAN_MAX {
            return Err("its window is longer than a year");
        }
        self.check_asked()?;
        self.check_name()?;
        self.check_tests()?;
        self.tests.iter().try_for_each(Test::check)
    }

    /// That it is counted only where it can say something.
    fn check_asked(&self) -> Result<(), &'static str> {
        let asked = match self.kind {
            kind if kind.is_telemetry() => Scopes::WAVE,
            GateKind::External => Scopes::WAVE.and(Scopes::CUMULATIVE),
            _ => ALL_SCOPES,
        };
        if asked.contains(self.scopes) { Ok(()) } else { Err("it says nothing in one of its scopes") }
    }

    fn check_name(&self) -> Result<(), &'static str> {
        match (self.kind, self.name.len()) {
            (GateKind::External, 0) => Err("an external gate needs a name"),
            (GateKind::External, length) if length > Self::NAME_BYTES_MAX => Err("its name is too long"),
            (GateKind::External, _) | (_, 0) => Ok(()),
            _ => Err("only an external gate has a name"),
        }
    }

    fn check_tests(&self) -> Result<(), &'static str> {
        if self.tests.len() > Self::TESTS_MAX {
            return Err("it has too many tests");
        }
        let sequential = self.tests.iter().filter(|test| matches!(test, Test::Sequential { .. })).count();
        if sequential > 1 {
            return Err("it has more than one sequential test");
        }
        let compares = self.tests.iter().filter(|test| matches!(test, Test::Compare { .. })).count();
        match self.kind {
            GateKind::External | GateKind::MassDisconnect if !self.tests.is_empty() => {
                Err("it has no tests of its own")
            }
            GateKind::External | GateKind::MassDisconnect => Ok(()),
            kind if kind.is_telemetry() => {
                let one = compares == 1 && self.tests.len() == 1;
                if one { Ok(()) } else { Err("a telemetry gate has one test, a comparison") }
            }
            _ if self.tests.is_empty() => Err("it has no test"),
            _ if compares > 0 => Err("only telemetry gates compare values"),
            _ => Ok(()),
        }
    }
}

const ALL_SCOPES: Scopes = Scopes::WAVE.and(Scopes::CUMULATIVE).and(Scopes::ZONE);

impl Test {
    fn check(&self) -> Result<(), &'static str> {
        match *self {
            Self::Bound { over, error } => {
                inside(over)?;
                inside(error)
            }
            Self::Compare { over } => inside(over),
            Self::Count { .. } => Ok(()),
            Self::Hard { failures: 0 | 1 } => Err("one failure is not enough for a hard stop"),
            Self::Hard { .. } => Ok(()),
            Self::Percent { at_least: 0, .. } => Err("at least one failure is needed"),
            Self::Percent { over, .. } => inside(over),
            Self::Sequential { acceptable, bad, error } => {
                inside(acceptable)?;
                inside(bad)?;
                inside(error)?;
                if u64::from(bad.0) < 2 * u64::from(acceptable.0) {
                    return Err("the bad ratio is less than twice the acceptable one");
                }
                match log::weight(acceptable, bad) {
                    Some(1..=sequential::WEIGHT_MAX) => Ok(()),
                    Some(0) => Err("the two ratios together exceed 100 %"),
                    _ => Err("the two ratios are too small to be told apart"),
                }
            }
        }
    }
}

/// A ratio lies between 0 and 100 %, both excluded.
fn inside(ratio: Ppm) -> Result<(), &'static str> {
    let inside = ratio > Ppm(0) && ratio < Ppm::ALL;
    if inside { Ok(()) } else { Err("a ratio lies between 0 and 100 %, both excluded") }
}
