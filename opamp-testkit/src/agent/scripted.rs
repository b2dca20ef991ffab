//! A persona with a connection.

use std::net::SocketAddr;
use std::time::Duration;

use opamp_proto::pb;
use tokio::time::Instant;

use super::{Persona, Wire};
use crate::raw::{Endpoint, Handshake, HttpRequest, HttpResponse, RawError, RawHttp, RawWs};
use crate::transcript::Transcript;

/// How scripted agents reach a server.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Where.
    pub endpoint: Endpoint,
    /// Over which transport.
    pub wire: Wire,
    /// Bearer token, if any.
    pub token: Option<String>,
    /// Whether an HTTP agent keeps its connection between requests; true unless changed.
    pub keep_alive: bool,
}

impl Connector {
    /// Without credentials.
    pub fn new(endpoint: Endpoint, wire: Wire) -> Self {
        Self { endpoint, wire, token: None, keep_alive: true }
    }

    /// The same with a bearer token.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The same with a connection per HTTP request.
    pub fn without_keep_alive(mut self) -> Self {
        self.keep_alive = false;
        self
    }

    /// Connects without saying anything yet.
    ///
    /// # Errors
    ///
    /// No connection, or over WebSocket no 101.
    pub async fn connect(&self, persona: Persona) -> Result<ScriptedAgent, RawError> {
        self.connect_with(persona, Transcript::new()).await
    }

    /// Connects and writes into this transcript.
    ///
    /// # Errors
    ///
    /// As for [`Connector::connect`].
    pub async fn connect_with(
        &self,
        persona: Persona,
        transcript: Transcript,
    ) -> Result<ScriptedAgent, RawError> {
        let mut agent = ScriptedAgent { persona, connector: self.clone(), link: Link::None, transcript };
        agent.reconnect().await?;
        Ok(agent)
    }

    /// Connects and reports the full state; the answer is the first message of the server.
    ///
    /// # Errors
    ///
    /// As for [`Connector::connect`], and no answer.
    pub async fn start(&self, persona: Persona) -> Result<(ScriptedAgent, pb::ServerToAgent), RawError> {
        let mut agent = self.connect(persona).await?;
        let answer = agent.report_full_state().await?;
        Ok((agent, answer))
    }

    async fn open(&self, transcript: &Transcript) -> Result<Link, RawError> {
        match self.wire {
            Wire::Http => Ok(Link::Http(RawHttp::connect(&self.endpoint, transcript).await?)),
            Wire::WebSocket => {
                let mut handshake = Handshake::new(&self.endpoint);
                if let Some(token) = &self.token {
                    handshake = handshake.bearer(token);
                }
                let ws = RawWs::open(&self.endpoint, &handshake, transcript).await?;
                Ok(Link::WebSocket(Box::new(ws)))
            }
        }
    }
}

/// An agent that does what a test tells it.
#[derive(Debug)]
pub struct ScriptedAgent {
    /// Who it is and what it reports.
    pub persona: Persona,
    connector: Connector,
    link: Link,
    transcript: Transcript,
}

#[derive(Debug)]
enum Link {
    None,
    Http(RawHttp),
    WebSocket(Box<RawWs>),
}

impl ScriptedAgent {
    /// What was said.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// The transport it speaks over.
    pub fn wire(&self) -> Wire {
        self.connector.wire
    }

    /// The address by which the server knows this connection.
    pub fn local_addr(&mut self) -> Option<SocketAddr> {
        match &mut self.link {
            Link::None => None,
            Link::Http(http) => http.stream_mut().local_addr().ok(),
            Link::WebSocket(ws) => ws.stream_mut().local_addr().ok(),
        }
    }

    /// The WebSocket underneath.
    ///
    /// # Panics
    ///
    /// On plain HTTP or without a connection.
    pub fn ws(&mut self) -> &mut RawWs {
        match &mut self.link {
            Link::WebSocket(ws) => ws,
            Link::None | Link::Http(_) => panic!("no WebSocket is open"),
        }
    }

    /// Sends a message and waits for the next one of the server.
    ///
    /// # Errors
    ///
    /// No answer, or over HTTP another status than 200.
    pub async fn exchange(&mut self, message: &pb::AgentToServer) -> Result<pb::ServerToAgent, RawError> {
        match &mut self.link {
            Link::WebSocket(ws) => ws.exchange(message).await,
            Link::Http(_) | Link::None => {
                let response = self.post(message).await?;
                self.accept(&response)
            }
        }
    }

    /// Sends the next heartbeat or poll and returns the answer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`].
    pub async fn heartbeat(&mut self) -> Result<pb::ServerToAgent, RawError> {
        let message = self.persona.heartbeat();
        self.exchange(&message).await
    }

    /// Sends a heartbeat with something added and returns the answer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`].
    pub async fn report(
        &mut self,
        change: impl FnOnce(&mut pb::AgentToServer),
    ) -> Result<pb::ServerToAgent, RawError> {
        let message = self.persona.report(change);
        self.exchange(&message).await
    }

    /// Reports the full state and returns the answer.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`].
    pub async fn report_full_state(&mut self) -> Result<pb::ServerToAgent, RawError> {
        let message = self.persona.full_state();
        self.exchange(&message).await
    }

    /// The server's next message: over WebSocket what it pushes, over HTTP the answer to the next poll.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`].
    pub async fn next_message(&mut self) -> Result<pb::ServerToAgent, RawError> {
        match &mut self.link {
            Link::WebSocket(ws) => ws.receive().await,
            Link::Http(_) | Link::None => self.heartbeat().await,
        }
    }

    /// Waits for a message that satisfies `wanted`, polling over HTTP, and passes over all others.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`]; over HTTP [`RawError::Timeout`] if no answer is the wanted one in time.
    pub async fn until(
        &mut self,
        wanted: impl Fn(&pb::ServerToAgent) -> bool,
    ) -> Result<pb::ServerToAgent, RawError> {
        let wait = self.connector.endpoint.wait;
        let deadline = Instant::now() + wait;
        loop {
            let message = self.next_message().await?;
            if wanted(&message) {
                return Ok(message);
            }
            if Instant::now() > deadline {
                return Err(RawError::Timeout {
                    waiting_for: "a certain message",
                    after: wait,
                    transcript: self.transcript.to_string(),
                });
            }
            if self.connector.wire == Wire::Http {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Leaves in order: `agent_disconnect`, over WebSocket followed by the closing handshake. Over HTTP the answer is awaited.
    ///
    /// # Errors
    ///
    /// As for [`ScriptedAgent::exchange`] and [`RawWs::close`].
    pub async fn disconnect(&mut self) -> Result<(), RawError> {
        let message = self.persona.disconnect();
        match &mut self.link {
            Link::WebSocket(ws) => {
                ws.send_message(&message).await?;
                ws.close(1000, "").await?;
            }
            Link::Http(_) | Link::None => {
                self.exchange(&message).await?;
            }
        }
        self.link = Link::None;
        Ok(())
    }

    /// Drops the connection with a reset.
    pub fn vanish(&mut self) {
        match std::mem::replace(&mut self.link, Link::None) {
            Link::None => {}
            Link::Http(http) => http.into_stream().reset(),
            Link::WebSocket(ws) => ws.into_stream().reset(),
        }
    }

    /// Opens a new connection; one that is still open is dropped.
    ///
    /// # Errors
    ///
    /// As for [`Connector::connect`].
    pub async fn reconnect(&mut self) -> Result<(), RawError> {
        self.link = Link::None;
        self.link = self.connector.open(&self.transcript).await?;
        Ok(())
    }

    /// One POST, over a new connection where the old one may not be used.
    async fn post(&mut self, message: &pb::AgentToServer) -> Result<HttpResponse, RawError> {
        if matches!(self.link, Link::None) {
            self.reconnect().await?;
        }
        let Link::Http(http) = &mut self.link else {
            return Err(self.unexpected("a request over a WebSocket".to_owned()));
        };
        let uid = self.persona.uid.to_string();
        let mut request =
            HttpRequest::opamp(&self.connector.endpoint, message).with("OpAMP-Instance-UID", &uid);
        if let Some(token) = &self.connector.token {
            request = request.bearer(token);
        }
        if !self.connector.keep_alive {
            request = request.with("Connection", "close");
        }
        let response = http.exchange(&request).await?;
        let closes = |value: &str| value.eq_ignore_ascii_case("close");
        if !self.connector.keep_alive || response.header("connection").is_some_and(closes) {
            self.link = Link::None;
        }
        Ok(response)
    }

    fn accept(&self, response: &HttpResponse) -> Result<pb::ServerToAgent, RawError> {
        if response.status != 200 {
            return Err(self.unexpected(format!("{} {} instead of 200", response.status, response.reason)));
        }
        response.message().map_err(|what| self.unexpected(what))
    }

    pub(super) fn unexpected(&self, what: String) -> RawError {
        RawError::Unexpected { what, transcript: self.transcript.to_string() }
    }
}
