//! What a persona reports beside its configuration: connection settings, packages, components, custom messages.

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, pb};

use super::Persona;

impl Persona {
    /// The same with everything it takes to be offered connection settings of every class, and to report on them.
    pub fn with_settings(self) -> Self {
        self.and(
            AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS
                | AgentCapabilities::ACCEPTS_OTHER_CONNECTION_SETTINGS
                | AgentCapabilities::REPORTS_OWN_METRICS
                | AgentCapabilities::REPORTS_OWN_TRACES
                | AgentCapabilities::REPORTS_OWN_LOGS
                | AgentCapabilities::REPORTS_HEARTBEAT
                | AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS,
        )
    }

    /// The same with everything it takes to be offered packages, and to report on them.
    pub fn with_packages(self) -> Self {
        self.and(AgentCapabilities::ACCEPTS_PACKAGES | AgentCapabilities::REPORTS_PACKAGE_STATUSES)
    }

    /// The same with these names of custom capabilities.
    pub fn with_custom(mut self, names: &[&str]) -> Self {
        self.custom_capabilities = Some(custom_capabilities(names));
        self
    }

    /// The same with these components built in.
    pub fn with_components(mut self, components: pb::AvailableComponents) -> Self {
        self.components = Some(components);
        self.and(AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS)
    }

    /// Reports how far it is with an offer of connection settings; `error` goes with FAILED.
    pub fn settings(
        &mut self,
        offer: &pb::ConnectionSettingsOffers,
        status: pb::ConnectionSettingsStatuses,
        error: &str,
    ) -> pb::AgentToServer {
        let status = pb::ConnectionSettingsStatus {
            last_connection_settings_hash: offer.hash.clone(),
            status: status.into(),
            error_message: error.to_owned(),
        };
        self.connection_settings_status = Some(status.clone());
        self.report(|message| message.connection_settings_status = Some(status))
    }

    /// Reports every package of an offer in this state, and the ones it has that are not of the server as they are.
    ///
    /// INSTALLED packages are there in the version that was offered, those in any other state as they were before.
    pub fn packages(
        &mut self,
        offer: &pb::PackagesAvailable,
        status: pb::PackageStatusEnum,
        error: &str,
    ) -> pb::AgentToServer {
        let before = self.package_statuses.take().map(|statuses| statuses.packages).unwrap_or_default();
        let local = before
            .iter()
            .filter(|(_, package)| package.server_offered_hash.is_empty())
            .map(|(name, package)| (name.clone(), package.clone()));
        let offered = offer.packages.iter().map(|(name, package)| {
            let was = before.get(name).cloned().unwrap_or_default();
            let has = if status == pb::PackageStatusEnum::Installed {
                (package.version.clone(), package.hash.clone())
            } else {
                (was.agent_has_version, was.agent_has_hash)
            };
            let entry = pb::PackageStatus {
                name: name.clone(),
                agent_has_version: has.0,
                agent_has_hash: has.1,
                server_offered_version: package.version.clone(),
                server_offered_hash: package.hash.clone(),
                status: status.into(),
                error_message: error.to_owned(),
                download_details: None,
            };
            (name.clone(), entry)
        });
        let statuses = pb::PackageStatuses {
            packages: local.chain(offered).collect::<BTreeMap<_, _>>(),
            server_provided_all_packages_hash: offer.all_packages_hash.clone(),
            error_message: String::new(),
        };
        self.package_statuses = Some(statuses.clone());
        self.report(|message| message.package_statuses = Some(statuses))
    }

    /// Reports every component that is built in.
    pub fn all_components(&mut self) -> pb::AgentToServer {
        let components = self.components.clone();
        self.report(|message| message.available_components = components)
    }

    /// A message of its own to the server.
    pub fn custom(&mut self, capability: &str, kind: &str, data: &[u8]) -> pb::AgentToServer {
        self.report(|message| {
            message.custom_message = Some(pb::CustomMessage {
                capability: capability.to_owned(),
                r#type: kind.to_owned(),
                data: Bytes::copy_from_slice(data),
            });
        })
    }

    /// Asks for a certificate.
    pub fn certificate_request(&mut self, csr: &str) -> pb::AgentToServer {
        self.report(|message| {
            message.connection_settings_request = Some(pb::ConnectionSettingsRequest {
                opamp: Some(pb::OpAmpConnectionSettingsRequest {
                    certificate_request: Some(pb::CertificateRequest {
                        csr: Bytes::copy_from_slice(csr.as_bytes()),
                    }),
                }),
            });
        })
    }

    pub(super) fn components_hash(&self) -> Option<pb::AvailableComponents> {
        let announced = self.has(AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS);
        let components = self.components.as_ref().filter(|_| announced)?;
        Some(pb::AvailableComponents { hash: components.hash.clone(), ..Default::default() })
    }
}

/// A list of names.
pub fn custom_capabilities(names: &[&str]) -> pb::CustomCapabilities {
    pb::CustomCapabilities { capabilities: names.iter().map(|name| (*name).to_owned()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(version: &str) -> pb::PackagesAvailable {
        let package = pb::PackageAvailable {
            version: version.to_owned(),
            hash: Bytes::copy_from_slice(version.as_bytes()),
            ..Default::default()
        };
        pb::PackagesAvailable {
            packages: BTreeMap::from([("agent".to_owned(), package)]),
            all_packages_hash: Bytes::copy_from_slice(version.as_bytes()),
        }
    }

    #[test]
    fn a_failed_upgrade_leaves_the_version_before_and_what_is_local_stays() {
        let mut persona = Persona::new(1).with_packages();
        let local = pb::PackageStatus { name: "local".to_owned(), ..Default::default() };
        persona.package_statuses = Some(pb::PackageStatuses {
            packages: BTreeMap::from([("local".to_owned(), local.clone())]),
            ..Default::default()
        });
        persona.packages(&offer("1"), pb::PackageStatusEnum::Installed, "");
        let report = persona.packages(&offer("2"), pb::PackageStatusEnum::InstallFailed, "disk full");
        let statuses = report.package_statuses.unwrap();
        assert_eq!(statuses.server_provided_all_packages_hash, "2");
        assert_eq!(statuses.packages["local"], local);
        let entry = &statuses.packages["agent"];
        assert_eq!((&*entry.agent_has_version, &*entry.server_offered_version), ("1", "2"));
        assert_eq!(persona.full_state().package_statuses, Some(statuses));
    }

    #[test]
    fn the_full_state_has_the_hash_of_the_components_and_the_list_follows() {
        let components = pb::AvailableComponents {
            components: BTreeMap::from([("receiver".to_owned(), pb::ComponentDetails::default())]),
            hash: "hash".into(),
        };
        let mut persona = Persona::new(1).with_components(components.clone());
        let reported = persona.full_state().available_components.unwrap();
        assert!(reported.components.is_empty());
        assert_eq!(reported.hash, components.hash);
        assert_eq!(persona.all_components().available_components, Some(components));
    }
}
