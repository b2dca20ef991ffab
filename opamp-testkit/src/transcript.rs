//! What was said, one line a message, fit for comparing with plain text.
//!
//! ```text
//! > agent a1 #0 capabilities=0x1807 description{service.name="demo"} health{healthy}
//! < server a1 capabilities=0x7 remote_config{01020304 "":5B}
//! ```
//!
//! Identities appear as `a1`, `a2` … in the order in which they were first seen, so that a transcript is the same in every
//! run. Bodies of configurations, values of headers, keys, certificates and custom data are never written, only their lengths.

mod render;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use opamp_proto::pb;

/// A shared record of one or more conversations.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    lines: Vec<Line>,
    /// Identities in the order of their first appearance.
    seen: Vec<Bytes>,
}

#[derive(Debug)]
struct Line {
    text: String,
    /// A decoded message and not a mere transport event.
    message: bool,
}

impl Transcript {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records something the agent did on the transport.
    pub fn agent(&self, text: &str) {
        self.add(format!("> agent {text}"), false);
    }

    /// Records something the server did on the transport.
    pub fn server(&self, text: &str) {
        self.add(format!("< server {text}"), false);
    }

    /// Records a message of the agent.
    pub fn agent_message(&self, message: &pb::AgentToServer) {
        let text = render::agent_to_server(message, &mut |uid| self.name(uid));
        self.add(format!("> agent {text}"), true);
    }

    /// Records a message of the server.
    pub fn server_message(&self, message: &pb::ServerToAgent) {
        let text = render::server_to_agent(message, &mut |uid| self.name(uid));
        self.add(format!("< server {text}"), true);
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().map(|line| line.text.clone()).collect()
    }

    /// The lines of messages only: what is equal on both transports.
    pub fn messages(&self) -> Vec<String> {
        self.lock().lines.iter().filter(|line| line.message).map(|line| line.text.clone()).collect()
    }

    /// Forgets the lines, not the names of the identities.
    pub fn clear(&self) {
        self.lock().lines.clear();
    }

    fn add(&self, text: String, message: bool) {
        self.lock().lines.push(Line { text, message });
    }

    fn name(&self, uid: &Bytes) -> String {
        let mut record = self.lock();
        let at = record.seen.iter().position(|seen| seen == uid).unwrap_or_else(|| {
            record.seen.push(uid.clone());
            record.seen.len() - 1
        });
        format!("a{}", at + 1)
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // A test that panicked while it held the lock still gets its transcript printed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lock().lines {
            writeln!(out, "{}", line.text)?;
        }
        Ok(())
    }
}
