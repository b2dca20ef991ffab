//! The opamp-go server as a process.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::process;
use crate::program::{Event, Program};

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct GoServer {
    program: Program,
    address: SocketAddr,
    files: Option<String>,
    /// From where on [`GoServer::until`] looks.
    mark: usize,
}

impl GoServer {
    /// Starts a server with additional flags on a port of its own.
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(flags: &[&str]) -> Outcome<Self> {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), flags)
    }

    /// Port 0 is one that the server finds and tells: no free one is looked for here that somebody else may take before.
    fn at(listen: SocketAddr, flags: &[&str]) -> Outcome<Self> {
        let listen = listen.to_string();
        let arguments = [&["-listen", &*listen], flags].concat();
        let program = Program::start("Go server", process::go_server()?, &arguments)?;
        let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { program, address: unknown, files: None, mark: 0 };
        let listening = server.until("the open port", |event| event["event"] == "listening")?;
        let address = listening.value["address"].as_str().and_then(|address| address.parse().ok());
        server.address =
            address.ok_or_else(|| Failure::new("the Go server does not say where it listens"))?;
        server.files = listening.value["files"].as_str().map(str::to_owned);
        Ok(server)
    }

    /// Kills it and starts another one on the same port, which remembers nothing. What was heard before is forgotten here,
    /// too.
    ///
    /// # Errors
    ///
    /// It is gone already, or the other one does not start.
    pub fn killed_and_back(mut self, flags: &[&str]) -> Outcome<Self> {
        self.program.kill()?;
        Self::at(self.address, flags)
    }

    /// The endpoint for agents, with `ws`, `wss`, `http` or `https`.
    #[must_use]
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a file in the directory of `-files`.
    ///
    /// # Errors
    ///
    /// It serves none.
    pub fn file(&self, name: &str) -> Outcome<String> {
        let address = self.files.as_deref().ok_or_else(|| Failure::new("this Go server serves no files"))?;
        Ok(format!("http://{address}/{name}"))
    }

    /// From now on [`GoServer::until`] looks at what comes after this.
    pub fn mark(&mut self) {
        self.mark = self.program.seen().len();
    }

    /// From now on [`GoServer::until`] looks at what came after an event.
    pub fn mark_after(&mut self, event: &Event) {
        self.mark = event.place + 1;
    }

    /// The present mark, for [`GoServer::back_to`].
    #[must_use]
    pub fn place(&self) -> usize {
        self.mark
    }

    /// From now on [`GoServer::until`] looks at what came after an earlier mark.
    pub fn back_to(&mut self, place: usize) {
        self.mark = place;
    }

    /// Waits for an event since the mark.
    ///
    /// # Errors
    ///
    /// It does not come in time, or the server ends.
    pub fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Outcome<Event> {
        self.program.wait(self.mark, what, fits)
    }

    /// Waits for a message of an agent since the mark.
    ///
    /// # Errors
    ///
    /// It does not come in time, or the server ends.
    pub fn message(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Outcome<Event> {
        self.until(what, |event| event["event"] == "message" && fits(event))
    }

    /// What came since the mark and fits.
    pub fn since_mark(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Event> {
        let mark = self.mark;
        self.program.seen()[mark..].iter().filter(|event| fits(&event.value)).cloned().collect()
    }

    /// Marks, and has it do something; waits until it has.
    ///
    /// # Errors
    ///
    /// It refuses.
    pub fn command(&mut self, command: &Value) -> Outcome {
        self.mark();
        self.program.command(&command.to_string())?;
        let answer = self.until(&format!("the answer to {command}"), |event| {
            event["event"] == "command_done" || event["event"] == "command_refused"
        })?;
        if answer.value["event"] == "command_done" {
            return Ok(());
        }
        Err(Failure::new(answer.value.to_string()))
    }

    /// Offers a config of one file without a name to every agent, under this hash in hex.
    ///
    /// # Errors
    ///
    /// It refuses.
    pub fn offer(&mut self, hash: &str, body: &str) -> Outcome {
        self.command(&json!({"do": "offer", "hash": hash, "files": {"": body}}))
    }
}
