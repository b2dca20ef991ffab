//! From the configuration to the settings of the libraries.

use std::net::SocketAddr;

use opamp_fleet::{
    ConfigLimits, IndexSettings,
    manager::{CustomSettings, ManagerSettings, PackageSettings},
};
use opamp_proto::{Limits, ServerCapabilities};
use opamp_server::{
    CustomCapabilities, DuplicateSettings, FrameReader, OtherCredential, SameCredential, ServerSettings,
    session::{CapabilityMismatch, SessionSettings},
};
use opamp_store::WriteBehindLimits;

use crate::{
    config::{self, Config, ConfigError, Count, Frames, Mismatch, OpampConfig},
    exposure,
    packages::{DownloadSettings, PREFIX},
};

/// What a message needs around a configuration: identity, hash, capabilities, flags. Generously rounded up.
const OFFER_OVERHEAD_BYTES: usize = 1024;

/// Limits of received messages.
pub(crate) fn limits(config: &OpampConfig) -> Limits {
    Limits { message_bytes_max: config.message_bytes_max.0, ..Limits::default() }
}

/// Settings of the OpAMP server.
///
/// # Errors
/// A custom capability, put in by hand, that is no name of one.
pub(crate) fn server(config: &Config) -> Result<ServerSettings, ConfigError> {
    let capabilities = capabilities(config, SessionSettings::default().capabilities);
    let config = &config.opamp;
    Ok(ServerSettings {
        session: SessionSettings {
            capabilities,
            custom_capabilities: custom_capabilities(config)?,
            custom_queue_max: config.custom_queue_max.0,
            custom_queue_bytes_max: config.custom_queue_bytes_max.0,
            capability_mismatch: match config.capability_mismatch {
                Mismatch::Ignore => CapabilityMismatch::Ignore,
                Mismatch::Reject => CapabilityMismatch::Reject,
            },
            send_bytes_max: config.message_bytes_max.0,
            websocket_stale_after: config.websocket_stale_after,
            http_interval_assumed: config.http_poll_interval,
            http_stale_min: config.http_stale_min,
            repeat_after: config.repeat_after,
        },
        ping_interval: config.ping_interval,
        read_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
        first_message_timeout: config.first_message_timeout,
        handshake_timeout: config.handshake_timeout,
        header_read_timeout: config.header_read_timeout,
        body_timeout: config.body_timeout,
        connections_max: config.connections_max.0,
        connections_per_identity_max: config.connections_per_identity_max.map(|Count(each)| each),
        buffered_bytes_max: config.buffered_bytes_max.0,
        frames: match config.websocket_frames {
            Frames::Lean => FrameReader::Lean,
            Frames::Tungstenite => FrameReader::Tungstenite,
        },
        accept_rate: small(config.accept_rate),
        accept_burst: small(config.accept_burst),
        accept_queue_max: config.accept_queue_max.0,
        resync_rate: small(config.resync_rate),
        resync_burst: small(config.resync_burst),
        drain_rate: small(config.drain_rate),
        agents_per_connection_max: config.agents_per_connection_max.0,
        agents_max: config.agents_max.0,
        faults_max: small(config.faults_max),
        frame_bytes: config.outgoing_frame_bytes.0,
        compress_min_bytes: config.compress_min_bytes.0,
        retry_after: config.retry_after,
        retry_after_max: config.retry_after_max,
        handshakes_max: config.handshakes_max.0,
        http_connections_max: config.http_connections_max.0,
        http_buffer_bytes: config.http_buffer_bytes.0,
        shared_configs_max: config.shared_configs_max.0,
        shared_configs_bytes_max: config.shared_configs_bytes_max.0,
        close_timeout: config.close_timeout,
        forget_after: config.forget_after,
        trusted_proxies: config.trusted_proxies.clone(),
        duplicates: duplicates(config),
        components_kept: config.components_max.0,
        components_bytes_max: config.components_bytes_max.0,
        custom_events_kept: config.custom_received_max.0,
        custom_events_bytes_max: config.custom_received_bytes_max.0,
        accept_headerless: config.accept_headerless,
        ..ServerSettings::default()
    })
}

/// As many as a number of 32 bits can say, which nothing that is counted so ever reaches.
fn small(Count(count): Count) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What the server announces: everything it can do, but for what is switched off.
fn capabilities(config: &Config, mut announced: ServerCapabilities) -> ServerCapabilities {
    if !config.connection_settings.enabled {
        announced.remove(ServerCapabilities::OFFERS_CONNECTION_SETTINGS);
    }
    if !config.packages.enabled {
        announced.remove(ServerCapabilities::OFFERS_PACKAGES | ServerCapabilities::ACCEPTS_PACKAGES_STATUS);
    }
    announced
}

fn custom_capabilities(config: &OpampConfig) -> Result<CustomCapabilities, ConfigError> {
    CustomCapabilities::new(config.custom_capabilities.iter().map(config::value::CapabilityName::as_str))
        .map_err(|error| ConfigError::new(format!("`opamp.custom_capabilities`: {error}")))
}

fn duplicates(config: &OpampConfig) -> DuplicateSettings {
    DuplicateSettings {
        other_credential: match config.duplicates_other_credential {
            config::OtherCredential::Flag => OtherCredential::Flag,
            config::OtherCredential::NewestWins => OtherCredential::NewestWins,
            config::OtherCredential::Rekey => OtherCredential::Rekey,
            config::OtherCredential::Reject => OtherCredential::Reject,
        },
        same_credential: match config.duplicates_same_credential {
            config::SameCredential::NewestWins => SameCredential::NewestWins,
            config::SameCredential::Ping => SameCredential::PingThenRekey,
        },
        ping_timeout: config.duplicates_ping_timeout,
        waiting_max: config.duplicates_waiting_max.0,
        waiting_bytes_max: config.duplicates_waiting_bytes_max.0,
    }
}

/// Bounds on downloads.
pub(crate) fn downloads(config: &Config) -> DownloadSettings {
    let opamp = &config.opamp;
    DownloadSettings {
        downloads_max: config.packages.downloads_max.0,
        store_timeout: opamp.handshake_timeout,
        retry_after: opamp.retry_after,
        plain_through_proxies_only: !exposure::is_loopback(&opamp.listen) && opamp.tls_cert.is_none(),
        trusted_proxies: opamp.trusted_proxies.clone(),
    }
}

/// Where agents download: the configured address, or the one that is listened on if it is one that others can use.
fn package_url_base(config: &Config, opamp_addr: SocketAddr) -> Option<String> {
    let path = PREFIX.trim_end_matches('/');
    if let Some(url) = &config.packages.public_url {
        return Some(format!("{}{path}", url.as_str()));
    }
    let scoped = matches!(opamp_addr, SocketAddr::V6(address) if address.scope_id() != 0);
    let scheme = if config.opamp.tls_cert.is_some() { "https" } else { "http" };
    (!opamp_addr.ip().is_unspecified() && !scoped).then(|| format!("{scheme}://{opamp_addr}{path}"))
}

/// Settings of the fleet manager of a server that listens there for agents.
pub(crate) fn manager(config: &Config, opamp_addr: SocketAddr) -> ManagerSettings {
    let limits = ConfigLimits::default();
    // What is made can also be offered.
    let offer_max = config.opamp.message_bytes_max.0.saturating_sub(OFFER_OVERHEAD_BYTES);
    let packages = PackageSettings {
        url_base: package_url_base(config, opamp_addr),
        file_bytes_max: config.packages.file_bytes_max.0 as u64,
        total_bytes_max: config.packages.total_bytes_max.0 as u64,
        versions_max: config.packages.versions_max.0,
        per_agent_max: config.packages.per_agent_max.0,
        uploads_max: config.packages.uploads_max.0,
    };
    let connection_settings_bytes_max = config.connection_settings.bytes_max.0.min(offer_max);
    let config = &config.fleet;
    ManagerSettings {
        packages,
        connection_settings_bytes_max,
        custom: CustomSettings {
            messages_max: config.custom_messages_max.0,
            bytes_max: config.custom_bytes_max.0,
            total_bytes_max: config.custom_total_bytes_max.0,
        },
        config: ConfigLimits { encoded_bytes_max: limits.encoded_bytes_max.min(offer_max), ..limits },
        index: IndexSettings { expire_after: config.expire_after, ..IndexSettings::default() },
        write_behind: WriteBehindLimits { delay: config.write_delay, ..WriteBehindLimits::default() },
        gather: config.gather_delay,
        checkpoint_interval: config.checkpoint_interval,
        audit_writer: crate::AUDIT_WRITER.into(),
        ..ManagerSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Inputs,
        keys::{KEYS, Kind},
    };

    #[test]
    fn documented_defaults_are_those_of_the_libraries() {
        let config = Config::default();
        let settings = server(&config).unwrap();
        // The library takes the reader that most others use; this program is made for large fleets.
        let expected = ServerSettings { frames: FrameReader::Lean, ..ServerSettings::default() };
        assert_eq!(format!("{settings:?}"), format!("{expected:?}"));
        assert_eq!(limits(&config.opamp).message_bytes_max, Limits::default().message_bytes_max);
        let expected =
            ManagerSettings { audit_writer: crate::AUDIT_WRITER.into(), ..ManagerSettings::default() };
        assert_eq!(format!("{:?}", manager(&config, EVERYWHERE)), format!("{expected:?}"));
    }

    /// Without an address that others can use there is none for downloads either.
    const EVERYWHERE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 4320);

    #[test]
    fn downloads_are_where_agents_can_reach_them() {
        let base = |flags: &[(&'static str, &str)], listens: &str| {
            let flags = flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect();
            let config = Config::load(&Inputs { flags, ..Inputs::default() }).unwrap();
            package_url_base(&config, listens.parse().unwrap())
        };
        let there = |url: &str| Some(url.to_owned());
        assert_eq!(base(&[], "127.0.0.1:4320"), there("http://127.0.0.1:4320/v1/packages"));
        let tls = [("opamp.tls_cert", "c"), ("opamp.tls_key", "k")];
        assert_eq!(base(&tls, "[2001:db8::1]:1"), there("https://[2001:db8::1]:1/v1/packages"));
        for nowhere in ["0.0.0.0:4320", "[::]:4320", "[fe80::1%2]:4320"] {
            assert_eq!(base(&[], nowhere), None, "{nowhere}");
            let public = [("packages.public_url", "https://opamp.example.com/x/")];
            assert_eq!(base(&public, nowhere), there("https://opamp.example.com/x/v1/packages"));
        }
    }

    /// Keys that are the server's own business, each with the test that shows its effect. All others are handed to the
    /// libraries.
    const OWN: [(&str, &str, &str); 31] = [
        ("server.data_dir", PROGRAM, "two_servers_never_share_a_data_directory"),
        ("server.store", PROGRAM, "tokens_are_managed_offline"),
        (
            "server.reload_interval",
            RELOAD,
            "a_changed_token_file_is_noticed_and_ends_the_connections_of_the_old_token",
        ),
        ("server.shutdown_timeout", EFFECTS, "a_shutdown_does_not_wait_longer_than_configured"),
        ("opamp.listen", PROGRAM, "a_port_in_use_is_named_with_its_key"),
        ("opamp.path", EFFECTS, "the_endpoint_is_at_the_configured_path_only"),
        ("opamp.auth", RELOAD, "with_token_or_mtls_each_alone_lets_an_agent_in"),
        ("opamp.tokens", RELOAD, "a_changed_token_file_is_noticed_and_ends_the_connections_of_the_old_token"),
        ("opamp.revoked_tokens", RELOAD, "a_revoked_agent_token_is_refused_and_named_in_the_audit_log"),
        ("opamp.tls_cert", RELOAD, BOTH_PORTS),
        ("opamp.tls_key", RELOAD, BOTH_PORTS),
        ("opamp.client_ca", RELOAD, "with_token_or_mtls_each_alone_lets_an_agent_in"),
        ("admin.listen", PROGRAM, "a_port_in_use_is_named_with_its_key"),
        ("admin.tls_cert", RELOAD, BOTH_PORTS),
        ("admin.tls_key", RELOAD, BOTH_PORTS),
        ("admin.trusted_proxies", EXPOSURE, TRUSTED_PROXIES),
        ("admin.body_bytes_max", ACCESS, "unknown_paths_methods_and_sizes_get_json_errors"),
        ("admin.request_timeout", EFFECTS, "a_request_that_takes_too_long_is_ended"),
        ("admin.metrics", ACCESS, "metrics_and_health_are_open_on_loopback_and_metrics_can_be_closed"),
        ("log.format", PROGRAM, "logs_are_json_objects_when_asked"),
        ("log.level", PROGRAM, "logs_are_json_objects_when_asked"),
        ("opamp.trusted_proxies", EXPOSURE, TRUSTED_PROXIES),
        (
            "opamp.capability_mismatch",
            EFFECTS,
            "an_agents_field_without_its_capability_is_ignored_or_rejected_as_configured",
        ),
        ("self_agent.enabled", SELF_AGENT, "it_is_in_the_inventory_like_any_other_agent_unless_switched_off"),
        ("self_agent.interval", SELF_AGENT, "rounds_follow_each_other_at_the_configured_distance"),
        ("self_agent.timeout", SELF_AGENT, "a_probe_is_given_up_after_the_configured_time"),
        ("self_agent.external_url", SELF_VERDICT, NETWORK_PATH),
        ("self_agent.proxy", SELF_VERDICT, NETWORK_PATH),
        (
            "self_agent.ca_file",
            SELF_VERDICT,
            "the_way_from_outside_is_verified_against_the_ca_file_as_it_is_now",
        ),
        (
            "connection_settings.plain_http_telemetry",
            OFFERS,
            "plain_http_destinations_of_telemetry_are_offered_only_where_that_is_allowed",
        ),
        ("packages.upload_timeout", PACKAGES, "an_upload_that_takes_too_long_leaves_nothing"),
    ];
    const NETWORK_PATH: &str = "a_broken_proxy_on_the_way_from_outside_is_the_network_path";
    const BOTH_PORTS: &str =
        "both_ports_show_a_new_certificate_after_a_reload_and_keep_the_old_one_if_it_is_broken";
    const TRUSTED_PROXIES: &str =
        "beyond_loopback_plain_connections_are_served_to_trusted_proxies_and_refused_to_everybody_else";
    const ACCESS: &str = include_str!("../tests/api_access.rs");
    const EFFECTS: &str = include_str!("../tests/effects.rs");
    const EXPOSURE: &str = include_str!("../tests/exposure.rs");
    const OFFERS: &str = include_str!("../tests/api_connection_settings.rs");
    const PACKAGES: &str = include_str!("../tests/api_packages.rs");
    const PROGRAM: &str = include_str!("../tests/program.rs");
    const RELOAD: &str = include_str!("../tests/reload.rs");
    const SELF_AGENT: &str = include_str!("../tests/self_agent.rs");
    const SELF_VERDICT: &str = include_str!("../tests/self_verdict.rs");

    #[test]
    fn every_key_changes_the_settings_of_a_library_or_has_a_test_of_its_effect() {
        for (key, file, test) in OWN {
            assert!(KEYS.iter().any(|known| known.name == key), "{key} is no key");
            assert!(file.contains(&format!("fn {test}()")), "there is no test {test} for {key}");
        }
        let all = |config: &Config| {
            let listens = "192.0.2.1:4320".parse().unwrap();
            let (server, manager) = (server(config).unwrap(), manager(config, listens));
            format!("{:?} {server:?} {manager:?} {:?}", limits(&config.opamp), downloads(config))
        };
        let defaults = all(&Config::default());
        for key in KEYS.iter().filter(|key| !OWN.iter().any(|(own, ..)| *own == key.name)) {
            let value = match (key.name, key.kind) {
                ("opamp.ping_interval", _) => "29s".to_owned(),
                ("opamp.custom_capabilities", _) => "com.example.x".to_owned(),
                ("packages.public_url", _) => "https://opamp.example.com".to_owned(),
                ("packages.versions_max", _) => "999".to_owned(),
                (_, Kind::Switch) => (key.default == "false").to_string(),
                (_, Kind::Choice(words)) => {
                    (*words.iter().find(|word| **word != key.default).unwrap()).to_owned()
                }
                _ => format!("1{}", key.default),
            };
            let inputs = Inputs { flags: vec![(key.name, vec![value])], ..Inputs::default() };
            assert_ne!(all(&Config::load(&inputs).unwrap()), defaults, "{} changes nothing", key.name);
        }
    }
}
