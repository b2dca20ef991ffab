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
        if let Some(held) = self.own(part) {
            *held = bytes;
            return;
        }
        let others = self.held().iter().filter(|(held, _)| *held != part).cloned();
        self.0 = Some(others.chain([(part, bytes)]).collect());
    }

    /// Replaces a part by a copy of exact size: a slice would pin the whole buffer that it was read into. What is as long and
    /// nobody's but ours is written over.
    pub(crate) fn copy(&mut self, part: Part, encoded: &[u8]) {
        if let Some(held) = self.own(part).filter(|held| held.len() == encoded.len()) {
            *held = match std::mem::take(held).try_into_mut() {
                Ok(mut own) => {
                    own.copy_from_slice(encoded);
                    own.freeze()
                }
                Err(_) => Bytes::copy_from_slice(encoded),
            };
            return;
        }
        self.set(part, Bytes::copy_from_slice(encoded));
    }

    /// A part, if no snapshot has it too.
    fn own(&mut self, part: Part) -> Option<&mut Bytes> {
        let own = Arc::get_mut(self.0.as_mut()?)?;
        own.iter_mut().find(|(held, _)| *held == part).map(|(_, bytes)| bytes)
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

    #[test]
    fn a_copy_of_the_same_length_is_written_over_what_nobody_else_has() {
        let mut state = ReportedState::default();
        state.copy(Part::Health, b"up");
        state.copy(Part::EffectiveConfig, b"config");
        let place = state.part(Part::Health).unwrap().as_ptr();
        state.copy(Part::Health, b"no");
        assert_eq!(state.part(Part::Health).unwrap(), "no");
        assert_eq!(state.part(Part::Health).unwrap().as_ptr(), place);
        state.copy(Part::Health, b"down");
        assert_eq!(state.part(Part::Health).unwrap(), "down");
        let bytes = state.part(Part::Health).unwrap().clone();
        state.copy(Part::Health, b"back");
        assert_eq!((&bytes[..], &state.part(Part::Health).unwrap()[..]), (&b"down"[..], &b"back"[..]));
        let snapshot = state.clone();
        state.copy(Part::Health, b"gone");
        assert_eq!(snapshot.part(Part::Health).unwrap(), "back");
        assert_eq!(state.part(Part::Health).unwrap(), "gone");
        assert_eq!(state.part(Part::EffectiveConfig).unwrap(), "config");
    }
}
