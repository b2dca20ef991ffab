//! One connection of an agent: the socket, with or without TLS, and what waits on it.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// TCP has not answered yet.
    Connecting,
    /// Messages flow.
    Open,
    /// The upgrade is asked for.
    Upgrading,
}

/// A connection.
pub(crate) struct Link {
    io: Io,
    pub(crate) stage: Stage,
    /// When it was started.
    pub(crate) started_ns: u64,
    /// Received and not complete yet.
    pub(crate) inbox: Vec<u8>,
    /// The fragments of a message so far; none outside of one.
    pub(crate) fragments: Option<Vec<u8>>,
    /// What the socket did not take yet, and how far it has.
    outbox: Vec<u8>,
    taken: usize,
}

enum Io {
    Plain(TcpStream),
    Tls { socket: TcpStream, session: Box<ClientConnection> },
}

/// Bytes that may wait for a socket; an agent that has more to say is broken, or its server takes nothing.
const OUTBOX_MAX: usize = 1 << 20;

impl Link {
    pub(crate) fn new(
        socket: TcpStream,
        tls: Option<(&Arc<ClientConfig>, &ServerName<'static>)>,
        now_ns: u64,
    ) -> io::Result<Self> {
        let io = match tls {
            None => Io::Plain(socket),
            Some((config, name)) => {
                let session =
                    ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
                Io::Tls { socket, session: Box::new(session) }
            }
        };
        Ok(Self {
            io,
            stage: Stage::Connecting,
            started_ns: now_ns,
            inbox: Vec::new(),
            fragments: None,
            outbox: Vec::new(),
            taken: 0,
        })
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        match &mut self.io {
            Io::Plain(socket) | Io::Tls { socket, .. } => socket,
        }
    }

    /// Whether TCP is connected by now.
    pub(crate) fn connected(&mut self) -> io::Result<bool> {
        let socket = self.socket();
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => {
                socket.set_nodelay(true)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a read that did not fill the buffer has emptied the socket.
    pub(crate) const fn short_read_is_all(&self) -> bool {
        matches!(self.io, Io::Plain(_))
    }

    /// Reads what is there; 0 at the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.io {
            Io::Plain(socket) => socket.read(buffer),
            Io::Tls { socket, session } => loop {
                match session.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => return done,
                }
                if session.read_tls(socket)? == 0 {
                    return Ok(0);
                }
                let outcome = session.process_new_packets();
                // Also after a fault: the alert tells the server why.
                flush_tls(socket, session)?;
                outcome.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            },
        }
    }

    /// Sends, or keeps what the socket does not take now.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.taken < self.outbox.len() { 0 } else { self.write(bytes)? };
        if sent < bytes.len() {
            if self.outbox.len() - self.taken + bytes.len() - sent > OUTBOX_MAX {
                return Err(io::Error::other("the server takes nothing"));
            }
            self.outbox.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Io::Tls { socket, session } = &mut self.io {
            flush_tls(socket, session)?;
        }
        if self.taken < self.outbox.len() {
            let outbox = std::mem::take(&mut self.outbox);
            let sent = self.write(&outbox[self.taken..]);
            self.outbox = outbox;
            self.taken += sent?;
            if self.taken < self.outbox.len() {
                return Ok(());
            }
        }
        if self.taken > 0 {
            self.outbox = Vec::new();
            self.taken = 0;
        }
        Ok(())
    }

    /// Writes until everything is gone or the socket is full, in which case it tells when it is not any more.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            let written = match &mut self.io {
                Io::Plain(socket) => socket.write(rest),
                // rustls takes no more than it can keep; what it sends makes room.
                Io::Tls { socket, session } => session.writer().write(rest).and_then(|written| {
                    flush_tls(socket, session)?;
                    Ok(written)
                }),
            };
            match written {
                Ok(0) => break,
                Ok(written) => sent += written,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) =>
                {
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

fn flush_tls(socket: &mut TcpStream, session: &mut ClientConnection) -> io::Result<()> {
    while session.wants_write() {
        match session.write_tls(socket) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
