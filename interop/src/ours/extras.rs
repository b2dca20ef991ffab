//! What an agent may take beyond remote configurations.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opamp_client::connection::{OtherSettings, SettingsPolicy, Signal, TelemetrySettings};
use opamp_client::packages::{DownloadSettings, Installer, InstallerSettings, SignaturePolicy};
use opamp_client::{Builder, Client, Component, Components, CustomMessage, EcdsaRequester, Proxy};

use crate::failure::Outcome;
use crate::wait::{Look, eventually};

/// The end of a handler may take this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Capabilities beyond those every agent here has. None by default. The self-agent has components and a custom capability of
/// its own, or none.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Takes settings of its connection to the server, within this policy.
    pub settings: Option<SettingsPolicy>,
    /// Takes destinations of its own metrics, and settings of other connections; the library alone.
    pub telemetry: bool,
    /// Announces these custom capabilities.
    pub custom: Vec<String>,
    /// Has these components, by name and version.
    pub components: Vec<(String, String)>,
    /// Takes packages.
    pub packages: bool,
    /// Requests a certificate; the library alone.
    pub certificates: bool,
}

/// What arrived.
#[derive(Debug, Default)]
pub struct Taken {
    custom: Mutex<Vec<CustomMessage>>,
    connections: Mutex<Vec<String>>,
}

impl Extras {
    pub(super) fn install(
        &self,
        mut builder: Builder,
        taken: &Arc<Taken>,
        packages: &Path,
    ) -> Outcome<Builder> {
        if let Some(policy) = &self.settings {
            builder = builder.accept_connection_settings(*policy);
        }
        if self.telemetry {
            let (own, other) = (Arc::clone(taken), Arc::clone(taken));
            builder = builder
                .on_own_telemetry(
                    [Signal::Metrics],
                    move |signal: Signal, settings: Arc<TelemetrySettings>, _: Client| {
                        own.connection(format!("{} {}", signal.as_str(), settings.endpoint));
                        async { Ok(()) }
                    },
                )
                .on_other_connections(move |name: String, settings: Arc<OtherSettings>, _: Client| {
                    other.connection(format!("{name} {}", settings.endpoint));
                    async { Ok(()) }
                });
        }
        for name in &self.custom {
            let taken = Arc::clone(taken);
            builder = builder.custom_capability(name, move |message: CustomMessage, _: Client| {
                taken.custom.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                async {}
            });
        }
        if !self.components.is_empty() {
            builder = builder.available_components(components(&self.components));
        }
        if self.packages {
            // Who signs packages, and how, is this project's own; here it is about what both sides say of them.
            let policy = SignaturePolicy::insecure_accept_unsigned();
            let download = DownloadSettings { allow_plain_http: true, ..DownloadSettings::default() };
            let settings = InstallerSettings { download, ..InstallerSettings::default() };
            // A handler of the life before may still be on its way out.
            let (installer, _) = eventually("a directory that nobody uses", PATIENCE, || {
                let installer = Installer::builder(packages, policy.clone()).proxy(Proxy::none());
                Ok(match installer.settings(settings.clone()).open() {
                    Ok(installer) => Look::Found(installer),
                    Err(problem) => Look::NotYet(problem.to_string()),
                })
            })?;
            builder = builder.on_packages(installer);
        }
        if self.certificates {
            builder = builder.certificate_requests(EcdsaRequester::new());
        }
        Ok(builder)
    }
}

impl Taken {
    /// The custom messages, in order.
    #[must_use]
    pub fn custom(&self) -> Vec<CustomMessage> {
        self.custom.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Each connection it was given other settings of, with its endpoint, in order.
    #[must_use]
    pub fn connections(&self) -> Vec<String> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn connection(&self, what: String) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// Components of which the version is known.
#[must_use]
pub fn components(of: &[(String, String)]) -> Components {
    of.iter().fold(Components::new(), |all, (name, version)| {
        all.component(name, Component::new().metadata("version", version.as_str()))
    })
}
