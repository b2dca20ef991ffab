//! A client of the admin API that is written from RFC 9112 and not from the server: one request a connection, over
//! plain TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// An answer may take this long. Far above what the server allows itself for any request.
const PATIENCE: Duration = Duration::from_secs(60);

/// The admin API at an address, with a token.
#[derive(Clone, Debug)]
pub struct Rest {
    address: SocketAddr,
    token: String,
}

impl Rest {
    /// A client.
    #[must_use]
    pub fn new(address: SocketAddr, token: impl Into<String>) -> Self {
        Self { address, token: token.into() }
    }

    /// GET; the body of a 200.
    ///
    /// # Errors
    ///
    /// No answer, or another status.
    pub fn get(&self, path: &str) -> Outcome<Value> {
        self.call("GET", path, &[], None)?.success()
    }

    /// POST; the body of a 2xx.
    ///
    /// # Errors
    ///
    /// No answer, or another status.
    pub fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.call("POST", path, &[], Some(body))?.success()
    }

    /// PUT; the body of a 2xx.
    ///
    /// # Errors
    ///
    /// No answer, or another status.
    pub fn put(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.call("PUT", path, &[], Some(body))?.success()
    }

    /// Any request; an answer of any status.
    ///
    /// # Errors
    ///
    /// No complete answer: the server cannot have promised anything.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Outcome<Answer> {
        let mut head = self.head(method, path);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        exchange(self.address, format!("{head}\r\n{body}").as_bytes())
    }

    /// POST of a file; the body of a 2xx.
    ///
    /// # Errors
    ///
    /// No answer, or another status.
    pub fn upload(&self, path: &str, file: &[u8]) -> Outcome<Value> {
        let mut request = self.head("POST", path);
        request.push_str(&format!(
            "Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            file.len()
        ));
        exchange(self.address, &[request.as_bytes(), file].concat())?.success()
    }

    fn head(&self, method: &str, path: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if !self.token.is_empty() {
            head.push_str(&format!("Authorization: Bearer {}\r\n", self.token));
        }
        head
    }
}

/// Writes a request as it is and reads the answer up to the end of the connection or of its body.
///
/// # Errors
///
/// The connection fails, or ends before the answer does.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Outcome<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(answer) = Answer::parse(&bytes)? {
            return Ok(answer);
        }
        match stream.read(&mut buffer)? {
            0 => {
                return Err(Failure::new(format!("the answer ended after {} bytes", bytes.len())));
            }
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of a 2xx as JSON, `null` if it is empty.
    ///
    /// # Errors
    ///
    /// Another status, or no JSON.
    pub fn success(self) -> Outcome<Value> {
        if !(200..300).contains(&self.status) {
            return Err(Failure::new(format!("status {}: {}", self.status, self.text())));
        }
        if self.body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&self.body)?) }
    }

    /// `None` while more is to come.
    fn parse(bytes: &[u8]) -> Outcome<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..end])?;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| Failure::new(format!("no status in {status_line:?}")))?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: Vec::new() };
        let rest = &bytes[end + 4..];
        let body = if answer
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            unchunk(rest)?
        } else if status == 101 || status == 204 {
            Some(Vec::new())
        } else {
            let length: usize = match answer.header("content-length") {
                Some(text) => text.parse()?,
                None => return Err(Failure::new("neither a length nor chunks")),
            };
            rest.get(..length).map(<[u8]>::to_vec)
        };
        Ok(body.map(|body| {
            answer.body = body;
            answer
        }))
    }
}

/// `None` while more is to come.
fn unchunk(mut bytes: &[u8]) -> Outcome<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&bytes[..end])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16)?;
        let Some(chunk) = bytes.get(end + 2..end + 2 + size + 2) else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_body_is() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert!(Answer::parse(&text[..text.len() - 1]).unwrap().is_none());
        assert_eq!(Answer::parse(text).unwrap().unwrap().success().unwrap(), serde_json::json!({}));
    }

    #[test]
    fn chunks_are_joined() {
        let text =
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1;x=y\r\n]\r\n0\r\n\r\n";
        assert!(Answer::parse(&text[..text.len() - 3]).unwrap().is_none());
        assert_eq!(Answer::parse(text).unwrap().unwrap().success().unwrap(), serde_json::json!([]));
    }

    #[test]
    fn an_answer_that_failed_is_a_failure_with_its_text() {
        let text = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope";
        let failure = Answer::parse(text).unwrap().unwrap().success().unwrap_err();
        assert_eq!(format!("{failure:?}"), "status 404: nope");
    }
}
