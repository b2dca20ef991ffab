//! Late joiners: what a plan would have made of an agent that was not there (R21).

use super::order::key_of;
use super::pick::{flags, pace, previous, zone_ix, zone_label};
use super::preflight::Needs;
use super::strata::label;
use super::{Candidate, Joiner, Plan};
use crate::rollout::WaveIx;

/// An agent that matches the selector now. Which wave it would have been in follows from its ring or domain, else from its
/// place in the order; who has none of these belongs to the last wave, as it would have then.
pub(crate) fn joiner(plan: &Plan, candidate: &Candidate<'_>) -> Joiner {
    let zone =
        zone_label(plan.domains.as_ref(), &plan.strategy).and_then(|name| label(candidate.facts, name));
    Joiner {
        excluded: Needs::of_plan(plan).exclusion(candidate),
        wave: wave(plan, candidate),
        zone: zone_ix(&plan.zones, zone),
        flags: flags(candidate),
        pace: pace(candidate, &plan.settings.deadlines),
        fell: candidate.fell,
        previous: previous(candidate, plan.target),
    }
}

fn wave(plan: &Plan, candidate: &Candidate<'_>) -> WaveIx {
    let position = match plan.strategy.label() {
        Some(name) => label(candidate.facts, name)
            .and_then(|value| plan.waves.iter().position(|wave| wave.ring.as_deref() == Some(value))),
        None => {
            let key = key_of(&plan.order, plan.id, candidate.facts, candidate.first_seen);
            plan.waves.iter().position(|wave| !wave.last_key.is_empty() && wave.last_key >= key)
        }
    };
    let last = plan.waves.len().saturating_sub(1);
    WaveIx(u16::try_from(position.unwrap_or(last)).unwrap_or(u16::MAX - 1))
}

#[cfg(test)]
mod tests {
    use opamp_proto::{AgentCapabilities, AgentId, Fingerprint, InstanceUid, Wall, pb};

    use super::*;
    use crate::labels::{LabelScope, LabelValue};
    use crate::rollout::gates::{GateConfig, GateKind};
    use crate::rollout::plan::{FleetSizes, PlanRequest, Strategy, Target};
    use crate::rollout::{Flags, Reason, RolloutId, Time, ZoneIx};
    use crate::{AgentFacts, ConfigLimits, ConfigMap, Health, Liveness, Selector};

    fn agent(number: u8, zone: Option<&str>) -> AgentFacts {
        let bytes = [number; 16];
        let (id, uid) = (AgentId::from_bytes(bytes), InstanceUid::from_bytes(bytes));
        let mut facts = AgentFacts::expected(id, uid, Wall(0));
        facts.capabilities = AgentCapabilities::ACCEPTS_REMOTE_CONFIG;
        (facts.liveness, facts.health) = (Liveness::Connected, Health::Healthy);
        if let Some(zone) = zone {
            let value = LabelValue::Text(zone.to_owned());
            facts.labels.insert(LabelScope::Server, "zone".to_owned(), value);
        }
        facts
    }

    fn plan(strategy: Strategy, fleet: &[AgentFacts]) -> Plan {
        let map = pb::AgentConfigMap {
            config_map: [("a".to_owned(), pb::AgentConfigObject::default())].into_iter().collect(),
        };
        let config = ConfigMap::new(map, &ConfigLimits::default()).unwrap();
        let selector = Selector::default();
        let request = PlanRequest {
            strategy,
            gates: [GateConfig::of(GateKind::NothingSucceeds)].into(),
            ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
        };
        Plan::make(request, fleet.iter().map(Candidate::new), FleetSizes::default(), Time(0)).unwrap().0
    }

    #[test]
    fn a_late_joiner_has_the_wave_its_place_in_the_order_would_have_given_it() {
        let fleet: Vec<AgentFacts> = (0..100).map(|number| agent(number, None)).collect();
        let whole = plan(Strategy::canary(), &fleet);
        // Who was there is found in its own wave: its key is among those that the boundaries are drawn by.
        let mut seen = vec![0u32; whole.waves.len()];
        for facts in &fleet {
            seen[joiner(&whole, &Candidate::new(facts)).wave.index()] += 1;
        }
        let sizes: Vec<u32> = whole.waves.iter().map(|wave| wave.end - wave.first).collect();
        assert_eq!(seen, sizes);
        // Beyond the last key there is no wave but the last one.
        let newer: Vec<AgentFacts> = (100..250).map(|number| agent(number, None)).collect();
        let waves: Vec<usize> =
            newer.iter().map(|facts| joiner(&whole, &Candidate::new(facts)).wave.index()).collect();
        assert!(waves.iter().all(|wave| *wave < whole.waves.len()));
        assert!(waves.iter().filter(|wave| **wave == 3).count() > waves.len() / 4, "half of them or so");
    }

    #[test]
    fn a_late_joiner_has_the_wave_of_its_zone_and_without_one_the_last() {
        let fleet = [agent(1, Some("eu")), agent(2, Some("us")), agent(3, None)];
        let zones = plan(Strategy::ZoneByZone { key: "zone".into() }, &fleet);
        for (zone, wave, ix) in [
            (Some("us"), 1, ZoneIx(1)),
            (Some("eu"), 0, ZoneIx(0)),
            (Some("ap"), 2, ZoneIx::NONE),
            (None, 2, ZoneIx::NONE),
        ] {
            let facts = agent(9, zone);
            let found = joiner(&zones, &Candidate::new(&facts));
            assert_eq!((found.wave, found.zone), (WaveIx(wave), ix), "{zone:?}");
        }
    }

    #[test]
    fn a_late_joiner_is_asked_for_what_members_were_asked_for() {
        let fleet = [agent(1, None), agent(2, None)];
        let whole = plan(Strategy::canary(), &fleet);
        let mut facts = agent(9, None);
        facts.health = Health::Unknown;
        let target = whole.target;
        let [good, assigned] = [1, 2].map(|byte| Fingerprint::from_bytes([byte; 16]));
        let known =
            Candidate { known_good: Some(target), assigned: Some(assigned), ..Candidate::new(&facts) };
        let found = joiner(&whole, &known);
        assert_eq!(
            (found.excluded, found.previous),
            (None, Some(assigned)),
            "nobody goes back to the target"
        );
        assert_eq!(found.flags, Flags::CONNECTED);
        assert_eq!(found.pace.interval_s, 30);
        let found = joiner(&whole, &Candidate { known_good: Some(good), failed: &[target], ..known });
        assert_eq!((found.excluded, found.previous), (Some(Reason::HashFailedBefore), Some(good)));
        let found =
            joiner(&whole, &Candidate { known_good: None, assigned: None, quarantined: true, ..known });
        assert_eq!((found.excluded, found.previous), (Some(Reason::Quarantined), None));
    }
}
