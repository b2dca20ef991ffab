//! Certificates and tokens that change on disk take effect without a restart.

use std::{
    fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use opamp_server::{ServerHandle, TlsSource};
use rustls::ServerConfig;

use crate::{
    agent_auth::AgentAccess,
    self_agent::pin::Served,
    tls::{LoadedTls, TlsError, TlsFiles},
};

/// TLS of the admin port, replaceable while it runs.
#[derive(Clone, Debug)]
pub(crate) struct AdminTls(Arc<RwLock<Arc<ServerConfig>>>);

impl AdminTls {
    pub(crate) fn new(config: ServerConfig) -> Self {
        AdminTls(Arc::new(RwLock::new(Arc::new(config))))
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// TLS of the OpAMP port, and what the Self-Agent has to know of it.
#[derive(Clone, Debug)]
pub(crate) struct OpampTls {
    files: TlsFiles,
    pub(crate) source: TlsSource,
    pub(crate) served: Served,
}

impl OpampTls {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let LoadedTls { config, leaf } = files.load()?;
        Ok(OpampTls { files, source: TlsSource::new(config), served: Served::new(leaf) })
    }

    fn reload(&self) -> Result<(), TlsError> {
        let LoadedTls { config, leaf } = self.files.load()?;
        self.source.replace(config);
        self.served.replace(leaf);
        Ok(())
    }
}

/// Everything that is read from files beside the configuration.
pub(crate) struct Reloader {
    opamp_tls: Option<OpampTls>,
    admin_tls: Option<(TlsFiles, AdminTls)>,
    agents: AgentAccess,
    server: ServerHandle,
    seen: Vec<Stamp>,
}

/// What a file looked like when it was read; `None` if it was not there.
type Stamp = Option<(SystemTime, u64)>;

impl Reloader {
    /// Watches what was just read.
    pub(crate) fn new(
        opamp_tls: Option<OpampTls>,
        admin_tls: Option<(TlsFiles, AdminTls)>,
        agents: AgentAccess,
        server: ServerHandle,
    ) -> Self {
        let mut reloader = Reloader { opamp_tls, admin_tls, agents, server, seen: Vec::new() };
        reloader.seen = reloader.stamps();
        reloader
    }

    /// Reads the files if one of them looks different from when it was read last.
    pub(crate) fn reload_if_changed(&mut self) {
        if self.stamps() != self.seen {
            self.reload();
        }
    }

    /// Reads the files. Those that cannot be used keep their old content in force; the answer tells which.
    pub(crate) fn reload(&mut self) -> Vec<String> {
        self.seen = self.stamps();
        let mut problems = Vec::new();
        if let Some(tls) = &self.opamp_tls {
            replaced("opamp", tls.reload(), &mut problems);
        }
        if let Some((files, source)) = &self.admin_tls {
            replaced("admin", files.load().map(|loaded| source.replace(loaded.config)), &mut problems);
        }
        if let Err(error) = self.agents.reload(&self.server) {
            problems.push(format!("agent tokens not reloaded: {error}"));
        }
        for problem in &problems {
            tracing::error!("{problem}");
        }
        if problems.is_empty() {
            tracing::info!("certificates and agent tokens read");
        }
        problems
    }

    fn stamps(&self) -> Vec<Stamp> {
        let opamp = self.opamp_tls.iter().flat_map(|tls| tls.files.paths());
        let admin = self.admin_tls.iter().flat_map(|(files, _)| files.paths());
        opamp.chain(admin).chain(self.agents.paths()).map(stamp).collect()
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn replaced(port: &str, outcome: Result<(), TlsError>, problems: &mut Vec<String>) {
    if let Err(error) = outcome {
        problems.push(format!("certificates of `{port}` not reloaded: {error}"));
    }
}
