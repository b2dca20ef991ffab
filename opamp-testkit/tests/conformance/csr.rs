//! R-CSR: certificate requests of agents, and what the application's issuer makes of them.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use opamp_proto::{InstanceUid, pb};
use opamp_server::{
    CertificateRefused, CertificateRequest, ConnectionSettingsOffer, IssueCertificate, MutualTls, OfferRules,
    RefusalReason, Target,
};
use opamp_testkit::certs::{Authority, Request};
use tokio::sync::Semaphore;

use super::common::*;
use super::offers::*;

/// An issuer that signs for one key, when it is told to.
struct Issuer {
    settings: Mutex<pb::OpAmpConnectionSettings>,
    refusal: Option<&'static str>,
    /// As many decisions as there are permits.
    leave: Semaphore,
    asked: Mutex<Vec<CertificateRequest>>,
}

impl Issuer {
    /// Grants at once what `request` asks for.
    fn granting(authority: &Authority, request: &Request) -> Arc<Self> {
        Self::new(authority, request, None, Semaphore::MAX_PERMITS)
    }

    /// Refuses at once.
    fn refusing(reason: &'static str) -> Arc<Self> {
        Self::new(
            &Authority::new("unused"),
            &Request::new("nobody", &[]),
            Some(reason),
            Semaphore::MAX_PERMITS,
        )
    }

    /// Grants when [`Issuer::decide`] is called.
    fn waiting(authority: &Authority, request: &Request) -> Arc<Self> {
        Self::new(authority, request, None, 0)
    }

    fn new(
        authority: &Authority,
        request: &Request,
        refusal: Option<&'static str>,
        decisions: usize,
    ) -> Arc<Self> {
        let issuer = Arc::new(Self {
            settings: Mutex::new(opamp(ELSEWHERE)),
            refusal,
            leave: Semaphore::new(decisions),
            asked: Mutex::default(),
        });
        issuer.grant(authority, request);
        issuer
    }

    /// Grants what this request asks for, from now on.
    fn grant(&self, authority: &Authority, request: &Request) {
        self.settings.lock().unwrap().certificate = Some(pb::TlsCertificate {
            cert: authority.grant(request).into(),
            private_key: Default::default(),
            ca_cert: authority.pem().into(),
        });
    }

    fn settings(&self) -> pb::OpAmpConnectionSettings {
        self.settings.lock().unwrap().clone()
    }

    fn decide(&self) {
        self.leave.add_permits(1);
    }

    fn asked(&self) -> Vec<CertificateRequest> {
        self.asked.lock().unwrap().clone()
    }
}

impl IssueCertificate for Issuer {
    fn issue(
        &self,
        request: CertificateRequest,
    ) -> BoxFuture<'_, Result<Target<ConnectionSettingsOffer>, CertificateRefused>> {
        self.asked.lock().unwrap().push(request);
        Box::pin(async move {
            self.leave.acquire().await.unwrap().forget();
            if let Some(reason) = self.refusal {
                return Err(CertificateRefused(reason.to_owned()));
            }
            let rules = OfferRules { issued_certificate: true, ..OfferRules::default() };
            let offer = ConnectionSettingsOffer::with_rules(only_opamp(self.settings()), rules).unwrap();
            Ok(Target::new(1, Some(offer)))
        })
    }
}

async fn server(issuer: &Arc<Issuer>) -> TestServer {
    let issuer = Arc::clone(issuer);
    TestServer::with(|setup| setup.issuer = Some(issuer)).await
}

async fn ask(agent: &mut ScriptedAgent, csr: &str) -> pb::ServerToAgent {
    let message = agent.persona.certificate_request(csr);
    agent.exchange(&message).await.unwrap()
}

/// The first certificate or error the server has to tell, in this answer or later.
async fn outcome(agent: &mut ScriptedAgent, answer: pb::ServerToAgent) -> pb::ServerToAgent {
    let tells = |message: &pb::ServerToAgent| {
        message.connection_settings.is_some() || message.error_response.is_some()
    };
    if tells(&answer) {
        return answer;
    }
    assert!(says_nothing(&answer), "acknowledged: {answer:?}");
    agent.until(tells).await.unwrap()
}

#[track_caller]
fn granted(message: &pb::ServerToAgent) -> pb::OpAmpConnectionSettings {
    let offered = message.connection_settings.as_ref().and_then(|offer| offer.opamp.clone());
    offered.unwrap_or_else(|| panic!("no settings for OpAMP in {message:?}"))
}

/// A request that names this agent.
fn request_of(uid: InstanceUid) -> Request {
    Request::new(&uid.to_string(), &[])
}

/// The same request with a signature that is not its key's.
fn forged(csr: &str) -> String {
    let other = Request::new("other", &[]).csr_pem;
    let split = |pem: &str| -> Vec<u8> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        data_encoding::BASE64.decode(body.as_bytes()).unwrap()
    };
    let mut der = split(csr);
    // The signature stands at the end; one of another request of the same length of key does not fit.
    let tail = split(&other);
    let last = der.len() - 8..;
    der[last].copy_from_slice(&tail[tail.len() - 8..]);
    let body = data_encoding::BASE64.encode(&der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
}

on_both_transports! {
    /// R-CSR-09, R-CSR-10, R-CSR-24: the certificate for the key of the request, with its authority and without a key.
    async fn a_request_is_answered_with_the_issued_certificate(wire: Wire) {
        let authority = Authority::new("fleet");
        let persona = Persona::new(1).with_settings();
        let request = request_of(persona.uid);
        let issuer = Issuer::granting(&authority, &request);
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, persona).await;
        let answer = ask(&mut agent, &request.csr_pem).await;
        let settings = granted(&outcome(&mut agent, answer).await);
        let certificate = settings.certificate.unwrap();
        assert_eq!(Some(&certificate), issuer.settings().certificate.as_ref());
        assert_eq!(certificate.ca_cert, authority.pem());
        assert!(certificate.private_key.is_empty());
        assert_eq!(settings.destination_endpoint, ELSEWHERE);
        let asked = issuer.asked();
        assert_eq!((asked.len(), asked[0].uid), (1, agent.persona.uid));
        assert_eq!(asked[0].csr, request.csr_pem.as_bytes());
    }

    /// R-CSR-11 seen from the server: a certificate that the key of the request does not fit is of no use to the agent.
    async fn a_certificate_for_another_key_is_not_offered(wire: Wire) {
        let authority = Authority::new("fleet");
        let persona = Persona::new(1).with_settings();
        let (request, other) = (request_of(persona.uid), request_of(persona.uid));
        let issuer = Issuer::granting(&authority, &other);
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, persona).await;
        let answer = ask(&mut agent, &request.csr_pem).await;
        let answer = outcome(&mut agent, answer).await;
        bad_request(&answer);
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    }

    /// R-CSR-13.
    async fn other_settings_may_come_with_the_certificate(wire: Wire) {
        let authority = Authority::new("fleet");
        let persona = Persona::new(1).with_settings();
        let request = request_of(persona.uid);
        let issuer = Issuer::granting(&authority, &request);
        issuer.settings.lock().unwrap().headers = headers(&[("Authorization", "Bearer own")]);
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, persona).await;
        let answer = ask(&mut agent, &request.csr_pem).await;
        let settings = granted(&outcome(&mut agent, answer).await);
        assert!(settings.certificate.is_some());
        assert_eq!(settings.headers, headers(&[("Authorization", "Bearer own")]));
    }

    /// R-CSR-24, A-16: acknowledged at once, answered when it is decided, be it by a person.
    async fn a_decision_may_take_its_time(wire: Wire) {
        let authority = Authority::new("fleet");
        let persona = Persona::new(1).with_settings();
        let request = request_of(persona.uid);
        let issuer = Issuer::waiting(&authority, &request);
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, persona).await;
        assert!(says_nothing(&ask(&mut agent, &request.csr_pem).await));
        for _ in 0..3 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        // Asking again while the decision is out is one request.
        let answer = ask(&mut agent, &request.csr_pem).await;
        assert!(answer.connection_settings.is_none(), "{answer:?}");
        assert_eq!(issuer.asked().len(), 1);
        issuer.decide();
        let message = agent.until(|message| message.connection_settings.is_some()).await.unwrap();
        assert!(granted(&message).certificate.is_some());
    }

    /// R-CSR-14, R-CSR-23: what is no request of whoever has the key is refused before anybody is asked.
    async fn a_request_that_is_none_is_a_bad_request(wire: Wire) {
        let issuer = Issuer::refusing("not asked");
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let good = request_of(agent.persona.uid).csr_pem;
        let certificate = Authority::new("x").pem();
        let cut = &good[..good.len() / 2];
        for csr in ["", "garbage", cut, &certificate, &good.replace("BEGIN CERTIFICATE REQUEST", "BEGIN NOTHING"), &forged(&good)] {
            let answer = ask(&mut agent, csr).await;
            let answer = outcome(&mut agent, answer).await;
            let complaint = bad_request(&answer);
            assert!(!complaint.contains("not asked"), "{complaint}");
        }
        assert!(issuer.asked().is_empty());
        assert!(says_nothing(&agent.heartbeat().await.unwrap()), "and the session goes on");
    }

    /// R-CSR-14: refused by whoever decides, with the reason.
    async fn a_request_that_is_turned_down_is_a_bad_request_with_the_reason(wire: Wire) {
        let issuer = Issuer::refusing("not on the list");
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let csr = request_of(agent.persona.uid).csr_pem;
        for round in 1..=2 {
            let answer = ask(&mut agent, &csr).await;
            let answer = outcome(&mut agent, answer).await;
            assert!(bad_request(&answer).contains("not on the list"));
            assert_eq!(issuer.asked().len(), round, "it may ask again");
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
    }

    /// R-CSR-17: in the common name or among the alternative names.
    async fn a_request_in_the_name_of_another_is_a_bad_request(wire: Wire) {
        let issuer = Issuer::refusing("not asked");
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let foreign = Persona::new(2).uid.to_string();
        let own = agent.persona.uid.to_string();
        for request in [Request::new(&foreign, &[]), Request::new("agent", &[&foreign]), Request::new(&own, &[&foreign])] {
            let answer = ask(&mut agent, &request.csr_pem).await;
            let answer = outcome(&mut agent, answer).await;
            assert!(!bad_request(&answer).contains("not asked"));
        }
        assert!(issuer.asked().is_empty());
        for (round, request) in (1..).zip([Request::new(&own, &[]), Request::new("agent", &[&own]), Request::new("agent", &["host.example"])]) {
            let answer = ask(&mut agent, &request.csr_pem).await;
            outcome(&mut agent, answer).await;
            assert_eq!(issuer.asked().len(), round, "its own, or none");
        }
    }

    /// R-CSR-21, R-CSR-22: nothing asked for, nothing issued.
    async fn an_empty_request_asks_for_nothing(wire: Wire) {
        let issuer = Issuer::refusing("not asked");
        let server = server(&issuer).await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        for opamp in [None, Some(pb::OpAmpConnectionSettingsRequest::default())] {
            let empty = pb::ConnectionSettingsRequest { opamp };
            let answer = agent.report(|message| message.connection_settings_request = Some(empty)).await.unwrap();
            assert!(says_nothing(&answer), "{answer:?}");
        }
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        assert!(issuer.asked().is_empty());
    }

    /// R-CAP-31 seen from the server: without an issuer nothing is announced, and nothing becomes of a request.
    async fn a_server_that_issues_nothing_announces_nothing(wire: Wire) {
        let accepts = ServerCapabilities::ACCEPTS_CONNECTION_SETTINGS_REQUEST;
        let issuer = Issuer::refusing("unused");
        for (server, announces) in [(TestServer::start().await, false), (server(&issuer).await, true)] {
            let (mut agent, answer) = server.connector(wire).start(Persona::new(1).with_settings()).await.unwrap();
            assert_eq!(ServerCapabilities::from_bits(answer.capabilities).contains(accepts), announces);
            if !announces {
                let csr = request_of(agent.persona.uid).csr_pem;
                assert!(says_nothing(&ask(&mut agent, &csr).await));
                assert!(says_nothing(&agent.heartbeat().await.unwrap()));
            }
        }
    }
}

/// A server that wants client certificates of `authority`, and the way to it with one.
async fn mutual(authority: &Authority, issuer: &Arc<Issuer>) -> TestServer {
    let tls = authority.mutual_server_config(&authority.server(&["opamp.test"]), true);
    let issuer = Arc::clone(issuer);
    TestServer::with(|setup| {
        setup.tls = Some(tls);
        setup.auth = Arc::new(MutualTls);
        setup.issuer = Some(issuer);
    })
    .await
}

fn with_certificate(server: &TestServer, authority: &Authority, name: &str, wire: Wire) -> Connector {
    let config = authority.client_config_with(&authority.client(name, &[]));
    Connector::new(Endpoint::tls(server.endpoint().addr, config, "opamp.test"), wire)
}

on_both_transports! {
    /// R-CSR-06: the bootstrap certificate is judged first; who decides is told whose it is.
    async fn a_bootstrap_certificate_is_validated_before_anything_is_asked(wire: Wire) {
        let (authority, other) = (Authority::new("fleet"), Authority::new("other"));
        let persona = Persona::new(1).with_settings();
        let request = request_of(persona.uid);
        let issuer = Issuer::granting(&authority, &request);
        let server = mutual(&authority, &issuer).await;
        let untrusted = authority.client_config_with(&other.client("bootstrap", &[]));
        let intruder = Connector::new(Endpoint::tls(server.endpoint().addr, untrusted, "opamp.test"), wire);
        assert!(intruder.start(persona.clone()).await.is_err());
        assert!(issuer.asked().is_empty());

        let (mut agent, _) = with_certificate(&server, &authority, "bootstrap", wire).start(persona).await.unwrap();
        let answer = ask(&mut agent, &request.csr_pem).await;
        granted(&outcome(&mut agent, answer).await);
        assert_eq!(issuer.asked()[0].principal.to_string(), "certificate:bootstrap");
    }

    /// R-CSR-19: a request in the new name over the connection with the old certificate.
    async fn after_a_change_of_identity_a_request_names_the_new_one(wire: Wire) {
        const REQUEST_INSTANCE_UID: u64 = 1;
        let authority = Authority::new("fleet");
        let persona = Persona::new(1).with_settings();
        let old = persona.uid;
        let issuer = Issuer::granting(&authority, &request_of(old));
        let server = mutual(&authority, &issuer).await;
        let connector = with_certificate(&server, &authority, &old.to_string(), wire);
        let (mut agent, _) = connector.start(persona).await.unwrap();
        let answer = agent.report(|message| message.flags = REQUEST_INSTANCE_UID).await.unwrap();
        agent.obey(answer).await.unwrap();
        assert_ne!(agent.persona.uid, old);
        agent.heartbeat().await.unwrap();

        let request = request_of(agent.persona.uid);
        issuer.grant(&authority, &request);
        let answer = ask(&mut agent, &request.csr_pem).await;
        granted(&outcome(&mut agent, answer).await);
        assert_eq!(issuer.asked()[0].uid, agent.persona.uid);
    }

    /// R-CSR-16, R-CSR-20: over the connection of a third agent nobody's identity can be had.
    async fn a_request_over_the_connection_of_another_agent_is_refused(wire: Wire) {
        let authority = Authority::new("fleet");
        let issuer = Issuer::refusing("not asked");
        let server = mutual(&authority, &issuer).await;
        let victim = Persona::new(1).with_settings();
        let owner = with_certificate(&server, &authority, "agent-1", wire);
        let (_owner, _) = owner.start(victim.clone()).await.unwrap();
        let third = with_certificate(&server, &authority, "agent-3", wire);
        let mut third = third.connect(victim).await.unwrap();
        let csr = request_of(third.persona.uid).csr_pem;
        let answer = ask(&mut third, &csr).await;
        assert!(!bad_request(&answer).contains("not asked"));
        assert!(issuer.asked().is_empty());
        server.refusal(RefusalReason::UidConflict).await;
    }
}
