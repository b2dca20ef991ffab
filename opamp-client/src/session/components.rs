//! What is built into the agent: told by its hash, and in full when the server asks.

use bytes::Bytes;
use opamp_proto::{Mono, Part};

use super::Session;
use super::full_state::FullState;
use crate::components::Components;

/// The two forms of the report.
#[derive(Debug, Default)]
pub(super) struct ComponentState {
    hash_alone: Bytes,
    full: Bytes,
    /// The full form is what is to be sent.
    in_full: bool,
    demanded: FullState,
}

impl ComponentState {
    pub(super) const fn deadline(&self) -> Option<Mono> {
        self.demanded.deadline()
    }
}

impl Session {
    pub(super) fn set_components(&mut self, components: &Components) {
        (self.components.hash_alone, self.components.full) = components.encode();
        self.components.in_full = false;
        self.report.set(Part::AvailableComponents, self.components.hash_alone.clone());
    }

    /// The server asks for all of them.
    pub(super) fn demand_components(&mut self, now: Mono) {
        if !self.components.full.is_empty() {
            self.components.demanded.demanded(now, self.settings.full_state_spacing);
        }
    }

    /// The next report has them in full, if that was asked for and it is time.
    pub(super) fn list_components(&mut self, now: Mono) {
        if self.components.demanded.take(now) {
            self.components.in_full = true;
            self.report.set_again(Part::AvailableComponents, self.components.full.clone());
        }
    }

    /// The list is with the server, or too large for any message: the hash stands for it again, which is no news.
    pub(super) fn components_told(&mut self) {
        if std::mem::take(&mut self.components.in_full) {
            self.report.set_delivered(Part::AvailableComponents, self.components.hash_alone.clone());
        }
    }

    /// A message has left; perhaps the list was in it.
    pub(super) fn components_told_if_sent(&mut self) {
        if self.components.in_full && !self.report.changed().contains(Part::AvailableComponents) {
            self.components_told();
        }
    }

    /// Another server has to ask for itself (R-COMP-06).
    pub(super) fn forget_component_demand(&mut self) {
        self.components.demanded.made();
        if std::mem::take(&mut self.components.in_full) {
            self.report.set(Part::AvailableComponents, self.components.hash_alone.clone());
        }
    }
}
