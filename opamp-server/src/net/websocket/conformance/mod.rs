//! What RFC 6455 asks of a server's frames, asked of every implementation behind [`MessageStream`], over a stream in memory.

mod closing;
mod liveness;
mod properties;
mod reading;
mod writing;

use bytes::Bytes;
use opamp_testkit::raw::{Frame, Opcode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex};

use super::frames::{Incoming, Listener, MessageStream, StreamError};
use super::lean::Lean;
use super::tungstenite::Tungstenite;
use crate::net::admission::budget::Budget;
use crate::refusal::CloseCode;

/// Longest message in these tests, unless one says otherwise.
const LIMIT: usize = 1 << 20;
/// What the stream in memory holds each way.
const PIPE_BYTES: usize = 1 << 22;

/// An implementation, as a test opens it.
trait Implementation {
    type Stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>: MessageStream + 'static;

    async fn open<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        io: S,
        settings: &Setup,
    ) -> Self::Stream<S>;
}

#[derive(Clone)]
struct Setup {
    message_bytes_max: usize,
    frame_bytes: usize,
    budget: Budget,
}

impl Default for Setup {
    fn default() -> Self {
        Self { message_bytes_max: LIMIT, frame_bytes: 4_096, budget: Budget::new(1 << 30) }
    }
}

struct OnLean;
struct OnTungstenite;

impl Implementation for OnLean {
    type Stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> = Lean<S>;

    async fn open<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: S, setup: &Setup) -> Lean<S> {
        Lean::new(io, &Bytes::new(), setup.message_bytes_max, setup.frame_bytes, &setup.budget)
    }
}

impl Implementation for OnTungstenite {
    type Stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> = Tungstenite<S>;

    async fn open<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        io: S,
        setup: &Setup,
    ) -> Tungstenite<S> {
        Tungstenite::new(io, Bytes::new(), setup.message_bytes_max, setup.frame_bytes, &setup.budget).await
    }
}

/// Runs each test once on each implementation: `name` becomes `name::lean` and `name::tungstenite`.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident<$on:ident>() $body:block)+) => {$(
        $(#[$meta])*
        async fn $name<$on: $crate::net::websocket::conformance::Implementation>() $body

        mod $name {
            #[tokio::test]
            async fn lean() {
                super::$name::<$crate::net::websocket::conformance::OnLean>().await;
            }

            #[tokio::test]
            async fn tungstenite() {
                super::$name::<$crate::net::websocket::conformance::OnTungstenite>().await;
            }
        }
    )+};
}
use on_both;

/// What a stream tells of what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Binary(Vec<u8>),
    Closed,
    Control,
    Failed(StreamError),
    Text,
}

impl From<Incoming<'_>> for Told {
    fn from(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Incoming::Closed => Self::Closed,
            Incoming::Control => Self::Control,
            Incoming::Text => Self::Text,
        }
    }
}

/// Tells what is read, and remembers whether something is held.
#[derive(Default)]
struct Recorder {
    holding: bool,
}

impl Listener for Recorder {
    type Answer = Told;

    fn incoming(&mut self, incoming: Incoming<'_>) -> Told {
        incoming.into()
    }

    fn holding(&mut self, holding: bool) {
        assert_ne!(self.holding, holding, "told when it changes");
        self.holding = holding;
    }
}

/// Reads to the end, as a connection's task does.
async fn read_all(stream: &mut impl MessageStream) -> Vec<Told> {
    let (mut told, mut recorder) = (Vec::new(), Recorder::default());
    loop {
        let next = stream.read(&mut recorder).await.unwrap_or_else(Told::Failed);
        told.push(next.clone());
        match next {
            Told::Binary(_) | Told::Control => {}
            Told::Closed | Told::Failed(StreamError::Io) => {
                stream.shutdown().await;
                return told;
            }
            Told::Text => return close(stream, CloseCode::Unsupported, told).await,
            Told::Failed(StreamError::NoRoom) => return close(stream, CloseCode::TryAgainLater, told).await,
            Told::Failed(StreamError::Oversize) => return close(stream, CloseCode::TooBig, told).await,
            Told::Failed(_) => return close(stream, CloseCode::Protocol, told).await,
        }
    }
}

async fn close(stream: &mut impl MessageStream, code: CloseCode, told: Vec<Told>) -> Vec<Told> {
    stream.close(code, "").await;
    told
}

/// What a stream tells of these bytes and the end of the stream behind them, and what it writes.
async fn told_of<On: Implementation>(bytes: &[u8]) -> (Vec<Told>, Vec<Answered>) {
    told_with::<On>(bytes, &Setup::default()).await
}

async fn told_with<On: Implementation>(bytes: &[u8], setup: &Setup) -> (Vec<Told>, Vec<Answered>) {
    let (io, mut peer) = duplex(PIPE_BYTES);
    peer.write_all(bytes).await.unwrap();
    peer.shutdown().await.unwrap();
    let mut stream = On::open(io, setup).await;
    let told = read_all(&mut stream).await;
    drop(stream);
    (told, answered(&mut peer).await)
}

/// What a stream tells of these frames.
async fn told_of_frames<On: Implementation>(frames: &[Frame]) -> (Vec<Told>, Vec<Answered>) {
    told_of::<On>(&encoded(frames)).await
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode_into(&mut bytes);
    }
    bytes
}

/// A frame that the server wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answered {
    fin: bool,
    opcode: Opcode,
    payload: Vec<u8>,
}

impl Answered {
    fn close(code: u16) -> Self {
        Self { fin: true, opcode: Opcode::CLOSE, payload: code.to_be_bytes().to_vec() }
    }

    fn pong(payload: &[u8]) -> Self {
        Self { fin: true, opcode: Opcode::PONG, payload: payload.to_vec() }
    }
}

/// All frames that the server wrote until it ended the stream. Reserved bits and masks are no server's.
async fn answered(peer: &mut DuplexStream) -> Vec<Answered> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).await.unwrap();
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while let [first, second, after @ ..] = rest {
        assert_eq!((first & 0x70, second & 0x80), (0, 0), "reserved bits, mask");
        let (length, after) = match (second, after) {
            (126, [a, b, after @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), after),
            (127, _) => panic!("no frame of these tests is that long"),
            _ => (usize::from(*second), after),
        };
        let (payload, after) = after.split_at(length);
        frames.push(Answered {
            fin: first & 0x80 != 0,
            opcode: Opcode(first & 0xF),
            payload: payload.to_vec(),
        });
        rest = after;
    }
    assert!(rest.is_empty(), "the server ends in the middle of a frame");
    frames
}

/// Bytes that tell where they are.
fn counted(length: usize) -> Bytes {
    (0..length).map(|byte| (byte % 251) as u8).collect::<Vec<_>>().into()
}
