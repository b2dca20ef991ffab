use proptest::prelude::*;

use super::*;
use crate::labels::LabelValue;
use opamp_proto::Mono;

const DAY_MS: u64 = 24 * 3600 * 1000;

fn id(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn uid(n: u8) -> InstanceUid {
    InstanceUid::from_bytes([n; 16])
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(ms) }
}

fn labels(entries: &[(LabelScope, &str, &str)]) -> Labels {
    let mut labels = Labels::default();
    for (scope, key, value) in entries {
        labels.insert(*scope, (*key).to_owned(), LabelValue::Text((*value).to_owned()));
    }
    labels
}

fn facts(n: u8) -> AgentFacts {
    let mut facts = AgentFacts::expected(id(n), uid(n), Wall(0));
    facts.labels = labels(&[
        (LabelScope::Identifying, "service.name", "agent"),
        (LabelScope::NonIdentifying, "host.name", &format!("host-{n}")),
        (LabelScope::NonIdentifying, "team", "claimed"),
    ]);
    facts.labels.insert(LabelScope::NonIdentifying, "list".to_owned(), LabelValue::Opaque);
    facts
}

#[test]
fn facts_come_back_as_they_went_in() {
    // Two shared values per key, so that some values are stored inline.
    let mut index =
        FleetIndex::new(IndexSettings { shared_values_per_key_max: 2, ..IndexSettings::default() });
    for n in 0..5 {
        index.insert(&facts(n));
    }
    for n in 0..5 {
        assert_eq!(index.facts(&id(n)), Some(facts(n)));
        assert_eq!(index.by_uid(&uid(n)), Some(id(n)));
    }
    assert_eq!(index.facts(&id(9)), None);
}

#[test]
fn a_replaced_or_removed_agent_leaves_nothing_behind() {
    let mut index = FleetIndex::new(IndexSettings::default());
    for n in 0..5 {
        index.insert(&facts(n));
        index.insert(&AgentFacts { liveness: Liveness::Disconnected, ..facts(n) });
        assert!(index.set_labels(&id(n), &labels(&[(LabelScope::Server, "ring", &n.to_string())])));
    }
    assert_eq!(index.counts().registered(), 5);
    assert!((0..5).all(|n| index.remove(&id(n))));
    assert!(!index.remove(&id(0)));
    assert_eq!(index.counts(), &FleetCounts::default());
    assert_eq!((index.interned(), index.len(), index.next_expiry()), ((0, 0), 0, None));
    assert_eq!(index.by_uid(&uid(0)), None);
}

#[test]
fn a_new_uid_keeps_everything_else() {
    let mut index = FleetIndex::new(IndexSettings::default());
    index.insert(&facts(1));
    assert!(index.set_uid(&id(1), uid(7)));
    assert_eq!((index.by_uid(&uid(1)), index.by_uid(&uid(7))), (None, Some(id(1))));
    assert_eq!(index.facts(&id(1)), Some(AgentFacts { uid: uid(7), ..facts(1) }));
    assert!(!index.set_uid(&id(2), uid(8)));
}

#[test]
fn agents_expire_after_t2_and_come_back_by_any_sign_of_life() {
    let mut index = FleetIndex::new(IndexSettings::default());
    for n in 1..4 {
        index.insert(&facts(n));
    }
    assert_eq!(index.next_expiry(), None, "agents that never came do not expire");
    for n in 1..4 {
        let seen = index.observe(&id(n), LivenessEvent::Seen, at(1));
        assert_eq!(seen, Some((Liveness::NeverSeen, Liveness::Connected)));
    }
    index.observe(&id(1), LivenessEvent::Closed, at(10));
    index.observe(&id(2), LivenessEvent::Silent, at(20));
    assert_eq!(index.next_expiry(), Some(Wall(10 + DAY_MS)));
    assert_eq!(index.sweep(at(9 + DAY_MS), 10), []);
    assert_eq!(index.sweep(at(10 + DAY_MS), 10), [id(1)]);
    assert_eq!(index.liveness(&id(1)), Some(Liveness::Expired));
    assert_eq!(index.sweep(at(99 + DAY_MS), 10), [id(2)]);
    assert_eq!(index.sweep(at(999 + 9 * DAY_MS), 10), [], "a connected agent does not expire");
    assert_eq!(index.counts().by_liveness(), [1, 0, 0, 2, 0]);
    let back = index.observe(&id(1), LivenessEvent::Seen, at(10 * DAY_MS));
    assert_eq!(back, Some((Liveness::Expired, Liveness::Connected)));
    assert_eq!(index.facts(&id(1)).map(|f| f.liveness_since), Some(Wall(10 * DAY_MS)));
    assert_eq!(index.observe(&id(9), LivenessEvent::Seen, at(0)), None);
}

#[test]
fn going_stale_and_then_away_starts_t2_again() {
    let mut index = FleetIndex::new(IndexSettings::default());
    index.insert(&facts(1));
    index.observe(&id(1), LivenessEvent::Seen, at(0));
    index.observe(&id(1), LivenessEvent::Silent, at(100));
    index.observe(&id(1), LivenessEvent::Closed, at(200));
    assert_eq!(index.next_expiry(), Some(Wall(200 + DAY_MS)));
}

#[test]
fn a_mass_expiry_is_swept_in_bounded_steps() {
    let mut index = FleetIndex::new(IndexSettings::default());
    for n in 0..50 {
        index.insert(&AgentFacts { liveness: Liveness::Disconnected, ..facts(n) });
    }
    let mut swept = Vec::new();
    loop {
        let step = index.sweep(at(DAY_MS), 20);
        assert!(step.len() <= 20);
        if step.is_empty() {
            break;
        }
        swept.extend(step);
    }
    assert_eq!(swept.len(), 50);
    assert_eq!(index.counts().by_liveness(), [0, 0, 0, 50, 0]);
}

#[test]
fn an_agent_that_comes_and_goes_is_flagged_as_flapping() {
    let mut index = FleetIndex::new(IndexSettings::default());
    index.insert(&facts(1));
    let mut now = 0;
    for _ in 0..4 {
        index.observe(&id(1), LivenessEvent::Seen, at(now));
        index.observe(&id(1), LivenessEvent::Closed, at(now + 1000));
        now += 2000;
    }
    assert!(index.is_flapping(&id(1), at(now)), "seven transitions after the first arrival");
    assert_eq!(index.flapping(at(now)), 1);
    assert!(!index.is_flapping(&id(1), at(now + 600_000)));
    index.sweep(at(now + 600_000), 1);
    assert_eq!(index.flapping(at(now)), 0, "nothing is kept of it");
}

#[test]
fn labels_that_find_no_place_in_the_key_table_make_selectors_fail_closed() {
    let mut index = FleetIndex::new(IndexSettings { label_keys_max: 2, ..IndexSettings::default() });
    let mut crowded = facts(1);
    crowded.labels = labels(&[
        (LabelScope::Identifying, "a", "1"),
        (LabelScope::Identifying, "b", "2"),
        (LabelScope::Identifying, "c", "3"),
    ]);
    index.insert(&crowded);
    let count = |selector: &str| {
        let selector: Selector = selector.parse().unwrap();
        let query = IndexQuery { selector: Some(&selector), ..IndexQuery::default() };
        index.list(&query, 10, 10).agents.len()
    };
    assert_eq!(
        [count("a=1"), count("b=2"), count("c=3"), count("!c"), count("c!=3"), count("!z")],
        [1, 1, 0, 0, 0, 0]
    );
    assert_eq!(index.facts(&id(1)).map(|f| f.labels.is_truncated()), Some(true));
}

#[test]
fn listing_goes_on_where_it_stopped_and_looks_at_a_bounded_number() {
    let mut index = FleetIndex::new(IndexSettings::default());
    for n in 0..10 {
        index.insert(&AgentFacts {
            health: if n % 2 == 0 { Health::Healthy } else { Health::Unhealthy },
            ..facts(n)
        });
    }
    let mut query = IndexQuery { health: Some(Health::Healthy), ..IndexQuery::default() };
    let first = index.list(&query, 2, 100);
    assert_eq!(first.agents.iter().map(|f| f.id).collect::<Vec<_>>(), [id(0), id(2)]);
    assert_eq!(first.resume, Some(id(2)));
    query.after = first.resume;
    let bounded = index.list(&query, 100, 3);
    assert_eq!(bounded.agents.iter().map(|f| f.id).collect::<Vec<_>>(), [id(4)]);
    assert_eq!(bounded.resume, Some(id(5)));
    query.after = bounded.resume;
    let last = index.list(&query, 100, 100);
    assert_eq!(last.agents.iter().map(|f| f.id).collect::<Vec<_>>(), [id(6), id(8)]);
    assert_eq!(last.resume, None);
    query.after = Some(id(9));
    assert_eq!(index.list(&query, 1, 1), Listing { agents: Vec::new(), resume: None });
}

#[test]
fn ids_in_stretches_of_any_length_are_those_of_the_listing() {
    let mut index = FleetIndex::new(IndexSettings::default());
    for n in 0..10 {
        index.insert(&AgentFacts {
            health: if n % 3 == 0 { Health::Healthy } else { Health::Unhealthy },
            ..facts(n)
        });
    }
    for looked_at_max in 1..12 {
        let mut query = IndexQuery { health: Some(Health::Healthy), ..IndexQuery::default() };
        let mut found = Vec::new();
        for _ in 0..10_usize.div_ceil(looked_at_max) {
            let part = index.ids(&query, looked_at_max);
            found.extend(part.ids);
            query.after = part.resume;
        }
        assert_eq!((found, query.after), (vec![id(0), id(3), id(6), id(9)], None), "{looked_at_max}");
    }
    let everything = IndexQuery::default();
    assert_eq!(index.ids(&IndexQuery { after: Some(id(9)), ..everything }, 5).ids, []);
    assert_eq!(index.ids(&everything, 0).resume, None);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, Liveness, Health, Drift),
    Remove(u8),
    Observe(u8, LivenessEvent),
    Health(u8, Health),
    Drift(u8, Drift),
    Capabilities(u8, u64),
    Labels(u8, u8),
    Uid(u8, u8),
    Sweep(usize),
}

fn arbitrary_step() -> impl Strategy<Value = Step> {
    let agent = 0..8_u8;
    let liveness = proptest::sample::select(Liveness::ALL.to_vec());
    let health = proptest::sample::select(Health::ALL.to_vec());
    let drift = proptest::sample::select(Drift::ALL.to_vec());
    let event = proptest::sample::select(vec![
        LivenessEvent::Seen,
        LivenessEvent::Silent,
        LivenessEvent::Closed,
        LivenessEvent::Lapsed,
    ]);
    prop_oneof![
        3 => (agent.clone(), liveness, health.clone(), drift.clone()).prop_map(|(a, l, h, d)| Step::Insert(a, l, h, d)),
        1 => agent.clone().prop_map(Step::Remove),
        4 => (agent.clone(), event).prop_map(|(a, e)| Step::Observe(a, e)),
        1 => (agent.clone(), health).prop_map(|(a, h)| Step::Health(a, h)),
        1 => (agent.clone(), drift).prop_map(|(a, d)| Step::Drift(a, d)),
        1 => (agent.clone(), 0..8_u64).prop_map(|(a, c)| Step::Capabilities(a, c)),
        2 => (agent.clone(), 0..6_u8).prop_map(|(a, l)| Step::Labels(a, l)),
        1 => (agent.clone(), 8..12_u8).prop_map(|(a, u)| Step::Uid(a, u)),
        1 => (0..4_usize).prop_map(Step::Sweep),
    ]
}

/// The same in the plainest form: a map that is counted and searched as a whole every time.
#[derive(Default)]
struct Model(BTreeMap<AgentId, AgentFacts>);

impl Model {
    fn apply(&mut self, step: &Step, now: Now) {
        match *step {
            Step::Insert(n, liveness, health, drift) => {
                let facts = AgentFacts { liveness, health, drift, liveness_since: now.wall, ..facts(n) };
                self.0.insert(facts.id, facts);
            }
            Step::Remove(n) => {
                self.0.remove(&id(n));
            }
            Step::Observe(n, event) => self.change(n, |facts| {
                let after = facts.liveness.after(event);
                if after != facts.liveness {
                    (facts.liveness, facts.liveness_since) = (after, now.wall);
                }
            }),
            Step::Health(n, health) => self.change(n, |facts| facts.health = health),
            Step::Drift(n, drift) => self.change(n, |facts| facts.drift = drift),
            Step::Capabilities(n, bits) => {
                self.change(n, |facts| facts.capabilities = AgentCapabilities::from_bits(bits))
            }
            Step::Labels(n, variant) => self.change(n, |facts| facts.labels = some_labels(variant)),
            Step::Uid(n, new) => self.change(n, |facts| facts.uid = uid(new)),
            Step::Sweep(max) => {
                let mut lapsed: Vec<_> = self
                    .0
                    .values()
                    .filter(|f| f.liveness.is_away() && f.liveness_since.0 + SHORT_T2_MS <= now.wall.0)
                    .map(|f| (f.liveness_since, f.id))
                    .collect();
                lapsed.sort();
                for (_, id) in lapsed.into_iter().take(max) {
                    if let Some(facts) = self.0.get_mut(&id) {
                        (facts.liveness, facts.liveness_since) = (Liveness::Expired, now.wall);
                    }
                }
            }
        }
    }

    fn change(&mut self, n: u8, change: impl FnOnce(&mut AgentFacts)) {
        if let Some(facts) = self.0.get_mut(&id(n)) {
            change(facts);
        }
    }
}

const SHORT_T2_MS: u64 = 50;

fn some_labels(variant: u8) -> Labels {
    labels(&[
        (LabelScope::Server, "ring", &variant.to_string()),
        (LabelScope::Identifying, "service.version", &format!("1.{variant}.0")),
        (LabelScope::NonIdentifying, "team", "core"),
    ])
}

fn apply(index: &mut FleetIndex, step: &Step, now: Now) {
    match *step {
        Step::Insert(n, liveness, health, drift) => {
            index.insert(&AgentFacts { liveness, health, drift, liveness_since: now.wall, ..facts(n) });
        }
        Step::Remove(n) => {
            index.remove(&id(n));
        }
        Step::Observe(n, event) => {
            index.observe(&id(n), event, now);
        }
        Step::Health(n, health) => {
            index.set_health(&id(n), health);
        }
        Step::Drift(n, drift) => {
            index.set_drift(&id(n), drift);
        }
        Step::Capabilities(n, bits) => {
            index.set_capabilities(&id(n), AgentCapabilities::from_bits(bits));
        }
        Step::Labels(n, variant) => {
            index.set_labels(&id(n), &some_labels(variant));
        }
        Step::Uid(n, new) => {
            index.set_uid(&id(n), uid(new));
        }
        Step::Sweep(max) => {
            index.sweep(now, max);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn counters_and_listings_equal_those_of_a_plain_map(
        steps in proptest::collection::vec((arbitrary_step(), 0..40_u64), 1..80),
        shared in 0..4_usize,
    ) {
        let mut index = FleetIndex::new(IndexSettings {
            expire_after: Duration::from_millis(SHORT_T2_MS),
            shared_values_per_key_max: shared,
            ..IndexSettings::default()
        });
        let mut model = Model::default();
        let mut now = 0;
        for (step, passed) in &steps {
            now += passed;
            apply(&mut index, step, at(now));
            model.apply(step, at(now));

            let mut counts = FleetCounts::default();
            for facts in model.0.values() {
                counts.add((facts.liveness, facts.health, facts.drift));
            }
            prop_assert_eq!(index.counts(), &counts, "after {:?}", step);
            let registered = model.0.len() as u64;
            prop_assert_eq!(index.counts().registered(), registered);
            prop_assert_eq!(index.counts().by_liveness().iter().sum::<u64>(), registered);
            prop_assert_eq!(index.counts().by_health().iter().sum::<u64>(), registered);
            prop_assert_eq!(index.counts().by_drift().iter().sum::<u64>(), registered);
        }
        prop_assert_eq!(index.list(&IndexQuery::default(), 100, 100).agents, model.0.values().cloned().collect::<Vec<_>>());
        for text in ["ring in (1,3)", "!ring", "version>=1.2", "team=core", "liveness=connected", "drift!=failed",
            "capability=ReportsStatus", "host.name notin (host-1,host-2)", "list", "label/team", "agent_type=agent"] {
            let selector: Selector = text.parse().map_err(|e| TestCaseError::fail(format!("{e}")))?;
            let query = IndexQuery { selector: Some(&selector), ..IndexQuery::default() };
            let listed: Vec<_> = index.list(&query, 100, 100).agents.into_iter().map(|f| f.id).collect();
            let expected: Vec<_> = model.0.values().filter(|f| selector.matches(*f)).map(|f| f.id).collect();
            prop_assert_eq!(listed, expected, "{}", text);
        }
        for health in Health::ALL {
            let query = IndexQuery { health: Some(health), liveness: Some(Liveness::Connected), ..IndexQuery::default() };
            let expected = model.0.values().filter(|f| f.health == health && f.liveness == Liveness::Connected).count();
            prop_assert_eq!(index.list(&query, 100, 100).agents.len(), expected);
        }
        for n in 0..8 {
            index.remove(&id(n));
        }
        prop_assert_eq!(index.interned(), (0, 0));
    }
}
