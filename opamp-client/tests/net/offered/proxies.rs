//! Proxies that a server offers.

use std::sync::Arc;

use opamp_client::{TlsOptions, TlsSource};
use opamp_proto::pb;
use opamp_testkit::certs::Authority;
use opamp_testkit::proxy::HttpProxy;
use rustls::crypto::ring;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{UID, headers, opamp, settable, with_endpoint};
use crate::common::{Agent, Memory};
use crate::stub::{HttpStub, WsStub, ack, answer};

fn through(url: &str, proxy: &str) -> pb::OpAmpConnectionSettings {
    let proxy = pb::ProxyConnectionSettings {
        url: proxy.into(),
        connect_headers: headers(&[("X-Proxy-Token", "sesame"), ("X-Proxy-Token", "again")]),
    };
    pb::OpAmpConnectionSettings { proxy: Some(proxy), ..with_endpoint(url) }
}

fn offering(hash: &[u8], settings: pb::OpAmpConnectionSettings) -> pb::ServerToAgent {
    let offers = pb::ConnectionSettingsOffers { hash: hash.to_vec().into(), ..opamp(settings) };
    pb::ServerToAgent { connection_settings: Some(offers), ..ack() }
}

/// R-TLS-09, R-TLS-10, R-TLS-13.
#[tokio::test]
async fn an_offered_proxy_is_used_until_another_is_and_its_headers_are_for_it_alone() {
    let (a, b) = (HttpProxy::builder().start().await.unwrap(), HttpProxy::builder().start().await.unwrap());
    let stub = WsStub::start().await;
    let agent = Agent::start(settable(&stub.url(), &Memory::of(UID)));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    // As host and port, without a scheme (R-TLS-12).
    peer.send(&offering(b"1", through(&stub.url(), &a.addr().to_string()))).await;
    peer.acknowledge().await;
    peer.close_code().await;
    let mut peer = stub.accept().await;
    assert_eq!(a.tunnels(), 1);
    let asked = &a.asked()[0];
    assert_eq!((asked.method.as_str(), asked.header("x-proxy-token")), ("CONNECT", Some("sesame")));
    assert!(peer.headers.iter().all(|(name, _)| !name.starts_with("x-proxy")), "{:?}", peer.headers);
    peer.acknowledge().await;
    agent.applied(1).await;
    // Left out, it stays.
    let other_path = stub.url().replace("/v1/opamp", "/other");
    peer.acknowledge().await;
    peer.send(&offering(b"2", with_endpoint(&other_path))).await;
    peer.acknowledge().await;
    peer.close_code().await;
    let mut peer = stub.accept().await;
    assert_eq!((a.tunnels(), peer.path.as_str()), (2, "/other"));
    peer.acknowledge().await;
    peer.acknowledge().await;
    peer.send(&offering(b"3", through(&other_path, &b.url()))).await;
    peer.acknowledge().await;
    peer.close_code().await;
    let mut peer = stub.accept().await;
    assert_eq!((a.tunnels(), b.tunnels()), (2, 1), "nothing passes the first any more");
    peer.acknowledge().await;
    agent.applied(3).await;
    agent.stop_with(&mut peer).await;
}

#[tokio::test]
async fn a_proxy_that_is_not_there_leads_back() {
    let nobody = crate::common::Unheard::new();
    let url = nobody.url("http");
    let proxy = url.trim_end_matches("/v1/opamp").to_owned();
    let stub = HttpStub::start(move |_, request| {
        let own = format!("http://{}{}", request.header("host").unwrap(), request.target);
        answer(&offering(b"h", through(&own, &proxy)))
    })
    .await;
    let agent = Agent::start(settable(&stub.url("http"), &Memory::of(UID)));
    let (kind, text) = agent.comes_back().await;
    assert_eq!(kind, opamp_client::FailureKind::ProxyUnreachable, "{text}");
}

/// R-TLS-11: the proxy is shown what the server is shown.
#[tokio::test]
async fn a_proxy_with_tls_gets_the_offered_certificate_and_is_verified_like_the_server() {
    let authority = Authority::new("ca");
    let stub = HttpStub::acknowledging().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("https://{}", listener.local_addr().unwrap());
    let config = authority.mutual_server_config(&authority.server(&["127.0.0.1"]), true);
    let (shown, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = stub.address;
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let certificate = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
            let _ = shown.send(certificate);
            // A forwarder in all but name: what is asked for is passed on as it is.
            let mut behind = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                let _ = (stream.shutdown().await, behind.read(&mut [0]).await);
            });
        }
    });
    let identity = authority.client("agent", &[]);
    let certificate = Some(pb::TlsCertificate {
        cert: identity.cert_pem.clone().into_bytes().into(),
        private_key: identity.key_pem.clone().into_bytes().into(),
        ..Default::default()
    });
    let old = HttpStub::acknowledging().await;
    let url = old.url("http");
    let settings = pb::OpAmpConnectionSettings { certificate, ..through(&stub.url("http"), &proxy) };
    let offer = offering(b"h", settings);
    let old = HttpStub::start(move |_, _| answer(&offer)).await;
    let _ = url;
    let options = TlsOptions::new(Arc::new(ring::default_provider())).ca_pem(authority.pem());
    let source = TlsSource::from_options(options).unwrap();
    let agent = Agent::start(settable(&old.url("http"), &Memory::of(UID)).tls(source));
    agent.applied(1).await;
    assert_eq!(seen.recv().await.unwrap().as_deref(), Some(&*identity.cert));
    agent.stop().await;
}
