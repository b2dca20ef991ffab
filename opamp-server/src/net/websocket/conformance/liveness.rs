//! Pings and pongs (RFC 6455 §5.5.2, §5.5.3), and peers that flood.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use opamp_testkit::raw::{Frame, Opcode};
use tokio::io::ReadBuf;

use super::*;

on_both! {
    /// §5.5.2, §5.5.3: identical application data.
    async fn a_ping_is_answered_with_its_payload<On>() {
        for length in [0, 1, 125] {
            let payload = counted(length);
            let (told, answered) = told_of_frames::<On>(&[Frame::new(Opcode::PING, payload.clone())]).await;
            assert_eq!((told, answered), (vec![Told::Control, Told::Failed(StreamError::Io)], vec![Answered::pong(&payload)]));
        }
    }

    /// §5.5.3.
    async fn pings_of_a_peer_that_reads_are_all_answered_in_order<On>() {
        let frames: Vec<Frame> = (0..10).map(|number| Frame::new(Opcode::PING, vec![number; 5])).collect();
        let (_, answered) = told_of_frames::<On>(&frames).await;
        assert_eq!(answered, (0..10).map(|number| Answered::pong(&[number; 5])).collect::<Vec<_>>());
    }

    /// §5.5.3: a pong nobody asked for is a heartbeat, and is not answered.
    async fn a_pong_is_a_sign_of_life_without_answer<On>() {
        let (told, answered) = told_of_frames::<On>(&[Frame::new(Opcode::PONG, "unasked")]).await;
        assert_eq!((told, answered), (vec![Told::Control, Told::Failed(StreamError::Io)], vec![]));
    }

    /// §5.5.2.
    async fn a_ping_of_the_servers_is_one_empty_frame<On>() {
        let (io, mut peer) = duplex(PIPE_BYTES);
        let mut stream = On::open(io, &Setup::default()).await;
        stream.ping().await.unwrap();
        drop(stream);
        assert_eq!(answered(&mut peer).await, [Answered { fin: true, opcode: Opcode::PING, payload: Vec::new() }]);
    }

    /// Messages go on being read while the peer does not take the answers to its pings, and the answers wait: the one that
    /// is under way and the latest.
    async fn a_peer_that_pings_and_does_not_read_makes_little_wait<On>() {
        const PINGS: usize = 20_000;
        let (io, mut peer) = duplex(1_000);
        let setup = Setup::default();
        let mut stream = On::open(io, &setup).await;
        let read = tokio::spawn(async move { (read_all(&mut stream).await, stream) });
        for number in 0..PINGS {
            peer.write_all(&Frame::new(Opcode::PING, number.to_be_bytes().to_vec()).encode()).await.unwrap();
        }
        peer.write_all(&Frame::binary("behind").encode()).await.unwrap();
        assert!(setup.budget.peak() <= 4_096, "{} bytes wait", setup.budget.peak());
        peer.write_all(&Frame::close(1000, "").encode()).await.unwrap();
        for _ in 0..10 {
            // So that the answer to the Close frame has to wait as well.
            tokio::task::yield_now().await;
        }
        let answered = answered(&mut peer).await;
        let (told, _) = read.await.unwrap();
        assert_eq!(told[told.len() - 2..], [Told::Binary(b"behind".to_vec()), Told::Closed]);
        assert!(answered.len() < PINGS / 4, "{} answers", answered.len());
        assert_eq!(answered.last(), Some(&Answered::close(1000)));
    }

    async fn an_answer_that_waited_goes_out_as_soon_as_the_peer_reads<On>() {
        const PINGS: u8 = 20;
        let (io, mut peer) = duplex(200);
        let mut stream = On::open(io, &Setup::default()).await;
        let read = tokio::spawn(async move { read_all(&mut stream).await });
        for number in 0..PINGS {
            peer.write_all(&Frame::new(Opcode::PING, vec![number; 125]).encode()).await.unwrap();
        }
        let mut received = Vec::new();
        let reading = async {
            while !received.ends_with(&[PINGS - 1; 125]) {
                assert!(peer.read_buf(&mut received).await.unwrap() > 0, "the stream ended");
            }
        };
        let patience = std::time::Duration::from_secs(20);
        assert!(tokio::time::timeout(patience, reading).await.is_ok(), "the latest answer never came");
        read.abort();
    }

    /// A flood without a message does not keep others from running.
    async fn a_flood_of_empty_fragments_lets_others_run<On>() {
        let first = Frame { fin: false, ..Frame::binary("") }.encode();
        let next = Frame { fin: false, ..Frame::new(Opcode::CONTINUATION, "") }.encode();
        lets_others_run::<On>(first, next).await;
    }

    async fn a_flood_of_pongs_lets_others_run<On>() {
        lets_others_run::<On>(Vec::new(), Frame::new(Opcode::PONG, "").encode()).await;
    }
}

async fn lets_others_run<On: Implementation>(first: Vec<u8>, next: Vec<u8>) {
    let ran = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&ran);
    tokio::spawn(async move {
        tokio::task::yield_now().await;
        other.store(true, Ordering::Release);
    });
    let flood = Flood { first, next, left: 4_000_000, until: Arc::clone(&ran) };
    let mut stream = On::open(flood, &Setup::default()).await;
    let mut recorder = Recorder::default();
    while stream.read(&mut recorder).await.is_ok() {}
    assert!(ran.load(Ordering::Acquire), "the flood ended before anybody else ran");
}

/// A stream that always has more, until others have run or there is no hope that they will. It asks for permission as a
/// socket does, which alone would let others run only after more than it has.
struct Flood {
    first: Vec<u8>,
    next: Vec<u8>,
    left: usize,
    until: Arc<AtomicBool>,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::task::ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
        buf.put_slice(&std::mem::take(&mut self.first));
        while buf.remaining() >= self.next.len() && self.left > 0 && !self.until.load(Ordering::Acquire) {
            buf.put_slice(&self.next);
            self.left -= self.next.len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
