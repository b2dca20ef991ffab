//! Runs the example as a user would, with an agent on each transport.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, process::Stdio, time::Duration};

use futures::{SinkExt as _, StreamExt as _};
use opamp_proto::{AgentCapabilities, InstanceUid, frame, pb};
use prost::Message as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

/// Longest wait for anything: the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

struct Example {
    address: SocketAddr,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Example {
    async fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_embed-axum"))
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, output.next_line()).await.unwrap().unwrap().unwrap();
        let address = first.strip_prefix("listening on ").unwrap().parse().unwrap();
        Example { address, output, _process: process }
    }

    /// Reads the output up to a line with all of these.
    async fn prints(&mut self, parts: &[&str]) {
        let reading = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                if parts.iter().all(|part| line.contains(part)) {
                    return;
                }
            }
            panic!("the example ended without printing {parts:?}");
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("{parts:?} was not printed"));
    }

    /// Sends one HTTP request and reads the whole answer: head and body.
    async fn request(&self, head: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
    }
}

fn first_report(uid: InstanceUid, name: &str) -> Vec<u8> {
    let value = pb::AnyValue { value: Some(pb::any_value::Value::StringValue(name.into())) };
    let attribute = pb::KeyValue { key: "service.name".into(), value: Some(value) };
    let report = pb::AgentToServer {
        instance_uid: uid.as_bytes().to_vec().into(),
        capabilities: AgentCapabilities::REPORTS_STATUS.bits(),
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute],
            ..Default::default()
        }),
        ..Default::default()
    };
    report.encode_to_vec()
}

#[tokio::test]
async fn agents_of_both_transports_appear_beside_the_application() {
    let mut example = Example::start().await;
    let (head, body) = example.request("GET / HTTP/1.1\r\n", b"").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, b"an application of its own\n");

    let ws_uid = InstanceUid::v7(1, [1; 10]);
    let url = format!("ws://{}/v1/opamp", example.address);
    let (mut socket, _) = timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap();
    let mut framed = Vec::new();
    frame::encode(&first_report(ws_uid, "over-websocket"), &mut framed);
    socket.send(Message::Binary(framed.into())).await.unwrap();
    let answer = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap().into_data();
    let answer = pb::ServerToAgent::decode(frame::decode(&answer).unwrap()).unwrap();
    assert_eq!(answer.instance_uid.as_ref(), ws_uid.as_bytes());
    assert!(answer.error_response.is_none(), "{answer:?}");
    example.prints(&["agent ", &ws_uid.to_string(), "over-websocket", "connected"]).await;

    let http_uid = InstanceUid::v7(2, [2; 10]);
    let head = "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\n";
    let (head, body) = example.request(head, &first_report(http_uid, "over-http")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let answer = pb::ServerToAgent::decode(body.as_slice()).unwrap();
    assert_eq!(answer.instance_uid.as_ref(), http_uid.as_bytes());
    example.prints(&["agent ", &http_uid.to_string(), "over-http"]).await;

    let (_, body) = example.request("GET /agents HTTP/1.1\r\n", b"").await;
    let agents: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let mut names: Vec<_> = agents
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| (agent["service_name"].as_str().unwrap(), agent["transport"].as_str().unwrap()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [("over-http", "http"), ("over-websocket", "websocket")]);

    socket.close(None).await.unwrap();
    example.prints(&["agent ", &ws_uid.to_string(), "disconnected"]).await;
}

/// The page that promises this has nothing else to show how little it takes.
#[test]
fn the_example_fits_on_a_page() {
    let lines = include_str!("../src/main.rs").lines().count();
    assert!(lines <= 80, "{lines} lines");
}
