//! The frame seam on frames of our own, for servers with many connections (RFC 6455 §5 to §7, the server's side).
//!
//! An idle connection holds no buffer. What arrives is received into a scratch buffer of the thread and handled there; only
//! what is not whole when the scratch runs dry is kept, as much as arrived, drawn from the byte budget until its message is
//! handled. Messages are written from where they lie, frame by frame through the scratch, and what the peer does not take is
//! remembered as an offset.

mod control;
mod decoder;
mod layout;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::task::coop::poll_proceed;

use self::control::{ControlFrame, Replies};
use self::decoder::{Decoder, Found};
use self::layout::Layout;
use super::closing;
use super::frames::{Incoming, Listener, MessageStream, Pieces, StreamError};
use super::header::{Opcode, close_code};
use super::scratch;
use crate::net::admission::budget::{Budget, Charge};
use crate::refusal::CloseCode;

/// Pings and pongs in a row that count as one sign of life.
const CONTROL_FRAMES_AT_ONCE: usize = 64;

pub(super) struct Lean<S> {
    io: S,
    budget: Budget,
    frame_bytes: usize,
    decoder: Decoder,
    /// What has arrived and was not looked at yet. Boxed, as is all that most connections do not have most of the time.
    rest: Option<Box<Rest>>,
    replies: Option<Box<Replies>>,
    /// A message was begun and is not written: nothing else may follow it.
    amid_write: bool,
    /// The listener knows that the beginning of something is held.
    holding: bool,
    /// What is to be said of the stream once what came before is handled.
    failed: Option<StreamError>,
}

/// Bytes behind a message that was handed out, or the beginning of a frame.
struct Rest {
    bytes: Box<[u8]>,
    at: usize,
    _charge: Charge,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Lean<S> {
    /// Takes over a socket after the upgrade, with what was already read from it.
    pub(super) fn new(
        io: S,
        already_read: &Bytes,
        message_bytes_max: usize,
        frame_bytes: usize,
        budget: &Budget,
    ) -> Self {
        let mut lean = Self {
            io,
            budget: budget.clone(),
            frame_bytes,
            decoder: Decoder::new(message_bytes_max),
            rest: None,
            replies: None,
            amid_write: false,
            holding: false,
            failed: None,
        };
        lean.failed = lean.keep(already_read).err();
        lean
    }

    fn poll_read<L: Listener>(
        &mut self,
        cx: &mut Context<'_>,
        listener: &mut L,
    ) -> Poll<Result<L::Answer, StreamError>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        // Not waited for: a peer may have much to say before it reads.
        if let Poll::Ready(Err(error)) = self.poll_replies(cx) {
            return Poll::Ready(Err(error));
        }
        if self.rest.is_some() {
            // Without a look at the socket nobody else asks whether others want to run.
            ready!(poll_proceed(cx)).made_progress();
        }
        let read = scratch::with(|scratch| self.read_with(scratch, cx, listener));
        if read.is_pending() {
            self.hold(self.rest.is_some() || self.decoder.is_amid(), listener);
        }
        read
    }

    /// Tells whether the beginning of something is held. Not after each control frame: those between the frames of a message
    /// do not make it whole.
    fn hold(&mut self, holding: bool, listener: &mut impl Listener) {
        if holding != self.holding {
            self.holding = holding;
            listener.holding(holding);
        }
    }

    fn read_with<L: Listener>(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        listener: &mut L,
    ) -> Poll<Result<L::Answer, StreamError>> {
        let (mut rest, mut filled) = (self.rest.take(), 0);
        if let Some(mut kept) = rest.take() {
            let looked = self.look(&mut kept.bytes, &mut kept.at, cx, listener)?;
            filled = kept.bytes.len() - kept.at;
            if let Looked::More = looked {
                scratch[..filled].copy_from_slice(&kept.bytes[kept.at..]);
                // As long as it is no larger than what is left, it stays as it is until there is more.
                rest = (kept.at == 0).then_some(kept);
            } else {
                self.rest = (filled > 0).then_some(kept);
                return looked.into_poll();
            }
        }
        loop {
            let mut room = ReadBuf::new(&mut scratch[filled..]);
            match Pin::new(&mut self.io).poll_read(cx, &mut room) {
                Poll::Pending if rest.is_some() => {
                    self.rest = rest;
                    return Poll::Pending;
                }
                Poll::Pending => {
                    self.keep(&scratch[..filled])?;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if !room.filled().is_empty() => filled += room.filled().len(),
                // The TLS layer below had no room for a record.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
                    return Poll::Ready(Err(StreamError::NoRoom));
                }
                Poll::Ready(_) => return Poll::Ready(Err(StreamError::Io)),
            }
            rest = None;
            let mut at = 0;
            let looked = self.look(&mut scratch[..filled], &mut at, cx, listener)?;
            if let Looked::More = looked {
                scratch.copy_within(at..filled, 0);
                filled -= at;
            } else {
                // The message has been handled, so that there is no room for what follows it is said next time.
                self.failed = self.keep(&scratch[at..filled]).err();
                return looked.into_poll();
            }
        }
    }

    /// Looks at what has arrived until there is something to tell.
    fn look<L: Listener>(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        cx: &mut Context<'_>,
        listener: &mut L,
    ) -> Result<Looked<L::Answer>, StreamError> {
        let mut control_frames = 0;
        loop {
            let told = match self.decoder.next(input, at, &self.budget)? {
                Found::More if control_frames == 0 => return Ok(Looked::More),
                Found::More => listener.incoming(Incoming::Control),
                Found::Pause => match poll_proceed(cx) {
                    Poll::Pending => return Ok(Looked::Pause),
                    Poll::Ready(proceed) => {
                        proceed.made_progress();
                        continue;
                    }
                },
                found @ (Found::Ping(_) | Found::Pong) => {
                    if let Found::Ping(payload) = found {
                        self.reply(cx, ControlFrame::new(Opcode::Pong, &input[payload]))?;
                    }
                    control_frames += 1;
                    let another = input.get(*at).is_some_and(|first| first & 0x8 != 0);
                    if another && control_frames < CONTROL_FRAMES_AT_ONCE {
                        continue;
                    }
                    listener.incoming(Incoming::Control)
                }
                Found::Close(payload) => {
                    let code = close_code(&input[payload])?.map(u16::to_be_bytes);
                    let code = code.as_ref().map_or(&[][..], |code| code);
                    self.reply(cx, ControlFrame::new(Opcode::Close, code))?;
                    listener.incoming(Incoming::Closed)
                }
                Found::Message(message) => {
                    self.hold(false, listener);
                    listener.incoming(Incoming::Binary(&input[message]))
                }
                Found::Assembled(message) => {
                    self.hold(false, listener);
                    listener.incoming(Incoming::Binary(&message.bytes))
                }
                Found::Text => listener.incoming(Incoming::Text),
            };
            return Ok(Looked::Told(told));
        }
    }

    /// Keeps what is left until there is more.
    fn keep(&mut self, left: &[u8]) -> Result<(), StreamError> {
        if !left.is_empty() {
            let charge = self.budget.try_charge(left.len()).ok_or(StreamError::NoRoom)?;
            self.rest = Some(Box::new(Rest { bytes: left.into(), at: 0, _charge: charge }));
        }
        Ok(())
    }

    /// Answers at once where the peer takes it, else as soon as it does.
    fn reply(&mut self, cx: &mut Context<'_>, frame: ControlFrame) -> Result<(), StreamError> {
        if let Some(replies) = &mut self.replies {
            replies.put(frame);
            return Ok(());
        }
        let mut sent = 0;
        if frame.poll_send(&mut self.io, cx, &mut sent)?.is_pending() {
            let charge = self.budget.try_charge(size_of::<Replies>()).ok_or(StreamError::NoRoom)?;
            self.replies = Some(Box::new(Replies::new(frame, sent, charge)));
        }
        Ok(())
    }

    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(replies) = &mut self.replies {
            ready!(replies.poll_send(&mut self.io, cx))?;
            self.replies = None;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_control(
        &mut self,
        cx: &mut Context<'_>,
        frame: &ControlFrame,
        sent: &mut usize,
    ) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_replies(cx))?;
        frame.poll_send(&mut self.io, cx, sent)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        message: &impl Pieces,
        writing: &mut Writing,
        progress: &impl Fn(),
    ) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_replies(cx))?;
        while writing.written < writing.total {
            let written = scratch::with(|scratch| {
                let filled = writing.layout.fill(message, writing.written, scratch);
                Pin::new(&mut self.io).poll_write(cx, &scratch[..filled])
            });
            match written {
                Poll::Ready(Ok(taken @ 1..)) => {
                    writing.written += taken;
                    if let Some(charge) = &mut writing.waits {
                        charge.shrink(taken);
                        progress();
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Err(StreamError::Io)),
                Poll::Pending => {
                    self.amid_write = writing.written > 0;
                    if writing.waits.is_none() {
                        let waits = self.budget.try_charge(writing.total - writing.written);
                        writing.waits = Some(waits.ok_or(StreamError::NoRoom)?);
                    }
                    return Poll::Pending;
                }
            }
        }
        self.amid_write = false;
        Pin::new(&mut self.io).poll_flush(cx).map_err(|_| StreamError::Io)
    }
}

/// What looking at received bytes came to.
enum Looked<T> {
    /// Nothing more that is whole.
    More,
    /// Others want to run first; there may be more.
    Pause,
    Told(T),
}

impl<T> Looked<T> {
    fn into_poll(self) -> Poll<Result<T, StreamError>> {
        match self {
            Self::More | Self::Pause => Poll::Pending,
            Self::Told(told) => Poll::Ready(Ok(told)),
        }
    }
}

/// A message that is being written.
#[derive(Debug)]
struct Writing {
    layout: Layout,
    total: usize,
    written: usize,
    /// What the peer has not taken yet, once it makes the server wait.
    waits: Option<Charge>,
}

impl Writing {
    fn new(message: &impl Pieces, frame_bytes: usize) -> Self {
        let layout = Layout::new(message.len(), frame_bytes);
        Self { layout, total: layout.total(), written: 0, waits: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> MessageStream for Lean<S> {
    // These are no `async fn`s: those hold their arguments twice, and the task of every connection has room for them.
    fn read<L: Listener>(
        &mut self,
        listener: &mut L,
    ) -> impl Future<Output = Result<L::Answer, StreamError>> + Send {
        poll_fn(move |cx| self.poll_read(cx, listener))
    }

    fn write(
        &mut self,
        message: impl Pieces,
        progress: impl Fn() + Send + Sync,
    ) -> impl Future<Output = Result<(), StreamError>> + Send {
        let mut writing = Writing::new(&message, self.frame_bytes);
        poll_fn(move |cx| self.poll_write(cx, &message, &mut writing, &progress))
    }

    fn ping(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send {
        let mut sent = 0;
        poll_fn(move |cx| self.poll_control(cx, &ControlFrame::new(Opcode::Ping, &[]), &mut sent))
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        self.decoder.give_up();
        let closed =
            self.rest.take().is_some_and(|rest| closing::ends_in_close_frame(&rest.bytes[rest.at..]));
        if !self.amid_write {
            let (frame, mut sent) = (ControlFrame::close(code, reason), 0);
            if poll_fn(|cx| self.poll_control(cx, &frame, &mut sent)).await.is_err() {
                return;
            }
            if !closed {
                closing::until_closed(&mut self.io).await;
            }
        }
        self.shutdown().await;
    }

    async fn shutdown(&mut self) {
        if !self.amid_write {
            // The answer to the peer's Close frame may wait among them.
            let _ = poll_fn(|cx| self.poll_replies(cx)).await;
        }
        // It may be broken already; then there is nothing to end.
        let _ = self.io.shutdown().await;
    }
}
