//! An overloaded server of ours, as a client that is not ours takes it.

use std::time::{Duration, Instant};

use interop::local::{LocalServer, Setup, reported};
use interop::{Outcome, ensure};
use opamp_proto::{Part, pb};
use opamp_server::{AgentSnapshot, Throttle};

use super::{EVENTUALLY, PLAIN, agent, is_connected, over};

/// Longer than what the opamp-go client waits by itself the first time, which is at most 750 ms.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How much earlier an answer may seem to have come on a busy machine.
const EARLY: Duration = Duration::from_millis(100);

/// R-THROT-06, R-THROT-07.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn retry_after_of_our_503_is_understood() -> Outcome {
    over(&PLAIN, "503", |scheme, directory| {
        let server = LocalServer::with(Setup::default())?;
        server.handle().throttle(Some(Throttle { retry_after: RETRY_AFTER }));
        let mut agent = agent(directory, &server, scheme, "patient", &[])?;
        let refused = agent.when("connect_failed")?;
        server.handle().throttle(None);
        let waited = agent.when("connected")? - refused;
        ensure!(waited >= RETRY_AFTER - EARLY, "asked for at least {RETRY_AFTER:?}, waited {waited:?}");
        server.sees("the agent", EVENTUALLY, is_connected)?;
        agent.quit()
    })
}

/// R-THROT-01, R-THROT-03; the client does nothing about it, and what it reported meanwhile is lost on its side. The gap
/// in its sequence numbers makes up for that.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn unavailable_is_told_and_what_it_cost_is_asked_for_again() -> Outcome {
    over(&["ws"], "unavailable", |scheme, directory| {
        let server = LocalServer::with(Setup::default())?;
        let mut agent = agent(directory, &server, scheme, "busy", &[])?;
        let (seen, _) = server.sees("the agent", EVENTUALLY, is_connected)?;
        let connection = seen.connection.map(|connection| connection.id);
        server.handle().throttle(Some(Throttle { retry_after: RETRY_AFTER }));
        agent.order("health bad overloaded")?;
        let told = agent.expect("error_response")?;
        let wait = told["retry_after_ns"].as_u64().map(Duration::from_nanos).unwrap_or_default();
        ensure!(told["type"] == "ServerErrorResponseType_Unavailable" && wait >= RETRY_AFTER, "{told}");
        let again = Instant::now();
        agent.expect("error_response")?;
        ensure!(
            again.elapsed() < RETRY_AFTER,
            "opamp-go has learned to wait: docs/interop.md says it does not"
        );
        server.handle().throttle(None);
        let (seen, _) =
            server.sees("what it said meanwhile", EVENTUALLY, |agent| last_error(agent) == "overloaded")?;
        ensure!(seen.connection.as_ref().map(|connection| connection.id) == connection, "it left");
        ensure!(seen.sticky.full_state_requests > 0, "{seen:?}");
        agent.quit()
    })
}

fn last_error(agent: &AgentSnapshot) -> String {
    reported::<pb::ComponentHealth>(agent, Part::Health).map(|health| health.last_error).unwrap_or_default()
}
