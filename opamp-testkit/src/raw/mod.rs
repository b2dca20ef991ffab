//! A client that can say anything: HTTP/1.1 and WebSocket by hand over a TCP or TLS stream.
//!
//! Nothing here corrects what a test asks for. Headers may be missing or repeated, frames may lie about their length,
//! messages may arrive a byte at a time, and the connection may be half closed or reset. What the server answers is
//! parsed strictly, and every wait is bounded: see [`Endpoint::wait`].

mod error;
mod frame;
mod http;
mod stream;
mod ws;

pub use error::RawError;
pub use frame::{CloseFrame, Frame, Length, Opcode};
pub use http::{Framing, HttpRequest, HttpResponse, RawHttp, gunzip, gzip};
pub use stream::{Ending, Endpoint, Pieces, RawStream, Tls};
pub use ws::{Handshake, Opening, RawWs, Received};
