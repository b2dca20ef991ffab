//! What a config for many agents costs from the assignment to the record that says it is applied: manager, store in memory
//! and sessions, without sockets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use opamp_fleet::manager::{Actor, FleetManager, ManagerSettings};
use opamp_fleet::{Drift, Selector};
use opamp_proto::{InstanceUid, Wall, hash, pb};
use opamp_server::{InsecureAcceptEveryone, OpampServer, OpampService, PeerInfo, ServerSettings, TokioClock};
use opamp_store::{MemoryStore, WriteBehindLimits};
use prost::Message as _;
use tokio::runtime::Runtime;
use tower_service::Service as _;

use super::{Round, Scenario};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "fleet/assign_and_applied_256_agents", rounds: 4, prepare: assignments }];

/// As many as one commit takes.
const AGENTS: u32 = 256;

const CONFIG: &str = "edge";

/// Longer than a scenario takes: nothing happens because time has passed.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A manager with agents that poll, and a version of the config for every round.
struct Fleet {
    runtime: Runtime,
    manager: FleetManager,
    service: OpampService,
    actor: Actor,
    everyone: Selector,
    hashes: Vec<Bytes>,
    sequence_num: u64,
    version: u32,
}

fn assignments(rounds: u32) -> Round {
    let mut fleet = Fleet::new(rounds);
    Box::new(move || fleet.round())
}

impl Fleet {
    fn new(versions: u32) -> Self {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
            unreachable!("it needs nothing but memory")
        };
        let (manager, service) = runtime.block_on(started());
        let Ok(everyone) = "capability=AcceptsRemoteConfig".parse() else { unreachable!("a selector") };
        let actor =
            Actor { name: "olga".to_owned(), role: "operator".to_owned(), source: None, trace_id: None };
        let mut fleet = Self {
            runtime,
            manager,
            service,
            actor,
            everyone,
            hashes: Vec::new(),
            sequence_num: 0,
            version: 0,
        };
        fleet.hashes = (0..versions).map(|version| fleet.published(version)).collect();
        let Ok(full) = pb::AgentToServer::decode(&*crate::full_state(1)) else {
            unreachable!("it was encoded here")
        };
        // An agent that was never offered anything.
        fleet.all_say(&pb::AgentToServer { remote_config_status: Some(Default::default()), ..full });
        fleet.settle(Drift::Unmanaged);
        fleet
    }

    /// Publishes another version; answers its hash.
    fn published(&self, version: u32) -> Bytes {
        let mut config = crate::config(4_096);
        let body = Bytes::from(version.to_string());
        config.config_map.insert("version".to_owned(), pb::AgentConfigObject { body, ..Default::default() });
        let hash = hash::config_hash(&config).to_bytes();
        let published = self.runtime.block_on(async {
            let (manager, actor) = (&self.manager, &self.actor);
            let number = if version == 0 {
                manager.create_config(actor, CONFIG, config, "").await.map(|created| created.version)
            } else {
                manager.create_version(actor, CONFIG, config, "").await.map(|created| created.version)
            };
            manager.publish(actor, CONFIG, number?, None).await
        });
        assert_eq!(published.ok().map(|published| published.version), Some(version + 1));
        hash
    }

    /// Assigns the next version to everybody, hands it out, and takes in that it runs.
    fn round(&mut self) {
        self.version += 1;
        let assigned = self.runtime.block_on(self.manager.assign_matching(
            &self.actor,
            &self.everyone,
            AGENTS as usize,
            CONFIG,
            self.version,
        ));
        assert_eq!(assigned.ok().map(|done| done.assigned), Some(AGENTS as usize));
        self.all_say(&pb::AgentToServer::default());
        let status = pb::RemoteConfigStatus {
            last_remote_config_hash: self.hashes[self.version as usize - 1].clone(),
            status: pb::RemoteConfigStatuses::Applied.into(),
            error_message: String::new(),
        };
        self.all_say(&pb::AgentToServer { remote_config_status: Some(status), ..Default::default() });
        self.settle(Drift::InSync);
    }

    /// Every agent sends this.
    fn all_say(&mut self, message: &pb::AgentToServer) {
        self.sequence_num += 1;
        for agent in 0..AGENTS {
            let uid = uid(agent);
            let message = pb::AgentToServer {
                instance_uid: Bytes::copy_from_slice(uid.as_bytes()),
                sequence_num: self.sequence_num,
                capabilities: crate::CAPABILITIES.bits(),
                ..message.clone()
            };
            let request = http::Request::post("/v1/opamp")
                .header("content-type", "application/x-protobuf")
                .extension(PeerInfo {
                    remote_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 4_000)),
                    tls: false,
                    client_certificate: None,
                })
                .body(Full::new(Bytes::from(message.encode_to_vec())));
            let Ok(request) = request else { unreachable!("nothing in it is invalid") };
            let answered = self.runtime.block_on(self.service.call(request));
            assert_eq!(answered.map(|answer| answer.status().as_u16()), Ok(200));
        }
    }

    /// Lets the manager take in and write what was said, until all agents stand so.
    fn settle(&self, drift: Drift) {
        self.runtime.block_on(async {
            let everyone = BTreeMap::from([(drift, u64::from(AGENTS))]);
            let stands = |by_drift: BTreeMap<Drift, u64>| {
                by_drift.into_iter().filter(|(_, agents)| *agents > 0).collect::<BTreeMap<_, _>>() == everyone
            };
            while !stands(self.manager.stats().by_drift) {
                tokio::task::yield_now().await;
            }
            assert!(self.manager.flush().await.is_ok(), "it is written");
        });
    }
}

async fn started() -> (FleetManager, OpampService) {
    let clock = Arc::new(TokioClock::starting_at(Wall(1_760_000_000_000)));
    let builder = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(ServerSettings::default());
    let (service, server, server_driver) = builder.clock(clock.clone()).build();
    let settings = ManagerSettings {
        gather: Duration::ZERO,
        write_behind: WriteBehindLimits { delay: NEVER, ..WriteBehindLimits::default() },
        checkpoint_interval: NEVER,
        sweep_interval: NEVER,
        blob_sweep_interval: NEVER,
        ..ManagerSettings::default()
    };
    let started = FleetManager::start(Arc::new(MemoryStore::new()), server, settings, clock).await;
    let Ok((manager, driver)) = started else { unreachable!("the store is empty and works") };
    tokio::spawn(server_driver.run());
    tokio::spawn(driver.run());
    (manager, service)
}

fn uid(agent: u32) -> InstanceUid {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&agent.to_be_bytes());
    InstanceUid::v7(1, random)
}
