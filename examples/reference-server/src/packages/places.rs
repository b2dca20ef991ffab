//! How many downloads there are at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opamp_proto::AgentId;

/// Downloads of one agent at once: one for what it wants, and one for a first that it has given up and the server has
/// not noticed yet. So one agent's slow downloads never take all places.
const OF_ONE_AGENT_MAX: usize = 2;

/// The places for downloads.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_agent: HashMap<AgentId, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All are taken.
    All,
    /// The agent has as many as one may have.
    Agent,
}

/// A place until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    agent: AgentId,
}

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Places { max, taken: Arc::default() }
    }

    /// Takes a place, if there is one.
    pub(super) fn take(&self, agent: AgentId) -> Result<Place, Refused> {
        let mut taken = self.lock();
        if taken.all >= self.max {
            return Err(Refused::All);
        }
        let own = taken.by_agent.entry(agent).or_default();
        if *own >= OF_ONE_AGENT_MAX {
            return Err(Refused::Agent);
        }
        *own += 1;
        taken.all += 1;
        Ok(Place { places: self.clone(), agent })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_agent.get_mut(&self.agent) {
            *own -= 1;
            if *own == 0 {
                taken.by_agent.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 16])
    }

    #[test]
    fn places_are_bounded_altogether_and_for_each_agent_and_come_back() {
        let places = Places::new(3);
        let first = places.take(agent(1)).unwrap();
        let _second = places.take(agent(1)).unwrap();
        assert_eq!(places.take(agent(1)).unwrap_err(), Refused::Agent);
        let _third = places.take(agent(2)).unwrap();
        assert_eq!(places.take(agent(3)).unwrap_err(), Refused::All);
        drop(first);
        let _fourth = places.take(agent(1)).unwrap();
        assert_eq!(places.take(agent(3)).unwrap_err(), Refused::All);
    }

    #[test]
    fn nothing_is_kept_of_an_agent_that_has_no_download() {
        let places = Places::new(3);
        drop(places.take(agent(1)).unwrap());
        let taken = places.lock();
        assert!(taken.by_agent.is_empty() && taken.all == 0);
    }
}
