//! What the tests of this package share.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses a part of it")]

mod offerer;
mod process;
mod server;
mod stub;
mod temp_dir;

use std::time::{Duration, Instant};

pub use offerer::{Offerer, package, packages};
pub use process::{Ended, Process, TOKEN_VARIABLE, run};
pub use server::{TestServer, attribute, config_status, description, effective, health};
pub use stub::{Stub, bare, ok, redirect};
pub use temp_dir::TempDir;

/// Long enough for a loaded machine, short enough for a person.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test once for each transport, given the scheme of its endpoint.
#[allow(unused_macros, reason = "not every test binary has transports")]
macro_rules! on_both_transports {
    ($($(#[$doc:meta])* async fn $name:ident($scheme:ident) $body:block)+) => {
        $(mod $name {
            use super::*;

            $(#[$doc])*
            async fn case($scheme: &'static str) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_websocket() {
                case("ws").await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_http() {
                case("http").await;
            }
        })+
    };
}

/// The endpoint of whoever listens there.
pub fn url(scheme: &str, address: std::net::SocketAddr) -> String {
    format!("{scheme}://{address}/v1/opamp")
}

/// A configuration with short waits and everything switched on, with these lines below `server:` and at the end.
pub fn yaml(endpoint: &str, server: &str, rest: &str) -> String {
    let server: String = server.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "\
server:
  endpoint: {endpoint}
  heartbeat_interval: 100ms
  poll_interval: 100ms
  retry:
    first_interval: 20ms
    initial_interval: 20ms
    max_interval: 50ms
    slow_initial_interval: 100ms
    slow_max_interval: 100ms
{server}
capabilities:
  accepts_remote_config: true
  accepts_restart_command: true
storage:
  directory: state
health:
  interval: 100ms
{rest}"
    )
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
