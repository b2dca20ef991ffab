//! An agent as the steady state is told of it.

use std::collections::BTreeSet;

use opamp_fleet::Drift;
use opamp_fleet::rollout::steady::Placed;
use opamp_fleet::rollout::{GroupIx, OfferKey, Time, Write};
use opamp_proto::{AgentId, Fingerprint};

use super::{GROUP, OTHER, SLOT};

/// An agent and its record.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) group: Option<GroupIx>,
    pub(crate) connected: bool,
    pub(crate) assigned: Option<Fingerprint>,
    pub(crate) offer: Option<OfferKey>,
    pub(crate) assigned_at: Option<Time>,
    /// Keys of all that was ever written: a second write of one changes nothing.
    pub(crate) offers: BTreeSet<OfferKey>,
    pub(crate) runs: Option<Fingerprint>,
    pub(crate) failed: Vec<Fingerprint>,
    pub(crate) drift: Drift,
    pub(crate) reports: bool,
}

impl Agent {
    /// A connected agent of the group that runs something else.
    pub(crate) fn new(number: u32) -> Self {
        let mut bytes = [0; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        Self {
            id: AgentId::from_bytes(bytes),
            group: Some(GROUP),
            connected: true,
            assigned: None,
            offer: None,
            assigned_at: None,
            offers: BTreeSet::new(),
            runs: Some(OTHER),
            failed: Vec::new(),
            drift: Drift::Unmanaged,
            reports: true,
        }
    }

    /// What was written is in its record.
    pub(crate) fn take(&mut self, write: &Write) {
        match write {
            Write::Assign { over, .. } if *over != self.offer => {}
            Write::Assign { key, config, .. } | Write::Desire { key, config, .. }
                if key.agent == self.id && self.offers.insert(*key) =>
            {
                (self.assigned, self.offer, self.drift) = (Some(*config), Some(*key), Drift::Pending);
            }
            Write::Failed { agent, config, remembered: true, .. } if *agent == self.id => {
                self.failed.push(*config);
            }
            _ => {}
        }
    }

    pub(crate) fn succeed(&mut self) {
        (self.runs, self.drift) = (self.assigned, Drift::InSync);
    }

    pub(crate) fn fail(&mut self) {
        self.drift = Drift::Failed;
    }

    pub(crate) fn placed(&self) -> Placed<'_> {
        Placed {
            agent: &self.id,
            slot: SLOT,
            group: self.group,
            zone: None,
            connected: self.connected,
            accepts: true,
            assigned: self.assigned,
            offer: self.offer,
            assigned_at: self.assigned_at,
            offers: self.offers.iter().map(|key| key.offer).max().unwrap_or(0),
            kept: false,
            runs: self.runs,
            runs_known: true,
            previous: Some(OTHER),
            failed: &self.failed,
            drift: self.drift,
            reports: self.reports,
        }
    }
}
