//! WebSocket by hand: the opening handshake, frames in, frames out.

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use opamp_proto::pb;
use prost::Message;
use sha1::{Digest, Sha1};

use super::RawError;
use super::frame::{CloseFrame, Frame, Length, Opcode};
use super::http::{HttpRequest, HttpResponse, RawHttp};
use super::stream::{Ending, Endpoint, Pieces, RawStream};
use crate::transcript::Transcript;

/// The longest message a script takes from a server.
const RECEIVED_BYTES_MAX: usize = 256 << 20;

/// The opening request of a WebSocket.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// What is sent.
    pub request: HttpRequest,
    /// The key whose answer is checked; sent unless a test removes the header.
    pub key: String,
}

impl Handshake {
    /// A correct one.
    pub fn new(endpoint: &Endpoint) -> Self {
        // The sixteen bytes of the example in RFC 6455 §1.3; any would do, and a script draws no random numbers.
        let key = BASE64.encode(b"the sample nonce");
        let request = HttpRequest::new("GET", endpoint)
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", &key);
        Self { request, key }
    }

    /// Changes the request.
    pub fn map(self, change: impl FnOnce(HttpRequest) -> HttpRequest) -> Self {
        Self { request: change(self.request), key: self.key }
    }

    /// Adds `Authorization: Bearer <token>`.
    pub fn bearer(self, token: &str) -> Self {
        self.map(|request| request.bearer(token))
    }

    /// The answer that the key demands (RFC 6455 §4.2.2).
    pub fn accept(&self) -> String {
        let digest = Sha1::new()
            .chain_update(&self.key)
            .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
            .finalize();
        BASE64.encode(&digest)
    }
}

/// What came of an opening request.
#[derive(Debug)]
pub enum Opening {
    /// The server switched protocols.
    Open(Box<RawWs>),
    /// It answered something else.
    Refused(HttpResponse),
}

/// Something the server sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A binary message, whole, with its header.
    Binary(Bytes),
    /// A close frame.
    Close(CloseFrame),
    /// The end of the stream.
    End(Ending),
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A text message.
    Text(Bytes),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct RawWs {
    stream: RawStream,
    partial: Option<(Opcode, BytesMut)>,
    /// Whether [`RawWs::receive`] and its kin answer pings while they wait; true unless changed.
    pub auto_pong: bool,
}

impl RawWs {
    /// Opens a WebSocket with a correct handshake.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::attempt`]; an answer other than 101 is [`RawError::Unexpected`].
    pub async fn connect(endpoint: &Endpoint, transcript: &Transcript) -> Result<Self, RawError> {
        Self::open(endpoint, &Handshake::new(endpoint), transcript).await
    }

    /// Opens a WebSocket with this handshake.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::connect`].
    pub async fn open(
        endpoint: &Endpoint,
        handshake: &Handshake,
        transcript: &Transcript,
    ) -> Result<Self, RawError> {
        match Self::attempt(endpoint, handshake, transcript).await? {
            Opening::Open(ws) => Ok(*ws),
            Opening::Refused(response) => Err(RawError::Unexpected {
                what: format!("{} {} instead of 101", response.status, response.reason),
                transcript: transcript.to_string(),
            }),
        }
    }

    /// Sends an opening request and takes whatever comes.
    ///
    /// # Errors
    ///
    /// No connection, no answer, or a 101 that breaks RFC 6455 §4.2.2.
    pub async fn attempt(
        endpoint: &Endpoint,
        handshake: &Handshake,
        transcript: &Transcript,
    ) -> Result<Opening, RawError> {
        let mut http = RawHttp::connect(endpoint, transcript).await?;
        http.send(&handshake.request).await?;
        let response = http.read_response().await?;
        if response.status != 101 {
            return Ok(Opening::Refused(response));
        }
        let stream = http.into_stream();
        check_switch(&response, handshake).map_err(|what| stream.unexpected(what))?;
        Ok(Opening::Open(Box::new(Self { stream, partial: None, auto_pong: true })))
    }

    /// The stream underneath.
    pub fn stream_mut(&mut self) -> &mut RawStream {
        &mut self.stream
    }

    /// The stream underneath, for instance to reset it.
    pub fn into_stream(self) -> RawStream {
        self.stream
    }

    /// Sends one frame as it is.
    ///
    /// # Errors
    ///
    /// The server is gone or takes nothing.
    pub async fn send_frame(&mut self, frame: &Frame) -> Result<(), RawError> {
        self.note(frame);
        self.stream.send(&frame.encode()).await
    }

    /// Sends one frame in small pieces.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::send_frame`].
    pub async fn send_frame_in(&mut self, frame: &Frame, pieces: Pieces) -> Result<(), RawError> {
        self.note(frame);
        self.stream.send_in(&frame.encode(), pieces).await
    }

    /// Sends a binary message, header included in `payload`, in one frame.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::send_frame`].
    pub async fn send_binary(&mut self, payload: impl Into<Bytes>) -> Result<(), RawError> {
        self.send_frame(&Frame::binary(payload)).await
    }

    /// Sends a binary message in frames of at most `size` payload bytes.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::send_frame`].
    pub async fn send_fragmented(&mut self, payload: &Bytes, size: usize) -> Result<(), RawError> {
        for frame in Frame::fragments(payload, size) {
            self.send_frame(&frame).await?;
        }
        Ok(())
    }

    /// Sends a message behind the header 0.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::send_frame`].
    pub async fn send_message(&mut self, message: &pb::AgentToServer) -> Result<(), RawError> {
        self.stream.transcript().agent_message(message);
        self.stream.send(&Frame::binary(encode(message)).encode()).await
    }

    /// Waits for the next thing the server sends, pings and the end of the stream included; answers nothing.
    ///
    /// # Errors
    ///
    /// Nothing comes in time, or the server breaks RFC 6455: masks, reserved bits, unknown opcodes, fragmented control
    /// frames, a continuation of nothing.
    pub async fn next(&mut self) -> Result<Received, RawError> {
        loop {
            let frame = match self.read_frame().await {
                Ok(frame) => frame,
                Err(RawError::Closed { .. }) => return Ok(Received::End(Ending::Eof)),
                Err(fault) if fault.is_closed() => return Ok(Received::End(Ending::Reset)),
                Err(fault) => return Err(fault),
            };
            if let Some(received) = self.take(frame)? {
                return Ok(received);
            }
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::next`]; anything but a binary message with header 0 is [`RawError::Unexpected`], except pings (see
    /// [`RawWs::auto_pong`]).
    pub async fn receive(&mut self) -> Result<pb::ServerToAgent, RawError> {
        loop {
            match self.next().await? {
                Received::Binary(payload) => return self.decode(&payload),
                Received::Ping(payload) if self.auto_pong => {
                    self.send_frame(&Frame::new(Opcode::PONG, payload)).await?
                }
                other => return Err(self.stream.unexpected(format!("{other:?} instead of a message"))),
            }
        }
    }

    /// Sends a message and waits for the next one of the server.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::send_frame`] and [`RawWs::receive`].
    pub async fn exchange(&mut self, message: &pb::AgentToServer) -> Result<pb::ServerToAgent, RawError> {
        self.send_message(message).await?;
        self.receive().await
    }

    /// Sends a ping and collects every message that comes before its pong.
    ///
    /// Frames keep their order, so this shows, without sleeping, that the server had nothing more to say.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::next`]; anything but messages and pings before the pong is [`RawError::Unexpected`].
    pub async fn fence(&mut self) -> Result<Vec<pb::ServerToAgent>, RawError> {
        let mut messages = Vec::new();
        self.send_frame(&Frame::new(Opcode::PING, "fence")).await?;
        loop {
            match self.next().await? {
                Received::Pong(payload) if payload == "fence" => return Ok(messages),
                Received::Binary(payload) => messages.push(self.decode(&payload)?),
                Received::Ping(payload) if self.auto_pong => {
                    self.send_frame(&Frame::new(Opcode::PONG, payload)).await?
                }
                other => return Err(self.stream.unexpected(format!("{other:?} before the pong"))),
            }
        }
    }

    /// Waits for a close frame; messages before it are passed over and pings answered.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::next`]; the end of the stream without a close frame is [`RawError::Unexpected`].
    pub async fn expect_close(&mut self) -> Result<CloseFrame, RawError> {
        loop {
            match self.next().await? {
                Received::Close(close) => return Ok(close),
                Received::End(ending) => {
                    return Err(self.stream.unexpected(format!("{ending:?} without a close frame")));
                }
                Received::Ping(payload) if self.auto_pong => {
                    self.send_frame(&Frame::new(Opcode::PONG, payload)).await?
                }
                Received::Binary(_) | Received::Ping(_) | Received::Pong(_) | Received::Text(_) => {}
            }
        }
    }

    /// Closes: sends a close frame, waits for the answer, then for the end of the stream.
    ///
    /// # Errors
    ///
    /// As for [`RawWs::expect_close`]; a server that does not end the TCP connection after the handshake is
    /// [`RawError::Timeout`].
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<CloseFrame, RawError> {
        self.send_frame(&Frame::close(code, reason)).await?;
        let answer = self.expect_close().await?;
        self.expect_end().await?;
        Ok(answer)
    }

    /// Answers a close frame of the server and waits for the end of the stream.
    ///
    /// # Errors
    ///
    /// The server does not end the TCP connection in time, or sends more.
    pub async fn answer_close(&mut self, close: &CloseFrame) -> Result<Ending, RawError> {
        // A server that closes at once after its close frame may be gone before the answer is written.
        match self.send_frame(&Frame::close(close.code.unwrap_or(1000), "")).await {
            Err(fault) if !fault.is_closed() => return Err(fault),
            _ => {}
        }
        self.expect_end().await
    }

    /// Waits for the end of the stream.
    ///
    /// # Errors
    ///
    /// The stream stays open, or more comes.
    pub async fn expect_end(&mut self) -> Result<Ending, RawError> {
        match self.next().await? {
            Received::End(ending) => Ok(ending),
            other => Err(self.stream.unexpected(format!("{other:?} after the close"))),
        }
    }

    async fn read_frame(&mut self) -> Result<Frame, RawError> {
        let head = self.stream.read_exact(2, "a frame").await?;
        let length = match head[1] & 0x7F {
            126 => u64::from(u16::from_be_bytes(self.read_array().await?)),
            127 => u64::from_be_bytes(self.read_array().await?),
            short => u64::from(short),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= RECEIVED_BYTES_MAX);
        let Some(length) = length else {
            return Err(self.stream.unexpected("a frame of more than 256 MiB".to_owned()));
        };
        if head[1] & 0x80 != 0 {
            return Err(self.stream.unexpected("a masked frame from the server".to_owned()));
        }
        let payload = self.stream.read_exact(length, "the payload of a frame").await?;
        let (fin, rsv, opcode) = (head[0] & 0x80 != 0, head[0] >> 4 & 0x7, Opcode(head[0] & 0xF));
        Ok(Frame { fin, rsv, opcode, mask: None, length: Length::Shortest, payload })
    }

    async fn read_array<const N: usize>(&mut self) -> Result<[u8; N], RawError> {
        let bytes = self.stream.read_exact(N, "the length of a frame").await?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    /// Checks a frame and joins fragments.
    fn take(&mut self, frame: Frame) -> Result<Option<Received>, RawError> {
        let Frame { fin, rsv, opcode, payload, .. } = frame;
        if rsv != 0 {
            return Err(self.stream.unexpected(format!("reserved bits {rsv:#b} without an extension")));
        }
        if opcode.is_control() {
            if !fin || payload.len() > 125 {
                return Err(self.stream.unexpected("a long or fragmented control frame".to_owned()));
            }
            return self.control(opcode, payload).map(Some);
        }
        let (kind, message) = match (opcode, self.partial.take()) {
            (Opcode::CONTINUATION, Some((kind, mut begun))) => {
                begun.extend_from_slice(&payload);
                (kind, begun)
            }
            (Opcode::BINARY | Opcode::TEXT, None) => (opcode, BytesMut::from(&payload[..])),
            (other, _) => return Err(self.stream.unexpected(format!("a frame out of place: {other:?}"))),
        };
        if !fin {
            self.partial = Some((kind, message));
            return Ok(None);
        }
        let message = message.freeze();
        let transcript = self.stream.transcript();
        if kind == Opcode::TEXT {
            transcript.server(&format!("text message of {} B", message.len()));
            return Ok(Some(Received::Text(message)));
        }
        match message.strip_prefix(&[0]).map(pb::ServerToAgent::decode) {
            Some(Ok(decoded)) => transcript.server_message(&decoded),
            _ => transcript.server(&format!("binary message of {} B that is not OpAMP", message.len())),
        }
        Ok(Some(Received::Binary(message)))
    }

    fn control(&self, opcode: Opcode, payload: Bytes) -> Result<Received, RawError> {
        let transcript = self.stream.transcript();
        match opcode {
            Opcode::PING => {
                transcript.server("ping");
                Ok(Received::Ping(payload))
            }
            Opcode::PONG => {
                transcript.server("pong");
                Ok(Received::Pong(payload))
            }
            Opcode::CLOSE => {
                let close = CloseFrame::parse(&payload).map_err(|what| self.stream.unexpected(what))?;
                transcript.server(&format!("close {}", describe(&close)));
                Ok(Received::Close(close))
            }
            Opcode(other) => Err(self.stream.unexpected(format!("the unknown opcode {other:#x}"))),
        }
    }

    fn decode(&self, payload: &Bytes) -> Result<pb::ServerToAgent, RawError> {
        match payload.strip_prefix(&[0]).map(pb::ServerToAgent::decode) {
            Some(Ok(message)) => Ok(message),
            Some(Err(fault)) => {
                Err(self.stream.unexpected(format!("a message that is no ServerToAgent: {fault}")))
            }
            None => Err(self.stream.unexpected("a message without the header 0".to_owned())),
        }
    }

    fn note(&self, frame: &Frame) {
        let transcript = self.stream.transcript();
        let bytes = frame.payload.len();
        match frame.opcode {
            Opcode::BINARY if frame.fin => {
                match frame.payload.strip_prefix(&[0]).map(pb::AgentToServer::decode) {
                    Some(Ok(message)) => transcript.agent_message(&message),
                    _ => transcript.agent(&format!("binary message of {bytes} B that is not OpAMP")),
                }
            }
            Opcode::CLOSE => match CloseFrame::parse(&frame.payload) {
                Ok(close) => transcript.agent(&format!("close {}", describe(&close))),
                Err(what) => transcript.agent(&what),
            },
            Opcode::PING => transcript.agent("ping"),
            Opcode::PONG => transcript.agent("pong"),
            Opcode(other) => transcript.agent(&format!("frame {other:#x} fin={} {bytes} B", frame.fin)),
        }
    }
}

/// A message behind the header 0.
pub(crate) fn encode(message: &pb::AgentToServer) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 + message.encoded_len());
    payload.push(0);
    message.encode_raw(&mut payload);
    payload
}

fn describe(close: &CloseFrame) -> String {
    let code = close.code.map_or_else(|| "without code".to_owned(), |code| code.to_string());
    if close.reason.is_empty() { code } else { format!("{code} {:?}", close.reason) }
}

fn check_switch(response: &HttpResponse, handshake: &Handshake) -> Result<(), String> {
    let is = |name: &str, value: &str| {
        response.header(name).is_some_and(|known| known.eq_ignore_ascii_case(value))
    };
    if !is("upgrade", "websocket") || !is("connection", "upgrade") {
        return Err("101 without Upgrade: websocket and Connection: Upgrade".to_owned());
    }
    if response.header("sec-websocket-accept") != Some(&handshake.accept()) {
        return Err("101 with a wrong Sec-WebSocket-Accept".to_owned());
    }
    for name in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        if response.header(name).is_some()
            && !handshake.request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
        {
            return Err(format!("101 with a {name} nobody asked for"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        // RFC 6455 §1.3.
        let handshake = Handshake::new(&Endpoint::plain(([127, 0, 0, 1], 1).into()));
        assert_eq!(handshake.key, "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(handshake.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
