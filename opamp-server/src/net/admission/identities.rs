//! How much of the server one identity takes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::settings::ServerSettings;
use crate::snapshot::{Principal, PrincipalKind};

/// Counts WebSockets and polls by the principal that authentication found.
///
/// Only where there is a limit: without one nothing is counted, and nothing is locked. Holds one entry for each identity that is
/// there, so no more than there are connections.
#[derive(Debug)]
pub(crate) struct Identities {
    limit: Option<usize>,
    there: Mutex<HashMap<Principal, usize>>,
}

/// The place of one poll; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(Option<(&'a Identities, &'a Principal)>);

impl Identities {
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        Self { limit: settings.connections_per_identity_max, there: Mutex::default() }
    }

    /// Takes a place for a WebSocket, which gives it back with [`Identities::leave`]. False if the identity has as many as it may.
    pub(crate) fn enter(&self, principal: &Principal) -> bool {
        let Some(limit) = self.limit_of(principal) else { return true };
        let mut there = self.lock();
        match there.get_mut(principal) {
            Some(count) if *count >= limit => return false,
            Some(count) => *count += 1,
            None if limit == 0 => return false,
            None => {
                there.insert(principal.clone(), 1);
            }
        }
        true
    }

    /// Gives back what [`Identities::enter`] took.
    pub(crate) fn leave(&self, principal: &Principal) {
        if self.limit_of(principal).is_none() {
            return;
        }
        let mut there = self.lock();
        if let Some(count) = there.get_mut(principal) {
            *count -= 1;
            if *count == 0 {
                there.remove(principal);
            }
        }
        // A fleet that left must not leave its memory behind.
        if there.len() * 4 < there.capacity() {
            let len = there.len();
            there.shrink_to(len * 2);
        }
    }

    /// Takes a place for as long as a poll is answered.
    pub(crate) fn place<'a>(&'a self, principal: &'a Principal) -> Option<Place<'a>> {
        if !self.enter(principal) {
            return None;
        }
        let counted = self.limit_of(principal).is_some();
        Some(Place(counted.then_some((self, principal))))
    }

    fn limit_of(&self, principal: &Principal) -> Option<usize> {
        self.limit.filter(|_| principal.kind != PrincipalKind::Anonymous)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, usize>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some((identities, principal)) = self.0 {
            identities.leave(principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: &str) -> Principal {
        Principal { kind: PrincipalKind::Token, id: id.to_owned() }
    }

    fn limited(limit: Option<usize>) -> Identities {
        Identities::new(&ServerSettings { connections_per_identity_max: limit, ..ServerSettings::default() })
    }

    #[test]
    fn an_identity_has_its_places_and_no_other_one_loses_any() {
        let identities = limited(Some(2));
        let (one, two) = (named("one"), named("two"));
        assert!(identities.enter(&one) && identities.enter(&one) && !identities.enter(&one));
        let place = identities.place(&two).unwrap();
        assert!(identities.enter(&two) && identities.place(&two).is_none() && !identities.enter(&two));
        drop(place);
        assert!(identities.place(&two).is_some());
        identities.leave(&one);
        assert!(identities.enter(&one));
    }

    #[test]
    fn who_is_nobody_in_particular_is_not_counted_and_without_a_limit_nobody_is() {
        let nobody = Principal::anonymous();
        let limited_to_none = limited(Some(0));
        assert!((0..100).all(|_| limited_to_none.enter(&nobody)));
        assert!(!limited_to_none.enter(&named("one")));
        let unlimited = limited(None);
        assert!((0..100).all(|_| unlimited.enter(&named("one"))));
        assert!(limited_to_none.lock().is_empty() && unlimited.lock().is_empty());
    }

    #[test]
    fn what_left_leaves_no_memory_behind() {
        let identities = limited(Some(1));
        let names: Vec<Principal> = (0..10_000).map(|number| named(&number.to_string())).collect();
        assert!(names.iter().all(|name| identities.enter(name)));
        names.iter().for_each(|name| identities.leave(name));
        let there = identities.lock();
        assert!(there.is_empty() && there.capacity() < 100, "{}", there.capacity());
    }
}
