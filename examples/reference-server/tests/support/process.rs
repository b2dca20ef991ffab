//! The server as a process of its own.

use std::{
    io::Read as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A started `reference-server`, killed with the test. All it writes is kept.
pub struct Process {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it on free ports, data in `dir`, with these further arguments.
    pub fn serve(dir: &Path, arguments: &[&str]) -> Self {
        Self::serve_with(dir, arguments, &[])
    }

    /// The same with these further variables.
    pub fn serve_with(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let data = dir.join("data");
        let mut all = vec![
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            // Most tests count agents, messages and writes.
            "--self-agent-enabled=false",
            "--data-dir",
            data.to_str().unwrap(),
        ];
        all.extend(arguments);
        Self::run_with(dir, &all, variables)
    }

    /// Starts it on free ports, data in `dir`, with a standard error that cannot be written.
    #[cfg(target_os = "linux")]
    pub fn serve_without_log(dir: &Path) -> Self {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let data = dir.join("data");
        let arguments =
            ["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
        Self::spawn(dir, &arguments, &[], full.into())
    }

    /// Starts it with exactly these arguments in `dir`.
    pub fn run(dir: &Path, arguments: &[&str]) -> Self {
        Self::run_with(dir, arguments, &[])
    }

    fn run_with(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn(dir, arguments, variables, Stdio::piped())
    }

    fn spawn(dir: &Path, arguments: &[&str], variables: &[(&str, &str)], stderr: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reference-server"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OPAMP_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn();
        let mut child = child.unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = child.stderr.take().map(collect).unwrap_or_default();
        Process { child, stdout, stderr }
    }

    /// Everything it wrote so far.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout.lock().unwrap(), self.stderr.lock().unwrap())
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits for the start-up text; answers admin address and first admin token.
    pub fn started(&mut self) -> (SocketAddr, Option<String>) {
        self.wait_for_output("/agents\n");
        let text = self.stdout();
        let word_after = |label: &str| {
            let rest = &text[text.find(label).unwrap() + label.len()..];
            rest.split_whitespace().next().unwrap().to_owned()
        };
        let api = word_after("REST API");
        let address = api.trim_start_matches("http://").trim_end_matches("/api/v1").parse().unwrap();
        (address, text.contains("shown this once").then(|| word_after("shown this once:")))
    }

    /// Where agents connect, from the start-up text.
    pub fn endpoint(&self) -> String {
        let text = self.stdout();
        text[text.find("ws://").unwrap()..].split_whitespace().next().unwrap().to_owned()
    }

    /// Waits until it has written this.
    pub fn wait_for_output(&mut self, part: &str) {
        let since = Instant::now();
        while !self.output().contains(part) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && since.elapsed() < PATIENCE, "{part:?} is not in\n{}", self.output());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended, with all its output read.
    pub fn ended(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The readers see the end of the pipes shortly after.
                while Arc::strong_count(&self.stdout) + Arc::strong_count(&self.stderr) > 2 {
                    thread::sleep(Duration::from_millis(1));
                }
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end\n{}", self.output());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let writer = Arc::clone(&text);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            writer.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    });
    text
}
