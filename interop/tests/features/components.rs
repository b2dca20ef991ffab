//! Available components.

use interop::local::{LocalServer, Setup, name, reported};
use interop::{Outcome, ensure};
use opamp_proto::{Part, pb};
use opamp_server::AgentSnapshot;
use prost::Message as _;

use super::{EVENTUALLY, PLAIN, agent, is_connected, over};

const BUILD: [&str; 4] = ["-component", "otlp=1.0", "-component", "batch=2.0"];

/// R-COMP-04, R-COMP-07, R-COMP-09.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn components_are_asked_for_once_per_build() -> Outcome {
    over(&PLAIN, "components", |scheme, directory| {
        let server = LocalServer::with(Setup::default())?;
        let mut first = agent(directory, &server, scheme, "first", &BUILD)?;
        server
            .sees("the list", EVENTUALLY, |agent| is_connected(agent) && knows(agent, &["batch", "otlp"]))?;

        let second = agent(directory, &server, scheme, "second", &BUILD)?;
        let agents = server.sees_all("the same list of another agent", EVENTUALLY, |agents| {
            agents.len() == 2 && agents.iter().all(|agent| knows(agent, &["batch", "otlp"]))
        })?;
        let other = agents.iter().find(|agent| name(agent).as_deref() == Some("second"));
        let sent =
            other.and_then(|agent| reported::<pb::AvailableComponents>(agent, Part::AvailableComponents));
        ensure!(sent.as_ref().is_some_and(|sent| sent.components.is_empty()), "it was asked again: {sent:?}");

        first.order("components otlp 1.1")?;
        server.sees_all("the new list of the first", EVENTUALLY, |agents| {
            let first = agents.iter().find(|agent| name(agent).as_deref() == Some("first"));
            first.is_some_and(|agent| knows(agent, &["otlp"]))
        })?;
        first.quit()?;
        second.quit()
    })
}

/// Whether the components of an agent are these.
fn knows(agent: &AgentSnapshot, names: &[&str]) -> bool {
    let list = agent.components.clone().and_then(|list| pb::AvailableComponents::decode(list).ok());
    list.is_some_and(|list| list.components.keys().eq(names))
}
