//! The task of one WebSocket: it reads, has messages handled, writes, and ends.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use opamp_proto::frame::Framing;

use super::desk::{Answer, Desk, Due, End};
use super::frames::{MessageStream, StreamError};
use crate::net::connection::Connection;
use crate::net::core::Core;
use crate::session::Outbox;
use crate::snapshot::DisconnectReason;

/// A connection, ready to run.
pub(super) struct Task<S> {
    stream: S,
    desk: Desk,
    connection: Arc<Connection>,
    /// Orders being carried out. Boxed: most of the time there are none.
    due: Option<Box<Due>>,
}

impl<S: MessageStream> Task<S> {
    pub(super) fn new(core: Arc<Core>, stream: S, connection: Arc<Connection>) -> Self {
        let desk = Desk::new(core, Arc::clone(&connection));
        Self { stream, desk, connection, due: None }
    }

    /// Runs it to its end. Fixed order of polling: mailbox, then socket.
    ///
    /// Not an `async fn`: it would hold the task twice, as its argument and as what it became.
    #[expect(clippy::manual_async_fn, reason = "as above")]
    pub(super) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let end = loop {
                let mut answer = match self.next_due() {
                    Some(answer) => answer,
                    None => self.wait().await,
                };
                if let Err(end) = self.write(&mut answer).await {
                    break end;
                }
            };
            // On the heap: it comes once, and the idle task must not carry it.
            Box::pin(self.end(end)).await;
        }
    }

    /// What comes next of the orders that were taken.
    fn next_due(&mut self) -> Option<Answer> {
        let due = self.due.as_mut()?;
        let answer = self.desk.next_due(due);
        if answer.is_none() {
            self.due = None;
        }
        answer
    }

    /// Waits for orders and messages.
    async fn wait(&mut self) -> Answer {
        tokio::select! {
            biased;
            () = self.connection.ordered() => match self.desk.take_orders() {
                Ok(due) => {
                    self.due = Some(Box::new(due));
                    Answer::default()
                }
                Err(end) => end.into(),
            },
            read = self.stream.read(&mut self.desk) => match read {
                Ok(answer) => answer,
                Err(error) => self.desk.failed(error),
            },
        }
    }

    async fn write(&mut self, answer: &mut Answer) -> Result<(), End> {
        if self.due.as_mut().is_some_and(|due| std::mem::take(&mut due.ping)) {
            let written = bounded(&self.desk.core, &self.connection, pin!(self.stream.ping())).await;
            self.judge(written)?;
        }
        if let Some(out) = &answer.out {
            let written = self.write_messages(out).await;
            answer.out.take().into_iter().for_each(|out| self.desk.core.reuse(out));
            if let (Err(_), Some(slot)) = (&written, &answer.slot) {
                self.desk.unwritten(slot);
            }
            match answer.end.take() {
                // Its reason stands, and is counted; what could not be written is followed by nothing.
                Some(end) if written.is_err() => return Err(End { close: None, ..end }),
                end => answer.end = end,
            }
            self.judge(written)?;
        }
        answer.end.take().map_or(Ok(()), Err)
    }

    async fn write_messages(&mut self, out: &Outbox) -> Result<(), Unwritten> {
        for message in out.messages() {
            let message = match self.desk.framing {
                Some(Framing::Headerless) => message.get(1..).unwrap_or_default(),
                Some(Framing::Header) | None => message,
            };
            let progress = || {
                // A peer that takes what is written is alive, and its deadline begins anew.
                let now = self.desk.core.now().mono;
                self.connection.writing(Some(now));
                self.connection.heard(now);
            };
            let write = pin!(self.stream.write(message, progress));
            bounded(&self.desk.core, &self.connection, write).await?;
            self.desk.core.counters.frame_sent();
        }
        Ok(())
    }

    fn judge(&self, written: Result<(), Unwritten>) -> Result<(), End> {
        written.map_err(|unwritten| match unwritten {
            Unwritten::Late => End { close: None, reason: DisconnectReason::Timeout, text: "" },
            Unwritten::Failed(StreamError::NoRoom) => self.desk.slow_without_room(),
            Unwritten::Failed(_) => End::CLOSED,
        })
    }

    async fn end(&mut self, end: End) {
        self.desk.leave(&end);
        let last = async {
            match end.close {
                Some(code) => self.stream.close(code, end.text).await,
                None => self.stream.shutdown().await,
            }
        };
        // A peer that does not play along is dropped.
        let _ = tokio::time::timeout(self.desk.core.settings.close_timeout, last).await;
    }
}

/// Why a write did not succeed.
enum Unwritten {
    Failed(StreamError),
    /// The peer took nothing for too long.
    Late,
}

/// A write that the sweep can end when the peer takes nothing for too long. One that the kernel takes at once, as nearly all,
/// has no deadline.
async fn bounded(
    core: &Core,
    connection: &Connection,
    mut write: Pin<&mut (impl Future<Output = Result<(), StreamError>> + Send)>,
) -> Result<(), Unwritten> {
    if let Poll::Ready(written) = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await {
        connection.writing(None);
        return written.map_err(Unwritten::Failed);
    }
    connection.writing(Some(core.now().mono));
    let written = tokio::select! {
        biased;
        written = write => written.map_err(Unwritten::Failed),
        () = connection.write_aborted() => Err(Unwritten::Late),
    };
    connection.writing(None);
    written
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::net::tls::TlsStream;
    use crate::net::websocket::lean::Lean;
    use crate::net::websocket::tungstenite::Tungstenite;

    /// The size of what a function returns, without calling it.
    fn size_of_returned<A, R>(_function: fn(A) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn the_task_of_an_idle_socket_fits_its_budget() {
        let lean = size_of_returned(Task::<Lean<TcpStream>>::run);
        let over_tls = size_of_returned(Task::<Lean<TlsStream<TcpStream>>>::run);
        let tungstenite = size_of_returned(Task::<Tungstenite<TcpStream>>::run);
        assert!(lean <= 640, "{lean} bytes");
        assert!(over_tls <= 768, "{over_tls} bytes over TLS");
        assert!(tungstenite <= 2048, "{tungstenite} bytes on tungstenite");
    }
}
