//! Client certificates that a server offers.

use std::sync::Arc;

use opamp_client::{Event, TlsOptions, TlsSource};
use opamp_proto::pb::{self, ConnectionSettingsStatuses::Applied};
use opamp_server::{InsecureAcceptEveryone, MutualTls, ServerSettings};
use opamp_testkit::certs::{Authority, Identity};
use rustls::crypto::ring;

use super::stub::TlsStub;
use super::{UID, opamp, settable, with_endpoint};
use crate::common::{Agent, Memory, TestServer};
use crate::stub::ack;

fn options(authority: &Authority) -> TlsOptions {
    TlsOptions::new(Arc::new(ring::default_provider())).ca_pem(authority.pem())
}

fn offered(identity: &Identity) -> Option<pb::TlsCertificate> {
    Some(pb::TlsCertificate {
        cert: identity.cert_pem.clone().into_bytes().into(),
        private_key: identity.key_pem.clone().into_bytes().into(),
        ..Default::default()
    })
}

on_both_transports! {
    over tls;

    /// R-CONN-28, R-CONN-29, R-CONN-31, R-CRED-01, R-CRED-04, R-CRED-07: the first one, then another, then a restart.
    async fn certificates_are_taken_rotated_and_kept(scheme) {
        let authority = Authority::new("ca");
        let tls = |config| Some(opamp_server::TlsSource::new(config));
        let open = Authority::server_config(&authority.server(&["127.0.0.1"]));
        let first = TestServer::with(Arc::new(InsecureAcceptEveryone), ServerSettings::default(), tls(open)).await;
        let mutual = authority.mutual_server_config(&authority.server(&["127.0.0.1"]), true);
        let strict = TestServer::with(Arc::new(MutualTls), ServerSettings::default(), tls(mutual)).await;
        let memory = Memory::of(UID);
        let source = || TlsSource::from_options(options(&authority)).unwrap();
        let agent = Agent::start(settable(&first.url(scheme), &memory).tls(source()));
        agent.connected().await;
        let settings = |identity: &Identity| opamp(pb::OpAmpConnectionSettings {
            certificate: offered(identity),
            ..with_endpoint(&strict.url(scheme))
        });
        // Of the same name, as a server rotates them that knows its agents by it.
        let (one, two) = (authority.client("agent", &[]), authority.client("agent", &[]));
        first.offer(1, settings(&one));
        agent.polls_until("the first", || strict.handle.agent(&UID).is_some()).await;
        strict.told(Applied).await;
        let principal = || strict.handle.agent(&UID).unwrap().connection.unwrap().principal.to_string();
        assert_eq!(principal(), "certificate:agent");
        strict.offer(1, settings(&two));
        let kept = || memory.saved().unwrap().connections.accepted.unwrap().certificate.as_ref().unwrap().cert.clone();
        agent.polls_until("the second", || kept() == two.cert_pem.as_bytes()).await;
        agent.applied(2).await;
        agent.stop().await;
        let connects = strict.handle.agent(&UID).unwrap().sticky.connects;
        let agent = Agent::start(settable(&first.url(scheme), &memory).tls(source()));
        strict.sees(UID, "back", |agent| agent.sticky.connects > connects).await;
        agent.stop().await;
    }
}

/// R-CONN-28, R-CONN-29, R-CONN-31: which certificate each handshake shows.
#[tokio::test]
async fn after_a_rotation_the_earlier_certificate_is_never_shown_again() {
    let authority = Authority::new("ca");
    let config = authority.mutual_server_config(&authority.server(&["127.0.0.1"]), false);
    let stub = TlsStub::start(config).await;
    let memory = Memory::of(UID);
    let start = || {
        let source = TlsSource::from_options(options(&authority)).unwrap();
        Agent::start(settable(&stub.url(), &memory).tls(source))
    };
    let agent = start();
    agent.connected().await;
    let identities: Vec<_> = (0..3).map(|_| authority.client("agent", &[])).collect();
    for (number, identity) in identities.iter().enumerate() {
        let settings =
            pb::OpAmpConnectionSettings { certificate: offered(identity), ..with_endpoint(&stub.url()) };
        let offers = pb::ConnectionSettingsOffers { hash: vec![number as u8].into(), ..opamp(settings) };
        stub.say(pb::ServerToAgent { connection_settings: Some(offers), ..ack() });
        let done = || {
            agent
                .events
                .all()
                .iter()
                .filter(|event| matches!(event, Event::ConnectionSettingsApplied { .. }))
                .count()
        };
        agent.polls_until("rotated", || done() == number + 1).await;
    }
    agent.stop().await;
    let agent = start();
    agent.connected().await;
    agent.stop().await;
    let mut shown: Vec<_> = stub.seen().into_iter().map(|seen| seen.certificate).collect();
    shown.dedup();
    let expected: Vec<_> =
        std::iter::once(None).chain(identities.iter().map(|identity| Some(identity.cert.to_vec()))).collect();
    assert_eq!(shown.len(), 4);
    assert_eq!(shown, expected, "one after the other, and the last one after the restart");
}

/// R-CONN-30: also one that was configured; R-CSR-02: and it is shown until then.
#[tokio::test]
async fn settings_without_a_certificate_lead_to_a_handshake_without_one() {
    let authority = Authority::new("ca");
    let config = || authority.mutual_server_config(&authority.server(&["127.0.0.1"]), false);
    let (old, new) = (TlsStub::start(config()).await, TlsStub::start(config()).await);
    let configured = authority.client("configured", &[]);
    for whole in [true, false] {
        let source = if whole {
            TlsSource::new(rustls::ClientConfig::clone(&authority.client_config_with(&configured)))
        } else {
            let with = options(&authority)
                .client_certificate_pem(configured.cert_pem.clone(), configured.key_pem.clone());
            TlsSource::from_options(with).unwrap()
        };
        old.say(ack());
        let before = (old.seen().len(), new.seen().len());
        let agent = Agent::start(settable(&old.url(), &Memory::of(UID)).tls(source));
        agent.connected().await;
        assert_eq!(old.seen()[before.0].certificate.as_deref(), Some(&*configured.cert));
        let offers =
            pb::ConnectionSettingsOffers { hash: b"h"[..].into(), ..opamp(with_endpoint(&new.url())) };
        old.say(pb::ServerToAgent { connection_settings: Some(offers), ..ack() });
        agent.advance(30);
        agent.applied(1).await;
        assert_eq!(new.seen()[before.1].certificate, None, "whole: {whole}");
        agent.stop().await;
    }
}
