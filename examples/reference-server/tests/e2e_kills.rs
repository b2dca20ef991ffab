//! Fifty kills under write load: whatever the REST API acknowledged is there afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use e2e::{
    dir::TempDir,
    process::Process,
    rest::{Answer, Rest, files_of},
    until, when,
};
use opamp_testkit::agent::{Connector, Persona, Wire};
use serde_json::{Value, json};

const KILLS: u64 = 50;

/// What the API has acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Configs that were made and published.
    configs: Vec<String>,
    /// Generation of the agent's last assignment.
    generation: u64,
    /// Value of the agent's label.
    label: u64,
}

/// One API, an agent's record, and the count of everything acknowledged to all writers of this round.
#[derive(Clone)]
struct Writer {
    rest: Rest,
    agent: String,
    count: Arc<AtomicU64>,
}

impl Writer {
    /// The answer of a call that succeeded; none once the server is gone. A refusal is a failure of the test.
    async fn acknowledged(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let answer = self.rest.try_call(method, path, body).await.ok()?;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text);
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(answer)
    }

    /// Makes and publishes one config after another until the server is gone.
    async fn configs(self, prefix: String) -> Vec<String> {
        let mut published = Vec::new();
        for number in 0.. {
            let name = format!("{prefix}-{number}");
            let body = json!({"name": name, "files": files_of(&[("", &name)])});
            let publish = format!("/api/v1/configs/{name}/versions/1/publish");
            let made = self.acknowledged("POST", "/api/v1/configs", Some(&body)).await;
            if made.is_none() || self.acknowledged("POST", &publish, None).await.is_none() {
                break;
            }
            published.push(name);
        }
        published
    }

    /// Changes what the agent should run, back and forth; the generation of the last assignment.
    async fn assignments(self, mut generation: u64) -> u64 {
        let path = format!("/api/v1/agents/{}/assign", self.agent);
        loop {
            let body = json!({"config": "base", "version": 1 + generation % 2});
            let Some(answer) = self.acknowledged("POST", &path, Some(&body)).await else { return generation };
            generation = answer.json(200)["desired_config"]["generation"].as_u64().unwrap();
        }
    }

    /// Counts a label of the agent up; its last value.
    async fn labels(self, mut value: u64) -> u64 {
        let path = format!("/api/v1/agents/{}/labels", self.agent);
        loop {
            let body = json!({"labels": {"count": (value + 1).to_string()}});
            if self.acknowledged("PUT", &path, Some(&body)).await.is_none() {
                return value;
            }
            value += 1;
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_fifty_kills_under_write_load() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let mut process = Process::start(&data, &["--fleet-write-delay", "20ms"]).await;
    let token = process.printed_token().expect("the first start prints an admin token");
    let mut rest = process.rest(&token);
    let (agent, _) =
        Connector::new(process.endpoint(), Wire::WebSocket).start(Persona::new(1)).await.unwrap();
    let id = rest.id_of(agent.persona.uid).await;
    rest.publish("base", &[("", "a: 1\n")]).await;
    rest.publish_version("base", 2, &[("", "a: 2\n")]).await;
    rest.settle().await;
    drop(agent);

    let mut known = Acknowledged::default();
    for round in 0..KILLS {
        let writer = Writer { rest: rest.clone(), agent: id.clone(), count: Arc::default() };
        let configs = ["a", "b"].map(|name| tokio::spawn(writer.clone().configs(format!("r{round}{name}"))));
        let assignments = tokio::spawn(writer.clone().assignments(known.generation));
        let labels = tokio::spawn(writer.clone().labels(known.label));
        // Early in some rounds, late in others: while the first page is written, and while the log is long.
        let enough = 4 + round * 7 % 40;
        until("the writers are at work", || async {
            let count = writer.count.load(Ordering::Relaxed);
            when(count >= enough, (), format!("{count} of {enough} acknowledged"))
        })
        .await;
        process.kill().await;
        let mut fresh = Vec::new();
        for writer in configs {
            fresh.extend(writer.await.unwrap());
        }
        known.generation = assignments.await.unwrap();
        known.label = labels.await.unwrap();

        process = Process::start(&data, &[]).await;
        rest = process.rest(&token);
        for name in &fresh {
            let version = rest.get(&format!("/api/v1/configs/{name}/versions/1")).await;
            assert_eq!(version["version"]["state"], "published", "{name} after kill {round}");
            assert_eq!(version["files"][""]["body"], name.as_str());
        }
        known.configs.append(&mut fresh);
        // One more may have been written whose answer did not get out.
        let record = rest.agent(&id).await;
        let label = record["labels"]["count"].as_str().map_or(0, |text| text.parse().unwrap());
        assert!((known.label..=known.label + 1).contains(&label), "kill {round}: {record:#} {known:?}");
        let generation = record["desired_config"]["generation"].as_u64().unwrap_or(0);
        let acknowledged = known.generation;
        assert!(
            (acknowledged..=acknowledged + 1).contains(&generation),
            "kill {round}: {record:#} {known:?}"
        );
        (known.label, known.generation) = (label, generation);
    }
    assert!(
        known.configs.len() as u64 > KILLS && known.label > KILLS && known.generation > KILLS,
        "{known:?}"
    );
    for name in &known.configs {
        rest.get(&format!("/api/v1/configs/{name}")).await;
    }
    assert_eq!(rest.get("/api/v1/audit/verify").await["intact"], true);
    let audit = rest.audit().await;
    for name in &known.configs {
        let entity = format!("config:{name}@1");
        let actions: Vec<_> = audit
            .iter()
            .filter(|entry| entry["entity"] == entity.as_str())
            .map(|entry| &entry["action"])
            .collect();
        assert_eq!(actions, ["config.create", "config.publish"], "{name}");
    }
}
