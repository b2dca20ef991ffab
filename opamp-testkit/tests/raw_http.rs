//! The hand-written HTTP client and the certificates, against canned and independent servers.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::sync::Arc;

use opamp_testkit::agent::{Connector, Persona, Wire};
use opamp_testkit::certs::Authority;
use opamp_testkit::raw::{Ending, Endpoint, HttpRequest, RawError, RawHttp, RawStream};
use opamp_testkit::transcript::Transcript;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A server that reads one request per answer and sends the answers, then ends the connection.
async fn canned(answers: &'static [&'static str]) -> (Endpoint, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::plain(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            let mut request = vec![0; 4096];
            let read = tcp.read(&mut request).await.unwrap();
            requests.push(String::from_utf8_lossy(&request[..read]).into_owned());
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (endpoint, server)
}

#[tokio::test]
async fn bodies_end_by_length_by_chunks_and_by_the_end_of_the_stream() {
    let (endpoint, server) = canned(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x=y\r\nf\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\nghi",
    ])
    .await;
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let request = HttpRequest::post(&endpoint, "x");
    for body in ["abc", "def", "", "ghi"] {
        assert_eq!(http.exchange(&request).await.unwrap().body, body);
    }
    assert_eq!(http.expect_end().await.unwrap(), Ending::Eof);
    assert_eq!(server.await.unwrap().len(), 4);
}

#[tokio::test]
async fn an_http_agent_sends_what_the_specification_asks_of_it() {
    let (endpoint, server) = canned(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
    let mut agent =
        Connector::new(endpoint, Wire::Http).with_token("t0ken").connect(Persona::new(1)).await.unwrap();
    agent.heartbeat().await.unwrap();
    let request = &server.await.unwrap()[0];
    assert!(request.starts_with("POST /v1/opamp HTTP/1.1\r\n"), "{request}");
    for header in ["Content-Type: application/x-protobuf", "Authorization: Bearer t0ken"] {
        assert!(request.contains(&format!("\r\n{header}\r\n")), "{request}");
    }
    assert!(request.contains(&format!("\r\nOpAMP-Instance-UID: {}\r\n", Persona::new(1).uid)), "{request}");
    let transcript = agent.transcript().to_string();
    assert!(!transcript.contains("t0ken"), "{transcript}");
    assert!(transcript.ends_with("< server 200 OK 0 B\n"), "{transcript}");
}

#[tokio::test]
async fn a_status_other_than_200_is_no_answer_for_an_agent() {
    let (endpoint, _server) = canned(&["HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n"]).await;
    let mut agent = Connector::new(endpoint, Wire::Http).connect(Persona::new(1)).await.unwrap();
    let fault = agent.heartbeat().await.unwrap_err().to_string();
    assert!(fault.starts_with("413 Payload Too Large instead of 200"), "{fault}");
}

/// A TLS server that completes handshakes and echoes one byte.
async fn tls(config: ServerConfig) -> std::net::SocketAddr {
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut byte = [0];
                if tls.read_exact(&mut byte).await.is_ok() {
                    let _ = tls.write_all(&byte).await;
                }
            });
        }
    });
    addr
}

async fn echo(endpoint: &Endpoint) -> Result<(), RawError> {
    let mut stream = RawStream::connect(endpoint, &Transcript::new()).await?;
    stream.send(b"x").await?;
    stream.read_exact(1, "the echo").await.map(|_| ())
}

#[tokio::test]
async fn certificates_are_good_where_they_should_be() {
    let ca = Authority::new("test CA");
    let server = ca.server(&["opamp.test", "127.0.0.1"]);
    let addr = tls(Authority::server_config(&server)).await;
    for name in ["opamp.test", "127.0.0.1"] {
        echo(&Endpoint::tls(addr, ca.client_config(), name)).await.unwrap();
    }

    let client = ca.client("agent-7", &["agent-7.test"]);
    let addr = tls(ca.mutual_server_config(&server, true)).await;
    echo(&Endpoint::tls(addr, ca.client_config_with(&client), "opamp.test")).await.unwrap();
    let addr = tls(ca.mutual_server_config(&server, false)).await;
    echo(&Endpoint::tls(addr, ca.client_config(), "opamp.test")).await.unwrap();
}

#[tokio::test]
async fn certificates_are_bad_where_they_should_be() {
    let (ca, other) = (Authority::new("test CA"), Authority::new("other CA"));
    let addr = tls(Authority::server_config(&ca.server(&["opamp.test"]))).await;
    let refused = async |endpoint: Endpoint, complaint: &str| {
        let fault = echo(&endpoint).await.unwrap_err().to_string();
        assert!(fault.contains(complaint), "{fault}");
    };
    refused(Endpoint::tls(addr, ca.client_config(), "wrong.test"), "not valid for name").await;
    refused(Endpoint::tls(addr, other.client_config(), "opamp.test"), "UnknownIssuer").await;
    let expired = tls(Authority::server_config(&ca.expired_server(&["opamp.test"]))).await;
    refused(Endpoint::tls(expired, ca.client_config(), "opamp.test"), "expired").await;

    // TLS 1.3 clients learn of the refusal with their first read.
    let addr = tls(ca.mutual_server_config(&ca.server(&["opamp.test"]), true)).await;
    refused(Endpoint::tls(addr, ca.client_config(), "opamp.test"), "CertificateRequired").await;
    let foreign = other.client("intruder", &[]);
    refused(Endpoint::tls(addr, ca.client_config_with(&foreign), "opamp.test"), "received fatal alert").await;
    let expired = ca.expired_client("late");
    refused(Endpoint::tls(addr, ca.client_config_with(&expired), "opamp.test"), "received fatal alert").await;
}
