//! Putting the layers of a configuration together. An unknown key is an error that names it and the nearest
//! known one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oteld_env::Disk;
use serde_json::Value;
use thiserror::Error;

use super::Config;

/// Variables that start with `OTELD_` and are not configuration.
const OTHER_VARIABLES: &[&str] = &[
    "OTELD_LOG",
    "OTELD_HEALTH_ENDPOINT",
    #[cfg(feature = "mutants")]
    "OTELD_MUTANT",
];

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable { path: PathBuf, reason: std::io::Error },
    #[error("the configuration file {path} is not valid YAML: {reason}")]
    NotYaml { path: PathBuf, reason: serde_yaml_ng::Error },
    #[error("unknown key `{key}` in {place}{}", nearest_text(.nearest))]
    UnknownKey { key: String, place: String, nearest: Option<String> },
    #[error("`{key}`: {reason}")]
    Invalid { key: String, reason: String },
}

fn nearest_text(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |nearest| format!("; did you mean `{nearest}`?"))
}

/// Loads the file (where one is given), then `environment` (name, value), then `flags` (key with dots, value).
///
/// # Errors
/// Names the key or the file that is wrong and why.
pub fn load(
    disk: &dyn Disk,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut tree = defaults();
    let known = leaves(&tree);
    if let Some(path) = file {
        let bytes =
            disk.read(path).map_err(|reason| ConfigError::Unreadable { path: path.to_owned(), reason })?;
        let not_yaml = |reason| ConfigError::NotYaml { path: path.to_owned(), reason };
        let overlay: Value = serde_yaml_ng::from_slice(&bytes).map_err(not_yaml)?;
        merge(&mut tree, overlay, "", &path.display().to_string(), &known)?;
    }
    for (name, text) in environment {
        if !name.starts_with("OTELD_") || OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let variables: BTreeMap<String, &String> = known.keys().map(|key| (variable_of(key), key)).collect();
        let Some(key) = variables.get(&name) else {
            if is_of_a_kubernetes_service(&name, &text) {
                continue;
            }
            return Err(ConfigError::UnknownKey {
                nearest: nearest(&name, variables.keys().map(String::as_str)),
                key: name,
                place: "the environment".into(),
            });
        };
        set(&mut tree, key, &text, &known)?;
    }
    for (key, text) in flags {
        if !known.contains_key(&key) {
            return Err(ConfigError::UnknownKey {
                nearest: nearest(&key, known.keys().map(String::as_str)),
                key,
                place: "the flags".into(),
            });
        }
        set(&mut tree, &key, &text, &known)?;
    }
    read_units(&mut tree, "")?;
    let config: Config = serde_path_to_error(tree)?;
    config.check()?;
    Ok(config)
}

fn defaults() -> Value {
    serde_json::to_value(Config::default()).expect("the defaults are plain data")
}

/// Every key that can be set, with dots between its levels, and its default.
fn leaves(tree: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: String, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(value, path, into);
                }
            }
            leaf => {
                into.insert(path, leaf.clone());
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(tree, String::new(), &mut into);
    into
}

fn variable_of(key: &str) -> String {
    format!("OTELD_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

fn merge(
    base: &mut Value,
    overlay: Value,
    path: &str,
    place: &str,
    known: &BTreeMap<String, Value>,
) -> Result<(), ConfigError> {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => {
            for (key, value) in overlay {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let Some(slot) = base.get_mut(&key) else {
                    let sections =
                        known.keys().filter_map(|key| key.split_once('.')).map(|(section, _)| section);
                    let candidates = known.keys().map(String::as_str).chain(sections);
                    let nearest = nearest(&path, candidates);
                    return Err(ConfigError::UnknownKey { key: path, place: place.into(), nearest });
                };
                merge(slot, value, &path, place, known)?;
            }
            Ok(())
        }
        (Value::Object(_), Value::Null) => Ok(()),
        (Value::Object(_), other) => Err(ConfigError::Invalid {
            key: if path.is_empty() { place.into() } else { path.into() },
            reason: format!("expected a section with keys, found `{other}`"),
        }),
        (slot, value) => {
            *slot = value;
            Ok(())
        }
    }
}

/// Sets one key from text: lists by commas, numbers and booleans by the type of the default.
fn set(tree: &mut Value, key: &str, text: &str, known: &BTreeMap<String, Value>) -> Result<(), ConfigError> {
    let invalid =
        |what: &str| ConfigError::Invalid { key: key.into(), reason: format!("`{text}` is not {what}") };
    let value = match &known[key] {
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.into())).collect())
        }
        Value::Number(_) => match text.parse::<u64>() {
            Ok(number) => Value::Number(number.into()),
            Err(_) if Unit::of(key).is_some() => Value::String(text.into()),
            Err(_) => return Err(invalid("a whole number")),
        },
        Value::Bool(_) => Value::Bool(text.parse().map_err(|_| invalid("true or false"))?),
        _ => Value::String(text.into()),
    };
    let slot = key.split('.').try_fold(&mut *tree, |node, level| node.get_mut(level));
    *slot.expect("a known key is in the tree") = value;
    Ok(())
}

/// Kubernetes gives every container variables for every service of its namespace, and a service may be called
/// `oteld` (kubernetes.io/docs/concepts/services-networking/service, "Environment variables").
fn is_of_a_kubernetes_service(name: &str, value: &str) -> bool {
    let is_link = |name: &str| {
        let mut end = name.rsplit("_PORT_").next().unwrap_or_default().split('_');
        let is_port = end.next().is_some_and(|port| port.parse::<u16>().is_ok());
        let is_protocol = end.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol));
        is_port && is_protocol && matches!(end.next(), None | Some("ADDR" | "PORT" | "PROTO"))
    };
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url)
        || is_link(name)
}

/// What the end of a key's name says that its number counts.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Milliseconds,
}

impl Unit {
    fn of(key: &str) -> Option<Unit> {
        let name = key.rsplit('.').next().unwrap_or(key);
        let words = || name.split('_');
        if words().any(|word| word == "bytes") {
            Some(Unit::Bytes)
        } else if words().any(|word| word == "ms") {
            Some(Unit::Milliseconds)
        } else {
            None
        }
    }

    fn factor(self, unit: &str) -> Option<u64> {
        let factors: &[(&str, u64)] = match self {
            Unit::Bytes => &[
                ("B", 1),
                ("KiB", 1 << 10),
                ("MiB", 1 << 20),
                ("GiB", 1 << 30),
                ("TiB", 1 << 40),
                ("kB", 1_000),
                ("MB", 1_000_000),
                ("GB", 1_000_000_000),
                ("TB", 1_000_000_000_000),
            ],
            Unit::Milliseconds => {
                &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
            }
        };
        factors.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
    }

    /// A number with an optional unit, such as `256MiB` or `30s`.
    fn parse(self, text: &str) -> Option<u64> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..end].parse().ok()?;
        match text[end..].trim_start() {
            "" => Some(number),
            unit => number.checked_mul(self.factor(unit)?),
        }
    }
}

/// Turns sizes and durations that are written with units into the numbers that they are.
fn read_units(value: &mut Value, path: &str) -> Result<(), ConfigError> {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                read_units(value, &path)?;
            }
        }
        Value::String(text) => {
            let Some(unit) = Unit::of(path) else { return Ok(()) };
            let number = unit.parse(text.trim()).ok_or_else(|| ConfigError::Invalid {
                key: path.to_owned(),
                reason: match unit {
                    Unit::Bytes => {
                        format!("`{text}` is not a size in bytes, or such as 64KiB, 256MiB or 1GiB")
                    }
                    Unit::Milliseconds => {
                        format!("`{text}` is not a time in milliseconds, or such as 500ms, 30s or 5m")
                    }
                },
            })?;
            *value = Value::Number(number.into());
        }
        _ => {}
    }
    Ok(())
}

/// Deserialises section by section, so that an error names the key.
fn serde_path_to_error(tree: Value) -> Result<Config, ConfigError> {
    let Value::Object(sections) = &tree else { unreachable!("the defaults are a map") };
    for (name, section) in sections {
        let mut probe = defaults();
        let Value::Object(keys) = section else { continue };
        for (key, value) in keys {
            probe[name][key] = value.clone();
            if let Err(error) = serde_json::from_value::<Config>(probe.clone()) {
                return Err(ConfigError::Invalid { key: format!("{name}.{key}"), reason: error.to_string() });
            }
        }
    }
    serde_json::from_value(tree)
        .map_err(|error| ConfigError::Invalid { key: "configuration".into(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use oteld_env::RealDisk;

    use super::*;
    use crate::config::Role;

    fn load_text(yaml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("oteld.yaml");
        RealDisk::new().replace(&path, yaml.as_bytes()).expect("a written file");
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load(&RealDisk::new(), Some(&path), environment, []).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load_text(
            "node: {name: a, roles: [front, meta]}\nlisten: {otlp_grpc: '0.0.0.0:1'}",
            &[("OTELD_LISTEN_OTLP_GRPC", "0.0.0.0:2"), ("OTELD_NODE_ROLES", "meta, storage"), ("PATH", "x")],
        )
        .expect("a valid configuration");
        assert_eq!(config.listen.otlp_grpc, "0.0.0.0:2");
        assert_eq!(config.node.roles, [Role::Meta, Role::Storage]);
        assert_eq!(config.node.name, "a");
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let error = load_text("listen: {otlp_grcp: ':1'}", &[]).expect_err("an unknown key");
        assert!(error.contains("`listen.otlp_grcp`") && error.contains("`listen.otlp_grpc`"), "{error}");
        let error = load_text("", &[("OTELD_NODE_NAM", "a")]).expect_err("an unknown variable");
        assert!(error.contains("OTELD_NODE_NAME"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        let error = load_text("meta: {shards: many}", &[]).expect_err("a wrong type");
        assert!(error.contains("meta.shards"), "{error}");
        let error = load_text("meta: {shards: 63}", &[]).expect_err("a wrong number");
        assert!(error.contains("power of two"), "{error}");
        let error = load_text("retention: {logs: 30}", &[]).expect_err("no unit");
        assert!(error.contains("retention.logs"), "{error}");
        let error = load_text("", &[("OTELD_RETENTION_TRACES", "a while")]).expect_err("no time");
        assert!(error.contains("retention.traces") && error.contains("30d"), "{error}");
    }

    #[test]
    fn a_new_cluster_waits_for_as_many_storage_nodes_as_there_are_replicas() {
        let founding = |yaml: &str| load_text(yaml, &[]).map(|config| config.meta.founding_storage_nodes());
        assert_eq!(founding(""), Ok(3));
        assert_eq!(founding("meta: {replication_factor: 1}"), Ok(1));
        assert_eq!(founding("meta: {expected_storage_nodes: 5}"), Ok(5));
        let error = founding("meta: {expected_storage_nodes: 1}").expect_err("fewer nodes than replicas");
        assert!(error.contains("meta.expected_storage_nodes") && error.contains("3 replicas"), "{error}");
    }

    #[test]
    fn what_kubernetes_says_of_a_service_called_oteld_is_no_configuration() {
        let injected = [
            ("OTELD_SERVICE_HOST", "10.0.0.1"),
            ("OTELD_SERVICE_PORT", "8081"),
            ("OTELD_SERVICE_PORT_OTLP_GRPC", "4317"),
            ("OTELD_PORT", "tcp://10.0.0.1:8081"),
            ("OTELD_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
            ("OTELD_PORT_8081_TCP_PROTO", "tcp"),
            ("OTELD_PORT_8081_TCP_PORT", "8081"),
            ("OTELD_PORT_8081_TCP_ADDR", "10.0.0.1"),
            ("OTELD_FRONT_SERVICE_HOST", "10.0.0.2"),
        ];
        assert_eq!(load_text("", &injected), Ok(Config::default()));
        for mistake in [("OTELD_PORT", "8081"), ("OTELD_LISTEN_PORT", "1"), ("OTELD_PORT_X_TCP", "1")] {
            let error = load_text("", &[mistake]).expect_err("not of Kubernetes");
            assert!(error.contains(mistake.0), "{error}");
        }
    }

    #[test]
    fn sizes_and_times_may_have_units() {
        let config = load_text(
            "storage: {memtable_bytes_max: 256MiB, min_free_bytes: 1 GB, wal_keep_bytes: 17}",
            &[("OTELD_INGEST_TIMEOUT_MS", "30s"), ("OTELD_QUERY_BYTES_SCANNED_MAX", "2GiB")],
        )
        .expect("a valid configuration");
        assert_eq!(config.storage.memtable_bytes_max, 256 << 20);
        assert_eq!((config.storage.min_free_bytes, config.storage.wal_keep_bytes), (1_000_000_000, 17));
        assert_eq!((config.ingest.timeout_ms, config.query.bytes_scanned_max), (30_000, 2 << 30));
        for yaml in
            ["storage: {min_free_bytes: 1 XB}", "ingest: {timeout_ms: 5MiB}", "storage: {min_free_bytes: -1}"]
        {
            let error = load_text(yaml, &[]).expect_err("no such unit");
            assert!(error.contains("min_free_bytes") || error.contains("timeout_ms"), "{error}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_starts() {
        for (key, yaml) in [
            ("listen.otlp_grpc", "listen: {otlp_grpc: nonsense}"),
            ("listen.otlp_http", "listen: {otlp_http: ':4318'}"),
            ("listen.query", "listen: {query: 'http://127.0.0.1:8081'}"),
            ("listen.node", "listen: {node: '127.0.0.1:70700'}"),
            ("advertise", "advertise: a:b"),
            ("telemetry.endpoint", "telemetry: {endpoint: 'ftp://x:1'}"),
            ("telemetry.interval_ms", "telemetry: {interval_ms: 0}"),
            ("storage.memtable_bytes_max", "storage: {memtable_bytes_max: 0}"),
            ("meta.members", "meta: {members: [node-1=x:y]}"),
        ] {
            let error = load_text(yaml, &[]).expect_err(yaml);
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
        for yaml in [
            "listen: {query: '[::1]:8081', otlp_http: 'localhost:1', otlp_grpc: ''}",
            "telemetry: {endpoint: 'http://front-1:4317'}",
        ] {
            load_text(yaml, &[]).expect(yaml);
        }
    }

    /// As docs/configuration.md writes it: the largest unit that leaves a whole number.
    fn default_text(key: &str, default: &Value) -> String {
        let text = match default {
            Value::Number(number) => {
                let number = number.as_u64().expect("a whole number");
                let units: &[&str] = match Unit::of(key) {
                    Some(Unit::Bytes) => &["TiB", "GiB", "MiB", "KiB", "B"],
                    Some(Unit::Milliseconds) => &["d", "h", "m", "s", "ms"],
                    None => return format!("`{number}`"),
                };
                let with_unit = units.iter().find_map(|unit| {
                    let factor = Unit::of(key)?.factor(unit)?;
                    (number >= factor && number % factor == 0).then(|| format!("{}{unit}", number / factor))
                });
                with_unit.unwrap_or_else(|| number.to_string())
            }
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if text.is_empty() { "empty".into() } else { format!("`{text}`") }
    }

    #[test]
    fn the_document_has_every_key_its_variable_and_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let document = String::from_utf8(RealDisk::new().read(&path).expect("the document")).expect("UTF-8");
        let known = leaves(&defaults());
        for (key, default) in &known {
            let row = format!("| `{key}` | `{}` | {} | ", variable_of(key), default_text(key, default));
            assert!(document.contains(&row), "docs/configuration.md has no row that begins with\n{row}");
        }
        let rows = document.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, known.len(), "docs/configuration.md has rows of keys that do not exist");
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(load_text("", &[]).expect("defaults"), Config::default());
    }
}
