//! TLS over buffers that all connections share: rustls decrypts in place and encrypts into the buffer of the caller.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

/// What encryption adds to a record of 16 KiB at most.
const RECORD_OVERHEAD: usize = 64;
const RECORD_BYTES: usize = 16 * 1024;

pub(super) struct Tls {
    connection: UnbufferedServerConnection,
}

/// What came of bytes that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// How many of them were used up.
    pub(super) used: usize,
    /// Whether the peer has said that nothing follows.
    pub(super) ended: bool,
}

impl Tls {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self { connection: UnbufferedServerConnection::new(config)? })
    }

    /// Decrypts what is whole in `sealed` and appends it to `plain`; what has to be sent for the handshake goes to `out`.
    pub(super) fn open(
        &mut self,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<Opened> {
        let mut used = 0;
        let mut ended = false;
        loop {
            // Always what is left, also if that is nothing: rustls keeps places in it.
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut sealed[used..]);
            let mut more = true;
            match state.map_err(invalid)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = out.len();
                    out.resize(start + RECORD_BYTES, 0);
                    let written = match data.encode(&mut out[start..]) {
                        Err(EncodeError::InsufficientSize(needed)) => {
                            out.resize(start + needed.required_size, 0);
                            data.encode(&mut out[start..])
                        }
                        done => done,
                    };
                    out.truncate(start + written.map_err(io::Error::other)?);
                }
                // It is in `out`, which the caller sends in any case.
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    ended = true;
                    more = false;
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => more = false,
                _ => return Err(io::Error::other("an unexpected state of TLS")),
            }
            used += discard;
            if !more && discard == 0 {
                return Ok(Opened { used, ended });
            }
        }
    }

    /// Encrypts bytes to `out`. `rest` is what has arrived and was not used up yet.
    pub(super) fn seal(&mut self, rest: &mut [u8], plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(rest);
        let ConnectionState::WriteTraffic(mut traffic) = state.map_err(invalid)? else {
            return Err(io::Error::other("TLS is not ready to send"));
        };
        for record in plain.chunks(RECORD_BYTES) {
            let start = out.len();
            out.resize(start + record.len() + RECORD_OVERHEAD, 0);
            let written = match traffic.encrypt(record, &mut out[start..]) {
                Err(EncryptError::InsufficientSize(needed)) => {
                    out.resize(start + needed.required_size, 0);
                    traffic.encrypt(record, &mut out[start..])
                }
                done => done,
            };
            out.truncate(start + written.map_err(io::Error::other)?);
        }
        Ok(())
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
