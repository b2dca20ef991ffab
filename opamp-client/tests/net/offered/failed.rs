//! Settings that do not work: the agent is back at its server in bounded time, and says why.

use std::sync::Arc;

use opamp_client::{Event, FailureKind, Forgetful, InstanceUid, SavedState, StateError, StateStore};
use opamp_proto::pb::{self, ConnectionSettingsStatuses::Failed};
use opamp_server::{ServerSettings, StaticToken, StaticTokens};

use super::{LONG, UID, headers, opamp, patient, settable, with_endpoint};
use crate::common::{Agent, Memory, TestServer, Unheard, builder};
use crate::stub::{HttpStub, Reply, status};

/// Offers settings that fail, and returns what failed.
async fn fails(scheme: &str, settings: pb::OpAmpConnectionSettings) -> (FailureKind, String) {
    let server = TestServer::start().await;
    let memory = Memory::of(UID);
    let agent = Agent::start(settable(&server.url(scheme), &memory));
    agent.connected().await;
    server.offer(1, opamp(settings));
    if scheme == "http" {
        agent.advance(30);
    }
    let back = agent.comes_back().await;
    let why = server.told(Failed).await;
    assert!(why.starts_with("opamp: "), "{why}");
    let saved = memory.saved().unwrap().connections;
    assert!(saved.candidate.is_none() && saved.accepted.is_none());
    agent.stop().await;
    back
}

on_both_transports! {
    /// R-CONN-12, R-CONN-13, R-CONN-14.
    async fn an_address_that_leads_nowhere_leads_back(scheme) {
        let nobody = Unheard::new();
        let (kind, text) = fails(scheme, with_endpoint(&nobody.url(scheme))).await;
        assert_eq!(kind, FailureKind::Refused, "{text}");
        let (kind, text) = fails(scheme, with_endpoint(&format!("{scheme}://nowhere.invalid/v1/opamp"))).await;
        assert_eq!(kind, FailureKind::Dns, "{text}");
        let stub = HttpStub::start(|_, _| status("404 Not Found", "", b"")).await;
        let (kind, text) = fails(scheme, with_endpoint(&stub.url(scheme))).await;
        assert_eq!(kind, FailureKind::Status(404), "{text}");
    }

    /// R-CONN-08.
    async fn credentials_that_are_refused_lead_back(scheme) {
        let tokens = StaticTokens::new(vec![StaticToken::new("agent", "right")]);
        let strict = TestServer::with(Arc::new(tokens), ServerSettings::default(), None).await;
        let wrong = pb::OpAmpConnectionSettings {
            headers: headers(&[("Authorization", "Bearer wrong")]),
            ..with_endpoint(&strict.url(scheme))
        };
        let (kind, text) = fails(scheme, wrong).await;
        assert_eq!(kind, FailureKind::Auth, "{text}");
        assert!(!text.contains("wrong"), "{text}");
        let busy = HttpStub::start(|_, _| status("503 Service Unavailable", "retry-after: 3600\r\n", b"")).await;
        let (kind, text) = fails(scheme, with_endpoint(&busy.url(scheme))).await;
        assert_eq!(kind, FailureKind::Throttled, "{text}");
    }

    /// R-CONN-08: a connection that stands and is never answered.
    async fn silence_leads_back_when_the_time_is_over(scheme) {
        let server = TestServer::start().await;
        let silent = HttpStub::start(|_, _| Reply::Silence).await;
        let memory = Memory::of(UID);
        let agent = Agent::start(settable(&server.url(scheme), &memory));
        agent.connected().await;
        server.offer(1, opamp(with_endpoint(&silent.url(scheme))));
        if scheme == "http" {
            agent.advance(30);
        }
        silent.request(0).await;
        agent.advance(LONG.as_secs());
        let (kind, text) = agent.comes_back().await;
        assert_eq!(kind, FailureKind::Timeout, "{text}");
        server.told(Failed).await;
        agent.stop().await;
    }

    /// R-CONN-01, R-CONN-26: nothing is tried, and nobody is left.
    async fn what_can_never_work_costs_no_connection(scheme) {
        let cases = [
            ("empty", with_endpoint("")),
            ("scheme", with_endpoint("ftp://x")),
            ("not a URL", with_endpoint("ws:///v1/opamp")),
            ("credentials", with_endpoint("ws://user:secret@h/v1/opamp")),
            ("header", pb::OpAmpConnectionSettings { headers: headers(&[("x y", "1")]), ..with_endpoint("ws://h") }),
            ("header", pb::OpAmpConnectionSettings { headers: headers(&[("Host", "1")]), ..with_endpoint("ws://h") }),
            ("needs TLS", with_endpoint("wss://h/v1/opamp")),
            ("proxy", pb::OpAmpConnectionSettings {
                proxy: Some(pb::ProxyConnectionSettings { url: "socks5://p".into(), ..Default::default() }),
                ..with_endpoint("ws://h")
            }),
        ];
        for (what, settings) in cases {
            let server = TestServer::start().await;
            let agent = Agent::start(settable(&server.url(scheme), &Memory::of(UID)));
            agent.connected().await;
            server.offer(1, opamp(settings));
            if scheme == "http" {
                agent.advance(30);
            }
            let why = server.told(Failed).await;
            assert!(why.contains(what) && !why.contains("secret"), "{what}: {why}");
            assert_eq!(server.handle.agent(&UID).unwrap().sticky.connects, 1, "{what}");
            let rejected = |event: &Event| matches!(event, Event::ConnectionSettingsRejected { .. });
            agent.event("told", rejected).await;
            agent.stop().await;
        }
    }

    /// R-CONN-15.
    async fn without_a_place_to_keep_it_no_certificate_is_taken(scheme) {
        let certificate = Some(pb::TlsCertificate { cert: b"c"[..].into(), private_key: b"k"[..].into(), ..Default::default() });
        let settings = |url: &str| pb::OpAmpConnectionSettings { certificate: certificate.clone(), ..with_endpoint(url) };
        // Nowhere at all.
        let server = TestServer::start().await;
        let agent = Agent::start(
            builder(&server.url(scheme)).state(Kept(Forgetful)).settings(patient()).accept_connection_settings(Default::default()),
        );
        agent.connected().await;
        server.offer(1, opamp(settings(&server.url(scheme))));
        if scheme == "http" {
            agent.advance(30);
        }
        let why = server.told(Failed).await;
        assert!(why.contains("keeps nothing"), "{why}");
        assert_eq!(server.handle.agent(&UID).unwrap().sticky.connects, 1);
    }
}

/// Forgets everything but who it is, so that the test knows it again.
struct Kept(Forgetful);

impl StateStore for Kept {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        Ok(Some(SavedState::new(InstanceUid::from_bytes([7; 16]))))
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        self.0.save(state)
    }

    fn is_durable(&self) -> bool {
        self.0.is_durable()
    }
}
