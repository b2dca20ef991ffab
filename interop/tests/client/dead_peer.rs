//! A peer that is dead, or cannot be heard, is noticed within the configured deadline, and found again.

use std::fmt;
use std::time::{Duration, Instant};

use interop::process::Signal;
use interop::{LibraryAgent, LocalServer, Outcome, Plan, SelfAgent, Server, each, ensure, scenario};
use opamp_client::{DisconnectCause, Event, FailureKind};
use opamp_server::{AgentSnapshot, DisconnectReason, Liveness, ServerSettings};
use opamp_testkit::proxy::{Direction, Forwarder, Mode};

const EVENTUALLY: Duration = Duration::from_secs(20);

/// The client's deadlines.
const PING: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(200);
const SILENCE: Duration = Duration::from_millis(1_500);

/// The server's: for WebSockets; polling agents are stale after the same time, and gone after twice that. Far enough
/// apart that a busy machine sees `stale`.
const SERVER_PING: Duration = Duration::from_millis(200);
const SERVER_STALE: Duration = Duration::from_millis(2_000);
const SERVER_SILENCE: Duration = Duration::from_millis(4_000);

/// How much a busy machine may add to a deadline.
const LATE: Duration = Duration::from_secs(10);

/// How much earlier it may seem: the last sign of life was before this one was cut off, and late on a busy machine.
const EARLY: Duration = Duration::from_millis(400);

#[test]
fn stopped_server_is_noticed_by_the_client_and_found_again() -> Outcome {
    each(&["ws", "http"], |scheme| {
        scenario(&format!("stopped-server-{scheme}"), |directory| {
            let server = Server::start(directory, &[])?;
            let mut agent =
                LibraryAgent::start(impatient(Plan::new(directory, &server.url(scheme), "waiting")))?;
            server.agent("waiting")?.until("a poll or two", EVENTUALLY, |record| {
                record["liveness"] == "connected"
                    && (*scheme == "ws" || record["sequence_num"].as_u64() > Some(2))
            })?;
            let known = agent.events().len();
            let stopped = Instant::now();
            server.signal(Signal::Stop)?;
            let noticed = agent.until(known, "the dead server", SILENCE + PING + LATE, gave_up)?;
            between(noticed - stopped, SILENCE - PING, SILENCE + PING)?;
            server.signal(Signal::Continue)?;
            agent.until(known, "the server again", EVENTUALLY, connected)?;
            server
                .agent("waiting")?
                .until("its agent again", EVENTUALLY, |record| record["liveness"] == "connected")?;
            agent.stop()
        })
    })
}

#[test]
fn stopped_agent_is_stale_and_then_given_up_by_the_server() -> Outcome {
    each(&["ws", "http"], |scheme| {
        scenario(&format!("stopped-agent-{scheme}"), |directory| {
            let millis = |span: Duration| format!("{}ms", span.as_millis());
            let (ping, stale) = (millis(SERVER_PING), millis(SERVER_STALE));
            let silence = millis(SERVER_SILENCE);
            let server = Server::start(
                directory,
                &[
                    &[
                        "--ping-interval",
                        &*ping,
                        "--websocket-stale-after",
                        &*stale,
                        "--read-timeout",
                        &*silence,
                    ],
                    &["--http-poll-interval", &*ping, "--http-stale-min", &*stale][..],
                ]
                .concat(),
            )?;
            let mut agent = SelfAgent::start(Plan::new(directory, &server.url(scheme), "frozen"))?;
            let record = server.agent("frozen")?;
            record.until("it speaks", EVENTUALLY, |record| {
                record["liveness"] == "connected"
                    && (*scheme == "ws" || record["sequence_num"].as_u64() > Some(2))
            })?;
            let begun = Instant::now();
            agent.signal(Signal::Stop)?;
            record.until("stale", SERVER_STALE + LATE, |record| record["liveness"] == "stale")?;
            between(begun.elapsed(), SERVER_STALE - SERVER_PING, SERVER_STALE)?;
            let (seen, _) = record
                .until("given up", SERVER_SILENCE + LATE, |record| record["liveness"] == "disconnected")?;
            between(begun.elapsed(), SERVER_SILENCE - SERVER_PING, SERVER_SILENCE)?;
            let how = &seen["disconnect"];
            ensure!(how["graceful"] == false && how["reason"] == "timeout", "{seen:#}");
            agent.signal(Signal::Continue)?;
            record.until("it is back", EVENTUALLY, |record| record["liveness"] == "connected")?;
            agent.stop()
        })
    })
}

/// Over which scheme, and where bytes get lost.
#[derive(Clone, Copy, Debug)]
struct Silence(&'static str, Direction);

#[test]
fn silence_in_either_direction_is_noticed_on_both_sides() -> Outcome {
    let directions = [Direction::ToServer, Direction::ToAgent, Direction::Both];
    let cases: Vec<_> =
        ["ws", "http"].iter().flat_map(|scheme| directions.map(|lost| Silence(scheme, lost))).collect();
    each(&cases, |Silence(scheme, lost)| {
        scenario("silence", |directory| {
            let server = LocalServer::start(attentive(), None)?;
            let path = server.run(Forwarder::start(server.address()))?;
            let url = format!("{scheme}://{}", path.addr());
            let mut agent = LibraryAgent::start(impatient(Plan::new(directory, &url, "lonely")))?;
            server.configure(1, "before: silence\n", EVENTUALLY)?;
            let known = agent.events().len();
            let attached = server.sees("a connection", EVENTUALLY, |agent| agent.connection.is_some())?.0;

            let begun = Instant::now();
            path.set(Mode::Stall(*lost));
            let noticed = agent.until(known, "the silence", SILENCE + PING + LATE, gave_up)?;
            match (*scheme, lost) {
                // The server gives up first or second; both its Close and our own deadline are an end.
                ("ws", Direction::ToServer) => between(noticed - begun, Duration::ZERO, SERVER_SILENCE)?,
                _ => between(noticed - begun, SILENCE - PING, SILENCE + PING)?,
            }
            server_notices(&server, scheme, *lost, &attached, begun)?;

            path.set(Mode::Pass);
            agent.until(known, "the server again", EVENTUALLY, connected)?;
            server.sees("its agent again", EVENTUALLY, |agent| agent.liveness == Liveness::Connected)?;
            server.configure(2, "after: silence\n", EVENTUALLY)?;
            agent.stop()?;
            server.sees("its goodbye", EVENTUALLY, |agent| {
                agent.disconnect.is_some_and(|(reason, _)| reason == DisconnectReason::Graceful)
            })?;
            ensure!(agent.applications() == 2, "2 configs were applied {} times", agent.applications());
            Ok(())
        })
    })
}

/// What the server makes of it: a deadline of its own where it hears nothing, the client's end where it still does.
fn server_notices(
    server: &LocalServer,
    scheme: &str,
    lost: Direction,
    attached: &AgentSnapshot,
    begun: Instant,
) -> Outcome {
    if scheme == "http" && lost == Direction::ToAgent {
        // Polls arrive as ever, and are answered into the void; each has to be a sign of life.
        let before = attached.sequence_num;
        server.sees("polls", EVENTUALLY, |agent| agent.sequence_num.0 > before.0 + 1)?;
        return Ok(());
    }
    let given_up = |agent: &AgentSnapshot| agent.liveness == Liveness::Disconnected;
    let (seen, _) = server.sees("the agent as gone", SERVER_SILENCE + LATE, given_up)?;
    let took = begun.elapsed();
    let reason = seen.disconnect.map(|(reason, _)| reason);
    if lost == Direction::ToAgent {
        ensure!(reason == Some(DisconnectReason::Closed), "{reason:?}");
        return between(took, SILENCE - PING, SILENCE + PING);
    }
    ensure!(reason == Some(DisconnectReason::Timeout), "{reason:?}");
    between(took, SERVER_SILENCE - SERVER_PING, SERVER_SILENCE)
}

/// A client that notices soon.
fn impatient(plan: Plan) -> Plan {
    Plan { ping: PING, poll: POLL, read_timeout: SILENCE, response_timeout: SILENCE, ..plan }
}

/// A server that notices soon.
fn attentive() -> ServerSettings {
    let mut settings = ServerSettings {
        ping_interval: SERVER_PING,
        read_timeout: SERVER_SILENCE,
        ..ServerSettings::default()
    };
    settings.session.websocket_stale_after = SERVER_STALE;
    settings.session.http_interval_assumed = POLL;
    settings.session.http_stale_min = SERVER_STALE;
    settings
}

fn gave_up(event: &Event) -> bool {
    match event {
        Event::Disconnected { cause: DisconnectCause::Failed { failure, .. }, .. } => {
            matches!(failure.kind, FailureKind::Closed | FailureKind::Timeout)
        }
        _ => false,
    }
}

fn connected(event: &Event) -> bool {
    matches!(event, Event::Connected { .. })
}

fn between(took: Duration, least: Duration, most: Duration) -> Outcome {
    ensure!(
        took + EARLY >= least && took <= most + LATE,
        "{took:?} instead of between {least:?} and {most:?}, give or take"
    );
    Ok(())
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, bytes lost {:?}", self.0, self.1)
    }
}
