//! TLS over loopback: who gets in by certificate, who does not and how that shows, and certificates that change.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opamp_proto::{InstanceUid, pb};
use opamp_server::{
    AnyOf, Authenticate, Event, Events, Liveness, MutualTls, OpampServer, Refusal, RefusalReason,
    ServerHandle, ServerSettings, StaticToken, StaticTokens, TlsSource,
};
use opamp_testkit::agent::{Connector, Persona, ScriptedAgent, Wire};
use opamp_testkit::certs::{Authority, Identity};
use opamp_testkit::raw::{
    Ending, Endpoint, Handshake, HttpRequest, Opening, RawError, RawHttp, RawStream, RawWs,
};
use opamp_testkit::transcript::Transcript;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Long enough for a loaded machine, short enough for a person.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server behind TLS on a loopback port.
struct TlsServer {
    address: SocketAddr,
    handle: ServerHandle,
    tls: TlsSource,
    events: Mutex<Option<Events>>,
}

impl TlsServer {
    /// Takes client certificates of `authority` and nothing else.
    async fn mutual(authority: &Authority) -> Self {
        let server = authority.server(&["localhost"]);
        Self::start(authority.mutual_server_config(&server, true), Arc::new(MutualTls)).await
    }

    async fn start(config: ServerConfig, auth: Arc<dyn Authenticate>) -> Self {
        Self::with(config, auth, ServerSettings::default()).await
    }

    async fn with(config: ServerConfig, auth: Arc<dyn Authenticate>, settings: ServerSettings) -> Self {
        let (service, handle, driver) = OpampServer::builder(auth).settings(settings).build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = TlsSource::new(config);
        tokio::spawn(driver.run());
        tokio::spawn(opamp_server::serve(listener, Some(tls.clone()), service));
        let events = Mutex::new(handle.events());
        Self { address, handle, tls, events }
    }

    fn endpoint(&self, config: Arc<ClientConfig>) -> Endpoint {
        Endpoint::tls(self.address, config, "localhost").with_wait(PATIENCE)
    }

    fn connector(&self, config: Arc<ClientConfig>, wire: Wire) -> Connector {
        Connector::new(self.endpoint(config), wire)
    }

    /// Connects as agent `number`, reports full state and returns the answer too.
    async fn agent(
        &self,
        config: Arc<ClientConfig>,
        wire: Wire,
        number: u32,
    ) -> (ScriptedAgent, pb::ServerToAgent) {
        self.connector(config, wire).start(Persona::new(number)).await.unwrap()
    }

    /// Who the server takes an agent for, kind and name.
    fn principal(&self, uid: &InstanceUid) -> String {
        self.handle.agent(uid).unwrap().connection.unwrap().principal.to_string()
    }

    fn rejected(&self, reason: RefusalReason) -> u64 {
        self.handle.stats().frames_rejected[reason.index()]
    }

    /// Waits for the next refusal; changes of agents are passed over.
    async fn refusal(&self) -> Refusal {
        let mut events = self.events.lock().unwrap().take().expect("one waiter at a time");
        let next = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Event::Refused(refusal) = events.next().await.expect("the server runs") {
                    break refusal;
                }
            }
        });
        let refusal = next.await.expect("nothing was refused");
        *self.events.lock().unwrap() = Some(events);
        refusal
    }
}

/// A client that speaks one version of TLS only; with `identity` it shows that certificate.
fn client(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    identity: Option<&Identity>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(authority.roots());
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            builder.with_client_auth_cert(vec![identity.cert.clone()], identity.private_key()).unwrap()
        }
    })
}

/// What TLS says to a client that is turned away, and by which address the server knows it. The client sends nothing of its
/// own: in TLS 1.3 its handshake is over before the server has seen its certificate, and what it had sent would be
/// answered by a reset instead of the alert.
async fn turned_away(server: &TlsServer, config: Arc<ClientConfig>) -> (String, SocketAddr) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let own = stream.local_addr().unwrap();
    let attempt = async {
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(config).connect(name, stream).await?.read_u8().await
    };
    let outcome = tokio::time::timeout(PATIENCE, attempt).await.expect("nothing happened");
    (outcome.expect_err("an alert").to_string(), own)
}

#[tokio::test]
async fn a_certificate_opens_both_transports_and_names_the_agent() {
    let authority = Authority::new("ca");
    let server = TlsServer::mutual(&authority).await;
    let cases = [
        (authority.client("common", &["edge.example", "other.example"]), "certificate:edge.example"),
        (authority.client("common", &[]), "certificate:common"),
    ];
    for (number, (identity, name)) in (1..).zip(&cases) {
        for (wire, number) in [(Wire::WebSocket, number), (Wire::Http, number + 100)] {
            let (mut agent, answer) =
                server.agent(authority.client_config_with(identity), wire, number).await;
            assert!(answer.error_response.is_none() && answer.capabilities != 0);
            let uid = agent.persona.uid;
            assert_eq!(server.principal(&uid), *name);
            let known = server.handle.agent(&uid).unwrap().connection.unwrap();
            assert_eq!(known.remote_addr, agent.local_addr(), "{wire:?}");
            assert!(agent.heartbeat().await.unwrap().error_response.is_none());
        }
    }
    assert_eq!(server.handle.stats().frames_rejected.iter().sum::<u64>(), 0);
}

#[tokio::test]
async fn a_uri_in_the_certificate_comes_before_its_dns_name() {
    let authority = Authority::new("ca");
    let mut params = CertificateParams::new(["edge.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "common");
    params.subject_alt_names.push(SanType::URI("urn:opamp:agent:7".try_into().unwrap()));
    let mut own = CertificateParams::default();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();

    let mut roots = authority.roots();
    roots.add(issuer.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let identity = authority.server(&["localhost"]);
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![identity.cert.clone()], identity.private_key())
        .unwrap();
    let server = TlsServer::start(config, Arc::new(MutualTls)).await;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let (agent, _) = server.agent(Arc::new(client), Wire::WebSocket, 1).await;
    assert_eq!(server.principal(&agent.persona.uid), "certificate:urn:opamp:agent:7");
}

#[tokio::test]
async fn without_a_good_client_certificate_the_handshake_fails_and_both_sides_learn_why() {
    let authority = Authority::new("ca");
    let server = TlsServer::mutual(&authority).await;
    let stranger = Authority::new("another ca").client("edge", &[]);
    let expired = authority.expired_client("edge");
    let for_servers = authority.server(&["edge.example"]);
    let cases = [
        (None, "client certificate missing", "CertificateRequired"),
        (Some(&stranger), "client certificate not trusted", "UnknownCA"),
        (Some(&expired), "client certificate expired or not yet valid", "CertificateExpired"),
        // No certificate for clients, although a good one.
        (Some(&for_servers), "client certificate not trusted", "UnsupportedCertificate"),
    ];
    for (count, (version, (identity, detail, alert))) in
        (1..).zip([&TLS12, &TLS13].into_iter().flat_map(|version| cases.map(|case| (version, case))))
    {
        let (text, own) = turned_away(&server, client(&authority, version, identity)).await;
        assert!(text.contains(alert), "{version:?}, {detail}: {text}");
        let refusal = server.refusal().await;
        assert_eq!(
            (refusal.reason, refusal.detail.as_str()),
            (RefusalReason::AuthFailed, detail),
            "{version:?}"
        );
        assert_eq!(refusal.remote_addr, Some(own), "{version:?}, {detail}");
        assert_eq!(server.rejected(RefusalReason::AuthFailed), count);
    }
    let good = authority.client("edge", &[]);
    server.agent(authority.client_config_with(&good), Wire::WebSocket, 1).await;
    assert_eq!(server.handle.agents().len(), 1);
}

#[tokio::test]
async fn a_client_that_is_turned_away_while_it_talks_is_still_told_why() {
    let authority = Authority::new("ca");
    let server = TlsServer::mutual(&authority).await;
    // In TLS 1.3 its handshake is over before the server has seen that there is no certificate.
    let connector = TlsConnector::from(client(&authority, &TLS13, None));
    for _ in 0..10 {
        let attempt = async {
            let stream = TcpStream::connect(server.address).await.unwrap();
            let mut tls = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            for _ in 0..60 {
                tls.write_all(&[7; 500]).await.unwrap();
                tokio::task::yield_now().await;
            }
            tls.read_u8().await.unwrap_err().to_string()
        };
        let told = tokio::time::timeout(PATIENCE, attempt).await.expect("nothing happened");
        assert!(told.contains("CertificateRequired"), "{told}");
        assert_eq!(server.refusal().await.reason, RefusalReason::AuthFailed);
    }
}

#[tokio::test]
async fn an_agent_of_one_certificate_is_nobody_elses_even_while_it_is_away() {
    let authority = Authority::new("ca");
    let server = TlsServer::mutual(&authority).await;
    let config = |name: &str| authority.client_config_with(&authority.client(name, &[]));
    let (mut owner, _) = server.agent(config("owner"), Wire::WebSocket, 1).await;
    let uid = owner.persona.uid;

    let expect_conflict = async |while_owner_is: &str| {
        for wire in [Wire::WebSocket, Wire::Http] {
            let before = server.rejected(RefusalReason::UidConflict);
            let (mut thief, answer) = server.agent(config("thief"), wire, 1).await;
            let error = answer.error_response.as_ref().unwrap_or_else(|| {
                panic!("{wire:?}, owner {while_owner_is}: taken over\n{}", thief.transcript())
            });
            assert_eq!(error.r#type, pb::ServerErrorResponseType::BadRequest as i32);
            assert!(answer.remote_config.is_none() && answer.flags == 0);
            let refusal = server.refusal().await;
            assert_eq!(refusal.reason, RefusalReason::UidConflict);
            assert_eq!(refusal.principal.as_deref(), Some("certificate:thief"));
            assert_eq!(refusal.remote_addr, thief.local_addr());
            assert_eq!(server.rejected(RefusalReason::UidConflict), before + 1);
        }
    };
    expect_conflict("connected").await;
    assert_eq!(owner.heartbeat().await.unwrap().flags, 0, "the owner notices nothing");

    owner.disconnect().await.unwrap();
    assert_eq!(server.handle.agent(&uid).unwrap().liveness, Liveness::Disconnected);
    expect_conflict("away").await;
    assert_eq!(server.principal(&uid), "certificate:owner");
    assert_eq!(server.handle.agent(&uid).unwrap().liveness, Liveness::Disconnected);

    // A renewed certificate has another key and the same name.
    let persona = owner.persona.clone();
    let (_, answer) = server.connector(config("owner"), Wire::WebSocket).start(persona).await.unwrap();
    assert!(answer.error_response.is_none());
    assert_eq!(server.handle.agent(&uid).unwrap().liveness, Liveness::Connected);
}

#[tokio::test]
async fn a_certificate_in_a_header_is_no_identity() {
    let authority = Authority::new("ca");
    let config = authority.mutual_server_config(&authority.server(&["localhost"]), false);
    let tokens = StaticTokens::new(vec![StaticToken::new("ci", "good-token")]);
    let ways: Vec<Arc<dyn Authenticate>> = vec![Arc::new(MutualTls), Arc::new(tokens)];
    let server = TlsServer::start(config, Arc::new(AnyOf::new(ways))).await;
    let identity = authority.client("edge", &[]);

    let endpoint = server.endpoint(authority.client_config());
    let one_line: String = identity.cert_pem.lines().collect();
    for name in ["X-SSL-Client-Cert", "Client-Cert", "X-Client-Cert"] {
        let handshake = Handshake::new(&endpoint).map(|request| request.with(name, &one_line));
        match RawWs::attempt(&endpoint, &handshake, &Transcript::new()).await.unwrap() {
            Opening::Refused(response) => assert_eq!(response.status, 401, "{name}"),
            Opening::Open(_) => panic!("{name} was believed"),
        }
        assert_eq!(server.refusal().await.reason, RefusalReason::AuthFailed);
    }

    let by_token = server.connector(authority.client_config(), Wire::WebSocket).with_token("good-token");
    let (agent, _) = by_token.start(Persona::new(1)).await.unwrap();
    assert_eq!(server.principal(&agent.persona.uid), "token:ci");
    let (agent, _) = server.agent(authority.client_config_with(&identity), Wire::WebSocket, 2).await;
    assert_eq!(server.principal(&agent.persona.uid), "certificate:edge");
}

#[tokio::test]
async fn replaced_certificates_hold_for_new_handshakes_and_open_sockets_stay() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = TlsServer::mutual(&old).await;
    let old_config = old.client_config_with(&old.client("edge", &[]));
    let new_config = new.client_config_with(&new.client("edge", &[]));
    let (mut before, _) = server.agent(Arc::clone(&old_config), Wire::WebSocket, 1).await;
    let (mut poller, _) = server.agent(Arc::clone(&old_config), Wire::Http, 2).await;

    server.tls.replace(new.mutual_server_config(&new.server(&["localhost"]), true));

    let error = RawStream::connect(&server.endpoint(Arc::clone(&old_config)), &Transcript::new()).await;
    assert!(
        matches!(error, Err(RawError::Tls { .. })),
        "the old certificate is not shown any more: {error:?}"
    );
    let refusal = server.refusal().await;
    assert_eq!(refusal.reason, RefusalReason::Protocol, "a client's distrust is no failed authentication");
    assert!(refusal.detail.contains("client rejected the server certificate"), "{}", refusal.detail);

    let (mut after, _) = server.agent(new_config, Wire::WebSocket, 3).await;
    for agent in [&mut before, &mut poller, &mut after] {
        assert!(agent.heartbeat().await.unwrap().error_response.is_none());
    }
    assert_eq!(server.handle.stats().websocket_active, 2);
    let restarting = server.handle.request_full_state(&before.persona.uid);
    assert_eq!(restarting, opamp_server::Dispatch::Pushed);
    assert_eq!(before.next_message().await.unwrap().flags, 1, "the old socket can still be written");
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_refused_and_harms_nobody() {
    let authority = Authority::new("ca");
    let server = TlsServer::mutual(&authority).await;
    let config = authority.client_config_with(&authority.client("edge", &[]));
    let (mut agent, _) = server.agent(config, Wire::WebSocket, 1).await;

    let endpoint = Endpoint::plain(server.address).with_wait(PATIENCE);
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    http.send(&HttpRequest::new("GET", &endpoint)).await.unwrap();
    let own = http.stream_mut().local_addr().unwrap();
    let (bytes, ending) = http.stream_mut().read_to_end().await.unwrap();
    assert!(!bytes.starts_with(b"HTTP"), "nobody answers HTTP there");
    assert!(matches!(ending, Ending::Eof | Ending::Reset));
    let refusal = server.refusal().await;
    assert_eq!((refusal.reason, refusal.remote_addr), (RefusalReason::Protocol, Some(own)));
    assert_eq!(server.rejected(RefusalReason::AuthFailed), 0);
    assert!(agent.heartbeat().await.unwrap().error_response.is_none());
}

#[tokio::test]
async fn the_port_speaks_http_1_1_only() {
    let authority = Authority::new("ca");
    let identity = authority.server(&["localhost"]);
    let mut config = Authority::server_config(&identity);
    // What the caller's configuration says does not matter: an upgrade needs HTTP/1.1.
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = TlsServer::start(config, Arc::new(opamp_server::InsecureAcceptEveryone)).await;
    let offer = async |protocols: &[&[u8]]| {
        let mut config = (*authority.client_config()).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(server.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let tls = connector.connect("localhost".try_into().unwrap(), stream).await?;
        std::io::Result::Ok(tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(offer(&[b"h2", b"http/1.1"]).await.unwrap().as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(offer(&[]).await.unwrap(), None, "a client need not ask");
    let error = offer(&[b"h2"]).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_off() {
    let authority = Authority::new("ca");
    let settings =
        ServerSettings { handshake_timeout: Duration::from_millis(100), ..ServerSettings::default() };
    let config = Authority::server_config(&authority.server(&["localhost"]));
    let server = TlsServer::with(config, Arc::new(opamp_server::InsecureAcceptEveryone), settings).await;
    let endpoint = Endpoint::plain(server.address).with_wait(PATIENCE);
    let mut silent = RawStream::connect(&endpoint, &Transcript::new()).await.unwrap();
    let own = silent.local_addr().unwrap();
    assert!(silent.read_to_end().await.unwrap().0.is_empty());
    let refusal = server.refusal().await;
    assert_eq!((refusal.reason, refusal.remote_addr), (RefusalReason::Timeout, Some(own)));
    assert_eq!(server.rejected(RefusalReason::Timeout), 1);
}

#[tokio::test]
async fn who_sends_nothing_keeps_nobody_from_a_handshake() {
    let authority = Authority::new("ca");
    let settings =
        ServerSettings { handshakes_max: 1, handshake_timeout: PATIENCE, ..ServerSettings::default() };
    let config = Authority::server_config(&authority.server(&["localhost"]));
    let server = TlsServer::with(config, Arc::new(opamp_server::InsecureAcceptEveryone), settings).await;
    let endpoint = Endpoint::plain(server.address).with_wait(PATIENCE);
    let _silent = RawStream::connect(&endpoint, &Transcript::new()).await.unwrap();
    let (_agent, answer) = server.agent(authority.client_config(), Wire::WebSocket, 1).await;
    assert!(answer.error_response.is_none());
}
