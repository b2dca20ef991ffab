//! Metrics, and how they are written in OTLP.

use opamp_proto::pb;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric as OtlpMetric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

/// One metric with all its points.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    unit: &'static str,
    about: &'static str,
    kind: Kind,
    pub(super) points: Vec<Point>,
}

/// One value, perhaps of several.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    value: number_data_point::Value,
    attribute: Option<(&'static str, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Only grows.
    Counter,
    /// A value that cannot be added up.
    Gauge,
    /// A sum that goes up and down.
    UpDown,
}

/// When what was measured, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) started: u64,
    pub(super) now: u64,
}

impl Metric {
    pub(super) const fn counter(name: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self { name, unit, about, kind: Kind::Counter, points: Vec::new() }
    }

    pub(super) const fn gauge(name: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self { name, unit, about, kind: Kind::Gauge, points: Vec::new() }
    }

    pub(super) const fn sum(name: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self { name, unit, about, kind: Kind::UpDown, points: Vec::new() }
    }

    pub(super) fn point(mut self, point: Point) -> Self {
        self.points.push(point);
        self
    }

    fn encoded(self, span: Span) -> OtlpMetric {
        let data_points = self.points.into_iter().map(|point| point.encoded(span)).collect();
        let sum = |is_monotonic| {
            let aggregation_temporality = AggregationTemporality::Cumulative as i32;
            Data::Sum(Sum { aggregation_temporality, is_monotonic, ..Sum::default() })
        };
        let mut data = match self.kind {
            Kind::Counter => sum(true),
            Kind::Gauge => Data::Gauge(Gauge::default()),
            Kind::UpDown => sum(false),
        };
        match &mut data {
            Data::Sum(sum) => sum.data_points = data_points,
            Data::Gauge(gauge) => gauge.data_points = data_points,
            _ => {}
        }
        OtlpMetric {
            name: self.name.to_owned(),
            unit: self.unit.to_owned(),
            description: self.about.to_owned(),
            data: Some(data),
            ..OtlpMetric::default()
        }
    }
}

impl Point {
    pub(super) const fn real(value: f64) -> Self {
        Self { value: number_data_point::Value::AsDouble(value), attribute: None }
    }

    pub(super) fn whole(value: u64) -> Self {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        Self { value: number_data_point::Value::AsInt(value), attribute: None }
    }

    pub(super) const fn of(mut self, key: &'static str, value: &'static str) -> Self {
        self.attribute = Some((key, value));
        self
    }

    fn encoded(self, span: Span) -> NumberDataPoint {
        let text = |(key, value): (&str, &str)| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
            ..KeyValue::default()
        };
        NumberDataPoint {
            attributes: self.attribute.map(text).into_iter().collect(),
            start_time_unix_nano: span.started,
            time_unix_nano: span.now,
            value: Some(self.value),
            ..NumberDataPoint::default()
        }
    }
}

/// The request that exports these metrics of an agent with these attributes (OTLP, `ExportMetricsServiceRequest`).
pub(super) fn request(identity: &[pb::KeyValue], metrics: Vec<Metric>, span: Span) -> Vec<u8> {
    // Attributes of OpAMP and OTLP are the same on the wire.
    let attribute = |given: &pb::KeyValue| KeyValue::decode(&given.encode_to_vec()[..]).ok();
    let resource =
        Resource { attributes: identity.iter().filter_map(attribute).collect(), ..Resource::default() };
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let metrics = metrics.into_iter().map(|metric| metric.encoded(span)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}
