//! The configuration: one table of keys, a file, and what a server may set on top of it.
//!
//! [`Config::load`] reads the file; [`Config::with_remote`] lays a remote configuration over it. Both go through the
//! table in [`keys`] and through the same checks, so that nothing remote can say what the file could not.

mod check;
pub mod docs;
mod document;
mod error;
mod expansion;
pub mod foreign;
pub mod keys;
mod secret;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use error::ConfigError;
use error::Origin;
pub(crate) use secret::has_tls;
pub use secret::{Address, Secret};
use values::Values;

/// The configuration of an agent. Sections and names are those of the file; see [`keys::KEYS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Section `server`.
    pub server: ServerConfig,
    /// Section `capabilities`.
    pub capabilities: Capabilities,
    /// Section `agent`.
    pub agent: AgentConfig,
    /// `storage.directory`.
    pub storage_directory: PathBuf,
    /// `telemetry.logs.level`.
    pub log_level: LevelFilter,
    /// `health.interval`.
    pub health_interval: Duration,
    /// Section `offers`.
    pub offers: OffersConfig,
    /// Section `packages`.
    pub packages: PackagesConfig,
    /// `telemetry.own_metrics_interval`.
    pub own_metrics_interval: Duration,
    values: Values,
    file: Arc<PathBuf>,
}

/// How to reach the server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// `endpoint`.
    pub endpoint: Address,
    /// `fallback_endpoints`.
    pub fallback_endpoints: Vec<Address>,
    /// `failback_after`.
    pub failback_after: Duration,
    /// `headers`.
    pub headers: BTreeMap<String, Secret>,
    /// `bearer_token_file`.
    pub bearer_token_file: Option<PathBuf>,
    /// `tls`.
    pub tls: TlsConfig,
    /// `proxy`.
    pub proxy: ProxyConfig,
    /// `heartbeat_interval`.
    pub heartbeat_interval: Duration,
    /// `poll_interval`.
    pub poll_interval: Duration,
    /// `ping_interval`.
    pub ping_interval: Duration,
    /// Whether `compression` is `gzip`.
    pub compress: bool,
    /// `retry`.
    pub retry: RetryConfig,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `limits`.
    pub limits: ServerLimits,
}

/// Whom to trust and what to show.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    /// `ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `include_system_ca_certs_pool`.
    pub include_system_ca_certs_pool: bool,
    /// `cert_file` and `key_file`.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether `min_version` is 1.3.
    pub only_1_3: bool,
}

/// Which proxy to use.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// `url`; without one the environment decides.
    pub url: Option<Secret>,
    /// `no_proxy`.
    pub no_proxy: Vec<String>,
    /// `headers`.
    pub headers: BTreeMap<String, Secret>,
}

/// How attempts to connect are spaced.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// `first_interval`.
    pub first_interval: Duration,
    /// `initial_interval`.
    pub initial_interval: Duration,
    /// `max_interval`.
    pub max_interval: Duration,
    /// `multiplier`.
    pub multiplier: f64,
    /// `slow_initial_interval`.
    pub slow_initial_interval: Duration,
    /// `slow_max_interval`.
    pub slow_max_interval: Duration,
    /// `stable_after`.
    pub stable_after: Duration,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// `connect`.
    pub connect: Duration,
    /// `response`.
    pub response: Duration,
    /// `write`.
    pub write: Duration,
    /// `read`.
    pub read: Duration,
    /// `stop`.
    pub stop: Duration,
}

/// How large things may be.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerLimits {
    /// `receive_bytes`.
    pub receive_bytes: usize,
    /// `send_bytes`.
    pub send_bytes: usize,
    /// `frame_bytes`.
    pub frame_bytes: usize,
    /// `redirects`.
    pub redirects: u32,
}

/// What the agent does beside being there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `accepts_remote_config`, which `reports_remote_config` follows.
    pub remote_config: bool,
    /// `reports_effective_config`.
    pub effective_config: bool,
    /// `reports_health`.
    pub health: bool,
    /// `reports_heartbeat`.
    pub heartbeat: bool,
    /// `accepts_restart_command`.
    pub restart: bool,
    /// `accepts_opamp_connection_settings`.
    pub opamp_settings: bool,
    /// `accepts_packages`, which `reports_package_statuses` follows.
    pub packages: bool,
    /// `reports_own_metrics`.
    pub own_metrics: bool,
    /// `reports_available_components`.
    pub components: bool,
    /// `diagnostics`.
    pub diagnostics: bool,
}

/// What the server may do to connections although it lowers what protects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffersConfig {
    /// `allow_plaintext`.
    pub plaintext: bool,
    /// `allow_plaintext_telemetry`.
    pub plaintext_telemetry: bool,
    /// `allow_insecure_skip_verify`.
    pub insecure_skip_verify: bool,
    /// `allow_older_tls`.
    pub older_tls: bool,
    /// `allow_credentials_elsewhere`.
    pub credentials_elsewhere: bool,
}

/// Which packages are installed, where, and what is done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackagesConfig {
    /// `public_key_files`.
    pub public_key_files: Vec<PathBuf>,
    /// `allow_unsigned`.
    pub allow_unsigned: bool,
    /// `allow_plain_http`.
    pub allow_plain_http: bool,
    /// `directory`.
    pub directory: PathBuf,
    /// `file_name`.
    pub file_name: String,
    /// `executable`.
    pub executable: bool,
    /// `file_bytes_max`.
    pub file_bytes_max: u64,
    /// `download_timeout`.
    pub download_timeout: Duration,
    /// `activate_command`.
    pub activate_command: Vec<String>,
    /// `health_command`.
    pub health_command: Vec<String>,
    /// `deactivate_command`.
    pub deactivate_command: Vec<String>,
    /// `command_timeout`.
    pub command_timeout: Duration,
}

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// `description.identifying_attributes`.
    pub identifying_attributes: BTreeMap<String, String>,
    /// `description.non_identifying_attributes`.
    pub non_identifying_attributes: BTreeMap<String, String>,
    /// `request_instance_uid`.
    pub request_instance_uid: bool,
    /// `limits.remote_config_bytes`.
    pub remote_config_bytes_max: usize,
    /// `limits.attributes`.
    pub attributes_max: usize,
    /// `limits.attribute_bytes`.
    pub attribute_bytes_max: usize,
}

impl ServerConfig {
    /// `endpoint` and `fallback_endpoints`.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(&self.endpoint).chain(&self.fallback_endpoints)
    }
}

impl Config {
    /// Reads a file, with references to the environment of this process replaced.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with file, line and key of what cannot be used.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let origin = Origin::File(Arc::new(file.to_owned()), None);
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::new(origin, format!("cannot be read: {error}")))?;
        Self::parse(file, &text, &|name| std::env::var_os(name))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub(crate) fn parse(
        file: &Path,
        text: &str,
        variables: expansion::Variables<'_>,
    ) -> Result<Self, ConfigError> {
        let file = Arc::new(file.to_owned());
        let found = document::read(text, &Origin::File(Arc::clone(&file), None), variables)?;
        Self::from_values(Values::with_defaults(found), file)
    }

    /// This configuration with a remote one over it: one YAML document of keys marked as remote.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with line and key of what is not allowed or cannot be used. Nothing of it counts then.
    pub fn with_remote(&self, text: &str) -> Result<Self, ConfigError> {
        let found = document::read(text, &Origin::Remote(None), &|_| None)?;
        Self::from_values(self.values.overlaid(found), Arc::clone(&self.file))
    }

    fn from_values(values: Values, file: Arc<PathBuf>) -> Result<Self, ConfigError> {
        let endpoint = values.text("server.endpoint").ok_or_else(|| {
            let origin = Origin::File(Arc::clone(&file), None);
            ConfigError::new(origin, "`server.endpoint` is missing: where is the server?")
        })?;
        let secrets =
            |name| values.map(name).into_iter().map(|(key, text)| (key, Secret::from(text))).collect();
        let yes = |name| values.flag(name).map(Option::unwrap_or_default);
        let server = ServerConfig {
            endpoint: endpoint.into(),
            fallback_endpoints: values
                .list("server.fallback_endpoints")
                .into_iter()
                .map(Address::from)
                .collect(),
            failback_after: values.duration("server.failback_after")?,
            headers: secrets("server.headers"),
            bearer_token_file: values.path("server.bearer_token_file"),
            tls: TlsConfig {
                ca_file: values.path("server.tls.ca_file"),
                include_system_ca_certs_pool: yes("server.tls.include_system_ca_certs_pool")?,
                identity: values.path("server.tls.cert_file").zip(values.path("server.tls.key_file")),
                only_1_3: values.word("server.tls.min_version")? == "1.3",
            },
            proxy: ProxyConfig {
                url: values.text("server.proxy.url").map(Secret::from),
                no_proxy: values.list("server.proxy.no_proxy"),
                headers: secrets("server.proxy.headers"),
            },
            heartbeat_interval: values.duration("server.heartbeat_interval")?,
            poll_interval: values.duration("server.poll_interval")?,
            ping_interval: values.duration("server.ping_interval")?,
            compress: values.word("server.compression")? == "gzip",
            retry: RetryConfig {
                first_interval: values.duration("server.retry.first_interval")?,
                initial_interval: values.duration("server.retry.initial_interval")?,
                max_interval: values.duration("server.retry.max_interval")?,
                multiplier: values.factor("server.retry.multiplier", 1.0, 100.0)?,
                slow_initial_interval: values.duration("server.retry.slow_initial_interval")?,
                slow_max_interval: values.duration("server.retry.slow_max_interval")?,
                stable_after: values.duration("server.retry.stable_after")?,
            },
            timeouts: Timeouts {
                connect: values.duration("server.timeouts.connect")?,
                response: values.duration("server.timeouts.response")?,
                write: values.duration("server.timeouts.write")?,
                read: values.duration("server.timeouts.read")?,
                stop: values.duration("server.timeouts.stop")?,
            },
            limits: ServerLimits {
                receive_bytes: values.count("server.limits.receive_bytes", 1)?,
                send_bytes: values.count("server.limits.send_bytes", 256)?,
                frame_bytes: values.count("server.limits.frame_bytes", 1)?,
                redirects: u32::try_from(values.count("server.limits.redirects", 0)?)
                    .map_err(|_| values.error("server.limits.redirects", "is too large"))?,
            },
        };
        let capabilities = Capabilities {
            remote_config: yes("capabilities.accepts_remote_config")?,
            effective_config: yes("capabilities.reports_effective_config")?,
            health: yes("capabilities.reports_health")?,
            heartbeat: yes("capabilities.reports_heartbeat")?,
            restart: yes("capabilities.accepts_restart_command")?,
            opamp_settings: yes("capabilities.accepts_opamp_connection_settings")?,
            packages: yes("capabilities.accepts_packages")?,
            own_metrics: yes("capabilities.reports_own_metrics")?,
            components: yes("capabilities.reports_available_components")?,
            diagnostics: yes("capabilities.diagnostics")?,
        };
        let storage_directory = values.path("storage.directory").unwrap_or_default();
        let offers = OffersConfig {
            plaintext: yes("offers.allow_plaintext")?,
            plaintext_telemetry: yes("offers.allow_plaintext_telemetry")?,
            insecure_skip_verify: yes("offers.allow_insecure_skip_verify")?,
            older_tls: yes("offers.allow_older_tls")?,
            credentials_elsewhere: yes("offers.allow_credentials_elsewhere")?,
        };
        let key_files = values.list("packages.public_key_files");
        let packages = PackagesConfig {
            public_key_files: key_files.into_iter().map(PathBuf::from).collect(),
            allow_unsigned: yes("packages.allow_unsigned")?,
            allow_plain_http: yes("packages.allow_plain_http")?,
            directory: values
                .path("packages.directory")
                .unwrap_or_else(|| storage_directory.join("packages")),
            file_name: values.text("packages.file_name").unwrap_or_default(),
            executable: yes("packages.executable")?,
            file_bytes_max: values.count("packages.file_bytes_max", 1)? as u64,
            download_timeout: values.duration("packages.download_timeout")?,
            activate_command: values.list("packages.activate_command"),
            health_command: values.list("packages.health_command"),
            deactivate_command: values.list("packages.deactivate_command"),
            command_timeout: values.duration("packages.command_timeout")?,
        };
        let agent = AgentConfig {
            identifying_attributes: values.map("agent.description.identifying_attributes"),
            non_identifying_attributes: values.map("agent.description.non_identifying_attributes"),
            request_instance_uid: yes("agent.request_instance_uid")?,
            remote_config_bytes_max: values.count("agent.limits.remote_config_bytes", 0)?,
            attributes_max: values.count("agent.limits.attributes", 1)?,
            attribute_bytes_max: values.count("agent.limits.attribute_bytes", 1)?,
        };
        let config = Self {
            server,
            capabilities,
            agent,
            storage_directory,
            // The words of the key are those of the type.
            log_level: values.word("telemetry.logs.level")?.parse().unwrap_or(LevelFilter::INFO),
            health_interval: values.duration_within(
                "health.interval",
                Duration::from_millis(100),
                Duration::from_secs(3600),
            )?,
            offers,
            packages,
            own_metrics_interval: values.duration_within(
                "telemetry.own_metrics_interval",
                Duration::from_millis(100),
                Duration::from_secs(3600),
            )?,
            values,
            file,
        };
        config.check()?;
        Ok(config)
    }
}
