//! How a scripted agent waits for what a server offers or sends, and takes it.

use std::collections::VecDeque;

use opamp_proto::{InstanceUid, ServerToAgentFlags, pb};

use super::ScriptedAgent;
use crate::raw::RawError;

/// Rounds after which two peers that keep answering each other count as endless.
const ROUNDS_MAX: usize = 20;

impl ScriptedAgent {
    /// Waits for the next configuration offer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::until`].
    pub async fn next_offer(&mut self) -> Result<pb::AgentRemoteConfig, RawError> {
        let message = self.until(|message| message.remote_config.is_some()).await?;
        Ok(message.remote_config.unwrap_or_default())
    }

    /// Waits for the next offer of connection settings.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::until`].
    pub async fn next_settings(&mut self) -> Result<pb::ConnectionSettingsOffers, RawError> {
        let message = self.until(|message| message.connection_settings.is_some()).await?;
        Ok(message.connection_settings.unwrap_or_default())
    }

    /// Waits for the next offer of packages.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::until`].
    pub async fn next_packages(&mut self) -> Result<pb::PackagesAvailable, RawError> {
        let message = self.until(|message| message.packages_available.is_some()).await?;
        Ok(message.packages_available.unwrap_or_default())
    }

    /// Waits for the next custom message.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::until`].
    pub async fn next_custom(&mut self) -> Result<pb::CustomMessage, RawError> {
        let message = self.until(|message| message.custom_message.is_some()).await?;
        Ok(message.custom_message.unwrap_or_default())
    }

    /// Reports a configuration as applied and returns the answer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`].
    pub async fn apply(&mut self, offer: &pb::AgentRemoteConfig) -> Result<pb::ServerToAgent, RawError> {
        let message = self.persona.applied(offer);
        self.exchange(&message).await
    }

    /// Reports connection settings as applied and returns the answer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`].
    pub async fn apply_settings(
        &mut self,
        offer: &pb::ConnectionSettingsOffers,
    ) -> Result<pb::ServerToAgent, RawError> {
        let message = self.persona.settings(offer, pb::ConnectionSettingsStatuses::Applied, "");
        self.exchange(&message).await
    }

    /// Reports packages as installed and returns the answer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`].
    pub async fn install(&mut self, offer: &pb::PackagesAvailable) -> Result<pb::ServerToAgent, RawError> {
        let message = self.persona.packages(offer, pb::PackageStatusEnum::Installed, "");
        self.exchange(&message).await
    }

    /// Does what a well-behaved agent does with a message: adopts a new identity, applies offers of every kind, reports
    /// components or full state on request, and goes on with the answers until the server has no more wishes. Returns
    /// the last answer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`]; [`RawError::Unexpected`] if the server is never content.
    pub async fn obey(&mut self, message: pb::ServerToAgent) -> Result<pb::ServerToAgent, RawError> {
        let mut last = message.clone();
        let mut heard = VecDeque::from([message]);
        for _ in 0..ROUNDS_MAX {
            let Some(message) = heard.pop_front() else {
                return Ok(last);
            };
            let answers = self.grant(&message).await?;
            last = answers.last().cloned().unwrap_or(last);
            heard.extend(answers);
        }
        Err(self.unexpected(format!("the server still has wishes after {ROUNDS_MAX} rounds")))
    }

    /// Grants every wish of one message, each with a report of its own; the answers.
    async fn grant(&mut self, message: &pb::ServerToAgent) -> Result<Vec<pb::ServerToAgent>, RawError> {
        if let Some(identification) = &message.agent_identification
            && let Ok(uid) = InstanceUid::try_from(&identification.new_instance_uid[..])
        {
            self.persona.uid = uid;
        }
        let mut answers = Vec::new();
        if let Some(offer) = &message.remote_config {
            answers.push(self.apply(offer).await?);
        }
        if let Some(offer) = &message.connection_settings {
            answers.push(self.apply_settings(offer).await?);
        }
        if let Some(offer) = &message.packages_available {
            answers.push(self.install(offer).await?);
        }
        let flags = ServerToAgentFlags::from_bits(message.flags);
        if flags.contains(ServerToAgentFlags::REPORT_AVAILABLE_COMPONENTS) {
            let components = self.persona.all_components();
            answers.push(self.exchange(&components).await?);
        }
        if flags.contains(ServerToAgentFlags::REPORT_FULL_STATE) {
            answers.push(self.report_full_state().await?);
        }
        Ok(answers)
    }
}
