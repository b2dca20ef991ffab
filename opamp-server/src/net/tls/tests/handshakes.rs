//! Who gets in, and what is agreed upon.

use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::net::tls::failure::TlsFailure;
use crate::net::tls::source::TlsSource;
use crate::refusal::RefusalReason;

/// A handshake over a roomy pipe.
async fn attempt(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (io::Result<Client<DuplexStream>>, Accepted<Choppy<DuplexStream>>) {
    handshake(server, client, &Budget::new(PLENTY), 1 << 20, &[usize::MAX]).await
}

/// What the server made of a handshake that failed, and what the client read of it.
async fn failed(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> (TlsFailure, String) {
    let (client, server) = attempt(server, client).await;
    let told = match client {
        // The client of TLS 1.3 is done before the server has seen its certificate.
        Ok(mut client) => client.read_u8().await.unwrap_err(),
        Err(error) => error,
    };
    (TlsFailure::classify(&server.unwrap_err().error), told.to_string())
}

#[test]
fn the_clients_certificate_is_known_after_the_handshake() {
    run(async {
        let setup = Setup::new();
        let identity = setup.authority.client("edge", &["edge.example"]);
        for version in VERSIONS {
            let (client, server) = attempt(setup.mutual(), setup.client(version, Some(&identity))).await;
            assert_eq!(server.unwrap().peer_certificates().unwrap(), std::slice::from_ref(&identity.cert));
            client.unwrap();
            let (client, server) = attempt(setup.server(), setup.client(version, Some(&identity))).await;
            assert!(server.unwrap().peer_certificates().is_none(), "nobody asked for it");
            client.unwrap();
        }
    });
}

#[test]
fn a_certificate_that_is_missing_or_no_good_is_told_apart_on_both_sides() {
    run(async {
        let setup = Setup::new();
        let stranger = Authority::new("another ca").client("edge", &[]);
        let expired = setup.authority.expired_client("edge");
        let cases = [
            (None, TlsFailure::ClientCertificateMissing, "CertificateRequired"),
            (Some(&stranger), TlsFailure::ClientCertificateRejected, "UnknownCA"),
            (Some(&expired), TlsFailure::ClientCertificateExpired, "CertificateExpired"),
        ];
        for version in VERSIONS {
            for (identity, failure, alert) in cases {
                let (known, told) = failed(setup.mutual(), setup.client(version, identity)).await;
                assert_eq!((known, known.reason()), (failure, RefusalReason::AuthFailed), "{version:?}");
                assert!(told.contains(alert), "{version:?} {failure:?}: {told}");
            }
        }
    });
}

#[test]
fn a_client_that_does_not_trust_the_server_says_so() {
    run(async {
        let setup = Setup::new();
        let other =
            Setup { authority: Authority::new("another ca"), identity: setup.authority.client("edge", &[]) };
        for version in VERSIONS {
            let (known, told) = failed(setup.server(), other.client(version, None)).await;
            assert_eq!(known, TlsFailure::ServerCertificateRejected, "{version:?}");
            assert_eq!(known.reason(), RefusalReason::Protocol);
            assert!(told.contains(&format!("{:?}", CertificateError::UnknownIssuer)), "{told}");
        }
    });
}

#[test]
fn the_certificate_is_that_of_the_name_the_client_asks_for() {
    run(async {
        let setup = Setup::new();
        let provider = Arc::new(ring::default_provider());
        let mut resolver = ResolvesServerCertUsingSni::new();
        for name in ["localhost", "other.example"] {
            let identity = setup.authority.server(&[name]);
            let key = provider.key_provider.load_private_key(identity.private_key()).unwrap();
            resolver.add(name, CertifiedKey::new(vec![identity.cert], key)).unwrap();
        }
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        let config = Arc::new(config);
        for version in VERSIONS {
            for (name, known) in [("localhost", true), ("other.example", true), ("third.example", false)] {
                let (near, far) = duplex(1 << 20);
                let connector = TlsConnector::from(setup.client(version, None));
                let connect = connector.connect(name.try_into().unwrap(), far);
                let budget = Budget::new(PLENTY);
                let accept = TlsStream::accept(near, Arc::clone(&config), &budget);
                let (client, server) = tokio::join!(connect, accept);
                assert_eq!((client.is_ok(), server.is_ok()), (known, known), "{name}");
            }
        }
    });
}

#[test]
fn the_listener_speaks_http_1_1_and_no_early_data() {
    run(async {
        let setup = Setup::new();
        let mut config = Authority::server_config(&setup.identity);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.max_early_data_size = 10_000;
        let config = TlsSource::new(config).current();
        assert_eq!(config.max_early_data_size, 0);
        for version in VERSIONS {
            let offer = |protocols: &[&[u8]]| {
                let mut client = (*setup.client(version, None)).clone();
                client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
                Arc::new(client)
            };
            let (client, server) = attempt(Arc::clone(&config), offer(&[b"h2", b"http/1.1"])).await;
            server.unwrap();
            assert_eq!(client.unwrap().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let (known, told) = failed(Arc::clone(&config), offer(&[b"h2"])).await;
            assert_eq!(known, TlsFailure::Other);
            assert!(told.contains("NoApplicationProtocol"), "{told}");
        }
    });
}

#[test]
fn a_client_that_comes_back_resumes() {
    run(async {
        let setup = Setup::new();
        let identity = setup.authority.client("edge", &[]);
        for version in VERSIONS {
            let (server, client) = (setup.mutual(), setup.client(version, Some(&identity)));
            for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (near, mut accepted) = attempt(Arc::clone(&server), Arc::clone(&client)).await;
                let (mut near, accepted) = (near.unwrap(), accepted.as_mut().unwrap());
                // Tickets of TLS 1.3 come after the handshake.
                accepted.write_all(b"x").await.unwrap();
                near.read_exact(&mut [0]).await.unwrap();
                assert_eq!(near.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
                assert_eq!(
                    accepted.peer_certificates().unwrap(),
                    std::slice::from_ref(&identity.cert),
                    "resumed or not"
                );
            }
        }
    });
}

#[test]
fn what_the_client_says_with_the_end_of_its_handshake_is_read_first() {
    run(async {
        let setup = Setup::new();
        for version in VERSIONS {
            let (near, far) = duplex(1 << 20);
            let client = async {
                let connector = TlsConnector::from(setup.client(version, None));
                let mut client = connector.connect("localhost".try_into().unwrap(), far).await.unwrap();
                client.write_all(&[7; 30_000]).await.unwrap();
                client.shutdown().await.unwrap();
                client.read_to_end(&mut Vec::new()).await.unwrap();
            };
            let budget = Budget::new(PLENTY);
            let server = async {
                let mut server = TlsStream::accept(near, setup.server(), &budget).await.unwrap();
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                server.shutdown().await.unwrap();
                got
            };
            let ((), got) = tokio::join!(client, server);
            assert!(got == [7; 30_000]);
            assert_eq!(budget.current(), 0);
        }
    });
}

#[test]
fn small_records_make_a_handshake_too() {
    run(async {
        let setup = Setup::new();
        let identity = setup.authority.client("edge", &[]);
        for version in VERSIONS {
            let mut client = (*setup.client(version, Some(&identity))).clone();
            client.max_fragment_size = Some(32);
            let client = Arc::new(client);
            for sizes in [&[usize::MAX][..], &[1], &[50, 0, 3]] {
                let budget = Budget::new(PLENTY);
                let (near, accepted) =
                    handshake(setup.mutual(), Arc::clone(&client), &budget, 1 << 16, sizes).await;
                let (mut near, mut accepted) = (near.unwrap(), accepted.unwrap());
                near.write_all(&[7; 500]).await.unwrap();
                let mut got = [0; 500];
                accepted.read_exact(&mut got).await.unwrap();
                assert_eq!((got, budget.current()), ([7; 500], 0));
            }
        }
    });
}

#[test]
fn a_transport_that_has_to_be_flushed_is_flushed() {
    run(async {
        let setup = Setup::new();
        let identity = setup.authority.client("edge", &[]);
        for version in VERSIONS {
            for (identity, alert) in [(Some(&identity), None), (None, Some("CertificateRequired"))] {
                let (near, far) = duplex(1 << 20);
                let client = async {
                    let connector = TlsConnector::from(setup.client(version, identity));
                    let mut client = connector.connect("localhost".try_into().unwrap(), far).await?;
                    client.write_all(b"question").await?;
                    let mut answer = [0; 6];
                    client.read_exact(&mut answer).await?;
                    io::Result::Ok(answer)
                };
                let budget = Budget::new(PLENTY);
                let server = async {
                    let accepted =
                        TlsStream::accept(tokio::io::BufStream::new(near), setup.mutual(), &budget).await;
                    let Ok(mut server) = accepted else { return };
                    server.read_exact(&mut [0; 8]).await.unwrap();
                    server.write_all(b"answer").await.unwrap();
                    server.flush().await.unwrap();
                };
                let (answered, ()) = tokio::join!(client, server);
                match (answered, alert) {
                    (Ok(answer), None) => assert_eq!(&answer, b"answer"),
                    (Err(error), Some(alert)) => assert!(error.to_string().contains(alert), "{error}"),
                    (answered, _) => panic!("{version:?}: {answered:?}"),
                }
            }
        }
    });
}
