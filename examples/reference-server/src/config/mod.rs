//! Configuration of the server: one table of keys, three sources, typed values.
//!
//! [`Config::load`] reads file, environment and flags; [`Config::default`] is what a server without any of them uses.
//! Both go through the table in [`keys`], so a default is written down once.

pub mod docs;
pub mod keys;
mod load;
mod reach;
mod setting;
pub mod value;

use std::{fmt, time::Duration};

use opamp_store::PackageVersion;

use crate::{exposure, logging, packages::PREFIX};
pub use keys::{
    AdminConfig, ConnectionSettingsConfig, FleetConfig, LogConfig, OpampConfig, PackagesConfig,
    SelfAgentConfig, ServerConfig,
};
use load::Values;
pub(crate) use load::nearest;
pub use load::{ConfigError, DEFAULT_FILE, Inputs, Origin};
pub use reach::{ExternalUrl, ProxyChoice, PublicUrl};
pub use setting::{
    AgentAuth, Count, Frames, LogFormat, MetricsAccess, Mismatch, OtherCredential, SameCredential, Size,
    StoreKind,
};
use value::format_duration;

/// Configuration of a server. Sections and field names are those of the file; see [`keys::KEYS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Section `[server]`.
    pub server: ServerConfig,
    /// Section `[opamp]`.
    pub opamp: OpampConfig,
    /// Section `[admin]`.
    pub admin: AdminConfig,
    /// Section `[fleet]`.
    pub fleet: FleetConfig,
    /// Section `[connection_settings]`.
    pub connection_settings: ConnectionSettingsConfig,
    /// Section `[packages]`.
    pub packages: PackagesConfig,
    /// Section `[self_agent]`.
    pub self_agent: SelfAgentConfig,
    /// Section `[log]`.
    pub log: LogConfig,
}

/// What one file can have, in chunks of 1 MiB.
const FILE_BYTES_MAX: u64 = (PackageVersion::CHUNKS_MAX as u64) << 20;
/// What the HTTP library needs to read a request.
const HTTP_BUFFER_BYTES_MIN: usize = 8 << 10;
/// The longest that reports may gather. It is to spare the processor, and more would spare nothing.
const GATHER_DELAY_MAX: Duration = Duration::from_secs(1);
/// Shorter ones would be an attack of the server on itself.
const SELF_AGENT_INTERVAL_MIN: Duration = Duration::from_millis(100);

impl Config {
    /// Reads file, environment and flags.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, an unknown key or variable, a value in the wrong notation, or values that
    /// contradict each other. The error names the place and what to write instead.
    pub fn load(inputs: &Inputs) -> Result<Config, ConfigError> {
        let config = Config::from_values(&inputs.values()?)?;
        config.check()?;
        Ok(config)
    }

    /// Whether the values fit together and expose nothing that they must not. [`Config::load`] has asked that; [`Server::start`](crate::Server::start) asks again
    /// for a configuration made by hand.
    ///
    /// # Errors
    /// Names the key that is missing, superfluous or wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_tls()?;
        self.check_auth()?;
        self.check_positive()?;
        exposure::check(self)?;
        logging::targets(&self.log)?;
        let opamp = &self.opamp;
        if !opamp.path.starts_with('/') || opamp.path.contains(['?', '#', ' ']) {
            return refuse(format!("`opamp.path` {:?} is not a path: it starts with `/`", opamp.path));
        }
        if opamp.read_timeout <= opamp.ping_interval {
            return refuse(
                "`opamp.read_timeout` must be longer than `opamp.ping_interval`: two to three times",
            );
        }
        if opamp.websocket_stale_after <= opamp.ping_interval {
            return refuse(
                "`opamp.websocket_stale_after` must be longer than `opamp.ping_interval`: two times or more",
            );
        }
        self.check_admission()?;
        if self.fleet.gather_delay > GATHER_DELAY_MAX {
            return refuse(format!(
                "`fleet.gather_delay` is {}, by which the inventory would always be behind: it is {} at most",
                format_duration(self.fleet.gather_delay),
                format_duration(GATHER_DELAY_MAX)
            ));
        }
        self.check_offers()?;
        self.check_self_agent()
    }

    fn check_admission(&self) -> Result<(), ConfigError> {
        let opamp = &self.opamp;
        if opamp.retry_after_max < opamp.retry_after {
            return refuse(format!(
                "`opamp.retry_after_max` is {}, which is less than `opamp.retry_after` ({}): raise it, or lower that",
                format_duration(opamp.retry_after_max),
                format_duration(opamp.retry_after)
            ));
        }
        let (budget, message) = (opamp.buffered_bytes_max.0, opamp.message_bytes_max.0);
        if budget < message {
            return refuse(format!(
                "`opamp.buffered_bytes_max` is {budget} bytes, which is less than one message may have \
                 (`opamp.message_bytes_max`, {message} bytes): raise it to several times that, or lower that"
            ));
        }
        if opamp.http_buffer_bytes.0 < HTTP_BUFFER_BYTES_MIN {
            return refuse(format!(
                "`opamp.http_buffer_bytes` is {} bytes; requests need 8KiB at least",
                opamp.http_buffer_bytes.0
            ));
        }
        match opamp.connections_per_identity_max {
            Some(Count(each)) if each > opamp.connections_max.0 => refuse(format!(
                "`opamp.connections_per_identity_max` is {each}, which is more than `opamp.connections_max` ({}) and bounds \
                 nothing: lower it, or leave it out",
                opamp.connections_max.0
            )),
            _ => Ok(()),
        }
    }

    fn check_offers(&self) -> Result<(), ConfigError> {
        if format!("{}/", self.opamp.path).starts_with(PREFIX) {
            return refuse(format!(
                "`opamp.path` must not begin with {PREFIX}: package files are served there"
            ));
        }
        if self.packages.file_bytes_max.0 as u64 > FILE_BYTES_MAX {
            return refuse("`packages.file_bytes_max` must not be more than 16GiB");
        }
        if self.packages.versions_max.0 > PackageVersion::PACKAGES_MAX {
            return refuse(format!(
                "`packages.versions_max` must not be more than {}",
                PackageVersion::PACKAGES_MAX
            ));
        }
        let public_url = self.packages.public_url.as_ref();
        if public_url.is_some_and(|url| !url.is_tls()) && self.opamp.tls_cert.is_some() {
            return refuse(
                "`packages.public_url` is http:// but the OpAMP port has a certificate: use https://",
            );
        }
        Ok(())
    }

    /// The configuration as a TOML file, with secrets as `<redacted>`.
    pub fn to_toml(&self) -> String {
        docs::effective(self)
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        for (section, cert, key) in [
            ("opamp", &self.opamp.tls_cert, &self.opamp.tls_key),
            ("admin", &self.admin.tls_cert, &self.admin.tls_key),
        ] {
            if cert.is_some() != key.is_some() {
                return refuse(format!("`{section}.tls_cert` and `{section}.tls_key` must be set together"));
            }
        }
        Ok(())
    }

    /// Credentials that are configured but not asked for would be a server that is more open than it looks.
    fn check_auth(&self) -> Result<(), ConfigError> {
        let opamp = &self.opamp;
        let auth = opamp.auth;
        let by_token = matches!(auth, AgentAuth::Token | AgentAuth::TokenOrMtls);
        let by_certificate = matches!(auth, AgentAuth::Mtls | AgentAuth::TokenOrMtls);
        if by_token && opamp.tokens.is_empty() {
            return refuse(format!("`opamp.auth = \"{auth}\"` needs at least one entry in `opamp.tokens`"));
        }
        for (name, tokens) in [("tokens", &opamp.tokens), ("revoked_tokens", &opamp.revoked_tokens)] {
            if !by_token && !tokens.is_empty() {
                return refuse(format!(
                    "`opamp.{name}` is set but `opamp.auth` is \"{auth}\": set it to \"token\""
                ));
            }
        }
        if by_certificate && opamp.client_ca.is_none() {
            return refuse(format!("`opamp.auth = \"{auth}\"` needs `opamp.client_ca`"));
        }
        if by_certificate && opamp.tls_cert.is_none() {
            return refuse(format!("`opamp.auth = \"{auth}\"` needs `opamp.tls_cert` and `opamp.tls_key`"));
        }
        if !by_certificate && opamp.client_ca.is_some() {
            return refuse(format!(
                "`opamp.client_ca` is set but `opamp.auth` is \"{auth}\": set it to \"mtls\""
            ));
        }
        Ok(())
    }

    fn check_self_agent(&self) -> Result<(), ConfigError> {
        let config = &self.self_agent;
        if config.interval < SELF_AGENT_INTERVAL_MIN {
            return refuse(
                "`self_agent.interval` must not be shorter than 100ms: each round opens connections",
            );
        }
        if config.timeout > config.interval {
            return refuse("`self_agent.timeout` must not be longer than `self_agent.interval`");
        }
        let Some(url) = &config.external_url else {
            let needless =
                [("proxy", config.proxy != ProxyChoice::Environment), ("ca_file", config.ca_file.is_some())];
            return match needless.into_iter().find(|(_, set)| *set) {
                Some((key, _)) => {
                    refuse(format!("`self_agent.{key}` is set but `self_agent.external_url` is not"))
                }
                None => Ok(()),
            };
        };
        if config.ca_file.is_some() && !url.is_tls() {
            return refuse("`self_agent.ca_file` is set but `self_agent.external_url` is not wss://");
        }
        // Behind a proxy that is named here, this machine's own name is the proxy's.
        let stays_here = url.is_loopback() && !matches!(config.proxy, ProxyChoice::Url(_));
        if !url.is_tls() && !stays_here && self.opamp.auth != AgentAuth::Insecure {
            return refuse(
                "`self_agent.external_url` would send a credential through the network in clear text: use wss://",
            );
        }
        Ok(())
    }

    fn check_positive(&self) -> Result<(), ConfigError> {
        const MAY_BE_ZERO: [&str; 8] = [
            "server.reload_interval",
            "opamp.accept_rate",
            "opamp.resync_rate",
            "opamp.drain_rate",
            "opamp.shared_configs_max",
            "opamp.compress_min_bytes",
            "fleet.gather_delay",
            "fleet.write_delay",
        ];
        for (section, values) in self.sections() {
            for (name, value) in values {
                let key = format!("{section}.{name}");
                if matches!(value.as_str(), "0" | "\"0s\"") && !MAY_BE_ZERO.contains(&key.as_str()) {
                    return refuse(format!("`{key}` must be more than zero"));
                }
            }
        }
        Ok(())
    }

    fn sections(&self) -> [(&'static str, Vec<(&'static str, String)>); 8] {
        [
            ("server", self.server.show()),
            ("opamp", self.opamp.show()),
            ("admin", self.admin.show()),
            ("fleet", self.fleet.show()),
            ("connection_settings", self.connection_settings.show()),
            ("packages", self.packages.show()),
            ("self_agent", self.self_agent.show()),
            ("log", self.log.show()),
        ]
    }

    fn from_values(values: &Values) -> Result<Config, ConfigError> {
        Ok(Config {
            server: ServerConfig::read(values)?,
            opamp: OpampConfig::read(values)?,
            admin: AdminConfig::read(values)?,
            fleet: FleetConfig::read(values)?,
            connection_settings: ConnectionSettingsConfig::read(values)?,
            packages: PackagesConfig::read(values)?,
            self_agent: SelfAgentConfig::read(values)?,
            log: LogConfig::read(values)?,
        })
    }
}

impl Default for Config {
    #[expect(clippy::expect_used, reason = "the defaults of the table are constants; a test reads them")]
    fn default() -> Self {
        Config::from_values(&Values::defaults()).expect("defaults are valid")
    }
}

fn refuse(message: impl fmt::Display) -> Result<(), ConfigError> {
    Err(ConfigError::new(message.to_string()))
}
