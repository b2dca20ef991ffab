//! A TLS connection of the server.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, future};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scratch::{RECORD_BYTES, Scratch};
use super::session::Session;
use crate::net::admission::budget::Budget;

/// What one read takes at least, for a reader that has less room.
const READ_BYTES_MIN: usize = 4 * 1024;

/// What encryption may add to the plaintext that a reader has room for.
const OVERHEAD_BYTES: usize = 512;

/// A connection over which TLS is spoken, the server's end.
///
/// It has no buffers of its own: reads and writes go through buffers of the thread. What has to wait, because a record is
/// not complete, the reader had too little room or the peer takes nothing, is kept in exact size and drawn from the
/// byte budget. Without budget a read fails ([`io::ErrorKind::OutOfMemory`]), after which can still be written, unless the
/// first part of a handshake message is among what was given up: the keys may change with it, so nothing more goes out.
///
/// Like any buffered stream it has to be flushed: a write is done when its last record, at most 16 KiB, is encrypted, be
/// it sent or not. Reading is what the peer sent until it says that nothing more will come; the end of the transport
/// before that is [`io::ErrorKind::UnexpectedEof`].
///
/// After a read that failed the shutdown lasts until the peer has closed too, and what it still sends is lost: a socket
/// that is closed with bytes unread is reset, and what the peer was told goes with it. How long that may take is for the
/// caller to say.
pub(crate) struct TlsStream<IO> {
    io: IO,
    session: Session,
}

/// A handshake that failed.
#[derive(Debug)]
pub(crate) struct Rejected<IO> {
    /// Why. What TLS had to say of it to the peer is sent, if the network took it.
    pub(crate) error: io::Error,
    /// The transport, still open.
    pub(crate) io: IO,
}

impl<IO> TlsStream<IO> {
    /// The client's certificate and those that lead to its CA, if it showed one.
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    /// The memory of what is kept.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.session.held()
    }

    /// The transport below.
    #[cfg(test)]
    pub(super) fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Speaks the handshake. Bounds on time and number are the caller's.
    ///
    /// # Errors
    ///
    /// What went wrong, a [`rustls::Error`] within if TLS was the matter, and the transport.
    pub(crate) async fn accept(
        io: IO,
        config: Arc<ServerConfig>,
        budget: &Budget,
    ) -> Result<Self, Rejected<IO>> {
        let session = match Session::new(config, budget) {
            Ok(session) => session,
            Err(error) => return Err(Rejected { error, io }),
        };
        let mut stream = Self { io, session };
        match future::poll_fn(|cx| stream.poll_handshake(cx)).await {
            Ok(()) => Ok(stream),
            Err(error) => Err(Rejected { error, io: stream.io }),
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flushed(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            // Whatever the client says with the end of its handshake waits.
            if !ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))? {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
            if let Some(error) = self.session.read_error() {
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Reads once from the transport; false at its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let mut scratch = Scratch::incoming();
        let room = out.remaining().saturating_add(OVERHEAD_BYTES).clamp(READ_BYTES_MIN, scratch.len());
        let mut arrived = ReadBuf::new(&mut scratch[..room]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut arrived))?;
        let arrived = arrived.filled_mut();
        if arrived.is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.session.receive(arrived, out);
        if self.session.read_error().is_some() {
            // The peer learns why, if it can be told at once; what counts is the error.
            let _ = self.poll_flushed(cx);
        }
        Poll::Ready(Ok(true))
    }

    /// Reads the transport to its end, and nothing of it is looked at.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = Scratch::incoming();
        loop {
            let mut discarded = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut discarded));
            if read.is_err() || discarded.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// Sends what the network did not take before.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.to_send().is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, self.session.to_send()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.session.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what the network did not take before, all the way.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Encrypts something and sends what the network takes of it; the rest waits.
    fn seal(
        &mut self,
        cx: &mut Context<'_>,
        seal: impl FnOnce(&mut Session, &mut Scratch) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut scratch = Scratch::outgoing();
        let count = seal(&mut self.session, &mut scratch)?;
        let mut ciphertext = &scratch[..count];
        while self.session.to_send().is_empty() && !ciphertext.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, ciphertext)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(sent) => ciphertext = &ciphertext[sent..],
                Poll::Pending => break,
            }
        }
        if ciphertext.is_empty() { Ok(()) } else { self.session.keep_to_send(ciphertext) }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if buf.remaining() == 0 || this.session.take_plain(buf) {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(error) = this.session.read_error() {
                return Poll::Ready(Err(error));
            }
            if this.session.peer_closed() {
                return Poll::Ready(Ok(()));
            }
            if !ready!(this.poll_receive(cx, buf))? {
                let detail = "the peer closed the connection without saying so (TLS close_notify)";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail)));
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut written = 0;
        for record in data.chunks(RECORD_BYTES) {
            match this.poll_send(cx)? {
                Poll::Pending if written == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(()) => {}
            }
            this.seal(cx, |session, ciphertext| session.encrypt(record, ciphertext))?;
            written += record.len();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = data.iter().filter(|piece| !piece.is_empty());
        let (Some(first), second) = (pieces.next(), pieces.next()) else { return Poll::Ready(Ok(0)) };
        if second.is_none() || first.len() >= RECORD_BYTES {
            return self.poll_write(cx, first);
        }
        let mut gathered = Scratch::gathered();
        let mut count = 0;
        for piece in data {
            let fits = piece.len().min(gathered.len() - count);
            gathered[count..count + fits].copy_from_slice(&piece[..fits]);
            count += fits;
        }
        self.poll_write(cx, &gathered[..count])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.seal(cx, Session::close)?;
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            Ok(()) if this.session.read_error().is_some() => this.poll_drained(cx).map(Ok),
            shut => Poll::Ready(shut),
        }
    }
}

impl<IO> fmt::Debug for TlsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}
