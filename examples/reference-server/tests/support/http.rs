//! An HTTP client over real sockets: one connection per request, nothing hidden.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HeaderMap};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::document;

/// Longest wait for an answer: a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who calls the API, and where.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Client {
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Client { address, token: token.map(str::to_owned), headers: Vec::new() }
    }

    /// The same with another token.
    pub fn as_token(&self, token: &str) -> Self {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same without any.
    pub fn anonymous(&self) -> Self {
        Client { token: None, ..self.clone() }
    }

    /// The same with one more header.
    pub fn header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.into(), value.into()));
        client
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// Waits until a condition on an answer holds.
    pub async fn eventually(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..2_000 {
            last = self.get(path).await.expect(200);
            if holds(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} did not come to it: {last:#}");
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, Some(body.to_string())).await
    }

    /// A POST without a body.
    pub async fn order(&self, path: &str) -> Answer {
        self.send("POST", path, None).await
    }

    /// A file as the body of a POST.
    pub async fn upload(&self, path: &str, file: impl Into<Bytes>) -> Answer {
        self.header("content-type", "application/octet-stream")
            .exchange("POST", path, Some(file.into()))
            .await
    }

    pub async fn send(&self, method: &str, path: &str, body: Option<String>) -> Answer {
        self.exchange(method, path, body.map(Bytes::from)).await
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "test");
        if body.is_some() && !self.headers.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.unwrap_or_default())).unwrap();
        let answer = timeout(PATIENCE, exchange(self.address, request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {method} {path}"));
        document::check(method, path, answer.status.as_u16(), &answer.bytes);
        answer
    }
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Answer { status: head.status, headers: head.headers, bytes }
}

impl Answer {
    /// The body as JSON, after checking the status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        if self.bytes.is_empty() { Value::Null } else { serde_json::from_slice(&self.bytes).unwrap() }
    }

    /// The error's code and message, after checking the status.
    #[track_caller]
    pub fn error(&self, status: u16) -> (String, String) {
        let body = self.expect(status);
        let field = |name: &str| body["error"][name].as_str().unwrap().to_owned();
        (field("code"), field("message"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}
