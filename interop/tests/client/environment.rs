//! `HTTPS_PROXY` as an operator sets it: a variable of the self-agent's process.

use std::path::Path;
use std::time::Duration;

use interop::{LocalServer, Look, Outcome, Plan, SelfAgent, each, ensure, eventually, scenario};
use opamp_server::{DisconnectReason, ServerSettings};
use opamp_testkit::certs::Authority;
use opamp_testkit::proxy::HttpProxy;

const EVENTUALLY: Duration = Duration::from_secs(20);

/// Only the proxy can resolve it.
const AUTHORITY: &str = "opamp.test:4320";

/// Heartbeats or polls that have to pass through one tunnel; the server pings in between.
const BEATS: u64 = 6;

const HEADER: (&str, &str) = ("X-Proxy-Token", "sesame");

#[test]
fn https_proxy_that_wants_a_connect_header_carries_a_long_lived_connection() -> Outcome {
    each(&["wss", "https"], |scheme| {
        scenario(&format!("https-proxy-{scheme}"), |directory| {
            let Setting { server, proxy, mut plan } = setting(scheme, directory)?;
            plan.proxy_headers.push((HEADER.0.to_owned(), HEADER.1.to_owned()));
            let mut agent = SelfAgent::start(plan)?;
            let (first, _) = server.sees("a report", EVENTUALLY, |agent| agent.connection.is_some())?;
            server.sees("many beats", EVENTUALLY, |agent| {
                agent.sequence_num.0 >= first.sequence_num.0 + BEATS
            })?;
            server.configure(1, "health:\n  interval: 5s\n", EVENTUALLY)?;
            let (last, _) =
                server.sees("the same connection", EVENTUALLY, |agent| agent.connection.is_some())?;
            if *scheme == "wss" {
                let id =
                    |agent: opamp_server::AgentSnapshot| agent.connection.map(|connection| connection.id);
                ensure!(id(first) == id(last), "it did not live long");
            }
            agent.stop()?;
            server.sees("its goodbye", EVENTUALLY, |agent| {
                agent.disconnect.is_some_and(|(reason, _)| reason == DisconnectReason::Graceful)
            })?;
            let (connections, tunnels, refused) = (proxy.connections(), proxy.tunnels(), proxy.refused());
            ensure!(
                (connections, tunnels, refused) == (1, 1, 0),
                "{connections} connections, {tunnels} tunnels, {refused} refused"
            );
            let asked = &proxy.asked()[0];
            ensure!(asked.method == "CONNECT" && asked.target == AUTHORITY, "{asked:?}");
            Ok(())
        })
    })
}

#[test]
fn https_proxy_that_misses_its_header_is_named_in_the_log() -> Outcome {
    each(&["wss", "https"], |scheme| {
        scenario(&format!("https-proxy-refuses-{scheme}"), |directory| {
            let Setting { server: _kept, proxy, plan } = setting(scheme, directory)?;
            let mut agent = SelfAgent::start(plan)?;
            let (line, _) = eventually("a line about the proxy", EVENTUALLY, || {
                let log = agent.log()?;
                let line = log.lines().find(|line| line.contains("cannot connect")).map(str::to_owned);
                Ok(line.map_or(Look::NotYet(log), Look::Found))
            })?;
            ensure!(line.contains("proxy") && line.contains("403"), "{line}");
            ensure!(proxy.refused() > 0 && proxy.tunnels() == 0, "the proxy let it pass");
            agent.stop()
        })
    })
}

/// A server with TLS behind a proxy that wants a header, and an agent that is told of the proxy by its environment.
struct Setting {
    server: LocalServer,
    proxy: HttpProxy,
    plan: Plan,
}

fn setting(scheme: &str, directory: &Path) -> Outcome<Setting> {
    let authority = Authority::new("behind a proxy");
    let settings = ServerSettings { ping_interval: Duration::from_millis(200), ..ServerSettings::default() };
    let identity = authority.server(&["opamp.test"]);
    let server = LocalServer::start(settings, Some(Authority::server_config(&identity)))?;
    let builder = HttpProxy::builder().route(AUTHORITY, server.address()).require(HEADER.0, HEADER.1, 403);
    let proxy = server.run(builder.start())?;
    let mut plan = Plan::new(directory, &format!("{scheme}://{AUTHORITY}"), "proxied");
    std::fs::write(directory.join("ca.pem"), authority.pem())?;
    plan.ca = Some(directory.join("ca.pem"));
    plan.environment.push(("HTTPS_PROXY".to_owned(), proxy.url()));
    plan.heartbeat = Duration::from_millis(200);
    plan.ping = Duration::from_millis(300);
    Ok(Setting { server, proxy, plan })
}
