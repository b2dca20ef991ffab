//! The three probes. Each ends within its time, whatever it finds.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use opamp_client::{
    Builder, Client, ClientSettings, Description, FailureKind, InstanceUid, ProbeError, Proxy, TlsOptions,
    TlsSource,
};
use opamp_fleet::manager::{FleetManager, NotReady};
use opamp_proto::AgentId;
use opamp_server::ServerHandle;
use rustls::crypto::ring;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    SERVICE_NAME,
    access::Credential,
    board::{Fault, Finding},
    pin::Served,
};
use crate::config::SelfAgentConfig;

/// Looks at the server from within.
pub(crate) struct InProcess {
    uid: InstanceUid,
    opamp: ServerHandle,
    fleet: FleetManager,
    /// A look that has not ended: no second one is begun beside it.
    looking: Option<JoinHandle<Option<AgentId>>>,
}

/// The way to the port of this server, for one credential.
pub(crate) struct Door {
    url: String,
    tls: Option<(TlsSource, Served)>,
    credential: Arc<Credential>,
}

/// Looks at the address that agents elsewhere use.
pub(crate) struct External {
    pub(crate) config: SelfAgentConfig,
    pub(crate) credential: Arc<Credential>,
    /// Whom to trust there, once that is known.
    pub(crate) tls: Option<TlsSource>,
}

/// Runs a probe within its time.
pub(crate) async fn timed(limit: Duration, probe: impl Future<Output = Result<(), Fault>>) -> Finding {
    let begun = Instant::now();
    let result = timeout(limit, probe).await.unwrap_or_else(|_| {
        let detail = format!("nothing came of it within {} ms", limit.as_millis());
        Err(Fault { kind: FailureKind::Timeout.as_str(), detail, hint: FailureKind::Timeout.hint() })
    });
    Finding { took: begun.elapsed(), result }
}

impl InProcess {
    /// Asks for the agent with this identity, whose existence is no condition.
    pub(crate) fn new(uid: InstanceUid, opamp: ServerHandle, fleet: FleetManager) -> Self {
        InProcess { uid, opamp, fleet, looking: None }
    }

    /// Sessions, fleet manager and store each answer a question.
    pub(crate) async fn run(&mut self) -> Result<(), Fault> {
        let (uid, opamp, fleet) = (self.uid, self.opamp.clone(), self.fleet.clone());
        // On a thread of its own: a lock that nobody releases must not take this task with it.
        let looking = self.looking.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                drop((opamp.agent(&uid), opamp.stats(), fleet.stats()));
                fleet.agent_id(&uid)
            })
        });
        let looked = looking.await;
        self.looking = None;
        let known = looked.map_err(|error| Fault {
            kind: "internal",
            detail: format!("looking at the sessions failed: {error}"),
            hint: "look into the log of the server",
        })?;
        self.fleet.ready().await.map_err(|error| Fault {
            kind: if matches!(error, NotReady::Store(_)) { "store" } else { "internal" },
            detail: error.to_string(),
            hint: "check the database, its disk and the log of the server",
        })?;
        if let Some(id) = known {
            self.fleet.agent(&id).await.map_err(|error| Fault {
                kind: "store",
                detail: format!("the Self-Agent's record cannot be read: {error}"),
                hint: "check the database, its disk and the log of the server",
            })?;
        }
        Ok(())
    }
}

impl Door {
    /// The port as it is bound, with the certificate that it shows if it speaks TLS.
    ///
    /// # Errors
    /// The client certificate cannot be used.
    pub(crate) fn new(
        addr: SocketAddr,
        path: &str,
        served: Option<&Served>,
        credential: &Arc<Credential>,
    ) -> Result<Self, rustls::Error> {
        let scheme = if served.is_some() { "wss" } else { "ws" };
        let tls = match served {
            None => None,
            Some(served) => {
                let config = served.client_config(credential.certificate.as_ref())?;
                Some((TlsSource::new(config), served.clone()))
            }
        };
        let url = format!("{scheme}://{}{path}", reachable(addr));
        Ok(Door { url, tls, credential: Arc::clone(credential) })
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
        let outcome = connect(self.builder(), limit).await;
        if outcome.is_err() && before != generation() {
            // The certificate was replaced in the middle of it.
            return connect(self.builder(), limit).await;
        }
        outcome
    }
}

impl External {
    /// The same from outside, through the proxy if there is one.
    pub(crate) async fn run(&mut self, limit: Duration) -> Result<(), Fault> {
        let Some(url) = self.config.external_url.clone() else { return Ok(()) };
        let proxy = self.config.proxy.proxy().map_err(|error| local(error.to_string()))?;
        let mut builder = Client::builder(url.as_str(), description()).proxy(proxy);
        if url.is_tls() {
            builder = builder.tls(self.tls().await?);
        }
        connect(with_token(builder, &self.credential), limit).await.map_err(of_another)
    }

    /// Whom to trust; made once, and then it follows its file.
    async fn tls(&mut self) -> Result<TlsSource, Fault> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let (ca_file, credential) = (self.config.ca_file.clone(), Arc::clone(&self.credential));
        // The authorities of the operating system are many files.
        let made = tokio::task::spawn_blocking(move || {
            let options = TlsOptions::new(Arc::new(ring::default_provider()));
            let options = match ca_file {
                Some(path) => options.ca_file(path),
                None => options.native_roots(),
            };
            let options = match &credential.certificate {
                Some(own) => {
                    let (chain, key) = own.pem();
                    options.client_certificate_pem(chain, key.as_bytes())
                }
                None => options,
            };
            TlsSource::from_options(options)
        });
        let made = made.await.map_err(|error| local(error.to_string()))?;
        let made = made.map_err(|error| local(error.to_string()))?;
        Ok(self.tls.insert(made).clone())
    }
}

async fn connect(builder: Builder, limit: Duration) -> Result<(), Fault> {
    let mut settings = ClientSettings::default();
    settings.session.connect_timeout = limit;
    match builder.settings(settings).probe().await {
        Ok(()) => Ok(()),
        Err(ProbeError::Failed(failure)) => Err(failure.into()),
        Err(error) => Err(local(error.to_string())),
    }
}

/// Who the agent is, in its own words.
fn description() -> Description {
    Description::new(SERVICE_NAME).version(env!("CARGO_PKG_VERSION"))
}

/// An address to connect to, of one that is listened on: that of all interfaces is none.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

fn with_token(builder: Builder, credential: &Credential) -> Builder {
    match &credential.token {
        Some(token) => builder.bearer_token(token),
        None => builder,
    }
}

fn local(detail: String) -> Fault {
    Fault { kind: FailureKind::Local.as_str(), detail, hint: "check the keys of section `self_agent`" }
}

/// A credential of this process that is refused was refused by somebody else.
fn of_another(fault: Fault) -> Fault {
    if fault.kind != FailureKind::Auth.as_str() {
        return fault;
    }
    let hint = "`self_agent.external_url` must lead to this very server, and nothing on the way may take out the \
                Authorization header or answer in its place";
    Fault { hint, ..fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_interfaces_is_reached_over_loopback() {
        for (listen, target) in [
            ("0.0.0.0:4320", "127.0.0.1:4320"),
            ("[::]:4320", "[::1]:4320"),
            ("192.0.2.1:4320", "192.0.2.1:4320"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), target);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_does_not_end_is_a_failure_of_its_own() {
        let finding = timed(Duration::from_secs(5), std::future::pending()).await;
        let fault = finding.result.unwrap_err();
        assert_eq!((fault.kind, finding.took), ("timeout", Duration::from_secs(5)));
        assert!(fault.detail.contains("5000 ms"), "{}", fault.detail);
    }
}
