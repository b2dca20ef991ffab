//! The status sub-messages of an agent.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::Part;

/// The status sub-messages of an agent as last received: encoded, exact size, shared.
///
/// An agent of which there are none takes nothing, any other what its parts take and 40 bytes for each.
#[derive(Clone, Default)]
pub struct ReportedState(Option<Arc<[(Part, Bytes)]>>);

impl ReportedState {
    /// The encoded sub-message, if it was received since the process started, or came with the [`Seed`](crate::Seed).
    pub fn part(&self, part: Part) -> Option<&Bytes> {
        self.held().iter().find(|(held, _)| *held == part).map(|(_, bytes)| bytes)
    }

    /// Bytes held, for accounting.
    pub fn len_bytes(&self) -> usize {
        self.held().iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Replaces a part. Snapshots taken before keep what they have.
    pub(crate) fn set(&mut self, part: Part, bytes: Bytes) {
        let own = self.0.as_mut().and_then(Arc::get_mut);
        if let Some((_, held)) = own.and_then(|held| held.iter_mut().find(|(held, _)| *held == part)) {
            *held = bytes;
            return;
        }
        let others = self.held().iter().filter(|(held, _)| *held != part).cloned();
        self.0 = Some(others.chain([(part, bytes)]).collect());
    }

    fn held(&self) -> &[(Part, Bytes)] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Shows which parts there are and how long they are: their contents may hold secrets.
impl fmt::Debug for ReportedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Part::ALL.into_iter().filter_map(|part| Some((part.name(), self.part(part)?.len())));
        f.debug_map().entries(parts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_where_it_lies_unless_a_snapshot_has_it() {
        let mut state = ReportedState::default();
        assert!(state.part(Part::Health).is_none());
        state.set(Part::Health, Bytes::from_static(b"up"));
        state.set(Part::EffectiveConfig, Bytes::from_static(b"config"));
        let place = state.held().as_ptr();
        state.set(Part::Health, Bytes::from_static(b"down"));
        assert_eq!(state.held().as_ptr(), place);
        let snapshot = state.clone();
        state.set(Part::Health, Bytes::from_static(b"up again"));
        assert_eq!(snapshot.part(Part::Health).unwrap(), "down");
        assert_eq!(state.part(Part::Health).unwrap(), "up again");
        assert_eq!(state.part(Part::EffectiveConfig).unwrap(), "config");
        assert_eq!((snapshot.len_bytes(), state.len_bytes()), (10, 14));
    }
}
