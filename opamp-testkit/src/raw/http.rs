//! HTTP/1.1 by hand.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use opamp_proto::pb;
use prost::Message;

use super::RawError;
use super::stream::{Ending, Endpoint, Pieces, RawStream};
use crate::transcript::Transcript;

/// One HTTP connection; requests follow each other on it for as long as both sides keep it open.
#[derive(Debug)]
pub struct RawHttp {
    stream: RawStream,
}

impl RawHttp {
    /// Connects.
    ///
    /// # Errors
    ///
    /// As for [`RawStream::connect`].
    pub async fn connect(endpoint: &Endpoint, transcript: &Transcript) -> Result<Self, RawError> {
        Ok(Self { stream: RawStream::connect(endpoint, transcript).await? })
    }

    /// HTTP on a stream that exists already.
    pub fn over(stream: RawStream) -> Self {
        Self { stream }
    }

    /// Sends a whole request.
    ///
    /// # Errors
    ///
    /// The server is gone or takes nothing.
    pub async fn send(&mut self, request: &HttpRequest) -> Result<(), RawError> {
        self.note(request);
        self.stream.send(&request.encode()).await
    }

    /// Sends a whole request in small pieces.
    ///
    /// # Errors
    ///
    /// As for [`RawHttp::send`].
    pub async fn send_in(&mut self, request: &HttpRequest, pieces: Pieces) -> Result<(), RawError> {
        self.note(request);
        self.stream.send_in(&request.encode(), pieces).await
    }

    /// Sends only the request line and the headers.
    ///
    /// # Errors
    ///
    /// As for [`RawHttp::send`].
    pub async fn send_head(&mut self, request: &HttpRequest) -> Result<(), RawError> {
        self.note(request);
        self.stream.send(&request.head()).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// As for [`RawHttp::send`].
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        self.stream.send(bytes).await
    }

    /// Reads one response with its body.
    ///
    /// # Errors
    ///
    /// It does not come in time, the connection ends first, or it is not HTTP/1.1.
    pub async fn read_response(&mut self) -> Result<HttpResponse, RawError> {
        let head = self.read_head().await?;
        let body = if matches!(head.status, 100..=199 | 204 | 304) {
            Bytes::new()
        } else {
            self.read_body(&head).await?
        };
        let response = HttpResponse { body, ..head };
        let transcript = self.stream.transcript();
        transcript.server(&format!("{} {} {} B", response.status, response.reason, response.body.len()));
        if response.status == 200
            && response.header("content-type").is_some_and(|kind| kind.starts_with("application/x-protobuf"))
            && let Ok(message) = response.message()
        {
            transcript.server_message(&message);
        }
        Ok(response)
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    ///
    /// As for [`RawHttp::send`] and [`RawHttp::read_response`].
    pub async fn exchange(&mut self, request: &HttpRequest) -> Result<HttpResponse, RawError> {
        self.send(request).await?;
        self.read_response().await
    }

    /// Waits until the server ends the connection and requires that it says nothing more.
    ///
    /// # Errors
    ///
    /// It stays open, or more bytes come.
    pub async fn expect_end(&mut self) -> Result<Ending, RawError> {
        let (rest, ending) = self.stream.read_to_end().await?;
        if rest.is_empty() {
            Ok(ending)
        } else {
            Err(self.stream.unexpected(format!("{} B after the end", rest.len())))
        }
    }

    /// The stream underneath.
    pub fn stream_mut(&mut self) -> &mut RawStream {
        &mut self.stream
    }

    /// The stream underneath, for another protocol.
    pub fn into_stream(self) -> RawStream {
        self.stream
    }

    pub(super) async fn read_head(&mut self) -> Result<HttpResponse, RawError> {
        let bytes = self.stream.read_until(b"\r\n\r\n", "the head of a response").await?;
        parse_head(&bytes).map_err(|what| self.stream.unexpected(what))
    }

    async fn read_body(&mut self, head: &HttpResponse) -> Result<Bytes, RawError> {
        if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks().await;
        }
        match head.header("content-length").map(str::parse) {
            Some(Ok(length)) => self.stream.read_exact(length, "the body of a response").await,
            Some(Err(_)) => Err(self.stream.unexpected("a Content-Length that is no number".to_owned())),
            None => Ok(self.stream.read_to_end().await?.0),
        }
    }

    async fn read_chunks(&mut self) -> Result<Bytes, RawError> {
        let mut body = BytesMut::new();
        loop {
            let line = self.stream.read_until(b"\r\n", "the size of a chunk").await?;
            let size = std::str::from_utf8(&line)
                .ok()
                .and_then(|line| usize::from_str_radix(line.trim_end().split(';').next()?, 16).ok())
                .ok_or_else(|| self.stream.unexpected("a chunk without a size".to_owned()))?;
            if size == 0 {
                // No trailers are expected; the last chunk ends with an empty line.
                self.stream.read_until(b"\r\n", "the end of a chunked body").await?;
                return Ok(body.freeze());
            }
            body.extend_from_slice(&self.stream.read_exact(size, "a chunk").await?);
            self.stream.read_exact(2, "the end of a chunk").await?;
        }
    }

    fn note(&self, request: &HttpRequest) {
        let transcript = self.stream.transcript();
        transcript.agent(&format!("{} {} {} B", request.method, request.target, request.body.len()));
        if request.is_opamp()
            && let Ok(message) = pb::AgentToServer::decode(request.plain_body())
        {
            transcript.agent_message(&message);
        }
    }
}

/// A request, exactly as it will be written.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Method.
    pub method: String,
    /// Request target, usually the path.
    pub target: String,
    /// Header lines in order, without the one that [`Framing`] adds.
    pub headers: Vec<(String, String)>,
    /// Body before framing.
    pub body: Bytes,
    /// How the body is delimited.
    pub framing: Framing,
}

/// How a request body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// In chunks of this many bytes.
    Chunked(usize),
    /// By a `Content-Length` that says something else than the length of the body.
    Claimed(u64),
    /// By a correct `Content-Length`.
    Length,
    /// Not at all: no header is added.
    None,
}

impl HttpRequest {
    /// A request with a `Host` header and nothing else.
    pub fn new(method: &str, endpoint: &Endpoint) -> Self {
        Self {
            method: method.to_owned(),
            target: endpoint.path.clone(),
            headers: vec![("Host".to_owned(), endpoint.host.clone())],
            body: Bytes::new(),
            framing: Framing::None,
        }
    }

    /// An OpAMP request with any body.
    pub fn post(endpoint: &Endpoint, body: impl Into<Bytes>) -> Self {
        Self { framing: Framing::Length, body: body.into(), ..Self::new("POST", endpoint) }
            .with("Content-Type", "application/x-protobuf")
    }

    /// An OpAMP request with this message as body.
    pub fn opamp(endpoint: &Endpoint, message: &pb::AgentToServer) -> Self {
        Self::post(endpoint, message.encode_to_vec())
    }

    /// Adds a header line.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes every line of a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Replaces a header.
    pub fn replacing(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    /// Adds `Authorization: Bearer <token>`.
    pub fn bearer(self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    /// Changes how the body is delimited.
    pub fn framed(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Compresses the body and declares it.
    pub fn gzipped(mut self) -> Self {
        self.body = gzip(&self.body);
        self.with("Content-Encoding", "gzip")
    }

    /// Request line and headers with the empty line.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.framing {
            Framing::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::Claimed(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
            Framing::None => {}
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The whole request.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.head();
        match self.framing {
            Framing::Chunked(size) => {
                for chunk in self.body.chunks(size.max(1)) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            _ => bytes.extend_from_slice(&self.body),
        }
        bytes
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn is_opamp(&self) -> bool {
        self.header("Content-Type").is_some_and(|kind| kind.starts_with("application/x-protobuf"))
    }

    fn plain_body(&self) -> Bytes {
        match self.header("Content-Encoding") {
            Some("gzip") => gunzip(&self.body).unwrap_or_default(),
            _ => self.body.clone(),
        }
    }
}

/// A response.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// Header lines in order.
    pub headers: Vec<(String, String)>,
    /// Body as received, without chunk framing but still compressed.
    pub body: Bytes,
}

impl HttpResponse {
    /// The first line of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body with its `Content-Encoding` undone.
    ///
    /// # Errors
    ///
    /// The body is not what the header says, or the coding is unknown.
    pub fn plain_body(&self) -> Result<Bytes, String> {
        match self.header("content-encoding") {
            None | Some("identity") => Ok(self.body.clone()),
            Some("gzip") => {
                gunzip(&self.body).map_err(|fault| format!("a gzip body that is not gzip: {fault}"))
            }
            Some(other) => Err(format!("the unknown content coding {other}")),
        }
    }

    /// The body as a message from the server.
    ///
    /// # Errors
    ///
    /// The body is no such message.
    pub fn message(&self) -> Result<pb::ServerToAgent, String> {
        pb::ServerToAgent::decode(self.plain_body()?)
            .map_err(|fault| format!("a body that is no ServerToAgent: {fault}"))
    }
}

/// Compresses with gzip.
pub fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to a vector cannot fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}

/// Undoes gzip.
///
/// # Errors
///
/// The bytes are not gzip.
pub fn gunzip(packed: &[u8]) -> io::Result<Bytes> {
    let mut plain = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut plain)?;
    Ok(plain.into())
}

fn parse_head(bytes: &[u8]) -> Result<HttpResponse, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "a response head that is not UTF-8".to_owned())?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let mut words = status_line.splitn(3, ' ');
    let (version, status) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let status = match status.parse() {
        Ok(status) if version == "HTTP/1.1" && status > 99 => status,
        _ => return Err(format!("no HTTP/1.1 status line: {status_line:?}")),
    };
    let headers = lines
        .map(|line| match line.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.trim().to_owned())),
            None => Err(format!("no header line: {line:?}")),
        })
        .collect::<Result<_, _>>()?;
    Ok(HttpResponse {
        status,
        reason: words.next().unwrap_or_default().to_owned(),
        headers,
        body: Bytes::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::plain(([127, 0, 0, 1], 4320).into())
    }

    #[test]
    fn a_request_is_written_as_asked() {
        let request = HttpRequest::post(&endpoint(), "ab").bearer("t");
        assert_eq!(
            String::from_utf8(request.encode()).unwrap(),
            "POST /v1/opamp HTTP/1.1\r\nHost: 127.0.0.1:4320\r\nContent-Type: application/x-protobuf\r\n\
             Authorization: Bearer t\r\nContent-Length: 2\r\n\r\nab"
        );
        let request = HttpRequest::post(&endpoint(), "abcde").without("Host").framed(Framing::Chunked(2));
        assert_eq!(
            String::from_utf8(request.encode()).unwrap(),
            "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nab\r\n2\r\ncd\r\n1\r\ne\r\n0\r\n\r\n"
        );
        let request = HttpRequest::post(&endpoint(), "abcde").framed(Framing::Claimed(99));
        assert!(String::from_utf8(request.encode()).unwrap().ends_with("Content-Length: 99\r\n\r\nabcde"));
    }

    #[test]
    fn a_response_head_is_read_strictly() {
        let head = parse_head(b"HTTP/1.1 413 Payload Too Large\r\nA:  b \r\n\r\n").unwrap();
        assert_eq!(
            (head.status, head.reason.as_str(), head.header("a")),
            (413, "Payload Too Large", Some("b"))
        );
        for bad in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 x OK\r\n\r\n", "HTTP/1.1 200 OK\r\nabc\r\n\r\n"] {
            assert!(parse_head(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn gzip_is_undone() {
        let plain = vec![7; 100_000];
        let packed = gzip(&plain);
        assert!(packed.len() < 1000);
        assert_eq!(gunzip(&packed).unwrap(), plain);
        assert!(gunzip(b"not gzip").is_err());
    }
}
