//! The server's TLS stream against tokio-rustls' client, over transports that are not kind.

mod endings;
mod handshakes;
mod hostile;
mod keeping;
mod sealed;
mod transfer;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use opamp_testkit::certs::{Authority, Identity};
use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Client;

use super::TlsStream;
use super::stream::Rejected;
use crate::net::admission::budget::Budget;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// More than any test draws.
const PLENTY: usize = 1 << 30;

/// A transport that takes and gives as many bytes at a time as the list says, over and over; 0 lets the task wait.
#[derive(Debug)]
struct Choppy<IO> {
    io: IO,
    sizes: Vec<usize>,
    reads: usize,
    writes: usize,
}

impl<IO> Choppy<IO> {
    fn new(io: IO, sizes: &[usize]) -> Self {
        assert!(sizes.iter().any(|size| *size > 0), "nothing would ever move");
        Self { io, sizes: sizes.to_vec(), reads: 0, writes: 0 }
    }
}

/// The size whose turn it is, if not 0.
fn next(sizes: &[usize], turn: &mut usize, cx: &mut Context<'_>) -> Option<usize> {
    let size = sizes[*turn % sizes.len()];
    *turn += 1;
    if size == 0 {
        cx.waker().wake_by_ref();
    }
    (size > 0).then_some(size)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Choppy<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(size) = next(&this.sizes, &mut this.reads, cx) else { return Poll::Pending };
        let mut part = vec![0; size.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut part);
        let read = Pin::new(&mut this.io).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Choppy<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(size) = next(&this.sizes, &mut this.writes, cx) else { return Poll::Pending };
        Pin::new(&mut this.io).poll_write(cx, &data[..size.min(data.len())])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Both ends' configurations, and who vouches for them.
struct Setup {
    authority: Authority,
    identity: Identity,
}

impl Setup {
    fn new() -> Self {
        let authority = Authority::new("ca");
        let identity = authority.server(&["localhost"]);
        Self { authority, identity }
    }

    fn server(&self) -> Arc<ServerConfig> {
        Arc::new(Authority::server_config(&self.identity))
    }

    fn mutual(&self) -> Arc<ServerConfig> {
        Arc::new(self.authority.mutual_server_config(&self.identity, true))
    }

    /// A client that speaks one version only, and shows `identity` if it has one.
    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<&Identity>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.authority.roots());
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = vec![identity.cert.clone()];
                builder.with_client_auth_cert(chain, identity.private_key()).unwrap()
            }
        })
    }
}

/// Runs a test; two ends that wait for each other are a failure at once, for nothing else takes time.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let test = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.unwrap().block_on(test).expect("everybody waits")
}

type Accepted<IO> = Result<TlsStream<IO>, Rejected<IO>>;

/// A handshake over a pipe of `bytes`, the server's end of which moves what `sizes` say.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    budget: &Budget,
    bytes: usize,
    sizes: &[usize],
) -> (io::Result<Client<DuplexStream>>, Accepted<Choppy<DuplexStream>>) {
    let (near, far) = duplex(bytes);
    let connect = TlsConnector::from(client).connect("localhost".try_into().unwrap(), far);
    let accept = async {
        let mut accepted = TlsStream::accept(Choppy::new(near, sizes), server, budget).await;
        if let Err(rejected) = &mut accepted {
            // As the listener does, so that the client does not wait for more.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut rejected.io).await;
        }
        accepted
    };
    tokio::join!(connect, accept)
}

/// Two ends that have shaken hands, without client certificates.
async fn connected(
    version: &'static SupportedProtocolVersion,
    budget: &Budget,
    bytes: usize,
    sizes: &[usize],
) -> (Client<DuplexStream>, TlsStream<Choppy<DuplexStream>>) {
    let setup = Setup::new();
    let (client, server) = handshake(setup.server(), setup.client(version, None), budget, bytes, sizes).await;
    (client.unwrap(), server.unwrap())
}

/// Two ends over a pipe with room that moves everything at once.
async fn smooth(
    version: &'static SupportedProtocolVersion,
) -> (Client<DuplexStream>, TlsStream<Choppy<DuplexStream>>) {
    connected(version, &Budget::new(PLENTY), 1 << 20, &[usize::MAX]).await
}
