//! OpenTelemetry logs as Loki shows them: stream labels, structured metadata and a line.
//!
//! As Loki's OTLP endpoint maps them by default (grafana.com/docs/loki, "Ingesting logs to Loki using
//! OpenTelemetry Collector"): a fixed list of resource attributes becomes stream labels, everything else of the
//! record, its scope and its resource becomes structured metadata.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use oteld_store::model::{AnyValue, Attributes, LogRecord, LogRow, Stream};

use super::level;
use crate::text::value_text;

/// Label names and values, in order of their names.
pub type Labels = BTreeMap<String, String>;

/// The label that a stream always has.
const SERVICE_NAME: &str = "service_name";

/// What [`SERVICE_NAME`] says where the resource names no service.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Resource attributes that become stream labels: Loki's default
/// (`distributor.otlp.default_resource_attributes_as_index_labels`), with `cloud.platform` of its later versions.
const STREAM_ATTRIBUTES: [&str; 19] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "cloud.platform",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.name",
    "k8s.replicaset.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

/// A resource and scope as Loki sees them, made once a stream and query.
#[derive(Clone, Debug)]
pub(super) struct StreamView {
    pub(super) labels: Arc<Labels>,
    /// Structured metadata of the scope and the resource, each name once.
    metadata: Vec<(String, String)>,
}

impl StreamView {
    pub(super) fn new(stream: &Stream) -> Self {
        let mut labels = stream_labels(stream);
        labels.entry(SERVICE_NAME.to_owned()).or_insert_with(|| UNKNOWN_SERVICE.to_owned());
        let (resource, scope) = (&stream.resource, &stream.scope);
        let mut metadata = Metadata::new(&labels, None);
        metadata.push("scope_name", || scope.name.to_string());
        metadata.push("scope_version", || scope.version.to_string());
        metadata.push_count("scope_dropped_attributes_count", scope.dropped_attributes_count);
        metadata.push_attributes(&scope.attributes);
        metadata.push_count("resource_dropped_attributes_count", resource.dropped_attributes_count);
        for (key, value) in resource.attributes.iter().filter(|(key, _)| !STREAM_ATTRIBUTES.contains(key)) {
            metadata.push_value(&label_name(key), value);
        }
        let metadata = metadata.found.into_iter().collect();
        StreamView { labels: Arc::new(labels), metadata }
    }

    /// The structured metadata of a row: its own, then its scope's, then its resource's; the first of a name
    /// wins. With `wanted`, only those names.
    pub(super) fn metadata(&self, row: &LogRow, line: &str, wanted: Option<&BTreeSet<String>>) -> Labels {
        let record = &row.record;
        let mut metadata = Metadata::new(&self.labels, wanted);
        metadata.push_attributes(&record.attributes);
        push_record_fields(&mut metadata, record);
        for (name, value) in &self.metadata {
            metadata.push(name, || value.clone());
        }
        if metadata.wants("detected_level") {
            let detected = level::detect(record, &metadata.found, line);
            metadata.push("detected_level", || detected.to_owned());
        }
        metadata.found
    }
}

fn stream_labels(stream: &Stream) -> Labels {
    let mut labels = Labels::new();
    for name in STREAM_ATTRIBUTES {
        let Some(value) = stream.resource.attributes.get(name) else { continue };
        flatten(&label_name(name), value, &mut |name, value| {
            if !value.is_empty() {
                labels.entry(name.to_owned()).or_insert(value);
            }
        });
    }
    if !labels.contains_key(SERVICE_NAME) {
        // Of the names that Loki looks under by default, those that can be stream labels of OTLP logs.
        let other = ["container_name", "k8s_container_name", "k8s_job_name"];
        if let Some(name) = other.iter().find_map(|name| labels.get(*name)).cloned() {
            labels.insert(SERVICE_NAME.to_owned(), name);
        }
    }
    labels
}

fn push_record_fields(metadata: &mut Metadata<'_>, record: &LogRecord) {
    metadata.push_count("dropped_attributes_count", record.dropped_attributes_count);
    metadata.push("event_name", || record.event_name.to_string());
    metadata.push_count("flags", record.flags);
    if record.observed_time_unix_nano != 0 {
        metadata.push("observed_timestamp", || record.observed_time_unix_nano.to_string());
    }
    metadata.push_count("severity_number", u32::from(record.severity_number));
    metadata.push("severity_text", || record.severity_text.to_string());
    if record.span_id != [0; 8] {
        metadata.push("span_id", || format!("{:016x}", u64::from_be_bytes(record.span_id)));
    }
    if record.trace_id != [0; 16] {
        metadata.push("trace_id", || format!("{:032x}", u128::from_be_bytes(record.trace_id)));
    }
}

/// Structured metadata as it is gathered. A name that the stream has too gets `_extracted` behind it.
struct Metadata<'a> {
    stream: &'a Labels,
    wanted: Option<&'a BTreeSet<String>>,
    found: Labels,
}

impl<'a> Metadata<'a> {
    fn new(stream: &'a Labels, wanted: Option<&'a BTreeSet<String>>) -> Self {
        Metadata { stream, wanted, found: Labels::new() }
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_none_or(|wanted| wanted.contains(name))
    }

    fn push(&mut self, name: &str, value: impl FnOnce() -> String) {
        let name = match self.stream.contains_key(name) {
            true => Cow::Owned(format!("{name}_extracted")),
            false => Cow::Borrowed(name),
        };
        // The level may be read from any of these, so they stay until it is known.
        let wanted = self.wants(&name) || (self.wants("detected_level") && level::FIELDS.contains(&&*name));
        if !wanted || self.found.contains_key(&*name) {
            return;
        }
        let value = value();
        if !value.is_empty() {
            self.found.insert(name.into_owned(), value);
        }
    }

    fn push_count(&mut self, name: &str, count: u32) {
        if count != 0 {
            self.push(name, || count.to_string());
        }
    }

    fn push_attributes(&mut self, attributes: &Attributes) {
        for (key, value) in attributes.iter() {
            self.push_value(&label_name(key), value);
        }
    }

    fn push_value(&mut self, name: &str, value: &AnyValue) {
        match value {
            AnyValue::KeyValues(_) => flatten(name, value, &mut |name, value| self.push(name, || value)),
            _ => self.push(name, || value_text(value).into_owned()),
        }
    }
}

/// Nested maps become one name each, joined with underscores.
fn flatten(name: &str, value: &AnyValue, push: &mut dyn FnMut(&str, String)) {
    match value {
        AnyValue::KeyValues(attributes) => {
            for (key, value) in attributes.iter() {
                flatten(&format!("{name}_{}", sanitized(key)), value, push);
            }
        }
        _ => push(name, value_text(value).into_owned()),
    }
}

/// A label name of an attribute name, as Prometheus normalises it: other characters than letters, digits and
/// underscores become underscores, and a name that starts with a digit or one underscore gets `key` before it.
pub(super) fn label_name(name: &str) -> Cow<'_, str> {
    let sanitized = sanitized(name);
    if sanitized.starts_with(|c: char| c.is_ascii_digit()) {
        return Cow::Owned(format!("key_{sanitized}"));
    }
    if sanitized.starts_with('_') && !sanitized.starts_with("__") {
        return Cow::Owned(format!("key{sanitized}"));
    }
    sanitized
}

/// `name` with an underscore for every character that a label name cannot hold.
pub(super) fn sanitized(name: &str) -> Cow<'_, str> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(valid) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|c| if valid(c) { c } else { '_' }).collect())
}

/// The line of a record: its body, as JSON where it is not a plain value.
pub(super) fn line(body: &AnyValue) -> Cow<'_, str> {
    value_text(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid_label_names() {
        for (name, label) in [
            ("http.status-code", "http_status_code"),
            ("plain_name", "plain_name"),
            ("0day", "key_0day"),
            ("_private", "key_private"),
            ("__double", "__double"),
            ("größe", "gr__e"),
        ] {
            assert_eq!(label_name(name), label);
        }
    }

    #[test]
    fn a_body_that_is_not_text_is_shown_as_json() {
        let body = AnyValue::KeyValues(Attributes(vec![
            ("b".into(), AnyValue::Array(vec![AnyValue::Int(1), AnyValue::Double(f64::INFINITY)])),
            ("a".into(), AnyValue::from("x")),
        ]));
        assert_eq!(line(&body), r#"{"a":"x","b":[1,"+Inf"]}"#);
        assert_eq!(line(&AnyValue::Bytes(vec![255, 0].into())), "/wA=");
        assert_eq!(line(&AnyValue::Double(0.5)), "0.5");
    }
}
