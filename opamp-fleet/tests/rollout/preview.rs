//! What a plan says of itself before it runs (R11).

use std::time::Duration;

use opamp_fleet::rollout::RolloutId;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Scopes, Test, defaults};
use opamp_fleet::rollout::plan::{
    Domains, FleetSizes, Lint, Plan, PlanRequest, PlannedMembers, Strategy, Target,
};
use opamp_fleet::rollout::preview::{Preview, PreviewLimits, preview};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::{ConfigMap, LabelScope, LabelValue, Liveness, Selector};
use opamp_proto::{AgentCapabilities, Fingerprint};

use crate::support::{Known, START, agents, by_number, config, fingerprint};

const MINUTE: Duration = Duration::from_secs(60);

fn make(fleet: &[Known], change: impl FnOnce(&mut PlanRequest<'_>)) -> (Plan, PlannedMembers) {
    let (config, selector) = (config("a: 1\nb: 3\n"), Selector::default());
    let mut request = PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector);
    change(&mut request);
    let sizes = FleetSizes { agents: 4_000, group: 0 };
    Plan::make(request, fleet.iter().map(Known::candidate), sizes, START).unwrap()
}

/// The configurations that can be read.
fn read(wanted: Fingerprint) -> Option<ConfigMap> {
    [config("a: 1\nb: 3\n"), config("a: 1\nb: 2\n")]
        .into_iter()
        .find(|one| one.hash().fingerprint() == wanted)
}

fn previewed(fleet: &[Known], change: impl FnOnce(&mut PlanRequest<'_>)) -> Preview {
    let (plan, members) = make(fleet, change);
    preview(&plan, &members, &read, &PreviewLimits::default())
}

/// A thousand agents that can be offered something, a dozen that cannot.
fn fleet() -> Vec<Known> {
    let mut fleet = agents(1_012);
    for (known, number) in fleet.iter_mut().zip(0u32..) {
        known.exact_effective = !(12..422).contains(&number);
        known.current = Some(fingerprint("a: 1\nb: 2\n"));
        if number < 9 {
            known.facts.capabilities.remove(AgentCapabilities::ACCEPTS_REMOTE_CONFIG);
        }
        known.quarantined = (9..12).contains(&number);
    }
    for known in &mut fleet[1_000..] {
        known.current = None;
    }
    fleet
}

#[test]
fn golden() {
    let preview = previewed(&fleet(), |request| {
        request.settings.limits.per_minute = 100;
        request.settings.limits.touched_max = 800;
    });
    let plan = format!("plan {}", &preview.hash.to_string()[..4]);
    let text = preview.to_text().replacen(&plan, "plan HASH", 1);
    let text = text.replace(&fingerprint("a: 1\nb: 2\n").to_string(), "OLD");
    assert_eq!(text, include_str!("preview.txt"));
}

#[test]
fn the_short_form_is_two_lines() {
    let text = previewed(&fleet(), |_| {}).to_string();
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains(
        "1,000 agents, 4 waves: 40, 210, 250, 500; excluded 12 (capability-missing 9, quarantined 3)"
    ));
    assert!(text.ends_with("20 % with 97 %; false stop at 0.5 % noise: 0.23 %"), "{text}");
}

#[test]
fn who_is_away_or_has_no_failure_domain_is_told_and_that_everybody_is_first() {
    let mut fleet = agents(30);
    for known in &mut fleet[..5] {
        known.facts.liveness = Liveness::Disconnected;
    }
    for known in &mut fleet[..20] {
        known.facts.labels.insert(LabelScope::Server, "zone".to_owned(), LabelValue::Text("eu".to_owned()));
    }
    let preview = previewed(&fleet, |request| {
        request.strategy = Strategy::Batches { size: 30 };
        request.order = by_number(&fleet);
        request.domains = Some(Domains { key: "zone".into(), in_flight_max: 3, anti_affinity: None });
    });
    assert_eq!((preview.away, preview.without_domain, preview.waves[0].away), (5, 10, 5));
    let text = preview.to_text();
    assert!(
        text.contains(
            "1 wave: 30 (everybody at once); away 5; without a failure domain, and not limited by one 10"
        ),
        "{text}"
    );
    assert!(text.contains("30 agents, 5 away, then"), "{text}");

    let preview = previewed(&fleet, |request| request.strategy = Strategy::Batches { size: 10 });
    assert_eq!((preview.waves.len(), preview.without_domain), (3, 0));
    assert!(!preview.to_text().contains("everybody at once"));
}

#[test]
fn power_is_what_the_tests_can_do() {
    let preview = previewed(&fleet(), |request| {
        request.gates = [GateKind::NothingSucceeds, GateKind::ApplyFailed].map(GateConfig::of).into();
    });
    let of = |percent| preview.power.iter().find(|power| power.fault == Ppm::percent(percent)).unwrap();
    let near = |found: Ppm, expected: u32| found.0.abs_diff(expected) <= 1;
    let canary = of(5).waves[0];
    assert!(
        near(canary.seen, 871_488) && near(canary.stopped, 29_789) && near(canary.stretched, 108_362),
        "{canary:?}"
    );
    let canary = of(20).waves[0];
    assert!(near(canary.stopped, 858_934) && near(canary.stretched, 112_605), "{canary:?}");
    assert!(near(of(20).waves[1].stopped, 999_998));
    assert_eq!(of(100).waves[0].stopped, Ppm::ALL);
}

#[test]
fn a_gate_is_blind_for_members_that_do_not_report_what_it_asks() {
    let mut fleet = agents(10);
    fleet[0] = Known::mute(0);
    fleet[1].facts.capabilities.remove(AgentCapabilities::REPORTS_HEALTH);
    fleet[2].exact_effective = false;
    let preview = previewed(&fleet, |request| request.gates = defaults());
    let blind: Vec<(GateKind, u32)> = preview.blind.iter().map(|(_, kind, count)| (*kind, *count)).collect();
    let count = |kind| blind.iter().find(|(found, _)| *found == kind).map_or(0, |(_, count)| *count);
    assert_eq!(count(GateKind::ApplyFailed), 1);
    assert_eq!(count(GateKind::Unhealthy), 2);
    assert_eq!(count(GateKind::EffectiveMismatch), 2);
    assert_eq!(count(GateKind::DisconnectRatio), 0);
    assert!(preview.blind.iter().all(|(_, _, count)| *count > 0));
}

#[test]
fn what_changes_is_shown_for_each_configuration_that_members_run() {
    let mut fleet = agents(7);
    for (known, body) in fleet.iter_mut().zip(["x", "x", "x", "a: 1\nb: 2\n", "a: 1\nb: 2\n"]) {
        known.current = Some(fingerprint(body));
    }
    fleet[5].current = None;
    fleet[6].current = Some(fingerprint("a: 1\nb: 3\n"));
    let preview = previewed(&fleet, |_| {});
    let seen: Vec<_> = preview
        .currents
        .iter()
        .map(|one| (one.config, one.members, one.files.as_ref().map(Vec::len)))
        .collect();
    let expected = [(Some(fingerprint("x")), 3, None), (Some(fingerprint("a: 1\nb: 2\n")), 2, Some(1))];
    assert_eq!(seen[..2], expected, "the most frequent first");
    assert!(
        seen.contains(&(None, 1, None)) && seen.contains(&(Some(fingerprint("a: 1\nb: 3\n")), 1, Some(0)))
    );
    assert_eq!((preview.members, preview.current), (6, 1));
}

#[test]
fn what_is_listed_is_bounded_and_the_rest_is_counted() {
    let fleet = agents(30);
    let (plan, members) = make(&fleet, |request| request.strategy = Strategy::Batches { size: 5 });
    let limits = PreviewLimits { waves_max: 2, examples_max: 3, configs_max: 0, ..PreviewLimits::default() };
    let preview = preview(&plan, &members, &read, &limits);
    assert_eq!((preview.waves.len(), preview.further_waves), (2, 4));
    assert_eq!(preview.waves[0].examples, members.ids()[..3]);
    assert_eq!((preview.currents.len(), preview.further_configs), (0, 1));
}

#[test]
fn how_long_it_takes_follows_from_rates_dwells_and_deadlines() {
    let fleet = agents(20);
    let lasting = previewed(&fleet, |request| {
        request.strategy = Strategy::Batches { size: 10 };
        request.settings.limits.per_minute = 4;
    })
    .lasting;
    // Two waves of two minutes and a dwell of ten, and the bake.
    assert_eq!(lasting.at_best, 2 * (2 + 10) * MINUTE + 30 * MINUTE);
    // Four rounds of a minute, twice five and two.
    assert_eq!(lasting.by_deadlines, 2 * (4 * 13 + 10) * MINUTE + 30 * MINUTE);
}

#[test]
fn the_blast_is_what_can_be_touched_at_all_and_at_once() {
    let blast = previewed(&fleet(), |request| {
        request.settings.limits.touched_max = 300;
        request.settings.limits.fleet_percent_in_flight = Ppm::percent(5);
    })
    .blast;
    assert_eq!((blast.touched, blast.of_fleet), (300, Some(Ppm(75_000))));
    assert_eq!((blast.in_flight, blast.total_fault), (200, Some(3)));
    let nothing_stops_it = previewed(&fleet(), |request| {
        (request.gates, request.override_reason) = (Box::default(), Some("a drill".into()));
    });
    assert_eq!(nothing_stops_it.blast.total_fault, None);
    assert_eq!(nothing_stops_it.false_stop, Ppm(0));
}

#[test]
fn findings_of_the_configuration_are_shown() {
    let (config, selector) = (config("password: hunter2\n"), Selector::default());
    let fleet = agents(3);
    let request = PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector);
    let made = Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START);
    let (plan, members) = made.unwrap();
    let limits = PreviewLimits { lint: Lint::default(), ..PreviewLimits::default() };
    let preview = preview(&plan, &members, &|_| Some(config.clone()), &limits);
    assert_eq!(preview.findings.len(), 1);
    assert!(preview.findings.iter().all(|finding| !finding.text.contains("hunter2")));
}

#[test]
fn who_does_not_say_that_it_failed_is_no_help() {
    let chances = |mute: u32| {
        let fleet: Vec<Known> =
            (0..1_000).map(|n| if n < mute { Known::mute(n) } else { Known::new(n) }).collect();
        let preview = previewed(&fleet, |request| request.order = by_number(&fleet));
        let of_fault =
            |percent| preview.power.iter().find(|power| power.fault == Ppm::percent(percent)).unwrap();
        let chance = |percent| of_fault(percent).waves[0];
        [chance(20), chance(100)]
            .map(|chance| (chance.members, chance.seen, chance.stopped, chance.stretched))
    };
    assert_eq!(chances(40), [(40, Ppm(0), Ppm(0), Ppm(0)); 2]);
    let [(_, seen, stopped, _), total] = chances(20);
    let [(_, all_seen, all_stopped, _), (.., all_total, _)] = chances(0);
    assert!(Ppm(0) < seen && seen < all_seen && Ppm(0) < stopped && stopped < all_stopped);
    assert_eq!((total, all_total), ((40, Ppm::ALL, Ppm::ALL, Ppm(0)), Ppm::ALL));
}

#[test]
fn a_gate_that_is_not_counted_in_waves_stops_none() {
    let stopped = |scopes| {
        let gate = GateConfig { scopes, ..GateConfig::of(GateKind::ApplyFailed) };
        let preview = previewed(&fleet(), |request| {
            (request.gates, request.override_reason) = ([gate].into(), Some("a drill".into()));
        });
        preview.power.iter().map(|power| power.waves[0].stopped).max()
    };
    assert_eq!(stopped(Scopes::CUMULATIVE), Some(Ppm(0)));
    assert_eq!(stopped(Scopes::WAVE), Some(Ppm::ALL));
}

#[test]
fn what_stops_a_total_fault_is_a_gate_that_notices_every_kind_of_failure() {
    let total_fault = |gate: GateConfig| {
        let preview = previewed(&fleet(), |request| {
            (request.gates, request.override_reason) = ([gate].into(), Some("a drill".into()));
        });
        preview.blast.total_fault
    };
    let hard =
        |kind, failures| GateConfig { tests: [Test::Hard { failures }].into(), ..GateConfig::of(kind) };
    assert_eq!(total_fault(hard(GateKind::NothingSucceeds, 7)), Some(7));
    assert_eq!(total_fault(hard(GateKind::ApplyFailed, 7)), None);
    assert_eq!(total_fault(GateConfig { scopes: Scopes::ZONE, ..hard(GateKind::NothingSucceeds, 7) }), None);
}

#[test]
fn a_false_stop_is_looked_for_in_every_scope_in_which_a_gate_is_counted() {
    let of = |scopes: Scopes, test: Test| {
        let mut fleet = fleet();
        for (known, number) in fleet.iter_mut().zip(0u32..) {
            let zone = LabelValue::Text(format!("zone {}", number % 2));
            known.facts.labels.insert(LabelScope::Server, "zone".to_owned(), zone);
        }
        let preview = previewed(&fleet, |request| {
            let gate = GateConfig { scopes, tests: [test].into(), ..GateConfig::of(GateKind::Rejected) };
            (request.gates, request.override_reason) = ([gate].into(), Some("a drill".into()));
            request.domains =
                Some(Domains { key: "zone".into(), in_flight_max: u32::MAX, anti_affinity: None });
        });
        preview.false_stop.0
    };
    let count = Test::Count { over: 9 };
    // Ten of a thousand that fail with half a percent each: 3.1 %; hardly ever in a wave of 500 or less.
    assert!(of(Scopes::CUMULATIVE, count).abs_diff(30_900) < 700, "{}", of(Scopes::CUMULATIVE, count));
    assert!(of(Scopes::WAVE, count) < 400, "{}", of(Scopes::WAVE, count));
    let both = of(Scopes::WAVE.and(Scopes::CUMULATIVE), count);
    assert!(both.abs_diff(of(Scopes::WAVE, count) + of(Scopes::CUMULATIVE, count)) <= 2, "{both}");
    assert!(of(Scopes::ZONE, count) >= 2 * 100 && of(Scopes::ZONE, count) < 800, "two domains of 500");
    let bound = Test::Bound { over: Ppm::percent(1), error: Ppm::percent(50) };
    assert!(of(Scopes::WAVE, bound) > 0 && of(Scopes::ZONE, bound) > 0);
}

#[cfg(feature = "collector")]
#[test]
fn what_changes_in_a_collector_is_told_by_what_it_means() {
    use opamp_fleet::rollout::preview::semantic;

    let before = "receivers: { otlp: }\nexporters: { debug: }\nservice: { pipelines: { logs: { receivers: [otlp], exporters: [debug] } } }";
    let after = before.replace("debug", "otlphttp");
    let (target, selector) = (config(&after), Selector::default());
    let mut fleet = agents(5);
    fleet[..3].iter_mut().for_each(|known| known.current = Some(fingerprint(before)));
    fleet[3].current = Some(fingerprint("[no collector]"));
    fleet[4].current = Some(fingerprint("nobody knows"));
    let request = PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&target), &selector);
    let made = Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START);
    let (plan, members) = made.unwrap();
    let known = |wanted: Fingerprint| {
        let all = [target.clone(), config(before), config("[no collector]")];
        all.into_iter().find(|one| one.hash().fingerprint() == wanted)
    };
    let told = semantic(&plan, &members, &known, &PreviewLimits::default());
    assert_eq!(told.len(), 2, "the fifth agent runs what cannot be read");
    assert_eq!((told[0].config, told[0].members), (fingerprint(before), 3));
    let changes: Vec<String> =
        told[0].changes.as_ref().unwrap().changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "pipeline logs: exporters - debug",
            "pipeline logs: exporters + otlphttp",
            "exporter debug is gone (in logs)",
            "exporter otlphttp is new (in logs)",
        ]
    );
    assert!(told[1].changes.is_err());
}
