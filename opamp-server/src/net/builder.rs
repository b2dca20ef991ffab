//! Putting a server together.

use std::fmt;
use std::sync::Arc;

use opamp_proto::{Limits, ServerCapabilities};
use rustls::crypto::CryptoProvider;

use super::auth::Authenticate;
use super::certificates::{IssueCertificate, Issuer};
use super::clock::{Clock, SystemClock};
use super::core::Core;
use super::driver::Driver;
use super::handle::ServerHandle;
use super::service::OpampService;
use super::settings::ServerSettings;

/// The default path of the endpoint (R-TRANS-03).
pub const DEFAULT_PATH: &str = "/v1/opamp";

/// Entry point: [`OpampServer::builder`].
#[derive(Debug)]
pub struct OpampServer;

impl OpampServer {
    /// Begins a server whose peers are authenticated by `auth`.
    ///
    /// To let everybody in, say so: [`InsecureAcceptEveryone`](crate::InsecureAcceptEveryone).
    pub fn builder(auth: Arc<dyn Authenticate>) -> Builder {
        Builder {
            auth,
            clock: None,
            limits: Limits::default(),
            path: Some(DEFAULT_PATH.to_owned()),
            settings: ServerSettings::default(),
            issuer: None,
            provider: None,
        }
    }
}

/// Settings of a server to be.
pub struct Builder {
    auth: Arc<dyn Authenticate>,
    clock: Option<Arc<dyn Clock>>,
    limits: Limits,
    path: Option<String>,
    settings: ServerSettings,
    issuer: Option<Arc<dyn IssueCertificate>>,
    provider: Option<Arc<CryptoProvider>>,
}

impl Builder {
    /// The path of the endpoint; every other path is answered 404. Default [`DEFAULT_PATH`] (R-TRANS-04).
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Answers on whatever path requests come in, for routers that match paths themselves.
    #[must_use]
    pub fn any_path(mut self) -> Self {
        self.path = None;
        self
    }

    /// Limits of received messages; `message_bytes_max` holds on both transports, after decompression.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Intervals, bounds and capabilities.
    #[must_use]
    pub fn settings(mut self, settings: ServerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Where the time comes from. Default: the machine's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Issues certificates to agents that ask for one, and announces AcceptsConnectionSettingsRequest. Without it such requests
    /// are ignored and the capability is not announced.
    ///
    /// Their signatures are verified with [`Builder::crypto_provider`].
    #[must_use]
    pub fn issue_certificates(mut self, issuer: Arc<dyn IssueCertificate>) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// What verifies the signatures of certificate requests: the library brings no cryptography of its own. Default: the
    /// process's default provider of rustls, as it is when the server is built. If there is neither, no certificates are issued: the
    /// capability is not announced, and an error in the log says so.
    #[must_use]
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// The service to mount or to [`serve`](crate::serve), the handle to steer with, and the driver to spawn.
    ///
    /// The driver runs the sweeps: without it nothing becomes stale and no deadline holds.
    pub fn build(self) -> (OpampService, ServerHandle, Driver) {
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let mut settings = self.settings;
        let issuer = self.issuer.and_then(|issuer| Issuer::new(issuer, self.provider, &settings));
        // Announced exactly when somebody decides such requests.
        let announced = &mut settings.session.capabilities;
        match issuer {
            Some(_) => announced.insert(ServerCapabilities::ACCEPTS_CONNECTION_SETTINGS_REQUEST),
            None => {
                announced.remove(ServerCapabilities::ACCEPTS_CONNECTION_SETTINGS_REQUEST);
            }
        }
        let core = Arc::new(Core::new(self.path, self.limits, settings, self.auth, clock, issuer));
        (OpampService(Arc::clone(&core)), ServerHandle(Arc::clone(&core)), Driver(core))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("limits", &self.limits)
            .field("path", &self.path)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
