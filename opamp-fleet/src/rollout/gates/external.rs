//! `external`: a provider gives the verdict (R37).
//!
//! The provider, a query or a webhook, is asked when a wave is evaluated, by an act with a ticket; its answer comes as a
//! reading with that ticket. An answer to an older question, a second answer, or one that nobody asked for is ignored. A
//! provider that errs or is silent for 60 s is asked again, three times in all; that it failed is an error of the
//! provider and never a failure of the rollout (R40).

use std::time::Duration;

use super::judge::Facts;
use super::{Evidence, GateConfig, NoData, ScopeAt, TestKind, Verdict};
use crate::rollout::{ExternalVerdict, GateIx, Time, WaveIx};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a provider that erred is left alone.
const PAUSE: Duration = Duration::from_secs(15);

/// How often it is asked.
const TRIES: u8 = 3;

/// One question to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    ticket: u64,
    tries: u8,
    state: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It is asked again at this time, having erred with these words.
    Erred(Time, Box<str>),
    Given(ExternalVerdict, Box<str>),
    /// It is waited for until this time.
    Open(Time),
}

impl Asked {
    pub(super) fn now(ticket: u64, now: Time) -> Self {
        Self { ticket, tries: 1, state: Answer::Open(now + PATIENCE) }
    }

    /// Takes an answer; false if it is none to the open question.
    pub(super) fn answer(&mut self, ticket: u64, verdict: ExternalVerdict, text: &str, now: Time) -> bool {
        let is_open = matches!(self.state, Answer::Open(_));
        if ticket != self.ticket || !is_open {
            return false;
        }
        let text = text[..text.floor_char_boundary(Evidence::TEXT_BYTES_MAX)].into();
        self.state = match verdict {
            ExternalVerdict::Error if self.tries < TRIES => Answer::Erred(now + PAUSE, text),
            _ => Answer::Given(verdict, text),
        };
        true
    }

    /// Its time is over: true if it is asked again, under this ticket.
    pub(super) fn ask_again(&mut self, ticket: u64, now: Time) -> bool {
        if self.tries >= TRIES {
            self.state = Answer::Given(ExternalVerdict::Error, "no answer".into());
            return false;
        }
        *self = Self { ticket, tries: self.tries + 1, state: Answer::Open(now + PATIENCE) };
        true
    }

    /// When it is asked again or given up; none once it has answered.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.state {
            Answer::Erred(at, _) | Answer::Open(at) => Some(at),
            Answer::Given(..) => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.deadline().is_some()
    }

    /// The answer, how often it was asked for, and the provider's words.
    pub(super) fn answered(&self) -> Option<(ExternalVerdict, u8, &str)> {
        match &self.state {
            Answer::Given(verdict, text) => Some((*verdict, self.tries, &**text)),
            Answer::Erred(..) | Answer::Open(_) => None,
        }
    }
}

/// What the gate says of a wave, or of all.
pub(super) fn judge(facts: &Facts<'_>, gate: GateIx, config: &GateConfig) -> Option<Evidence> {
    let wave = match facts.scope {
        ScopeAt::All => WaveIx::TAIL,
        ScopeAt::Wave(wave) => wave,
        ScopeAt::Zone(_) => return None,
    };
    let (verdict, tries, text) = match facts.readings.external(gate, wave) {
        Some(answered) => answered,
        None if facts.at_end && config.no_data == NoData::Hold => {
            return Some(facts.evidence(config, Verdict::NoData, TestKind::External));
        }
        None => return None,
    };
    let verdict = match verdict {
        ExternalVerdict::Error if config.on_error == NoData::Hold => Verdict::Error,
        ExternalVerdict::Fail => Verdict::Fail,
        ExternalVerdict::Inconclusive => Verdict::Inconclusive,
        ExternalVerdict::Error | ExternalVerdict::Pass => return None,
    };
    let is_early = !facts.at_end && verdict != Verdict::Fail;
    (!is_early).then(|| Evidence {
        blind: u32::from(tries),
        text: text.into(),
        ..facts.evidence(config, verdict, TestKind::External)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_000_000);

    fn later(seconds: u64) -> Time {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_is_taken_once_and_only_to_the_open_question() {
        let mut asked = Asked::now(7, NOW);
        assert!(!asked.answer(6, ExternalVerdict::Fail, "stale", NOW));
        assert!(asked.answer(7, ExternalVerdict::Pass, "p99 is 80 ms", later(5)));
        assert!(!asked.answer(7, ExternalVerdict::Fail, "repeated", later(6)));
        assert_eq!(asked.answered(), Some((ExternalVerdict::Pass, 1, "p99 is 80 ms")));
        assert_eq!(asked.deadline(), None);
    }

    #[test]
    fn a_silent_provider_is_asked_three_times_and_then_has_erred() {
        let mut asked = Asked::now(1, NOW);
        assert_eq!(asked.deadline(), Some(later(60)));
        assert!(asked.ask_again(2, later(60)) && asked.ask_again(3, later(120)));
        assert!(!asked.answer(1, ExternalVerdict::Fail, "to the first question", later(121)));
        assert!(!asked.ask_again(4, later(180)));
        assert_eq!(asked.answered(), Some((ExternalVerdict::Error, 3, "no answer")));
    }

    #[test]
    fn a_provider_that_errs_is_asked_again_after_a_pause() {
        let mut asked = Asked::now(1, NOW);
        assert!(asked.answer(1, ExternalVerdict::Error, "503", later(1)));
        assert_eq!((asked.deadline(), asked.is_open()), (Some(later(16)), true));
        assert!(!asked.answer(1, ExternalVerdict::Pass, "too late", later(2)));
        assert!(asked.ask_again(2, later(16)));
        assert!(asked.answer(2, ExternalVerdict::Error, "503", later(17)) && asked.ask_again(3, later(32)));
        assert!(asked.answer(3, ExternalVerdict::Error, "503 again", later(33)));
        assert_eq!(asked.answered(), Some((ExternalVerdict::Error, 3, "503 again")));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let kept = |text: &str| {
            let mut asked = Asked::now(1, NOW);
            assert!(asked.answer(1, ExternalVerdict::Fail, text, NOW));
            asked.answered().map(|(_, _, text)| text.len())
        };
        let text = "ä".repeat(200);
        assert_eq!(kept(&text), Some(256));
        assert_eq!(kept(&format!("x{text}")), Some(255));
        assert_eq!(kept("short"), Some(5));
    }
}
