//! The status sub-messages of an agent, kept encoded.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;
use opamp_proto::Part;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The last reported status sub-messages, as encoded protobuf. The effective config is not among them: it is
/// large and shared, so it is a blob.
///
/// Serialises as a map from part name to base64; `Debug` shows lengths only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredParts {
    /// `AgentDescription`.
    pub agent_description: Option<Bytes>,
    /// `ComponentHealth`.
    pub health: Option<Bytes>,
    /// `RemoteConfigStatus`.
    pub remote_config_status: Option<Bytes>,
    /// `PackageStatuses`.
    pub package_statuses: Option<Bytes>,
    /// `CustomCapabilities`.
    pub custom_capabilities: Option<Bytes>,
    /// `AvailableComponents`.
    pub available_components: Option<Bytes>,
    /// `ConnectionSettingsStatus`.
    pub connection_settings_status: Option<Bytes>,
}

impl StoredParts {
    /// The parts there is room for.
    pub const PARTS: [Part; 7] = [
        Part::AgentDescription,
        Part::Health,
        Part::RemoteConfigStatus,
        Part::PackageStatuses,
        Part::CustomCapabilities,
        Part::AvailableComponents,
        Part::ConnectionSettingsStatus,
    ];

    /// The stored bytes of `part`; `None` when never reported, or when it is not one of [`StoredParts::PARTS`].
    pub fn part(&self, part: Part) -> Option<&Bytes> {
        match part {
            Part::AgentDescription => self.agent_description.as_ref(),
            Part::Health => self.health.as_ref(),
            Part::RemoteConfigStatus => self.remote_config_status.as_ref(),
            Part::PackageStatuses => self.package_statuses.as_ref(),
            Part::CustomCapabilities => self.custom_capabilities.as_ref(),
            Part::AvailableComponents => self.available_components.as_ref(),
            Part::ConnectionSettingsStatus => self.connection_settings_status.as_ref(),
            _ => None,
        }
    }

    /// Replaces the bytes of `part`. Answers `false`, and changes nothing, for a part that is not kept here.
    pub fn set(&mut self, part: Part, bytes: Option<Bytes>) -> bool {
        let Some(slot) = self.slot(part) else { return false };
        *slot = bytes;
        true
    }

    /// The parts that are present, in the order of [`StoredParts::PARTS`].
    pub fn iter(&self) -> impl Iterator<Item = (Part, &Bytes)> {
        Self::PARTS.into_iter().filter_map(|part| Some((part, self.part(part)?)))
    }

    /// Bytes of all parts together.
    pub fn len_bytes(&self) -> usize {
        self.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn slot(&mut self, part: Part) -> Option<&mut Option<Bytes>> {
        match part {
            Part::AgentDescription => Some(&mut self.agent_description),
            Part::Health => Some(&mut self.health),
            Part::RemoteConfigStatus => Some(&mut self.remote_config_status),
            Part::PackageStatuses => Some(&mut self.package_statuses),
            Part::CustomCapabilities => Some(&mut self.custom_capabilities),
            Part::AvailableComponents => Some(&mut self.available_components),
            Part::ConnectionSettingsStatus => Some(&mut self.connection_settings_status),
            _ => None,
        }
    }
}

impl fmt::Debug for StoredParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(part, bytes)| (part.name(), bytes.len()))).finish()
    }
}

impl Serialize for StoredParts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(part, bytes)| (part.name(), BASE64.encode(bytes))))
    }
}

impl<'de> Deserialize<'de> for StoredParts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let encoded = BTreeMap::<String, String>::deserialize(deserializer)?;
        let mut parts = Self::default();
        for part in Self::PARTS {
            if let Some(text) = encoded.get(part.name()) {
                let bytes = BASE64.decode(text.as_bytes()).map_err(de::Error::custom)?;
                parts.set(part, Some(bytes.into()));
            }
        }
        Ok(parts)
    }
}
