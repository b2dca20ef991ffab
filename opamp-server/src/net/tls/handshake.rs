//! The TLS handshake of a connection that was accepted, with its bounds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::failure::TlsFailure;
use super::stream::{Rejected, TlsStream};
use crate::net::core::Core;
use crate::refusal::RefusalReason;

/// How long, and for how many bytes, a client that failed is listened to. A socket that is closed with bytes unread is
/// reset, and what was said to the client of its failure is lost with it.
const PARTING: Duration = Duration::from_secs(1);
const PARTING_BYTES: u64 = 256 * 1024;

/// The TLS handshake: the stream and the client's certificate, or what to say of the failure.
pub(crate) async fn handshake(
    core: Arc<Core>,
    stream: TcpStream,
    config: Arc<ServerConfig>,
    handshakes: Arc<Semaphore>,
) -> Result<(TlsStream<TcpStream>, Option<Arc<[u8]>>), (RefusalReason, String)> {
    let handshake = async {
        // Who sends nothing must not keep others from their handshakes.
        if let Err(error) = stream.peek(&mut [0]).await {
            return Err(Rejected { error, io: stream });
        }
        let permit = handshakes.acquire().await;
        let stream = TlsStream::accept(stream, config, &core.admission.budget).await;
        drop(permit);
        stream
    };
    let stream = match tokio::time::timeout(core.settings.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(Rejected { error, io })) => {
            let failure = TlsFailure::classify(&error);
            // What it comes to does not matter any more.
            let _ = tokio::time::timeout(PARTING, part(io)).await;
            return Err((failure.reason(), failure.describe().to_owned()));
        }
        Err(_) => return Err((RefusalReason::Timeout, "TLS handshake took too long".to_owned())),
    };
    let certificate = stream.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.map(|certificate| Arc::from(certificate.as_ref()));
    Ok((stream, certificate))
}

/// Says that nothing more will come, and takes what the client is still saying.
async fn part(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(PARTING_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}
