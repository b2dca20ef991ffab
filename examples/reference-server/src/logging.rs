//! Log lines on standard error, as text or JSON.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    registry,
    util::{SubscriberInitExt as _, TryInitError},
};

use crate::config::{ConfigError, LogConfig, LogFormat};

/// Installs the log for this process, once, by the binary and not by the library.
///
/// # Errors
/// `log.level` is not a level or a list of levels per module.
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let targets = targets(config)?;
    // Told of on the very stream that cannot be written, an error would be a panic in whoever logs.
    let layer = fmt::layer().with_writer(stderr).log_internal_errors(false);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(stderr().is_terminal()).boxed(),
    };
    // A second initialisation in one process (a test, an embedder with a log of its own) keeps the first.
    let _: Result<(), TryInitError> = registry().with(layer.with_filter(targets)).try_init();
    Ok(())
}

/// What is logged, from `log.level`.
pub(crate) fn targets(config: &LogConfig) -> Result<Targets, ConfigError> {
    let wrong = || {
        ConfigError::new(format!(
            "`log.level` {:?} is not a level (error, warn, info, debug, trace, off) or a list such as \
             `warn,opamp_server=debug`",
            config.level
        ))
    };
    // `Targets` takes a word that is no level for the name of a module, and would log everything of a typing error.
    let bare = config.level.split(',').filter(|part| !part.contains('='));
    if bare.map(|part| part.trim().parse::<LevelFilter>()).any(|level| level.is_err()) {
        return Err(wrong());
    }
    config.level.parse().map_err(|_| wrong())
}
