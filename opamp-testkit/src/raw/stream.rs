//! A byte stream to the server, plain or TLS, with bounded waits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::RawError;
use super::error::stream_ended;
use crate::transcript::Transcript;

/// Where a scripted peer connects, and how long it waits for anything.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Address of the listener.
    pub addr: SocketAddr,
    /// Value of the `Host` header.
    pub host: String,
    /// Request path; `/v1/opamp` unless changed.
    pub path: String,
    /// TLS, if the listener wants it.
    pub tls: Option<Tls>,
    /// Bound on every single wait for the server, in real time; 10 s unless changed. Reaching it is
    /// [`RawError::Timeout`], which fails the test with the transcript.
    pub wait: Duration,
}

impl Endpoint {
    /// Plain TCP to `addr`, path `/v1/opamp`.
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            host: addr.to_string(),
            path: "/v1/opamp".to_owned(),
            tls: None,
            wait: Duration::from_secs(10),
        }
    }

    /// TLS to `addr`, where the certificate has to name `name`.
    ///
    /// # Panics
    ///
    /// If `name` is neither a DNS name nor an IP address.
    #[expect(clippy::expect_used, reason = "a script with an impossible name is a bug of the script")]
    pub fn tls(addr: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a DNS name or IP address");
        Self { tls: Some(Tls { config, name }), ..Self::plain(addr) }
    }

    /// The same with another path.
    pub fn with_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The same with another bound on every wait.
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// TLS parameters of an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct Tls {
    /// Trust, client certificate, versions.
    pub config: Arc<ClientConfig>,
    /// The name asked for and checked.
    pub name: ServerName<'static>,
}

/// How bytes are cut into separate writes.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    /// Bytes per write; 0 counts as 1.
    pub bytes: usize,
    /// Pause between writes, by tokio's clock. Zero lets other tasks run in between and nothing more.
    pub pause: Duration,
}

/// How the server ended the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order: end of stream.
    Eof,
    /// Reset or cut off.
    Reset,
}

/// A connection to the server that takes any bytes.
#[derive(Debug)]
pub struct RawStream {
    io: Io,
    buffer: BytesMut,
    wait: Duration,
    transcript: Transcript,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl RawStream {
    /// Connects, and shakes hands if the endpoint wants TLS.
    ///
    /// # Errors
    ///
    /// [`RawError::Connect`], [`RawError::Tls`] or [`RawError::Timeout`].
    pub async fn connect(endpoint: &Endpoint, transcript: &Transcript) -> Result<Self, RawError> {
        let wait = endpoint.wait;
        let late =
            |waiting_for| RawError::Timeout { waiting_for, after: wait, transcript: transcript.to_string() };
        let tcp = timeout(wait, TcpStream::connect(endpoint.addr))
            .await
            .map_err(|_| late("a TCP connection"))?
            .map_err(|source| RawError::Connect { addr: endpoint.addr, source })?;
        // What a script writes in one call leaves in one segment, and in its own.
        tcp.set_nodelay(true).map_err(|source| RawError::Connect { addr: endpoint.addr, source })?;
        let io = match &endpoint.tls {
            None => Io::Plain(tcp),
            Some(tls) => {
                let handshake = TlsConnector::from(Arc::clone(&tls.config)).connect(tls.name.clone(), tcp);
                let stream = timeout(wait, handshake)
                    .await
                    .map_err(|_| late("the TLS handshake"))?
                    .map_err(|source| RawError::Tls { source })?;
                Io::Tls(Box::new(stream))
            }
        };
        Ok(Self { io, buffer: BytesMut::new(), wait, transcript: transcript.clone() })
    }

    /// The record of this conversation.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Our own address, by which the server knows this connection.
    ///
    /// # Errors
    ///
    /// What the system says about a socket that is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// Changes the bound on every following wait.
    pub fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// Writes all bytes in one go.
    ///
    /// # Errors
    ///
    /// The server is gone, or takes nothing for longer than the bound.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        let waiting_for = "room to write";
        let write = async {
            match &mut self.io {
                Io::Plain(tcp) => tcp.write_all(bytes).await,
                Io::Tls(tls) => {
                    tls.write_all(bytes).await?;
                    tls.flush().await
                }
            }
        };
        match timeout(self.wait, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.io_fault(waiting_for, source)),
            Err(_) => Err(self.late(waiting_for)),
        }
    }

    /// Writes all bytes in many small pieces.
    ///
    /// # Errors
    ///
    /// As for [`RawStream::send`].
    pub async fn send_in(&mut self, bytes: &[u8], pieces: Pieces) -> Result<(), RawError> {
        for piece in bytes.chunks(pieces.bytes.max(1)) {
            self.send(piece).await?;
            if pieces.pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(pieces.pause).await;
            }
        }
        Ok(())
    }

    /// Ends our direction and keeps reading (with TLS: sends `close_notify`, then FIN).
    ///
    /// # Errors
    ///
    /// The connection is gone already.
    pub async fn half_close(&mut self) -> Result<(), RawError> {
        self.transcript.agent("half-close");
        let outcome = match &mut self.io {
            Io::Plain(tcp) => tcp.shutdown().await,
            Io::Tls(tls) => tls.shutdown().await,
        };
        outcome.map_err(|source| self.io_fault("half-close", source))
    }

    /// Drops the connection with a reset instead of an orderly end.
    pub fn reset(self) {
        self.transcript.agent("reset");
        // A socket that is gone already needs no reset.
        let _ = self.tcp().set_zero_linger();
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Errors
    ///
    /// The stream ends first, or the bytes do not come in time.
    pub async fn read_exact(&mut self, count: usize, waiting_for: &'static str) -> Result<Bytes, RawError> {
        while self.buffer.len() < count {
            self.more(waiting_for).await?;
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// Reads up to and including `mark`.
    ///
    /// # Errors
    ///
    /// As for [`RawStream::read_exact`]; more than 1 MiB without the mark is [`RawError::Unexpected`].
    pub async fn read_until(&mut self, mark: &[u8], waiting_for: &'static str) -> Result<Bytes, RawError> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Ok(self.buffer.split_to(at + mark.len()).freeze());
            }
            if self.buffer.len() > 1 << 20 {
                return Err(self.unexpected(format!("1 MiB of bytes and no end of {waiting_for}")));
            }
            self.more(waiting_for).await?;
        }
    }

    /// Reads everything until the server ends the stream.
    ///
    /// # Errors
    ///
    /// The stream does not end in time.
    pub async fn read_to_end(&mut self) -> Result<(Bytes, Ending), RawError> {
        loop {
            match self.more("the end of the stream").await {
                Ok(()) => {}
                Err(RawError::Closed { .. }) => break Ok((self.buffer.split().freeze(), Ending::Eof)),
                Err(fault) if fault.is_closed() => break Ok((self.buffer.split().freeze(), Ending::Reset)),
                Err(fault) => break Err(fault),
            }
        }
    }

    /// What arrived and was not read yet, without waiting.
    pub fn unread(&self) -> &[u8] {
        self.buffer.chunk()
    }

    /// Waits for at least one more byte.
    async fn more(&mut self, waiting_for: &'static str) -> Result<(), RawError> {
        let Self { io, buffer, .. } = self;
        let read = async {
            match io {
                Io::Plain(tcp) => tcp.read_buf(buffer).await,
                Io::Tls(tls) => tls.read_buf(buffer).await,
            }
        };
        match timeout(self.wait, read).await {
            Ok(Ok(0)) => {
                self.transcript.server("end of stream");
                Err(RawError::Closed { waiting_for, transcript: self.transcript.to_string() })
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(self.io_fault(waiting_for, source)),
            Err(_) => Err(self.late(waiting_for)),
        }
    }

    pub(super) fn unexpected(&self, what: String) -> RawError {
        RawError::Unexpected { what, transcript: self.transcript.to_string() }
    }

    fn late(&self, waiting_for: &'static str) -> RawError {
        RawError::Timeout { waiting_for, after: self.wait, transcript: self.transcript.to_string() }
    }

    fn io_fault(&self, waiting_for: &'static str, source: io::Error) -> RawError {
        if stream_ended(&source) {
            self.transcript.server("connection reset");
        }
        RawError::Io { waiting_for, source, transcript: self.transcript.to_string() }
    }

    fn tcp(&self) -> &TcpStream {
        match &self.io {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.get_ref().0,
        }
    }
}
