//! The table of configuration keys: the only place that knows names, notations, defaults, help texts, and what a
//! server may set from afar.

/// One configuration key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Key {
    /// Dotted name, for example `server.tls.ca_file`.
    pub name: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// The default in that notation; empty for "not set".
    pub default: &'static str,
    /// Whether values are secrets, which are never shown.
    pub secret: bool,
    /// Whether a remote configuration may set it. This list is part of the program, so that nothing remote can
    /// widen it (R-SEC-07, R-SEC-08).
    pub remote: bool,
    /// One or two sentences for the documentation.
    pub help: &'static str,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A size in bytes, as a whole number.
    Bytes,
    /// A whole number.
    Count,
    /// A span of time such as `30s` or `1m30s`.
    Duration,
    /// A number such as `1.5`.
    Factor,
    /// A list of texts.
    List,
    /// Names and texts.
    Map,
    /// A path.
    Path,
    /// Text.
    Text,
    /// One of a few words.
    Word(&'static [&'static str]),
}

impl Key {
    /// The key of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The same key, which remote configurations may set.
    const fn remote(self) -> Self {
        Self { remote: true, ..self }
    }

    /// The same key, whose values nobody gets to see.
    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

impl Kind {
    /// What a value looks like, for people.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Count => "whole number".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Factor => "number".to_owned(),
            Self::List => "list of texts".to_owned(),
            Self::Map => "names and texts".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Word(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                quoted.join(", ")
            }
        }
    }
}

const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, secret: false, remote: false, help }
}

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key(
        "server.endpoint",
        Kind::Text,
        "",
        "Where the server is: a URL of scheme `ws` or `wss` (WebSocket), `http` or `https` (polling). Without a \
         path it is `/v1/opamp`. Required.",
    ),
    key(
        "server.fallback_endpoints",
        Kind::List,
        "",
        "Endpoints for when those before cannot be reached. The agent returns to the first when that is back. With TLS if `server.endpoint` has it.",
    ),
    key(
        "server.failback_after",
        Kind::Duration,
        "10m",
        "How long the agent stays with a fallback before it looks whether the first endpoint is back.",
    ),
    key(
        "server.headers",
        Kind::Map,
        "",
        "Headers sent with each connection or poll, such as `Authorization`. Values are secrets.",
    )
    .secret(),
    key(
        "server.bearer_token_file",
        Kind::Path,
        "",
        "File with a bearer token, read again for each connection, so that it may be rotated. Instead of an \
         `Authorization` header.",
    ),
    key(
        "server.tls.ca_file",
        Kind::Path,
        "",
        "PEM file of the certificate authorities that may sign the server's certificate. Without it those of the \
         operating system are trusted.",
    ),
    key(
        "server.tls.include_system_ca_certs_pool",
        Kind::Bool,
        "false",
        "Whether the authorities of the operating system are trusted beside those of `ca_file`.",
    ),
    key(
        "server.tls.cert_file",
        Kind::Path,
        "",
        "PEM file with the certificate this agent shows. Needs `key_file`. TLS files are read again when they \
         have changed.",
    ),
    key("server.tls.key_file", Kind::Path, "", "PEM file with the key of `cert_file`."),
    key("server.tls.min_version", Kind::Word(&["1.2", "1.3"]), "1.2", "Lowest version of TLS that is spoken."),
    key(
        "server.proxy.url",
        Kind::Text,
        "",
        "HTTP proxy, such as `http://user:password@proxy:3128`; `none` for no proxy. Without it the variables \
         `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` decide.",
    )
    .secret(),
    key(
        "server.proxy.no_proxy",
        Kind::List,
        "",
        "Names, addresses and networks that are reached without `server.proxy.url`.",
    ),
    key(
        "server.proxy.headers",
        Kind::Map,
        "",
        "Headers for the proxy, sent with CONNECT. Values are secrets.",
    )
    .secret(),
    key(
        "server.heartbeat_interval",
        Kind::Duration,
        "30s",
        "Distance of heartbeats over WebSocket. The server may set another.",
    ),
    key(
        "server.poll_interval",
        Kind::Duration,
        "30s",
        "Distance of polls over HTTP. The server may set another.",
    ),
    key("server.ping_interval", Kind::Duration, "30s", "Silence of a WebSocket after which it is pinged."),
    key(
        "server.compression",
        Kind::Word(&["none", "gzip"]),
        "none",
        "How request bodies over HTTP are compressed. Not every server takes `gzip`.",
    ),
    key(
        "server.retry.first_interval",
        Kind::Duration,
        "1s",
        "The first attempt after a loss falls anywhere within this. More spreads a fleet further.",
    ),
    key("server.retry.initial_interval", Kind::Duration, "1s", "Bound of the wait before it grows."),
    key(
        "server.retry.max_interval",
        Kind::Duration,
        "60s",
        "Largest bound of the wait; a wait is half of it on average.",
    ),
    key("server.retry.multiplier", Kind::Factor, "1.5", "By what the bound grows with each attempt; 1 to 100."),
    key(
        "server.retry.slow_initial_interval",
        Kind::Duration,
        "10s",
        "First bound after failures that a person has to mend: credentials, certificates, paths.",
    ),
    key(
        "server.retry.slow_max_interval",
        Kind::Duration,
        "5m",
        "Largest bound after such failures.",
    ),
    key(
        "server.retry.stable_after",
        Kind::Duration,
        "60s",
        "How long a connection must have lasted for the bound to start anew.",
    ),
    key(
        "server.timeouts.connect",
        Kind::Duration,
        "30s",
        "How long an attempt may take altogether: name, TCP, proxy, TLS, upgrade.",
    ),
    key("server.timeouts.response", Kind::Duration, "30s", "How long the answer to a report may take."),
    key("server.timeouts.write", Kind::Duration, "20s", "How long writing a message to a WebSocket may take."),
    key(
        "server.timeouts.read",
        Kind::Duration,
        "90s",
        "Silence of a WebSocket after which it is given up. More than `server.ping_interval`.",
    ),
    key("server.timeouts.stop", Kind::Duration, "5s", "How long the goodbye may take when the agent stops."),
    key(
        "server.limits.receive_bytes",
        Kind::Bytes,
        "67108864",
        "Largest message that is received, after decompression. The server can make the agent hold that much.",
    ),
    key("server.limits.send_bytes", Kind::Bytes, "67108864", "Largest message that is sent; at least 256."),
    key(
        "server.limits.frame_bytes",
        Kind::Bytes,
        "4096",
        "Size of outgoing WebSocket frames. Some gateways cut frames above 32 KB.",
    ),
    key("server.limits.redirects", Kind::Count, "5", "Redirects followed one after the other."),
    key(
        "capabilities.accepts_remote_config",
        Kind::Bool,
        "false",
        "Whether the server may configure this agent, within the keys marked *remote* here.",
    ),
    key(
        "capabilities.reports_remote_config",
        Kind::Bool,
        "",
        "Whether the agent says what became of remote configurations. As `accepts_remote_config`; another value \
         is refused.",
    ),
    key(
        "capabilities.reports_effective_config",
        Kind::Bool,
        "true",
        "Whether the agent reports the configuration in use, without its secrets.",
    ),
    key("capabilities.reports_health", Kind::Bool, "true", "Whether the agent checks and reports its health."),
    key(
        "capabilities.reports_heartbeat",
        Kind::Bool,
        "true",
        "Whether heartbeats are sent over WebSocket. Polls over HTTP are made in any case.",
    ),
    key(
        "capabilities.accepts_restart_command",
        Kind::Bool,
        "false",
        "Whether the server may restart this agent, which then reads its configuration file again.",
    ),
    key(
        "capabilities.accepts_opamp_connection_settings",
        Kind::Bool,
        "false",
        "Whether the server may set how it is reached: endpoint, headers, certificate, TLS, proxy, heartbeats. What it sets is \
         tried, kept in the storage directory if it works, and given up if not.",
    ),
    key(
        "capabilities.accepts_packages",
        Kind::Bool,
        "false",
        "Whether the server may install packages on this machine. Needs `packages.public_key_files`.",
    ),
    key(
        "capabilities.reports_package_statuses",
        Kind::Bool,
        "",
        "Whether the agent says what became of packages. As `accepts_packages`; another value is refused.",
    ),
    key(
        "capabilities.reports_own_metrics",
        Kind::Bool,
        "false",
        "Whether the agent sends metrics of its process and its connection where the server says, by OTLP/HTTP.",
    ),
    key(
        "capabilities.reports_available_components",
        Kind::Bool,
        "false",
        "Whether the agent says what is built into it.",
    ),
    key(
        "capabilities.diagnostics",
        Kind::Bool,
        "false",
        "Whether the agent answers custom messages of the capability `com.example.self-agent.diagnostics/1`: `ping` and \
         `stats`.",
    ),
    key(
        "offers.allow_plaintext",
        Kind::Bool,
        "false",
        "Whether the server may set an OpAMP endpoint without TLS in place of one that has it.",
    ),
    key(
        "offers.allow_plaintext_telemetry",
        Kind::Bool,
        "false",
        "Whether the server may have own metrics sent to where there is no TLS.",
    ),
    key(
        "offers.allow_insecure_skip_verify",
        Kind::Bool,
        "false",
        "Whether the server may switch off the verification of certificates. For tests alone.",
    ),
    key(
        "offers.allow_older_tls",
        Kind::Bool,
        "false",
        "Whether the server may set a lower version of TLS than `server.tls.min_version`.",
    ),
    key(
        "offers.allow_credentials_elsewhere",
        Kind::Bool,
        "false",
        "Whether `server.headers` and the token go to an endpoint on another host that the server has set without headers of \
         its own.",
    ),
    key(
        "packages.public_key_files",
        Kind::List,
        "",
        "PEM files of the Ed25519 public keys that packages may be signed with; see `self-agent make-key`. To replace a key, \
         name the old and the new one.",
    ),
    key(
        "packages.allow_unsigned",
        Kind::Bool,
        "false",
        "Whether packages are installed that nobody has signed. Then whoever has the server has this machine too.",
    ),
    key(
        "packages.allow_plain_http",
        Kind::Bool,
        "false",
        "Whether packages are fetched from addresses without TLS. They are verified all the same, but their headers are not \
         secret then.",
    ),
    key(
        "packages.directory",
        Kind::Path,
        "",
        "Where packages are installed; `packages` in the storage directory unless given. One agent each.",
    ),
    key(
        "packages.file_name",
        Kind::Text,
        "package",
        "The name that the file of each package gets in its directory.",
    ),
    key("packages.executable", Kind::Bool, "false", "Whether that file may be executed."),
    key("packages.file_bytes_max", Kind::Bytes, "1073741824", "Largest file of a package that is taken."),
    key(
        "packages.download_timeout",
        Kind::Duration,
        "1h",
        "How long fetching one file may take altogether, with all attempts.",
    ),
    key(
        "packages.activate_command",
        Kind::List,
        "",
        "Program with arguments that puts a package to use once it is in place. Without one it is only put there.",
    ),
    key(
        "packages.health_command",
        Kind::List,
        "",
        "Program with arguments that ends with 0 if a package works. If it does not, the version before is put back.",
    ),
    key(
        "packages.deactivate_command",
        Kind::List,
        "",
        "Program with arguments that takes a package out of use, before it is removed.",
    ),
    key(
        "packages.command_timeout",
        Kind::Duration,
        "60s",
        "How long each of these may take before it is ended and counts as failed.",
    ),
    key(
        "agent.description.identifying_attributes",
        Kind::Map,
        "",
        "Attributes that single this agent out. `service.name` and `service.version` are there unless given \
         here; `service.instance.id` follows the instance uid unless given here.",
    ),
    key(
        "agent.description.non_identifying_attributes",
        Kind::Map,
        "",
        "Attributes that describe this agent. `os.type`, `host.arch` and `host.name` are there unless given here. \
         Remote ones are added to the local ones, and replace those of the same name.",
    )
    .remote(),
    key(
        "agent.request_instance_uid",
        Kind::Bool,
        "false",
        "Whether the server is asked for an instance uid, until it has given one.",
    ),
    key(
        "agent.limits.remote_config_bytes",
        Kind::Bytes,
        "65536",
        "Largest remote configuration that is taken.",
    ),
    key("agent.limits.attributes", Kind::Count, "128", "Most attributes of each kind that an agent may have."),
    key("agent.limits.attribute_bytes", Kind::Bytes, "1024", "Longest name or value of an attribute."),
    key(
        "storage.directory",
        Kind::Path,
        "/var/lib/self-agent",
        "Where identity and remote configuration are kept. Made with mode 0700 if it is missing. One agent each.",
    ),
    key(
        "telemetry.logs.level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "What is logged on standard error.",
    )
    .remote(),
    key(
        "telemetry.own_metrics_interval",
        Kind::Duration,
        "10s",
        "How often own metrics are sent; `100ms` to `1h`.",
    ),
    key(
        "health.interval",
        Kind::Duration,
        "10s",
        "How often the agent checks itself; `100ms` to `1h`. Only what has changed is reported.",
    )
    .remote(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::foreign::FOREIGN;

    #[test]
    fn names_are_unique_and_no_key_is_a_section_of_another() {
        let names: Vec<_> =
            KEYS.iter().map(|key| key.name).chain(FOREIGN.iter().map(|key| key.name)).collect();
        for (index, name) in names.iter().enumerate() {
            for other in &names[index + 1..] {
                let below = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}."));
                assert!(!below(name, other) && !below(other, name), "{name} and {other}");
            }
        }
    }

    #[test]
    fn nothing_that_decides_on_trust_identity_or_storage_is_remote() {
        let remote: Vec<_> = KEYS.iter().filter(|key| key.remote).map(|key| key.name).collect();
        assert_eq!(
            remote,
            ["agent.description.non_identifying_attributes", "telemetry.logs.level", "health.interval"]
        );
    }
}
