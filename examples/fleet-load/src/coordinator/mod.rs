//! The process that starts workers, gives them their share of each phase, pushes configs, and measures the server meanwhile.

mod team;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use self::team::Team;
use crate::{
    control::{Control, ControlError},
    phase::{Phase, PhaseError},
    plan::Plan,
    process::{CpuTime, Meter},
    report::{Line, Seen},
    target::{Target, TargetError},
    worker::{AGENTS_MAX, News},
};

/// How much longer than planned a phase may take before its workers are given up.
const PATIENCE: Duration = Duration::from_secs(420);
/// How long the last answers of a phase are waited for, if nothing else is said.
const ANSWER_TIMEOUT_MS: u64 = 10_000;
/// Memory samples in one phase, and how far they are apart at least.
const SAMPLES_MAX: usize = 120;
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A run that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command line or the plan lacks something, or two of them do not fit.
    #[error("{0}")]
    Usage(String),
    /// A phase is not understood.
    #[error(transparent)]
    Phase(#[from] PhaseError),
    /// A target is not understood, or not allowed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The config cannot be brought to the server.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A worker ended, or said something that is no news.
    #[error("worker {worker}: {fault}")]
    Worker {
        /// Which.
        worker: usize,
        /// What is wrong.
        fault: String,
    },
    /// A file or process.
    #[error("{what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// What is wrong.
        error: io::Error,
    },
}

/// A run that is understood and can start.
#[derive(Debug)]
pub struct Run {
    phases: Vec<Phase>,
    targets: Vec<Target>,
    meters: Vec<Meter>,
    controls: Vec<Control>,
    workers: u32,
    agents: u32,
    plan: Plan,
}

impl Run {
    /// Checks a plan. Names are resolved and processes looked up; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`RunError`] for whatever does not make sense, before any load.
    pub fn new(plan: Plan) -> Result<Self, RunError> {
        let usage = |text: &str| Err(RunError::Usage(text.to_owned()));
        if plan.target.is_empty() {
            return usage("no server is named: add --target ws://127.0.0.1:4320/v1/opamp");
        }
        if plan.phases.is_empty() {
            return usage(
                "there is nothing to do: add phases, such as --phase connect:agents=1000 --phase idle",
            );
        }
        let targets: Vec<Target> =
            plan.target.iter().map(|url| Target::new(url, plan.allow_remote)).collect::<Result<_, _>>()?;
        let phases: Vec<Phase> = plan.phases.iter().map(|phase| phase.parse()).collect::<Result<_, _>>()?;
        if !matches!(phases[0], Phase::Connect { .. }) {
            return usage("the first phase has to be connect:agents=N");
        }
        let agents = phases
            .iter()
            .filter_map(|phase| if let Phase::Connect { agents, .. } = phase { Some(*agents) } else { None })
            .max()
            .unwrap_or(0);
        let servers = targets.len() as u32;
        let needed = agents.div_ceil(AGENTS_MAX).max(servers).next_multiple_of(servers);
        let workers = plan.workers.unwrap_or(needed);
        if !workers.is_multiple_of(servers) || agents.div_ceil(workers.max(1)) > AGENTS_MAX || workers == 0 {
            return Err(RunError::Usage(format!(
                "{agents} agents on {servers} servers need a multiple of {servers} worker processes with at most {AGENTS_MAX} agents each, \
                 not {workers}; leave --workers out or give {needed}"
            )));
        }
        let pushes = phases.iter().any(|phase| matches!(phase, Phase::Push { .. }));
        if pushes && plan.control.len() != targets.len() {
            return usage(
                "push needs a way to bring configs to the server: add --control rest+http://127.0.0.1:4321 \
                 (or plain+http://…) for each --target",
            );
        }
        if !plan.pid.is_empty() && plan.pid.len() != targets.len() {
            return usage("give one --pid for each --target, in the same order, or none at all");
        }
        let controls = plan
            .control
            .iter()
            .map(|url| {
                Control::new(url, plan.admin_token_file.as_deref(), plan.seed.unwrap_or(1), plan.allow_remote)
            })
            .collect::<Result<_, _>>()?;
        let meters = plan
            .pid
            .iter()
            .map(|pid| {
                Meter::new(*pid)
                    .map_err(|error| RunError::Io { what: format!("process {pid} (--pid)"), error })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { phases, targets, meters, controls, workers, agents, plan })
    }

    /// Runs all phases and returns a line for each.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot go on. Failures between agents and server are in the lines.
    pub fn run(mut self) -> Result<Vec<Line>, RunError> {
        let mut json = self.open_json()?;
        let mut team = Team::start(&self)?;
        let before = self.rss()?;
        let mut lines = Vec::new();
        for (at, phase) in self.phases.clone().iter().enumerate() {
            let title = format!("[{}/{}] {phase}", at + 1, self.phases.len());
            let line = self.phase(&mut team, phase, &title, before)?;
            if let Some((file, path)) = &mut json {
                let text = serde_json::to_string(&line).map_err(io::Error::from).and_then(|text| {
                    writeln!(file, "{text}")?;
                    file.flush()
                });
                text.map_err(|error| RunError::Io { what: path.display().to_string(), error })?;
            }
            lines.push(line);
        }
        team.end()?;
        Ok(lines)
    }

    fn phase(
        &mut self,
        team: &mut Team,
        phase: &Phase,
        title: &str,
        before: Option<u64>,
    ) -> Result<Line, RunError> {
        let cpu_before = self.cpu()?;
        let started = Instant::now();
        team.order(phase)?;
        let mut told = None;
        if let Phase::Push { bytes, .. } = phase {
            team.wait_begun(title)?;
            let mut all = 0;
            for control in &mut self.controls {
                all += control.push(*bytes)?;
            }
            told = Some(all);
        }
        let (mut seen, rss_samples) = self.attend(team, phase, title, started)?;
        let cpu_after = self.cpu()?;
        let seconds = if phase.unit() == "second" || seen.elapsed_ns == 0 {
            started.elapsed().as_secs_f64()
        } else {
            seen.elapsed_ns as f64 / 1e9
        };
        let rss = self.rss()?;
        team.progress_done(title, &seen);
        if let Some(told) = told {
            seen.counts.add_n("told", told);
            seen.failures.add_n("not_told", seen.agents.saturating_sub(told));
            self.confirm(&mut seen)?;
        }
        let cpu = (!cpu_before.is_empty()).then(|| {
            cpu_after.iter().zip(&cpu_before).map(|(after, before)| after.seconds_since(before)).sum()
        });
        let units = if phase.unit() == "second" { seconds } else { seen.units as f64 };
        let per_agent = match (rss, before) {
            (Some(rss), Some(before)) if seen.agents > 0 => {
                Some(round((rss as f64 - before as f64) / seen.agents as f64, 1))
            }
            _ => None,
        };
        Ok(Line {
            server: self.plan.server.clone().unwrap_or_else(|| "server".to_owned()),
            round: self.plan.round.unwrap_or(1),
            phase: phase.to_string(),
            unit: phase.unit().to_owned(),
            agents: seen.agents,
            messages: seen.units,
            seconds: round(seconds, 6),
            server_cpu_s: cpu.map(|cpu| round(cpu, 9)),
            cpu_us_per_unit: cpu.filter(|_| units > 0.0).map(|cpu: f64| round(cpu * 1e6 / units, 3)),
            rss_bytes: rss,
            rss_per_agent: per_agent,
            rss_samples,
            latency_us: seen.latency.percentiles(),
            late_us: seen.late.percentiles(),
            since_start_us: seen.since_start.percentiles(),
            failures: seen.failures,
            counts: seen.counts,
        })
    }

    /// Listens to the workers until all have ended the phase, and samples the server's memory meanwhile if that is of interest.
    fn attend(
        &self,
        team: &mut Team,
        phase: &Phase,
        title: &str,
        started: Instant,
    ) -> Result<(Seen, Vec<(f64, u64)>), RunError> {
        let sampled = matches!(
            phase,
            Phase::Announce { .. } | Phase::Hold { .. } | Phase::Reconnect { .. } | Phase::Settle { .. }
        );
        let interval = SAMPLE_INTERVAL.max(Duration::from_secs_f64(phase.secs() / SAMPLES_MAX as f64));
        let deadline = started + Duration::from_secs_f64(phase.secs()) + PATIENCE;
        let mut next_sample = started;
        let mut samples = Vec::new();
        let mut seen = Seen::default();
        let mut at_work = team.size();
        while at_work > 0 {
            let now = Instant::now();
            if now > deadline {
                return Err(RunError::Worker { worker: 0, fault: format!("{phase} does not end") });
            }
            if sampled && now >= next_sample {
                next_sample += interval;
                if let Some(rss) = self.rss()? {
                    samples.push((round((now - started).as_secs_f64(), 3), rss));
                }
            }
            match team.next(Duration::from_millis(200), title)? {
                Some(News::Ended(part)) => {
                    seen.merge(&part);
                    at_work -= 1;
                }
                Some(News::Begun | News::Progress(..)) | None => {}
            }
        }
        Ok((seen, samples))
    }

    /// What the servers themselves say of a push has to agree with what the agents saw.
    fn confirm(&mut self, seen: &mut Seen) -> Result<(), RunError> {
        let servers = self.controls.len() as u64;
        let mut confirmed = None;
        for control in &mut self.controls {
            seen.counts.merge(&control.counts());
            // Agents are spread evenly, so this is what each has at least.
            if let Some(in_sync) = control.confirmed(seen.units / servers)? {
                *confirmed.get_or_insert(0) += in_sync;
            }
        }
        if let Some(confirmed) = confirmed {
            seen.counts.add_n("in_sync_says_the_server", confirmed);
            seen.failures.add_n("applied_but_not_in_sync", seen.units.saturating_sub(confirmed));
        }
        Ok(())
    }

    fn open_json(&self) -> Result<Option<(File, PathBuf)>, RunError> {
        let Some(path) = &self.plan.json else { return Ok(None) };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file =
            file.map_err(|error| RunError::Io { what: format!("{} (--json)", path.display()), error })?;
        Ok(Some((file, path.clone())))
    }

    fn cpu(&self) -> Result<Vec<CpuTime>, RunError> {
        self.meters.iter().map(|meter| meter.cpu().map_err(gone)).collect()
    }

    fn rss(&self) -> Result<Option<u64>, RunError> {
        if self.meters.is_empty() {
            return Ok(None);
        }
        let all: Result<Vec<u64>, RunError> =
            self.meters.iter().map(|meter| meter.rss_bytes().map_err(gone)).collect();
        Ok(Some(all?.iter().sum()))
    }
}

fn gone(error: io::Error) -> RunError {
    RunError::Io { what: "the server's process is gone".to_owned(), error }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
