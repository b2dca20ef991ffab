//! What can be seen from outside, and what should be.

use opamp_client::ConfigHash;
use opamp_proto::{Part, pb};
use opamp_server::{Liveness, PackagesState};
use prost::Message as _;

use super::World;
use super::offers;
use super::places::Place;

impl World {
    /// The parts that a server should know in the end.
    pub(crate) const PARTS: [Part; 8] = [
        Part::AgentDescription,
        Part::Health,
        Part::EffectiveConfig,
        Part::RemoteConfigStatus,
        Part::PackageStatuses,
        Part::CustomCapabilities,
        Part::AvailableComponents,
        Part::ConnectionSettingsStatus,
    ];

    pub(crate) fn is_connected(&self) -> bool {
        self.servers[self.server].liveness() == Liveness::Connected && self.agent.is_connected()
    }

    /// What the server holds of a part. Of components only the hash is compared, which is all that is repeated.
    pub(crate) fn view(&self, part: Part) -> Option<Vec<u8>> {
        let bytes = self.servers[self.server].snapshot().state.part(part).map(|bytes| bytes.to_vec())?;
        Some(comparable(part, bytes))
    }

    /// What the server should hold of a part.
    pub(crate) fn expected(&self, part: Part) -> Vec<u8> {
        comparable(part, self.truth.first_report(&self.transports, self.agent.saved(), self.now, part))
    }

    /// The list of components the server has, and the one it should have.
    pub(crate) fn components(&self) -> (Option<Vec<u8>>, Vec<u8>) {
        let list = self.servers[self.server].snapshot().components;
        let known = list.map(|list| pb::AvailableComponents::decode(&*list).expect("a list"));
        (
            known.filter(|list| !list.components.is_empty()).map(|list| list.hash.to_vec()),
            self.truth.components.hash().to_vec(),
        )
    }

    /// Numbers of the custom messages that came to the agent and to each of the servers, in the order they came.
    pub(crate) fn custom_received(&self) -> Vec<Vec<u64>> {
        let servers = self.servers.iter().map(|server| server.custom.clone());
        std::iter::once(self.log.custom.clone()).chain(servers).collect()
    }

    /// What became of the configuration, and what should have: hash and status.
    pub(crate) fn config(&self) -> Option<[(ConfigHash, i32); 2]> {
        let number = self.wanted.config?;
        let report = self.servers[self.server].snapshot().remote_config.report;
        let reported = report.map_or((ConfigHash::default(), -1), |report| (report.hash, report.status));
        let status = if offers::is_broken(number) {
            pb::RemoteConfigStatuses::Failed
        } else {
            pb::RemoteConfigStatuses::Applied
        };
        Some([reported, (offers::config_hash(number), status as i32)])
    }

    /// What became of the packages, and what should have.
    pub(crate) fn packages(&self) -> Option<[(ConfigHash, Option<PackagesState>); 2]> {
        let number = self.wanted.packages?;
        let report = self.servers[self.server].snapshot().packages.report;
        let reported =
            report.map_or((ConfigHash::default(), None), |report| (report.hash, Some(report.state)));
        let state =
            if offers::packages_fail(number) { PackagesState::Failed } else { PackagesState::Installed };
        Some([reported, (offers::packages(number).hash().clone(), Some(state))])
    }

    /// What became of the connection settings: their hash and status as the server knows them, whether that is what should
    /// have become of them, and whether the agent is where it should be then.
    pub(crate) fn settings(&self) -> Option<Result<(), String>> {
        let number = self.wanted.settings?;
        Some(self.judge_settings(number))
    }

    fn judge_settings(&self, number: u8) -> Result<(), String> {
        let report = self.servers[self.server].snapshot().connection_settings.report;
        let Some(report) = report else { return Err("nothing was reported".to_owned()) };
        if report.hash != *offers::settings(number).hash() {
            return Err(format!("another hash was reported: {report:?}"));
        }
        let applied = pb::ConnectionSettingsStatuses::Applied as i32;
        let failed = pb::ConnectionSettingsStatuses::Failed as i32;
        let works = offers::settings_work(number);
        let right = match report.status {
            status if status == applied => works,
            // Who is disturbed while it tries goes back, and is right to.
            status if status == failed => !works || self.wanted.disturbed.contains(&number),
            _ => false,
        };
        if !right {
            return Err(format!(
                "{report:?} of settings that {}",
                if works { "work" } else { "do not work" }
            ));
        }
        match offers::settings_place(number) {
            Some(url) if report.status == applied => {
                let accepted = self.agent.saved().connections.accepted;
                let is_there = self.link.as_ref().is_some_and(|link| link.place == Place::at(&url));
                let kept = accepted.is_some_and(|accepted| accepted.endpoint == url);
                (is_there && kept).then_some(()).ok_or_else(|| format!("applied, and not at {url}"))
            }
            _ => Ok(()),
        }
    }
}

/// Bytes that are the same when what they say is.
fn comparable(part: Part, bytes: Vec<u8>) -> Vec<u8> {
    match part {
        Part::AvailableComponents => {
            pb::AvailableComponents::decode(&*bytes).expect("it was checked").hash.to_vec()
        }
        _ => bytes,
    }
}
