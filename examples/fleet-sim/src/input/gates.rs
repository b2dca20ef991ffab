//! `[[rollout.gate]]`: gates that replace the default of the same kind.

use std::str::FromStr;

use opamp_fleet::rollout::Scope;
use opamp_fleet::rollout::gates::{
    GateConfig, GateKind, NoData, Scopes, Severity, Test, Undecided, defaults,
};
use serde::Deserialize;

use super::{InputError, Length, Percent};

/// A gate. What is not said is as in the default gate of its kind; one that says a test has only those that it says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Which gate, by word.
    pub kind: String,
    /// More than so many percent, and at least so many members.
    pub percent: Option<PercentTest>,
    /// The true ratio is above a bound, with an error over all looks.
    pub bound: Option<BoundTest>,
    /// More like one ratio than another.
    pub sequential: Option<SequentialTest>,
    /// More than so many members.
    pub count: Option<u32>,
    /// At least so many, and nobody is well.
    pub hard: Option<u16>,
    /// How long after it applied it a member can begin to count at least; for crash-loop the span of its falls.
    pub window: Option<Length>,
    /// Fewer members than this are no data.
    pub min_sample: Option<u32>,
    /// What a failure leads to: observe, hold, pause, abort, roll-back, roll-back-failed, roll-back-wave.
    pub severity: Option<String>,
    /// Over which members: wave, cumulative, zone.
    pub scopes: Option<Vec<String>>,
    /// What it means if there is nothing to judge by: pass or hold.
    pub no_data: Option<String>,
    /// Most members an undecided wave borrows from the next; 0: it is held at once.
    pub stretch: Option<u8>,
    /// Leaves the gate out. For nothing-succeeds that needs a reason in `rollout.reason`.
    #[serde(default)]
    pub off: bool,
}

/// More than a ratio.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PercentTest {
    /// The ratio.
    pub over: Percent,
    /// The least number.
    pub at_least: u32,
}

/// Above a ratio with an error.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundTest {
    /// The ratio.
    pub over: Percent,
    /// The chance of being wrong.
    pub error: Percent,
}

/// More like `bad` than like `acceptable`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequentialTest {
    /// A ratio that is fine.
    pub acceptable: Percent,
    /// A ratio that is not.
    pub bad: Percent,
    /// The chance of stopping at `acceptable`.
    pub error: Percent,
}

/// Gates that go by what is told from outside, and nobody tells anything here.
const FROM_OUTSIDE: [GateKind; 7] = [
    GateKind::MassDisconnect,
    GateKind::ThroughputDrop,
    GateKind::ExportFailures,
    GateKind::QueueFill,
    GateKind::MemoryRise,
    GateKind::CpuRise,
    GateKind::External,
];

/// The default gates, some of them replaced, left out, or added again.
pub(super) fn gates(wanted: &[Gate]) -> Result<Box<[GateConfig]>, InputError> {
    let mut all = defaults().into_vec();
    let mut told: Vec<GateKind> = Vec::with_capacity(wanted.len());
    for gate in wanted {
        let kind = word::<GateKind>("rollout.gate.kind", &gate.kind)?;
        if told.contains(&kind) {
            let what = format!("{kind} stands there twice; put all of its keys into one table");
            return Err(InputError::value("rollout.gate", what));
        }
        told.push(kind);
        gate.check_off(kind)?;
        if FROM_OUTSIDE.contains(&kind) {
            let what = format!("{kind} goes by what is told from outside, which a simulation has nothing of");
            return Err(InputError::value("rollout.gate.kind", what));
        }
        let at = all.iter().position(|one| one.kind == kind);
        match (at, gate.off) {
            (Some(at), true) => _ = all.remove(at),
            (None, true) => {}
            (Some(at), false) => all[at] = gate.config(all[at].clone())?,
            (None, false) => all.push(gate.config(GateConfig::of(kind))?),
        }
    }
    Ok(all.into())
}

impl Gate {
    /// A gate that is left out has nothing else to say.
    fn check_off(&self, kind: GateKind) -> Result<(), InputError> {
        let Self {
            kind: _,
            percent,
            bound,
            sequential,
            count,
            hard,
            window,
            min_sample,
            severity,
            scopes,
            no_data,
            stretch,
            off,
        } = self;
        let keys = [
            ("percent", percent.is_some()),
            ("bound", bound.is_some()),
            ("sequential", sequential.is_some()),
            ("count", count.is_some()),
            ("hard", hard.is_some()),
            ("window", window.is_some()),
            ("min_sample", min_sample.is_some()),
            ("severity", severity.is_some()),
            ("scopes", scopes.is_some()),
            ("no_data", no_data.is_some()),
            ("stretch", stretch.is_some()),
        ];
        let given: Vec<&str> = keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
        if !off || given.is_empty() {
            return Ok(());
        }
        let what = format!("{kind} is off, and has {} all the same; leave one of both out", given.join(", "));
        Err(InputError::value("rollout.gate", what))
    }

    fn config(&self, default: GateConfig) -> Result<GateConfig, InputError> {
        let tests = self.tests();
        let all_failed = if self.severity.is_some() { None } else { default.all_failed };
        Ok(GateConfig {
            tests: if tests.is_empty() { default.tests } else { tests.into() },
            min_sample: self.min_sample.unwrap_or(default.min_sample),
            window: self.window.map_or(default.window, |window| window.0),
            scopes: self.scopes.as_deref().map_or(Ok(default.scopes), scopes)?,
            no_data: match &self.no_data {
                Some(text) => word::<NoData>("rollout.gate.no_data", text)?,
                None => default.no_data,
            },
            undecided: self.stretch.map_or(default.undecided, |max| match max {
                0 => Undecided::Hold,
                max => Undecided::Stretch { max },
            }),
            severity: self.severity.as_deref().map_or(Ok(default.severity), severity)?,
            all_failed,
            ..default
        })
    }

    fn tests(&self) -> Vec<Test> {
        let percent = self.percent.map(|test| Test::Percent { over: test.over.0, at_least: test.at_least });
        let bound = self.bound.map(|test| Test::Bound { over: test.over.0, error: test.error.0 });
        let sequential = self.sequential.map(|test| Test::Sequential {
            acceptable: test.acceptable.0,
            bad: test.bad.0,
            error: test.error.0,
        });
        let count = self.count.map(|over| Test::Count { over });
        let hard = self.hard.map(|failures| Test::Hard { failures });
        [percent, bound, sequential, count, hard].into_iter().flatten().collect()
    }
}

fn severity(text: &str) -> Result<Severity, InputError> {
    Ok(match text {
        "observe" => Severity::Observe,
        "hold" => Severity::Hold,
        "pause" => Severity::Pause,
        "abort" => Severity::Abort,
        "roll-back" => Severity::RollBack(Scope::All),
        "roll-back-failed" => Severity::RollBack(Scope::Failed),
        "roll-back-wave" => Severity::RollBackWave,
        other => {
            let what = format!(
                "{other} is none of observe, hold, pause, abort, roll-back, roll-back-failed, roll-back-wave"
            );
            return Err(InputError::value("rollout.gate.severity", what));
        }
    })
}

fn scopes(texts: &[String]) -> Result<Scopes, InputError> {
    texts.iter().try_fold(Scopes(0), |all, text| {
        Ok(all.and(match text.as_str() {
            "wave" => Scopes::WAVE,
            "cumulative" => Scopes::CUMULATIVE,
            "zone" => Scopes::ZONE,
            other => {
                let what = format!("{other} is none of wave, cumulative, zone");
                return Err(InputError::value("rollout.gate.scopes", what));
            }
        }))
    })
}

/// A word of a closed set; the error names those that there are.
pub(super) fn word<T: FromStr<Err: std::fmt::Display>>(
    key: &'static str,
    text: &str,
) -> Result<T, InputError> {
    text.parse().map_err(|error: T::Err| InputError::value(key, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Deserialize)]
    struct Gates {
        gate: Vec<Gate>,
    }

    fn read(text: &str) -> Result<Box<[GateConfig]>, InputError> {
        gates(&toml::from_str::<Gates>(text).unwrap().gate)
    }

    fn of(gates: &[GateConfig], kind: GateKind) -> Option<&GateConfig> {
        gates.iter().find(|gate| gate.kind == kind)
    }

    #[test]
    fn a_gate_replaces_the_default_of_its_kind_and_keeps_what_it_does_not_say() {
        let text = "[[gate]]\nkind = \"unhealthy\"\npercent = { over = 15, at_least = 4 }\nwindow = \"5 min\"\nseverity = \"hold\"\n";
        let all = read(text).unwrap();
        assert_eq!(all.len(), defaults().len());
        let (gate, default) = (of(&all, GateKind::Unhealthy).unwrap(), GateConfig::of(GateKind::Unhealthy));
        assert_eq!(
            *gate.tests,
            [Test::Percent { over: opamp_fleet::rollout::stats::Ppm::percent(15), at_least: 4 }]
        );
        assert_eq!((gate.window, gate.severity), (Duration::from_secs(300), Severity::Hold));
        assert_eq!((gate.min_sample, gate.scopes), (default.min_sample, default.scopes));
    }

    #[test]
    fn a_gate_can_be_left_out() {
        let all = read("[[gate]]\nkind = \"unverified\"\noff = true\n").unwrap();
        assert_eq!(of(&all, GateKind::Unverified), None);
        assert_eq!(all.len() + 1, defaults().len());
    }

    #[test]
    fn a_gate_that_stands_there_twice_or_is_off_and_more_is_refused() {
        let twice = "[[gate]]\nkind = \"unhealthy\"\ncount = 3\n[[gate]]\nkind = \"unhealthy\"\ncount = 5\n";
        let error = read(twice).unwrap_err().to_string();
        assert!(error.starts_with("rollout.gate: unhealthy stands there twice"), "{error}");
        let off = "[[gate]]\nkind = \"unhealthy\"\noff = true\n";
        assert!(read(&format!("{off}[[gate]]\nkind = \"unhealthy\"\n")).is_err());
        assert!(read(&format!("{off}[[gate]]\nkind = \"rejected\"\noff = true\n")).is_ok());
        for key in [
            "percent = { over = 15, at_least = 4 }",
            "bound = { over = 15, error = 1 }",
            "sequential = { acceptable = 2, bad = 20, error = 1 }",
            "count = 3",
            "hard = 3",
            "window = \"5 min\"",
            "min_sample = 9",
            "severity = \"hold\"",
            "scopes = [\"wave\"]",
            "no_data = \"hold\"",
            "stretch = 0",
        ] {
            let error = read(&format!("{off}{key}\n")).unwrap_err().to_string();
            let name = key.split(' ').next().unwrap();
            assert!(error.starts_with(&format!("rollout.gate: unhealthy is off, and has {name}")), "{error}");
            assert!(read(&format!("[[gate]]\nkind = \"unhealthy\"\noff = false\n{key}\n")).is_ok(), "{key}");
        }
    }

    #[test]
    fn a_failure_leads_to_what_its_word_says() {
        for (word, expected) in [
            ("abort", Severity::Abort),
            ("roll-back", Severity::RollBack(Scope::All)),
            ("roll-back-failed", Severity::RollBack(Scope::Failed)),
            ("roll-back-wave", Severity::RollBackWave),
        ] {
            let all = read(&format!("[[gate]]\nkind = \"apply-failed\"\nseverity = \"{word}\"\n")).unwrap();
            let gate = of(&all, GateKind::ApplyFailed).unwrap();
            assert_eq!((gate.severity, gate.all_failed), (expected, None), "{word}");
        }
    }

    #[test]
    fn words_that_there_are_not_are_refused_with_those_that_there_are() {
        for (text, expected) in [
            ("kind = \"unwell\"", "unhealthy"),
            ("kind = \"unhealthy\"\nseverity = \"panic\"", "roll-back-wave"),
            ("kind = \"unhealthy\"\nscopes = [\"wave\", \"moon\"]", "cumulative"),
            ("kind = \"unhealthy\"\nno_data = \"fail\"", "hold"),
            ("kind = \"external\"", "told from outside"),
            ("kind = \"memory-rise\"", "told from outside"),
        ] {
            let error = read(&format!("[[gate]]\n{text}\n")).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
