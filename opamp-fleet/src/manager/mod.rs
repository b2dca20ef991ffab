//! The fleet manager: joins a server, a store and the inventory.
//!
//! ```text
//! agents ─► ServerHandle::events ─► records ─► WriteBehind ─► Store
//!                                     │                          ▲
//!                                     └─► FleetIndex             │ committed first
//!                                                                │
//! callers ─► assign, set_labels, publish, … ─────────────────────┘─► ServerHandle::set_desired
//! ```
//!
//! What an agent should have (configuration, connection settings, packages) is composed from its record whenever its
//! session may not know it: after a decision, a restart, a new identity, a commit of unknown outcome. Nothing is queued.
//!
//! # What is promised
//!
//! - Acknowledged means committed. What a call changes is in the store, with its audit entry, before it acts.
//! - What agents report is merged into their records and written in groups; a crash loses at most
//!   [`ManagerSettings::write_behind`]'s delay of it, and the server asks those agents again.
//! - Nothing is written per heartbeat. Sequence numbers and last-seen times are checkpointed in packed batches, and
//!   never before what was said up to them. After an orderly end nobody is asked for full state.
//! - While the store is down agents stay connected and the inventory goes on; changes wait, at most one for each
//!   agent; calls that change something answer [`StoreFailure::Unavailable`]. It recovers by itself.
//! - Where the store does not say what became of a write, the record is read again before it is used or written,
//!   and what it holds is what is offered.
//! - A configuration is assigned to one agent, or to all that match a selector at that moment; connection settings and
//!   packages to one agent at a time.
//! - Secrets (headers, keys, tokens, bodies of configurations and of custom messages) are in no audit entry, error or
//!   `Debug` output. Connection settings lie in the store as they are, until they are replaced or withdrawn.
//!
//! # How it is run
//!
//! [`FleetManager::start`] loads the fleet and must come before the server serves. Spawn the [`ManagerDriver`]. At
//! the end drain the server, then call [`FleetManager::shutdown`].

mod agents;
mod assign_matching;
mod assigned;
mod assignments;
mod audit;
mod catch_up;
mod configs;
mod connection_settings;
mod custom;
mod desire;
mod downloads;
mod driver;
mod durations;
mod effective;
mod error;
mod observe;
mod offers;
mod package_sets;
mod packages;
mod record;
mod settings;
mod start;
mod state;
mod throttle;
mod types;
mod uploads;
mod writes;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opamp_server::{Clock, ServerHandle};
use opamp_store::Store;
use tokio::sync::watch;

pub use custom::{CustomEntry, CustomMessages};
pub use driver::ManagerDriver;
pub use durations::{APPLY_DURATION_BOUNDS_S, ApplyHistogram};
pub use error::{
    AgentCommandError, AgentError, AssignError, AssignMatchingError, AssignPackagesError, ConfigOpError,
    ConnectionSettingsError, IDEMPOTENCY_KEY_BYTES_MAX, NotReady, PACKAGE_TEXT_BYTES_MAX, PackageError,
    SendCustomError, StartError, StoreFailure,
};
pub use settings::{AuditRate, CustomSettings, ManagerSettings, PackageSettings};
pub use types::{
    Actor, AgentDetail, AgentQuery, AgentSummary, Assigned, AssignedMatching, FleetStats, OfferDetail,
};
pub use uploads::{NewPackage, PackageUpload};

use crate::{Drift, Health, Liveness};
use state::State;

/// The handle to a running fleet manager. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FleetManager {
    inner: Arc<Inner>,
    running: watch::Receiver<bool>,
}

pub(crate) struct Inner {
    store: Arc<dyn Store>,
    server: ServerHandle,
    settings: ManagerSettings,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held by whoever reads, changes and writes agents' records, so that no change is lost between the three.
    writer: tokio::sync::Mutex<()>,
    /// Held for writing by the sweep of blobs, for reading while a chunk of an upload is stored.
    sweeping: tokio::sync::RwLock<()>,
    /// Something has become due earlier than the driver knows.
    sooner: tokio::sync::Notify,
    stop: watch::Sender<bool>,
}

impl FleetManager {
    /// Loads the fleet from the store and makes it known to the server. Call it before the server serves.
    ///
    /// # Errors
    /// [`StartError`]; the server may know part of the fleet by then.
    pub async fn start(
        store: Arc<dyn Store>,
        server: ServerHandle,
        settings: ManagerSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, ManagerDriver), StartError> {
        let events = server.events().ok_or(StartError::EventsTaken)?;
        let (stop, stopped) = watch::channel(false);
        let (running, runs) = watch::channel(false);
        let state = Mutex::new(State::new(&settings, clock.now()));
        let writer = tokio::sync::Mutex::new(());
        let sooner = tokio::sync::Notify::new();
        let sweeping = tokio::sync::RwLock::new(());
        let inner = Inner { store, server, settings, clock, state, writer, sweeping, sooner, stop };
        let inner = Arc::new(inner);
        inner.load().await?;
        let driver = ManagerDriver { inner: Arc::clone(&inner), events, stop: stopped, running };
        Ok((Self { inner, running: runs }, driver))
    }

    /// The fleet in numbers, whose parts sum to the whole.
    pub fn stats(&self) -> FleetStats {
        let now = self.inner.now();
        let state = self.inner.state();
        let counts = state.index.counts().clone();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        FleetStats {
            registered: counts.registered(),
            by_liveness: Liveness::ALL.into_iter().zip(counts.by_liveness()).collect(),
            by_health: Health::ALL.into_iter().zip(counts.by_health()).collect(),
            by_drift: Drift::ALL.into_iter().zip(counts.by_drift()).collect(),
            counts,
            flapping: count(state.index.flapping(now)),
            apply_durations: state.durations.by_type().clone(),
            records_waiting: count(state.unwritten.len()),
            changes_waiting: count(state.missed.len()),
            audit_waiting: count(state.audit.len()),
            audit_dropped: state.audit.dropped(),
            custom_lost: state.custom.lost(),
        }
    }

    /// Whether the manager can do all of its work now. Agents are served either way.
    ///
    /// # Errors
    /// [`NotReady`] says why not.
    pub async fn ready(&self) -> Result<(), NotReady> {
        if !*self.running.borrow() || self.running.has_changed().is_err() {
            return Err(NotReady::NotRunning);
        }
        let inner = &self.inner;
        match tokio::time::timeout(inner.settings.ready_timeout, inner.store.health()).await {
            Err(_) => return Err(NotReady::Store("the store does not answer".to_owned())),
            Ok(Err(unhealthy)) => return Err(NotReady::Store(unhealthy.to_string())),
            Ok(Ok(())) => {}
        }
        let mut state = inner.state();
        if state.unwritten.len() == 0 && state.missed.values().all(|missed| missed.damaged) {
            // Nothing is left of the last fault, and nothing would come to tell that it is over.
            state.read_fault = None;
            state.write_fault = None;
        }
        match state.write_fault.clone().or_else(|| state.read_fault.clone()) {
            Some(fault) => Err(NotReady::Store(fault)),
            None => Ok(()),
        }
    }

    /// Ends the driver after it took in what the server told and wrote everything, positions included. Drain the
    /// server before, or agents go on talking. Waits for a driver that is still to be run.
    ///
    /// # Errors
    /// [`StoreFailure`] if something could not be written; it is lost when the process ends.
    pub async fn shutdown(&self) -> Result<(), StoreFailure> {
        self.inner.stop.send_replace(true);
        let mut running = self.running.clone();
        // Ends with an error when the driver is gone, which is what is waited for.
        while running.changed().await.is_ok() {}
        let inner = &self.inner;
        let _writer = inner.writer.lock().await;
        inner.catch_up().await;
        inner.write_checkpoints().await?;
        inner.write_audit().await?;
        match inner.state().missed.len() {
            0 => Ok(()),
            agents => Err(StoreFailure::Unavailable(format!("changes of {agents} agents were not merged"))),
        }
    }
}

impl Inner {
    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("settings", &self.settings).finish_non_exhaustive()
    }
}
