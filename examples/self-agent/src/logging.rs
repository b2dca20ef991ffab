//! The log: lines on standard error, with a level that can change while the program runs.

use std::io::{IsTerminal as _, stderr};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, registry, reload};

/// Whose lines are logged. What libraries below them say is in the client's words already.
const TARGETS: [&str; 2] = ["self_agent", "opamp_client"];

/// The level of the log, to be changed.
#[derive(Clone, Debug)]
pub struct LogLevel(Arc<reload::Handle<Targets, Registry>>);

/// A log that writes there, and its level.
pub fn subscriber<W>(
    writer: W,
    colours: bool,
    level: LevelFilter,
) -> (impl tracing::Subscriber + Send + Sync, LogLevel)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(level));
    // Nobody may be there to read the log, which is no reason to complain to nobody, or to end.
    let lines =
        fmt::layer().with_target(false).with_ansi(colours).log_internal_errors(false).with_writer(writer);
    (registry().with(filter).with(lines), LogLevel(Arc::new(handle)))
}

/// Installs the log of this process, on standard error.
#[must_use]
pub fn init(level: LevelFilter) -> LogLevel {
    let (subscriber, handle) = subscriber(stderr, stderr().is_terminal(), level);
    // A second one in the same process changes nothing.
    let _ = subscriber.try_init();
    handle
}

impl LogLevel {
    /// Changes the level from now on.
    pub(crate) fn set(&self, level: LevelFilter) {
        // Fails only if the log is gone, and then there is nothing to say and nobody to say it to.
        let _ = self.0.reload(targets(level));
    }
}

fn targets(level: LevelFilter) -> Targets {
    TARGETS.iter().fold(Targets::new(), |targets, target| targets.with_target(*target, level))
}
