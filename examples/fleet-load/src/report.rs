//! Figures of a phase: what the workers saw, merged, and what the server used meanwhile.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use crate::latency::{Latency, Percentiles};

/// Different words in one tally; further ones count as `other`.
const WORDS_MAX: usize = 64;

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// Counts one.
    pub fn add(&mut self, what: &str) {
        self.add_n(what, 1);
    }

    /// Counts several.
    pub fn add_n(&mut self, what: &str, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(counted) = self.0.get_mut(what) {
            *counted += count;
        } else {
            let word = if self.0.len() < WORDS_MAX { what } else { "other" };
            *self.0.entry(word.to_owned()).or_default() += count;
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add_n(what, *count);
        }
    }

    /// Takes out those that are chosen.
    #[must_use]
    pub fn split_off(&mut self, chosen: impl Fn(&str) -> bool) -> Self {
        let (off, left) = std::mem::take(&mut self.0).into_iter().partition(|(what, _)| chosen(what));
        self.0 = left;
        Self(off)
    }

    /// How often that happened.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// `what count, what count`.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// What one worker saw in a phase, or all of them together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Agents whose connection stands at the end, without those that take nothing from it.
    pub agents: u64,
    /// What was done, in the phase's unit: answered messages, connections made, agents that applied.
    pub units: u64,
    /// How long it took.
    pub elapsed_ns: u64,
    /// From sending a message to its answer, or from starting a connection to the answer to its first message.
    pub latency: Latency,
    /// How much later than planned messages were sent, because the load generator itself was late.
    pub late: Latency,
    /// From the start of the phase until an agent was back, or had applied its config.
    pub since_start: Latency,
    /// What must not happen.
    pub failures: Tally,
    /// What may happen and is worth knowing.
    pub counts: Tally,
}

impl Seen {
    /// Adds what another worker saw in the same phase.
    pub fn merge(&mut self, other: &Self) {
        self.agents += other.agents;
        self.units += other.units;
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
        self.latency.merge(&other.latency);
        self.late.merge(&other.late);
        self.since_start.merge(&other.since_start);
        self.failures.merge(&other.failures);
        self.counts.merge(&other.counts);
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Name of the server, as the caller gave it.
    pub server: String,
    /// Which repetition this is, as the caller numbered it.
    pub round: u32,
    /// The phase.
    pub phase: String,
    /// What `cpu_us_per_unit` is divided by.
    pub unit: String,
    /// Agents connected at the end of it, without those that take nothing from their connection.
    pub agents: u64,
    /// Units done: answered messages, connections, agents.
    pub messages: u64,
    /// How long it took.
    pub seconds: f64,
    /// CPU time that the server used, if its process is known.
    pub server_cpu_s: Option<f64>,
    /// That, by unit.
    pub cpu_us_per_unit: Option<f64>,
    /// Resident memory of the server at the end.
    pub rss_bytes: Option<u64>,
    /// What came on top since before the first connection, by agent.
    pub rss_per_agent: Option<f64>,
    /// Seconds since the start of the phase and resident memory then, in long phases.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub rss_samples: Vec<(f64, u64)>,
    /// From sending to the answer.
    pub latency_us: Option<Percentiles>,
    /// How late the load generator itself was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub late_us: Option<Percentiles>,
    /// From the start of the phase until an agent was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since_start_us: Option<Percentiles>,
    /// What must not happen; empty in a good run.
    pub failures: Tally,
    /// What else is worth knowing.
    #[serde(skip_serializing_if = "Tally::is_empty", default)]
    pub counts: Tally,
}

/// The lines as a table for people, with what went wrong below it.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    const HEADS: [&str; 9] =
        ["phase", "agents", "done", "s", "CPU us/unit", "RSS MiB", "RSS B/agent", "p50 us", "p99.9 us"];
    let rows: Vec<[String; 9]> = lines
        .iter()
        .map(|line| {
            let optional = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let latency = |of: fn(&Percentiles) -> f64| optional(line.latency_us.as_ref().map(of), 0);
            [
                line.phase.clone(),
                line.agents.to_string(),
                line.messages.to_string(),
                format!("{:.2}", line.seconds),
                optional(line.cpu_us_per_unit, 2),
                optional(line.rss_bytes.map(|bytes| bytes as f64 / 1_048_576.0), 1),
                optional(line.rss_per_agent, 0),
                latency(|percentiles| percentiles.p50),
                latency(|percentiles| percentiles.p999),
            ]
        })
        .collect();
    let widths: Vec<usize> = HEADS
        .iter()
        .enumerate()
        .map(|(at, head)| rows.iter().map(|row| row[at].len()).chain([head.len()]).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    let mut put = |cells: &[String]| {
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Names to the left, figures to the right. Writing to a string does not fail.
            let _ = if at == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    };
    put(&HEADS.map(str::to_owned));
    for row in &rows {
        put(row);
    }
    for line in lines {
        if let Some(since) = &line.since_start_us {
            let secs = |us: f64| us / 1e6;
            let _ = writeln!(
                text,
                "{}: half of them after {:.2} s, 90 % after {:.2} s, 99 % after {:.2} s, all {} after {:.2} s",
                line.phase,
                secs(since.p50),
                secs(since.p90),
                secs(since.p99),
                since.count,
                secs(since.max)
            );
        }
        if !line.counts.is_empty() {
            let _ = writeln!(text, "{}: {}", line.phase, line.counts.text());
        }
    }
    for line in lines.iter().filter(|line| !line.failures.is_empty()) {
        let _ = writeln!(text, "FAILURES in {}: {}", line.phase, line.failures.text());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(agents: u64, elapsed_ns: u64, failures: &[&str]) -> Seen {
        let mut seen = Seen { agents, units: agents * 10, elapsed_ns, ..Default::default() };
        for failure in failures {
            seen.failures.add(failure);
        }
        seen.latency.record_ns(1_000 * agents);
        seen
    }

    #[test]
    fn reports_of_workers_add_up() {
        let mut all = Seen::default();
        all.merge(&seen(10, 500, &["lost", "lost"]));
        all.merge(&seen(20, 400, &["lost", "closed"]));
        assert_eq!((all.agents, all.units, all.elapsed_ns), (30, 300, 500));
        assert_eq!((all.failures.count("lost"), all.failures.count("closed")), (3, 1));
        assert_eq!(all.latency.percentiles().unwrap().count, 2);
    }

    #[test]
    fn a_tally_holds_only_so_many_words_and_forgets_no_count() {
        let mut tally = Tally::default();
        for at in 0..1_000 {
            tally.add(&format!("word {at}"));
        }
        assert!(tally.0.len() <= WORDS_MAX + 1);
        assert_eq!(tally.total(), 1_000);
    }

    #[test]
    fn the_table_names_every_phase_and_every_failure() {
        let mut failures = Tally::default();
        failures.add_n("lost", 3);
        let line = |phase: &str, failures: Tally| Line {
            server: "ours".to_owned(),
            round: 1,
            phase: phase.to_owned(),
            unit: "message".to_owned(),
            agents: 10_000,
            messages: 5,
            seconds: 1.0,
            server_cpu_s: None,
            cpu_us_per_unit: Some(6.25),
            rss_bytes: None,
            rss_per_agent: None,
            rss_samples: Vec::new(),
            latency_us: None,
            late_us: None,
            since_start_us: None,
            failures,
            counts: Tally::default(),
        };
        let text = table(&[line("idle", Tally::default()), line("heartbeat saturated", failures)]);
        assert!(text.contains("heartbeat saturated") && text.contains("6.25"), "{text}");
        assert!(text.contains("FAILURES in heartbeat saturated: lost 3"), "{text}");
        assert!(!text.contains("FAILURES in idle"), "{text}");
    }
}
