//! The quality table: how often a rollout stops, and how many agents it has touched then, by fault rate and fleet size.
//!
//! Each rollout is the real engine over a model fleet. Beside it stands what is commonly done: stop as soon as more than a
//! fifth of those of a wave that have an answer failed, whatever their number.

mod options;
mod table;

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opamp_fleet::ConfigError;
use opamp_fleet::rollout::PlanError;
use opamp_fleet::rollout::stats::Ppm;

pub use options::QualityOptions;
pub use table::{BEGIN, END, Table, replaced};

use super::model::fleet::{FleetModel, agent_of};
use super::model::planned::{Planned, Subject};
use super::model::{Model, Operator, RunEnd};
use super::profiles::{Mix, Profile, ProfileError, Share, Span};

/// Longest virtual time of one rollout.
const LENGTH: Duration = Duration::from_secs(7 * 24 * 3600);
/// Rollouts that one thread takes at a time.
const PORTION: u32 = 50;
/// Above this ratio of failures the plain rule stops.
const PLAIN: Ppm = Ppm::percent(20);

/// Many rollouts of one fleet size with one fault rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Agents.
    pub fleet: u32,
    /// How many of them cannot take the new configuration.
    pub rate: Ppm,
    /// Rollouts.
    pub runs: u32,
    /// Those that were stopped or held.
    pub stopped: u32,
    /// Those of them that were held.
    pub held: u32,
    /// Those that were stopped when at most a quarter of the fleet was touched.
    pub early: u32,
    /// Agents touched when it stopped, one for each stopped rollout, ascending.
    pub touched: Vec<u32>,
    /// Rollouts that the plain rule stops.
    pub plain_stopped: u32,
    /// Those of them stopped when at most a quarter of the fleet was touched.
    pub plain_early: u32,
    /// Rollouts that came to no end: a bug.
    pub endless: u32,
}

impl Cell {
    /// Of a hundred stopped rollouts, so many touched at most this number of agents; none if none was stopped.
    #[must_use]
    pub fn touched_at(&self, percent: u32) -> Option<u32> {
        let last = self.touched.len().checked_sub(1)?;
        self.touched.get(last * percent.min(100) as usize / 100).copied()
    }

    fn add(&mut self, one: &One) {
        let is_early = |touched: u32| touched.saturating_mul(4) <= self.fleet;
        let (early, plain_early) =
            (one.stopped_after.is_some_and(is_early), one.plain_after.is_some_and(is_early));
        self.runs += 1;
        self.stopped += u32::from(one.stopped_after.is_some());
        self.held += u32::from(one.held);
        self.early += u32::from(early);
        self.touched.extend(one.stopped_after);
        self.plain_stopped += u32::from(one.plain_after.is_some());
        self.plain_early += u32::from(plain_early);
        self.endless += u32::from(one.endless);
    }

    fn absorb(&mut self, other: Self) {
        self.runs += other.runs;
        self.stopped += other.stopped;
        self.held += other.held;
        self.early += other.early;
        self.touched.extend(other.touched);
        self.touched.sort_unstable();
        self.plain_stopped += other.plain_stopped;
        self.plain_early += other.plain_early;
        self.endless += other.endless;
    }
}

/// How one rollout went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct One {
    /// Agents touched when it stopped.
    stopped_after: Option<u32>,
    held: bool,
    plain_after: Option<u32>,
    endless: bool,
}

/// Why there is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QualityError {
    /// The configuration could not be made.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The plan could not be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The fault rate is none.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// One cell: so many rollouts, the first with the seed `first`.
///
/// # Errors
/// [`QualityError`] if there is no plan for the fleet.
pub fn cell(fleet: u32, rate: Ppm, first: u64, runs: u32) -> Result<Cell, QualityError> {
    Ok(portion(&prepared(fleet, rate)?, first, runs))
}

/// All cells, by as many threads as asked for. `done` is told of each portion.
///
/// # Errors
/// [`QualityError`] if there is no plan for a fleet.
pub fn table(options: &QualityOptions, done: &(dyn Fn(u32, Ppm) + Sync)) -> Result<Table, QualityError> {
    let mut work = Vec::new();
    let mut cells = Vec::new();
    for &fleet in &options.fleets {
        for &rate in &options.rates {
            let prepared = Arc::new(prepared(fleet, rate)?);
            for begun in (0..options.runs).step_by(PORTION as usize) {
                let runs = PORTION.min(options.runs - begun);
                work.push((cells.len(), Arc::clone(&prepared), options.first + u64::from(begun), runs));
            }
            cells.push(Cell { fleet, rate, ..Cell::default() });
        }
    }
    let (next, cells) = (AtomicUsize::new(0), Mutex::new(cells));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.get() {
            scope.spawn(|| {
                while let Some((at, prepared, first, runs)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let part = portion(prepared, *first, *runs);
                    // A thread that panicked has told why; what the others counted stays right.
                    let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
                    cells[*at].absorb(part);
                    drop(cells);
                    done(prepared.fleet.agents, prepared.rate);
                }
            });
        }
    });
    let cells = cells.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Table { options: options.clone(), cells })
}

/// A fleet with its plan. The order of its members is that of one rollout; what varies by rollout is who fails, and when.
#[derive(Clone, Debug)]
struct Prepared {
    fleet: FleetModel,
    rate: Ppm,
    planned: Planned,
}

fn prepared(agents: u32, rate: Ppm) -> Result<Prepared, QualityError> {
    // Failures come sooner than successes, as they mostly do.
    prepared_with(agents, rate, Span::between(5, 40), Span::between(2, 10))
}

fn prepared_with(agents: u32, rate: Ppm, apply: Span, fails_after: Span) -> Result<Prepared, QualityError> {
    let profile = Profile::Fails { rate };
    let share = Share { profile, share: Ppm::ALL, apply, fails_after: Some(fails_after) };
    let fleet = FleetModel::plain(0, agents, Mix::new(vec![share])?);
    let subject = Subject::new(u64::from(agents), "target")?;
    let planned = Planned::make(&fleet, subject.request())?;
    Ok(Prepared { fleet, rate, planned })
}

fn portion(prepared: &Prepared, first: u64, runs: u32) -> Cell {
    let mut cell = Cell { fleet: prepared.fleet.agents, rate: prepared.rate, ..Cell::default() };
    for seed in first..first + u64::from(runs) {
        cell.add(&one(prepared, seed));
    }
    cell.touched.sort_unstable();
    cell
}

fn one(prepared: &Prepared, seed: u64) -> One {
    let fleet = FleetModel { seed, ..prepared.fleet.clone() };
    let Planned { plan, members } = prepared.planned.clone();
    let plain_after = plain(&fleet, &prepared.planned);
    let mut model = Model::new(&fleet, plan, members, Operator::default());
    let end = model.run_until_stopped(LENGTH);
    let tally = model.tally();
    One {
        stopped_after: tally.first_stop.map(|_| tally.touched),
        held: tally.held,
        plain_after,
        endless: tally.first_stop.is_none() && end != RunEnd::Ended,
    }
}

/// How many agents the plain rule has touched when it stops: wave by wave, one agent after the other.
fn plain(fleet: &FleetModel, planned: &Planned) -> Option<u32> {
    let ids = planned.members.ids();
    for wave in &planned.plan.waves {
        let mut failed = 0;
        for (done, member) in (1..).zip(wave.first..wave.end) {
            let Some(id) = ids.get(member as usize) else { continue };
            failed += u32::from(fleet.is_faulty(agent_of(id)));
            if PLAIN.is_exceeded_by(failed, done) {
                return Some(member + 1);
            }
        }
    }
    None
}

/// As many threads as the machine has cores.
#[must_use]
pub fn threads() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_without_faults_is_never_stopped() {
        let cell = cell(100, Ppm(0), 1, 20).unwrap();
        assert_eq!((cell.runs, cell.stopped, cell.plain_stopped, cell.endless), (20, 0, 0, 0));
    }

    #[test]
    fn noise_stops_no_rollout_of_a_thousand() {
        let cell = cell(1_000, Ppm(5_000), 1, 20).unwrap();
        assert_eq!((cell.stopped, cell.endless), (0, 0), "{cell:?}");
    }

    #[test]
    fn a_total_fault_touches_three_agents_of_a_thousand() {
        let cell = cell(1_000, Ppm::ALL, 1, 20).unwrap();
        assert_eq!((cell.stopped, cell.early, cell.endless), (20, 20, 0));
        assert_eq!(cell.touched_at(100), Some(3));
        assert_eq!((cell.plain_stopped, cell.plain_early), (20, 20));
    }

    #[test]
    fn a_fifth_of_faults_is_seen_within_a_quarter_of_a_thousand() {
        let cell = cell(1_000, Ppm::percent(20), 1, 20).unwrap();
        assert_eq!((cell.stopped, cell.early), (20, 20), "{cell:?}");
    }

    #[test]
    fn however_long_who_takes_noise_stops_nobody_and_a_fifth_of_faults_is_stopped() {
        let spans = [
            (Span::between(35, 36), Span::seconds(2)),
            (Span::between(5, 6), Span::between(35, 40)),
            (Span::between(5, 40), Span::between(5, 40)),
        ];
        for (apply, fails_after) in spans {
            let of = |rate| portion(&prepared_with(1_000, rate, apply, fails_after).unwrap(), 1, 15);
            let (noise, fifth) = (of(Ppm(5_000)), of(Ppm::percent(20)));
            assert_eq!((noise.stopped, noise.endless), (0, 0), "{fails_after}");
            assert_eq!((fifth.stopped, fifth.early), (15, 15), "{fails_after}: {fifth:?}");
        }
    }

    #[test]
    fn the_plain_rule_stops_at_the_first_failure_among_the_first_four() {
        let prepared = prepared(100, Ppm::percent(5)).unwrap();
        let stopped = (0..200).filter(|&seed| {
            let fleet = FleetModel { seed, ..prepared.fleet.clone() };
            plain(&fleet, &prepared.planned).is_some()
        });
        let stopped = stopped.count();
        // Waves of 5, 20, 25, 50: the chance is some 58 %, four standard errors of 200 draws are 28.
        assert!((88..=144).contains(&stopped), "{stopped}");
    }

    #[test]
    fn percentiles_are_of_stopped_rollouts_alone() {
        let cell = Cell { touched: (1..=100).collect(), stopped: 100, runs: 300, ..Cell::default() };
        assert_eq!(
            (cell.touched_at(0), cell.touched_at(50), cell.touched_at(100)),
            (Some(1), Some(50), Some(100))
        );
        assert_eq!(Cell::default().touched_at(50), None);
    }
}
