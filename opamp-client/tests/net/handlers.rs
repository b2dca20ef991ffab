//! Handlers run apart: they hold up nothing, may call anything, and may fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opamp_client::connection::{Signal, TelemetrySettings};
use opamp_client::packages::{
    PackageHandler, PackageProgress, PackageStatuses, PackagesOffer, PackagesRejected,
};
use opamp_client::{
    Client, Clock, EffectiveConfig, Event, FileState, Health, InstanceUid, Mono, Now, OfferStatus,
    RemoteConfig, SavedState, StateError, StateStore, Stopped, SystemClock, Wall,
};
use opamp_proto::pb;
use tokio::sync::Notify;

use crate::common::{Agent, Directory, Events, HandClock, Memory, builder, session, until, within};
use crate::stub::{WsPeer, WsStub, ack};

fn offer(hash: u8) -> pb::ServerToAgent {
    let config = pb::AgentConfigMap {
        config_map: [(
            String::new(),
            pb::AgentConfigObject { body: vec![hash].into(), ..Default::default() },
        )]
        .into(),
    };
    let offer = pb::AgentRemoteConfig { config: Some(config), config_hash: vec![hash].into() };
    pb::ServerToAgent { remote_config: Some(offer), ..ack() }
}

/// The next status of a remote configuration that the agent reports.
async fn status(peer: &mut WsPeer) -> (u8, i32, String) {
    loop {
        if let Some(status) = peer.acknowledge().await.remote_config_status {
            return (status.last_remote_config_hash[0], status.status, status.error_message);
        }
    }
}

#[tokio::test]
async fn a_slow_handler_holds_up_neither_heartbeats_nor_newer_offers() {
    let stub = WsStub::start().await;
    let (release, applied) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (Arc::clone(&release), Arc::clone(&applied));
    let agent = Agent::start(builder(&stub.url()).on_remote_config(move |_: RemoteConfig, _| {
        let wait = Arc::clone(&wait);
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            wait.notified().await;
            Ok(())
        }
    }));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    assert_eq!(status(&mut peer).await, (1, 2, String::new()));
    for beats in 0..3 {
        let received = agent.client.stats().messages_received;
        until("acknowledged", || agent.client.stats().messages_received >= received.max(3 + beats)).await;
        agent.advance(30);
        peer.acknowledge().await;
    }
    for hash in 2..=4 {
        peer.send(&offer(hash)).await;
        assert_eq!(status(&mut peer).await, (hash, 2, String::new()));
    }
    release.notify_one();
    until("the newest follows", || applied.load(Ordering::SeqCst) == 2).await;
    release.notify_one();
    assert_eq!(status(&mut peer).await, (4, 1, String::new()));
}

#[tokio::test]
async fn a_handler_that_panics_has_failed_and_the_agent_goes_on() {
    let stub = WsStub::start().await;
    let _agent = Agent::start(builder(&stub.url()).on_remote_config(|config: RemoteConfig, _| async move {
        assert_ne!(config.single().unwrap()[0], 1, "a bug in the application");
        Ok(())
    }));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    assert_eq!(status(&mut peer).await.1, 2);
    let (hash, failed, error) = status(&mut peer).await;
    assert_eq!((hash, failed), (1, 3));
    assert!(error.contains("failed while it applied"), "{error}");
    peer.send(&offer(2)).await;
    assert_eq!(status(&mut peer).await.1, 2);
    assert_eq!(status(&mut peer).await.1, 1);
}

#[tokio::test]
async fn handlers_may_report_and_reconnect_through_the_client_they_are_given() {
    let stub = WsStub::start().await;
    let _agent =
        Agent::start(builder(&stub.url()).on_remote_config(|_: RemoteConfig, client: Client| async move {
            client
                .set_health(Health::healthy(Wall(1)).status("configured"))
                .map_err(|error| error.to_string())?;
            client.reconnect().map_err(|error| error.to_string())?;
            Ok(())
        }));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    assert_eq!(peer.close_code().await, Some(1000));
    let mut peer = stub.accept().await;
    let message = peer.acknowledge().await;
    assert_eq!(message.health.unwrap().status, "configured");
}

#[tokio::test]
async fn a_stop_from_within_the_event_handler_works() {
    let stub = WsStub::start().await;
    let client = builder(&stub.url())
        .on_event(|_: Event, client: Client| async move {
            client.stop();
            client.stopped().await;
        })
        .start()
        .unwrap();
    let mut peer = stub.accept().await;
    peer.receive().await;
    let goodbye = peer.receive().await;
    assert!(goodbye.agent_disconnect.is_some());
    assert_eq!(peer.close_code().await, Some(1000));
    within("the agent stops", client.stopped()).await;
}

#[tokio::test]
async fn what_is_told_after_a_stop_is_an_error_and_not_silence() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()));
    agent.client.stop();
    assert_eq!(agent.client.set_health(Health::healthy(Wall(1))), Err(Stopped), "also before it has ended");
    agent.stop().await;
    assert_eq!(agent.client.set_health(Health::healthy(Wall(1))), Err(Stopped));
    assert_eq!(agent.client.set_effective_config(EffectiveConfig::new()), Err(Stopped));
    assert_eq!(agent.client.set_description(opamp_client::Description::new("x")), Err(Stopped));
    assert_eq!(agent.client.reconnect(), Err(Stopped));
    agent.client.stop();
}

#[tokio::test]
async fn dropping_the_last_client_stops_the_agent_in_good_order() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()));
    let second = agent.client.clone();
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    drop(agent);
    second.set_health(Health::healthy(Wall(1))).unwrap();
    peer.acknowledge().await;
    drop(second);
    assert!(peer.receive().await.agent_disconnect.is_some());
    assert_eq!(peer.close_code().await, Some(1000));
}

#[tokio::test]
async fn the_first_report_waits_for_the_effective_configuration_and_a_stop_for_nobody() {
    let stub = WsStub::start().await;
    let release = Arc::new(Notify::new());
    let wait = Arc::clone(&release);
    let provider = move || {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            EffectiveConfig::single("late")
        }
    };
    let agent = Agent::start(builder(&stub.url()).effective_config(provider.clone()));
    release.notify_one();
    let mut peer = stub.accept().await;
    assert!(peer.acknowledge().await.effective_config.is_some());
    agent.stop_with(&mut peer).await;
    let stuck = Agent::start(builder(&stub.url()).effective_config(provider));
    stuck.stop().await;
}

/// Looks for a while at what is installed.
struct Looking(Arc<Notify>);

impl PackageHandler for Looking {
    fn installed(&self) -> BoxFuture<'_, PackageStatuses> {
        Box::pin(async {
            self.0.notified().await;
            PackageStatuses::default()
        })
    }

    fn sync(
        &self,
        _: PackagesOffer,
        _: PackageProgress,
        _: Client,
    ) -> BoxFuture<'_, Result<(), PackagesRejected>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test]
async fn a_configuration_that_is_given_twice_does_not_stand_for_packages_in_the_first_report() {
    let stub = WsStub::start().await;
    let (go_on, looked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let given = Arc::new(AtomicUsize::new(0));
    let (wait, count) = (Arc::clone(&go_on), Arc::clone(&given));
    let provider = move || {
        let wait = Arc::clone(&wait);
        let config = EffectiveConfig::single(format!("{}", count.fetch_add(1, Ordering::SeqCst)));
        async move {
            wait.notified().await;
            config
        }
    };
    let packages = Looking(Arc::clone(&looked));
    let agent = Agent::start(builder(&stub.url()).effective_config(provider).on_packages(packages));
    until("asked", || given.load(Ordering::SeqCst) == 1).await;
    agent.client.refresh_effective_config().unwrap();
    go_on.notify_one();
    until("asked again", || given.load(Ordering::SeqCst) == 2).await;
    go_on.notify_one();
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), stub.accept()).await;
    assert!(early.is_err(), "not without packages");
    looked.notify_one();
    let mut peer = stub.accept().await;
    let first = peer.acknowledge().await;
    assert!(first.package_statuses.is_some() && first.effective_config.is_some(), "{first:?}");
}

#[tokio::test]
async fn a_refresh_asks_the_provider_again_and_unchanged_is_no_news() {
    let stub = WsStub::start().await;
    let number = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&number);
    let agent = Agent::start(builder(&stub.url()).effective_config(move || {
        let config = EffectiveConfig::single(format!("{}", asked.fetch_add(1, Ordering::SeqCst) / 2));
        async move { config }
    }));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    agent.client.refresh_effective_config().unwrap();
    until("asked again", || number.load(Ordering::SeqCst) == 2).await;
    agent.client.refresh_effective_config().unwrap();
    let message = peer.acknowledge().await;
    assert_eq!(&message.effective_config.unwrap().config_map.unwrap().config_map[""].body[..], b"1");
    assert_eq!(message.sequence_num, 2, "the one in between was no news");
}

#[tokio::test]
async fn a_slow_event_handler_costs_old_events_and_nothing_else() {
    let stub = WsStub::start().await;
    let clock = HandClock::new();
    let (release, seen) = (Arc::new(Notify::new()), Events::default());
    let (wait, kept) = (Arc::clone(&release), seen.clone());
    let settings = opamp_client::ClientSettings { events_kept: 2, ..Default::default() };
    let client = builder(&stub.url())
        .settings(settings)
        .clock(Arc::clone(&clock) as Arc<dyn opamp_client::Clock>)
        .on_event(move |event: Event, _| {
            let (wait, kept) = (Arc::clone(&wait), kept.clone());
            async move {
                wait.notified().await;
                kept.push(event);
            }
        })
        .start()
        .unwrap();
    let time = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            clock.advance(std::time::Duration::from_secs(1));
        }
    };
    let connections = async {
        for _ in 0..5 {
            drop(stub.accept().await);
        }
    };
    tokio::select! {
        () = time => {}
        () = connections => {}
    }
    // Five times connected and disconnected; one is being told, two wait.
    until("the others were dropped", || client.stats().events_dropped >= 6).await;
    for _ in 0..100 {
        release.notify_one();
        tokio::task::yield_now().await;
    }
    until("the newest are told", || seen.all().len() >= 3).await;
    assert!(seen.all().len() <= 5, "{:?}", seen.all());
}

#[test]
fn when_the_runtime_goes_away_the_agent_has_stopped() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let client = first.block_on(async { builder("ws://127.0.0.1:1").start().unwrap() });
    drop(first);
    assert_eq!(client.set_health(Health::healthy(Wall(1))), Err(Stopped));
    runtime().block_on(within("the end", client.stopped()));
}

/// Is full from the beginning.
struct FullDisk;

impl StateStore for FullDisk {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        Ok(Some(SavedState::new(InstanceUid::from_bytes([7; 16]))))
    }

    fn save(&self, _state: &SavedState) -> Result<(), StateError> {
        Err(StateError::Io { location: "/full/state".into(), source: std::io::ErrorKind::StorageFull.into() })
    }
}

#[tokio::test]
async fn state_that_cannot_be_saved_is_told_and_the_agent_goes_on() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()).state(FullDisk));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let event = agent.event("told", |event| matches!(event, Event::StateNotSaved { .. })).await;
    assert!(event.to_string().contains("/full/state"), "{event}");
}

#[tokio::test]
async fn an_agent_whose_identity_cannot_be_kept_does_not_start() {
    let directory = Directory::new("identity");
    let text = directory.write("state", "garbage");
    let started = |path: &std::path::Path| builder("ws://h").state(FileState::new(path)).start().map(drop);
    let error = started(&text).unwrap_err().to_string();
    assert!(error.contains("not a saved agent state") && error.contains("remove it"), "{error}");
    let error = started(&text.join("state")).unwrap_err().to_string();
    assert!(error.contains("permissions"), "a file is no directory: {error}");
    let path = directory.write("good", "");
    std::fs::remove_file(&path).unwrap();
    let agent = Agent::start(builder("ws://127.0.0.1:1").state(FileState::new(&path)));
    let error = started(&path).unwrap_err().to_string();
    assert!(error.contains("another running agent"), "{error}");
    agent.stop().await;
    let again = Agent::start(builder("ws://127.0.0.1:1").state(FileState::new(&path)));
    assert_eq!(again.client.uid(), agent.client.uid(), "at once, and the same");
}

/// A disk that takes its time: each save waits to be let through.
#[derive(Clone)]
struct SlowDisk(Arc<Mutex<Vec<SavedState>>>, Arc<std::sync::Barrier>);

impl StateStore for SlowDisk {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        Ok(Some(SavedState::new(InstanceUid::from_bytes([7; 16]))))
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        self.1.wait();
        self.0.lock().unwrap().push(state.clone());
        Ok(())
    }
}

impl SlowDisk {
    fn new() -> Self {
        Self(Arc::default(), Arc::new(std::sync::Barrier::new(2)))
    }

    /// Lets one save through, and waits for it to come.
    async fn let_through(&self) {
        let barrier = Arc::clone(&self.1);
        let waited = tokio::task::spawn_blocking(move || barrier.wait().is_leader());
        waited.await.unwrap();
    }
}

#[tokio::test]
async fn saves_never_overtake_each_other_and_the_newest_is_saved_in_the_end() {
    let stub = WsStub::start().await;
    let disk = SlowDisk::new();
    let agent = Agent::start(
        builder(&stub.url()).state(disk.clone()).on_remote_config(|_: RemoteConfig, _| async { Ok(()) }),
    );
    disk.let_through().await;
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    // The first save of the configuration hangs; the agent gives up waiting, and goes on.
    until("the agent goes on", || {
        agent.clock.advance(std::time::Duration::from_millis(100));
        agent.events.all().iter().any(|event| matches!(event, Event::StateNotSaved { .. }))
    })
    .await;
    disk.let_through().await;
    disk.let_through().await;
    let newest = || disk.0.lock().unwrap().last().and_then(|state| state.remote_config.clone());
    until("saved", || newest().is_some_and(|config| config.status == OfferStatus::Applied)).await;
    assert_eq!(disk.0.lock().unwrap().len(), 3, "at the start, applying, applied");
    // Nobody is left waiting at the barrier.
    agent.client.stop();
    peer.close_code().await;
    disk.let_through().await;
    within("the agent stops", agent.client.stopped()).await;
}

#[tokio::test]
async fn state_is_saved_before_what_builds_on_it_is_sent() {
    let stub = WsStub::start().await;
    let state = Memory::default();
    let _agent = Agent::start(
        builder(&stub.url()).state(state.clone()).on_remote_config(|_: RemoteConfig, _| async { Ok(()) }),
    );
    let mut peer = stub.accept().await;
    let uid = peer.acknowledge().await.instance_uid;
    assert_eq!(state.saved().unwrap().uid.as_bytes()[..], uid[..]);
    peer.send(&offer(1)).await;
    assert_eq!(status(&mut peer).await.1, 2);
    assert_eq!(state.saved().unwrap().remote_config.unwrap().hash.as_bytes(), [1]);
}

#[tokio::test]
async fn a_configuration_handler_may_stop_the_agent_as_the_last_thing_it_does() {
    let (stub, memory) = (WsStub::start().await, Memory::of(InstanceUid::from_bytes([7; 16])));
    let handler = |_: RemoteConfig, client: Client| async move {
        client.stop();
        tokio::task::yield_now().await;
        Ok(())
    };
    let agent = Agent::start(builder(&stub.url()).state(memory.clone()).on_remote_config(handler));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    peer.close_code().await;
    within("the agent stops", agent.client.stopped()).await;
    let saved = memory.saved().unwrap().remote_config.unwrap();
    assert_eq!((saved.hash.as_bytes(), saved.status), (&[1][..], OfferStatus::Applied));
}

#[tokio::test]
async fn a_stop_waits_for_a_configuration_handler_no_longer_than_it_should() {
    let (stub, memory) = (WsStub::start().await, Memory::of(InstanceUid::from_bytes([7; 16])));
    let handler = |_: RemoteConfig, _| std::future::pending();
    let agent = Agent::start(builder(&stub.url()).state(memory.clone()).on_remote_config(handler));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    assert_eq!(status(&mut peer).await.1, 2);
    agent.client.stop();
    peer.close_code().await;
    let stopped = std::pin::pin!(agent.client.stopped());
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), stopped).await;
    assert!(early.is_err(), "the handler is given time");
    until("the agent stops", || {
        agent.advance(1);
        agent.client.set_health(Health::healthy(Wall(0))).is_err()
    })
    .await;
    agent.advance(5);
    within("the agent stops", agent.client.stopped()).await;
    let saved = memory.saved().unwrap().remote_config.unwrap();
    assert_eq!((saved.status, saved.attempts), (OfferStatus::Applying, 0), "not held against it");
}

/// A wait that is over stays over, however often it is asked.
struct Lasting(SystemClock);

impl Clock for Lasting {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        self.0.sleep_until(at).shared().boxed()
    }
}

#[tokio::test]
async fn a_stop_while_connections_are_handed_over_comes_to_its_end_in_good_order() {
    let (stub, memory) = (WsStub::start().await, Memory::of(InstanceUid::from_bytes([7; 16])));
    let handed = Arc::new(Notify::new());
    let told = Arc::clone(&handed);
    let handler = move |_: Signal, _: Arc<TelemetrySettings>, _: Client| {
        told.notify_one();
        std::future::pending()
    };
    let settings = session(|session| session.stop_timeout = std::time::Duration::from_millis(50));
    let client = builder(&stub.url())
        .state(memory.clone())
        .settings(settings)
        .clock(Arc::new(Lasting(SystemClock::new())))
        .on_own_telemetry([Signal::Logs], handler)
        .start()
        .unwrap();
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let own_logs =
        pb::TelemetryConnectionSettings { destination_endpoint: "https://l/".into(), ..Default::default() };
    let offers = pb::ConnectionSettingsOffers {
        hash: b"h"[..].into(),
        own_logs: Some(own_logs),
        ..Default::default()
    };
    peer.send(&pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() }).await;
    within("handed over", handed.notified()).await;
    client.stop();
    peer.close_code().await;
    within("the agent stops", client.stopped()).await;
    let offer = memory.saved().unwrap().connections.offer.unwrap();
    assert_eq!((offer.status, offer.attempts), (OfferStatus::Applying, 0), "not held against it");
}

#[tokio::test]
async fn the_last_state_reaches_a_slow_disk_also_after_the_end() {
    let stub = WsStub::start().await;
    let disk = SlowDisk::new();
    let agent = Agent::start(
        builder(&stub.url()).state(disk.clone()).on_remote_config(|_: RemoteConfig, _| async { Ok(()) }),
    );
    disk.let_through().await;
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    let passing = || agent.clock.advance(std::time::Duration::from_millis(100));
    let given_up = || agent.events.all().iter().any(|event| matches!(event, Event::StateNotSaved { .. }));
    until("the disk is slow", || {
        passing();
        given_up()
    })
    .await;
    agent.client.stop();
    let ended = agent.client.stopped();
    tokio::select! {
        () = ended => {}
        () = async { loop { passing(); tokio::time::sleep(std::time::Duration::from_millis(1)).await; } } => {}
    }
    let newest = || disk.0.lock().unwrap().last().and_then(|state| state.remote_config.clone());
    assert!(newest().is_none(), "the disk has not answered yet");
    disk.let_through().await;
    disk.let_through().await;
    until("saved", || newest().is_some_and(|config| config.status == OfferStatus::Applied)).await;
}
