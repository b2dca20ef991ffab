//! The OpenTelemetry Collector with its opamp extension, and the OpAMP Supervisor with a collector below it, against the
//! reference server. `cargo xtask interop --collector` builds both and runs this.

mod cloned;
mod encrypted;
mod ended;
mod health;
mod remote;
mod returns;
mod seen;
mod supervised;
mod supervised_connection;

use std::path::Path;
use std::time::Duration;

use interop::collector::{Collector, CollectorConfig, NAME};
use interop::{Outcome, Record, Server, each, scenario};
use serde_json::Value;

/// A collector starts within a second, and longer on a machine that does much else.
const EVENTUALLY: Duration = Duration::from_secs(30);

const PLAIN: [&str; 2] = ["ws", "http"];
const ENCRYPTED: [&str; 2] = ["wss", "https"];

/// Quick to notice silence.
const SENSITIVE: [&str; 8] = [
    "--ping-interval",
    "200ms",
    "--websocket-stale-after",
    "2s",
    "--http-poll-interval",
    "300ms",
    "--http-stale-min",
    "1s",
];

/// When those flags call an agent stale, at the latest.
const STALE: Duration = Duration::from_secs(2);

/// A uid for collectors that are to keep theirs.
const UID: &str = "01970000-0000-7000-8000-00000000c011";

/// One scenario per scheme, all at the same time.
fn over(schemes: &[&str], name: &str, body: impl Fn(&str, &Path) -> Outcome + Sync) -> Outcome {
    each(schemes, |scheme| scenario(&format!("{name}-{scheme}"), |directory| body(scheme, directory)))
}

/// A server and a collector that is connected and healthy.
struct Pair {
    collector: Collector,
    server: Server,
}

impl Pair {
    fn start(directory: &Path, scheme: &str, server_flags: &[&str]) -> Outcome<Self> {
        Self::with(directory, scheme, server_flags, |config| config)
    }

    fn with(
        directory: &Path,
        scheme: &str,
        server_flags: &[&str],
        adapt: impl FnOnce(CollectorConfig) -> CollectorConfig,
    ) -> Outcome<Self> {
        let server = Server::start(directory, server_flags)?;
        let config = adapt(CollectorConfig::new(directory, &server.url(scheme))?);
        let pair = Self { collector: Collector::start(&config, &[])?, server };
        pair.record()?.until("a healthy collector", EVENTUALLY, is_well)?;
        Ok(pair)
    }

    fn record(&self) -> Outcome<Record<'_>> {
        self.server.agent(NAME)
    }
}

/// Connected, healthy, and with everything it reports of itself.
fn is_well(record: &Value) -> bool {
    record["liveness"] == "connected"
        && record["health"] == "healthy"
        && record["effective_config"][""]["body"].is_string()
        && record["available_components"]["components"]["receivers"].is_object()
}

fn is_gone(record: &Value) -> bool {
    record["liveness"] == "disconnected"
}

/// What a collector says of the health of one of its components, such as `receiver:otlp` of `pipeline:logs`.
fn component<'a>(record: &'a Value, group: &str, name: &str) -> &'a Value {
    &record["health_report"]["components"][group]["components"][name]
}
