//! One attempt that says whether an agent could reach its server, and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opamp_client::{ClientSettings, FailureKind, ProbeError, TlsSource};
use opamp_server::{InsecureAcceptEveryone, ServerSettings, StaticToken, StaticTokens};
use opamp_testkit::certs::Authority;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpListener;

use crate::common::{Agent, TestServer, Unheard, builder, session, until, within};
use crate::stub::{HttpStub, status};

fn kind(outcome: Result<(), ProbeError>) -> FailureKind {
    match outcome {
        Err(ProbeError::Failed(failure)) => failure.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_would_take_the_agent_is_reached_and_left_again() {
    let server = TestServer::start().await;
    for scheme in ["ws", "http"] {
        within("an answer", builder(&server.url(scheme)).probe()).await.unwrap();
    }
    assert_eq!(server.handle.stats().websocket_opened, 1);
    until("the socket is gone", || server.handle.stats().websocket_active == 0).await;
    assert!(server.handle.agents().is_empty(), "nothing was said of an agent");
}

#[tokio::test]
async fn what_would_stop_the_agent_stops_its_probe() {
    let tokens = Arc::new(StaticTokens::new(vec![StaticToken::new("agents", "good")]));
    let server = TestServer::with(tokens, ServerSettings::default(), None).await;
    let url = server.url("ws");
    assert_eq!(kind(builder(&url).bearer_token("bad").probe().await), FailureKind::Auth);
    builder(&url).bearer_token("good").probe().await.unwrap();
    let elsewhere = format!("ws://{}/elsewhere", server.address);
    assert_eq!(kind(builder(&elsewhere).bearer_token("good").probe().await), FailureKind::Status(404));
    assert_eq!(kind(builder(&Unheard::new().url("ws")).probe().await), FailureKind::Refused);
    let outcome = builder("wss://127.0.0.1:1").probe().await;
    assert!(matches!(outcome, Err(ProbeError::Start(_))), "no TLS was configured: {outcome:?}");
}

#[tokio::test]
async fn over_http_a_page_or_a_refusal_is_no_server_that_takes_the_agent() {
    let page = |headers| HttpStub::start(move |_, _| status("200 OK", headers, b""));
    let web = page("content-type: text/html\r\n").await;
    assert_eq!(kind(builder(&web.url("http")).probe().await), FailureKind::Protocol);
    builder(&page("content-type: application/x-protobuf\r\n").await.url("http")).probe().await.unwrap();
    for (line, expected) in [
        ("403 Forbidden", FailureKind::Auth),
        ("404 Not Found", FailureKind::Status(404)),
        ("503 Service Unavailable", FailureKind::Throttled),
    ] {
        let stub = HttpStub::start(move |_, _| status(line, "", b"")).await;
        assert_eq!(kind(builder(&stub.url("http")).probe().await), expected, "{line}");
    }
}

#[tokio::test]
async fn a_probe_ends_in_time_whoever_is_silent() {
    // Takes connections, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let settings: ClientSettings = session(|settings| settings.connect_timeout = Duration::from_millis(50));
    let outcome = within("an end", builder(&url).settings(settings).probe()).await;
    assert_eq!(kind(outcome), FailureKind::Timeout);
}

/// Verifies as usual, and counts how often it was asked.
#[derive(Debug)]
struct Counting(Arc<WebPkiServerVerifier>, AtomicUsize);

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[tokio::test]
async fn each_probe_verifies_the_certificate_anew() {
    let authority = Authority::new("ca");
    let tls = opamp_server::TlsSource::new(Authority::server_config(&authority.server(&["127.0.0.1"])));
    let server =
        TestServer::with(Arc::new(InsecureAcceptEveryone), ServerSettings::default(), Some(tls)).await;
    let provider = Arc::new(ring::default_provider());
    let pem = authority.pem();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap));
    let usual =
        WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(&provider)).build().unwrap();
    let counting = Arc::new(Counting(usual, AtomicUsize::new(0)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&counting) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let source = TlsSource::new(config);
    for verified in 1..=3 {
        // An agent's own connections may be resumed, and leave sessions behind.
        let agent = Agent::start(builder(&server.url("wss")).tls(source.clone()));
        server.sees(agent.client.uid(), "the report", |agent| agent.sequence_num.0 >= 1).await;
        agent.stop().await;
        let before = counting.1.load(Ordering::SeqCst);
        builder(&server.url("wss")).tls(source.clone()).probe().await.unwrap();
        assert_eq!(counting.1.load(Ordering::SeqCst), before + 1, "probe {verified}");
    }
    assert!(counting.1.load(Ordering::SeqCst) < 6, "the agents' own sessions were resumed");
}
