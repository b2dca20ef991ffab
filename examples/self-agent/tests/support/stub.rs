//! Peers that are no good, and a relay that counts connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server that answers each request with bytes of the test's choice.
pub struct Stub {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// `reply` is given the head of a request.
    pub async fn start(reply: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, reply) = (Arc::clone(&requests), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, reply) = (Arc::clone(&kept), Arc::clone(&reply));
                tokio::spawn(async move { answer(stream, &kept, &*reply).await });
            }
        });
        Self { address, requests }
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.address)
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn answer(
    mut stream: TcpStream,
    kept: &Mutex<Vec<String>>,
    reply: &(dyn Fn(&str) -> Vec<u8> + Send + Sync),
) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read_buf(&mut bytes).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        while bytes.len() < end + length {
            match stream.read_buf(&mut bytes).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
        kept.lock().unwrap().push(String::from_utf8_lossy(&bytes[..end]).into_owned());
        let answer = reply(&head);
        if stream.write_all(&answer).await.is_err() || answer.is_empty() {
            return;
        }
        bytes.drain(..end + length);
    }
}

/// A redirect.
pub fn redirect(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
        .into_bytes()
}

/// Bytes that are no HTTP at all.
pub fn bare(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Success with a body of this media type.
pub fn ok(media_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Passes connections on, and counts them, one for each attempt to connect, and what the agent says.
pub struct Relay {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Relay {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, bytes): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let relay = Self { address, connections: Arc::clone(&connections), bytes: Arc::clone(&bytes) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let bytes = Arc::clone(&bytes);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        pass(stream, server, &bytes).await;
                    }
                });
            }
        });
        relay
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What agents have said, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}

async fn pass(agent: TcpStream, server: TcpStream, bytes: &AtomicUsize) {
    let ((mut from_agent, mut to_agent), (mut from_server, mut to_server)) =
        (agent.into_split(), server.into_split());
    let answers = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_agent).await;
    });
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from_agent.read(&mut chunk).await {
        bytes.fetch_add(count, Ordering::SeqCst);
        if to_server.write_all(&chunk[..count]).await.is_err() {
            break;
        }
    }
    let _ = to_server.shutdown().await;
    let _ = answers.await;
}
