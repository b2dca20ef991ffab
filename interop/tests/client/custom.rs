//! Custom messages with the opamp-go server.

use std::path::Path;
use std::time::Duration;

use interop::ours::DIAGNOSTICS;
use interop::{
    Extras, GoServer, LibraryAgent, Look, Outcome, Plan, SelfAgent, each, ensure, eventually, scenario,
};
use opamp_client::{CustomMessage, SendCustomError};
use serde_json::json;

use super::go_server::has;

const EVENTUALLY: Duration = Duration::from_secs(20);

const ECHO: &str = "org.example.echo/v1";
const OTHER: &str = "org.example.other";

/// R-CUST-01, R-CUST-04, R-CUST-06, R-CUST-09, R-CUST-11, R-CUST-12.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn ten_custom_messages_arrive_each_way_once_and_in_order() -> Outcome {
    over("custom", |scheme, directory| {
        let mut server = GoServer::start(&["-custom", ECHO])?;
        let mut agent = start(directory, &server, scheme)?;
        let first = server.message("the first report", |event| has(event, "agent_description"))?.value;
        ensure!(first["custom_capabilities"] == json!([ECHO, OTHER]), "{first}");

        for number in 0..10 {
            // Nobody here understands what was never announced; it comes in between.
            server.command(&json!({
                "do": "custom", "capability": "org.example.foreign", "type": "x", "data": "00",
            }))?;
            server.command(&json!({
                "do": "custom", "capability": ECHO, "type": format!("ping {number}"),
                "data": format!("{number:02x}00ff"),
            }))?;
        }
        let (received, _) = eventually("ten messages", EVENTUALLY, || {
            let received = agent.taken().custom();
            let shown = format!("{received:?}");
            Ok(Look::when(received.len() >= 10, received, shown))
        })?;
        for (number, received) in (0_u8..).zip(&received) {
            ensure!(received.capability == ECHO, "{number}: {received:?}");
            ensure!(received.kind == format!("ping {number}"), "{number}: {received:?}");
            ensure!(received.data == vec![number, 0, 0xff], "{number}: {received:?}");
        }
        ensure!(received.len() == 10, "{} messages", received.len());

        let client = agent.client()?;
        let refused = client.send_custom(CustomMessage::new(OTHER, "x", vec![0]));
        ensure!(matches!(refused, Err(SendCustomError::NotAnnounced(_))), "{refused:?}");
        server.mark();
        for number in 0..10_u8 {
            client.send_custom(CustomMessage::new(ECHO, format!("pong {number}"), vec![number, 0, 0xff]))?;
        }
        let last = json!({"capability": ECHO, "type": "pong 9", "data": "0900ff"});
        server.message("the last one", |event| event["custom_message"] == last)?;
        let arrived = server.since_mark(|event| has(event, "custom_message"));
        ensure!(arrived.len() == 10, "{arrived:?}");
        for (number, event) in arrived.iter().enumerate() {
            let data = format!("{number:02x}00ff");
            let expected = json!({"capability": ECHO, "type": format!("pong {number}"), "data": data});
            ensure!(event.value["custom_message"] == expected, "{number}: {}", event.value);
        }
        agent.stop()
    })
}

/// The self-agent answers each ping with the data it came with.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn ten_questions_to_the_self_agent_are_answered_in_order() -> Outcome {
    over("diagnostics", |scheme, directory| {
        let mut server = GoServer::start(&["-custom", DIAGNOSTICS])?;
        let mut plan = Plan::new(directory, &server.url(scheme), "answering");
        plan.extras = Extras { custom: vec![DIAGNOSTICS.to_owned()], ..Extras::default() };
        let mut agent = SelfAgent::start(plan)?;
        let first = server.message("the first report", |event| has(event, "agent_description"))?.value;
        ensure!(first["custom_capabilities"] == json!([DIAGNOSTICS]), "{first}");
        server.mark();
        let mark = server.place();
        for number in 0..10 {
            let data = format!("{number:02x}ff");
            server
                .command(&json!({"do": "custom", "capability": DIAGNOSTICS, "type": "ping", "data": data}))?;
        }
        server.back_to(mark);
        let last = json!({"capability": DIAGNOSTICS, "type": "pong", "data": "09ff"});
        server.message("the last answer", |event| event["custom_message"] == last)?;
        let answers = server.since_mark(|event| has(event, "custom_message"));
        let data: Vec<_> =
            answers.iter().map(|event| event.value["custom_message"]["data"].clone()).collect();
        let expected: Vec<_> = (0..10).map(|number| json!(format!("{number:02x}ff"))).collect();
        ensure!(data == expected, "{data:?}");
        agent.stop()
    })
}

/// R-CUST-02, R-CUST-03.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn changed_custom_capabilities_are_followed_by_both_sides() -> Outcome {
    over("capabilities", |scheme, directory| {
        let mut server = GoServer::start(&[])?;
        let mut agent = start(directory, &server, scheme)?;
        server.message("the first report", |event| has(event, "agent_description"))?;
        let client = agent.client()?;
        let message = || CustomMessage::new(OTHER, "x", vec![7]);
        let refused = client.send_custom(message());
        ensure!(matches!(refused, Err(SendCustomError::NotAnnounced(_))), "{refused:?}");
        if scheme == "ws" {
            // Over plain HTTP the opamp-go server repeats the list of its settings in every answer.
            server.command(&json!({"do": "custom_capabilities", "names": [OTHER]}))?;
            eventually("the server's new capability", EVENTUALLY, || match client.send_custom(message()) {
                Ok(()) => Ok(Look::Found(())),
                Err(refused) => Ok(Look::NotYet(refused.to_string())),
            })?;
            server.message("a message of it", |event| event["custom_message"]["data"] == "07")?;
        }
        server.mark();
        client.remove_custom_capability(ECHO)?;
        server.message("the agent's new list", |event| event["custom_capabilities"] == json!([OTHER]))?;
        agent.stop()
    })
}

fn start(directory: &Path, server: &GoServer, scheme: &str) -> Outcome<LibraryAgent> {
    let mut plan = Plan::new(directory, &server.url(scheme), "talking");
    plan.extras = Extras { custom: vec![ECHO.to_owned(), OTHER.to_owned()], ..Extras::default() };
    LibraryAgent::start(plan)
}

fn over(name: &str, body: impl Fn(&str, &Path) -> Outcome + Sync) -> Outcome {
    each(&["ws", "http"], |scheme| scenario(&format!("{name}-{scheme}"), |directory| body(scheme, directory)))
}
