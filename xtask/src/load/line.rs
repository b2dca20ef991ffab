//! What the load generator reports of a phase: one JSON object on a line.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::workspace::WorkspaceError;

/// A load generator that is later than this, in microseconds at p99, measures itself.
pub(crate) const LATE_US_MAX: f64 = 1_000.0;

/// Percentiles of durations, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Percentiles {
    /// The median.
    pub(crate) p50: f64,
    /// 99 % are not longer.
    pub(crate) p99: f64,
    /// 99.9 % are not longer.
    pub(crate) p99_9: f64,
    /// The longest.
    pub(crate) max: f64,
}

/// One phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) phase: String,
    /// Agents connected at its end.
    pub(crate) agents: u64,
    /// Answered messages, connections made, agents that applied.
    pub(crate) done: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// CPU time of the server.
    pub(crate) server_cpu_s: Option<f64>,
    /// The same by what was done.
    pub(crate) cpu_us_per_unit: Option<f64>,
    /// Resident memory of the server at its end.
    pub(crate) rss_bytes: Option<f64>,
    /// The same by agent, less what the server had without agents.
    pub(crate) rss_per_agent: Option<f64>,
    /// Seconds since its start and resident memory then.
    pub(crate) rss_samples: Vec<(f64, f64)>,
    /// From sending to the answer.
    pub(crate) latency_us: Option<Percentiles>,
    /// How much later than planned messages were sent, because the load generator itself was late.
    pub(crate) late_us: Option<Percentiles>,
    /// From the start of the phase until an agent was done.
    pub(crate) since_start_us: Option<Percentiles>,
    /// What must not happen.
    pub(crate) failures: BTreeMap<String, u64>,
    /// What may happen and is worth knowing.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Line {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// It is no such object.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
        let missing = |key: &str| format!("`{key}` is missing: {text}");
        let count = |key: &str| value[key].as_u64().ok_or_else(|| missing(key));
        Ok(Self {
            phase: value["phase"].as_str().ok_or_else(|| missing("phase"))?.to_owned(),
            agents: count("agents")?,
            done: count("messages")?,
            seconds: value["seconds"].as_f64().ok_or_else(|| missing("seconds"))?,
            server_cpu_s: value["server_cpu_s"].as_f64(),
            cpu_us_per_unit: value["cpu_us_per_unit"].as_f64(),
            rss_bytes: value["rss_bytes"].as_f64(),
            rss_per_agent: value["rss_per_agent"].as_f64(),
            rss_samples: samples(&value["rss_samples"]),
            latency_us: percentiles(&value["latency_us"]),
            late_us: percentiles(&value["late_us"]),
            since_start_us: percentiles(&value["since_start_us"]),
            failures: tally(&value["failures"]).ok_or_else(|| missing("failures"))?,
            counts: tally(&value["counts"]).unwrap_or_default(),
        })
    }

    /// Adds what agents of another server saw in the same phase: numbers of agents and units, memory and failures.
    pub(crate) fn add(&mut self, other: &Self) {
        self.phase.clone_from(&other.phase);
        self.agents += other.agents;
        self.done += other.done;
        if let Some(rss) = other.rss_bytes {
            *self.rss_bytes.get_or_insert(0.0) += rss;
        }
        for (all, some) in [(&mut self.failures, &other.failures), (&mut self.counts, &other.counts)] {
            for (what, count) in some {
                *all.entry(what.clone()).or_default() += count;
            }
        }
    }

    /// Whether the load generator itself was on time, so that latencies are the server's: false if it was not, or sent less
    /// than it should have.
    #[must_use]
    pub(crate) fn on_time(&self) -> bool {
        self.late_us.is_none_or(|late| late.p99 <= LATE_US_MAX) && !self.counts.contains_key("not_sent")
    }

    /// How late the load generator was, as a person reads it; none if it sent at no times of its own.
    #[must_use]
    pub(crate) fn lateness(&self) -> Option<String> {
        let late = self.late_us?;
        let mut text = format!("late by {:.0} µs (median), {:.0} µs (p99)", late.p50, late.p99);
        for word in ["not_sent", "skipped"] {
            if let Some(count) = self.counts.get(word) {
                text.push_str(&format!(", {} {count}", word.replace('_', " ")));
            }
        }
        Some(text)
    }

    /// What went wrong, as a person reads it; none if nothing did.
    #[must_use]
    pub(crate) fn failure(&self) -> Option<String> {
        let words: Vec<String> =
            self.failures.iter().map(|(what, count)| format!("{what} {count}")).collect();
        (!words.is_empty()).then(|| format!("{}: {}", self.phase, words.join(", ")))
    }
}

/// Reads the file of a run.
///
/// # Errors
///
/// It is missing, or one of its lines is none.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, WorkspaceError> {
    let failed = |why: String| WorkspaceError(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    text.lines().map(Line::parse).collect::<Result<_, _>>().map_err(failed)
}

fn percentiles(value: &Value) -> Option<Percentiles> {
    let at = |key: &str| value[key].as_f64();
    Some(Percentiles { p50: at("p50")?, p99: at("p99")?, p99_9: at("p999")?, max: at("max")? })
}

fn samples(value: &Value) -> Vec<(f64, f64)> {
    let pairs = value.as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair[0].as_f64()?, pair[1].as_f64()?))).collect()
}

fn tally(value: &Value) -> Option<BTreeMap<String, u64>> {
    value.as_object()?.iter().map(|(what, count)| Some((what.clone(), count.as_u64()?))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_all_it_says() {
        let line = Line::parse(
            r#"{"server":"ours","round":1,"phase":"idle","unit":"second","agents":3,"messages":2,"seconds":1.5,
               "server_cpu_s":0.25,"cpu_us_per_unit":12.5,"rss_bytes":4096,"rss_per_agent":100.5,
               "rss_samples":[[0.5,4000],[1.0,4096]],
               "latency_us":{"count":2,"mean":1.0,"p50":1.0,"p90":2.0,"p99":3.0,"p999":4.0,"max":5.0},
               "late_us":{"count":2,"mean":1.0,"p50":2.0,"p90":2.0,"p99":7.0,"p999":8.0,"max":9.0},
               "failures":{"lost":2},"counts":{"restored":1}}"#,
        )
        .unwrap();
        assert_eq!((line.agents, line.done, line.seconds), (3, 2, 1.5));
        assert_eq!((line.cpu_us_per_unit, line.rss_per_agent), (Some(12.5), Some(100.5)));
        assert_eq!(line.rss_samples, [(0.5, 4000.0), (1.0, 4096.0)]);
        assert_eq!(line.latency_us.unwrap().p99_9, 4.0);
        assert_eq!(line.late_us.unwrap().p99, 7.0);
        assert_eq!(line.since_start_us, None);
        assert_eq!(line.failure().as_deref(), Some("idle: lost 2"));
        assert_eq!(line.counts["restored"], 1);
    }

    #[test]
    fn a_late_load_generator_is_told_from_a_slow_server() {
        let mut line = Line::default();
        assert!(line.on_time() && line.lateness().is_none());
        line.late_us = Some(Percentiles { p50: 20.0, p99: 1_000.0, ..Percentiles::default() });
        assert!(line.on_time());
        line.counts.insert("not_sent".to_owned(), 3);
        assert!(!line.on_time());
        assert_eq!(line.lateness().unwrap(), "late by 20 µs (median), 1000 µs (p99), not sent 3");
        line.counts.clear();
        line.late_us = Some(Percentiles { p99: 1_001.0, ..Percentiles::default() });
        assert!(!line.on_time());
    }

    #[test]
    fn lines_of_several_servers_add_up_with_what_failed_on_any() {
        let mut one = Line { agents: 3, done: 2, rss_bytes: Some(5.0), ..Line::default() };
        one.failures.insert("lost".to_owned(), 1);
        let mut all = Line::default();
        all.add(&one);
        all.add(&Line { agents: 4, phase: "idle".to_owned(), ..Line::default() });
        all.add(&one);
        assert_eq!((all.agents, all.done, all.rss_bytes), (10, 4, Some(10.0)));
        assert_eq!(all.failures["lost"], 2);
    }

    #[test]
    fn what_is_not_known_is_absent_and_what_must_be_there_is_asked_for() {
        let text =
            r#"{"phase":"idle","agents":3,"messages":2,"seconds":1.5,"server_cpu_s":null,"failures":{}}"#;
        let line = Line::parse(text).unwrap();
        assert_eq!((line.server_cpu_s, line.latency_us, line.failure()), (None, None, None));
        for key in ["phase", "agents", "messages", "seconds", "failures"] {
            let without = text.replace(&format!("\"{key}\""), "\"other\"");
            assert!(Line::parse(&without).unwrap_err().contains(key));
        }
        assert!(Line::parse("{").is_err());
    }
}
