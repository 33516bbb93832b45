//! What a node measures about itself: one list of readings, shown at `/metrics` and sent over OTLP.

use std::fmt::Write;
use std::sync::Arc;

/// Whether a value only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// One value, now.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// OpenTelemetry style, with dots.
    pub name: &'static str,
    pub help: &'static str,
    /// UCUM, as OpenTelemetry has it: `By`, `s`, `{request}`.
    pub unit: &'static str,
    pub kind: Kind,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

impl Reading {
    pub fn counter(name: &'static str, unit: &'static str, help: &'static str, value: u64) -> Self {
        Reading { name, help, unit, kind: Kind::Counter, labels: Vec::new(), value: value as f64 }
    }

    pub fn gauge(name: &'static str, unit: &'static str, help: &'static str, value: u64) -> Self {
        Reading { kind: Kind::Gauge, ..Reading::counter(name, unit, help, value) }
    }

    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// Reads all values of a node. Cheap to clone.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn() -> Vec<Reading> + Send + Sync>);

impl Source {
    pub fn new(read: impl Fn() -> Vec<Reading> + Send + Sync + 'static) -> Self {
        Source(Arc::new(read))
    }

    pub fn read(&self) -> Vec<Reading> {
        (self.0)()
    }
}

/// The readings in Prometheus' text exposition format, version 0.0.4.
pub fn to_prometheus_text(mut readings: Vec<Reading>) -> String {
    readings.sort_by(|a, b| a.name.cmp(b.name));
    let mut text = String::new();
    let mut last = "";
    for reading in &readings {
        let name = prometheus_name(reading);
        if last != reading.name {
            last = reading.name;
            let kind = match reading.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", reading.help);
        }
        let labels: Vec<String> = (reading.labels.iter())
            .map(|(key, value)| format!("{}=\"{}\"", key.replace('.', "_"), escape(value)))
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{name}{labels} {}", reading.value);
    }
    text
}

fn prometheus_name(reading: &Reading) -> String {
    let mut name = reading.name.replace('.', "_");
    match reading.unit {
        "By" => name.push_str("_bytes"),
        "s" => name.push_str("_seconds"),
        _ => {}
    }
    if reading.kind == Kind::Counter {
        name.push_str("_total");
    }
    name
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_one_name_share_their_header() {
        let readings = vec![
            Reading::counter("oteld.write.items", "{item}", "Items.", 3).with("signal", "logs"),
            Reading::gauge("oteld.store.disk", "By", "Bytes.", 7),
            Reading::counter("oteld.write.items", "{item}", "Items.", 4).with("signal", "a\"b"),
        ];
        assert_eq!(
            to_prometheus_text(readings),
            "# HELP oteld_store_disk_bytes Bytes.\n# TYPE oteld_store_disk_bytes gauge\noteld_store_disk_bytes 7\n\
             # HELP oteld_write_items_total Items.\n# TYPE oteld_write_items_total counter\n\
             oteld_write_items_total{signal=\"logs\"} 3\noteld_write_items_total{signal=\"a\\\"b\"} 4\n"
        );
    }
}
