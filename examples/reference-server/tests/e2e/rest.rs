//! A client of the admin port.

use std::{net::SocketAddr, time::Duration};

use opamp_testkit::{
    raw::{Endpoint, Framing, HttpRequest, RawError, RawHttp},
    transcript::Transcript,
};
use serde_json::{Value, json};

use super::{metrics::Metrics, until, when};

/// The admin port, with a token.
#[derive(Clone, Debug)]
pub struct Rest {
    endpoint: Endpoint,
    token: String,
}

/// An answer of any status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Rest {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint::plain(address).with_wait(Duration::from_secs(30));
        Rest { endpoint, token: token.to_owned() }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(method, path, body).await.unwrap()
    }

    /// An answer, or why there is none: then nobody knows what the server did.
    pub async fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, RawError> {
        let endpoint = self.endpoint.clone().with_path(path);
        let mut request = HttpRequest::new(method, &endpoint).bearer(&self.token).with("Connection", "close");
        if let Some(body) = body {
            request = request.with("Content-Type", "application/json").framed(Framing::Length);
            request.body = body.to_string().into();
        }
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await?;
        let response = http.exchange(&request).await?;
        Ok(Answer { status: response.status, text: String::from_utf8(response.body.to_vec()).unwrap() })
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, None).await.json(200)
    }

    pub async fn post(&self, path: &str, body: &Value, status: u16) -> Value {
        self.call("POST", path, Some(body)).await.json(status)
    }

    /// POST without a body.
    pub async fn order(&self, path: &str, status: u16) -> Value {
        self.call("POST", path, None).await.json(status)
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.call("GET", "/metrics", None).await.ok(200))
    }

    /// Every agent of the inventory.
    pub async fn agents(&self) -> Vec<Value> {
        let page = self.get("/api/v1/agents?limit=1000").await;
        assert!(page["next_cursor"].is_null(), "more agents than a test has");
        page["agents"].as_array().unwrap().clone()
    }

    /// The key of the agent that has this identity on the wire, once the inventory knows it.
    pub async fn id_of(&self, uid: impl std::fmt::Display) -> String {
        let uid = uid.to_string();
        until("the agent is in the inventory", || async {
            let agents = self.agents().await;
            let found = agents.iter().find(|agent| agent["uid"] == uid.as_str());
            found.map(|agent| agent["id"].as_str().unwrap().to_owned()).ok_or_else(|| format!("{agents:?}"))
        })
        .await
    }

    /// The record of an agent.
    pub async fn agent(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/agents/{id}")).await
    }

    /// The record of an agent, once it is as wanted.
    pub async fn agent_when(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || async {
            let agent = self.agent(id).await;
            when(wanted(&agent), agent.clone(), format!("{agent:#}"))
        })
        .await
    }

    /// Makes a config of these files and publishes its first version.
    pub async fn publish(&self, name: &str, files: &[(&str, &str)]) -> Value {
        let body = json!({"name": name, "files": files_of(files)});
        self.post("/api/v1/configs", &body, 201).await;
        self.order(&format!("/api/v1/configs/{name}/versions/1/publish"), 200).await
    }

    /// Adds a version of these files and publishes it.
    pub async fn publish_version(&self, name: &str, version: u32, files: &[(&str, &str)]) -> Value {
        let body = json!({"files": files_of(files)});
        let made = self.post(&format!("/api/v1/configs/{name}/versions"), &body, 201).await;
        assert_eq!(made["version"], version);
        self.order(&format!("/api/v1/configs/{name}/versions/{version}/publish"), 200).await
    }

    pub async fn assign(&self, id: &str, config: &str, version: u32) -> Value {
        let body = json!({"config": config, "version": version});
        self.post(&format!("/api/v1/agents/{id}/assign"), &body, 200).await
    }

    /// Waits until nothing that agents reported waits to be written any more.
    pub async fn settle(&self) {
        until("everything is written", || async {
            let stats = self.get("/api/v1/stats").await;
            when(stats["records_waiting"] == 0, (), stats)
        })
        .await;
    }

    /// The whole audit log, oldest first.
    pub async fn audit(&self) -> Vec<Value> {
        let mut entries = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/api/v1/audit?order=oldest&limit=1000{cursor}")).await;
            entries.extend(page["entries"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_u64() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return entries,
            }
        }
    }
}

impl Answer {
    /// The text of an answer with this status.
    pub fn ok(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        self.text
    }

    /// The JSON of an answer with this status; null if it has no body.
    pub fn json(self, status: u16) -> Value {
        let text = self.ok(status);
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }
}

/// Files as the API takes them.
pub fn files_of(files: &[(&str, &str)]) -> Value {
    let file = |(name, body): &(&str, &str)| {
        ((*name).to_owned(), json!({"body": body, "content_type": "text/yaml"}))
    };
    Value::Object(files.iter().map(file).collect())
}
