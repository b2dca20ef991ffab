//! A TLS connection without its IO: ciphertext in, plaintext out, and the other way round.
//!
//! rustls keeps no buffers here. What has to wait is drawn from the byte budget and released as soon as it is
//! taken: the beginning of a record whose end has not arrived, plaintext that the reader had no room for, ciphertext
//! that the network did not take.
//!
//! Of rustls' unbuffered interface two things must be known. What it left in the slice belongs to it: it remembers how
//! far into it it has read, so each later call is made with those same bytes in front, whatever it is called for. And
//! after an error it would read the same record once more, so it is called only until it has handed out its alert.

use std::sync::Arc;
use std::{io, mem};

use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, ServerConfig};
use tokio::io::ReadBuf;

use super::kept::Kept;
use super::scratch::Scratch;
use crate::net::admission::budget::{Budget, Charge};

/// Header and payload of the longest record (RFC 5246 §6.2.3, the longer of the two versions).
const RECORD_WIRE_BYTES: usize = 5 + 16 * 1024 + 2048;

/// The longest handshake message that is waited for; a client's chain of certificates is the longest there is.
const HANDSHAKE_BYTES: usize = 0xffff;

const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// An alert in a record of TLS 1.3: header, level, description, type, tag.
const SEALED_ALERT_BYTES: usize = 5 + 2 + 1 + 16;

/// The server's side of a TLS connection.
pub(super) struct Session {
    connection: Box<UnbufferedServerConnection>,
    /// Ciphertext that rustls needs more of.
    incomplete: Vec<u8>,
    plain: Kept,
    cipher: Kept,
    charge: Charge,
    failure: Option<Box<Failure>>,
    /// Nothing more can be encrypted.
    mute: bool,
    /// The peer has said that it will send nothing more.
    peer_closed: bool,
}

/// Why nothing more can be read.
#[derive(Debug)]
enum Failure {
    /// What has arrived cannot be kept: the byte budget is used up.
    Budget,
    Tls(Error),
    /// A message that does not end.
    TooLong,
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>, budget: &Budget) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let charge = budget.try_charge(0).ok_or_else(|| Failure::Budget.error())?;
        Ok(Self {
            connection: Box::new(connection),
            incomplete: Vec::new(),
            plain: Kept::default(),
            cipher: Kept::default(),
            charge,
            failure: None,
            mute: false,
            peer_closed: false,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The client's certificate and those that lead to its CA, if it showed one.
    pub(super) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    /// Whether the peer has said that it will send nothing more.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Why nothing more can be read, if so.
    pub(super) fn read_error(&self) -> Option<io::Error> {
        self.failure.as_deref().map(Failure::error)
    }

    /// Takes what `out` has room for of the plaintext that waits; false if none does.
    pub(super) fn take_plain(&mut self, out: &mut ReadBuf<'_>) -> bool {
        if self.plain.is_empty() {
            return false;
        }
        let rest = self.plain.rest();
        let count = rest.len().min(out.remaining());
        out.put_slice(&rest[..count]);
        self.plain.take(count);
        self.settle();
        true
    }

    /// Takes in what has arrived: plaintext goes to `out`, or waits if there is no room, and answers to what is to send.
    ///
    /// What was wrong with it is told by [`Session::read_error`], for the plaintext before it is read first.
    pub(super) fn receive(&mut self, arrived: &mut [u8], out: &mut ReadBuf<'_>) {
        if self.incomplete.is_empty() {
            let used = self.process(arrived, out);
            self.incomplete = arrived[used..].to_vec();
        } else {
            let mut all = mem::take(&mut self.incomplete);
            all.extend_from_slice(arrived);
            let used = self.process(&mut all, out);
            if used > 0 {
                all = all[used..].to_vec();
            }
            self.incomplete = all;
        }
        let bytes_max = if self.is_handshaking() { HANDSHAKE_BYTES } else { RECORD_WIRE_BYTES };
        if self.incomplete.len() > bytes_max {
            self.mute = true;
            self.fail(Failure::TooLong);
        }
        if !self.settle() {
            self.mute |= self.is_joining();
            self.plain = Kept::default();
            self.fail(Failure::Budget);
        }
    }

    /// Ciphertext that goes before anything that is encrypted now.
    pub(super) fn to_send(&self) -> &[u8] {
        self.cipher.rest()
    }

    /// The network took `count` bytes of [`Session::to_send`].
    pub(super) fn sent(&mut self, count: usize) {
        self.cipher.take(count);
        self.settle();
    }

    /// Keeps ciphertext that the network did not take.
    pub(super) fn keep_to_send(&mut self, ciphertext: &[u8]) -> io::Result<()> {
        self.cipher.push(ciphertext);
        if self.settle() {
            return Ok(());
        }
        // With a part missing, the peer could make nothing of what follows.
        self.mute = true;
        self.cipher = Kept::default();
        self.fail(Failure::Budget);
        Err(Failure::Budget.error())
    }

    /// Encrypts the plaintext of one record, or of many if records are to be small, and says how long the ciphertext is.
    pub(super) fn encrypt(&mut self, plaintext: &[u8], ciphertext: &mut Scratch) -> io::Result<usize> {
        self.seal(|traffic| match traffic.encrypt(plaintext, ciphertext) {
            // It is known before anything is encrypted.
            Err(EncryptError::InsufficientSize(size)) => {
                ciphertext.extend_to(size.required_size);
                traffic.encrypt(plaintext, ciphertext)
            }
            encrypted => encrypted,
        })
    }

    /// Says that nothing more will be sent, once; how long the ciphertext is that tells the peer so.
    pub(super) fn close(&mut self, ciphertext: &mut Scratch) -> io::Result<usize> {
        if self.mute {
            return Ok(0);
        }
        let notice = self.seal(|traffic| traffic.queue_close_notify(ciphertext));
        self.mute = true;
        notice
    }

    /// Hands `input` to rustls until it needs more, and says how much of it is used up.
    fn process(&mut self, input: &mut [u8], out: &mut ReadBuf<'_>) -> usize {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut input[used..]);
            let mut blocked = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        // What waits was taken before this arrived, so nothing is overtaken.
                        let fits = record.payload.len().min(out.remaining());
                        let (now, later) = record.payload.split_at(fits);
                        out.put_slice(now);
                        self.plain.push(later);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut self.cipher);
                }
                Ok(ConnectionState::TransmitTlsData(transmitted)) => transmitted.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    // What comes after that is nothing (RFC 8446 §6.1).
                    self.peer_closed = true;
                    return input.len();
                }
                // The handshake may be over or not.
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => blocked = true,
                // Data before the handshake is over: the listener's configuration allows none.
                Ok(_) => {
                    self.mute = true;
                    self.fail(Failure::Tls(Error::HandshakeNotComplete));
                    return input.len();
                }
                Err(error) => {
                    self.alert(&mut input[used + discard..]);
                    self.mute = true;
                    self.fail(Failure::Tls(error));
                    return input.len();
                }
            }
            used += discard;
            if blocked {
                return used;
            }
        }
    }

    /// Takes what rustls has to say to the peer about an error. `rest` is what it left of the input.
    fn alert(&mut self, rest: &mut [u8]) {
        loop {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(rest);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else { return };
            if encode(data, &mut self.cipher) {
                return;
            }
        }
    }

    fn seal(
        &mut self,
        seal: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        if self.mute {
            return Err(self.read_error().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
        let sealed = loop {
            // With nothing new to read, so all it can have is something to send.
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.incomplete);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => break seal(&mut traffic),
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut self.cipher);
                }
                Ok(ConnectionState::TransmitTlsData(transmitted)) => transmitted.done(),
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        };
        sealed.map_err(io::Error::other)
    }

    /// Whether what is incomplete begins with a whole record: the first part of a handshake message.
    fn is_joining(&self) -> bool {
        match *self.incomplete {
            [_, _, _, high, low, ref rest @ ..] => rest.len() >= usize::from(u16::from_be_bytes([high, low])),
            _ => false,
        }
    }

    /// Nothing more is read. The first reason counts.
    fn fail(&mut self, failure: Failure) {
        self.incomplete = Vec::new();
        self.failure.get_or_insert_with(|| Box::new(failure));
        self.settle();
    }

    /// The memory of what is kept.
    pub(super) fn held(&self) -> usize {
        self.incomplete.capacity() + self.plain.held() + self.cipher.held()
    }

    /// Draws what is kept from the byte budget; false if there is not enough.
    fn settle(&mut self) -> bool {
        let held = self.held();
        let charged = self.charge.bytes();
        if held > charged {
            return self.charge.grow(held - charged);
        }
        self.charge.shrink(charged - held);
        true
    }
}

impl Failure {
    fn error(&self) -> io::Error {
        match self {
            Self::Budget => io::Error::new(
                io::ErrorKind::OutOfMemory,
                "the server keeps as many incomplete messages as it may (buffered_bytes_max)",
            ),
            Self::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, error.clone()),
            Self::TooLong => io::Error::new(io::ErrorKind::InvalidData, "TLS message too long"),
        }
    }
}

/// Adds a record to what is to send; true if it is an alert.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, cipher: &mut Kept) -> bool {
    let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) else { return false };
    let mut record = vec![0; size.required_size];
    if data.encode(&mut record).is_err() {
        return false;
    }
    cipher.push(&record);
    match record.first() {
        Some(&ALERT) => true,
        Some(&APPLICATION_DATA) => record.len() == SEALED_ALERT_BYTES,
        _ => false,
    }
}
