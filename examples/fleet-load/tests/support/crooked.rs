//! A WebSocket server that answers, but not as it should: a load program that does not notice is of no use.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use fleet_load::frame;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Answers with an error for the agent's mistake, in every so many messages.
    BadRequest(u64),
    /// Closes the connection instead of an answer, in every so many messages.
    Closes(u64),
    /// Answers a message with bytes that are no message, in every so many.
    Garbles(u64),
    /// Does not answer one in so many messages.
    Loses(u64),
    /// Refuses the first connections with this status and `Retry-After: 0`.
    Refuses(u64, u16),
    /// Answers one in so many messages with the identity of another agent.
    Mistakes(u64),
}

pub struct Crooked {
    pub address: SocketAddr,
    /// How often it did what it should not.
    pub done: Arc<AtomicU64>,
}

impl Crooked {
    pub fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let messages = Arc::new(AtomicU64::new(0));
        let server = Self { address, done: Arc::clone(&done) };
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (done, messages) = (Arc::clone(&done), Arc::clone(&messages));
                // A connection that ends is no fault here.
                thread::spawn(move || drop(serve(connection.unwrap(), fault, &done, &messages)));
            }
        });
        server
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }
}

fn serve(mut connection: TcpStream, fault: Fault, done: &AtomicU64, messages: &AtomicU64) -> io::Result<()> {
    let mut received = Vec::new();
    let head = loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break String::from_utf8(received.drain(..at + 4).collect()).unwrap();
        }
        more(&mut connection, &mut received)?;
    };
    if let Fault::Refuses(times, status) = fault
        && done.fetch_add(1, Ordering::SeqCst) < times
    {
        return write!(
            connection,
            "HTTP/1.1 {status} No\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    write!(
        connection,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        frame::accept(key.as_bytes())
    )?;
    loop {
        let (payload, end) = loop {
            if let Some(head) = frame::head(&received) {
                let end = head.head_bytes + head.payload_bytes as usize;
                if received.len() >= end {
                    let mut payload = received[head.head_bytes..end].to_vec();
                    frame::mask(&mut payload, head.mask.unwrap(), 0);
                    break (payload, end);
                }
            }
            more(&mut connection, &mut received)?;
        };
        received.drain(..end);
        // The first message of each connection is answered, so that agents get in.
        let number = messages.fetch_add(1, Ordering::SeqCst);
        let turn = |every: u64| number > 100 && number.is_multiple_of(every);
        let mut reply = payload[..19].to_vec();
        let wrong = match fault {
            Fault::BadRequest(every) if turn(every) => {
                reply.extend_from_slice(&[0x12, 2, 8, 1]);
                true
            }
            Fault::Closes(every) if turn(every) => {
                done.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            Fault::Garbles(every) if turn(every) => {
                reply.truncate(10);
                true
            }
            Fault::Loses(every) if turn(every) => {
                done.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            Fault::Mistakes(every) if turn(every) => {
                reply[18] ^= 1;
                true
            }
            _ => false,
        };
        if wrong {
            done.fetch_add(1, Ordering::SeqCst);
        }
        let mut out = Vec::new();
        frame::write_head(frame::BINARY, reply.len(), None, &mut out);
        out.extend_from_slice(&reply);
        connection.write_all(&out)?;
    }
}

fn more(connection: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4_096];
    let read = connection.read(&mut chunk)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    received.extend_from_slice(&chunk[..read]);
    Ok(())
}
