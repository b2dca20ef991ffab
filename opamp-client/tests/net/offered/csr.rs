//! A certificate that the agent asks for, from the request to the connection that uses it.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use opamp_client::{Builder, EcdsaRequester, FailureKind, TlsOptions, TlsProblem, TlsSource};
use opamp_proto::pb::{self, ConnectionSettingsStatuses::Applied};
use opamp_server::{
    CertificateRefused, CertificateRequest, ConnectionSettingsOffer, InsecureAcceptEveryone,
    IssueCertificate, MutualTls, OfferRules, OpampServer, ServerSettings, Target,
};
use opamp_testkit::certs::Authority;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;

use super::{UID, settable, with_endpoint};
use crate::common::{Agent, Memory, TestServer};

/// An authority that signs what agents ask for.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Where the certificates are for.
    endpoint: String,
    asked: Mutex<Vec<CertificateRequest>>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, endpoint: String::new(), asked: Mutex::default() }
    }
}

impl IssueCertificate for Ca {
    fn issue(
        &self,
        request: CertificateRequest,
    ) -> BoxFuture<'_, Result<Target<ConnectionSettingsOffer>, CertificateRefused>> {
        let csr = std::str::from_utf8(&request.csr).unwrap();
        let signed = CertificateSigningRequestParams::from_pem(csr).unwrap().signed_by(&self.issuer).unwrap();
        let certificate = Some(pb::TlsCertificate {
            cert: signed.pem().into_bytes().into(),
            ca_cert: self.issuer.pem().into_bytes().into(),
            ..Default::default()
        });
        let opamp = Some(pb::OpAmpConnectionSettings { certificate, ..with_endpoint(&self.endpoint) });
        let settings = pb::ConnectionSettingsOffers { opamp, ..Default::default() };
        let rules = OfferRules { issued_certificate: true, ..OfferRules::default() };
        let offer = ConnectionSettingsOffer::with_rules(settings, rules).unwrap();
        let mut asked = self.asked.lock().unwrap();
        asked.push(request);
        let generation = asked.len() as u64;
        Box::pin(std::future::ready(Ok(Target::new(generation, Some(offer)))))
    }
}

fn asking(url: &str, memory: &Memory, authority: &Authority) -> Builder {
    let options = TlsOptions::new(Arc::new(ring::default_provider())).ca_pem(authority.pem());
    settable(url, memory)
        .tls(TlsSource::from_options(options).unwrap())
        .certificate_requests(EcdsaRequester::new().organization("Example"))
}

on_both_transports! {
    over tls;

    /// R-CSR-03, R-CSR-04, R-CSR-11, R-CSR-12, R-CRED-04.
    async fn an_agent_asks_for_a_certificate_and_uses_it_with_its_own_key(scheme) {
        let authority = Authority::new("servers");
        let mut ca = Ca::new();
        let mut roots = RootCertStore::empty();
        roots.add(ca.issuer.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let identity = authority.server(&["127.0.0.1"]);
        let mutual = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![identity.cert.clone()], identity.private_key())
            .unwrap();
        let strict = TestServer::with(Arc::new(MutualTls), ServerSettings::default(), Some(opamp_server::TlsSource::new(mutual))).await;
        ca.endpoint = strict.url(scheme);
        let ca = Arc::new(ca);
        let (service, handle, driver) = OpampServer::builder(Arc::new(InsecureAcceptEveryone))
            .crypto_provider(provider)
            .issue_certificates(Arc::clone(&ca) as Arc<dyn IssueCertificate>)
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let first = TestServer { address: listener.local_addr().unwrap(), handle };
        let open = opamp_server::TlsSource::new(Authority::server_config(&authority.server(&["127.0.0.1"])));
        tokio::spawn(driver.run());
        tokio::spawn(opamp_server::serve(listener, Some(open), service));
        let memory = Memory::of(UID);
        let agent = Agent::start(asking(&first.url(scheme), &memory, &authority));
        if scheme == "https" {
            // The answer comes with a later poll.
            agent.polls_until("issued", || strict.handle.agent(&UID).is_some()).await;
        }
        strict.told(Applied).await;
        let seen = strict.handle.agent(&UID).unwrap().connection.unwrap().principal.to_string();
        assert_eq!(seen, format!("certificate:{UID}"));
        let csr = ca.asked.lock().unwrap()[0].csr.clone();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&csr).unwrap();
        use x509_parser::prelude::FromDer as _;
        let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).unwrap();
        request.verify_signature().unwrap();
        assert!(request.certification_request_info.subject.to_string().contains(&UID.to_string()));
        agent.stop().await;
        let saved = memory.saved().unwrap().connections;
        assert!(saved.request.is_none(), "it has come");
        let agent = Agent::start(asking(&first.url(scheme), &memory, &authority));
        strict.sees(UID, "back", |agent| agent.sticky.connects >= 2).await;
        agent.stop().await;
        assert_eq!(ca.asked.lock().unwrap().len(), 1, "once");
    }
}

/// R-CSR-01: who is not who they should be is asked nothing.
#[tokio::test]
async fn a_server_that_is_not_trusted_is_not_asked() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let tls = opamp_server::TlsSource::new(Authority::server_config(&stranger.server(&["127.0.0.1"])));
    let server =
        TestServer::with(Arc::new(InsecureAcceptEveryone), ServerSettings::default(), Some(tls)).await;
    let memory = Memory::of(UID);
    let agent = Agent::start(asking(&server.url("wss"), &memory, &authority));
    let (kind, _) = agent.failure().await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::UnknownIssuer));
    assert!(server.handle.agents().is_empty());
    assert!(memory.saved().unwrap().connections.request.is_none(), "nothing was even made");
}
