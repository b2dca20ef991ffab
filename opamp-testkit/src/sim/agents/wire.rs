//! What an agent leaves out of its messages, by its profile.

use opamp_client::Transport;
use opamp_proto::{AgentCapabilities, frame, pb};
use prost::Message as _;

use super::{SimAgent, behaviour};
use crate::sim::profiles::Profile;

impl SimAgent {
    /// The message of its session as this agent sends it.
    pub(in crate::sim) fn masked(&self, message: &[u8]) -> Vec<u8> {
        let refuses = behaviour::refuses(&self.spec);
        let silent = matches!(self.spec.profile, Profile::Mute | Profile::NoStatus);
        if !refuses && !silent && !self.truth.dropped_capability {
            return message.to_vec();
        }
        let payload = self.payload(message);
        let Ok(mut report) = pb::AgentToServer::decode(payload) else { return message.to_vec() };
        let mut capabilities = AgentCapabilities::from_bits(report.capabilities);
        if silent {
            capabilities.remove(AgentCapabilities::REPORTS_REMOTE_CONFIG);
            report.remote_config_status = None;
        }
        if self.truth.dropped_capability {
            capabilities.remove(AgentCapabilities::ACCEPTS_REMOTE_CONFIG);
        }
        let applying = pb::RemoteConfigStatuses::Applying as i32;
        if refuses && report.remote_config_status.as_ref().is_some_and(|status| status.status == applying) {
            report.remote_config_status = None;
        }
        report.capabilities = capabilities.bits();
        let mut bytes = Vec::new();
        if self.transport() == Transport::WebSocket {
            bytes.push(frame::HEADER);
        }
        bytes.extend(report.encode_to_vec());
        bytes
    }

    /// A message without its header, in either direction.
    pub(in crate::sim) fn payload<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        match self.transport() {
            Transport::Http => message,
            Transport::WebSocket => frame::decode(message).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::configs::Configs;
    use crate::sim::rng::Rng;
    use crate::sim::scenario::{AgentSpec, Scenario};

    fn sent(profile: Profile, dropped: bool) -> pb::AgentToServer {
        let spec = AgentSpec { profile, ..Scenario::drawn(1).agents.swap_remove(0) };
        let mut agent = SimAgent::new(&spec, &Rng::new(1), &Configs::new(0..8));
        agent.truth.dropped_capability = dropped;
        let report = pb::AgentToServer {
            capabilities: (AgentCapabilities::REPORTS_STATUS
                | AgentCapabilities::ACCEPTS_REMOTE_CONFIG
                | AgentCapabilities::REPORTS_REMOTE_CONFIG)
                .bits(),
            remote_config_status: Some(pb::RemoteConfigStatus::default()),
            ..Default::default()
        };
        let mut message = Vec::new();
        frame::encode(&report.encode_to_vec(), &mut message);
        pb::AgentToServer::decode(agent.payload(&agent.masked(&message))).unwrap()
    }

    #[test]
    fn an_agent_without_status_neither_announces_nor_sends_it() {
        let report = sent(Profile::NoStatus, false);
        let capabilities = AgentCapabilities::from_bits(report.capabilities);
        assert!(!capabilities.contains(AgentCapabilities::REPORTS_REMOTE_CONFIG));
        assert!(report.remote_config_status.is_none());
        assert!(sent(Profile::Well, false).remote_config_status.is_some());
    }

    #[test]
    fn an_agent_that_dropped_the_capability_says_so() {
        let accepts = |report: pb::AgentToServer| {
            AgentCapabilities::from_bits(report.capabilities)
                .contains(AgentCapabilities::ACCEPTS_REMOTE_CONFIG)
        };
        assert!(!accepts(sent(Profile::DropsCapability, true)));
        assert!(accepts(sent(Profile::DropsCapability, false)));
    }
}
