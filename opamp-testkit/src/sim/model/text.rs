//! A rollout in lines for people.

use opamp_fleet::rollout::Summary;
use opamp_fleet::rollout::preview::grouped;

/// Counts of a rollout in one line, without those that are 0.
#[must_use]
pub fn counts(summary: &Summary) -> String {
    let all = [
        (summary.pending, "pending"),
        (summary.applying, "applying"),
        (summary.applied, "applied"),
        (summary.failed, "failed"),
        (summary.neutral, "neutral"),
        (summary.deferred, "deferred"),
    ];
    let shown: Vec<String> = all
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{word} {}", grouped(count)))
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::OperatorState;

    use super::*;

    #[test]
    fn counts_of_nobody_are_left_out() {
        let summary = Summary {
            state: OperatorState::InProgress,
            batch: 1,
            batches: 4,
            pending: 9_960,
            applying: 2,
            applied: 0,
            failed: 1,
            disconnected_since_push: 0,
            neutral: 0,
            deferred: 3,
            total: 13,
            per_minute: 0,
            stopped_by: None,
            texts: Vec::new(),
        };
        assert_eq!(counts(&summary), "pending 9,960, applying 2, failed 1, deferred 3");
    }
}
