//! The table of configuration keys: the only place that knows names, types, defaults and help texts.
//!
//! The sections' types, file keys, environment variables, command-line flags, `config-docs`, `--print-config` and the
//! "nearest known key" suggestions are all made from it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use opamp_server::Network;

use super::{
    load::{ConfigError, Values},
    reach::{ExternalUrl, ProxyChoice, PublicUrl},
    setting::{
        AgentAuth, Count, Frames, LogFormat, MetricsAccess, Mismatch, OtherCredential, SameCredential,
        Setting as _, Size, StoreKind,
    },
    value::{CapabilityName, TokenEntry},
};

/// One configuration key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Key {
    /// Dotted name as written in the TOML file, for example `opamp.listen`.
    pub name: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// The default, in the notation of [`Key::kind`]; empty for "not set" and for an empty list.
    pub default: &'static str,
    /// Whether values are secrets and shown as `<redacted>`.
    pub secret: bool,
    /// One or two sentences for the documentation.
    pub help: &'static str,
}

impl Key {
    /// Name of the environment variable: `OPAMP_` and the key in upper case, without a leading `opamp.` or `server.`.
    pub fn env(&self) -> String {
        let mut name = String::from("OPAMP_");
        name.extend(self.short().chars().map(|c| if c == '.' { '_' } else { c.to_ascii_uppercase() }));
        name
    }

    /// Name of the command-line flag without the two dashes.
    pub fn flag(&self) -> String {
        self.short().chars().map(|c| if matches!(c, '.' | '_') { '-' } else { c }).collect()
    }

    /// The key with this dotted name.
    pub fn by_name(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    fn short(&self) -> &'static str {
        let bare = self.name.strip_prefix("opamp.").or_else(|| self.name.strip_prefix("server."));
        bare.unwrap_or(self.name)
    }
}

/// The notation of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// IP address and port, for example `127.0.0.1:4320` or `[::]:4320`.
    Address,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number.
    Count,
    /// A duration: `500ms`, `30s`, `5m`, `24h`, `7d`.
    Duration,
    /// A list of texts. In the environment separated by commas; as a flag repeated or separated by commas.
    List,
    /// A path of a file or directory; relative ones start at the working directory.
    Path,
    /// A size in bytes: `512`, `64KiB`, `64MiB`, `1GiB`.
    Size,
    /// `true` or `false`.
    Switch,
    /// Any text.
    Text,
}

impl Kind {
    /// Short description for the documentation.
    pub fn describe(self) -> String {
        match self {
            Kind::Address => "address and port".into(),
            Kind::Choice(words) => words.join(" \\| "),
            Kind::Count => "number".into(),
            Kind::Duration => "duration".into(),
            Kind::List => "list".into(),
            Kind::Path => "path".into(),
            Kind::Size => "size".into(),
            Kind::Switch => "true \\| false".into(),
            Kind::Text => "text".into(),
        }
    }
}

macro_rules! config {
    ($($(#[$doc:meta])* $struct:ident $section:literal {
        $($field:ident: $type:ty, $kind:expr, $default:literal, $help:literal $(, $secret:ident)?;)*
    })*) => {
        /// Every configuration key, in the order of the documentation.
        pub const KEYS: &[Key] = &[$($(Key {
            name: concat!($section, ".", stringify!($field)),
            kind: $kind,
            default: $default,
            secret: config!(@secret $($secret)?),
            help: $help,
        }),*),*];

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $struct { $(#[doc = $help] pub $field: $type,)* }

            impl $struct {
                pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
                    Ok($struct { $($field: values.read(concat!($section, ".", stringify!($field)))?,)* })
                }

                pub(super) fn show(&self) -> Vec<(&'static str, String)> {
                    vec![$((stringify!($field), self.$field.show()),)*]
                }
            }
        )*
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

config! {
    /// Section `[server]`: the process.
    ServerConfig "server" {
        data_dir: PathBuf, Kind::Path, "opamp-data",
            "Directory of the database and the lock file; created with mode 0700. One server per directory.";
        store: StoreKind, Kind::Choice(StoreKind::WORDS), "sqlite",
            "Where the fleet is kept. `memory` forgets everything at exit, admin tokens included.";
        reload_interval: Duration, Kind::Duration, "30s",
            "How often certificate and token files are checked for changes; `0s` leaves only SIGHUP.";
        shutdown_timeout: Duration, Kind::Duration, "10s",
            "Time a graceful shutdown may take before open connections are dropped.";
    }

    /// Section `[opamp]`: the port where agents connect.
    OpampConfig "opamp" {
        listen: SocketAddr, Kind::Address, "127.0.0.1:4320",
            "Where agents connect, WebSocket and plain HTTP. Beyond loopback `opamp.auth` and either TLS or `opamp.trusted_proxies` are required.";
        path: String, Kind::Text, "/v1/opamp",
            "Path of the OpAMP endpoint; beside it there is only `/v1/packages/` on this port, see `packages.enabled`.";
        auth: AgentAuth, Kind::Choice(AgentAuth::WORDS), "insecure",
            "How agents prove who they are. `insecure` accepts everyone and works on loopback only.";
        tokens: Vec<TokenEntry>, Kind::List, "",
            "Bearer tokens of agents: `NAME=TOKEN`, `NAME=@FILE` (first line of the file, re-read when it changes) or `NAME=sha256:HEX`.", secret;
        revoked_tokens: Vec<TokenEntry>, Kind::List, "",
            "Tokens that used to be valid, in the notation of `opamp.tokens`: refused, named in the audit log, stronger than `opamp.tokens`.", secret;
        tls_cert: Option<PathBuf>, Kind::Path, "",
            "PEM file with the certificate chain of the OpAMP port; needs `opamp.tls_key`.";
        tls_key: Option<PathBuf>, Kind::Path, "",
            "PEM file with the private key of the OpAMP port.";
        client_ca: Option<PathBuf>, Kind::Path, "",
            "PEM file with the authorities that issue client certificates; needed by `mtls` and `token-or-mtls`.";
        trusted_proxies: Vec<Network>, Kind::List, "",
            "Addresses or networks of proxies in front of the OpAMP port that terminate TLS. Their `X-Forwarded-For` names the agent's address; beyond loopback without TLS everyone else is refused.";
        message_bytes_max: Size, Kind::Size, "64MiB",
            "Largest message of an agent after decompression, and largest one sent. Larger ones are 413 or close code 1009.";
        buffered_bytes_max: Size, Kind::Size, "256MiB",
            "Memory that agents can make the server hold, all of them together: incomplete messages and request bodies, and messages that wait for slow readers. Only what has arrived counts (with `tungstenite` as `opamp.websocket_frames` what is announced on a WebSocket as well). What does not fit is refused with 503, on a WebSocket with UNAVAILABLE and close code 1013. Not less than `opamp.message_bytes_max`.";
        connections_max: Count, Kind::Count, "100000",
            "Open WebSocket connections at once; further ones are answered 503. Never more than the process may have files open (`ulimit -n`), less 384: the log says so at the start.";
        connections_per_identity_max: Option<Count>, Kind::Count, "",
            "Open WebSockets, and polls being answered, of one identity at once; further ones are answered 429. Not set: as many as `opamp.connections_max`, because fleets often share one token. Set it where each agent has credentials of its own, and leave room for a connection that is not over yet. Agents without credentials are not counted.";
        websocket_frames: Frames, Kind::Choice(Frames::WORDS), "lean",
            "What reads and writes WebSocket frames: `lean`, the server's own, holds no buffers for idle connections; `tungstenite`, the library that most others use, takes some 6 KB more for each, and as much as its largest messages took. Choose it to rule the server's own out as the cause of something.";
        accept_rate: Count, Kind::Count, "2000",
            "New connections let in per second once `opamp.accept_burst` is used up; the others wait. More brings a fleet back sooner at the cost of the agents that are there; less protects a smaller machine. `0` sets no pace.";
        accept_burst: Count, Kind::Count, "2000",
            "New connections let in at once before that pace counts: a smaller fleet never waits.";
        accept_queue_max: Count, Kind::Count, "4096",
            "New connections that wait for that pace in this process; further ones wait in the operating system. Divided by the rate it should stay below the time that agents wait, about 10 seconds.";
        resync_rate: Count, Kind::Count, "1000",
            "Agents asked for their full state per second once `opamp.resync_burst` is used up; the others are asked later, none is forgotten. More makes the inventory whole sooner after state was lost; less spares network and database. `0` sets no pace.";
        resync_burst: Count, Kind::Count, "2000",
            "Agents asked for their full state at once, in the very answer that found it missing, before that pace counts.";
        drain_rate: Count, Kind::Count, "2000",
            "WebSockets closed per second at a shutdown, so that their agents do not arrive elsewhere all at once; faster if half of `server.shutdown_timeout` is too short for that. `0` closes all at once.";
        agents_max: Count, Kind::Count, "1000000",
            "Agents known at once; a new one beyond that is answered UNAVAILABLE.";
        agents_per_connection_max: Count, Kind::Count, "1000",
            "Agents that may share one WebSocket.";
        handshakes_max: Count, Kind::Count, "256",
            "TLS handshakes at once; further ones wait.";
        http_connections_max: Count, Kind::Count, "16384",
            "Open connections that are no WebSocket, or none yet; further ones wait as for `opamp.accept_rate`. Together with the WebSockets and `opamp.accept_queue_max` never more than the process may have files open, less 256: beyond that new ones wait in the operating system.";
        http_buffer_bytes: Size, Kind::Size, "32KiB",
            "Longest head of a request; a longer one is answered 431, for sure at twice that. Also what one connection that is no WebSocket buffers of a body. It is beside `opamp.buffered_bytes_max`. Not less than 8 KiB.";
        close_timeout: Duration, Kind::Duration, "2s",
            "Time for the peer's half of a closing handshake.";
        forget_after: Duration, Kind::Duration, "24h",
            "The conversation with an agent gone this long is forgotten unless something is assigned to it; coming back costs it one full report. Its record stays.";
        faults_max: Count, Kind::Count, "10",
            "Faulty messages in a row after which a WebSocket is closed with code 1008.";
        retry_after: Duration, Kind::Duration, "15s",
            "`Retry-After` of refusals for want of capacity, at least; up to twice as long at random. Longer when more agents wait, or were sent away for want of room, than `opamp.accept_rate` lets in within that time.";
        retry_after_max: Duration, Kind::Duration, "5m",
            "The longest `Retry-After`, before up to as long again at random. Longer keeps a large fleet from coming back faster than it can be served, and agents away from a server that has room again. Not less than `opamp.retry_after`.";
        ping_interval: Duration, Kind::Duration, "30s",
            "Interval of WebSocket pings.";
        read_timeout: Duration, Kind::Duration, "90s",
            "A WebSocket on which nothing arrives for this long, pongs included, is closed.";
        first_message_timeout: Duration, Kind::Duration, "30s",
            "A WebSocket must carry its first message within this time.";
        write_timeout: Duration, Kind::Duration, "20s",
            "A connection whose peer takes nothing of what is sent for this long is closed: WebSockets, answers to polls, downloads.";
        handshake_timeout: Duration, Kind::Duration, "10s",
            "Time for TLS and for the WebSocket upgrade, and for the first byte of a new connection.";
        header_read_timeout: Duration, Kind::Duration, "45s",
            "Time for a request's headers, and how long a connection may rest between two requests; longer than agents poll.";
        body_timeout: Duration, Kind::Duration, "30s",
            "Time for a request's body, and for the rest of a WebSocket message that has begun. What came of it is held until then.";
        websocket_stale_after: Duration, Kind::Duration, "60s",
            "A WebSocket agent without any sign of life for this long, pongs included, is `stale`. Two ping intervals or more.";
        http_poll_interval: Duration, Kind::Duration, "30s",
            "Polling interval assumed for HTTP agents until theirs is known; three of them without a poll make the agent stale.";
        http_stale_min: Duration, Kind::Duration, "15s",
            "A polling agent is never `stale` before this, however fast it polls.";
        repeat_after: Duration, Kind::Duration, "30s",
            "A polling agent that stays silent about an offer is offered it again after this time, then after twice as long, and so on.";
        outgoing_frame_bytes: Size, Kind::Size, "4KiB",
            "Size of the WebSocket fragments sent.";
        compress_min_bytes: Size, Kind::Size, "1KiB",
            "HTTP answers from this size on are compressed for agents that accept gzip.";
        capability_mismatch: Mismatch, Kind::Choice(Mismatch::WORDS), "ignore",
            "What happens to a field whose capability the agent does not announce: the field is ignored and noted, or the message is refused.";
        accept_headerless: bool, Kind::Switch, "false",
            "Whether agents from before OpAMP 0.7, whose WebSocket messages have no header, are served. Otherwise their messages are malformed.";
        duplicates_other_credential: OtherCredential, Kind::Choice(OtherCredential::WORDS), "flag",
            "What happens to an agent that shows up with the instance uid of another one and another credential: `flag`: its messages are refused, and the agent that is there is flagged; `newest-wins`: it takes the place of the agent that is there, unless that one is bound to a client certificate, then as `flag`; `rekey`: it is told to take over a uid of its own; `reject`: its connection is closed, a poll answered 403.";
        duplicates_same_credential: SameCredential, Kind::Choice(SameCredential::WORDS), "ping",
            "What happens to an agent that shows up with the instance uid of a connected one and the same credential: `newest-wins`: it takes the place of the connected one; `ping`: the connected one is pinged, and if it answers the newcomer is told to take over a uid of its own, otherwise the newcomer takes its place.";
        duplicates_ping_timeout: Duration, Kind::Duration, "5s",
            "How long the answer to that ping is waited for. As long waits the newcomer for its first answer.";
        duplicates_waiting_max: Count, Kind::Count, "16",
            "Messages that may wait for that on one WebSocket; further ones are answered UNAVAILABLE.";
        duplicates_waiting_bytes_max: Size, Kind::Size, "4MiB",
            "Bytes of those messages on one WebSocket. The first may wait however large it is.";
        custom_capabilities: Vec<CapabilityName>, Kind::List, "",
            "Custom capabilities that this server announces, such as `com.example.discovery` or `com.example.discovery/2`. Custom messages are sent and taken for these only.";
        custom_queue_max: Count, Kind::Count, "64",
            "Custom messages that may wait for one agent; further ones are refused with 429.";
        custom_queue_bytes_max: Size, Kind::Size, "1MiB",
            "Bytes of custom messages that may wait for one agent; further ones are refused with 429.";
        custom_received_max: Count, Kind::Count, "1024",
            "Custom messages of all agents that may wait to be looked at by the server; further ones are dropped and counted.";
        custom_received_bytes_max: Size, Kind::Size, "16MiB",
            "Bytes of those messages.";
        shared_configs_max: Count, Kind::Count, "1024",
            "Effective configurations of several agents that are in memory once for all of them. Beyond that those go first that one agent alone reported, and agents keep copies of their own. `0` shares none.";
        shared_configs_bytes_max: Size, Kind::Size, "64MiB",
            "Bytes of those configurations together. A larger one is never shared.";
        components_max: Count, Kind::Count, "1024",
            "Lists of components that are known by their hash. Beyond that the ones learnt longest ago are forgotten, and an agent that has one is asked for it once more.";
        components_bytes_max: Size, Kind::Size, "16MiB",
            "Bytes of all those lists together.";
    }

    /// Section `[admin]`: the port of the REST API, health and metrics.
    AdminConfig "admin" {
        listen: SocketAddr, Kind::Address, "127.0.0.1:4321",
            "Where the REST API, health and metrics are served. Beyond loopback TLS or `admin.trusted_proxies` is required.";
        tls_cert: Option<PathBuf>, Kind::Path, "",
            "PEM file with the certificate chain of the admin port; needs `admin.tls_key`.";
        tls_key: Option<PathBuf>, Kind::Path, "",
            "PEM file with the private key of the admin port.";
        trusted_proxies: Vec<Network>, Kind::List, "",
            "Addresses or networks (`10.0.0.7`, `10.0.0.0/8`) of proxies in front of the admin port that terminate TLS. Their `X-Forwarded-For` names the client in the audit log; beyond loopback without TLS everyone else is refused.";
        body_bytes_max: Size, Kind::Size, "16MiB",
            "Largest request body of the REST API.";
        request_timeout: Duration, Kind::Duration, "30s",
            "Time for a REST request, its body included, and for a request's headers.";
        metrics: MetricsAccess, Kind::Choice(MetricsAccess::WORDS), "auto",
            "Who may read `/metrics`: everyone, holders of an API token, or `auto`: everyone while `admin.listen` is loopback.";
    }

    /// Section `[fleet]`: how long things are remembered and when they are written.
    FleetConfig "fleet" {
        expire_after: Duration, Kind::Duration, "24h",
            "A disconnected agent that does not come back within this time is `expired`.";
        gather_delay: Duration, Kind::Duration, "20ms",
            "Reports of agents are taken into the inventory in groups, at most this much later. `0s` takes each at once, at the cost of waking for every one of them. At most `1s`: by so much the inventory is behind, and so much more than `fleet.write_delay` a crash may lose.";
        write_delay: Duration, Kind::Duration, "500ms",
            "Reported facts are written in groups, at most this much later. Answers of the REST API never wait for it: they are committed at once.";
        checkpoint_interval: Duration, Kind::Duration, "60s",
            "Interval of the packed checkpoints of sequence numbers and last-seen times. After a crash, agents that sent anything since are asked once for their full state.";
        custom_messages_max: Count, Kind::Count, "32",
            "The last custom messages of one agent that are kept to be looked at, in memory.";
        custom_bytes_max: Size, Kind::Size, "256KiB",
            "Bytes of one agent's kept custom messages. A larger message is kept without its data.";
        custom_total_bytes_max: Size, Kind::Size, "32MiB",
            "Bytes of all kept custom messages together; the oldest go first.";
    }

    /// Section `[connection_settings]`: offering connection settings.
    ConnectionSettingsConfig "connection_settings" {
        enabled: bool, Kind::Switch, "true",
            "Whether connection settings are offered. Otherwise the server does not announce it, and what was set before waits.";
        plain_http_telemetry: bool, Kind::Switch, "false",
            "Whether `http://` destinations may be offered for agents' own telemetry. Headers and data then cross the network in clear text.";
        bytes_max: Size, Kind::Size, "1MiB",
            "Largest connection settings of one agent, encoded; never more than fits into `opamp.message_bytes_max`.";
    }

    /// Section `[packages]`: the package catalogue, and downloads of its files.
    PackagesConfig "packages" {
        enabled: bool, Kind::Switch, "true",
            "Whether packages are offered, and their files served at `/v1/packages/` on the OpAMP port. Otherwise the server does not announce it, and what was assigned before waits.";
        public_url: Option<PublicUrl>, Kind::Text, "",
            "The OpAMP port as agents reach it, such as `https://opamp.example.com:4320`: where offers send them for downloads. Without it the address that is listened on; needed where that is all addresses of the machine, or behind a proxy.";
        file_bytes_max: Size, Kind::Size, "1GiB",
            "Largest file of a package, at most 16 GiB. It lies in the database.";
        total_bytes_max: Size, Kind::Size, "4GiB",
            "Bytes of all packages together, uploads under way included; an upload beyond that is answered 409. What was deleted or uploaded in vain is not counted, and takes space in the database for up to an hour more.";
        versions_max: Count, Kind::Count, "1000",
            "Package versions in the catalogue, at most 10000.";
        per_agent_max: Count, Kind::Count, "32",
            "Packages of one agent.";
        uploads_max: Count, Kind::Count, "4",
            "Uploads at once; further ones are answered 503. Each holds up to 2 MiB in memory.";
        upload_timeout: Duration, Kind::Duration, "15m",
            "Time for one upload. If nothing of it arrives for `admin.request_timeout` it is ended earlier.";
        downloads_max: Count, Kind::Count, "64",
            "Downloads at once, at most two of them of one agent; further ones are answered 503. Each holds up to 2 MiB in memory. A peer that takes nothing for `opamp.write_timeout` is given up.";
    }

    /// Section `[self_agent]`: the agent by which the server watches itself.
    SelfAgentConfig "self_agent" {
        enabled: bool, Kind::Switch, "true",
            "Whether the server runs an agent of its own that connects to the OpAMP port as any other agent does, appears in the inventory and tells at `/api/v1/self` whether the server or the network is at fault.";
        interval: Duration, Kind::Duration, "10s",
            "How often the server is probed. A fault shows in the second round that finds it, within three intervals. Not shorter than 100ms.";
        timeout: Duration, Kind::Duration, "5s",
            "Time for one probe; not longer than `self_agent.interval`.";
        external_url: Option<ExternalUrl>, Kind::Text, "",
            "The endpoint as agents elsewhere reach it, such as `wss://opamp.example.com/v1/opamp`. With it the way from outside is probed too. It has to lead to this very server.";
        proxy: ProxyChoice, Kind::Text, "environment",
            "The proxy on the way to `self_agent.external_url`: `environment` (`HTTPS_PROXY`, `NO_PROXY` and the like), `none`, or a URL such as `http://proxy:3128`.", secret;
        ca_file: Option<PathBuf>, Kind::Path, "",
            "PEM file with the authorities that are trusted on the way to `self_agent.external_url`; without it those of the operating system. Read again when it changes.";
    }

    /// Section `[log]`: the log.
    LogConfig "log" {
        format: LogFormat, Kind::Choice(LogFormat::WORDS), "text",
            "Log lines for people or for machines, on standard error.";
        level: String, Kind::Text, "info",
            "Level, or levels per module: `info`, `warn,opamp_server=debug`.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_env_variables_and_flags_are_unique() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        let envs: BTreeSet<_> = KEYS.iter().map(Key::env).collect();
        let flags: BTreeSet<_> = KEYS.iter().map(Key::flag).collect();
        assert_eq!((names.len(), envs.len(), flags.len()), (KEYS.len(), KEYS.len(), KEYS.len()));
        assert!(!envs.contains("OPAMP_CONFIG"), "that one names the file");
    }

    #[test]
    fn the_main_sections_have_the_short_names() {
        let key = Key::by_name("opamp.tls_cert").unwrap();
        assert_eq!((key.env().as_str(), key.flag().as_str()), ("OPAMP_TLS_CERT", "tls-cert"));
        let key = Key::by_name("server.data_dir").unwrap();
        assert_eq!((key.env().as_str(), key.flag().as_str()), ("OPAMP_DATA_DIR", "data-dir"));
        let key = Key::by_name("admin.tls_cert").unwrap();
        assert_eq!((key.env().as_str(), key.flag().as_str()), ("OPAMP_ADMIN_TLS_CERT", "admin-tls-cert"));
    }
}
