//! The agents of one WebSocket.

use std::collections::HashMap;
use std::sync::Arc;

use opamp_proto::InstanceUid;

use crate::net::directory::Slot;

/// Agents by identity. Most sockets have one, which takes no memory of its own; a gateway's has many.
#[derive(Debug, Default)]
pub(super) enum Agents {
    #[default]
    None,
    One(InstanceUid, Arc<Slot>),
    #[expect(clippy::box_collection, reason = "inline it would double the size of the others")]
    Several(Box<HashMap<InstanceUid, Arc<Slot>>>),
}

impl Agents {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Several(agents) => agents.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, uid: &InstanceUid) -> Option<&Arc<Slot>> {
        match self {
            Self::None => None,
            Self::One(known, slot) => (known == uid).then_some(slot),
            Self::Several(agents) => agents.get(uid),
        }
    }

    /// Adds an agent, in the place of one under the same identity.
    pub(super) fn insert(&mut self, uid: InstanceUid, slot: Arc<Slot>) {
        *self = match std::mem::take(self) {
            Self::One(known, other) if known != uid => {
                Self::Several(Box::new(HashMap::from([(known, other), (uid, slot)])))
            }
            Self::None | Self::One(..) => Self::One(uid, slot),
            Self::Several(mut agents) => {
                agents.insert(uid, slot);
                Self::Several(agents)
            }
        };
    }

    pub(super) fn remove(&mut self, uid: &InstanceUid) {
        match self {
            Self::One(known, _) if known == uid => *self = Self::None,
            Self::None | Self::One(..) => {}
            Self::Several(agents) => {
                agents.remove(uid);
            }
        }
    }

    /// Takes an agent out, whatever it goes by.
    pub(super) fn forget(&mut self, slot: &Arc<Slot>) {
        match self {
            Self::One(_, known) if Arc::ptr_eq(known, slot) => *self = Self::None,
            Self::None | Self::One(..) => {}
            Self::Several(agents) => agents.retain(|_, known| !Arc::ptr_eq(known, slot)),
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let (one, several) = match self {
            Self::None => (None, None),
            Self::One(_, slot) => (Some(slot), None),
            Self::Several(agents) => (None, Some(agents.values())),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::{Mono, Now, Wall};

    use super::*;
    use crate::session::{Session, SessionSettings};

    fn slot(uid: InstanceUid) -> Arc<Slot> {
        let now = Now { mono: Mono(0), wall: Wall(0) };
        let directory = crate::net::directory::Directory::new();
        directory.find_or_insert(&uid, 1, || Session::new(uid, &SessionSettings::default(), now)).unwrap()
    }

    #[test]
    fn agents_are_found_under_their_identity_however_many_there_are() {
        let uid = |number| InstanceUid::from_bytes([number; 16]);
        for count in 0..4 {
            let mut agents = Agents::default();
            let slots: Vec<_> = (0..count).map(|number| slot(uid(number))).collect();
            for (number, slot) in (0..).zip(&slots).chain((0..).zip(&slots)) {
                agents.insert(uid(number), Arc::clone(slot));
            }
            assert_eq!((agents.len(), agents.slots().count()), (slots.len(), slots.len()));
            assert_eq!(agents.is_empty(), slots.is_empty());
            for (number, slot) in (0..).zip(&slots) {
                assert!(agents.get(&uid(number)).is_some_and(|known| Arc::ptr_eq(known, slot)));
            }
            agents.remove(&uid(9));
            assert_eq!(agents.len(), slots.len());
            for (number, slot) in (0..).zip(&slots) {
                if number % 2 == 0 {
                    agents.remove(&uid(number))
                } else {
                    agents.forget(slot)
                }
                assert!(agents.get(&uid(number)).is_none());
            }
            assert!(agents.is_empty());
        }
    }
}
