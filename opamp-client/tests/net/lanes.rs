//! What waits for slow handlers is bounded, in order, and told of truthfully.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use opamp_client::connection::{Signal, TelemetrySettings};
use opamp_client::packages::{
    PackageHandler, PackageProgress, PackageStatus, PackageStatuses, PackageVersion, PackagesOffer,
    PackagesRejected,
};
use opamp_client::{Client, ClientSettings, ConfigHash, CustomMessage, Event};
use opamp_proto::pb::{self, ConnectionSettingsStatuses as Status};
use tokio::sync::Notify;

use crate::common::{Agent, Directory, Memory, builder, until, within};
use crate::offered::{UID, settable, with_endpoint};
use crate::stub::{WsPeer, WsStub, ack};

const ECHO: &str = "com.example.echo";
/// What a message takes beside its content: its names.
const NAMES: usize = ECHO.len() + 1;

fn custom(kind: &str, bytes: usize) -> pb::ServerToAgent {
    let message =
        pb::CustomMessage { capability: ECHO.into(), r#type: kind.into(), data: vec![0; bytes].into() };
    pb::ServerToAgent { custom_message: Some(message), ..Default::default() }
}

/// R-SEC-01.
#[tokio::test]
async fn custom_messages_that_wait_are_bounded_in_bytes_too() {
    let stub = WsStub::start().await;
    let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (began, waits, kinds) = (Arc::clone(&entered), Arc::clone(&go_on), Arc::clone(&taken));
    let slow = move |message: CustomMessage, _: Client| {
        let (began, waits, kinds) = (Arc::clone(&began), Arc::clone(&waits), Arc::clone(&kinds));
        async move {
            began.notify_one();
            waits.notified().await;
            kinds.lock().unwrap().push(message.kind);
        }
    };
    let settings = ClientSettings { custom_kept_bytes: 1_000, ..ClientSettings::default() };
    let agent = Agent::start(builder(&stub.url()).settings(settings).custom_capability(ECHO, slow));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let take_all = |count: usize| {
        let (go_on, taken) = (Arc::clone(&go_on), Arc::clone(&taken));
        async move {
            for _ in 0..count {
                let before = taken.lock().unwrap().len();
                go_on.notify_one();
                until("taken", || taken.lock().unwrap().len() > before).await;
            }
        }
    };
    let dropped = || agent.client.stats().custom_dropped;

    peer.send(&custom("0", 400)).await;
    entered.notified().await;
    for kind in ["1", "2", "3", "4"] {
        peer.send(&custom(kind, 400)).await;
    }
    until("what is too much is dropped", || dropped() == 2).await;
    let why = "their handler is too slow";
    agent
        .event("told", |event| matches!(event, Event::CustomDropped { why: told, .. } if *told == why))
        .await;
    take_all(3).await;
    assert_eq!(*taken.lock().unwrap(), ["0", "1", "2"], "in order, and the newest were dropped");

    // What was taken takes no room any more, up to the last byte.
    peer.send(&custom("5", 1_000 - NAMES)).await;
    take_all(1).await;
    assert_eq!(taken.lock().unwrap().last().unwrap(), "5");
    peer.send(&custom("6", 1_001 - NAMES)).await;
    until("one that is larger is never taken", || dropped() == 3).await;
    agent
        .event("told", |event| matches!(event, Event::CustomDropped { why, .. } if why.contains("larger")))
        .await;
}

/// Looks for a long time at what is installed.
struct Recovering(Arc<Notify>);

impl PackageHandler for Recovering {
    fn installed(&self) -> BoxFuture<'_, PackageStatuses> {
        Box::pin(async {
            self.0.notified().await;
            let has = PackageVersion::new("1", ConfigHash::new("p"));
            let there = PackageStatus::Installed { offered: Some(has.clone()), has };
            PackageStatuses::new(ConfigHash::new("h")).package("tool", there)
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

/// R-PKG-19: a crash in the middle of an installation is made good at the start, which may take longer than anybody waits.
#[tokio::test]
async fn packages_that_are_not_known_at_the_start_are_reported_when_they_are_and_never_as_none() {
    let stub = WsStub::start().await;
    let release = Arc::new(Notify::new());
    let agent = Agent::start(builder(&stub.url()).on_packages(Recovering(Arc::clone(&release))));
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    agent.advance(10);
    let mut peer = stub.accept().await;
    let first = peer.receive().await;
    assert_eq!(first.package_statuses, None, "an empty list would say that nothing is installed");
    peer.send(&pb::ServerToAgent { capabilities: 0x1f, ..Default::default() }).await;
    agent.received(1).await;
    release.notify_one();
    let statuses = peer.receive().await.package_statuses.expect("what is installed");
    assert_eq!(statuses.server_provided_all_packages_hash, &b"h"[..]);
    assert_eq!(statuses.packages["tool"].agent_has_version, "1");
    agent.stop_with(&mut peer).await;
}

/// The next status of connection settings that is an outcome, while time passes.
async fn outcome(agent: &Agent, peer: &mut WsPeer) -> (Status, String) {
    let passing = async {
        loop {
            agent.clock.advance(Duration::from_millis(200));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let next = async {
        loop {
            if let Some(status) = peer.acknowledge().await.connection_settings_status
                && status.status() != Status::Applying
            {
                return (status.status(), status.error_message);
            }
        }
    };
    tokio::select! {
        outcome = next => outcome,
        () = passing => unreachable!(),
    }
}

fn metrics(number: u8) -> pb::ServerToAgent {
    let own_metrics = Some(pb::TelemetryConnectionSettings {
        destination_endpoint: format!("https://m/{number}"),
        ..Default::default()
    });
    let hash = vec![number].into();
    let offers = pb::ConnectionSettingsOffers { hash, own_metrics, ..Default::default() };
    pb::ServerToAgent { connection_settings: Some(offers), ..ack() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_of_connections_that_blocks_is_never_overtaken_by_the_next_settings() {
    let stub = WsStub::start().await;
    let (release, at_once) = (Arc::new(std::sync::Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let in_force = Arc::new(Mutex::new(String::new()));
    let (blocked, running, put) = (Arc::clone(&release), Arc::clone(&at_once), Arc::clone(&in_force));
    let take = move |_: Signal, settings: Arc<TelemetrySettings>, _: Client| {
        let (blocked, running, put) = (Arc::clone(&blocked), Arc::clone(&running), Arc::clone(&put));
        async move {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            if settings.endpoint.ends_with('1') {
                tokio::task::block_in_place(|| blocked.wait());
            }
            *put.lock().unwrap() = settings.endpoint.clone();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let settings = ClientSettings { handler_timeout: Duration::from_secs(7), ..Default::default() };
    let agent = Agent::start(
        builder(&stub.url())
            .state(Memory::of(UID))
            .settings(settings)
            .on_own_telemetry([Signal::Metrics], take),
    );
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&metrics(1)).await;
    let first = outcome(&agent, &mut peer).await;
    peer.send(&metrics(2)).await;
    let second = outcome(&agent, &mut peer).await;
    // Before anything can fail, or the runtime would never end.
    tokio::task::spawn_blocking(move || release.wait().is_leader()).await.unwrap();
    for ((status, why), expected) in
        [(first, "did not end within 7 s"), (second, "still at work on earlier settings")]
    {
        assert!(status == Status::Failed && why.contains(expected), "{status:?} {why}");
    }
    peer.send(&metrics(3)).await;
    assert_eq!(outcome(&agent, &mut peer).await, (Status::Applied, String::new()));
    assert_eq!(at_once.load(Ordering::SeqCst), 0);
    assert_eq!(*in_force.lock().unwrap(), "https://m/3", "and not what was given up");
}

/// A disk that does not answer holds up the settings that need it, and not those that come after them.
#[cfg(unix)]
#[tokio::test]
async fn settings_that_cannot_be_examined_have_failed_and_the_next_are_taken() {
    let (stub, directory) = (WsStub::start().await, Directory::new("examined"));
    let authority = opamp_testkit::certs::Authority::new("ca");
    let ca = directory.write("ca.pem", &authority.pem());
    let options =
        opamp_client::TlsOptions::new(Arc::new(rustls::crypto::ring::default_provider())).ca_file(&ca);
    let tls = opamp_client::TlsSource::from_options(options).unwrap();
    let agent = Agent::start(settable(&stub.url(), &Memory::of(UID)).tls(tls));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    // Whoever opens it for reading waits for a writer.
    std::fs::remove_file(&ca).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&ca).status().unwrap().success());
    let offers = pb::ConnectionSettingsOffers {
        hash: b"1"[..].into(),
        opamp: Some(with_endpoint("wss://elsewhere.example.com/v1/opamp")),
        ..Default::default()
    };
    peer.send(&pb::ServerToAgent { connection_settings: Some(offers), ..ack() }).await;
    let told = async {
        loop {
            agent.advance(5);
            let status = tokio::time::timeout(Duration::from_millis(20), peer.acknowledge()).await;
            let status = status.ok().and_then(|report| report.connection_settings_status);
            if let Some(status) = status.filter(|status| status.status() == Status::Failed) {
                return status.error_message;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await;
    // Lets the reader go.
    drop(std::fs::OpenOptions::new().read(true).write(true).open(&ca).unwrap());
    let why = told.expect("it fails in the end");
    assert!(why.contains("could not be examined within 600 s"), "{why}");
    within("the agent stops", agent.stop_with(&mut peer)).await;
}
