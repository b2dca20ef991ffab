//! Requests one after the other on one connection.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long an answer may take: assigning to a whole fleet takes a while.
const TIMEOUT: Duration = Duration::from_secs(120);
const HEADERS_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A client of one server.
pub(super) struct Client {
    address: SocketAddr,
    authority: String,
    token: Option<String>,
    connection: Option<TcpStream>,
}

/// What stands at the start of an answer.
struct Head {
    bytes: usize,
    status: u16,
    body: Body,
    close: bool,
}

#[derive(Clone, Copy)]
enum Body {
    Chunked,
    Length(usize),
}

impl Client {
    pub(super) const fn new(address: SocketAddr, authority: String, token: Option<String>) -> Self {
        Self { address, authority, token, connection: None }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// Status and body of the answer.
    pub(super) fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<(u16, Vec<u8>), String> {
        let reused = self.connection.is_some();
        match self.attempt(method, path, body) {
            // A kept connection may have been closed meanwhile, before the request arrived.
            Err(error) if reused && closed(&error) => self.attempt(method, path, body),
            outcome => outcome,
        }
        .map_err(|error| format!("{method} {path}: {error}"))
    }

    fn attempt(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> io::Result<(u16, Vec<u8>)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
                connection.set_nodelay(true)?;
                connection.set_read_timeout(Some(TIMEOUT))?;
                connection.set_write_timeout(Some(TIMEOUT))?;
                connection
            }
        };
        let body = body.unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.authority).into_bytes();
        if let Some(token) = &self.token {
            request.extend_from_slice(format!("Authorization: Bearer {token}\r\n").as_bytes());
        }
        if !body.is_empty() {
            request.extend_from_slice(b"Content-Type: application/json\r\n");
        }
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        connection.write_all(&request)?;
        let mut received = Vec::new();
        let head = loop {
            if let Some(head) = head(&received)? {
                break head;
            }
            more(&mut connection, &mut received)?;
        };
        let mut rest = received.split_off(head.bytes);
        let body = match head.body {
            Body::Length(length) => {
                while rest.len() < length {
                    more(&mut connection, &mut rest)?;
                }
                rest
            }
            Body::Chunked => loop {
                if let Some(body) = unchunked(&rest)? {
                    break body;
                }
                more(&mut connection, &mut rest)?;
            },
        };
        if !head.close {
            self.connection = Some(connection);
        }
        Ok((head.status, body))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn more(connection: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    let read = connection.read(&mut chunk)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if received.len() + read > ANSWER_BYTES_MAX {
        return Err(invalid("the answer is too large"));
    }
    received.extend_from_slice(&chunk[..read]);
    Ok(())
}

fn head(received: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let bytes = match answer.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(invalid("the answer is not HTTP")),
    };
    let header = |name: &str| {
        let header = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let status = answer.code.unwrap_or(0);
    let body = if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        Body::Chunked
    } else if let Some(length) = header("content-length") {
        let length = length.parse().ok().filter(|length| *length <= ANSWER_BYTES_MAX);
        Body::Length(
            length.ok_or_else(|| invalid("the length of the answer cannot be read, or is too large"))?,
        )
    } else if status == 204 {
        Body::Length(0)
    } else {
        return Err(invalid("the answer has no length"));
    };
    let close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Head { bytes, status, body, close }))
}

/// The content of chunks, once the last is there.
fn unchunked(bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut rest = bytes;
    let mut content = Vec::new();
    loop {
        let (start, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(invalid("the chunks of the answer cannot be read")),
        };
        let length = usize::try_from(length).map_err(|_| invalid("a chunk of the answer is too large"))?;
        let Some(chunk) = rest[start..].get(..length.saturating_add(2)) else { return Ok(None) };
        if length == 0 {
            return Ok(Some(content));
        }
        content.extend_from_slice(&chunk[..length]);
        rest = &rest[start + length + 2..];
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_once_the_last_is_there() {
        let whole = b"4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n";
        assert_eq!(unchunked(whole).unwrap().unwrap(), b"Wikipedia");
        for end in 0..whole.len() {
            assert_eq!(unchunked(&whole[..end]).unwrap(), None);
        }
        unchunked(b"zz\r\n").unwrap_err();
    }

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let head = head(text).unwrap().unwrap();
        assert_eq!((head.status, head.close, &text[head.bytes..]), (200, true, &b"hello"[..]));
        assert!(matches!(head.body, Body::Length(5)));
        assert!(super::head(&text[..20]).unwrap().is_none());
    }
}
