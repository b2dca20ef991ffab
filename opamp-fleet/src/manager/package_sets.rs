//! The packages of one agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use opamp_proto::{AgentCapabilities, AgentId, hash, pb};
use opamp_server::{Desired, PackagesOffer};
use opamp_store::{
    AgentRecord, AssignedPackage, CommitError, DesiredPackages, PackageKey, PackageKind, PackageVersion,
    Precondition, ServerSecret, WriteBatch,
};
use serde_json::{Value, json};

use super::audit::Deed;
use super::desire::{DecideError, Decided, Decision, is_key, scoped};
use super::downloads::{DownloadKey, KEY_BYTES, KEY_NAME};
use super::error::{AssignPackagesError, StoreFailure};
use super::packages::wire_kind;
use super::types::{Actor, Assigned};
use super::{FleetManager, Inner};

impl FleetManager {
    /// Assigns one agent the packages it should have: all of them, versions by name. No packages at all are a decision
    /// too, with which the agent removes those it has from here (R-PKG-10). Committed together with its audit entry before
    /// it is offered; an agent that is away, or never came, gets them when it comes.
    ///
    /// Assigning the same packages again starts a new generation, in which they are offered once more even if the agent
    /// failed them before. A call repeated under the same idempotency key changes nothing.
    ///
    /// # Errors
    /// [`AssignPackagesError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn assign_packages(
        &self,
        actor: &Actor,
        agent: &AgentId,
        packages: BTreeMap<String, String>,
        idempotency_key: Option<String>,
    ) -> Result<Assigned<DesiredPackages>, AssignPackagesError> {
        let (count, max) = (packages.len(), self.inner.settings.packages.per_agent_max);
        if count > max {
            return Err(AssignPackagesError::TooMany { count, max });
        }
        self.change_packages(actor, agent, Some(packages), idempotency_key).await
    }

    /// Leaves an agent's packages alone from now on. Those it has stay, but it cannot download them any more.
    ///
    /// # Errors
    /// [`AssignPackagesError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn unassign_packages(
        &self,
        actor: &Actor,
        agent: &AgentId,
        idempotency_key: Option<String>,
    ) -> Result<Assigned<DesiredPackages>, AssignPackagesError> {
        self.change_packages(actor, agent, None, idempotency_key).await
    }

    async fn change_packages(
        &self,
        actor: &Actor,
        agent: &AgentId,
        packages: Option<BTreeMap<String, String>>,
        idempotency_key: Option<String>,
    ) -> Result<Assigned<DesiredPackages>, AssignPackagesError> {
        if !is_key(idempotency_key.as_ref()) {
            return Err(AssignPackagesError::IdempotencyKey);
        }
        let key = idempotency_key.map(|key| match &packages {
            Some(packages) => scoped("packages", agent, &digest(packages), &key),
            None => scoped("packages", agent, "none", &key),
        });
        let (actor, agent) = (actor.clone(), *agent);
        self.complete(|inner| async move { inner.change_packages(&actor, &agent, packages, key).await }).await
    }
}

impl Inner {
    async fn change_packages(
        self: Arc<Self>,
        actor: &Actor,
        id: &AgentId,
        packages: Option<BTreeMap<String, String>>,
        key: Option<String>,
    ) -> Result<Assigned<DesiredPackages>, AssignPackagesError> {
        let _writer = self.writer.lock().await;
        let base = self.record(id).await?.ok_or(AssignPackagesError::NotFound(*id))?;
        let generation = base.record.packages_generation + 1;
        let (desired, offer, require) = match packages {
            None => (None, None, Vec::new()),
            Some(packages) => {
                check_accepts(&base.record)?;
                let versions = self.chosen(packages).await?;
                let desired = DesiredPackages {
                    packages: versions.iter().map(assigned).collect(),
                    hash: hash::all_packages_hash(&wire_packages(&versions)),
                    generation,
                    assigned_by: actor.name.clone(),
                    assigned_at: self.now().wall,
                };
                let url_base = self.settings.packages.url_base.as_ref();
                let url_base = url_base.ok_or(AssignPackagesError::NoUrlBase)?;
                let key = self.make_download_key().await?;
                let offer = compose(id, &desired, &versions, url_base, &key)?;
                let at =
                    |version: &PackageVersion| Precondition::PackageAt(version.key.clone(), version.revision);
                (Some(desired), Some(offer), versions.iter().map(at).collect())
            }
        };
        let changed = AgentRecord {
            desired_packages: desired,
            packages_generation: generation,
            ..AgentRecord::clone(&base.record)
        };
        let action = if offer.is_some() { "agent.assign_packages" } else { "agent.unassign_packages" };
        let former = base.record.desired_packages.clone();
        let (before, after) =
            (packages_value(former.as_ref()), packages_value(changed.desired_packages.as_ref()));
        let decision = Decision {
            blobs: Vec::new(),
            require,
            deed: Deed::of_agent(action, id, before, after),
            desired: Desired::packages(generation, offer),
            changed: changed.clone(),
        };
        match self.decide(actor, base, decision, key).await {
            Ok(decided) => {
                let desired =
                    if matches!(decided, Decided::Now(_)) { changed.desired_packages } else { former };
                let (dispatch, replayed) = decided.outcome();
                Ok(Assigned { desired, dispatch, replayed })
            }
            // Deleted in the last moment, and perhaps published anew with another content.
            Err(DecideError::Commit(
                CommitError::PackageMissing(key) | CommitError::Precondition(Precondition::PackageAt(key, _)),
            )) => Err(AssignPackagesError::PackageNotFound(key)),
            Err(DecideError::Commit(CommitError::Precondition(_))) => Err(AssignPackagesError::Conflict(*id)),
            Err(DecideError::Commit(error)) => Err(StoreFailure::from(error).into()),
            Err(DecideError::Store(failure)) => Err(failure.into()),
        }
    }

    /// The versions that were chosen, if one agent can have them together.
    async fn chosen(
        &self,
        packages: BTreeMap<String, String>,
    ) -> Result<Vec<PackageVersion>, AssignPackagesError> {
        let mut versions = Vec::with_capacity(packages.len());
        for (name, version) in packages {
            let key = PackageKey { name, version };
            match self.store.package(&key).await.map_err(StoreFailure::from)? {
                Some(version) => {
                    // In the place of one of before that may have been deleted since.
                    self.state().remember_package(version.clone());
                    versions.push(version);
                }
                None => return Err(AssignPackagesError::PackageNotFound(key)),
            }
        }
        let top_level = versions.iter().filter(|version| version.kind == PackageKind::TopLevel).count();
        let nameless = versions.iter().find(|version| version.key.name.is_empty());
        match nameless {
            Some(package) if package.kind != PackageKind::TopLevel || top_level > 1 => {
                Err(AssignPackagesError::NotSoleTopLevel)
            }
            _ => Ok(versions),
        }
    }

    /// The offer of desired packages, with URLs and tokens for this agent.
    pub(super) async fn packages_offer(
        &self,
        agent: &AgentId,
        desired: &DesiredPackages,
    ) -> Result<Option<PackagesOffer>, StoreFailure> {
        let mut versions = Vec::with_capacity(desired.packages.len());
        for package in &desired.packages {
            versions.extend(self.assigned_version(package).await?);
        }
        let reason = match (&self.settings.packages.url_base, self.download_key().await?) {
            _ if versions.len() < desired.packages.len() => "a version is missing",
            (None, _) => {
                // Said once for all agents at the start.
                tracing::debug!(%agent, "an agent's packages cannot be offered without a URL base");
                return Ok(None);
            }
            (_, None) => "the key for download tokens is missing",
            (Some(url_base), Some(key)) => match compose(agent, desired, &versions, url_base, &key) {
                Ok(offer) => return Ok(Some(offer)),
                Err(_) => "they make no valid offer, see the URL base",
            },
        };
        tracing::error!(%agent, reason, "an agent's packages cannot be offered");
        Ok(None)
    }

    /// What download tokens are made with, if there is one yet.
    pub(super) async fn download_key(&self) -> Result<Option<DownloadKey>, StoreFailure> {
        let known = self.state().download_key.clone();
        if known.is_some() {
            return Ok(known);
        }
        let secret = self.store.secret(KEY_NAME).await?;
        let key = secret.and_then(|secret| DownloadKey::new(secret.expose()));
        self.state().download_key.clone_from(&key);
        Ok(key)
    }

    /// Has the key be there before anybody asks for a download: while there is none, each request looks for it in the
    /// store, whatever it shows. If the store does not take it now, the first assignment makes it.
    pub(super) async fn prepare_download_key(&self) {
        if let Err(error) = self.make_download_key().await {
            tracing::warn!(%error, "the key for download tokens was not made");
        }
    }

    /// The same; made now if there is none.
    async fn make_download_key(&self) -> Result<DownloadKey, AssignPackagesError> {
        if let Some(key) = self.download_key().await? {
            return Ok(key);
        }
        let mut random = [0; KEY_BYTES];
        getrandom::fill(&mut random).map_err(|error| AssignPackagesError::Random(error.to_string()))?;
        let mut batch = WriteBatch::new();
        batch.require(Precondition::SecretAbsent(KEY_NAME.to_owned()));
        batch.put_secret(KEY_NAME.to_owned(), ServerSecret::new(random.to_vec()));
        match self.commit(batch, None).await {
            // Another process was faster: its key is the key.
            Ok(_) | Err(CommitError::Precondition(_)) => {}
            Err(error) => return Err(StoreFailure::from(error).into()),
        }
        let missing = || StoreFailure::Damaged("the key for download tokens was lost".to_owned());
        Ok(self.download_key().await?.ok_or_else(missing)?)
    }
}

/// An agent that announced its capabilities must be able to take packages (R-PKG-06); of one that never came nobody knows.
fn check_accepts(agent: &AgentRecord) -> Result<(), AssignPackagesError> {
    let capabilities = AgentCapabilities::from_bits(agent.capabilities);
    if capabilities.bits() == 0 || capabilities.contains(AgentCapabilities::ACCEPTS_PACKAGES) {
        return Ok(());
    }
    Err(AssignPackagesError::NotAccepted(agent.id))
}

fn assigned(version: &PackageVersion) -> AssignedPackage {
    AssignedPackage { key: version.key.clone(), content_sha256: version.content_sha256 }
}

/// The packages as they are offered, but without URLs and headers. Hashes are made over these: neither a token nor
/// another place to download from makes a package another one.
fn wire_packages(versions: &[PackageVersion]) -> BTreeMap<String, pb::PackageAvailable> {
    let package = |version: &PackageVersion| {
        let file = pb::DownloadableFile {
            content_hash: version.content_sha256.to_vec().into(),
            signature: version.signature.clone().unwrap_or_default(),
            ..pb::DownloadableFile::default()
        };
        let mut package = pb::PackageAvailable {
            r#type: wire_kind(version.kind).into(),
            version: version.key.version.clone(),
            file: Some(file),
            ..pb::PackageAvailable::default()
        };
        package.hash = hash::package_hash(&package).to_bytes();
        (version.key.name.clone(), package)
    };
    versions.iter().map(package).collect()
}

/// The offer for one agent: what is hashed, then where and with which token it is downloaded.
fn compose(
    agent: &AgentId,
    desired: &DesiredPackages,
    versions: &[PackageVersion],
    url_base: &str,
    key: &DownloadKey,
) -> Result<PackagesOffer, opamp_server::InvalidOffer> {
    let mut packages = wire_packages(versions);
    for version in versions {
        let file = packages.get_mut(&version.key.name).and_then(|package| package.file.as_mut());
        if let Some(file) = file {
            let content = HEXLOWER.encode(&version.content_sha256);
            file.download_url = format!("{}/{agent}/{content}", url_base.trim_end_matches('/'));
            let token = key.token(agent, &version.content_sha256);
            let header = pb::Header { key: "Authorization".to_owned(), value: format!("Bearer {token}") };
            file.headers = Some(pb::Headers { headers: vec![header] });
        }
    }
    PackagesOffer::new(pb::PackagesAvailable { packages, all_packages_hash: desired.hash.to_bytes() })
}

/// A set of packages in a form of bounded length.
fn digest(packages: &BTreeMap<String, String>) -> String {
    let text = json!(packages).to_string();
    opamp_store::BlobId::of(text.as_bytes()).to_string()
}

/// Assigned packages as the audit log shows them.
pub(super) fn packages_value(desired: Option<&DesiredPackages>) -> Option<Value> {
    desired.map(|desired| {
        let versions = desired.packages.iter().map(|package| (&package.key.name, &package.key.version));
        json!({
            "packages": versions.collect::<BTreeMap<_, _>>(),
            "hash": desired.hash.to_hex(),
            "generation": desired.generation,
        })
    })
}
