//! Putting the parts together: start, run, reload, stop.

use std::{
    mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use opamp_fleet::manager::FleetManager;
use opamp_server::{Clock, OpampServer, OpampService, ServerHandle, SystemClock, TlsSource};
use opamp_store::{MemoryStore, SqliteOptions, SqliteStore, Store};
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::listener::AdminPort,
    agent_auth::AgentAccess,
    api::{self, access::RefusalGate, state::App},
    config::{Config, StoreKind},
    data_dir::DataDir,
    error::StartError,
    exposure,
    metrics::RequestCounts,
    packages::{Downloads, FleetShelf, OpampPort},
    reload::{AdminTls, OpampTls, Reloader},
    self_agent::{self, Person, SelfAgent},
    settings,
    tls::{TlsError, TlsFiles},
    token::NewToken,
    tokens::Tokens,
};

/// Entry point: [`Server::start`].
#[derive(Debug)]
pub struct Server;

/// A server that runs until [`RunningServer::shutdown`].
pub struct RunningServer {
    opamp_addr: SocketAddr,
    admin_addr: SocketAddr,
    first_admin_token: Option<NewToken>,
    app: Arc<App>,
    reloader: Arc<Mutex<Reloader>>,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
    self_agent: Option<self_agent::Running>,
    data_dir: Option<DataDir>,
}

impl Server {
    /// Starts everything and returns once both ports are open.
    ///
    /// Must be called within a tokio runtime. Logging is the caller's; see [`logging`](crate::logging).
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<RunningServer, StartError> {
        Self::start_with_clock(config, Arc::new(SystemClock::new())).await
    }

    /// [`Server::start`] by another clock than the machine's: it dates records, decides what is stale or expired, and
    /// ends the life of tokens.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running then.
    pub async fn start_with_clock(
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Result<RunningServer, StartError> {
        config.check()?;
        for warning in exposure::warnings(&config) {
            tracing::warn!("{warning}");
        }
        let own = self_agent::credentials(&config);
        let own_certificates = own.as_ref().map(|own| own.certificates()).unwrap_or_default();
        let opamp_tls =
            TlsFiles::of_opamp(&config.opamp, own_certificates).map(OpampTls::load).transpose()?;
        let admin_tls = TlsFiles::of_admin(&config.admin).map(load_admin_tls).transpose()?;
        let agents = AgentAccess::new(&config.opamp)?;
        let opamp_listener = listen("opamp.listen", config.opamp.listen).await?;
        let admin_listener = listen("admin.listen", config.admin.listen).await?;
        let local = |listener: &TcpListener, key, address| {
            listener.local_addr().map_err(|source| StartError::Listen { key, address, source })
        };
        let opamp_addr = local(&opamp_listener, "opamp.listen", config.opamp.listen)?;
        let admin_addr = local(&admin_listener, "admin.listen", config.admin.listen)?;

        let (data_dir, store) = open_store(&config).await?;
        let started_at = clock.now().wall;
        let self_agent_file = || data_dir.as_ref().map(DataDir::self_agent);
        let person = own.and_then(|own| Person::new(own, self_agent_file(), started_at));
        let guard = match &person {
            Some(person) => Some(person.guard()),
            None => self_agent::guard_of_absent(self_agent_file()),
        };
        let authenticator = agents.authenticator(guard);
        let (service, opamp, driver) = OpampServer::builder(authenticator)
            .path(config.opamp.path.clone())
            .limits(settings::limits(&config.opamp))
            .settings(settings::server(&config)?)
            .clock(Arc::clone(&clock))
            .build();
        let manager_settings = settings::manager(&config, opamp_addr);
        let (fleet, fleet_driver) =
            FleetManager::start(Arc::clone(&store), opamp.clone(), manager_settings, Arc::clone(&clock))
                .await?;
        let tokens = Tokens::new(Arc::clone(&store));
        let first_admin_token = tokens.create_first(started_at).await?;

        let stop = CancellationToken::new();
        let reloader = Reloader::new(opamp_tls.clone(), admin_tls.clone(), agents, opamp.clone());
        let reloader = Arc::new(Mutex::new(reloader));
        let reload_interval = config.server.reload_interval;
        let request_timeout = config.admin.request_timeout;
        let app = Arc::new(App {
            self_agent: SelfAgent::new(&config, person.as_ref()),
            downloads: Arc::default(),
            throttle: Mutex::default(),
            config,
            store,
            tokens,
            fleet,
            opamp,
            clock,
            started_at,
            requests: RequestCounts::default(),
            refused: AtomicU64::new(0),
            refusal_gate: RefusalGate::default(),
            verifying: Mutex::new(()),
            draining: AtomicBool::new(false),
        });
        let admin = AdminPort {
            listener: admin_listener,
            tls: admin_tls.map(|(_, tls)| tls),
            router: api::router(&app),
            request_timeout,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(named("session driver", driver.run()));
        tasks.spawn(named("fleet manager", fleet_driver.run()));
        let (source, served) = opamp_tls.map(|tls| (tls.source, tls.served)).unzip();
        tasks.spawn(named("OpAMP port", serve_agents(opamp_listener, source, service, &app)));
        tasks.spawn(named("admin port", admin.serve(stop.clone())));
        tasks.spawn(named("reloader", watch(Arc::clone(&reloader), reload_interval, stop.clone())));
        tracing::info!(%opamp_addr, %admin_addr, version = env!("CARGO_PKG_VERSION"), "server started");
        let self_agent = person.and_then(|person| {
            self_agent::Running::start(Arc::clone(&app), person, opamp_addr, served.as_ref())
        });
        Ok(RunningServer {
            opamp_addr,
            admin_addr,
            first_admin_token,
            app,
            reloader,
            stop,
            tasks,
            self_agent,
            data_dir,
        })
    }
}

impl RunningServer {
    /// Where agents connect.
    pub fn opamp_addr(&self) -> SocketAddr {
        self.opamp_addr
    }

    /// Where the REST API, health and metrics are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The admin token, if this start made the first one. It is nowhere else in clear text.
    pub fn first_admin_token(&self) -> Option<&str> {
        self.first_admin_token.as_ref().map(NewToken::reveal)
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.app.config
    }

    /// The protocol server: agents as they are this moment, and commands to them.
    pub fn opamp(&self) -> &ServerHandle {
        &self.app.opamp
    }

    /// The fleet: inventory, configs, assignments.
    pub fn fleet(&self) -> &FleetManager {
        &self.app.fleet
    }

    /// Reads certificates and token files again; SIGHUP does the same. The answer lists what could not be used, for
    /// which the old content stays in force.
    pub async fn reload(&self) -> Vec<String> {
        self.reloader.lock().await.reload()
    }

    /// Waits until a part of the server ends although nobody asked it to, which is a defect; answers which.
    pub async fn failed(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                tracing::error!(%error, "a part of the server panicked");
                "a panicking task"
            }
            None => std::future::pending().await,
        }
    }

    /// Stops gracefully: lets the Self-Agent say goodbye, accepts nothing new, closes WebSockets with 1001, lets requests
    /// finish, writes what waits and closes the store. Takes at most `server.shutdown_timeout`; answers whether all of it
    /// was done by then.
    pub async fn shutdown(mut self) -> bool {
        let limit = self.app.config.server.shutdown_timeout;
        tracing::info!("shutting down");
        self.app.draining.store(true, Ordering::Relaxed);
        self.stop.cancel();
        let app = Arc::clone(&self.app);
        let mut tasks = mem::take(&mut self.tasks);
        let self_agent = self.self_agent.take();
        // What still runs when time is up ends with the set of tasks. Boxed, because writing what waits takes much room.
        let stopping = Box::pin(async move {
            if let Some(self_agent) = self_agent {
                self_agent.stop(limit / 8).await;
            }
            let drained = app.opamp.drain(limit / 2).await;
            let written = app.fleet.shutdown().await;
            if let Err(error) = &written {
                tracing::error!(%error, "not everything was written");
            }
            while tasks.join_next().await.is_some() {}
            drained && written.is_ok()
        });
        // Not before it has its turn: a store may close as soon as it is told, not when it is waited for.
        let closing = async { self.app.store.close().await };
        let complete = within(limit, stopping, closing).await;
        // The store finishes what it accepted; its lock goes after it.
        drop(self.data_dir.take());
        tracing::info!(complete, "stopped");
        complete
    }
}

/// Serves the OpAMP port: the protocol, and the files of packages unless they are switched off.
fn serve_agents(
    listener: TcpListener,
    tls: Option<TlsSource>,
    opamp: OpampService,
    app: &App,
) -> impl Future<Output = ()> + use<> {
    let shelf = FleetShelf::new(app.fleet.clone(), Arc::clone(&app.clock));
    let bounds = settings::downloads(&app.config);
    let downloads = Downloads::new(Arc::new(shelf), Arc::clone(&app.downloads), bounds);
    let downloads = app.config.packages.enabled.then_some(downloads);
    let server = app.opamp.clone();
    async move {
        let port = OpampPort::new(opamp.clone(), server, downloads);
        opamp_server::serve_with(listener, tls, &opamp, port).await;
    }
}

/// Runs one after the other within one limit, of which a quarter is kept for the second: it has its turn even if the
/// first does not end. Answers whether the first succeeded and both ended in time.
async fn within(
    limit: Duration,
    first: impl Future<Output = bool>,
    second: impl Future<Output = ()>,
) -> bool {
    let deadline = Instant::now() + limit;
    let first = timeout_at(deadline - limit / 4, first).await;
    let second = timeout_at(deadline, second).await;
    first == Ok(true) && second.is_ok()
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn watch(reloader: Arc<Mutex<Reloader>>, interval: Duration, stop: CancellationToken) {
    loop {
        let pause = async {
            match interval.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(interval).await,
            }
        };
        tokio::select! {
            () = pause => reloader.lock().await.reload_if_changed(),
            () = stop.cancelled() => return,
        }
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { key, address, source })
}

fn load_admin_tls(files: TlsFiles) -> Result<(TlsFiles, AdminTls), TlsError> {
    let loaded = files.load()?;
    Ok((files, AdminTls::new(loaded.config)))
}

async fn open_store(config: &Config) -> Result<(Option<DataDir>, Arc<dyn Store>), StartError> {
    match config.server.store {
        StoreKind::Memory => Ok((None, Arc::new(MemoryStore::new()))),
        StoreKind::Sqlite => {
            let data_dir = DataDir::open(&config.server.data_dir)?;
            let store = SqliteStore::open(data_dir.database(), SqliteOptions::default()).await?;
            Ok((Some(data_dir), Arc::new(store)))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use opamp_fleet::manager::Actor;
    use opamp_store::AuditQuery;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };
    use tower_service::Service as _;

    use super::*;
    use crate::{admin::listener::Peer, config::AgentAuth};

    fn config() -> Config {
        let mut config = Config::default();
        config.server.store = StoreKind::Memory;
        config.opamp.listen = ([127, 0, 0, 1], 0).into();
        config.admin.listen = ([127, 0, 0, 1], 0).into();
        config.self_agent.enabled = false;
        config
    }

    async fn get(server: &RunningServer, path: &str) -> String {
        let mut stream = TcpStream::connect(server.admin_addr()).await.unwrap();
        let token = server.first_admin_token().unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn without_its_store_a_server_is_alive_but_not_ready_and_says_why() {
        let server = Server::start(config()).await.unwrap();
        assert!(get(&server, "/health/ready").await.starts_with("HTTP/1.1 200"));
        server.app.store.close().await;
        let answer = get(&server, "/health/ready").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the store is closed"), "{answer}");
        assert!(get(&server, "/health/live").await.starts_with("HTTP/1.1 200"));
        assert!(get(&server, "/metrics").await.starts_with("HTTP/1.1 200"));
        let answer = get(&server, "/api/v1/agents").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("tokens cannot be checked"),
            "{answer}"
        );
        server.shutdown().await;
    }

    #[tokio::test]
    async fn throttling_that_is_in_the_audit_log_takes_effect_even_if_its_request_was_given_up() {
        let server = Server::start(config()).await.unwrap();
        let actor = Actor { name: "olivia".into(), role: "admin".into(), source: None, trace_id: None };
        for (seconds, action) in [(Some(60), "server.throttle"), (None, "server.unthrottle")] {
            // Begun, and dropped at its first stop.
            let change = api::throttle::change(Arc::clone(&server.app), actor.clone(), seconds);
            assert!(change.now_or_never().is_none(), "it is not answered at once");
            let query = AuditQuery { action: Some(action.to_owned()), limit: 1, ..AuditQuery::default() };
            let recorded = async || !server.app.fleet.audit(query.clone()).await.unwrap().items.is_empty();
            eventually("it is recorded", recorded).await;
            let in_force = async || server.app.opamp.throttled().is_some() == seconds.is_some();
            eventually("it takes effect", in_force).await;
        }
        server.shutdown().await;
    }

    /// The configuration with a Self-Agent that is quick to notice.
    fn watched() -> Config {
        let mut config = config();
        config.self_agent.enabled = true;
        config.self_agent.interval = Duration::from_millis(500);
        config.self_agent.timeout = Duration::from_millis(500);
        config
    }

    async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
        for _ in 0..2_000 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never happened: {what}");
    }

    #[tokio::test]
    async fn without_its_store_the_server_is_at_fault_and_the_way_to_it_is_not() {
        let server = Server::start(watched()).await.unwrap();
        let own = &server.app.self_agent;
        let states = || own.report().probes.map(|probe| probe.state.as_str());
        eventually("all is well", async || states() == ["ok", "ok", "not_configured"]).await;
        assert_eq!(own.report().verdict.as_str(), "ok");
        server.app.store.close().await;
        eventually("the store is missed", async || own.report().verdict.as_str() == "server").await;
        let report = own.report();
        assert_eq!((states()[0], report.probes[1].state.as_str()), ("failed", "ok"));
        let fault = report.probes[0].fault().unwrap();
        assert!(fault.kind == "store" && fault.detail.contains("closed"), "{fault}");
        server.shutdown().await;
    }

    /// Whatever keeps its messages from this server, here that they go to another one.
    #[tokio::test]
    async fn a_self_agent_that_is_not_heard_here_finds_the_server_at_fault() {
        let there = Server::start(config()).await.unwrap();
        let mut config = watched();
        config.self_agent.enabled = false;
        let here = Server::start(config).await.unwrap();
        let credentials = self_agent::access::Credentials::generate(AgentAuth::Insecure).unwrap();
        let person = Person::new(Arc::new(credentials), None, here.app.now()).unwrap();
        let app = Arc::clone(&here.app);
        let running = self_agent::Running::start(app, person, there.opamp_addr(), None).unwrap();
        let faults =
            || here.app.self_agent.report().probes.map(|probe| probe.fault().map(|fault| fault.kind));
        eventually("it is unheard", async || faults() == [Some("unheard"), Some("elsewhere"), None]).await;
        assert!(here.app.self_agent.stats().is_connected, "to whomever");
        running.stop(Duration::from_secs(5)).await;
        here.shutdown().await;
        there.shutdown().await;
    }

    #[tokio::test]
    async fn the_self_agent_does_not_outlive_a_server_that_is_dropped() {
        let server = Server::start(watched()).await.unwrap();
        eventually("it is connected", async || server.app.self_agent.stats().is_connected).await;
        let app = Arc::downgrade(&server.app);
        drop(server);
        eventually("nothing is left", async || app.upgrade().is_none()).await;
    }

    /// Whatever machine runs the test: its own addresses may all be loopback, so the peer is put in by hand.
    #[tokio::test]
    async fn plain_peers_beyond_loopback_get_no_further_than_the_door() {
        let mut config = config();
        config.admin.listen = ([0, 0, 0, 0], 0).into();
        config.admin.trusted_proxies = vec!["192.0.2.7".parse().unwrap()];
        let server = Server::start(config).await.unwrap();
        let mut router = api::router(&server.app);
        for (path, peer, expected) in [
            ("/api/v1/agents", "192.0.2.8:1", 403),
            ("/api/v1/openapi.json", "192.0.2.8:1", 403),
            ("/metrics", "192.0.2.8:1", 403),
            ("/health/live", "192.0.2.8:1", 200),
            ("/api/v1/agents", "192.0.2.7:1", 401),
            ("/api/v1/openapi.json", "192.0.2.7:1", 200),
            ("/metrics", "192.0.2.7:1", 401),
            ("/api/v1/agents", "127.0.0.1:1", 401),
        ] {
            let peer = Peer { addr: peer.parse().unwrap(), tls: false };
            let request = http::Request::get(path).extension(peer).body(axum::body::Body::empty()).unwrap();
            assert_eq!(router.call(request).await.unwrap().status(), expected, "{path} from {}", peer.addr);
        }
        server.shutdown().await;
    }

    #[tokio::test]
    async fn the_audit_log_is_verified_once_at_a_time() {
        let server = Server::start(config()).await.unwrap();
        let turn = server.app.verifying.lock().await;
        let answer = get(&server, "/api/v1/audit/verify").await;
        assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("being verified"), "{answer}");
        drop(turn);
        assert!(get(&server, "/api/v1/audit/verify").await.starts_with("HTTP/1.1 200"));
        server.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_has_one_limit_for_all_of_its_parts() {
        const LIMIT: Duration = Duration::from_secs(8);
        let since = Instant::now();
        assert!(!within(LIMIT, std::future::pending(), std::future::pending()).await);
        assert_eq!(since.elapsed(), LIMIT);
        let since = Instant::now();
        let closing = async { tokio::time::sleep(LIMIT / 5).await };
        assert!(!within(LIMIT, std::future::pending(), closing).await, "the first part did not end");
        assert!(since.elapsed() < LIMIT, "the store had its turn");
        assert!(within(LIMIT, async { true }, async {}).await);
        assert!(!within(LIMIT, async { false }, async {}).await);
    }
}
