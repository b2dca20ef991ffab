//! Nothing that comes from a server lowers what the agent asks of the next one.

use std::sync::{Arc, Mutex};

use opamp_client::{FailureKind, TlsProblem};
use opamp_proto::pb;
use opamp_testkit::certs::Authority;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::common::{Agent, builder, until};
use crate::stub::{Request, ack};

/// An offer of settings for the same server: without a certificate, and with verification off in so many words.
fn careless(url: &str) -> pb::ServerToAgent {
    let tls = pb::TlsConnectionSettings {
        insecure_skip_verify: true,
        include_system_ca_certs_pool: true,
        min_version: "1.0".into(),
        ..Default::default()
    };
    let opamp = pb::OpAmpConnectionSettings {
        destination_endpoint: url.to_owned(),
        heartbeat_interval_seconds: 5,
        tls: Some(tls),
        ..Default::default()
    };
    let offers =
        pb::ConnectionSettingsOffers { opamp: Some(opamp), hash: vec![1].into(), ..Default::default() };
    pb::ServerToAgent { connection_settings: Some(offers), ..ack() }
}

#[tokio::test]
async fn nothing_a_server_offers_lowers_the_verification_of_the_next_one() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let config =
        |authority: &Authority| Arc::new(Authority::server_config(&authority.server(&["127.0.0.1"])));
    let current = Arc::new(Mutex::new(config(&authority)));
    let answered = Arc::new(Mutex::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1/opamp", listener.local_addr().unwrap());
    let body = careless(&url).encode_to_vec();
    let (shown, count) = (Arc::clone(&current), Arc::clone(&answered));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(Arc::clone(&shown.lock().unwrap()));
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            // One request for each connection.
            if Request::read(&mut stream).await.is_some() {
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
                let _ = stream.shutdown().await;
                *count.lock().unwrap() += 1;
            }
        }
    });
    let agent = Agent::start(builder(&url).tls(crate::tls::trusting(&authority)));
    agent.received(1).await;
    agent.advance(5);
    agent.received(2).await;
    let before = *answered.lock().unwrap();
    assert!(agent.events.failures().is_empty(), "{:?}", agent.events.all());

    *current.lock().unwrap() = config(&stranger);
    agent.advance(5);
    let (kind, text) = agent.failure().await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::UnknownIssuer), "{text}");
    assert_eq!(*answered.lock().unwrap(), before, "nothing was said to the stranger");
    *current.lock().unwrap() = config(&authority);
    agent.reconnect_until("back with the right one", || *answered.lock().unwrap() > before).await;
    until("connected", || agent.client.stats().is_connected).await;
}
