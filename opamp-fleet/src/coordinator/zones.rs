//! How many members of each failure domain a rollout has in flight (R15, R25).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rollout::RolloutId;

/// Members in flight by rollout and failure domain. What is zero is not kept, so that there are never more entries than
/// members in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Zones {
    in_flight: BTreeMap<RolloutId, BTreeMap<Arc<str>, u32>>,
}

impl Zones {
    /// How many are in flight.
    pub(super) fn count(&self, rollout: RolloutId, zone: &str) -> u32 {
        self.in_flight.get(&rollout).and_then(|zones| zones.get(zone)).copied().unwrap_or(0)
    }

    /// One more is; gives the domain's name, shared.
    pub(super) fn enter(&mut self, rollout: RolloutId, zone: &str) -> Arc<str> {
        let zones = self.in_flight.entry(rollout).or_default();
        let name = zones.get_key_value(zone).map_or_else(|| Arc::from(zone), |(name, _)| Arc::clone(name));
        *zones.entry(Arc::clone(&name)).or_default() += 1;
        name
    }

    /// One less is.
    pub(super) fn leave(&mut self, rollout: RolloutId, zone: &str) {
        let Some(zones) = self.in_flight.get_mut(&rollout) else { return };
        if let Some(count) = zones.get_mut(zone) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                zones.remove(zone);
            }
        }
        if zones.is_empty() {
            self.in_flight.remove(&rollout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_counted_for_each_rollout_and_forgotten_when_nobody_is_in_flight() {
        let [one, two] = [1, 2].map(|number| RolloutId::from_bytes([number; 16]));
        let mut zones = Zones::default();
        let first = zones.enter(one, "a");
        let second = zones.enter(one, "a");
        assert!(Arc::ptr_eq(&first, &second));
        zones.enter(two, "a");
        assert_eq!((zones.count(one, "a"), zones.count(two, "a"), zones.count(one, "b")), (2, 1, 0));
        zones.leave(one, "a");
        zones.leave(one, "a");
        zones.leave(one, "a");
        zones.leave(two, "a");
        assert!(zones.in_flight.is_empty());
    }
}
