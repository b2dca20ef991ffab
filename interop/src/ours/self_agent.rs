//! The self-agent as a process.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Plan;
use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};
use crate::wait::{Look, eventually};

/// The window of the first attempt after a loss, and the bound of the next ones.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(200);

/// The largest bound of a wait.
pub(super) const RETRY_MAX: Duration = Duration::from_millis(500);

/// The custom capability of the self-agent: it answers `ping` with `pong`.
pub const DIAGNOSTICS: &str = "com.example.self-agent.diagnostics/1";

/// An end may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A self-agent with its files in the directory of a test. Dropping it kills it.
#[derive(Debug)]
pub struct SelfAgent {
    plan: Plan,
    running: Option<Child>,
}

impl SelfAgent {
    /// Writes its configuration file and starts it.
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(plan: Plan) -> Outcome<Self> {
        fs::write(plan.path("yaml"), configuration(&plan)?)?;
        let mut agent = Self { plan, running: None };
        agent.start_again()?;
        Ok(agent)
    }

    /// Starts it once more, with the same file and storage.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_again(&mut self) -> Outcome {
        let log = OpenOptions::new().create(true).append(true).open(self.plan.path("log"))?;
        let child = Command::new(process::self_agent()?)
            .arg("--config")
            .arg(self.plan.path("yaml"))
            .current_dir(&self.plan.directory)
            // Proxies and the like of the machine do not belong to a test.
            .env_clear()
            .envs(self.plan.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.running = Some(child);
        Ok(())
    }

    /// Sends SIGTERM and waits for an end in order.
    ///
    /// # Errors
    ///
    /// It does not end, or not in order.
    pub fn stop(&mut self) -> Outcome {
        self.signal(Signal::Terminate)?;
        let mut child = self.running.take().ok_or_else(not_running)?;
        let waited = eventually("the end of the self-agent", PATIENCE, || {
            Ok(child.try_wait()?.map_or_else(|| Look::NotYet("it runs".to_owned()), Look::Found))
        });
        if waited.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let (status, _) = waited?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(format!("the self-agent ended with {status}")))
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Outcome {
        process::send(signal, self.running.as_ref().ok_or_else(not_running)?)
    }

    /// How many remote configs it says it put in force.
    ///
    /// # Errors
    ///
    /// Its log cannot be read.
    pub fn applications(&self) -> Outcome<usize> {
        Ok(self.log()?.lines().filter(|line| line.ends_with(" is in force")).count())
    }

    /// What it logged.
    ///
    /// # Errors
    ///
    /// Its log cannot be read.
    pub fn log(&self) -> Outcome<String> {
        Ok(fs::read_to_string(self.plan.path("log"))?)
    }
}

impl Drop for SelfAgent {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // Both fail when it has ended already, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn not_running() -> Failure {
    Failure::new("the self-agent does not run")
}

/// The configuration file. Paths and addresses here hold nothing that YAML would want escaped but quotes.
fn configuration(plan: &Plan) -> Result<String, std::fmt::Error> {
    let millis = |span: Duration| format!("{}ms", span.as_millis());
    let mut yaml = String::new();
    writeln!(yaml, "server:\n  endpoint: {:?}", plan.url)?;
    writeln!(yaml, "  heartbeat_interval: {}", millis(plan.heartbeat))?;
    writeln!(yaml, "  poll_interval: {}", millis(plan.poll))?;
    writeln!(yaml, "  ping_interval: {}", millis(plan.ping))?;
    writeln!(
        yaml,
        "  timeouts: {{read: {}, response: {}}}",
        millis(plan.read_timeout),
        millis(plan.response_timeout)
    )?;
    let (first, max) = (millis(RETRY_FIRST), millis(RETRY_MAX));
    writeln!(yaml, "  retry: {{first_interval: {first}, initial_interval: {first}, max_interval: {max}}}")?;
    if let Some(ca) = &plan.ca {
        writeln!(yaml, "  tls:\n    ca_file: {ca:?}")?;
        if let Some((certificate, key)) = &plan.identity {
            writeln!(yaml, "    cert_file: {certificate:?}\n    key_file: {key:?}")?;
        }
    }
    if plan.proxy.is_some() || !plan.proxy_headers.is_empty() {
        writeln!(yaml, "  proxy:")?;
    }
    if let Some(url) = &plan.proxy {
        writeln!(yaml, "    url: {url:?}")?;
    }
    if !plan.proxy_headers.is_empty() {
        writeln!(yaml, "    headers:")?;
        for (name, value) in &plan.proxy_headers {
            writeln!(yaml, "      {name:?}: {value:?}")?;
        }
    }
    let extras = &plan.extras;
    writeln!(yaml, "capabilities:\n  accepts_remote_config: true\n  accepts_restart_command: true")?;
    writeln!(yaml, "  accepts_opamp_connection_settings: {}", extras.settings.is_some())?;
    writeln!(yaml, "  accepts_packages: {}", extras.packages)?;
    writeln!(yaml, "  reports_available_components: {}", !extras.components.is_empty())?;
    writeln!(yaml, "  diagnostics: {}", extras.custom.iter().any(|name| name == DIAGNOSTICS))?;
    if extras.packages {
        writeln!(yaml, "packages: {{allow_unsigned: true, allow_plain_http: true}}")?;
    }
    writeln!(yaml, "agent:\n  request_instance_uid: {}", plan.request_uid)?;
    writeln!(yaml, "  description:\n    identifying_attributes:\n      service.name: {:?}", plan.name)?;
    writeln!(yaml, "storage:\n  directory: {:?}", plan.path("storage"))?;
    Ok(yaml)
}
