//! The probes from near, and what all have in common. Each ends within its time, whatever it finds.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use opamp_client::{
    Builder, Client, ClientSettings, Description, FailureKind, InstanceUid, ProbeError, Proxy, SequenceNum,
    TlsSource,
};
use opamp_fleet::manager::{FleetManager, NotReady};
use opamp_proto::AgentId;
use opamp_server::ServerHandle;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    SERVICE_NAME,
    access::Credential,
    board::{Fault, Finding, Side},
    digestion::{Digestion, Said},
    marks::{self, Marks},
    pin::Served,
};

const CHECK_STORE: &str = "check the database, its disk and the log of the server";

/// Looks at the server from within.
pub(crate) struct InProcess {
    uid: InstanceUid,
    opamp: ServerHandle,
    fleet: FleetManager,
    /// A look that has not ended: no second one is begun beside it.
    looking: Option<JoinHandle<(Option<SequenceNum>, Option<AgentId>)>>,
    digestion: Digestion,
}

/// The way to the port of this server, for one credential.
pub(crate) struct Door {
    url: String,
    tls: Option<(TlsSource, Served)>,
    credential: Arc<Credential>,
    marks: Marks,
}

/// What came of one connection.
pub(super) struct Attempt {
    pub(super) result: Result<(), Fault>,
    /// The request was here, in this process.
    pub(super) arrived: bool,
    /// With the credential it was given.
    pub(super) recognised: bool,
}

/// Why there is no way to the server's own port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// A URL has no place for the interface, without which such an address leads nowhere.
    #[error("it cannot connect to {0}; set `opamp.listen` to an address without an interface")]
    Interface(SocketAddr),
    #[error("it has no TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
}

/// Runs a probe within its time.
pub(crate) async fn timed(limit: Duration, probe: impl Future<Output = Result<(), Fault>>) -> Finding {
    let begun = Instant::now();
    let result = timeout(limit, probe).await.unwrap_or_else(|_| {
        let detail = format!("nothing came of it within {} ms", limit.as_millis());
        Err(Fault::new(Side::Path, FailureKind::Timeout.as_str(), detail, FailureKind::Timeout.hint()))
    });
    Finding { took: begun.elapsed(), result }
}

impl InProcess {
    /// Asks for the agent with this identity, whose existence is no condition.
    pub(crate) fn new(
        uid: InstanceUid,
        opamp: ServerHandle,
        fleet: FleetManager,
        interval: Duration,
    ) -> Self {
        InProcess { uid, opamp, fleet, looking: None, digestion: Digestion::new(interval) }
    }

    /// Sessions, fleet manager and store each answer a question, and what the agent said has come through to them; `said`
    /// is none while it cannot say anything.
    pub(crate) async fn run(&mut self, said: Option<Said>) -> Result<(), Fault> {
        let (uid, opamp, fleet) = (self.uid, self.opamp.clone(), self.fleet.clone());
        // On a thread of its own: a lock that nobody releases must not take this task with it.
        let looking = self.looking.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                drop((opamp.stats(), fleet.stats()));
                (opamp.agent(&uid).map(|agent| agent.sequence_num), fleet.agent_id(&uid))
            })
        });
        let looked = looking.await;
        self.looking = None;
        let (heard, known) = looked.map_err(|error| {
            let detail = format!("looking at the sessions failed: {error}");
            Fault::new(Side::Server, "internal", detail, "look into the log of the server")
        })?;
        self.fleet.ready().await.map_err(|error| {
            let kind = if matches!(error, NotReady::Store(_)) { "store" } else { "internal" };
            Fault::new(Side::Server, kind, error.to_string(), CHECK_STORE)
        })?;
        let record = match known {
            None => None,
            Some(id) => self.fleet.agent(&id).await.map_err(|error| {
                let detail = format!("the Self-Agent's record cannot be read: {error}");
                Fault::new(Side::Server, "store", detail, CHECK_STORE)
            })?,
        };
        let reported = record.and_then(|record| record.health_report);
        let reported = reported.as_ref().map(|health| (health.healthy, health.status.as_str()));
        self.digestion.look(said, heard, reported, Instant::now())
    }
}

impl Door {
    /// The port as it is bound, with the certificate that it shows if it speaks TLS.
    ///
    /// # Errors
    /// [`DoorError`].
    pub(crate) fn new(
        addr: SocketAddr,
        path: &str,
        served: Option<&Served>,
        credential: &Arc<Credential>,
        marks: &Marks,
    ) -> Result<Self, DoorError> {
        let scheme = if served.is_some() { "wss" } else { "ws" };
        let tls = match served {
            None => None,
            Some(served) => {
                let config = served.client_config(credential.certificate.as_ref())?;
                Some((TlsSource::new(config), served.clone()))
            }
        };
        let url = format!("{scheme}://{}{path}", reachable(addr, has_loopback_v6())?);
        Ok(Door { url, tls, credential: Arc::clone(credential), marks: marks.clone() })
    }

    /// An agent that goes through it.
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = Client::builder(&self.url, description()).proxy(Proxy::none());
        if let Some((source, _)) = &self.tls {
            builder = builder.tls(source.clone());
        }
        with_token(builder, &self.credential)
    }

    /// Goes through it once, up to the open WebSocket.
    pub(crate) async fn probe(&self, limit: Duration) -> Result<(), Fault> {
        let generation = || self.tls.as_ref().map(|(_, served)| served.generation());
        let before = generation();
        let mut attempt = connect(self.builder(), &self.marks, limit).await?;
        if attempt.result.is_err() && before != generation() {
            // The certificate was replaced in the middle of it.
            attempt = connect(self.builder(), &self.marks, limit).await?;
        }
        attempt.result?;
        if !attempt.arrived {
            let detail = format!("somebody else accepts connections at {}", self.url);
            let hint = "find out which other program listens on this port, and end it";
            return Err(Fault::new(Side::Server, "elsewhere", detail, hint));
        }
        Ok(())
    }
}

/// Connects once, up to the open WebSocket.
///
/// # Errors
/// It cannot be tried at all.
pub(super) async fn connect(builder: Builder, marks: &Marks, limit: Duration) -> Result<Attempt, Fault> {
    let mark = marks.expect().map_err(|error| local(format!("no random numbers: {error}")))?;
    let mut settings = ClientSettings::default();
    settings.session.connect_timeout = limit;
    // Whoever answers does not say where this server goes next.
    settings.redirects_max = 0;
    let result = match builder.settings(settings).header(marks::HEADER, mark.word()).probe().await {
        Ok(()) => Ok(()),
        Err(ProbeError::Failed(failure)) => Err(failure.into()),
        Err(error) => return Err(local(error.to_string())),
    };
    Ok(Attempt { result, arrived: mark.has_arrived(), recognised: mark.is_recognised() })
}

/// Who the agent is, in its own words.
pub(super) fn description() -> Description {
    Description::new(SERVICE_NAME).version(env!("CARGO_PKG_VERSION"))
}

/// An address to connect to, of one that is listened on: that of all interfaces is none.
fn reachable(addr: SocketAddr, has_loopback_v6: bool) -> Result<SocketAddr, DoorError> {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // Without IPv6 on this machine the same socket is there for IPv4 alone.
        IpAddr::V6(ip) if ip.is_unspecified() && !has_loopback_v6 => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    match addr {
        SocketAddr::V6(addr) if addr.scope_id() != 0 => Err(DoorError::Interface(addr.into())),
        _ => Ok(SocketAddr::new(ip, addr.port())),
    }
}

/// Whether this machine has the address `::1`.
fn has_loopback_v6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

pub(super) fn with_token(builder: Builder, credential: &Credential) -> Builder {
    match &credential.token {
        Some(token) => builder.bearer_token(token),
        None => builder,
    }
}

/// What keeps a probe from looking.
pub(super) fn local(detail: impl Into<String>) -> Fault {
    let hint = "check the keys of section `self_agent` and the files that they name";
    Fault::new(Side::Probe, FailureKind::Local.as_str(), detail, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Server, config::StoreKind};

    #[test]
    fn a_listener_on_all_interfaces_is_reached_over_loopback() {
        for (listen, has_loopback_v6, target) in [
            ("0.0.0.0:4320", true, "127.0.0.1:4320"),
            ("[::]:4320", true, "[::1]:4320"),
            ("[::]:4320", false, "127.0.0.1:4320"),
            ("192.0.2.1:4320", false, "192.0.2.1:4320"),
            ("[2001:db8::1]:1", false, "[2001:db8::1]:1"),
        ] {
            let reached = reachable(listen.parse().unwrap(), has_loopback_v6).unwrap();
            assert_eq!(reached.to_string(), target);
        }
        let refused = reachable("[fe80::1%2]:4320".parse().unwrap(), true).unwrap_err();
        assert!(refused.to_string().contains("[fe80::1%2]:4320"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_does_not_end_is_a_failure_of_its_own() {
        let finding = timed(Duration::from_secs(5), std::future::pending()).await;
        let fault = finding.result.unwrap_err();
        assert_eq!((fault.kind, finding.took), ("timeout", Duration::from_secs(5)));
        assert!(fault.detail.contains("5000 ms"), "{}", fault.detail);
    }

    #[tokio::test]
    async fn what_no_session_hears_is_a_failure_within_the_process() {
        let mut config = Config::default();
        config.server.store = StoreKind::Memory;
        config.opamp.listen = ([127, 0, 0, 1], 0).into();
        config.admin.listen = ([127, 0, 0, 1], 0).into();
        config.self_agent.enabled = false;
        let server = Server::start(config).await.unwrap();
        let uid = InstanceUid::from_bytes([7; 16]);
        // Without patience.
        let (opamp, fleet) = (server.opamp().clone(), server.fleet().clone());
        // The manager's task has begun.
        while fleet.ready().await.is_err() {
            tokio::task::yield_now().await;
        }
        let mut probe = InProcess::new(uid, opamp, fleet, Duration::ZERO);
        let said = |messages| Some(Said { messages, health: None });
        for silent in [None, said(0), said(0)] {
            assert_eq!(probe.run(silent).await, Ok(()), "nothing was said");
        }
        assert_eq!(probe.run(said(1)).await, Ok(()), "it may be on its way");
        let fault = probe.run(said(1)).await.unwrap_err();
        assert_eq!((fault.kind, fault.lasts), ("unheard", true), "{fault}");
        server.shutdown().await;
    }
}
