//! Putting the layers of a configuration together. An unknown key is an error that names it and the nearest
//! known one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oteld_env::Disk;
use serde_json::Value;
use thiserror::Error;

use super::Config;

/// Variables that start with `OTELD_` and are not configuration.
const OTHER_VARIABLES: &[&str] = &["OTELD_LOG", "OTELD_HEALTH_ENDPOINT"];

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
        Value::Number(_) => Value::Number(text.parse::<u64>().map_err(|_| invalid("a whole number"))?.into()),
        Value::Bool(_) => Value::Bool(text.parse().map_err(|_| invalid("true or false"))?),
        _ => Value::String(text.into()),
    };
    let slot = key.split('.').try_fold(&mut *tree, |node, level| node.get_mut(level));
    *slot.expect("a known key is in the tree") = value;
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
    fn an_empty_file_is_the_defaults() {
        assert_eq!(load_text("", &[]).expect("defaults"), Config::default());
    }
}
