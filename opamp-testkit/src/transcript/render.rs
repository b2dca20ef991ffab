//! Messages as one line.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use opamp_proto::pb;
use opamp_proto::pb::any_value::Value;
use opamp_proto::pb::server_error_response::Details;

/// How many leading bytes of a hash are shown.
const HASH_BYTES: usize = 4;

/// Parts of one line, joined by spaces.
struct Parts(Vec<String>);

impl Parts {
    fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    fn when(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if holds {
            self.0.push(text());
        }
    }

    fn each<T>(&mut self, part: Option<&T>, text: impl FnOnce(&T) -> String) {
        self.0.extend(part.map(text));
    }

    fn line(self) -> String {
        self.0.join(" ")
    }
}

pub(super) fn agent_to_server(message: &pb::AgentToServer, name: &mut dyn FnMut(&Bytes) -> String) -> String {
    let mut parts = Parts(vec![identity(&message.instance_uid, name), format!("#{}", message.sequence_num)]);
    parts.when(message.capabilities != 0, || format!("capabilities={:#x}", message.capabilities));
    parts.each(message.agent_description.as_ref(), description);
    parts.each(message.health.as_ref(), health);
    parts.each(message.effective_config.as_ref(), |config| {
        format!("effective_config{{{}}}", config.config_map.as_ref().map(files).unwrap_or_default())
    });
    parts.each(message.remote_config_status.as_ref(), |status| {
        let word =
            word(pb::RemoteConfigStatuses::try_from(status.status).map(|s| s.as_str_name()), status.status);
        report("remote_config_status", &word, &status.last_remote_config_hash, &status.error_message)
    });
    parts.each(message.package_statuses.as_ref(), |statuses| {
        format!("package_statuses{{{} packages}}", statuses.packages.len())
    });
    parts.each(message.agent_disconnect.as_ref(), |_| "agent_disconnect".to_owned());
    parts.when(message.flags != 0, || format!("flags={:#x}", message.flags));
    parts.each(message.connection_settings_request.as_ref(), |_| "connection_settings_request".to_owned());
    parts.each(message.custom_capabilities.as_ref(), custom_capabilities);
    parts.each(message.custom_message.as_ref(), custom_message);
    parts.each(message.available_components.as_ref(), |available| {
        format!("available_components{{{} {} components}}", hash(&available.hash), available.components.len())
    });
    parts.each(message.connection_settings_status.as_ref(), |status| {
        let word = word(
            pb::ConnectionSettingsStatuses::try_from(status.status).map(|s| s.as_str_name()),
            status.status,
        );
        report(
            "connection_settings_status",
            &word,
            &status.last_connection_settings_hash,
            &status.error_message,
        )
    });
    parts.line()
}

pub(super) fn server_to_agent(message: &pb::ServerToAgent, name: &mut dyn FnMut(&Bytes) -> String) -> String {
    let mut parts = Parts(vec![identity(&message.instance_uid, name)]);
    parts.each(message.error_response.as_ref(), error);
    parts.when(message.capabilities != 0, || format!("capabilities={:#x}", message.capabilities));
    parts.when(message.flags != 0, || format!("flags={:#x}", message.flags));
    parts.each(message.remote_config.as_ref(), |offer| {
        format!(
            "remote_config{{{} {}}}",
            hash(&offer.config_hash),
            offer.config.as_ref().map(files).unwrap_or_default()
        )
    });
    parts.each(message.connection_settings.as_ref(), |offer| {
        format!("connection_settings{{{} {}}}", hash(&offer.hash), settings(offer))
    });
    parts.each(message.packages_available.as_ref(), |offer| {
        format!("packages_available{{{} {} packages}}", hash(&offer.all_packages_hash), offer.packages.len())
    });
    if let Some(identification) = &message.agent_identification {
        parts.add(format!("new_instance_uid={}", identity(&identification.new_instance_uid, name)));
    }
    parts.each(message.command.as_ref(), |command| {
        let word = word(pb::CommandType::try_from(command.r#type).map(|s| s.as_str_name()), command.r#type);
        format!("command{{{word}}}")
    });
    parts.each(message.custom_capabilities.as_ref(), custom_capabilities);
    parts.each(message.custom_message.as_ref(), custom_message);
    parts.line()
}

fn identity(uid: &Bytes, name: &mut dyn FnMut(&Bytes) -> String) -> String {
    match uid.len() {
        0 => "(no uid)".to_owned(),
        16 => name(uid),
        length => format!("(uid of {length} B)"),
    }
}

/// The last word of an enum value's name, as the specification text writes it: `APPLIED`, `Restart`.
fn word<E>(known: Result<&'static str, E>, number: i32) -> String {
    known.map_or_else(|_| number.to_string(), |name| name.rsplit('_').next().unwrap_or(name).to_owned())
}

fn hash(hash: &Bytes) -> String {
    match hash.get(..HASH_BYTES) {
        Some(head) if hash.len() > HASH_BYTES => format!("{}…", HEXLOWER.encode(head)),
        _ if hash.is_empty() => "(no hash)".to_owned(),
        _ => HEXLOWER.encode(hash),
    }
}

fn report(part: &str, word: &str, last: &Bytes, error: &str) -> String {
    let error = if error.is_empty() { String::new() } else { format!(" {error:?}") };
    format!("{part}{{{word} {}{error}}}", hash(last))
}

fn description(description: &pb::AgentDescription) -> String {
    let identifying = description.identifying_attributes.iter().map(attribute).collect::<Vec<_>>().join(" ");
    let more = match description.non_identifying_attributes.len() {
        0 => String::new(),
        count => format!(" +{count}"),
    };
    format!("description{{{identifying}{more}}}")
}

fn attribute(pair: &pb::KeyValue) -> String {
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => format!("{}={text:?}", pair.key),
        _ => format!("{}=…", pair.key),
    }
}

fn health(health: &pb::ComponentHealth) -> String {
    let mut parts = Parts(vec![if health.healthy { "healthy" } else { "unhealthy" }.to_owned()]);
    parts.when(!health.status.is_empty(), || format!("{:?}", health.status));
    parts.when(!health.last_error.is_empty(), || format!("error={:?}", health.last_error));
    parts.when(!health.component_health_map.is_empty(), || {
        format!("{} components", health.component_health_map.len())
    });
    format!("health{{{}}}", parts.line())
}

fn files(map: &pb::AgentConfigMap) -> String {
    let file = |(name, object): (&String, &pb::AgentConfigObject)| {
        let kind =
            if object.content_type.is_empty() { String::new() } else { format!(":{}", object.content_type) };
        format!("{name:?}:{}B{kind}", object.body.len())
    };
    map.config_map.iter().map(file).collect::<Vec<_>>().join(" ")
}

fn error(error: &pb::ServerErrorResponse) -> String {
    let word =
        word(pb::ServerErrorResponseType::try_from(error.r#type).map(|s| s.as_str_name()), error.r#type);
    let retry = match &error.details {
        Some(Details::RetryInfo(info)) => format!(" retry_after={}ns", info.retry_after_nanoseconds),
        None => String::new(),
    };
    format!("error_response{{{word} {:?}{retry}}}", error.error_message)
}

fn settings(offer: &pb::ConnectionSettingsOffers) -> String {
    let mut parts = Parts(Vec::new());
    // Endpoints may carry credentials as well: only which settings there are is shown.
    parts.each(offer.opamp.as_ref(), |opamp| {
        format!("opamp(heartbeat={}s)", opamp.heartbeat_interval_seconds)
    });
    parts.each(offer.own_metrics.as_ref(), |_| "own_metrics".to_owned());
    parts.each(offer.own_traces.as_ref(), |_| "own_traces".to_owned());
    parts.each(offer.own_logs.as_ref(), |_| "own_logs".to_owned());
    parts.when(!offer.other_connections.is_empty(), || format!("{} others", offer.other_connections.len()));
    parts.line()
}

fn custom_capabilities(custom: &pb::CustomCapabilities) -> String {
    format!("custom_capabilities{{{}}}", custom.capabilities.join(" "))
}

fn custom_message(message: &pb::CustomMessage) -> String {
    format!("custom_message{{{} {} {}B}}", message.capability, message.r#type, message.data.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Transcript;
    use super::*;

    fn uid(last: u8) -> Bytes {
        let mut uid = [0; 16];
        uid[15] = last;
        Bytes::copy_from_slice(&uid)
    }

    fn secret_config() -> pb::AgentConfigMap {
        let object = pb::AgentConfigObject {
            body: "password: hunter2".into(),
            content_type: "text/yaml".into(),
            ..Default::default()
        };
        pb::AgentConfigMap { config_map: BTreeMap::from([(String::new(), object)]) }
    }

    #[test]
    fn a_conversation_reads_like_documentation() {
        let transcript = Transcript::new();
        transcript.agent("GET /v1/opamp 0 B");
        transcript.server("101 Switching Protocols 0 B");
        transcript.agent_message(&pb::AgentToServer {
            instance_uid: uid(1),
            capabilities: 0x1807,
            agent_description: Some(pb::AgentDescription {
                identifying_attributes: vec![pb::KeyValue {
                    key: "service.name".into(),
                    value: Some(pb::AnyValue { value: Some(Value::StringValue("demo".into())) }),
                }],
                non_identifying_attributes: vec![pb::KeyValue::default()],
            }),
            health: Some(pb::ComponentHealth { last_error: "no disk".into(), ..Default::default() }),
            ..Default::default()
        });
        transcript.server_message(&pb::ServerToAgent {
            instance_uid: uid(1),
            capabilities: 7,
            flags: 1,
            remote_config: Some(pb::AgentRemoteConfig {
                config: Some(secret_config()),
                config_hash: Bytes::from_static(&[1, 2, 3, 4, 5]),
            }),
            agent_identification: Some(pb::AgentIdentification { new_instance_uid: uid(9) }),
            ..Default::default()
        });
        transcript.agent_message(&pb::AgentToServer {
            instance_uid: uid(9),
            sequence_num: 1,
            remote_config_status: Some(pb::RemoteConfigStatus {
                last_remote_config_hash: Bytes::from_static(&[1, 2, 3, 4, 5]),
                status: 3,
                error_message: "bad".into(),
            }),
            effective_config: Some(pb::EffectiveConfig { config_map: Some(secret_config()) }),
            agent_disconnect: Some(pb::AgentDisconnect {}),
            ..Default::default()
        });
        transcript.server_message(&pb::ServerToAgent {
            error_response: Some(pb::ServerErrorResponse {
                r#type: 2,
                error_message: "busy".into(),
                details: Some(Details::RetryInfo(pb::RetryInfo { retry_after_nanoseconds: 30 })),
            }),
            ..Default::default()
        });
        assert_eq!(
            transcript.to_string(),
            "> agent GET /v1/opamp 0 B\n\
             < server 101 Switching Protocols 0 B\n\
             > agent a1 #0 capabilities=0x1807 description{service.name=\"demo\" +1} health{unhealthy error=\"no disk\"}\n\
             < server a1 capabilities=0x7 flags=0x1 remote_config{01020304… \"\":17B:text/yaml} new_instance_uid=a2\n\
             > agent a2 #1 effective_config{\"\":17B:text/yaml} remote_config_status{FAILED 01020304… \"bad\"} agent_disconnect\n\
             < server (no uid) error_response{Unavailable \"busy\" retry_after=30ns}\n"
        );
        assert_eq!(transcript.messages().len(), 4);
        assert!(!transcript.to_string().contains("hunter2"));
    }

    #[test]
    fn headers_keys_and_custom_data_are_never_written() {
        let secret = || "s3cret".to_owned();
        let headers =
            Some(pb::Headers { headers: vec![pb::Header { key: "Authorization".into(), value: secret() }] });
        let certificate = Some(pb::TlsCertificate { private_key: secret().into(), ..Default::default() });
        let transcript = Transcript::new();
        transcript.server_message(&pb::ServerToAgent {
            connection_settings: Some(pb::ConnectionSettingsOffers {
                opamp: Some(pb::OpAmpConnectionSettings {
                    destination_endpoint: format!("wss://user:{}@host/", secret()),
                    headers: headers.clone(),
                    certificate,
                    heartbeat_interval_seconds: 30,
                    ..Default::default()
                }),
                own_logs: Some(pb::TelemetryConnectionSettings { headers, ..Default::default() }),
                ..Default::default()
            }),
            custom_message: Some(pb::CustomMessage { data: secret().into(), ..Default::default() }),
            ..Default::default()
        });
        let text = transcript.to_string();
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("opamp(heartbeat=30s) own_logs"), "{text}");
    }
}
