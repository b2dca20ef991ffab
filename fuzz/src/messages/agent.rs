//! What an agent says.

use bytes::Bytes;
use opamp_proto::pb;

use super::{
    DEPTH_MAX, attributes, config_map, custom_capabilities, custom_message, enumeration, hash, list, map,
    some,
};
use crate::tape::Tape;

/// A message with any of the fields. The identity is [`crate::UID`] more often than not.
#[must_use]
pub fn agent_to_server(tape: &mut Tape<'_>) -> pb::AgentToServer {
    let instance_uid = match tape.below(8) {
        7 => Bytes::copy_from_slice(tape.bytes(20)),
        6 => Bytes::copy_from_slice(&[9; 16]),
        _ => Bytes::copy_from_slice(crate::UID.as_bytes()),
    };
    let mut message = pb::AgentToServer {
        instance_uid,
        sequence_num: tape.number(),
        capabilities: if tape.flag() { 0xffff } else { tape.number() },
        flags: if tape.below(8) == 7 { tape.number() } else { 0 },
        ..Default::default()
    };
    // Which parts there are is one number, so that a part is added or taken away by one bit.
    let parts = tape.short();
    let has = |part: u32| parts & (1 << part) != 0;
    message.agent_description = has(0).then(|| description(tape));
    message.health = has(1).then(|| component_health(tape));
    message.effective_config = has(2).then(|| pb::EffectiveConfig { config_map: some(tape, config_map) });
    message.remote_config_status = has(3).then(|| pb::RemoteConfigStatus {
        last_remote_config_hash: hash(tape),
        status: enumeration(tape),
        error_message: tape.text(),
    });
    message.package_statuses = has(4).then(|| package_statuses(tape));
    message.agent_disconnect = has(5).then(pb::AgentDisconnect::default);
    message.connection_settings_request = has(6).then(|| connection_settings_request(tape));
    message.custom_capabilities = has(7).then(|| custom_capabilities(tape));
    message.custom_message = has(8).then(|| custom_message(tape));
    message.available_components = has(9).then(|| pb::AvailableComponents {
        components: map(tape, |tape| component_details(tape, DEPTH_MAX)),
        hash: hash(tape),
    });
    message.connection_settings_status = has(10).then(|| pb::ConnectionSettingsStatus {
        last_connection_settings_hash: hash(tape),
        status: enumeration(tape),
        error_message: tape.text(),
    });
    message
}

/// Health of an agent and what is below it.
#[must_use]
pub fn component_health(tape: &mut Tape<'_>) -> pb::ComponentHealth {
    nested_health(tape, DEPTH_MAX)
}

fn nested_health(tape: &mut Tape<'_>, depth: u32) -> pb::ComponentHealth {
    pb::ComponentHealth {
        healthy: tape.flag(),
        start_time_unix_nano: tape.number(),
        last_error: tape.text(),
        status: tape.text(),
        status_time_unix_nano: tape.number(),
        component_health_map: match depth.checked_sub(1) {
            Some(depth) => map(tape, |tape| nested_health(tape, depth)),
            None => Default::default(),
        },
        attributes: attributes(tape),
    }
}

fn description(tape: &mut Tape<'_>) -> pb::AgentDescription {
    pb::AgentDescription {
        identifying_attributes: attributes(tape),
        non_identifying_attributes: attributes(tape),
    }
}

fn component_details(tape: &mut Tape<'_>, depth: u32) -> pb::ComponentDetails {
    pb::ComponentDetails {
        metadata: attributes(tape),
        sub_component_map: match depth.checked_sub(1) {
            Some(depth) => map(tape, |tape| component_details(tape, depth)),
            None => Default::default(),
        },
    }
}

fn package_statuses(tape: &mut Tape<'_>) -> pb::PackageStatuses {
    pb::PackageStatuses {
        packages: map(tape, |tape| pb::PackageStatus {
            name: tape.text(),
            agent_has_version: tape.text(),
            agent_has_hash: hash(tape),
            server_offered_version: tape.text(),
            server_offered_hash: hash(tape),
            status: enumeration(tape),
            error_message: tape.text(),
            download_details: some(tape, |tape| pb::PackageDownloadDetails {
                download_percent: f64::from(tape.byte()),
                download_bytes_per_second: f64::from_bits(tape.number()),
            }),
        }),
        server_provided_all_packages_hash: hash(tape),
        error_message: tape.text(),
    }
}

fn connection_settings_request(tape: &mut Tape<'_>) -> pb::ConnectionSettingsRequest {
    let certificate_request = |tape: &mut Tape<'_>| {
        let lines = list(tape, |tape| tape.pick(&[PEM_BEGIN, "MAA=\n", PEM_END, "\n"]));
        let csr = if tape.flag() { lines.concat().into() } else { Bytes::copy_from_slice(tape.bytes(60)) };
        pb::CertificateRequest { csr }
    };
    pb::ConnectionSettingsRequest {
        opamp: some(tape, |tape| pb::OpAmpConnectionSettingsRequest {
            certificate_request: some(tape, certificate_request),
        }),
    }
}

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const PEM_END: &str = "-----END CERTIFICATE REQUEST-----\n";
