//! Available components with the opamp-go server.

use interop::ours::components;
use interop::{Extras, GoServer, LibraryAgent, Outcome, Plan, SelfAgent, each, ensure, scenario};
use serde_json::json;

use super::go_server::has;

/// R-COMP-02, R-COMP-03, R-COMP-05, R-COMP-06, R-COMP-08, R-COMP-10.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn components_are_reported_by_hash_and_in_full_when_asked_for() -> Outcome {
    each(&["ws", "http"], |scheme| {
        scenario(&format!("components-{scheme}"), |directory| {
            let mut server = GoServer::start(&[])?;
            let list = |version: &str| vec![("otlp".to_owned(), version.to_owned())];
            let mut plan = Plan::new(directory, &server.url(scheme), "built");
            plan.extras = Extras { components: list("1.0"), ..Extras::default() };
            let mut agent = LibraryAgent::start(plan)?;
            let first = server.message("the first report", |event| has(event, "agent_description"))?.value;
            let reported = &first["available_components"];
            let hash = reported["hash"].as_str().unwrap_or_default().to_owned();
            ensure!(!hash.is_empty() && reported["components"] == json!({}), "{first}");

            server.command(&json!({"do": "components"}))?;
            let full = server.message("the list", |event| has(event, "available_components"))?.value;
            let expected = json!({"otlp": {"metadata": {"version": "1.0"}, "components": {}}});
            ensure!(full["available_components"]["components"] == expected, "{full}");
            ensure!(full["available_components"]["hash"] == hash.as_str(), "{full}");
            ensure!(full["parts"] == json!(["available_components"]), "more than was asked for: {full}");

            server.mark();
            agent.client()?.set_available_components(components(&list("1.1")))?;
            let changed = server.message("another hash", |event| has(event, "available_components"))?.value;
            ensure!(changed["available_components"]["hash"] != hash.as_str(), "{changed}");
            ensure!(changed["available_components"]["components"] == json!({}), "{changed}");
            agent.stop()
        })
    })
}

/// The same, of a program that knows what it is made of.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn components_of_the_self_agent_are_listed_when_asked_for() -> Outcome {
    each(&["ws", "http"], |scheme| {
        scenario(&format!("parts-{scheme}"), |directory| {
            let mut server = GoServer::start(&[])?;
            let mut plan = Plan::new(directory, &server.url(scheme), "made");
            plan.extras = Extras { components: vec![(String::new(), String::new())], ..Extras::default() };
            let mut agent = SelfAgent::start(plan)?;
            let first = server.message("the first report", |event| has(event, "agent_description"))?.value;
            let hash = first["available_components"]["hash"].as_str().unwrap_or_default();
            ensure!(!hash.is_empty() && first["available_components"]["components"] == json!({}), "{first}");
            server.command(&json!({"do": "components"}))?;
            let full = server.message("the list", |event| has(event, "available_components"))?.value;
            ensure!(full["available_components"]["hash"] == hash, "{full}");
            let listed = full["available_components"]["components"].as_object();
            ensure!(listed.is_some_and(|listed| !listed.is_empty()), "{full}");
            agent.stop()
        })
    })
}
