//! What `/metrics` shows: one look at the counters of server, fleet, store and admin port.

mod admission;

use std::sync::atomic::Ordering;

use opamp_fleet::{Drift, Health, Liveness, manager::APPLY_DURATION_BOUNDS_S};
use opamp_server::{RefusalReason, Stats, WEBSOCKET_DURATION_BOUNDS_S};

use crate::{
    api::state::App,
    metrics::{Buckets, Snapshot},
    process::{Usage, open_files_max},
    self_agent::board::{Probe, ProbeState, Verdict},
};

/// All metrics now. Names are part of the interface: dashboards and alerts use them.
pub(crate) fn snapshot(app: &App) -> Snapshot {
    let mut page = Snapshot::default();
    opamp(app, &mut page);
    fleet(app, &mut page);
    store(app, &mut page);
    admin(app, &mut page);
    downloads(app, &mut page);
    self_agent(app, &mut page);
    process(&mut page);
    page
}

fn opamp(app: &App, page: &mut Snapshot) {
    let stats = app.opamp.stats();
    let active = float(stats.websocket_active);
    page.gauges("opamp_websocket_active_connections", "WebSockets open now.", [(Vec::new(), active)]);
    let lasted = Buckets {
        bounds: WEBSOCKET_DURATION_BOUNDS_S.to_vec(),
        counts: stats.websocket_duration.counts.to_vec(),
        sum: stats.websocket_duration.sum_s,
    };
    page.histograms(
        "opamp_websocket_connection_duration_seconds",
        "How long closed WebSockets lasted.",
        [(Vec::new(), lasted)],
    );
    page.counter("opamp_websocket_connections", "WebSockets opened.", stats.websocket_opened);
    page.counter(
        "opamp_frames_received",
        "Messages received from agents on either transport.",
        stats.frames_received,
    );
    page.counter("opamp_frames_sent", "Messages sent to agents on either transport.", stats.frames_sent);
    page.counters(
        "opamp_frames_rejected",
        "What was refused, by reason.",
        RefusalReason::ALL.map(|reason| {
            (vec![("reason", reason.as_str().to_owned())], stats.frames_rejected[reason.index()])
        }),
    );
    page.counter("opamp_http_requests", "Plain HTTP requests of agents.", stats.http_requests);
    page.counter("opamp_offers_sent", "Remote configurations offered.", stats.offers_sent);
    page.counter("opamp_settings_offers_sent", "Connection settings offered.", stats.settings_offers_sent);
    page.counter("opamp_package_offers_sent", "Packages offered.", stats.package_offers_sent);
    page.counter(
        "opamp_component_requests_sent",
        "Requests for lists of components sent.",
        stats.component_requests_sent,
    );
    custom(&stats, page);
    page.counter(
        "opamp_uid_conflicts",
        "Messages of somebody else under the identity of an agent.",
        stats.uid_conflicts,
    );
    page.counter("opamp_agents_rekeyed", "Newcomers told to take over a fresh identity.", stats.rekeyed);
    page.counter(
        "opamp_throttled",
        "Requests and messages sent away while agents are throttled.",
        stats.throttled,
    );
    let throttled = f64::from(u8::from(app.opamp.throttled().is_some()));
    page.gauges("opamp_throttle_active", "1 while agents are throttled.", [(Vec::new(), throttled)]);
    page.counter("opamp_full_state_requests", "Full-state requests sent.", stats.full_state_requested);
    page.counter("opamp_restarts_sent", "Restart commands sent.", stats.restarts_sent);
    page.counter(
        "opamp_messages_discarded_oversize",
        "Messages not sent because they exceed the send limit.",
        stats.messages_discarded_oversize,
    );
    admission::admission(&stats.admission, page);
}

/// Custom messages, by what became of them.
fn custom(stats: &Stats, page: &mut Snapshot) {
    let by = |outcome: &str, count: u64| (vec![("outcome", outcome.to_owned())], count);
    page.counters(
        "opamp_custom_messages_sent",
        "Custom messages for agents, by outcome.",
        [by("sent", stats.custom_sent), by("undelivered", stats.custom_undelivered)],
    );
    page.counters(
        "opamp_custom_messages_received",
        "Custom messages of agents, by outcome.",
        [
            by("received", stats.custom_received.saturating_sub(stats.custom_dropped)),
            by("dropped", stats.custom_dropped),
            by("ignored", stats.custom_ignored),
        ],
    );
}

fn fleet(app: &App, page: &mut Snapshot) {
    let stats = app.fleet.stats();
    let by = |label: &'static str, words: Vec<(String, u64)>| {
        words.into_iter().map(move |(word, count)| (vec![(label, word)], float(count))).collect::<Vec<_>>()
    };
    let counts = &stats.counts;
    let liveness = Liveness::ALL.map(|word| (word.to_string(), counts.by_liveness()[word.index()])).to_vec();
    let health = Health::ALL.map(|word| (word.to_string(), counts.by_health()[word.index()])).to_vec();
    let drift = Drift::ALL.map(|word| (word.to_string(), counts.by_drift()[word.index()])).to_vec();
    page.gauges(
        "opamp_agents_registered",
        "Agents of the inventory.",
        [(Vec::new(), float(stats.registered))],
    );
    page.gauges(
        "opamp_agents",
        "Agents by liveness; the sum is opamp_agents_registered.",
        by("liveness", liveness),
    );
    page.gauges(
        "opamp_agents_health",
        "Agents by health; the sum is opamp_agents_registered.",
        by("health", health),
    );
    page.gauges(
        "opamp_agents_drift",
        "Agents by drift; the sum is opamp_agents_registered.",
        by("drift", drift),
    );
    page.gauges(
        "opamp_agents_flapping",
        "Agents that come and go too often.",
        [(Vec::new(), float(stats.flapping))],
    );
    let durations = stats.apply_durations.into_iter().map(|(agent_type, histogram)| {
        let buckets = Buckets {
            bounds: APPLY_DURATION_BOUNDS_S.to_vec(),
            counts: histogram.counts.to_vec(),
            sum: histogram.sum_s,
        };
        (vec![("agent_type", agent_type)], buckets)
    });
    page.histograms("opamp_apply_duration_seconds", "Time from offer to APPLIED.", durations);
    page.gauges(
        "opamp_store_records_waiting",
        "Changed agent records that wait to be written.",
        [(Vec::new(), float(stats.records_waiting))],
    );
    page.gauges(
        "opamp_audit_entries_waiting",
        "Audit entries that wait to be written.",
        [(Vec::new(), float(stats.audit_waiting))],
    );
    page.counter(
        "opamp_audit_entries_dropped",
        "Audit entries lost while the store was down.",
        stats.audit_dropped,
    );
}

fn store(app: &App, page: &mut Snapshot) {
    let stats = app.store.stats();
    page.counter("opamp_store_commits", "Commits acknowledged.", stats.commits);
    page.counter("opamp_store_commits_failed", "Commits refused or failed.", stats.commits_failed);
    page.counter("opamp_store_transactions", "Database transactions.", stats.transactions);
    page.counter("opamp_store_rows_written", "Rows written, checkpoints aside.", stats.rows_written);
    page.counter(
        "opamp_store_checkpoint_rows_written",
        "Rows of packed checkpoints written.",
        stats.checkpoint_rows_written,
    );
    page.counter(
        "opamp_store_checkpoints_written",
        "Checkpoints of agents written.",
        stats.checkpoints_written,
    );
}

fn admin(app: &App, page: &mut Snapshot) {
    page.counters("opamp_admin_requests", "Requests of the admin port.", app.requests.snapshot());
    page.counter(
        "opamp_admin_refused",
        "Requests of the admin port without valid credentials or sufficient role.",
        app.refused.load(Ordering::Relaxed),
    );
    let build =
        vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("opamp", crate::OPAMP_VERSION.to_owned())];
    page.gauges("opamp_build_info", "Always 1; the labels say what is running.", [(build, 1.0)]);
    page.gauges(
        "opamp_start_time_seconds",
        "When the server was started, in seconds since 1970.",
        [(Vec::new(), float(app.started_at.0) / 1000.0)],
    );
}

fn downloads(app: &App, page: &mut Snapshot) {
    let counted = app.downloads.snapshot();
    let running = float(counted.running);
    page.gauges("opamp_package_downloads_active", "Package downloads now.", [(Vec::new(), running)]);
    let outcomes = [("completed", counted.completed), ("cut", counted.cut), ("refused", counted.refused)];
    page.counters(
        "opamp_package_downloads",
        "Package downloads that ended, and requests for one that were refused, by outcome.",
        outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count)),
    );
    page.counter("opamp_package_download_bytes", "Bytes of package files sent.", counted.bytes);
}

fn self_agent(app: &App, page: &mut Snapshot) {
    let report = app.self_agent.report();
    let is = |yes: bool| f64::from(u8::from(yes));
    let verdicts = Verdict::ALL
        .map(|verdict| (vec![("verdict", verdict.as_str().to_owned())], is(report.verdict == verdict)));
    page.gauges("opamp_self_verdict", "1 for the verdict of the Self-Agent, 0 for the others.", verdicts);
    let probes: Vec<_> = Probe::ALL.into_iter().zip(&report.probes).collect();
    let named = |probe: Probe| ("probe", probe.as_str().to_owned());
    let states = probes.iter().flat_map(|(probe, record)| {
        ProbeState::ALL.map(|state| {
            (vec![named(*probe), ("state", state.as_str().to_owned())], is(record.state == state))
        })
    });
    page.gauges(
        "opamp_self_probe",
        "1 for the state of each probe of the Self-Agent, 0 for the others.",
        states,
    );
    let took =
        probes.iter().filter_map(|(probe, record)| Some((vec![named(*probe)], record.took?.as_secs_f64())));
    page.gauges("opamp_self_probe_duration_seconds", "How long the last probe took.", took);
    let failures = probes.iter().map(|(probe, record)| (vec![named(*probe)], record.failures));
    page.counters("opamp_self_probe_failures", "Probes that failed.", failures);
}

/// The process under the names that clients of Prometheus have in common. What the operating system does not tell is absent.
fn process(page: &mut Snapshot) {
    let usage = Usage::now();
    page.seconds(
        "process_cpu_seconds",
        "Processor time of the process, its part of the kernel's included.",
        usage.cpu.as_secs_f64(),
    );
    let gauges = [
        ("process_resident_memory_bytes", "Memory of the process in RAM.", usage.resident_bytes),
        ("process_virtual_memory_bytes", "Address space of the process.", usage.virtual_bytes),
        ("process_open_fds", "Open files, sockets included.", usage.open_files),
        ("process_max_fds", "Files that the process may have open.", open_files_max()),
        ("process_threads", "Threads of the process.", usage.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.gauge(name, help, float(value));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; these stay far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
