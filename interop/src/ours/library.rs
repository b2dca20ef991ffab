//! The library as an agent inside the test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opamp_client::{
    Client, ClientSettings, Description, EffectiveConfig, Event, FileState, Health, Proxy, Rejected,
    RemoteConfig, TlsOptions, TlsSource, Wall,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Plan;
use super::extras::Taken;
use crate::failure::{Failure, Outcome};
use crate::wait::{Look, eventually};

/// A config with this in it is refused.
const MARKER: &str = "# reject";

/// A goodbye may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent in this process. What it is given to run is kept in a file and reported as it is.
#[derive(Debug)]
pub struct LibraryAgent {
    plan: Plan,
    shared: Arc<Shared>,
    runtime: Runtime,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Restart,
    Stop,
}

#[derive(Debug)]
struct Shared {
    config: PathBuf,
    applied: AtomicUsize,
    events: Mutex<Vec<(Event, Instant)>>,
    taken: Arc<Taken>,
    /// The client of the present life.
    client: Mutex<Option<Client>>,
}

impl LibraryAgent {
    /// Starts one with a runtime of its own.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start(plan: Plan) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let shared = Arc::new(Shared {
            config: plan.path("config"),
            applied: AtomicUsize::new(0),
            events: Mutex::default(),
            taken: Arc::default(),
            client: Mutex::default(),
        });
        let mut agent = Self { plan, shared, runtime, running: None };
        agent.start_again()?;
        Ok(agent)
    }

    /// Starts it once more.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_again(&mut self) -> Outcome {
        let (orders, received) = mpsc::channel(1);
        let _runtime = self.runtime.enter();
        let client = client(&self.plan, &self.shared, &orders)?;
        let run = run(client, self.plan.clone(), Arc::clone(&self.shared), orders.clone(), received);
        self.running = Some(Running { orders, task: self.runtime.spawn(run) });
        Ok(())
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// It does not end in time, or had failed to start anew.
    pub fn stop(&mut self) -> Outcome {
        let running = self.running.take().ok_or_else(|| Failure::new("the agent does not run"))?;
        self.runtime.block_on(async {
            running.orders.send(Order::Stop).await?;
            tokio::time::timeout(PATIENCE, running.task).await??
        })
    }

    /// How many configs it applied.
    #[must_use]
    pub fn applications(&self) -> usize {
        self.shared.applied.load(Ordering::SeqCst)
    }

    /// What it was given beyond remote configurations.
    #[must_use]
    pub fn taken(&self) -> &Taken {
        &self.shared.taken
    }

    /// The client of its present life.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn client(&self) -> Outcome<Client> {
        self.shared.client().clone().ok_or_else(|| Failure::new("the agent does not run"))
    }

    /// What it was told happened, and when.
    #[must_use]
    pub fn events(&self) -> Vec<(Event, Instant)> {
        self.shared.events().clone()
    }

    /// Waits for an event that fits, from a place in [`LibraryAgent::events`] on; returns when it came.
    ///
    /// # Errors
    ///
    /// Not in time.
    pub fn until(
        &self,
        from: usize,
        what: &str,
        within: Duration,
        fits: impl Fn(&Event) -> bool,
    ) -> Outcome<Instant> {
        let (at, _) = eventually(what, within, || {
            let events = self.events();
            let new = events.get(from..).unwrap_or_default();
            let found = new.iter().find(|(event, _)| fits(event)).map(|(_, at)| *at);
            let shown: Vec<String> = new.iter().map(|(event, _)| event.to_string()).collect();
            Ok(found.map_or_else(|| Look::NotYet(shown.join("\n")), Look::Found))
        })?;
        Ok(at)
    }
}

impl Shared {
    /// What is in use.
    fn in_use(&self) -> Vec<u8> {
        fs::read(&self.config).unwrap_or_else(|_| b"nothing: yet\n".to_vec())
    }

    fn apply(&self, config: &RemoteConfig) -> Result<(), Rejected> {
        let body = config.single().ok_or("this agent has a single file")?;
        if String::from_utf8_lossy(body).contains(MARKER) {
            return Err(Rejected::new(format!("found {MARKER:?}")));
        }
        fs::write(&self.config, body).map_err(|error| Rejected::new(error.to_string()))?;
        self.applied.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, Vec<(Event, Instant)>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until it is stopped, and starts anew whenever the server wants that.
async fn run(
    first: Client,
    plan: Plan,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    mut received: mpsc::Receiver<Order>,
) -> Outcome {
    let mut current = first;
    loop {
        let order = received.recv().await;
        current.stop();
        current.stopped().await;
        // With the last of them go its handlers, one of which has a directory to itself.
        shared.client().take();
        drop(current);
        if order != Some(Order::Restart) {
            return Ok(());
        }
        current = client(&plan, &shared, &orders).inspect_err(|failure| {
            // Nobody asks how it went before the end; a scenario shows logs when it fails.
            let _ = fs::write(plan.path("log"), format!("it did not start anew: {failure:?}\n"));
        })?;
    }
}

fn client(plan: &Plan, shared: &Arc<Shared>, orders: &mpsc::Sender<Order>) -> Outcome<Client> {
    let started = Wall(u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?);
    let (provider, handler, listener) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    let orders = orders.clone();
    let mut builder = Client::builder(&plan.url, Description::new(&plan.name).version("1"))
        .state(FileState::new(plan.path("state")))
        .proxy(proxy(plan)?)
        .settings(settings(plan))
        .health(Health::healthy(started))
        .effective_config(move || {
            let config = EffectiveConfig::single(provider.in_use());
            async move { config }
        })
        .on_remote_config(move |config: RemoteConfig, _: Client| {
            let applied = handler.apply(&config);
            async move { applied }
        })
        .on_restart(move |_: Client| {
            // One that waits already is enough.
            let _ = orders.try_send(Order::Restart);
            async {}
        })
        .on_event(move |event: Event, _: Client| {
            listener.events().push((event, Instant::now()));
            async {}
        });
    if let Some(ca) = &plan.ca {
        let mut options = TlsOptions::new(Arc::new(rustls::crypto::ring::default_provider())).ca_file(ca);
        if let Some((certificate, key)) = &plan.identity {
            options = options.client_certificate_files(certificate, key);
        }
        builder = builder.tls(TlsSource::from_options(options)?);
    }
    let client = plan.extras.install(builder, &shared.taken, &plan.path("packages"))?.start()?;
    *shared.client() = Some(client.clone());
    Ok(client)
}

fn proxy(plan: &Plan) -> Outcome<Proxy> {
    let mut proxy = match &plan.proxy {
        Some(url) => Proxy::url(url)?,
        None => Proxy::none(),
    };
    for (name, value) in &plan.proxy_headers {
        proxy = proxy.connect_header(name, value)?;
    }
    Ok(proxy)
}

fn settings(plan: &Plan) -> ClientSettings {
    let mut settings = ClientSettings::default();
    let session = &mut settings.session;
    session.request_uid = plan.request_uid;
    session.heartbeat = Some(plan.heartbeat);
    session.poll_interval = plan.poll;
    session.ping_interval = plan.ping;
    session.read_timeout = plan.read_timeout;
    session.response_timeout = plan.response_timeout;
    // Scenarios offer one set of settings after another.
    session.settings_spacing = super::self_agent::RETRY_FIRST;
    session.retry.first = super::self_agent::RETRY_FIRST;
    session.retry.initial = super::self_agent::RETRY_FIRST;
    session.retry.max = super::self_agent::RETRY_MAX;
    settings
}
