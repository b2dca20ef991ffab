//! TLS of the listener: configurations that can be replaced, handshakes with bounds, failures that are told apart.

mod failure;
mod handshake;
mod kept;
mod scratch;
mod session;
mod source;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use self::handshake::handshake;
pub use self::source::TlsSource;
pub(crate) use self::stream::TlsStream;
