//! Telemetry gates: what treated agents do against those that are left as they are (R36).
//!
//! | gate | value, its mean over agents | worse is |
//! |---|---|---|
//! | `throughput-drop` | what is passed on | less |
//! | `export-failures` | exports that fail | more |
//! | `queue-fill` | how full queues are | more |
//! | `memory-rise` | memory in use | more |
//! | `cpu-rise` | processor time in use | more |
//!
//! Values come as readings of both groups. They are compared crosswise, so that nothing is rounded. A gate without enough
//! values on both sides has no data. By default they observe.

use super::judge::Facts;
use super::{Evidence, GateConfig, GateKind, Limit, NoData, Test, TestKind, Verdict};
use crate::rollout::stats::Ppm;
use crate::rollout::{GateIx, Sample};

/// What the gate says of a wave.
pub(super) fn judge(facts: &Facts<'_>, gate: GateIx, config: &GateConfig) -> Option<Evidence> {
    let wave = facts.wave?;
    let over = match (facts.raised.iter().find(|(raised, _, _)| *raised == gate), config.tests.first()) {
        (Some((_, over, _)), _) | (None, Some(Test::Compare { over })) => *over,
        (None, _) => return None,
    };
    let enough = |sample: &Sample| sample.count >= config.min_sample;
    let values = facts.readings.telemetry(gate, wave);
    let Some((treated, control)) = values.filter(|(treated, control)| enough(treated) && enough(control))
    else {
        let is_missed = facts.at_end && facts.settled > 0 && config.no_data == NoData::Hold;
        return is_missed.then(|| Evidence {
            blind: facts.settled,
            of: facts.settled,
            ..facts.evidence(config, Verdict::NoData, TestKind::Compare)
        });
    };
    is_worse(config.kind, treated, control, over).then(|| Evidence {
        of: treated.count,
        limit: Limit::Mean { treated_milli: mean(treated), control_milli: mean(control), over },
        ..facts.evidence(config, Verdict::Fail, TestKind::Compare)
    })
}

/// Whether the mean of the treated is worse by more than `over`. A mean of the control group that is not above 0 is
/// compared without a margin.
fn is_worse(kind: GateKind, treated: Sample, control: Sample, over: Ppm) -> bool {
    let all = i128::from(Ppm::ALL.0);
    let margin = i128::from(over.0);
    let treated_times = i128::from(treated.sum_milli) * i128::from(control.count) * all;
    let control_times = i128::from(control.sum_milli) * i128::from(treated.count);
    let margin = if control_times > 0 { margin } else { 0 };
    match kind {
        GateKind::ThroughputDrop => treated_times < control_times * (all - margin),
        _ => treated_times > control_times * (all + margin),
    }
}

/// The mean in thousandths, rounded towards 0.
fn mean(sample: Sample) -> i64 {
    sample.sum_milli / i64::from(sample.count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(count: u32, mean: i64) -> Sample {
        Sample { count, sum_milli: mean * i64::from(count) }
    }

    #[test]
    fn each_gate_knows_which_way_is_worse() {
        for (kind, treated, worse) in [
            (GateKind::ThroughputDrop, 79, true),
            (GateKind::ThroughputDrop, 80, false),
            (GateKind::ThroughputDrop, 200, false),
            (GateKind::ExportFailures, 121, true),
            (GateKind::ExportFailures, 120, false),
            (GateKind::QueueFill, 121, true),
            (GateKind::MemoryRise, 121, true),
            (GateKind::MemoryRise, 10, false),
            (GateKind::CpuRise, 121, true),
        ] {
            let found = is_worse(kind, sample(7, treated), sample(30, 100), Ppm::percent(20));
            assert_eq!(found, worse, "{kind}: {treated} against 100");
        }
    }

    #[test]
    fn a_control_group_at_zero_leaves_no_margin() {
        let worse =
            |treated| is_worse(GateKind::ExportFailures, sample(5, treated), sample(5, 0), Ppm::percent(20));
        assert!(worse(1) && !worse(0));
    }

    #[test]
    fn the_largest_values_are_compared_without_overflow() {
        let most = Sample { count: u32::MAX, sum_milli: i64::MAX };
        let least = Sample { count: u32::MAX, sum_milli: i64::MIN };
        assert!(is_worse(GateKind::CpuRise, most, least, Ppm::percent(20)));
        assert!(is_worse(GateKind::ThroughputDrop, least, most, Ppm::percent(20)));
        assert_eq!(mean(Sample::default()), 0);
    }
}
