//! Our client against our server, over every way to get there.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use interop::{LibraryAgent, LocalServer, Outcome, Plan, each, ensure, scenario};
use opamp_proto::Part;
use opamp_server::{AgentSnapshot, DisconnectReason, ServerSettings};
use opamp_testkit::certs::Authority;
use opamp_testkit::proxy::HttpProxy;

const EVENTUALLY: Duration = Duration::from_secs(20);

/// A name that nobody but the proxy can resolve: what gets there went through it.
const NAME: &str = "opamp.test";
const PORT: u16 = 4320;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Http,
    WebSocket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Mutual,
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    Nothing,
    Proxy,
    /// A proxy that refuses whoever does not show a header.
    ProxyWithHeader,
    /// A proxy that speaks TLS itself.
    SecureProxy,
}

#[derive(Clone, Copy, Debug)]
struct Way(Transport, Tls, Through);

#[test]
fn every_transport_with_every_kind_of_tls_and_proxy() -> Outcome {
    let mut ways = Vec::new();
    for transport in [Transport::WebSocket, Transport::Http] {
        for tls in [Tls::No, Tls::Yes, Tls::Mutual] {
            for through in [Through::Nothing, Through::Proxy, Through::ProxyWithHeader] {
                ways.push(Way(transport, tls, through));
            }
        }
    }
    assert_eq!(ways.len(), 18);
    each(&ways, |way| scenario("matrix", |directory| walk(*way, directory)))
}

#[test]
fn proxies_that_speak_tls_themselves_are_no_different() -> Outcome {
    let ways = [
        Way(Transport::WebSocket, Tls::No, Through::SecureProxy),
        Way(Transport::WebSocket, Tls::Yes, Through::SecureProxy),
        Way(Transport::Http, Tls::No, Through::SecureProxy),
        Way(Transport::Http, Tls::Yes, Through::SecureProxy),
    ];
    each(&ways, |way| scenario("secure-proxy", |directory| walk(*way, directory)))
}

/// Connect, report, config applied, goodbye.
fn walk(way: Way, directory: &Path) -> Outcome {
    let authority = Authority::new("matrix authority");
    let server = server(way, &authority)?;
    let mut plan = Plan::new(directory, "", "traveller");
    if way.1 != Tls::No || way.2 == Through::SecureProxy {
        std::fs::write(directory.join("ca.pem"), authority.pem())?;
        plan.ca = Some(directory.join("ca.pem"));
    }
    if way.1 == Tls::Mutual {
        let client = authority.client("traveller", &[]);
        let (certificate, key) = (directory.join("client.pem"), directory.join("client.key"));
        std::fs::write(&certificate, &client.cert_pem)?;
        std::fs::write(&key, &client.key_pem)?;
        plan.identity = Some((certificate, key));
    }
    let proxy = proxy(way, &authority, &server, &mut plan)?;
    plan.url = match way.2 {
        Through::Nothing => format!("{}://{}", way.scheme(), server.address()),
        _ => format!("{}://{NAME}:{PORT}", way.scheme()),
    };

    let mut agent = LibraryAgent::start(plan)?;
    let reported =
        |agent: &AgentSnapshot| agent.connection.is_some() && agent.state.part(Part::Health).is_some();
    let (seen, _) = server.sees("its report", EVENTUALLY, reported)?;
    let principal = seen.connection.map(|connection| connection.principal.to_string());
    if way.1 == Tls::Mutual {
        ensure!(principal.as_deref() == Some("certificate:traveller"), "{principal:?}");
    }
    server.configure(1, "way: found\n", EVENTUALLY)?;
    agent.stop()?;
    server.sees("its goodbye", EVENTUALLY, |agent| {
        agent.disconnect.is_some_and(|(reason, _)| reason == DisconnectReason::Graceful)
    })?;
    ensure!(agent.applications() == 1, "applied {} times", agent.applications());
    let failures: Vec<_> =
        agent.events().into_iter().filter(|(event, _)| event.is_warning()).map(|(event, _)| event).collect();
    ensure!(failures.is_empty(), "not at the first attempt: {failures:?}");
    proxy.map_or(Ok(()), |proxy| went_through(way, &proxy))
}

fn went_through(way: Way, proxy: &HttpProxy) -> Outcome {
    let (tunnels, forwarded, refused) = (proxy.tunnels(), proxy.forwarded(), proxy.refused());
    let fits = match way {
        // Whole requests for the proxy to forward, as with any other HTTP client.
        Way(Transport::Http, Tls::No, _) => tunnels == 0 && forwarded > 0,
        Way(..) => tunnels == 1 && forwarded == 0,
    };
    ensure!(fits && refused == 0, "{tunnels} tunnels, {forwarded} forwarded, {refused} refused");
    Ok(())
}

fn server(way: Way, authority: &Authority) -> Outcome<LocalServer> {
    let identity = authority.server(&["127.0.0.1", NAME]);
    match way.1 {
        Tls::No => LocalServer::start(ServerSettings::default(), None),
        Tls::Yes => LocalServer::start(ServerSettings::default(), Some(Authority::server_config(&identity))),
        Tls::Mutual => {
            LocalServer::mutual(ServerSettings::default(), authority.mutual_server_config(&identity, true))
        }
    }
}

/// Starts the proxy, if there is one, and makes the agent use it.
fn proxy(
    way: Way,
    authority: &Authority,
    server: &LocalServer,
    plan: &mut Plan,
) -> Outcome<Option<HttpProxy>> {
    let builder = HttpProxy::builder().route(&format!("{NAME}:{PORT}"), server.address());
    let builder = match way {
        Way(.., Through::Nothing) => return Ok(None),
        Way(.., Through::Proxy) => builder,
        // Headers of our own choice go with CONNECT alone; a forwarded request has its Proxy-Authorization.
        Way(Transport::Http, Tls::No, Through::ProxyWithHeader) => {
            builder.require("proxy-authorization", "Basic dXNlcjpzZXNhbWU=", 407)
        }
        Way(.., Through::ProxyWithHeader) => {
            plan.proxy_headers.push(("X-Proxy-Token".to_owned(), "sesame".to_owned()));
            builder.require("x-proxy-token", "sesame", 403)
        }
        Way(.., Through::SecureProxy) => {
            builder.tls(Authority::server_config(&authority.server(&["127.0.0.1"])))
        }
    };
    let proxy = server.run(builder.start())?;
    plan.proxy = Some(proxy.url().replace("://", "://user:sesame@"));
    Ok(Some(proxy))
}

impl Way {
    fn scheme(self) -> &'static str {
        match (self.0, self.1) {
            (Transport::WebSocket, Tls::No) => "ws",
            (Transport::WebSocket, _) => "wss",
            (Transport::Http, Tls::No) => "http",
            (Transport::Http, _) => "https",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = if self.1 == Tls::Mutual { " with a client certificate" } else { "" };
        let through = match self.2 {
            Through::Nothing => "directly",
            Through::Proxy => "through a proxy",
            Through::ProxyWithHeader => "through a proxy that wants a header",
            Through::SecureProxy => "through a proxy that speaks TLS",
        };
        write!(f, "{}{mutual}, {through}", self.scheme())
    }
}
