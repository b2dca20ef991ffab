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
    net::{TcpListener, TcpSocket},
    sync::{Mutex, Notify},
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
    process,
    reload::{AdminTls, OpampTls, Reloader},
    self_agent::{self, Person, SelfAgent},
    settings,
    tls::{TlsError, TlsFiles},
    token::NewToken,
    tokens::Tokens,
};

/// Connections that may wait to be accepted on the admin port. On the OpAMP port there are as many as may wait for their turn
/// within the process: a fleet comes at once when its network is back, but who waits too long has given up when its turn comes.
/// The operating system has a bound of its own (`net.core.somaxconn` of Linux).
const ADMIN_BACKLOG: u32 = 1_024;

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
    asked_to_reload: Arc<Notify>,
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
        let files_max = process::open_files_max();
        let few_files = process::warning(config.opamp.connections_max.0, files_max);
        for warning in exposure::warnings(&config).into_iter().chain(few_files) {
            tracing::warn!("{warning}");
        }
        let own = self_agent::credentials(&config);
        let own_certificates = own.as_ref().map(|own| own.certificates()).unwrap_or_default();
        let opamp_tls =
            TlsFiles::of_opamp(&config.opamp, own_certificates).map(OpampTls::load).transpose()?;
        let admin_tls = TlsFiles::of_admin(&config.admin).map(load_admin_tls).transpose()?;
        let agents = AgentAccess::new(&config.opamp)?;
        let backlog = u32::try_from(config.opamp.accept_queue_max.0).unwrap_or(u32::MAX);
        let opamp_listener = listen("opamp.listen", config.opamp.listen, backlog)?;
        let admin_listener = listen("admin.listen", config.admin.listen, ADMIN_BACKLOG)?;
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
        let mut server_settings = settings::server(&config)?;
        process::bound_sockets(&mut server_settings, files_max);
        let authenticator = agents.authenticator(guard);
        let (service, opamp, driver) = OpampServer::builder(authenticator)
            .path(config.opamp.path.clone())
            .limits(settings::limits(&config.opamp))
            .settings(server_settings)
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
        let asked_to_reload = Arc::new(Notify::new());
        let asked = Arc::clone(&asked_to_reload);
        let watching = watch(Arc::clone(&reloader), asked, reload_interval, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(named("session driver", driver.run()));
        tasks.spawn(named("fleet manager", fleet_driver.run()));
        let (source, served) = opamp_tls.map(|tls| (tls.source, tls.served)).unzip();
        tasks.spawn(named("OpAMP port", serve_agents(opamp_listener, source, service, &app)));
        tasks.spawn(named("admin port", admin.serve(stop.clone())));
        tasks.spawn(named("reloader", watching));
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
            asked_to_reload,
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

    /// Has certificates and token files read again soon, and waits for nothing; SIGHUP does this. The log has what could not
    /// be used.
    pub fn request_reload(&self) {
        self.asked_to_reload.notify_one();
    }

    /// Reads certificates and token files again. The answer lists what could not be used, for which the old content stays in
    /// force.
    pub async fn reload(&self) -> Vec<String> {
        blocking(&self.reloader, Reloader::reload).await
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

    /// Stops gracefully: lets the Self-Agent say goodbye, accepts no agents any more, closes WebSockets with 1001 in waves, then
    /// the admin port too, lets requests finish, writes what waits and closes the store. Takes at most `server.shutdown_timeout`; answers whether all of it
    /// was done by then.
    pub async fn shutdown(mut self) -> bool {
        let limit = self.app.config.server.shutdown_timeout;
        tracing::info!("shutting down");
        self.app.draining.store(true, Ordering::Relaxed);
        let stop = self.stop.clone();
        let app = Arc::clone(&self.app);
        let mut tasks = mem::take(&mut self.tasks);
        let self_agent = self.self_agent.take();
        // What still runs when time is up ends with the set of tasks. Boxed, because writing what waits takes much room.
        let stopping = Box::pin(async move {
            if let Some(self_agent) = self_agent {
                self_agent.stop(limit / 8).await;
            }
            // The admin port shows how far it is, and tells load balancers that this server is not ready.
            let drained = app.opamp.drain(limit / 2).await;
            stop.cancel();
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

async fn watch(
    reloader: Arc<Mutex<Reloader>>,
    asked: Arc<Notify>,
    interval: Duration,
    stop: CancellationToken,
) {
    loop {
        let pause = async {
            match interval.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(interval).await,
            }
        };
        let asked_for = tokio::select! {
            () = pause => false,
            () = asked.notified() => true,
            () = stop.cancelled() => return,
        };
        let reading = blocking(&reloader, move |reloader| match asked_for {
            true => drop(reloader.reload()),
            false => reloader.reload_if_changed(),
        });
        tokio::select! {
            () = reading => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Runs something that reads files beside the threads that serve agents: a disk may take its time.
async fn blocking<T: Default + Send + 'static>(
    reloader: &Arc<Mutex<Reloader>>,
    work: impl FnOnce(&mut Reloader) -> T + Send + 'static,
) -> T {
    let mut reloader = Arc::clone(reloader).lock_owned().await;
    match tokio::task::spawn_blocking(move || work(&mut reloader)).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "reading certificates and agent tokens failed");
            T::default()
        }
    }
}

fn listen(key: &'static str, address: SocketAddr, backlog: u32) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait until the last connections of the process before are forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(backlog)
    };
    bind().map_err(|source| StartError::Listen { key, address, source })
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
mod tests;
