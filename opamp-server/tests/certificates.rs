//! Certificate requests: checked by the library, decided by the application, answered on both transports.

#![allow(clippy::unwrap_used, reason = "support of tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use opamp_proto::{InstanceUid, pb};
use opamp_server::{
    CertificateRefused, CertificateRequest, ConnectionSettingsOffer, InsecureAcceptEveryone,
    IssueCertificate, OfferRules, ServerSettings, Target,
};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};
use rustls::crypto::ring;

use common::{TestServer, full, numbered, uid};

/// The keys of the requests, by which the test's CA knows what to certify: reading requests is the library's part.
static KEYS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// What the application does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    Issue,
    IssueForAnotherKey,
    Panic,
    PanicAtOnce,
    Refuse,
    Wait,
}

struct Authority {
    conduct: Mutex<Conduct>,
    asked: Mutex<Vec<CertificateRequest>>,
    generation: Mutex<u64>,
}

impl Authority {
    fn new(conduct: Conduct) -> Arc<Self> {
        Arc::new(Self { conduct: Mutex::new(conduct), asked: Mutex::default(), generation: Mutex::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn target(&self, csr: &[u8]) -> Target<ConnectionSettingsOffer> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let requested =
            KEYS.lock().unwrap().iter().find(|(known, _)| known.as_bytes() == csr).unwrap().1.clone();
        let requested = KeyPair::from_pem(&requested).unwrap();
        let issued = CertificateParams::default().signed_by(&requested, &issuer).unwrap();
        let certificate = pb::TlsCertificate {
            cert: issued.pem().into(),
            ca_cert: authority.pem().into(),
            ..Default::default()
        };
        let opamp = pb::OpAmpConnectionSettings {
            destination_endpoint: "wss://example.com/v1/opamp".into(),
            certificate: Some(certificate),
            ..Default::default()
        };
        let settings = pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() };
        let rules = OfferRules { issued_certificate: true, ..OfferRules::default() };
        let mut generation = self.generation.lock().unwrap();
        *generation += 1;
        Target::new(*generation, Some(ConnectionSettingsOffer::with_rules(settings, rules).unwrap()))
    }
}

impl IssueCertificate for Authority {
    fn issue(
        &self,
        request: CertificateRequest,
    ) -> BoxFuture<'_, Result<Target<ConnectionSettingsOffer>, CertificateRefused>> {
        let conduct = *self.conduct.lock().unwrap();
        let csr = request.csr.clone();
        self.asked.lock().unwrap().push(request);
        assert_ne!(conduct, Conduct::PanicAtOnce, "the CA is gone");
        Box::pin(async move {
            match conduct {
                Conduct::Issue => Ok(self.target(&csr)),
                Conduct::IssueForAnotherKey => Ok(self.target(&request_for("somebody", &[]).into_bytes())),
                Conduct::Panic | Conduct::PanicAtOnce => panic!("the CA is on fire"),
                Conduct::Refuse => Err(CertificateRefused("not approved".into())),
                Conduct::Wait => std::future::pending().await,
            }
        })
    }
}

async fn issuing(authority: &Arc<Authority>, settings: ServerSettings) -> TestServer {
    let authority = Arc::clone(authority) as Arc<dyn IssueCertificate>;
    TestServer::built(Arc::new(InsecureAcceptEveryone), settings, |builder| {
        builder.issue_certificates(authority).crypto_provider(Arc::new(ring::default_provider()))
    })
    .await
}

/// A signed request in PEM.
fn request_for(common_name: &str, alternative: &[SanType]) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = alternative.to_vec();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    KEYS.lock().unwrap().push((csr.clone(), key.serialize_pem()));
    csr
}

fn asking(csr: &str) -> pb::AgentToServer {
    let certificate_request = Some(pb::CertificateRequest { csr: csr.to_owned().into() });
    let opamp = Some(pb::OpAmpConnectionSettingsRequest { certificate_request });
    pb::AgentToServer {
        connection_settings_request: Some(pb::ConnectionSettingsRequest { opamp }),
        ..Default::default()
    }
}

fn refusal(message: &pb::ServerToAgent) -> Option<&str> {
    let error = message.error_response.as_ref()?;
    assert_eq!(error.r#type, pb::ServerErrorResponseType::BadRequest as i32);
    assert!(message.connection_settings.is_none() && message.flags == 0);
    Some(&error.error_message)
}

/// The outcome of a request over a socket: a push behind the acknowledgement.
async fn outcome(server: &TestServer, uid: InstanceUid, csr: &str) -> pb::ServerToAgent {
    let mut agent = server.connect(None).await;
    agent.say(uid, full()).await;
    let answer = agent.say(uid, asking(csr)).await;
    assert!(answer.error_response.is_none() && answer.connection_settings.is_none(), "acknowledged at once");
    agent.receive().await
}

/// R-CSR-09, R-CSR-10, R-CSR-24.
#[tokio::test]
async fn a_valid_request_is_answered_with_the_issued_certificate_on_both_transports() {
    let authority = Authority::new(Conduct::Issue);
    let server = issuing(&authority, ServerSettings::default()).await;
    let names = [
        ("collector".to_owned(), vec![SanType::DnsName("host.example.com".try_into().unwrap())]),
        (uid(1).to_string(), vec![]),
        ("x".to_owned(), vec![SanType::URI(format!("urn:uuid:{}", uid(1)).try_into().unwrap())]),
        ("x".to_owned(), vec![SanType::DnsName(uid(1).to_string().try_into().unwrap())]),
    ];
    for (common_name, alternative) in names {
        let offer = outcome(&server, uid(1), &request_for(&common_name, &alternative)).await;
        let opamp = offer.connection_settings.expect("the offer").opamp.unwrap();
        let certificate = opamp.certificate.unwrap();
        assert!(certificate.cert.starts_with(b"-----BEGIN CERTIFICATE-----"));
        assert!(certificate.private_key.is_empty() && !certificate.ca_cert.is_empty());
        assert_eq!(opamp.heartbeat_interval_seconds, 30);
        server.handle.forget(&uid(1));
    }
    let asked = authority.asked.lock().unwrap()[0].clone();
    assert_eq!((asked.uid, asked.remote_addr.is_some()), (uid(1), true));

    let csr = request_for("poller", &[]);
    server.poll(None, &numbered(uid(2), 1, full())).await;
    let acknowledged = server.poll(None, &numbered(uid(2), 2, asking(&csr))).await.message.unwrap();
    assert_eq!(acknowledged.capabilities & 0x40, 0x40, "announced, since somebody decides");
    server.until("it is decided", |handle| handle.stats().certificates_issued == 5).await;
    let answer = server.poll(None, &numbered(uid(2), 3, Default::default())).await.message.unwrap();
    assert!(answer.connection_settings.unwrap().opamp.unwrap().certificate.is_some());
}

/// R-CSR-14, R-CSR-17, R-CSR-23: the application is not even asked.
#[tokio::test]
async fn a_request_that_is_wrong_is_refused_with_a_reason_and_nobody_is_asked() {
    let authority = Authority::new(Conduct::Issue);
    let server = issuing(&authority, ServerSettings::default()).await;
    let valid = request_for("collector", &[]);
    let broken = {
        let body: String = valid.lines().filter(|line| !line.starts_with("-----")).collect();
        let mut der = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
        let at = der.windows(9).position(|window| window == b"collector").unwrap();
        der[at] ^= 1; // the name, so that the signature is about something else
        let body = data_encoding::BASE64.encode(&der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    };
    let somebody = uid(9).to_string();
    let foreign_uri = [SanType::URI(format!("urn:uuid:{somebody}").try_into().unwrap())];
    let cases = [
        ("garbage".to_owned(), "PEM"),
        (String::new(), "PEM"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".to_owned(),
            "PKCS #10",
        ),
        (broken, "signature"),
        (request_for(&somebody, &[]), "identity"),
        (request_for("x", &foreign_uri), "identity"),
        ("x".repeat(100_000), "bytes"),
    ];
    for (number, (csr, reason)) in cases.into_iter().enumerate() {
        let answer = outcome(&server, uid(1), &csr).await;
        assert!(refusal(&answer).is_some_and(|why| why.contains(reason)), "{number}: {answer:?}");
        server.handle.forget(&uid(1));
    }
    assert_eq!(authority.asked(), 0);
    assert_eq!(server.handle.stats().certificates_refused, 7);
}

/// R-CSR-14.
#[tokio::test]
async fn what_the_issuer_does_wrong_or_refuses_is_told_and_the_agent_may_ask_again() {
    let authority = Authority::new(Conduct::Refuse);
    let settings =
        ServerSettings { certificate_timeout: Duration::from_millis(50), ..ServerSettings::default() };
    let server = issuing(&authority, settings).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    for (conduct, reason) in [
        (Conduct::Refuse, "not approved"),
        (Conduct::Panic, "could not be issued"),
        (Conduct::PanicAtOnce, "could not be issued"),
        (Conduct::IssueForAnotherKey, "could not be issued"),
        (Conduct::Wait, "not decided in time"),
    ] {
        *authority.conduct.lock().unwrap() = conduct;
        agent.say(uid(1), asking(&request_for("collector", &[]))).await;
        let answer = agent.receive().await;
        assert!(refusal(&answer).is_some_and(|why| why.contains(reason)), "{conduct:?}: {answer:?}");
    }
    *authority.conduct.lock().unwrap() = Conduct::Issue;
    agent.say(uid(1), asking(&request_for("collector", &[]))).await;
    assert!(agent.receive().await.connection_settings.is_some());
}

#[tokio::test]
async fn requests_that_wait_are_bounded() {
    let authority = Authority::new(Conduct::Wait);
    let settings = ServerSettings { certificate_requests_max: 2, ..ServerSettings::default() };
    let server = issuing(&authority, settings).await;
    let mut agent = server.connect(None).await;
    for number in 1..4 {
        agent.say(uid(number), asking(&request_for("collector", &[]))).await;
    }
    let answer = agent.receive().await;
    assert_eq!(&answer.instance_uid[..], uid(3).as_bytes());
    assert!(refusal(&answer).unwrap().contains("too many"));
    server.until("the others are asked about", |_| authority.asked() == 2).await;
    assert!(server.handle.drain(Duration::from_secs(10)).await, "a decision that is out keeps nothing");
}

#[tokio::test]
async fn without_an_issuer_nothing_is_announced_and_requests_lead_to_nothing() {
    let server = TestServer::start().await;
    let mut agent = server.connect(None).await;
    let answer = agent.say(uid(1), full()).await;
    assert_eq!(answer.capabilities & 0x40, 0);
    agent.say(uid(1), asking(&request_for("collector", &[]))).await;
    assert_eq!(server.handle.stats().certificates_requested, 0);
}
