//! From the store into memory: inventory, sessions, desired states.

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::{AgentId, Now};
use opamp_server::RemoteConfigOffer;
use opamp_store::{AgentRecord, BlobId, Checkpoint, DesiredConfig, PAGE_MAX, ReadError};

use super::error::StoreFailure;
use super::{Inner, record};
use crate::{ConfigMap, Liveness};

/// Different lists of components kept while the fleet is loaded.
const COMPONENTS_KEPT: usize = 64;

/// Checkpoints, read beside the records in the same order.
#[derive(Default)]
struct CheckpointPages {
    page: BTreeMap<AgentId, Checkpoint>,
    next: Option<AgentId>,
    complete: bool,
}

impl Inner {
    /// Loads the fleet page by page and hands every agent to the server.
    pub(super) async fn load(&self) -> Result<(), StoreFailure> {
        let now = self.now();
        self.prepare_download_key().await;
        let mut checkpoints = CheckpointPages::default();
        let mut components = Components::default();
        let no_url_base = self.settings.packages.url_base.is_none();
        let mut left_alone = 0_usize;
        let mut after = None;
        loop {
            let page = self.store.agents(after, PAGE_MAX).await?;
            let mut seeds = Vec::with_capacity(page.items.len());
            for agent in page.items {
                let checkpoint = checkpoints.find(self, &agent.id).await?;
                let mut seed = record::seed(&agent, checkpoint.as_ref());
                left_alone += usize::from(no_url_base && agent.desired_packages.is_some());
                seed.desired = self.desired(&agent).await?;
                seed.components = components.find(self, &agent).await?;
                seeds.push(seed);
                self.admit_known(&agent, checkpoint.as_ref(), now);
            }
            self.server.restore(seeds);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if left_alone > 0 {
            tracing::error!(
                agents = left_alone,
                "agents' packages cannot be offered: no URL base for downloads is configured any more"
            );
        }
        Ok(())
    }

    fn admit_known(&self, agent: &AgentRecord, checkpoint: Option<&Checkpoint>, now: Now) {
        let (liveness, since) = record::resting(agent, checkpoint);
        let mut state = self.state();
        state.index.insert(&record::facts(agent, liveness, since));
        if liveness == Liveness::Disconnected {
            // Those whose T2 passed meanwhile.
            state.index.sweep(now, usize::MAX);
        }
    }

    /// The offer of a desired configuration: encoded once, shared by all agents that get it.
    ///
    /// A blob that is missing or unreadable is no reason not to start: that agent is left alone and the log says why.
    pub(super) async fn offer(
        &self,
        desired: &DesiredConfig,
    ) -> Result<Option<RemoteConfigOffer>, StoreFailure> {
        if let Some(offer) = self.known_offer(&desired.blob) {
            return Ok(Some(offer));
        }
        let decoded = match self.store.blob(&desired.blob).await {
            Ok(Some(bytes)) => ConfigMap::decode(bytes).map_err(|error| error.to_string()),
            Ok(None) => Err("it is missing".to_owned()),
            Err(error @ ReadError::Corrupt { .. }) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let config = match decoded {
            Ok(config) => config,
            Err(reason) => {
                let DesiredConfig { config, version, .. } = desired;
                tracing::error!(config, version, reason, "the configuration's blob is unusable");
                return Ok(None);
            }
        };
        let offer = RemoteConfigOffer::new(desired.hash.clone(), config.map());
        self.state().remember_offer(desired.blob, offer.clone());
        Ok(Some(offer))
    }

    fn known_offer(&self, blob: &BlobId) -> Option<RemoteConfigOffer> {
        self.state().offers.get(blob).cloned()
    }
}

/// Lists of components read so far: most agents of a fleet share a few.
#[derive(Default)]
struct Components(BTreeMap<BlobId, Bytes>);

impl Components {
    /// The list an agent has, if it is known. One that is lost is asked for again.
    async fn find(&mut self, inner: &Inner, agent: &AgentRecord) -> Result<Option<Bytes>, StoreFailure> {
        let Some(id) = agent.components else { return Ok(None) };
        if let Some(known) = self.0.get(&id) {
            return Ok(Some(known.clone()));
        }
        let found = match inner.store.blob(&id).await {
            Ok(found) => found,
            Err(ReadError::Corrupt { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(bytes) = &found {
            if self.0.len() >= COMPONENTS_KEPT {
                self.0.clear();
            }
            self.0.insert(id, bytes.clone());
        }
        Ok(found)
    }
}

impl CheckpointPages {
    /// The checkpoint of an agent; agents are asked for in ascending order.
    async fn find(&mut self, inner: &Inner, id: &AgentId) -> Result<Option<Checkpoint>, StoreFailure> {
        while !self.complete && self.page.last_key_value().is_none_or(|(last, _)| last < id) {
            let page = inner.store.checkpoints(self.next, PAGE_MAX).await?;
            self.next = page.next;
            self.complete = page.next.is_none();
            self.page = page.items.into_iter().map(|checkpoint| (checkpoint.id, checkpoint)).collect();
            if self.page.is_empty() {
                break;
            }
        }
        Ok(self.page.get(id).copied())
    }
}
