//! What holds of every sequence of frames, however it arrives, and of every sequence of bytes.

use std::pin::Pin;
use std::task::{Context, Poll};

use opamp_testkit::raw::{Frame, Opcode};
use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

/// Bytes that arrive in pieces of these sizes, with a wait between any two.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<usize>,
    next: usize,
    rested: bool,
    /// Looked at in every wait: no more is kept than half as much again as arrived.
    watch: Option<Budget>,
}

impl Pieces {
    fn new(bytes: &[u8], sizes: &[usize]) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, sizes: sizes.to_vec(), next: 0, rested: false, watch: None }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let kept = self.watch.as_ref().map_or(0, Budget::current);
        assert!(kept <= self.at + self.at / 2, "{kept} bytes for {} that arrived", self.at);
        self.rested = !self.rested;
        if self.rested {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size =
            self.sizes[self.next % self.sizes.len()].min(buf.remaining()).min(self.bytes.len() - self.at);
        self.next += 1;
        buf.put_slice(&self.bytes[self.at..self.at + size]);
        self.at += size;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
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

/// Everything but signs of life that a stream tells, each read given up and begun again at every wait.
fn told_in_pieces<On: Implementation>(bytes: &[u8], sizes: &[usize], setup: &Setup) -> Vec<Told> {
    told_of_pieces::<On>(Pieces::new(bytes, sizes), setup)
}

fn told_of_pieces<On: Implementation>(io: Pieces, setup: &Setup) -> Vec<Told> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut stream = On::open(io, setup).await;
        let (mut told, mut recorder) = (Vec::new(), Recorder::default());
        loop {
            let read = tokio::select! {
                biased;
                read = stream.read(&mut recorder) => read,
                () = tokio::task::yield_now() => continue,
            };
            match read {
                Ok(Told::Control) => {}
                Ok(more @ Told::Binary(_)) => told.push(more),
                Ok(last) => {
                    told.push(last);
                    return told;
                }
                Err(error) => {
                    told.push(Told::Failed(error));
                    return told;
                }
            }
        }
    })
}

/// Messages, how each is cut into fragments, and pings and pongs between any frames.
fn messages() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Frame>)> {
    let length = prop_oneof![4 => 0usize..300, 1 => 0usize..5_000, 1 => Just(70_000usize)];
    let message = (length, 1usize..400, any::<[u8; 4]>(), proptest::collection::vec(0u8..6, 1..6));
    proptest::collection::vec(message, 0..6).prop_map(|messages| {
        let (mut payloads, mut frames) = (Vec::new(), Vec::new());
        for (length, fragment, mask, between) in messages {
            let payload = counted(length);
            let fragment = if length > 5_000 { fragment * 100 } else { fragment };
            let mut between = between.iter().cycle();
            for frame in Frame::fragments(&payload, fragment) {
                match between.next() {
                    Some(0) => frames.push(Frame::new(Opcode::PING, counted(fragment % 126))),
                    Some(1) => frames.push(Frame::new(Opcode::PONG, "")),
                    _ => {}
                }
                frames.push(Frame { mask: Some(mask), ..frame });
            }
            payloads.push(payload.to_vec());
        }
        (payloads, frames)
    })
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![3 => 1usize..10, 2 => 1usize..300, 1 => 1usize..100_000], 1..8)
}

/// Bytes that look like frames often enough to get somewhere.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        any::<Vec<u8>>(),
        (any::<u8>(), any::<u8>(), any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(first, length, mask, payload)| {
                let first = first & 0x8f;
                [&[first, 0x80 | length][..], &mask, &payload].concat()
            }),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|payload| Frame::binary(payload).encode()),
        Just(Frame { fin: false, ..Frame::binary("begun") }.encode()),
        Just(Frame::new(Opcode::CONTINUATION, "ended").encode()),
        Just(vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x0f, 0, 0, 1, 2, 3, 4]),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn the_same_messages_come<On: Implementation>(messages: &[Vec<u8>], frames: &[Frame], sizes: &[usize]) {
    let setup = Setup::default();
    let told = told_in_pieces::<On>(&encoded(frames), sizes, &setup);
    let mut expected: Vec<Told> = messages.iter().cloned().map(Told::Binary).collect();
    expected.push(told.last().cloned().unwrap());
    assert_eq!(told, expected);
    assert!(matches!(told.last(), Some(Told::Failed(StreamError::Io) | Told::Closed)));
    assert_eq!(setup.budget.current(), 0, "what was drawn from the budget is given back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cut_of_any_messages_into_fragments_and_reads_gives_the_messages((messages, frames) in messages(), sizes in sizes()) {
        the_same_messages_come::<OnLean>(&messages, &frames, &sizes);
        the_same_messages_come::<OnTungstenite>(&messages, &frames, &sizes);
    }

    #[test]
    fn any_bytes_are_told_alike_however_they_arrive(bytes in nearly_frames(), first in sizes(), second in sizes()) {
        let setup = Setup { message_bytes_max: 1_000, ..Setup::default() };
        let told = told_in_pieces::<OnLean>(&bytes, &first, &setup);
        prop_assert_eq!(told, told_in_pieces::<OnLean>(&bytes, &second, &setup));
    }

    /// An announcement costs nothing: what is kept at any wait is at most half as much again as arrived.
    #[test]
    fn no_bytes_make_more_wait_than_arrived(bytes in nearly_frames(), sizes in sizes()) {
        let setup = Setup { message_bytes_max: 1 << 40, ..Setup::default() };
        let mut io = Pieces::new(&bytes, &sizes);
        io.watch = Some(setup.budget.clone());
        told_of_pieces::<OnLean>(io, &setup);
        prop_assert_eq!(setup.budget.current(), 0);
    }

    /// Without room for what is not whole, everything that need not wait is told all the same, and then that there is no room.
    #[test]
    fn without_budget_only_what_need_not_wait_is_handled((messages, frames) in messages(), sizes in sizes(), max in 0usize..2_000) {
        let setup = Setup { budget: Budget::new(max), ..Setup::default() };
        let told = told_in_pieces::<OnLean>(&encoded(&frames), &sizes, &setup);
        let (last, before) = told.split_last().unwrap();
        prop_assert!(matches!(last, Told::Failed(StreamError::Io | StreamError::NoRoom)));
        prop_assert!(before.len() <= messages.len());
        for (told, message) in before.iter().zip(messages) {
            prop_assert_eq!(told, &Told::Binary(message));
        }
        prop_assert_eq!(setup.budget.denied() > 0, *last == Told::Failed(StreamError::NoRoom));
    }
}
