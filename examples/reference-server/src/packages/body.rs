//! A part of a file as the body of an answer, read from the store chunk by chunk.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use opamp_store::PackageVersion;
use tokio::time::timeout;

use super::{
    counts::Running,
    range::Span,
    shelf::{Shelf, ShelfError},
};

/// Bytes of one frame: what a client that has gone away, or a shutdown, is noticed after.
const FRAME_BYTES: usize = 64 << 10;

/// The bytes of a span, in order. Holds one chunk at a time, whatever the size of the file: the next one is read when the
/// client has taken the last.
pub(crate) struct FileBody {
    shelf: Arc<dyn Shelf>,
    file: Arc<PackageVersion>,
    /// What is still to be read from the store.
    unread: Span,
    chunk: Bytes,
    reading: Option<BoxFuture<'static, Result<Bytes, ShelfError>>>,
    read_timeout: Duration,
    running: Running,
}

impl FileBody {
    /// The body of a download that is `running` for as many bytes as the span has. A store that takes longer than
    /// `read_timeout` for a chunk ends it: nobody keeps a place by waiting.
    pub(super) fn new(
        shelf: Arc<dyn Shelf>,
        file: Arc<PackageVersion>,
        span: Span,
        read_timeout: Duration,
        running: Running,
    ) -> Self {
        FileBody { shelf, file, unread: span, chunk: Bytes::new(), reading: None, read_timeout, running }
    }

    /// Reads one chunk in time.
    fn read(&self, index: u64) -> BoxFuture<'static, Result<Bytes, ShelfError>> {
        let chunk = Arc::clone(&self.shelf).chunk(Arc::clone(&self.file), index);
        let in_time = timeout(self.read_timeout, chunk);
        Box::pin(async move { in_time.await.unwrap_or(Err(ShelfError::Slow)) })
    }

    /// What the span has of the chunk with its first unread byte.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ShelfError>> {
        let chunk_bytes = u64::from(self.file.chunk_bytes.max(1));
        let index = self.unread.first / chunk_bytes;
        let mut reading = self.reading.take().unwrap_or_else(|| self.read(index));
        let Poll::Ready(chunk) = reading.as_mut().poll(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let chunk = chunk?;
        let starts = index * chunk_bytes;
        let expected = chunk_bytes.min(self.file.size_bytes - starts);
        if chunk.len() as u64 != expected {
            return Poll::Ready(Err(ShelfError::Damaged));
        }
        // Both lie within the chunk, whose length is a usize.
        let within = |position: u64| usize::try_from(position - starts).unwrap_or(usize::MAX);
        let end = self.unread.end.min(starts + expected);
        let wanted = chunk.slice(within(self.unread.first)..within(end));
        self.unread.first = end;
        Poll::Ready(Ok(wanted))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = ShelfError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ShelfError>>> {
        let this = &mut *self;
        if this.chunk.is_empty() {
            if this.unread.length() == 0 {
                return Poll::Ready(None);
            }
            match ready!(this.poll_chunk(cx)) {
                Ok(chunk) => this.chunk = chunk,
                Err(error) => {
                    // The announced length is not reached: the client sees that the file was cut.
                    tracing::error!(%error, "package download cut short");
                    this.unread.first = this.unread.end;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let frame = this.chunk.split_to(this.chunk.len().min(FRAME_BYTES));
        this.running.took(frame.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.running.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.running.left())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::BodyExt as _;

    use opamp_proto::{AgentId, Wall};
    use opamp_store::{PackageKey, PackageKind, Revision};

    use super::*;
    use crate::packages::{
        counts::DownloadCounts,
        places::Places,
        shelf::{Opened, Presented},
    };

    /// A file in chunks of ten bytes, of which the one at `broken` cannot be read.
    struct Ten {
        content: Bytes,
        broken: Option<u64>,
        silent: Mutex<bool>,
        read: Mutex<Vec<u64>>,
    }

    impl Shelf for Ten {
        fn open<'a>(&'a self, _: Presented<'a>) -> BoxFuture<'a, Result<Opened, ShelfError>> {
            unreachable!("only the chunks are read here")
        }

        fn chunk(
            self: Arc<Self>,
            _: Arc<PackageVersion>,
            index: u64,
        ) -> BoxFuture<'static, Result<Bytes, ShelfError>> {
            Box::pin(async move {
                if *self.silent.lock().unwrap() {
                    return std::future::pending().await;
                }
                self.read.lock().unwrap().push(index);
                if self.broken == Some(index) {
                    return Err(ShelfError::Gone);
                }
                let from = usize::try_from(index).unwrap() * 10;
                Ok(self.content.slice(from..self.content.len().min(from + 10)))
            })
        }
    }

    struct Rig {
        shelf: Arc<Ten>,
        counts: Arc<DownloadCounts>,
        places: Places,
    }

    impl Rig {
        fn new(size: usize, broken: Option<u64>) -> Self {
            let content = (0..size).map(|byte| byte as u8).collect::<Vec<_>>().into();
            let shelf = Arc::new(Ten { content, broken, silent: Mutex::default(), read: Mutex::default() });
            Rig { shelf, counts: Arc::default(), places: Places::new(1) }
        }

        /// Bytes of the file, which has as many as the catalogue says.
        fn body(&self, first: u64, end: u64, size: usize) -> FileBody {
            let file = Arc::new(PackageVersion {
                key: PackageKey::new("", "1"),
                kind: PackageKind::TopLevel,
                size_bytes: size as u64,
                content_sha256: [0; 32],
                signature: None,
                chunk_bytes: 10,
                created_at: Wall(0),
                created_by: String::new(),
                revision: Revision(0),
            });
            let shelf: Arc<dyn Shelf> = Arc::clone(&self.shelf) as _;
            let span = Span { first, end };
            let place = self.places.take(AgentId::from_bytes([1; 16])).expect("the one before is over");
            let running = self.counts.start(place, span.length());
            FileBody::new(shelf, file, span, Duration::from_secs(10), running)
        }
    }

    #[tokio::test]
    async fn every_span_of_a_file_is_exactly_its_bytes_read_from_the_chunks_that_have_them() {
        let rig = Rig::new(35, None);
        for first in 0..=35 {
            for end in first..=35 {
                rig.shelf.read.lock().unwrap().clear();
                let bytes = rig.body(first, end, 35).collect().await.unwrap().to_bytes();
                let expected: Vec<u8> = (first..end).map(|byte| byte as u8).collect();
                assert_eq!(bytes, expected, "{first}..{end}");
                let chunks: Vec<u64> =
                    if first == end { Vec::new() } else { (first / 10..=(end - 1) / 10).collect() };
                assert_eq!(*rig.shelf.read.lock().unwrap(), chunks, "{first}..{end}");
            }
        }
        let counted = rig.counts.snapshot();
        assert_eq!((counted.completed, counted.cut), (counted.started, 0));
    }

    #[tokio::test]
    async fn a_chunk_is_read_only_when_the_one_before_was_taken() {
        let rig = Rig::new(35, None);
        let mut body = rig.body(0, 35, 35);
        assert_eq!(body.size_hint().exact(), Some(35));
        body.frame().await.unwrap().unwrap();
        assert_eq!(*rig.shelf.read.lock().unwrap(), [0]);
        drop(body);
        let counted = rig.counts.snapshot();
        assert_eq!((counted.bytes, counted.completed, counted.cut, counted.running), (10, 0, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_silent_about_a_chunk_ends_the_download() {
        let rig = Rig::new(35, None);
        *rig.shelf.silent.lock().unwrap() = true;
        let mut body = rig.body(0, 35, 35);
        let failed = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(failed, ShelfError::Slow), "{failed}");
        drop(body);
        assert_eq!(rig.counts.snapshot().running, 0);
    }

    #[tokio::test]
    async fn a_chunk_that_cannot_be_read_cuts_the_file_and_never_fills_it_up() {
        for (what, rig, size) in [
            ("a chunk is gone", Rig::new(35, Some(2)), 35),
            ("the last chunk is one byte short of what the catalogue says", Rig::new(35, None), 36),
        ] {
            let mut body = rig.body(0, size as u64, size);
            let mut taken = 0;
            while let Some(Ok(frame)) = body.frame().await {
                taken += frame.into_data().unwrap().len();
            }
            assert!(taken <= 30, "{what}: {taken}");
            assert!(!body.is_end_stream(), "{what}: it does not look whole");
            assert!(body.frame().await.is_none(), "{what}: nothing comes after the failure");
            drop(body);
            assert_eq!((rig.counts.snapshot().completed, rig.counts.snapshot().cut), (0, 1), "{what}");
        }
    }
}
