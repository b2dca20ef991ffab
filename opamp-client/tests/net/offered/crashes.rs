//! The agent's process ends at any moment of a trial, or its disk fails at any moment: it is never without a server.

use std::sync::{Arc, Mutex};

use opamp_client::{Client, SavedState, StateError, StateStore};
use opamp_proto::pb;

use super::{UID, headers, is, opamp, settable, with_endpoint};
use crate::common::{Agent, Memory, TestServer, builder, until};

/// Keeps every state that was ever saved; from some number on it saves nothing any more.
#[derive(Clone)]
struct Recording {
    states: Arc<Mutex<Vec<SavedState>>>,
    works_until: usize,
}

impl StateStore for Recording {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        Ok(self.states.lock().unwrap().last().cloned())
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        let mut states = self.states.lock().unwrap();
        if states.len() >= self.works_until {
            let source = std::io::Error::other("no space left");
            return Err(StateError::Io { location: "disk".to_owned(), source });
        }
        states.push(state.clone());
        Ok(())
    }
}

fn recording(works_until: usize) -> Recording {
    Recording { states: Arc::new(Mutex::new(vec![SavedState::new(UID)])), works_until }
}

fn settings(url: &str) -> pb::ConnectionSettingsOffers {
    opamp(pb::OpAmpConnectionSettings { headers: headers(&[("x-a", "1")]), ..with_endpoint(url) })
}

fn applied(server: &TestServer) -> bool {
    let applied = pb::ConnectionSettingsStatuses::Applied;
    server.handle.agent(&UID).is_some_and(|agent| is(&agent, applied))
}

on_both_transports! {
    /// R-CONN-05, R-CONN-10, R-CONN-12: a new process on each state that was ever on the disk.
    async fn from_every_state_on_the_disk_a_new_process_gets_to_the_offered_server(scheme) {
        let (first, second) = (TestServer::start().await, TestServer::start().await);
        let disk = recording(usize::MAX);
        let agent = Agent::start(settable(&first.url(scheme), &Memory::default()).state(disk.clone()));
        agent.connected().await;
        first.offer(1, settings(&second.url(scheme)));
        agent.polls_until("applied", || applied(&second)).await;
        agent.stop().await;
        let states = disk.states.lock().unwrap().clone();
        let with_candidate = states.iter().filter(|state| state.connections.candidate.is_some()).count();
        assert!(with_candidate >= 1 && states.len() >= 5, "{}", states.len());
        for (number, state) in (2..).zip(states) {
            let second = TestServer::start().await;
            // The same offer, whatever the state knows of it, but for where the server is by now.
            let moved = |settings: &Arc<opamp_client::connection::OpampSettings>| {
                Arc::new(opamp_client::connection::OpampSettings { endpoint: second.url(scheme), ..(**settings).clone() })
            };
            let mut state = state;
            let connections = &mut state.connections;
            connections.accepted = connections.accepted.as_ref().map(moved);
            connections.candidate = connections.candidate.as_ref().map(moved);
            let knows = connections.accepted.is_some() || connections.candidate.is_some();
            let disk = recording(usize::MAX);
            *disk.states.lock().unwrap() = vec![state];
            if !knows {
                first.offer(number, settings(&second.url(scheme)));
            }
            let agent = Agent::start(settable(&first.url(scheme), &Memory::default()).state(disk.clone()));
            agent.polls_until("there", || applied(&second)).await;
            until("kept", || disk.states.lock().unwrap().last().unwrap().connections.accepted.is_some()).await;
            agent.stop().await;
        }
    }

    /// R-CONN-14: a disk that fails from any save on costs no connection; without a certificate the settings are used.
    async fn a_disk_that_fails_at_any_moment_costs_no_server(scheme) {
        for works_until in 1..8 {
            let (first, second) = (TestServer::start().await, TestServer::start().await);
            let disk = recording(works_until);
            let agent = Agent::start(settable(&first.url(scheme), &Memory::default()).state(disk));
            agent.connected().await;
            first.offer(1, settings(&second.url(scheme)));
            agent.polls_until("applied", || applied(&second)).await;
            agent.stop().await;
        }
    }

    /// R-CONN-15: with a certificate they are not, and the agent stays where it is.
    async fn a_disk_that_fails_before_the_trial_means_no_certificate(scheme) {
        let (first, second) = (TestServer::start().await, TestServer::start().await);
        let agent = Agent::start(settable(&first.url(scheme), &Memory::default()).state(recording(2)).tls(
            opamp_client::TlsSource::new(rustls::ClientConfig::clone(
                &opamp_testkit::certs::Authority::new("ca").client_config(),
            )),
        ));
        agent.connected().await;
        let identity = opamp_testkit::certs::Authority::new("ca").client("agent", &[]);
        let certificate = Some(pb::TlsCertificate {
            cert: identity.cert_pem.into_bytes().into(),
            private_key: identity.key_pem.into_bytes().into(),
            ..Default::default()
        });
        let settings = pb::OpAmpConnectionSettings { certificate, ..with_endpoint(&second.url(scheme)) };
        first.offer(1, opamp(settings));
        let failed = pb::ConnectionSettingsStatuses::Failed;
        agent.polls_until("failed", || first.handle.agent(&UID).is_some_and(|agent| is(&agent, failed))).await;
        let why = first.told(failed).await;
        assert!(why.contains("cannot be saved"), "{why}");
        assert!(second.handle.agents().is_empty());
        agent.stop().await;
    }

    /// Settings of an earlier process that this one's configuration makes no connection of.
    async fn accepted_settings_that_cannot_be_used_any_more_give_way_to_the_configuration(scheme) {
        let server = TestServer::start().await;
        let memory = Memory::of(UID);
        let agent = Agent::start(settable(&server.url(scheme), &memory));
        agent.connected().await;
        let with_path = server.url(scheme) + "?x=y";
        server.offer(1, opamp(with_endpoint(&with_path)));
        agent.polls_until("applied", || applied(&server)).await;
        agent.stop().await;
        let mut saved = memory.saved().unwrap();
        let accepted = saved.connections.accepted.as_deref().cloned().unwrap();
        let tls = "wss://127.0.0.1:1/v1/opamp".to_owned();
        saved.connections.accepted =
            Some(Arc::new(opamp_client::connection::OpampSettings { endpoint: tls, ..accepted }));
        let memory = Memory::default();
        memory.save(&saved).unwrap();
        // Nothing says whom it trusts.
        let agent = Agent::start(settable(&server.url(scheme), &memory));
        agent.connected().await;
        // The server may have offered its own by then.
        let dropped = || memory.saved().unwrap().connections.accepted.is_none_or(|now| now.endpoint == with_path);
        until("dropped", dropped).await;
        agent.stop().await;
    }
}

/// Whoever waits for the end may open the same packages again at once.
#[tokio::test]
async fn nothing_of_a_stopped_agent_holds_its_package_handler() {
    struct Handler(#[allow(dead_code, reason = "what is held is what counts")] Arc<()>);
    impl opamp_client::packages::PackageHandler for Handler {
        fn installed(&self) -> futures::future::BoxFuture<'_, opamp_client::packages::PackageStatuses> {
            Box::pin(std::future::ready(Default::default()))
        }

        fn sync(
            &self,
            _: opamp_client::packages::PackagesOffer,
            _: opamp_client::packages::PackageProgress,
            _: Client,
        ) -> futures::future::BoxFuture<'_, Result<(), opamp_client::packages::PackagesRejected>> {
            // It does not care whether it is wanted.
            Box::pin(std::future::pending())
        }
    }
    let package = pb::PackageAvailable { hash: b"p"[..].into(), version: "1".into(), ..Default::default() };
    let offer = pb::PackagesAvailable {
        packages: [("x".to_owned(), package)].into(),
        all_packages_hash: b"h"[..].into(),
    };
    for offered in [false, true] {
        let stub = crate::stub::WsStub::start().await;
        let held = Arc::new(());
        let agent =
            Agent::start(builder(&stub.url()).state(Memory::of(UID)).on_packages(Handler(Arc::clone(&held))));
        let mut peer = stub.accept().await;
        peer.receive().await;
        let takes_statuses = pb::ServerToAgent { capabilities: 0x1f, ..Default::default() };
        peer.send(&takes_statuses).await;
        if offered {
            let packages_available = Some(offer.clone());
            peer.send(&pb::ServerToAgent { packages_available, ..takes_statuses }).await;
            assert!(peer.acknowledge().await.package_statuses.is_some());
        }
        agent.client.stop();
        peer.close_code().await;
        let mut stopped = Box::pin(agent.client.stopped());
        while tokio::time::timeout(std::time::Duration::from_millis(5), &mut stopped).await.is_err() {
            agent.advance(1);
        }
        assert_eq!(Arc::strong_count(&held), 1, "offered: {offered}");
    }
}
