//! The state of one agent and the messages that report it.

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::pb::any_value::Value;
use opamp_proto::{AgentCapabilities, InstanceUid, pb};
use prost::Message;

/// One agent: who it is, what it can do, and what it has to report.
///
/// Every method that returns a message counts the sequence number up, as every message of an agent does. Fields are open: a
/// script changes what it wants to report and asks for the next message.
#[derive(Clone, Debug)]
pub struct Persona {
    /// Identity in the next message.
    pub uid: InstanceUid,
    /// Sequence number of the next message.
    pub sequence_num: u64,
    /// Capabilities in the next message.
    pub capabilities: AgentCapabilities,
    /// Part of the full state.
    pub description: pb::AgentDescription,
    /// Part of the full state with ReportsHealth.
    pub health: pb::ComponentHealth,
    /// Part of the full state with ReportsEffectiveConfig.
    pub effective_config: pb::EffectiveConfig,
    /// Part of the full state with ReportsRemoteConfig.
    pub remote_config_status: Option<pb::RemoteConfigStatus>,
    /// Part of the full state with ReportsConnectionSettingsStatus.
    pub connection_settings_status: Option<pb::ConnectionSettingsStatus>,
    /// Part of the full state with ReportsPackageStatuses.
    pub package_statuses: Option<pb::PackageStatuses>,
    /// Part of the full state, if there is a list.
    pub custom_capabilities: Option<pb::CustomCapabilities>,
    /// The components built in; the full state with ReportsAvailableComponents has their hash alone.
    pub components: Option<pb::AvailableComponents>,
}

impl Persona {
    /// Agent number `number`: the same number is the same identity in every run.
    ///
    /// It reports health, effective configuration and remote configuration status, and accepts remote configuration.
    pub fn new(number: u32) -> Self {
        let mut random = [0x5a; 10];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let capabilities = AgentCapabilities::REPORTS_STATUS
            | AgentCapabilities::ACCEPTS_REMOTE_CONFIG
            | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG
            | AgentCapabilities::REPORTS_HEALTH
            | AgentCapabilities::REPORTS_REMOTE_CONFIG;
        Self {
            uid: InstanceUid::v7(1_700_000_000_000 + u64::from(number), random),
            sequence_num: 0,
            capabilities,
            description: pb::AgentDescription {
                identifying_attributes: vec![
                    attribute("service.name", text("scripted")),
                    attribute("service.instance.id", text(&number.to_string())),
                ],
                non_identifying_attributes: vec![attribute("os.type", text("linux"))],
            },
            health: pb::ComponentHealth {
                healthy: true,
                start_time_unix_nano: 1_700_000_000_000_000_000,
                status: "running".to_owned(),
                ..Default::default()
            },
            effective_config: pb::EffectiveConfig { config_map: Some(config(&[("", "local: true\n")])) },
            remote_config_status: None,
            connection_settings_status: None,
            package_statuses: None,
            custom_capabilities: None,
            components: None,
        }
    }

    /// The same with these capabilities.
    pub fn with_capabilities(mut self, capabilities: AgentCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The same with one more capability.
    pub fn and(mut self, capability: AgentCapabilities) -> Self {
        self.capabilities.insert(capability);
        self
    }

    /// The same without a capability.
    pub fn without(mut self, capability: AgentCapabilities) -> Self {
        self.capabilities.remove(capability);
        self
    }

    /// The same with a full state of exactly `bytes` bytes of Protobuf.
    ///
    /// # Panics
    ///
    /// If it is larger than that already, or the agent does not report its effective configuration.
    pub fn with_full_state_of(mut self, bytes: usize) -> Self {
        assert!(
            self.has(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG),
            "the size comes from the effective configuration"
        );
        let full = padded(&self.clone().full_state(), bytes);
        self.effective_config = full.effective_config.unwrap_or_default();
        self
    }

    /// Whether the next message announces this capability.
    pub fn has(&self, capability: AgentCapabilities) -> bool {
        self.capabilities.contains(capability)
    }

    /// A heartbeat or poll: identity, sequence number, capabilities.
    pub fn heartbeat(&mut self) -> pb::AgentToServer {
        let message = pb::AgentToServer {
            instance_uid: Bytes::copy_from_slice(self.uid.as_bytes()),
            sequence_num: self.sequence_num,
            capabilities: self.capabilities.bits(),
            ..Default::default()
        };
        self.sequence_num = self.sequence_num.wrapping_add(1);
        message
    }

    /// A heartbeat with something added or changed.
    pub fn report(&mut self, change: impl FnOnce(&mut pb::AgentToServer)) -> pb::AgentToServer {
        let mut message = self.heartbeat();
        change(&mut message);
        message
    }

    /// Every status part that the capabilities promise.
    pub fn full_state(&mut self) -> pb::AgentToServer {
        let state = self.clone();
        self.report(|message| {
            message.agent_description = Some(state.description.clone());
            message.health = state.has(AgentCapabilities::REPORTS_HEALTH).then(|| state.health.clone());
            message.effective_config = state
                .has(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG)
                .then(|| state.effective_config.clone());
            message.remote_config_status = state
                .has(AgentCapabilities::REPORTS_REMOTE_CONFIG)
                .then(|| state.remote_config_status.clone().unwrap_or_default());
            message.connection_settings_status = state
                .has(AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS)
                .then(|| state.connection_settings_status.clone().unwrap_or_default());
            message.package_statuses = state
                .has(AgentCapabilities::REPORTS_PACKAGE_STATUSES)
                .then(|| state.package_statuses.clone().unwrap_or_default());
            message.custom_capabilities.clone_from(&state.custom_capabilities);
            message.available_components = state.components_hash();
        })
    }

    /// Takes an offer over and reports it: APPLIED with its hash, and its files as effective configuration.
    pub fn applied(&mut self, offer: &pb::AgentRemoteConfig) -> pb::AgentToServer {
        self.effective_config.config_map.clone_from(&offer.config);
        let effective = self.effective_config.clone();
        let reports = self.has(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG);
        let mut message = self.remote_config(offer, pb::RemoteConfigStatuses::Applied, "");
        message.effective_config = reports.then_some(effective);
        message
    }

    /// Reports that an offer is being applied.
    pub fn applying(&mut self, offer: &pb::AgentRemoteConfig) -> pb::AgentToServer {
        self.remote_config(offer, pb::RemoteConfigStatuses::Applying, "")
    }

    /// Reports that an offer could not be applied.
    pub fn failed(&mut self, offer: &pb::AgentRemoteConfig, error: &str) -> pb::AgentToServer {
        self.remote_config(offer, pb::RemoteConfigStatuses::Failed, error)
    }

    /// The last message of this agent.
    pub fn disconnect(&mut self) -> pb::AgentToServer {
        self.report(|message| message.agent_disconnect = Some(pb::AgentDisconnect {}))
    }

    fn remote_config(
        &mut self,
        offer: &pb::AgentRemoteConfig,
        status: pb::RemoteConfigStatuses,
        error: &str,
    ) -> pb::AgentToServer {
        let status = pb::RemoteConfigStatus {
            last_remote_config_hash: offer.config_hash.clone(),
            status: status.into(),
            error_message: error.to_owned(),
        };
        self.remote_config_status = Some(status.clone());
        self.report(|message| message.remote_config_status = Some(status))
    }
}

/// An attribute.
pub fn attribute(key: &str, value: Value) -> pb::KeyValue {
    pb::KeyValue { key: key.to_owned(), value: Some(pb::AnyValue { value: Some(value) }) }
}

/// A text value.
pub fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

/// A configuration of YAML files.
pub fn config(files: &[(&str, &str)]) -> pb::AgentConfigMap {
    let object = |body: &str| pb::AgentConfigObject {
        body: Bytes::copy_from_slice(body.as_bytes()),
        content_type: "text/yaml".to_owned(),
        ..Default::default()
    };
    let config_map: BTreeMap<_, _> =
        files.iter().map(|(name, body)| ((*name).to_owned(), object(body))).collect();
    pb::AgentConfigMap { config_map }
}

/// The same message with an effective configuration that makes it exactly `bytes` bytes of Protobuf.
///
/// # Panics
///
/// If the message is larger than that already.
pub fn padded(message: &pb::AgentToServer, bytes: usize) -> pb::AgentToServer {
    // Where a length needs one more byte itself, the configuration alone cannot reach some sizes; an attribute fills in.
    let fillers = ["", "p", "pp", "ppp", "pppp", "ppppp"];
    let reached = fillers.iter().find_map(|filler| {
        let mut message = message.clone();
        if !filler.is_empty() {
            let description = message.agent_description.get_or_insert_default();
            description
                .non_identifying_attributes
                .push(pb::KeyValue { key: (*filler).to_owned(), value: None });
        }
        filled(message, bytes)
    });
    reached.unwrap_or_else(|| panic!("the message cannot have {bytes} bytes"))
}

/// As [`padded`], if some length of the body makes exactly that size.
fn filled(mut message: pb::AgentToServer, bytes: usize) -> Option<pb::AgentToServer> {
    let mut body = 0;
    for _ in 0..8 {
        let object = pb::AgentConfigObject { body: vec![b'x'; body].into(), ..Default::default() };
        let config_map = BTreeMap::from([("padding".to_owned(), object)]);
        message.effective_config =
            Some(pb::EffectiveConfig { config_map: Some(pb::AgentConfigMap { config_map }) });
        let now = message.encoded_len();
        if now == bytes {
            return Some(message);
        }
        body = (body + bytes).checked_sub(now)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_up_and_report_what_the_capabilities_promise() {
        let mut persona = Persona::new(7).without(AgentCapabilities::REPORTS_HEALTH);
        let full = persona.full_state();
        assert_eq!(full.sequence_num, 0);
        assert!(full.health.is_none());
        assert!(full.effective_config.is_some() && full.remote_config_status.is_some());
        assert_eq!(persona.heartbeat().sequence_num, 1);
        assert_eq!(persona.disconnect().sequence_num, 2);
        assert_ne!(Persona::new(7).uid, Persona::new(8).uid);
    }

    #[test]
    fn an_applied_offer_comes_back_with_its_hash_and_files() {
        let mut persona = Persona::new(1);
        let offer = pb::AgentRemoteConfig { config: Some(config(&[("a", "1")])), config_hash: "hash".into() };
        let report = persona.applied(&offer);
        let status = report.remote_config_status.unwrap();
        assert_eq!((status.status, status.last_remote_config_hash), (1, offer.config_hash.clone()));
        assert_eq!(report.effective_config.unwrap().config_map, offer.config);
        assert_eq!(persona.full_state().remote_config_status.unwrap().status, 1);
    }

    #[test]
    fn messages_are_padded_to_every_size() {
        for bytes in (200..20_000).step_by(97).chain(125..300).chain(16_300..16_600) {
            assert_eq!(padded(&Persona::new(1).heartbeat(), bytes).encoded_len(), bytes);
        }
        assert_eq!(Persona::new(1).with_full_state_of(10_240).full_state().encoded_len(), 10_240);
    }
}
