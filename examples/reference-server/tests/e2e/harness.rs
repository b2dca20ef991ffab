//! A server in this process, with a database of its own.

use std::time::Duration;

use opamp_testkit::raw::Endpoint;
use reference_server::{Config, RunningServer, Server};

use super::{PATIENCE, dir::TempDir, rest::Rest};

/// A running server and a client of its admin port. It has a SQLite database and ports of its own.
pub struct Harness {
    pub server: RunningServer,
    pub rest: Rest,
    pub dir: TempDir,
}

impl Harness {
    /// Starts with defaults, apart from what makes a test private and quick.
    pub async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    /// Starts with defaults changed by `change`.
    pub async fn with(change: impl FnOnce(&mut Config, &TempDir)) -> Self {
        let dir = TempDir::new();
        let mut config = Config::default();
        config.server.data_dir = dir.path().join("data");
        config.opamp.listen = ([127, 0, 0, 1], 0).into();
        config.admin.listen = ([127, 0, 0, 1], 0).into();
        config.fleet.write_delay = Duration::from_millis(20);
        // Most tests count agents, messages and writes.
        config.self_agent.enabled = false;
        change(&mut config, &dir);
        let server = Server::start(config).await.unwrap();
        let token = server.first_admin_token().expect("a new database has no tokens").to_owned();
        let rest = Rest::new(server.admin_addr(), &token);
        Harness { server, rest, dir }
    }

    /// Where agents connect, without TLS.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::plain(self.server.opamp_addr()).with_wait(PATIENCE)
    }
}
