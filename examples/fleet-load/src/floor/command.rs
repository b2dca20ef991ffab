//! The control port: `POST /push?bytes=N` and `GET /agents`, one request at a time, answered with a number.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use mio::Waker;

/// Largest config that is pushed: agents send it back, and what they send has to fit into the buffer that all share.
const PUSH_BYTES_MAX: usize = 512 << 10;
/// Longest line of a request, and most lines.
const LINE_BYTES_MAX: u64 = 8 * 1024;
const LINES_MAX: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// How many agents there are.
    Count,
    /// A config of that size for all.
    Push(usize),
}

/// What waits to be done, and whom to tell.
pub(super) struct Commands {
    waiting: Receiver<(Command, Sender<usize>)>,
}

impl Commands {
    /// Listens in a thread of its own, which wakes the loop.
    pub(super) fn listen(address: SocketAddr, waker: Waker) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let (sender, waiting) = mpsc::channel();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Whoever asks sees himself what went wrong on his connection.
                let _ = serve(&connection, &sender, &waker);
            }
        });
        Ok((Self { waiting }, address))
    }

    pub(super) fn next(&self) -> Option<(Command, Sender<usize>)> {
        self.waiting.try_recv().ok()
    }
}

fn serve(
    connection: &TcpStream,
    commands: &Sender<(Command, Sender<usize>)>,
    waker: &Waker,
) -> io::Result<()> {
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(io::Read::take(connection, LINE_BYTES_MAX * LINES_MAX as u64));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let command = understand(&line);
    for _ in 0..LINES_MAX {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let (status, text) = match command {
        Ok(command) => {
            let (sender, answer) = mpsc::channel();
            commands.send((command, sender)).map_err(io::Error::other)?;
            waker.wake()?;
            ("200 OK", answer.recv().map_err(io::Error::other)?.to_string())
        }
        Err(fault) => ("400 Bad Request", fault),
    };
    let mut connection = connection;
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

fn understand(line: &str) -> Result<Command, String> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some("/agents")) => Ok(Command::Count),
        (Some("POST"), Some(path)) if path.starts_with("/push") => path
            .strip_prefix("/push?bytes=")
            .and_then(|bytes| bytes.parse().ok())
            .filter(|bytes| (1..=PUSH_BYTES_MAX).contains(bytes))
            .map(Command::Push)
            .ok_or_else(|| format!("write it as /push?bytes=N with N from 1 to {PUSH_BYTES_MAX}")),
        _ => Err("there is POST /push?bytes=N and GET /agents".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_others_told_what_there_is() {
        assert_eq!(understand("GET /agents HTTP/1.1\r\n"), Ok(Command::Count));
        assert_eq!(understand("POST /push?bytes=4096 HTTP/1.1\r\n"), Ok(Command::Push(4_096)));
        for line in ["POST /push?bytes=0 x", "POST /push?bytes=99999999999 x", "POST /push x", "GET / x", ""]
        {
            assert!(understand(line).unwrap_err().contains("/push?bytes=N"), "{line}");
        }
    }
}
