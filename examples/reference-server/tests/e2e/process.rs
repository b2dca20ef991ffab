//! The server as a process of its own: the program that users start, with signals.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use opamp_testkit::raw::Endpoint;

use super::{PATIENCE, rest::Rest, until, when};

const PROGRAM: &str = env!("CARGO_BIN_EXE_reference-server");

/// A server process on a data directory. Killed when it is dropped.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
    pub opamp: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// Starts the program with `arguments` beside those that make it private, and waits until it listens.
    pub async fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::started_by(Command::new(PROGRAM), data_dir, arguments).await
    }

    /// The same where the process may have `soft` files open, and may raise that to `hard`.
    pub async fn start_with_files(data_dir: &Path, soft: u32, hard: u32, arguments: &[&str]) -> Self {
        let mut command = Command::new("/bin/sh");
        let limits = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(limits).arg(PROGRAM);
        Self::started_by(command, data_dir, arguments).await
    }

    async fn started_by(mut command: Command, data_dir: &Path, arguments: &[&str]) -> Self {
        command.arg("--data-dir").arg(data_dir).args([
            "--log-level",
            "warn",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            // Most tests count agents, messages and writes.
            "--self-agent-enabled",
            "false",
        ]);
        // Nothing of the machine's: neither a configuration file of the working directory nor variables.
        command.args(arguments).current_dir(data_dir.parent().unwrap()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = collect(child.stdout.take().unwrap(), |_| {});
        // For whoever looks at a test that failed.
        let errors = collect(child.stderr.take().unwrap(), |line| eprintln!("{line}"));
        let unset = ([0, 0, 0, 0], 0).into();
        let mut process = Process { child, output, errors, opamp: unset, admin: unset };
        (process.opamp, process.admin) = until("the server says where it listens", || {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "it did not start: {ended:?}");
            process.listens()
        })
        .await;
        process
    }

    /// Where it says it listens, once it has said everything.
    fn listens(&self) -> impl Future<Output = Result<(SocketAddr, SocketAddr), String>> + use<> {
        let text = self.output();
        let address = |before: &str, after: &str| {
            let found = text.split_once(before)?.1.split_once(after)?.0;
            found.parse::<SocketAddr>().ok()
        };
        // The last line of the text, so that all of it is there.
        let complete = text.contains("/api/v1/agents");
        let found = address("ws://", "/v1/opamp").zip(address("REST API           http://", "/api/v1"));
        std::future::ready(found.filter(|_| complete).ok_or(text))
    }

    /// Everything it has printed on standard output.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Everything it has logged.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// The admin token it printed, if it did.
    pub fn printed_token(&self) -> Option<String> {
        let text = self.output();
        let token = text.split_whitespace().find(|word| word.starts_with("opamp-pat."));
        token.map(str::to_owned)
    }

    pub fn rest(&self, token: &str) -> Rest {
        Rest::new(self.admin, token)
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::plain(self.opamp).with_wait(PATIENCE)
    }

    /// Asks it to end in order.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Ends it at once, as a crash would: it gets no chance to do anything.
    pub async fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended().await;
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let mut wait = move || child.try_wait().unwrap();
        until("the server ends", || {
            let status = wait();
            async move { when(status.is_some(), status, "it runs") }
        })
        .await
        .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects lines as they come, and shows each.
fn collect(pipe: impl Read + Send + 'static, show: impl Fn(&str) + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            show(&line);
            let mut collected = collected.lock().unwrap();
            collected.push_str(&line);
            collected.push('\n');
        }
    });
    text
}
