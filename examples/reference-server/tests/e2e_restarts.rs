//! The server stops in order, or is killed, and starts again on the same data: nobody is asked for what is known, and
//! nothing that was acknowledged is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::collections::BTreeMap;

use e2e::{dir::TempDir, process::Process, rest::Rest};
use opamp_proto::{ServerToAgentFlags, pb};
use opamp_testkit::agent::{Connector, Persona, ScriptedAgent, Wire};
use serde_json::{Value, json};

/// Agents of each transport.
const OF_EACH: u32 = 8;

const FIRST: [(&str, &str); 2] =
    [("", "receivers: {otlp: {}}\n"), ("extra.yaml", "exporters: {debug: {}}\n")];
const SECOND: [(&str, &str); 1] = [("", "receivers: {otlp: {}, hostmetrics: {}}\n")];

/// What must be the same before and after: who the agent is, what it runs and should run, and when it was first seen.
const LASTING: [&str; 12] = [
    "id",
    "uid",
    "description",
    "capabilities",
    "health_report",
    "effective_config",
    "effective_config_hash",
    "desired_config",
    "history",
    "first_seen",
    "last_known_good",
    "remote_config_status",
];

/// Agents of both transports, with the keys of their records.
struct Fleet(Vec<(ScriptedAgent, String)>);

impl Fleet {
    /// Agents that have reported everything and have applied the first version.
    async fn managed(process: &Process, rest: &Rest) -> Self {
        rest.publish("edge", &FIRST).await;
        let mut agents = Vec::new();
        for number in 0..2 * OF_EACH {
            let wire = if number < OF_EACH { Wire::WebSocket } else { Wire::Http };
            let connector = Connector::new(process.endpoint(), wire);
            let (mut agent, answer) = connector.start(Persona::new(number)).await.unwrap();
            assert_eq!(answer.flags, 0);
            let id = rest.id_of(agent.persona.uid).await;
            rest.assign(&id, "edge", 1).await;
            let offer = agent.next_offer().await.unwrap();
            agent.apply(&offer).await.unwrap();
            rest.agent_when(&id, "the version is applied", |record| record["drift"] == "in_sync").await;
            agents.push((agent, id));
        }
        Fleet(agents)
    }

    fn websockets(&mut self) -> impl Iterator<Item = &mut ScriptedAgent> {
        self.0.iter_mut().take(OF_EACH as usize).map(|(agent, _)| agent)
    }

    async fn heartbeats(&mut self) {
        for (agent, _) in &mut self.0 {
            assert_eq!(agent.heartbeat().await.unwrap().flags, 0);
        }
    }

    /// Every agent finds the new process and goes on where it was.
    async fn reconnect(&mut self, process: &Process) {
        for (number, (agent, _)) in (0..).zip(&mut self.0) {
            let wire = if number < OF_EACH { Wire::WebSocket } else { Wire::Http };
            *agent = Connector::new(process.endpoint(), wire).connect(agent.persona.clone()).await.unwrap();
        }
    }

    /// The lasting part of every record.
    async fn records(&self, rest: &Rest) -> BTreeMap<String, Value> {
        let mut records = BTreeMap::new();
        for (_, id) in &self.0 {
            let record = rest.agent(id).await;
            let lasting = LASTING.map(|field| (field.to_owned(), record[field].clone()));
            records.insert(id.clone(), Value::Object(lasting.into_iter().collect()));
        }
        records
    }
}

#[tokio::test]
async fn a_graceful_restart_asks_no_agent_for_full_state_and_keeps_everything() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let mut process = Process::start(&data, &["--fleet-write-delay", "20ms"]).await;
    let token = process.printed_token().expect("the first start prints an admin token");
    let rest = process.rest(&token);
    let mut fleet = Fleet::managed(&process, &rest).await;
    fleet.heartbeats().await;
    let (records, audit) = (fleet.records(&rest).await, rest.audit().await);
    let sticky = rest.agent(&fleet.0[0].1).await["sticky"].clone();

    process.terminate();
    for agent in fleet.websockets() {
        let close = agent.ws().expect_close().await.unwrap();
        assert_eq!(close.code, Some(1001), "{close:?}");
        agent.ws().answer_close(&close).await.unwrap();
    }
    assert_eq!(process.ended().await.code(), Some(0));

    let process = Process::start(&data, &[]).await;
    assert_eq!(process.printed_token(), None, "the token is shown once:\n{}", process.output());
    let rest = process.rest(&token);
    assert_eq!(fleet.records(&rest).await, records, "before any agent is back");
    for agent in rest.agents().await {
        assert_eq!(agent["liveness"], "disconnected");
    }
    let record = rest.agent(&fleet.0[0].1).await;
    assert_eq!(record["disconnect"]["reason"], "server_shutdown");
    assert_eq!(record["disconnect"]["graceful"], false, "the agent said no goodbye");

    fleet.reconnect(&process).await;
    for (agent, id) in &mut fleet.0 {
        for _ in 0..3 {
            let answer = agent.heartbeat().await.unwrap();
            assert_eq!(answer.flags, 0, "asked for full state:\n{}", agent.transcript());
            assert!(answer.remote_config.is_none(), "offered again:\n{}", agent.transcript());
        }
        rest.agent_when(id, "it is back", |record| record["liveness"] == "connected").await;
    }
    assert_eq!(fleet.records(&rest).await, records);
    assert_eq!(rest.metrics().await.get("opamp_full_state_requests_total"), 0.0);
    let later = rest.agent(&fleet.0[0].1).await["sticky"].clone();
    assert_eq!(later["connects"].as_u64(), sticky["connects"].as_u64().map(|count| count + 1));
    assert_eq!((&later["gaps"], &later["last_applied"]), (&sticky["gaps"], &sticky["last_applied"]));
    continues(&rest, &audit).await;
}

#[tokio::test]
async fn after_a_kill_an_agent_is_asked_at_most_once_and_what_was_acknowledged_is_there() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let process = Process::start(&data, &["--fleet-write-delay", "20ms"]).await;
    let token = process.printed_token().expect("the first start prints an admin token");
    let rest = process.rest(&token);
    let mut fleet = Fleet::managed(&process, &rest).await;
    fleet.heartbeats().await;
    rest.settle().await;
    rest.publish_version("edge", 2, &SECOND).await;
    // Written before the answer, or lost: nothing comes between the last answer and the end.
    for (_, id) in fleet.0.iter().step_by(2) {
        rest.assign(id, "edge", 2).await;
    }
    let (records, audit) = (fleet.records(&rest).await, rest.audit().await);
    let last = &fleet.0[1].1;
    let acknowledged = rest.assign(last, "edge", 2).await["desired_config"].clone();
    process.kill().await;

    let process = Process::start(&data, &[]).await;
    assert_eq!(process.printed_token(), None, "the token is shown once:\n{}", process.output());
    let rest = process.rest(&token);
    let mut expected = records.clone();
    let before = expected[last]["desired_config"].clone();
    expected.get_mut(last).unwrap()["history"].as_array_mut().unwrap().push(before);
    expected.get_mut(last).unwrap()["desired_config"] = acknowledged;
    assert_eq!(fleet.records(&rest).await, expected, "before any agent is back");
    continues(&rest, &audit).await;

    fleet.reconnect(&process).await;
    let mut asked_in_all = 0;
    for (number, (agent, id)) in fleet.0.iter_mut().enumerate() {
        let (asked, offers) = obeys(agent).await;
        assert!(asked <= 1, "asked {asked} times:\n{}", agent.transcript());
        asked_in_all += asked;
        let expects_second = number % 2 == 0 || number == 1;
        assert_eq!(offers, u32::from(expects_second), "{}", agent.transcript());
        rest.agent_when(id, "all is well", |record| {
            record["drift"] == "in_sync" && record["liveness"] == "connected"
        })
        .await;
        let version = &rest.agent(id).await["desired_config"]["version"];
        assert_eq!(*version, if expects_second { 2 } else { 1 });
    }
    let counted = rest.metrics().await.get("opamp_full_state_requests_total");
    assert_eq!(counted, f64::from(asked_in_all));
    assert_eq!(rest.agents().await.len(), fleet.0.len(), "nobody became a stranger");
}

/// Does what an agent does after it came back: answers requests for full state, applies offers, and says in between that
/// it is alive. How often it was asked, and how much it was offered.
async fn obeys(agent: &mut ScriptedAgent) -> (u32, u32) {
    let (mut asked, mut offers) = (0, 0);
    let mut message = agent.heartbeat().await.unwrap();
    for _ in 0..6 {
        let flags = ServerToAgentFlags::from_bits(message.flags);
        asked += u32::from(flags.contains(ServerToAgentFlags::REPORT_FULL_STATE));
        offers += u32::from(message.remote_config.is_some());
        message = next(agent, message).await;
    }
    (asked, offers)
}

async fn next(agent: &mut ScriptedAgent, message: pb::ServerToAgent) -> pb::ServerToAgent {
    if let Some(offer) = message.remote_config {
        agent.persona.applied(&offer);
        return agent.report_full_state().await.unwrap();
    }
    match ServerToAgentFlags::from_bits(message.flags).contains(ServerToAgentFlags::REPORT_FULL_STATE) {
        true => agent.report_full_state().await.unwrap(),
        false => agent.heartbeat().await.unwrap(),
    }
}

/// The audit log begins as it was, and its hashes are right.
async fn continues(rest: &Rest, before: &[Value]) {
    let now = rest.audit().await;
    assert!(now.len() >= before.len() && now[..before.len()] == *before, "{before:#?}\n became\n{now:#?}");
    assert_eq!(rest.get("/api/v1/audit/verify").await["intact"], json!(true));
}
