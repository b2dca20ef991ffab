//! Flapping: agents that come and go more often than is plausible.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use opamp_proto::{AgentId, Mono};

/// When an agent counts as flapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlapSettings {
    /// Most transitions of liveness within the window that are still plausible. Default 6: three reconnects.
    /// Fewer flags agents that restart to apply a configuration.
    pub transitions_max: u32,
    /// The window. Default 10 minutes. A longer one keeps the flag up longer.
    pub window: Duration,
}

impl Default for FlapSettings {
    fn default() -> Self {
        Self { transitions_max: 6, window: Duration::from_secs(600) }
    }
}

/// Transitions of the agents that had any within the window; all others cost nothing. At most
/// `transitions_max + 1` moments are kept of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flapping {
    settings: FlapSettings,
    recent: BTreeMap<AgentId, VecDeque<Mono>>,
}

impl Flapping {
    pub(crate) fn new(settings: FlapSettings) -> Self {
        Self { settings, recent: BTreeMap::new() }
    }

    /// Notes a transition.
    pub(crate) fn record(&mut self, id: AgentId, now: Mono) {
        let moments = self.recent.entry(id).or_default();
        moments.push_back(now);
        if moments.len() > self.settings.transitions_max as usize + 1 {
            moments.pop_front();
        }
    }

    /// Whether the agent had more transitions within the window than allowed.
    pub(crate) fn is_flapping(&self, id: &AgentId, now: Mono) -> bool {
        let Some(moments) = self.recent.get(id) else { return false };
        let recent = moments.iter().filter(|at| now - **at < self.settings.window).count();
        recent > self.settings.transitions_max as usize
    }

    /// How many agents flap.
    pub(crate) fn count(&self, now: Mono) -> usize {
        self.recent.keys().filter(|id| self.is_flapping(id, now)).count()
    }

    /// Drops what left the window.
    pub(crate) fn sweep(&mut self, now: Mono) {
        let window = self.settings.window;
        self.recent.retain(|_, moments| moments.back().is_some_and(|at| now - *at < window));
    }

    pub(crate) fn forget(&mut self, id: &AgentId) {
        self.recent.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_transitions_than_allowed_within_the_window_are_flapping_until_it_passes() {
        let id = AgentId::from_bytes([1; 16]);
        let settings = FlapSettings { transitions_max: 3, window: Duration::from_millis(100) };
        let mut flapping = Flapping::new(settings);
        for at in [0, 10, 20] {
            flapping.record(id, Mono(at));
        }
        assert!(!flapping.is_flapping(&id, Mono(20)), "three are allowed");
        flapping.record(id, Mono(30));
        assert!(flapping.is_flapping(&id, Mono(30)));
        assert_eq!(flapping.count(Mono(30)), 1);
        assert!(flapping.is_flapping(&id, Mono(99)));
        assert!(!flapping.is_flapping(&id, Mono(100)), "the first left the window");
        flapping.record(id, Mono(101));
        assert!(flapping.is_flapping(&id, Mono(101)), "10, 20, 30 and 101");
        assert!(!flapping.is_flapping(&id, Mono(110)), "20, 30 and 101");
    }

    #[test]
    fn a_quiet_fleet_keeps_nothing() {
        let mut flapping = Flapping::new(FlapSettings::default());
        for n in 0..100 {
            flapping.record(AgentId::from_bytes([n; 16]), Mono(u64::from(n)));
        }
        flapping.sweep(Mono(600_050));
        assert_eq!(flapping.recent.len(), 49, "those of the first 51 moments left the window");
        flapping.sweep(Mono(1_000_000));
        assert!(flapping.recent.is_empty());
    }
}
