//! Whether values make sense together.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Uri};

use super::error::{ConfigError, Origin};
use super::{Config, Secret};

const AUTHORIZATION: &str = "authorization";
const IDENTIFYING: &str = "agent.description.identifying_attributes";
const NON_IDENTIFYING: &str = "agent.description.non_identifying_attributes";

type Checked = Result<(), ConfigError>;

impl Config {
    pub(super) fn check(&self) -> Checked {
        self.check_endpoints()?;
        self.check_credentials()?;
        self.check_tls()?;
        self.check_proxy()?;
        self.check_times()?;
        self.check_capabilities()?;
        self.check_packages()?;
        self.check_attributes()
    }

    fn check_endpoints(&self) -> Checked {
        self.check_endpoint("server.endpoint", self.server.endpoint.reveal())?;
        for fallback in &self.server.fallback_endpoints {
            self.check_endpoint("server.fallback_endpoints", fallback.reveal())?;
            if self.server.endpoint.has_tls() && !fallback.is_private() {
                return Err(self.values.error(
                    "server.fallback_endpoints",
                    format!(
                        "{fallback} has no TLS and `server.endpoint` has: whoever blocks one would read the other"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The text is shown by nobody: a password may be in it.
    fn check_endpoint(&self, key: &str, endpoint: &str) -> Checked {
        let refuse = |what: &str| Err(self.values.error(key, what));
        let Ok(uri) = endpoint.parse::<Uri>() else {
            return refuse("is not a URL such as wss://opamp.example.com/v1/opamp");
        };
        if !matches!(uri.scheme_str(), Some("ws" | "wss" | "http" | "https")) {
            return refuse("does not begin with ws://, wss://, http:// or https://");
        }
        if endpoint.contains('#') {
            return refuse("has a part behind a `#`, which is never sent");
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => {
                refuse("holds credentials; put them into `server.headers` or `server.bearer_token_file`")
            }
            Some(authority) if authority.as_str() != authority.host() && authority.port_u16().is_none() => {
                refuse("has a port that does not exist")
            }
            Some(authority) if !authority.host().is_empty() => Ok(()),
            _ => refuse("has no host"),
        }
    }

    fn check_credentials(&self) -> Checked {
        self.check_headers("server.headers", &self.server.headers)?;
        let has_authorization =
            self.server.headers.keys().any(|name| name.eq_ignore_ascii_case(AUTHORIZATION));
        if has_authorization && self.server.bearer_token_file.is_some() {
            return Err(self.values.error(
                "server.bearer_token_file",
                "there is an `Authorization` in `server.headers` as well; give one of them",
            ));
        }
        Ok(())
    }

    fn check_headers(&self, key: &str, headers: &BTreeMap<String, Secret>) -> Checked {
        let mut names = std::collections::BTreeSet::new();
        for (name, value) in headers {
            if !names.insert(name.to_ascii_lowercase()) {
                return Err(self
                    .values
                    .error(key, format!("{name:?} is there twice; case makes no difference")));
            }
            if name.parse::<HeaderName>().is_err() {
                return Err(self.values.error(key, format!("{name:?} cannot be the name of a header")));
            }
            if HeaderValue::from_str(value.reveal()).is_err() {
                return Err(self.values.error(
                    key,
                    format!("the value of {name} cannot be sent in a header; is there a line break in it?"),
                ));
            }
        }
        Ok(())
    }

    fn check_tls(&self) -> Checked {
        for (one, other) in
            [("server.tls.cert_file", "server.tls.key_file"), ("server.tls.key_file", "server.tls.cert_file")]
        {
            if self.values.is_given(one) && !self.values.is_given(other) {
                return Err(self.values.error(one, format!("needs `{other}` as well")));
            }
        }
        Ok(())
    }

    fn check_proxy(&self) -> Checked {
        let proxy = &self.server.proxy;
        self.check_headers("server.proxy.headers", &proxy.headers)?;
        let url = proxy.url.as_ref().map(Secret::reveal);
        if url.is_none() && !proxy.no_proxy.is_empty() {
            return Err(self.values.error(
                "server.proxy.no_proxy",
                "needs `server.proxy.url`; beside the variable HTTPS_PROXY there is NO_PROXY",
            ));
        }
        if url == Some("none") && !(proxy.no_proxy.is_empty() && proxy.headers.is_empty()) {
            return Err(self.values.error("server.proxy.url", "is `none`, so nothing else belongs below it"));
        }
        self.proxy().map(drop)
    }

    fn check_times(&self) -> Checked {
        let server = &self.server;
        if server.timeouts.read <= server.ping_interval {
            return Err(self.values.error(
                "server.timeouts.read",
                "must be longer than `server.ping_interval`: two to three times",
            ));
        }
        for (least, most) in [
            ("server.retry.initial_interval", "server.retry.max_interval"),
            ("server.retry.slow_initial_interval", "server.retry.slow_max_interval"),
        ] {
            if self.values.duration(least)? > self.values.duration(most)? {
                return Err(self.values.error(least, format!("is more than `{most}`")));
            }
        }
        Ok(())
    }

    fn check_capabilities(&self) -> Checked {
        let capabilities = &self.capabilities;
        for (reports, accepts, accepted, what) in [
            ("reports_remote_config", "accepts_remote_config", capabilities.remote_config, "a configuration"),
            ("reports_package_statuses", "accepts_packages", capabilities.packages, "packages"),
        ] {
            let key = format!("capabilities.{reports}");
            let contradicts = match self.values.flag(&key)? {
                Some(true) if !accepted => "there is nothing to report".to_owned(),
                Some(false) if accepted => format!("what became of {what} is always reported"),
                _ => continue,
            };
            return Err(self
                .values
                .error(&key, format!("contradicts `capabilities.{accepts}: {accepted}`: {contradicts}")));
        }
        for (capability, enabled, key) in [
            ("reports_heartbeat", capabilities.heartbeat, "server.heartbeat_interval"),
            ("reports_health", capabilities.health, "health.interval"),
        ] {
            if !enabled && self.values.is_given(key) {
                return Err(self
                    .values
                    .error(key, format!("contradicts `capabilities.{capability}: false`")));
            }
        }
        Ok(())
    }

    fn check_packages(&self) -> Checked {
        let packages = &self.packages;
        if self.capabilities.packages && packages.public_key_files.is_empty() && !packages.allow_unsigned {
            return Err(self.error(
                "packages.public_key_files",
                "is missing: whose packages may be installed? `self-agent make-key` makes a key",
            ));
        }
        if packages.allow_unsigned && !packages.public_key_files.is_empty() {
            let what = "contradicts `packages.public_key_files`: packages are either verified or not";
            return Err(self.values.error("packages.allow_unsigned", what));
        }
        let name = std::path::Path::new(&packages.file_name);
        if name.file_name() != Some(name.as_os_str()) {
            return Err(self.values.error("packages.file_name", "is not the plain name of a file"));
        }
        for (key, command) in [
            ("packages.activate_command", &packages.activate_command),
            ("packages.health_command", &packages.health_command),
            ("packages.deactivate_command", &packages.deactivate_command),
        ] {
            // Where else a program is found depends on who starts the agent, and from where.
            if command.first().is_some_and(|program| !std::path::Path::new(program).is_absolute()) {
                return Err(self.values.error(key, "has a program that is not named by its whole path"));
            }
        }
        Ok(())
    }

    fn check_attributes(&self) -> Checked {
        let agent = &self.agent;
        for (key, attributes) in [
            (IDENTIFYING, &agent.identifying_attributes),
            (NON_IDENTIFYING, &agent.non_identifying_attributes),
        ] {
            if attributes.len() > agent.attributes_max {
                let what =
                    format!("has {} attributes, and {} are allowed", attributes.len(), agent.attributes_max);
                return Err(self.values.error(key, what));
            }
            for (name, text) in attributes {
                if name.is_empty() {
                    return Err(self.values.error(key, "an attribute has no name"));
                }
                if name.len().max(text.len()) > agent.attribute_bytes_max {
                    let (name, end) = shortened(name);
                    let most = agent.attribute_bytes_max;
                    let what =
                        format!("the attribute {name:?}{end} or its value is longer than {most} bytes");
                    return Err(self.values.error(key, what));
                }
            }
        }
        let reserved = crate::description::IDENTIFYING_DEFAULTS.iter().copied();
        let identifying: Vec<&str> = agent.identifying_attributes.keys().map(String::as_str).collect();
        for name in reserved.chain(identifying) {
            if agent.non_identifying_attributes.contains_key(name) {
                return Err(self.values.error(
                    NON_IDENTIFYING,
                    format!("`{name}` identifies the agent; it belongs into `{IDENTIFYING}` of its file"),
                ));
            }
        }
        Ok(())
    }

    /// An error about a key, where it is given, or about the file if it is not.
    pub(crate) fn error(&self, key: &str, what: impl std::fmt::Display) -> ConfigError {
        if self.values.is_given(key) {
            return self.values.error(key, what);
        }
        ConfigError::new(Origin::File(self.file.clone(), None), format!("`{key}`: {what}"))
    }
}

fn shortened(name: &str) -> (&str, &'static str) {
    const SHOWN: usize = 64;
    if name.len() <= SHOWN { (name, "") } else { (&name[..name.floor_char_boundary(SHOWN)], "…") }
}
