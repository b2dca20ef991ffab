//! `/metrics`: everything the server counts, as OpenMetrics text.
//!
//! The libraries count in plain numbers; a scrape takes a [`Snapshot`] of them and writes it down. Nothing is kept twice.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, text},
    metrics::MetricType,
    registry::Registry,
};

/// Media type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One scrape.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(Vec<Metric>);

#[derive(Debug)]
struct Metric {
    /// Without `_total`, which the encoder adds to counters.
    name: &'static str,
    help: &'static str,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Counter(Vec<(Labels, u64)>),
    Seconds(f64),
    Gauge(Vec<(Labels, f64)>),
    Histogram(Vec<(Labels, Buckets)>),
}

type Labels = Vec<(&'static str, String)>;

/// A histogram: counts per bucket (not cumulated), the last one for everything above the bounds.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    pub(crate) bounds: Vec<f64>,
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: f64,
}

impl Snapshot {
    /// A counter without labels; `name` without `_total`.
    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counters(name, help, [(Vec::new(), value)]);
    }

    /// A counter per label set.
    pub(crate) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.0.push(Metric { name, help, values: Values::Counter(values.into_iter().collect()) });
    }

    /// A counter of seconds without labels; `name` without `_total`.
    pub(crate) fn seconds(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.0.push(Metric { name, help, values: Values::Seconds(value) });
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, [(Vec::new(), value)]);
    }

    /// A gauge per label set.
    pub(crate) fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.0.push(Metric { name, help, values: Values::Gauge(values.into_iter().collect()) });
    }

    /// A histogram per label set.
    pub(crate) fn histograms(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, Buckets)>,
    ) {
        self.0.push(Metric { name, help, values: Values::Histogram(values.into_iter().collect()) });
    }

    /// The OpenMetrics text.
    pub(crate) fn render(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, help, values } in &self.0 {
            match values {
                Values::Counter(values) => {
                    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    each(&mut metric, values, |encoder, value| {
                        encoder.encode_counter::<NoLabels, _, u64>(value, None)
                    })?;
                }
                Values::Seconds(value) => {
                    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    metric.encode_counter::<NoLabels, _, u64>(value, None)?;
                }
                Values::Gauge(values) => {
                    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    each(&mut metric, values, |encoder, value| encoder.encode_gauge(value))?;
                }
                Values::Histogram(values) => {
                    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
                    each(&mut metric, values, |encoder, buckets| {
                        let bounds = buckets.bounds.iter().copied().chain([f64::INFINITY]);
                        let pairs: Vec<_> = bounds.zip(buckets.counts.iter().copied()).collect();
                        let count = buckets.counts.iter().sum();
                        encoder.encode_histogram::<NoLabels>(buckets.sum, count, &pairs, None)
                    })?;
                }
            }
        }
        Ok(())
    }
}

type NoLabels = [(&'static str, &'static str); 0];

fn each<T>(
    metric: &mut MetricEncoder<'_>,
    values: &[(Labels, T)],
    encode: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in values {
        if labels.is_empty() {
            encode(metric, value)?;
        } else {
            let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            encode(&mut metric.encode_family(&BorrowedLabels(&labels))?, value)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct BorrowedLabels<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for BorrowedLabels<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// Requests of the admin port by route, method and status. Bounded: the route is the template, not the path, and
/// methods outside the usual ones are folded.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts(Mutex<BTreeMap<(String, &'static str, u16), u64>>);

impl RequestCounts {
    pub(crate) fn count(&self, route: &str, method: &http::Method, status: u16) {
        let method = match method.as_str() {
            "GET" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((route.to_owned(), method, status)).or_default() += 1;
    }

    pub(crate) fn snapshot(&self) -> Vec<(Labels, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let labelled = |(route, method, status): &(String, &str, u16)| {
            vec![("route", route.clone()), ("method", (*method).to_owned()), ("status", status.to_string())]
        };
        counts.iter().map(|(key, count)| (labelled(key), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_end_in_total_once_and_histograms_cumulate() {
        let mut snapshot = Snapshot::default();
        snapshot.counter("frames_received", "Frames.", 7);
        snapshot.counters("refused", "Refused.", [(vec![("reason", "a\"b\\c\n".into())], 1)]);
        snapshot.seconds("cpu_seconds", "Processor time.", 1.25);
        snapshot.gauges("agents", "Agents.", [(vec![("liveness", "stale".into())], 2.0)]);
        let buckets = Buckets { bounds: vec![60.0, 300.0], counts: vec![1, 2, 3], sum: 10.5 };
        snapshot.histograms("duration_seconds", "Durations.", [(Vec::new(), buckets)]);
        let page = snapshot.render().unwrap();
        for line in [
            "# TYPE frames_received counter",
            "frames_received_total 7",
            "# TYPE cpu_seconds counter",
            "cpu_seconds_total 1.25",
            r#"refused_total{reason="a\"b\\c\n"} 1"#,
            r#"agents{liveness="stale"} 2.0"#,
            r#"duration_seconds_bucket{le="60.0"} 1"#,
            r#"duration_seconds_bucket{le="300.0"} 3"#,
            r#"duration_seconds_bucket{le="+Inf"} 6"#,
            "duration_seconds_count 6",
            "duration_seconds_sum 10.5",
            "# EOF",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("total_total"));
    }
}
