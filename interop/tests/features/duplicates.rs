//! Two agents under one identity: machines that were cloned, or somebody who pretends.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use interop::local::{self, LocalServer, Setup};
use interop::process::Signal;
use interop::{Agent, Outcome, each, ensure, scenario};
use opamp_server::{
    AgentSnapshot, OtherCredential, SameCredential, ServerSettings, StaticToken, StaticTokens,
};

use super::{EVENTUALLY, agent, is_connected, principal};

const UID: &str = "0193a5a5-0000-7000-8000-00000000d0b1";

/// How long a socket has to answer a ping.
const PING: Duration = Duration::from_millis(800);

/// Over which schemes the first and the second come.
#[derive(Clone, Copy)]
struct Pair(&'static str, &'static str);

const PAIRS: [Pair; 4] = [Pair("ws", "ws"), Pair("ws", "http"), Pair("http", "ws"), Pair("http", "http")];

/// R-ID-14, R-ID-15.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn clone_with_the_same_credential_gets_an_identity_of_its_own() -> Outcome {
    for_each(&PAIRS, |Pair(first, second), directory| {
        let server = server(OtherCredential::Flag)?;
        let mut incumbent = start(directory, &server, first, "incumbent", "a")?;
        // Far enough ahead: opamp-go counts from 0, and of two that poll, the numbers are all there is to tell them apart by.
        server.sees("the first", EVENTUALLY, |agent| is_connected(agent) && agent.sequence_num.0 >= 10)?;
        let mut newcomer = start(directory, &server, second, "newcomer", "a")?;
        let agents = both(&server)?;
        let conflicts: u32 = agents.iter().map(|agent| agent.sticky.uid_conflicts).sum();
        ensure!(conflicts > 0, "nobody can see that there was one: {agents:#?}");
        let renamed = [&mut incumbent, &mut newcomer].map(|agent| agent.count("agent_identification"));
        // An agent that polls gives way to one that comes after it, and is then the one that comes; of two that poll
        // either may be taken for the second.
        let right = match (*first, *second) {
            ("ws", _) => renamed == [0, 1],
            (_, "ws") => renamed == [1, 0],
            _ => renamed.iter().sum::<usize>() == 1,
        };
        ensure!(right, "given another identity: incumbent and newcomer {renamed:?} times");
        incumbent.quit()?;
        newcomer.quit()
    })
}

/// R-ID-17: the socket of an agent that is frozen, or behind a dead line, does not hold its identity for ever.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn silent_socket_is_replaced_by_the_newcomer() -> Outcome {
    for_each(&[Pair("ws", "ws"), Pair("ws", "http")], |Pair(first, second), directory| {
        let server = server(OtherCredential::Flag)?;
        let frozen = start(directory, &server, first, "incumbent", "a")?;
        let (seen, _) = server.sees("the first", EVENTUALLY, is_connected)?;
        let before = seen.connection.map(|connection| connection.id);
        frozen.signal(Signal::Stop)?;
        let mut newcomer = start(directory, &server, second, "newcomer", "a")?;
        server.sees("the newcomer in its place", EVENTUALLY, |agent| {
            is_connected(agent)
                && agent.connection.as_ref().map(|connection| connection.id) != before
                && local::name(agent).as_deref() == Some("newcomer")
        })?;
        ensure!(newcomer.count("agent_identification") == 0, "it was renamed");
        frozen.kill()?;
        newcomer.quit()
    })
}

/// R-ID-17.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_that_comes_back_is_no_duplicate() -> Outcome {
    for_each(&PAIRS, |Pair(first, second), directory| {
        let server = server(OtherCredential::Reject)?;
        let agent = start(directory, &server, first, "returning", "a")?;
        server.sees("it", EVENTUALLY, is_connected)?;
        agent.kill()?;
        let agent = start(directory, &server, second, "returning", "a")?;
        server.sees("it again", EVENTUALLY, |seen| started(seen, 1) && is_over(seen, second))?;
        agent.quit()?;
        let mut agent = start(directory, &server, first, "returning", "a")?;
        let (seen, _) =
            server.sees("it once more", EVENTUALLY, |seen| started(seen, 2) && is_over(seen, first))?;
        ensure!(seen.sticky.uid_conflicts == 0, "{seen:?}");
        ensure!(agent.count("agent_identification") == 0, "it was renamed");
        agent.quit()
    })
}

/// R-ID-14, R-ID-16.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn another_credential_is_flagged_and_changes_nothing() -> Outcome {
    for_each(&PAIRS, |Pair(first, second), directory| {
        let server = server(OtherCredential::Flag)?;
        let incumbent = start(directory, &server, first, "incumbent", "a")?;
        server.sees("the first", EVENTUALLY, is_connected)?;
        let mut newcomer = start(directory, &server, second, "newcomer", "b")?;
        let told = newcomer.expect("error_response")?;
        ensure!(told["type"] == "ServerErrorResponseType_BadRequest", "{told}");
        unharmed(&server)?;
        newcomer.kill()?;
        incumbent.quit()
    })
}

/// R-ID-16.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn another_credential_is_turned_away() -> Outcome {
    for_each(&PAIRS, |Pair(first, second), directory| {
        let server = server(OtherCredential::Reject)?;
        let incumbent = start(directory, &server, first, "incumbent", "a")?;
        server.sees("the first", EVENTUALLY, is_connected)?;
        let newcomer = start(directory, &server, second, "newcomer", "b")?;
        unharmed(&server)?;
        newcomer.kill()?;
        incumbent.quit()
    })
}

/// R-ID-15.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn another_credential_gets_an_identity_of_its_own() -> Outcome {
    for_each(&PAIRS, |Pair(first, second), directory| {
        let server = server(OtherCredential::Rekey)?;
        let mut incumbent = start(directory, &server, first, "incumbent", "a")?;
        server.sees("the first", EVENTUALLY, is_connected)?;
        let mut newcomer = start(directory, &server, second, "newcomer", "b")?;
        newcomer.expect("agent_identification")?;
        let mut who: Vec<String> = both(&server)?.iter().map(principal).collect();
        who.sort();
        ensure!(who == ["token:a", "token:b"], "{who:?}");
        ensure!(incumbent.count("agent_identification") == 0, "the agent that was there first had to go");
        incumbent.quit()?;
        newcomer.quit()
    })
}

/// R-ID-16.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn another_credential_takes_over_if_that_is_wanted() -> Outcome {
    for_each(&PAIRS, |Pair(first, second), directory| {
        let server = server(OtherCredential::NewestWins)?;
        let incumbent = start(directory, &server, first, "incumbent", "a")?;
        server.sees("the first", EVENTUALLY, is_connected)?;
        let newcomer = start(directory, &server, second, "newcomer", "b")?;
        let (seen, _) = server.sees("the second", EVENTUALLY, |agent| principal(agent) == "token:b")?;
        ensure!(seen.sticky.uid_conflicts > 0, "{seen:?}");
        newcomer.kill()?;
        incumbent.kill()
    })
}

fn server(other_credential: OtherCredential) -> Outcome<LocalServer> {
    let mut settings = ServerSettings::default();
    settings.duplicates.other_credential = other_credential;
    settings.duplicates.same_credential = SameCredential::PingThenRekey;
    settings.duplicates.ping_timeout = PING;
    let tokens = ["a", "b"].map(|name| StaticToken::new(name, &format!("token-{name}")));
    LocalServer::with(Setup {
        auth: Arc::new(StaticTokens::new(tokens.into())),
        settings,
        ..Setup::default()
    })
}

fn start(directory: &Path, server: &LocalServer, scheme: &str, name: &str, token: &str) -> Outcome<Agent> {
    agent(directory, server, scheme, name, &["-uid", UID, "-token", &format!("token-{token}")])
}

/// Two agents, each with its own name.
fn both(server: &LocalServer) -> Outcome<Vec<AgentSnapshot>> {
    server.sees_all("two agents", EVENTUALLY, |agents| {
        let mut names: Vec<_> = agents.iter().filter(|agent| is_connected(agent)).map(local::name).collect();
        names.sort();
        names == ["incumbent", "newcomer"].map(|name| Some(name.to_owned()))
    })
}

/// The first is the only one, as it was, and goes on; the conflict is on record.
fn unharmed(server: &LocalServer) -> Outcome {
    let (seen, _) = server.sees("a conflict", EVENTUALLY, |agent| agent.sticky.uid_conflicts > 0)?;
    server.sees("more of the first", EVENTUALLY, |agent| {
        agent.sequence_num.0 >= seen.sequence_num.0 + 5
            && principal(agent) == "token:a"
            && is_connected(agent)
            && local::name(agent).as_deref() == Some("incumbent")
    })?;
    Ok(())
}

/// Connected, after so many restarts.
fn started(agent: &AgentSnapshot, times: u32) -> bool {
    is_connected(agent) && agent.sticky.start_time_changes == times
}

fn is_over(agent: &AgentSnapshot, scheme: &str) -> bool {
    let transport = agent.connection.as_ref().map(|connection| connection.transport.as_str());
    transport == Some(if scheme == "ws" { "websocket" } else { "http" })
}

fn for_each(pairs: &[Pair], body: impl Fn(&Pair, &Path) -> Outcome + Sync) -> Outcome {
    each(pairs, |pair| scenario(&pair.to_string(), |directory| body(pair, directory)))
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-then-{}", self.0, self.1)
    }
}
