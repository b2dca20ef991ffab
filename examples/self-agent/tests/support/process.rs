//! The agent as a process of its own.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opamp_proto::InstanceUid;

use super::{PATIENCE, TempDir};

/// The name of the variable that holds a secret in tests.
pub const TOKEN_VARIABLE: &str = "SELF_AGENT_TEST_TOKEN";

/// A started `self-agent`, killed with the test. All it writes is kept.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    reading: Arc<AtomicBool>,
    directory: PathBuf,
}

/// What a `self-agent` that ends by itself has to say.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Runs an agent by `agent.yaml` in a directory.
    pub fn start(directory: &TempDir) -> Self {
        Self::start_with(directory, &[])
    }

    /// The same with these variables.
    pub fn start_with(directory: &TempDir, variables: &[(&str, &str)]) -> Self {
        let mut child = command(directory.path(), &["--config", "agent.yaml"])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stderr.take().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let reading = Arc::new(AtomicBool::new(true));
        let (kept, goes_on) = (Arc::clone(&output), Arc::clone(&reading));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                if !goes_on.load(Ordering::SeqCst) {
                    return;
                }
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        });
        Self { child, output, reading, directory: directory.path().to_owned() }
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// How many lines it logged with all of these in them.
    pub fn lines(&self, parts: &[&str]) -> usize {
        self.log().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// Waits until it has logged this.
    pub async fn logs(&mut self, part: &str) {
        self.logs_times(&[part], 1).await;
    }

    /// Waits until it has logged that many lines with all of these in them.
    pub async fn logs_times(&mut self, parts: &[&str], times: usize) {
        let since = Instant::now();
        while self.lines(parts) < times {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && since.elapsed() < PATIENCE, "{parts:?} is not in\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The identity it has written down.
    pub async fn uid(&mut self) -> InstanceUid {
        self.logs(" started").await;
        let text = self.log();
        let line = text.lines().find(|line| line.contains(" started")).unwrap();
        let uid = line.split("agent ").nth(1).unwrap().split(' ').next().unwrap();
        uid.parse().unwrap()
    }

    /// The text of a file in its storage directory.
    pub fn stored(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join("state").join(name)).unwrap()
    }

    /// From the next line on nobody reads its log, and the pipe is closed.
    pub fn stop_reading(&self) {
        self.reading.store(false, Ordering::SeqCst);
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended, with all its output read.
    pub async fn ended(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The reader sees the end of the pipe shortly after.
                while Arc::strong_count(&self.output) > 1 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.ended().await.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it with these arguments until it ends by itself.
pub fn run(directory: &Path, arguments: &[&str]) -> Ended {
    let output = command(directory, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Without a proxy in its environment, whatever that of the test says.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_self-agent"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command
}
