//! A steady fleet costs the database nothing: health whose timestamps tick in every report is no change.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::{PATIENCE, dir::TempDir, harness::Harness, swarm::Swarm, until, when};
use opamp_fleet::manager::{AgentQuery, FleetManager, ManagerSettings};
use opamp_proto::{InstanceUid, Mono, Now, Wall, pb};
use opamp_server::{Clock, InsecureAcceptEveryone, OpampServer, ServerHandle, ServerSettings, serve};
use opamp_store::{SqliteOptions, SqliteStore, Store, StoreStats};
use opamp_testkit::{agent::Persona, raw::Endpoint};
use tokio::net::TcpListener;

const AGENTS: u32 = 1_000;

/// A report in which nothing but time has moved: the agent's health and that of its components, observed just now.
fn ticking(persona: &mut Persona, unix_ms: u64) -> pb::AgentToServer {
    let status_time_unix_nano = unix_ms * 1_000_000;
    let component = |name: &str| {
        let health = pb::ComponentHealth {
            healthy: true,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            status: "StatusOK".to_owned(),
            status_time_unix_nano: status_time_unix_nano + name.len() as u64,
            ..Default::default()
        };
        (name.to_owned(), health)
    };
    let health = pb::ComponentHealth {
        status_time_unix_nano,
        component_health_map: ["receiver:otlp", "processor:batch", "exporter:otlp"].map(component).into(),
        ..persona.health.clone()
    };
    persona.report(|message| message.health = Some(health))
}

/// What an agent says first, with components in its health.
fn first_report(persona: &mut Persona, unix_ms: u64) -> pb::AgentToServer {
    let health = ticking(&mut persona.clone(), unix_ms).health;
    pb::AgentToServer { health, ..persona.full_state() }
}

/// A clock that stands until a test moves it.
#[derive(Debug, Default)]
struct HandClock(AtomicU64);

impl HandClock {
    const EPOCH_MS: u64 = 1_760_000_000_000;

    fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Now {
        let ms = self.0.load(Ordering::SeqCst);
        Now { mono: Mono(ms), wall: Wall(Self::EPOCH_MS + ms) }
    }
}

/// The parts of the server as its binary puts them together, with a clock in the test's hand.
struct Composition {
    clock: Arc<HandClock>,
    store: Arc<SqliteStore>,
    fleet: FleetManager,
    server: ServerHandle,
    endpoint: Endpoint,
}

impl Composition {
    async fn start(dir: &TempDir) -> Self {
        let clock = Arc::new(HandClock::default());
        let store =
            Arc::new(SqliteStore::open(dir.path().join("opamp.db"), SqliteOptions::default()).await.unwrap());
        // Duties are looked at often; how long they wait, the hand clock says.
        let often = Duration::from_millis(5);
        let (service, server, driver) = OpampServer::builder(Arc::new(InsecureAcceptEveryone))
            .settings(ServerSettings { sweep_interval: often, ..ServerSettings::default() })
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .build();
        let settings = ManagerSettings { sweep_interval: often, ..ManagerSettings::default() };
        let (fleet, fleet_driver) = FleetManager::start(
            Arc::clone(&store) as Arc<dyn Store>,
            server.clone(),
            settings,
            Arc::clone(&clock) as Arc<dyn Clock>,
        )
        .await
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap()).with_wait(PATIENCE);
        tokio::spawn(driver.run());
        tokio::spawn(fleet_driver.run());
        tokio::spawn(serve(listener, None, service));
        Composition { clock, store, fleet, server, endpoint }
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().wall.0
    }

    /// Every agent says twice that it is well, half a minute apart.
    async fn a_minute_of_heartbeats(&self, swarm: &mut Swarm) {
        for _ in 0..2 {
            self.clock.advance(Duration::from_secs(30));
            swarm.say(|persona| ticking(persona, self.now_ms())).await;
        }
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// Waits until everything reported so far is in the store, checkpoints of `agents` agents among it.
    async fn settled(&self, agents: u64) {
        until("everything is written", || async {
            self.fleet.flush().await.unwrap();
            let fleet = self.fleet.stats();
            let checkpoints = self.stats().checkpoints_written;
            let quiet = fleet.registered == u64::from(AGENTS)
                && fleet.records_waiting == 0
                && fleet.audit_waiting == 0;
            when(quiet && checkpoints >= agents, (), format!("{fleet:?}, {checkpoints} checkpoints"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_thousand_agents_write_no_row_in_ten_minutes_beyond_checkpoints() {
    const MINUTES: u32 = 10;
    let dir = TempDir::new();
    let running = Composition::start(&dir).await;
    let mut swarm = Swarm::connect(&running.endpoint, AGENTS).await;
    swarm.say(|persona| first_report(persona, running.now_ms())).await;
    running.a_minute_of_heartbeats(&mut swarm).await;
    running.settled(AGENTS.into()).await;
    let before = running.stats();

    for _ in 0..MINUTES {
        running.a_minute_of_heartbeats(&mut swarm).await;
    }
    running.settled(before.checkpoints_written + u64::from(AGENTS)).await;
    let after = running.stats();
    assert_eq!(after.rows_written, before.rows_written, "{before:?}\n became\n{after:?}");
    // A checkpoint carries many agents, and a minute passes between two of them.
    let checkpoint_rows = after.checkpoint_rows_written - before.checkpoint_rows_written;
    let agents_written = after.checkpoints_written - before.checkpoints_written;
    assert!((1..=agents_written / 10).contains(&checkpoint_rows), "{before:?}\n became\n{after:?}");
    assert!(agents_written <= u64::from(AGENTS * (MINUTES + 1)), "{before:?}\n became\n{after:?}");
    assert_eq!(running.server.stats().full_state_requested, 0);
    let page = running.fleet.agents(&AgentQuery { limit: 1, ..AgentQuery::default() });
    assert_eq!(page.items[0].last_seen, Some(running.clock.now().wall), "and yet every heartbeat counts");

    // What is a change is written: the measurement can tell.
    swarm
        .one_says(7, |persona| {
            persona.health.healthy = false;
            ticking(persona, running.now_ms())
        })
        .await;
    until("the change is written", || async {
        running.fleet.flush().await.unwrap();
        let stats = running.stats();
        when(stats.rows_written > after.rows_written, (), format!("{stats:?}"))
    })
    .await;
}

#[tokio::test]
async fn heartbeats_through_the_reference_server_write_nothing_but_checkpoints() {
    const ROUNDS: u64 = 10;
    let harness =
        Harness::with(|config, _| config.fleet.checkpoint_interval = Duration::from_millis(200)).await;
    let rest = &harness.rest;
    let rows = async || rest.metrics().await.get("opamp_store_rows_written_total");
    let checkpoints = async || rest.metrics().await.get("opamp_store_checkpoints_written_total");
    let mut swarm = Swarm::connect(&harness.endpoint(), AGENTS).await;
    swarm.say(|persona| first_report(persona, HandClock::EPOCH_MS)).await;
    until("every agent is in the inventory", || async {
        let stats = rest.get("/api/v1/stats").await;
        when(stats["registered"] == AGENTS, (), stats)
    })
    .await;
    rest.settle().await;
    // So many at once are folded into few entries; the last of them comes when the burst is over.
    until("the audit log has every agent", || async {
        let entries = rest.audit().await;
        let arrivals = entries.iter().filter(|entry| entry["action"] == "agent.first_seen");
        let told = arrivals.map(|entry| {
            let itself = u64::from(entry["after"]["instance_uid"].is_string());
            itself + entry["after"]["left_out_before"].as_u64().unwrap_or(0)
        });
        let told: u64 = told.sum();
        when(told == u64::from(AGENTS), (), told)
    })
    .await;
    let (rows_before, checkpoints_before) = (rows().await, checkpoints().await);
    for round in 1..=ROUNDS {
        swarm.say(|persona| ticking(persona, HandClock::EPOCH_MS + round * 1_000)).await;
    }
    until("the checkpoints are written", || async {
        let written = checkpoints().await - checkpoints_before;
        when(written >= f64::from(AGENTS), (), format!("{written} checkpoints"))
    })
    .await;
    rest.settle().await;
    assert_eq!(rows().await, rows_before);

    let uid: InstanceUid = Persona::new(7).uid;
    let id = rest.id_of(uid).await;
    swarm
        .one_says(7, |persona| {
            persona.health.healthy = false;
            ticking(persona, HandClock::EPOCH_MS)
        })
        .await;
    rest.agent_when(&id, "the record shows a real change", |record| record["health"] == "unhealthy").await;
    rest.settle().await;
    assert!(rows().await > rows_before, "the measurement can tell");
}
