//! Whatever happens between decisions and agents, in the end each agent has what was decided last, kind by kind, and
//! is left in peace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::manager::{ManagerSettings, PackageSettings};
use opamp_proto::{AgentCapabilities, AgentToServerFlags, InstanceUid, pb};
use opamp_server::{ConnectionSettingsOffer, InsecureAcceptEveryone, TokioClock};
use opamp_store::MemoryStore;
use proptest::prelude::*;

use super::support::*;
use super::uploads::{content, new, publish};

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    AssignConfig(u8),
    Unassign,
    SetSettings(u8),
    ClearSettings,
    AssignPackages(u8),
    UnassignPackages,
    /// The agent polls; what it is offered it takes over and reports, unless the answer is lost.
    Poll {
        lost: bool,
    },
    /// It asks for another uid.
    NewUid,
    /// It starts anew and reports everything.
    Reconnect,
    Wait,
    Restart,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3_u8).prop_map(Step::AssignConfig),
        1 => Just(Step::Unassign),
        2 => (0..3_u8).prop_map(Step::SetSettings),
        1 => Just(Step::ClearSettings),
        2 => (0..3_u8).prop_map(Step::AssignPackages),
        1 => Just(Step::UnassignPackages),
        6 => any::<bool>().prop_map(|lost| Step::Poll { lost }),
        1 => Just(Step::NewUid),
        1 => Just(Step::Reconnect),
        2 => Just(Step::Wait),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

/// What was decided last of each kind; `None` to leave it alone.
#[derive(Debug, Default)]
struct Decided {
    config: Option<u8>,
    settings: Option<u8>,
    packages: Option<u8>,
}

async fn start(store: &MemoryStore, clock: &Arc<TokioClock>) -> Process {
    let packages =
        PackageSettings { url_base: Some("https://a.example".to_owned()), ..PackageSettings::default() };
    let settings = ManagerSettings { packages, ..ManagerSettings::default() };
    Process::start_with(Arc::new(store.clone()), clock, Arc::new(InsecureAcceptEveryone), settings).await
}

fn text_of(number: u8) -> String {
    format!("number: {number}")
}

fn endpoint_of(number: u8) -> String {
    format!("wss://host-{number}.example/v1/opamp")
}

fn settings_of(number: u8) -> ConnectionSettingsOffer {
    let opamp = pb::OpAmpConnectionSettings {
        destination_endpoint: endpoint_of(number),
        ..pb::OpAmpConnectionSettings::default()
    };
    ConnectionSettingsOffer::new(pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() })
        .expect("valid settings")
}

/// What the agent took over.
#[derive(Debug, Default)]
struct Has {
    config: Option<String>,
    endpoint: Option<String>,
    packages: Option<BTreeMap<String, String>>,
}

/// Takes an answer over; says whether there was anything in it.
fn take(agent: &mut Agent, has: &mut Has, answer: &pb::ServerToAgent) -> bool {
    if let Some(offer) = &answer.remote_config {
        let map = offer.config.as_ref().expect("an offer has files");
        has.config = Some(String::from_utf8(map.config_map["collector.yaml"].body.to_vec()).expect("text"));
        agent.effective = map.clone();
        agent.remote_config = Some(pb::RemoteConfigStatus {
            last_remote_config_hash: offer.config_hash.clone(),
            status: pb::RemoteConfigStatuses::Applied.into(),
            error_message: String::new(),
        });
    }
    if let Some(offer) = &answer.connection_settings {
        if let Some(opamp) = &offer.opamp {
            has.endpoint = Some(opamp.destination_endpoint.clone());
        }
        agent.settings = Some(pb::ConnectionSettingsStatus {
            last_connection_settings_hash: offer.hash.clone(),
            status: pb::ConnectionSettingsStatuses::Applied.into(),
            error_message: String::new(),
        });
    }
    if let Some(offer) = &answer.packages_available {
        let versions = offer.packages.iter().map(|(name, package)| (name.clone(), package.version.clone()));
        has.packages = Some(versions.collect());
        let status = |(name, package): (&String, &pb::PackageAvailable)| {
            let status = pb::PackageStatus {
                name: name.clone(),
                agent_has_version: package.version.clone(),
                agent_has_hash: package.hash.clone(),
                status: pb::PackageStatusEnum::Installed.into(),
                ..pb::PackageStatus::default()
            };
            (name.clone(), status)
        };
        agent.packages = Some(pb::PackageStatuses {
            packages: offer.packages.iter().map(status).collect(),
            server_provided_all_packages_hash: offer.all_packages_hash.clone(),
            error_message: String::new(),
        });
    }
    answer.remote_config.is_some()
        || answer.connection_settings.is_some()
        || answer.packages_available.is_some()
}

/// Sends everything it has to say, and takes over what comes back; says whether anything did.
async fn poll(process: &Process, agent: &mut Agent, has: &mut Has) -> bool {
    let report = agent.full();
    let answer = agent.send(process, report).await;
    take(agent, has, &answer)
}

async fn run(steps: Vec<Step>) {
    let (store, clock) = (MemoryStore::new(), clock());
    let mut process = start(&store, &clock).await;
    for number in 0..3 {
        process.publish("edge", &text_of(number)).await;
        publish(&process.manager, new("a", &format!("1.{number}")), &content(10), 10)
            .await
            .expect("published");
    }
    let mut agent = Agent::new(1);
    for capability in [
        AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS,
        AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS,
        AgentCapabilities::REPORTS_HEARTBEAT,
        AgentCapabilities::ACCEPTS_PACKAGES,
        AgentCapabilities::REPORTS_PACKAGE_STATUSES,
    ] {
        agent.capabilities.insert(capability);
    }
    agent.connect(&process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    let (mut decided, mut has) = (Decided::default(), Has::default());
    for step in steps {
        let (manager, actor) = (process.manager.clone(), operator());
        match step {
            Step::AssignConfig(number) => {
                manager.assign(&actor, &id, "edge", u32::from(number) + 1, None).await.expect("assigned");
                decided.config = Some(number);
            }
            Step::Unassign => {
                manager.unassign(&actor, &id, None).await.expect("unassigned");
                decided.config = None;
            }
            Step::SetSettings(number) => {
                let offer = settings_of(number);
                manager.set_connection_settings(&actor, &id, offer, None).await.expect("set");
                decided.settings = Some(number);
            }
            Step::ClearSettings => {
                manager.clear_connection_settings(&actor, &id, None).await.expect("cleared");
                decided.settings = None;
            }
            Step::AssignPackages(number) => {
                let packages = BTreeMap::from([("a".to_owned(), format!("1.{number}"))]);
                manager.assign_packages(&actor, &id, packages, None).await.expect("assigned");
                decided.packages = Some(number);
            }
            Step::UnassignPackages => {
                manager.unassign_packages(&actor, &id, None).await.expect("unassigned");
                decided.packages = None;
            }
            Step::Poll { lost: false } => {
                poll(&process, &mut agent, &mut has).await;
            }
            Step::Poll { lost: true } => {
                agent.heartbeat(&process).await;
            }
            Step::NewUid => {
                let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
                let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
                let uid = answer.agent_identification.expect("a new identity").new_instance_uid;
                agent.uid = InstanceUid::try_from(&uid[..]).expect("a uid");
                // The answer may have held an offer besides; it is lost.
                poll(&process, &mut agent, &mut has).await;
            }
            Step::Reconnect => {
                agent.goodbye(&process).await;
            }
            Step::Wait => tokio::time::sleep(Duration::from_secs(61)).await,
            Step::Restart => {
                process.stop().await;
                process = start(&store, &clock).await;
            }
            Step::Crash => {
                // What was said in the last moments may be lost, but not who somebody is.
                tokio::time::sleep(Duration::from_millis(1)).await;
                process.crash().await;
                process = start(&store, &clock).await;
            }
        }
    }
    // In the end: some polls, well apart.
    for _ in 0..12 {
        poll(&process, &mut agent, &mut has).await;
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
    assert_eq!(process.id(&agent.uid), id);
    let detail = process.detail(&agent.uid).await;
    let drifts = [detail.summary.drift, detail.connection_settings.drift, detail.packages.drift];
    for (decided, drift) in [decided.config, decided.settings, decided.packages].into_iter().zip(drifts) {
        assert_eq!(drift, if decided.is_some() { Drift::InSync } else { Drift::Unmanaged });
    }
    if let Some(number) = decided.config {
        assert_eq!(has.config, Some(text_of(number)));
    }
    if let Some(number) = decided.settings {
        assert_eq!(has.endpoint, Some(endpoint_of(number)));
    }
    if let Some(number) = decided.packages {
        assert_eq!(has.packages, Some(BTreeMap::from([("a".to_owned(), format!("1.{number}"))])));
    }
    // And then it is left in peace, by this process and by the next one.
    for round in 0..2 {
        for _ in 0..3 {
            assert!(!poll(&process, &mut agent, &mut has).await, "it has everything (round {round})");
            tokio::time::sleep(Duration::from_secs(61)).await;
        }
        if round == 0 {
            process.stop().await;
            process = start(&store, &clock).await;
        }
    }
    process.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_agent_ends_up_with_what_was_decided_last_and_is_left_in_peace(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(run(steps));
    }
}
