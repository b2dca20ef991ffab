//! The wait for a peer's Close frame.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::ready;

use tokio::io::{AsyncRead, ReadBuf};

use super::scratch;

/// Reads on, unlooked at, until the peer's Close frame or its end of the stream.
///
/// The peer may be in the middle of a message that was refused; reading on lets it get to the Close frame instead of a reset.
pub(super) async fn until_closed<S: AsyncRead + Unpin>(io: &mut S) {
    poll_fn(|cx| {
        scratch::with(|scratch| {
            loop {
                let mut discarded = ReadBuf::new(scratch);
                let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut discarded));
                let discarded = discarded.filled();
                if read.is_err() || discarded.is_empty() || ends_in_close_frame(discarded) {
                    return std::task::Poll::Ready(());
                }
            }
        })
    })
    .await;
}

/// Whether these bytes end in a masked Close frame. Seen in the middle of something else it ends the wait early,
/// which costs nothing: the connection is over either way.
pub(super) fn ends_in_close_frame(bytes: &[u8]) -> bool {
    let is_close = |frame: &[u8]| matches!(frame, [0x88, length, ..] if length & 0x80 != 0 && frame.len() == usize::from(length & 0x7f) + 6);
    let longest = bytes.len().saturating_sub(6 + 125);
    (longest..bytes.len()).any(|start| is_close(&bytes[start..]))
}
