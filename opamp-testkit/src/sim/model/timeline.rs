//! A rollout over time, decimated to a bounded number of samples.

use std::fmt;

use opamp_fleet::rollout::gates::{Evidence, GateKind, Verdict};
use opamp_fleet::rollout::journal::{Entry, RolloutEntry};
use opamp_fleet::rollout::plan::WavePlan;
use opamp_fleet::rollout::preview::counted;
use opamp_fleet::rollout::{Engine, OperatorState, Reason, RolloutState, Summary, Time, WaveIx, WaveState};

use super::text::counts;

/// What happened to a rollout over time.
#[derive(Clone, Debug)]
pub struct Timeline {
    begins: Time,
    /// Names of waves that have any beside their number; as many as there are waves.
    waves: Vec<Option<Box<str>>>,
    /// At least this long between two samples, in milliseconds; doubled whenever there are too many.
    every_ms: u64,
    next: Time,
    samples: Vec<Sample>,
    marks: Vec<Mark>,
    left_off: u64,
    counted: Vec<Counted>,
}

/// What a gate counted over all waves when that was most; members that go back do not count any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The gate.
    pub gate: GateKind,
    /// Members that counted against it.
    pub bad: u32,
    /// Members that took part.
    pub of: u32,
}

/// How far it was at one moment, in operators' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Milliseconds since the rollout was planned.
    pub at_ms: u64,
    /// The wave it was at, from 1; 0 before the first.
    pub wave: u16,
    /// Its state.
    pub state: RolloutState,
    /// The state in operators' words.
    pub operator_state: OperatorState,
    /// Not pushed.
    pub pending: u32,
    /// Pushed, without an answer.
    pub applying: u32,
    /// They have it.
    pub applied: u32,
    /// They failed.
    pub failed: u32,
    /// Neither success nor failure.
    pub neutral: u32,
    /// Away, to be taken when they are back.
    pub deferred: u32,
}

/// Something worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Milliseconds since the rollout was planned.
    pub at_ms: u64,
    /// What kind of thing.
    pub kind: MarkKind,
    /// What happened.
    pub what: String,
    /// What is to be said of it: counts, or the gate's line.
    pub details: String,
}

/// What kind of thing happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// An operator did something, or would have.
    Act {
        /// What, in the words of a plan file.
        act: String,
        /// What came of it.
        answer: Answer,
    },
    /// A gate gave a verdict that matters.
    Gate(Box<Evidence>),
    /// A command that is no act of the plan was refused.
    Refused,
    /// The rollout came into a state.
    Rollout(RolloutState),
    /// An undecided wave was lent so many members of the next one, one after the other.
    Stretched(WaveIx, u32),
    /// A wave came into a state.
    Wave(WaveIx, WaveState),
}

/// What came of something that an operator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was done, and something else stops the rollout.
    StillStopped(String),
    /// It was so already.
    NoEffect,
    /// The run was over before.
    NotReached,
    /// The engine refused it, and why.
    Refused(String),
}

impl Answer {
    /// The answer in one word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Done | Self::StillStopped(_) => "done",
            Self::NoEffect => "no effect",
            Self::NotReached => "not reached",
            Self::Refused(_) => "refused",
        }
    }

    /// Why it was refused, or did not help, if it was or did not.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Refused(why) | Self::StillStopped(why) => Some(why),
            Self::Done | Self::NoEffect | Self::NotReached => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        self.why().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

impl Timeline {
    /// Most samples.
    pub const SAMPLES_MAX: usize = 2_000;
    /// Most marks. Further ones are counted, but those of the rollout's own states and of acts are kept.
    pub const MARKS_MAX: usize = 10_000;

    /// Nothing yet, of a rollout in these waves that is planned at `begins`.
    #[must_use]
    pub fn new(begins: Time, waves: &[WavePlan]) -> Self {
        let by_label = waves.iter().any(|wave| wave.ring.is_some());
        Self {
            begins,
            waves: waves.iter().map(|wave| by_label.then(|| wave.name.clone())).collect(),
            every_ms: 250,
            next: begins,
            samples: Vec::new(),
            marks: Vec::new(),
            left_off: 0,
            counted: Vec::new(),
        }
    }

    /// Samples, the earliest first, at most [`Timeline::SAMPLES_MAX`].
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Marks, the earliest first; see [`Timeline::MARKS_MAX`].
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Marks beyond those.
    #[must_use]
    pub const fn left_off(&self) -> u64 {
        self.left_off
    }

    /// What each gate counted, in the order of the plan.
    #[must_use]
    pub fn counted(&self) -> &[Counted] {
        &self.counted
    }

    /// Looks at what gates count now.
    pub(super) fn count(&mut self, engine: &Engine) {
        if self.counted.is_empty() {
            let gates = engine.counted().map(|(gate, _)| Counted { gate: gate.kind, bad: 0, of: 0 });
            self.counted = gates.collect();
        }
        for (most, (_, count)) in self.counted.iter_mut().zip(engine.counted()) {
            (most.bad, most.of) = (most.bad.max(count.bad), most.of.max(count.eligible));
        }
    }

    /// Whether it is time for a sample.
    pub(super) fn is_due(&self, now: Time) -> bool {
        now >= self.next
    }

    /// How far it is.
    pub(super) fn sample(&mut self, now: Time, engine: &Engine) {
        let sample = Sample::of(self.ms(now), engine.state(), &engine.summary(now));
        match self.samples.last_mut() {
            Some(last) if last.at_ms == sample.at_ms => *last = sample,
            _ => self.samples.push(sample),
        }
        self.next = Time(now.0.saturating_add(self.every_ms));
        if self.samples.len() >= Self::SAMPLES_MAX {
            self.thin_out();
        }
    }

    /// An entry of the journal, with the rollout as it is after it.
    pub(super) fn entry(&mut self, now: Time, entry: &Entry, engine: &Engine) {
        match entry {
            Entry::Gate(evidence) => {
                // Whom it stops the rollout for may go back at once, and does not count any more then.
                if let Some(most) = self.counted.iter_mut().find(|most| most.gate == evidence.gate) {
                    (most.bad, most.of) = (most.bad.max(evidence.bad), most.of.max(evidence.of));
                }
                if let Some(what) = gate_words(evidence.verdict) {
                    let kind = MarkKind::Gate(evidence.clone());
                    self.mark(now, kind, what.to_owned(), evidence.to_string());
                }
            }
            Entry::Rollout(change) => {
                self.sample(now, engine);
                let details = rollout_details(change, &engine.summary(now));
                self.mark(now, MarkKind::Rollout(change.to), rollout_words(change), details);
            }
            Entry::Wave { wave, to, reason, .. } => {
                self.sample(now, engine);
                let Some(words) = wave_words(*to) else { return };
                if self.is_old_news(*wave, *to, *reason) {
                    return;
                }
                let what = format!("{} {words}", self.named(*wave));
                let details = wave_details(*to, *reason, &engine.summary(now));
                self.mark(now, MarkKind::Wave(*wave, *to), what, details);
            }
            Entry::Stretched { wave, by } => self.stretched(now, *wave, u32::from(*by)),
            _ => {}
        }
    }

    /// The wave in words: `wave 1 of 3 (inner)`.
    fn named(&self, wave: WaveIx) -> String {
        if wave == WaveIx::TAIL {
            return "late joiners".to_owned();
        }
        let name = self.waves.get(wave.index()).and_then(Option::as_deref);
        let name = name.map_or_else(String::new, |name| format!(" ({name})"));
        format!("wave {} of {}{name}", wave.index() + 1, self.waves.len())
    }

    /// Whether a wave that is dispatched was that already, as far as anybody was told: while it settles a member is tried again,
    /// or it is lent one.
    fn is_old_news(&self, wave: WaveIx, to: WaveState, reason: Reason) -> bool {
        let goes_on = matches!(reason, Reason::MemberQueuedAgain | Reason::Stretched);
        let told = self.marks.iter().rev().find_map(|mark| match mark.kind {
            MarkKind::Wave(of, state) if of == wave => Some(state),
            MarkKind::Stretched(of, _) if of == wave => Some(WaveState::Dispatching),
            _ => None,
        });
        to == WaveState::Dispatching && goes_on && told == Some(WaveState::Dispatching)
    }

    /// One line for a wave that is lent one member after the other.
    fn stretched(&mut self, now: Time, wave: WaveIx, by: u32) {
        let words = |all: u32| {
            let members = counted(all, "member");
            format!("undecided: {members} of the next wave joined it, one after the other")
        };
        if let Some(Mark { kind: MarkKind::Stretched(of, all), details, .. }) = self.marks.last_mut()
            && *of == wave
        {
            *all += by;
            *details = words(*all);
            return;
        }
        let what = format!("{} stretched", self.named(wave));
        self.mark(now, MarkKind::Stretched(wave, by), what, words(by));
    }

    /// An operator's act. Its line stands before those of what comes of it, which [`Timeline::answered`] is told then.
    pub(super) fn act(&mut self, at: Time, act: String, answer: Answer) {
        let (what, details) = (format!("operator: {act}"), answer.to_string());
        self.mark(at, MarkKind::Act { act, answer }, what, details);
    }

    /// What came of the last act.
    pub(super) fn answered(&mut self, answered: Answer) {
        for mark in self.marks.iter_mut().rev() {
            if let MarkKind::Act { answer, .. } = &mut mark.kind {
                mark.details = answered.to_string();
                *answer = answered;
                return;
            }
        }
    }

    /// A command that was refused.
    pub(super) fn refused(&mut self, now: Time, why: String) {
        self.mark(now, MarkKind::Refused, "refused".to_owned(), why);
    }

    fn mark(&mut self, now: Time, kind: MarkKind, what: String, details: String) {
        // What becomes of the rollout is told to its end, and what operators do.
        let is_kept = matches!(kind, MarkKind::Act { .. } | MarkKind::Rollout(_));
        if self.marks.len() < Self::MARKS_MAX || is_kept {
            let at_ms = self.ms(now);
            self.marks.push(Mark { at_ms, kind, what, details });
        } else {
            self.left_off += 1;
        }
    }

    /// Keeps every second sample, and takes them half as often from now on.
    fn thin_out(&mut self) {
        let mut at = 0;
        self.samples.retain(|_| {
            at += 1;
            at % 2 == 1
        });
        self.every_ms *= 2;
        let last = self.samples.last().map_or(0, |sample| sample.at_ms);
        self.next = Time(self.begins.0.saturating_add(last).saturating_add(self.every_ms));
    }

    fn ms(&self, now: Time) -> u64 {
        now.0.saturating_sub(self.begins.0)
    }
}

impl Sample {
    fn of(at_ms: u64, state: RolloutState, summary: &Summary) -> Self {
        Self {
            at_ms,
            wave: summary.batch,
            state,
            operator_state: summary.state,
            pending: summary.pending,
            applying: summary.applying,
            applied: summary.applied,
            failed: summary.failed,
            neutral: summary.neutral,
            deferred: summary.deferred,
        }
    }
}

fn rollout_words(change: &RolloutEntry) -> String {
    match (change.to, change.pause) {
        (RolloutState::Paused, Some(pause)) => format!("paused ({pause})"),
        (RolloutState::RollingBack, _) => "rolling back".to_owned(),
        (to, _) => to.to_string(),
    }
}

fn rollout_details(change: &RolloutEntry, summary: &Summary) -> String {
    change.evidence.as_ref().map_or_else(|| counts(summary), Evidence::to_string)
}

/// What a wave's state is called in a line; none if it is not worth one.
const fn wave_words(state: WaveState) -> Option<&'static str> {
    Some(match state {
        WaveState::Waiting => "waits",
        WaveState::Dispatching => "dispatching",
        WaveState::Soaking => "settled",
        WaveState::Held => "held",
        WaveState::Passed => "passed",
        WaveState::Failed => "failed",
        WaveState::Skipped => "skipped",
        WaveState::Pending | WaveState::Settling | WaveState::Evaluating => return None,
    })
}

fn wave_details(state: WaveState, reason: Reason, summary: &Summary) -> String {
    match (state, reason, &summary.stopped_by) {
        (WaveState::Waiting, _, _) => format!("for {}", awaited(reason)),
        (WaveState::Held, _, Some(line)) => line.clone(),
        (WaveState::Dispatching, Reason::MemberQueuedAgain, _) => "a member is tried again".to_owned(),
        (WaveState::Dispatching, Reason::Operator, _) => "an operator began it".to_owned(),
        (WaveState::Dispatching, Reason::Approved, _) => "an operator approved it".to_owned(),
        (WaveState::Dispatching, Reason::Window, _) => "its window has opened".to_owned(),
        (WaveState::Dispatching, Reason::Freeze, _) => "the freeze is over".to_owned(),
        _ => counts(summary),
    }
}

/// What a wave waits for.
fn awaited(reason: Reason) -> String {
    let words = match reason {
        Reason::Approval => "an approval",
        Reason::Budget => "room in a budget",
        Reason::Freeze => "the end of a freeze",
        Reason::Manual => "somebody to begin it",
        Reason::Window => "its window",
        other => return other.to_string(),
    };
    words.to_owned()
}

/// What is said of a gate's verdict; nothing if all is well.
const fn gate_words(verdict: Verdict) -> Option<&'static str> {
    Some(match verdict {
        Verdict::Error => "gate has no answer",
        Verdict::Fail => "gate fails",
        Verdict::Inconclusive => "gate is undecided",
        Verdict::NoData => "gate has no data",
        Verdict::Pass => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            state: OperatorState::InProgress,
            batch: 1,
            batches: 4,
            pending: 10,
            applying: 2,
            applied: 0,
            failed: 1,
            disconnected_since_push: 0,
            neutral: 0,
            deferred: 3,
            total: 13,
            per_minute: 0,
            stopped_by: None,
            texts: Vec::new(),
        }
    }

    #[test]
    fn a_stretched_wave_has_one_line_however_many_it_is_lent() {
        let mut timeline = Timeline::new(Time(0), &[]);
        for second in 0..3 {
            timeline.stretched(Time(second), WaveIx(0), 1);
        }
        timeline.stretched(Time(9), WaveIx(1), 1);
        let details: Vec<&str> = timeline.marks().iter().map(|mark| &*mark.details).collect();
        assert_eq!(
            details,
            [
                "undecided: 3 members of the next wave joined it, one after the other",
                "undecided: 1 member of the next wave joined it, one after the other"
            ]
        );
    }

    #[test]
    fn how_it_ended_is_told_however_much_happened_before() {
        let mut timeline = Timeline::new(Time(0), &[]);
        for _ in 0..=Timeline::MARKS_MAX {
            timeline.mark(Time(0), MarkKind::Refused, String::new(), String::new());
        }
        timeline.act(Time(8), "roll-back".to_owned(), Answer::Done);
        timeline.mark(Time(9), MarkKind::Rollout(RolloutState::RolledBack), String::new(), String::new());
        assert_eq!((timeline.marks().len(), timeline.left_off()), (Timeline::MARKS_MAX + 2, 1));
        assert_eq!(timeline.marks().last().unwrap().at_ms, 9);
    }

    #[test]
    fn a_wave_that_is_dispatched_already_is_not_told_again() {
        let mut timeline = Timeline::new(Time(0), &[]);
        let again = |timeline: &Timeline| {
            timeline.is_old_news(WaveIx(0), WaveState::Dispatching, Reason::MemberQueuedAgain)
        };
        timeline.mark(
            Time(0),
            MarkKind::Wave(WaveIx(0), WaveState::Dispatching),
            String::new(),
            String::new(),
        );
        assert!(again(&timeline));
        assert!(!timeline.is_old_news(WaveIx(0), WaveState::Dispatching, Reason::Window));
        timeline.mark(Time(1), MarkKind::Wave(WaveIx(0), WaveState::Soaking), String::new(), String::new());
        assert!(!again(&timeline), "it had settled: its dwell begins anew");
    }

    #[test]
    fn samples_are_thinned_out_evenly_and_stay_within_their_bound() {
        let mut timeline = Timeline::new(Time(1_000), &[]);
        let mut now = Time(1_000);
        for _ in 0..10 * Timeline::SAMPLES_MAX {
            if timeline.is_due(now) {
                let sample = Sample::of(timeline.ms(now), RolloutState::Running, &summary());
                timeline.samples.push(sample);
                timeline.next = Time(now.0 + timeline.every_ms);
                if timeline.samples.len() >= Timeline::SAMPLES_MAX {
                    timeline.thin_out();
                }
            }
            now = Time(now.0 + 250);
        }
        let samples = timeline.samples();
        assert!((Timeline::SAMPLES_MAX / 2..Timeline::SAMPLES_MAX).contains(&samples.len()));
        assert_eq!(samples[0].at_ms, 0);
        let steps: Vec<u64> = samples.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
        assert!(steps.iter().all(|step| *step == steps[0]), "{steps:?}");
    }

    #[test]
    fn who_is_deferred_is_not_counted_as_neutral() {
        let sample = Sample::of(0, RolloutState::Running, &summary());
        assert_eq!((sample.neutral, sample.deferred), (0, 3));
    }

    #[test]
    fn a_wait_says_what_for() {
        assert_eq!(wave_details(WaveState::Waiting, Reason::Manual, &summary()), "for somebody to begin it");
        assert_eq!(wave_details(WaveState::Soaking, Reason::AllSettled, &summary()), counts(&summary()));
    }
}
