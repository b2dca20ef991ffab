//! A stream whose peer has to take what is written to it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Fails a write that makes no progress for some time, so that a peer that takes nothing holds neither its place nor what
/// it asked for. Over TLS what fills the TLS layer's buffer is one step of progress.
///
/// A shutdown has this long in all.
///
/// The timer exists only while the peer makes the writer wait.
#[derive(Debug)]
pub(crate) struct WriteDeadline<S> {
    stream: S,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    /// It is shutting down, and a flush that has nothing to do is no progress.
    ends: bool,
    no_room: NoRoom,
}

/// Whether a read failed because the stream had no room for what arrived ([`io::ErrorKind::OutOfMemory`]). Beside the stream,
/// because a failure before a request has begun is nothing that the HTTP stack tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct NoRoom(Arc<AtomicBool>);

impl NoRoom {
    /// What there was no room for belonged to a request, and that is answered.
    pub(crate) fn answered(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> WriteDeadline<S> {
    pub(crate) fn new(stream: S, limit: Duration, no_room: NoRoom) -> Self {
        Self { stream, limit, waiting: None, ends: false, no_room }
    }

    /// The stream, without the deadline.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// What a write comes to: itself if it is ready, else a failure once it has waited too long.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if !self.ends {
                self.waiting = None;
            }
            return written;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && error.kind() == io::ErrorKind::OutOfMemory
        {
            self.no_room.0.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.judge(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.judge(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ends = true;
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_fails_the_write_in_time() {
        let (stream, _peer) = duplex(10);
        let mut stream = WriteDeadline::new(stream, LIMIT, NoRoom::default());
        let since = Instant::now();
        let error = stream.write_all(&[0; 11]).await.unwrap_err();
        assert_eq!((error.kind(), since.elapsed().as_secs()), (io::ErrorKind::TimedOut, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_now_and_then_is_waited_for() {
        let (stream, mut peer) = duplex(10);
        let mut stream = WriteDeadline::new(stream, LIMIT, NoRoom::default());
        let slow = async move {
            for _ in 0..20 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                peer.read_exact(&mut [0; 5]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[0; 100]), slow);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_rests_is_left_alone() {
        let (stream, mut peer) = duplex(10);
        let mut stream = WriteDeadline::new(stream, LIMIT, NoRoom::default());
        for _ in 0..3 {
            stream.write_all(&[0; 10]).await.unwrap();
            peer.read_exact(&mut [0; 10]).await.unwrap();
            sleep(LIMIT * 3).await;
        }
    }
}
