use opamp_proto::pb;

use super::*;

const BASE: &str = "
receivers:
  otlp:
    protocols:
      grpc: { endpoint: 0.0.0.0:4317 }
processors:
  memory_limiter: { limit_mib: 400 }
  batch:
exporters:
  otlphttp:
    endpoint: https://example.com
    headers: { authorization: Bearer one }
  debug:
extensions:
  health_check:
service:
  extensions: [health_check]
  telemetry: { logs: { level: info } }
  pipelines:
    traces: { receivers: [otlp], processors: [memory_limiter, batch], exporters: [otlphttp] }
    logs/app: { receivers: [otlp], exporters: [otlphttp, debug] }
";

fn files(bodies: &[(&str, &str, &str)]) -> pb::AgentConfigMap {
    let file = |(name, content_type, body): &(&str, &str, &str)| {
        let content_type = (*content_type).to_owned();
        let object =
            pb::AgentConfigObject { body: (*body).to_owned().into(), content_type, role: String::new() };
        ((*name).to_owned(), object)
    };
    pb::AgentConfigMap { config_map: bodies.iter().map(file).collect() }
}

fn one(body: &str) -> pb::AgentConfigMap {
    files(&[("", "text/yaml", body)])
}

/// Each change in its line.
fn lines(before: &str, after: &str) -> Vec<String> {
    let diff = semantic_diff(&one(before), &one(after)).unwrap();
    assert_eq!(diff.more, 0);
    diff.changes.iter().map(ToString::to_string).collect()
}

/// The base with one text replaced, which has to be there.
fn with(old: &str, new: &str) -> String {
    assert!(BASE.contains(old), "{old}");
    BASE.replace(old, new)
}

#[test]
fn what_only_looks_different_means_the_same() {
    let looks = "
# a comment
service:
  pipelines:
    logs/app: { exporters: [debug, otlphttp], receivers: [otlp] }
    traces:
      exporters:
        - otlphttp
      processors: ['memory_limiter', \"batch\"]
      receivers: [otlp]
  extensions: [health_check]
  telemetry: { logs: { level: info } }
extensions: { health_check: }
exporters:
  debug: ~
  otlphttp: { headers: &headers { authorization: Bearer one }, endpoint: https://example.com }
processors: { batch: null, memory_limiter: { limit_mib: 400 } }
receivers: { otlp: { protocols: { grpc: { endpoint: '0.0.0.0:4317' } } } }
";
    assert_eq!(lines(BASE, looks), Vec::<String>::new());
}

#[test]
fn a_changed_value_is_told_with_its_component_its_path_and_its_pipelines() {
    let after = with("limit_mib: 400", "limit_mib: 500, check_interval: 1s");
    assert_eq!(
        lines(BASE, &after),
        ["processor memory_limiter: check_interval: 1s (new); limit_mib: 400 → 500 (in traces)"]
    );
}

#[test]
fn a_changed_secret_is_told_and_not_shown() {
    let told = lines(BASE, &with("Bearer one", "Bearer two"));
    assert_eq!(told, ["exporter otlphttp: headers.authorization: (secret) → (secret) (in logs/app, traces)"]);
}

#[test]
fn a_component_that_comes_or_goes_is_told_with_who_uses_it() {
    let after = with("  batch:\n", "  filter/drop: { error_mode: ignore }\n");
    assert_eq!(
        lines(BASE, &after),
        ["processor batch is gone (in traces)", "processor filter/drop is new (unused)"]
    );
}

#[test]
fn the_order_of_processors_matters_and_that_of_exporters_does_not() {
    let after = with("[memory_limiter, batch]", "[batch, memory_limiter]");
    assert_eq!(lines(BASE, &after), ["pipeline traces: processors in another order: batch, memory_limiter"]);
    assert!(lines(BASE, &with("[otlphttp, debug]", "[debug, otlphttp]")).is_empty());
}

#[test]
fn a_part_in_a_pipeline_is_told_for_each_component() {
    let after = with("processors: [memory_limiter, batch], ", "processors: [memory_limiter], ");
    assert_eq!(lines(BASE, &after), ["pipeline traces: processors - batch"]);
    let after = with("exporters: [otlphttp] }", "exporters: [otlphttp, debug] }");
    assert_eq!(lines(BASE, &after), ["pipeline traces: exporters + debug"]);
}

#[test]
fn a_signal_that_leaves_no_more_is_told_first() {
    let line =
        "    traces: { receivers: [otlp], processors: [memory_limiter, batch], exporters: [otlphttp] }\n";
    assert_eq!(
        lines(BASE, &with(line, "")),
        ["traces leave the collector no more", "pipeline traces is gone"]
    );
}

#[test]
fn a_connector_is_no_way_out_of_the_collector() {
    let after =
        with("exporters: [otlphttp] }", "exporters: [spanmetrics] }") + "connectors: { spanmetrics: }\n";
    assert_eq!(
        lines(BASE, &after),
        [
            "traces leave the collector no more",
            "pipeline traces: exporters - otlphttp",
            "pipeline traces: exporters + spanmetrics",
            "connector spanmetrics is new (in traces)",
        ]
    );
}

#[test]
fn extensions_and_settings_are_told() {
    let after = with("extensions: [health_check]", "extensions: []");
    assert_eq!(lines(BASE, &after), ["extension health_check is off"]);
    let after = with("level: info", "level: debug");
    assert_eq!(lines(BASE, &after), ["service.telemetry.logs.level: info → debug"]);
}

#[test]
fn files_are_put_on_top_of_each_other_by_name() {
    let layered = files(&[
        ("a", "", BASE),
        ("b", "application/yaml", "processors: { memory_limiter: { limit_mib: 500 } }"),
        ("c", "text/plain", "no: { yaml"),
        ("d", "text/yaml", ""),
    ]);
    let diff = semantic_diff(&layered, &one(&with("limit_mib: 400", "limit_mib: 500"))).unwrap();
    assert!(diff.is_empty(), "{diff:?}");
}

#[test]
fn text_and_number_differ_and_notations_of_one_number_do_not() {
    let config = |value: &str| format!("processors: {{ batch: {{ size: {value} }} }}");
    assert!(lines(&config("1.0"), &config("1.00")).is_empty());
    assert!(lines(&config("yes"), &config("'yes'")).is_empty(), "as Collectors read it");
    assert_eq!(lines(&config("10"), &config("'10'")).len(), 1);
    assert_eq!(lines(&config("true"), &config("'true'")).len(), 1);
}

#[test]
fn lists_are_compared_by_position() {
    let config = |value: &str| format!("processors: {{ attributes: {{ actions: {value} }} }}");
    assert_eq!(
        lines(&config("[{ key: a }, { key: b }]"), &config("[{ key: a }, { key: c }, { key: d }]")),
        ["processor attributes: actions[1].key: b → c; actions[2]: 1 key (new) (unused)"]
    );
}

#[test]
fn what_is_no_collector_configuration_is_refused_without_repeating_it() {
    let refused = |body: &str| CollectorConfig::read(&one(body)).unwrap_err().to_string();
    assert_eq!(refused("[hunter2]"), "the document should be a mapping");
    assert_eq!(refused("receivers: [hunter2]"), "receivers should be a mapping");
    assert_eq!(
        refused("service: { extensions: { a: hunter2 } }"),
        "service.extensions should be a list of names"
    );
    let path = "service.pipelines.traces.exporters should be a list of names";
    assert_eq!(refused("service: { pipelines: { traces: { exporters: [{ a: hunter2 }] } } }"), path);
    for body in ["a: 'hunter2", "a: hunter2\na: hunter2", "a: *hunter2", "--- a\n--- hunter2"] {
        let text = refused(body);
        assert!(text.contains("no valid YAML") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn documents_beyond_a_bound_are_refused() {
    let is_refused = |body: &str| CollectorConfig::read(&one(body)).is_err();
    assert!(is_refused(&"x".repeat(TEXT_BYTES_MAX + 1)));
    assert!(is_refused(&format!("a: {}{}", "[".repeat(100), "]".repeat(100))));
    assert!(is_refused(&format!("a: [{}]", "1,".repeat(NODES_MAX + 1))));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(is_refused(&bomb));
}

#[test]
fn a_difference_has_at_most_so_many_changes_and_counts_the_rest() {
    let many = |from: usize, to: usize| {
        let receivers: String = (from..to).map(|number| format!("  r/{number}:\n")).collect();
        format!("receivers:\n{receivers}")
    };
    let diff = semantic_diff(&one(&many(0, 1)), &one(&many(1, 1_501))).unwrap();
    assert_eq!((diff.changes.len(), diff.more), (SemanticDiff::CHANGES_MAX, 501));
}

#[test]
fn nothing_and_nothing_are_equal() {
    assert!(semantic_diff(&pb::AgentConfigMap::default(), &one("")).unwrap().is_empty());
    assert!(!format!("{:?}", CollectorConfig::read(&one(BASE)).unwrap()).contains("Bearer"));
}

#[test]
fn long_names_and_many_of_them_do_not_make_a_difference_long() {
    let refused = |body: &str| CollectorConfig::read(&one(body)).unwrap_err().to_string();
    let name = "n".repeat(1_025);
    let too_long = " should be a mapping with names of at most 1,024 bytes";
    assert_eq!(refused(&format!("receivers:\n  ? {name}\n  : 1")), format!("receivers{too_long}"));
    let pipeline = format!("service:\n  pipelines:\n    ? {name}\n    :");
    assert_eq!(refused(&pipeline), format!("service.pipelines{too_long}"));
    let again = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), "*a, ".repeat(20));
    assert!(refused(&again).contains("no valid YAML, or too large a one"), "aliases repeat it");

    let key = "k".repeat(1_000);
    let config = |value: usize| {
        let values: String = (0..300).map(|number| format!("{number}: {value}, ")).collect();
        let receivers =
            (0..50).map(|number| format!("  r/{number}: {{ {key}: {{ {key}: {{ {values} }} }} }}\n"));
        format!("receivers:\n{}", receivers.collect::<String>())
    };
    let diff = semantic_diff(&one(&config(1)), &one(&config(2))).unwrap();
    assert_eq!((diff.changes.len(), diff.more), (50, 50 * 300 - SemanticDiff::VALUES_OF_ALL_MAX));
    assert!(format!("{diff:?}").len() < 5_000_000);

    let pipelines: String = (0..100).map(|n| format!("    traces/{n}: {{ receivers: [r] }}\n")).collect();
    let used = |pipelines: &str| format!("receivers: {{ r: }}\nservice:\n  pipelines:\n{pipelines}");
    let after = used(&pipelines).replace("r: }", "r: 1 }");
    let diff = semantic_diff(&one(&used(&pipelines)), &one(&after)).unwrap();
    let Change::Component { used_by, .. } = &diff.changes[0] else { panic!("{diff:?}") };
    assert_eq!(used_by.len(), SemanticDiff::USERS_MAX);
}
