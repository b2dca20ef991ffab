//! A server of its own for each test, in this process, on ports of its own.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use opamp_proto::{Mono, Now, Wall};
use opamp_server::{Clock, SystemClock};
use reference_server::{
    Config, RunningServer, Server,
    config::{Inputs, StoreKind},
};
use serde_json::{Value, json};

use super::{Client, TempDir};

/// A clock that stands until a test moves it.
#[derive(Debug, Default)]
pub struct HandClock(AtomicU64);

impl HandClock {
    /// Where it starts: some day in 2025.
    const EPOCH_MS: u64 = 1_760_000_000_000;

    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Now {
        let ms = self.0.load(Ordering::SeqCst);
        Now { mono: Mono(ms), wall: Wall(Self::EPOCH_MS + ms) }
    }
}

/// A running server with its admin token.
pub struct TestServer {
    pub running: RunningServer,
    pub admin: Client,
    pub token: String,
}

impl TestServer {
    /// In memory, on free ports, with nothing else configured.
    pub async fn start() -> Self {
        Self::start_with(config(&[])).await
    }

    pub async fn start_with(config: Config) -> Self {
        Self::start_with_clock(config, Arc::new(SystemClock::new())).await
    }

    pub async fn start_with_clock(config: Config, clock: Arc<dyn Clock>) -> Self {
        let running = Server::start_with_clock(config, clock).await.unwrap();
        let token = running.first_admin_token().unwrap().to_owned();
        let admin = Client::new(running.admin_addr(), Some(&token));
        TestServer { running, admin, token }
    }

    /// Where agents connect, as a URL.
    pub fn endpoint(&self, scheme: &str) -> String {
        format!("{scheme}://{}{}", self.running.opamp_addr(), self.running.config().opamp.path)
    }

    /// A client with a fresh token of this role.
    pub async fn with_role(&self, role: &str) -> Client {
        let name = format!("test-{role}");
        let made = self.admin.post("/api/v1/tokens", json!({"name": name, "role": role})).await.expect(201);
        self.admin.as_token(made["token"].as_str().unwrap())
    }

    /// Waits until a condition on an answer holds.
    pub async fn eventually(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.admin.eventually(path, holds).await
    }

    /// The newest audit entries with this action, newest first.
    pub async fn audit(&self, action: &str) -> Vec<Value> {
        let page = self.admin.get(&format!("/api/v1/audit?action={action}")).await.expect(200);
        page["entries"].as_array().unwrap().clone()
    }
}

/// The defaults on free ports and in memory, with these keys set.
pub fn config(settings: &[(&'static str, &str)]) -> Config {
    let mut inputs = Inputs::default();
    inputs.flags = vec![
        ("opamp.listen", vec!["127.0.0.1:0".into()]),
        ("admin.listen", vec!["127.0.0.1:0".into()]),
        ("server.store", vec!["memory".into()]),
        ("fleet.write_delay", vec!["0s".into()]),
        // Most tests count agents, messages and writes.
        ("self_agent.enabled", vec!["false".into()]),
    ];
    inputs.flags.extend(settings.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])));
    Config::load(&inputs).unwrap()
}
