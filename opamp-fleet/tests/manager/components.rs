use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{AgentCapabilities, ServerToAgentFlags, pb};
use opamp_store::{AgentStore as _, BlobStore as _, MemoryStore};

use super::support::*;

fn built(n: u16, hash: &'static [u8], names: &[&str]) -> Agent {
    let mut agent = Agent::new(n);
    agent.capabilities.insert(AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS);
    let nested = pb::ComponentDetails {
        metadata: vec![text("code.namespace", "io.example")],
        sub_component_map: BTreeMap::new(),
    };
    let details = |name: &str| pb::ComponentDetails {
        metadata: vec![text("name", name)],
        sub_component_map: BTreeMap::from([("inner".to_owned(), nested.clone())]),
    };
    agent.components = Some(pb::AvailableComponents {
        components: names.iter().map(|name| ((*name).to_owned(), details(name))).collect(),
        hash: hash.into(),
    });
    agent
}

/// Whether the answer asks for the list; the agent then sends it.
async fn connect(process: &Process, agent: &mut Agent) -> bool {
    let answer = agent.connect(process).await;
    let asked = answer.flags & ServerToAgentFlags::REPORT_AVAILABLE_COMPONENTS.bits() != 0;
    if asked {
        let message = pb::AgentToServer { available_components: agent.components.clone(), ..agent.bare() };
        agent.send(process, message).await;
    }
    asked
}

/// R-COMP-07, R-COMP-09: a list that is known is not asked for again, by no process and from no agent of the same build.
#[tokio::test(start_paused = true)]
async fn a_list_of_components_is_asked_for_once_and_kept_over_restarts() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut first = built(1, b"build-1", &["otlp", "batch"]);
    assert!(connect(&process, &mut first).await, "nobody knows it");
    process.settle().await;
    let shown = process.detail(&first.uid).await.available_components;
    assert_eq!(shown, first.components, "it is shown in full, to any depth");
    process.stop().await;

    let process = Process::start(Arc::new(store.clone()), &clock).await;
    let mut second = built(2, b"build-1", &["otlp", "batch"]);
    assert!(!connect(&process, &mut first).await && !connect(&process, &mut second).await);
    process.settle().await;
    for agent in [&first, &second] {
        assert_eq!(process.detail(&agent.uid).await.available_components, agent.components);
    }
    let blob = |agent: &Agent| {
        let (store, id) = (store.clone(), process.id(&agent.uid));
        async move { store.agent(&id).await.unwrap().unwrap().components.unwrap() }
    };
    let shared = blob(&first).await;
    assert_eq!(shared, blob(&second).await, "agents of one build share one list");

    // Another build is another list; the former goes with its last agent.
    for agent in [&mut first, &mut second] {
        let other = built(1, b"build-2", &["otlp", "filelog"]);
        agent.components = other.components;
    }
    assert!(connect(&process, &mut first).await);
    process.settle().await;
    assert!(!connect(&process, &mut second).await);
    process.settle().await;
    assert_eq!(process.detail(&second.uid).await.available_components, second.components);
    assert_ne!(blob(&second).await, shared);
    tokio::time::sleep(Duration::from_secs(3_601)).await;
    assert_eq!(store.blob(&shared).await.unwrap(), None);
    process.stop().await;
}
