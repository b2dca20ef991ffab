//! What a server sets, over real connections: settings of the connection itself, telemetry, certificates, custom messages.

mod applied;
mod certificates;
mod crashes;
#[cfg(feature = "csr")]
mod csr;
mod custom;
mod failed;
mod parts;
mod proxies;
mod stub;
mod verified;

use opamp_client::connection::SettingsPolicy;
use std::time::Duration;

use opamp_client::{Builder, ClientSettings, Event, FailureKind, InstanceUid};
use opamp_proto::pb;
use opamp_server::{AgentSnapshot, ConnectionSettingsOffer, Desired};

use crate::common::{Agent, Memory, TestServer, builder, session};

pub(crate) const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

/// How long a trial may take, and everything else that a test does not wait for: its clock may be ahead of what is on its
/// way.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);

pub(crate) fn patient() -> ClientSettings {
    session(|session| {
        session.connect_timeout = LONG;
        session.response_timeout = LONG;
        session.trial_timeout = LONG;
        session.retry.first = Duration::ZERO;
    })
}

/// An agent that takes settings, at this server.
pub(crate) fn settable(url: &str, memory: &Memory) -> Builder {
    let settings = SettingsPolicy::strict();
    builder(url).state(memory.clone()).settings(patient()).accept_connection_settings(settings)
}

pub(crate) fn with_endpoint(url: &str) -> pb::OpAmpConnectionSettings {
    pb::OpAmpConnectionSettings { destination_endpoint: url.into(), ..Default::default() }
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> Option<pb::Headers> {
    let header = |(key, value): &(&str, &str)| pb::Header { key: (*key).into(), value: (*value).into() };
    Some(pb::Headers { headers: pairs.iter().map(header).collect() })
}

pub(crate) fn opamp(settings: pb::OpAmpConnectionSettings) -> pb::ConnectionSettingsOffers {
    pb::ConnectionSettingsOffers { opamp: Some(settings), ..Default::default() }
}

impl TestServer {
    /// Offers settings as they are, also such as no good server would make.
    pub(crate) fn offer(&self, generation: u64, settings: pb::ConnectionSettingsOffers) {
        let offer = ConnectionSettingsOffer::restored(settings);
        self.handle.set_desired(&UID, Desired::connection_settings(generation, offer));
    }

    /// Waits until the agent is connected and has reported this state of the settings, and returns the text with it.
    pub(crate) async fn told(&self, status: pb::ConnectionSettingsStatuses) -> String {
        let what = format!("{status:?}");
        let seen = self.sees(UID, &what, |agent| is(agent, status)).await;
        seen.connection_settings.report.unwrap().error
    }
}

pub(crate) fn is(agent: &AgentSnapshot, status: pb::ConnectionSettingsStatuses) -> bool {
    agent.connection_settings.report.as_ref().is_some_and(|report| report.status == status as i32)
}

impl Agent {
    /// Waits for the end of a trial that fails, comes back, and returns what failed.
    pub(crate) async fn comes_back(&self) -> (FailureKind, String) {
        let failed = |event: &Event| matches!(event, Event::ConnectionSettingsFailed { .. });
        let event = self.event("a failed trial", failed).await;
        self.reconnect_until("back again", || self.client.stats().is_connected).await;
        (event.failure().unwrap().kind, event.to_string())
    }

    /// Lets it poll until something holds.
    pub(crate) async fn polls_until(&self, what: &str, holds: impl Fn() -> bool) {
        crate::common::until(what, || {
            if self.client.stats().is_connected {
                self.clock.advance(Duration::from_millis(500));
            }
            holds()
        })
        .await;
    }

    /// Waits until settings are in use.
    pub(crate) async fn applied(&self, times: usize) {
        let applied = || {
            let events = self.events.all();
            events.iter().filter(|event| matches!(event, Event::ConnectionSettingsApplied { .. })).count()
        };
        let poll = async {
            while applied() < times {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(crate::common::PATIENCE, poll).await.is_err() {
            panic!("never applied: {:#?}", self.events.all());
        }
    }
}
