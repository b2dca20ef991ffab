//! The OpAMP Supervisor of the OpenTelemetry Collector as a process, with the collector below it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};

/// How long a config may take until the collector is healthy with it. The supervisor says APPLIED no sooner than this.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// A running supervisor. Dropping it ends it and the collector below it.
#[derive(Debug)]
pub struct Supervisor(Daemon);

impl Supervisor {
    /// What it is configured with: everything that can be switched on, and a server at a URL.
    ///
    /// # Errors
    ///
    /// The collector does not build.
    pub fn config(directory: &Path, url: &str) -> Outcome<Value> {
        Ok(json!({
            "server": {"endpoint": url},
            "capabilities": {
                "accepts_remote_config": true,
                "accepts_restart_command": true,
                "accepts_opamp_connection_settings": true,
                "reports_available_components": true,
                "reports_effective_config": true,
                "reports_health": true,
                "reports_heartbeat": true,
                "reports_own_metrics": true,
                "reports_remote_config": true,
            },
            "agent": {
                "executable": process::collector()?,
                // Its own metrics would be served on a fixed port.
                "args": ["--set=service.telemetry.metrics.level=none"],
                "bootstrap_timeout": "20s",
                "config_apply_timeout": format!("{}ms", APPLY_TIMEOUT.as_millis()),
            },
            "storage": {"directory": directory.join("supervisor")},
            "telemetry": {"logs": {"level": "debug"}},
        }))
    }

    /// Starts a supervisor, and waits for nothing.
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(directory: &Path, config: &Value) -> Outcome<Self> {
        Self::write(directory, config)?;
        let arguments = vec!["--config".to_owned(), "supervisor.yaml".to_owned()];
        Ok(Self(Daemon::start(process::supervisor()?, arguments, directory, "supervisor")?))
    }

    /// Writes a config for the next start.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(directory: &Path, config: &Value) -> Outcome {
        Ok(fs::write(directory.join("supervisor.yaml"), format!("{config:#}"))?)
    }

    /// Starts it once more, after it has ended.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_again(&mut self) -> Outcome {
        self.0.start_again()
    }

    /// Sends SIGINT, the one signal it ends in order with, and waits for that.
    ///
    /// # Errors
    ///
    /// It does not end, or not in order.
    pub fn stop(&mut self) -> Outcome {
        let status = self.0.end(Signal::Interrupt)?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(format!("the supervisor ended with {status}")))
        }
    }

    /// Ends it and the collector below it without a word to anybody, as when a machine fails. Ended alone, it would leave
    /// its collector behind.
    ///
    /// # Errors
    ///
    /// It or its collector is gone already.
    pub fn kill(&mut self) -> Outcome {
        let collector = self.collector()?;
        self.0.end(Signal::Kill)?;
        process::send_to(Signal::Kill, collector)
    }

    /// The process of the collector below it, which its log tells.
    fn collector(&self) -> Outcome<u32> {
        let log = self.0.log()?;
        let events = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut started = events.filter(|event| event["msg"] == "Agent process started");
        let pid = started.next().and_then(|event| event["pid"].as_u64());
        let pid = pid.ok_or_else(|| Failure::new("the supervisor has no collector"))?;
        Ok(u32::try_from(pid)?)
    }

    /// What it logged.
    ///
    /// # Errors
    ///
    /// Its log cannot be read.
    pub fn log(&self) -> Outcome<String> {
        self.0.log()
    }
}
