//! The OpenTelemetry Collector with its opamp extension as a process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};
use crate::server::free_address;

/// What it calls itself.
pub const NAME: &str = "otelcol-opamp";

/// A config of a collector: the opamp extension, a pipeline with a receiver that can be made ill, and one with a
/// receiver that listens.
#[derive(Clone, Debug)]
pub struct CollectorConfig {
    /// The whole config. JSON is YAML, so that is how it is written.
    pub value: Value,
    directory: PathBuf,
    listens: SocketAddr,
}

impl CollectorConfig {
    /// A collector that knows the server at a URL, by WebSocket or by polling five times a second.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn new(directory: &Path, url: &str) -> Outcome<Self> {
        let listens = free_address()?;
        let server = if url.starts_with("ws") {
            json!({"ws": {"endpoint": url}})
        } else {
            json!({"http": {"endpoint": url, "polling_interval": "200ms"}})
        };
        let value = json!({
            "extensions": {"opamp": {
                "server": server,
                "agent_description": {"non_identifying_attributes": {"zone": "north"}},
            }},
            "receivers": {
                "ailing": {"status_file": directory.join("status")},
                "otlp": {"protocols": {"grpc": {"endpoint": listens.to_string()}}},
            },
            "processors": {"batch": {}},
            "exporters": {"nop": {}},
            "service": {
                "extensions": ["opamp"],
                // Its own metrics would be served on a fixed port.
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {
                    "traces": {"receivers": ["ailing"], "processors": ["batch"], "exporters": ["nop"]},
                    "logs": {"receivers": ["otlp"], "exporters": ["nop"]},
                },
            },
        });
        Ok(Self { value, directory: directory.to_owned(), listens })
    }

    /// Where its receiver `otlp` listens.
    #[must_use]
    pub fn listens(&self) -> SocketAddr {
        self.listens
    }

    /// Sets a key of the opamp extension.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.value["extensions"]["opamp"][key] = value;
        self
    }

    /// Sets a key of its connection to the server, such as `headers` or `tls`.
    #[must_use]
    pub fn with_connection(mut self, key: &str, value: Value) -> Self {
        let server = &mut self.value["extensions"]["opamp"]["server"];
        let transport = if server["ws"].is_null() { "http" } else { "ws" };
        server[transport][key] = value;
        self
    }

    /// Writes it where the collector reads it at its next start.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self) -> Outcome {
        Ok(fs::write(self.directory.join("collector.yaml"), format!("{:#}", self.value))?)
    }
}

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    daemon: Daemon,
    directory: PathBuf,
}

impl Collector {
    /// Starts a collector with additional flags, and waits for nothing.
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(config: &CollectorConfig, flags: &[&str]) -> Outcome<Self> {
        config.write()?;
        let mut arguments = vec!["--config".to_owned(), "collector.yaml".to_owned()];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let directory = config.directory.clone();
        Ok(Self {
            daemon: Daemon::start(process::collector()?, arguments, &directory, "collector")?,
            directory,
        })
    }

    /// Starts it once more, after it has ended.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_again(&mut self) -> Outcome {
        self.daemon.start_again()
    }

    /// Makes its receiver `ailing` report `ok`, `recoverable <text>`, `permanent <text>` or `fatal <text>`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn ail(&self, status: &str) -> Outcome {
        // Renamed into place, so that it is never read half.
        let new = self.directory.join("status.new");
        fs::write(&new, status)?;
        Ok(fs::rename(new, self.directory.join("status"))?)
    }

    /// Sends a signal that asks for an end in order, and waits for that.
    ///
    /// # Errors
    ///
    /// It does not end, or not in order.
    pub fn stop(&mut self, signal: Signal) -> Outcome {
        let status = self.daemon.end(signal)?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(format!("the collector ended with {status}")))
        }
    }

    /// Ends the process without a word to anybody.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn kill(&mut self) -> Outcome {
        self.daemon.end(Signal::Kill).map(drop)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn ended(&mut self) -> Outcome<ExitStatus> {
        self.daemon.ended()
    }

    /// What it logged.
    ///
    /// # Errors
    ///
    /// Its log cannot be read.
    pub fn log(&self) -> Outcome<String> {
        self.daemon.log()
    }
}
