//! From the configuration to the settings of the libraries.

use opamp_fleet::{IndexSettings, manager::ManagerSettings};
use opamp_proto::Limits;
use opamp_server::{
    ServerSettings,
    session::{CapabilityMismatch, SessionSettings},
};

use opamp_store::WriteBehindLimits;

use crate::config::{FleetConfig, Mismatch, OpampConfig};

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
        trusted_proxies: config.trusted_proxies.clone(),
        ..ServerSettings::default()
    }
}

/// Settings of the fleet manager.
pub(crate) fn manager(config: &FleetConfig) -> ManagerSettings {
    ManagerSettings {
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
    use crate::config::{Config, Inputs, keys::KEYS};

    #[test]
    fn documented_defaults_are_those_of_the_libraries() {
        let config = Config::default();
        assert_eq!(format!("{:?}", server(&config.opamp)), format!("{:?}", ServerSettings::default()));
        assert_eq!(limits(&config.opamp).message_bytes_max, Limits::default().message_bytes_max);
        let expected =
            ManagerSettings { audit_writer: crate::AUDIT_WRITER.into(), ..ManagerSettings::default() };
        assert_eq!(format!("{:?}", manager(&config.fleet)), format!("{expected:?}"));
    }

    /// Keys of `[opamp]` that are the library's business; the others concern listening, TLS and authentication.
    #[test]
    fn every_key_of_the_libraries_changes_their_settings() {
        const ELSEWHERE: [&str; 8] = [
            "opamp.listen",
            "opamp.path",
            "opamp.auth",
            "opamp.tokens",
            "opamp.revoked_tokens",
            "opamp.tls_cert",
            "opamp.tls_key",
            "opamp.client_ca",
        ];
        let all = |config: &Config| format!("{:?} {:?}", server(&config.opamp), manager(&config.fleet));
        let defaults = all(&Config::default());
        for key in KEYS.iter().filter(|key| key.name.starts_with("opamp.") || key.name.starts_with("fleet."))
        {
            if ELSEWHERE.contains(&key.name) {
                continue;
            }
            let value = match (key.name, key.default) {
                ("opamp.ping_interval", _) => "29s".to_owned(),
                (_, "ignore") => "reject".to_owned(),
                (_, "") => "192.0.2.7".to_owned(),
                (_, number) => format!("1{number}"),
            };
            let mut inputs = Inputs::default();
            inputs.flags = vec![(key.name, vec![value])];
            assert_ne!(all(&Config::load(&inputs).unwrap()), defaults, "{} changes nothing", key.name);
        }
    }
}
