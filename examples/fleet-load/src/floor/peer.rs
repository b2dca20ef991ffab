//! One agent as the floor sees it: a socket, an identity, and whatever is incomplete at the moment.

use std::io::{self, Read as _, Write as _};

use mio::net::TcpStream;

use super::tls::Tls;

/// Bytes that may wait for a peer.
const OUTBOX_MAX: usize = 256 << 20;

pub(super) struct Peer {
    socket: TcpStream,
    pub(super) tls: Option<Box<Tls>>,
    /// Whether the upgrade is done.
    pub(super) upgraded: bool,
    /// All zero until it has said who it is.
    pub(super) uid: [u8; 16],
    /// What has arrived of a record, exactly as long as that is.
    pub(super) sealed: Vec<u8>,
    /// What has arrived of a frame.
    pub(super) partial: Vec<u8>,
    /// What the socket did not take.
    outbox: Vec<u8>,
}

impl Peer {
    pub(super) fn new(socket: TcpStream, tls: Option<Tls>) -> Self {
        Self {
            socket,
            tls: tls.map(Box::new),
            upgraded: false,
            uid: [0; 16],
            sealed: Vec::new(),
            partial: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// Whether it has said who it is.
    pub(super) fn named(&self) -> bool {
        self.uid != [0; 16]
    }

    /// None if there is nothing to read now.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                read => return read.map(Some),
            }
        }
    }

    /// Sends bytes as they are, and keeps what the socket does not take.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.outbox.is_empty() { self.write(bytes)? } else { 0 };
        if sent < bytes.len() {
            if self.outbox.len() + bytes.len() > OUTBOX_MAX {
                return Err(io::Error::other("the peer takes nothing"));
            }
            self.outbox.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.outbox);
        let sent = self.write(&waiting)?;
        if sent < waiting.len() {
            self.outbox = waiting[sent..].to_vec();
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}
