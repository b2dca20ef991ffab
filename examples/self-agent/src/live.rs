//! What is in force while an agent runs, and what is wrong with it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opamp_client::{ConfigFile, ConfigHash, EffectiveConfig, TlsSource, Wall};
use tokio::sync::watch;

use crate::config::Config;
use crate::health::{CredentialFiles, Writing};
use crate::logging::LogLevel;
use crate::storage::Storage;

/// One run of an agent, as its handlers and checks see it.
pub(crate) struct Live {
    /// The configuration of the file, without anything remote.
    pub(crate) local: Config,
    pub(crate) storage: Arc<Storage>,
    pub(crate) started: Wall,
    pub(crate) tls: Option<TlsSource>,
    pub(crate) credentials: CredentialFiles,
    pub(crate) writing: Writing,
    log: LogLevel,
    state: Mutex<State>,
    /// How often health is checked. Sent again when it should be checked at once.
    interval: watch::Sender<Duration>,
}

struct State {
    effective: Config,
    troubles: Troubles,
}

/// What is wrong and does not show in any check of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Troubles {
    /// The configuration file, read again, could not be used.
    pub(crate) configuration: Option<String>,
    /// The last remote configuration could not be used.
    pub(crate) remote_config: Option<String>,
}

impl Live {
    pub(crate) fn new(
        local: Config,
        effective: Config,
        tls: Option<TlsSource>,
        storage: Arc<Storage>,
        log: LogLevel,
        started: Wall,
        troubles: Troubles,
    ) -> Self {
        log.set(effective.log_level);
        let interval = watch::Sender::new(effective.health_interval);
        let credentials = CredentialFiles::default();
        Self {
            local,
            storage,
            started,
            tls,
            credentials,
            writing: Writing::default(),
            log,
            state: Mutex::new(State { effective, troubles }),
            interval,
        }
    }

    /// The configuration in force as the server may see it.
    pub(crate) fn effective_document(&self) -> EffectiveConfig {
        let document = self.state().effective.to_yaml();
        EffectiveConfig::new().file("", ConfigFile::new(document).content_type("text/yaml"))
    }

    /// The configuration in force.
    pub(crate) fn effective(&self) -> Config {
        self.state().effective.clone()
    }

    pub(crate) fn troubles(&self) -> Troubles {
        self.state().troubles.clone()
    }

    /// Puts another configuration in force, as far as it can change while the agent runs.
    pub(crate) fn put_in_force(&self, effective: Config) {
        self.log.set(effective.log_level);
        let interval = effective.health_interval;
        let mut state = self.state();
        state.effective = effective;
        state.troubles.remote_config = None;
        drop(state);
        self.interval.send_replace(interval);
    }

    /// The last remote configuration could not be used.
    pub(crate) fn remote_failed(&self, why: &str) {
        self.state().troubles.remote_config = Some(why.to_owned());
        self.check_now();
    }

    /// The configuration file could not be used, or can be used again.
    pub(crate) fn file_read(&self, trouble: Option<String>) {
        self.state().troubles.configuration = trouble;
        self.check_now();
    }

    pub(crate) fn interval(&self) -> watch::Receiver<Duration> {
        self.interval.subscribe()
    }

    /// Keeps a remote configuration over restarts.
    pub(crate) async fn keep(self: &Arc<Self>, hash: ConfigHash, text: String) -> Result<(), String> {
        let live = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || live.storage.keep_remote(&hash, &text)).await;
        let failed = |what: &dyn std::fmt::Display, directory: &Path| {
            format!("the configuration cannot be kept in {}: {what}", directory.display())
        };
        match kept {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(&error, self.storage.directory())),
            Err(error) => Err(failed(&error, self.storage.directory())),
        }
    }

    fn check_now(&self) {
        self.interval.send_modify(|_| {});
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
