//! One run of a plan over its fleet.

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::rollout::gates::GateKind;
use opamp_fleet::rollout::plan::Plan;
use opamp_fleet::rollout::preview::{CurrentMeaning, Preview, PreviewLimits, preview, semantic};
use opamp_fleet::rollout::{MemberState, PlanError, RolloutState, Summary, Time, Why};
use opamp_proto::Fingerprint;
use opamp_testkit::sim::model::fleet::FleetModel;
use opamp_testkit::sim::model::planned::Planned;
use opamp_testkit::sim::model::timeline::{Mark, MarkKind, Timeline};
use opamp_testkit::sim::model::{Model, RunEnd, Tally};

use crate::input::Files;
use crate::{Input, InputError};

/// How often progress is told: so much virtual time.
const PORTION: Duration = Duration::from_secs(600);
/// How long a rollout is looked at that waits for somebody who is not going to come.
const REST: Duration = Duration::from_secs(3_600);

/// A plan, and what came of it.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What could be said of it beforehand.
    pub preview: Preview,
    /// What it changes in configurations of the Collector, of those that are in files.
    pub meanings: Vec<CurrentMeaning>,
    /// What happened.
    pub timeline: Timeline,
    /// What was counted.
    pub tally: Tally,
    /// What each gate counted over all waves, and how often it spoke, in the order of the plan.
    pub gates: Vec<GateCounts>,
    /// Members that went back to what they ran before.
    pub rolled_back: u32,
    /// The rollout at the end.
    pub summary: Summary,
    /// Its state at the end.
    pub state: RolloutState,
    /// Why the run is over.
    pub end: RunEnd,
    /// Why the rollout does not move, if it has not ended.
    pub why: Option<Why>,
    /// When it was planned.
    pub begins: Time,
    /// How much virtual time it took; if that was over before the rollout, how long was looked.
    pub length: Duration,
}

/// What a gate counted over all waves, when that was most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateCounts {
    /// Which gate.
    pub kind: GateKind,
    /// Members that count against it.
    pub bad: u32,
    /// Members that take part.
    pub of: u32,
    /// Members that cannot say anything to it.
    pub blind: u32,
    /// How often it failed, was undecided, or had nothing to go by.
    pub verdicts: u32,
}

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The plan file is refused.
    #[error(transparent)]
    Input(#[from] InputError),
    /// There is no plan for this fleet.
    #[error("no plan: {error}{remedy}", error = .0, remedy = remedy(.0))]
    Plan(#[from] PlanError),
}

/// What to change in the plan file, where that is not said with what is wrong.
fn remedy(error: &PlanError) -> &'static str {
    match error {
        PlanError::NoMembers { excluded: 0 } => {
            ": rollout.selector matches nobody who is there at the beginning"
        }
        PlanError::OverrideNeeded => ": say in rollout.reason why",
        PlanError::WindowPastDwell { .. } => {
            ": give the wave a longer dwell or the gate a shorter window, or set rollout.fit to \"stretch\""
        }
        _ => "",
    }
}

impl Simulation {
    /// Makes the plan and runs it, with what stands in the files that it names. `progress` is told of the time passed and of the rollout, now and then.
    ///
    /// # Errors
    /// [`SimulationError`] if the file is refused, or there is no plan for its fleet.
    pub fn run(
        input: &Input,
        files: &Files,
        progress: &mut dyn FnMut(Duration, &Summary),
    ) -> Result<Self, SimulationError> {
        input.check_labels()?;
        let fleet = FleetModel { bodies: files.before.clone(), ..input.fleet()? };
        let operator = input.operator()?;
        let mut subject = input.rollout.subject(input.seed)?;
        if let Some(target) = &files.target {
            subject = subject.with_config(target.clone());
        }
        let request = input.rollout.request(&subject, fleet.begins)?;
        let Planned { plan, members } = Planned::make(&fleet, request)?;
        let (configs, limits) = (|config: Fingerprint| files.config(config), PreviewLimits::default());
        let meanings = semantic(&plan, &members, &configs, &limits);
        let preview = preview(&plan, &members, &configs, &limits);
        let mut model = Model::new(&fleet, Arc::clone(&plan), members, operator);
        model.watch();
        let (whole, mut until) = (input.length(), Duration::ZERO);
        let end = loop {
            until = (until + PORTION).min(whole);
            match model.run(until) {
                RunEnd::Time if until < whole => progress(until, &model.summary()),
                end => break end,
            }
            let waits_since = model.waits_for_people().map(|why| why.since.since(fleet.begins));
            if waits_since.is_some_and(|since| since + REST <= until) {
                break RunEnd::Waits;
            }
        };
        model.give_up_acts();
        let timeline = model.timeline().cloned().unwrap_or_else(|| Timeline::new(fleet.begins, &[]));
        let rolled_back = model.engine().touched().filter(|(_, state)| *state == MemberState::RolledBack);
        Ok(Self {
            gates: gate_counts(&preview, &timeline),
            rolled_back: u32::try_from(rolled_back.count()).unwrap_or(u32::MAX),
            timeline,
            preview,
            meanings,
            tally: model.tally(),
            summary: model.summary(),
            state: model.engine().state(),
            length: if end == RunEnd::Time { whole } else { model.passed() },
            why: (end != RunEnd::Ended).then(|| model.why()),
            begins: fleet.begins,
            end,
            plan,
        })
    }

    /// Time from the first agent that was sent a fault to the first stop; none if there was no fault, or no stop after it.
    #[must_use]
    pub fn time_to_detect(&self) -> Option<Duration> {
        let (fault, stop) = (self.tally.first_fault?, self.tally.first_stop?);
        (fault <= stop).then(|| stop.since(fault))
    }

    /// Time from the beginning of the rollback to the end.
    #[must_use]
    pub fn time_to_roll_back(&self) -> Option<Duration> {
        Some(self.tally.ended_at?.since(self.tally.rolls_back_at?))
    }
}

fn gate_counts(preview: &Preview, timeline: &Timeline) -> Vec<GateCounts> {
    let blind =
        |kind: GateKind| preview.blind.iter().find(|(_, gate, _)| *gate == kind).map_or(0, |one| one.2);
    let verdicts = |kind: GateKind| {
        let is_of = |mark: &&Mark| matches!(&mark.kind, MarkKind::Gate(evidence) if evidence.gate == kind);
        u32::try_from(timeline.marks().iter().filter(is_of).count()).unwrap_or(u32::MAX)
    };
    let counts = timeline.counted().iter().map(|most| GateCounts {
        kind: most.gate,
        bad: most.bad,
        of: most.of,
        blind: blind(most.gate),
        verdicts: verdicts(most.gate),
    });
    counts.collect()
}
