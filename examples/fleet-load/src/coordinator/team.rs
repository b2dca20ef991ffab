//! The worker processes: started, told what to do, listened to, and ended with the run.

use std::{
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{ANSWER_TIMEOUT_MS, PATIENCE, Run, RunError};
use crate::{
    phase::Phase,
    report::Seen,
    worker::{News, Order, Setup},
};

/// The worker processes.
pub(super) struct Team {
    workers: Vec<(Child, Option<ChildStdin>)>,
    news: Receiver<(usize, Result<News, String>)>,
    progress: Vec<(u64, u64)>,
    drawn: bool,
}

impl Team {
    pub(super) fn start(run: &Run) -> Result<Self, RunError> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |error| RunError::Io { what, error }
        };
        let program = std::env::current_exe().map_err(io("this program"))?;
        let (sender, news) = mpsc::channel();
        let mut team = Self { workers: Vec::new(), news, progress: Vec::new(), drawn: false };
        let mut first = 0;
        for worker in 0..run.workers {
            let mut child = Command::new(&program)
                .arg("worker")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(io("starting a worker"))?;
            let stdin = child.stdin.take();
            let stdout = child.stdout.take();
            team.workers.push((child, stdin));
            if let Some(stdout) = stdout {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for line in BufReader::new(stdout).lines() {
                        let news = line
                            .map_err(|error| error.to_string())
                            .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()));
                        let end = news.is_err();
                        if sender.send((worker as usize, news)).is_err() || end {
                            return;
                        }
                    }
                    // The coordinator has ended already if nobody listens.
                    let _ =
                        sender.send((worker as usize, Err("it ended; what it said stands above".to_owned())));
                });
            }
            let agents = run.agents / run.workers + u32::from(worker < run.agents % run.workers);
            let setup = Setup {
                target: run.targets[worker as usize % run.targets.len()].clone(),
                ca: run.plan.ca.clone(),
                agent_token_file: run.plan.agent_token_file.clone(),
                seed: run.plan.seed.unwrap_or(1),
                first,
                agents,
                answer_timeout_ms: run.plan.answer_timeout_ms.unwrap_or(ANSWER_TIMEOUT_MS),
            };
            first += agents;
            team.say(worker as usize, &Order::Setup(Box::new(setup)))?;
        }
        team.progress = vec![(0, 0); team.workers.len()];
        Ok(team)
    }

    /// How many there are.
    pub(super) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Gives each worker its share.
    pub(super) fn order(&mut self, phase: &Phase) -> Result<(), RunError> {
        self.progress.fill((0, 0));
        let workers = self.workers.len() as u32;
        for worker in 0..workers {
            self.say(worker as usize, &Order::Phase(phase.share(worker, workers)))?;
        }
        Ok(())
    }

    fn say(&mut self, worker: usize, order: &Order) -> Result<(), RunError> {
        let fault = |error: io::Error| RunError::Worker { worker, fault: error.to_string() };
        let mut line = serde_json::to_vec(order).map_err(|error| fault(error.into()))?;
        line.push(b'\n');
        match &mut self.workers[worker].1 {
            Some(stdin) => stdin.write_all(&line).and_then(|()| stdin.flush()).map_err(fault),
            None => Err(fault(io::Error::from(io::ErrorKind::BrokenPipe))),
        }
    }

    pub(super) fn wait_begun(&mut self, title: &str) -> Result<(), RunError> {
        let mut left = self.workers.len();
        let deadline = Instant::now() + PATIENCE;
        while left > 0 {
            if Instant::now() > deadline {
                return Err(RunError::Worker { worker: 0, fault: "it does not begin".to_owned() });
            }
            if let Some(News::Begun) = self.next(Duration::from_millis(200), title)? {
                left -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn next(&mut self, wait: Duration, title: &str) -> Result<Option<News>, RunError> {
        match self.news.recv_timeout(wait) {
            Ok((worker, Ok(news))) => {
                if let News::Progress(done, of) = news {
                    self.progress[worker] = (done, of);
                    self.draw(title);
                }
                Ok(Some(news))
            }
            Ok((worker, Err(fault))) => Err(RunError::Worker { worker, fault }),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(RunError::Worker { worker: 0, fault: "all workers ended".to_owned() })
            }
        }
    }

    /// A bar on a terminal, nothing in a file.
    fn draw(&mut self, title: &str) {
        const WIDTH: usize = 30;
        if !io::stderr().is_terminal() {
            return;
        }
        let (done, of) = self.progress.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let share = if of == 0 { 0.0 } else { (done as f64 / of as f64).min(1.0) };
        let full = (share * WIDTH as f64) as usize;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
        eprint!("\r{title:<40} [{bar}] {:>3.0} %", share * 100.0);
        self.drawn = true;
    }

    pub(super) fn progress_done(&mut self, title: &str, seen: &Seen) {
        let start = if std::mem::take(&mut self.drawn) { "\r" } else { "" };
        let failures = if seen.failures.is_empty() {
            String::new()
        } else {
            format!("  FAILURES: {}", seen.failures.text())
        };
        eprintln!(
            "{start}{title:<40} {} agents, {} done in {:.1} s{failures}{:20}",
            seen.agents,
            seen.units,
            seen.elapsed_ns as f64 / 1e9,
            ""
        );
    }

    pub(super) fn end(mut self) -> Result<(), RunError> {
        for (worker, (child, stdin)) in self.workers.iter_mut().enumerate() {
            // The end of its input is the order to end.
            drop(stdin.take());
            let status = child
                .wait()
                .map_err(|error| RunError::Worker { worker, fault: format!("it does not end: {error}") })?;
            if !status.success() {
                return Err(RunError::Worker { worker, fault: format!("it ended with {status}") });
            }
        }
        Ok(())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for (child, stdin) in &mut self.workers {
            drop(stdin.take());
            // A worker that has ended already needs neither; one that hangs must not outlive the run.
            if !matches!(child.try_wait(), Ok(Some(_))) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
