//! Who was let in, who waited, who was sent away; what peers make the server hold; how far the fleet is back.

use opamp_server::{AdmissionStage, AdmissionStats, FLEET_RETURN_PERCENT, QUEUE_WAIT_BOUNDS_S, SlowPeer};

use super::float;
use crate::metrics::{Buckets, Snapshot};

pub(super) fn admission(stats: &AdmissionStats, page: &mut Snapshot) {
    connections(stats, page);
    refused(stats, page);
    buffered(stats, page);
    resyncs(stats, page);
    drain(stats, page);
    fleet_return(stats, page);
}

fn connections(stats: &AdmissionStats, page: &mut Snapshot) {
    page.counter(
        "opamp_connections_admitted",
        "Connections of the OpAMP port that were let in.",
        stats.connections_admitted,
    );
    page.counter(
        "opamp_connections_deferred",
        "Of those let in, the ones that had to wait for their turn.",
        stats.connections_deferred,
    );
    page.gauge(
        "opamp_connections_waiting",
        "Connections that wait for their turn now.",
        float(stats.connections_waiting),
    );
    page.counter(
        "opamp_connections_gone",
        "Connections whose peers went away while they waited.",
        stats.connections_gone,
    );
    let waits = Buckets {
        bounds: QUEUE_WAIT_BOUNDS_S.to_vec(),
        counts: stats.queue_wait.counts.to_vec(),
        sum: stats.queue_wait.sum_s,
    };
    page.histograms(
        "opamp_connection_wait_seconds",
        "How long connections waited to be let in, those included that did not wait.",
        [(Vec::new(), waits)],
    );
    page.counter(
        "opamp_accept_failures",
        "Connections that could not be accepted, for want of open files mostly.",
        stats.accept_failures,
    );
}

fn refused(stats: &AdmissionStats, page: &mut Snapshot) {
    page.counters(
        "opamp_admission_rejected",
        "Connections, upgrades, polls and messages sent away, by stage.",
        AdmissionStage::ALL
            .map(|stage| (vec![("stage", stage.as_str().to_owned())], stats.rejected[stage.index()])),
    );
    page.counters(
        "opamp_slow_peers_closed",
        "Connections closed because their peers were too slow, by what they were too slow with.",
        SlowPeer::ALL
            .map(|slow| (vec![("with", slow.as_str().to_owned())], stats.slow_peers_closed[slow.index()])),
    );
}

fn buffered(stats: &AdmissionStats, page: &mut Snapshot) {
    let buffered = &stats.buffered;
    let gauges = [
        (
            "opamp_buffered_bytes",
            "Bytes of incomplete messages and of those that wait for slow readers.",
            buffered.used_bytes,
        ),
        ("opamp_buffered_bytes_peak", "The most of them at one time since the start.", buffered.peak_bytes),
        ("opamp_buffered_bytes_max", "As many as there may be.", buffered.max_bytes),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, float(value));
    }
    page.counter("opamp_buffered_denied", "How often there was no room for more of them.", buffered.denied);
}

fn resyncs(stats: &AdmissionStats, page: &mut Snapshot) {
    page.counter(
        "opamp_full_state_deferred",
        "Requests for full state that had to wait for their turn.",
        stats.resyncs_deferred,
    );
    page.gauge(
        "opamp_full_state_waiting",
        "Agents that wait to be asked for their full state now.",
        float(stats.resyncs_waiting),
    );
}

fn drain(stats: &AdmissionStats, page: &mut Snapshot) {
    let drain = stats.drain.unwrap_or_default();
    page.gauge(
        "opamp_drain_websockets",
        "WebSockets that were open when the shutdown began; 0 before.",
        float(drain.sockets),
    );
    page.gauge("opamp_drain_told", "How many of those were told to close.", float(drain.told));
}

fn fleet_return(stats: &AdmissionStats, page: &mut Snapshot) {
    let back = &stats.fleet_return;
    page.gauge(
        "opamp_fleet_return_expected",
        "Agents that were there when the server ended before.",
        float(back.expected),
    );
    page.gauge("opamp_fleet_return_returned", "How many of those are back.", float(back.returned));
    let reached = FLEET_RETURN_PERCENT.iter().zip(back.seconds);
    page.gauges(
        "opamp_fleet_return_seconds",
        "Time from the start until this share of them was back; absent before.",
        reached.filter_map(|(percent, seconds)| Some((vec![("percent", percent.to_string())], seconds?))),
    );
}
