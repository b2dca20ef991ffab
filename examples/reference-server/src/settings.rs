//! From the configuration to the settings of the libraries.

use opamp_fleet::{ConfigLimits, IndexSettings, manager::ManagerSettings};
use opamp_proto::Limits;
use opamp_server::{
    ServerSettings,
    session::{CapabilityMismatch, SessionSettings},
};

use opamp_store::WriteBehindLimits;

use crate::config::{Config, Mismatch, OpampConfig};

/// What a message needs around a configuration: identity, hash, capabilities, flags. Generously rounded up.
const OFFER_OVERHEAD_BYTES: usize = 1024;

/// Limits of received messages.
pub(crate) fn limits(config: &OpampConfig) -> Limits {
    Limits { message_bytes_max: config.message_bytes_max.0, ..Limits::default() }
}

/// Settings of the OpAMP server.
pub(crate) fn server(config: &OpampConfig) -> ServerSettings {
    ServerSettings {
        session: SessionSettings {
            capability_mismatch: match config.capability_mismatch {
                Mismatch::Ignore => CapabilityMismatch::Ignore,
                Mismatch::Reject => CapabilityMismatch::Reject,
            },
            send_bytes_max: config.message_bytes_max.0,
            websocket_stale_after: config.websocket_stale_after,
            http_interval_assumed: config.http_poll_interval,
            http_stale_min: config.http_stale_min,
            repeat_after: config.repeat_after,
            ..SessionSettings::default()
        },
        ping_interval: config.ping_interval,
        read_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
        first_message_timeout: config.first_message_timeout,
        handshake_timeout: config.handshake_timeout,
        header_read_timeout: config.header_read_timeout,
        body_timeout: config.body_timeout,
        connections_max: config.connections_max.0,
        agents_per_connection_max: config.agents_per_connection_max.0,
        agents_max: config.agents_max.0,
        faults_max: u32::try_from(config.faults_max.0).unwrap_or(u32::MAX),
        frame_bytes: config.outgoing_frame_bytes.0,
        compress_min_bytes: config.compress_min_bytes.0,
        retry_after: config.retry_after,
        handshakes_max: config.handshakes_max.0,
        http_connections_max: config.http_connections_max.0,
        close_timeout: config.close_timeout,
        forget_after: config.forget_after,
        trusted_proxies: config.trusted_proxies.clone(),
        ..ServerSettings::default()
    }
}

/// Settings of the fleet manager.
pub(crate) fn manager(config: &Config) -> ManagerSettings {
    let limits = ConfigLimits::default();
    // A configuration that is made can also be offered.
    let offer_max = config.opamp.message_bytes_max.0.saturating_sub(OFFER_OVERHEAD_BYTES);
    let config = &config.fleet;
    ManagerSettings {
        config: ConfigLimits { encoded_bytes_max: limits.encoded_bytes_max.min(offer_max), ..limits },
        index: IndexSettings { expire_after: config.expire_after, ..IndexSettings::default() },
        write_behind: WriteBehindLimits { delay: config.write_delay, ..WriteBehindLimits::default() },
        checkpoint_interval: config.checkpoint_interval,
        audit_writer: crate::AUDIT_WRITER.into(),
        ..ManagerSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Inputs, keys::KEYS};

    #[test]
    fn documented_defaults_are_those_of_the_libraries() {
        let config = Config::default();
        assert_eq!(format!("{:?}", server(&config.opamp)), format!("{:?}", ServerSettings::default()));
        assert_eq!(limits(&config.opamp).message_bytes_max, Limits::default().message_bytes_max);
        let expected =
            ManagerSettings { audit_writer: crate::AUDIT_WRITER.into(), ..ManagerSettings::default() };
        assert_eq!(format!("{:?}", manager(&config)), format!("{expected:?}"));
    }

    /// Keys that are the server's own business, each with the test that shows its effect. All others are handed to the
    /// libraries.
    const OWN: [(&str, &str, &str); 29] = [
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
    ];
    const NETWORK_PATH: &str = "a_broken_proxy_on_the_way_from_outside_is_the_network_path";
    const BOTH_PORTS: &str =
        "both_ports_show_a_new_certificate_after_a_reload_and_keep_the_old_one_if_it_is_broken";
    const TRUSTED_PROXIES: &str =
        "beyond_loopback_plain_connections_are_served_to_trusted_proxies_and_refused_to_everybody_else";
    const ACCESS: &str = include_str!("../tests/api_access.rs");
    const EFFECTS: &str = include_str!("../tests/effects.rs");
    const EXPOSURE: &str = include_str!("../tests/exposure.rs");
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
            format!("{:?} {:?} {:?}", limits(&config.opamp), server(&config.opamp), manager(config))
        };
        let defaults = all(&Config::default());
        for key in KEYS.iter().filter(|key| !OWN.iter().any(|(own, ..)| *own == key.name)) {
            let value = match key.name {
                "opamp.ping_interval" => "29s".to_owned(),
                _ => format!("1{}", key.default),
            };
            let inputs = Inputs { flags: vec![(key.name, vec![value])], ..Inputs::default() };
            assert_ne!(all(&Config::load(&inputs).unwrap()), defaults, "{} changes nothing", key.name);
        }
    }
}
