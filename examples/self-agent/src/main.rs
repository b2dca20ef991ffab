//! The self-agent as a program: command line, signals, exit codes.

use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self_agent::cli::{self, Action};
use self_agent::config::docs;
use self_agent::sign::{make_key, sign};
use self_agent::{Config, Order, check, logging, run, warn_of_root};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Signals this close together are one: some tools send theirs to a process and to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    match perform(&cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut stderr(), &format!("self-agent: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

fn perform(action: &Action) -> Result<(), AnyError> {
    match action {
        Action::Check(file) => say(&mut stdout(), &check(file)?.to_yaml()),
        Action::ConfigDocs => say(&mut stdout(), &docs::markdown()),
        Action::MakeKey(file) => {
            make_key(file)?;
            let told = format!("private key: {0}\npublic key:  {0}.pub\n", file.display());
            say(&mut stdout(), &told);
        }
        Action::Run(file) => serve(file)?,
        Action::Sign { key, name, version, file } => {
            say(&mut stdout(), &sign(key, name, version, file)?.to_string());
        }
    }
    Ok(())
}

/// Nobody may be there to hear it, which changes nothing.
fn say(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

fn serve(file: &Path) -> Result<(), AnyError> {
    let log = logging::init(Config::load(file)?.log_level);
    warn_of_root();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (orders, received) = mpsc::channel(8);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            loop {
                let order = signals.next().await;
                if orders.send(order).await.is_err() || order == Order::Stop {
                    break;
                }
            }
            let first = Instant::now();
            while signals.next().await == Order::Reload || first.elapsed() < SAME_SIGNAL {}
            say(&mut stderr(), "self-agent: second signal, leaving at once\n");
            std::process::exit(1);
        });
        Ok(run(file, log, received).await?)
    })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.hangup.recv() => Order::Reload,
        }
    }
}
