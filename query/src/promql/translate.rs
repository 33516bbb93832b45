//! The Prometheus view of OpenTelemetry metrics: names and labels as Prometheus' own OTLP endpoint makes them with
//! its default strategy, UnderscoreEscapingWithSuffixes (github.com/prometheus/otlptranslator 1.0; OpenTelemetry
//! specification, "Prometheus and OpenMetrics Compatibility").
//!
//! As there by default, resource attributes other than the identifying ones are not labels but `target_info`, and
//! instrumentation scopes are not visible (`promote_scope_metadata` is off).

use std::collections::BTreeMap;

use oteld_store::model::{AnyValue, Attributes, Metric, MetricKind, Resource, Series};

use super::labels::{Labels, METRIC_NAME};
use crate::text::value_text;

/// The metric that carries a resource's attributes.
pub const TARGET_INFO: &str = "target_info";

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE: &str = "service.instance.id";
const IDENTIFYING: [&str; 3] = [SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE];

/// The name of the metric family, before `_bucket`, `_sum` and `_count`. `None` when nothing of the name is left.
pub fn family_name(metric: &Metric) -> Option<String> {
    let mut tokens: Vec<&str> = metric.name.split(|c| !is_name_char(c)).filter(|t| !t.is_empty()).collect();
    let (main, per) = unit_suffixes(&metric.unit);
    if !main.is_empty() && !tokens.contains(&main.as_str()) {
        tokens.push(if per.is_empty() { &main } else { main.trim_end_matches('_') });
    }
    if !per.is_empty() && !tokens.contains(&per.as_str()) {
        tokens.push(&per);
    }
    if matches!(metric.kind, MetricKind::Sum { monotonic: true, .. }) {
        tokens.retain(|token| *token != "total");
        tokens.push("total");
    }
    if metric.kind == MetricKind::Gauge && &*metric.unit == "1" {
        tokens.retain(|token| *token != "ratio");
        tokens.push("ratio");
    }
    let name = tokens.join("_");
    match name.chars().next() {
        None => None,
        Some(first) if first.is_ascii_digit() => Some(format!("_{name}")),
        Some(_) => Some(name),
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// The suffixes for the unit and for what it is per (with `per_`), empty where there is none. Annotations in braces
/// are no units.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |text: &str, table: fn(&str) -> Option<&'static str>| {
        let text = text.trim();
        if text.is_empty() || text.contains(['{', '}']) {
            return String::new();
        }
        clean_unit(table(text).unwrap_or(text))
    };
    let per = word(per, per_unit_word).trim_end_matches('_').to_owned();
    let per = if per.is_empty() { per } else { format!("per_{per}") };
    (word(main, unit_word), per)
}

/// Escapes a unit that no table knows: single underscores, none in front.
fn clean_unit(unit: &str) -> String {
    let mut clean = String::with_capacity(unit.len());
    for c in unit.chars() {
        if is_name_char(c) {
            clean.push(c);
        } else if !clean.ends_with('_') {
            clean.push('_');
        }
    }
    clean.trim_start_matches('_').to_owned()
}

fn unit_word(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        // Not "tebibytes": dashboards know the name that Prometheus gives it.
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        _ => return None,
    })
}

fn per_unit_word(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        _ => return None,
    })
}

/// A valid label name for an attribute key; `None` for an empty key and for one of which only underscores are left.
pub fn label_name(key: &str) -> Option<String> {
    let name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name != key && name.chars().all(|c| c == '_') {
        return None;
    }
    let first = name.chars().next()?;
    if first.is_ascii_digit() {
        Some(format!("key_{name}"))
    } else if first == '_' && !name.starts_with("__") {
        Some(format!("key{name}"))
    } else {
        Some(name)
    }
}

/// Labels of a series without its name: point attributes, `job` and `instance`. Values of attributes whose names
/// become equal are joined with `;` in order of their keys.
pub fn series_labels(series: &Series) -> Labels {
    translate(&series.resource, &series.attributes, &[])
}

/// Labels of a resource's `target_info`; `None` for a resource that identifies nothing or has nothing to tell.
pub fn target_info_labels(resource: &Resource) -> Option<Labels> {
    let tells = resource.attributes.iter().any(|(key, _)| !IDENTIFYING.contains(&key));
    let identified =
        [SERVICE_NAME, SERVICE_INSTANCE].iter().any(|key| resource.attributes.get(key).is_some());
    if !tells || !identified {
        return None;
    }
    let mut labels = translate(resource, &resource.attributes, &IDENTIFYING);
    labels.set(METRIC_NAME, TARGET_INFO);
    Some(labels)
}

fn translate(resource: &Resource, attributes: &Attributes, ignore: &[&str]) -> Labels {
    let mut sorted: Vec<(&str, &AnyValue)> =
        attributes.iter().filter(|(key, _)| !ignore.contains(key)).collect();
    sorted.sort_by_key(|(key, _)| *key);
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in sorted {
        let Some(name) = label_name(key) else { continue };
        let text = value_text(value).into_owned();
        labels.entry(name).and_modify(|joined| *joined = format!("{joined};{text}")).or_insert(text);
    }
    if let Some(name) = resource.attributes.get(SERVICE_NAME).map(value_text) {
        let job = match resource.attributes.get(SERVICE_NAMESPACE).map(value_text) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.into_owned(),
        };
        labels.insert("job".to_owned(), job);
    }
    if let Some(instance) = resource.attributes.get(SERVICE_INSTANCE).map(value_text) {
        labels.insert("instance".to_owned(), instance.into_owned());
    }
    labels.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use oteld_store::model::Temporality;

    use super::*;

    fn name(name: &str, unit: &str, kind: MetricKind) -> Option<String> {
        family_name(&Metric {
            name: name.into(),
            unit: unit.into(),
            description: "".into(),
            kind,
            metadata: Attributes::default(),
        })
    }

    #[test]
    fn names_get_the_suffixes_of_unit_and_type() {
        let counter = MetricKind::Sum { monotonic: true, temporality: Temporality::Cumulative };
        let updown = MetricKind::Sum { monotonic: false, temporality: Temporality::Cumulative };
        let histogram = MetricKind::Histogram { temporality: Temporality::Cumulative };
        let cases = [
            ("http.server.request.duration", "s", histogram, "http_server_request_duration_seconds"),
            ("system.network.io", "By", counter, "system_network_io_bytes_total"),
            ("requests_total", "1", counter, "requests_total"),
            ("total.requests", "{request}", counter, "requests_total"),
            ("cpu.utilization", "1", MetricKind::Gauge, "cpu_utilization_ratio"),
            ("queue.size", "1", updown, "queue_size"),
            ("disk.io", "By/s", MetricKind::Gauge, "disk_io_bytes_per_second"),
            ("hits", "{hit}/s", MetricKind::Gauge, "hits_per_second"),
            ("load", "foo.bar", MetricKind::Gauge, "load_foo_bar"),
            ("2xx", "", MetricKind::Gauge, "_2xx"),
            ("a__b..c", "", MetricKind::Gauge, "a_b_c"),
            ("go.memory.used.bytes", "By", MetricKind::Gauge, "go_memory_used_bytes"),
            ("job:rate5m", "", MetricKind::Gauge, "job:rate5m"),
        ];
        for (otel, unit, kind, prometheus) in cases {
            assert_eq!(name(otel, unit, kind).as_deref(), Some(prometheus), "{otel} in {unit}");
        }
        assert_eq!(name("...", "", MetricKind::Gauge), None);
    }

    #[test]
    fn label_names_are_escaped() {
        let cases = [
            ("http.method", Some("http_method")),
            ("1st", Some("key_1st")),
            ("_private", Some("key_private")),
            ("__meta", Some("__meta")),
            ("a..b", Some("a__b")),
            ("ä", None),
            ("", None),
        ];
        for (key, label) in cases {
            assert_eq!(label_name(key).as_deref(), label, "{key}");
        }
    }

    #[test]
    fn attributes_whose_names_collide_are_joined() {
        let attributes = [("a.b", "2"), ("a_b", "3"), ("a-b", "1")].into_iter().collect();
        let labels = translate(&Resource::default(), &attributes, &[]);
        assert_eq!(labels.get("a_b"), "1;2;3");
    }

    #[test]
    fn a_resource_becomes_job_instance_and_target_info() {
        let mut resource = Resource {
            attributes: [
                ("service.name", "cart"),
                ("service.namespace", "shop"),
                ("service.instance.id", "i1"),
            ]
            .into_iter()
            .collect(),
            ..Resource::default()
        };
        assert_eq!(target_info_labels(&resource), None);
        resource.attributes.0.push(("host.name".into(), "h".into()));
        let labels = target_info_labels(&resource).expect("it has something to tell");
        assert_eq!(labels.to_string(), r#"target_info{host_name="h", instance="i1", job="shop/cart"}"#);
    }
}
