use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Wall};
use proptest::prelude::*;

use super::*;
use crate::labels::{LABEL_VALUE_BYTES_MAX, LABELS_MAX, LabelValue};
use crate::{AgentFacts, Drift, Health, Liveness};

fn agent() -> AgentFacts {
    let mut facts =
        AgentFacts::expected(AgentId::from_bytes([1; 16]), InstanceUid::from_bytes([2; 16]), Wall(0));
    facts.capabilities = AgentCapabilities::REPORTS_STATUS | AgentCapabilities::ACCEPTS_REMOTE_CONFIG;
    facts.liveness = Liveness::Connected;
    facts.health = Health::Healthy;
    facts.drift = Drift::InSync;
    for (scope, key, value) in [
        (LabelScope::Identifying, "service.name", "io.example.agent"),
        (LabelScope::Identifying, "service.version", "v0.128.0"),
        (LabelScope::NonIdentifying, "os.type", "linux"),
        (LabelScope::NonIdentifying, "host.name", "edge 7"),
        (LabelScope::NonIdentifying, "cores", "16"),
        (LabelScope::NonIdentifying, "team", "claimed"),
        (LabelScope::NonIdentifying, "empty", ""),
        (LabelScope::NonIdentifying, "health", "a label"),
        (LabelScope::NonIdentifying, "group", "g"),
        (LabelScope::Server, "team", "edge"),
        (LabelScope::Server, "example.com/ring", "1"),
    ] {
        facts.labels.insert(scope, key.to_owned(), LabelValue::Text(value.to_owned()));
    }
    facts.labels.insert(LabelScope::NonIdentifying, "list".to_owned(), LabelValue::Opaque);
    facts
}

fn parse(text: &str) -> Selector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn assert_matches(cases: &[(&str, bool)]) {
    let agent = agent();
    for (text, expected) in cases {
        assert_eq!(parse(text).matches(&agent), *expected, "{text}");
    }
}

#[test]
fn the_kubernetes_grammar_is_understood() {
    assert_matches(&[
        ("", true),
        ("  ", true),
        ("os.type=linux", true),
        ("os.type==linux", true),
        ("os.type = linux , team = edge", true),
        ("os.type=linux,team=core", false),
        ("os.type!=windows", true),
        ("os.type in (linux, windows)", true),
        ("os.type in (darwin,windows)", false),
        ("os.type notin (darwin,windows)", true),
        ("os.type notin (linux)", false),
        ("os.type", true),
        ("!os.type", false),
        ("absent", false),
        ("!absent", true),
        ("!absent,os.type", true),
        ("example.com/ring=1", true),
        ("empty=", true),
        ("empty=\"\"", true),
        ("empty=,os.type=linux", true),
        ("empty!=", false),
        ("empty in (\"\",x)", true),
        ("host.name=\"edge 7\"", true),
        ("\"os.type\"=\"linux\"", true),
        ("os.type in(linux)", true),
    ]);
}

#[test]
fn an_absent_label_matches_notin_and_unequal_as_in_kubernetes() {
    assert_matches(&[
        ("absent!=x", true),
        ("absent notin (x,y)", true),
        ("absent=x", false),
        ("absent in (x,y)", false),
        ("absent=", false),
    ]);
}

#[test]
fn what_cannot_be_evaluated_matches_nothing() {
    assert_matches(&[
        ("list", true),
        ("!list", false),
        ("list=x", false),
        ("list!=x", false),
        ("list in (x)", false),
        ("list notin (x)", false),
        ("list>1", false),
        ("host.name>=1", false),
        ("host.name<1", false),
        ("absent>1", false),
        ("absent<1", false),
    ]);
    let mut unversioned = agent();
    let version = "service.version".to_owned();
    unversioned.labels.insert(LabelScope::Identifying, version, LabelValue::Text("latest".to_owned()));
    for text in ["version=1.0", "version!=1.0", "version notin (1.0)", "version<2", "version>=0", "!version"]
    {
        assert!(!parse(text).matches(&unversioned), "{text}");
    }
    assert!(parse("version").matches(&unversioned));
    assert!(parse("service.version=latest").matches(&unversioned));
}

#[test]
fn absence_proves_nothing_where_labels_were_dropped() {
    let attributes =
        (0..=LABELS_MAX).map(|n| opamp_proto::pb::KeyValue { key: format!("k{n:03}"), value: None });
    let mut facts = agent();
    facts.labels = crate::Labels::from_description(&opamp_proto::pb::AgentDescription {
        identifying_attributes: attributes.collect(),
        non_identifying_attributes: Vec::new(),
    });
    assert!(facts.labels.is_truncated());
    for text in ["!absent", "absent!=x", "absent notin (x)", "absent", "version!=1", "agent_type!=x"] {
        assert!(!parse(text).matches(&facts), "{text}");
    }
    assert!(parse("k000").matches(&facts));
}

#[test]
fn ordering_compares_versions_and_whole_numbers() {
    assert_matches(&[
        ("version>=0.128", true),
        ("version>0.128.0", false),
        ("version<=0.128", true),
        ("version<0.128.0-rc.1", false),
        ("version >= 0.9 , version < 0.130.0", true),
        ("version=0.128", true),
        ("version!=0.128.0", false),
        ("version in (0.1,0.128.0)", true),
        ("version notin (0.128.0)", false),
        ("version", true),
        ("!version", false),
        ("cores>8", true),
        ("cores>16", false),
        ("cores<100", true),
        ("service.version>=v0.128.0", true),
        ("service.version=0.128.0", false),
    ]);
}

#[test]
fn pseudo_keys_ask_for_facts_of_the_agent() {
    assert_matches(&[
        ("capability in (AcceptsRemoteConfig)", true),
        ("capability = AcceptsRemoteConfig, capability = ReportsStatus", true),
        ("capability in (ReportsHealth, ReportsStatus)", true),
        ("capability=ReportsHealth", false),
        ("capability!=ReportsHealth", true),
        ("capability notin (ReportsHealth,ReportsStatus)", false),
        ("health=healthy", true),
        ("health in (unhealthy,unknown)", false),
        ("liveness=connected", true),
        ("liveness notin (connected,stale)", false),
        ("drift=in_sync", true),
        ("drift!=in_sync", false),
        ("agent_type=io.example.agent", true),
        ("agent_type!=io.example.agent", false),
    ]);
    let mut silent = agent();
    silent.capabilities = AgentCapabilities::NONE;
    assert!(parse("capability!=AcceptsRemoteConfig").matches(&silent));
    assert!(!parse("capability=AcceptsRemoteConfig").matches(&silent));
    silent.labels = crate::Labels::default();
    assert!(parse("agent_type=unknown").matches(&silent));
}

#[test]
fn a_prefix_or_quotes_reach_a_label_and_precedence_decides_without() {
    assert_matches(&[
        ("team=edge", true),
        ("team=claimed", false),
        ("label/team=edge", true),
        ("non-identifying/team=claimed", true),
        ("identifying/team", false),
        ("non-identifying/service.name", false),
        ("identifying/service.name=io.example.agent", true),
        ("label/example.com/ring=1", true),
        ("non-identifying/health=\"a label\"", true),
        ("\"health\"=\"a label\"", true),
        ("\"group\"=g", true),
        ("non-identifying/group=g", true),
    ]);
}

#[test]
fn operators_cannot_change_what_an_agent_is_by_a_label() {
    let mut facts = agent();
    for (key, value) in [("service.name", "other"), ("service.version", "9.9.9")] {
        facts.labels.insert(LabelScope::Server, key.to_owned(), LabelValue::Text(value.to_owned()));
    }
    assert!(parse("agent_type=io.example.agent,version<1").matches(&facts));
    assert!(parse("service.name=other").matches(&facts));
}

#[test]
fn parse_errors_name_place_finding_and_expectation() {
    let cases = [
        ("a=b c", 4, "`c`", "`,` or the end"),
        ("a=b,", 4, "the end", "a key or `!`"),
        (",a", 0, "`,`", "a key or `!`"),
        ("a==", 3, "", ""),
        ("a in b", 5, "`b`", "`(`"),
        ("a in (", 6, "the end", "a value"),
        ("a in (x", 7, "the end", "`,` or `)`"),
        ("a in (x,)", 8, "`)`", "a value"),
        ("a in ()", 6, "`)`", "a value"),
        ("a=>b", 2, "`>`", "a value"),
        ("!", 1, "the end", "a key or `!`"),
        ("!a=b", 2, "`=`", "`,` or the end"),
        ("a within (b)", 2, "`within`", "`in`"),
        ("ä=b", 0, "'ä'", "\"…\""),
        ("\"ä\"=b;", 6, "';'", "\"…\""),
        ("a=\"b", 4, "the end", "closing"),
        ("a=\"\\n\"", 4, "'n'", "after a backslash"),
        ("health=well", 7, "`well`", "one of healthy, unhealthy, unknown"),
        ("liveness in (active)", 13, "`active`", "connected, stale, disconnected, expired, never_seen"),
        ("drift!=yes", 7, "`yes`", "one of unmanaged, in_sync"),
        ("capability=Fly", 11, "`Fly`", "the name of a capability"),
        ("capability", 0, "`capability` alone", "together with"),
        ("!liveness", 1, "`liveness` alone", "together with"),
        ("health>1", 6, "`>`", "after `health`"),
        ("version>=latest", 9, "`latest`", "a version"),
        ("version=latest", 8, "`latest`", "a version"),
        ("cores>many", 6, "`many`", "a version such as `1.2.0` or a whole number"),
        ("health=", 7, "the end", "one of healthy"),
        ("group=x", 0, "`group`", "`label/group`"),
        ("label/=x", 0, "a key of 0 bytes", "1 to 256 bytes"),
    ];
    for (text, offset, found, expected) in cases {
        if found.is_empty() {
            assert!(text.parse::<Selector>().is_ok(), "{text} asks for the empty value");
            continue;
        }
        let error = text.parse::<Selector>().expect_err(text);
        assert_eq!(error.offset, offset, "{text}: {error}");
        assert_eq!(error.column, text[..offset].chars().count() + 1, "{text}");
        assert_eq!(error.found, found, "{text}");
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
    let error = "ä".parse::<Selector>().unwrap_err();
    assert!(error.to_string().starts_with("selector, character 1: found 'ä', expected a key"), "{error}");
}

#[test]
fn every_length_has_a_limit() {
    let refused = |text: String| text.parse::<Selector>().unwrap_err().to_string();
    assert!(refused("k".repeat(SELECTOR_BYTES_MAX + 1)).contains("at most 16384 bytes"));
    assert!(refused("k".repeat(257)).contains("1 to 256 bytes"));
    assert!(refused(format!("k={}", "v".repeat(LABEL_VALUE_BYTES_MAX + 1))).contains("at most 256 bytes"));
    assert!(refused(vec!["k"; REQUIREMENTS_MAX + 1].join(",")).contains("at most 64"));
    let values: Vec<_> = (0..=VALUES_MAX).map(|n| n.to_string()).collect();
    assert!(refused(format!("k in ({})", values.join(","))).contains("at most 256"));
    assert!(parse(&vec!["k"; REQUIREMENTS_MAX].join(",")).requirements().len() == REQUIREMENTS_MAX);
}

#[test]
fn the_empty_selector_is_everything_and_says_so() {
    assert!(parse("").is_everything());
    assert!(!parse("a").is_everything());
    assert_eq!(Selector::default().to_string(), "");
}

#[test]
fn the_text_form_is_canonical() {
    for (text, canonical) in [
        ("  a ==  b ", "a=b"),
        ("a in (c, b, b)", "a in (b,c)"),
        ("a in (b)", "a=b"),
        ("a notin ( \"b\" )", "a!=b"),
        ("a=", "a=\"\""),
        ("a=\"x \\\"y\\\" \\\\\"", "a=\"x \\\"y\\\" \\\\\""),
        ("! a", "!a"),
        ("version >= 1.0,health=healthy", "version>=1.0,health=healthy"),
        ("\"health\"", "\"health\""),
        ("label/health", "label/health"),
        ("\"label/a b\"", "\"label/a b\""),
        ("in in (notin)", "in=notin"),
    ] {
        assert_eq!(parse(text).to_string(), canonical, "{text}");
    }
}

fn arbitrary_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9._/:+@-]{1,12}", "[ -~]{0,12}", "\\PC{0,6}", Just("health".to_owned())]
}

fn arbitrary_requirement() -> impl Strategy<Value = String> {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let key = (prop_oneof![Just(""), Just("label/"), Just("identifying/")], arbitrary_text())
        .prop_filter("keys are not empty", |(_, key)| !key.is_empty())
        .prop_map(move |(prefix, key)| quote(&format!("{prefix}{key}")));
    let label = (key, 0..7, proptest::collection::vec(arbitrary_text(), 1..4)).prop_map(
        move |(key, operator, values)| {
            let list = values.iter().map(|value| quote(value)).collect::<Vec<_>>().join(",");
            match operator {
                0 => key,
                1 => format!("!{key}"),
                2 => format!("{key}={}", quote(&values[0])),
                3 => format!("{key} != {}", quote(&values[0])),
                4 => format!("{key} in ({list})"),
                5 => format!("{key} notin ({list})"),
                _ => format!("{key} >= 1.{}", values.len()),
            }
        },
    );
    prop_oneof![
        4 => label,
        1 => Just("capability in (AcceptsRemoteConfig,ReportsHealth)".to_owned()),
        1 => Just("liveness!=connected".to_owned()),
        1 => Just("version<2".to_owned()),
    ]
}

proptest! {
    #[test]
    fn what_is_displayed_parses_to_an_equal_selector(
        requirements in proptest::collection::vec(arbitrary_requirement(), 0..6),
    ) {
        let selector: Selector = requirements.join(", ").parse().map_err(|e| TestCaseError::fail(format!("{e}")))?;
        let shown = selector.to_string();
        let again: Selector = shown.parse().map_err(|e| TestCaseError::fail(format!("{shown}: {e}")))?;
        prop_assert_eq!(&again, &selector, "{}", shown);
        prop_assert_eq!(again.to_string(), shown);
        prop_assert_eq!(again.requirements().len(), requirements.len());
    }

    #[test]
    fn arbitrary_text_is_parsed_or_refused_with_a_place_inside_it(text in "\\PC{0,40}") {
        if let Err(error) = text.parse::<Selector>() {
            prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset));
            prop_assert!(!error.found.is_empty() && !error.expected.is_empty());
        }
    }
}
