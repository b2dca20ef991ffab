//! Who is left out before anything is offered, and why (R10).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opamp_fleet::rollout::plan::{
    Candidate, ConflictPolicy, FleetSizes, HasComponent, Lint, Plan, PlanRequest, PlannedMembers, Target,
};
use opamp_fleet::rollout::{EngineSettings, Offline, PlanError, Reason, RolloutId, Slot};
use opamp_fleet::{LabelScope, LabelValue, Labels, Liveness, Selector};
use opamp_proto::{AgentCapabilities, AgentId, pb};

use crate::support::{Known, START, agents, config, fingerprint};

const ID: RolloutId = RolloutId::from_bytes([7; 16]);

#[derive(Debug)]
struct Components(&'static [&'static str]);

impl HasComponent for Components {
    fn has_component(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

fn text(value: &str) -> LabelValue {
    LabelValue::Text(value.to_owned())
}

static OTHER: Components = Components(&["receiver/hostmetrics"]);
static OWN: Components = Components(&["receiver/otlp"]);

type Excluded = Vec<(Reason, Vec<AgentId>)>;

/// Who is excluded of a well agent and one that `known` and `candidate` make different.
fn excluded(
    request: impl FnOnce(&mut PlanRequest<'_>),
    known: impl FnOnce(&mut Known),
    candidate: impl FnOnce(&mut Candidate<'_>),
) -> Excluded {
    let (config, selector) = (config("new"), Selector::default());
    let mut asked = PlanRequest::new(ID, Target::new(&config), &selector);
    asked.target.agent_type = Some("collector".into());
    asked.target.components = [Box::<str>::from("receiver/otlp")].into();
    asked.target.capabilities = AgentCapabilities::REPORTS_HEALTH;
    request(&mut asked);
    let mut fleet = agents(2);
    for known in &mut fleet {
        known.facts.labels.insert(LabelScope::Identifying, "service.name".to_owned(), text("collector"));
    }
    known(&mut fleet[1]);
    let mut candidates = [fleet[0].candidate(), fleet[1].candidate()];
    candidate(&mut candidates[1]);
    let (plan, members) = Plan::make(asked, candidates.into_iter(), FleetSizes::default(), START).unwrap();
    assert_eq!(members.len() + plan.excluded.len(), 2);
    plan.excluded.iter().map(|excluded| (excluded.reason, excluded.examples.clone())).collect()
}

fn for_this(reason: Reason) -> Excluded {
    vec![(reason, vec![agents(2)[1].id()])]
}

fn nobody() -> Excluded {
    Excluded::new()
}

#[test]
fn a_well_agent_is_not_excluded() {
    assert_eq!(excluded(|_| {}, |_| {}, |_| {}), nobody());
}

#[test]
fn each_reason_excludes() {
    type Change = (Reason, fn(&mut Known));
    let changes: [Change; 8] = [
        (Reason::OptedOut, |known| {
            known.facts.labels.insert(
                LabelScope::Server,
                Plan::OPT_OUT_LABEL.to_owned(),
                text(Plan::OPT_OUT_VALUE),
            );
        }),
        (Reason::Quarantined, |known| known.quarantined = true),
        (Reason::Locked, |known| known.locked_by = Some(RolloutId::from_bytes([8; 16]))),
        (Reason::NotConnected, |known| known.facts.liveness = Liveness::NeverSeen),
        (Reason::WrongType, |known| {
            known.facts.labels.insert(LabelScope::Identifying, "service.name".to_owned(), text("other"));
        }),
        (Reason::CapabilityMissing, |known| {
            known.facts.capabilities.remove(AgentCapabilities::ACCEPTS_REMOTE_CONFIG);
        }),
        (Reason::CapabilityMissing, |known| {
            known.facts.capabilities.remove(AgentCapabilities::REPORTS_HEALTH)
        }),
        (Reason::HashFailedBefore, |known| known.failed = vec![fingerprint("new")]),
    ];
    for (reason, change) in changes {
        assert_eq!(excluded(|_| {}, change, |_| {}), for_this(reason), "{reason}");
    }
    let found = excluded(|_| {}, |_| {}, |candidate| candidate.components = Some(&OTHER));
    assert_eq!(found, for_this(Reason::ComponentMissing));
    let found = excluded(|_| {}, |_| {}, |candidate| candidate.send_bytes_max = 3);
    assert_eq!(found, for_this(Reason::TooLarge));
}

#[test]
fn what_is_not_known_does_not_exclude() {
    let found = excluded(|_| {}, |_| {}, |candidate| candidate.components = Some(&OWN));
    assert_eq!(found, nobody());
    let found =
        excluded(|_| {}, |_| {}, |candidate| (candidate.components, candidate.assigned) = (None, None));
    assert_eq!(found, nobody());
    let found = excluded(|_| {}, |known| known.failed = vec![fingerprint("older")], |_| {});
    assert_eq!(found, nobody());
}

#[test]
fn who_is_away_waits_or_is_excluded_as_the_settings_say() {
    for liveness in [Liveness::Stale, Liveness::Disconnected, Liveness::Expired] {
        let found = excluded(|_| {}, |known| known.facts.liveness = liveness, |_| {});
        assert_eq!(found, nobody(), "{liveness} waits");
        let found = excluded(
            |request| request.settings.offline = Offline::Exclude,
            |known| known.facts.liveness = liveness,
            |_| {},
        );
        assert_eq!(found, for_this(Reason::NotConnected), "{liveness}");
    }
}

#[test]
fn an_agent_of_another_rollout_is_left_out_only_if_that_is_not_ended_for_it() {
    let other = RolloutId::from_bytes([8; 16]);
    let found =
        |policy| excluded(|request| request.conflict = policy, |known| known.locked_by = Some(other), |_| {});
    assert_eq!(found(ConflictPolicy::Reject), for_this(Reason::Locked));
    assert_eq!(found(ConflictPolicy::Queue), nobody());
    assert_eq!(found(ConflictPolicy::Supersede), nobody());
    let own = excluded(|_| {}, |known| known.locked_by = Some(ID), |_| {});
    assert_eq!(own, nobody(), "it does not stand in its own way");
}

#[test]
fn each_slot_asks_for_its_own_capability() {
    for (slot, capability) in [
        (Slot::Packages(1), AgentCapabilities::ACCEPTS_PACKAGES),
        (Slot::Restart, AgentCapabilities::ACCEPTS_RESTART_COMMAND),
    ] {
        let (config, selector) = (config("new"), Selector::default());
        let mut fleet = agents(2);
        fleet[1].facts.capabilities.insert(capability);
        let request = PlanRequest { slot, ..PlanRequest::new(ID, Target::new(&config), &selector) };
        let made = Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START);
        let (plan, members) = made.unwrap();
        assert_eq!(members.ids(), [fleet[1].id()]);
        assert!(plan.capabilities.contains(capability));
    }
}

#[test]
fn nobody_left_is_no_plan() {
    let (config, selector) = (config("new"), Selector::default());
    let mut fleet = agents(3);
    fleet.iter_mut().for_each(|known| known.quarantined = true);
    let request = PlanRequest::new(ID, Target::new(&config), &selector);
    let refused = Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START);
    assert_eq!(refused.unwrap_err(), PlanError::NoMembers { excluded: 3 });
}

#[test]
fn exclusions_are_counted_and_have_at_most_twenty_examples_by_id() {
    let (config, selector) = (config("new"), Selector::default());
    let mut fleet = agents(60);
    fleet.iter_mut().skip(10).for_each(|known| known.quarantined = true);
    fleet.reverse();
    let request = PlanRequest::new(ID, Target::new(&config), &selector);
    let made = Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START);
    let (plan, _) = made.unwrap();
    let expected: Vec<AgentId> = agents(30)[10..].iter().map(Known::id).collect();
    assert_eq!((plan.excluded[0].count, &plan.excluded[0].examples), (50, &expected));
}

/// An agent of which more attributes were given than are kept.
fn truncated(number: u32, attributes: &[(&str, &str)]) -> Known {
    let attribute = |key: String, value: &str| {
        let value = pb::AnyValue { value: Some(pb::any_value::Value::StringValue(value.to_owned())) };
        pb::KeyValue { key, value: Some(value) }
    };
    let given = attributes.iter().map(|(key, value)| attribute((*key).to_owned(), value));
    let many = (0..200).map(|n| attribute(format!("z{n:03}"), "x"));
    let mut known = Known::new(number);
    known.facts.labels = Labels::from_description(&pb::AgentDescription {
        identifying_attributes: given.chain(many).collect(),
        non_identifying_attributes: Vec::new(),
    });
    known
}

fn select(selector: &str, fleet: &[Known]) -> Result<(Plan, PlannedMembers), PlanError> {
    let (config, selector) = (config("new"), selector.parse::<Selector>().unwrap());
    let request = PlanRequest::new(ID, Target::new(&config), &selector);
    Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START)
}

#[test]
fn an_agent_whose_labels_are_unknown_is_not_selected() {
    let fleet = [Known::new(0), truncated(1, &[("a", "1")])];
    for selector in ["!zone", "zone!=eu", "zone notin (eu,us)"] {
        let (plan, members) = select(selector, &fleet).unwrap();
        assert_eq!(members.ids(), [fleet[0].id()], "{selector}");
        let excluded: BTreeMap<_, _> = plan.excluded.iter().map(|each| (each.reason, each.count)).collect();
        assert_eq!(excluded, BTreeMap::from([(Reason::LabelsUnknown, 1)]), "{selector}");
    }
    let (plan, _) = select("!zone,a!=1", &fleet).unwrap();
    assert_eq!(plan.excluded.len(), 0, "whatever its zone is, it does not match");
    let nobody = select("!b,a=1", &fleet).unwrap_err();
    assert_eq!(nobody, PlanError::NoMembers { excluded: 1 }, "it may have b, and the other one has no a");
}

#[test]
fn a_configuration_with_forbidding_findings_is_no_plan() {
    let allowed: BTreeSet<Box<str>> = [Box::<str>::from("otel.example.org")].into();
    let lint = Lint { destinations: Some(&allowed), ..Lint::default() };
    let selector = Selector::default();
    let make = |body: &str| {
        let config = config(body);
        let request = PlanRequest::new(ID, Target { lint, ..Target::new(&config) }, &selector);
        Plan::make(request, agents(2).iter().map(Known::candidate), FleetSizes::default(), START).map(|_| ())
    };
    assert_eq!(make("endpoint: https://otel.example.org"), Ok(()));
    let Err(PlanError::Lint(findings)) = make("endpoint: https://evil.example.com") else {
        panic!("accepted")
    };
    assert_eq!((&*findings[0].check, &*findings[0].file), ("destinations", "main.yaml"));
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    let (config, selector) = (config("new"), Selector::default());
    let fleet = agents(3);
    let refused = |change: &dyn Fn(&mut PlanRequest<'_>)| {
        let mut request = PlanRequest::new(ID, Target::new(&config), &selector);
        change(&mut request);
        let made = Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START);
        made.map(|_| ()).unwrap_err()
    };
    let settings = EngineSettings::default();
    let senseless: [&dyn Fn(&mut PlanRequest<'_>); 7] = [
        &|request| request.settings.in_flight_max = 0,
        &|request| request.settings.limits.per_minute = 0,
        &|request| request.settings.deadlines.apply = Duration::ZERO,
        &|request| request.settings.bake = Duration::from_secs(u64::MAX),
        &|request| request.expires_at = Some(START),
        &|request| {
            (request.start_at, request.expires_at) =
                (Some(START + settings.bake), Some(START + settings.bake))
        },
        &|request| request.control_group = 3,
    ];
    for (number, change) in senseless.into_iter().enumerate() {
        let found = refused(change);
        assert!(matches!(found, PlanError::Strategy { .. }), "{number}: {found}");
    }
    let long: Box<str> = "x".repeat(1_025).into();
    let found = refused(&|request| request.title = long.clone());
    assert_eq!(found, PlanError::BeyondHardLimit { what: "bytes of the title", limit: 1_024, found: 1_025 });
}
