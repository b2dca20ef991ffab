//! The reference server as a program: command line, signals, exit codes.

use std::{
    io::{self, Write as _, stderr, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use reference_server::{
    Config, Server,
    cli::{self, Action},
    config::docs,
    logging, offline, openapi_document, process, welcome,
};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reference-server: {error}");
            ExitCode::FAILURE
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

fn run() -> Result<ExitCode, AnyError> {
    let (action, inputs) = cli::parse();
    match action {
        Action::ConfigDocs => print!("{}", docs::markdown()),
        Action::OpenApi => println!("{}", openapi_document()),
        Action::PrintConfig => print!("{}", Config::load(&inputs)?.to_toml()),
        Action::Serve => return serve(Config::load(&inputs)?),
        Action::Token(action) => {
            let config = Config::load(&inputs)?;
            print!("{}", on_runtime(async { (offline::tokens(&config, action).await, LINGER) })??);
        }
        Action::Version => println!("reference-server {}", env!("CARGO_PKG_VERSION")),
        _ => return Err("this command is not implemented".into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// How long what still blocks a thread is waited for once everything is done, such as a file being saved.
const LINGER: Duration = Duration::from_secs(1);

/// Runs something to its end, and waits no longer than it says for threads that it leaves behind: one that asks a disk
/// which does not answer must not keep the process.
fn on_runtime<T>(work: impl Future<Output = (T, Duration)>) -> io::Result<T> {
    let runtime = Runtime::new()?;
    let (outcome, linger) = runtime.block_on(work);
    runtime.shutdown_timeout(linger);
    Ok(outcome)
}

fn serve(config: Config) -> Result<ExitCode, AnyError> {
    logging::init(&config.log)?;
    process::raise_open_files();
    let limit = config.server.shutdown_timeout;
    on_runtime(async {
        let mut stopping = None;
        let outcome = run_server(config, &mut stopping).await;
        let left = stopping.map_or(LINGER, |since: Instant| limit.saturating_sub(since.elapsed()));
        (outcome, left.min(LINGER))
    })?
}

/// Notes when it begins to stop.
async fn run_server(config: Config, stopping: &mut Option<Instant>) -> Result<ExitCode, AnyError> {
    let mut signals = Signals::new()?;
    let mut server = Server::start(config).await?;
    // Nobody may be there to read it, which is no reason to end.
    let _ = write!(stdout(), "{}", welcome::text(&server)).and_then(|()| stdout().flush());
    loop {
        tokio::select! {
            order = signals.next() => match order {
                Order::Reload => server.request_reload(),
                Order::Stop => break,
            },
            part = server.failed() => {
                *stopping = Some(Instant::now());
                server.shutdown().await;
                return Err(format!("{part} ended unexpectedly").into());
            }
        }
    }
    *stopping = Some(Instant::now());
    tokio::select! {
        _ = server.shutdown() => Ok(ExitCode::SUCCESS),
        () = signals.stop() => {
            let _ = writeln!(stderr(), "reference-server: second signal, leaving at once");
            std::process::exit(1);
        }
    }
}

enum Order {
    Reload,
    Stop,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
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

    async fn stop(&mut self) {
        while matches!(self.next().await, Order::Reload) {}
    }
}
