//! Messages of the server's, as the peer reads them: RFC 6455 §5.1, §5.4, §6.1.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use opamp_testkit::raw::{Frame, Opcode};
use tokio::io::ReadBuf;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

on_both! {
    async fn messages_of_every_size_are_read_by_another_implementation<On>() {
        for frame_bytes in [1, 100, 125, 126, 4_096, 65_535, 65_536, 200_000] {
            let setup = Setup { frame_bytes, ..Setup::default() };
            let (io, peer) = duplex(20_000);
            let mut stream = On::open(io, &setup).await;
            let sizes = [1, 60, 125, 126, 4_095, 4_096, 4_097, 8_192, 65_535, 65_536, 150_000, 300_000];
            let sizes = sizes.map(|size: usize| size.min(2_000 * frame_bytes));
            let write = async {
                for size in sizes {
                    stream.write(&counted(size)[..], || ()).await.unwrap();
                }
            };
            let read = async {
                let mut client = WebSocketStream::from_raw_socket(peer, Role::Client, None).await;
                for size in sizes {
                    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(counted(size)));
                }
            };
            tokio::join!(write, read);
        }
    }

    /// §5.4: the first fragment has the opcode, only the last has FIN, none is longer than the settings say.
    async fn long_messages_are_written_in_fragments<On>() {
        let (io, mut peer) = duplex(PIPE_BYTES);
        let mut stream = On::open(io, &Setup::default()).await;
        stream.write(&counted(10_000)[..], || ()).await.unwrap();
        drop(stream);
        let frames = answered(&mut peer).await;
        let shape: Vec<_> = frames.iter().map(|frame| (frame.fin, frame.opcode, frame.payload.len())).collect();
        assert_eq!(shape, [
            (false, Opcode::BINARY, 4_096),
            (false, Opcode::CONTINUATION, 4_096),
            (true, Opcode::CONTINUATION, 1_808),
        ]);
        let joined: Vec<u8> = frames.into_iter().flat_map(|frame| frame.payload).collect();
        assert_eq!(joined, counted(10_000));
    }

    /// What the wire is asked to take at once: a usual message with its headers in one piece.
    async fn a_usual_message_leaves_in_one_write<On>() {
        for size in [60, 4_096, 10_000] {
            let counter = Counter::default();
            let mut stream = On::open(counter.clone(), &Setup::default()).await;
            stream.write(&counted(size)[..], || ()).await.unwrap();
            assert_eq!(counter.writes(), 1, "{size}");
        }
    }

    /// A peer that takes its message bit by bit is told of as making progress; a dropped write leaves nothing behind it.
    async fn a_slow_peer_makes_progress_and_gets_the_whole_message<On>() {
        let (io, mut peer) = duplex(64);
        let mut stream = On::open(io, &Setup::default()).await;
        let message = counted(50_000);
        let progress = AtomicUsize::new(0);
        let write = async {
            stream.write(&message[..], || { progress.fetch_add(1, Ordering::Relaxed); }).await.unwrap();
            stream.shutdown().await;
        };
        let ((), frames) = tokio::join!(write, answered(&mut peer));
        let joined: Vec<u8> = frames.into_iter().flat_map(|frame| frame.payload).collect();
        assert_eq!(joined, message);
        assert!(progress.load(Ordering::Relaxed) >= 10);
    }

    /// Reading and writing go by turns: what was read in part is not lost by a write, nor the other way round.
    async fn a_write_between_two_parts_of_a_message_disturbs_nothing<On>() {
        let (io, mut peer) = duplex(PIPE_BYTES);
        let mut stream = On::open(io, &Setup::default()).await;
        let message = encoded(&Frame::fragments(&counted(300), 120));
        let mut recorder = Recorder::default();
        for cut in [1, 3, 7, 100, 130, message.len() - 1] {
            peer.write_all(&message[..cut]).await.unwrap();
            tokio::select! {
                biased;
                told = stream.read(&mut recorder) => panic!("{told:?} of a part"),
                () = std::future::ready(()) => {}
            }
            stream.write(&b"between"[..], || ()).await.unwrap();
            peer.write_all(&message[cut..]).await.unwrap();
            let told = stream.read(&mut recorder).await.unwrap();
            assert_eq!(told, Told::Binary(counted(300).to_vec()), "{cut}");
        }
    }
}

/// §5.4: no other frame comes between the fragments of a message that was given up, nor after them.
#[tokio::test]
async fn nothing_follows_a_message_that_was_given_up() {
    let (io, mut peer) = duplex(100);
    let mut stream = Lean::new(io, &Bytes::new(), LIMIT, 4_096, &Budget::new(1 << 20));
    let message = counted(50_000);
    tokio::select! {
        biased;
        written = stream.write(&message[..], || ()) => panic!("{written:?}"),
        () = std::future::ready(()) => {}
    }
    let mut received = vec![0; 100];
    peer.read_exact(&mut received).await.unwrap();
    let closing = stream.close(CloseCode::Policy, "too slow");
    assert!(
        tokio::time::timeout(Duration::from_secs(20), closing).await.is_ok(),
        "it has nothing to wait for"
    );
    let mut behind = Vec::new();
    peer.read_to_end(&mut behind).await.unwrap();
    assert!(behind.is_empty(), "the stream ends where the message was given up");
}

/// What waits for a slow peer is drawn from the budget, and given back as it is taken.
#[tokio::test]
async fn what_a_slow_peer_has_not_taken_is_drawn_from_the_budget() {
    let budget = Budget::new(10_000);
    let (io, mut peer) = duplex(1_000);
    let mut stream = Lean::new(io, &Bytes::new(), LIMIT, 4_096, &budget);
    let message = counted(9_000);
    {
        let mut write = std::pin::pin!(stream.write(&message[..], || ()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(write.as_mut().poll(&mut cx).is_pending());
        assert_eq!(budget.current(), 9_000 + 3 * 4 - 1_000);
        peer.read_exact(&mut [0; 1_000]).await.unwrap();
        assert!(write.as_mut().poll(&mut cx).is_pending());
        assert_eq!(budget.current(), 9_000 + 3 * 4 - 2_000);
    }
    assert_eq!(budget.current(), 0);
    let too_much = counted(20_000);
    assert_eq!(stream.write(&too_much[..], || ()).await, Err(StreamError::NoRoom));
    assert_eq!((budget.current(), budget.denied()), (0, 1));
}

/// A stream that takes everything and counts how often it is asked.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Counter {
    fn writes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Counter {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Counter {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
