//! The reference server as a process.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};
use crate::rest::{Answer, Rest};
use crate::wait::{Look, eventually};

/// Starting and stopping may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server on loopback with its data in the directory of a test. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    flags: Vec<String>,
    opamp: SocketAddr,
    admin: SocketAddr,
    token: String,
    running: Option<Child>,
}

impl Server {
    /// Starts a server with additional flags and waits until both ports are open. The admin token is read from what it
    /// prints, as a person would.
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(directory: &Path, flags: &[&str]) -> Outcome<Self> {
        let mut server = Self {
            directory: directory.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            opamp: free_address()?,
            admin: free_address()?,
            token: String::new(),
            running: None,
        };
        server.start_again()?;
        if server.token.is_empty() {
            return Err(Failure::new("the first start printed no admin token"));
        }
        Ok(server)
    }

    /// Starts it once more, on the same ports and data, after [`Server::terminate`] or [`Server::kill`].
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_again(&mut self) -> Outcome {
        let mut child = Command::new(process::reference_server()?)
            .args(["--listen", &self.opamp.to_string(), "--admin-listen", &self.admin.to_string()])
            .arg("--data-dir")
            .arg(self.directory.join("data"))
            // Scenarios count agents; the one that wants the Self-Agent says so in its flags.
            .args(["--self-agent-enabled", "false"])
            .args(&self.flags)
            // Neither a file nor variables of the machine belong to a test.
            .current_dir(&self.directory)
            .env_clear()
            .envs(std::env::vars_os().filter(|(key, _)| !key.to_string_lossy().starts_with("OPAMP_")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log()?)
            .spawn()?;
        let lines = lines_of(&mut child)?;
        self.running = Some(child);
        let begun = Instant::now();
        loop {
            let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) else {
                return Err(Failure::new(format!("the server did not start:\n{}", self.last_words())));
            };
            if line.starts_with("opamp-pat.") {
                self.token = line;
                return Ok(());
            }
            if line.starts_with("API tokens exist already") {
                return Ok(());
            }
        }
    }

    /// The admin API with the first admin token.
    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest::new(self.admin, &*self.token)
    }

    /// The admin API without credentials.
    #[must_use]
    pub fn anonymous(&self) -> Rest {
        Rest::new(self.admin, "")
    }

    /// Where agents connect.
    #[must_use]
    pub fn opamp_address(&self) -> SocketAddr {
        self.opamp
    }

    /// The endpoint for agents, with `ws`, `wss`, `http` or `https`.
    #[must_use]
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.opamp)
    }

    /// The record of the one agent with this `service.name`; waits until it is there.
    ///
    /// # Errors
    ///
    /// There is none in time.
    pub fn agent(&self, name: &str) -> Outcome<Record<'_>> {
        let path = format!("/api/v1/agents?selector=service.name={name}");
        let (id, _) = eventually(&format!("a record of {name}"), PATIENCE, || {
            let page = self.rest().get(&path)?;
            Ok(match (page["agents"][0]["id"].as_str(), page["agents"][1].is_null()) {
                (Some(id), true) => Look::Found(id.to_owned()),
                _ => Look::NotYet(page.to_string()),
            })
        })?;
        Ok(Record { server: self, id })
    }

    /// The value of a metric, by its whole line up to the value: `name` or `name{label="value"}`.
    ///
    /// # Errors
    ///
    /// There is no such line.
    pub fn metric(&self, name: &str) -> Outcome<f64> {
        let answer = self.anonymous().call("GET", "/metrics", &[], None)?;
        let text = answer.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.ok_or_else(|| Failure::new(format!("no metric {name} in\n{text}")))
    }

    /// Asks for a path of the admin port without credentials.
    ///
    /// # Errors
    ///
    /// No answer.
    pub fn ask(&self, path: &str) -> Outcome<Answer> {
        self.anonymous().call("GET", path, &[], None)
    }

    /// Makes a config, publishes its first version and returns that version's hash.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn publish(&self, name: &str, files: &Value) -> Outcome<String> {
        let body = serde_json::json!({ "name": name, "files": files });
        let version = self.rest().post("/api/v1/configs", &body)?;
        self.published(name, &version)
    }

    /// Makes the next version of a config, publishes it and returns its number and hash.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn publish_next(&self, name: &str, files: &Value) -> Outcome<(u64, String)> {
        let body = serde_json::json!({ "files": files });
        let version = self.rest().post(&format!("/api/v1/configs/{name}/versions"), &body)?;
        Ok((version["version"].as_u64().unwrap_or_default(), self.published(name, &version)?))
    }

    /// Sends a signal, such as one that freezes it.
    ///
    /// # Errors
    ///
    /// It was not running.
    pub fn signal(&self, signal: Signal) -> Outcome {
        let running = self.running.as_ref().ok_or_else(|| Failure::new("the server does not run"))?;
        process::send(signal, running)
    }

    /// Sends SIGTERM and waits for an orderly end.
    ///
    /// # Errors
    ///
    /// It does not end, or not in order.
    pub fn terminate(&mut self) -> Outcome {
        let status = self.end(Signal::Terminate)?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("the server ended with {status}:\n{}", self.last_words())))
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    ///
    /// It was not running.
    pub fn kill(&mut self) -> Outcome {
        self.end(Signal::Kill).map(drop)
    }

    fn published(&self, name: &str, version: &Value) -> Outcome<String> {
        let path = format!("/api/v1/configs/{name}/versions/{}/publish", version["version"]);
        let published = self.rest().call("POST", &path, &[], None)?.success()?;
        published["hash"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::new(format!("no hash in {published}")))
    }

    fn end(&mut self, signal: Signal) -> Outcome<ExitStatus> {
        let mut child = self.running.take().ok_or_else(|| Failure::new("the server does not run"))?;
        process::send(signal, &child)?;
        let waited = eventually("the end of the server", PATIENCE, || {
            Ok(child.try_wait()?.map_or_else(|| Look::NotYet("it runs".to_owned()), Look::Found))
        });
        if waited.is_err() {
            child.kill()?;
            child.wait()?;
        }
        waited.map(|(status, _)| status)
    }

    fn log(&self) -> Outcome<File> {
        Ok(OpenOptions::new().create(true).append(true).open(self.directory.join("server.log"))?)
    }

    fn last_words(&self) -> String {
        std::fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // Both fail when it has ended already, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One agent's record on a server.
#[derive(Debug)]
pub struct Record<'a> {
    server: &'a Server,
    /// The server's key of the agent.
    pub id: String,
}

impl Record<'_> {
    /// Everything the server knows of it.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn read(&self) -> Outcome<Value> {
        self.server.rest().get(&format!("/api/v1/agents/{}", self.id))
    }

    /// Waits until the record satisfies a condition; returns it and how long that took.
    ///
    /// # Errors
    ///
    /// Not in time; the text holds the record as it is.
    pub fn until(
        &self,
        what: &str,
        within: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Outcome<(Value, Duration)> {
        eventually(what, within, || {
            let record = self.read()?;
            let shown = if holds(&record) { String::new() } else { format!("{record:#}") };
            Ok(Look::when(shown.is_empty(), record, shown))
        })
    }

    /// Assigns a published version.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn assign(&self, config: &str, version: u64) -> Outcome<Value> {
        let body = serde_json::json!({ "config": config, "version": version });
        self.server.rest().post(&format!("/api/v1/agents/{}/assign", self.id), &body)
    }

    /// What the server tells of one kind of offer to the agent, such as `packages`.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn read_offer(&self, kind: &str) -> Outcome<Value> {
        self.server.rest().get(&format!("/api/v1/agents/{}/{kind}", self.id))
    }

    /// Sets one kind of offer to the agent.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn set_offer(&self, kind: &str, body: &Value) -> Outcome<Value> {
        self.server.rest().put(&format!("/api/v1/agents/{}/{kind}", self.id), body)
    }

    /// Waits until what the server tells of one kind of offer satisfies a condition.
    ///
    /// # Errors
    ///
    /// Not in time; the text holds it as it is.
    pub fn until_offer(
        &self,
        kind: &str,
        within: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Outcome<Value> {
        let (offer, _) = eventually(kind, within, || {
            let offer = self.read_offer(kind)?;
            let shown = if holds(&offer) { String::new() } else { format!("{offer:#}") };
            Ok(Look::when(shown.is_empty(), offer, shown))
        })?;
        Ok(offer)
    }

    /// Orders a restart.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn restart(&self) -> Outcome<Value> {
        self.server.rest().call("POST", &format!("/api/v1/agents/{}/restart", self.id), &[], None)?.success()
    }
}

fn lines_of(child: &mut Child) -> Outcome<Receiver<String>> {
    let stdout = child.stdout.take().ok_or_else(|| Failure::new("the server has no stdout"))?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens after the start; the pipe is still emptied.
            let _ = sender.send(line.trim().to_owned());
        }
    });
    Ok(lines)
}

/// A free port outside the range from which the system takes ports for outgoing connections: while a server is down,
/// an agent that tries to reach it could otherwise be given the server's own port.
pub fn free_address() -> Outcome<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000)?;
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    Err(Failure::new("no free port"))
}
