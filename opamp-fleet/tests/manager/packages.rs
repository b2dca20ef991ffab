use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::manager::{AssignPackagesError, ManagerSettings, NewPackage, PackageError, PackageSettings};
use opamp_proto::pb::PackageStatusEnum::{InstallFailed, InstallPending, Installed};
use opamp_proto::{AgentCapabilities, AgentId, AgentToServerFlags, InstanceUid, pb};
use opamp_server::{Dispatch, InsecureAcceptEveryone};
use opamp_store::{
    AgentStore as _, AuditQuery, CredentialStore as _, MemoryStore, PackageKey, PackageKind, PackageVersion,
    Store,
};

use super::support::*;
use super::uploads::{content, new, process_with, publish, sha256};

const BASE: &str = "https://fleet.example/packages";

fn settings() -> PackageSettings {
    PackageSettings { url_base: Some(BASE.to_owned()), ..PackageSettings::default() }
}

async fn restarted(store: &MemoryStore, clock: &Arc<opamp_server::TokioClock>) -> Process {
    let settings = ManagerSettings { packages: settings(), ..ManagerSettings::default() };
    let store: Arc<dyn Store> = Arc::new(store.clone());
    Process::start_with(store, clock, Arc::new(InsecureAcceptEveryone), settings).await
}

fn willing(n: u16) -> Agent {
    let mut agent = Agent::new(n);
    agent.capabilities.insert(AgentCapabilities::ACCEPTS_PACKAGES);
    agent.capabilities.insert(AgentCapabilities::REPORTS_PACKAGE_STATUSES);
    agent
}

async fn connected(process: &Process, mut agent: Agent) -> (Agent, AgentId) {
    agent.connect(process).await;
    process.settle().await;
    let id = process.id(&agent.uid);
    (agent, id)
}

fn set(packages: &[(&str, &str)]) -> BTreeMap<String, String> {
    packages.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
}

/// Reports one state for all packages of an offer.
async fn report(
    process: &Process,
    agent: &mut Agent,
    offer: &pb::PackagesAvailable,
    state: pb::PackageStatusEnum,
) -> pb::ServerToAgent {
    let status = |(name, package): (&String, &pb::PackageAvailable)| {
        let has = state == Installed;
        let status = pb::PackageStatus {
            name: name.clone(),
            agent_has_version: if has { package.version.clone() } else { String::new() },
            agent_has_hash: if has { package.hash.clone() } else { bytes::Bytes::new() },
            server_offered_version: package.version.clone(),
            server_offered_hash: package.hash.clone(),
            status: state.into(),
            error_message: if state == InstallFailed { "no space".to_owned() } else { String::new() },
            ..pb::PackageStatus::default()
        };
        (name.clone(), status)
    };
    agent.packages = Some(pb::PackageStatuses {
        packages: offer.packages.iter().map(status).collect(),
        server_provided_all_packages_hash: offer.all_packages_hash.clone(),
        error_message: String::new(),
    });
    let message = pb::AgentToServer { package_statuses: agent.packages.clone(), ..agent.bare() };
    agent.send(process, message).await
}

async fn drift(process: &Process, agent: &Agent) -> Drift {
    process.settle().await;
    process.detail(&agent.uid).await.packages.drift
}

/// Who shows which URL and token, as an agent does: the size of what is opened.
async fn download(process: &Process, offer: &pb::PackagesAvailable, name: &str) -> Option<u64> {
    opened(process, offer, name).await.map(|version| version.size_bytes)
}

/// The first chunk of what is opened.
async fn read(process: &Process, offer: &pb::PackagesAvailable, name: &str) -> Option<bytes::Bytes> {
    let version = opened(process, offer, name).await?;
    process.manager.package_chunk(&version, 0).await.unwrap()
}

async fn opened(process: &Process, offer: &pb::PackagesAvailable, name: &str) -> Option<PackageVersion> {
    let file = offer.packages[name].file.as_ref().unwrap();
    let rest = file.download_url.strip_prefix(BASE).unwrap().strip_prefix('/').unwrap();
    let (agent, content) = rest.split_once('/').unwrap();
    let content: [u8; 32] = data_encoding::HEXLOWER.decode(content.as_bytes()).unwrap().try_into().unwrap();
    assert_eq!(file.content_hash, content.to_vec());
    let header = &file.headers.as_ref().unwrap().headers[0];
    let token = header.value.strip_prefix("Bearer ").unwrap();
    process.manager.open_package(&agent.parse().unwrap(), &content, token).await.unwrap()
}

/// R-SEC-10, R-PKG-02, R-PKG-49: what was published is what is offered, signature and empty name included.
#[tokio::test(start_paused = true)]
async fn assigned_packages_are_offered_and_what_the_agent_says_of_them_is_shown() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    let add_on = NewPackage {
        kind: PackageKind::AddOn,
        signature: Some(bytes::Bytes::from_static(b"signed")),
        ..new("add-on", "2.0")
    };
    publish(&process.manager, new("", "1.0"), &content(10), 10).await.unwrap();
    publish(&process.manager, add_on, &content(20), 10).await.unwrap();
    let (mut agent, id) = connected(&process, willing(1)).await;
    let packages = set(&[("", "1.0"), ("add-on", "2.0")]);
    let assigned = process.manager.assign_packages(&operator(), &id, packages, None).await.unwrap();
    assert_eq!((assigned.dispatch, assigned.replayed), (Dispatch::NextPoll, false));
    let desired = assigned.desired.unwrap();
    assert_eq!(drift(&process, &agent).await, Drift::Pending);

    let offer = agent.heartbeat(&process).await.packages_available.expect("they are offered");
    assert_eq!(offer.all_packages_hash, desired.hash.to_bytes());
    assert_eq!(offer.packages.keys().collect::<Vec<_>>(), ["", "add-on"]);
    let package = &offer.packages["add-on"];
    let file = package.file.as_ref().unwrap();
    assert_eq!((package.r#type, package.version.as_str()), (pb::PackageType::Addon.into(), "2.0"));
    assert_eq!((&file.content_hash[..], &file.signature[..]), (&sha256(&content(20))[..], &b"signed"[..]));
    assert_eq!(offer.packages[""].r#type, i32::from(pb::PackageType::TopLevel));
    assert_eq!(download(&process, &offer, "add-on").await, Some(20));
    assert_eq!(download(&process, &offer, "").await, Some(10));

    report(&process, &mut agent, &offer, InstallPending).await;
    assert_eq!(drift(&process, &agent).await, Drift::Applying);
    report(&process, &mut agent, &offer, Installed).await;
    assert_eq!(drift(&process, &agent).await, Drift::InSync);
    let detail = process.detail(&agent.uid).await.packages;
    assert_eq!((detail.desired, detail.generation), (Some(desired.clone()), 1));
    assert_eq!(detail.offered.map(|offered| offered.hash), Some(desired.hash.clone()));
    assert_eq!(detail.last_applied.map(|(hash, _)| hash), Some(desired.hash));
    process.stop().await;
}

/// R-PKG-39, R-PKG-40, R-PKG-51: what is hashed is the package, not who downloads it, where, or with which token.
#[tokio::test(start_paused = true)]
async fn the_hashes_of_packages_depend_on_the_packages_alone() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    for version in ["1.0", "1.1"] {
        publish(&process.manager, new("a", version), &content(10), 10).await.unwrap();
    }
    let mut offers = Vec::new();
    for n in 1..=3 {
        let (mut agent, id) = connected(&process, willing(n)).await;
        let packages = set(&[("a", if n == 3 { "1.1" } else { "1.0" })]);
        process.manager.assign_packages(&operator(), &id, packages, None).await.unwrap();
        offers.push(agent.heartbeat(&process).await.packages_available.unwrap());
    }
    let file = |offer: &pb::PackagesAvailable| offer.packages["a"].file.clone().unwrap();
    assert_ne!(file(&offers[0]).download_url, file(&offers[1]).download_url);
    assert_ne!(file(&offers[0]).headers, file(&offers[1]).headers, "each agent has a token of its own");
    assert_eq!(offers[0].all_packages_hash, offers[1].all_packages_hash);
    assert_eq!(offers[0].packages["a"].hash, offers[1].packages["a"].hash);
    assert_ne!(
        offers[0].all_packages_hash, offers[2].all_packages_hash,
        "another version is another package"
    );
    assert_ne!(offers[0].packages["a"].hash, offers[2].packages["a"].hash);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_opens_what_is_assigned_to_its_agent_and_nothing_else() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    publish(&process.manager, new("a", "1"), &content(10), 10).await.unwrap();
    publish(&process.manager, new("a", "2"), &content(20), 10).await.unwrap();
    let (mut agent, id) = connected(&process, willing(1)).await;
    let (_, other) = connected(&process, willing(2)).await;
    let assign = async |id: &AgentId, version: &str| {
        process.manager.assign_packages(&operator(), id, set(&[("a", version)]), None).await.unwrap();
    };
    let open = async |id: &AgentId, size: usize, token: &str| {
        process.manager.open_package(id, &sha256(&content(size)), token).await.unwrap().is_some()
    };
    let nothing_yet = open(&id, 10, "x").await;
    assert!(!nothing_yet, "without any assignment there is no key, and nothing to open");
    assign(&id, "1").await;
    assign(&other, "1").await;
    let offer = agent.heartbeat(&process).await.packages_available.unwrap();
    let header = &offer.packages["a"].file.as_ref().unwrap().headers.as_ref().unwrap().headers[0];
    assert_eq!(header.key, "Authorization");
    let token = header.value.strip_prefix("Bearer ").unwrap().to_owned();
    assert!(open(&id, 10, &token).await);
    for wrong in ["", "x", &token[1..], &format!("{token}x")] {
        assert!(!open(&id, 10, wrong).await, "{wrong}");
    }
    assert!(!open(&other, 10, &token).await, "it is not the other agent's");
    assert!(!open(&id, 20, &token).await, "it is not for another content");
    assert!(!open(&AgentId::from_bytes([9; 16]), 10, &token).await);
    // Only as long as it is assigned.
    assign(&id, "2").await;
    assert!(!open(&id, 10, &token).await);
    assign(&id, "1").await;
    assert!(open(&id, 10, &token).await);
    process.manager.unassign_packages(&operator(), &id, None).await.unwrap();
    assert!(!open(&id, 10, &token).await);
    assign(&id, "1").await;
    process.manager.delete_agent(&operator(), &id).await.unwrap();
    assert!(!open(&id, 10, &token).await);
    let everything =
        process.manager.audit(AuditQuery { limit: 1_000, ..AuditQuery::default() }).await.unwrap();
    assert!(!format!("{everything:?} {:?}", process.manager).contains(&token), "tokens stay out of the log");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_assigned_is_offered_after_a_crash_with_the_same_hash_and_token_and_what_is_installed_is_not()
 {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = restarted(&store, &clock).await;
    publish(&process.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (mut done, done_id) = connected(&process, willing(1)).await;
    let (mut waiting, waiting_id) = connected(&process, willing(2)).await;
    let (mut failed, failed_id) = connected(&process, willing(3)).await;
    for id in [&done_id, &waiting_id, &failed_id] {
        process.manager.assign_packages(&operator(), id, set(&[("a", "1")]), None).await.unwrap();
    }
    let offer = done.heartbeat(&process).await.packages_available.unwrap();
    report(&process, &mut done, &offer, Installed).await;
    let first = waiting.heartbeat(&process).await.packages_available.unwrap();
    let offer = failed.heartbeat(&process).await.packages_available.unwrap();
    report(&process, &mut failed, &offer, InstallFailed).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    process.crash().await;

    let process = restarted(&store, &clock).await;
    assert_eq!(done.heartbeat(&process).await.packages_available, None, "it has them");
    assert_eq!(
        failed.heartbeat(&process).await.packages_available,
        None,
        "it failed them, in this generation"
    );
    let again = waiting.heartbeat(&process).await.packages_available.expect("it never said that it has them");
    assert_eq!(again, first, "URL, token and hashes are as they were");
    assert_eq!(download(&process, &again, "a").await, Some(10), "a token from before is good");
    assert_eq!((done.asked, waiting.asked, failed.asked), (0, 0, 0));
    assert_eq!(drift(&process, &failed).await, Drift::Failed);
    let failure = process.detail(&failed.uid).await.packages.last_failure.unwrap();
    assert_eq!(failure.error, "a: no space");
    process.manager.assign_packages(&operator(), &failed_id, set(&[("a", "1")]), None).await.unwrap();
    assert!(failed.heartbeat(&process).await.packages_available.is_some(), "assigning again is a new try");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn packages_follow_an_agent_to_its_new_identity() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    publish(&process.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (mut agent, id) = connected(&process, willing(1)).await;
    let flags = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
    let answer = agent.send(&process, pb::AgentToServer { flags, ..agent.bare() }).await;
    agent.uid = InstanceUid::try_from(&answer.agent_identification.unwrap().new_instance_uid[..]).unwrap();
    agent.heartbeat(&process).await;
    process.settle().await;
    process.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    let offer = agent.heartbeat(&process).await.packages_available.expect("offered under the new identity");
    assert_eq!(download(&process, &offer, "a").await, Some(10), "the token is the agent's, not the uid's");
    process.stop().await;
}

/// R-PKG-10, R-PKG-46: no packages are an offer too, with a hash.
#[tokio::test(start_paused = true)]
async fn no_packages_at_all_are_offered_and_left_alone_is_not() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    let (mut agent, id) = connected(&process, willing(1)).await;
    let assigned = process.manager.assign_packages(&operator(), &id, set(&[]), None).await.unwrap();
    let offer = agent.heartbeat(&process).await.packages_available.expect("an empty offer");
    assert!(offer.packages.is_empty() && !offer.all_packages_hash.is_empty());
    assert_eq!(assigned.desired.unwrap().hash.to_bytes(), offer.all_packages_hash);
    report(&process, &mut agent, &offer, Installed).await;
    assert_eq!(drift(&process, &agent).await, Drift::InSync);
    let unassigned = process.manager.unassign_packages(&operator(), &id, None).await.unwrap();
    assert_eq!(unassigned.desired, None);
    assert_eq!(agent.heartbeat(&process).await.packages_available, None);
    assert_eq!(drift(&process, &agent).await, Drift::Unmanaged);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn packages_no_agent_could_have_are_refused() {
    let packages = PackageSettings { per_agent_max: 3, ..settings() };
    let process = process_with(Arc::new(MemoryStore::new()), packages).await;
    let publish = async |name: &str, kind| {
        let package = NewPackage { kind, ..new(name, "1") };
        super::uploads::publish(&process.manager, package, &content(10), 10).await.unwrap();
    };
    for name in ["", "a", "b"] {
        publish(name, PackageKind::TopLevel).await;
    }
    publish("x", PackageKind::AddOn).await;
    let (_, unwilling) = connected(&process, Agent::new(1)).await;
    let (_, id) = connected(&process, willing(2)).await;
    let assign = async |id: &AgentId, packages: &[(&str, &str)]| {
        let assigned = process.manager.assign_packages(&operator(), id, set(packages), None).await;
        assigned.map(|assigned| assigned.desired.unwrap().packages.len())
    };
    assert_eq!(assign(&unwilling, &[("a", "1")]).await, Err(AssignPackagesError::NotAccepted(unwilling)));
    let nobody = AgentId::from_bytes([9; 16]);
    assert_eq!(assign(&nobody, &[("a", "1")]).await, Err(AssignPackagesError::NotFound(nobody)));
    let missing = AssignPackagesError::PackageNotFound(PackageKey::new("a", "2"));
    assert_eq!(assign(&id, &[("a", "2")]).await, Err(missing));
    let many = [("", "1"), ("a", "1"), ("b", "1"), ("x", "1")];
    assert_eq!(assign(&id, &many).await, Err(AssignPackagesError::TooMany { count: 4, max: 3 }));
    // R-PKG-02: only the sole top-level package may have the empty name.
    assert_eq!(assign(&id, &[("", "1"), ("a", "1")]).await, Err(AssignPackagesError::NotSoleTopLevel));
    assert_eq!(assign(&id, &[("", "1"), ("x", "1")]).await, Ok(2));
    assert_eq!(assign(&id, &[("a", "1"), ("b", "1"), ("x", "1")]).await, Ok(3));
    process.stop().await;

    let nowhere = process_with(Arc::new(MemoryStore::new()), PackageSettings::default()).await;
    super::uploads::publish(&nowhere.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (_, id) = connected(&nowhere, willing(1)).await;
    let refused = nowhere.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await;
    assert_eq!(refused, Err(AssignPackagesError::NoUrlBase));
    nowhere.stop().await;

    let url_base = Some("ftp://fleet.example".to_owned());
    let wrong = process_with(Arc::new(MemoryStore::new()), PackageSettings { url_base, ..settings() }).await;
    super::uploads::publish(&wrong.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (_, id) = connected(&wrong, willing(1)).await;
    let refused = wrong.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await;
    assert!(matches!(refused, Err(AssignPackagesError::InvalidOffer(_))), "{refused:?}");
    assert_eq!(wrong.detail(&uid(1)).await.packages.generation, 0);
    wrong.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_an_agent_should_have_cannot_be_deleted() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    publish(&process.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (mut agent, id) = connected(&process, willing(1)).await;
    process.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    let offer = agent.heartbeat(&process).await.packages_available.unwrap();
    assert_eq!(download(&process, &offer, "a").await, Some(10));
    let key = PackageKey::new("a", "1");
    let delete = async || process.manager.delete_package(&operator(), &key).await;
    assert_eq!(delete().await, Err(PackageError::InUse { key: key.clone(), agent: id }));
    assert!(process.audit("package.delete").await.is_empty());
    process.manager.unassign_packages(&operator(), &id, None).await.unwrap();
    assert_eq!(delete().await, Ok(()));
    let gone = process.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await;
    assert_eq!(gone, Err(AssignPackagesError::PackageNotFound(key)), "it is not remembered either");
    // Published anew it is another package, whatever was remembered of the former one.
    publish(&process.manager, new("a", "1"), &content(20), 10).await.unwrap();
    let assigned = process.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    assert_eq!(assigned.desired.unwrap().packages[0].content_sha256, sha256(&content(20)));
    let offer = agent.heartbeat(&process).await.packages_available.unwrap();
    assert_eq!(download(&process, &offer, "a").await, Some(20));
    let entries = process.audit("package.delete").await;
    assert_eq!(entries[0].before.as_ref().unwrap()["size_bytes"], 10);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_assignment_under_one_idempotency_key_is_made_once_and_audited_once() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    for version in ["1", "2"] {
        publish(&process.manager, new("a", version), &content(10), 10).await.unwrap();
    }
    let (_, id) = connected(&process, willing(1)).await;
    let assign = async |version: &str, key: &str| {
        let packages = set(&[("a", version)]);
        process.manager.assign_packages(&operator(), &id, packages, Some(key.to_owned())).await
    };
    let done = assign("1", "k").await.unwrap();
    let again = assign("1", "k").await.unwrap();
    assert_eq!((done.replayed, again.replayed, &done.desired), (false, true, &again.desired));
    assert!(!assign("2", "k").await.unwrap().replayed, "the key was for other packages");
    assert_eq!(assign("1", "k").await.unwrap().desired.unwrap().packages[0].key.version, "2");
    assert_eq!(assign("1", "").await, Err(AssignPackagesError::IdempotencyKey));
    let entries = process.audit("agent.assign_packages").await;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].before.as_ref().unwrap()["packages"]["a"], "1");
    assert_eq!(entries[1].after.as_ref().unwrap()["packages"]["a"], "2");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn packages_whose_url_base_is_gone_keep_nobody_from_starting() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = restarted(&store, &clock).await;
    publish(&process.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (mut agent, id) = connected(&process, willing(1)).await;
    process.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    process.stop().await;
    let process = Process::start(Arc::new(store.clone()), &clock).await;
    assert_eq!(agent.heartbeat(&process).await.packages_available, None, "it is left alone");
    assert_eq!(process.id(&agent.uid), id);
    process.stop().await;
    let process = restarted(&store, &clock).await;
    assert!(agent.heartbeat(&process).await.packages_available.is_some());
    process.stop().await;
}

/// As long as there is no key, each request for a download looks for one in the store.
#[tokio::test(start_paused = true)]
async fn the_key_of_downloads_is_there_from_the_start() {
    let (store, clock) = (MemoryStore::new(), clock());
    let process = restarted(&store, &clock).await;
    let key = store.secret("package_downloads").await.unwrap().expect("it is made at the start");
    process.stop().await;
    let process = restarted(&store, &clock).await;
    let again = store.secret("package_downloads").await.unwrap().unwrap();
    assert_eq!(again.expose(), key.expose(), "and made once");
    process.stop().await;
}

/// Two processes on one store: each opens what the other assigned, and remembers nothing that is not so any more.
#[tokio::test(start_paused = true)]
async fn a_process_serves_what_another_one_published_anew_and_assigned() {
    let (store, clock) = (MemoryStore::new(), clock());
    let one = restarted(&store, &clock).await;
    publish(&one.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (mut agent, id) = connected(&one, willing(1)).await;
    one.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    let offer = agent.heartbeat(&one).await.packages_available.unwrap();
    assert_eq!(download(&one, &offer, "a").await, Some(10));
    one.manager.unassign_packages(&operator(), &id, None).await.unwrap();
    one.manager.flush().await.unwrap();

    let other = restarted(&store, &clock).await;
    other.manager.delete_package(&operator(), &PackageKey::new("a", "1")).await.unwrap();
    publish(&other.manager, new("a", "1"), &content(20), 10).await.unwrap();
    other.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    let offer = agent.connect(&other).await.packages_available.unwrap();
    assert_eq!(download(&other, &offer, "a").await, Some(20));
    assert_eq!(download(&one, &offer, "a").await, Some(20), "its tokens are made with the same key");

    // The same content once more: what the first process reads is of the version that is there now.
    other.manager.unassign_packages(&operator(), &id, None).await.unwrap();
    other.manager.delete_package(&operator(), &PackageKey::new("a", "1")).await.unwrap();
    publish(&other.manager, new("a", "1"), &content(20), 10).await.unwrap();
    other.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    other.manager.flush().await.unwrap();
    let offer = agent.heartbeat(&other).await.packages_available.unwrap();
    assert_eq!(read(&one, &offer, "a").await, Some(content(20)));
    other.stop().await;
    one.crash().await;
}

/// R-PKG-31: an agent names the hash of the offer before it has what is in it.
#[tokio::test(start_paused = true)]
async fn to_acknowledge_an_offer_is_not_to_have_it() {
    let process = process_with(Arc::new(MemoryStore::new()), settings()).await;
    for version in ["1", "2"] {
        publish(&process.manager, new("a", version), &content(10), 10).await.unwrap();
    }
    let (mut agent, id) = connected(&process, willing(1)).await;
    process.manager.assign_packages(&operator(), &id, set(&[("a", "2")]), None).await.unwrap();
    let offer = agent.heartbeat(&process).await.packages_available.unwrap();
    let says = |has: &[(&str, &str)]| {
        let status = |(name, version): &(&str, &str)| {
            let status = pb::PackageStatus {
                name: (*name).to_owned(),
                agent_has_version: (*version).to_owned(),
                agent_has_hash: match *version {
                    "2" => offer.packages["a"].hash.clone(),
                    _ => bytes::Bytes::from_static(b"an older one"),
                },
                status: Installed.into(),
                ..pb::PackageStatus::default()
            };
            // Only of what was offered (R-PKG-29, R-PKG-30).
            let status = match offer.packages.get(*name) {
                Some(offered) => pb::PackageStatus {
                    server_offered_version: offered.version.clone(),
                    server_offered_hash: offered.hash.clone(),
                    ..status
                },
                None => status,
            };
            ((*name).to_owned(), status)
        };
        pb::PackageStatuses {
            packages: has.iter().map(status).collect(),
            server_provided_all_packages_hash: offer.all_packages_hash.clone(),
            error_message: String::new(),
        }
    };
    let cases: [(&[(&str, &str)], Drift); 5] = [
        (&[], Drift::Applying),
        (&[("b", "2")], Drift::Applying),
        (&[("a", "1")], Drift::Applying),
        (&[("a", "2")], Drift::InSync),
        (&[("a", "2"), ("local", "9")], Drift::InSync),
    ];
    for (has, expected) in cases {
        let message = pb::AgentToServer { package_statuses: Some(says(has)), ..agent.bare() };
        agent.send(&process, message).await;
        assert_eq!(drift(&process, &agent).await, expected, "{has:?}");
    }
    process.stop().await;
}

/// R-PKG-16, R-PKG-38: a progress report is shown as it comes, and written no more often than the state changes.
#[tokio::test(start_paused = true)]
async fn the_progress_of_a_download_is_shown_and_not_written() {
    let store = MemoryStore::new();
    let process = process_with(Arc::new(store.clone()), settings()).await;
    publish(&process.manager, new("a", "1"), &content(10), 10).await.unwrap();
    let (mut agent, id) = connected(&process, willing(1)).await;
    process.manager.assign_packages(&operator(), &id, set(&[("a", "1")]), None).await.unwrap();
    let offer = agent.heartbeat(&process).await.packages_available.unwrap();
    let mut revisions = std::collections::BTreeSet::new();
    for percent in [0.0, 10.0, 60.0] {
        let status = pb::PackageStatus {
            name: "a".to_owned(),
            server_offered_version: "1".to_owned(),
            server_offered_hash: offer.packages["a"].hash.clone(),
            status: pb::PackageStatusEnum::Downloading.into(),
            download_details: Some(pb::PackageDownloadDetails {
                download_percent: percent,
                download_bytes_per_second: 7.0,
            }),
            ..pb::PackageStatus::default()
        };
        let statuses = pb::PackageStatuses {
            packages: BTreeMap::from([("a".to_owned(), status)]),
            server_provided_all_packages_hash: offer.all_packages_hash.clone(),
            error_message: String::new(),
        };
        let message = pb::AgentToServer { package_statuses: Some(statuses.clone()), ..agent.bare() };
        agent.send(&process, message).await;
        process.settle().await;
        let detail = process.detail(&agent.uid).await;
        assert_eq!(detail.package_statuses, Some(statuses));
        assert_eq!(detail.packages.drift, Drift::Applying);
        revisions.insert(store.agent(&id).await.unwrap().unwrap().revision);
    }
    assert_eq!(revisions.len(), 1);
    process.stop().await;
}
