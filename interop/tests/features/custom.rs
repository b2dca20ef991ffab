//! Custom messages.

use bytes::Bytes;
use interop::local::{LocalServer, Setup};
use interop::{Look, Outcome, ensure, eventually};
use opamp_server::{CustomCapabilities, CustomError, CustomMessage, ServerSettings};
use serde_json::json;

use super::{EVENTUALLY, PLAIN, agent, is_connected, over};

const ECHO: &str = "org.example.echo/v1";
const OTHER: &str = "org.example.other";

/// R-CUST-01, R-CUST-06, R-CUST-09, R-CUST-11, R-CUST-12.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn ten_custom_messages_arrive_each_way_once_and_in_order() -> Outcome {
    over(&PLAIN, "custom", |scheme, directory| {
        let server = LocalServer::with(Setup { settings: settings(&[ECHO])?, ..Setup::default() })?;
        let mut agent = agent(directory, &server, scheme, "talking", &["-custom", ECHO, "-custom", OTHER])?;
        let announced = agent.expect("custom_capabilities")?;
        ensure!(announced["names"] == json!([ECHO]), "{announced}");
        let (seen, _) = server.sees("its capabilities", EVENTUALLY, |agent| {
            is_connected(agent) && agent.custom_capabilities() == [ECHO, OTHER]
        })?;

        for number in 0..10_u8 {
            // Neither text nor zero bytes are anything special.
            let data = Bytes::from(vec![number, 0, 0xff]);
            let message = CustomMessage { capability: ECHO.to_owned(), kind: format!("ping {number}"), data };
            server.handle().send_custom(&seen.uid, message)?;
        }
        for number in 0..10_u8 {
            let received = agent.expect("custom_message")?;
            ensure!(received["type"] == format!("ping {number}"), "{number}: {received}");
            ensure!(received["data"] == format!("{number:02x}00ff"), "{number}: {received}");
        }

        // The Go client sends what this server never announced; nobody here understands it.
        agent.order(&format!("custom {OTHER} lost 00"))?;
        for number in 0..10_u8 {
            agent.order(&format!("custom {ECHO} pong {number:02x}00ff"))?;
        }
        let (received, _) = eventually("ten messages", EVENTUALLY, || {
            let received = server.custom();
            let shown = format!("{received:?}");
            Ok(Look::when(received.len() >= 10, received, shown))
        })?;
        for (number, received) in (0..).zip(&received) {
            ensure!(received.uid == seen.uid && received.message.kind == "pong", "{number}: {received:?}");
            ensure!(received.message.capability == ECHO, "{number}: {received:?}");
            ensure!(received.message.data == vec![number, 0, 0xff], "{number}: {received:?}");
        }
        ensure!(received.len() == 10, "{} messages", received.len());
        agent.quit()
    })
}

/// R-CUST-02, R-CUST-03, R-CUST-04.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn changed_custom_capabilities_are_followed_by_both_sides() -> Outcome {
    over(&PLAIN, "capabilities", |scheme, directory| {
        let server = LocalServer::with(Setup { settings: settings(&[ECHO])?, ..Setup::default() })?;
        let mut agent = agent(directory, &server, scheme, "changing", &["-custom", OTHER])?;
        let (seen, _) = server.sees("its capability", EVENTUALLY, |agent| {
            is_connected(agent) && agent.custom_capabilities() == [OTHER]
        })?;
        let message =
            || CustomMessage { capability: ECHO.to_owned(), kind: "x".to_owned(), data: Bytes::new() };
        let refused = server.handle().send_custom(&seen.uid, message());
        ensure!(matches!(refused, Err(CustomError::NotAnnounced { .. })), "{refused:?}");
        agent.order(&format!("custom_capabilities {ECHO}"))?;
        server.sees("its new one", EVENTUALLY, |agent| agent.custom_capabilities() == [ECHO])?;
        server.handle().send_custom(&seen.uid, message())?;
        let received = agent.expect("custom_message")?;
        ensure!(received["data"] == "", "{received}");

        server.handle().set_custom_capabilities(CustomCapabilities::new([ECHO, OTHER])?);
        agent.expect_where("custom_capabilities", |event| event["names"] == json!([ECHO, OTHER]))?;
        agent.order("custom_capabilities")?;
        server.sees("none any more", EVENTUALLY, |agent| agent.custom_capabilities().is_empty())?;
        agent.quit()
    })
}

fn settings(names: &[&str]) -> Outcome<ServerSettings> {
    let mut settings = ServerSettings::default();
    settings.session.custom_capabilities = CustomCapabilities::new(names.iter().copied())?;
    Ok(settings)
}
