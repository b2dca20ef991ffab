//! From the configuration to what the client connects with.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use opamp_client::connection::SettingsPolicy;
use opamp_client::retry::RetrySettings;
use opamp_client::session::SessionSettings;
use opamp_client::{ClientSettings, MinTlsVersion, Proxy, TlsError, TlsOptions, TlsSource, TokenSource};

use crate::config::{Address, Config, ConfigError, has_tls};

impl Config {
    /// Intervals and limits for the client.
    #[must_use]
    pub fn client_settings(&self) -> ClientSettings {
        let server = &self.server;
        let (retry, timeouts, limits) = (&server.retry, &server.timeouts, &server.limits);
        let session = SessionSettings {
            heartbeat: self.capabilities.heartbeat.then_some(server.heartbeat_interval),
            poll_interval: server.poll_interval,
            connect_timeout: timeouts.connect,
            response_timeout: timeouts.response,
            write_timeout: timeouts.write,
            ping_interval: server.ping_interval,
            read_timeout: timeouts.read,
            stop_timeout: timeouts.stop,
            send_bytes_max: limits.send_bytes,
            failback_after: server.failback_after,
            request_uid: self.agent.request_instance_uid,
            retry: RetrySettings {
                first: retry.first_interval,
                initial: retry.initial_interval,
                max: retry.max_interval,
                multiplier: retry.multiplier,
                slow_initial: retry.slow_initial_interval,
                slow_max: retry.slow_max_interval,
                stable: retry.stable_after,
                ..RetrySettings::default()
            },
            ..SessionSettings::default()
        };
        ClientSettings {
            session,
            receive_bytes_max: limits.receive_bytes,
            frame_bytes: limits.frame_bytes,
            compress: server.compress,
            redirects_max: limits.redirects,
            ..ClientSettings::default()
        }
    }

    /// What the server may do to connections.
    pub(crate) fn settings_policy(&self) -> SettingsPolicy {
        let (offers, mut policy) = (self.offers, SettingsPolicy::strict());
        if offers.plaintext {
            policy = policy.allow_plaintext();
        }
        if offers.plaintext_telemetry {
            policy = policy.allow_plaintext_telemetry();
        }
        if offers.insecure_skip_verify {
            policy = policy.allow_insecure_skip_verify();
        }
        if offers.older_tls {
            policy = policy.allow_older_tls();
        }
        if offers.credentials_elsewhere {
            policy = policy.allow_credentials_elsewhere();
        }
        policy
    }

    /// Warns of credentials that anyone on the way can read.
    pub(crate) fn warn_of_plain_text(&self) {
        let server = &self.server;
        if server.headers.is_empty() && server.bearer_token_file.is_none() {
            return;
        }
        for endpoint in server.endpoints().filter(|endpoint| !endpoint.is_private()) {
            tracing::warn!(
                "credentials go to {endpoint} in plain text, for anyone on the way to read; use wss:// or https://"
            );
        }
    }

    /// The TLS configuration, if any of it is needed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if files cannot be used.
    pub(crate) fn tls(&self) -> Result<Option<TlsSource>, ConfigError> {
        let tls = &self.server.tls;
        let proxy = self.server.proxy.url.as_ref();
        let wanted = tls.ca_file.is_some()
            || tls.identity.is_some()
            || self.server.endpoints().any(Address::has_tls)
            || proxy.is_some_and(|proxy| has_tls(proxy.reveal()));
        // What the server names later may need it: downloads, destinations, another endpoint.
        let on = &self.capabilities;
        let useful = on.packages || on.own_metrics || on.opamp_settings;
        if !wanted && !useful {
            return Ok(None);
        }
        let mut options = TlsOptions::new(Arc::new(rustls::crypto::ring::default_provider()));
        match &tls.ca_file {
            Some(file) => options = options.ca_file(file),
            None => options = options.native_roots(),
        }
        if tls.include_system_ca_certs_pool {
            options = options.native_roots();
        }
        if let Some((chain, key)) = &tls.identity {
            options = options.client_certificate_files(chain, key);
        }
        options = options.min_version(if tls.only_1_3 { MinTlsVersion::V1_3 } else { MinTlsVersion::V1_2 });
        match TlsSource::from_options(options) {
            Ok(source) => Ok(Some(source)),
            Err(TlsError::NoAuthority) if !wanted => {
                tracing::warn!(
                    "this system trusts no certificate authority, so nothing the server names can be reached over TLS"
                );
                Ok(None)
            }
            Err(error) => Err(self.tls_error(&error)),
        }
    }

    /// The error with the key whose file it is about.
    pub(crate) fn tls_error(&self, error: &TlsError) -> ConfigError {
        let tls = &self.server.tls;
        let (chain, key) =
            tls.identity.as_ref().map(|(chain, key)| (Some(chain), Some(key))).unwrap_or_default();
        let files = [
            ("server.tls.ca_file", tls.ca_file.as_ref()),
            ("server.tls.cert_file", chain),
            ("server.tls.key_file", key),
        ];
        let about = match error {
            TlsError::Pem { location, .. } => files
                .into_iter()
                .find(|(_, file)| file.is_some_and(|file| file.display().to_string() == *location))
                .map(|(key, _)| key),
            TlsError::Identity(_) => Some("server.tls.cert_file"),
            _ => None,
        };
        self.error(about.unwrap_or("server.tls.ca_file"), error)
    }

    /// The proxy; without one in the file the environment decides.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the address or a header cannot be one.
    pub(crate) fn proxy(&self) -> Result<Proxy, ConfigError> {
        let config = &self.server.proxy;
        let proxy = match config.url.as_ref().map(|url| url.reveal()) {
            None => Ok(Proxy::from_env()),
            Some("none") => Ok(Proxy::none()),
            Some(url) => Proxy::with_exceptions(url, &config.no_proxy.join(",")),
        };
        let mut proxy = proxy.map_err(|error| self.error("server.proxy.url", error))?;
        for (name, value) in &config.headers {
            proxy = proxy
                .connect_header(name, value.reveal())
                .map_err(|error| self.error("server.proxy.headers", error))?;
        }
        Ok(proxy)
    }
}

/// A bearer token in a file, read each time.
pub(crate) struct TokenFile(pub(crate) PathBuf);

impl TokenFile {
    /// The token as it is now.
    pub(crate) fn read(&self) -> Result<String, String> {
        let shown = self.0.display();
        let text = std::fs::read_to_string(&self.0).map_err(|error| format!("{shown}: {error}"))?;
        match text.trim() {
            "" => Err(format!("{shown} is empty")),
            token if http::HeaderValue::from_str(token).is_err() => {
                Err(format!("{shown} holds more than one line, or characters that no header may have"))
            }
            token => Ok(token.to_owned()),
        }
    }
}

impl TokenSource for TokenFile {
    fn token(&self, _refused: bool) -> BoxFuture<'_, Result<String, String>> {
        let file = Self(self.0.clone());
        Box::pin(async move {
            tokio::task::spawn_blocking(move || file.read()).await.map_err(|error| error.to_string())?
        })
    }
}
