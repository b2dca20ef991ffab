//! `[[act]]`: what an operator does at a time.

use opamp_fleet::rollout::gates::{GateConfig, GateKind};
use opamp_fleet::rollout::{Do, GateIx, Resume};
use opamp_testkit::sim::model::{ACTS, act_named};
use serde::Deserialize;

use super::gates::{PercentTest, word};
use super::{InputError, Length};

/// Acts that need more than a word, and which keys they need.
const WITH_KEYS: [(&str, &[&str]); 4] =
    [("waive", &["gate"]), ("raise", &["gate", "percent"]), ("skip-gate", &["gate"]), ("extend", &["by"])];

/// Something an operator does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// When, since the rollout was planned.
    pub at: Length,
    /// What, as a word.
    #[serde(rename = "do")]
    pub wanted: String,
    /// By how much a dwell or the bake is to last longer.
    pub by: Option<Length>,
    /// Which gate it is about.
    pub gate: Option<String>,
    /// What the gate goes by from then on.
    pub percent: Option<PercentTest>,
}

impl Act {
    /// The words of all acts.
    pub fn words() -> impl Iterator<Item = &'static str> {
        ACTS.into_iter().chain(WITH_KEYS.into_iter().map(|(word, _)| word))
    }

    /// The command, in a rollout with these gates.
    pub(super) fn command(&self, gates: &[GateConfig]) -> Result<Do, InputError> {
        self.check_keys()?;
        let gate = self.gate.as_deref().map(|text| position(text, gates)).transpose()?;
        Ok(match (&*self.wanted, gate, self.by, self.percent) {
            ("extend", _, Some(by), _) => Do::Extend { by: by.0 },
            ("raise", Some(gate), _, Some(PercentTest { over, at_least })) => {
                Do::Resume(Resume::Raise { gate, over: over.0, count: at_least })
            }
            ("skip-gate", Some(gate), ..) => Do::SkipGate { gate, wave: None },
            ("waive", Some(gate), ..) => Do::Resume(Resume::Waive { gate }),
            (word, ..) => return act_named(word).ok_or_else(|| unknown(word)),
        })
    }

    /// Each act has the keys that it needs, and no others.
    fn check_keys(&self) -> Result<(), InputError> {
        let wanted = &*self.wanted;
        if !Self::words().any(|word| word == wanted) {
            return Err(unknown(wanted));
        }
        let needed = WITH_KEYS.iter().find(|(word, _)| *word == wanted).map_or(&[][..], |(_, keys)| keys);
        let given =
            [("by", self.by.is_some()), ("gate", self.gate.is_some()), ("percent", self.percent.is_some())];
        for (key, is_given) in given {
            match (needed.contains(&key), is_given) {
                (true, false) => return Err(InputError::value("act", format!("{wanted} needs {key}"))),
                (false, true) => return Err(InputError::value("act", format!("{wanted} has no {key}"))),
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }
}

/// Which of the gates it is.
fn position(text: &str, gates: &[GateConfig]) -> Result<GateIx, InputError> {
    let kind = word::<GateKind>("act.gate", text)?;
    let at = gates.iter().position(|gate| gate.kind == kind);
    at.and_then(|at| u8::try_from(at).ok())
        .map(GateIx)
        .ok_or_else(|| InputError::value("act.gate", format!("the rollout has no gate {kind}")))
}

fn unknown(word: &str) -> InputError {
    let words: Vec<&str> = Act::words().collect();
    InputError::value("act.do", format!("there is no act {word}; use one of {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opamp_fleet::rollout::gates::defaults;
    use opamp_fleet::rollout::stats::Ppm;

    use super::*;

    fn act(text: &str) -> Result<Do, InputError> {
        let act: Act = toml::from_str(&format!("at = \"5 min\"\n{text}")).unwrap();
        act.command(&defaults())
    }

    #[test]
    fn acts_that_need_more_than_a_word_have_keys() {
        let gate = defaults().iter().position(|gate| gate.kind == GateKind::Unhealthy).unwrap();
        let gate = GateIx(u8::try_from(gate).unwrap());
        let raise = "do = \"raise\"\ngate = \"unhealthy\"\npercent = { over = 30, at_least = 5 }";
        for (text, expected) in [
            ("do = \"pause\"", Do::Pause),
            ("do = \"skip\"", Do::Resume(Resume::Skip)),
            ("do = \"extend\"\nby = \"10 min\"", Do::Extend { by: Duration::from_secs(600) }),
            ("do = \"waive\"\ngate = \"unhealthy\"", Do::Resume(Resume::Waive { gate })),
            ("do = \"skip-gate\"\ngate = \"unhealthy\"", Do::SkipGate { gate, wave: None }),
            (raise, Do::Resume(Resume::Raise { gate, over: Ppm::percent(30), count: 5 })),
        ] {
            assert_eq!(act(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn keys_that_are_missing_or_too_many_are_told() {
        for (text, expected) in [
            ("do = \"stop\"", "act.do: there is no act stop; use one of pause, resume"),
            ("do = \"waive\"", "act: waive needs gate"),
            ("do = \"pause\"\ngate = \"unhealthy\"", "act: pause has no gate"),
            ("do = \"raise\"\ngate = \"unhealthy\"", "act: raise needs percent"),
            ("do = \"waive\"\ngate = \"external\"", "act.gate: the rollout has no gate external"),
            ("do = \"waive\"\ngate = \"health\"", "act.gate: `health` is no gate"),
        ] {
            let error = act(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
