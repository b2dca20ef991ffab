//! How the agent and its components are.

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::{Wall, any_value, pb};
use prost::Message as _;

use crate::description::AttributeValue;

const NANOS_PER_MS: u64 = 1_000_000;

/// The health of an agent as a whole, or of one of its components, to any depth (spec section "ComponentHealth").
///
/// The constructors leave no way to say something that contradicts itself: who is unhealthy says why (R-HEALTH-05),
/// who does not run has no start time (R-HEALTH-04).
///
/// ```
/// use opamp_client::{Health, Wall};
///
/// let started = Wall(1_700_000_000_000);
/// let health = Health::of_components(started, [
///     ("receiver", Health::healthy(started).status("accepting")),
///     ("exporter", Health::unhealthy(started, "queue full")),
/// ]);
/// assert!(!health.is_healthy());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Health(pb::ComponentHealth);

impl Health {
    /// Up and well since a time.
    #[must_use]
    pub fn healthy(started: Wall) -> Self {
        Self(pb::ComponentHealth {
            healthy: true,
            start_time_unix_nano: nanos(started),
            ..Default::default()
        })
    }

    /// Running since a time, but not well, for a reason.
    pub fn unhealthy(started: Wall, error: impl Into<String>) -> Self {
        Self(pb::ComponentHealth {
            start_time_unix_nano: nanos(started),
            last_error: error.into(),
            ..Default::default()
        })
    }

    /// Not running, for a reason.
    pub fn not_running(error: impl Into<String>) -> Self {
        Self(pb::ComponentHealth { last_error: error.into(), ..Default::default() })
    }

    /// The health of a whole: well if every component is. If one is not, the first by name says why (R-HEALTH-01).
    pub fn of_components<N: Into<String>>(
        started: Wall,
        components: impl IntoIterator<Item = (N, Self)>,
    ) -> Self {
        let components: BTreeMap<String, Self> =
            components.into_iter().map(|(name, health)| (name.into(), health)).collect();
        let whole = match components.iter().find(|(_, health)| !health.is_healthy()) {
            None => Self::healthy(started),
            Some((name, health)) => Self::unhealthy(started, format!("{name}: {}", health.0.last_error)),
        };
        components.into_iter().fold(whole, |whole, (name, health)| whole.component(name, health))
    }

    /// The agent's own word for its state; free text (R-HEALTH-06).
    #[must_use]
    pub fn status(mut self, status: impl Into<String>) -> Self {
        self.0.status = status.into();
        self
    }

    /// When this was observed. Default: when it is handed to the client (R-HEALTH-07).
    #[must_use]
    pub const fn observed_at(mut self, at: Wall) -> Self {
        self.0.status_time_unix_nano = nanos(at);
        self
    }

    /// The health of a component, which may have components itself (R-HEALTH-08).
    #[must_use]
    pub fn component(mut self, name: impl Into<String>, health: Self) -> Self {
        self.0.component_health_map.insert(name.into(), health.0);
        self
    }

    /// Free context of this component (R-HEALTH-09).
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.0.attributes.push(pb::KeyValue { key: key.into(), value: Some(value.into().into()) });
        self
    }

    /// Whether it is up and well.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        self.0.healthy
    }

    /// The message as it is reported by a client to whom it was handed at `now`.
    pub(crate) fn encode(&self, now: Wall) -> Encoded {
        let mut message = self.0.clone();
        canonicalize(&mut message);
        if message.status_time_unix_nano == 0 {
            message.status_time_unix_nano = nanos(now);
        }
        let report = message.encode_to_vec().into();
        forget_observation(&mut message);
        Encoded { report, meaning: message.encode_to_vec().into() }
    }
}

/// Health that comes from elsewhere, such as a supervised process, passed on as it is.
impl From<pb::ComponentHealth> for Health {
    fn from(message: pb::ComponentHealth) -> Self {
        Self(message)
    }
}

/// Health encoded: what is reported, and what tells whether it is news.
pub(crate) struct Encoded {
    pub(crate) report: Bytes,
    /// The report without the times of observation, which tick without a change of anything.
    pub(crate) meaning: Bytes,
}

fn canonicalize(health: &mut pb::ComponentHealth) {
    health.attributes = any_value::canonical_attributes(&health.attributes);
    health.component_health_map.values_mut().for_each(canonicalize);
}

fn forget_observation(health: &mut pb::ComponentHealth) {
    health.status_time_unix_nano = 0;
    health.component_health_map.values_mut().for_each(forget_observation);
}

const fn nanos(at: Wall) -> u64 {
    at.0.saturating_mul(NANOS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: Wall = Wall(1_700_000_000_000);
    const LATER: Wall = Wall(1_700_000_005_000);

    fn decoded(health: &Health) -> pb::ComponentHealth {
        pb::ComponentHealth::decode(health.encode(LATER).report).unwrap()
    }

    #[test]
    fn times_are_nanoseconds_since_the_epoch() {
        let message = decoded(&Health::healthy(STARTED));
        assert_eq!(message.start_time_unix_nano, 1_700_000_000_000_000_000);
        assert_eq!(message.status_time_unix_nano, 1_700_000_005_000_000_000, "when it was handed over");
        let observed = decoded(&Health::healthy(STARTED).observed_at(Wall(1)));
        assert_eq!(observed.status_time_unix_nano, 1_000_000);
    }

    #[test]
    fn what_does_not_run_has_no_start_time_and_says_why() {
        let message = decoded(&Health::not_running("exit code 1"));
        assert!(!message.healthy);
        assert_eq!(message.start_time_unix_nano, 0);
        assert_eq!(message.last_error, "exit code 1");
    }

    #[test]
    fn a_fault_in_one_component_makes_the_whole_unhealthy() {
        let well = Health::healthy(STARTED);
        let whole = Health::of_components(STARTED, [("a", well.clone()), ("b", well.clone())]);
        assert!(whole.is_healthy());
        let broken = Health::of_components(STARTED, [("a", well), ("b", Health::not_running("gone"))]);
        let message = decoded(&broken);
        assert_eq!((message.healthy, message.last_error.as_str()), (false, "b: gone"));
        assert_eq!(message.component_health_map.len(), 2);
    }

    #[test]
    fn components_nest_to_any_depth_with_attributes() {
        let mut health = Health::healthy(STARTED).attribute("depth", 0);
        for depth in 1..=10 {
            health = Health::healthy(STARTED).component("inner", health).attribute("depth", depth);
        }
        let mut message = &decoded(&health);
        for _ in 0..10 {
            message = &message.component_health_map["inner"];
        }
        assert_eq!(message.attributes.len(), 1);
    }

    #[test]
    fn a_time_of_observation_alone_is_no_news_and_anything_else_is() {
        let meaning = |health: &Health, at| health.encode(at).meaning;
        let health = Health::healthy(STARTED).component("x", Health::healthy(STARTED).observed_at(Wall(1)));
        let later = Health::healthy(STARTED).component("x", Health::healthy(STARTED).observed_at(Wall(2)));
        assert_eq!(meaning(&health, STARTED), meaning(&later, LATER));
        for other in [
            later.clone().status("busy"),
            later.clone().attribute("a", 1),
            later.clone().component("y", Health::healthy(STARTED)),
            Health::healthy(LATER).component("x", Health::healthy(STARTED)),
        ] {
            assert_ne!(meaning(&other, STARTED), meaning(&health, STARTED), "{other:?}");
        }
    }

    #[test]
    fn attributes_in_another_order_mean_the_same() {
        let a = Health::healthy(STARTED).attribute("p", 1).attribute("q", 2);
        let b = Health::healthy(STARTED).attribute("q", 2).attribute("p", 1);
        assert_eq!(a.encode(LATER).meaning, b.encode(LATER).meaning);
    }
}
